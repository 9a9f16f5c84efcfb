//! Checks for links and messages of the messenger: `links.json` and `app-messages.json`.
//!
//! The producer parses first and checks later, and its check asks for less than ours. So the bytes are
//! compared in the layer below the check ([`wire`]), whose own check has to agree with the producer's;
//! [`Link`] may then refuse more, and must not refuse what has the right lengths.

use dunlin_messenger::app_message::{Content, Envelope};
use dunlin_messenger::links::{Link, LinkError, passphrase, wire};
use dunlin_proto::messenger::berty_link::{BertyMessageRef, Encrypted, Kind};
use dunlin_proto::messenger::{BertyGroup, BertyId, BertyLink};
use dunlin_proto::protocol::Group;
use prost_reflect::prost::Message as _;
use serde_json::Value;

use crate::json::{base64_bytes, equal, equal_bytes, field, flag, hex_array, label, list, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;

/// What the producer tried as a wrong passphrase; without a checksum it opens the link to other keys.
const WRONG_PASSPHRASE: &str = "wrong";

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    match file.stem() {
        "links" if file.is_messenger() => Some(links),
        "app-messages" if file.is_messenger() => Some(app_messages),
        _ => None,
    }
}

fn links(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (position, case) in list(&file.json, "links")?.iter().enumerate() {
        report.check(format!("links {}", label(case, position)), link(case));
    }
    for (position, case) in list(&file.json, "encrypted")?.iter().enumerate() {
        report.check(format!("encrypted {}", label(case, position)), encrypted(case));
    }
    for (position, case) in list(&file.json, "texts")?.iter().enumerate() {
        report.check(format!("texts #{position}"), parse(case));
    }
    Ok(())
}

/// A link as protobuf, written in both forms and read back.
fn link(case: &Value) -> Result<(), String> {
    let bytes = base64_bytes(case, "link")?;
    let link = BertyLink::decode(&*bytes).map_err(|error| error.to_string())?;
    equal("fields", &link, &link_of(field(case, "link_json")?)?)?;
    equal_bytes("encoded", link.encode_to_vec(), bytes)?;
    if !flag(case, "ok")? {
        equal("web form", wire::to_web(&link).is_ok(), false)?;
        return equal("QR form", wire::to_qr(&link).is_ok(), false);
    }
    let (web, internal) = (text(case, "web")?, text(case, "internal")?);
    equal("web form", wire::to_web(&link), Ok::<_, LinkError>(web.to_owned()))?;
    equal("QR form", wire::to_qr(&link), Ok::<_, LinkError>(internal.to_owned()))?;

    let parsed_web = read(web)?;
    if link.kind() == Kind::MessageV1Kind {
        // The producer loses the reference of a message link in the web form; it is kept here.
        equal("read from the web form", &parsed_web, &link)?;
    } else {
        equal("read from the web form", &parsed_web, &link_of(field(case, "parsed_web")?)?)?;
    }
    let parsed_internal = read(internal)?;
    equal("read from the QR form", &parsed_internal, &link_of(field(case, "parsed_internal")?)?)?;
    check_validity(&parsed_web, flag(case, "parsed_web_valid")?)?;
    check_validity(&parsed_internal, flag(case, "parsed_internal_valid")?)
}

/// A link made with a passphrase, and opened with the right one, a wrong one and none.
fn encrypted(case: &Value) -> Result<(), String> {
    let clear = link_of(field(case, "link_json")?)?;
    let wanted = link_of(field(case, "encrypted_json")?)?;
    let checksum = wanted.encrypted.as_ref().map(|sealed| sealed.checksum.len()).unwrap_or_default();
    let right = text(case, "passphrase")?;
    let sealed = passphrase::seal(&clear, right, hex_array(case, "nonce")?, checksum);
    let sealed = sealed.map_err(|error| error.to_string())?;
    equal("sealed", &sealed, &wanted)?;
    let (web, internal) = (text(case, "web")?, text(case, "internal")?);
    equal("web form", wire::to_web(&sealed), Ok::<_, LinkError>(web.to_owned()))?;
    equal("QR form", wire::to_qr(&sealed), Ok::<_, LinkError>(internal.to_owned()))?;
    equal("opened from the web form", open(web, right)?, Ok(link_of(field(case, "opened_web")?)?))?;
    equal("opened from the QR form", open(internal, right)?, Ok(link_of(field(case, "opened_internal")?)?))?;
    opened_as("without a passphrase", &open(web, "")?, field(case, "no_passphrase")?)?;
    opened_as("with a wrong passphrase", &open(web, WRONG_PASSPHRASE)?, field(case, "wrong_passphrase")?)
}

/// Reads a link and opens it, unless the passphrase is empty.
fn open(text: &str, passphrase: &str) -> Result<Result<BertyLink, LinkError>, String> {
    let link = read(text)?;
    let sealed = link.encrypted.as_ref().ok_or("the link is not protected")?;
    Ok(if passphrase.is_empty() { Ok(link.clone()) } else { passphrase::open(sealed, passphrase) })
}

fn opened_as(what: &str, got: &Result<BertyLink, LinkError>, verdict: &Value) -> Result<(), String> {
    match (got, flag(verdict, "ok")?) {
        (Err(LinkError::PasswordWrong), false) => Ok(()),
        (Ok(link), true) => equal(what, link, &link_of(field(verdict, "opened")?)?),
        (got, ok) => Err(format!("{what}: got {got:?}, wanted {}", if ok { "a link" } else { "an error" })),
    }
}

/// A text that may be a link.
fn parse(case: &Value) -> Result<(), String> {
    let given = text(case, "text")?;
    let (ok, valid) = (flag(case, "ok")?, flag(case, "valid")?);
    let link = match wire::from_text(given) {
        Ok(link) => link,
        Err(error) => return if ok { Err(error.to_string()) } else { Ok(()) },
    };
    let wanted = case.get("parsed").map(link_of).transpose()?;
    match wanted {
        // The producer puts an empty reference into a message link without one, and calls it valid.
        Some(wanted) if wanted.kind() == Kind::MessageV1Kind => {
            equal("form", wire::check_form(&link), Err::<(), _>(LinkError::Incomplete))
        }
        Some(wanted) => {
            equal("parsed", &link, &wanted)?;
            check_validity(&link, valid)
        }
        // The producer refuses while it parses what is refused here by the check after it.
        None => check_validity(&link, false),
    }
}

fn read(text: &str) -> Result<BertyLink, String> {
    wire::from_text(text).map_err(|error| format!("{text}: {error}"))
}

/// The check of the form agrees with the producer, and a link that passes it is refused only for its keys.
fn check_validity(link: &BertyLink, valid: bool) -> Result<(), String> {
    equal("valid", wire::check_form(link).is_ok(), valid)?;
    let refused_for = Link::from_wire(link).err();
    match refused_for {
        None => equal("usable", valid, true),
        Some(LinkError::Length { .. } | LinkError::Key(_) | LinkError::Group(_) | LinkError::Damaged) => {
            Ok(())
        }
        Some(LinkError::Incomplete) if lacks_secret(link) => Ok(()),
        Some(error) if valid => Err(format!("valid, but refused: {error}")),
        Some(_) => Ok(()),
    }
}

/// A group link without the secret or its signature is of no use to anybody who wants to join.
fn lacks_secret(link: &BertyLink) -> bool {
    let group = link.berty_group.as_ref().and_then(|shown| shown.group.as_ref());
    group.is_some_and(|group| group.secret.is_empty() || group.secret_sig.is_empty())
}

fn link_of(json: &Value) -> Result<BertyLink, String> {
    Ok(BertyLink {
        kind: number(json, "kind")?,
        berty_id: json.get("berty_id").map(id_of).transpose()?,
        berty_group: json.get("berty_group").map(group_of).transpose()?,
        encrypted: json.get("encrypted").map(encrypted_of).transpose()?,
        berty_message_ref: json.get("berty_message_ref").map(|reference| BertyMessageRef {
            account_id: words(reference, "account_id"),
            group_pk: words(reference, "group_pk"),
            message_id: words(reference, "message_id"),
        }),
    })
}

fn id_of(json: &Value) -> Result<BertyId, String> {
    Ok(BertyId {
        public_rendezvous_seed: bytes(json, "public_rendezvous_seed")?,
        account_pk: bytes(json, "account_pk")?,
        display_name: words(json, "display_name"),
    })
}

fn group_of(json: &Value) -> Result<BertyGroup, String> {
    let group = json.get("group").map(|group| {
        Ok::<_, String>(Group {
            public_key: bytes(group, "public_key")?,
            secret: bytes(group, "secret")?,
            secret_sig: bytes(group, "secret_sig")?,
            group_type: number(group, "group_type")?,
            sign_pub: bytes(group, "sign_pub")?,
            link_key: bytes(group, "link_key")?,
            link_key_sig: bytes(group, "link_key_sig")?,
        })
    });
    Ok(BertyGroup { group: group.transpose()?, display_name: words(json, "display_name") })
}

fn encrypted_of(json: &Value) -> Result<Encrypted, String> {
    Ok(Encrypted {
        kind: number(json, "kind")?,
        nonce: bytes(json, "nonce")?,
        display_name: words(json, "display_name"),
        checksum: bytes(json, "checksum")?,
        contact_public_rendezvous_seed: bytes(json, "contact_public_rendezvous_seed")?,
        contact_account_pk: bytes(json, "contact_account_pk")?,
        group_public_key: bytes(json, "group_public_key")?,
        group_secret: bytes(json, "group_secret")?,
        group_secret_sig: bytes(json, "group_secret_sig")?,
        group_type: number(json, "group_type")?,
        group_sign_pub: bytes(json, "group_sign_pub")?,
        group_link_key_sig: bytes(json, "group_link_key_sig")?,
    })
}

/// The files leave out fields with nothing in them.
fn bytes(json: &Value, key: &str) -> Result<Vec<u8>, String> {
    if json.get(key).is_some() { base64_bytes(json, key) } else { Ok(Vec::new()) }
}

fn words(json: &Value, key: &str) -> String {
    json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn number(json: &Value, key: &str) -> Result<i32, String> {
    let Some(found) = json.get(key) else { return Ok(0) };
    let number = found.as_i64().or_else(|| found.as_str()?.parse().ok());
    number.and_then(|number| number.try_into().ok()).ok_or_else(|| format!("{key:?} is no small number"))
}

fn app_messages(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (position, case) in list(&file.json, "messages")?.iter().enumerate() {
        report.check(label(case, position), app_message(case));
    }
    Ok(())
}

fn app_message(case: &Value) -> Result<(), String> {
    let bytes = base64_bytes(case, "app_message")?;
    let payload = field(case, "payload_json")?;
    let content = match number(case, "type")? {
        1 => Content::Text(words(payload, "body")),
        3 => Content::Invitation(words(payload, "link")),
        4 => Content::GroupInfo(words(payload, "display_name")),
        5 => Content::UserInfo(words(payload, "display_name")),
        6 => Content::Acknowledge,
        number => Content::Other { number, payload: base64_bytes(case, "payload")? },
    };
    let sent_date = text(case, "sent_date")?.parse().map_err(|_| "\"sent_date\" is no number")?;
    let envelope = Envelope { content, sent_date, target: words(case, "target_cid") };
    equal_bytes("encoded", envelope.encode(), &bytes)?;
    equal("decoded", Envelope::decode(&bytes), Some(envelope))
}
