//! One call's work on a log: rows in a transaction, counters, and the steps that follow from them.

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::planted::{self, Bug};
use std::collections::BTreeMap;

use crate::agenda::{Agenda, Cursor, Work};
use crate::entry::Entry;
use crate::rows::{CHILDREN, HEADS, Held, LogTag, Meta, Ordered, Place, Position, damaged};
use crate::verdict::Verdict;

/// Children that one step looks at. Keeps a step short however many entries name one parent.
pub(crate) const CHILDREN_PER_STEP: usize = 256;

/// What a claimed clock looks like beside those of the parents (`spec/security.md` V7). Reported only:
/// it changes no verdict until the differential corpus covers truncated and imported logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockReport {
    /// One more than the highest parent's, or at most 1 without parents.
    Fits,
    /// Anything else. No honest writer made it.
    Odd,
    /// A parent is missing, or a quarantined entry lies in the past, whose clock honest writers inherit.
    Unjudged,
}

/// An entry that joined the log.
#[derive(Clone, Debug)]
pub struct Joined {
    /// The entry's id.
    pub id: EntryId,
    /// Its place in the order.
    pub position: Position,
    /// Whether it counts.
    pub verdict: Verdict,
    /// It counts, but a concurrent entry that comes first holds the same value: nothing is to be shown.
    pub void: bool,
    /// What its clock looks like.
    pub clock: ClockReport,
    /// The entry.
    pub entry: Entry,
}

/// Another holder of the same value counts from now on (`spec/security.md` V8).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Replaced {
    /// What counted before: joined earlier or in the same batch, now void or a replay.
    pub entry: EntryId,
    /// What counts in its place.
    pub by: EntryId,
}

/// What one call of [`crate::Log::join_ready`] did.
#[derive(Clone, Debug, Default)]
pub struct JoinedBatch {
    /// The entries that joined, parents before children.
    pub joined: Vec<Joined>,
    /// Values whose holder changed, in the order in which that happened.
    pub replaced: Vec<Replaced>,
    /// Positions or verdicts of entries that had joined before changed: a hole was filled below them.
    /// An index has to be folded again from the walk.
    pub reordered: bool,
    /// The limit was reached with work left.
    pub more: bool,
}

/// Bytes of entries after which a call joins no more: they are all in its [`JoinedBatch`].
const JOINED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of blocks that [`Lately`] keeps: a batch of usual entries, or one of the largest.
const LATELY_BYTES_MAX: usize = 512 * 1024;

/// Entries that came in lately, so that most of them join without being read again.
#[derive(Default)]
pub(crate) struct Lately {
    entries: BTreeMap<EntryId, Entry>,
    bytes: usize,
}

impl Lately {
    pub(crate) fn keep(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.block().len());
        if self.bytes > LATELY_BYTES_MAX {
            self.entries.clear();
            self.bytes = entry.block().len();
        }
        self.entries.insert(entry.id(), entry);
    }

    fn take(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(entry.block().len());
        Some(entry)
    }
}

pub(crate) struct Session<'t, 's> {
    pub(crate) tx: &'t mut Tx<'s>,
    pub(crate) tag: LogTag,
    pub(crate) meta: Meta,
    pub(crate) agenda: Agenda,
    pub(crate) batch: JoinedBatch,
}

impl<'t, 's> Session<'t, 's> {
    /// Begins a call that only adds to the agenda.
    pub(crate) fn begin(tx: &'t mut Tx<'s>, tag: LogTag) -> Result<Self, ReadError> {
        let meta = tag.meta(tx)?;
        Ok(Self { tx, tag, meta, agenda: Agenda::default(), batch: JoinedBatch::default() })
    }

    /// Does up to `limit` steps of the agenda.
    pub(crate) fn work(&mut self, limit: usize, lately: &mut Lately) -> Result<(), ReadError> {
        self.agenda = Agenda::load(self.tx, self.tag, &self.meta, limit)?;
        let mut bytes = 0_usize;
        for _ in 0..limit {
            if bytes > JOINED_BYTES_MAX {
                break;
            }
            let Some((work, cursor)) = self.agenda.pop(self.tx, self.tag, &mut self.meta) else { break };
            match work {
                Work::Spread(id) => self.spread(id, cursor)?,
                Work::Rescale { id, .. } => self.rescale(id)?,
                Work::Judge => self.judge(cursor)?,
                Work::Join { place, id } => {
                    self.meta.queue_from = place.saturating_add(1);
                    bytes = bytes.saturating_add(self.join_stored(id, lately.take(id))?);
                }
                Work::Wake(id) => self.wake(id, cursor)?,
            }
        }
        Ok(())
    }

    /// Ends the call: counters and what is left to do go into the transaction.
    pub(crate) fn end(mut self) -> Result<(JoinedBatch, Meta), ReadError> {
        self.agenda.store(self.tx, self.tag, &mut self.meta)?;
        self.tag.put_meta(self.tx, &self.meta);
        self.batch.more = self.meta.agenda.iter().any(|rows| *rows > 0);
        Ok((self.batch, self.meta))
    }

    /// Joins an entry, and gives the bytes of its block.
    fn join_stored(&mut self, id: EntryId, entry: Option<Entry>) -> Result<usize, ReadError> {
        let held = self.tag.held(self.tx, id)?.ok_or_else(damaged)?;
        if held.place.is_some() {
            return Ok(0);
        }
        let entry = match entry {
            Some(entry) => entry,
            None => read_entry(self.tx, self.tag, id, held.block)?,
        };
        let bytes = entry.block().len();
        let joined = self.join(held, entry)?;
        self.batch.joined.push(joined);
        Ok(bytes)
    }

    /// Joins an entry whose parents have joined or were given up.
    pub(crate) fn join(&mut self, mut held: Held, entry: Entry) -> Result<Joined, ReadError> {
        let id = entry.id();
        let mut parents = self.parents(&held)?;
        let mut place = Place {
            height: if planted::is(Bug::ArrivalOrder) {
                self.meta.joined.saturating_add(1)
            } else {
                parents.height()
            },
            turn: self.meta.joined,
            is_tainted: parents.are_tainted(),
            ..Place::default()
        };
        self.meta.joined = self.meta.joined.saturating_add(1);
        self.name_child(&mut parents, &held.next, id);
        let position = Position { height: place.height, id };
        if let (None, Some(value), false) = (held.fault, held.unique, planted::is(Bug::CopiesCount)) {
            self.place_copy(&value, &held.next, position, &mut place)?;
        }
        held.place = Some(place);
        if held.quarantine().is_none() {
            self.unhead(&parents)?;
            let is_left_out = planted::is(Bug::HeadsNotStored) && place.turn % 2 == 1;
            let is_head = !(is_left_out || held.late && self.is_named(id)?);
            if is_head {
                self.tx.put(HEADS, &position.key(self.tag), &[]);
                self.meta.heads = self.meta.heads.saturating_add(1);
            }
            place.is_summit = is_head && self.meta.heads == 1;
            held.place = Some(place);
            self.tag.put_order(self.tx, position, Ordered { is_void: place.is_void, block: held.block });
        }
        self.tag.put_held(self.tx, id, &held);
        if held.late && self.has_children(id)? {
            self.agenda.push(Work::Spread(id), None);
            self.judge_later();
        }
        self.wake_later(id)?;
        Ok(Joined {
            id,
            position,
            verdict: held.quarantine().map_or(Verdict::Accept, Verdict::Quarantine),
            void: place.is_void,
            clock: parents.clock_report(&held),
            entry,
        })
    }

    /// Lets each parent know its child: those that are here and have none name it themselves.
    fn name_child(&mut self, parents: &mut Parents, next: &[EntryId], child: EntryId) {
        let mut here = parents.here.iter_mut().peekable();
        for parent in next {
            match here.next_if(|(id, _, _)| id == parent) {
                Some((_, held, _)) if held.child.is_none() => {
                    held.child = Some(child);
                    self.tag.put_held(self.tx, *parent, held);
                }
                Some(_) | None => {
                    self.tx.put(CHILDREN, &self.tag.key(&[parent.digest(), child.digest()]), &[]);
                }
            }
        }
    }

    /// The parents of an entry as they are now.
    pub(crate) fn parents(&self, held: &Held) -> Result<Parents, ReadError> {
        let mut parents = Parents::default();
        for parent in &held.next {
            match self.tag.joined(self.tx, *parent)? {
                Some((held, place)) => parents.here.push((*parent, held, place)),
                None => parents.are_missing = true,
            }
        }
        Ok(parents)
    }

    /// Parents of an accepted entry are heads no longer, if they were.
    fn unhead(&mut self, parents: &Parents) -> Result<(), ReadError> {
        for (id, _, place) in &parents.here {
            self.remove_head(Position { height: place.height, id: *id })?;
        }
        Ok(())
    }

    pub(crate) fn remove_head(&mut self, position: Position) -> Result<bool, ReadError> {
        let key = position.key(self.tag);
        let was_head = self.tx.contains(HEADS, &key)?;
        if was_head {
            self.tx.delete(HEADS, &key);
            self.meta.heads = self.meta.heads.saturating_sub(1);
        }
        Ok(was_head)
    }

    /// Whether an accepted entry names `id`.
    pub(crate) fn is_named(&self, id: EntryId) -> Result<bool, ReadError> {
        let mut cursor = None;
        loop {
            let (children, next) = self.some_children(id, cursor)?;
            for child in children {
                if self.tag.held(self.tx, child)?.is_some_and(|held| held.accepted().is_some()) {
                    return Ok(true);
                }
            }
            if next.is_none() {
                return Ok(false);
            }
            cursor = next;
        }
    }

    fn has_children(&self, id: EntryId) -> Result<bool, ReadError> {
        Ok(!self.some_children(id, None)?.0.is_empty())
    }

    /// About [`CHILDREN_PER_STEP`] joined children of `id`, and where to go on if there may be more.
    pub(crate) fn some_children(
        &self,
        id: EntryId,
        cursor: Cursor,
    ) -> Result<(Vec<EntryId>, Cursor), ReadError> {
        let mut range = KeyRange::prefix(&self.tag.key(&[id.digest()]));
        if let Some(after) = cursor {
            range.start = self.tag.key(&[id.digest(), &after, &[0]]);
        }
        let rows = self.tx.collect(CHILDREN, &range, Direction::Ascending, CHILDREN_PER_STEP)?;
        let mut children = Vec::with_capacity(rows.len().saturating_add(1));
        if cursor.is_none() {
            children.extend(self.tag.held(self.tx, id)?.and_then(|held| held.child));
        }
        for (key, _) in &rows {
            children.push(id_at_end(key).ok_or_else(damaged)?);
        }
        let last = rows.last().filter(|_| rows.len() == CHILDREN_PER_STEP);
        Ok((children, last.and_then(|(key, _)| key.last_chunk().copied())))
    }
}

/// The parents of an entry that have joined.
#[derive(Default)]
pub(crate) struct Parents {
    here: Vec<(EntryId, Held, Place)>,
    are_missing: bool,
}

impl Parents {
    /// The height of their child.
    pub(crate) fn height(&self) -> u64 {
        let highest = self.here.iter().map(|(_, _, place)| place.height).max();
        highest.unwrap_or_default().saturating_add(1)
    }

    /// Whether a quarantined entry is among them or in their past.
    pub(crate) fn are_tainted(&self) -> bool {
        self.here.iter().any(|(_, held, place)| place.is_tainted || held.quarantine().is_some())
    }

    fn clock_report(&self, child: &Held) -> ClockReport {
        if self.are_missing || self.are_tainted() {
            return ClockReport::Unjudged;
        }
        let fits = match self.here.iter().map(|(_, held, _)| held.time).max() {
            Some(highest) => highest.checked_add(1) == Some(child.time),
            None => (0..=1).contains(&child.time),
        };
        if fits { ClockReport::Fits } else { ClockReport::Odd }
    }
}

pub(crate) fn id_at_end(key: &[u8]) -> Option<EntryId> {
    key.last_chunk().map(|digest| EntryId::from_digest(*digest))
}

/// Reads the block of an entry that is stored.
pub(crate) fn read_entry(read: &dyn Read, tag: LogTag, id: EntryId, number: u64) -> Result<Entry, ReadError> {
    let block = tag.block(read, number)?.ok_or_else(damaged)?;
    Entry::decode_as(id, &block).map_err(|_| damaged())
}
