//! Checks for stores, entries and whole group logs of weshnet: `stores.json`, `entries.json`, `log-*.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_base::kv::{Durability, MemoryStore, Store, Tx};
use dunlin_base::{EntryId, GroupId, PublicKey, SecretKey};
use dunlin_log::{
    Checker, ClockReport, Entry, Ingest, Log, Quarantine, Verdict, Writer, heads_from_json, heads_to_json,
};
use dunlin_orbitdb::{SharedStore, StoreAddress, manifest, operation};
use dunlin_proto::protocol::Group;
use prost::Message;
use serde_json::Value;

use crate::json::{
    base64, base64_bytes, equal, equal_bytes, field, flag, hex_array, label, list, number, text,
};
use crate::registry::{Check, VectorFile};
use crate::report::Report;

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    if !file.is_wesh() {
        return None;
    }
    match file.stem() {
        "stores" => Some(stores),
        "entries" => Some(entries),
        "log-account" => Some(account_log),
        "log-contact" | "log-multimember" | "log-large" => Some(group_logs),
        "log-large-blocks-1" => Some(block_file),
        _ => None,
    }
}

fn stores(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (number, case) in list(&file.json, "groups")?.iter().enumerate() {
        let group = group(case)?;
        report.check(format!("group {number}: identity"), identity(case, &group));
        report.check(format!("group {number}: replica"), replica(case, &group));
        for case in list(case, "stores")? {
            let kind = text(case, "store_type")?;
            report.check(format!("group {number}: {kind}"), store(case, &group, kind));
        }
    }
    Ok(())
}

fn identity(case: &Value, group: &Keys) -> Result<(), String> {
    let case = field(case, "identity")?;
    let writer = Writer::new(group.signing.clone().ok_or("the group has no secret")?);
    let identity = writer.identity();
    equal("id", identity.id.as_str(), text(case, "id")?)?;
    equal("type", identity.kind.as_str(), text(case, "type")?)?;
    equal("public key", hex::encode(&identity.public_key).as_str(), text(case, "public_key")?)?;
    equal("id signature", hex::encode(&identity.id_signature).as_str(), text(case, "signature_id")?)?;
    equal("key signature", hex::encode(&identity.key_signature).as_str(), text(case, "signature_public_key")?)
}

fn replica(case: &Value, group: &Keys) -> Result<(), String> {
    let replica = Keys::decode(&base64_bytes(case, "replica_group")?)?;
    equal("group", replica.id, group.id)?;
    equal("signing key", replica.write, group.write)
}

fn store(case: &Value, group: &Keys, kind: &str) -> Result<(), String> {
    let access = manifest::group_access(&group.id, kind, &group.write);
    equal("access", access.as_str(), text(case, "access")?)?;
    let access_cid = manifest::access_cid(&access).to_string();
    equal("access CID", access_cid.as_str(), text(case, "access_controller_cid")?)?;
    let made = manifest::group_manifest(&group.id, kind, &group.write);
    equal("name", made.name.as_str(), text(case, "name")?)?;
    equal_bytes("manifest", made.block(), base64_bytes(case, "manifest")?)?;
    equal("manifest CID", made.cid().to_string().as_str(), text(case, "manifest_cid")?)?;
    let address = StoreAddress::new(&group.id, kind, &group.write);
    equal("address", address.to_string().as_str(), text(case, "address")?)?;
    equal("parsed address", address.to_string().parse(), Ok(address))
}

fn entries(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (number, case) in list(&file.json, "logs")?.iter().enumerate() {
        let key = SecretKey::from_seed(hex_array(case, "sign_seed")?);
        let mut log = Log::new(text(case, "address")?, Arc::new(SharedStore::new(key.public())));
        let writer = Writer::new(key);
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        for (at, case) in list(case, "entries")?.iter().enumerate() {
            report.check(format!("log {number}, entry {at}"), appended(case, &mut log, &mut tx, &writer));
        }
    }
    let checks = field(&file.json, "checks")?;
    let group = group(checks)?;
    let checker = Checker::new(text(checks, "address")?, Arc::new(SharedStore::new(group.write)));
    for (at, case) in list(checks, "cases")?.iter().enumerate() {
        report.check(label(case, at), altered(case, &checker));
    }
    for (at, case) in list(field(&file.json, "sealed_links")?, "entries")?.iter().enumerate() {
        report.check(format!("sealed links {at}"), sealed_links(case, &checker));
    }
    Ok(())
}

/// Writing the same payload on top of the same heads gives the same entry in all its forms.
fn appended(case: &Value, log: &mut Log, tx: &mut Tx<'_>, writer: &Writer) -> Result<(), String> {
    let joined = log.append(tx, writer, text(case, "payload")?).map_err(|error| error.to_string())?;
    let entry = joined.entry;
    equal("signed text", entry.body().signed_text().as_str(), text(case, "signed_json")?)?;
    equal("next", entry.next(), cids(case, "next")?)?;
    equal("refs", entry.refs(), cids(case, "refs")?)?;
    equal_bytes("block", entry.block(), base64_bytes(case, "block")?)?;
    equal("CID", entry.id().to_string().as_str(), text(case, "cid")?)?;
    equal("clock", joined.clock, ClockReport::Fits)?;
    equal("height", joined.position.height, number(case, "clock_time")?)?;
    let heads = format!("[{}]", text(case, "heads_json")?);
    equal("decoded", Entry::decode(entry.block()).ok().as_ref(), Some(&entry))?;
    equal_bytes("JSON", heads_to_json(std::slice::from_ref(&entry)), &heads)?;
    let heads = heads_from_json(heads.as_bytes()).map_err(|error| error.to_string())?;
    let heads: Result<Vec<Entry>, _> = heads.into_iter().collect();
    equal("read from JSON", heads.map_err(|error| error.to_string())?, vec![entry])
}

/// Blocks that Go accepts and that the rules of `spec/security.md` do not let count.
fn stricter_than_go(label: &str) -> Option<&'static str> {
    Some(match label {
        "version 1, signed again" | "version 3, signed again" => "V3",
        "foreign key and signature under the group's identity id" => "V4",
        "identity public key altered" => "V4",
        "clock id of another key, signed again" => "V4",
        _ => return None,
    })
}

fn altered(case: &Value, checker: &Checker) -> Result<(), String> {
    let block = base64_bytes(case, "block")?;
    equal("CID", EntryId::of_block(&block).to_string().as_str(), text(case, "cid")?)?;
    let rule = match checker.check(&block) {
        Err(_) => Some("V3"),
        Ok(checked) => match checked.fault() {
            None => None,
            Some(Quarantine::Writer) => Some("V4"),
            Some(_) => Some("V5"),
        },
    };
    if let Some(stricter) = stricter_than_go(text(case, "label")?) {
        equal("Go accepts", flag(case, "ok")?, true)?;
        return equal("rule", rule, Some(stricter));
    }
    equal("accepted", rule.is_none(), flag(case, "ok")?)
}

fn sealed_links(case: &Value, checker: &Checker) -> Result<(), String> {
    let checked = checker.check(&base64_bytes(case, "block")?).map_err(|error| error.to_string())?;
    let has_links = !list(case, "next")?.is_empty();
    equal("fault", checked.fault(), has_links.then_some(Quarantine::SealedLinks))?;
    equal("verifies", checked.fault().is_none(), flag(case, "signature_verifies")?)
}

fn account_log(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let keys = group(&file.json)?;
    let log = Recorded::read(file, &file.json)?;
    load(&log, &keys, "log", report)?;
    let log = &log;
    replay(&file.json, &keys, &[("metadata", "event", log)], report)
}

fn group_logs(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let keys = group(&file.json)?;
    let messages = Recorded::read(file, field(&file.json, "messages")?)?;
    let metadata = Recorded::read(file, field(&file.json, "metadata")?)?;
    load(&messages, &keys, "messages", report)?;
    load(&metadata, &keys, "metadata", report)?;
    let logs = [("messages", "message", &messages), ("metadata", "event", &metadata)];
    replay(&file.json, &keys, &logs, report)
}

fn block_file(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (cid, block) in blocks(&file.json)? {
        report.check(cid.to_string(), {
            let entry = Entry::decode(&block).map_err(|error| error.to_string());
            entry.and_then(|entry| equal("CID", entry.id(), cid))
        });
    }
    Ok(())
}

/// A log as a file records it.
struct Recorded<'f> {
    address: &'f str,
    blocks: BTreeMap<EntryId, Vec<u8>>,
    entries: BTreeMap<EntryId, &'f Value>,
    heads: BTreeSet<EntryId>,
}

impl<'f> Recorded<'f> {
    fn read(file: &VectorFile, json: &'f Value) -> Result<Self, String> {
        let mut all = blocks(json)?;
        for name in list(json, "block_files")? {
            let stem = name.as_str().ok_or("a block file has no name")?;
            all.extend(blocks(&file.sibling(stem)?.json)?);
        }
        let mut entries = BTreeMap::new();
        for entry in list(json, "entries")? {
            entries.insert(cid(text(entry, "cid")?)?, entry);
        }
        let heads = cids(json, "final_heads")?.into_iter().collect();
        Ok(Self { address: text(json, "address")?, blocks: all, entries, heads })
    }

    fn open(&self, keys: &Keys) -> Log {
        Log::new(self.address, Arc::new(SharedStore::new(keys.write)))
    }
}

/// All blocks, taken in the order of their CIDs, make the recorded log, with nothing to complain about.
fn load(recorded: &Recorded<'_>, keys: &Keys, name: &str, report: &mut Report) -> Result<(), String> {
    let store = MemoryStore::default();
    let mut log = recorded.open(keys);
    let mut tx = Tx::new(&store);
    for (cid, block) in &recorded.blocks {
        let stored = matches!(log.ingest(&mut tx, block), Ok(Ingest::Stored { .. }));
        report.check(format!("{name} {cid}: stored"), equal("stored", stored, true));
    }
    let batch = log.join_ready(&mut tx, usize::MAX).map_err(|error| error.to_string())?;
    for joined in &batch.joined {
        let case = *recorded.entries.get(&joined.id).ok_or("an entry that the file does not list")?;
        report.check(format!("{name} {}: joined", joined.id), {
            equal("verdict", joined.verdict, Verdict::Accept)
                .and_then(|()| equal("void", joined.void, false))
                .and_then(|()| equal("clock", joined.clock, ClockReport::Fits))
                .and_then(|()| equal("height", joined.position.height, number(case, "time")?))
        });
    }
    report.check(format!("{name}: all joined"), equal("joined", batch.joined.len(), recorded.entries.len()));
    let heads: BTreeSet<EntryId> = log.heads(&tx).map_err(|error| error.to_string())?.into_iter().collect();
    report.check(format!("{name}: heads"), equal("heads", &heads, &recorded.heads));
    let missing = log.missing(&tx, 1).map_err(|error| error.to_string())?;
    report.check(format!("{name}: complete"), equal("missing", missing, Vec::<EntryId>::new()));
    Ok(())
}

/// A device's logs by name.
type Device = BTreeMap<String, (MemoryStore, Log)>;

/// Does what the devices did: writes what they wrote and syncs when they did.
fn replay(
    json: &Value,
    keys: &Keys,
    logs: &[(&str, &str, &Recorded<'_>)],
    report: &mut Report,
) -> Result<(), String> {
    let Some(signing) = &keys.signing else { return Err("the group has no secret".into()) };
    let writer = Writer::new(signing.clone());
    let mut devices: BTreeMap<&str, Device> = BTreeMap::new();
    for (number, step) in list(json, "steps")?.iter().enumerate() {
        let device = text(step, "device")?;
        match text(step, "op")? {
            "open" => {
                let open = |(name, _, recorded): &(&str, &str, &Recorded<'_>)| {
                    ((*name).to_owned(), (MemoryStore::default(), recorded.open(keys)))
                };
                devices.insert(device, logs.iter().map(open).collect());
            }
            "sync" => {
                for (name, ..) in logs {
                    let from = held_blocks(devices.get(text(step, "from")?), name)?;
                    take_all(devices.get_mut(device), name, &from)?;
                }
                let after = field(step, "heads_after")?;
                report.check(format!("step {number}: heads"), same_heads(&devices, logs, after));
            }
            kind => {
                let (name, _, recorded) =
                    logs.iter().find(|(_, op, _)| *op == kind).ok_or("an unknown kind of step")?;
                let id = cid(text(step, "cid")?)?;
                let value = base64_bytes(recorded.entries.get(&id).ok_or("no such entry")?, "value")?;
                let block = recorded.blocks.get(&id).ok_or("no such block")?;
                report.check(
                    format!("step {number}: {kind}"),
                    write(devices.get_mut(device), name, &writer, &value, block),
                );
            }
        }
    }
    Ok(())
}

/// Writes `value`; what comes out must be the recorded block. With several heads their order is as Go
/// stored them by chance, so then only the links are compared as sets, and the recorded block is taken.
fn write(
    device: Option<&mut Device>,
    name: &str,
    writer: &Writer,
    value: &[u8],
    recorded: &[u8],
) -> Result<(), String> {
    let (store, log) = device.and_then(|logs| logs.get_mut(name)).ok_or("no such device")?;
    let heads = log.heads(store).map_err(|error| error.to_string())?;
    let mut tx = Tx::new(store);
    let joined =
        log.append(&mut tx, writer, &operation::encode_add(value)).map_err(|error| error.to_string())?;
    if heads.len() < 2 {
        equal_bytes("block", joined.entry.block(), recorded)?;
        return store.commit(tx.into_batch(), Durability::Deferred).map_err(|error| error.to_string());
    }
    drop(tx);
    let wanted = Entry::decode(recorded).map_err(|error| error.to_string())?;
    let set = |links: &[EntryId]| links.iter().copied().collect::<BTreeSet<_>>();
    equal("next", set(joined.entry.next()), set(wanted.next()))?;
    equal("time", joined.entry.time(), wanted.time())?;
    let mut tx = Tx::new(store);
    log.ingest(&mut tx, recorded).map_err(|error| error.to_string())?;
    log.join_ready(&mut tx, usize::MAX).map_err(|error| error.to_string())?;
    store.commit(tx.into_batch(), Durability::Deferred).map_err(|error| error.to_string())
}

fn held_blocks(device: Option<&Device>, name: &str) -> Result<Vec<Vec<u8>>, String> {
    let (store, log) = device.and_then(|logs| logs.get(name)).ok_or("no such device")?;
    let mut blocks = Vec::new();
    log.walk(store, None, dunlin_base::kv::Direction::Descending, &mut |_, entry| {
        blocks.push(entry.block().to_vec());
        std::ops::ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())?;
    Ok(blocks)
}

fn take_all(device: Option<&mut Device>, name: &str, blocks: &[Vec<u8>]) -> Result<(), String> {
    let (store, log) = device.and_then(|logs| logs.get_mut(name)).ok_or("no such device")?;
    let mut tx = Tx::new(store);
    for block in blocks {
        log.ingest(&mut tx, block).map_err(|error| error.to_string())?;
    }
    log.join_ready(&mut tx, usize::MAX).map_err(|error| error.to_string())?;
    store.commit(tx.into_batch(), Durability::Deferred).map_err(|error| error.to_string())
}

fn same_heads(
    devices: &BTreeMap<&str, Device>,
    logs: &[(&str, &str, &Recorded<'_>)],
    after: &Value,
) -> Result<(), String> {
    for (device, recorded) in after.as_object().ok_or("heads_after is no object")? {
        for (name, ..) in logs {
            let (store, log) =
                devices.get(device.as_str()).and_then(|logs| logs.get(*name)).ok_or("no such device")?;
            let heads: BTreeSet<EntryId> =
                log.heads(store).map_err(|error| error.to_string())?.into_iter().collect();
            equal(
                &format!("{device}, {name}"),
                heads,
                cids(recorded, name)?.into_iter().collect::<BTreeSet<_>>(),
            )?;
        }
    }
    Ok(())
}

/// What a group's logs need of its keys.
struct Keys {
    id: GroupId,
    write: PublicKey,
    signing: Option<SecretKey>,
}

impl Keys {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let group = Group::decode(bytes).map_err(|error| error.to_string())?;
        let id = GroupId::from_bytes(&group.public_key).map_err(|error| error.to_string())?;
        let seed: Option<[u8; 32]> = group.secret.as_slice().try_into().ok();
        let signing = seed.map(SecretKey::from_seed);
        let write = match &signing {
            Some(key) => key.public(),
            None => PublicKey::from_bytes(&group.sign_pub).map_err(|error| error.to_string())?,
        };
        Ok(Self { id, write, signing })
    }
}

fn group(json: &Value) -> Result<Keys, String> {
    Keys::decode(&base64_bytes(json, "group")?)
}

fn blocks(json: &Value) -> Result<BTreeMap<EntryId, Vec<u8>>, String> {
    let Some(map) = json.get("blocks").and_then(Value::as_object) else { return Ok(BTreeMap::new()) };
    map.iter().map(|(name, block)| Ok((cid(name)?, base64(block.as_str().unwrap_or_default())?))).collect()
}

fn cid(text: &str) -> Result<EntryId, String> {
    EntryId::from_cid_text(text).ok_or_else(|| format!("{text:?} is not the CID of an entry"))
}

fn cids(json: &Value, key: &str) -> Result<Vec<EntryId>, String> {
    list(json, key)?.iter().map(|link| cid(link.as_str().unwrap_or_default())).collect()
}
