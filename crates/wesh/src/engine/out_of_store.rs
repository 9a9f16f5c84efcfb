//! Messages that leave and come outside their log (`spec/wesh-protocol.md` §7.4).

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::seal::Nonce;
use dunlin_base::{EntryId, GroupId};
use dunlin_orbitdb::operation;

use super::opening::{MessageRow, group_entry_key};
use super::{CommandError, Ctx, Engine};
use crate::message::{OpenedMessage, OpenedOutOfStore, OutOfStoreError, SealedOutOfStore, seal_out_of_store};
use crate::metadata::Index;
use crate::tables;

impl Engine {
    /// Seals a message of an active group's log to be sent outside it, such as in a push notification.
    ///
    /// Whoever carries it learns neither group nor sender, and no two of them belong together for him.
    ///
    /// # Errors
    /// [`CommandError::NotActive`] or [`CommandError::NoSuchMessage`].
    pub fn seal_out_of_store(
        &self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<Vec<u8>, CommandError> {
        let active = self.active_for_owner(group)?;
        let stored = active.messages.log.entry(ctx.tx, *entry)?.ok_or(CommandError::NoSuchMessage)?;
        let value = operation::decode_value(stored.payload()).ok_or(CommandError::NoSuchMessage)?;
        seal_out_of_store(&active.group, *entry, &value, Nonce::random(ctx.rng))
            .map_err(|_| CommandError::NoSuchMessage)
    }

    /// Opens a message that came outside its log; its group need not be active.
    ///
    /// Nothing follows from it: the message is told like any other when its entry comes.
    ///
    /// # Errors
    /// [`OutOfStoreError`].
    pub fn open_out_of_store(
        &self,
        read: &dyn Read,
        payload: &[u8],
    ) -> Result<OpenedOutOfStore, OutOfStoreError> {
        let sealed = SealedOutOfStore::parse(payload)?;
        for group in self.all_groups(read)? {
            let kept = |entry: &EntryId| kept(read, &group.id(), entry);
            let Some(opened) = sealed.open(read, &group, &kept)? else { continue };
            return match Index::member_in(read, &group.id(), &opened.device)? {
                Some(_) => Ok(opened),
                None => Err(OutOfStoreError::DeviceUnknown),
            };
        }
        Err(OutOfStoreError::NoGroup)
    }
}

/// The message in an entry that was opened, as it is kept.
fn kept(read: &dyn Read, group: &GroupId, entry: &EntryId) -> Result<Option<OpenedMessage>, ReadError> {
    let key = group_entry_key(group, entry);
    let row = match read.get(tables::MESSAGES, &key)? {
        Some(row) => Some(row),
        None => read.get(tables::REPEATS, &key)?,
    };
    Ok(row.as_deref().and_then(MessageRow::decode).map(MessageRow::to_opened))
}
