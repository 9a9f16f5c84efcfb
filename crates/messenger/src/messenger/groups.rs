//! Groups of several members: making, inviting, joining, leaving, naming.

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_wesh::engine::{Ctx, Engine};

use super::conversations::{expected, others_online};
use super::{Messenger, conversations};
use crate::app_message::{Content, Envelope};
use crate::error::MessengerError;
use crate::links::{GroupLink, Link};
use crate::rows::{ConversationRow, NameRow, group_device, read_row};
use crate::tables;
use crate::text::DisplayName;
use crate::views::{Member, short};

impl Messenger {
    /// Makes a group with this account as its first member.
    ///
    /// # Errors
    /// [`MessengerError::Name`].
    pub fn new_group(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        name: &str,
    ) -> Result<GroupId, MessengerError> {
        let name = DisplayName::chosen(name)?;
        let group = engine.create_group(ctx)?;
        self.open_conversation(ctx, engine, &group, None)?;
        self.set_local_name(ctx, &group, Some(&name))?;
        // The first name carries no date, so that every later one replaces it.
        engine.send_metadata(ctx, &group, &naming(&name, 0))?;
        Ok(group)
    }

    /// Joins the group of a link.
    ///
    /// # Errors
    /// [`MessengerError::AlreadyKnown`].
    pub fn join(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        link: &GroupLink,
    ) -> Result<GroupId, MessengerError> {
        let group = link.group.id();
        if let Some(row) = conversations::row(ctx.tx, &group)?.filter(|row| !row.left) {
            let name = name_of(&group, &row);
            return Err(MessengerError::AlreadyKnown(format!("you are in the group “{name}” already")));
        }
        engine.join_group(ctx, &link.group)?;
        self.open_conversation(ctx, engine, &group, None)?;
        self.set_local_name(ctx, &group, link.name.as_ref())?;
        Ok(group)
    }

    /// Leaves a group. What was received so far stays readable.
    ///
    /// # Errors
    /// [`MessengerError::NotAGroup`], or [`MessengerError::Left`] when it was left before.
    pub fn leave(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
    ) -> Result<(), MessengerError> {
        self.expect_joined(ctx.tx, group)?;
        engine.leave_group(ctx, group)?;
        self.follow_group(ctx, engine, group)?;
        Ok(())
    }

    /// Names a group for all its members.
    ///
    /// # Errors
    /// [`MessengerError::Name`], [`MessengerError::NotAGroup`] and [`MessengerError::Left`].
    pub fn rename(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
        name: &str,
    ) -> Result<(), MessengerError> {
        let name = DisplayName::chosen(name)?;
        self.expect_joined(ctx.tx, group)?;
        let now = i64::try_from(ctx.now.as_millis()).unwrap_or_default();
        engine.send_metadata(ctx, group, &naming(&name, now))?;
        Ok(())
    }

    /// The link of a group. Whoever holds it can read and join for ever.
    ///
    /// # Errors
    /// [`MessengerError::NotAGroup`] and [`MessengerError::Left`].
    pub fn group_link(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
    ) -> Result<Link, MessengerError> {
        let row = self.expect_joined(read, group)?;
        let invitation = engine.invitation(read, group)?;
        Ok(Link::Group(GroupLink { group: invitation, name: DisplayName::received(&row.name) }))
    }

    /// Sends the link of a group to contacts, as a message in the conversation with each.
    ///
    /// # Errors
    /// [`MessengerError::NotAContact`] and [`MessengerError::Blocked`] among others; then nobody got one.
    pub fn invite(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
        contacts: &[AccountId],
    ) -> Result<Vec<(GroupId, EntryId)>, MessengerError> {
        let link = self.group_link(ctx.tx, engine, group)?.web();
        let mut conversations = Vec::new();
        for account in contacts {
            let conversation = engine.contact_group(account)?;
            self.expect_writable(ctx.tx, engine, &conversation)?;
            conversations.push(conversation);
        }
        let sent_date = i64::try_from(ctx.now.as_millis()).unwrap_or_default();
        let envelope = Envelope { content: Content::Invitation(link), sent_date, target: String::new() };
        let mut sent = Vec::new();
        for conversation in conversations {
            let entry = engine.send_message(ctx, &conversation, &envelope.encode())?;
            sent.push((conversation, entry));
        }
        Ok(sent)
    }

    /// Who is in a conversation, this account first, then by name.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`].
    pub fn members(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
    ) -> Result<Vec<Member>, MessengerError> {
        let row = expected(read, group)?;
        let online = others_online(read, engine, group)?;
        let mut members = Vec::new();
        for id in engine.members(read, group)? {
            let devices = engine.devices_of(read, group, &id)?;
            let own = row.own_member() == Some(id);
            members.push(Member {
                id,
                name: self.member_name(read, group, &row, own, &devices)?.unwrap_or_default(),
                own,
                online: own || devices.iter().any(|device| online.contains(device)),
                devices: devices.len(),
            });
        }
        members.sort_by_cached_key(|member| (!member.own, member.name.to_lowercase(), member.id));
        Ok(members)
    }

    /// What a member was last called by any of its devices.
    pub(super) fn member_name(
        &self,
        read: &dyn Read,
        group: &GroupId,
        row: &ConversationRow,
        own: bool,
        devices: &[dunlin_base::DeviceId],
    ) -> Result<Option<String>, ReadError> {
        if own {
            return Ok(self.name.as_ref().map(ToString::to_string));
        }
        if let Some(account) = row.contact() {
            return Ok(super::people::row(read, &account)?.map(|row| super::people::name_of(&account, &row)));
        }
        let mut latest: Option<NameRow> = None;
        for device in devices {
            let Some(named) = read_row::<NameRow>(read, tables::NAMES, &group_device(group, device))? else {
                continue;
            };
            let before = latest.as_ref().and_then(|latest| latest.said.as_ref());
            if named.said.as_ref().is_some_and(|said| said.replaces(before)) {
                latest = Some(named);
            }
        }
        Ok(latest.map(|latest| latest.name))
    }

    /// The row of a group that the account is in.
    fn expect_joined(&self, read: &dyn Read, group: &GroupId) -> Result<ConversationRow, MessengerError> {
        let row = expected(read, group)?;
        if row.contact().is_some() {
            return Err(MessengerError::NotAGroup);
        }
        if row.left { Err(MessengerError::Left(name_of(group, &row))) } else { Ok(row) }
    }

    /// Calls a group by a name of our own until its log says one.
    fn set_local_name(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        name: Option<&DisplayName>,
    ) -> Result<(), ReadError> {
        if let (Some(name), Some(mut row)) = (name, conversations::row(ctx.tx, group)?)
            && row.name_said.is_none()
        {
            name.as_str().clone_into(&mut row.name);
            conversations::put(ctx.tx, group, &row);
        }
        Ok(())
    }
}

/// How a group is called.
pub(super) fn name_of(group: &GroupId, row: &ConversationRow) -> String {
    if row.name.is_empty() { short(group) } else { row.name.clone() }
}

fn naming(name: &DisplayName, sent_date: i64) -> Vec<u8> {
    let content = Content::GroupInfo(name.as_str().to_owned());
    Envelope { content, sent_date, target: String::new() }.encode()
}
