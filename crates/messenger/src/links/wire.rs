//! Links as text and as protobuf, without a look at what the fields hold.
//!
//! ```text
//! https://berty.tech/id#<kind>/<machine>[/name=<name>]    machine: base58 of a BertyLink
//! BERTY://PB/<blob>                                       blob: base 42 of a BertyLink
//! ```
//!
//! In the web form the BertyLink has neither kind nor name: those stand beside it for people to read. The
//! QR form holds all of it, in symbols for which QR codes have a short form.

use dunlin_proto::messenger::berty_link::{BertyMessageRef, Encrypted, Kind};
use dunlin_proto::messenger::{BertyGroup, BertyId, BertyLink};
use dunlin_proto::protocol::{Group, GroupType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use prost::Message;

use super::LinkError;
use super::base_x::{BASE58, QR};

const WEB_PREFIX: &str = "https://berty.tech/id#";
const QR_SCHEME: &str = "BERTY://";
const QR_PREFIX: &str = "BERTY://PB/";

/// Longest link that is looked at, in bytes. A group link with the longest name has about 3,600.
pub const LINK_BYTES_MAX: usize = 4096;

/// What a name keeps unescaped in the web form; spaces become `+`.
const NAME_ESCAPES: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// Reads either form. Nothing is checked but that the text holds a link of a known kind:
/// see [`check_form`], and [`Link`](super::Link) for what can be used.
///
/// # Errors
/// [`LinkError`] says what is wrong with the text.
pub fn from_text(text: &str) -> Result<BertyLink, LinkError> {
    if text.len() > LINK_BYTES_MAX {
        return Err(LinkError::TooLong);
    }
    if let Some(rest) = strip_prefix_any_case(text, QR_SCHEME) {
        return from_qr(rest);
    }
    match strip_prefix_any_case(text, WEB_PREFIX) {
        Some(fragment) => from_fragment(fragment),
        None if strip_prefix_any_case(text, "https://berty.tech/id") == Some("") => {
            Err(LinkError::Incomplete)
        }
        None if text.contains("://") => Err(LinkError::WrongHost),
        None => Err(LinkError::NoLink),
    }
}

fn from_qr(rest: &str) -> Result<BertyLink, LinkError> {
    let (form, blob) = rest.split_once('/').ok_or(LinkError::Incomplete)?;
    if !form.eq_ignore_ascii_case("pb") {
        return Err(LinkError::OtherVersion);
    }
    let bytes = QR.decode(blob).ok_or(LinkError::Damaged)?;
    BertyLink::decode(&*bytes).map_err(|_| LinkError::Damaged)
}

fn from_fragment(fragment: &str) -> Result<BertyLink, LinkError> {
    let mut parts = fragment.splitn(3, '/');
    let (kind, machine, human) = (parts.next(), parts.next(), parts.next());
    let kind = kind_of_word(kind.unwrap_or_default())?;
    let machine = machine.filter(|blob| !blob.is_empty()).ok_or(LinkError::Incomplete)?;
    let bytes = BASE58.decode(machine).ok_or(LinkError::Damaged)?;
    let mut link = BertyLink::decode(&*bytes).map_err(|_| LinkError::Damaged)?;
    link.kind = kind.into();
    let name = human.and_then(name_in).unwrap_or_default();
    match kind {
        Kind::ContactInviteV1Kind => fill(&mut link.berty_id.get_or_insert_default().display_name, name),
        Kind::GroupV1Kind => fill(&mut link.berty_group.get_or_insert_default().display_name, name),
        Kind::EncryptedV1Kind => match &mut link.encrypted {
            Some(encrypted) => fill(&mut encrypted.display_name, name),
            None => return Err(LinkError::Incomplete),
        },
        Kind::MessageV1Kind | Kind::UnknownKind => {}
    }
    Ok(link)
}

/// A name inside the machine part goes before the one beside it.
fn fill(slot: &mut String, name: String) {
    if slot.is_empty() {
        *slot = name;
    }
}

/// The first `name` of a query string, with `+` for spaces. Other keys are for later versions.
fn name_in(query: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| *key == "name")?;
    let value = value.replace('+', " ");
    Some(percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

fn kind_of_word(word: &str) -> Result<Kind, LinkError> {
    match word {
        "contact" => Ok(Kind::ContactInviteV1Kind),
        "group" => Ok(Kind::GroupV1Kind),
        "enc" => Ok(Kind::EncryptedV1Kind),
        "message" => Ok(Kind::MessageV1Kind),
        "" => Err(LinkError::Incomplete),
        _ => Err(LinkError::OtherVersion),
    }
}

fn strip_prefix_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Writes the web form.
///
/// # Errors
/// What [`check_form`] finds.
pub fn to_web(link: &BertyLink) -> Result<String, LinkError> {
    check_form(link)?;
    let (word, machine, name) = match link.kind() {
        Kind::ContactInviteV1Kind => {
            let id = link.berty_id.clone().unwrap_or_default();
            let shown = BertyId { display_name: String::new(), ..id.clone() };
            ("contact", BertyLink { berty_id: Some(shown), ..BertyLink::default() }, id.display_name)
        }
        Kind::GroupV1Kind => {
            let group = link.berty_group.clone().unwrap_or_default();
            let shown = BertyGroup { group: group.group.map(without_link_key), display_name: String::new() };
            ("group", BertyLink { berty_group: Some(shown), ..BertyLink::default() }, group.display_name)
        }
        Kind::EncryptedV1Kind => {
            let encrypted = link.encrypted.clone().unwrap_or_default();
            let shown = Encrypted { display_name: String::new(), ..encrypted.clone() };
            ("enc", BertyLink { encrypted: Some(shown), ..BertyLink::default() }, encrypted.display_name)
        }
        Kind::MessageV1Kind => {
            let shown =
                BertyLink { berty_message_ref: link.berty_message_ref.clone(), ..BertyLink::default() };
            ("message", shown, String::new())
        }
        Kind::UnknownKind => return Err(LinkError::OtherVersion),
    };
    let machine = BASE58.encode(&machine.encode_to_vec());
    if name.is_empty() {
        return Ok(format!("{WEB_PREFIX}{word}/{machine}"));
    }
    let name = utf8_percent_encode(&name, NAME_ESCAPES).to_string().replace(' ', "+");
    Ok(format!("{WEB_PREFIX}{word}/{machine}/name={name}"))
}

/// Writes the form for QR codes.
///
/// # Errors
/// What [`check_form`] finds.
pub fn to_qr(link: &BertyLink) -> Result<String, LinkError> {
    check_form(link)?;
    Ok(format!("{QR_PREFIX}{}", QR.encode(&link.encode_to_vec())))
}

/// The link key follows from the secret, so links leave it out.
fn without_link_key(group: Group) -> Group {
    Group { link_key: Vec::new(), ..group }
}

/// Whether the parts that belong to the kind are there. Their lengths and values are not looked at.
///
/// # Errors
/// [`LinkError::Incomplete`], [`LinkError::OtherVersion`] or [`LinkError::NotForSharing`].
pub fn check_form(link: &BertyLink) -> Result<(), LinkError> {
    match Kind::try_from(link.kind).map_err(|_| LinkError::OtherVersion)? {
        Kind::UnknownKind => Err(LinkError::Incomplete),
        Kind::ContactInviteV1Kind => match &link.berty_id {
            Some(BertyId { public_rendezvous_seed: seed, account_pk: account, .. }) => {
                all_there(&[seed, account])
            }
            None => Err(LinkError::Incomplete),
        },
        Kind::GroupV1Kind => match &link.berty_group {
            Some(BertyGroup { group: Some(group), .. }) => is_multi_member(group.group_type),
            _ => Err(LinkError::Incomplete),
        },
        Kind::EncryptedV1Kind => check_encrypted(link.encrypted.as_ref().ok_or(LinkError::Incomplete)?),
        Kind::MessageV1Kind => match &link.berty_message_ref {
            Some(BertyMessageRef { .. }) => Ok(()),
            None => Err(LinkError::Incomplete),
        },
    }
}

fn check_encrypted(encrypted: &Encrypted) -> Result<(), LinkError> {
    match encrypted.kind() {
        Kind::ContactInviteV1Kind => {
            all_there(&[&encrypted.contact_public_rendezvous_seed, &encrypted.contact_account_pk])
        }
        Kind::GroupV1Kind => is_multi_member(encrypted.group_type),
        Kind::UnknownKind | Kind::EncryptedV1Kind | Kind::MessageV1Kind => Err(LinkError::OtherVersion),
    }
}

fn all_there(fields: &[&Vec<u8>]) -> Result<(), LinkError> {
    if fields.iter().any(|field| field.is_empty()) { Err(LinkError::Incomplete) } else { Ok(()) }
}

fn is_multi_member(group_type: i32) -> Result<(), LinkError> {
    if group_type == i32::from(GroupType::MultiMember) { Ok(()) } else { Err(LinkError::NotForSharing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contact of `spec/messenger.md` §11.3, whose keys have half their length.
    fn contact() -> BertyLink {
        let id = BertyId {
            public_rendezvous_seed: vec![1; 16],
            account_pk: vec![2; 16],
            display_name: "Hello World!".into(),
        };
        BertyLink { kind: Kind::ContactInviteV1Kind.into(), berty_id: Some(id), ..BertyLink::default() }
    }

    fn group() -> BertyLink {
        let group = Group {
            public_key: vec![3; 16],
            secret: vec![4; 16],
            secret_sig: vec![5; 16],
            sign_pub: vec![6; 16],
            group_type: GroupType::MultiMember.into(),
            ..Group::default()
        };
        let group = BertyGroup { group: Some(group), display_name: "The Group Name!".into() };
        BertyLink { kind: Kind::GroupV1Kind.into(), berty_group: Some(group), ..BertyLink::default() }
    }

    const CONTACT_WEB: &str = "https://berty.tech/id#contact/\
        3geQXHmsW9rxRfQFJdu8CEuPtWkfTWgJH13NzAoGatcnh4brusu3/name=Hello+World%21";
    const CONTACT_QR: &str =
        "BERTY://PB/CAS8232WNWU-1HTSMNYD.USC3T4F.P.J.AFKOXTKI:-N4P9IJTERR3CTFD.:N$*$3RQZLIFMT3-$IN..";
    const GROUP_WEB: &str = "https://berty.tech/id#group/\
        rUwVHzzEiMxGhM7iY4wW5yZFH3ZcjiWAhxva6tXUcfniDsoT3rmF3WdshR8955KAgeCTvirdfppTAMehPqmBV1YYjAiXYUQm98J992TuPT\
        /name=The+Group+Name%21";
    const GROUP_QR: &str = "BERTY://PB/\
        .H:8XWGCG68:21MATDM7JR8Y6JMNJEVPISAXL274Y3VVDOPPUGK0LUYZ9X$FPFN*T93E08Y3$RYFIQFHJ3FY*79I75LU.5SJAKCS1PRLRYV\
        LO.4-502DA4KL*E8WCGKEE1WGET$-0G7O1S7";

    #[test]
    fn writes_and_reads_the_links_of_the_specification() {
        assert_eq!(to_web(&contact()).unwrap(), CONTACT_WEB);
        assert_eq!(to_qr(&contact()).unwrap(), CONTACT_QR);
        assert_eq!(to_web(&group()).unwrap(), GROUP_WEB);
        assert_eq!(to_qr(&group()).unwrap(), GROUP_QR);
        assert_eq!(from_text(CONTACT_WEB).unwrap(), contact());
        assert_eq!(from_text(CONTACT_QR).unwrap(), contact());
        assert_eq!(from_text(GROUP_WEB).unwrap(), group());
        assert_eq!(from_text(GROUP_QR).unwrap(), group());
    }

    #[test]
    fn names_come_in_many_spellings() {
        let base = CONTACT_WEB.split_once("/name").unwrap().0;
        for (human, name) in [
            ("", ""),
            ("/", ""),
            ("/name=Hello+World", "Hello World"),
            ("/name=Hello%20World", "Hello World"),
            ("/name=Hello World", "Hello World"),
            ("/name=a/b%2Fc", "a/b/c"),
            ("/name=a%26b&more=1", "a&b"),
            ("/first=1&name=Ann&name=Eve", "Ann"),
            ("/name=100%", "100%"),
            ("/name=%ff", "\u{fffd}"),
        ] {
            let link = from_text(&format!("{base}{human}")).unwrap();
            assert_eq!(link.berty_id.unwrap().display_name, name, "{human}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_text() {
        let cut = &CONTACT_QR[..CONTACT_QR.len() - 5];
        for (text, error) in [
            ("", LinkError::NoLink),
            ("hello", LinkError::NoLink),
            ("https://berty.tech/id", LinkError::Incomplete),
            ("https://berty.tech/id#", LinkError::Incomplete),
            ("https://berty.tech/id#contact", LinkError::Incomplete),
            ("https://berty.tech/id#contact/", LinkError::Incomplete),
            ("https://berty.tech/id#contact/0OIl", LinkError::Damaged),
            ("https://berty.tech/id#key=abc&name=x", LinkError::OtherVersion),
            ("https://berty.tech/id#nothing/abc", LinkError::OtherVersion),
            ("https://example.org/id#contact/abc", LinkError::WrongHost),
            ("http://berty.tech/id#contact/abc", LinkError::WrongHost),
            ("berty://", LinkError::Incomplete),
            ("berty://XX/abc", LinkError::OtherVersion),
            ("berty://pb/abc", LinkError::Damaged),
            (cut, LinkError::Damaged),
            (&*"x".repeat(LINK_BYTES_MAX + 1), LinkError::TooLong),
        ] {
            assert_eq!(from_text(text), Err(error), "{text}");
        }
        assert!(from_text(&CONTACT_WEB.replacen("https", "HTTPS", 1)).is_ok());
    }
}
