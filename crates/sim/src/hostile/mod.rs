//! Peers that mean no good (`spec/security.md` §4.3), among the honest devices of a run.
//!
//! | | What it does | What it holds |
//! |---|---|---|
//! | M1 | sends bytes that mean nothing, and honest bytes with a bit flipped | nothing |
//! | M2 | writes entries without end that are signed as they should be | invitations |
//! | M3 | writes entries on top of nothing, each of which is a head | invitations |
//! | M4 | claims clocks from both ends of the scale | invitations |
//! | M5 | sends again what it heard, as it was and wrapped into entries of its own | invitations |
//! | M6 | writes entries that are not what they claim, in every way that an entry has | invitations |
//! | M7 | gives signed events of others another type, since the type is not signed | invitations |
//! | M8 | uses what it holds of one store to reach into another | invitations |
//! | M9 | asks for contacts with keys to which the other side's secret makes no difference | nothing |
//! | M10 | is a member, and tells one half this and the other half that under one number | invitations, a seat |
//!
//! An invitation is all that a member of a group ever gets of it. So what these cannot do, no member can.

mod entries;
mod seat;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_base::keys::AgreementKey;
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId, PeerId, SecretKey, Time};
use dunlin_wesh::catch_up::Frame;
use dunlin_wesh::contact::Contact;
use dunlin_wesh::engine::{ExchangeId, StoreKind};
use dunlin_wesh::group::Group;
use dunlin_wesh::handshake::{HandshakeAction, Requester};
use dunlin_wesh::keys::AccountKeys;
use rand_core::RngCore as _;

use crate::chance::Chance;
use crate::network::{NodeNumber, Parcel};
use seat::Seat;

/// Groups of which one of them gets the invitation.
const SEATS_MAX: usize = 3;
/// Parcels that it keeps, to send them again.
const HEARD_MAX: usize = 64;
/// Bytes of a parcel that means nothing.
const GARBAGE_BYTES_MAX: u64 = 3000;
/// Parcels a second.
const BURST: u64 = 6;
/// Sessions that M9 opens in a run.
const STREAMS_MAX: u64 = 200;

/// Encodings of the points of small order on Curve25519.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(0, 1, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    with_ends(0xff, 0xec, 0x7f),
    with_ends(0xff, 0xed, 0x7f),
    with_ends(0xff, 0xee, 0x7f),
];

const fn with_ends(between: u8, first: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// In which way a peer means no good.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Malice {
    /// M1.
    Garbage,
    /// M2.
    Flooder,
    /// M3.
    Forker,
    /// M4.
    ClockInflater,
    /// M5.
    Replayer,
    /// M6.
    Forger,
    /// M7.
    Relabeller,
    /// M8.
    CrossStore,
    /// M9.
    LowOrder,
    /// M10.
    Equivocator,
}

impl Malice {
    /// All ways.
    pub const ALL: [Self; 10] = [
        Self::Garbage,
        Self::Flooder,
        Self::Forker,
        Self::ClockInflater,
        Self::Replayer,
        Self::Forger,
        Self::Relabeller,
        Self::CrossStore,
        Self::LowOrder,
        Self::Equivocator,
    ];

    /// Its number in the specification.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|malice| *malice == self).unwrap_or_default().saturating_add(1)
    }
}

impl fmt::Display for Malice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "M{}", self.number())
    }
}

/// What a hostile peer does next.
#[derive(Clone, Debug)]
pub(crate) enum Deed {
    /// It sends something.
    Send(NodeNumber, Parcel),
    /// It writes a frame on a stream that it opened.
    Frame(ExchangeId, Vec<u8>),
}

/// A hostile peer.
pub(crate) struct Villain {
    pub id: PeerId,
    pub malice: Malice,
    keys: AccountKeys,
    chance: Chance,
    seats: Vec<Seat>,
    heard: Vec<Parcel>,
    opened: BTreeMap<ExchangeId, [u8; 32]>,
    streams: u64,
    /// An entry of which it knows the name.
    known: Option<EntryId>,
    /// Accounts of which it knows the key.
    accounts: Vec<(NodeNumber, AccountId)>,
    account: SecretKey,
    requests: BTreeMap<ExchangeId, Requester>,
    /// The members that it is.
    pub members: BTreeSet<MemberId>,
    /// Devices in whose name it may say what it likes: its own.
    pub devices: BTreeSet<DeviceId>,
    /// What it got that nobody must get.
    pub spoils: Vec<&'static str>,
}

impl Villain {
    pub fn new(seed: u64, number: usize, malice: Malice) -> Self {
        let mut chance = Chance::new(seed, &format!("villain {number}"));
        let mut id = [0; 34];
        chance.fill_bytes(&mut id);
        let mut secrets = [[0; 32]; 3];
        secrets.iter_mut().for_each(|secret| chance.fill_bytes(secret));
        let [account, proof, device] = secrets.map(SecretKey::from_seed);
        let keys = AccountKeys::new(account.clone(), proof, device);
        Self {
            id: PeerId::from_array(id),
            malice,
            keys,
            chance,
            seats: Vec::new(),
            heard: Vec::new(),
            opened: BTreeMap::new(),
            streams: 0,
            known: None,
            accounts: Vec::new(),
            account,
            requests: BTreeMap::new(),
            members: BTreeSet::new(),
            devices: BTreeSet::new(),
            spoils: Vec::new(),
        }
    }

    /// It gets an invitation, if it is of a kind that has any. The topics that it is on from then.
    pub fn learn(&mut self, group: &Group) -> Vec<String> {
        let is_outside = matches!(self.malice, Malice::Garbage | Malice::LowOrder);
        if is_outside || self.seats.len() >= SEATS_MAX {
            return Vec::new();
        }
        let seat = Seat::new(group, &self.keys, &mut self.chance);
        self.devices.insert(seat.own.device_id());
        self.members.insert(seat.own.member_id());
        let topics = seat.topics();
        self.seats.push(seat);
        topics
    }

    /// It learns what is no secret: the name of an entry, and keys of accounts.
    pub fn learn_names(&mut self, known: Option<EntryId>, accounts: Vec<(NodeNumber, AccountId)>) {
        self.known = known;
        self.accounts = accounts;
    }

    /// Entries that nobody must accept.
    pub fn forgeries(&self) -> impl Iterator<Item = (GroupId, StoreKind, EntryId)> {
        self.seats
            .iter()
            .flat_map(|seat| seat.forged.iter().map(|(kind, entry)| (seat.group.id(), *kind, *entry)))
    }

    /// It reads who the other members of a group are.
    pub fn learn_members(&mut self, group: &GroupId, members: Vec<(MemberId, Vec<DeviceId>)>) {
        for seat in self.seats.iter_mut().filter(|seat| seat.group.id() == *group) {
            let own = seat.own.member_id();
            seat.others = members.iter().filter(|(member, _)| *member != own).cloned().collect();
        }
    }

    /// Entries that name what nobody has. They count without it in the end.
    pub fn holed(&self) -> impl Iterator<Item = (GroupId, StoreKind, EntryId)> {
        self.seats
            .iter()
            .flat_map(|seat| seat.holed.iter().map(|(kind, entry)| (seat.group.id(), *kind, *entry)))
    }

    /// What it wrote again: the entry before, and the one after. Only one of them may count.
    pub fn copies(&self) -> impl Iterator<Item = (GroupId, StoreKind, [EntryId; 2])> {
        self.seats.iter().flat_map(|seat| {
            seat.copies.iter().map(|(kind, entry, copy)| (seat.group.id(), *kind, [*entry, *copy]))
        })
    }

    /// Entries with events that nobody must believe.
    pub fn forged_events(&self) -> impl Iterator<Item = EntryId> {
        self.seats.iter().flat_map(|seat| seat.forged_events.iter().copied())
    }

    /// Groups of which it has the invitation.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.seats.iter().map(|seat| seat.group.id())
    }

    /// It hears a parcel.
    pub fn hear(&mut self, now: Time, from: NodeNumber, parcel: Parcel) -> Vec<Deed> {
        match &parcel {
            Parcel::Gossip { data, .. } | Parcel::Heads { data } => {
                for seat in &mut self.seats {
                    seat.hear(data);
                }
                self.keep(parcel);
                Vec::new()
            }
            Parcel::Records { .. } => {
                self.keep(parcel);
                Vec::new()
            }
            Parcel::Want { entry } => vec![Deed::Send(from, self.answer(*entry))],
            Parcel::StreamWanted { group, kind, .. } => self.stream(from, *group, *kind),
            Parcel::Open { theirs } => vec![Deed::Send(from, Parcel::Closed { id: *theirs })],
            Parcel::Block { entry, block } => {
                if self.seats.is_empty() && EntryId::of_block(block) == *entry {
                    self.spoils.push("a block of a group of which it has nothing");
                }
                Vec::new()
            }
            Parcel::Opened { id } => self.speak_first(now, from, *id),
            Parcel::Frame { id, frame } => {
                if let Some(requester) = self.requests.get_mut(id) {
                    // Whoever is lied to may end it.
                    let _ = requester.handle_frame(now, frame);
                    return self.go_on(*id);
                }
                let key = self.opened.get(id);
                if key.is_some_and(|key| LOW_ORDER.contains(key)) {
                    self.spoils.push("an answer to an ephemeral key of small order");
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it wrote an entry.
    pub fn has(&self, entry: &EntryId) -> bool {
        self.seats.iter().any(|seat| seat.block(entry).is_some())
    }

    fn keep(&mut self, parcel: Parcel) {
        if self.heard.len() < HEARD_MAX {
            self.heard.push(parcel);
        } else {
            let place = usize::try_from(self.chance.below(HEARD_MAX as u64)).unwrap_or(0);
            if let Some(kept) = self.heard.get_mut(place) {
                *kept = parcel;
            }
        }
    }

    /// What it gives to somebody who wants all of a log: silence, or whatever it has, and garbage.
    fn stream(&mut self, to: NodeNumber, group: GroupId, kind: StoreKind) -> Vec<Deed> {
        if self.chance.happens(300) {
            return Vec::new();
        }
        let mut frame = Frame::default();
        for seat in self.seats.iter().filter(|seat| seat.group.id() == group) {
            // What does not fit is left out.
            for block in seat.blocks(kind) {
                frame.push(block);
            }
        }
        frame.push(&self.garbage());
        let mut bytes = frame.as_bytes().to_vec();
        if self.chance.happens(300) {
            bytes.pop();
        }
        let end = Parcel::StreamEnded { group, kind };
        vec![Deed::Send(to, Parcel::Streamed { group, kind, frame: bytes }), Deed::Send(to, end)]
    }

    /// What it says to somebody who wants a block: nothing, or another one under that name.
    fn answer(&mut self, entry: EntryId) -> Parcel {
        let own = self.seats.iter().find_map(|seat| seat.block(&entry));
        match own {
            // It withholds some of what it wrote, for some time.
            Some(block) if self.chance.happens(700) => Parcel::Block { entry, block },
            _ if self.chance.happens(300) => Parcel::Block { entry, block: self.garbage() },
            _ => Parcel::BlockMissing { entry },
        }
    }

    /// What it does within a second. `peers` are those that it reaches.
    pub fn act(&mut self, now: Time, peers: &[NodeNumber]) -> Vec<Deed> {
        match self.malice {
            Malice::Garbage => self.send_garbage(peers),
            Malice::LowOrder => self.open_streams(peers),
            Malice::CrossStore => self.reach_across(now, peers),
            Malice::Replayer => {
                let mut deeds = self.repeat_heard(peers);
                deeds.extend(self.write(now, peers));
                deeds
            }
            Malice::Equivocator => self.say_two_things(now, peers),
            _ => self.write(now, peers),
        }
    }

    fn send_garbage(&mut self, peers: &[NodeNumber]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for _ in 0..BURST {
            let Some(to) = self.chance.pick(peers).copied() else { return deeds };
            let mut data = self.garbage();
            if self.chance.happens(500)
                && let Some(heard) = self.chance.pick(&self.heard)
            {
                data = heard.bytes().to_vec();
                self.flip(&mut data);
            }
            let mut entry = [0; 32];
            self.chance.fill_bytes(&mut entry);
            let entry = EntryId::from_digest(entry);
            let topic = match self.chance.pick(&self.heard) {
                Some(Parcel::Gossip { topic, .. }) => topic.clone(),
                _ => "/orbitdb/nowhere".to_owned(),
            };
            let parcel = match self.chance.below(6) {
                0 => Parcel::Gossip { topic, data },
                1 => Parcel::Heads { data },
                2 => Parcel::Records { data },
                3 => Parcel::Block { entry, block: data },
                4 => Parcel::Want { entry: self.known.unwrap_or(entry) },
                _ => self.open(self.some_key()),
            };
            deeds.push(Deed::Send(to, parcel));
        }
        deeds
    }

    fn open_streams(&mut self, peers: &[NodeNumber]) -> Vec<Deed> {
        let key = self.chance.pick(&LOW_ORDER).copied().unwrap_or_default();
        match self.chance.pick(peers).copied() {
            Some(to) if self.streams < STREAMS_MAX => vec![Deed::Send(to, self.open(key))],
            _ => Vec::new(),
        }
    }

    fn open(&mut self, key: [u8; 32]) -> Parcel {
        self.streams = self.streams.saturating_add(1);
        let id = ExchangeId(self.streams);
        self.opened.insert(id, key);
        Parcel::Open { theirs: id }
    }

    fn some_key(&self) -> [u8; 32] {
        *self.id.as_bytes().first_chunk().unwrap_or(&[9; 32])
    }

    /// The first frame on a stream of its own: the hello of a requester, or nothing of the sort.
    fn speak_first(&mut self, now: Time, to: NodeNumber, id: ExchangeId) -> Vec<Deed> {
        let Some(key) = self.opened.get(&id).copied() else { return Vec::new() };
        if self.malice == Malice::LowOrder && self.chance.happens(300) {
            return self.introduce_another(now, to, id);
        }
        let hello = [&[0x0a, 32], key.as_slice()].concat();
        if self.malice == Malice::LowOrder {
            return vec![Deed::Frame(id, hello)];
        }
        vec![Deed::Frame(id, hello), Deed::Frame(id, self.garbage()), Deed::Frame(id, self.garbage())]
    }

    /// Proves that it is itself, and then introduces somebody else.
    fn introduce_another(&mut self, now: Time, to: NodeNumber, id: ExchangeId) -> Vec<Deed> {
        let responder = self.accounts.iter().find(|(number, _)| *number == to).map(|(_, account)| *account);
        let others: Vec<_> = self.accounts.iter().filter(|(number, _)| *number != to).collect();
        let (Some(responder), Some((_, other))) = (responder, self.chance.pick(&others)) else {
            return Vec::new();
        };
        let introduction =
            Contact { account: *other, seed: Some([7; 32]), metadata: b"your friend".to_vec() };
        let mut ephemeral = [0; 32];
        self.chance.fill_bytes(&mut ephemeral);
        let ephemeral = AgreementKey::from_bytes(ephemeral);
        self.opened.remove(&id);
        let requester = Requester::new(&self.account, &introduction, &responder, ephemeral, now);
        self.requests.insert(id, requester);
        self.go_on(id)
    }

    fn go_on(&mut self, id: ExchangeId) -> Vec<Deed> {
        let Some(requester) = self.requests.get_mut(&id) else { return Vec::new() };
        let actions = std::iter::from_fn(|| requester.poll_action());
        actions
            .filter_map(|action| match action {
                HandshakeAction::Send(frame) => Some(Deed::Frame(id, frame)),
                _ => None,
            })
            .collect()
    }

    /// What it heard, to others or to the same ones.
    fn repeat_heard(&mut self, peers: &[NodeNumber]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for _ in 0..BURST {
            let Some(to) = self.chance.pick(peers).copied() else { return deeds };
            let Some(parcel) = self.chance.pick(&self.heard).cloned() else { return deeds };
            deeds.push(Deed::Send(to, parcel));
        }
        deeds
    }

    /// Entries of its kind, shown to some.
    fn write(&mut self, now: Time, peers: &[NodeNumber]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for seat in &mut self.seats {
            for kind in seat::STORES {
                let entries = match self.malice {
                    Malice::Flooder => entries::flood(seat, kind, &mut self.chance),
                    Malice::Forker => entries::fork(seat, kind, &mut self.chance),
                    Malice::ClockInflater => entries::inflate(seat, kind, &mut self.chance),
                    Malice::Replayer => entries::rewrap(seat, kind, &mut self.chance),
                    Malice::Forger => entries::forge(seat, kind, &mut self.chance),
                    Malice::Relabeller => entries::relabel(seat, kind, &mut self.chance),
                    _ => Vec::new(),
                };
                deeds.extend(seat.show(kind, entries, now, peers, &self.id, &mut self.chance));
            }
        }
        deeds
    }

    fn reach_across(&mut self, now: Time, peers: &[NodeNumber]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let seats: Vec<&Seat> = self.seats.iter().collect();
        for own in &seats {
            for other in &seats {
                let Some(to) = self.chance.pick(peers).copied() else { return deeds };
                for parcel in entries::reach_across(own, other, now, &self.id, &mut self.chance) {
                    deeds.push(Deed::Send(to, parcel));
                }
            }
        }
        deeds
    }

    fn say_two_things(&mut self, now: Time, peers: &[NodeNumber]) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for seat in &mut self.seats {
            let seats = seat.take_seat(&mut self.chance);
            deeds.extend(seat.show_all(StoreKind::Metadata, seats, now, peers, &self.id, &mut self.chance));
            let Some((one, other)) = seat.equivocate(&mut self.chance) else { continue };
            let (left, right) = peers.split_at(peers.len() / 2);
            for (half, entry) in [(left, one), (right, other)] {
                let shown = vec![entry];
                deeds.extend(seat.show_all(
                    StoreKind::Messages,
                    shown,
                    now,
                    half,
                    &self.id,
                    &mut self.chance,
                ));
            }
        }
        deeds
    }

    fn garbage(&mut self) -> Vec<u8> {
        let bytes = usize::try_from(self.chance.below(GARBAGE_BYTES_MAX)).unwrap_or(0);
        let mut garbage = vec![0; bytes];
        self.chance.fill_bytes(&mut garbage);
        garbage
    }

    fn flip(&mut self, data: &mut [u8]) {
        let place = usize::try_from(self.chance.below(data.len() as u64)).unwrap_or(0);
        let bit = self.chance.below(8);
        if let Some(byte) = data.get_mut(place) {
            *byte ^= 1 << bit;
        }
    }
}
