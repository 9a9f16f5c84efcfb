//! Checks for heads payloads: `heads.json`.
//!
//! Where this implementation is stricter or more lenient than the producer, [`DIFFERENT`] says so.

use dunlin_base::frame::write_frame;
use dunlin_base::keys::SymmetricKey;
use dunlin_base::seal::Nonce;
use dunlin_base::{DeviceId, PeerId, Time};
use dunlin_log::heads_from_json;
use dunlin_proto::protocol::OrbitDbMessageHeads;
use dunlin_wesh::heads::{self, HeadsPayload};
use dunlin_wesh::rotation::{self, Token};
use prost::Message as _;
use serde_json::Value as Json;

use crate::json::{
    base64_bytes, equal, equal_bytes, field, flag, hex_array, hex_bytes, label, list, number, text,
};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_rotation::DAY;

/// Cases of `opening` on which this implementation decides otherwise than the producer, and why.
const DIFFERENT: [(&str, bool, &str); 4] = [
    ("peer id missing", true, "only the hint is dropped (security.md O8)"),
    ("peer id invalid", true, "only the hint is dropped (security.md O8)"),
    ("device key of 31 bytes", true, "only the hint is dropped (security.md O8)"),
    (
        "another address inside the box (accepted: the inner address is used)",
        false,
        "the address has to be that of the store (security.md O8)",
    ),
];

/// Cases of `opening` of which no head is to be used; that shows when the JSON inside is read.
const NO_HEAD: [&str; 4] =
    ["heads not JSON", "heads empty bytes", "heads holds a null entry", "Provider is an object"];

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "heads").then_some(check)
}

fn check(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (position, case) in list(&file.json, "sealed")?.iter().enumerate() {
        report.check(format!("sealed {}", label(case, position)), sealed(case));
    }
    let opening = field(&file.json, "opening")?;
    for (position, case) in list(opening, "cases")?.iter().enumerate() {
        report.check(format!("opening {}", label(case, position)), opened(opening, case));
    }
    let days = field(&file.json, "day_rotation")?;
    for (position, step) in list(days, "steps")?.iter().enumerate() {
        report.check(format!("day_rotation {}", label(step, position)), day(days, step));
    }
    for (name, reason) in DIFFERENT.map(|(name, _, reason)| (name, reason)) {
        report.leave_out(format!("the producer's verdict on {name:?}: {reason}"));
    }
    Ok(())
}

/// Seals with the recorded nonce, and opens again.
fn sealed(case: &Json) -> Result<(), String> {
    let address = text(case, "address")?;
    let link_key = SymmetricKey::from_bytes(hex_array(case, "link_key")?);
    let interval = if text(case, "interval")? == "static" { None } else { DAY };
    let now = Time::from_secs(number(case, "unix_time")?);
    let token = rotation::heads_token(address, &link_key, now, interval);
    equal_bytes("token", token.as_bytes(), hex_bytes(case, "raw_rotation")?)?;
    let payload = HeadsPayload {
        heads: text(case, "heads_json")?.as_bytes().to_vec(),
        device: match case.get("device_pk") {
            Some(_) => Some(
                DeviceId::from_bytes(&hex_bytes(case, "device_pk")?).map_err(|error| error.to_string())?,
            ),
            None => None,
        },
        host: PeerId::from_bytes(&hex_bytes(case, "peer_id_bytes")?),
    };
    let nonce = Nonce::dangerous_fixed(hex_array(case, "nonce")?);
    let wire = payload.seal_with(address, &link_key, &token, nonce);
    equal_bytes("payload", &wire, base64_bytes(case, "payload")?)?;
    let outer = OrbitDbMessageHeads::decode(&*wire).map_err(|error| error.to_string())?;
    equal_bytes("sealed box", outer.sealed_box, base64_bytes(case, "sealed_box")?)?;
    let mut framed = Vec::new();
    write_frame(&mut framed, &wire);
    framed.truncate(framed.len().saturating_sub(wire.len()));
    equal_bytes("frame prefix", framed, hex_bytes(case, "direct_channel_prefix")?)?;

    let parsed = heads::parse(&wire).map_err(|error| error.to_string())?;
    equal("token", parsed.token, token)?;
    equal("opened", parsed.open(address, &link_key).map_err(|error| error.to_string())?, payload)
}

/// Opens a payload as a node does that knows one store.
fn opened(opening: &Json, case: &Json) -> Result<(), String> {
    let name = text(case, "label")?;
    let different = DIFFERENT.iter().find(|(different, _, _)| *different == name);
    let wanted = match different {
        Some((_, ok, _)) => *ok,
        None => flag(case, "ok")? || NO_HEAD.contains(&name),
    };
    let address = text(opening, "address")?;
    let link_key = SymmetricKey::from_bytes(hex_array(opening, "link_key")?);
    let outcome = open(&base64_bytes(case, "payload")?, address, &link_key);
    equal("opens", outcome.is_ok(), wanted).map_err(|why| format!("{why}: {outcome:?}"))?;
    let Ok(payload) = outcome else { return Ok(()) };
    let heads = heads_from_json(&payload.heads).unwrap_or_default();
    let usable = heads.iter().filter(|head| head.is_ok()).count() as u64;
    match case.get("heads") {
        _ if NO_HEAD.contains(&name) => equal("usable heads", usable, 0u64),
        Some(_) => equal("usable heads", usable, number(case, "heads")?),
        None => equal("usable heads", usable, 1u64),
    }
}

fn open(wire: &[u8], address: &str, link_key: &SymmetricKey) -> Result<HeadsPayload, String> {
    let parsed = heads::parse(wire).map_err(|error| error.to_string())?;
    let mut accepted = rotation::accepted_heads_tokens(address, link_key, Time::default(), None);
    if !accepted.any(|token| token == parsed.token) {
        return Err("nobody knows the token".into());
    }
    parsed.open(address, link_key).map_err(|error| error.to_string())
}

/// Whatever a Go process sends in the days after it opened the store is accepted, and so is the token that
/// it should send.
fn day(days: &Json, step: &Json) -> Result<(), String> {
    let address = text(days, "address")?;
    let link_key = SymmetricKey::from_bytes(hex_array(days, "link_key")?);
    let now = Time::from_secs(number(step, "unix_time")?);
    let accepted: Vec<Token> = rotation::accepted_heads_tokens(address, &link_key, now, DAY).collect();
    let is_accepted = |bytes: &[u8]| Token::from_slice(bytes).is_some_and(|token| accepted.contains(&token));
    if !is_accepted(&hex_bytes(step, "sent_token")?) {
        return Err("what Go sends is not accepted".into());
    }
    let tokens = field(days, "tokens")?;
    let day_0 = number(days, "day0_unix")?;
    for (offset, name) in ["day-1", "day+0", "day+1", "day+2", "day+3"].iter().enumerate() {
        let noon = Time::from_secs((day_0 + 43_200 + 86_400 * offset as u64).saturating_sub(86_400));
        let token = rotation::heads_token(address, &link_key, noon, DAY);
        equal_bytes(name, token.as_bytes(), hex_bytes(tokens, name)?)?;
        let days_off = noon.since(now).as_millis() / 86_400_000;
        if days_off == 0 && !is_accepted(token.as_bytes()) {
            return Err(format!("{name} is not accepted"));
        }
    }
    Ok(())
}
