//! Erasing a message from this device.

use dunlin_base::kv::{Read, ReadError, Tx};
use dunlin_base::{EntryId, GroupId};
use dunlin_wesh::engine::{CommandError, Ctx, Engine};

use super::{Messenger, conversations, references};
use crate::error::{MessengerError, Named};
use crate::notice::Notice;
use crate::rows::{ConversationRow, MessageRow, Place, group_entry, read_row};
use crate::tables;

impl Messenger {
    /// Erases a message from this device, for good: others keep what they have of it, and one of our own that somebody
    /// lacks still goes to them. Nothing is shown in its place.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`], [`MessengerError::Erased`] for one that is erased already, and
    /// [`MessengerError::Closed`] for one that was never open here.
    pub fn erase(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        entry: &EntryId,
    ) -> Result<(), MessengerError> {
        let place = Place::of_entry(ctx.tx, entry)?;
        let (group, entry) = match place {
            Some(place) => (place.group, place.position.id),
            None => match references::closed_in(ctx.tx, entry)? {
                Some(group) => (group, *entry),
                None => {
                    let reference = entry.to_string();
                    return Err(MessengerError::Unknown { what: Named::Message, reference });
                }
            },
        };
        match engine.erase_message(ctx, &group, &entry) {
            Err(CommandError::NoSuchMessage) if place.is_some() => Err(MessengerError::Erased),
            Err(CommandError::NoSuchMessage) => Err(MessengerError::Closed),
            erased => Ok(erased?),
        }
    }

    /// Forgets a message that was erased. Its place stays known, so that nothing that comes later for it is kept: a
    /// confirmation, or a copy.
    pub(super) fn forget_erased(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        let Some(place) = Place::of_entry(ctx.tx, entry)? else { return Ok(()) };
        take_from_sight(ctx.tx, &place)?;
        self.forget_receipts(ctx.tx, group, entry)?;
        ctx.tx.delete(tables::KEPT, &group_entry(group, entry));
        self.notify(Notice::MessageErased { group: *group, entry: *entry });
        self.notify(Notice::ConversationChanged(*group));
        Ok(())
    }
}

/// Deletes the row of a message, which does not count as unread any more.
pub(super) fn take_from_sight(tx: &mut Tx<'_>, place: &Place) -> Result<(), ReadError> {
    let Some(row) = read_row::<MessageRow>(tx, tables::MESSAGES, &place.key())? else { return Ok(()) };
    tx.delete(tables::MESSAGES, &place.key());
    if let Some(mut conversation) = conversations::row(tx, &place.group)?
        && is_unread(&row, &conversation)
    {
        conversation.unread = conversation.unread.saturating_sub(1);
        conversations::put(tx, &place.group, &conversation);
    }
    Ok(())
}

/// Whether a message was shown here and is not any more.
pub(super) fn is_erased(read: &dyn Read, entry: &EntryId) -> Result<bool, ReadError> {
    let Some(place) = Place::of_entry(read, entry)? else { return Ok(false) };
    Ok(!read.contains(tables::MESSAGES, &place.key())?)
}

fn is_unread(row: &MessageRow, conversation: &ConversationRow) -> bool {
    row.arrival > conversation.read_to
}
