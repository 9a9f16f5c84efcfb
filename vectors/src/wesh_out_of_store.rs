//! Checks for messages outside their log: `out-of-store.json`.

use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_base::seal::Nonce;
use dunlin_base::{DeviceId, EntryId};
use dunlin_proto::protocol::{OutOfStoreMessage, OutOfStoreMessageEnvelope};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::message::{
    self, OpenedOutOfStore, OutOfStoreError, SealedOutOfStore, out_of_store_reference, seal_out_of_store,
};
use prost::Message as _;
use serde_json::Value;

use crate::json::{base64_bytes, equal, equal_bytes, field, flag, hex_array, hex_bytes, list, number, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{group, member, secret_key, verdict};
use crate::wesh_ratchet::{kept, open_once, same_chain};

/// Go finds the group by a table of references, we by the secret that opens the envelope. So these, which name
/// a known group and do not open with its secret, are of no group here.
const OF_NO_GROUP: &[&str] = &["box tag bit flipped", "box body bit flipped", "nonce bit flipped"];
/// Go takes an envelope that names another message than it holds.
const OTHER_REFERENCE: &str = "reference of another known counter (accepted)";
/// Sessions in which Go's table holds no reference, or one of a group that it does not know.
const OTHER_CAUSES: &[&str] = &["no chain key", "group not stored"];

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "out-of-store").then_some(run)
}

fn run(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    let group = group(json, "group")?;
    let device = DeviceId::new(secret_key(json, "sender_device_seed")?.public());
    for (position, case) in list(json, "references")?.iter().enumerate() {
        report.check(format!("reference {position}"), reference(case));
    }
    for (position, case) in list(json, "sealed")?.iter().enumerate() {
        report.check(format!("sealed {position}"), sealed(case));
    }
    for case in list(json, "sessions")? {
        session(&group, &device, case, report)?;
    }
    report.leave_out("references_known: no table of references is kept (security.md E8)");
    report.leave_out(format!("the code for {OF_NO_GROUP:?}: the group is found by its secret"));
    report.leave_out(format!("the code in the sessions {OTHER_CAUSES:?}: for the same reason"));
    report.leave_out(format!(
        "the producer's verdict on {OTHER_REFERENCE:?}: the reference has to be that of the message"
    ));
    Ok(())
}

fn reference(case: &Value) -> Result<(), String> {
    let secret = dunlin_base::keys::SymmetricKey::from_bytes(hex_array(case, "group_secret")?);
    let device = device(&hex_bytes(case, "device_pk")?)?;
    let made = out_of_store_reference(&secret, &device, number(case, "counter")?);
    equal_bytes("reference", made, hex_bytes(case, "reference")?)
}

/// Seals with the recorded nonce, and compares every part.
fn sealed(case: &Value) -> Result<(), String> {
    let group = group(case, "group")?;
    let entry = entry(case)?;
    equal_bytes("CID", entry.cid_bytes(), hex_bytes(case, "entry_cid_bytes")?)?;
    let nonce = Nonce::dangerous_fixed(hex_array(case, "nonce")?);
    let made = seal_out_of_store(&group, entry, &base64_bytes(case, "message_envelope")?, nonce)
        .map_err(|error| error.to_string())?;
    equal_bytes("envelope", &made, base64_bytes(case, "envelope")?)?;
    let envelope = OutOfStoreMessageEnvelope::decode(made.as_slice()).map_err(|error| error.to_string())?;
    equal_bytes("reference", &envelope.group_reference, hex_bytes(case, "group_reference")?)?;
    let message = OutOfStoreMessage::decode(base64_bytes(case, "out_of_store_message")?.as_slice())
        .map_err(|error| error.to_string())?;
    equal("counter", message.counter, number(case, "counter")?)?;
    equal_bytes("device", message.device_pk, hex_bytes(case, "device_pk")?)
}

fn session(group: &Group, device: &DeviceId, case: &Value, report: &mut Report) -> Result<(), String> {
    let name = text(case, "name")?;
    let receiver = field(case, "receiver")?;
    let own = member(receiver, "account_seed", "device_seed")?;
    let known = flag(case, "group_stored")?.then_some(group);
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    for (position, step) in list(case, "steps")?.iter().enumerate() {
        let done = match text(step, "op")? {
            "register" => register(&mut tx, group, &own, device, step),
            "open_from_log" => open_from_log(&mut tx, group, step),
            "open_out_of_store" => out_of_store(&tx, known, name, step),
            other => Err(format!("unknown step {other}")),
        };
        // Whatever was opened out of store, the chain is where the log has brought it.
        let done = done.and_then(|()| same_chain(&tx, group, device, field(step, "state_after")?));
        let note = text(step, "note").unwrap_or_default();
        report.check(format!("session {name}, step {position} {note}"), done);
    }
    Ok(())
}

fn register(
    tx: &mut Tx<'_>,
    group: &Group,
    own: &OwnMember,
    device: &DeviceId,
    step: &Value,
) -> Result<(), String> {
    let chain = message::open_chain_key_box(group, own, device, &base64_bytes(step, "box")?)
        .map_err(|error| error.to_string())?;
    message::register_chain_key(tx, &group.id(), device, chain).map_err(|error| error.to_string())?;
    Ok(())
}

fn open_from_log(tx: &mut Tx<'_>, group: &Group, step: &Value) -> Result<(), String> {
    let envelope = base64_bytes(step, "envelope")?;
    let headers = message::open_headers(group, &envelope).map_err(|error| error.to_string())?;
    let opened = verdict(step, open_once(tx, group, entry(step)?, &headers, &envelope))?;
    match opened {
        Some(opened) => equal_bytes("plaintext", opened.plaintext, base64_bytes(step, "plaintext")?),
        None => Ok(()),
    }
}

fn out_of_store(tx: &Tx<'_>, group: Option<&Group>, session: &str, step: &Value) -> Result<(), String> {
    let note = text(step, "note").unwrap_or_default();
    let result = open(tx, group, &base64_bytes(step, "envelope")?);
    if OF_NO_GROUP.contains(&note) {
        equal("accepted", false, flag(step, "ok")?)?;
        return equal("no group", matches!(result, Err(OutOfStoreError::NoGroup)), true);
    }
    if note == OTHER_REFERENCE {
        return equal("refused", matches!(result, Err(OutOfStoreError::OtherReference)), true);
    }
    if OTHER_CAUSES.contains(&session) {
        equal("accepted", false, flag(step, "ok")?)?;
        return equal("refused", result.is_err(), true);
    }
    let Some(opened) = verdict(step, result)? else { return Ok(()) };
    equal_bytes("cleartext", &opened.clear, base64_bytes(step, "cleartext")?)?;
    equal_bytes("group", opened.group.as_bytes(), hex_bytes(step, "group_public_key")?)?;
    equal("already received", opened.already_received, flag(step, "already_received")?)?;
    equal_bytes("message", opened.message.encode_to_vec(), base64_bytes(step, "message")?)
}

fn open(tx: &Tx<'_>, group: Option<&Group>, payload: &[u8]) -> Result<OpenedOutOfStore, OutOfStoreError> {
    let sealed = SealedOutOfStore::parse(payload)?;
    let opened = group.map_or(Ok(None), |group| sealed.open(tx, group, &|entry| kept(tx, entry)))?;
    opened.ok_or(OutOfStoreError::NoGroup)
}

fn entry(case: &Value) -> Result<EntryId, String> {
    EntryId::from_cid_text(text(case, "entry_cid")?).ok_or_else(|| "the CID names no entry".to_owned())
}

fn device(bytes: &[u8]) -> Result<DeviceId, String> {
    DeviceId::from_bytes(bytes).map_err(|error| error.to_string())
}
