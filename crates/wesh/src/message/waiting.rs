//! Messages that wait, each by itself (`spec/security.md` E7).
//!
//! A message waits for the chain of its device, for messages before it, or for its device to be known.
//! Nothing waits behind it: whatever can be opened is found by [`waiting`], whichever else cannot.

use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{DeviceId, EntryId, GroupId};

use super::chain::KeyUnavailable;
use super::rows::{Chain, counter_key, device_key};
use crate::tables::{self, damaged};

/// Lets the message `counter` of `device`, carried by `entry`, wait.
pub fn keep_waiting(tx: &mut Tx<'_>, group: &GroupId, device: &DeviceId, counter: u64, entry: EntryId) {
    if !planted::is(Bug::WaitingForgotten) {
        tx.put(tables::WAITING, &row_key(group, device, counter, &entry), &[]);
    }
}

/// Ends the waiting of a message, because it was opened or never will be.
pub fn stop_waiting(tx: &mut Tx<'_>, group: &GroupId, device: &DeviceId, counter: u64, entry: &EntryId) {
    if !planted::is(Bug::WaitingNotDeleted) {
        tx.delete(tables::WAITING, &row_key(group, device, counter, entry));
    }
}

/// Messages of `device` that are worth a try now, lowest counter first: those whose key is there, and those
/// that turn out never to have one.
///
/// Those further ahead are included if the window reaches them once the ones before them in the list are
/// opened. To be asked after a chain was registered, a device became known, or a message was opened.
/// Whatever does not open now and [never will](super::OpenMessageError::may_open_later) has to stop
/// waiting, or it is tried again each time.
///
/// # Errors
/// [`ReadError`].
pub fn waiting(
    read: &dyn Read,
    group: &GroupId,
    device: &DeviceId,
) -> Result<Vec<(u64, EntryId)>, ReadError> {
    let range = KeyRange::prefix(&device_key(group, device));
    if read.collect(tables::WAITING, &range, Direction::Ascending, 1)?.is_empty() {
        return Ok(Vec::new());
    }
    let mut reach = match Chain::load(read, group, device)? {
        None => return Ok(Vec::new()),
        Some(Chain::Own(_)) => Reach { chain: None, ahead: 0, last: None },
        Some(Chain::Other(chain)) => Reach { chain: Some(chain), ahead: 0, last: None },
    };
    let mut found = Vec::new();
    let mut intact = true;
    read.scan(tables::WAITING, &range, Direction::Ascending, &mut |key, _| {
        let Some((counter, entry)) = parse_row_key(key) else {
            intact = false;
            return ControlFlow::Break(());
        };
        if !reach.includes(counter) {
            return ControlFlow::Break(());
        }
        found.push((counter, entry));
        ControlFlow::Continue(())
    })?;
    if intact { Ok(found) } else { Err(damaged(tables::WAITING)) }
}

/// Devices of a group whose messages wait, and how many of each; `limit` messages are looked at.
///
/// # Errors
/// [`ReadError`].
pub fn waiting_devices(
    read: &dyn Read,
    group: &GroupId,
    limit: usize,
) -> Result<Vec<(DeviceId, usize)>, ReadError> {
    let mut devices: Vec<(DeviceId, usize)> = Vec::new();
    let mut left = limit;
    read.scan(tables::WAITING, &KeyRange::prefix(group.as_bytes()), Direction::Ascending, &mut |key, _| {
        let device = key.get(32..64).and_then(DeviceId::from_stored);
        match (device, devices.last_mut()) {
            (Some(device), Some((last, count))) if *last == device => *count += 1,
            (Some(device), _) => devices.push((device, 1)),
            (None, _) => {}
        }
        left = left.saturating_sub(1);
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(devices)
}

/// Whether the chain of a device is here.
///
/// # Errors
/// [`ReadError`].
pub fn has_chain(read: &dyn Read, group: &GroupId, device: &DeviceId) -> Result<bool, ReadError> {
    Ok(Chain::load(read, group, device)?.is_some())
}

/// How far the window reaches while a list of messages is opened one after another.
struct Reach {
    chain: Option<super::chain::OtherChain>,
    /// Messages found so far that move the window.
    ahead: u64,
    /// The last counter seen; a second entry with the same one does not move the window again.
    last: Option<u64>,
}

impl Reach {
    fn includes(&mut self, counter: u64) -> bool {
        let Some(chain) = &self.chain else { return true };
        let within = match chain.check(counter) {
            Ok(()) => true,
            Err(KeyUnavailable::BeyondWindow) => counter <= chain.window_end().saturating_add(self.ahead),
            Err(KeyUnavailable::SentBeforeKey | KeyUnavailable::AlreadyUsed) => return true,
        };
        if within && self.last != Some(counter) {
            self.ahead = self.ahead.saturating_add(1);
            self.last = Some(counter);
        }
        within
    }
}

fn row_key(group: &GroupId, device: &DeviceId, counter: u64, entry: &EntryId) -> Vec<u8> {
    [counter_key(group, device, counter).as_slice(), entry.digest()].concat()
}

fn parse_row_key(key: &[u8]) -> Option<(u64, EntryId)> {
    let (_, rest) = key.split_at_checked(64)?;
    let (counter, entry) = rest.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*counter), EntryId::from_slice(entry)?))
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;
    use dunlin_base::keys::SymmetricKey;
    use dunlin_base::kv::MemoryStore;

    use super::*;
    use crate::message::{ChainKey, OtherChain, register_chain_key};

    fn entry(counter: u64) -> EntryId {
        EntryId::of_block(&counter.to_be_bytes())
    }

    /// `spec/security.md` E7: those that never open do not keep the others closed.
    #[test]
    fn queue_no_block() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let group = GroupId::new(SecretKey::from_seed([7; 32]).public());
        let device = DeviceId::new(SecretKey::from_seed([8; 32]).public());
        for counter in [120, 3, 7, 6, 107, 106, 4] {
            keep_waiting(&mut tx, &group, &device, counter, entry(counter));
        }
        assert_eq!(waiting(&tx, &group, &device).unwrap(), []);

        let shared = ChainKey::new(SymmetricKey::from_bytes([1; 32]), 5);
        register_chain_key(&mut tx, &group, &device, OtherChain::new(shared).unwrap()).unwrap();
        let found = waiting(&tx, &group, &device).unwrap();
        let counters: Vec<u64> = found.iter().map(|(counter, _)| *counter).collect();
        // 3 and 4 were sent before the key, 6 to 105 lie in the window, and opening 6 and 7 makes it
        // reach 107; 120 goes on waiting.
        assert_eq!(counters, [3, 4, 6, 7, 106, 107]);
        assert_eq!(found[2].1, entry(6));

        for (counter, entry) in found {
            stop_waiting(&mut tx, &group, &device, counter, &entry);
        }
        assert_eq!(waiting(&tx, &group, &device).unwrap(), []);
    }
}
