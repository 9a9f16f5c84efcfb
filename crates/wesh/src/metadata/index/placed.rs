//! Which events count, by what their devices signed about them, and what devices can do.

use dunlin_base::DeviceId;
use dunlin_base::kdf::sha256;
use dunlin_base::kv::{Read, ReadError, Tx};
use dunlin_log::Position;

use super::Index;
use super::rows::{self, Place, Tag};
use crate::metadata::caps::{Capabilities, Features};
use crate::metadata::change::Change;
use crate::metadata::envelope::OpenedEvent;
use crate::tables::{self, damaged};

impl Index {
    /// Whether an event that was folded, or waits for its device, counts where it stands. One whose signed payload stands
    /// in an entry before it is a copy; one without context from a device that signs all its events with one is not
    /// from that device.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn counts(
        &self,
        read: &dyn Read,
        position: &Position,
        event: &OpenedEvent,
    ) -> Result<bool, ReadError> {
        match (event.context(), event.device()) {
            (Some(_), _) => {
                let first = read.get(tables::INDEX, &self.once_key(event))?;
                Ok(first.is_none_or(|first| first == rows::place(position)))
            }
            (None, Some(device)) => Ok(!self.signs_all(read, device)?),
            (None, None) => Ok(true),
        }
    }

    /// What a device has shown that it can do: its newest statement, with all features it ever showed.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn capabilities(
        &self,
        read: &dyn Read,
        device: &DeviceId,
    ) -> Result<Option<Capabilities>, ReadError> {
        let Some(row) = read.get(tables::INDEX, &self.capabilities_key(device))? else { return Ok(None) };
        let (features, caps) = split(&row)?;
        let newest = Capabilities::restore(caps).ok_or_else(|| damaged(tables::INDEX))?;
        Ok(Some(Capabilities { features, ..newest }))
    }

    /// Decides whether an event counts, which is folded now.
    pub(super) fn admit(
        &self,
        tx: &mut Tx<'_>,
        place: &Place,
        event: &OpenedEvent,
        changes: &mut Vec<Change>,
    ) -> Result<bool, ReadError> {
        let Some(device) = event.device() else { return Ok(true) };
        if event.context().is_none() {
            return Ok(!self.signs_all(tx, device)?);
        }
        let key = self.once_key(event);
        let first = tx.get(tables::INDEX, &key)?;
        match first.as_deref() {
            Some(first) if first < place.as_slice() => return Ok(false),
            Some(first) if first == place => return Ok(true),
            // It was folded where a copy stands, and belongs here.
            Some(_) => changes.push(Change::FoldAgain),
            None => {}
        }
        tx.put(tables::INDEX, &key, place);
        Ok(true)
    }

    /// Learns what a device can do from its event 1. The newest statement counts, and features only become more, so that
    /// neither the order matters in which statements come, nor that somebody repeats an old one.
    pub(super) fn learn(
        &self,
        tx: &mut Tx<'_>,
        device: &DeviceId,
        event: &OpenedEvent,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        let Some((said, caps)) = event.capabilities(&self.group) else { return Ok(()) };
        let key = self.capabilities_key(device);
        let known = tx.get(tables::INDEX, &key)?;
        let (had, newest) = match known.as_deref() {
            Some(row) => {
                let (features, known) = split(row)?;
                let before = Capabilities::restore(known).ok_or_else(|| damaged(tables::INDEX))?;
                // Two statements with one number: the device is at fault, and all take the same one.
                let is_newer = (said.seq, caps.as_slice()) > (before.seq, known);
                (features, if is_newer { caps } else { known.to_vec() })
            }
            None => (Features::default(), caps),
        };
        let features = had.with(said.features);
        tx.put(tables::INDEX, &key, &[features.bits().to_be_bytes().as_slice(), &newest].concat());
        let always = Features::CONTEXTS_ALWAYS;
        if features.include(always) && !had.include(always) {
            changes.push(Change::ContextsAlways { device: *device });
            if self.binding(tx, device)?.is_some() {
                // Something of it may count that does not.
                changes.push(Change::FoldAgain);
            }
        }
        Ok(())
    }

    fn signs_all(&self, read: &dyn Read, device: &DeviceId) -> Result<bool, ReadError> {
        let row = read.get(tables::INDEX, &self.capabilities_key(device))?;
        let Some(row) = row else { return Ok(false) };
        Ok(split(&row)?.0.include(Features::CONTEXTS_ALWAYS))
    }

    fn capabilities_key(&self, device: &DeviceId) -> Vec<u8> {
        self.key(Tag::Capabilities, &[device.as_bytes()])
    }

    fn once_key(&self, event: &OpenedEvent) -> Vec<u8> {
        let digest = sha256(&[event.payload()]);
        self.key(Tag::Once, &[digest.get(..16).unwrap_or_default()])
    }
}

fn split(row: &[u8]) -> Result<(Features, &[u8]), ReadError> {
    let (features, caps) = row.split_first_chunk().ok_or_else(|| damaged(tables::INDEX))?;
    Ok((Features::from_bits(u64::from_be_bytes(*features)), caps))
}
