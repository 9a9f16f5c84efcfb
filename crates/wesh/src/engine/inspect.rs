//! Looking into groups: what their logs hold, who is there, and what waits for what.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, PeerId, Time};
use dunlin_log::{Entry, Position};
use dunlin_orbitdb::operation;
use dunlin_proto::protocol::EventType;

use super::commands::position_at;
use super::groups::{ActiveGroup, GroupStore, STORES};
use super::opening::{MessageRow, group_entry_key};
use super::{CommandError, Engine, StoreKind, WaitCause};
use crate::{message, metadata, tables};

/// Up to how many things that wait are counted in each place: enough to say "many".
pub const COUNTED_MAX: usize = 10_000;

/// An entry of a log, whether it opens or not.
#[derive(Clone, Debug)]
pub struct InspectedEntry {
    /// Where it stands.
    pub position: Position,
    /// The entries that its writer had seen last.
    pub parents: Vec<EntryId>,
    /// The type of an event that opens; [`EventType::Undefined`] for messages.
    pub event_type: EventType,
    /// Who wrote it, as far as it opens.
    pub device: Option<DeviceId>,
    /// What it says, as far as it opens.
    pub payload: Vec<u8>,
}

/// How an active group stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GroupState {
    /// Connected hosts on its topics.
    pub peers: usize,
    /// Those of them that speak for a device.
    pub speakers: usize,
    /// Height of the log of events.
    pub metadata_height: u64,
    /// Height of the log of messages.
    pub messages_height: u64,
    /// Entries that are named in its logs and not here, counted up to [`COUNTED_MAX`].
    pub missing: usize,
    /// Messages that cannot be opened yet, counted likewise.
    pub waiting: usize,
    /// Own messages that no other device is known to have, counted likewise.
    pub unsent: usize,
}

/// Something that waits, and for what.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Wait {
    /// A contact is to be asked.
    Request {
        /// Whom.
        account: AccountId,
        /// Whether a handshake with somebody who may be it is under way.
        trying: bool,
        /// When the next attempt is made; none while nobody is connected who may be it.
        next: Option<Time>,
    },
    /// Messages of a device cannot be opened.
    Messages {
        /// In which group.
        group: GroupId,
        /// Whose.
        device: DeviceId,
        /// Why the first of them does not open.
        cause: WaitCause,
        /// How many.
        count: usize,
    },
    /// Entries are named and not here.
    Entries {
        /// In which group.
        group: GroupId,
        /// How many.
        count: usize,
        /// How many connected hosts are on the topic and may have them.
        peers: usize,
    },
    /// No other device is known to have own messages.
    Unsent {
        /// In which group.
        group: GroupId,
        /// How many.
        count: usize,
        /// How many connected hosts are on the topic and may take them.
        peers: usize,
    },
    /// What is stored of the group cannot be read.
    SetAside {
        /// Which.
        group: GroupId,
    },
}

/// What an engine has under way, in memory: little of it remains when nothing happens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Underway {
    /// Blocks that are asked for or will be.
    pub fetches: usize,
    /// Streams of contact requests.
    pub exchanges: usize,
    /// Frames with heads of which it is not told yet whether they were written.
    pub frames: usize,
    /// Logs with stored entries that can join.
    pub backlog: usize,
}

impl Engine {
    /// What is under way.
    pub fn underway(&self) -> Underway {
        Underway {
            fetches: self.fetches.len(),
            exchanges: self.exchanges.len(),
            frames: self.heads_sent.len(),
            backlog: self.backlog.len(),
        }
    }

    /// Up to `limit` entries of a log of an active group, in order, from `start` on.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn inspect(
        &self,
        read: &dyn Read,
        group: &GroupId,
        kind: StoreKind,
        start: Bound<Position>,
        limit: usize,
    ) -> Result<Vec<InspectedEntry>, CommandError> {
        let active = self.active_for_owner(group)?;
        let mut found = Vec::new();
        let mut failed = None;
        let visit = &mut |position, entry: Entry| {
            if start == Bound::Excluded(position) {
                return ControlFlow::Continue(());
            }
            let inspected = match kind {
                StoreKind::Metadata => Ok(inspected_event(active, position, &entry)),
                StoreKind::Messages => inspected_message(read, active, position, &entry),
            };
            match inspected {
                Ok(inspected) => found.push(inspected),
                Err(error) => failed = Some(error),
            }
            if failed.is_some() || found.len() >= limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        active.store(kind).log.walk(read, position_at(start), Direction::Ascending, visit)?;
        failed.map_or(Ok(found), |error| Err(error.into()))
    }

    /// Connected hosts that are on a topic of an active group, or speak for a device of it.
    ///
    /// # Errors
    /// [`CommandError::NotActive`].
    pub fn peers_of(&self, group: &GroupId) -> Result<BTreeSet<PeerId>, CommandError> {
        Ok(self.active_for_owner(group)?.hosts())
    }

    /// How an active group stands.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn group_state(&self, read: &dyn Read, group: &GroupId) -> Result<GroupState, CommandError> {
        let active = self.active_for_owner(group)?;
        Ok(GroupState {
            peers: active.hosts().len(),
            speakers: active.speakers.len(),
            metadata_height: height(read, &active.metadata)?,
            messages_height: height(read, &active.messages)?,
            missing: missing(read, active)?,
            waiting: count(read, tables::WAITING, group)?,
            unsent: count(read, tables::UNSENT, group)?,
        })
    }

    /// What waits, and for what: requests first, then group after group.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn waits(&self, read: &dyn Read) -> Result<Vec<Wait>, ReadError> {
        let mut waits: Vec<_> = self.lookups_waiting().collect();
        waits.extend(self.set_aside.iter().map(|group| Wait::SetAside { group: *group }));
        for (group, active) in &self.groups {
            let peers = active.listeners().len();
            for (device, count, cause) in waiting_devices(read, active)? {
                waits.push(Wait::Messages { group: *group, device, cause, count });
            }
            match missing(read, active)? {
                0 => {}
                count => waits.push(Wait::Entries { group: *group, count, peers }),
            }
            match count(read, tables::UNSENT, group)? {
                0 => {}
                count => waits.push(Wait::Unsent { group: *group, count, peers }),
            }
        }
        Ok(waits)
    }
}

impl ActiveGroup {
    /// Hosts on a topic of the group.
    fn listeners(&self) -> BTreeSet<&PeerId> {
        STORES.iter().flat_map(|kind| self.store(*kind).subscribers.keys()).collect()
    }

    fn hosts(&self) -> BTreeSet<PeerId> {
        self.listeners().into_iter().chain(self.speakers.keys()).cloned().collect()
    }
}

fn inspected_event(active: &ActiveGroup, position: Position, entry: &Entry) -> InspectedEntry {
    let value = operation::decode_value(entry.payload());
    let opened = value.and_then(|value| metadata::open(&active.group, &value).ok());
    InspectedEntry {
        position,
        parents: entry.next().to_vec(),
        event_type: opened.as_ref().map_or(EventType::Undefined, |event| event.event().event_type()),
        device: opened.as_ref().and_then(|event| event.device().copied()),
        payload: opened.map(|event| event.payload().to_vec()).unwrap_or_default(),
    }
}

fn inspected_message(
    read: &dyn Read,
    active: &ActiveGroup,
    position: Position,
    entry: &Entry,
) -> Result<InspectedEntry, ReadError> {
    let row = read.get(tables::MESSAGES, &group_entry_key(&active.group.id(), &position.id))?;
    let (device, payload) = match row.as_deref().and_then(MessageRow::decode) {
        Some(row) => (Some(row.device), row.payload.to_vec()),
        None => {
            let value = operation::decode_value(entry.payload());
            let headers = value.and_then(|value| message::open_headers(&active.group, &value).ok());
            (headers.map(|headers| headers.device), Vec::new())
        }
    };
    let parents = entry.next().to_vec();
    Ok(InspectedEntry { position, parents, event_type: EventType::Undefined, device, payload })
}

fn height(read: &dyn Read, store: &GroupStore) -> Result<u64, ReadError> {
    let mut highest = 0;
    for head in store.log.heads(read)? {
        let position = store.log.position(read, head)?;
        highest = highest.max(position.map_or(0, |position| position.height));
    }
    Ok(highest)
}

fn missing(read: &dyn Read, active: &ActiveGroup) -> Result<usize, ReadError> {
    let mut count = 0;
    for kind in STORES {
        count += active.store(kind).log.missing(read, COUNTED_MAX)?.len();
    }
    Ok(count.min(COUNTED_MAX))
}

/// Rows of a table that belong to a group: their keys begin with its key.
fn count(read: &dyn Read, table: dunlin_base::kv::Table, group: &GroupId) -> Result<usize, ReadError> {
    let mut count = 0;
    read.scan(table, &KeyRange::prefix(group.as_bytes()), Direction::Ascending, &mut |_, _| {
        count += 1;
        if count < COUNTED_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(count)
}

/// Devices whose messages wait, how many, and why.
fn waiting_devices(
    read: &dyn Read,
    active: &ActiveGroup,
) -> Result<Vec<(DeviceId, usize, WaitCause)>, ReadError> {
    let group = active.group.id();
    let devices = message::waiting_devices(read, &group, COUNTED_MAX)?;
    let cause = |(device, count)| {
        let cause = if active.index.member_of(read, &device)?.is_none() {
            WaitCause::DeviceUnknown { device }
        } else if message::has_chain(read, &group, &device)? {
            WaitCause::BeyondWindow { device }
        } else {
            WaitCause::KeyNotReceived { device }
        };
        Ok((device, count, cause))
    };
    devices.into_iter().map(cause).collect()
}
