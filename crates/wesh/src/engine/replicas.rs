//! What a member tells the others about itself and about servers that carry the group.

use dunlin_base::{EntryId, GroupId};
use dunlin_proto::protocol as proto;

use super::{CommandError, Ctx, Engine};
use crate::group::GroupKind;
use crate::metadata::Event as MetadataKind;

/// Longest address of a server that is told to a group.
pub const SERVER_BYTES_MAX: usize = 1024;

impl Engine {
    /// Tells the contact of an active contact group under which key this account is known elsewhere: the account
    /// key, as Go devices do.
    ///
    /// # Errors
    /// [`CommandError::NotActive`] or [`CommandError::WrongKind`].
    pub fn send_alias_key(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
    ) -> Result<EntryId, CommandError> {
        let event = MetadataKind::alias_key_added(&self.active_of_kind(group, GroupKind::Contact)?.own);
        self.append_owned(ctx, group, &event)
    }

    /// Tells an active multi-member group that this member can be recognized, with neither resolver nor proof,
    /// which nobody has ever filled.
    ///
    /// # Errors
    /// [`CommandError::NotActive`] or [`CommandError::WrongKind`].
    pub fn disclose_alias_resolver(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
    ) -> Result<EntryId, CommandError> {
        let own = &self.active_of_kind(group, GroupKind::MultiMember)?.own;
        let event = MetadataKind::alias_resolver_added(own);
        self.append_owned(ctx, group, &event)
    }

    /// What a server needs to carry an active multi-member group without being able to read it
    /// (`spec/security.md` D3: no other group ever goes to one).
    ///
    /// # Errors
    /// [`CommandError::NotActive`], [`CommandError::WrongKind`], or [`CommandError::NotReplicable`].
    pub fn replica(&self, group: &GroupId) -> Result<proto::Group, CommandError> {
        let replica = self.active_of_kind(group, GroupKind::MultiMember)?.group.to_replica_proto();
        if replica.link_key_sig.is_empty() { Err(CommandError::NotReplicable) } else { Ok(replica) }
    }

    /// Tells an active multi-member group that a server carries it.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], [`CommandError::WrongKind`] or [`CommandError::TooLong`].
    pub fn note_replicating(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        authentication_url: &str,
        server: &str,
    ) -> Result<EntryId, CommandError> {
        for text in [authentication_url, server] {
            if text.len() > SERVER_BYTES_MAX {
                return Err(CommandError::TooLong { bytes: text.len(), most: SERVER_BYTES_MAX });
            }
        }
        let own = &self.active_of_kind(group, GroupKind::MultiMember)?.own;
        let event = MetadataKind::replicating(own, authentication_url.to_owned(), server.to_owned());
        self.append_owned(ctx, group, &event)
    }

    fn active_of_kind(
        &self,
        group: &GroupId,
        kind: GroupKind,
    ) -> Result<&super::groups::ActiveGroup, CommandError> {
        let active = self.active_for_owner(group)?;
        if active.group.kind() == kind { Ok(active) } else { Err(CommandError::WrongKind) }
    }

    fn append_owned(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        event: &MetadataKind,
    ) -> Result<EntryId, CommandError> {
        let entry = self.append_event(ctx, group, event)?;
        self.finish(ctx)?;
        Ok(entry)
    }
}
