//! The devices of the account: what they are called, and which of them are removed.
//!
//! Removing is a word among our own devices: they stop giving a removed one what they have. It still holds the
//! keys of the account, so it can read what reaches it by way of others, and Go devices know nothing of it.

use std::collections::BTreeSet;

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{DeviceId, PeerId};

use super::{Ctx, Engine};
use crate::group::GroupKind;
use crate::metadata::{DEVICE_NAME_BYTES_MAX, DeviceNote, DeviceRecord, Event as MetadataKind, NoteKind};

/// Why something about a device was not written. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The account has no such device.
    #[error("the account has no such device")]
    Unknown,
    /// It was removed before.
    #[error("that device was removed already")]
    Removed,
    /// A device does not remove itself.
    #[error("this is the device itself: remove it from another one, or delete its data directory here")]
    Own,
    /// The name is too long.
    #[error("the name of a device has at most {DEVICE_NAME_BYTES_MAX} bytes")]
    TooLong,
}

impl Engine {
    /// The devices of the account, removed ones included, in the order of their keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn devices(&self, read: &dyn Read) -> Result<Vec<DeviceRecord>, ReadError> {
        self.active(&self.account_group())?.index.devices(read)
    }

    /// The devices of the account that are not removed; this one once it is announced.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn account_devices(&self, read: &dyn Read) -> Result<Vec<DeviceId>, ReadError> {
        let devices = self.devices(read)?.into_iter();
        Ok(devices.filter(|record| record.removed.is_none()).map(|record| record.device).collect())
    }

    /// Names a device, for all devices of the account.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn name_device(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        device: &DeviceId,
        name: &str,
    ) -> Result<(), DeviceError> {
        if name.len() > DEVICE_NAME_BYTES_MAX {
            return Err(DeviceError::TooLong);
        }
        self.expect_device(ctx.tx, device)?;
        self.write_note(ctx, device, NoteKind::Named(name.to_owned()))?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Removes a device from the account, for ever: see the module documentation for what that comes to.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn remove_device(&mut self, ctx: &mut Ctx<'_, '_>, device: &DeviceId) -> Result<(), DeviceError> {
        if *device == self.device_id() {
            return Err(DeviceError::Own);
        }
        self.expect_device(ctx.tx, device)?;
        self.write_note(ctx, device, NoteKind::Removed)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Writes event 1 for this device in the account group, with the date.
    pub(super) fn announce_in_account(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let own = self.device_id();
        self.write_note(ctx, &own, NoteKind::Added)
    }

    /// Takes over who is removed, after what was said about devices changed.
    pub(super) fn follow_devices(&mut self, read: &dyn Read) -> Result<(), ReadError> {
        let removed = self.devices(read)?.into_iter().filter(|record| record.removed.is_some());
        let removed: BTreeSet<DeviceId> = removed.map(|record| record.device).collect();
        if removed != self.removed {
            self.removed = removed;
            self.speakers_changed = true;
        }
        Ok(())
    }

    /// Whether a host speaks for a removed device of the account. In groups of several members its device has a
    /// key of its own, so a host counts by what it says in the other groups.
    pub(super) fn is_turned_away(&self, peer: &PeerId) -> bool {
        if self.removed.is_empty() {
            return false;
        }
        let of_account = self.groups.values().filter(|active| active.group.kind() != GroupKind::MultiMember);
        let mut spoken_for = of_account.filter_map(|active| active.speakers.get(peer));
        spoken_for.any(|device| self.removed.contains(device))
    }

    fn expect_device(&self, read: &dyn Read, device: &DeviceId) -> Result<(), DeviceError> {
        match self.devices(read)?.into_iter().find(|record| record.device == *device) {
            None => Err(DeviceError::Unknown),
            Some(record) if record.removed.is_some() => Err(DeviceError::Removed),
            Some(_) => Ok(()),
        }
    }

    fn write_note(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        subject: &DeviceId,
        said: NoteKind,
    ) -> Result<(), ReadError> {
        let account = self.account_group();
        let note = DeviceNote { subject: *subject, at: ctx.now, said };
        let event = MetadataKind::member_device_added(&self.active(&account)?.own);
        self.append_noted(ctx, &account, &event, Some(&note))?;
        Ok(())
    }
}
