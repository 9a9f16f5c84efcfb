//! Checks for the archive of an account: `account-export.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, Durability, MemoryStore, Store, Tx};
use dunlin_base::{DeviceId, EntryId, GroupId, PeerId, SecretKey, Time};
use dunlin_log::{Log, Position};
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use dunlin_wesh::archive::{ArchivePart, ArchiveReader, Import, ImportArchiveError, Imported, Item};
use dunlin_wesh::engine::{Ctx, Engine};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::message;
use dunlin_wesh::metadata::{Change, Index, OpenedEvent, open};
use dunlin_wesh::profile::Profile;
use serde_json::Value;

use crate::fixed::FixedRng;
use crate::json::{base64_bytes, equal, equal_bytes, field, hex_array, label, list, number, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{account_keys, group, verdict};
use crate::wesh_ratchet::open_once;
use crate::wesh_state::{Expected, same_state};

/// A block that is no CBOR and has another hash than its name says.
const HASHED_FIRST: &str = "entry not CBOR";

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "account-export").then_some(run)
}

fn run(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    let archive = base64_bytes(json, "archive")?;
    report.check("files", files(json, &archive));
    report.check("written again", written_again(&archive));
    for (position, case) in list(json, "checks")?.iter().enumerate() {
        let archive = base64_bytes(case, "archive")?;
        let result = import(&MemoryStore::default(), &archive, &[2; 32]);
        let checked = match text(case, "label")? {
            HASHED_FIRST => equal("refused", result.is_err(), true),
            _ => verdict(case, result).map(drop),
        };
        report.check(label(case, position), checked);
    }
    let store = MemoryStore::default();
    let device: [u8; 32] = hex_array(json, "new_device_seed_used_after_import")?;
    let imported = import(&store, &archive, &device).map_err(|error| error.to_string())?;
    let entries = list(json, "files")?.iter().filter(|file| is_entry(file)).count() as u64;
    report.check("imported", equal("counts", imported, Imported { entries, ..Imported::default() }));
    report.check("keys", keys(json, &store, &device));
    for (position, case) in list(json, "groups")?.iter().enumerate() {
        report.check(format!("group {position}"), imported_group(json, case, &store, &device));
    }
    report.check("exported", exported(&archive, &store));
    report.leave_out(format!("the code for {HASHED_FIRST:?}: the hash is compared before a block is read"));
    report.leave_out("go_state_after_import: the state is the one before the export");
    report.leave_out("secrets_sent_to of the state before the export: the new device sent none yet");
    Ok(())
}

fn is_entry(file: &Value) -> bool {
    text(file, "name").is_ok_and(|name| name.starts_with("entries/"))
}

/// Names and sizes, in order.
fn files(json: &Value, archive: &[u8]) -> Result<(), String> {
    let mut wanted = list(json, "files")?.iter();
    for item in items(archive)? {
        let file = wanted.next().ok_or("more files than recorded")?;
        let (name, size) = match &item {
            Item::AccountKey(key) => ("account.key".to_owned(), key.to_libp2p().len()),
            Item::ProofKey(key) => ("account_proof.key".to_owned(), key.to_libp2p().len()),
            Item::Entry(entry) => (format!("entries/{}", entry.id()), entry.block().len()),
            Item::Heads(heads) => {
                let group = data_encoding::BASE64URL_NOPAD.encode(heads.group.as_bytes());
                // Two raw keys, the link key, and each head, with two bytes before each.
                let heads = heads.metadata.len() + heads.messages.len();
                (format!("heads/{group}"), 3 * 34 + 38 * heads)
            }
        };
        equal("name", name.as_str(), text(file, "name")?)?;
        equal(&name, size as u64, number(file, "size")?)?;
    }
    equal("files left", wanted.count(), 0)
}

/// Read and written again, the archive is the same to the last byte.
fn written_again(archive: &[u8]) -> Result<(), String> {
    let mut part = ArchivePart::new();
    items(archive)?.iter().for_each(|item| part.put(item));
    part.end();
    equal_bytes("archive", part.as_bytes(), archive)
}

fn items(mut archive: &[u8]) -> Result<Vec<Item>, String> {
    let mut reader = ArchiveReader::default();
    let mut items = Vec::new();
    while let Some(item) = reader.read(&mut archive).map_err(|error| error.to_string())? {
        items.push(item);
    }
    reader.finish().map_err(|error| error.to_string())?;
    Ok(items)
}

fn import(store: &MemoryStore, archive: &[u8], device: &[u8; 32]) -> Result<Imported, ImportArchiveError> {
    let mut tx = Tx::new(store);
    let mut import = Import::begin(&mut tx, Profile::Wesh)?;
    import.feed(&mut tx, archive)?;
    let imported = import.finish(&mut tx, &mut FixedRng::new(&[device]))?;
    store
        .commit(tx.into_batch(), Durability::Synced)
        .map_err(|error| ImportArchiveError::Read(dunlin_base::kv::ReadError(Box::new(error))))?;
    Ok(imported)
}

fn keys(json: &Value, store: &MemoryStore, device: &[u8; 32]) -> Result<(), String> {
    let wanted = account_keys(field(json, "account")?)?;
    let keys = AccountKeys::load(store).map_err(|error| error.to_string())?.ok_or("no account")?;
    equal("account", keys.account_id(), wanted.account_id())?;
    // The secret of the account group is made from the proof key.
    equal("account group", Group::account(&keys) == Group::account(&wanted), true)?;
    equal("device", keys.device_id(), DeviceId::new(SecretKey::from_seed(*device).public()))
}

/// What a new device finds in the logs of one group.
fn imported_group(json: &Value, case: &Value, store: &MemoryStore, device: &[u8; 32]) -> Result<(), String> {
    let account = field(json, "account")?;
    let old = account_keys(account)?;
    let [account_seed, proof_seed] = ["account_seed", "proof_seed"].map(|name| hex_array(account, name));
    let keys = AccountKeys::new(
        SecretKey::from_seed(account_seed?),
        SecretKey::from_seed(proof_seed?),
        SecretKey::from_seed(*device),
    );
    equal("account", keys.account_id(), old.account_id())?;
    let group = group(case, "group")?;
    let mut tx = Tx::new(store);
    let own = OwnMember::in_group(&keys, &group, &mut tx, &mut FixedRng::new(&[&[3; 32]]))
        .map_err(|error| error.to_string())?;
    let metadata = log(&mut tx, &group, case, "metadata")?;
    let messages = log(&mut tx, &group, case, "messages")?;

    let index = Index::new(&group, &keys, &own);
    let mut received = 0;
    let find = |at: Position| {
        let (_, value) = metadata.iter().find(|(position, _)| *position == at)?;
        open(&group, value).ok()
    };
    for (position, value) in &metadata {
        let event: OpenedEvent = open(&group, value).map_err(|error| error.to_string())?;
        let changes = index.apply_all(&mut tx, *position, &event, &find);
        for change in changes.map_err(|error| error.to_string())? {
            let Change::ChainKeyOffered { device, dest, sealed } = change else { continue };
            if dest != own.member_id() {
                continue;
            }
            let chain = message::open_chain_key_box(&group, &own, &device, &sealed)
                .map_err(|error| error.to_string())?;
            let is_new = message::register_chain_key(&mut tx, &group.id(), &device, chain);
            received += u64::from(is_new.map_err(|error| error.to_string())?);
        }
    }
    equal("chain keys", received, number(case, "chain_keys_received_after_import")?)?;
    let expected = Expected { not_compared: BTreeSet::from(["secrets_sent_to"]), ..Expected::default() };
    same_state(&index, &tx, &keys, field(case, "state_before_export")?, &expected)?;
    read_messages(&mut tx, &group, case, &messages)
}

fn read_messages(
    tx: &mut Tx<'_>,
    group: &Group,
    case: &Value,
    messages: &[(Position, Vec<u8>)],
) -> Result<(), String> {
    let recorded: BTreeMap<&str, &Value> = list(case, "messages")?
        .iter()
        .map(|message| Ok((text(message, "cid")?, message)))
        .collect::<Result<_, String>>()?;
    equal("messages", messages.len(), recorded.len())?;
    let (mut readable, mut unreadable) = (BTreeSet::new(), BTreeSet::new());
    for (position, value) in messages {
        let cid = position.id.to_string();
        let recorded = recorded.get(cid.as_str()).ok_or_else(|| format!("{cid} is not recorded"))?;
        let headers = message::open_headers(group, value).map_err(|error| error.to_string())?;
        equal("counter", headers.counter, number(recorded, "counter")?)?;
        match open_once(tx, group, position.id, &headers, value) {
            Ok(opened) => {
                equal_bytes(&cid, &opened.plaintext, text(recorded, "plaintext")?)?;
                readable.insert(cid);
            }
            Err(_) => drop(unreadable.insert(cid)),
        }
    }
    equal("readable", readable, cids(case, "readable_after_import")?)?;
    equal("unreadable", unreadable, cids(case, "unreadable_after_import")?)
}

/// Joins an imported log; its values in order.
fn log(tx: &mut Tx<'_>, group: &Group, case: &Value, name: &str) -> Result<Vec<(Position, Vec<u8>)>, String> {
    let store_type = match name {
        "metadata" => Profile::Wesh.metadata_store(),
        _ => Profile::Wesh.message_store(),
    };
    let address = StoreAddress::new(&group.id(), store_type, &group.sign_pub());
    equal("address", address.to_string().as_str(), text(case, &format!("{name}_address"))?)?;
    let mut log: Log = shared_store(&address, group.sign_pub());
    while log.join_ready(tx, 100).map_err(|error| error.to_string())?.more {}
    let heads = log.heads(tx).map_err(|error| error.to_string())?;
    let heads: BTreeSet<String> = heads.iter().map(ToString::to_string).collect();
    equal("heads", &heads, &cids(case, &format!("{name}_heads_after_import"))?)?;
    equal("heads before", heads, cids(case, &format!("{name}_heads"))?)?;
    let mut values = Vec::new();
    log.walk(tx, None, Direction::Ascending, &mut |position, entry| {
        values.extend(operation::decode_value(entry.payload()).map(|value| (position, value)));
        ControlFlow::Continue(())
    })
    .map_err(|error| error.to_string())?;
    Ok(values)
}

/// The account exports again what was imported: the same files of each group, in the same order.
fn exported(archive: &[u8], store: &MemoryStore) -> Result<(), String> {
    let mut tx = Tx::new(store);
    let mut rng = FixedRng::new(&[&[5; 4096]]);
    let mut ctx = Ctx { tx: &mut tx, now: Time::from_secs(1_700_000_000), rng: &mut rng };
    let host = PeerId::from_array([1; 34]);
    let engine = Engine::open(&mut ctx, Profile::Wesh, host).map_err(|error| error.to_string())?;
    let mut export = engine.dangerous_export(&tx).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    while let Some(part) = export.next_part(&engine, &tx).map_err(|error| error.to_string())? {
        bytes.extend_from_slice(part.as_bytes());
    }
    let wanted = entries_by_group(archive)?;
    let got = entries_by_group(&bytes)?;
    equal("groups", got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>())?;
    for (group, entries) in wanted {
        let got: Vec<EntryId> = got.get(&group).into_iter().flatten().copied().collect();
        // The new device has said in the account group who it is, in two entries.
        let got = got.get(..entries.len()).unwrap_or(&got);
        equal("entries", got, entries.as_slice())?;
    }
    Ok(())
}

fn entries_by_group(archive: &[u8]) -> Result<BTreeMap<GroupId, Vec<EntryId>>, String> {
    let (mut groups, mut entries) = (BTreeMap::new(), Vec::new());
    for item in items(archive)? {
        match item {
            Item::Entry(entry) => entries.push(entry.id()),
            Item::Heads(heads) => drop(groups.insert(heads.group, std::mem::take(&mut entries))),
            Item::AccountKey(_) | Item::ProofKey(_) => {}
        }
    }
    Ok(groups)
}

fn cids(case: &Value, key: &str) -> Result<BTreeSet<String>, String> {
    let cids = list(case, key)?.iter().map(|cid| cid.as_str().map(str::to_owned));
    cids.collect::<Option<_>>().ok_or_else(|| format!("{key:?} holds no CIDs"))
}
