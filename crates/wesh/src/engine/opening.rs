//! Messages are opened, shown, kept back or wait; and one takes over from another entry of the same.

use std::collections::BTreeSet;

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{DeviceId, EntryId, GroupId, MemberId};
use dunlin_log::{JoinedBatch, Position, Replaced};
use dunlin_orbitdb::operation;

use super::fold::BATCH_BYTES;
use super::groups::ActiveGroup;
use super::{Ctx, Engine, Event, MessageEvent, WaitCause};
use crate::context;
use crate::message::{self, OpenMessageError};
use crate::tables;

/// Waiting messages that are looked at when a group is opened.
const WAITING_LOOKED_AT_MAX: usize = 1000;

impl Engine {
    /// Opens the message of an entry, or says what it waits for.
    pub(super) fn fold_message(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        id: EntryId,
        value: &[u8],
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let headers = match message::open_headers(&active.group, value) {
            Ok(headers) => headers,
            Err(error) => {
                tracing::debug!(%error, "message headers do not open");
                self.wait(group, id, WaitCause::Unreadable);
                return Ok(());
            }
        };
        self.watch_message(ctx, group, &headers, value)?;
        let active = self.active(group)?;
        let device = headers.device;
        let Some(member) = active.index.member_of(ctx.tx, &device)? else {
            message::keep_waiting(ctx.tx, group, &device, headers.counter, id);
            self.wait(group, id, WaitCause::DeviceUnknown { device });
            return Ok(());
        };
        let arrival = arrival(ctx, active)?;
        let cause = match message::open_message(ctx.tx, &arrival, &active.group, id, &headers, value) {
            Ok(opening) => {
                self.tell_opening(ctx, group, id, opening, member, value)?;
                return self.open_waiting(ctx, group, &device);
            }
            Err(OpenMessageError::Read(error)) => return Err(error),
            Err(OpenMessageError::NoChainKey) => WaitCause::KeyNotReceived { device },
            Err(OpenMessageError::BeyondWindow) => WaitCause::BeyondWindow { device },
            Err(OpenMessageError::SentBeforeKey) => {
                self.wait(group, id, WaitCause::SentBeforeKey { device });
                return Ok(());
            }
            Err(OpenMessageError::AlreadyUsed) => {
                self.wait(group, id, WaitCause::Repeat { device });
                return Ok(());
            }
            Err(OpenMessageError::OutOfPlace) => {
                self.wait(group, id, WaitCause::OutOfPlace { device });
                return Ok(());
            }
            Err(error) => {
                tracing::debug!(%error, "a message does not open");
                self.wait(group, id, WaitCause::Unreadable);
                return Ok(());
            }
        };
        message::keep_waiting(ctx.tx, group, &device, headers.counter, id);
        self.wait(group, id, cause);
        Ok(())
    }

    /// Opens what waited for a key or the binding of `device`, lowest counter first, each by itself.
    pub(super) fn open_waiting(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let Some(member) = active.index.member_of(ctx.tx, device)? else { return Ok(()) };
        self.unopened.remove(&(*group, *device));
        let (mut bytes, mut ended) = (0_usize, 0_usize);
        for (counter, id) in message::waiting(ctx.tx, group, device)? {
            if bytes >= BATCH_BYTES && ended > 0 {
                self.unopened.insert((*group, *device));
                break;
            }
            let active = self.active(group)?;
            let Some(entry) = active.messages.log.entry(ctx.tx, id)? else { continue };
            bytes = bytes.saturating_add(entry.block().len());
            let Some(value) = operation::decode_value(entry.payload()) else { continue };
            let Ok(headers) = message::open_headers(&active.group, &value) else { continue };
            let arrival = arrival(ctx, active)?;
            match message::open_message(ctx.tx, &arrival, &active.group, id, &headers, &value) {
                Ok(opening) => {
                    ended = ended.saturating_add(1);
                    message::stop_waiting(ctx.tx, group, device, counter, &id);
                    self.tell_opening(ctx, group, id, opening, member, &value)?;
                }
                Err(OpenMessageError::Read(error)) => return Err(error),
                Err(error) if error.may_open_later() => tracing::debug!(%error, "a message goes on waiting"),
                Err(error) => {
                    ended = ended.saturating_add(1);
                    message::stop_waiting(ctx.tx, group, device, counter, &id);
                    let cause = match error {
                        OpenMessageError::SentBeforeKey => WaitCause::SentBeforeKey { device: *device },
                        OpenMessageError::AlreadyUsed => WaitCause::Repeat { device: *device },
                        OpenMessageError::OutOfPlace => WaitCause::OutOfPlace { device: *device },
                        _ => WaitCause::Unreadable,
                    };
                    self.wait(group, id, cause);
                }
            }
        }
        Ok(())
    }

    /// Opens what waited in vain for its turn: there was too much for one step.
    pub(super) fn open_unopened(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        for (group, device) in std::mem::take(&mut self.unopened) {
            if self.groups.contains_key(&group) {
                self.at_work = Some(group);
                self.open_waiting(ctx, &group, &device)?;
            }
        }
        self.at_work = None;
        Ok(())
    }

    /// Looks for what waited for its turn when the engine was closed.
    pub(super) fn find_unopened(&mut self, read: &dyn Read, group: &GroupId) -> Result<(), ReadError> {
        for (device, _) in message::waiting_devices(read, group, WAITING_LOOKED_AT_MAX)? {
            if message::has_chain(read, group, &device)? {
                self.unopened.insert((*group, device));
            }
        }
        Ok(())
    }

    fn wait(&mut self, group: &GroupId, entry: EntryId, cause: WaitCause) {
        self.events.push_back(Event::MessageWaits { group: *group, entry, cause });
    }

    /// Shows a message that was opened or keeps it as a repeat, and follows what changed places with it.
    fn tell_opening(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: EntryId,
        opening: message::Opening,
        member: MemberId,
        value: &[u8],
    ) -> Result<(), ReadError> {
        // No key is held for longer, and none that is held now has to be erased later.
        self.keys_due.get_or_insert(ctx.now + message::KEY_HELD_MAX);
        let message = opening.message;
        let (device, key) = (message.device, group_entry_key(group, &entry));
        if let Some(context) = &opening.context
            && !opening.is_repeat
        {
            context::note_seen(ctx.tx, group, &device, context::Log::Messages, context, value)?;
        }
        if opening.is_repeat {
            let row = MessageRow {
                height: 0,
                device: message.device,
                counter: message.counter,
                payload: &message.plaintext,
            };
            ctx.tx.put(tables::REPEATS, &key, &row.encode());
        } else {
            self.tell_message(ctx, group, entry, message, member)?;
        }
        for shift in opening.shifts {
            self.follow_shift(ctx, group, &shift, member)?;
        }
        if ctx.tx.contains(tables::REPEATS, &key)? {
            self.wait(group, entry, WaitCause::Repeat { device });
        }
        Ok(())
    }

    /// Lets two messages of one device change places: one turned out to be a repeat, the other to be what was sent.
    fn follow_shift(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        shift: &message::Shift,
        member: MemberId,
    ) -> Result<(), ReadError> {
        if let Some(from) = shift.from
            && let key = group_entry_key(group, &from)
            && let Some(row) = ctx.tx.get(tables::MESSAGES, &key)?
            && let Some(shown) = MessageRow::decode(&row)
        {
            ctx.tx.delete(tables::MESSAGES, &key);
            ctx.tx.put(tables::REPEATS, &key, &row);
            let device = shown.device;
            self.wait(
                group,
                from,
                match shift.to {
                    Some(_) => WaitCause::Repeat { device },
                    None => WaitCause::OutOfPlace { device },
                },
            );
        }
        if let Some(to) = shift.to
            && let key = group_entry_key(group, &to)
            && let Some(row) = ctx.tx.get(tables::REPEATS, &key)?
            && let Some(kept) = MessageRow::decode(&row)
        {
            ctx.tx.delete(tables::REPEATS, &key);
            let message = kept.to_opened();
            self.tell_message(ctx, group, to, message, member)?;
        }
        Ok(())
    }

    /// Shows no message of a device any more that says nothing of its place: the device signs that with all of them.
    pub(super) fn require_contexts(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<(), ReadError> {
        let shifts = message::require_contexts(ctx.tx, group, device, 0)?;
        let Some(member) = self.active(group)?.index.member_of(ctx.tx, device)? else { return Ok(()) };
        shifts.iter().try_for_each(|shift| self.follow_shift(ctx, group, shift, member))
    }

    fn tell_message(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: EntryId,
        opened: message::OpenedMessage,
        member: MemberId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let own = opened.device == active.own_device();
        let Some(position) = active.messages.log.position(ctx.tx, entry)? else { return Ok(()) };
        let Some(stored) = active.messages.log.entry(ctx.tx, entry)? else { return Ok(()) };
        let signature = active.signature_in(&stored);
        let row = MessageRow {
            height: position.height,
            device: opened.device,
            counter: opened.counter,
            payload: &opened.plaintext,
        };
        ctx.tx.put(tables::MESSAGES, &group_entry_key(group, &entry), &row.encode());
        self.events.push_back(Event::Message(MessageEvent {
            group: *group,
            entry,
            position,
            device: opened.device,
            member,
            counter: opened.counter,
            signature,
            parents: stored.next().to_vec(),
            payload: opened.plaintext,
            own,
        }));
        Ok(())
    }

    /// Lets entries take over what is known of the same message in the entries that they replace.
    pub(super) fn hand_down(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        batch: &JoinedBatch,
    ) -> Result<(), ReadError> {
        let fresh: BTreeSet<EntryId> = batch.joined.iter().map(|joined| joined.id).collect();
        for Replaced { entry, by } in &batch.replaced {
            let log = &self.active(group)?.messages.log;
            let (Some(from), Some(to)) = (log.position(ctx.tx, *entry)?, log.position(ctx.tx, *by)?) else {
                continue;
            };
            let (old, new) = (group_entry_key(group, entry), group_entry_key(group, by));
            let shown = ctx.tx.get(tables::MESSAGES, &old)?;
            match shown.as_deref().and_then(MessageRow::decode) {
                Some(row) => {
                    let from = Position { height: row.height, id: *entry };
                    self.hand_down_claim(ctx, group, entry, by)?;
                    ctx.tx.put(tables::MESSAGES, &new, &MessageRow { height: to.height, ..row }.encode());
                    ctx.tx.delete(tables::MESSAGES, &old);
                    for table in [tables::DELIVERY, tables::UNSENT] {
                        if let Some(row) = ctx.tx.get(table, &old)? {
                            ctx.tx.put(table, &new, &row);
                            ctx.tx.delete(table, &old);
                        }
                    }
                    self.events.push_back(Event::Moved { group: *group, from, to });
                }
                None if self.is_kept_back(ctx.tx, group, entry)? => {
                    self.hand_down_claim(ctx, group, entry, by)?;
                    for table in [tables::REPEATS, tables::ERASED] {
                        if let Some(row) = ctx.tx.get(table, &old)? {
                            ctx.tx.put(table, &new, &row);
                            ctx.tx.delete(table, &old);
                        }
                    }
                    self.events.push_back(Event::Moved { group: *group, from, to });
                }
                None if !fresh.contains(entry) => {
                    self.stop_waiting(ctx, group, entry)?;
                    self.events.push_back(Event::Moved { group: *group, from, to });
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a message was opened and is not shown: it is a repeat, or was erased.
    pub(super) fn is_kept_back(
        &self,
        read: &dyn Read,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<bool, ReadError> {
        let key = group_entry_key(group, entry);
        Ok(read.contains(tables::REPEATS, &key)? || read.contains(tables::ERASED, &key)?)
    }

    fn hand_down_claim(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
        by: &EntryId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let Some(stored) = active.messages.log.entry(ctx.tx, *by)? else { return Ok(()) };
        match operation::decode_value(stored.payload())
            .map(|value| message::open_headers(&active.group, &value))
        {
            Some(Ok(headers)) => message::hand_down_claim(ctx.tx, group, &headers, entry, by),
            _ => Ok(()),
        }
    }

    /// Forgets that an entry waits for a key: what it carries is looked for in another one.
    fn stop_waiting(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let Some(stored) = active.messages.log.entry(ctx.tx, *entry)? else { return Ok(()) };
        if let Some(value) = operation::decode_value(stored.payload())
            && let Ok(headers) = message::open_headers(&active.group, &value)
        {
            message::stop_waiting(ctx.tx, group, &headers.device, headers.counter, entry);
        }
        Ok(())
    }
}

/// What is known as a message of the group arrives.
fn arrival(ctx: &Ctx<'_, '_>, active: &ActiveGroup) -> Result<message::Arrival, ReadError> {
    let past_is_synced = active.messages.log.missing(ctx.tx, 1)?.is_empty();
    Ok(message::Arrival { now: ctx.now, past_is_synced })
}

/// Key of the tables that hold something for an entry of a group: both raw, 32 bytes each.
pub(super) fn group_entry_key(group: &GroupId, entry: &EntryId) -> Vec<u8> {
    [group.as_bytes().as_slice(), entry.digest()].concat()
}

/// A row of [`tables::MESSAGES`]: big-endian height, raw device key, big-endian counter, plaintext.
#[derive(Clone, Copy)]
pub(super) struct MessageRow<'p> {
    pub height: u64,
    pub device: DeviceId,
    pub counter: u64,
    pub payload: &'p [u8],
}

impl<'p> MessageRow<'p> {
    pub fn encode(&self) -> Vec<u8> {
        let (height, counter) = (self.height.to_be_bytes(), self.counter.to_be_bytes());
        [&height, self.device.as_bytes().as_slice(), &counter, self.payload].concat()
    }

    pub fn decode(row: &'p [u8]) -> Option<Self> {
        let (height, rest) = row.split_first_chunk::<8>()?;
        let (device, rest) = rest.split_at_checked(32)?;
        let (counter, payload) = rest.split_first_chunk::<8>()?;
        let device = DeviceId::from_stored(device)?;
        let (height, counter) = (u64::from_be_bytes(*height), u64::from_be_bytes(*counter));
        Some(Self { height, device, counter, payload })
    }

    pub fn to_opened(self) -> message::OpenedMessage {
        message::OpenedMessage {
            device: self.device,
            counter: self.counter,
            plaintext: self.payload.to_vec(),
        }
    }
}
