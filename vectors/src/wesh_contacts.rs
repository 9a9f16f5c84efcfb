//! Checks for contacts and the actions on them: `contacts.json`, `contact-actions.json`.
//!
//! Where this implementation is stricter than the producer, the checks say so.

use dunlin_base::{AccountId, SecretKey};
use dunlin_proto::protocol::ShareableContact;
use dunlin_wesh::contact::{Contact, ContactAction, ContactError, ContactRefusal, ContactState, next_step};
use dunlin_wesh::errors::{Code, Coded};
use prost::Message as _;
use serde_json::Value as Json;

use crate::json::{
    base64_bytes, equal, equal_bytes, field, flag, hex_array, hex_bytes, label, last_code, list, number, text,
};
use crate::registry::{Check, VectorFile};
use crate::report::Report;

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    match file.stem() {
        "contacts" if file.is_wesh() => Some(contacts),
        "contact-actions" if file.is_wesh() => Some(actions),
        _ => None,
    }
}

fn contacts(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (position, case) in list(&file.json, "contacts")?.iter().enumerate() {
        report.check(label(case, position), contact(case));
    }
    report.leave_out("check_pk_optional: nothing here takes a contact without its key");
    Ok(())
}

fn contact(case: &Json) -> Result<(), String> {
    let bytes = base64_bytes(case, "bytes")?;
    let message = ShareableContact::decode(&*bytes);
    equal("decodes", message.is_ok(), flag(field(case, "decode")?, "ok")?)?;
    let Ok(message) = message else {
        return equal("refused", Contact::decode(&bytes).is_err(), true);
    };
    equal_bytes("key", &message.pk, hex_bytes(case, "pk")?)?;
    equal_bytes("seed", &message.public_rendezvous_seed, hex_bytes(case, "public_rendezvous_seed")?)?;
    equal_bytes("metadata", &message.metadata, base64_bytes(case, "metadata")?)?;
    verdict(Contact::decode(&bytes).err().as_ref(), field(case, "check_full")?)?;
    let incoming = Contact::decode_incoming(&bytes);
    verdict(incoming.as_ref().err(), field(case, "check_seed_optional")?)?;
    // Unknown and repeated fields do not come back.
    match incoming {
        Ok(contact) => equal_bytes("encoded", contact.encode(), message.encode_to_vec()),
        Err(_) => Ok(()),
    }
}

fn actions(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let account = field(&file.json, "account")?;
    let own = AccountId::new(SecretKey::from_seed(hex_array(account, "account_seed")?).public());
    for (position, case) in list(&file.json, "contact_actions")?.iter().enumerate() {
        let name = format!("{} in {}", label(case, position), text(case, "state")?);
        report.check(name, action(&own, case));
    }
    for (position, case) in list(&file.json, "contact_formats")?.iter().enumerate() {
        let name = format!("format {} ({})", label(case, position), text(case, "action")?);
        report.check(name, format(case));
    }
    report.leave_out(
        "the producer's verdict on enqueueing a blocked contact: it stays blocked (security.md Q6)",
    );
    report.leave_out(
        "the producer's verdict on keys that are no curve points: they are refused (security.md C2)",
    );
    report.leave_out("group_actions: they need an account log, and the file holds no bytes of the groups");
    report.leave_out("actions_by_group_type: contact actions are written to the account log and to no other");
    Ok(())
}

fn action(own: &AccountId, case: &Json) -> Result<(), String> {
    let action = match text(case, "action")? {
        "OutgoingEnqueue" => ContactAction::Enqueue,
        "OutgoingSent" => ContactAction::MarkSent,
        "IncomingReceived" | "IncomingReceived without seed" => ContactAction::Receive,
        "IncomingDiscard" => ContactAction::Discard,
        "IncomingAccept" => ContactAction::Accept,
        "Block" => ContactAction::Block,
        "Unblock" => ContactAction::Unblock,
        other => return Err(format!("unknown action {other:?}")),
    };
    let other = AccountId::new(SecretKey::from_seed([1; 32]).public());
    let (contact, state) = match text(case, "state")? {
        "own account key" => (own, None),
        name => (&other, state(name)?),
    };
    match next_step(own, contact, state, action) {
        Err(ContactRefusal::Blocked) if action == ContactAction::Enqueue => {
            equal("state", state, Some(ContactState::Blocked))
        }
        Ok(step) => {
            equal("allowed", true, flag(case, "ok")?)?;
            equal("event", i32::from(step.event_type()) as u64, number(case, "event_type")?)?;
            equal("state after", Some(step.state()), self::state(text(case, "state_after")?)?)
        }
        Err(refusal) => {
            equal("allowed", false, flag(case, "ok")?)?;
            equal("state after", state, self::state(text(case, "state_after")?)?)?;
            verdict(Some(&refusal), case)
        }
    }
}

fn state(name: &str) -> Result<Option<ContactState>, String> {
    Ok(Some(match name {
        "Undefined" => return Ok(None),
        "ToRequest" => ContactState::ToRequest,
        "Received" => ContactState::Received,
        "Added" => ContactState::Added,
        "Removed" => ContactState::Removed,
        "Discarded" => ContactState::Discarded,
        "Blocked" => ContactState::Blocked,
        other => return Err(format!("unknown state {other:?}")),
    }))
}

fn format(case: &Json) -> Result<(), String> {
    let bytes = base64_bytes(case, "contact")?;
    let parsed = match text(case, "action")? {
        "OutgoingEnqueue" => Contact::decode(&bytes),
        _ => Contact::decode_incoming(&bytes),
    };
    if text(case, "label")?.starts_with("key is not a curve point") {
        return equal("refused", matches!(parsed, Err(ContactError::Key(_))), true);
    }
    verdict(parsed.err().as_ref(), case)
}

/// Compares an error, or that there is none, with a recorded verdict.
fn verdict(error: Option<&impl Coded>, wanted: &Json) -> Result<(), String> {
    equal("accepted", error.is_none(), flag(wanted, "ok")?)?;
    let last = error.and_then(|error| error.codes().last().copied());
    equal("code", last.map(code_number), last_code(wanted))
}

fn code_number(code: Code) -> u64 {
    u64::try_from(i32::from(code)).unwrap_or_default()
}
