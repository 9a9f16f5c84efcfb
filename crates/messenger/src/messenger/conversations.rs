//! Conversations: their rows, from the first event to the last.

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{AccountId, DeviceId, GroupId};
use dunlin_wesh::engine::{Ctx, Engine};
use dunlin_wesh::group::GroupKind;

use super::{Messenger, tolerated};
use crate::app_message::{Content, Envelope};
use crate::error::{MessengerError, Named};
use crate::notice::Notice;
use crate::rows::{ConversationRow, NameRow, Said, StoredState, group_device, put_row, read_row};
use crate::tables;
use crate::text::DisplayName;

/// All conversations, in the order of their ids. There are as many as the owner made.
pub(super) fn all(read: &dyn Read) -> Result<Vec<(GroupId, ConversationRow)>, ReadError> {
    let rows = read.collect(tables::CONVERSATIONS, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
    let decode = |(key, row): &(Vec<u8>, Vec<u8>)| {
        Some((GroupId::from_stored(key)?, <ConversationRow as prost::Message>::decode(&**row).ok()?))
    };
    Ok(rows.iter().filter_map(decode).collect())
}

/// One conversation.
pub(super) fn row(read: &dyn Read, group: &GroupId) -> Result<Option<ConversationRow>, ReadError> {
    read_row(read, tables::CONVERSATIONS, group.as_bytes())
}

/// One conversation that the caller means to be there.
pub(super) fn expected(read: &dyn Read, group: &GroupId) -> Result<ConversationRow, MessengerError> {
    let unknown = || MessengerError::Unknown { what: Named::Conversation, reference: group.to_string() };
    row(read, group)?.ok_or_else(unknown)
}

pub(super) fn put(tx: &mut Tx<'_>, group: &GroupId, row: &ConversationRow) {
    put_row(tx, tables::CONVERSATIONS, group.as_bytes(), row);
}

/// Devices of others that are in reach.
pub(super) fn others_online(
    read: &dyn Read,
    engine: &Engine,
    group: &GroupId,
) -> Result<Vec<DeviceId>, ReadError> {
    let mut devices = engine.online_devices(group);
    if devices.is_empty() {
        return Ok(devices);
    }
    if let Some(own) = engine.own_member(group) {
        let own_devices = engine.devices_of(read, group, &own)?;
        devices.retain(|device| !own_devices.contains(device));
    }
    Ok(devices)
}

impl Messenger {
    /// Makes sure that every group the account is in has a conversation, and uses it.
    pub(super) fn resume(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        for (group, kind, contact) in engine.known_groups(ctx.tx)? {
            match (kind, contact) {
                (GroupKind::MultiMember, _) => self.follow_group(ctx, engine, &group)?,
                (GroupKind::Contact, Some(account)) => self.follow_contact(ctx, engine, &account)?,
                (GroupKind::Contact | GroupKind::Account, _) => {}
            }
        }
        Ok(())
    }

    /// Brings the conversation of a multi-member group in line with what the engine knows of the group.
    pub(super) fn follow_group(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
    ) -> Result<(), ReadError> {
        let known = engine.known_group(ctx.tx, group)?;
        if known.is_some_and(|known| known.kind() == GroupKind::MultiMember) {
            return self.open_conversation(ctx, engine, group, None);
        }
        let Some(mut left) = row(ctx.tx, group)?.filter(|row| !row.left) else { return Ok(()) };
        left.left = true;
        put(ctx.tx, group, &left);
        self.notify(Notice::ConversationChanged(*group));
        Ok(())
    }

    /// Uses the group of a conversation, makes the row if it is new, and tells the own name there.
    pub(super) fn open_conversation(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
        contact: Option<&AccountId>,
    ) -> Result<(), ReadError> {
        tolerated(engine.activate(ctx, group))?;
        let found = row(ctx.tx, group)?;
        let is_new = found.is_none();
        let mut opened = found.unwrap_or_else(|| ConversationRow {
            contact: contact.map(|account| account.as_bytes().to_vec()).unwrap_or_default(),
            changed_ms: ctx.now.as_millis(),
            ..ConversationRow::default()
        });
        let own_member = engine.own_member(group).map(|own| own.as_bytes().to_vec());
        let own_member = own_member.unwrap_or_else(|| opened.own_member.clone());
        if is_new || opened.left || opened.own_member != own_member {
            opened.left = false;
            opened.own_member = own_member;
            put(ctx.tx, group, &opened);
            self.notify(Notice::ConversationChanged(*group));
        }
        self.tell_name(ctx, engine, group)
    }

    /// Tells the own name in a conversation, unless it was told there before.
    pub(super) fn tell_name(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
    ) -> Result<(), ReadError> {
        let Some(name) = self.name.as_ref().map(|name| name.as_str().to_owned()) else { return Ok(()) };
        let Some(mut told) = row(ctx.tx, group)? else { return Ok(()) };
        if told.left || told.told_name == name || !engine.is_active(group) {
            return Ok(());
        }
        if let Some(account) = told.contact() {
            let state = super::people::row(ctx.tx, &account)?.map(|row| row.state()).unwrap_or_default();
            if !matches!(state, StoredState::Sent | StoredState::Added) {
                return Ok(());
            }
        }
        let sent_date = i64::try_from(ctx.now.as_millis()).unwrap_or_default();
        let envelope =
            Envelope { content: Content::UserInfo(name.clone()), sent_date, target: String::new() };
        if tolerated(engine.send_metadata(ctx, group, &envelope.encode()))?.is_some() {
            told.told_name = name;
            put(ctx.tx, group, &told);
        }
        Ok(())
    }

    /// Takes what somebody calls the group.
    pub(super) fn take_group_name(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        name: &str,
        said: Said,
    ) -> Result<(), ReadError> {
        let (Some(name), Some(mut named)) = (DisplayName::received(name), row(tx, group)?) else {
            return Ok(());
        };
        if named.contact().is_some() || !said.replaces(named.name_said.as_ref()) {
            return Ok(());
        }
        named.name = name.as_str().to_owned();
        named.name_said = Some(said);
        put(tx, group, &named);
        self.notify(Notice::ConversationChanged(*group));
        Ok(())
    }

    /// Takes what a device calls its owner. It may come before the device is known to belong to anybody.
    pub(super) fn take_device_name(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        device: &DeviceId,
        name: &str,
        said: Said,
    ) -> Result<(), ReadError> {
        let Some(name) = DisplayName::received(name) else { return Ok(()) };
        let key = group_device(group, device);
        let before: Option<NameRow> = read_row(tx, tables::NAMES, &key)?;
        if !said.replaces(before.as_ref().and_then(|before| before.said.as_ref())) {
            return Ok(());
        }
        put_row(tx, tables::NAMES, &key, &NameRow { name: name.as_str().to_owned(), said: Some(said) });
        self.notify(Notice::ConversationChanged(*group));
        Ok(())
    }

    /// Sets the unread count of a conversation to zero.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`].
    pub fn mark_read(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<(), MessengerError> {
        let mut seen = expected(ctx.tx, group)?;
        if seen.unread > 0 {
            seen.unread = 0;
            seen.read_to = seen.arrivals;
            put(ctx.tx, group, &seen);
            self.notify(Notice::ConversationChanged(*group));
        }
        Ok(())
    }
}
