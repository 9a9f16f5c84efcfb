//! What something waits for, in one sentence.

use dunlin_base::kv::Read;
use dunlin_base::{AccountId, EntryId, GroupId, MemberId, Time};
use dunlin_wesh::engine::Engine;

use super::conversations::{expected, others_online};
use super::erasing::is_erased;
use super::{Messenger, references, waiting};
use crate::clock::Zone;
use crate::error::{MessengerError, Named};
use crate::rows::{ClosedRow, StoredCause, group_entry, read_row};
use crate::tables;
use crate::views::{Contact, ContactState, Delivery, Message, MessageState};

/// Members that are named when a message waits for them; more are counted.
const MISSING_NAMED_MAX: usize = 3;

/// Who is at the other end, and in reach.
struct Others {
    /// The contact; none for a group.
    contact: Option<(String, ContactState)>,
    /// The own account as a member.
    own: Option<MemberId>,
    /// Whether any device of theirs is known.
    known: bool,
    online: usize,
    seen: Time,
}

/// When the sentence is read, and where.
#[derive(Clone, Copy)]
pub(super) struct Reader {
    pub now: Time,
    pub zone: Zone,
}

impl Reader {
    fn at(self, time: Time) -> String {
        self.zone.at(time, self.now)
    }
}

impl Messenger {
    /// Says what a message waits for, or what became of it.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`].
    pub fn why(
        &self,
        read: &dyn Read,
        engine: &Engine,
        entry: &EntryId,
        now: Time,
        zone: Zone,
    ) -> Result<String, MessengerError> {
        let reader = Reader { now, zone };
        if let Some(message) = self.message(read, engine, entry)? {
            let Some(delivery) = &message.delivery else { return Ok(incoming(&message, reader)) };
            let others = self.others(read, engine, &message.group)?;
            let missing = self.missing(read, engine, &message.group, delivery)?;
            return Ok(outgoing(&message, delivery, &others, &missing, reader));
        }
        if is_erased(read, entry)? {
            return Ok("It was erased from this device.".to_owned());
        }
        let closed = match references::closed_in(read, entry)? {
            Some(group) => read_row::<ClosedRow>(read, tables::CLOSED, &group_entry(&group, entry))?,
            None => None,
        };
        let unknown = || MessengerError::Unknown { what: Named::Message, reference: entry.to_string() };
        closed.map(|row| closed_one(&row, reader)).ok_or_else(unknown)
    }

    /// Says where a contact or a request stands, and what it waits for.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`].
    pub fn why_contact(
        &self,
        read: &dyn Read,
        engine: &Engine,
        account: &AccountId,
        now: Time,
        zone: Zone,
    ) -> Result<String, MessengerError> {
        let unknown = || MessengerError::Unknown { what: Named::Contact, reference: account.to_string() };
        let contact = self.contact(read, engine, account)?.ok_or_else(unknown)?;
        Ok(request(&contact, Reader { now, zone }))
    }

    /// Says what the closed messages of a conversation wait for.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`].
    pub fn why_conversation(&self, read: &dyn Read, group: &GroupId) -> Result<String, MessengerError> {
        expected(read, group)?;
        Ok(closed_many(&waiting::causes(read, group)?))
    }

    fn others(&self, read: &dyn Read, engine: &Engine, group: &GroupId) -> Result<Others, MessengerError> {
        let row = expected(read, group)?;
        let contact = self.contact_in(read, engine, &row)?;
        let members = engine.members(read, group)?;
        Ok(Others {
            contact: contact.map(|contact| (contact.name, contact.state)),
            own: row.own_member(),
            known: members.iter().any(|member| row.own_member() != Some(*member)),
            online: others_online(read, engine, group)?.len(),
            seen: Time::from_millis(row.seen_ms),
        })
    }

    /// Names of the members who have not confirmed a message.
    fn missing(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
        delivery: &Delivery,
    ) -> Result<Vec<String>, MessengerError> {
        let confirmed = |id| delivery.receipts.iter().any(|receipt| receipt.member == id);
        let members = self.members(read, engine, group)?.into_iter();
        let missing = members.filter(|member| !member.own && !confirmed(member.id));
        Ok(missing
            .map(|member| if member.name.is_empty() { crate::views::short(member.id) } else { member.name })
            .collect())
    }
}

fn incoming(message: &Message, reader: Reader) -> String {
    format!("It came from {} and is here since it arrived {}.", message.sender_name, reader.at(message.kept))
}

fn outgoing(
    message: &Message,
    delivery: &Delivery,
    others: &Others,
    missing: &[String],
    reader: Reader,
) -> String {
    match (delivery.state(), &others.contact) {
        (MessageState::Kept, Some((name, state))) => kept_for_contact(message, name, *state, others, reader),
        (MessageState::Kept, None) => kept_for_group(message, delivery, others, reader),
        (MessageState::Sent, _) if delivery.handed_to.is_some() && delivery.handed_to == others.own => {
            format!(
                "Another of your devices wrote it, and it is here since {}. Whether it was handed on is known \
                 there; nobody has confirmed it yet.",
                reader.at(message.kept)
            )
        }
        (MessageState::Sent, contact) => {
            let at = reader.at(delivery.handed.unwrap_or(message.kept));
            match contact {
                Some((name, _)) => {
                    format!("It was handed to a device of {name} {at}; that device has not confirmed it yet.")
                }
                None => format!(
                    "It was handed to a device of the group {at}; none of the {} has confirmed it yet.",
                    other_members(delivery.recipients)
                ),
            }
        }
        (MessageState::Received, Some((name, _))) => {
            let at = delivery.receipts.first().map(|receipt| reader.at(receipt.at)).unwrap_or_default();
            format!("{name} received it {at}.")
        }
        (MessageState::Received, None) => received_by_group(delivery, missing, reader),
    }
}

fn kept_for_contact(
    message: &Message,
    name: &str,
    state: ContactState,
    others: &Others,
    reader: Reader,
) -> String {
    let written = reader.at(message.kept);
    match state {
        ContactState::Blocked => format!("It is kept here: {name} is blocked."),
        ContactState::Kept => format!("It is kept here: {name} has not got the contact request yet."),
        ContactState::Sent if !others.known => {
            format!("It is kept here: {name} has not accepted the contact request yet.")
        }
        _ if others.online > 0 => {
            format!("It is kept here: a device of {name} is in reach and is about to be given it.")
        }
        _ if others.seen > message.kept => format!(
            "It is kept here: a device of {name} was in reach {} and did not take it; it is offered again as \
             soon as one is.",
            reader.at(others.seen)
        ),
        _ => format!(
            "It is kept here: none of {name}'s devices has been in reach since it was written {written}."
        ),
    }
}

fn kept_for_group(message: &Message, delivery: &Delivery, others: &Others, reader: Reader) -> String {
    let written = reader.at(message.kept);
    if !others.known {
        return "It is kept here: nobody else is known to be in the group yet.".to_owned();
    }
    if others.online > 0 {
        return "It is kept here: a device of another member is in reach and is about to be given it."
            .to_owned();
    }
    if others.seen > message.kept {
        return format!(
            "It is kept here: a device of another member was in reach {} and did not take it; it is offered \
             again as soon as one is.",
            reader.at(others.seen)
        );
    }
    let members = other_members(delivery.recipients);
    format!("It is kept here: no device of the {members} has been in reach since it was written {written}.")
}

fn received_by_group(delivery: &Delivery, missing: &[String], reader: Reader) -> String {
    let count = delivery.receipts.len();
    let latest = delivery.receipts.last().map(|receipt| (receipt.name.as_str(), reader.at(receipt.at)));
    let (name, at) = latest.unwrap_or_default();
    match missing {
        [] if count == 1 => format!("{name} received it {at}."),
        [] => format!("All {} received it, {name} as the last {at}.", other_members(count)),
        missing => {
            let total = count.saturating_add(missing.len());
            let waits = if missing.len() > MISSING_NAMED_MAX {
                format!("{} others", missing.len())
            } else {
                missing.join(", ")
            };
            format!(
                "{count} of {} received it, {name} as the last {at}; it waits for {waits}.",
                other_members(total)
            )
        }
    }
}

fn other_members(count: usize) -> String {
    if count == 1 { "1 other member".to_owned() } else { format!("{count} other members") }
}

fn request(contact: &Contact, reader: Reader) -> String {
    let name = &contact.name;
    match contact.state {
        ContactState::Asks => {
            format!("{name} asked {} to become a contact: accept or refuse.", reader.at(contact.since))
        }
        ContactState::Kept => format!(
            "The request to {name} is kept here: no device of theirs has been reached since it was made {}.",
            reader.at(contact.since)
        ),
        ContactState::Sent => format!(
            "{name} got the request {} and has not answered it yet.",
            reader.at(contact.sent.unwrap_or(contact.since))
        ),
        ContactState::Added => {
            format!(
                "{name} is a contact since {}.",
                reader.at(contact.added.unwrap_or(contact.since)).trim_start_matches("at ")
            )
        }
        ContactState::Blocked => {
            format!("{name} is blocked: what they send is neither confirmed nor counted.")
        }
    }
}

pub(super) fn closed_one(row: &ClosedRow, reader: Reader) -> String {
    let here =
        format!("It is here since it arrived {} but closed", reader.at(Time::from_millis(row.since_ms)));
    match row.cause() {
        StoredCause::KeyNotReceived => format!("{here}: the key of the sender's device has not arrived yet."),
        StoredCause::DeviceUnknown => {
            format!("{here}: the sender's device has not announced itself in this conversation yet.")
        }
        StoredCause::BeyondWindow => format!("{here}: too many earlier messages of its sender are missing."),
        StoredCause::SentBeforeKey => {
            "It stays closed for ever: it was sent before its sender gave this account a key.".to_owned()
        }
        StoredCause::Repeat => {
            "It is a copy of what its sender wrote elsewhere in this conversation, sent again by somebody else, \
             and is not shown."
                .to_owned()
        }
        StoredCause::OutOfPlace => {
            "It is something that its sender signed for another place, put here by somebody else, and is not shown."
                .to_owned()
        }
        StoredCause::Unreadable => "It cannot be opened by anybody: it is damaged or forged.".to_owned(),
    }
}

/// One part for each cause, in the order of hope.
fn closed_many(causes: &[StoredCause]) -> String {
    let count = |cause: StoredCause| causes.iter().filter(|found| **found == cause).count();
    let parts: Vec<String> = [
        (StoredCause::KeyNotReceived, "for want of the key of the sender's device"),
        (StoredCause::DeviceUnknown, "until the sender's device announces itself"),
        (StoredCause::BeyondWindow, "for want of earlier messages of the sender"),
        (StoredCause::SentBeforeKey, "for ever, since the sender had not given this account a key"),
        (StoredCause::Repeat, "for ever, being copies of other messages"),
        (StoredCause::OutOfPlace, "for ever, being moved here from another place by somebody"),
        (StoredCause::Unreadable, "for ever, being damaged or forged"),
    ]
    .into_iter()
    .filter_map(|(cause, words)| match count(cause) {
        0 => None,
        count => Some(format!("{count} {words}")),
    })
    .collect();
    match parts.as_slice() {
        [] => "Every message that is here is open.".to_owned(),
        parts => format!("Messages are here but closed: {}.", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests;
