//! Entries that no honest writer writes.

use dunlin_base::seal::{self, Nonce};
use dunlin_base::{EntryId, PeerId, SecretKey, Time};
use dunlin_log::{Body, Clock, ENTRY_BYTES_MAX, Entry, Identity, Writer, heads_to_json};
use dunlin_orbitdb::operation;
use dunlin_proto::protocol::{GroupEnvelope, GroupMetadata};
use dunlin_wesh::heads::HeadsPayload;
use dunlin_wesh::metadata::{self, Event};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::rotation;
use prost::Message as _;
use rand_core::RngCore as _;

use super::seat::{STORES, Seat, StoreKind};
use crate::chance::Chance;
use crate::network::Parcel;

/// Entries that a flooder writes to a store in a second.
const FLOOD: u64 = 8;
/// Heads that a fork flooder makes in a second, and in all: more than fit into one payload.
const FORKS: u64 = 24;
const FORKS_MAX: usize = 900;
/// Forgeries that are made for a store in a second.
const FORGERIES: usize = 3;
/// Types of metadata events, and some that are none.
const EVENT_TYPES: [i32; 26] = [
    0,
    1,
    2,
    101,
    102,
    103,
    104,
    105,
    106,
    107,
    108,
    109,
    110,
    111,
    112,
    201,
    301,
    302,
    303,
    403,
    500,
    1001,
    1002,
    2000,
    -1,
    i32::MAX,
];

/// M2: a chain of entries that are signed as they should be and say nothing, or what nobody can read.
pub(super) fn flood(seat: &Seat, kind: StoreKind, chance: &mut Chance) -> Vec<Entry> {
    let (mut next, mut time) = seat.top(kind);
    let mut entries = Vec::new();
    for _ in 0..FLOOD {
        let value = match chance.happens(500) {
            true => seat.strange_message(chance),
            false => random(64, chance),
        };
        let entry = seat.entry(kind, &value, &next, time);
        (next, time) = (vec![entry.id()], time.saturating_add(1));
        entries.push(entry);
    }
    // Shown by its newest alone, or whole; from behind, or in order.
    match chance.below(3) {
        0 => entries.split_off(entries.len().saturating_sub(1)),
        1 => entries.into_iter().rev().collect(),
        _ => entries,
    }
}

/// M3: entries on top of nothing.
pub(super) fn fork(seat: &Seat, kind: StoreKind, chance: &mut Chance) -> Vec<Entry> {
    if seat.store(kind).written() >= FORKS_MAX {
        return Vec::new();
    }
    (0..FORKS).map(|_| seat.entry(kind, &random(16, chance), &[], 1)).collect()
}

/// M4: entries on top of what is there, with clocks that nothing explains.
pub(super) fn inflate(seat: &Seat, kind: StoreKind, chance: &mut Chance) -> Vec<Entry> {
    let times = [i64::MAX, i64::MAX - 1, i64::MIN, -1, 0, 1 << 40];
    let time = chance.pick(&times).copied().unwrap_or(i64::MAX);
    let (next, _) = seat.top(kind);
    vec![seat.entry(kind, &random(16, chance), &next, time), seat.entry(kind, &random(16, chance), &[], time)]
}

/// M5: what others wrote, in entries of its own: before everything, beside the original and after it.
pub(super) fn rewrap(seat: &mut Seat, kind: StoreKind, chance: &mut Chance) -> Vec<Entry> {
    let Some(original) = chance.pick(&seat.store(kind).heard).cloned() else { return Vec::new() };
    let payload = original.payload().to_owned();
    let (next, time) = match chance.below(3) {
        0 => (Vec::new(), 1),
        1 => (original.next().to_vec(), original.time()),
        _ => (vec![original.id()], original.time().saturating_add(1)),
    };
    let copy = seat.entry_with(kind, payload, &next, time);
    // The key is shared, so a copy of everything is the same entry; and what is no operation carries no value.
    if copy.id() != original.id() && operation::decode_value(original.payload()).is_some() {
        seat.copies.push((kind, original.id(), copy.id()));
    }
    vec![copy]
}

/// M6: entries that are not what they claim.
pub(super) fn forge(seat: &mut Seat, kind: StoreKind, chance: &mut Chance) -> Vec<Entry> {
    let mut harmless = Vec::new();
    let store = seat.store(kind);
    let (next, time) = seat.top(kind);
    let mut secret = [0; 32];
    chance.fill_bytes(&mut secret);
    let stranger = Writer::new(SecretKey::from_seed(secret));
    let known = store.writer.identity().clone();
    let value = operation::encode_add(&random(16, chance));
    let body = |payload: &str| Body {
        log_id: store.address.clone(),
        payload: payload.to_owned(),
        next: next.clone(),
        refs: Vec::new(),
        clock: Clock { time, id: known.public_key.clone() },
    };
    let signature = |body: &Body, writer: &Writer| writer.sign(body.clone()).signature().to_vec();
    let assemble = |body: Body, key: &Identity, signature: Vec<u8>, identity: &Identity| {
        Entry::assemble(body, key.public_key.clone(), signature, identity.clone())
    };
    let mut entries = Vec::new();
    // By a stranger, in its own name and in that of the group, wholly and in part.
    let plain = body(&value);
    entries.push(stranger.sign(plain.clone()));
    entries.push(assemble(plain.clone(), &known, signature(&plain, &stranger), &known));
    entries.push(assemble(plain.clone(), stranger.identity(), signature(&plain, &stranger), &known));
    entries.push(assemble(plain.clone(), &known, signature(&plain, &store.writer), stranger.identity()));
    let mut other_clock = plain.clone();
    other_clock.clock.id = stranger.identity().public_key.clone();
    entries.push(store.writer.sign(other_clock));
    // A signature that is none, is empty, or belongs to something else.
    entries.push(assemble(plain.clone(), &known, random(64, chance), &known));
    entries.push(assemble(plain.clone(), &known, Vec::new(), &known));
    if let Some(heard) = &store.latest {
        let mut changed = heard.body().clone();
        changed.payload.clone_from(&value);
        entries.push(assemble(changed, &known, heard.signature().to_vec(), &known));
    }
    // Links without bounds, twice, and to nowhere.
    let nowhere = |chance: &mut Chance| EntryId::of_block(&random(8, chance));
    let hole = nowhere(chance);
    let mut twice = plain.clone();
    twice.next = vec![hole, hole];
    entries.push(store.writer.sign(twice));
    let mut holes = plain.clone();
    holes.next = (0..3).map(|_| nowhere(chance)).collect();
    let holes = store.writer.sign(holes);
    let holes_id = holes.id();
    harmless.push(holes);
    let mut refs = plain.clone();
    let many = if chance.happens(100) { 65 } else { 1 };
    refs.refs = (0..many).map(|_| nowhere(chance)).collect();
    if many > 64 {
        entries.push(store.writer.sign(refs))
    } else {
        harmless.push(store.writer.sign(refs))
    }
    // For another store, with no operation inside, and longer than an entry may be.
    let mut elsewhere = plain.clone();
    elsewhere.log_id = "/orbitdb/elsewhere".to_owned();
    entries.push(store.writer.sign(elsewhere));
    harmless.push(store.writer.sign(body("no operation")));
    harmless.push(store.writer.sign(body("{\"op\":\"ADD\",\"value\":\"!\"}")));
    if chance.happens(50) {
        entries.push(store.writer.sign(body(&"a".repeat(ENTRY_BYTES_MAX))));
    }
    let mut drop_some = |entries: &mut Vec<Entry>| {
        while entries.len() > FORGERIES {
            let some = usize::try_from(chance.below(entries.len() as u64)).unwrap_or(0);
            entries.swap_remove(some);
        }
    };
    drop_some(&mut entries);
    seat.forged.extend(entries.iter().map(|entry| (kind, entry.id())));
    seat.holed.push((kind, holes_id));
    entries.extend(harmless);
    drop_some(&mut entries);
    if kind == StoreKind::Metadata {
        entries.extend(forge_events(seat, chance));
    }
    entries
}

/// M6: events in the names of others, in entries that any member can write.
fn forge_events(seat: &mut Seat, chance: &mut Chance) -> Vec<Entry> {
    let own = seat.own.device_id();
    let Some((member, others)) = chance.pick(&seat.others).cloned() else { return Vec::new() };
    let (next, time) = seat.top(StoreKind::Metadata);
    let member_sig = seat.own.member.sign(own.as_bytes());
    let bind = Event::MemberDeviceAdded { device: own, member, member_sig };
    let seat_taken = metadata::seal(&seat.group, &seat.own, &bind, Padding::Buckets, chance);
    let Some(device) = chance.pick(&others).copied() else { return Vec::new() };
    let said = Event::AppMetadata { device, payload: b"I never said this".to_vec() };
    let payload = said.encode();
    let sig = seat.own.device.sign(&payload).as_bytes().to_vec();
    let event = GroupMetadata { event_type: said.event_type().into(), payload, sig, protocol_metadata: None };
    let said = seal_event(seat, &event, chance);
    let entries = [seat_taken, said].map(|value| seat.entry(StoreKind::Metadata, &value, &next, time));
    seat.forged_events.extend(entries.iter().map(Entry::id));
    entries.into()
}

fn seal_event(seat: &Seat, event: &GroupMetadata, chance: &mut Chance) -> Vec<u8> {
    let nonce = Nonce::random(chance);
    let envelope = GroupEnvelope {
        nonce: nonce.as_bytes().to_vec(),
        event: seal::seal(seat.group.secret(), nonce, &event.encode_to_vec()),
    };
    envelope.encode_to_vec()
}

/// M7: an event of another, sealed again under another type.
pub(super) fn relabel(seat: &Seat, kind: StoreKind, chance: &mut Chance) -> Vec<Entry> {
    let heard = &seat.store(StoreKind::Metadata).heard;
    let Some(original) = chance.pick(heard) else { return Vec::new() };
    let Some(value) = operation::decode_value(original.payload()) else { return Vec::new() };
    let Ok(opened) = metadata::open(&seat.group, &value) else { return Vec::new() };
    let mut event = opened.to_proto();
    event.event_type = chance.pick(&EVENT_TYPES).copied().unwrap_or(0);
    let value = seal_event(seat, &event, chance);
    let (next, time) = seat.top(kind);
    vec![seat.entry(kind, &value, &next, time)]
}

/// M8: what is said of one store, sealed, named, signed or sent as if it were another.
pub(super) fn reach_across(
    own: &Seat,
    other: &Seat,
    now: Time,
    host: &PeerId,
    chance: &mut Chance,
) -> Vec<Parcel> {
    let kind = chance.pick(&STORES).copied().unwrap_or(StoreKind::Messages);
    let there = chance.pick(&STORES).copied().unwrap_or(StoreKind::Messages);
    let (address, target) = (&own.store(kind).address, &other.store(there).address);
    let (next, time) = other.top(there);
    // Signed with the key of its own group, for the log of the other one.
    let clock = Clock { time, id: own.store(kind).writer.identity().public_key.clone() };
    let payload = operation::encode_add(&random(16, chance));
    let body = Body { log_id: target.clone(), payload, next, refs: Vec::new(), clock };
    let entry = own.store(kind).writer.sign(body);
    let heads = HeadsPayload {
        heads: heads_to_json(std::slice::from_ref(&entry)),
        device: Some(own.own.device_id()),
        host: Some(host.clone()),
    };
    let rotation = Profile::Berty.rotation();
    let key = own.group.link_key();
    let tokens = [
        rotation::heads_token(address, key, now, rotation),
        rotation::heads_token(target, other.group.link_key(), now, rotation),
        rotation::heads_token(target, key, now, rotation),
    ];
    let mut parcels = Vec::new();
    for token in tokens {
        for named in [address, target] {
            let data = heads.seal(named, key, &token, chance);
            parcels.push(match chance.happens(500) {
                true => Parcel::Heads { data },
                false => Parcel::Gossip { topic: target.clone(), data },
            });
        }
    }
    parcels
}

fn random(bytes: usize, chance: &mut Chance) -> Vec<u8> {
    let mut random = vec![0; bytes];
    chance.fill_bytes(&mut random);
    random
}
