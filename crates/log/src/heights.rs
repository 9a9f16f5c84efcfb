//! Heights after a hole was filled, and who descends from whom.

use std::collections::BTreeSet;

use dunlin_base::EntryId;
use dunlin_base::kv::{Read, ReadError};
use dunlin_base::planted::{self, Bug};

use crate::agenda::{Cursor, Work};
use crate::rows::{HEADS, LogTag, ORDER, Ordered, Position};
use crate::session::Session;

impl Session<'_, '_> {
    /// Lets the joined children of `id` be rescaled.
    pub(crate) fn spread(&mut self, id: EntryId, cursor: Cursor) -> Result<(), ReadError> {
        let (children, next) = self.some_children(id, cursor)?;
        for child in children {
            if let Some((_, place)) = self.tag.joined(self.tx, child)? {
                self.agenda.push(Work::Rescale { height: place.height, id: child }, None);
            }
        }
        if next.is_some() {
            self.agenda.push(Work::Spread(id), next);
        }
        Ok(())
    }

    /// Computes again what an entry inherits from its parents, and tells its children if it changed.
    pub(crate) fn rescale(&mut self, id: EntryId) -> Result<(), ReadError> {
        let Some((mut held, mut place)) = self.tag.joined(self.tx, id)? else { return Ok(()) };
        if planted::is(Bug::HeightsNotRescaled) {
            return Ok(());
        }
        let parents = self.parents(&held)?;
        let (height, is_tainted) = (parents.height(), parents.are_tainted());
        if (height, is_tainted) == (place.height, place.is_tainted) {
            return Ok(());
        }
        let before = Position { height: place.height, id };
        let after = Position { height, id };
        if held.accepted().is_some() && before != after {
            self.tx.delete(ORDER, &before.key(self.tag));
            self.tag.put_order(self.tx, after, Ordered { is_void: place.is_void, block: held.block });
            if self.remove_head(before)? {
                self.tx.put(HEADS, &after.key(self.tag), &[]);
                self.meta.heads = self.meta.heads.saturating_add(1);
            }
        }
        place.height = height;
        place.is_tainted = is_tainted;
        held.place = Some(place);
        self.tag.put_held(self.tx, id, &held);
        self.batch.reordered = true;
        self.agenda.push(Work::Spread(id), None);
        Ok(())
    }
}

/// What to look for among ancestors.
pub(crate) struct Search<'v> {
    /// Finds this entry.
    pub id: Option<EntryId>,
    /// Finds entries that hold this value and whose own bytes are in order.
    pub value: Option<&'v [u8; 32]>,
    /// Nothing that is looked for is lower.
    pub floor: u64,
    /// Something that is looked for was accepted at this turn: a summit of a later turn stands on it.
    pub since: Option<u64>,
}

impl LogTag {
    /// Whether something that is looked for is among `from` or in their past.
    ///
    /// The walk goes no lower than what is looked for, and stops at the first summit above it, so in a
    /// log whose branches were merged now and then it is short.
    pub(crate) fn find_ancestor(
        self,
        read: &dyn Read,
        from: &[EntryId],
        search: &Search<'_>,
    ) -> Result<bool, ReadError> {
        let mut ahead = from.to_vec();
        let mut seen: BTreeSet<EntryId> = from.iter().copied().collect();
        while let Some(id) = ahead.pop() {
            let Some((held, place)) = self.joined(read, id)? else { continue };
            let is_it = search.id == Some(id)
                || search
                    .value
                    .is_some_and(|value| held.fault.is_none() && held.unique.as_ref() == Some(value));
            let stands_on_it = place.is_summit && search.since.is_some_and(|since| since <= place.turn);
            if is_it || stands_on_it {
                return Ok(true);
            }
            if place.height > search.floor {
                ahead.extend(held.next.iter().copied().filter(|parent| seen.insert(*parent)));
            }
        }
        Ok(false)
    }
}
