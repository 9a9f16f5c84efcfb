//! Contacts and requests: asking, answering, blocking, and what the account log says about them.

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{AccountId, DeviceId, GroupId, Time};
use dunlin_wesh::contact::{Contact as Introduced, ContactState as LogState};
use dunlin_wesh::engine::{Ctx, Engine};

use super::conversations::others_online;
use super::{Messenger, conversations};
use crate::app_message::{introduced_as, introduction};
use crate::error::{MessengerError, Named};
use crate::links::ContactLink;
use crate::notice::Notice;
use crate::rows::{ContactRow, NameRow, StoredState, group_device, put_row, read_row};
use crate::safety::SafetyHalf;
use crate::tables;
use crate::text::DisplayName;
use crate::views::{Contact, ContactState, short};

/// All people that are known, in the order of their ids.
pub(super) fn all(read: &dyn Read) -> Result<Vec<(AccountId, ContactRow)>, ReadError> {
    let rows = read.collect(tables::CONTACTS, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
    let decode = |(key, row): &(Vec<u8>, Vec<u8>)| {
        Some((AccountId::from_stored(key)?, <ContactRow as prost::Message>::decode(&**row).ok()?))
    };
    Ok(rows.iter().filter_map(decode).collect())
}

/// One person.
pub(super) fn row(read: &dyn Read, account: &AccountId) -> Result<Option<ContactRow>, ReadError> {
    read_row(read, tables::CONTACTS, account.as_bytes())
}

fn put(tx: &mut Tx<'_>, account: &AccountId, row: &ContactRow) {
    put_row(tx, tables::CONTACTS, account.as_bytes(), row);
}

/// How a person is called.
pub(super) fn name_of(account: &AccountId, row: &ContactRow) -> String {
    if row.name.is_empty() { short(account) } else { row.name.clone() }
}

fn shown_state(state: StoredState) -> Option<ContactState> {
    match state {
        StoredState::Gone => None,
        StoredState::Asks => Some(ContactState::Asks),
        StoredState::Kept => Some(ContactState::Kept),
        StoredState::Sent => Some(ContactState::Sent),
        StoredState::Added => Some(ContactState::Added),
        StoredState::Blocked => Some(ContactState::Blocked),
    }
}

fn time(millis: u64) -> Option<Time> {
    (millis > 0).then(|| Time::from_millis(millis))
}

impl Messenger {
    /// Asks the account of a link to become a contact. Somebody who asked before is accepted by that.
    ///
    /// # Errors
    /// [`MessengerError::OwnLink`], [`MessengerError::AlreadyKnown`] and [`MessengerError::Blocked`].
    pub fn add_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        link: &ContactLink,
    ) -> Result<(), MessengerError> {
        let account = link.account;
        if account == engine.account_id() {
            return Err(MessengerError::OwnLink);
        }
        if let Some(known) = row(ctx.tx, &account)? {
            let name = name_of(&account, &known);
            match known.state() {
                StoredState::Added => {
                    return Err(MessengerError::AlreadyKnown(format!("{name} is a contact already")));
                }
                StoredState::Kept | StoredState::Sent => {
                    return Err(MessengerError::AlreadyKnown(format!("{name} was asked already")));
                }
                StoredState::Blocked => return Err(MessengerError::Blocked(name)),
                StoredState::Asks | StoredState::Gone => {}
            }
        }
        let own = self.name.as_ref().map(introduction).unwrap_or_default();
        engine.request_contact(ctx, &link.to_contact(), &own)?;
        self.introduce(ctx, &account, link.name.as_ref())?;
        self.follow_contact(ctx, engine, &account)?;
        Ok(())
    }

    /// Accepts the request of `account`.
    ///
    /// # Errors
    /// [`MessengerError::NoRequest`].
    pub fn accept(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        account: &AccountId,
    ) -> Result<(), MessengerError> {
        self.expect_request(ctx.tx, engine, account)?;
        engine.accept_contact(ctx, account)?;
        self.note_agreed(ctx, engine, account)?;
        Ok(())
    }

    /// Refuses the request of `account`. The other side is not told.
    ///
    /// # Errors
    /// [`MessengerError::NoRequest`].
    pub fn refuse(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        account: &AccountId,
    ) -> Result<(), MessengerError> {
        self.expect_request(ctx.tx, engine, account)?;
        engine.discard_contact(ctx, account)?;
        self.follow_contact(ctx, engine, account)?;
        Ok(())
    }

    /// Blocks `account`: its requests are dropped, and what it sends is neither confirmed nor counted.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`], or [`MessengerError::Blocked`] when it is blocked already.
    pub fn block(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        account: &AccountId,
    ) -> Result<(), MessengerError> {
        let known = expected(ctx.tx, account)?;
        if known.state() == StoredState::Blocked {
            return Err(MessengerError::Blocked(name_of(account, &known)));
        }
        engine.block_contact(ctx, account)?;
        self.follow_contact(ctx, engine, account)?;
        Ok(())
    }

    /// Takes a block back. They are no contact then: somebody has to ask again.
    ///
    /// # Errors
    /// [`MessengerError::NotBlocked`].
    pub fn unblock(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        account: &AccountId,
    ) -> Result<(), MessengerError> {
        let known = expected(ctx.tx, account)?;
        if known.state() != StoredState::Blocked {
            return Err(MessengerError::NotBlocked(name_of(account, &known)));
        }
        engine.unblock_contact(ctx, account)?;
        self.follow_contact(ctx, engine, account)?;
        Ok(())
    }

    /// Contacts and requests, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contacts(&self, read: &dyn Read, engine: &Engine) -> Result<Vec<Contact>, ReadError> {
        let mut contacts = Vec::new();
        for (account, row) in all(read)? {
            contacts.extend(self.contact_of(read, engine, &account, &row)?);
        }
        contacts.sort_by_cached_key(|contact| (contact.name.to_lowercase(), contact.account));
        Ok(contacts)
    }

    /// One contact or request; `None` when there is neither.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contact(
        &self,
        read: &dyn Read,
        engine: &Engine,
        account: &AccountId,
    ) -> Result<Option<Contact>, ReadError> {
        match row(read, account)? {
            Some(row) => self.contact_of(read, engine, account, &row),
            None => Ok(None),
        }
    }

    fn contact_of(
        &self,
        read: &dyn Read,
        engine: &Engine,
        account: &AccountId,
        row: &ContactRow,
    ) -> Result<Option<Contact>, ReadError> {
        let Some(state) = shown_state(row.state()) else { return Ok(None) };
        let half = SafetyHalf::from_digits(&row.safety_half).unwrap_or_else(|| SafetyHalf::of(account));
        let group = engine.contact_group(account).ok();
        let conversation = match group {
            Some(group) => conversations::row(read, &group)?.map(|_| group),
            None => None,
        };
        let online = match &conversation {
            Some(group) => !others_online(read, engine, group)?.is_empty(),
            None => false,
        };
        Ok(Some(Contact {
            account: *account,
            name: name_of(account, row),
            state,
            safety_number: self.safety_number_of(engine, half),
            since: Time::from_millis(row.since_ms),
            sent: time(row.sent_ms),
            added: time(row.added_ms),
            conversation,
            online,
        }))
    }

    /// Takes a request that came in.
    pub(super) fn take_request(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        contact: &Introduced,
    ) -> Result<(), ReadError> {
        self.introduce(ctx, &contact.account, introduced_as(&contact.metadata).as_ref())?;
        self.follow_contact(ctx, engine, &contact.account)?;
        // The inbox has a limit: a new request may have pushed an old one out.
        for (account, row) in all(ctx.tx)? {
            if row.state() == StoredState::Asks {
                self.follow_contact(ctx, engine, &account)?;
            }
        }
        Ok(())
    }

    /// Notes a name under which somebody is introduced. What they say themselves goes before it.
    pub(super) fn introduce(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        account: &AccountId,
        name: Option<&DisplayName>,
    ) -> Result<(), ReadError> {
        let found = row(ctx.tx, account)?;
        let mut introduced = found.unwrap_or_else(|| ContactRow {
            safety_half: SafetyHalf::of(account).digits().to_vec(),
            ..ContactRow::default()
        });
        if let Some(name) = name.filter(|_| introduced.name_said.is_none()) {
            name.as_str().clone_into(&mut introduced.name);
        }
        put(ctx.tx, account, &introduced);
        Ok(())
    }

    /// Calls a contact as a device of theirs does in the conversation with them.
    pub(super) fn apply_device_name(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        device: &DeviceId,
        account: &AccountId,
    ) -> Result<(), ReadError> {
        let said: Option<NameRow> = read_row(tx, tables::NAMES, &group_device(group, device))?;
        let (Some(NameRow { name, said: Some(said) }), Some(mut named)) = (said, row(tx, account)?) else {
            return Ok(());
        };
        if said.replaces(named.name_said.as_ref()) {
            named.name = name;
            named.name_said = Some(said);
            put(tx, account, &named);
            self.notify(Notice::ContactChanged(*account));
        }
        Ok(())
    }

    /// Notes that both sides agreed.
    pub(super) fn note_agreed(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        account: &AccountId,
    ) -> Result<(), ReadError> {
        if let Some(mut agreed) = row(ctx.tx, account)?.filter(|row| !row.agreed) {
            agreed.agreed = true;
            put(ctx.tx, account, &agreed);
        }
        self.follow_contact(ctx, engine, account)
    }

    /// Brings the row of `account` in line with the account log and the inbox. The conversation is open from
    /// the request on, so that what is written before the answer is kept; it is not used while blocked.
    pub(super) fn follow_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        account: &AccountId,
    ) -> Result<(), ReadError> {
        let found = row(ctx.tx, account)?;
        let before = found.as_ref().map(|row| row.state()).unwrap_or_default();
        let agreed = found.as_ref().is_some_and(|row| row.agreed);
        let state = state_now(ctx.tx, engine, account, agreed)?;
        if state != before {
            self.introduce(ctx, account, None)?;
            if let Some(mut moved) = row(ctx.tx, account)? {
                note_move(&mut moved, state, ctx.now);
                put(ctx.tx, account, &moved);
            }
            self.notify(match state {
                StoredState::Gone => Notice::ContactRemoved(*account),
                _ => Notice::ContactChanged(*account),
            });
        }
        match state {
            StoredState::Kept | StoredState::Sent | StoredState::Added => match engine.contact_group(account)
            {
                Ok(group) => self.open_conversation(ctx, engine, &group, Some(account)),
                Err(_) => Ok(()),
            },
            StoredState::Gone | StoredState::Asks | StoredState::Blocked => {
                if let Ok(group) = engine.contact_group(account) {
                    engine.deactivate(&group);
                }
                Ok(())
            }
        }
    }

    fn expect_request(
        &self,
        read: &dyn Read,
        engine: &Engine,
        account: &AccountId,
    ) -> Result<(), MessengerError> {
        let known = expected(read, account)?;
        match state_now(read, engine, account, known.agreed)? {
            StoredState::Asks => Ok(()),
            _ => Err(MessengerError::NoRequest(name_of(account, &known))),
        }
    }
}

fn expected(read: &dyn Read, account: &AccountId) -> Result<ContactRow, MessengerError> {
    let unknown = || MessengerError::Unknown { what: Named::Contact, reference: account.to_string() };
    row(read, account)?.ok_or_else(unknown)
}

/// What the account log and the inbox say.
fn state_now(
    read: &dyn Read,
    engine: &Engine,
    account: &AccountId,
    agreed: bool,
) -> Result<StoredState, ReadError> {
    Ok(match engine.contact_state(read, account)? {
        Some(LogState::Blocked) => StoredState::Blocked,
        Some(LogState::Added) if agreed => StoredState::Added,
        Some(LogState::Added) => StoredState::Sent,
        Some(LogState::ToRequest) => StoredState::Kept,
        Some(LogState::Received) => StoredState::Asks,
        Some(LogState::Removed | LogState::Discarded) | None => {
            let waits = engine.requests(read)?.iter().any(|request| request.contact.account == *account);
            if waits { StoredState::Asks } else { StoredState::Gone }
        }
    })
}

/// Notes the moment of a change. A new round of asking forgets the dates of the one before.
fn note_move(row: &mut ContactRow, state: StoredState, now: Time) {
    let now_ms = now.as_millis();
    row.state = state.into();
    match state {
        StoredState::Asks | StoredState::Kept => {
            (row.since_ms, row.sent_ms, row.added_ms) = (now_ms, 0, 0);
        }
        StoredState::Sent => row.sent_ms = now_ms,
        StoredState::Added => row.added_ms = now_ms,
        StoredState::Gone => row.agreed = false,
        StoredState::Blocked => {}
    }
    if row.since_ms == 0 {
        row.since_ms = now_ms;
    }
}
