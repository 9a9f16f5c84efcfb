use dunlin_base::SecretKey;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

fn account(seed: u8) -> AccountId {
    AccountId::new(SecretKey::from_seed([seed; 32]).public())
}

fn contact() -> Link {
    Link::Contact(ContactLink { seed: [7; 32], account: account(1), name: DisplayName::chosen("Ann").ok() })
}

fn group() -> Link {
    let (group, _) = Group::new_multi_member(&mut ChaCha20Rng::from_seed([1; 32]));
    Link::Group(GroupLink { group, name: DisplayName::chosen("Room").ok() })
}

fn message() -> Link {
    let entry = EntryId::of_block(b"block");
    Link::Message(MessageLink { account: "0".into(), group: GroupId::new(*account(2).key()), entry })
}

fn changed(link: &Link, change: impl FnOnce(&mut BertyLink)) -> LinkError {
    let mut wire = link.to_wire();
    change(&mut wire);
    Link::from_wire(&wire).unwrap_err()
}

#[test]
fn both_forms_lead_to_the_same() {
    for link in [contact(), group(), message(), contact().protect("s", [1; 16]).unwrap()] {
        assert_eq!(Link::parse(&link.web()).unwrap(), link);
        assert_eq!(Link::parse(&link.qr()).unwrap(), link);
        assert_eq!(Link::parse(&format!("\n {} \t", link.web())).unwrap(), link);
    }
}

#[test]
fn every_shorter_text_is_refused_without_a_panic() {
    for link in [contact(), group(), contact().protect("s", [1; 16]).unwrap()] {
        let qr = link.qr();
        for end in 0..qr.len() {
            assert!(Link::parse(&qr[..end]).is_err(), "{end}");
        }
        let web = link.web();
        let machine_end = web.rfind("/name").unwrap();
        for end in 0..machine_end {
            assert!(Link::parse(&web[..end]).is_err(), "{end}");
        }
    }
}

#[test]
fn lengths_are_exact() {
    let contact_with = |seed: Vec<u8>, key: Vec<u8>| {
        changed(&contact(), |wire| {
            let id = wire.berty_id.as_mut().unwrap();
            (id.public_rendezvous_seed, id.account_pk) = (seed, key);
        })
    };
    let key = account(1).as_bytes().to_vec();
    let length = |field, found| LinkError::Length { field, expected: 32, found };
    assert_eq!(contact_with(vec![1; 16], key.clone()), length("rendezvous seed", 16));
    assert_eq!(contact_with(vec![1; 33], key.clone()), length("rendezvous seed", 33));
    assert_eq!(contact_with(vec![1; 32], vec![2; 31]), length("account key", 31));
    assert_eq!(contact_with(vec![], key), LinkError::Incomplete);
    assert!(matches!(contact_with(vec![1; 32], vec![0xff; 32]), LinkError::Key(_)));
}

#[test]
fn groups_need_a_secret_that_the_group_key_signed() {
    let group_with = |change: &dyn Fn(&mut dunlin_proto::protocol::Group)| {
        changed(&group(), |wire| change(wire.berty_group.as_mut().unwrap().group.as_mut().unwrap()))
    };
    assert_eq!(group_with(&|group| group.secret.clear()), LinkError::Incomplete);
    assert_eq!(group_with(&|group| group.secret_sig.clear()), LinkError::Incomplete);
    assert_eq!(group_with(&|group| group.group_type = 2), LinkError::NotForSharing);
    assert_eq!(group_with(&|group| group.group_type = 9), LinkError::NotForSharing);
    assert!(matches!(group_with(&|group| group.secret[0] ^= 1), LinkError::Group(GroupError::Forged { .. })));
    assert!(matches!(
        group_with(&|group| group.link_key_sig[0] ^= 1),
        LinkError::Group(GroupError::Forged { .. })
    ));
    assert!(matches!(
        group_with(&|group| group.secret.truncate(31)),
        LinkError::Group(GroupError::Length { .. })
    ));
}

#[test]
fn unknown_kinds_come_from_another_version() {
    for kind in [5, -1, 99] {
        assert_eq!(changed(&contact(), |wire| wire.kind = kind), LinkError::OtherVersion);
    }
    assert_eq!(changed(&contact(), |wire| wire.kind = 0), LinkError::Incomplete);
    assert_eq!(changed(&contact(), |wire| wire.kind = 2), LinkError::Incomplete);
}

#[test]
fn passphrases_open_or_say_no() {
    for link in [contact(), group()] {
        let protected = link.protect("tide", [9; 16]).unwrap().web();
        assert_eq!(Link::parse_with(&protected, "tide").unwrap(), link);
        assert_eq!(Link::parse_with(&protected, ""), Err(LinkError::PasswordNeeded));
        assert_eq!(Link::parse_with(&protected, "ebb"), Err(LinkError::PasswordWrong));
        assert_eq!(Link::parse_with(&link.qr(), "ebb").unwrap(), link);
    }
    assert_eq!(contact().protect("", [9; 16]), Err(LinkError::PasswordNeeded));
    assert_eq!(message().protect("tide", [9; 16]), Err(LinkError::NotForSharing));
}

#[test]
fn names_in_links_are_made_safe() {
    let base = contact().web();
    let (base, _) = base.split_once("/name").unwrap();
    let Link::Contact(link) = Link::parse(&format!("{base}/name=%1b%5B2J%E2%80%AEAnn")).unwrap() else {
        panic!("a contact")
    };
    assert_eq!(link.name.unwrap().as_str(), "[2JAnn");
}

#[test]
fn secrets_do_not_show() {
    let shown = format!("{:?} {:?} {:?}", contact(), group(), contact().protect("s", [1; 16]).unwrap());
    assert!(!shown.contains("7, 7") && !shown.contains("Ann") && !shown.contains("Room"), "{shown}");
}
