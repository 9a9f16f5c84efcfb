//! Closing the account group, which its owner may do as with any other group, and opening it again.
//!
//! A closed account group is off its topics, and whatever needs it is refused. The engine keeps reading and writing
//! it: a handshake that was under way ends as it would have, and what it wrote is told once the group is open.

use dunlin_base::GroupId;
use dunlin_base::kv::ReadError;

use super::groups::{ActiveGroup, STORES};
use super::{Action, CommandError, Ctx, Engine, Event};

impl Engine {
    /// Refuses what needs the account group while its owner has closed it.
    ///
    /// # Errors
    /// [`CommandError::AccountClosed`].
    pub fn account_is_open(&self) -> Result<(), CommandError> {
        if self.account_closed { Err(CommandError::AccountClosed) } else { Ok(()) }
    }

    /// A group that its owner may look at.
    pub(super) fn opened(&self, group: &GroupId) -> Option<&ActiveGroup> {
        if self.account_closed && *group == self.account_group() {
            return None;
        }
        self.groups.get(group)
    }

    pub(super) fn close_account(&mut self) {
        let account = self.account_group();
        let Some(active) = self.groups.get_mut(&account).filter(|_| !self.account_closed) else { return };
        self.account_closed = true;
        self.speakers_changed = true;
        for (peer, device) in std::mem::take(&mut active.speakers) {
            self.events.push_back(Event::Presence { group: account, peer, device, online: false });
        }
        for kind in STORES {
            let store = active.store_mut(kind);
            store.subscribers.clear();
            let topic = store.address.to_string();
            self.topics.remove(&topic);
            self.actions.push_back(Action::Unsubscribe { topic });
        }
        let asked = self.fetches.forget(&account);
        self.actions.extend(asked.into_iter().map(|entry| Action::CancelFetch { entry }));
    }

    pub(super) fn reopen_account(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let account = self.account_group();
        self.account_closed = false;
        for kind in STORES {
            let topic = self.active(&account)?.store(kind).address.to_string();
            self.topics.insert(topic.clone(), (account, kind));
            self.actions.push_back(Action::Subscribe { topic });
            self.want_missing(ctx, &account, kind)?;
            self.greet_all(ctx, &account, kind)?;
        }
        self.finish(ctx)
    }
}
