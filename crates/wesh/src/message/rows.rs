//! Chains in storage.

use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{Read, ReadError, Tx};
use dunlin_base::{DeviceId, GroupId};
use zeroize::Zeroizing;

use super::chain::{ChainKey, OtherChain};
use crate::tables::{self, damaged};

const OWN: u8 = 1;
const OTHER: u8 = 2;

/// A row of [`tables::CHAINS`].
pub(super) enum Chain {
    /// The chain of this device, at its newest message.
    Own(ChainKey),
    /// The chain of another device.
    Other(OtherChain),
}

impl Chain {
    pub fn load(read: &dyn Read, group: &GroupId, device: &DeviceId) -> Result<Option<Self>, ReadError> {
        let Some(row) = read.get(tables::CHAINS, &device_key(group, device))? else { return Ok(None) };
        let row = Zeroizing::new(row);
        Self::decode(&row).map(Some).ok_or_else(|| damaged(tables::CHAINS))
    }

    pub fn store(&self, tx: &mut Tx<'_>, group: &GroupId, device: &DeviceId) {
        tx.put(tables::CHAINS, &device_key(group, device), &self.encode());
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut row = Zeroizing::new(Vec::with_capacity(49));
        match self {
            Self::Own(state) => {
                row.push(OWN);
                put_state(&mut row, state);
            }
            Self::Other(chain) => {
                row.reserve(chain.skipped.len().saturating_mul(40));
                row.push(OTHER);
                row.extend_from_slice(&chain.start.to_be_bytes());
                put_state(&mut row, &chain.tip);
                for (counter, key) in &chain.skipped {
                    row.extend_from_slice(&counter.to_be_bytes());
                    row.extend_from_slice(key.as_bytes());
                }
            }
        }
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (kind, rest) = row.split_first()?;
        match *kind {
            OWN => match take_state(rest)? {
                (state, []) => Some(Self::Own(state)),
                _ => None,
            },
            OTHER => {
                let (start, rest) = take_counter(rest)?;
                let (tip, rest) = take_state(rest)?;
                let (entries, end) = rest.as_chunks::<40>();
                let skipped = entries.iter().map(|entry| {
                    let (counter, key) = take_counter(entry)?;
                    Some((counter, SymmetricKey::from_slice(key)?))
                });
                let skipped = skipped.collect::<Option<Vec<_>>>()?;
                end.is_empty().then_some(Self::Other(OtherChain { start, tip, skipped }))
            }
            _ => None,
        }
    }
}

fn put_state(row: &mut Vec<u8>, state: &ChainKey) {
    row.extend_from_slice(&state.counter().to_be_bytes());
    row.extend_from_slice(state.key().as_bytes());
}

fn take_state(row: &[u8]) -> Option<(ChainKey, &[u8])> {
    let (counter, rest) = take_counter(row)?;
    let (key, rest) = rest.split_at_checked(32)?;
    Some((ChainKey::new(SymmetricKey::from_slice(key)?, counter), rest))
}

fn take_counter(row: &[u8]) -> Option<(u64, &[u8])> {
    let (counter, rest) = row.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*counter), rest))
}

/// Takes the chain of another device; says whether it is new (`spec/wesh-protocol.md` §4.5).
///
/// The first chain of a device in a group stays for ever: a later one is ignored, as Go nodes do.
///
/// # Errors
/// [`ReadError`].
pub fn register_chain_key(
    tx: &mut Tx<'_>,
    group: &GroupId,
    device: &DeviceId,
    shared: OtherChain,
) -> Result<bool, ReadError> {
    if tx.contains(tables::CHAINS, &device_key(group, device))? {
        return Ok(false);
    }
    Chain::Other(shared).store(tx, group, device);
    Ok(true)
}

/// What is known of a device's chain, for inspection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainView {
    /// The own chain at its newest message; another one at the end of its window.
    pub state: ChainKey,
    /// Counters of messages whose key is there and unused, as inclusive ranges, lowest first.
    pub unused: Vec<(u64, u64)>,
}

/// Shows the chain of `device` in `group`, if there is one.
///
/// # Errors
/// [`ReadError`].
pub fn inspect_chain(
    read: &dyn Read,
    group: &GroupId,
    device: &DeviceId,
) -> Result<Option<ChainView>, ReadError> {
    let Some(chain) = Chain::load(read, group, device)? else { return Ok(None) };
    let (state, counters) = match chain {
        Chain::Own(state) => (state, own_unopened(read, group, device)?),
        Chain::Other(chain) => {
            let mut counters: Vec<u64> = chain.skipped.iter().map(|(counter, _)| *counter).collect();
            counters.extend(chain.tip.counter().saturating_add(1)..=chain.window_end());
            let end = chain.window_end();
            let mut state = chain.tip;
            while state.counter() < end {
                let Some((next, _)) = state.step(group) else { break };
                state = next;
            }
            (state, counters)
        }
    };
    Ok(Some(ChainView { state, unused: ranges(&counters) }))
}

/// Counters of own messages that were sealed and not opened.
fn own_unopened(read: &dyn Read, group: &GroupId, device: &DeviceId) -> Result<Vec<u64>, ReadError> {
    use dunlin_base::kv::{Direction, KeyRange};
    let range = KeyRange::prefix(&device_key(group, device));
    let rows = read.collect(tables::MESSAGE_KEYS, &range, Direction::Ascending, usize::MAX)?;
    let unopened = rows.iter().filter(|(_, row)| row.len() == 32);
    let counters = unopened.map(|(key, _)| Some(u64::from_be_bytes(*key.last_chunk::<8>()?)));
    counters.collect::<Option<_>>().ok_or_else(|| damaged(tables::MESSAGE_KEYS))
}

fn ranges(ascending: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &counter in ascending {
        match ranges.last_mut() {
            Some((_, end)) if end.checked_add(1) == Some(counter) => *end = counter,
            _ => ranges.push((counter, counter)),
        }
    }
    ranges
}

/// The key of rows that belong to a device of a group.
pub(super) fn device_key(group: &GroupId, device: &DeviceId) -> [u8; 64] {
    let mut key = [0; 64];
    let (first, second) = key.split_at_mut(32);
    first.copy_from_slice(group.as_bytes());
    second.copy_from_slice(device.as_bytes());
    key
}

/// The key of rows that belong to a message of a device.
pub(super) fn counter_key(group: &GroupId, device: &DeviceId, counter: u64) -> [u8; 72] {
    let mut key = [0; 72];
    let (first, second) = key.split_at_mut(64);
    first.copy_from_slice(&device_key(group, device));
    second.copy_from_slice(&counter.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;
    use dunlin_base::kv::MemoryStore;

    use super::*;

    fn state(counter: u64) -> ChainKey {
        ChainKey::new(SymmetricKey::from_bytes([1; 32]), counter)
    }

    #[test]
    fn rows_round_trip_and_refuse_damage() {
        let group = GroupId::new(SecretKey::from_seed([7; 32]).public());
        let mut other = OtherChain::new(state(3)).unwrap();
        other.take(&group, 6).unwrap();
        for chain in [Chain::Own(state(9)), Chain::Other(other)] {
            let row = chain.encode();
            assert_eq!(Chain::decode(&row).unwrap().encode(), row);
            for end in 0..row.len() {
                assert!(Chain::decode(&row[..end]).is_none_or(|_| (end - 49).is_multiple_of(40)));
            }
        }
    }

    #[test]
    fn first_chain_of_a_device_stays() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let group = GroupId::new(SecretKey::from_seed([7; 32]).public());
        let device = DeviceId::new(SecretKey::from_seed([8; 32]).public());
        let offer = |counter| OtherChain::new(state(counter)).unwrap();
        assert!(register_chain_key(&mut tx, &group, &device, offer(5)).unwrap());
        assert!(!register_chain_key(&mut tx, &group, &device, offer(0)).unwrap());
        let view = inspect_chain(&tx, &group, &device).unwrap().unwrap();
        assert_eq!(view.unused, [(6, 105)]);
        assert_eq!(view.state.counter(), 105);
    }

    #[test]
    fn ranges_join_neighbours() {
        assert_eq!(ranges(&[1, 2, 3, 5, 8, 9]), [(1, 3), (5, 5), (8, 9)]);
        assert_eq!(ranges(&[]), []);
    }
}
