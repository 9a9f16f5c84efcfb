use dunlin_base::kv::MemoryStore;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::*;

fn rng() -> ChaCha12Rng {
    ChaCha12Rng::seed_from_u64(1)
}

fn seed(first: u8) -> SecretKey {
    SecretKey::from_seed(std::array::from_fn(|i| first + i as u8))
}

#[test]
fn contact_group_matches_the_published_vector_from_both_sides() {
    // spec/wesh-protocol.md A.2.
    let a = AccountKeys::new(seed(0x00), seed(0x40), SecretKey::from_seed([1; 32]));
    let b = AccountKeys::new(seed(0x20), seed(0x60), SecretKey::from_seed([2; 32]));
    let group = Group::contact(&a, &b.account_id()).unwrap();
    assert_eq!(group, Group::contact(&b, &a.account_id()).unwrap());
    assert_eq!(group.id().to_string(), "9a029b1b526b7185770b2dc7da55a19b5b11dac5ca44da577c8671a807308d83");
    assert_eq!(
        group.sign_pub().to_string(),
        "2f4bbef67ec2073cbd5c114b58c8b97d8187729d353b7507c830c3872d064820"
    );
    assert_eq!(
        hex::encode(group.secret().as_bytes()),
        "3c36830a206fac7ea51ee8061f2c9ee94aff8c62ac6b29e1572cf2435daa6e0f"
    );
    assert_eq!(
        hex::encode(group.link_key().as_bytes()),
        "e35d46b6b14df32e1c69cce1a23aaec9cebe7ac822fc37e26cfd214b6b535897"
    );
}

#[test]
fn groups_survive_the_wire() {
    let keys = AccountKeys::generate(&mut rng());
    let other = AccountKeys::generate(&mut ChaCha12Rng::seed_from_u64(2));
    let groups = [
        Group::account(&keys),
        Group::contact(&keys, &other.account_id()).unwrap(),
        Group::new_multi_member(&mut rng()).0,
    ];
    for group in groups {
        let wire = group.to_proto();
        let back = Group::from_proto(&wire).unwrap();
        assert_eq!(back, group);
        assert_eq!(back.to_proto(), wire);
    }
}

#[test]
fn link_lengths() {
    let good = Group::new_multi_member(&mut rng()).0.to_proto();
    type Change = fn(&mut proto::Group);
    let cases: [(&str, Change); 10] = [
        ("public key short", |group| group.public_key.truncate(group.public_key.len() - 1)),
        ("secret short", |group| group.secret.truncate(group.secret.len() - 1)),
        ("secret long", |group| group.secret.push(0)),
        ("secret missing", |group| group.secret.clear()),
        ("secret_sig missing", |group| group.secret_sig.clear()),
        ("secret_sig short", |group| group.secret_sig.truncate(group.secret_sig.len() - 1)),
        ("link_key_sig short", |group| group.link_key_sig.truncate(group.link_key_sig.len() - 1)),
        ("sign_pub short", |group| group.sign_pub = vec![1; 31]),
        ("link_key long", |group| group.link_key = vec![1; 33]),
        ("kind unknown", |group| group.group_type = 4),
    ];
    for (name, change) in cases {
        let mut group = good.clone();
        change(&mut group);
        assert!(Group::from_proto(&group).is_err(), "{name}");
    }
}

#[test]
fn signatures_and_derived_fields_are_checked() {
    let good = Group::new_multi_member(&mut rng()).0.to_proto();
    let refusal = |change: fn(&mut proto::Group)| {
        let mut group = good.clone();
        change(&mut group);
        Group::from_proto(&group).unwrap_err()
    };
    assert_eq!(refusal(|group| group.secret[0] ^= 1), GroupError::Forged { field: "secret_sig" });
    assert_eq!(refusal(|group| group.secret_sig[9] ^= 1), GroupError::Forged { field: "secret_sig" });
    assert_eq!(refusal(|group| group.link_key_sig[9] ^= 1), GroupError::Forged { field: "link_key_sig" });
    assert_eq!(
        refusal(|group| group.link_key = vec![7; 32]),
        GroupError::Contradiction { field: "link_key" }
    );
    assert_eq!(
        refusal(|group| group.sign_pub = vec![7; 32]),
        GroupError::Contradiction { field: "sign_pub" }
    );
}

#[test]
fn device_key_of_a_group_is_made_once() {
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let mut rng = rng();
    let keys = AccountKeys::generate(&mut rng);
    let (group, _) = Group::new_multi_member(&mut rng);
    let (other, _) = Group::new_multi_member(&mut rng);
    let first = OwnMember::in_group(&keys, &group, &mut tx, &mut rng).unwrap();
    let again = OwnMember::in_group(&keys, &group, &mut tx, &mut rng).unwrap();
    let elsewhere = OwnMember::in_group(&keys, &other, &mut tx, &mut rng).unwrap();
    assert_eq!(first.device_id(), again.device_id());
    assert_ne!(first.device_id(), elsewhere.device_id());
    assert_ne!(first.member_id(), elsewhere.member_id());
    let account = OwnMember::in_group(&keys, &Group::account(&keys), &mut tx, &mut rng).unwrap();
    assert_eq!(account.device_id(), keys.device_id());
}

#[test]
fn secret_types_show_nothing() {
    let keys = AccountKeys::generate(&mut rng());
    let group = Group::account(&keys);
    assert_eq!(format!("{group:?}"), format!("Group {{ id: GroupId({}), kind: Account, .. }}", group.id()));
    let own = OwnMember { member: keys.account.clone(), device: keys.device.clone() };
    assert_eq!(format!("{own:?}"), "OwnMember { member: SecretKey(..), device: SecretKey(..) }");
}
