//! What is left to do in a log: small steps, done in a fixed order, at most so many a call.
//!
//! Steps are kept in memory during a call and written only if the call ends first, so that a chain of
//! ten thousand entries that become ready one after the other costs no rows.

use std::collections::BTreeMap;

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx, after_prefix};

use crate::rows::{AGENDA, LogTag, Meta, damaged};

/// One step. Steps are done in the order of the variants, then of their fields: heights are settled
/// before copies are compared, and both before anything joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// The height of this entry changed, or it came late: let its joined children be rescaled.
    Spread(EntryId),
    /// Recompute the height of an entry, lowest first.
    Rescale { height: u64, id: EntryId },
    /// Ancestors or heights changed: judge all copies again.
    Judge,
    /// All parents are there, or given up: join.
    Join { place: u64, id: EntryId },
    /// This id is there, or given up: look again at those that wait for it.
    Wake(EntryId),
}

const SPREAD: u8 = 0;
const RESCALE: u8 = 1;
const JUDGE: u8 = 2;
const JOIN: u8 = 3;
const WAKE: u8 = 4;

/// Digest or id at which a step that goes over many rows goes on.
pub(crate) type Cursor = Option<[u8; 32]>;

impl Work {
    fn key(&self, tag: LogTag) -> Vec<u8> {
        match self {
            Self::Spread(id) => tag.key(&[&[SPREAD], id.digest()]),
            Self::Rescale { height, id } => tag.key(&[&[RESCALE], &height.to_be_bytes(), id.digest()]),
            Self::Judge => tag.key(&[&[JUDGE]]),
            Self::Join { place, id } => tag.key(&[&[JOIN], &place.to_be_bytes(), id.digest()]),
            Self::Wake(id) => tag.key(&[&[WAKE], id.digest()]),
        }
    }

    fn from_key(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.get(16..)?.split_first()?;
        let numbered = || -> Option<(u64, EntryId)> {
            let (number, digest) = rest.split_first_chunk()?;
            Some((u64::from_be_bytes(*number), EntryId::from_slice(digest)?))
        };
        match *kind {
            SPREAD => EntryId::from_slice(rest).map(Self::Spread),
            RESCALE => numbered().map(|(height, id)| Self::Rescale { height, id }),
            JUDGE if rest.is_empty() => Some(Self::Judge),
            JOIN => numbered().map(|(place, id)| Self::Join { place, id }),
            WAKE => EntryId::from_slice(rest).map(Self::Wake),
            _ => None,
        }
    }

    fn count<'m>(&self, meta: &'m mut Meta) -> &'m mut u64 {
        let [early, joins, wakes] = &mut meta.agenda;
        match self {
            Self::Spread(_) | Self::Rescale { .. } | Self::Judge => early,
            Self::Join { .. } => joins,
            Self::Wake(_) => wakes,
        }
    }
}

struct Step {
    cursor: Cursor,
    /// The step was read from its row, which is still there.
    has_row: bool,
    /// The row, if any, has another cursor.
    is_new: bool,
}

/// The steps at hand.
#[derive(Default)]
pub(crate) struct Agenda {
    steps: BTreeMap<Work, Step>,
}

impl Agenda {
    /// Loads what a call of `limit` steps may need: the first `limit` rows.
    ///
    /// The counters tell where there are rows, so that a transaction with many calls does not pass over
    /// the rows that earlier calls deleted.
    pub(crate) fn load(read: &dyn Read, tag: LogTag, meta: &Meta, limit: usize) -> Result<Self, ReadError> {
        let mut agenda = Self::default();
        let [early, joins, wakes] = meta.agenda;
        let before_joins = KeyRange::between(&tag.key(&[]), &tag.key(&[&[JOIN]]));
        let queue = KeyRange {
            start: tag.key(&[&[JOIN], &meta.queue_from.to_be_bytes()]),
            end: after_prefix(&tag.key(&[&[JOIN]])),
        };
        let after_joins = KeyRange::prefix(&tag.key(&[&[WAKE]]));
        for (rows, range) in [(early, before_joins), (joins, queue), (wakes, after_joins)] {
            if rows == 0 {
                continue;
            }
            let left = limit.saturating_sub(agenda.steps.len());
            for (key, value) in read.collect(AGENDA, &range, Direction::Ascending, left)? {
                let work = Work::from_key(&key).ok_or_else(damaged)?;
                let cursor = value.as_slice().try_into().ok();
                agenda.steps.insert(work, Step { cursor, has_row: true, is_new: false });
            }
        }
        Ok(agenda)
    }

    /// Adds a step, or starts it again if it is there.
    pub(crate) fn push(&mut self, work: Work, cursor: Cursor) {
        let has_row = self.steps.get(&work).is_some_and(|step| step.has_row);
        self.steps.insert(work, Step { cursor, has_row, is_new: true });
    }

    /// Takes the first step.
    pub(crate) fn pop(&mut self, tx: &mut Tx<'_>, tag: LogTag, meta: &mut Meta) -> Option<(Work, Cursor)> {
        let (work, step) = self.steps.pop_first()?;
        if step.has_row {
            tx.delete(AGENDA, &work.key(tag));
            let count = work.count(meta);
            *count = count.saturating_sub(1);
        }
        Some((work, step.cursor))
    }

    /// Writes the steps that are left.
    pub(crate) fn store(self, tx: &mut Tx<'_>, tag: LogTag, meta: &mut Meta) -> Result<(), ReadError> {
        for (work, step) in self.steps {
            if !step.is_new {
                continue;
            }
            let key = work.key(tag);
            // A row may lie beyond those that were loaded; a place in the queue is given out only once.
            let may_have_row =
                step.has_row || !matches!(work, Work::Join { .. }) && tx.contains(AGENDA, &key)?;
            if !may_have_row {
                let count = work.count(meta);
                *count = count.saturating_add(1);
            }
            tx.put(AGENDA, &key, step.cursor.as_ref().map(<[u8; 32]>::as_slice).unwrap_or_default());
        }
        Ok(())
    }
}
