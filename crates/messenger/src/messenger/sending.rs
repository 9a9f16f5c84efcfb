//! Sending texts.

use dunlin_base::kv::Read;
use dunlin_base::{EntryId, GroupId};
use dunlin_wesh::engine::{Ctx, Engine};

use super::conversations::expected;
use super::{Messenger, groups, people};
use crate::app_message::Envelope;
use crate::error::MessengerError;
use crate::rows::StoredState;
use crate::text::TEXT_BYTES_MAX;
use crate::views::short;

impl Messenger {
    /// Sends a text. It is kept as soon as the transaction is committed; delivery goes on by itself.
    ///
    /// # Errors
    /// [`MessengerError::TextEmpty`], [`MessengerError::TextTooLong`], [`MessengerError::NotAContact`],
    /// [`MessengerError::Blocked`] and [`MessengerError::Left`].
    pub fn send(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
        text: &str,
    ) -> Result<EntryId, MessengerError> {
        if text.trim().is_empty() {
            return Err(MessengerError::TextEmpty);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(MessengerError::TextTooLong { bytes: text.len() });
        }
        self.expect_writable(ctx.tx, engine, group)?;
        let now = i64::try_from(ctx.now.as_millis()).unwrap_or_default();
        Ok(engine.send_message(ctx, group, &Envelope::text(text, now).encode())?)
    }

    /// Whether something can be sent in a conversation now.
    pub(super) fn expect_writable(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
    ) -> Result<(), MessengerError> {
        let row = expected(read, group).map_err(|error| match engine.contact_of_group(read, group) {
            Ok(Some(account)) => MessengerError::NotAContact(short(account)),
            _ => error,
        })?;
        let Some(account) = row.contact() else {
            return if row.left { Err(MessengerError::Left(groups::name_of(group, &row))) } else { Ok(()) };
        };
        let contact = people::row(read, &account)?.unwrap_or_default();
        let name = people::name_of(&account, &contact);
        match contact.state() {
            StoredState::Kept | StoredState::Sent | StoredState::Added => Ok(()),
            StoredState::Blocked => Err(MessengerError::Blocked(name)),
            StoredState::Asks | StoredState::Gone => Err(MessengerError::NotAContact(name)),
        }
    }
}
