//! What the holder of an invitation can do in a group.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::kv::{Durability, MemoryStore, Store as _, Tx};
use dunlin_base::{DeviceId, EntryId, MemberId, PeerId, Time};
use dunlin_log::{Body, Clock, Entry, Writer, heads_from_json, heads_to_json};
use dunlin_orbitdb::{StoreAddress, operation};
use dunlin_wesh::engine::StoreKind as Kind;
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::heads::{self, HeadsPayload};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::message::{self, ChainKey};
use dunlin_wesh::metadata::{self, Event};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::rotation;

use super::Deed;
use crate::chance::Chance;
use crate::network::{NodeNumber, Parcel};

pub(super) use dunlin_wesh::engine::StoreKind;

pub(super) const STORES: [Kind; 2] = [Kind::Metadata, Kind::Messages];

/// Entries of a store that it keeps: of others, to work with, and its own, to answer for.
const ENTRIES_MAX: usize = 256;
/// Messages of which it says two things.
const EQUIVOCATIONS_MAX: u64 = 8;

/// A place at a group's table.
pub(super) struct Seat {
    pub group: Group,
    pub own: OwnMember,
    stores: [Store; 2],
    chain: ChainKey,
    /// Entries that it wrote and nobody must accept, and entries with events that nobody must believe.
    pub forged: Vec<(Kind, EntryId)>,
    pub forged_events: Vec<EntryId>,
    /// Entries that name what nobody has, and what it wrote again: the entry before and the one after.
    pub holed: Vec<(Kind, EntryId)>,
    pub copies: Vec<(Kind, EntryId, EntryId)>,
    /// The other members and their devices: whoever holds the invitation can read who they are.
    pub others: Vec<(MemberId, Vec<DeviceId>)>,
    served: BTreeSet<MemberId>,
    has_sat_down: bool,
    equivocations: u64,
}

/// One of the two stores of the group.
pub(super) struct Store {
    pub address: String,
    pub writer: Writer,
    /// What others wrote.
    pub heard: Vec<Entry>,
    /// What it wrote itself.
    written: BTreeMap<EntryId, Vec<u8>>,
    /// The entry that it heard of last.
    pub latest: Option<Entry>,
}

impl Store {
    /// How many entries it wrote.
    pub fn written(&self) -> usize {
        self.written.len()
    }
}

impl Seat {
    pub fn new(group: &Group, keys: &AccountKeys, chance: &mut Chance) -> Self {
        let memory = MemoryStore::default();
        let mut tx = Tx::new(&memory);
        // A store in memory can be read, so there are keys; and should there be none, any will do.
        let own = OwnMember::in_group(keys, group, &mut tx, chance).unwrap_or_else(|_| OwnMember {
            member: group.signing_key().clone(),
            device: group.signing_key().clone(),
        });
        drop(tx);
        let store = |kind: &str| Store {
            address: StoreAddress::new(&group.id(), kind, &group.sign_pub()).to_string(),
            writer: Writer::new(group.signing_key().clone()),
            heard: Vec::new(),
            written: BTreeMap::new(),
            latest: None,
        };
        let stores = [store(Profile::Berty.metadata_store()), store(Profile::Berty.message_store())];
        Self {
            group: group.clone(),
            own,
            stores,
            chain: ChainKey::random(chance),
            forged: Vec::new(),
            forged_events: Vec::new(),
            holed: Vec::new(),
            copies: Vec::new(),
            others: Vec::new(),
            served: BTreeSet::new(),
            has_sat_down: false,
            equivocations: 0,
        }
    }

    pub fn topics(&self) -> Vec<String> {
        self.stores.iter().map(|store| store.address.clone()).collect()
    }

    pub fn store(&self, kind: Kind) -> &Store {
        let [metadata, messages] = &self.stores;
        match kind {
            Kind::Metadata => metadata,
            Kind::Messages => messages,
        }
    }

    fn store_mut(&mut self, kind: Kind) -> &mut Store {
        let [metadata, messages] = &mut self.stores;
        match kind {
            Kind::Metadata => metadata,
            Kind::Messages => messages,
        }
    }

    /// Reads what others show, if the group's key opens it.
    pub fn hear(&mut self, data: &[u8]) {
        let Ok(sealed) = heads::parse(data) else { return };
        for store in &mut self.stores {
            let Ok(payload) = sealed.open(&store.address, self.group.link_key()) else { continue };
            let Ok(entries) = heads_from_json(&payload.heads) else { continue };
            for entry in entries.into_iter().flatten() {
                if store.written.contains_key(&entry.id()) {
                    continue;
                }
                store.latest = Some(entry.clone());
                if store.heard.len() < ENTRIES_MAX && !store.heard.contains(&entry) {
                    store.heard.push(entry);
                }
            }
        }
    }

    /// The block of an entry that it wrote.
    pub fn block(&self, entry: &EntryId) -> Option<Vec<u8>> {
        self.stores.iter().find_map(|store| store.written.get(entry)).cloned()
    }

    /// The blocks that it wrote or heard of.
    pub fn blocks(&self, kind: Kind) -> impl Iterator<Item = &[u8]> {
        let store = self.store(kind);
        store.written.values().map(Vec::as_slice).chain(store.heard.iter().map(Entry::block))
    }

    /// An entry with a value, signed as members sign.
    pub fn entry(&self, kind: Kind, value: &[u8], next: &[EntryId], time: i64) -> Entry {
        self.entry_with(kind, operation::encode_add(value), next, time)
    }

    pub fn entry_with(&self, kind: Kind, payload: String, next: &[EntryId], time: i64) -> Entry {
        let store = self.store(kind);
        let clock = Clock { time, id: store.writer.identity().public_key.clone() };
        let log_id = store.address.clone();
        store.writer.sign(Body { log_id, payload, next: next.to_vec(), refs: Vec::new(), clock })
    }

    /// What a writer who means well would name, and the clock it would claim.
    pub fn top(&self, kind: Kind) -> (Vec<EntryId>, i64) {
        match &self.store(kind).latest {
            Some(entry) => (vec![entry.id()], entry.time().saturating_add(1)),
            None => (Vec::new(), 1),
        }
    }

    /// Shows entries to some of `peers`.
    pub fn show(
        &mut self,
        kind: Kind,
        entries: Vec<Entry>,
        now: Time,
        peers: &[NodeNumber],
        host: &PeerId,
        chance: &mut Chance,
    ) -> Vec<Deed> {
        let some: Vec<_> = peers.iter().copied().filter(|_| chance.happens(500)).collect();
        self.show_all(kind, entries, now, &some, host, chance)
    }

    /// Shows entries to all of `peers`.
    pub fn show_all(
        &mut self,
        kind: Kind,
        entries: Vec<Entry>,
        now: Time,
        peers: &[NodeNumber],
        host: &PeerId,
        chance: &mut Chance,
    ) -> Vec<Deed> {
        if entries.is_empty() {
            return Vec::new();
        }
        let data = self.payload(kind, &entries, now, host, chance);
        let topic = self.store(kind).address.clone();
        let store = self.store_mut(kind);
        for entry in &entries {
            store.written.insert(entry.id(), entry.block().to_vec());
        }
        let parcel = |chance: &mut Chance| match chance.happens(500) {
            true => Parcel::Heads { data: data.clone() },
            false => Parcel::Gossip { topic: topic.clone(), data: data.clone() },
        };
        peers.iter().map(|to| Deed::Send(*to, parcel(chance))).collect()
    }

    /// A payload that shows entries as heads.
    pub fn payload(
        &self,
        kind: Kind,
        entries: &[Entry],
        now: Time,
        host: &PeerId,
        chance: &mut Chance,
    ) -> Vec<u8> {
        let address = &self.store(kind).address;
        let heads = HeadsPayload {
            heads: heads_to_json(entries),
            device: Some(self.own.device_id()),
            host: Some(host.clone()),
        };
        let key = self.group.link_key();
        let token = rotation::heads_token(address, key, now, Profile::Berty.rotation());
        heads.seal(address, key, &token, chance)
    }

    /// Becomes a member, and gives its chain to all whom it heard of.
    pub fn take_seat(&mut self, chance: &mut Chance) -> Vec<Entry> {
        let mut events = Vec::new();
        if !self.has_sat_down {
            self.has_sat_down = true;
            events.push(Event::member_device_added(&self.own));
        }
        for member in self.members() {
            if self.served.insert(member)
                && let Ok(sealed) = message::dangerous_seal_chain_key(
                    &self.group.id(),
                    &self.own.device,
                    &member,
                    &self.chain,
                )
            {
                events.push(Event::chain_key_added(&self.own, member, sealed));
            }
        }
        let mut entries = Vec::new();
        let (mut next, mut time) = self.top(Kind::Metadata);
        for event in events {
            let value = metadata::seal(&self.group, &self.own, &event, Padding::Buckets, chance);
            let entry = self.entry(Kind::Metadata, &value, &next, time);
            (next, time) = (vec![entry.id()], time.saturating_add(1));
            entries.push(entry);
        }
        entries
    }

    fn members(&self) -> Vec<MemberId> {
        let mut members = Vec::new();
        for entry in &self.store(Kind::Metadata).heard {
            let Some(value) = operation::decode_value(entry.payload()) else { continue };
            let Ok(opened) = metadata::open(&self.group, &value) else { continue };
            if let Event::MemberDeviceAdded { member, .. } = opened.event() {
                members.push(*member);
            }
        }
        members
    }

    /// Two messages with one number.
    pub fn equivocate(&mut self, chance: &mut Chance) -> Option<(Entry, Entry)> {
        if self.equivocations >= EQUIVOCATIONS_MAX || self.served.is_empty() {
            return None;
        }
        self.equivocations = self.equivocations.saturating_add(1);
        let (next, time) = self.top(Kind::Messages);
        let mut say = |text: &[u8]| {
            let nonce = dunlin_base::seal::Nonce::random(chance);
            message::seal_at(&self.group, &self.own.device, &self.chain, text, Padding::Buckets, nonce)
        };
        let (one, after, _) = say(b"the answer is yes")?;
        let (other, _, _) = say(b"the answer is no")?;
        self.chain = after;
        let entry = |value: &[u8]| self.entry(Kind::Messages, value, &next, time);
        Some((entry(&one.envelope), entry(&other.envelope)))
    }

    /// A message that is sealed as it should be, by a device that nobody knows.
    pub fn strange_message(&self, chance: &mut Chance) -> Vec<u8> {
        let memory = MemoryStore::default();
        let mut tx = Tx::new(&memory);
        let sealed = message::seal(&mut tx, &self.group, &self.own, b"flood", Padding::Buckets, chance);
        let batch = tx.into_batch();
        // Nothing is kept of it, so every one of them has the first number of a chain of its own.
        let _ = memory.commit(batch, Durability::Synced);
        sealed.map(|sealed| sealed.envelope).unwrap_or_default()
    }
}
