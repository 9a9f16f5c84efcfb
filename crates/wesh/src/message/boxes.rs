//! Giving the own chain to members, and taking the chains of other devices (`spec/wesh-protocol.md` §4.4).

use dunlin_base::keys::{KeyError, SymmetricKey};
use dunlin_base::kv::{Read, ReadError, Tx};
use dunlin_base::planted::{self, Bug};
use dunlin_base::seal::{NONCE_BYTES, Nonce, box_key, open, seal};
use dunlin_base::{DeviceId, GroupId, MemberId, SecretKey};
use dunlin_proto::protocol::DeviceChainKey;
use prost::Message as _;
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use super::chain::{ChainKey, OtherChain};
use super::envelope::own_chain;
use super::rows::device_key;
use crate::errors::{Code, Coded};
use crate::group::{Group, OwnMember};
use crate::tables;

/// Why a chain-key box was not made or does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainBoxError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No secret can be shared with the other key (`spec/security.md` C1). Ignore the member or device.
    #[error("the key of the other side cannot be used: {0}")]
    Key(#[from] KeyError),
    /// The box was made by another device, for another member or group, or was changed. Ignore it.
    #[error("the chain-key box does not open")]
    DoesNotOpen,
    /// The box holds something else than a chain key. Ignore it.
    #[error("the chain-key box holds no chain key")]
    Malformed,
    /// The counter is out of bounds (`spec/security.md` C6). Ignore it.
    #[error("the chain key starts at message {counter}, too high")]
    CounterTooHigh {
        /// Where it starts.
        counter: u64,
    },
}

impl Coded for ChainBoxError {
    fn codes(&self) -> Vec<Code> {
        vec![match self {
            Self::Read(_) => Code::ErrDbRead,
            Self::Key(_) => Code::ErrCryptoKeyConversion,
            Self::DoesNotOpen => Code::ErrCryptoDecrypt,
            Self::Malformed => Code::ErrDeserialization,
            Self::CounterTooHigh { .. } => Code::ErrInvalidInput,
        }]
    }
}

/// The payload of event 2 that gives the own chain to `dest`.
///
/// The nonce is the same for all boxes of a group, so a member gets one box from this device, ever: it is
/// sealed when first asked for, stored in `tx`, and the same bytes are given out from then on
/// (`spec/security.md` E2). The state inside is that of the first time.
///
/// # Errors
/// [`ChainBoxError::Read`] or [`ChainBoxError::Key`].
pub fn own_chain_key_box(
    tx: &mut Tx<'_>,
    group: &Group,
    own: &OwnMember,
    dest: &MemberId,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Result<Vec<u8>, ChainBoxError> {
    let id = group.id();
    let row_key = [&device_key(&id, &own.device_id()), dest.as_bytes().as_slice()].concat();
    if let Some(sealed) = tx.get(tables::CHAIN_BOXES, &row_key)?
        && !planted::is(Bug::ChainBoxAnew)
    {
        return Ok(sealed);
    }
    let chain = own_chain(tx, &id, own, rng)?;
    let sealed = dangerous_seal_chain_key(&id, &own.device, dest, &chain)?;
    tx.put(tables::CHAIN_BOXES, &row_key, &sealed);
    Ok(sealed)
}

/// Seals a state of the chain of `device` for a member.
///
/// Dangerous, because two different states sealed for the same device, member and group give both away:
/// the nonce is fixed. Use [`own_chain_key_box`], which seals once.
///
/// # Errors
/// [`KeyError::NotContributory`].
pub fn dangerous_seal_chain_key(
    group: &GroupId,
    device: &SecretKey,
    dest: &MemberId,
    chain: &ChainKey,
) -> Result<Vec<u8>, KeyError> {
    let clear = DeviceChainKey { chain_key: chain.key().as_bytes().to_vec(), counter: chain.counter() };
    let clear = Zeroizing::new(clear.encode_to_vec());
    let nonce = Nonce::dangerous_fixed(group_nonce(group));
    Ok(seal(&box_key(device, dest.key())?, nonce, &clear))
}

/// Opens the payload of an event 2 of `device` that is addressed to the own member.
///
/// # Errors
/// [`ChainBoxError`], all but [`ChainBoxError::Read`].
pub fn open_chain_key_box(
    group: &Group,
    own: &OwnMember,
    device: &DeviceId,
    sealed: &[u8],
) -> Result<OtherChain, ChainBoxError> {
    let key = box_key(&own.member, device.key())?;
    let clear = open(&key, &group_nonce(&group.id()), sealed).map_err(|_| ChainBoxError::DoesNotOpen)?;
    let clear = Zeroizing::new(clear);
    let shared = DeviceChainKey::decode(clear.as_slice()).map_err(|_| ChainBoxError::Malformed)?;
    let chain_key = Zeroizing::new(shared.chain_key);
    let chain_key = SymmetricKey::from_slice(&chain_key).ok_or(ChainBoxError::Malformed)?;
    let counter = shared.counter;
    OtherChain::new(ChainKey::new(chain_key, counter)).ok_or(ChainBoxError::CounterTooHigh { counter })
}

/// The nonce of all chain-key boxes of a group: the first bytes of its id.
fn group_nonce(group: &GroupId) -> [u8; NONCE_BYTES] {
    *group.as_bytes().first_chunk().unwrap_or(&[0; NONCE_BYTES])
}

#[cfg(test)]
mod tests {
    use dunlin_base::kv::{Durability, MemoryStore, Store};
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::message;

    fn member(first: u8) -> OwnMember {
        OwnMember { member: SecretKey::from_seed([first; 32]), device: SecretKey::from_seed([first + 1; 32]) }
    }

    /// `spec/security.md` E2: whatever was sent in between, and whatever crashed.
    #[test]
    fn chain_box_once() {
        let (store, mut rng) = (MemoryStore::default(), ChaCha12Rng::seed_from_u64(1));
        let (group, _) = Group::new_multi_member(&mut rng);
        let (own, other) = (member(10), member(20));
        let mut tx = Tx::new(&store);
        let first = own_chain_key_box(&mut tx, &group, &own, &other.member_id(), &mut rng).unwrap();
        store.commit(tx.into_batch(), Durability::Synced).unwrap();

        let mut tx = Tx::new(&store);
        message::seal(&mut tx, &group, &own, b"in between", crate::padding::Padding::Buckets, &mut rng)
            .unwrap();
        let lost = own_chain_key_box(&mut tx, &group, &own, &member(30).member_id(), &mut rng).unwrap();
        let again = own_chain_key_box(&mut tx, &group, &own, &other.member_id(), &mut rng).unwrap();
        assert_eq!(again, first);
        drop(tx);

        let mut tx = Tx::new(&store);
        let after_crash = own_chain_key_box(&mut tx, &group, &own, &other.member_id(), &mut rng).unwrap();
        assert_eq!(after_crash, first);
        assert_ne!(lost, first);
        let opened = open_chain_key_box(&group, &other, &own.device_id(), &first).unwrap();
        assert_eq!(opened.window_end(), message::KEY_WINDOW);
    }

    #[test]
    fn box_matches_the_published_vector() {
        // spec/wesh-protocol.md A.5.
        let seed = |first: u8| SecretKey::from_seed(std::array::from_fn(|i| first + i as u8));
        let id = hex::decode("9a029b1b526b7185770b2dc7da55a19b5b11dac5ca44da577c8671a807308d83").unwrap();
        let chain = ChainKey::new(SymmetricKey::from_bytes([0x42; 32]), 0);
        let dest = MemberId::new(seed(0x20).public());
        let sealed =
            dangerous_seal_chain_key(&GroupId::from_bytes(&id).unwrap(), &seed(0x00), &dest, &chain).unwrap();
        assert_eq!(
            hex::encode(sealed),
            "0a2cb283bf47d2454fbb9824116ef6961ae66b0cf362593a665348fe5179d735e61ab69fab80ec7102f959beda913cbdb3e4"
        );
    }

    #[test]
    fn only_the_addressed_member_opens_and_bounds_hold() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (group, _) = Group::new_multi_member(&mut rng);
        let (own, other) = (member(10), member(20));
        let sealed = |counter| {
            let chain = ChainKey::new(SymmetricKey::from_bytes([1; 32]), counter);
            dangerous_seal_chain_key(&group.id(), &own.device, &other.member_id(), &chain).unwrap()
        };
        assert!(open_chain_key_box(&group, &other, &own.device_id(), &sealed(7)).is_ok());
        let by_another = open_chain_key_box(&group, &member(30), &own.device_id(), &sealed(7));
        assert!(matches!(by_another, Err(ChainBoxError::DoesNotOpen)));
        let too_high = open_chain_key_box(&group, &other, &own.device_id(), &sealed(u64::MAX));
        assert!(matches!(too_high, Err(ChainBoxError::CounterTooHigh { counter: u64::MAX })));
    }
}
