//! Checks for heads messages of go-orbit-db: their bytes, and hostile ones, of which each head is judged
//! by itself and none stops the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_base::EntryId;
use dunlin_base::frame::split_frame;
use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_log::{Entry, Ingest, JoinedBatch, Log, go_json, heads_from_json, heads_to_json};
use serde_json::Value;

use crate::go_log::{blocks, cid, cids, fetch, values};
use crate::json::{base64, base64_bytes, equal, equal_bytes, field, label, list, text};
use crate::registry::VectorFile;
use crate::report::Report;
use crate::secp256k1::Listed;

/// Longest message on a stream.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Runs the messages of `messages.json`.
pub fn messages(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (number, case) in list(&file.json, "messages")?.iter().enumerate() {
        report.check(format!("message {number}"), message(case, &base64_bytes(case, "data")?));
    }
    for (replica, cache) in field(&file.json, "cache")?.as_object().ok_or("the cache is no object")? {
        for (key, json) in cache.as_object().ok_or("a cache is no object")? {
            let json = base64(json.as_str().unwrap_or_default())?;
            report.check(format!("{key} of {replica}"), same_heads(&json).map(drop));
        }
    }
    report.leave_out("the snapshot: nothing here reads or writes one");
    Ok(())
}

/// Runs the messages of `wire.json`.
pub fn wire(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (run, case) in list(&file.json, "runs")?.iter().enumerate() {
        for (number, case) in list(case, "messages")?.iter().enumerate() {
            let data = base64_bytes(case, "data")?;
            let body = match text(case, "channel")? {
                "stream" => match split_frame(&data, MESSAGE_BYTES_MAX) {
                    Ok(Some((body, []))) => body,
                    other => return Err(format!("{other:?} is no message")),
                },
                _ => &data,
            };
            report.check(format!("run {run}, message {number}"), message(case, body));
        }
    }
    Ok(())
}

/// A message reads as recorded and is written again byte for byte.
fn message(case: &Value, body: &[u8]) -> Result<(), String> {
    let address = text(case, "address")?;
    let mut before = String::from("{\"address\":");
    go_json::push_string(&mut before, address);
    before.push_str(",\"heads\":");
    let heads = body.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(b"}"));
    let entries = same_heads(heads.ok_or("the message is of another form")?)?;
    let ids: Vec<EntryId> = entries.iter().map(Entry::id).collect();
    equal("heads", ids, cids(case, "heads")?)
}

fn same_heads(json: &[u8]) -> Result<Vec<Entry>, String> {
    let heads = heads_from_json(json).map_err(|error| error.to_string())?;
    let entries: Vec<Entry> =
        heads.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    equal_bytes("JSON", heads_to_json(&entries), json)?;
    Ok(entries)
}

/// Cases that the file wants refused and that count here, with the rule that says so: a bad ancestor is
/// the ancestor's fault (O3), one that nobody has is a hole (O4), and clocks are only reported (V7).
const COUNTS_HERE: [&str; 7] = [
    "good head over an ancestor with a bad signature",
    "listed writer over an ancestor forged for another log",
    "listed writer over an ancestor of a writer not in the list",
    "parent that nobody has",
    "time not above the parent's",
    "negative time",
    "time 2^63 - 1",
];

/// Runs `hostile-messages.json`.
pub fn hostile(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    let write: Vec<String> =
        list(json, "write")?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let address = text(json, "address")?;
    let blocks = blocks(json)?;
    let follow_up = (base64_bytes(json, "follow_up")?, cid(text(json, "follow_up_hash")?)?);
    for (number, case) in list(json, "cases")?.iter().enumerate() {
        report.check(label(case, number), hostile_message(case, address, &write, &blocks, &follow_up));
    }
    Ok(())
}

fn hostile_message(
    case: &Value,
    address: &str,
    write: &[String],
    blocks: &BTreeMap<EntryId, Vec<u8>>,
    (follow_up, follow_up_id): &(Vec<u8>, EntryId),
) -> Result<(), String> {
    let store = MemoryStore::default();
    let mut log = Log::new(address, Arc::new(Listed(Some(write.to_vec()))));
    let mut tx = Tx::new(&store);
    receive(&mut log, &mut tx, address, &base64_bytes(case, "data")?, blocks)?;
    let name = text(case, "label")?;
    let counted = values(&tx, &log)?;
    match text(case, "expected")? {
        "accept" | "accept into the log, skip in the index" => {
            let go = cids(field(case, "go")?, "values_after")?;
            equal("values", &counted, &go.into_iter().collect())?;
        }
        "accept the good one" => equal("good heads", counted.len(), 1)?,
        _ if COUNTS_HERE.contains(&name) => equal("counts", counted.is_empty(), false)?,
        _ => equal("values", &counted, &std::collections::BTreeSet::new())?,
    }
    receive(&mut log, &mut tx, address, follow_up, blocks)?;
    equal("the next message joins", values(&tx, &log)?.contains(follow_up_id), true)
}

/// What a store does with a message: other addresses and lists that are none are dropped, heads are
/// judged one by one, and what they name is fetched.
fn receive(
    log: &mut Log,
    tx: &mut Tx<'_>,
    address: &str,
    data: &[u8],
    blocks: &BTreeMap<EntryId, Vec<u8>>,
) -> Result<(), String> {
    let Ok(message) = serde_json::from_slice::<Value>(data) else { return Ok(()) };
    if message.get("address").and_then(Value::as_str) != Some(address) {
        return Ok(());
    }
    let heads = message.get("heads").unwrap_or(&Value::Null).to_string();
    let Ok(heads) = heads_from_json(heads.as_bytes()) else { return Ok(()) };
    for entry in heads.into_iter().flatten() {
        let taken = log.ingest(tx, entry.block()).map_err(|error| error.to_string())?;
        if let Ingest::Stored { missing, .. } = taken {
            fetch(log, tx, &missing, blocks)?;
        }
    }
    let JoinedBatch { more, .. } = log.join_ready(tx, usize::MAX).map_err(|error| error.to_string())?;
    equal("work left", more, false)
}
