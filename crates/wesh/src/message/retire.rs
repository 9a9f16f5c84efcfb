//! Giving up the chain of a device that another one runs as well (`spec/security.md` E3).

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{DeviceId, GroupId};
use dunlin_proto::protocol::MessageEnvelope;
use prost::Message as _;
use zeroize::Zeroizing;

use super::chain::{KEY_WINDOW, OtherChain};
use super::claims::{Claims, StoredKey, mark_of};
use super::envelope::{Headers, proven};
use super::rows::Chain;
use crate::context::{Place, Placed};
use crate::group::Group;
use crate::tables::{self, damaged};

/// Whether the device itself signed this message and did so elsewhere: its chain is an own one, and the signature is not
/// among those that were made here.
///
/// All members know the chain, so that somebody used it proves nothing; the signature does.
///
/// # Errors
/// [`ReadError`].
pub fn is_made_elsewhere(
    read: &dyn Read,
    group: &Group,
    headers: &Headers,
    envelope: &[u8],
) -> Result<bool, ReadError> {
    let id = group.id();
    let Some(signature) = headers.signature else { return Ok(false) };
    let Some(Chain::Own(mut state)) = Chain::load(read, &id, &headers.device)? else { return Ok(false) };
    if (Claims { group: &id, device: &headers.device }).is_noted(read, &mark_of(&signature))? {
        return Ok(false);
    }
    let key = match StoredKey::load(read, &id, &headers.device, headers.counter)? {
        Some(stored) => stored.key,
        None => {
            let ahead = headers.counter.saturating_sub(state.counter());
            if ahead == 0 || ahead > KEY_WINDOW {
                return Ok(false);
            }
            loop {
                let Some((next, key)) = state.step(&id) else { return Ok(false) };
                if next.counter() == headers.counter {
                    break key;
                }
                state = next;
            }
        }
    };
    let Ok(envelope) = MessageEnvelope::decode(envelope) else { return Ok(false) };
    let Ok(clear) = proven(&key, headers, &envelope.message) else { return Ok(false) };
    // What this device signed for another group, and somebody put here, shows nothing.
    let place = Place::message(&id, headers.counter);
    Ok(Placed::of_message(&clear, &place) != Placed::Elsewhere)
}

/// Makes all own chains those of other devices, from the messages on that were not sent here, and forgets the
/// boxes that give them away: nothing is sealed with them again.
///
/// # Errors
/// [`ReadError`].
pub fn retire_own_chains(tx: &mut Tx<'_>) -> Result<(), ReadError> {
    let all = KeyRange::default();
    for (key, row) in tx.collect(tables::CHAINS, &all, Direction::Ascending, usize::MAX)? {
        drop(Zeroizing::new(row));
        let parsed = key
            .split_at_checked(32)
            .and_then(|(group, device)| Some((GroupId::from_stored(group)?, DeviceId::from_stored(device)?)));
        let (group, device) = parsed.ok_or_else(|| damaged(tables::CHAINS))?;
        let Some(Chain::Own(state)) = Chain::load(tx, &group, &device)? else { continue };
        match OtherChain::new(state) {
            Some(chain) => Chain::Other(chain).store(tx, &group, &device),
            None => tx.delete(tables::CHAINS, &key),
        }
    }
    for (key, _) in tx.collect(tables::CHAIN_BOXES, &all, Direction::Ascending, usize::MAX)? {
        tx.delete(tables::CHAIN_BOXES, &key);
    }
    Ok(())
}
