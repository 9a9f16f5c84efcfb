//! Messages whose place in the conversation changed, after a late parent changed the order of their log.

use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, Read as _, ReadError};
use dunlin_base::{EntryId, GroupId};
use dunlin_log::Position;

use super::fold::stale_key;
use super::opening::{MessageRow, group_entry_key};
use super::{Ctx, Engine, Event, StoreKind};
use crate::tables;

/// Messages that are looked at in one transaction, so that neither it nor its memory grows with the log.
pub(super) const MOVES_PER_STEP: usize = 1024;

impl Engine {
    /// Tells which shown messages stand elsewhere, from where the last step ended. Returns whether there are more:
    /// then the row of [`tables::STALE`] says where to go on.
    pub(super) fn note_moves(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<bool, ReadError> {
        let cursor = stale_key(group, StoreKind::Messages);
        let after = ctx.tx.get(tables::STALE, &cursor)?.as_deref().and_then(decode);
        let mut order = Vec::new();
        self.active(group)?.messages.log.walk(ctx.tx, after, Direction::Ascending, &mut |position, _| {
            if Some(position) != after {
                order.push(position);
            }
            if order.len() < MOVES_PER_STEP { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        for to in &order {
            let key = group_entry_key(group, &to.id);
            let Some(row) = ctx.tx.get(tables::MESSAGES, &key)? else { continue };
            let Some(shown) = MessageRow::decode(&row).filter(|shown| shown.height != to.height) else {
                continue;
            };
            let from = Position { height: shown.height, id: to.id };
            ctx.tx.put(tables::MESSAGES, &key, &MessageRow { height: to.height, ..shown }.encode());
            self.events.push_back(Event::Moved { group: *group, from, to: *to });
        }
        let Some(last) = order.last().filter(|_| order.len() >= MOVES_PER_STEP) else { return Ok(false) };
        ctx.tx.put(tables::STALE, &cursor, &encode(last));
        Ok(true)
    }
}

/// The value of a row of [`tables::STALE`]: big-endian height and raw id of the last message that was looked at;
/// empty before the first.
fn encode(position: &Position) -> Vec<u8> {
    [position.height.to_be_bytes().as_slice(), position.id.digest()].concat()
}

fn decode(row: &[u8]) -> Option<Position> {
    let (height, digest) = row.split_first_chunk()?;
    Some(Position { height: u64::from_be_bytes(*height), id: EntryId::from_slice(digest)? })
}
