//! What became of own messages, as far as this device can know.
//!
//! A message is *kept here* from its commit on. It was *sent to a device* when a host that speaks for a
//! device of the group has shown heads above it, fetched its block, or was handed it on the direct channel.
//! That it was received is the application's to say, by an acknowledgement.

use std::collections::{BTreeSet, VecDeque};

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{DeviceId, EntryId, GroupId, PeerId, Time};

use super::opening::group_entry_key;
use super::{Ctx, Engine, Event};
use crate::tables;

/// Own messages that are looked for below the heads of a peer, at once.
const UNSENT_PER_LOOK_MAX: usize = 10_000;
/// Entries that are visited below the heads of a peer in search of unsent ones.
const LOOK_ENTRIES_MAX: usize = 20_000;

/// What is known of an own message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// When it was written.
    pub written: Time,
    /// When a device of the group first had it, and which one, where that is known.
    pub sent: Option<(Time, Option<DeviceId>)>,
}

impl Engine {
    /// What became of an own message; `None` for entries that this device did not write.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn delivery(
        &self,
        read: &dyn Read,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<Option<Delivery>, ReadError> {
        let row = read.get(tables::DELIVERY, &group_entry_key(group, entry))?;
        Ok(row.as_deref().and_then(decode))
    }

    /// Notes that `peer` was given the block of `entry`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_block_served(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        let speaking: Vec<_> = self
            .groups
            .iter()
            .filter_map(|(group, active)| Some((*group, *active.speakers.get(peer)?)))
            .collect();
        for (group, device) in speaking {
            if ctx.tx.contains(tables::UNSENT, &group_entry_key(&group, entry))? {
                self.mark_sent(ctx, &group, entry, device)?;
            }
        }
        Ok(())
    }

    /// Starts to follow an own message.
    pub(super) fn note_written(&self, ctx: &mut Ctx<'_, '_>, group: &GroupId, entry: &EntryId) {
        let key = group_entry_key(group, entry);
        ctx.tx.put(tables::DELIVERY, &key, &encode(&Delivery { written: ctx.now, sent: None }));
        ctx.tx.put(tables::UNSENT, &key, &[]);
    }

    /// Notes that `peer` has everything at and below the entries `shown`.
    pub(super) fn note_shown(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        peer: &PeerId,
        shown: &[EntryId],
    ) -> Result<(), ReadError> {
        let Some(device) = self.active(group)?.speakers.get(peer).copied() else { return Ok(()) };
        let mut unsent = self.unsent(ctx.tx, group)?;
        if unsent.is_empty() {
            return Ok(());
        }
        let log = &self.active(group)?.messages.log;
        let mut lowest = u64::MAX;
        for entry in &unsent {
            lowest = lowest.min(log.position(ctx.tx, *entry)?.map_or(u64::MAX, |position| position.height));
        }
        let mut reached = Vec::new();
        let mut seen: BTreeSet<EntryId> = shown.iter().copied().collect();
        let mut queue: VecDeque<EntryId> = shown.iter().copied().collect();
        while let Some(id) = queue.pop_front() {
            if unsent.remove(&id) {
                reached.push(id);
            }
            if unsent.is_empty() || seen.len() > LOOK_ENTRIES_MAX {
                break;
            }
            let above = log.position(ctx.tx, id)?.is_some_and(|position| position.height > lowest);
            if !above {
                continue;
            }
            let Some(entry) = log.entry(ctx.tx, id)? else { continue };
            queue.extend(entry.next().iter().filter(|parent| seen.insert(**parent)));
        }
        for entry in reached {
            self.mark_sent(ctx, group, &entry, device)?;
        }
        Ok(())
    }

    /// Notes that `entries` were handed to `peer`, whole.
    pub(super) fn note_handed_over(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        peer: &PeerId,
        entries: &[EntryId],
    ) -> Result<(), ReadError> {
        let Some(active) = self.groups.get(group) else { return Ok(()) };
        let Some(device) = active.speakers.get(peer).copied() else { return Ok(()) };
        for entry in entries {
            if ctx.tx.contains(tables::UNSENT, &group_entry_key(group, entry))? {
                self.mark_sent(ctx, group, entry, device)?;
            }
        }
        Ok(())
    }

    fn unsent(&self, read: &dyn Read, group: &GroupId) -> Result<BTreeSet<EntryId>, ReadError> {
        let range = KeyRange::prefix(group.as_bytes());
        let rows = read.collect(tables::UNSENT, &range, Direction::Ascending, UNSENT_PER_LOOK_MAX)?;
        Ok(rows.iter().filter_map(|(key, _)| EntryId::from_slice(key.get(32..)?)).collect())
    }

    fn mark_sent(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        entry: &EntryId,
        device: DeviceId,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        // What the other devices of this account have has reached nobody yet.
        if device == active.own_device()
            || active.index.member_of(ctx.tx, &device)? == Some(active.own_member())
        {
            return Ok(());
        }
        let key = group_entry_key(group, entry);
        let Some(mut delivery) = self.delivery(ctx.tx, group, entry)? else { return Ok(()) };
        delivery.sent = Some((ctx.now, Some(device)));
        ctx.tx.put(tables::DELIVERY, &key, &encode(&delivery));
        if !planted::is(Bug::UnsentKept) {
            ctx.tx.delete(tables::UNSENT, &key);
        }
        self.events.push_back(Event::Delivered {
            group: *group,
            entry: *entry,
            device: Some(device),
            at: ctx.now,
        });
        Ok(())
    }
}

/// A row of [`tables::DELIVERY`]: milliseconds of writing, then those of sending and the raw device key if
/// it was sent.
fn encode(delivery: &Delivery) -> Vec<u8> {
    let mut row = delivery.written.as_millis().to_be_bytes().to_vec();
    if let Some((at, device)) = delivery.sent {
        row.extend(at.as_millis().to_be_bytes());
        row.extend(device.iter().flat_map(|device| *device.as_bytes()));
    }
    row
}

fn decode(row: &[u8]) -> Option<Delivery> {
    let (written, rest) = row.split_first_chunk::<8>()?;
    let written = Time::from_millis(u64::from_be_bytes(*written));
    let sent = rest
        .split_first_chunk::<8>()
        .map(|(at, device)| (Time::from_millis(u64::from_be_bytes(*at)), DeviceId::from_stored(device)));
    Some(Delivery { written, sent })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        let device = DeviceId::new(dunlin_base::SecretKey::from_seed([1; 32]).public());
        let at = Time::from_secs(5);
        for sent in [None, Some((at, None)), Some((at, Some(device)))] {
            let delivery = Delivery { written: Time::from_secs(4), sent };
            assert_eq!(decode(&encode(&delivery)), Some(delivery));
        }
    }
}
