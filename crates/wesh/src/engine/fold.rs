//! What joined a log is opened, folded into state, and told.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, Read, ReadError};
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId};
use dunlin_log::{AppendError, Joined, JoinedBatch, Position, Replaced, Verdict};
use dunlin_orbitdb::operation;

use super::groups::ActiveGroup;
use super::{CommandError, Ctx, Engine, Event, MessageEvent, MetadataEvent, StoreKind, WaitCause};
use crate::contact::ContactState;
use crate::group::Group;
use crate::message::{self, OpenMessageError};
use crate::metadata::{self, Change, Event as MetadataKind};
use crate::padding::Padding;
use crate::tables;

/// How many entries join in one call, so that neither a transaction nor the memory it takes grows with
/// what a peer sends. Two hundred and fifty-six entries are about a quarter of a megabyte.
const JOIN_BATCH: usize = 256;

impl Engine {
    /// Joins stored entries whose parents are there, one batch of each log.
    pub(super) fn join_backlog(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        for (group, kind) in std::mem::take(&mut self.backlog) {
            self.join_batch(ctx, &group, kind)?;
        }
        self.at_work = None;
        Ok(())
    }

    /// Joins one batch of a log, and does what is left for its end once there is no more.
    pub(super) fn join_batch(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
    ) -> Result<(), ReadError> {
        let Some(active) = self.groups.get_mut(group) else { return Ok(()) };
        self.at_work = Some(*group);
        let batch = active.store_mut(kind).log.join_ready(ctx.tx, JOIN_BATCH)?;
        let more = batch.more;
        if batch.joined.iter().any(|joined| joined.verdict == Verdict::Accept) {
            active.store_mut(kind).retelling.plan(ctx);
        }
        if more {
            self.backlog.insert((*group, kind));
        }
        if batch.reordered || (kind == StoreKind::Metadata && !batch.replaced.is_empty()) {
            ctx.tx.put(tables::STALE, &stale_key(group, kind), &[]);
            self.stale.insert((*group, kind));
        }
        let changed = Changed::of(&batch);
        if kind == StoreKind::Messages {
            self.hand_down(ctx, group, &batch)?;
        }
        for joined in batch.joined.iter().filter(|joined| !changed.involved.contains(&joined.id)) {
            self.fold(ctx, group, kind, joined)?;
        }
        for id in &changed.live {
            self.fold_stored(ctx, group, kind, id, changed.told.contains(id))?;
        }
        if more {
            return Ok(());
        }
        // Once for all batches of a backlog: it costs as much as the log is long.
        if self.stale.remove(&(*group, kind)) {
            ctx.tx.delete(tables::STALE, &stale_key(group, kind));
            match kind {
                StoreKind::Metadata => self.fold_again(ctx, group)?,
                StoreKind::Messages => self.note_moves(ctx, group)?,
            }
        }
        if kind == StoreKind::Metadata && self.to_be_announced.remove(group) {
            self.announce_device(ctx, group)?;
        }
        Ok(())
    }

    /// Lets entries take over what is known of the same message in the entries that they replace.
    fn hand_down(
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
    fn is_kept_back(&self, read: &dyn Read, group: &GroupId, entry: &EntryId) -> Result<bool, ReadError> {
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

    /// Folds an entry that counts since another does not, unless what it carries `was_told` before.
    fn fold_stored(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        id: &EntryId,
        was_told: bool,
    ) -> Result<(), ReadError> {
        let log = &self.active(group)?.store(kind).log;
        let (Some(position), Some(entry)) = (log.position(ctx.tx, *id)?, log.entry(ctx.tx, *id)?) else {
            return Ok(());
        };
        let Some(value) = operation::decode_value(entry.payload()) else { return Ok(()) };
        match kind {
            // The order of the log changed, so its events are folded again anyway.
            StoreKind::Metadata if was_told => Ok(()),
            StoreKind::Metadata => self.fold_metadata(ctx, group, position, &value),
            StoreKind::Messages if ctx.tx.contains(tables::MESSAGES, &group_entry_key(group, id))? => Ok(()),
            StoreKind::Messages if self.is_kept_back(ctx.tx, group, id)? => Ok(()),
            StoreKind::Messages => self.fold_message(ctx, group, *id, &value),
        }
    }

    /// Seals a metadata event, appends it and folds it like any other.
    pub(super) fn append_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        event: &MetadataKind,
    ) -> Result<EntryId, ReadError> {
        let active = self.active(group)?;
        let value = metadata::seal(&active.group, &active.own, event, Padding::Buckets, ctx.rng);
        self.append(ctx, group, StoreKind::Metadata, &value)
    }

    /// Appends an already sealed value to a store of an active group.
    pub(super) fn append(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        value: &[u8],
    ) -> Result<EntryId, ReadError> {
        self.at_work = Some(*group);
        let active = self.active_mut(group)?;
        let store = active.store_mut(kind);
        let joined = match store.log.append(ctx.tx, &store.writer, &operation::encode_add(value)) {
            Ok(joined) => joined,
            Err(AppendError::Read(error)) => return Err(error),
            Err(error) => return Err(ReadError(Box::new(error))),
        };
        let entry = joined.id;
        for subscriber in store.subscribers.values_mut() {
            *subscriber = super::groups::Subscriber::default();
        }
        self.unannounced.insert((*group, kind));
        self.fold(ctx, group, kind, &joined)?;
        Ok(entry)
    }

    /// An active group that the caller knows to be active; a missing one is a fault of this crate, which
    /// the shell meets by opening the engine again.
    pub(super) fn active(&self, group: &GroupId) -> Result<&ActiveGroup, ReadError> {
        self.groups.get(group).ok_or_else(|| ReadError(Box::new(CommandError::NotActive)))
    }

    pub(super) fn active_mut(&mut self, group: &GroupId) -> Result<&mut ActiveGroup, ReadError> {
        self.groups.get_mut(group).ok_or_else(|| ReadError(Box::new(CommandError::NotActive)))
    }

    fn fold(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        joined: &Joined,
    ) -> Result<(), ReadError> {
        if joined.void || !matches!(joined.verdict, Verdict::Accept) {
            return Ok(());
        }
        let Some(value) = operation::decode_value(joined.entry.payload()) else {
            tracing::debug!("an entry carries no operation");
            return Ok(());
        };
        match kind {
            StoreKind::Metadata => self.fold_metadata(ctx, group, joined.position, &value),
            StoreKind::Messages => self.fold_message(ctx, group, joined.id, &value),
        }
    }

    fn fold_metadata(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        position: Position,
        value: &[u8],
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let event = match metadata::open(&active.group, value) {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(%error, "a metadata event does not open");
                return Ok(());
            }
        };
        let changes = active.index.apply(ctx.tx, position, &event)?;
        self.events.push_back(Event::Metadata(MetadataEvent {
            group: *group,
            entry: position.id,
            position,
            event,
            changes: changes.clone(),
        }));
        changes.iter().try_for_each(|change| self.follow(ctx, group, change))
    }

    /// Does what a change of a group's state asks of this device.
    fn follow(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId, change: &Change) -> Result<(), ReadError> {
        match change {
            Change::MemberDeviceAdded { member, device } => {
                self.serve_chain_key(ctx, group, member)?;
                self.open_waiting(ctx, group, device)
            }
            Change::ChainKeyOffered { device, dest, sealed } => {
                self.take_chain_key(ctx, group, device, dest, sealed)
            }
            Change::GroupJoined(joined) => {
                self.remember_group(ctx, joined, None);
                Ok(())
            }
            Change::GroupLeft(left) => {
                self.forget_group(ctx, left);
                Ok(())
            }
            Change::ContactChanged { account, state, .. } => self.follow_contact(ctx, account, *state),
            Change::RequestsChanged { .. } | Change::SeedReset { .. } => self.follow_requests(ctx),
            _ => Ok(()),
        }
    }

    fn follow_contact(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        account: &AccountId,
        state: ContactState,
    ) -> Result<(), ReadError> {
        match state {
            ContactState::ToRequest | ContactState::Added => match Group::contact(&self.keys, account) {
                Ok(group) => self.remember_group(ctx, &group, Some(*account)),
                Err(error) => tracing::debug!(%error, "no secret can be shared with this contact"),
            },
            _ => {}
        }
        self.follow_lookup(ctx, account, state)
    }

    fn take_chain_key(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
        dest: &MemberId,
        sealed: &[u8],
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        if *dest != active.own_member() || *device == active.own_device() {
            return Ok(());
        }
        let key = match message::open_chain_key_box(&active.group, &active.own, device, sealed) {
            Ok(key) => key,
            Err(error) => {
                tracing::debug!(%error, "a chain key does not open");
                return Ok(());
            }
        };
        if message::register_chain_key(ctx.tx, group, device, key)? {
            self.open_waiting(ctx, group, device)?;
        }
        Ok(())
    }

    /// Gives this device's chain key to `member`, once for ever, unless this device is still to be announced:
    /// then all members get it after that.
    pub(super) fn serve_chain_key(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        member: &MemberId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        if self.to_be_announced.contains(group) || active.index.is_served(ctx.tx, member)? {
            return Ok(());
        }
        let sealed = match message::own_chain_key_box(ctx.tx, &active.group, &active.own, member, ctx.rng) {
            Ok(sealed) => sealed,
            Err(message::ChainBoxError::Read(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "no chain key can be sealed for this member");
                return Ok(());
            }
        };
        let event = MetadataKind::chain_key_added(&active.own, *member, sealed);
        self.append_event(ctx, group, &event)?;
        Ok(())
    }

    fn fold_message(
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
        let device = headers.device;
        let Some(member) = active.index.member_of(ctx.tx, &device)? else {
            message::keep_waiting(ctx.tx, group, &device, headers.counter, id);
            self.wait(group, id, WaitCause::DeviceUnknown { device });
            return Ok(());
        };
        let arrival = arrival(ctx, active)?;
        let cause = match message::open_message(ctx.tx, &arrival, &active.group, id, &headers, value) {
            Ok(opening) => {
                self.tell_opening(ctx, group, id, opening, member)?;
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
    fn open_waiting(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let Some(member) = active.index.member_of(ctx.tx, device)? else { return Ok(()) };
        for (counter, id) in message::waiting(ctx.tx, group, device)? {
            let active = self.active(group)?;
            let Some(entry) = active.messages.log.entry(ctx.tx, id)? else { continue };
            let Some(value) = operation::decode_value(entry.payload()) else { continue };
            let Ok(headers) = message::open_headers(&active.group, &value) else { continue };
            let arrival = arrival(ctx, active)?;
            match message::open_message(ctx.tx, &arrival, &active.group, id, &headers, &value) {
                Ok(opening) => {
                    message::stop_waiting(ctx.tx, group, device, counter, &id);
                    self.tell_opening(ctx, group, id, opening, member)?;
                }
                Err(OpenMessageError::Read(error)) => return Err(error),
                Err(error) if error.may_open_later() => tracing::debug!(%error, "a message goes on waiting"),
                Err(error) => {
                    message::stop_waiting(ctx.tx, group, device, counter, &id);
                    let cause = match error {
                        OpenMessageError::SentBeforeKey => WaitCause::SentBeforeKey { device: *device },
                        OpenMessageError::AlreadyUsed => WaitCause::Repeat { device: *device },
                        _ => WaitCause::Unreadable,
                    };
                    self.wait(group, id, cause);
                }
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
    ) -> Result<(), ReadError> {
        // No key is held for longer, and none that is held now has to be erased later.
        self.keys_due.get_or_insert(ctx.now + message::KEY_HELD_MAX);
        let message = opening.message;
        let (device, key) = (message.device, group_entry_key(group, &entry));
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
        let (from, to) = (group_entry_key(group, &shift.from), group_entry_key(group, &shift.to));
        if let Some(row) = ctx.tx.get(tables::MESSAGES, &from)?
            && let Some(shown) = MessageRow::decode(&row)
        {
            ctx.tx.delete(tables::MESSAGES, &from);
            ctx.tx.put(tables::REPEATS, &from, &row);
            self.wait(group, shift.from, WaitCause::Repeat { device: shown.device });
        }
        if let Some(row) = ctx.tx.get(tables::REPEATS, &to)?
            && let Some(kept) = MessageRow::decode(&row)
        {
            ctx.tx.delete(tables::REPEATS, &to);
            let message = kept.to_opened();
            self.tell_message(ctx, group, shift.to, message, member)?;
        }
        Ok(())
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
        let Some(parents) = active.messages.log.entry(ctx.tx, entry)? else { return Ok(()) };
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
            parents: parents.next().to_vec(),
            payload: opened.plaintext,
            own,
        }));
        Ok(())
    }

    /// Tells which shown messages stand elsewhere, after a late parent changed the order of their log.
    fn note_moves(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let mut order = Vec::new();
        active.messages.log.walk(ctx.tx, None, Direction::Ascending, &mut |position, _| {
            order.push(position);
            ControlFlow::Continue(())
        })?;
        for to in order {
            let key = group_entry_key(group, &to.id);
            let Some(row) = ctx.tx.get(tables::MESSAGES, &key)? else { continue };
            let Some(shown) = MessageRow::decode(&row).filter(|shown| shown.height != to.height) else {
                continue;
            };
            let from = Position { height: shown.height, id: to.id };
            ctx.tx.put(tables::MESSAGES, &key, &MessageRow { height: to.height, ..shown }.encode());
            self.events.push_back(Event::Moved { group: *group, from, to });
        }
        Ok(())
    }

    /// Folds a metadata log from its beginning, after a late parent changed the order of its entries, and
    /// does what follows from the state that comes out.
    fn fold_again(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<(), ReadError> {
        self.active(group)?.index.clear(ctx.tx)?;
        let mut after = None;
        loop {
            let active = self.active(group)?;
            let mut events = Vec::new();
            let mut last = None;
            active.metadata.log.walk(ctx.tx, after, Direction::Ascending, &mut |position, entry| {
                if Some(position) == after {
                    return ControlFlow::Continue(());
                }
                last = Some(position);
                if let Some(value) = operation::decode_value(entry.payload())
                    && let Ok(event) = metadata::open(&active.group, &value)
                {
                    events.push((position, event));
                }
                if events.len() < JOIN_BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if last.is_none() {
                break;
            }
            after = last;
            for (position, event) in &events {
                let changes = self.active(group)?.index.apply(ctx.tx, *position, event)?;
                for change in &changes {
                    // Giving keys away waits until it is known to whom they were given.
                    if let Change::ChainKeyOffered { device, dest, sealed } = change {
                        self.take_chain_key(ctx, group, device, dest, sealed)?;
                    }
                }
            }
        }
        self.reconcile(ctx, group)?;
        self.events.push_back(Event::Refolded { group: *group });
        Ok(())
    }

    /// Does what the state of a group asks of this device, whatever it was before.
    fn reconcile(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<(), ReadError> {
        if *group == self.account_group() {
            let index = &self.active(group)?.index;
            let (mut groups, mut contacts) = (Vec::new(), Vec::new());
            index.groups(ctx.tx, &mut |id, joined| {
                groups.push((id, joined));
                ControlFlow::Continue(())
            })?;
            index.contacts(ctx.tx, &mut |record| {
                contacts.push((record.contact.account, record.state));
                ControlFlow::Continue(())
            })?;
            for (id, joined) in groups {
                match joined {
                    Some(joined) => self.remember_group(ctx, &joined, None),
                    None => self.forget_group(ctx, &id),
                }
            }
            for (account, state) in contacts {
                self.follow_contact(ctx, &account, state)?;
            }
            self.follow_requests(ctx)?;
        }
        self.serve_chain_keys(ctx, group)?;
        for member in self.members(ctx.tx, group)? {
            for device in self.devices_of(ctx.tx, group, &member)? {
                self.open_waiting(ctx, group, &device)?;
            }
        }
        Ok(())
    }

    fn forget_group(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) {
        self.deactivate(group);
        ctx.tx.delete(tables::GROUPS, group.as_bytes());
    }
}

/// What is known as a message of the group arrives.
fn arrival(ctx: &Ctx<'_, '_>, active: &ActiveGroup) -> Result<message::Arrival, ReadError> {
    let past_is_synced = active.messages.log.missing(ctx.tx, 1)?.is_empty();
    Ok(message::Arrival { now: ctx.now, past_is_synced })
}

/// What the values whose holder changed in a batch come to.
#[derive(Default)]
struct Changed {
    /// Entries that hold such a value, or held it. What was said of them when they joined may not hold any more.
    involved: BTreeSet<EntryId>,
    /// Those that count in the end.
    live: BTreeSet<EntryId>,
    /// Those whose value was held by an entry that joined before this batch.
    told: BTreeSet<EntryId>,
}

impl Changed {
    fn of(batch: &JoinedBatch) -> Self {
        let mut changed = Self::default();
        if batch.replaced.is_empty() {
            return changed;
        }
        let fresh: BTreeSet<EntryId> = batch.joined.iter().map(|joined| joined.id).collect();
        for Replaced { entry, by } in &batch.replaced {
            if !fresh.contains(entry) || changed.told.contains(entry) {
                changed.told.insert(*by);
            }
            changed.live.remove(entry);
            changed.live.insert(*by);
            changed.involved.extend([*entry, *by]);
        }
        changed
    }
}

/// Key of [`tables::STALE`]: the raw group key, then which store.
pub(super) fn stale_key(group: &GroupId, kind: StoreKind) -> Vec<u8> {
    let store = match kind {
        StoreKind::Metadata => 0,
        StoreKind::Messages => 1,
    };
    [group.as_bytes().as_slice(), &[store]].concat()
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
    fn encode(&self) -> Vec<u8> {
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
