//! Values that may be written only once (`spec/security.md` V8).
//!
//! A copy with another holder of the value in its past is a replay and is quarantined. Of concurrent
//! holders the first in the order counts, the others are void. Both follow from the set of entries
//! alone; what is kept per value only spares looking at all its holders.

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, after_prefix};

use crate::agenda::{Cursor, Work};
use crate::heights::Search;
use crate::rows::{COPIES, Group, HEADS, Held, ORDER, Ordered, Place, Position, damaged};
use crate::session::{Replaced, Session};

impl Session<'_, '_> {
    /// Finds out what joining makes of an entry that holds `value`, and enters it as a holder.
    pub(crate) fn place_copy(
        &mut self,
        value: &[u8; 32],
        next: &[EntryId],
        position: Position,
        place: &mut Place,
    ) -> Result<(), ReadError> {
        let Some(mut group) = self.tag.group(self.tx, value)? else {
            let (floor, since) = (position.height, place.turn);
            let group = Group { live: position.id, floor, since, is_contested: false };
            self.tag.put_group(self.tx, value, &group);
            return Ok(());
        };
        if !group.is_contested {
            group.is_contested = true;
            self.meta.contested = self.meta.contested.saturating_add(1);
            self.tx.put(COPIES, &self.tag.key(&[value, group.live.digest()]), &[]);
        }
        self.tx.put(COPIES, &self.tag.key(&[value, position.id.digest()]), &[]);
        let search = Search { id: None, value: Some(value), floor: group.floor, since: Some(group.since) };
        place.is_replay = self.tag.find_ancestor(self.tx, next, &search)?;
        group.floor = group.floor.min(position.height);
        if !place.is_replay {
            let (live, live_place) = self.tag.joined(self.tx, group.live)?.ok_or_else(damaged)?;
            if (Position { height: live_place.height, id: group.live }) < position {
                place.is_void = true;
            } else {
                self.set_void(group.live, live, true);
                self.batch.replaced.push(Replaced { entry: group.live, by: position.id });
                group.live = position.id;
            }
        }
        self.tag.put_group(self.tx, value, &group);
        let [unsettled, ..] = self.meta.agenda;
        if unsettled > 0 {
            self.judge_later();
        }
        Ok(())
    }

    /// Judges all copies again once heights are settled.
    pub(crate) fn judge_later(&mut self) {
        if self.meta.contested > 0 {
            self.agenda.push(Work::Judge, None);
        }
    }

    /// Judges the holders of one value again: the first after `cursor`.
    pub(crate) fn judge(&mut self, cursor: Cursor) -> Result<(), ReadError> {
        let range = match cursor {
            Some(value) => KeyRange {
                start: after_prefix(&self.tag.key(&[&value])).unwrap_or_default(),
                end: after_prefix(self.tag.as_bytes()),
            },
            None => KeyRange::prefix(self.tag.as_bytes()),
        };
        let first = self.tx.collect(COPIES, &range, Direction::Ascending, 1)?;
        let Some((key, _)) = first.first() else { return Ok(()) };
        let value: [u8; 32] = *key.get(16..).and_then(<[u8]>::first_chunk).ok_or_else(damaged)?;
        self.judge_group(&value)?;
        self.agenda.push(Work::Judge, Some(value));
        Ok(())
    }

    fn judge_group(&mut self, value: &[u8; 32]) -> Result<(), ReadError> {
        let mut group = self.tag.group(self.tx, value)?.ok_or_else(damaged)?;
        let holders = self.holders(value)?;
        let mut live = None;
        for (position, held, place) in holders {
            let search =
                Search { id: None, value: Some(value), floor: group.floor, since: Some(group.since) };
            let is_replay = place.is_replay || self.tag.find_ancestor(self.tx, &held.next, &search)?;
            let is_void = !is_replay && live.is_some();
            if is_replay != place.is_replay {
                self.quarantine_replay(position, held)?;
            } else if is_void != place.is_void {
                self.set_void(position.id, held, is_void);
                self.batch.reordered = true;
            }
            if !is_replay && live.is_none() {
                live = Some(position.id);
            }
        }
        let live = live.ok_or_else(damaged)?;
        if live != group.live {
            self.batch.replaced.push(Replaced { entry: group.live, by: live });
        }
        group.live = live;
        self.tag.put_group(self.tx, value, &group);
        Ok(())
    }

    /// All holders of a contested value, in order.
    fn holders(&self, value: &[u8; 32]) -> Result<Vec<(Position, Held, Place)>, ReadError> {
        let range = KeyRange::prefix(&self.tag.key(&[value]));
        let mut holders = Vec::new();
        for (key, _) in self.tx.collect(COPIES, &range, Direction::Ascending, usize::MAX)? {
            let id = key.last_chunk().map(|digest| EntryId::from_digest(*digest)).ok_or_else(damaged)?;
            let (held, place) = self.tag.joined(self.tx, id)?.ok_or_else(damaged)?;
            holders.push((Position { height: place.height, id }, held, place));
        }
        holders.sort_unstable_by_key(|(position, _, _)| *position);
        Ok(holders)
    }

    fn set_void(&mut self, id: EntryId, mut held: Held, is_void: bool) {
        let Some(mut place) = held.place else { return };
        place.is_void = is_void;
        held.place = Some(place);
        let position = Position { height: place.height, id };
        self.tag.put_order(self.tx, position, Ordered { is_void, block: held.block });
        self.tag.put_held(self.tx, id, &held);
    }

    /// An accepted entry turns out to be a replay: it leaves the order and the heads, and its parents
    /// are heads again unless others name them.
    fn quarantine_replay(&mut self, position: Position, mut held: Held) -> Result<(), ReadError> {
        let Some(mut place) = held.place else { return Ok(()) };
        place.is_replay = true;
        place.is_void = false;
        held.place = Some(place);
        self.tx.delete(ORDER, &position.key(self.tag));
        self.remove_head(position)?;
        self.tag.put_held(self.tx, position.id, &held);
        for parent in &held.next {
            self.restore_head(*parent)?;
        }
        self.batch.reordered = true;
        self.agenda.push(Work::Spread(position.id), None);
        Ok(())
    }

    fn restore_head(&mut self, id: EntryId) -> Result<(), ReadError> {
        let Some(place) = self.tag.held(self.tx, id)?.and_then(|held| held.accepted()) else { return Ok(()) };
        let key = Position { height: place.height, id }.key(self.tag);
        if !self.tx.contains(HEADS, &key)? && !self.is_named(id)? {
            self.tx.put(HEADS, &key, &[]);
            self.meta.heads = self.meta.heads.saturating_add(1);
        }
        Ok(())
    }
}
