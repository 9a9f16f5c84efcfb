//! What joined a log is opened, folded into state, and told.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, Read, ReadError};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId};
use dunlin_log::{AppendError, Joined, JoinedBatch, Position, Replaced, Verdict};
use dunlin_orbitdb::operation;

use super::groups::ActiveGroup;
use super::opening::group_entry_key;
use super::{CommandError, Ctx, Engine, Event, MetadataEvent, StoreKind};
use crate::context;
use crate::group::Group;
use crate::message;
use crate::metadata::{self, Change, Event as MetadataKind};
use crate::tables;

/// How many entries join in one call, so that neither a transaction nor the memory it takes grows with
/// what a peer sends. Two hundred and fifty-six entries are about a quarter of a megabyte.
pub(super) const JOIN_BATCH: usize = 256;
/// Bytes of entries that are read or opened at once, for the same reason: a few of the largest.
pub(super) const BATCH_BYTES: usize = 4 * 1024 * 1024;

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
        self.note_learned(ctx, group, kind, &batch)?;
        self.note_replays(ctx.now, group, &batch);
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
        if self.stale.contains(&(*group, kind)) {
            let more = match kind {
                StoreKind::Metadata => {
                    self.fold_again(ctx, group)?;
                    false
                }
                StoreKind::Messages => self.note_moves(ctx, group)?,
            };
            if more {
                self.backlog.insert((*group, kind));
            } else {
                self.stale.remove(&(*group, kind));
                ctx.tx.delete(tables::STALE, &stale_key(group, kind));
            }
        }
        if kind == StoreKind::Metadata && self.to_be_announced.remove(group) {
            self.announce_device(ctx, group)?;
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
        store.own_head = Some(entry);
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
        self.watch_event(ctx, group, &event)?;
        if self.active(group)?.index.counts(ctx.tx, &position, &event)? {
            if let (Some(context), Some(device)) = (event.context(), event.device()) {
                context::note_seen(ctx.tx, group, device, context::Log::Events, context, value)?;
            }
            self.events.push_back(Event::Metadata(MetadataEvent {
                group: *group,
                entry: position.id,
                position,
                event,
                changes: changes.clone(),
            }));
        }
        changes.iter().try_for_each(|change| self.follow(ctx, group, change))
    }

    /// Does what a change of a group's state asks of this device.
    pub(super) fn follow(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        change: &Change,
    ) -> Result<(), ReadError> {
        match change {
            Change::MemberDeviceAdded { device, .. } => self.follow_device(ctx, group, device),
            Change::ChainKeyOffered { device, dest, sealed } => {
                self.take_chain_key(ctx, group, device, dest, sealed)
            }
            Change::GroupJoined(joined) => {
                let is_own = self.unannounced.iter().any(|(own, _)| own == group);
                if planted::is(Bug::OtherDevicesUnheard) && !is_own {
                    return Ok(());
                }
                self.remember_group(ctx, joined, None);
                Ok(())
            }
            Change::GroupLeft(left) => {
                self.forget_group(ctx, left);
                Ok(())
            }
            Change::ContactGroupMade { account } => {
                self.remember_contact_group(ctx, account);
                Ok(())
            }
            Change::ContactChanged { account, state, .. } => self.follow_lookup(ctx, account, *state),
            Change::DeviceNoted { .. } => self.follow_devices(ctx.tx),
            Change::RequestsChanged { .. } | Change::SeedReset { .. } => self.follow_requests(ctx),
            Change::ContextsAlways { device } => self.require_contexts(ctx, group, device),
            Change::FoldAgain => {
                ctx.tx.put(tables::STALE, &stale_key(group, StoreKind::Metadata), &[]);
                self.stale.insert((*group, StoreKind::Metadata));
                self.backlog.insert((*group, StoreKind::Metadata));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn remember_contact_group(&self, ctx: &mut Ctx<'_, '_>, account: &AccountId) {
        match Group::contact(&self.keys, account) {
            Ok(group) => self.remember_group(ctx, &group, Some(*account)),
            Err(error) => tracing::debug!(%error, "no secret can be shared with this contact"),
        }
    }

    pub(super) fn take_chain_key(
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
        if message::register_chain_key(ctx.tx, group, device, key)? && !planted::is(Bug::WaitingNotOpened) {
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
        if planted::is(Bug::KeysNotServed) && ctx.now.as_secs() % 2 == 1 {
            return Ok(());
        }
        let is_served = active.index.is_served(ctx.tx, member)? && !planted::is(Bug::ChainBoxAnew);
        let may_not_yet = self.to_be_announced.contains(group) || self.key_is_shared;
        if may_not_yet || is_served {
            return Ok(());
        }
        if !self.may_answer(ctx, group, member)? {
            return Ok(());
        }
        let active = self.active(group)?;
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

    /// Folds a metadata log from its beginning, after a late parent changed the order of its entries, and
    /// does what follows from the state that comes out.
    ///
    /// Entries are read a few at a time, and no event stays in memory; but all rows of the index are written in one
    /// transaction, since nobody must see half of a state: a few hundred bytes for each event of the log.
    fn fold_again(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<(), ReadError> {
        self.active(group)?.index.clear(ctx.tx)?;
        let mut after = None;
        loop {
            let active = self.active(group)?;
            let mut events = Vec::new();
            let (mut last, mut bytes) = (None, 0_usize);
            active.metadata.log.walk(ctx.tx, after, Direction::Ascending, &mut |position, entry| {
                if Some(position) == after {
                    return ControlFlow::Continue(());
                }
                last = Some(position);
                bytes = bytes.saturating_add(entry.block().len());
                if let Some(value) = operation::decode_value(entry.payload())
                    && let Ok(event) = metadata::open(&active.group, &value)
                {
                    events.push((position, event));
                }
                let has_room = events.len() < JOIN_BATCH && bytes < BATCH_BYTES;
                if has_room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if last.is_none() {
                break;
            }
            after = last;
            for (position, event) in &events {
                let changes = self.active(group)?.index.apply(ctx.tx, *position, event)?;
                for change in &changes {
                    match change {
                        Change::MemberDeviceAdded { device, .. } => {
                            self.fold_all_waiting(ctx, group, device)?;
                        }
                        // Giving keys away waits until it is known to whom they were given.
                        Change::ChainKeyOffered { device, dest, sealed } => {
                            self.take_chain_key(ctx, group, device, dest, sealed)?;
                        }
                        _ => {}
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
            let with_group = index.contacts_with_group(ctx.tx)?;
            for (id, joined) in groups {
                match joined {
                    Some(joined) => self.remember_group(ctx, &joined, None),
                    None => self.forget_group(ctx, &id),
                }
            }
            for (id, _, contact) in self.known_groups(ctx.tx)? {
                // Made by an event that counts no more.
                if contact.is_some_and(|account| !with_group.contains(&account)) {
                    self.forget_group(ctx, &id);
                }
            }
            for account in &with_group {
                self.remember_contact_group(ctx, account);
            }
            for (account, state) in contacts {
                self.follow_lookup(ctx, &account, state)?;
            }
            self.follow_requests(ctx)?;
            self.follow_devices(ctx.tx)?;
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
        if !planted::is(Bug::LeftNotForgotten) {
            ctx.tx.delete(tables::GROUPS, group.as_bytes());
        }
    }
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
