//! The log itself: what is asked of it, and what is added to it.

use std::ops::ControlFlow;
use std::sync::Arc;

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx, after_prefix};
use dunlin_base::planted::{self, Bug};

use crate::entry::{Body, Clock, Entry};
use crate::heights::Search;
use crate::identity::Writer;
use crate::rows::{ABSENT, BLOCKS, LogTag, ORDER, Ordered, Position, Presence, Urgency, damaged};
use crate::session::{Joined, JoinedBatch, Lately, Session, read_entry};
use crate::traverse::{Outlook, POINTERS, top_heads};
use crate::verdict::{Checked, Checker, ENTRY_BYTES_MAX, Quarantine, Refusal, Rules, Verdict};
use crate::waiting::UNKNOWN_CIDS_MAX;

/// Most heads that are ever listed, for announcing them or for a reader (`spec/security.md` O6).
pub const HEADS_KNOWN_MAX: usize = 4096;
/// Entries that a walk reads ahead.
const WALK_AHEAD: usize = 64;

/// What became of a block that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingest {
    /// It was here already.
    Known,
    /// It must not be stored. It is a hole to those that name it; whoever sent it is to blame.
    Refused(Refusal),
    /// It is stored and joins as soon as its parents have.
    Stored {
        /// Why it will not count, as far as its own bytes tell. A replay shows when it joins.
        fault: Option<Quarantine>,
        /// Ids that it is the first to name: to be fetched.
        missing: Vec<EntryId>,
    },
}

/// Why nothing was appended. The transaction is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The store failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The entry would have more than [`ENTRY_BYTES_MAX`] bytes. Write less.
    #[error("an entry of {0} bytes is too long")]
    TooLong(usize),
    /// The writer may not write to this log.
    #[error("the writer may not write to this log")]
    NotAWriter,
    /// The same value is in the log already.
    #[error("the value was written before, in {0}")]
    Repeated(EntryId),
}

/// One log in a store that holds many.
///
/// Holds no history: opening costs the same with ten entries and with ten million. All that changes goes
/// into the caller's transaction, so the log is whole after a crash at any commit.
pub struct Log {
    tag: LogTag,
    checker: Checker,
    pointers: usize,
    outlook: Option<Recent>,
    lately: Lately,
}

/// The outlook after the last append, good as long as nothing joined since.
struct Recent {
    joined: u64,
    head: EntryId,
    outlook: Outlook,
}

impl Log {
    /// Opens the log named `log_id`.
    pub fn new(log_id: &str, rules: Arc<dyn Rules>) -> Self {
        let checker = Checker::new(log_id, rules);
        Self {
            tag: LogTag::of(log_id),
            checker,
            pointers: POINTERS,
            outlook: None,
            lately: Lately::default(),
        }
    }

    /// Lets appends link `pointers` entries back instead of [`POINTERS`].
    #[must_use]
    pub fn with_pointers(mut self, pointers: usize) -> Self {
        self.pointers = pointers.max(1);
        self
    }

    /// The id of the log.
    pub fn id(&self) -> &str {
        self.checker.log_id()
    }

    /// What its keys begin with.
    pub fn tag(&self) -> LogTag {
        self.tag
    }

    /// What judges blocks for this log, on any thread; [`Self::ingest_checked`] takes what comes out.
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Writes an entry with `payload` on top of the heads, and joins it.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append(&mut self, tx: &mut Tx<'_>, writer: &Writer, payload: &str) -> Result<Joined, AppendError> {
        let outlook = self.outlook(tx)?;
        let clock = Clock { time: outlook.time.saturating_add(1), id: writer.identity().public_key.clone() };
        let body = Body {
            log_id: self.id().to_owned(),
            payload: payload.to_owned(),
            next: outlook.next.clone(),
            refs: outlook.refs(self.pointers),
            clock,
        };
        let entry = writer.sign(body);
        if entry.block().len() > ENTRY_BYTES_MAX {
            return Err(AppendError::TooLong(entry.block().len()));
        }
        if !self.checker.rules().may_write(&entry) {
            return Err(AppendError::NotAWriter);
        }
        let id = entry.id();
        let before = self.tag.presence(tx, id)?;
        if let Some(Presence::Held(_)) = before {
            return Err(AppendError::Repeated(id));
        }
        let checked = self.checker.trust(entry);
        if let Some(value) = checked.unique
            && let Some(group) = self.tag.group(tx, &value)?
        {
            return Err(AppendError::Repeated(group.live));
        }
        let time = checked.entry.time();
        let mut session = Session::begin(tx, self.tag)?;
        let is_late = session.stop_wanting(id, before);
        let held = checked.held(is_late, session.keep_block(&checked.entry));
        let joined = session.join(held, checked.entry)?;
        let (_, meta) = session.end()?;
        self.outlook = outlook.after(id, time, self.pointers).map(|outlook| Recent {
            joined: meta.joined,
            head: id,
            outlook,
        });
        Ok(joined)
    }

    /// Judges `block` by its own bytes and stores it, unless it is refused.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn ingest(&mut self, tx: &mut Tx<'_>, block: &[u8]) -> Result<Ingest, ReadError> {
        let id = EntryId::of_block(block);
        if let (Some(Presence::Held(_)), false) =
            (self.tag.presence(tx, id)?, planted::is(Bug::DedupeSkipped))
        {
            return Ok(Ingest::Known);
        }
        match self.checker.check_as(id, block) {
            Ok(checked) => self.ingest_checked(tx, checked),
            Err(refusal) => self.refuse(tx, id, refusal),
        }
    }

    /// Stores an entry that [`Self::checker`] judged.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn ingest_checked(&mut self, tx: &mut Tx<'_>, checked: Checked) -> Result<Ingest, ReadError> {
        let id = checked.entry.id();
        if checked.entry.log_id() != self.id() && !planted::is(Bug::OtherLog) {
            return self.refuse(tx, id, Refusal::OtherLog);
        }
        let before = self.tag.presence(tx, id)?;
        if let (Some(Presence::Held(_)), false) = (&before, planted::is(Bug::DedupeSkipped)) {
            return Ok(Ingest::Known);
        }
        let mut session = Session::begin(tx, self.tag)?;
        let missing = session.store(&checked, before)?;
        session.end()?;
        self.lately.keep(checked.entry);
        Ok(Ingest::Stored { fault: checked.fault, missing })
    }

    /// Joins stored entries whose parents have joined or were given up, and does what follows from it,
    /// at most `limit` steps of both. Call it again while [`JoinedBatch::more`] is set; commit between.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn join_ready(&mut self, tx: &mut Tx<'_>, limit: usize) -> Result<JoinedBatch, ReadError> {
        let mut session = Session::begin(tx, self.tag)?;
        if session.meta.agenda == [0; 3] {
            return Ok(JoinedBatch::default());
        }
        self.outlook = None;
        session.work(limit, &mut self.lately)?;
        Ok(session.end()?.0)
    }

    /// Treats `id`, which could not be fetched, as a hole: what waits for it goes on without it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn give_up(&mut self, tx: &mut Tx<'_>, id: EntryId) -> Result<(), ReadError> {
        let before = self.tag.presence(tx, id)?;
        if planted::is(Bug::GiveUpForgotten) {
            return Ok(());
        }
        if let Some(Presence::Wanted(_)) = before {
            self.leave_out(tx, id, before, &Presence::Hole)?;
            self.tag.put_absent(tx, Urgency::GivenUp, id);
        }
        Ok(())
    }

    fn refuse(&mut self, tx: &mut Tx<'_>, id: EntryId, refusal: Refusal) -> Result<Ingest, ReadError> {
        let before = self.tag.presence(tx, id)?;
        if let Some(Presence::Wanted(_) | Presence::Hole) = before {
            self.leave_out(tx, id, before, &Presence::Refused)?;
        }
        Ok(Ingest::Refused(refusal))
    }

    fn leave_out(
        &mut self,
        tx: &mut Tx<'_>,
        id: EntryId,
        before: Option<Presence>,
        now: &Presence,
    ) -> Result<(), ReadError> {
        let mut session = Session::begin(tx, self.tag)?;
        session.stop_wanting(id, before);
        self.tag.put_presence(session.tx, id, now);
        session.wake_later(id)?;
        session.end()?;
        Ok(())
    }

    fn outlook(&mut self, tx: &Tx<'_>) -> Result<Outlook, ReadError> {
        if let Some(recent) = self.outlook.take()
            && self.tag.meta(tx)?.joined == recent.joined
            && top_heads(tx, self.tag, 2)? == [recent.head]
        {
            return Ok(recent.outlook);
        }
        Outlook::of(tx, self.tag, self.pointers)
    }
}

/// Questions. They read the store, never a copy of it.
impl Log {
    /// The accepted entries that no accepted entry names, highest position first, at most
    /// [`HEADS_KNOWN_MAX`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn heads(&self, read: &dyn Read) -> Result<Vec<EntryId>, ReadError> {
        top_heads(read, self.tag, HEADS_KNOWN_MAX)
    }

    /// Up to `limit` ids that are named but not here: first those that entries wait for, then those
    /// further back, last those that only quarantined entries name.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn missing(&self, read: &dyn Read, limit: usize) -> Result<Vec<EntryId>, ReadError> {
        let most = usize::try_from(UNKNOWN_CIDS_MAX).unwrap_or(usize::MAX);
        let range =
            KeyRange { start: self.tag.key(&[]), end: Some(self.tag.key(&[&[Urgency::GivenUp as u8]])) };
        self.absent(read, &range, limit.min(most))
    }

    /// Up to `limit` ids after `after` that were given up: to be tried again when the network changed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn holes(
        &self,
        read: &dyn Read,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Vec<EntryId>, ReadError> {
        let mut range = KeyRange::prefix(&self.tag.key(&[&[Urgency::GivenUp as u8]]));
        if let Some(after) = after {
            range.start = self.tag.key(&[&[Urgency::GivenUp as u8], after.digest(), &[0]]);
        }
        self.absent(read, &range, limit)
    }

    fn absent(&self, read: &dyn Read, range: &KeyRange, limit: usize) -> Result<Vec<EntryId>, ReadError> {
        let rows = read.collect(ABSENT, range, Direction::Ascending, limit)?;
        let ids = rows.iter().filter_map(|(key, _)| key.last_chunk());
        Ok(ids.map(|digest| EntryId::from_digest(*digest)).collect())
    }

    /// Whether the entry is stored, be it joined, waiting or quarantined.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contains(&self, read: &dyn Read, id: EntryId) -> Result<bool, ReadError> {
        Ok(self.tag.held(read, id)?.is_some())
    }

    /// The entry, if it is stored.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn entry(&self, read: &dyn Read, id: EntryId) -> Result<Option<Entry>, ReadError> {
        let Some(held) = self.tag.held(read, id)? else { return Ok(None) };
        read_entry(read, self.tag, id, held.block).map(Some)
    }

    /// The place of a joined entry.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn position(&self, read: &dyn Read, id: EntryId) -> Result<Option<Position>, ReadError> {
        Ok(self.tag.joined(read, id)?.map(|(_, place)| Position { height: place.height, id }))
    }

    /// The verdict on a joined entry.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn verdict(&self, read: &dyn Read, id: EntryId) -> Result<Option<Verdict>, ReadError> {
        let joined = self.tag.joined(read, id)?;
        Ok(joined.map(|(held, _)| held.quarantine().map_or(Verdict::Accept, Verdict::Quarantine)))
    }

    /// Why a stored entry does not count, if it does not.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn quarantine(&self, read: &dyn Read, id: EntryId) -> Result<Option<Quarantine>, ReadError> {
        Ok(self.tag.held(read, id)?.and_then(|held| held.quarantine()))
    }

    /// Visits the entries that count, in order, from `from` (inside) on; void ones are passed over.
    ///
    /// # Errors
    /// [`ReadError`]; entries visited before stay valid.
    pub fn walk(
        &self,
        read: &dyn Read,
        from: Option<Position>,
        direction: Direction,
        visit: &mut dyn FnMut(Position, Entry) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut range = KeyRange { start: self.tag.key(&[]), end: after_prefix(self.tag.as_bytes()) };
        match (from, direction) {
            (None, _) => {}
            (Some(from), Direction::Ascending) => range.start = from.key(self.tag),
            (Some(from), Direction::Descending) => range.end = Some([from.key(self.tag), vec![0]].concat()),
        }
        loop {
            let rows = read.collect(ORDER, &range, direction, WALK_AHEAD)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            match direction {
                Direction::Ascending => range.start = [last.as_slice(), &[0]].concat(),
                Direction::Descending => range.end = Some(last.clone()),
            }
            for (key, ordered) in &rows {
                let ordered = Ordered::decode(ordered).ok_or_else(damaged)?;
                if ordered.is_void {
                    continue;
                }
                let position = Position::from_key(key).ok_or_else(damaged)?;
                let entry = read_entry(read, self.tag, position.id, ordered.block)?;
                if visit(position, entry).is_break() {
                    return Ok(());
                }
            }
        }
    }

    /// Whether `ancestor` lies in the causal past of `of`, as far as both have joined.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_ancestor(&self, read: &dyn Read, ancestor: EntryId, of: EntryId) -> Result<bool, ReadError> {
        let (Some((held, place)), Some((descendant, _))) =
            (self.tag.joined(read, ancestor)?, self.tag.joined(read, of)?)
        else {
            return Ok(false);
        };
        let [unsettled, ..] = self.tag.meta(read)?.agenda;
        let search = Search {
            id: Some(ancestor),
            value: None,
            floor: if unsettled > 0 { 0 } else { place.height },
            since: held.accepted().map(|place| place.turn),
        };
        self.tag.find_ancestor(read, &descendant.next, &search)
    }
}

/// The block of an entry of the log with this tag, if it is stored: for serving it to peers.
///
/// # Errors
/// [`ReadError`].
pub fn block_in(read: &dyn Read, tag: LogTag, id: EntryId) -> Result<Option<Vec<u8>>, ReadError> {
    let Some(held) = tag.held(read, id)? else { return Ok(None) };
    tag.block(read, held.block)
}

/// Visits the stored blocks of the log with this tag in the order in which they came, whatever became of their
/// entries, from the one with the number `from` on. Numbers only grow, so a later visit may go on from there.
///
/// # Errors
/// [`ReadError`]; blocks visited before stay valid.
pub fn blocks_in(
    read: &dyn Read,
    tag: LogTag,
    from: u64,
    visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let range = KeyRange { start: tag.key(&[&from.to_be_bytes()]), end: after_prefix(tag.as_bytes()) };
    let mut intact = true;
    read.scan(BLOCKS, &range, Direction::Ascending, &mut |key, block| match key.last_chunk::<8>() {
        Some(number) => visit(u64::from_be_bytes(*number), block),
        None => {
            intact = false;
            ControlFlow::Break(())
        }
    })?;
    if intact { Ok(()) } else { Err(damaged()) }
}
