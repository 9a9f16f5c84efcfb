//! Where the events stand that came before their device was known.

use dunlin_base::DeviceId;
use dunlin_base::kv::{Direction, Read, ReadError, Tx};
use dunlin_log::Position;

use super::Index;
use super::rows::{self, Tag};
use crate::metadata::change::Change;
use crate::metadata::envelope::OpenedEvent;
use crate::tables::{self, damaged};

impl Index {
    /// Folds an event like [`Self::apply`], and with it all that waited for a device which it makes known; `find` gives the
    /// event at a position. At once: for logs whose size is known.
    ///
    /// # Errors
    /// [`ReadError`]; forget the transaction.
    pub fn apply_all(
        &self,
        tx: &mut Tx<'_>,
        position: Position,
        event: &OpenedEvent,
        find: &dyn Fn(Position) -> Option<OpenedEvent>,
    ) -> Result<Vec<Change>, ReadError> {
        let mut changes = self.apply(tx, position, event)?;
        let known = changes.iter().filter_map(|change| match change {
            Change::MemberDeviceAdded { device, .. } => Some(*device),
            _ => None,
        });
        for device in known.collect::<Vec<_>>() {
            for waited in self.waiting(tx, &device, usize::MAX)? {
                self.stop_waiting(tx, &device, waited);
                if let Some(event) = find(waited) {
                    changes.extend(self.apply(tx, waited, &event)?);
                }
            }
        }
        Ok(changes)
    }

    /// Events that wait for `device`, in the order of the log, `limit` at most. Once it has a member they are to be folded,
    /// each after [`Self::stop_waiting`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn waiting(
        &self,
        read: &dyn Read,
        device: &DeviceId,
        limit: usize,
    ) -> Result<Vec<Position>, ReadError> {
        let range = self.range(Tag::Waiting, &[device.as_bytes()]);
        let rows = read.collect(tables::INDEX, &range, Direction::Ascending, limit)?;
        let position = |key: &[u8]| rows::position(key.last_chunk()?);
        rows.iter().map(|(key, _)| position(key).ok_or_else(|| damaged(tables::INDEX))).collect()
    }

    /// Whether any event waits for `device`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn has_waiting(&self, read: &dyn Read, device: &DeviceId) -> Result<bool, ReadError> {
        Ok(!self.waiting(read, device, 1)?.is_empty())
    }

    /// Ends the waiting of an event.
    pub fn stop_waiting(&self, tx: &mut Tx<'_>, device: &DeviceId, position: Position) {
        let key = self.key(Tag::Waiting, &[device.as_bytes(), &rows::place(&position)]);
        tx.delete(tables::INDEX, &key);
    }

    /// Remembers that `device` is known and that some of what waited for it is still to be folded, or that nothing is.
    pub fn set_behind(&self, tx: &mut Tx<'_>, device: &DeviceId, behind: bool) {
        let key = self.key(Tag::Behind, &[device.as_bytes()]);
        if behind {
            tx.put(tables::INDEX, &key, &[]);
        } else {
            tx.delete(tables::INDEX, &key);
        }
    }

    /// Devices that are known, and for which some of what waited is still to be folded.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn behind(&self, read: &dyn Read) -> Result<Vec<DeviceId>, ReadError> {
        let range = self.range(Tag::Behind, &[]);
        let rows = read.collect(tables::INDEX, &range, Direction::Ascending, usize::MAX)?;
        let device = |key: &[u8]| DeviceId::from_stored(key.last_chunk::<32>()?);
        rows.iter().map(|(key, _)| device(key).ok_or_else(|| damaged(tables::INDEX))).collect()
    }
}
