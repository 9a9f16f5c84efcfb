//! Events that came before their device was known, folded once it is (`spec/security.md` O10).
//!
//! They are in the log; the index keeps only where they stand. Go devices write large ones, and anybody who holds an invitation
//! can write many in the name of a device that it binds later: so they are read and folded a few at a time, and what is
//! left is done in the next steps, also after a restart.

use dunlin_base::kv::ReadError;
use dunlin_base::{DeviceId, GroupId};
use dunlin_log::Position;
use dunlin_orbitdb::operation;

use super::fold::{BATCH_BYTES, JOIN_BATCH};
use super::{Ctx, Engine};
use crate::metadata::{self, Change};

impl Engine {
    /// A device has a member from now on: folds what waited for that, as much as one step takes, and once there is no more
    /// gives its member the key of this device and opens what it said.
    pub(super) fn follow_device(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<(), ReadError> {
        let is_first_step = !self.unfolded.contains(&(*group, *device));
        for change in self.fold_waiting(ctx, group, device)? {
            self.follow(ctx, group, &change)?;
        }
        let index = &self.active(group)?.index;
        if index.has_waiting(ctx.tx, device)? {
            if is_first_step {
                index.set_behind(ctx.tx, device, true);
                self.unfolded.insert((*group, *device));
            }
            return Ok(());
        }
        if !is_first_step {
            index.set_behind(ctx.tx, device, false);
            self.unfolded.remove(&(*group, *device));
        }
        let Some(member) = self.active(group)?.index.member_of(ctx.tx, device)? else { return Ok(()) };
        self.serve_chain_key(ctx, group, &member)?;
        self.open_waiting(ctx, group, device)
    }

    /// Goes on where one step was not enough.
    pub(super) fn fold_unfolded(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        for (group, device) in self.unfolded.clone() {
            if self.groups.contains_key(&group) {
                self.at_work = Some(group);
                self.follow_device(ctx, &group, &device)?;
            } else {
                self.unfolded.remove(&(group, device));
            }
        }
        self.at_work = None;
        Ok(())
    }

    /// Folds all that waits for a device while its log is folded again: in the order of the log, before anything behind it.
    pub(super) fn fold_all_waiting(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<(), ReadError> {
        loop {
            // Giving keys away waits until it is known to whom they were given.
            for change in self.fold_waiting(ctx, group, device)? {
                if let Change::ChainKeyOffered { device, dest, sealed } = &change {
                    self.take_chain_key(ctx, group, device, dest, sealed)?;
                }
            }
            if !self.active(group)?.index.has_waiting(ctx.tx, device)? {
                return Ok(());
            }
        }
    }

    /// Folds some of the events that wait for a device; gives what they changed.
    fn fold_waiting(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<Vec<Change>, ReadError> {
        let active = self.active(group)?;
        let mut changes = Vec::new();
        let mut bytes = 0_usize;
        for position in active.index.waiting(ctx.tx, device, JOIN_BATCH)? {
            if bytes >= BATCH_BYTES {
                break;
            }
            active.index.stop_waiting(ctx.tx, device, position);
            let Position { id, .. } = position;
            let Some(entry) = active.metadata.log.entry(ctx.tx, id)? else { continue };
            bytes = bytes.saturating_add(entry.block().len());
            if let Some(value) = operation::decode_value(entry.payload())
                && let Ok(event) = metadata::open(&active.group, &value)
            {
                changes.extend(active.index.apply(ctx.tx, position, &event)?);
            }
        }
        Ok(changes)
    }
}
