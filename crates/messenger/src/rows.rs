//! What is stored: keys and rows of [`crate::tables`].
//!
//! Keys are raw identifiers one after another, so that what belongs together lies together:
//!
//! ```text
//! PROFILE        name of the setting
//! CONTACTS       account (32)
//! CONVERSATIONS  group (32)
//! MESSAGES       group (32)  height (8, big-endian)  entry (32)     the order of the conversation
//! PLACES         entry (32)  →  group (32)  height (8), or the entry (32) under whose name it goes on; what is not in
//!                MESSAGES there was erased
//! RECEIPTS       group (32)  entry (32)  member (32)
//! CLOSED, KEPT   group (32)  entry (32)
//! OWED           group (32)  entry (32)  →  when it is due (8, big-endian), or nothing: another device gave it
//! NAMES          group (32)  device (32)
//! DEVICES        device (32)  →  1 byte: 0 known, 1 to be told; or "settled": this device is one of them
//! ```
//!
//! Rows are protobuf: a later version adds fields, and none changes its number or its meaning.

use dunlin_base::kv::{Read, ReadError, Table, Tx};
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId, Time};
use dunlin_wesh::engine::Position;
use prost::Message;

use crate::tables;

/// Where another account stands.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum StoredState {
    /// Known by name only: refused, unblocked, or gone.
    Gone = 0,
    Asks = 1,
    Kept = 2,
    Sent = 3,
    Added = 4,
    Blocked = 5,
}

/// A row of [`tables::CONTACTS`].
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct ContactRow {
    #[prost(enumeration = "StoredState", tag = "1")]
    pub state: i32,
    /// Safe to print; empty when nobody has said one.
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub name_said: Option<Said>,
    /// Computed once, see [`crate::safety`].
    #[prost(bytes = "vec", tag = "4")]
    pub safety_half: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub since_ms: u64,
    #[prost(uint64, tag = "6")]
    pub sent_ms: u64,
    #[prost(uint64, tag = "7")]
    pub added_ms: u64,
    /// They agreed: this account accepted them, or a device of theirs is in the common group.
    #[prost(bool, tag = "8")]
    pub agreed: bool,
}

/// A row of [`tables::CONVERSATIONS`].
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct ConversationRow {
    /// The account at the other end; empty for a group.
    #[prost(bytes = "vec", tag = "1")]
    pub contact: Vec<u8>,
    /// Of a group. Safe to print; empty when nobody has said one.
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub name_said: Option<Said>,
    #[prost(bytes = "vec", tag = "4")]
    pub own_member: Vec<u8>,
    #[prost(uint32, tag = "5")]
    pub unread: u32,
    #[prost(uint64, tag = "6")]
    pub changed_ms: u64,
    #[prost(bool, tag = "7")]
    pub left: bool,
    /// The own name that was last told here.
    #[prost(string, tag = "8")]
    pub told_name: String,
    /// When a device of somebody else was last in reach.
    #[prost(uint64, tag = "9")]
    pub seen_ms: u64,
    #[prost(uint32, tag = "10")]
    pub closed: u32,
    /// How many messages were ever counted as unread, and how many of them had come when it was last read.
    #[prost(uint64, tag = "11")]
    pub arrivals: u64,
    #[prost(uint64, tag = "12")]
    pub read_to: u64,
}

/// When something was said that later replaces: the date decides, then the place in the log.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Said {
    #[prost(uint64, tag = "1")]
    pub date_ms: u64,
    #[prost(uint64, tag = "2")]
    pub height: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub entry: Vec<u8>,
}

/// What a message is to its reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum StoredKind {
    Other = 0,
    Text = 1,
    Invitation = 2,
}

/// A row of [`tables::MESSAGES`].
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct MessageRow {
    #[prost(enumeration = "StoredKind", tag = "1")]
    pub kind: i32,
    /// Safe to print; the link of an invitation.
    #[prost(string, tag = "2")]
    pub text: String,
    /// The group of an invitation, and its name.
    #[prost(bytes = "vec", tag = "3")]
    pub invited_to: Vec<u8>,
    #[prost(string, tag = "4")]
    pub invited_to_name: String,
    #[prost(bytes = "vec", tag = "5")]
    pub device: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub member: Vec<u8>,
    /// Written by this account.
    #[prost(bool, tag = "7")]
    pub own: bool,
    #[prost(uint64, tag = "8")]
    pub sent_ms: u64,
    #[prost(uint64, tag = "9")]
    pub kept_ms: u64,
    /// Its number among those that were counted as unread; 0 for one that never was.
    #[prost(uint64, tag = "10")]
    pub arrival: u64,
}

/// A row of [`tables::RECEIPTS`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReceiptRow {
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub device: Vec<u8>,
}

/// Why a message is closed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum StoredCause {
    Unreadable = 0,
    KeyNotReceived = 1,
    DeviceUnknown = 2,
    SentBeforeKey = 3,
    BeyondWindow = 4,
    Repeat = 5,
    OutOfPlace = 6,
}

/// A row of [`tables::CLOSED`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ClosedRow {
    #[prost(enumeration = "StoredCause", tag = "1")]
    pub cause: i32,
    /// Empty when it is not known.
    #[prost(bytes = "vec", tag = "2")]
    pub device: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub since_ms: u64,
}

/// A row of [`tables::NAMES`].
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct NameRow {
    /// Safe to print.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub said: Option<Said>,
}

impl Said {
    pub fn new(date: Time, position: Position) -> Self {
        Self { date_ms: date.as_millis(), height: position.height, entry: position.id.digest().to_vec() }
    }

    /// Whether this replaces what was said `before`.
    pub fn replaces(&self, before: Option<&Self>) -> bool {
        let rank = |said: &Self| (said.date_ms, said.height, said.entry.clone());
        before.is_none_or(|before| rank(self) > rank(before))
    }
}

impl ConversationRow {
    pub fn contact(&self) -> Option<AccountId> {
        AccountId::from_stored(&self.contact)
    }

    pub fn own_member(&self) -> Option<MemberId> {
        MemberId::from_stored(&self.own_member)
    }
}

/// The setting of [`tables::PROFILE`] that holds the own name.
pub(crate) const OWN_NAME: &[u8] = b"name";

/// Reads a row. One that does not decode was written by a later version, and counts as missing.
pub(crate) fn read_row<R: Message + Default>(
    read: &dyn Read,
    table: Table,
    key: &[u8],
) -> Result<Option<R>, ReadError> {
    Ok(read.get(table, key)?.and_then(|row| R::decode(&*row).ok()))
}

/// Writes a row.
pub(crate) fn put_row(tx: &mut Tx<'_>, table: Table, key: &[u8], row: &impl Message) {
    tx.put(table, key, &row.encode_to_vec());
}

/// Names under which a message may have gone on, one after the other.
const RENAMED_MAX: usize = 64;

/// The place of a message in the order of its conversation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub group: GroupId,
    pub position: Position,
}

impl Place {
    pub fn key(&self) -> Vec<u8> {
        let Position { height, id } = self.position;
        [self.group.as_bytes().as_slice(), &height.to_be_bytes(), id.digest()].concat()
    }

    /// Reads a key of [`tables::MESSAGES`].
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (group, rest) = key.split_at_checked(32)?;
        let (height, digest) = rest.split_first_chunk()?;
        let position = Position { height: u64::from_be_bytes(*height), id: EntryId::from_slice(digest)? };
        Some(Self { group: GroupId::from_stored(group)?, position })
    }

    /// Where the message is that came as `entry`, under whatever name it goes on.
    pub fn of_entry(read: &dyn Read, entry: &EntryId) -> Result<Option<Self>, ReadError> {
        let mut name = *entry;
        for _ in 0..RENAMED_MAX {
            let Some(row) = read.get(tables::PLACES, name.digest())? else { return Ok(None) };
            match EntryId::from_slice(&row) {
                Some(other) => name = other,
                None => return Ok(Self::from_key(&[row.as_slice(), name.digest()].concat())),
            }
        }
        Ok(None)
    }

    /// Lets [`Self::of_entry`] find under `to` what it found under `from`.
    pub fn rename(tx: &mut Tx<'_>, from: &EntryId, to: &EntryId) {
        tx.put(tables::PLACES, from.digest(), to.digest());
        if tx.get(tables::PLACES, to.digest()).is_ok_and(|row| row.as_deref() == Some(from.digest())) {
            tx.delete(tables::PLACES, to.digest());
        }
    }

    /// Lets [`Self::of_entry`] find nothing.
    pub fn forget(tx: &mut Tx<'_>, entry: &EntryId) {
        tx.delete(tables::PLACES, entry.digest());
    }

    /// Where [`Self::of_entry`] finds it.
    pub fn remember(&self, tx: &mut Tx<'_>) {
        let row = [self.group.as_bytes().as_slice(), &self.position.height.to_be_bytes()].concat();
        tx.put(tables::PLACES, self.position.id.digest(), &row);
    }
}

pub(crate) fn group_entry(group: &GroupId, entry: &EntryId) -> Vec<u8> {
    [group.as_bytes().as_slice(), entry.digest()].concat()
}

pub(crate) fn group_device(group: &GroupId, device: &DeviceId) -> Vec<u8> {
    [group.as_bytes().as_slice(), device.as_bytes()].concat()
}

pub(crate) fn receipt(group: &GroupId, entry: &EntryId, member: &MemberId) -> Vec<u8> {
    [group.as_bytes().as_slice(), entry.digest(), member.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;
    use dunlin_base::kv::MemoryStore;

    use super::*;

    fn group() -> GroupId {
        GroupId::new(SecretKey::from_seed([1; 32]).public())
    }

    fn position(height: u64, block: &[u8]) -> Position {
        Position { height, id: EntryId::of_block(block) }
    }

    #[test]
    fn places_sort_like_their_positions_and_are_found_by_entry() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let places = [position(2, b"a"), position(255, b"b"), position(256, b"c")]
            .map(|position| Place { group: group(), position });
        assert!(places.iter().map(Place::key).is_sorted());
        for place in &places {
            place.remember(&mut tx);
            assert_eq!(Place::from_key(&place.key()), Some(*place));
            assert_eq!(Place::of_entry(&tx, &place.position.id).unwrap(), Some(*place));
        }
        assert_eq!(Place::of_entry(&tx, &EntryId::of_block(b"d")).unwrap(), None);
        assert_eq!(Place::from_key(b"short"), None);
    }

    #[test]
    fn rows_come_back_and_keep_what_they_do_not_know_apart() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let row =
            ConversationRow { name: "Room".into(), unread: 3, left: true, ..ConversationRow::default() };
        put_row(&mut tx, tables::CONVERSATIONS, b"k", &row);
        assert!(read_row::<ConversationRow>(&tx, tables::CONVERSATIONS, b"k").unwrap() == Some(row));
        tx.put(tables::CONVERSATIONS, b"later", &[0xff; 3]);
        assert!(read_row::<ConversationRow>(&tx, tables::CONVERSATIONS, b"later").unwrap().is_none());
    }

    #[test]
    fn the_later_word_stands_whatever_the_order() {
        let early = Said::new(Time::from_secs(1), position(9, b"a"));
        let late = Said::new(Time::from_secs(2), position(3, b"b"));
        let higher = Said::new(Time::from_secs(2), position(4, b"c"));
        assert!(early.replaces(None));
        assert!(late.replaces(Some(&early)) && !early.replaces(Some(&late)));
        assert!(higher.replaces(Some(&late)) && !late.replaces(Some(&higher)));
        assert!(!late.replaces(Some(&late)));
    }
}
