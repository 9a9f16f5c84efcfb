//! The messenger as a value: folds events of the engine into rows, and answers and acts on them.
//!
//! Commands and events run inside the transaction of the engine ([`App`]), so the rows never disagree with
//! the logs. Commands check everything before they change anything.

mod conversations;
mod devices;
mod erasing;
mod fold;
mod groups;
mod owing;
mod people;
mod references;
mod sending;
mod showing;
mod waiting;
mod why;

use std::collections::VecDeque;

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{AccountId, Time};
use dunlin_wesh::engine::{App, CommandError, Ctx, Engine, Event};

use crate::error::MessengerError;
use crate::links::{ContactLink, Link};
use crate::notice::Notice;
use crate::rows::OWN_NAME;
use crate::safety::{SafetyHalf, SafetyNumber};
use crate::tables;
use crate::text::DisplayName;

pub use references::short_id;
pub use showing::{PAGE_MESSAGES_MAX, Page};

/// The messenger of one account: see the [module documentation](self).
#[derive(Debug, Default)]
pub struct Messenger {
    name: Option<DisplayName>,
    own_half: Option<SafetyHalf>,
    /// When the next confirmation is due that this device may have to give.
    owed_due: Option<Time>,
    notices: VecDeque<Notice>,
}

impl Messenger {
    /// Makes one that knows nothing until it is started.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the owner is called; none until they say.
    pub fn name(&self) -> Option<&DisplayName> {
        self.name.as_ref()
    }

    /// Changes the own name and tells it to every conversation.
    ///
    /// # Errors
    /// [`MessengerError::Name`].
    pub fn set_name(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        name: &str,
    ) -> Result<(), MessengerError> {
        let name = DisplayName::chosen(name)?;
        if self.name.as_ref() == Some(&name) {
            return Ok(());
        }
        ctx.tx.put(tables::PROFILE, OWN_NAME, name.as_str().as_bytes());
        self.name = Some(name);
        for (group, _) in conversations::all(ctx.tx)? {
            self.tell_name(ctx, engine, &group)?;
        }
        self.notify(Notice::ProfileChanged);
        Ok(())
    }

    /// The own contact link; none until requests were enabled once, which [`App::start`] does.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn own_link(&self, read: &dyn Read, engine: &Engine) -> Result<Option<Link>, ReadError> {
        let contact = engine.own_contact(read)?;
        let name = self.name.clone();
        Ok(contact.seed.map(|seed| Link::Contact(ContactLink { seed, account: contact.account, name })))
    }

    /// The number to compare with `account`.
    pub fn safety_number(&self, engine: &Engine, account: &AccountId) -> SafetyNumber {
        self.safety_number_of(engine, SafetyHalf::of(account))
    }

    fn safety_number_of(&self, engine: &Engine, half: SafetyHalf) -> SafetyNumber {
        let own = self.own_half.unwrap_or_else(|| SafetyHalf::of(&engine.account_id()));
        SafetyNumber::of_halves(own, half)
    }

    fn notify(&mut self, notice: Notice) {
        if self.notices.back() != Some(&notice) {
            self.notices.push_back(notice);
        }
    }
}

impl App for Messenger {
    type Notice = Notice;

    fn start(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        let name = ctx.tx.get(tables::PROFILE, OWN_NAME)?.and_then(|name| String::from_utf8(name).ok());
        self.name = name.and_then(|name| DisplayName::received(&name));
        self.own_half = Some(SafetyHalf::of(&engine.account_id()));
        if engine.own_contact(ctx.tx)?.seed.is_none() {
            tolerated(engine.enable_requests(ctx))?;
        }
        self.resume_owed(ctx.tx)?;
        self.follow_devices(ctx, engine)?;
        self.resume(ctx, engine)
    }

    fn handle_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        event: &Event,
    ) -> Result<(), ReadError> {
        self.fold(ctx, engine, event)
    }

    fn handle_timeout(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        self.give_owed(ctx, engine)
    }

    fn timeout(&self) -> Option<Time> {
        self.owed_due
    }

    fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }
}

/// What the engine refuses while an event is folded is not this crate's to mend; a store that cannot be read
/// ends the step.
fn tolerated<T>(result: Result<T, CommandError>) -> Result<Option<T>, ReadError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(CommandError::Read(error)) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "the engine refused");
            Ok(None)
        }
    }
}
