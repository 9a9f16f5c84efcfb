//! Messages that are in the log but cannot be opened.

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{DeviceId, EntryId, GroupId};
use dunlin_wesh::engine::{Ctx, WaitCause};

use super::erasing::take_from_sight;
use super::{Messenger, conversations};
use crate::notice::Notice;
use crate::rows::{ClosedRow, Place, StoredCause, group_entry, put_row, read_row};
use crate::tables;

/// Closed messages that are looked at to say what they wait for.
const CLOSED_LOOKED_AT_MAX: usize = 1000;

impl Messenger {
    /// Notes a message that cannot be opened, or why it still cannot.
    pub(super) fn close(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
        cause: WaitCause,
    ) -> Result<(), ReadError> {
        let Some(mut conversation) = conversations::row(ctx.tx, group)? else { return Ok(()) };
        let key = group_entry(group, entry);
        let before: Option<ClosedRow> = read_row(ctx.tx, tables::CLOSED, &key)?;
        if before.is_none() {
            conversation.closed = conversation.closed.saturating_add(1);
            conversations::put(ctx.tx, group, &conversation);
            self.notify(Notice::ConversationChanged(*group));
        }
        if let (WaitCause::Repeat { .. } | WaitCause::OutOfPlace { .. }, Some(place)) =
            (cause, Place::of_entry(ctx.tx, entry)?)
        {
            // It was shown before anybody could know that it does not belong there.
            take_from_sight(ctx.tx, &place)?;
            Place::forget(ctx.tx, &place.position.id);
            self.notify(Notice::Gone { group: *group, entry: place.position.id });
        }
        let (cause, device) = stored(cause);
        if cause != StoredCause::Repeat && before.as_ref().is_none_or(|before| before.cause() != cause) {
            self.notify(Notice::GapFound { group: *group, entry: *entry });
        }
        let row = ClosedRow {
            cause: cause.into(),
            device: device.map(|device| device.as_bytes().to_vec()).unwrap_or_default(),
            since_ms: before.map_or(ctx.now.as_millis(), |before| before.since_ms),
        };
        put_row(ctx.tx, tables::CLOSED, &key, &row);
        Ok(())
    }

    /// Notes that a message was opened after all.
    pub(super) fn reopen(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        let key = group_entry(group, entry);
        if !tx.contains(tables::CLOSED, &key)? {
            return Ok(());
        }
        tx.delete(tables::CLOSED, &key);
        if let Some(mut conversation) = conversations::row(tx, group)? {
            conversation.closed = conversation.closed.saturating_sub(1);
            conversations::put(tx, group, &conversation);
            self.notify(Notice::ConversationChanged(*group));
            self.notify(Notice::Gone { group: *group, entry: *entry });
        }
        Ok(())
    }
}

/// The closed messages of a conversation, as many as are looked at.
pub(super) fn closed(read: &dyn Read, group: &GroupId) -> Result<Vec<(EntryId, ClosedRow)>, ReadError> {
    let range = KeyRange::prefix(group.as_bytes());
    let rows = read.collect(tables::CLOSED, &range, Direction::Ascending, CLOSED_LOOKED_AT_MAX)?;
    let decode = |(key, row): &(Vec<u8>, Vec<u8>)| {
        Some((
            EntryId::from_slice(key.get(32..)?)?,
            <ClosedRow as prost::Message>::decode(row.as_slice()).ok()?,
        ))
    };
    Ok(rows.iter().filter_map(decode).collect())
}

/// The closed messages of a conversation, by cause.
pub(super) fn causes(read: &dyn Read, group: &GroupId) -> Result<Vec<StoredCause>, ReadError> {
    Ok(closed(read, group)?.iter().map(|(_, row)| row.cause()).collect())
}

fn stored(cause: WaitCause) -> (StoredCause, Option<DeviceId>) {
    match cause {
        WaitCause::KeyNotReceived { device } => (StoredCause::KeyNotReceived, Some(device)),
        WaitCause::DeviceUnknown { device } => (StoredCause::DeviceUnknown, Some(device)),
        WaitCause::SentBeforeKey { device } => (StoredCause::SentBeforeKey, Some(device)),
        WaitCause::BeyondWindow { device } => (StoredCause::BeyondWindow, Some(device)),
        WaitCause::Repeat { device } => (StoredCause::Repeat, Some(device)),
        WaitCause::OutOfPlace { device } => (StoredCause::OutOfPlace, Some(device)),
        _ => (StoredCause::Unreadable, None),
    }
}
