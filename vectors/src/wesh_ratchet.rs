//! Checks for the message ratchet: `ratchet.json`, `message-queue.json`.

use std::collections::BTreeMap;

use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{Direction, KeyRange, MemoryStore, Read, ReadError, Table, Tx};
use dunlin_base::seal::Nonce;
use dunlin_base::{DeviceId, EntryId, GroupId, MemberId, Time};
use dunlin_proto::protocol::{DeviceChainKey, EncryptedMessage, MessageEnvelope, MessageHeaders};
use dunlin_wesh::errors::{Code, Coded};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::message::{
    self, Arrival, ChainBoxError, ChainKey, Headers, HeadersError, OpenMessageError, OpenedMessage,
    OtherChain,
};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::tables;
use prost::Message;
use serde_json::Value;

use crate::fixed::FixedRng;
use crate::json::{base64_bytes, equal, equal_bytes, field, hex_array, hex_bytes, label, list, number, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{group, label_of, member, secret_key, verdict};

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    match file.stem() {
        "ratchet" if file.is_wesh() => Some(ratchet),
        "message-queue" if file.is_wesh() => Some(queue),
        _ => None,
    }
}

fn ratchet(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    equal("window", message::KEY_WINDOW, number(json, "window")?)?;
    let keys = file.sibling("keys.json")?;
    for (position, case) in list(json, "chains")?.iter().enumerate() {
        report.check(format!("chain {}", label(case, position)), chain(case));
    }
    for (position, case) in list(json, "sealed")?.iter().enumerate() {
        report.check(format!("sealed {position}"), sealed(case));
    }
    for (position, case) in list(json, "chain_key_boxes")?.iter().enumerate() {
        report.check(format!("box {}", label(case, position)), chain_box(&keys.json, case));
    }
    for case in list(json, "sessions")? {
        session(case, report)?;
    }
    for (position, case) in list(json, "own_device")?.iter().enumerate() {
        report.check(format!("own device {position}"), own_device(case));
    }
    let rejected = field(json, "rejected")?;
    for (position, case) in list(rejected, "cases")?.iter().enumerate() {
        report.check(format!("refused {}", label(case, position)), refused(rejected, case));
    }
    Ok(())
}

fn chain(case: &Value) -> Result<(), String> {
    let group = GroupId::from_bytes(&hex_bytes(case, "group_public_key")?).map_err(|e| e.to_string())?;
    let mut state = chain_key(field(case, "start")?)?;
    for step in list(case, "steps")? {
        let wanted = number(step, "counter")?;
        loop {
            let (next, key) = state.step(&group).ok_or("no counter left")?;
            state = next;
            if state.counter() == wanted {
                equal_bytes("message key", key.as_bytes(), hex_bytes(step, "message_key")?)?;
                equal_bytes("next", state.key().as_bytes(), hex_bytes(step, "next_chain_key")?)?;
                break;
            }
        }
    }
    Ok(())
}

/// Seals with the recorded nonce, compares every part, and opens again.
fn sealed(case: &Value) -> Result<(), String> {
    let group = group(case, "group")?;
    let device = secret_key(case, "device_seed")?;
    let state = chain_key(field(case, "state")?)?;
    let plaintext = base64_bytes(case, "plaintext")?;
    let nonce = Nonce::dangerous_fixed(hex_array(case, "header_nonce")?);
    let (made, next, key) = message::seal_at(&group, &device, &state, &plaintext, Padding::Bare, nonce)
        .ok_or("no counter left")?;
    equal("counter", made.counter, number(case, "message_counter")?)?;
    equal_bytes("message key", key.as_bytes(), hex_bytes(case, "message_key")?)?;
    equal("state after", next, chain_key(field(case, "state_after")?)?)?;
    equal_bytes("envelope", &made.envelope, base64_bytes(case, "envelope")?)?;
    let envelope = MessageEnvelope::decode(made.envelope.as_slice()).map_err(|error| error.to_string())?;
    equal_bytes("sealed message", envelope.message, base64_bytes(case, "sealed_message")?)?;
    equal_bytes("sealed headers", envelope.message_headers, base64_bytes(case, "sealed_headers")?)?;
    let headers = MessageHeaders::decode(base64_bytes(case, "headers")?.as_slice());
    let headers = headers.map_err(|error| error.to_string())?;
    equal_bytes("signature", headers.sig, hex_bytes(case, "sig")?)?;

    let headers = message::open_headers(&group, &made.envelope).map_err(|error| error.to_string())?;
    equal("counter in headers", headers.counter, made.counter)?;
    equal("device in headers", headers.device.to_string().as_str(), text(case, "device_pk")?)?;
    // A chain that begins so high is not accepted from others (C6).
    let Some(chain) = OtherChain::new(state) else { return Ok(()) };
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let registered = message::register_chain_key(&mut tx, &group.id(), &headers.device, chain);
    equal("registered", registered.map_err(|error| error.to_string())?, true)?;
    let opened = open(&mut tx, &group, "entry", &made.envelope).map_err(|error| error.to_string())?;
    equal_bytes("plaintext", opened.plaintext, plaintext)
}

fn chain_box(keys_file: &Value, case: &Value) -> Result<(), String> {
    let group = known_group(keys_file, text(case, "group_public_key")?)?;
    let bytes = base64_bytes(case, "box")?;
    let device = DeviceId::from_bytes(&hex_bytes(case, "device_pk")?).map_err(|error| error.to_string())?;
    let own = member(case, "member_seed", "member_seed")?;
    let result = message::open_chain_key_box(&group, &own, &device, &bytes);
    if let Some(recorded) = case.get("chain_key") {
        let state = chain_key(recorded)?;
        let dest = MemberId::from_bytes(&hex_bytes(case, "member_pk")?).map_err(|error| error.to_string())?;
        let sender = secret_key(case, "device_seed")?;
        let made = message::dangerous_seal_chain_key(&group.id(), &sender, &dest, &state);
        equal_bytes("box", made.map_err(|error| error.to_string())?, &bytes)?;
        let clear = DeviceChainKey { chain_key: state.key().as_bytes().to_vec(), counter: state.counter() };
        equal_bytes("clear", clear.encode_to_vec(), base64_bytes(case, "clear")?)?;
        if label_of(case).contains("largest counter") {
            // Go takes it; counters above 2^63 are refused here (C6).
            return match result {
                Err(ChainBoxError::CounterTooHigh { .. }) => Ok(()),
                other => Err(format!("{other:?}")),
            };
        }
        let opened = result.map_err(|error| error.to_string())?;
        return equal("chain", Some(opened), OtherChain::new(state));
    }
    verdict(case, result).map(drop)
}

/// A receiver from its first chain key on; every step leaves the recorded state.
fn session(case: &Value, report: &mut Report) -> Result<(), String> {
    let name = text(case, "name")?;
    let group = group(case, "group")?;
    let own = member(case, "receiver_member_seed", "receiver_device_seed")?;
    let device = DeviceId::from_bytes(&hex_bytes(case, "sender_device_pk")?).map_err(|e| e.to_string())?;
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    for (position, step) in list(case, "steps")?.iter().enumerate() {
        let result = session_step(&mut tx, &group, &own, &device, step);
        // The longest session records the state only here and there.
        let result = result.and_then(|()| match step.get("state_after") {
            Some(state) => same_chain(&tx, &group, &device, state),
            None => Ok(()),
        });
        report.check(format!("session {name} / {position}"), result);
    }
    Ok(())
}

fn session_step(
    tx: &mut Tx<'_>,
    group: &Group,
    own: &OwnMember,
    device: &DeviceId,
    step: &Value,
) -> Result<(), String> {
    match text(step, "op")? {
        "register" => {
            let chain = message::open_chain_key_box(group, own, device, &base64_bytes(step, "box")?)
                .map_err(|error| error.to_string())?;
            equal("chain", Some(&chain), OtherChain::new(chain_key(field(step, "chain_key")?)?).as_ref())?;
            message::register_chain_key(tx, &group.id(), device, chain).map_err(|error| error.to_string())?;
            Ok(())
        }
        "open" => {
            let result = open(tx, group, text(step, "entry_cid")?, &base64_bytes(step, "envelope")?);
            let Some(opened) = verdict(step, result)? else { return Ok(()) };
            equal("device", &opened.device, device)?;
            equal_bytes("plaintext", opened.plaintext, base64_bytes(step, "plaintext")?)
        }
        other => Err(format!("unknown step {other}")),
    }
}

fn own_device(case: &Value) -> Result<(), String> {
    let group = group(case, "group")?;
    let own = member(field(case, "account")?, "account_seed", "device_seed")?;
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let mut start = hex_bytes(field(case, "start")?, "chain_key")?;
    for (position, step) in list(case, "steps")?.iter().enumerate() {
        let envelope = base64_bytes(step, "envelope")?;
        match text(step, "op")? {
            "seal" => {
                let message = EncryptedMessage::decode(base64_bytes(step, "encrypted_message")?.as_slice());
                let message = message.map_err(|error| error.to_string())?;
                // The first use of the chain draws its key.
                let mut rng =
                    FixedRng::new(&[&std::mem::take(&mut start), &hex_bytes(step, "header_nonce")?]);
                let sealed =
                    message::seal(&mut tx, &group, &own, &message.plaintext, Padding::Bare, &mut rng);
                equal_bytes("envelope", sealed.map_err(|error| error.to_string())?.envelope, envelope)?;
            }
            _ => {
                let opened = verdict(step, open(&mut tx, &group, text(step, "entry_cid")?, &envelope))?;
                let opened = opened.ok_or("not opened")?;
                equal_bytes("plaintext", opened.plaintext, base64_bytes(step, "plaintext")?)?;
            }
        }
        same_chain(&tx, &group, &own.device_id(), field(step, "state_after")?)
            .map_err(|why| format!("step {position}: {why}"))?;
    }
    Ok(())
}

fn refused(common: &Value, case: &Value) -> Result<(), String> {
    let group = group(common, "group")?;
    let own = member(common, "receiver_member_seed", "receiver_device_seed")?;
    let device = DeviceId::new(secret_key(common, "sender_device_seed")?.public());
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let chain = message::open_chain_key_box(&group, &own, &device, &base64_bytes(common, "registered_box")?);
    let chain = chain.map_err(|error| error.to_string())?;
    message::register_chain_key(&mut tx, &group.id(), &device, chain).map_err(|error| error.to_string())?;

    let envelope = base64_bytes(case, "envelope")?;
    if let Some(recorded) = case.get("headers")
        && let Ok(headers) = message::open_headers(&group, &envelope)
    {
        equal("counter", headers.counter, number(recorded, "counter")?)?;
        equal("device", headers.device.to_string().as_str(), text(recorded, "device_pk")?)?;
    }
    if let Some(opened) = verdict(case, open(&mut tx, &group, "entry", &envelope))? {
        equal_bytes("plaintext", opened.plaintext, base64_bytes(case, "plaintext")?)?;
    }
    let view = message::inspect_chain(&tx, &group.id(), &device).map_err(|error| error.to_string())?;
    equal("keys after", view.ok_or("no chain")?.unused, ranges(case, "message_keys_after")?)
}

/// Compares a stored chain with the recorded one.
///
/// # Errors
/// Says what differs.
pub fn same_chain(read: &dyn Read, group: &Group, device: &DeviceId, recorded: &Value) -> Result<(), String> {
    let view = message::inspect_chain(read, &group.id(), device).map_err(|error| error.to_string())?;
    let unused = ranges(recorded, "message_keys")?;
    let Some(view) = view else {
        equal("chain", recorded.get("chain_key"), None::<&Value>)?;
        return equal("keys without a chain", unused.len(), 0);
    };
    let state = chain_key(field(recorded, "chain_key")?)?;
    equal("state", view.state.clone(), state)?;
    // Go derives one key more each time an own message or one outside the log is opened; it serves nothing.
    let newest = view.state.counter();
    let unused: Vec<_> = unused
        .into_iter()
        .filter(|(low, _)| *low <= newest)
        .map(|(low, high)| (low, high.min(newest)))
        .collect();
    equal("keys", view.unused, unused)
}

/// Why an envelope does not open, at either of its two layers.
#[derive(Debug)]
enum Unopened {
    Headers(HeadersError),
    Message(OpenMessageError),
}

impl std::fmt::Display for Unopened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Headers(error) => error.fmt(f),
            Self::Message(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Unopened {}

impl Coded for Unopened {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Headers(error) => error.codes(),
            Self::Message(error) => error.codes(),
        }
    }
}

/// Opens a message; `entry` names the entry, in whatever form.
fn open(tx: &mut Tx<'_>, group: &Group, entry: &str, envelope: &[u8]) -> Result<OpenedMessage, Unopened> {
    let headers = message::open_headers(group, envelope).map_err(Unopened::Headers)?;
    let entry = EntryId::of_block(entry.as_bytes());
    open_once(tx, group, entry, &headers, envelope).map_err(Unopened::Message)
}

/// Texts that were opened, by entry: Go opens an entry again with a key that it keeps, here the text is kept.
const OPENED: Table = Table(0xf0);

/// Opens a message, or finds it where it was kept when it was opened.
pub fn open_once(
    tx: &mut Tx<'_>,
    group: &Group,
    entry: EntryId,
    headers: &Headers,
    envelope: &[u8],
) -> Result<OpenedMessage, OpenMessageError> {
    if let Some(opened) = kept(tx, &entry)? {
        return Ok(opened);
    }
    let arrival = Arrival { now: Time::default(), past_is_synced: true };
    let opening = message::open_message(tx, &arrival, group, entry, headers, envelope)?;
    if opening.is_repeat {
        return Err(OpenMessageError::AlreadyUsed);
    }
    let message = opening.message;
    let counter = message.counter.to_be_bytes();
    let row = [message.device.as_bytes().as_slice(), &counter, &message.plaintext].concat();
    tx.put(OPENED, entry.digest(), &row);
    Ok(message)
}

/// The message in an entry that was opened.
pub fn kept(read: &dyn Read, entry: &EntryId) -> Result<Option<OpenedMessage>, ReadError> {
    let row = read.get(OPENED, entry.digest())?;
    Ok(row.and_then(|row| {
        let (device, rest) = row.split_at_checked(32)?;
        let (counter, text) = rest.split_first_chunk()?;
        let (device, counter) = (DeviceId::from_stored(device)?, u64::from_be_bytes(*counter));
        Some(OpenedMessage { device, counter, plaintext: text.to_vec() })
    }))
}

fn queue(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    let group = group(json, "group")?;
    let own = member(json, "reader_member_seed", "reader_device_seed")?;
    for case in list(json, "cases")? {
        let name = text(case, "name")?;
        let store = MemoryStore::default();
        let mut reader = QueueReader { group: &group, own: &own, file: json, tx: Tx::new(&store) };
        report.check(name, reader.run(name, case));
    }
    Ok(())
}

/// Opens messages as they arrive, and those that wait as soon as they can be opened.
struct QueueReader<'q> {
    group: &'q Group,
    own: &'q OwnMember,
    file: &'q Value,
    tx: Tx<'q>,
}

impl QueueReader<'_> {
    fn run(&mut self, name: &str, case: &Value) -> Result<(), String> {
        // Go delivers 6 and 7 only behind 8, because older messages block its queue.
        let better: &[&[&str]] = match name {
            "key shared at 5: older messages block the queue" => &[&[], &["x 6", "x 7"], &["x 8"]],
            _ => &[],
        };
        for (position, step) in list(case, "steps")?.iter().enumerate() {
            let delivered = self.step(step)?;
            let recorded = list(step, "delivered")?.iter().filter_map(Value::as_str).collect();
            let wanted: Vec<&str> = better.get(position).map_or(recorded, |better| better.to_vec());
            equal(&format!("step {position}"), delivered, wanted)?;
        }
        let waiting = field(case, "still_waiting")?.as_object().ok_or("no counts")?;
        for (device, count) in waiting {
            equal("still waiting", Some(self.count_waiting(device)?), count.as_u64())?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Result<Vec<String>, String> {
        let name = text(step, "device")?;
        let device = self.device(name)?;
        let mut delivered = Vec::new();
        match text(step, "op")? {
            "key" => {
                let sealed = base64_bytes(step, "box")?;
                let chain = message::open_chain_key_box(self.group, self.own, &device, &sealed)
                    .map_err(|error| error.to_string())?;
                message::register_chain_key(&mut self.tx, &self.group.id(), &device, chain)
                    .map_err(|error| error.to_string())?;
                self.open_waiting(name, &device, &mut delivered)?;
            }
            "arrive" => {
                for counter in list(step, "counters")? {
                    let counter = counter.as_u64().ok_or("no counter")?;
                    self.arrive(name, &device, counter, &mut delivered)?;
                }
            }
            other => return Err(format!("unknown step {other}")),
        }
        Ok(delivered)
    }

    fn arrive(
        &mut self,
        name: &str,
        device: &DeviceId,
        counter: u64,
        delivered: &mut Vec<String>,
    ) -> Result<(), String> {
        if self.open(name, counter)? {
            delivered.push(format!("{name} {counter}"));
            return self.open_waiting(name, device, delivered);
        }
        let entry = self.entry(name, counter)?;
        message::keep_waiting(&mut self.tx, &self.group.id(), device, counter, entry);
        Ok(())
    }

    fn open_waiting(
        &mut self,
        name: &str,
        device: &DeviceId,
        delivered: &mut Vec<String>,
    ) -> Result<(), String> {
        let id = self.group.id();
        for (counter, entry) in message::waiting(&self.tx, &id, device).map_err(|error| error.to_string())? {
            if self.open(name, counter)? {
                message::stop_waiting(&mut self.tx, &id, device, counter, &entry);
                delivered.push(format!("{name} {counter}"));
            }
        }
        Ok(())
    }

    fn open(&mut self, name: &str, counter: u64) -> Result<bool, String> {
        let envelope = base64_bytes(self.message(name, counter)?, "envelope")?;
        let entry = self.entry(name, counter)?;
        let headers = message::open_headers(self.group, &envelope).map_err(|error| error.to_string())?;
        equal("counter", headers.counter, counter)?;
        Ok(open_once(&mut self.tx, self.group, entry, &headers, &envelope).is_ok())
    }

    fn count_waiting(&self, name: &str) -> Result<u64, String> {
        let prefix = [self.group.id().as_bytes().as_slice(), self.device(name)?.as_bytes()].concat();
        let range = KeyRange::prefix(&prefix);
        let rows = self.tx.collect(tables::WAITING, &range, Direction::Ascending, usize::MAX);
        Ok(rows.map_err(|error| error.to_string())?.len() as u64)
    }

    fn device(&self, name: &str) -> Result<DeviceId, String> {
        let bytes = hex_bytes(self.recorded(name)?, "device_pk")?;
        DeviceId::from_bytes(&bytes).map_err(|error| error.to_string())
    }

    fn entry(&self, name: &str, counter: u64) -> Result<EntryId, String> {
        Ok(EntryId::of_block(text(self.message(name, counter)?, "entry_cid")?.as_bytes()))
    }

    fn message(&self, name: &str, counter: u64) -> Result<&Value, String> {
        field(field(self.recorded(name)?, "messages")?, &counter.to_string())
    }

    fn recorded(&self, name: &str) -> Result<&Value, String> {
        let devices = list(self.file, "devices")?.iter();
        let by_name: BTreeMap<_, _> =
            devices.filter_map(|device| Some((text(device, "name").ok()?, device))).collect();
        by_name.get(name).copied().ok_or_else(|| format!("no device {name}"))
    }
}

fn chain_key(case: &Value) -> Result<ChainKey, String> {
    Ok(ChainKey::new(SymmetricKey::from_bytes(hex_array(case, "chain_key")?), number(case, "counter")?))
}

/// Inclusive ranges of counters.
fn ranges(case: &Value, key: &str) -> Result<Vec<(u64, u64)>, String> {
    let counter = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse().ok());
    let ranges = list(case, key)?.iter().map(|range| Some((counter(range.get(0))?, counter(range.get(1))?)));
    ranges.collect::<Option<_>>().ok_or_else(|| format!("{key:?} holds no ranges"))
}

/// The group with this key in `keys.json`.
fn known_group(keys_file: &Value, id: &str) -> Result<Group, String> {
    for kind in ["account_groups", "contact_groups", "multi_member_groups"] {
        let found = list(keys_file, kind)?.iter().find(|case| text(case, "public_key") == Ok(id));
        if let Some(case) = found {
            return group(case, "group");
        }
    }
    Err(format!("no group {id}"))
}
