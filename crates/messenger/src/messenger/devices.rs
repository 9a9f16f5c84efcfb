//! New devices of the account, which the owner is told of.
//!
//! The devices that are there when this one joins are known. Whichever is found later is new, wherever its event
//! stands in the log: a thief could put it far back.

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::{DeviceId, Time};
use dunlin_wesh::engine::{Ctx, Engine};

use super::Messenger;
use crate::notice::Notice;
use crate::tables;

/// Key of [`tables::DEVICES`] that is there once this device has joined the account.
const SETTLED: &[u8] = b"settled";
/// Key of [`tables::DEVICES`] that is there from the time at which a copy of the data directory was found at work
/// until the owner has looked; the time is the row.
const COPY_FOUND: &[u8] = b"copy-found";
const KNOWN: &[u8] = &[0];
const NEW: &[u8] = &[1];

impl Messenger {
    /// Looks for devices that are not known yet.
    pub(super) fn follow_devices(&mut self, ctx: &mut Ctx<'_, '_>, engine: &Engine) -> Result<(), ReadError> {
        let devices = engine.devices(ctx.tx)?;
        if !devices.iter().any(|record| record.device == engine.device_id()) {
            return Ok(());
        }
        let settled = ctx.tx.contains(tables::DEVICES, SETTLED)?;
        if !settled {
            ctx.tx.put(tables::DEVICES, SETTLED, &[]);
        }
        for device in devices.iter().map(|record| record.device) {
            if ctx.tx.contains(tables::DEVICES, device.as_bytes())? {
                continue;
            }
            let is_new = settled && device != engine.device_id();
            ctx.tx.put(tables::DEVICES, device.as_bytes(), if is_new { NEW } else { KNOWN });
            if is_new {
                self.notify(Notice::DeviceAdded(device));
            }
        }
        Ok(())
    }

    /// Notes that another node is at work on a copy of the data directory.
    pub(super) fn note_copy(&mut self, ctx: &mut Ctx<'_, '_>) {
        ctx.tx.put(tables::DEVICES, COPY_FOUND, &ctx.now.as_millis().to_be_bytes());
        self.notify(Notice::CopyFound);
    }

    /// When a copy of the data directory was last found at work, unless the owner has looked since.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn copy_found(&self, read: &dyn Read) -> Result<Option<Time>, ReadError> {
        let row = read.get(tables::DEVICES, COPY_FOUND)?;
        let millis = row.and_then(|row| <[u8; 8]>::try_from(row.as_slice()).ok()).map(u64::from_be_bytes);
        Ok(millis.map(Time::from_millis))
    }

    /// Devices that the owner has not looked at.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new_devices(&self, read: &dyn Read) -> Result<Vec<DeviceId>, ReadError> {
        let rows = read.collect(tables::DEVICES, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
        let new = rows.iter().filter(|(_, row)| row == NEW);
        Ok(new.filter_map(|(key, _)| DeviceId::from_stored(key)).collect())
    }

    /// Notes that the owner has looked at the devices.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn devices_seen(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        for device in self.new_devices(ctx.tx)? {
            ctx.tx.put(tables::DEVICES, device.as_bytes(), KNOWN);
        }
        if self.copy_found(ctx.tx)?.is_some() {
            ctx.tx.delete(tables::DEVICES, COPY_FOUND);
        }
        Ok(())
    }
}
