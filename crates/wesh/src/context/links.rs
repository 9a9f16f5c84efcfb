//! What is remembered of contexts: where this device stands, and what others have shown.
//!
//! # Layout of [`tables::CONTEXTS`]
//!
//! A key is group, device, and two letters: the log, and what the row is. Numbers are big-endian.
//!
//! | Letters | Value |
//! |---|---|
//! | `M` or `E`, `o` | own operations: the number of the last one, and its link |
//! | `M` or `E`, `s` | those that were seen: [`Chain`], and the link of the last |
//! | `M`, `c` | the counter behind which the device signs no message without a context |

use dunlin_base::kv::{Read, ReadError, Tx};
use dunlin_base::{DeviceId, GroupId};

use super::{Context, MESSAGE_KIND, Place, link_of};
use crate::tables::{self, damaged};

/// One of the two logs of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Log {
    /// Events.
    Events,
    /// Messages.
    Messages,
}

impl Log {
    fn of(place: &Place<'_>) -> Self {
        if place.kind == MESSAGE_KIND { Self::Messages } else { Self::Events }
    }

    fn letter(self) -> u8 {
        match self {
            Self::Events => b'E',
            Self::Messages => b'M',
        }
    }
}

/// What was seen of the operations of one device in one log. Evidence for people; nothing is hidden for it, since any
/// member can seal a copy or keep something back.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chain {
    /// The number of the first that was seen.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// Numbers between these that were not seen.
    pub missing: u64,
    /// How often an operation named another predecessor than the one that is here, or two had one number.
    pub breaks: u32,
}

impl Chain {
    /// Notes an operation, whose value has the link `link`. `tip` is the link of the last one.
    fn note(&mut self, context: &Context, link: &[u8; 16], tip: &mut [u8; 16]) {
        let seq = context.seq();
        if self.last == 0 {
            *self = Self { first: seq, last: seq, ..Self::default() };
            *tip = *link;
            return;
        }
        if seq > self.last {
            let between = seq.saturating_sub(self.last).saturating_sub(1);
            if between == 0 && context.previous() != tip {
                self.breaks = self.breaks.saturating_add(1);
            }
            self.missing = self.missing.saturating_add(between);
            self.last = seq;
            *tip = *link;
        } else if seq == self.last {
            if link != tip {
                self.breaks = self.breaks.saturating_add(1);
            }
        } else if seq > self.first {
            self.missing = self.missing.saturating_sub(1);
        }
    }
}

/// The context of what `device`, which is this one, is about to say at `place`.
pub(crate) fn next_own(read: &dyn Read, device: &DeviceId, place: &Place<'_>) -> Result<Context, ReadError> {
    let (seq, previous) = match read.get(tables::CONTEXTS, &key(place.group, device, Log::of(place), b'o'))? {
        Some(row) => {
            let (seq, link) = row.split_first_chunk().ok_or_else(|| damaged(tables::CONTEXTS))?;
            let link = link.try_into().map_err(|_| damaged(tables::CONTEXTS))?;
            (u64::from_be_bytes(*seq), link)
        }
        None => (0, [0; 16]),
    };
    Ok(Context::new(place, previous, seq.saturating_add(1)))
}

/// Notes that this device has said `value`, which carries `context`, in `log`.
pub(crate) fn note_own(
    tx: &mut Tx<'_>,
    group: &GroupId,
    device: &DeviceId,
    log: Log,
    context: &Context,
    value: &[u8],
) {
    let row = [context.seq().to_be_bytes().as_slice(), &link_of(value)].concat();
    tx.put(tables::CONTEXTS, &key(group, device, log, b'o'), &row);
}

/// Notes an operation of a device that came and belongs where it is.
pub(crate) fn note_seen(
    tx: &mut Tx<'_>,
    group: &GroupId,
    device: &DeviceId,
    log: Log,
    context: &Context,
    value: &[u8],
) -> Result<(), ReadError> {
    let key = key(group, device, log, b's');
    let (mut chain, mut tip) = match tx.get(tables::CONTEXTS, &key)? {
        Some(row) => decode(&row).ok_or_else(|| damaged(tables::CONTEXTS))?,
        None => (Chain::default(), [0; 16]),
    };
    chain.note(context, &link_of(value), &mut tip);
    tx.put(tables::CONTEXTS, &key, &encode(&chain, &tip));
    Ok(())
}

/// What was seen of the operations of a device; none when it has shown no context.
pub(crate) fn chain_of(
    read: &dyn Read,
    group: &GroupId,
    device: &DeviceId,
    log: Log,
) -> Result<Option<Chain>, ReadError> {
    let Some(row) = read.get(tables::CONTEXTS, &key(group, device, log, b's'))? else { return Ok(None) };
    let (chain, _) = decode(&row).ok_or_else(|| damaged(tables::CONTEXTS))?;
    Ok(Some(chain))
}

/// The counter behind which a device signs no message without a context; none when that is not known.
pub(crate) fn contexts_since(
    read: &dyn Read,
    group: &GroupId,
    device: &DeviceId,
) -> Result<Option<u64>, ReadError> {
    let Some(row) = read.get(tables::CONTEXTS, &key(group, device, Log::Messages, b'c'))? else {
        return Ok(None);
    };
    let counter = row.as_slice().try_into().map_err(|_| damaged(tables::CONTEXTS))?;
    Ok(Some(u64::from_be_bytes(counter)))
}

/// Notes that a device signs no message without a context behind `counter`. Says whether that is new.
pub(crate) fn require_contexts(
    tx: &mut Tx<'_>,
    group: &GroupId,
    device: &DeviceId,
    counter: u64,
) -> Result<bool, ReadError> {
    if contexts_since(tx, group, device)?.is_some_and(|since| since <= counter) {
        return Ok(false);
    }
    tx.put(tables::CONTEXTS, &key(group, device, Log::Messages, b'c'), &counter.to_be_bytes());
    Ok(true)
}

fn key(group: &GroupId, device: &DeviceId, log: Log, row: u8) -> Vec<u8> {
    [group.as_bytes().as_slice(), device.as_bytes(), &[log.letter(), row]].concat()
}

fn encode(chain: &Chain, tip: &[u8; 16]) -> Vec<u8> {
    let numbers = [chain.first, chain.last, chain.missing].map(u64::to_be_bytes);
    [numbers.as_flattened(), &chain.breaks.to_be_bytes(), tip].concat()
}

fn decode(row: &[u8]) -> Option<(Chain, [u8; 16])> {
    let (first, row) = row.split_first_chunk()?;
    let (last, row) = row.split_first_chunk()?;
    let (missing, row) = row.split_first_chunk()?;
    let (breaks, tip) = row.split_first_chunk()?;
    let chain = Chain {
        first: u64::from_be_bytes(*first),
        last: u64::from_be_bytes(*last),
        missing: u64::from_be_bytes(*missing),
        breaks: u32::from_be_bytes(*breaks),
    };
    Some((chain, tip.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;
    use dunlin_base::kv::MemoryStore;

    use super::*;

    #[test]
    fn a_chain_follows_gaps_and_breaks_are_counted() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let group = GroupId::new(SecretKey::from_seed([1; 32]).public());
        let device = DeviceId::new(SecretKey::from_seed([2; 32]).public());
        let mut said = Vec::new();
        for counter in 1..=6_u64 {
            let place = Place::message(&group, counter);
            let context = next_own(&tx, &device, &place).unwrap();
            assert_eq!(context.seq(), counter);
            let value = counter.to_be_bytes();
            note_own(&mut tx, &group, &device, Log::Messages, &context, &value);
            said.push((context, value));
        }
        assert_eq!(said[0].0.previous(), &[0; 16]);
        assert_eq!(said[1].0.previous(), &link_of(&said[0].1));

        let mut see = |which: usize, value: &[u8]| {
            note_seen(&mut tx, &group, &device, Log::Messages, &said[which].0, value).unwrap();
            chain_of(&tx, &group, &device, Log::Messages).unwrap().unwrap()
        };
        see(1, &said[1].1);
        assert_eq!(see(2, &said[2].1), Chain { first: 2, last: 3, missing: 0, breaks: 0 });
        assert_eq!(see(0, &said[0].1).missing, 0, "what was before the first is not missed");
        assert_eq!(see(4, &said[4].1), Chain { first: 2, last: 5, missing: 1, breaks: 0 });
        assert_eq!(see(3, &said[3].1), Chain { first: 2, last: 5, missing: 0, breaks: 0 });
        assert_eq!(see(4, b"something else with its number").breaks, 1);
        assert_eq!(see(5, &said[5].1).breaks, 1);
        assert_eq!(chain_of(&tx, &group, &device, Log::Events).unwrap(), None);
    }

    #[test]
    fn contexts_are_required_from_the_lowest_counter_on() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let group = GroupId::new(SecretKey::from_seed([1; 32]).public());
        let device = DeviceId::new(SecretKey::from_seed([2; 32]).public());
        assert_eq!(contexts_since(&tx, &group, &device).unwrap(), None);
        assert!(require_contexts(&mut tx, &group, &device, 7).unwrap());
        assert!(!require_contexts(&mut tx, &group, &device, 9).unwrap());
        assert!(require_contexts(&mut tx, &group, &device, 3).unwrap());
        assert_eq!(contexts_since(&tx, &group, &device).unwrap(), Some(3));
    }
}
