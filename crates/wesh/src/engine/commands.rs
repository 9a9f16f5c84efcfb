//! What the owner of the account asks for.

use std::ops::{Bound, ControlFlow};

use dunlin_base::keys::KeyError;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{EntryId, GroupId};
use dunlin_log::{Entry, Position};
use zeroize::Zeroizing;

use super::groups::ActiveGroup;
use super::opening::{MessageRow, group_entry_key};
use super::{Ctx, Engine, Event, MessageEvent, MetadataEvent, StoreKind};
use crate::contact::ContactRefusal;
use crate::errors::{Code, Coded};
use crate::group::{Group, GroupError, GroupKind};
use crate::message::{self, SealError};
use crate::metadata::{self, Event as MetadataKind};
use crate::padding::Padding;
use crate::tables;

/// Largest payload of one message, in bytes: as much as a Go node carries to its members at once.
///
/// Sealed, it fills the bucket of 573,440 bytes, the last one that fits: in an entry it grows by a third, and by another
/// third in the heads that go onto the topic, whose messages end at 1 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 560_000;

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
    /// What is stored of the group cannot be read.
    #[error(
        "the stored history of this group cannot be read, so the group is closed: restart to try again, or \
         restore the directory from a copy"
    )]
    SetAside,
    /// The command needs a group of another kind.
    #[error("this cannot be done in a group of that kind")]
    WrongKind,
    /// The owner has closed the account group. Activate it.
    #[error("the account group is closed: activate it first")]
    AccountClosed,
    /// The invitation came without the signature that a server asks for.
    #[error("the group was joined with an invitation that lacks link_key_sig, so no server takes it")]
    NotReplicable,
    /// The group was joined before.
    #[error("this account is in that group already")]
    AlreadyJoined,
    /// The account is not in that group.
    #[error("this account is not in that group")]
    NotJoined,
    /// The invitation is damaged.
    #[error("the invitation is not valid: {0}")]
    Invitation(#[from] GroupError),
    /// The contact is not in a state in which this can be done: the refusal says which.
    #[error(transparent)]
    Contact(#[from] ContactRefusal),
    /// A contact that is to be asked needs a rendezvous seed.
    #[error("the contact carries no rendezvous seed, so it cannot be asked")]
    NoSeed,
    /// The key is one with which no secret can be shared.
    #[error("the key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// What is to be sent is too long to arrive.
    #[error("{bytes} bytes are too long, {most} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// The message could not be sealed.
    #[error("the message could not be sealed: {0}")]
    Seal(#[source] SealError),
    /// The message log of the group holds no such message.
    #[error("the group has no such message")]
    NoSuchMessage,
}

impl Coded for CommandError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Read(_) => vec![Code::ErrDbRead],
            Self::UnknownGroup => vec![Code::ErrInternal, Code::ErrInternal, Code::ErrInvalidInput],
            Self::NotActive => vec![Code::ErrGroupMissing, Code::ErrGroupUnknown],
            Self::SetAside => vec![Code::ErrGroupOpen, Code::ErrDbRead],
            Self::AccountClosed => vec![Code::ErrGroupMissing],
            Self::WrongKind => vec![Code::ErrOrbitDbAppend, Code::ErrGroupInvalidType],
            Self::AlreadyJoined | Self::NotJoined => vec![Code::ErrOrbitDbAppend, Code::ErrInvalidInput],
            Self::Invitation(error) => [vec![Code::ErrOrbitDbAppend], error.codes()].concat(),
            Self::Contact(refusal) => [vec![Code::ErrOrbitDbAppend], refusal.codes()].concat(),
            Self::NoSeed => vec![Code::ErrOrbitDbAppend, Code::ErrInvalidInput],
            Self::TooLong { .. } | Self::NoSuchMessage | Self::NotReplicable => vec![Code::ErrInvalidInput],
            Self::Key(_) => vec![Code::ErrDeserialization],
            Self::Seal(_) => vec![Code::ErrCryptoEncrypt],
        }
    }
}

impl Engine {
    /// Makes a group with this account as its first member, and activates it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn create_group(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<GroupId, CommandError> {
        self.account_is_open()?;
        let (group, group_key) = Group::new_multi_member(ctx.rng);
        let id = group.id();
        self.write_joined(ctx, &group)?;
        self.start_group(ctx, group)?;
        let active = self.active(&id)?;
        let event = MetadataKind::initial_member(&active.own);
        let value = metadata::seal_by_group(&active.group, &group_key, &event, Padding::Buckets, ctx.rng);
        self.append(ctx, &id, StoreKind::Metadata, &value)?;
        self.finish(ctx)?;
        Ok(id)
    }

    /// Joins the group of an invitation; it still has to be activated.
    ///
    /// # Errors
    /// [`CommandError::AlreadyJoined`], or [`CommandError::WrongKind`] unless it is a multi-member group.
    pub fn join_group(&mut self, ctx: &mut Ctx<'_, '_>, group: &Group) -> Result<(), CommandError> {
        self.account_is_open()?;
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
    /// [`CommandError::NotJoined`] or [`CommandError::WrongKind`].
    pub fn leave_group(&mut self, ctx: &mut Ctx<'_, '_>, id: &GroupId) -> Result<(), CommandError> {
        self.account_is_open()?;
        let group = self.known_group(ctx.tx, id)?.ok_or(CommandError::NotJoined)?;
        if group.kind() != GroupKind::MultiMember {
            return Err(CommandError::WrongKind);
        }
        if planted::is(Bug::LeaveNotWritten) {
            self.deactivate(id);
            return Ok(());
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
        let sealed = message::seal(ctx.tx, &active.group, &active.own, payload, Padding::Buckets, ctx.rng)
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

    /// Erases a message from this device: its text, wherever it lies, and what would open it again. Its sealed form
    /// stays in the log, which is for all members to have, and goes on to those who lack it. The group need not be
    /// active.
    ///
    /// # Errors
    /// [`CommandError::SetAside`] or [`CommandError::NoSuchMessage`], for one that is not open too.
    pub fn erase_message(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), CommandError> {
        if self.set_aside.contains(group) {
            return Err(CommandError::SetAside);
        }
        let key = group_entry_key(group, entry);
        for table in [tables::MESSAGES, tables::REPEATS] {
            let Some(row) = ctx.tx.get(table, &key)?.map(Zeroizing::new) else { continue };
            let row = MessageRow::decode(&row).ok_or(CommandError::NoSuchMessage)?;
            message::erase_key(ctx.tx, group, &row.device, row.counter)?;
            ctx.tx.delete(table, &key);
            ctx.tx.put(tables::ERASED, &key, &[]);
            erase_repeats(ctx, group, &row)?;
            self.events.push_back(Event::Erased { group: *group, entry: *entry });
            return Ok(());
        }
        Err(CommandError::NoSuchMessage)
    }

    /// Visits the opened messages of an active group in the order of its log, from `start` on, or from the end
    /// at which `direction` begins.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn visit_messages(
        &self,
        read: &dyn Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
        visit: &mut dyn FnMut(MessageEvent) -> ControlFlow<()>,
    ) -> Result<(), CommandError> {
        let active = self.opened(group).ok_or(CommandError::NotActive)?;
        let mut failed = None;
        active.messages.log.walk(read, position_at(start), direction, &mut |position, entry| {
            if start == Bound::Excluded(position) {
                return ControlFlow::Continue(());
            }
            match self.shown(read, active, position, &entry) {
                Ok(Some(message)) => visit(message),
                Ok(None) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// One opened message of an active group; `None` when there is no such message, or it waits.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn message(
        &self,
        read: &dyn Read,
        group: &GroupId,
        id: &EntryId,
    ) -> Result<Option<MessageEvent>, CommandError> {
        let active = self.opened(group).ok_or(CommandError::NotActive)?;
        let Some(position) = active.messages.log.position(read, *id)? else { return Ok(None) };
        let Some(entry) = active.messages.log.entry(read, *id)? else { return Ok(None) };
        Ok(self.shown(read, active, position, &entry)?)
    }

    fn shown(
        &self,
        read: &dyn Read,
        active: &ActiveGroup,
        position: Position,
        entry: &Entry,
    ) -> Result<Option<MessageEvent>, ReadError> {
        let group = active.group.id();
        let row = read.get(tables::MESSAGES, &group_entry_key(&group, &position.id))?;
        let Some(row) = row.as_deref().and_then(MessageRow::decode) else { return Ok(None) };
        let Some(member) = active.index.member_of(read, &row.device)? else { return Ok(None) };
        Ok(Some(MessageEvent {
            group,
            entry: position.id,
            position,
            device: row.device,
            member,
            counter: row.counter,
            signature: active.signature_in(entry),
            parents: entry.next().to_vec(),
            payload: row.payload.to_vec(),
            own: row.device == active.own_device(),
        }))
    }

    /// Visits the metadata events of an active group that open, like [`Self::visit_messages`].
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn visit_metadata(
        &self,
        read: &dyn Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
        visit: &mut dyn FnMut(MetadataEvent) -> ControlFlow<()>,
    ) -> Result<(), CommandError> {
        let active = self.opened(group).ok_or(CommandError::NotActive)?;
        let mut failed = None;
        active.metadata.log.walk(read, position_at(start), direction, &mut |position, entry| {
            if start == Bound::Excluded(position) {
                return ControlFlow::Continue(());
            }
            let opened = dunlin_orbitdb::operation::decode_value(entry.payload())
                .and_then(|value| metadata::open(&active.group, &value).ok());
            let Some(event) = opened else { return ControlFlow::Continue(()) };
            match active.index.counts(read, &position, &event) {
                Ok(true) => {}
                Ok(false) => return ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            visit(MetadataEvent { group: *group, entry: position.id, position, event, changes: Vec::new() })
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn active_for_sending(&self, group: &GroupId, payload: &[u8]) -> Result<&ActiveGroup, CommandError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(CommandError::TooLong { bytes: payload.len(), most: PAYLOAD_BYTES_MAX });
        }
        self.active_for_owner(group)
    }

    /// The group, or why nothing can be done in it.
    pub(super) fn active_for_owner(&self, group: &GroupId) -> Result<&ActiveGroup, CommandError> {
        match self.opened(group) {
            Some(active) => Ok(active),
            None if self.set_aside.contains(group) => Err(CommandError::SetAside),
            None => Err(CommandError::NotActive),
        }
    }

    fn write_joined(&mut self, ctx: &mut Ctx<'_, '_>, group: &Group) -> Result<(), ReadError> {
        let account = self.account_group();
        let event = MetadataKind::group_joined(&self.active(&account)?.own, group.clone());
        self.append_event(ctx, &account, &event)?;
        Ok(())
    }
}

/// Erases what others sent again of an erased text, and was kept back.
fn erase_repeats(ctx: &mut Ctx<'_, '_>, group: &GroupId, erased: &MessageRow<'_>) -> Result<(), ReadError> {
    let range = KeyRange::prefix(group.as_bytes());
    for (key, row) in ctx.tx.collect(tables::REPEATS, &range, Direction::Ascending, usize::MAX)? {
        let row = Zeroizing::new(row);
        let Some(repeat) = MessageRow::decode(&row) else { continue };
        if repeat.device != erased.device || repeat.payload != erased.payload {
            continue;
        }
        if let Some(entry) = key.get(32..).and_then(EntryId::from_slice) {
            message::withdraw_claim(ctx.tx, group, &repeat.device, repeat.counter, &entry)?;
        }
        ctx.tx.delete(tables::REPEATS, &key);
        ctx.tx.put(tables::ERASED, &key, &[]);
    }
    Ok(())
}

/// The position where a walk begins, whether it is part of it or not.
pub(super) fn position_at(start: Bound<Position>) -> Option<Position> {
    match start {
        Bound::Included(position) | Bound::Excluded(position) => Some(position),
        Bound::Unbounded => None,
    }
}
