//! Checks for what whole group logs hold: who is in the group, and which messages each device can read.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::EntryId;
use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_log::{Entry, Position};
use dunlin_orbitdb::operation;
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::message;
use dunlin_wesh::metadata::{Change, Index, OpenedEvent, open};
use serde_json::Value;

use crate::json::{base64, base64_bytes, equal, equal_bytes, field, list, number, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{account_keys, group, member};
use crate::wesh_ratchet::open_once;
use crate::wesh_state::{Expected, members, same_state};

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    match file.stem() {
        "log-account" if file.is_wesh() => Some(account_log),
        "log-contact" | "log-multimember" | "log-large" if file.is_wesh() => Some(group_log),
        _ => None,
    }
}

/// An entry of a log with its opened operation.
struct Logged<'f> {
    recorded: &'f Value,
    id: EntryId,
    position: Position,
    value: Vec<u8>,
}

fn account_log(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    let group = group(json, "group")?;
    let entries = log(file, json)?;
    let events = open_events(&group, &entries, report);
    report.check("linear state", linear_state(json, &group, &entries, &events));
    Ok(())
}

/// The state while one device wrote, which every device reaches from the same entries.
fn linear_state(
    json: &Value,
    group: &Group,
    entries: &[Logged<'_>],
    events: &BTreeMap<EntryId, OpenedEvent>,
) -> Result<(), String> {
    let account = field(list(json, "devices")?.first().ok_or("no device")?, "account")?;
    let (keys, own) = (account_keys(account)?, member(account, "account_seed", "device_seed")?);
    let linear = field(json, "linear_state")?;
    let mut wanted: Vec<&str> = list(linear, "heads")?.iter().filter_map(Value::as_str).collect();
    let mut reached = BTreeSet::new();
    while let Some(cid) = wanted.pop() {
        let entry = entries.iter().find(|entry| text(entry.recorded, "cid") == Ok(cid));
        let entry = entry.ok_or_else(|| format!("no entry {cid}"))?;
        if reached.insert(entry.id) {
            wanted.extend(list(entry.recorded, "next")?.iter().filter_map(Value::as_str));
        }
    }
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let index = Index::new(group, &keys, &own);
    // Newest first: the state does not depend on it.
    for entry in entries.iter().rev().filter(|entry| reached.contains(&entry.id)) {
        let event = events.get(&entry.id).ok_or("an event does not open")?;
        index
            .apply_all(&mut tx, entry.position, event, &|at| events.get(&at.id).cloned())
            .map_err(|error| error.to_string())?;
    }
    same_state(&index, &tx, &keys, field(linear, "state")?, &Expected::default())
}

fn group_log(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    let group = group(json, "group")?;
    let metadata = log(file, field(json, "metadata")?)?;
    let messages = log(file, field(json, "messages")?)?;
    let events = open_events(&group, &metadata, report);
    for (kind, name) in [("readers", "label"), ("devices", "name")] {
        for case in list(json, kind)? {
            let name = text(case, name)?;
            let reader = Reader::read(&group, case);
            let result = reader.and_then(|reader| reader.run(case, &metadata, &events, &messages));
            report.check(format!("{kind} {name}"), result);
        }
    }
    Ok(())
}

/// The entries of a log in the order of time. Values come from the blocks.
fn log<'f>(file: &VectorFile, json: &'f Value) -> Result<Vec<Logged<'f>>, String> {
    let mut blocks = blocks(json)?;
    for name in list(json, "block_files")? {
        let name = name.as_str().ok_or("no name of a block file")?;
        blocks.extend(self::blocks(&file.sibling(name)?.json)?);
    }
    let mut entries = Vec::new();
    for recorded in list(json, "entries")? {
        let cid = text(recorded, "cid")?;
        let block = blocks.get(cid).ok_or_else(|| format!("no block {cid}"))?;
        let entry = Entry::decode(block).map_err(|error| format!("{cid}: {error}"))?;
        let value = operation::decode_value(entry.payload()).ok_or("no operation")?;
        if recorded.get("value").is_some() {
            equal_bytes(cid, &value, base64_bytes(recorded, "value")?)?;
        }
        let (id, height) = (entry.id(), number(recorded, "time")?);
        entries.push(Logged { recorded, id, position: Position { height, id }, value });
    }
    entries.sort_by_key(|entry| entry.position);
    Ok(entries)
}

fn blocks(json: &Value) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let blocks = json.get("blocks").and_then(Value::as_object);
    let pairs = blocks.into_iter().flatten().map(|(cid, block)| {
        let block = base64(block.as_str().ok_or("a block is no text")?)?;
        Ok((cid.clone(), block))
    });
    pairs.collect()
}

/// Opens every event; each has to open as the type that is recorded.
fn open_events(group: &Group, entries: &[Logged<'_>], report: &mut Report) -> BTreeMap<EntryId, OpenedEvent> {
    let mut events = BTreeMap::new();
    for entry in entries {
        let result = open(group, &entry.value).map_err(|error| error.to_string()).and_then(|opened| {
            let number = u64::try_from(opened.event().event_type() as i32).ok();
            equal("type", number, entry.recorded.get("event_type").and_then(Value::as_u64))?;
            events.insert(entry.id, opened);
            Ok(())
        });
        report.check(format!("event {}", entry.id), result);
    }
    events
}

/// A device that loads the finished logs.
struct Reader<'g> {
    group: &'g Group,
    keys: AccountKeys,
    own: OwnMember,
}

impl<'g> Reader<'g> {
    fn read(group: &'g Group, case: &Value) -> Result<Self, String> {
        let keys = account_keys(field(case, "account")?)?;
        Ok(Self { group, keys, own: member(case, "member_seed", "device_seed")? })
    }

    fn run(
        &self,
        case: &Value,
        metadata: &[Logged<'_>],
        events: &BTreeMap<EntryId, OpenedEvent>,
        messages: &[Logged<'_>],
    ) -> Result<(), String> {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let index = Index::new(self.group, &self.keys, &self.own);
        let received = self.fold(&mut tx, &index, metadata, events)?;
        if case.get("chain_keys_received").is_some() {
            equal("chain keys", received, number(case, "chain_keys_received")?)?;
            equal("members", &members(&index, &tx)?, field(case, "members")?)?;
            let admins = index.initial_members(&tx).map_err(|error| error.to_string())?;
            let admins: Value = admins.iter().map(ToString::to_string).collect();
            equal("admins", &admins, field(case, "admins")?)?;
        }
        self.read_messages(&mut tx, &index, case, messages)
    }

    /// Folds the metadata and takes the chains that are addressed to the member; says how many.
    fn fold(
        &self,
        tx: &mut Tx<'_>,
        index: &Index,
        metadata: &[Logged<'_>],
        events: &BTreeMap<EntryId, OpenedEvent>,
    ) -> Result<u64, String> {
        let mut received = 0;
        for entry in metadata {
            let Some(event) = events.get(&entry.id) else { continue };
            let changes = index
                .apply_all(tx, entry.position, event, &|at| events.get(&at.id).cloned())
                .map_err(|error| error.to_string())?;
            for change in changes {
                let Change::ChainKeyOffered { device, dest, sealed } = change else { continue };
                if dest != self.own.member_id() {
                    continue;
                }
                let chain = message::open_chain_key_box(self.group, &self.own, &device, &sealed)
                    .map_err(|error| format!("{device}: {error}"))?;
                let is_new = message::register_chain_key(tx, &self.group.id(), &device, chain);
                received += u64::from(is_new.map_err(|error| error.to_string())?);
            }
        }
        Ok(received)
    }

    fn read_messages(
        &self,
        tx: &mut Tx<'_>,
        index: &Index,
        case: &Value,
        messages: &[Logged<'_>],
    ) -> Result<(), String> {
        let (mut readable, mut unreadable) = (BTreeSet::new(), BTreeSet::new());
        for entry in messages {
            let headers = message::open_headers(self.group, &entry.value).map_err(|e| e.to_string())?;
            equal("counter", headers.counter, number(entry.recorded, "counter")?)?;
            let bound = index.member_of(tx, &headers.device).map_err(|error| error.to_string())?;
            if bound.is_none() {
                return Err(format!("{} belongs to nobody", headers.device));
            }
            match open_once(tx, self.group, entry.id, &headers, &entry.value) {
                Ok(opened) => {
                    let text = text(entry.recorded, "plaintext")?;
                    equal_bytes("plaintext", &opened.plaintext, text.as_bytes())?;
                    readable.insert(entry.id.to_string());
                }
                Err(_) => drop(unreadable.insert(entry.id.to_string())),
            }
        }
        match case.get("readable") {
            Some(_) => equal("readable", &readable, &cids(case, "readable")?)?,
            None => equal("readable", readable.len() as u64, number(case, "readable_count")?)?,
        }
        equal("unreadable", &unreadable, &cids(case, "unreadable")?)
    }
}

fn cids(case: &Value, key: &str) -> Result<BTreeSet<String>, String> {
    let cids = list(case, key)?.iter().map(|cid| cid.as_str().map(str::to_owned));
    cids.collect::<Option<_>>().ok_or_else(|| format!("{key:?} holds no CIDs"))
}
