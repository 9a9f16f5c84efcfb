//! Contacts: asking, answering, blocking.

use dunlin_base::AccountId;
use dunlin_base::kv::{Read, ReadError};
use dunlin_base::planted::{self, Bug};

use super::{CommandError, Ctx, Engine};
use crate::contact::{Contact, ContactAction, ContactState, ContactStep, METADATA_BYTES_MAX, next_step};
use crate::group::{Group, OwnMember};
use crate::metadata::Event as MetadataKind;

impl Engine {
    /// Asks somebody to become a contact; `own_metadata` introduces this account to them. Somebody who asked
    /// before is accepted by that.
    ///
    /// # Errors
    /// [`CommandError::Contact`] for oneself, for somebody added before, and for somebody blocked, who stays
    /// blocked (`spec/security.md` Q6); [`CommandError::NoSeed`] when there is no way to ask;
    /// [`CommandError::TooLong`] for an introduction that the other side would drop (Q4).
    pub fn request_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &Contact,
        own_metadata: &[u8],
    ) -> Result<(), CommandError> {
        self.account_is_open()?;
        let account = contact.account;
        if contact.seed.is_none() {
            return Err(CommandError::NoSeed);
        }
        if own_metadata.len() > METADATA_BYTES_MAX {
            return Err(CommandError::TooLong { bytes: own_metadata.len(), most: METADATA_BYTES_MAX });
        }
        Group::contact(&self.keys, &account)?;
        if self.has_request(ctx.tx, &account)? {
            return self.accept_contact(ctx, &account);
        }
        let step = self.next_contact_step(ctx, &account, ContactAction::Enqueue)?;
        let own = &self.active(&self.account_group())?.own;
        let event = match step {
            ContactStep::OutgoingEnqueued => {
                MetadataKind::contact_enqueued(own, contact.clone(), own_metadata)
            }
            step => contact_event(own, step, account),
        };
        self.forget_refusal(ctx, &account)?;
        self.write_contact_event(ctx, &event)
    }

    /// Accepts the request of `contact`, and activates the group shared with it.
    ///
    /// # Errors
    /// [`CommandError::Contact`] when there is no such request.
    pub fn accept_contact(&mut self, ctx: &mut Ctx<'_, '_>, contact: &AccountId) -> Result<(), CommandError> {
        self.account_is_open()?;
        let group = self.contact_group(contact)?;
        if self.set_aside.contains(&group) {
            return Err(CommandError::SetAside);
        }
        let is_new = match self.next_contact_step(ctx, contact, ContactAction::Accept) {
            Ok(_) => false,
            Err(refusal) if !self.has_request(ctx.tx, contact)? => return Err(refusal),
            Err(_) => {
                self.next_contact_step(ctx, contact, ContactAction::Receive)?;
                true
            }
        };
        if let Some(request) = self.take_request(ctx, contact)?.filter(|_| is_new) {
            let own = &self.active(&self.account_group())?.own;
            let received = MetadataKind::contact_received(own, request.contact);
            self.append_event(ctx, &self.account_group(), &received)?;
        }
        self.act_on_contact(ctx, contact, ContactAction::Accept)?;
        self.activate(ctx, &group)
    }

    /// Refuses the request of `contact`. The other side is not told, and nothing is written for ever.
    ///
    /// # Errors
    /// [`CommandError::Contact`] when there is no such request.
    pub fn discard_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<(), CommandError> {
        self.account_is_open()?;
        if self.refuse_request(ctx, contact)? {
            return Ok(());
        }
        self.act_on_contact(ctx, contact, ContactAction::Discard)
    }

    /// Blocks `contact`: its requests are dropped until it is unblocked.
    ///
    /// # Errors
    /// [`CommandError::Contact`] for oneself, and when it is blocked already.
    pub fn block_contact(&mut self, ctx: &mut Ctx<'_, '_>, contact: &AccountId) -> Result<(), CommandError> {
        self.account_is_open()?;
        if planted::is(Bug::BlockNotWritten) {
            return Ok(());
        }
        self.act_on_contact(ctx, contact, ContactAction::Block)?;
        self.take_request(ctx, contact)?;
        Ok(())
    }

    /// Takes a block back.
    ///
    /// # Errors
    /// [`CommandError::Contact`] unless it is blocked.
    pub fn unblock_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<(), CommandError> {
        self.account_is_open()?;
        self.act_on_contact(ctx, contact, ContactAction::Unblock)?;
        Ok(self.forget_refusal(ctx, contact)?)
    }

    /// The state in which the account log has `contact`; `None` when it does not mention it.
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

    /// What `action` would write; see [`next_step`].
    pub(super) fn next_contact_step(
        &self,
        ctx: &Ctx<'_, '_>,
        contact: &AccountId,
        action: ContactAction,
    ) -> Result<ContactStep, CommandError> {
        let state = self.contact_state(ctx.tx, contact)?;
        Ok(next_step(&self.account_id(), contact, state, action)?)
    }

    /// Writes what `action` comes to, for the actions that need no more than the account.
    pub(super) fn act_on_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
        action: ContactAction,
    ) -> Result<(), CommandError> {
        let step = self.next_contact_step(ctx, contact, action)?;
        let event = contact_event(&self.active(&self.account_group())?.own, step, *contact);
        self.write_contact_event(ctx, &event)
    }

    fn write_contact_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        event: &MetadataKind,
    ) -> Result<(), CommandError> {
        let account = self.account_group();
        self.append_event(ctx, &account, event)?;
        self.finish(ctx)?;
        Ok(())
    }
}

/// The event of a step that needs no more than the account.
fn contact_event(own: &OwnMember, step: ContactStep, account: AccountId) -> MetadataKind {
    match step {
        ContactStep::OutgoingEnqueued | ContactStep::OutgoingSent => MetadataKind::contact_sent(own, account),
        ContactStep::IncomingReceived => {
            let contact = Contact { account, seed: None, metadata: Vec::new() };
            MetadataKind::contact_received(own, contact)
        }
        ContactStep::IncomingDiscarded => MetadataKind::contact_discarded(own, account),
        ContactStep::IncomingAccepted => MetadataKind::contact_accepted(own, account),
        ContactStep::Blocked => MetadataKind::contact_blocked(own, account),
        ContactStep::Unblocked => MetadataKind::contact_unblocked(own, account),
    }
}
