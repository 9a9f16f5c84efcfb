//! What the owner of the account asks for.

use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, Read, ReadError};
use dunlin_base::keys::KeyError;
use dunlin_base::{AccountId, EntryId, GroupId};

use super::fold::{MessageRow, group_entry_key};
use super::{Ctx, Engine, MessageEvent, MetadataEvent, StoreKind};
use crate::contact::{Contact, ContactState};
use crate::group::{Group, GroupError, GroupKind};
use crate::message::{self, SealError};
use crate::metadata::{self, Event as MetadataKind};

/// Largest payload of one message, in bytes.
///
/// A Go node still announces an entry that carries this much: it is encoded in base64 twice on the gossip
/// topic, whose messages end at 1 MiB, and our own blocks end at 256 KiB (`spec/security.md` V1).
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;

/// Why a command was not carried out. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The account neither joined such a group nor has such a contact.
    #[error("this account does not know that group")]
    UnknownGroup,
    /// The group has to be activated first.
    #[error("the group is not active")]
    NotActive,
    /// The command needs a group of another kind.
    #[error("this cannot be done in a group of that kind")]
    WrongKind,
    /// The group was joined before.
    #[error("this account is in that group already")]
    AlreadyJoined,
    /// The invitation is damaged.
    #[error("the invitation is not valid: {0}")]
    Invitation(#[from] GroupError),
    /// The contact is this account itself.
    #[error("that contact is this account itself")]
    OwnAccount,
    /// The contact was added before.
    #[error("that contact was added before")]
    AlreadyAdded,
    /// The contact is blocked; unblock it first.
    #[error("that contact is blocked")]
    Blocked,
    /// There is no request, contact or block to act on.
    #[error("that contact is not in a state in which this can be done")]
    WrongState,
    /// A contact that is to be asked needs a rendezvous seed.
    #[error("the contact carries no rendezvous seed, so it cannot be asked")]
    NoSeed,
    /// The key is one with which no secret can be shared.
    #[error("the key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The payload is longer than [`PAYLOAD_BYTES_MAX`].
    #[error("a message of {bytes} bytes is too long, {PAYLOAD_BYTES_MAX} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The message could not be sealed.
    #[error("the message could not be sealed: {0}")]
    Seal(#[source] SealError),
}

impl Engine {
    /// Makes a group with this account as its first member, and activates it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn create_group(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<GroupId, CommandError> {
        let (group, group_key) = Group::new_multi_member(ctx.rng);
        let id = group.id();
        self.write_joined(ctx, &group)?;
        self.start_group(ctx, group)?;
        let active = self.active(&id)?;
        let event = MetadataKind::initial_member(&active.own);
        let value = metadata::seal_by_group(&active.group, &group_key, &event, ctx.rng);
        self.append(ctx, &id, StoreKind::Metadata, &value)?;
        self.finish(ctx)?;
        Ok(id)
    }

    /// Joins the group of an invitation; it still has to be activated.
    ///
    /// # Errors
    /// [`CommandError::AlreadyJoined`], or [`CommandError::WrongKind`] unless it is a multi-member group.
    pub fn join_group(&mut self, ctx: &mut Ctx<'_, '_>, group: &Group) -> Result<(), CommandError> {
        if group.kind() != GroupKind::MultiMember {
            return Err(CommandError::WrongKind);
        }
        if self.known_group(ctx.tx, &group.id())?.is_some() {
            return Err(CommandError::AlreadyJoined);
        }
        self.write_joined(ctx, group)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Leaves a group and stops to use it. Its members are not told; its history stays on this device.
    ///
    /// # Errors
    /// [`CommandError::UnknownGroup`] or [`CommandError::WrongKind`].
    pub fn leave_group(&mut self, ctx: &mut Ctx<'_, '_>, id: &GroupId) -> Result<(), CommandError> {
        let group = self.known_group(ctx.tx, id)?.ok_or(CommandError::UnknownGroup)?;
        if group.kind() != GroupKind::MultiMember {
            return Err(CommandError::WrongKind);
        }
        let account = self.account_group();
        let event = MetadataKind::group_left(&self.active(&account)?.own, *id);
        self.append_event(ctx, &account, &event)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// What somebody needs to join a group. Whoever holds it can read the group, for ever.
    ///
    /// # Errors
    /// [`CommandError::UnknownGroup`]; [`CommandError::WrongKind`] for account and contact groups, whose
    /// secrets never leave the account.
    pub fn invitation(&self, read: &dyn Read, id: &GroupId) -> Result<Group, CommandError> {
        let group = self.known_group(read, id)?.ok_or(CommandError::UnknownGroup)?;
        match group.kind() {
            GroupKind::MultiMember => Ok(group),
            _ => Err(CommandError::WrongKind),
        }
    }

    /// Seals and appends a message. The chain state and the entry are written by the same transaction.
    ///
    /// # Errors
    /// [`CommandError::NotActive`] or [`CommandError::TooLong`].
    pub fn send_message(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        payload: &[u8],
    ) -> Result<EntryId, CommandError> {
        let active = self.active_for_sending(group, payload)?;
        let sealed = message::seal(ctx.tx, &active.group, &active.own, payload, ctx.rng)
            .map_err(CommandError::Seal)?;
        let entry = self.append(ctx, group, StoreKind::Messages, &sealed.envelope)?;
        self.note_written(ctx, group, &entry);
        self.finish(ctx)?;
        Ok(entry)
    }

    /// Seals and appends application metadata: readable by every member, those who join later included.
    ///
    /// # Errors
    /// [`CommandError::NotActive`] or [`CommandError::TooLong`].
    pub fn send_metadata(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        payload: &[u8],
    ) -> Result<EntryId, CommandError> {
        let active = self.active_for_sending(group, payload)?;
        let event = MetadataKind::app_metadata(&active.own, payload);
        let entry = self.append_event(ctx, group, &event)?;
        self.finish(ctx)?;
        Ok(entry)
    }

    /// Asks somebody to become a contact; `own_metadata` introduces this account to them.
    ///
    /// # Errors
    /// [`CommandError::OwnAccount`], [`CommandError::AlreadyAdded`], [`CommandError::Blocked`] (blocked stays
    /// blocked, `spec/security.md` Q6), or [`CommandError::NoSeed`].
    pub fn request_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &Contact,
        own_metadata: &[u8],
    ) -> Result<(), CommandError> {
        if contact.account == self.account_id() {
            return Err(CommandError::OwnAccount);
        }
        if contact.seed.is_none() {
            return Err(CommandError::NoSeed);
        }
        Group::contact(&self.keys, &contact.account)?;
        let account = self.account_group();
        let active = self.active(&account)?;
        if self.has_request(ctx.tx, &contact.account)? {
            return self.accept_contact(ctx, &contact.account);
        }
        let event = match active.index.contact_state(ctx.tx, &contact.account)? {
            Some(ContactState::Added) => return Err(CommandError::AlreadyAdded),
            Some(ContactState::Blocked) => return Err(CommandError::Blocked),
            Some(ContactState::Removed | ContactState::Discarded | ContactState::Received) => {
                MetadataKind::contact_sent(&active.own, contact.account)
            }
            _ => MetadataKind::contact_enqueued(&active.own, contact.clone(), own_metadata),
        };
        self.append_event(ctx, &account, &event)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Accepts the request of `contact`, and activates the group shared with it.
    ///
    /// # Errors
    /// [`CommandError::WrongState`] when there is no such request.
    pub fn accept_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<(), CommandError> {
        let request = self.take_request(ctx, contact)?;
        let account = self.account_group();
        let own = &self.active(&account)?.own;
        let accepted = MetadataKind::contact_accepted(own, *contact);
        match request {
            Some(request) => {
                let received = MetadataKind::contact_received(own, request.contact);
                self.append_event(ctx, &account, &received)?;
            }
            None if self.contact_state(ctx.tx, contact)? == Some(ContactState::Received) => {}
            None => return Err(CommandError::WrongState),
        }
        self.append_event(ctx, &account, &accepted)?;
        let group = self.contact_group(contact)?;
        self.activate(ctx, &group)
    }

    /// Refuses the request of `contact`. The other side is not told.
    ///
    /// # Errors
    /// [`CommandError::WrongState`] when there is no such request.
    pub fn discard_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<(), CommandError> {
        if self.take_request(ctx, contact)?.is_some() {
            return Ok(());
        }
        if self.contact_state(ctx.tx, contact)? != Some(ContactState::Received) {
            return Err(CommandError::WrongState);
        }
        self.append_contact_event(ctx, contact, MetadataKind::contact_discarded)
    }

    /// Blocks `contact`: its requests are dropped until it is unblocked.
    ///
    /// # Errors
    /// [`CommandError::OwnAccount`], or [`CommandError::Blocked`] when it is blocked already.
    pub fn block_contact(&mut self, ctx: &mut Ctx<'_, '_>, contact: &AccountId) -> Result<(), CommandError> {
        if *contact == self.account_id() {
            return Err(CommandError::OwnAccount);
        }
        if self.contact_state(ctx.tx, contact)? == Some(ContactState::Blocked) {
            return Err(CommandError::Blocked);
        }
        self.take_request(ctx, contact)?;
        self.append_contact_event(ctx, contact, MetadataKind::contact_blocked)
    }

    /// Takes a block back.
    ///
    /// # Errors
    /// [`CommandError::WrongState`] unless it is blocked.
    pub fn unblock_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<(), CommandError> {
        if self.contact_state(ctx.tx, contact)? != Some(ContactState::Blocked) {
            return Err(CommandError::WrongState);
        }
        self.append_contact_event(ctx, contact, MetadataKind::contact_unblocked)
    }

    /// The state in which the account log has `contact`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contact_state(
        &self,
        read: &dyn Read,
        contact: &AccountId,
    ) -> Result<Option<ContactState>, ReadError> {
        self.active(&self.account_group())?.index.contact_state(read, contact)
    }

    /// Visits the opened messages of an active group in the order of its log.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn visit_messages(
        &self,
        read: &dyn Read,
        group: &GroupId,
        direction: Direction,
        visit: &mut dyn FnMut(MessageEvent, &[EntryId]) -> ControlFlow<()>,
    ) -> Result<(), CommandError> {
        let active = self.groups.get(group).ok_or(CommandError::NotActive)?;
        let own_device = active.own_device();
        let mut failed = None;
        active.messages.log.walk(read, None, direction, &mut |joined| {
            let read_row = || -> Result<Option<MessageEvent>, ReadError> {
                let row = read.get(crate::tables::MESSAGES, &group_entry_key(group, &joined.id))?;
                let Some(row) = row.as_deref().and_then(MessageRow::decode) else { return Ok(None) };
                let Some(member) = active.index.member_of(read, &row.device)? else { return Ok(None) };
                Ok(Some(MessageEvent {
                    group: *group,
                    entry: joined.id,
                    position: joined.position,
                    device: row.device,
                    member,
                    counter: row.counter,
                    payload: row.payload.to_vec(),
                    own: row.device == own_device,
                }))
            };
            match read_row() {
                Ok(Some(message)) => visit(message, joined.entry.next()),
                Ok(None) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Visits the metadata events of an active group that open, in the order of its log.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn visit_metadata(
        &self,
        read: &dyn Read,
        group: &GroupId,
        direction: Direction,
        visit: &mut dyn FnMut(MetadataEvent) -> ControlFlow<()>,
    ) -> Result<(), CommandError> {
        let active = self.groups.get(group).ok_or(CommandError::NotActive)?;
        active.metadata.log.walk(read, None, direction, &mut |joined| {
            let opened = dunlin_orbitdb::operation::decode_value(joined.entry.payload())
                .and_then(|value| metadata::open(&active.group, &value).ok());
            let Some(event) = opened else { return ControlFlow::Continue(()) };
            visit(MetadataEvent {
                group: *group,
                entry: joined.id,
                position: joined.position,
                event,
                changes: Vec::new(),
            })
        })?;
        Ok(())
    }

    fn active_for_sending(
        &self,
        group: &GroupId,
        payload: &[u8],
    ) -> Result<&super::groups::ActiveGroup, CommandError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(CommandError::TooLong { bytes: payload.len() });
        }
        self.groups.get(group).ok_or(CommandError::NotActive)
    }

    fn write_joined(&mut self, ctx: &mut Ctx<'_, '_>, group: &Group) -> Result<(), ReadError> {
        let account = self.account_group();
        let event = MetadataKind::group_joined(&self.active(&account)?.own, group.clone());
        self.append_event(ctx, &account, &event)?;
        Ok(())
    }

    fn append_contact_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
        event: impl FnOnce(&crate::group::OwnMember, AccountId) -> MetadataKind,
    ) -> Result<(), CommandError> {
        let account = self.account_group();
        let event = event(&self.active(&account)?.own, *contact);
        self.append_event(ctx, &account, &event)?;
        self.finish(ctx)?;
        Ok(())
    }
}
