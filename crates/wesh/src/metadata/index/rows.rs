//! Keys of the index and what its values begin with.

use dunlin_base::kv::ReadError;
use dunlin_base::{EntryId, GroupId};
use dunlin_log::Position;

use crate::tables::{self, damaged};

/// What a row is about: the byte after the group id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tag {
    Alias = b'A' as isize,
    Contact = b'C' as isize,
    Capabilities = b'Q' as isize,
    Device = b'D' as isize,
    Note = b'N' as isize,
    Requests = b'E' as isize,
    Group = b'G' as isize,
    InitialMember = b'I' as isize,
    KnownSeed = b'K' as isize,
    Member = b'M' as isize,
    Seed = b'R' as isize,
    Served = b'S' as isize,
    Credential = b'V' as isize,
    Waiting = b'W' as isize,
    Behind = b'B' as isize,
    Once = b'X' as isize,
    Shared = b'P' as isize,
}

/// A position as bytes that sort as the log does.
pub(super) type Place = [u8; 40];

pub(super) fn place(position: &Position) -> Place {
    let mut place = [0; 40];
    let (height, entry) = place.split_at_mut(8);
    height.copy_from_slice(&position.height.to_be_bytes());
    entry.copy_from_slice(position.id.digest());
    place
}

/// The position that [`place`] makes these bytes of.
pub(super) fn position(place: &Place) -> Option<Position> {
    let (height, digest) = place.split_first_chunk()?;
    Some(Position { height: u64::from_be_bytes(*height), id: EntryId::from_slice(digest)? })
}

pub(super) fn key(group: &GroupId, tag: Tag, item: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(33 + 72);
    key.extend_from_slice(group.as_bytes());
    key.push(tag as u8);
    for part in item {
        key.extend_from_slice(part);
    }
    key
}

/// Splits a value into the place that decided it and the rest.
pub(super) fn first_place(row: &[u8]) -> Result<(&Place, &[u8]), ReadError> {
    row.split_first_chunk().ok_or_else(|| damaged(tables::INDEX))
}
