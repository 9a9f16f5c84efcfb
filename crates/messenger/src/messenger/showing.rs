//! Conversations and their messages, as a screen shows them.

use std::collections::BTreeMap;

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::{DeviceId, EntryId, GroupId, MemberId, Time};
use dunlin_wesh::engine::Engine;
use dunlin_wesh::engine::Position;
use prost::Message as _;

use super::conversations::{expected, others_online};
use super::{Messenger, conversations, groups, people, waiting, why};
use crate::clock::Zone;
use crate::error::MessengerError;
use crate::rows::{
    ClosedRow, ConversationRow, MessageRow, Place, ReceiptRow, StoredCause, StoredKind, StoredState,
    group_entry, read_row,
};
use crate::tables;
use crate::views::{Contact, Conversation, Delivery, Gap, Message, MessageContent, Receipt, Status, short};

/// Messages of one page at the most.
pub const PAGE_MESSAGES_MAX: usize = 1000;

/// Which messages of a conversation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// Only those that stand before this one: the last of them.
    pub before: Option<EntryId>,
    /// Only those that stand after this one: the first of them, unless `before` is set.
    pub after: Option<EntryId>,
    /// How many at the most; more than [`PAGE_MESSAGES_MAX`] are never given.
    pub limit: usize,
}

impl Messenger {
    /// All conversations, the one with the latest message first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn conversations(&self, read: &dyn Read, engine: &Engine) -> Result<Vec<Conversation>, ReadError> {
        let rows = conversations::all(read)?.into_iter();
        let mut shown: Vec<_> = rows
            .map(|(group, row)| self.conversation_of(read, engine, &group, row))
            .collect::<Result<_, _>>()?;
        shown.sort_by_key(|conversation| (std::cmp::Reverse(conversation.changed), conversation.group));
        Ok(shown)
    }

    /// One conversation.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`].
    pub fn conversation(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
    ) -> Result<Conversation, MessengerError> {
        Ok(self.conversation_of(read, engine, group, expected(read, group)?)?)
    }

    fn conversation_of(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
        row: ConversationRow,
    ) -> Result<Conversation, ReadError> {
        let name = match row.contact() {
            Some(account) => people::name_of(&account, &people::row(read, &account)?.unwrap_or_default()),
            None => groups::name_of(group, &row),
        };
        let prefix = KeyRange::prefix(group.as_bytes());
        let last = read.collect(tables::MESSAGES, &prefix, Direction::Descending, 1)?;
        let (unread, closed, left) = (row.unread, row.closed, row.left);
        let (contact, changed) = (row.contact(), Time::from_millis(row.changed_ms));
        let mut scene = Scene::new(self, read, engine, *group, row)?;
        Ok(Conversation {
            group: *group,
            contact,
            name,
            unread,
            last: last.first().map(|pair| scene.message(pair)).transpose()?.flatten(),
            changed,
            members: scene.members,
            online: others_online(read, engine, group)?.len(),
            left,
            closed,
        })
    }

    /// Messages of a conversation in its order.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`], also for an edge of the page that is not in this conversation.
    pub fn messages(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
        page: &Page,
    ) -> Result<Vec<Message>, MessengerError> {
        let row = expected(read, group)?;
        let mut range = KeyRange::prefix(group.as_bytes());
        if let Some(after) = &page.after {
            range.start = edge(read, group, after)?.key();
            range.start.push(0);
        }
        if let Some(before) = &page.before {
            range.end = Some(edge(read, group, before)?.key());
        }
        let first = page.after.is_some() && page.before.is_none();
        let direction = if first { Direction::Ascending } else { Direction::Descending };
        let limit = page.limit.min(PAGE_MESSAGES_MAX);
        let mut pairs = read.collect(tables::MESSAGES, &range, direction, limit)?;
        if !first {
            pairs.reverse();
        }
        let mut scene = Scene::new(self, read, engine, *group, row)?;
        let mut messages = Vec::with_capacity(pairs.len());
        for pair in &pairs {
            messages.extend(scene.message(pair)?);
        }
        Ok(messages)
    }

    /// What is closed between the messages of a page, in order. `messages` are those that [`Self::messages`] gave for
    /// the page.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`], also for an edge of the page that is not in this conversation.
    #[expect(clippy::too_many_arguments, reason = "a page, and who reads it when")]
    pub fn gaps(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
        page: &Page,
        messages: &[Message],
        now: Time,
        zone: Zone,
    ) -> Result<Vec<Gap>, MessengerError> {
        if expected(read, group)?.closed == 0 {
            return Ok(Vec::new());
        }
        let place = |edge: &Option<EntryId>| edge.map(|id| edge_of(read, group, &id)).transpose();
        let (after, before) = (place(&page.after)?, place(&page.before)?);
        // Beyond a page that is full lies another one.
        let is_full = messages.len() >= page.limit.min(PAGE_MESSAGES_MAX);
        let first = page.after.is_some() && page.before.is_none();
        let from = if is_full && !first { messages.first().map(|message| message.position) } else { after };
        let to = if is_full && first { messages.last().map(|message| message.position) } else { before };
        let mut gaps = Vec::new();
        for (entry, row) in waiting::closed(read, group)? {
            let Some(gap) = gap_of(read, engine, group, &entry, &row, why::Reader { now, zone }) else {
                continue;
            };
            let position = gap.position;
            if from.is_none_or(|from| from < position) && to.is_none_or(|to| position < to) {
                gaps.push(gap);
            }
        }
        gaps.sort_by_key(|gap| gap.position);
        Ok(gaps)
    }

    /// One closed message in its place; `None` when there is none, or what it says is shown elsewhere.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn gap(
        &self,
        read: &dyn Read,
        engine: &Engine,
        group: &GroupId,
        entry: &EntryId,
        now: Time,
        zone: Zone,
    ) -> Result<Option<Gap>, ReadError> {
        let row: Option<ClosedRow> = read_row(read, tables::CLOSED, &group_entry(group, entry))?;
        Ok(row.and_then(|row| gap_of(read, engine, group, entry, &row, why::Reader { now, zone })))
    }

    /// One message; `None` when it is not shown anywhere.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn message(
        &self,
        read: &dyn Read,
        engine: &Engine,
        entry: &EntryId,
    ) -> Result<Option<Message>, ReadError> {
        let Some(place) = Place::of_entry(read, entry)? else { return Ok(None) };
        let Some(row) = conversations::row(read, &place.group)? else { return Ok(None) };
        let Some(stored) = read.get(tables::MESSAGES, &place.key())? else { return Ok(None) };
        Scene::new(self, read, engine, place.group, row)?.message(&(place.key(), stored))
    }

    /// Counts for a status line.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn status(&self, read: &dyn Read, engine: &Engine) -> Result<Status, ReadError> {
        let (new_devices, copy_found) = (self.new_devices(read)?, self.copy_found(read)?);
        let mut status = Status { new_devices, copy_found, ..Status::default() };
        for (_, row) in people::all(read)? {
            status.contacts += usize::from(row.state() == StoredState::Added);
            status.requests += usize::from(row.state() == StoredState::Asks);
        }
        for (group, row) in conversations::all(read)? {
            status.conversations += 1;
            status.unread = status.unread.saturating_add(row.unread);
            status.online += others_online(read, engine, &group)?.len();
        }
        read.scan(tables::KEPT, &KeyRange::default(), Direction::Ascending, &mut |_, _| {
            status.kept += 1;
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(status)
    }

    /// The contact at the other end of a conversation.
    pub(super) fn contact_in(
        &self,
        read: &dyn Read,
        engine: &Engine,
        row: &ConversationRow,
    ) -> Result<Option<Contact>, ReadError> {
        match row.contact() {
            Some(account) => self.contact(read, engine, &account),
            None => Ok(None),
        }
    }
}

fn gap_of(
    read: &dyn Read,
    engine: &Engine,
    group: &GroupId,
    entry: &EntryId,
    row: &ClosedRow,
    reader: why::Reader,
) -> Option<Gap> {
    if row.cause() == StoredCause::Repeat {
        // What it says is shown, elsewhere.
        return None;
    }
    let position = engine.position(read, group, true, entry).unwrap_or_default()?;
    Some(Gap { position, since: Time::from_millis(row.since_ms), sentence: why::closed_one(row, reader) })
}

fn edge(read: &dyn Read, group: &GroupId, entry: &EntryId) -> Result<Place, MessengerError> {
    let place = Place::of_entry(read, entry)?.filter(|place| place.group == *group);
    place.ok_or_else(|| MessengerError::Unknown {
        what: crate::error::Named::Message,
        reference: entry.to_string(),
    })
}

fn edge_of(read: &dyn Read, group: &GroupId, entry: &EntryId) -> Result<Position, MessengerError> {
    edge(read, group, entry).map(|place| place.position)
}

/// What the messages of one conversation have in common.
struct Scene<'r> {
    messenger: &'r Messenger,
    read: &'r dyn Read,
    engine: &'r Engine,
    group: GroupId,
    row: ConversationRow,
    members: usize,
    names: BTreeMap<MemberId, String>,
    owners: BTreeMap<DeviceId, MemberId>,
}

impl<'r> Scene<'r> {
    fn new(
        messenger: &'r Messenger,
        read: &'r dyn Read,
        engine: &'r Engine,
        group: GroupId,
        row: ConversationRow,
    ) -> Result<Self, ReadError> {
        let members = engine.members(read, &group)?.len();
        let (names, owners) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { messenger, read, engine, group, row, members, names, owners })
    }

    /// How many others there are. In the conversation with a contact there is one, known here or not yet.
    fn recipients(&self) -> usize {
        if self.row.contact().is_some() { 1 } else { self.members.saturating_sub(1) }
    }

    fn message(&mut self, (key, row): &(Vec<u8>, Vec<u8>)) -> Result<Option<Message>, ReadError> {
        let (Some(place), Ok(row)) = (Place::from_key(key), MessageRow::decode(&**row)) else {
            return Ok(None);
        };
        let sender = MemberId::from_stored(&row.member);
        let device = DeviceId::from_stored(&row.device);
        let sender_name = match (&sender, device) {
            (Some(sender), Some(device)) => self.name(sender, &[device])?,
            _ => String::new(),
        };
        let delivery = if row.own { Some(self.delivery(&place.position, &row)?) } else { None };
        Ok(Some(Message {
            group: place.group,
            position: place.position,
            content: self.content(&row)?,
            own: row.own,
            sender,
            sender_name,
            sent: Time::from_millis(row.sent_ms),
            kept: Time::from_millis(row.kept_ms),
            delivery,
        }))
    }

    fn content(&self, row: &MessageRow) -> Result<MessageContent, ReadError> {
        let text = row.text.clone();
        Ok(match (row.kind(), GroupId::from_bytes(&row.invited_to)) {
            (StoredKind::Text, _) => MessageContent::Text(text),
            (StoredKind::Invitation, Ok(group)) => {
                let joined = conversations::row(self.read, &group)?.is_some_and(|row| !row.left);
                let name = match row.invited_to_name.is_empty() {
                    true => short(group),
                    false => row.invited_to_name.clone(),
                };
                MessageContent::Invitation { group, name, link: text, joined }
            }
            (StoredKind::Invitation | StoredKind::Other, _) => MessageContent::Other(text),
        })
    }

    fn delivery(&mut self, position: &Position, row: &MessageRow) -> Result<Delivery, ReadError> {
        let (sent, handed_to) = match self.engine.delivery(self.read, &self.group, &position.id)? {
            Some(delivery) => match delivery.sent {
                Some((at, Some(device))) => (Some(at), self.owner(&device)?),
                Some((at, None)) => (Some(at), None),
                None => (None, None),
            },
            // Another device of this account wrote it, and we have it: so it was handed over.
            None => (Some(Time::from_millis(row.kept_ms)), self.row.own_member()),
        };
        let receipts = self.receipts(&position.id)?;
        Ok(Delivery { handed: sent, handed_to, receipts, recipients: self.recipients() })
    }

    fn receipts(&mut self, entry: &EntryId) -> Result<Vec<Receipt>, ReadError> {
        let prefix = KeyRange::prefix(&group_entry(&self.group, entry));
        let rows = self.read.collect(tables::RECEIPTS, &prefix, Direction::Ascending, usize::MAX)?;
        let mut receipts = Vec::with_capacity(rows.len());
        for (key, row) in &rows {
            let member = key.get(64..).and_then(MemberId::from_stored);
            let (Some(member), Ok(row)) = (member, ReceiptRow::decode(&**row)) else { continue };
            let device = DeviceId::from_stored(&row.device);
            let name = self.name(&member, device.as_slice())?;
            receipts.push(Receipt { member, name, at: Time::from_millis(row.at_ms) });
        }
        receipts.sort_by_key(|receipt| receipt.at);
        Ok(receipts)
    }

    /// The name of a member; `devices` of it are asked first, which also works in a group that was left.
    fn name(&mut self, member: &MemberId, devices: &[DeviceId]) -> Result<String, ReadError> {
        if let Some(name) = self.names.get(member) {
            return Ok(name.clone());
        }
        let own = self.row.own_member() == Some(*member);
        let mut all = self.engine.devices_of(self.read, &self.group, member)?;
        all.extend(devices.iter().filter(|device| !all.contains(device)).copied().collect::<Vec<_>>());
        let name = self.messenger.member_name(self.read, &self.group, &self.row, own, &all)?;
        let name = name.unwrap_or_else(|| short(member));
        self.names.insert(*member, name.clone());
        Ok(name)
    }

    /// Whose device it is.
    fn owner(&mut self, device: &DeviceId) -> Result<Option<MemberId>, ReadError> {
        if self.owners.is_empty() {
            for member in self.engine.members(self.read, &self.group)? {
                for device in self.engine.devices_of(self.read, &self.group, &member)? {
                    self.owners.insert(device, member);
                }
            }
        }
        Ok(self.owners.get(device).copied())
    }
}
