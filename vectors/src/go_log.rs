//! Checks for logs and databases of go-ipfs-log and go-orbit-db.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_base::EntryId;
use dunlin_base::kv::{Durability, MemoryStore, Read, Store, Tx};
use dunlin_log::{
    Body, Checker, Clock, Entry, Ingest, Log, Quarantine, Writer, heads_from_json, heads_to_json,
};
use dunlin_orbitdb::StoreAddress;
use dunlin_orbitdb::manifest::Manifest;
use serde_json::Value;

use crate::json::{base64, base64_bytes, equal, equal_bytes, field, flag, hex_bytes, label, list, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::secp256k1::{self, Key, Listed};

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    if !file.is_go_log() {
        return None;
    }
    match file.stem() {
        "identities" => Some(identities),
        "entries" => Some(entries),
        "old-versions" => Some(old_versions),
        "logs-linear" | "logs-forks" => Some(logs),
        "log-load" => Some(loads),
        "manifests" => Some(manifests),
        "messages" => Some(crate::go_messages::messages),
        "wire" => Some(crate::go_messages::wire),
        "hostile-messages" => Some(crate::go_messages::hostile),
        _ => None,
    }
}

fn identities(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (number, case) in list(&file.json, "identities")?.iter().enumerate() {
        report.check(label(case, number), identity(case));
    }
    Ok(())
}

fn identity(case: &Value) -> Result<(), String> {
    let writer = writer(case)?;
    let identity = writer.identity();
    let signatures = field(case, "signatures")?;
    equal("id", identity.id.as_str(), text(case, "id")?)?;
    equal("type", identity.kind.as_str(), text(case, "type")?)?;
    equal_bytes("public key", &identity.public_key, hex_bytes(case, "publicKey")?)?;
    equal_bytes("id signature", &identity.id_signature, hex_bytes(signatures, "id")?)?;
    equal_bytes("key signature", &identity.key_signature, hex_bytes(signatures, "publicKey")?)?;
    let for_key = secp256k1::signed_for_key(&identity.public_key, &identity.id_signature);
    equal("text for the key", for_key.as_str(), text(case, "signed_for_publicKey")?)
}

fn entries(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let writers = writers(&file.json)?;
    for (number, case) in list(&file.json, "entries")?.iter().enumerate() {
        let name = format!("#{number} {}", text(case, "note").unwrap_or("entry"));
        report.check(name, entry(case, &writers));
    }
    for (number, case) in list(&file.json, "variants")?.iter().enumerate() {
        report.check(label(case, number), variant(case));
    }
    for (number, case) in list(&file.json, "encrypted_links")?.iter().enumerate() {
        report.check(format!("encrypted links {number}"), encrypted_links(case));
    }
    Ok(())
}

fn entry(case: &Value, writers: &BTreeMap<String, Writer>) -> Result<(), String> {
    let block = base64_bytes(case, "block")?;
    if case.get("payload").is_none() {
        // Go keeps bytes that are no text in a field of text; nothing that it writes by itself has them.
        return equal("decoded", Entry::decode(&block), Err(dunlin_log::DecodeError::NotText));
    }
    let writer = writers.get(text(case, "writer")?).ok_or("no such writer")?;
    let clock = field(case, "clock")?;
    let time = field(clock, "time")?.as_i64().ok_or("the time is no integer")?;
    let body = Body {
        log_id: text(case, "id")?.to_owned(),
        payload: text(case, "payload")?.to_owned(),
        next: cids(case, "next")?,
        refs: cids(case, "refs")?,
        clock: Clock { time, id: hex_bytes(clock, "id")? },
    };
    equal_bytes("signed text", body.signed_text(), base64_bytes(case, "signed_bytes")?)?;
    let made = writer.sign(body);
    equal_bytes("signature", made.signature(), hex_bytes(case, "sig")?)?;
    equal_bytes("block", made.block(), &block)?;
    equal("CID", made.id(), cid(text(case, "hash")?)?)?;
    let json = format!("[{}]", text(case, "json")?);
    equal_bytes("JSON", heads_to_json(std::slice::from_ref(&made)), &json)?;
    let heads = heads_from_json(json.as_bytes()).map_err(|error| error.to_string())?;
    let heads: Result<Vec<Entry>, _> = heads.into_iter().collect();
    equal("read from JSON", heads.map_err(|error| error.to_string())?, vec![made])?;
    equal("fault", fault(&block, None)?, None)
}

/// Blocks that Go accepts and that the rules of `spec/security.md` refuse or do not let count.
const STRICTER_THAN_GO: [&str; 12] = [
    "key in the 33 byte form",
    "signature in high-S form",
    "identity of another writer (not covered)",
    "identity id signature altered (not checked)",
    "identity key signature altered (not checked)",
    "identity type unknown (not checked)",
    "no identity",
    "signature in upper case hex",
    "clock id in upper case hex",
    "indefinite length map",
    "hash is text instead of null",
    "version in two bytes",
];

fn variant(case: &Value) -> Result<(), String> {
    let block = base64_bytes(case, "block")?;
    equal("CID", EntryId::of_block(&block), cid(text(case, "hash")?)?)?;
    let counts = matches!(fault(&block, None), Ok(None));
    let is_stricter = STRICTER_THAN_GO.contains(&text(case, "label")?);
    equal("counts", counts, flag(case, "valid")? && !is_stricter)
}

fn encrypted_links(case: &Value) -> Result<(), String> {
    let block = base64_bytes(case, "block")?;
    let entry = Entry::decode(&block).map_err(|error| error.to_string())?;
    let data = field(case, "additional_data")?;
    equal(
        "links",
        entry.sealed_links().map(|sealed| sealed.links.as_str()),
        data.get("encrypted_links").and_then(Value::as_str),
    )?;
    equal(
        "nonce",
        entry.sealed_links().map(|sealed| sealed.nonce.as_str()),
        data.get("encrypted_links_nonce").and_then(Value::as_str),
    )?;
    let sealed = entry.sealed_links().map(|_| Quarantine::SealedLinks);
    equal("fault", fault(&block, None)?, sealed)
}

/// What is wrong with the entry, judged for the log it names.
fn fault(block: &[u8], write: Option<Vec<String>>) -> Result<Option<Quarantine>, String> {
    let entry = Entry::decode(block).map_err(|error| error.to_string())?;
    let checker = Checker::new(entry.log_id(), Arc::new(Listed(write)));
    checker.check(block).map(|checked| checked.fault()).map_err(|error| error.to_string())
}

fn old_versions(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (number, case) in list(&file.json, "entries")?.iter().enumerate() {
        let Some(block) = case.get("block").and_then(Value::as_str) else { continue };
        let block = base64(block)?;
        let is_supported = field(case, "v")?.as_u64() == Some(2) && text(case, "codec")? == "dag-cbor";
        let name = format!("entry {number}");
        report.check(name, equal("counts", fault(&block, None).ok(), is_supported.then_some(None)));
    }
    Ok(())
}

fn logs(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let writers = writers(&file.json)?;
    for case in list(&file.json, "scenarios")? {
        let has_size = |step: &Value| step.get("size").and_then(Value::as_i64).is_some_and(|size| size >= 0);
        if text(case, "sort")? != "last write wins" || list(case, "steps")?.iter().any(has_size) {
            report.leave_out(format!("{}: nothing here sorts by hash or cuts a log", text(case, "name")?));
            continue;
        }
        scenario(case, &writers, report)?;
    }
    Ok(())
}

/// One replica of a scenario.
struct Replica<'w> {
    writer: &'w Writer,
    store: MemoryStore,
    log: Log,
    /// Its heads in the order in which Go keeps them.
    heads: Vec<EntryId>,
}

fn scenario(case: &Value, writers: &BTreeMap<String, Writer>, report: &mut Report) -> Result<(), String> {
    let name = text(case, "name")?;
    let mut replicas = Vec::new();
    for replica in list(case, "replicas")? {
        let pointers = field(case, "pointer_count")?.as_u64().and_then(|count| usize::try_from(count).ok());
        let log = Log::new(text(case, "log_id")?, Arc::new(Listed(None)));
        replicas.push(Replica {
            writer: writers.get(text(replica, "writer")?).ok_or("no such writer")?,
            store: MemoryStore::default(),
            log: log.with_pointers(pointers.ok_or("no pointer count")?),
            heads: Vec::new(),
        });
    }
    for (number, step) in list(case, "steps")?.iter().enumerate() {
        let replica = index(step, "replica")?;
        let done = match text(step, "type")? {
            "append" => {
                replicas.get_mut(replica).ok_or("no such replica".to_owned()).and_then(|to| append(step, to))
            }
            _ => join(step, &mut replicas),
        };
        report.check(format!("{name}, step {number}"), done);
    }
    for end in list(case, "final")? {
        let replica = replicas.get(index(end, "replica")?).ok_or("no such replica")?;
        report.check(format!("{name}, end of replica {}", index(end, "replica")?), finish(end, replica));
    }
    Ok(())
}

fn append(step: &Value, replica: &mut Replica<'_>) -> Result<(), String> {
    let mut tx = Tx::new(&replica.store);
    let joined = replica
        .log
        .append(&mut tx, replica.writer, text(step, "payload")?)
        .map_err(|error| error.to_string())?;
    replica.store.commit(tx.into_batch(), Durability::Deferred).map_err(|error| error.to_string())?;
    replica.heads = vec![joined.id];
    equal("next", joined.entry.next(), cids(step, "next")?)?;
    equal("refs", joined.entry.refs(), cids(step, "refs")?)?;
    equal("time", Some(joined.entry.time()), field(field(step, "clock")?, "time")?.as_i64())?;
    equal("hash", joined.id, cid(text(step, "hash")?)?)?;
    let heads = replica.log.heads(&replica.store).map_err(|error| error.to_string())?;
    equal("heads", heads, cids(step, "heads_after")?)
}

/// Takes over the other's entries head by head, so that new heads come in the order in which the other
/// keeps them; Go goes on with that order.
fn join(step: &Value, replicas: &mut [Replica<'_>]) -> Result<(), String> {
    let from = replicas.get(index(step, "from")?).ok_or("no such replica")?;
    let blocks = history(&from.store, &from.log, &from.heads)?;
    let to = replicas.get_mut(index(step, "replica")?).ok_or("no such replica")?;
    let mut tx = Tx::new(&to.store);
    for block in blocks {
        to.log.ingest(&mut tx, &block).map_err(|error| error.to_string())?;
        to.log.join_ready(&mut tx, usize::MAX).map_err(|error| error.to_string())?;
    }
    to.store.commit(tx.into_batch(), Durability::Deferred).map_err(|error| error.to_string())?;
    to.heads = cids(step, "heads_map_after")?;
    let heads: BTreeSet<EntryId> =
        to.log.heads(&to.store).map_err(|error| error.to_string())?.into_iter().collect();
    equal("heads", heads, to.heads.iter().copied().collect::<BTreeSet<_>>())?;
    equal(
        "values",
        values(&to.store, &to.log)?,
        cids(step, "values_after")?.into_iter().collect::<BTreeSet<_>>(),
    )
}

fn finish(end: &Value, replica: &Replica<'_>) -> Result<(), String> {
    let heads: BTreeSet<EntryId> =
        replica.log.heads(&replica.store).map_err(|error| error.to_string())?.into_iter().collect();
    equal("heads", heads, cids(end, "heads")?.into_iter().collect::<BTreeSet<_>>())?;
    equal(
        "values",
        values(&replica.store, &replica.log)?,
        cids(end, "values")?.into_iter().collect::<BTreeSet<_>>(),
    )
}

/// The blocks below `heads`, parents first, one head's history after the other.
fn history(store: &MemoryStore, log: &Log, heads: &[EntryId]) -> Result<Vec<Vec<u8>>, String> {
    let mut blocks = Vec::new();
    let mut seen = BTreeSet::new();
    let mut stack: Vec<(EntryId, bool)> = heads.iter().rev().map(|id| (*id, false)).collect();
    while let Some((id, is_expanded)) = stack.pop() {
        let entry = log.entry(store, id).map_err(|error| error.to_string())?.ok_or("an entry is missing")?;
        if is_expanded {
            blocks.push(entry.block().to_vec());
        } else if seen.insert(id) {
            stack.push((id, true));
            stack.extend(entry.next().iter().rev().map(|parent| (*parent, false)));
        }
    }
    Ok(blocks)
}

/// The entries that count.
pub(crate) fn values(read: &dyn Read, log: &Log) -> Result<BTreeSet<EntryId>, String> {
    let mut values = BTreeSet::new();
    log.walk(read, None, dunlin_base::kv::Direction::Ascending, &mut |position, _| {
        values.insert(position.id);
        std::ops::ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())?;
    Ok(values)
}

fn loads(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let blocks = blocks(&file.json)?;
    let heads = cids(&file.json, "heads")?;
    for (number, case) in list(&file.json, "loads")?.iter().enumerate() {
        if field(case, "length")?.as_i64() != Some(-1) {
            report.leave_out(format!("{}: no log is loaded in part", label(case, number)));
            continue;
        }
        let from = match text(case, "from")? {
            "first head" => heads.get(..1).unwrap_or_default(),
            _ => &heads,
        };
        report.check(label(case, number), load(case, text(&file.json, "log_id")?, from, &blocks));
    }
    Ok(())
}

fn load(
    case: &Value,
    log_id: &str,
    from: &[EntryId],
    blocks: &BTreeMap<EntryId, Vec<u8>>,
) -> Result<(), String> {
    let store = MemoryStore::default();
    let mut log = Log::new(log_id, Arc::new(Listed(None)));
    let mut tx = Tx::new(&store);
    fetch(&mut log, &mut tx, from, blocks)?;
    let wanted = field(case, "result")?;
    let heads: BTreeSet<EntryId> = log.heads(&tx).map_err(|error| error.to_string())?.into_iter().collect();
    equal("heads", heads, cids(wanted, "heads")?.into_iter().collect::<BTreeSet<_>>())?;
    equal("values", values(&tx, &log)?, cids(wanted, "values")?.into_iter().collect::<BTreeSet<_>>())
}

/// Takes `from` and whatever is missing then, as long as there is a block for it.
pub(crate) fn fetch(
    log: &mut Log,
    tx: &mut Tx<'_>,
    from: &[EntryId],
    blocks: &BTreeMap<EntryId, Vec<u8>>,
) -> Result<(), String> {
    let mut ahead = from.to_vec();
    while let Some(id) = ahead.pop() {
        match blocks.get(&id) {
            Some(block) => match log.ingest(tx, block).map_err(|error| error.to_string())? {
                Ingest::Stored { missing, .. } => ahead.extend(missing),
                Ingest::Known | Ingest::Refused(_) => {}
            },
            None => log.give_up(tx, id).map_err(|error| error.to_string())?,
        }
    }
    log.join_ready(tx, usize::MAX).map(drop).map_err(|error| error.to_string())
}

fn manifests(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (number, case) in list(&file.json, "cases")?.iter().enumerate() {
        match case.get("manifest") {
            Some(fields) => report.check(label(case, number), manifest(case, fields)),
            None => report.leave_out(format!("{}: Go makes no manifest", label(case, number))),
        }
    }
    for (number, case) in list(&file.json, "validity")?.iter().enumerate() {
        report.check(label(case, number), address(case));
    }
    Ok(())
}

fn manifest(case: &Value, fields: &Value) -> Result<(), String> {
    let manifest = Manifest {
        name: text(fields, "name")?.to_owned(),
        kind: text(fields, "type")?.to_owned(),
        access: text(fields, "access_controller")?.to_owned(),
    };
    let root = cid(text(case, "root_base58")?)?;
    equal_bytes("block", manifest.block(), blocks(case)?.get(&root).ok_or("no manifest block")?)?;
    let address = StoreAddress::of_manifest(&manifest).map_err(|error| error.to_string())?;
    equal("root", address.root(), &root.cid())?;
    equal("address", address.to_string().as_str(), text(case, "address")?)
}

fn address(case: &Value) -> Result<(), String> {
    let parsed = text(case, "address")?.parse::<StoreAddress>();
    equal("valid", parsed.is_ok(), flag(case, "valid")?)?;
    let Ok(parsed) = parsed else { return Ok(()) };
    equal("text", parsed.to_string().as_str(), text(field(case, "parsed")?, "text")?)
}

fn writers(json: &Value) -> Result<BTreeMap<String, Writer>, String> {
    list(json, "writers")?.iter().map(|case| Ok((text(case, "name")?.to_owned(), writer(case)?))).collect()
}

fn writer(case: &Value) -> Result<Writer, String> {
    let root = Key::from_scalar(&hex_bytes(case, "root_private_key")?)?;
    Ok(secp256k1::writer(&root, Key::from_scalar(&hex_bytes(case, "signing_private_key")?)?))
}

fn index(json: &Value, key: &str) -> Result<usize, String> {
    let number = field(json, key)?.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("{key:?} is no index"))
}

pub(crate) fn blocks(json: &Value) -> Result<BTreeMap<EntryId, Vec<u8>>, String> {
    let map = field(json, "blocks")?.as_object().ok_or("\"blocks\" is no object")?;
    map.iter().map(|(name, block)| Ok((cid(name)?, base64(block.as_str().unwrap_or_default())?))).collect()
}

pub(crate) fn cid(text: &str) -> Result<EntryId, String> {
    EntryId::from_cid_text(text).ok_or_else(|| format!("{text:?} is not the CID of an entry"))
}

pub(crate) fn cids(json: &Value, key: &str) -> Result<Vec<EntryId>, String> {
    list(json, key)?.iter().map(|link| cid(link.as_str().unwrap_or_default())).collect()
}
