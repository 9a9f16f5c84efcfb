//! Entries that are stored and have not joined, and what they wait for.

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};

use crate::agenda::{Cursor, Work};
use crate::entry::Entry;
use crate::rows::{Held, Presence, Urgency, WAITING, damaged};
use crate::session::{CHILDREN_PER_STEP, Session, id_at_end};
use crate::verdict::Checked;

/// Most missing entries that are remembered because they lie further back. Those that an entry waits
/// for are always remembered: each of them was paid for with a stored block (`spec/security.md` O5).
pub const UNKNOWN_CIDS_MAX: u64 = 100_000;

impl Checked {
    /// The row of the entry before it joins.
    pub(crate) fn held(&self, late: bool, block: u64) -> Held {
        Held {
            block,
            fault: self.fault,
            late,
            unique: self.unique,
            time: self.entry.time(),
            clock_id: self.entry.clock().id.clone(),
            next: self.entry.next().to_vec(),
            child: None,
            place: None,
        }
    }
}

impl Session<'_, '_> {
    /// Stores an entry that is not here yet. Returns the ids that are wanted for the first time.
    pub(crate) fn store(
        &mut self,
        checked: &Checked,
        before: Option<Presence>,
    ) -> Result<Vec<EntryId>, ReadError> {
        let entry = &checked.entry;
        let is_late = self.stop_wanting(entry.id(), before);
        let held = checked.held(is_late, self.keep_block(entry));
        self.tag.put_held(self.tx, entry.id(), &held);
        let urgency = if checked.fault.is_none() { Urgency::Parent } else { Urgency::Doubtful };
        let mut missing = Vec::new();
        let mut waits_for = None;
        let mut is_ahead = false;
        for (at, parent) in entry.next().iter().enumerate() {
            let presence = self.tag.presence(self.tx, *parent)?;
            if !is_settled(presence.as_ref()) && waits_for.is_none() {
                waits_for = Some(at);
            }
            is_ahead |= !matches!(presence, Some(Presence::Held(_)));
            self.want(*parent, presence.as_ref(), urgency, &mut missing);
        }
        // With all parents here, what lies further back is here or will be asked for by them. With one
        // missing, it lets a long log be fetched in few rounds.
        if is_ahead {
            for reference in entry.refs() {
                let presence = self.tag.presence(self.tx, *reference)?;
                if self.meta.wanted < UNKNOWN_CIDS_MAX {
                    self.want(*reference, presence.as_ref(), urgency.max(Urgency::Reference), &mut missing);
                }
            }
        }
        self.wait_or_queue(entry.id(), &held, waits_for);
        Ok(missing)
    }

    /// Stores the block of an entry; gives its number.
    pub(crate) fn keep_block(&mut self, entry: &Entry) -> u64 {
        let number = self.meta.stored;
        self.meta.stored = number.saturating_add(1);
        self.tag.put_block(self.tx, number, entry.block());
        number
    }

    /// Forgets that `id` was wanted or given up; tells whether it comes late.
    pub(crate) fn stop_wanting(&mut self, id: EntryId, before: Option<Presence>) -> bool {
        match before {
            Some(Presence::Wanted(urgency)) => {
                self.tag.delete_absent(self.tx, urgency, id);
                self.meta.wanted = self.meta.wanted.saturating_sub(1);
                false
            }
            Some(Presence::Hole) => {
                self.tag.delete_absent(self.tx, Urgency::GivenUp, id);
                true
            }
            Some(Presence::Refused | Presence::Held(_)) | None => false,
        }
    }

    fn want(
        &mut self,
        id: EntryId,
        presence: Option<&Presence>,
        urgency: Urgency,
        missing: &mut Vec<EntryId>,
    ) {
        match presence {
            Some(Presence::Held(_) | Presence::Hole | Presence::Refused) => return,
            Some(Presence::Wanted(before)) if *before <= urgency => return,
            Some(Presence::Wanted(before)) => self.tag.delete_absent(self.tx, *before, id),
            None => {
                missing.push(id);
                self.meta.wanted = self.meta.wanted.saturating_add(1);
            }
        }
        self.tag.put_absent(self.tx, urgency, id);
        self.tag.put_presence(self.tx, id, &Presence::Wanted(urgency));
    }

    /// Waits for the parent at `waits_for`, or joins the queue if there is none to wait for.
    fn wait_or_queue(&mut self, id: EntryId, held: &Held, waits_for: Option<usize>) {
        let parent = waits_for.and_then(|at| Some((u32::try_from(at).ok()?, held.next.get(at)?)));
        match parent {
            Some((at, parent)) => {
                self.tx.put(WAITING, &self.tag.key(&[parent.digest(), id.digest()]), &at.to_be_bytes());
                self.meta.waiting = self.meta.waiting.saturating_add(1);
            }
            None => {
                self.agenda.push(Work::Join { place: self.meta.queued, id }, None);
                self.meta.queued = self.meta.queued.saturating_add(1);
            }
        }
    }

    /// Lets those that wait for `id` look again.
    pub(crate) fn wake(&mut self, id: EntryId, cursor: Cursor) -> Result<(), ReadError> {
        let mut range = KeyRange::prefix(&self.tag.key(&[id.digest()]));
        if let Some(after) = cursor {
            range.start = self.tag.key(&[id.digest(), &after, &[0]]);
        }
        let rows = self.tx.collect(WAITING, &range, Direction::Ascending, CHILDREN_PER_STEP)?;
        let mut last = None;
        for (key, found) in &rows {
            self.tx.delete(WAITING, key);
            self.meta.waiting = self.meta.waiting.saturating_sub(1);
            let child = id_at_end(key).ok_or_else(damaged)?;
            let found = <[u8; 4]>::try_from(found.as_slice()).map_err(|_| damaged())?;
            let found = usize::try_from(u32::from_be_bytes(found)).map_err(|_| damaged())?;
            let held = self.tag.held(self.tx, child)?.ok_or_else(damaged)?;
            let waits_for = self.first_unsettled(&held, found)?;
            self.wait_or_queue(child, &held, waits_for);
            last = Some(*child.digest());
        }
        if rows.len() == CHILDREN_PER_STEP {
            self.agenda.push(Work::Wake(id), last);
        }
        Ok(())
    }

    /// The first parent from the `found`th on that neither joined nor was given up. What was passed once
    /// is not waited for again.
    fn first_unsettled(&self, held: &Held, found: usize) -> Result<Option<usize>, ReadError> {
        for (at, parent) in held.next.iter().enumerate().skip(found) {
            if !is_settled(self.tag.presence(self.tx, *parent)?.as_ref()) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Adds a wake if anybody waits for `id`.
    pub(crate) fn wake_later(&mut self, id: EntryId) -> Result<(), ReadError> {
        if self.meta.waiting == 0 {
            return Ok(());
        }
        let range = KeyRange::prefix(&self.tag.key(&[id.digest()]));
        if !self.tx.collect(WAITING, &range, Direction::Ascending, 1)?.is_empty() {
            self.agenda.push(Work::Wake(id), None);
        }
        Ok(())
    }
}

/// Whether no child has to wait for an entry any more.
fn is_settled(presence: Option<&Presence>) -> bool {
    match presence {
        Some(Presence::Held(held)) => held.place.is_some(),
        Some(Presence::Hole | Presence::Refused) => true,
        Some(Presence::Wanted(_)) | None => false,
    }
}
