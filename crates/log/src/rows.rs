//! The tables of the log and the form of their rows (`docs/formats/log.md`).
//!
//! | table | key | value |
//! |---|---|---|
//! | [`BLOCKS`] | log, number | block; blocks are numbered as they come |
//! | [`PRESENCE`] | log, id | [`Presence`]: what is known of an id |
//! | [`ORDER`] | log, height, id | 1 when void, else 0, and the number of the block; accepted entries only |
//! | [`CHILDREN`] | log, parent, child | nothing; joined children, but for the one that its parent names |
//! | [`HEADS`] | log, height, id | nothing |
//! | [`VALUES`] | log, digest | [`Group`]: who holds a value that must be unique |
//! | [`COPIES`] | log, digest, id | nothing; all holders of a value that has several |
//! | [`ABSENT`] | log, urgency, id | nothing; what to fetch, and what was given up |
//! | [`WAITING`] | log, absent parent, child | how many parents of the child were found, 32 bits |
//! | [`AGENDA`] | log, work | a cursor, or nothing |
//! | [`META`] | log | [`Meta`]: counters |
//!
//! `log` is a [`LogTag`], ids and digests have 32 bytes, numbers are big-endian.

use dunlin_base::EntryId;
use dunlin_base::kdf::sha256;
use dunlin_base::kv::{Read, ReadError, Table, Tx};

use crate::verdict::{Quarantine, VERDICT_RULES};

/// The table with one row for each entry that is stored.
pub const BLOCKS: Table = Table(0x10);
pub(crate) const PRESENCE: Table = Table(0x11);
pub(crate) const ORDER: Table = Table(0x12);
pub(crate) const CHILDREN: Table = Table(0x13);
pub(crate) const HEADS: Table = Table(0x14);
pub(crate) const VALUES: Table = Table(0x15);
pub(crate) const COPIES: Table = Table(0x16);
pub(crate) const ABSENT: Table = Table(0x17);
pub(crate) const WAITING: Table = Table(0x18);
pub(crate) const AGENDA: Table = Table(0x19);
pub(crate) const META: Table = Table(0x1a);

/// What the keys of one log begin with: the first 16 bytes of the SHA-256 of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTag([u8; 16]);

impl LogTag {
    /// The tag of the log named `log_id`.
    pub fn of(log_id: &str) -> Self {
        Self(sha256(&[log_id.as_bytes()]).first_chunk().copied().unwrap_or_default())
    }

    /// The tag with these bytes, whatever log it is of.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A key of this log: the tag, then `parts`.
    pub(crate) fn key(&self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = Vec::with_capacity(96);
        key.extend_from_slice(&self.0);
        for part in parts {
            key.extend_from_slice(part);
        }
        key
    }
}

/// The place of an entry in the order of its log: height first, then the bytes of the CID
/// (`spec/security.md` O1).
///
/// The height is recomputed from the entries that are here: one more than that of the highest parent.
/// The clock that the entry claims has no influence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// One more than the height of the highest parent that is here; 1 without one.
    pub height: u64,
    /// The entry.
    pub id: EntryId,
}

impl Position {
    pub(crate) fn key(&self, tag: LogTag) -> Vec<u8> {
        tag.key(&[&self.height.to_be_bytes(), self.id.digest()])
    }

    /// Reads the part of a key after the tag.
    pub(crate) fn from_key(key: &[u8]) -> Option<Self> {
        let (height, digest) = key.get(16..)?.split_first_chunk()?;
        Some(Self { height: u64::from_be_bytes(*height), id: EntryId::from_slice(digest)? })
    }
}

/// How much a missing entry is wanted: what a hostile writer can add to comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// An entry waits for it.
    Parent = 0,
    /// It lies further back.
    Reference = 1,
    /// Only quarantined entries name it.
    Doubtful = 2,
    /// It could not be fetched.
    GivenUp = 3,
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is named by an entry and shall be fetched.
    Wanted(Urgency),
    /// It was given up: those that wait for it go on without it.
    Hole,
    /// Its block was refused, which it will always be.
    Refused,
    /// Its block is here.
    Held(Box<Held>),
}

/// What joining needs of a stored entry, so that no block is read again for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The number of its block.
    pub block: u64,
    /// What is wrong with the entry's own bytes.
    pub fault: Option<Quarantine>,
    /// Whether it had been given up before it came: then entries may have joined without it.
    pub late: bool,
    /// The value that must be unique in the causal past.
    pub unique: Option<[u8; 32]>,
    /// The claimed time.
    pub time: i64,
    /// The claimed writer.
    pub clock_id: Vec<u8>,
    /// The causal parents.
    pub next: Vec<EntryId>,
    /// The first child that joined after it; the others, and those that joined before, are in [`CHILDREN`].
    pub child: Option<EntryId>,
    /// What it became on joining.
    pub place: Option<Place>,
}

/// What joining made of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// See [`Position::height`].
    pub height: u64,
    /// How many entries had joined before.
    pub turn: u64,
    /// Its value occurs in its past.
    pub is_replay: bool,
    /// Its value occurs in a concurrent entry that comes first.
    pub is_void: bool,
    /// A quarantined entry lies in its past.
    pub is_tainted: bool,
    /// It was the only head when it joined, so everything accepted before it lies in its past.
    pub is_summit: bool,
}

impl Held {
    /// Why the entry does not count, if it does not.
    pub(crate) fn quarantine(&self) -> Option<Quarantine> {
        let replay = self.place.is_some_and(|place| place.is_replay).then_some(Quarantine::Replay);
        self.fault.or(replay)
    }

    /// The place of a joined entry that counts.
    pub(crate) fn accepted(&self) -> Option<Place> {
        if self.quarantine().is_none() { self.place } else { None }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128_usize.saturating_add(self.next.len().saturating_mul(32)));
        let place = self.place.unwrap_or_default();
        let flags = [
            self.late,
            self.unique.is_some(),
            self.place.is_some(),
            place.is_replay,
            place.is_void,
            place.is_tainted,
            place.is_summit,
            self.child.is_some(),
        ];
        out.push(HELD);
        out.push(fault_code(self.fault));
        out.push(flags.iter().rev().fold(0, |bits, flag| (bits << 1) | u8::from(*flag)));
        out.extend_from_slice(&self.block.to_be_bytes());
        out.extend_from_slice(&place.height.to_be_bytes());
        out.extend_from_slice(&place.turn.to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(self.unique.as_ref().map(<[u8; 32]>::as_slice).unwrap_or_default());
        // A clock id comes out of a block, which is far below 4 GiB.
        out.extend_from_slice(&u32::try_from(self.clock_id.len()).unwrap_or_default().to_be_bytes());
        out.extend_from_slice(&self.clock_id);
        for link in self.child.iter().chain(&self.next) {
            out.extend_from_slice(link.digest());
        }
        out
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let ([fault, bits], row) = row.split_first_chunk()?;
        let flag = |at: u8| bits & (1 << at) != 0;
        let (block, row) = row.split_first_chunk()?;
        let (height, row) = row.split_first_chunk()?;
        let (turn, row) = row.split_first_chunk()?;
        let (time, row) = row.split_first_chunk()?;
        let (unique, row) = match flag(1) {
            true => row.split_first_chunk().map(|(digest, row)| (Some(*digest), row))?,
            false => (None, row),
        };
        let (length, row) = row.split_first_chunk()?;
        let (clock_id, row) = row.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let (child, row) = match flag(7) {
            true => {
                row.split_first_chunk().map(|(digest, row)| (Some(EntryId::from_digest(*digest)), row))?
            }
            false => (None, row),
        };
        let (parents, []) = row.as_chunks::<32>() else { return None };
        let place = Place {
            height: u64::from_be_bytes(*height),
            turn: u64::from_be_bytes(*turn),
            is_replay: flag(3),
            is_void: flag(4),
            is_tainted: flag(5),
            is_summit: flag(6),
        };
        Some(Self {
            block: u64::from_be_bytes(*block),
            fault: fault_of(*fault)?,
            late: flag(0),
            unique,
            time: i64::from_be_bytes(*time),
            clock_id: clock_id.to_vec(),
            next: parents.iter().map(|digest| EntryId::from_digest(*digest)).collect(),
            child,
            place: flag(2).then_some(place),
        })
    }
}

const WANTED: u8 = 0;
const HOLE: u8 = 1;
const REFUSED: u8 = 2;
const HELD: u8 = 3;

fn fault_code(fault: Option<Quarantine>) -> u8 {
    match fault {
        None => 0,
        Some(Quarantine::Writer) => 1,
        Some(Quarantine::Signature) => 2,
        Some(Quarantine::Links) => 3,
        Some(Quarantine::SealedLinks) => 4,
        Some(Quarantine::Replay) => 5,
    }
}

fn fault_of(code: u8) -> Option<Option<Quarantine>> {
    Some(match code {
        0 => None,
        1 => Some(Quarantine::Writer),
        2 => Some(Quarantine::Signature),
        3 => Some(Quarantine::Links),
        4 => Some(Quarantine::SealedLinks),
        5 => Some(Quarantine::Replay),
        _ => return None,
    })
}

impl Presence {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Wanted(urgency) => vec![WANTED, *urgency as u8],
            Self::Hole => vec![HOLE],
            Self::Refused => vec![REFUSED],
            Self::Held(held) => held.encode(),
        }
    }

    fn decode(row: &[u8]) -> Option<Self> {
        match row {
            [WANTED, 0] => Some(Self::Wanted(Urgency::Parent)),
            [WANTED, 1] => Some(Self::Wanted(Urgency::Reference)),
            [WANTED, 2] => Some(Self::Wanted(Urgency::Doubtful)),
            [HOLE] => Some(Self::Hole),
            [REFUSED] => Some(Self::Refused),
            [HELD, row @ ..] => Held::decode(row).map(|held| Self::Held(Box::new(held))),
            _ => None,
        }
    }
}

/// The holders of one unique value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    /// The holder that counts.
    pub live: EntryId,
    /// No holder is lower.
    pub floor: u64,
    /// The turn at which the first holder joined.
    pub since: u64,
    /// Whether there are several, all listed in [`COPIES`].
    pub is_contested: bool,
}

impl Group {
    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(49);
        row.extend_from_slice(self.live.digest());
        row.extend_from_slice(&self.floor.to_be_bytes());
        row.extend_from_slice(&self.since.to_be_bytes());
        row.push(u8::from(self.is_contested));
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (live, row) = row.split_first_chunk()?;
        let (floor, row) = row.split_first_chunk()?;
        let (since, [contested]) = row.split_first_chunk()? else { return None };
        Some(Self {
            live: EntryId::from_digest(*live),
            floor: u64::from_be_bytes(*floor),
            since: u64::from_be_bytes(*since),
            is_contested: *contested != 0,
        })
    }
}

/// What [`ORDER`] says of an entry that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ordered {
    /// Nothing of it is to be shown.
    pub is_void: bool,
    /// The number of its block.
    pub block: u64,
}

impl Ordered {
    fn encode(self) -> [u8; 9] {
        let mut row = [u8::from(self.is_void), 0, 0, 0, 0, 0, 0, 0, 0];
        if let Some(block) = row.last_chunk_mut::<8>() {
            *block = self.block.to_be_bytes();
        }
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Option<Self> {
        let ([void], block) = row.split_first_chunk::<1>()?;
        Some(Self { is_void: *void != 0, block: u64::from_be_bytes(block.try_into().ok()?) })
    }
}

/// Counters of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// How many entries joined.
    pub joined: u64,
    /// How many heads there are.
    pub heads: u64,
    /// How many values have several holders.
    pub contested: u64,
    /// How many blocks were stored.
    pub stored: u64,
    /// How many ids shall be fetched.
    pub wanted: u64,
    /// Rows of [`WAITING`].
    pub waiting: u64,
    /// How many entries came to the end of the queue so far.
    pub queued: u64,
    /// The first place in the queue that may be taken.
    pub queue_from: u64,
    /// Rows of the agenda: work on heights and copies, joins, wakes.
    pub agenda: [u64; 3],
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let [early, joins, wakes] = self.agenda;
        let counters = [
            self.joined,
            self.heads,
            self.contested,
            self.stored,
            self.wanted,
            self.waiting,
            self.queued,
            self.queue_from,
            early,
            joins,
            wakes,
        ];
        let mut row = vec![VERDICT_RULES];
        row.extend(counters.iter().flat_map(|counter| counter.to_be_bytes()));
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let ([_rules], row) = row.split_first_chunk::<1>()?;
        let (counters, []) = row.as_chunks::<8>() else { return None };
        let counters: &[[u8; 8]; 11] = counters.try_into().ok()?;
        let [joined, heads, contested, stored, wanted, waiting, queued, queue_from, early, joins, wakes] =
            counters.map(u64::from_be_bytes);
        let agenda = [early, joins, wakes];
        Some(Self { joined, heads, contested, stored, wanted, waiting, queued, queue_from, agenda })
    }
}

/// A row that this module did not write. The log it belongs to cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("a row of the log is damaged")]
struct DamagedRow;

pub(crate) fn damaged() -> ReadError {
    ReadError(Box::new(DamagedRow))
}

/// Typed access to the rows of one log.
impl LogTag {
    pub(crate) fn presence(self, read: &dyn Read, id: EntryId) -> Result<Option<Presence>, ReadError> {
        let Some(row) = read.get(PRESENCE, &self.key(&[id.digest()]))? else { return Ok(None) };
        Presence::decode(&row).map(Some).ok_or_else(damaged)
    }

    pub(crate) fn held(self, read: &dyn Read, id: EntryId) -> Result<Option<Held>, ReadError> {
        match self.presence(read, id)? {
            Some(Presence::Held(held)) => Ok(Some(*held)),
            Some(Presence::Wanted(_) | Presence::Hole | Presence::Refused) | None => Ok(None),
        }
    }

    /// The row of an entry that has joined.
    pub(crate) fn joined(self, read: &dyn Read, id: EntryId) -> Result<Option<(Held, Place)>, ReadError> {
        Ok(self.held(read, id)?.and_then(|held| held.place.map(|place| (held, place))))
    }

    pub(crate) fn put_presence(self, tx: &mut Tx<'_>, id: EntryId, presence: &Presence) {
        tx.put(PRESENCE, &self.key(&[id.digest()]), &presence.encode());
    }

    pub(crate) fn put_held(self, tx: &mut Tx<'_>, id: EntryId, held: &Held) {
        tx.put(PRESENCE, &self.key(&[id.digest()]), &held.encode());
    }

    pub(crate) fn group(self, read: &dyn Read, value: &[u8; 32]) -> Result<Option<Group>, ReadError> {
        let Some(row) = read.get(VALUES, &self.key(&[value]))? else { return Ok(None) };
        Group::decode(&row).map(Some).ok_or_else(damaged)
    }

    pub(crate) fn put_group(self, tx: &mut Tx<'_>, value: &[u8; 32], group: &Group) {
        tx.put(VALUES, &self.key(&[value]), &group.encode());
    }

    pub(crate) fn meta(self, read: &dyn Read) -> Result<Meta, ReadError> {
        let Some(row) = read.get(META, &self.key(&[]))? else { return Ok(Meta::default()) };
        Meta::decode(&row).ok_or_else(damaged)
    }

    pub(crate) fn put_meta(self, tx: &mut Tx<'_>, meta: &Meta) {
        tx.put(META, &self.key(&[]), &meta.encode());
    }

    pub(crate) fn put_order(self, tx: &mut Tx<'_>, position: Position, ordered: Ordered) {
        tx.put(ORDER, &position.key(self), &ordered.encode());
    }

    pub(crate) fn block(self, read: &dyn Read, number: u64) -> Result<Option<Vec<u8>>, ReadError> {
        read.get(BLOCKS, &self.key(&[&number.to_be_bytes()]))
    }

    pub(crate) fn put_block(self, tx: &mut Tx<'_>, number: u64, block: &[u8]) {
        tx.put(BLOCKS, &self.key(&[&number.to_be_bytes()]), block);
    }

    pub(crate) fn put_absent(self, tx: &mut Tx<'_>, urgency: Urgency, id: EntryId) {
        tx.put(ABSENT, &self.key(&[&[urgency as u8], id.digest()]), &[]);
    }

    pub(crate) fn delete_absent(self, tx: &mut Tx<'_>, urgency: Urgency, id: EntryId) {
        tx.delete(ABSENT, &self.key(&[&[urgency as u8], id.digest()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back() {
        let place = Place { height: 7, turn: 9, is_summit: true, is_void: true, ..Place::default() };
        let held = Held {
            block: 8,
            fault: Some(Quarantine::Links),
            late: true,
            unique: Some([5; 32]),
            time: -3,
            clock_id: vec![1, 2, 3],
            next: vec![EntryId::of_block(b"a"), EntryId::of_block(b"b")],
            child: Some(EntryId::of_block(b"child")),
            place: Some(place),
        };
        let bare = Held {
            fault: None,
            late: false,
            unique: None,
            next: Vec::new(),
            child: None,
            place: None,
            ..held.clone()
        };
        for presence in [
            Presence::Wanted(Urgency::Doubtful),
            Presence::Hole,
            Presence::Refused,
            Presence::Held(Box::new(held)),
            Presence::Held(Box::new(bare)),
        ] {
            assert_eq!(Presence::decode(&presence.encode()), Some(presence));
        }
        let group = Group { live: EntryId::of_block(b"a"), floor: 4, since: 2, is_contested: true };
        assert_eq!(Group::decode(&group.encode()), Some(group));
        let meta = Meta {
            joined: 1,
            heads: 2,
            contested: 3,
            stored: 11,
            wanted: 4,
            waiting: 10,
            queued: 5,
            queue_from: 6,
            agenda: [7, 8, 9],
        };
        let ordered = Ordered { is_void: true, block: 6 };
        assert_eq!(Ordered::decode(&ordered.encode()), Some(ordered));
        assert_eq!(Meta::decode(&meta.encode()), Some(meta));
    }

    #[test]
    fn keys_sort_as_positions_do() {
        let tag = LogTag::of("log");
        let low = Position { height: 1, id: EntryId::from_digest([0xff; 32]) };
        let high = Position { height: 256, id: EntryId::from_digest([0; 32]) };
        assert!(low < high && low.key(tag) < high.key(tag));
        assert_eq!(Position::from_key(&high.key(tag)), Some(high));
    }
}
