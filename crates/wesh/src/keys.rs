//! The keys of an account on one device, and the keys derived from them
//! (`spec/wesh-protocol.md` §1.2 to §1.5).
//!
//! # Layout of [`tables::KEYS`]
//!
//! | Key (ASCII) | Value |
//! |---|---|
//! | `accountSK` | account key |
//! | `accountProofSK` | account proof key |
//! | `deviceSK` | device key in the account group and in all contact groups |
//! | `memberDeviceSK_<hex group id>` | device key in that multi-member group |
//! | `importing` | nothing; there as long as an import has not ended |
//!
//! Every other value is a private key in libp2p form, 68 bytes. The names are those of the protocol's
//! keystore. What can be derived (member keys, contact pair keys) is not stored.

use dunlin_base::keys::KeyError;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{AccountId, DeviceId, GroupId, PublicKey, SecretKey};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::errors::{Code, Coded};
use crate::tables;

const ACCOUNT_KEY: &str = "accountSK";
const PROOF_KEY: &str = "accountProofSK";
const DEVICE_KEY: &str = "deviceSK";
/// What the names of device keys in multi-member groups begin with.
pub(crate) const GROUP_DEVICE_KEY: &str = "memberDeviceSK_";
/// Marks a store that an archive is being imported into: [`crate::archive::Import`].
pub(crate) const IMPORTING: &str = "importing";

/// Why keys could not be read from the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is stored under the name is no private key. The store is damaged: restore a backup.
    #[error("the stored key {name} is damaged")]
    Damaged {
        /// Under which name.
        name: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// Some keys of an account are there and others are not. The store is damaged: restore a backup.
    #[error("the stored key {name} is missing")]
    Missing {
        /// Under which name it should be.
        name: &'static str,
    },
    /// An import broke off. Import again, or use another directory.
    #[error("the import into this store was not completed: import again, or use another directory")]
    HalfImported,
}

/// Why the keys of an archive were not taken (`spec/wesh-protocol.md` §1.11). Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is an account in this store. Import into an empty one.
    #[error("this store already holds an account")]
    AccountExists,
    /// The account key is no Ed25519 private key in libp2p form. The archive is damaged.
    #[error("the archive holds no usable account key")]
    AccountKey(#[source] KeyError),
    /// The proof key is no Ed25519 private key in libp2p form. The archive is damaged.
    #[error("the archive holds no usable account proof key")]
    ProofKey(#[source] KeyError),
    /// Both keys are the same. The archive is damaged.
    #[error("account key and account proof key are the same")]
    SameKeyTwice,
}

impl Coded for ImportError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Read(_) => vec![Code::ErrDbRead],
            Self::AccountExists => vec![Code::ErrInvalidInput],
            Self::AccountKey(_) => vec![Code::ErrDeserialization, Code::ErrInvalidInput],
            Self::ProofKey(_) => vec![Code::ErrDeserialization, Code::ErrInvalidInput],
            Self::SameKeyTwice => vec![Code::ErrInvalidInput],
        }
    }
}

/// The private keys of an account on one device.
///
/// The proof key is an input to every member key of the account in multi-member groups. Even its public
/// half is a secret between the devices of the account (`spec/security.md` C7), so nothing here shows it.
#[derive(Clone, Debug)]
pub struct AccountKeys {
    /// The account key: who this is, and the member key in account and contact groups.
    pub(crate) account: SecretKey,
    pub(crate) proof: SecretKey,
    /// The device key in the account group and in all contact groups.
    pub(crate) device: SecretKey,
}

impl AccountKeys {
    /// Takes the three keys.
    pub fn new(account: SecretKey, proof: SecretKey, device: SecretKey) -> Self {
        Self { account, proof, device }
    }

    /// Makes the keys of a new account.
    pub fn generate(rng: &mut (impl RngCore + CryptoRng + ?Sized)) -> Self {
        Self { account: random_key(rng), proof: random_key(rng), device: random_key(rng) }
    }

    /// Takes over an account from an archive: both account keys in libp2p form, and a new device key.
    ///
    /// The caller stores what comes out.
    ///
    /// # Errors
    /// [`ImportError`], when a key cannot be used or `read` already holds an account.
    pub fn import(
        read: &dyn Read,
        account: &[u8],
        proof: &[u8],
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, ImportError> {
        if read.contains(tables::KEYS, ACCOUNT_KEY.as_bytes())? {
            return Err(ImportError::AccountExists);
        }
        let account = SecretKey::from_libp2p(account).map_err(ImportError::AccountKey)?;
        let proof = SecretKey::from_libp2p(proof).map_err(ImportError::ProofKey)?;
        if account.public() == proof.public() {
            return Err(ImportError::SameKeyTwice);
        }
        Ok(Self { account, proof, device: random_key(rng) })
    }

    /// Reads the keys of the account that lives in this store; `None` when there is none yet.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn load(read: &dyn Read) -> Result<Option<Self>, KeyStoreError> {
        if read.contains(tables::KEYS, IMPORTING.as_bytes())? {
            return Err(KeyStoreError::HalfImported);
        }
        let Some(account) = load_key(read, ACCOUNT_KEY)? else { return Ok(None) };
        let proof = load_key(read, PROOF_KEY)?.ok_or(KeyStoreError::Missing { name: PROOF_KEY })?;
        let device = load_key(read, DEVICE_KEY)?.ok_or(KeyStoreError::Missing { name: DEVICE_KEY })?;
        Ok(Some(Self { account, proof, device }))
    }

    /// Stores the keys.
    pub fn store(&self, tx: &mut Tx<'_>) {
        store_key(tx, ACCOUNT_KEY, &self.account);
        store_key(tx, PROOF_KEY, &self.proof);
        store_key(tx, DEVICE_KEY, &self.device);
    }

    /// Replaces the device key, and forgets those of multi-member groups, which are drawn anew when they are
    /// next needed. The others know this account by a new device from then on.
    pub(crate) fn renew_device(
        &mut self,
        tx: &mut Tx<'_>,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<(), ReadError> {
        let range = KeyRange::prefix(GROUP_DEVICE_KEY.as_bytes());
        for (name, key) in tx.collect(tables::KEYS, &range, Direction::Ascending, usize::MAX)? {
            drop(Zeroizing::new(key));
            tx.delete(tables::KEYS, &name);
        }
        self.device = random_key(rng);
        self.store(tx);
        Ok(())
    }

    /// Identifies the account.
    pub fn account_id(&self) -> AccountId {
        AccountId::new(self.account.public())
    }

    /// Identifies the device in the account group and in all contact groups.
    pub fn device_id(&self) -> DeviceId {
        DeviceId::new(self.device.public())
    }

    /// Derives the member key in the multi-member group `group` (`spec/wesh-protocol.md` §1.4).
    ///
    /// # Errors
    /// [`KeyError::NotContributory`] when the group id is no honest key (`spec/security.md` C1).
    pub fn member_key_in(&self, group: GroupId) -> Result<SecretKey, KeyError> {
        key_from_agreement(&self.proof, group.key())
    }

    /// Derives the key that this account and `other` share (`spec/wesh-protocol.md` §1.5).
    ///
    /// # Errors
    /// [`KeyError::NotContributory`] when `other` is no honest key (`spec/security.md` C1).
    pub fn contact_pair_key(&self, other: &AccountId) -> Result<SecretKey, KeyError> {
        key_from_agreement(&self.account, other.key())
    }
}

/// Draws a key from `rng`.
pub(crate) fn random_key(rng: &mut (impl RngCore + CryptoRng + ?Sized)) -> SecretKey {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *seed);
    SecretKey::from_seed(*seed)
}

fn key_from_agreement(own: &SecretKey, other: &PublicKey) -> Result<SecretKey, KeyError> {
    Ok(SecretKey::from_seed(*own.agree(other)?.as_bytes()))
}

/// Reads the key stored under `name`.
pub(crate) fn load_key(read: &dyn Read, name: &str) -> Result<Option<SecretKey>, KeyStoreError> {
    let Some(bytes) = read.get(tables::KEYS, name.as_bytes())? else { return Ok(None) };
    let bytes = Zeroizing::new(bytes);
    let key = SecretKey::from_libp2p(&bytes);
    key.map(Some).map_err(|source| KeyStoreError::Damaged { name: name.to_owned(), source })
}

/// Stores `key` under `name`.
pub(crate) fn store_key(tx: &mut Tx<'_>, name: &str, key: &SecretKey) {
    tx.put(tables::KEYS, name.as_bytes(), &key.to_libp2p());
}

#[cfg(test)]
mod tests {
    use dunlin_base::kv::MemoryStore;

    use super::*;
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    #[test]
    fn account_keys_survive_the_store() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        assert!(AccountKeys::load(&tx).unwrap().is_none());
        let keys = AccountKeys::generate(&mut ChaCha12Rng::seed_from_u64(1));
        keys.store(&mut tx);
        let loaded = AccountKeys::load(&tx).unwrap().unwrap();
        assert_eq!(loaded.account_id(), keys.account_id());
        assert_eq!(loaded.device_id(), keys.device_id());
        assert_eq!(loaded.proof.public(), keys.proof.public());
    }

    #[test]
    fn half_an_account_is_damage() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        AccountKeys::generate(&mut ChaCha12Rng::seed_from_u64(1)).store(&mut tx);
        tx.delete(tables::KEYS, PROOF_KEY.as_bytes());
        assert!(matches!(AccountKeys::load(&tx), Err(KeyStoreError::Missing { name: PROOF_KEY })));
        tx.put(tables::KEYS, PROOF_KEY.as_bytes(), b"short");
        assert!(matches!(AccountKeys::load(&tx), Err(KeyStoreError::Damaged { .. })));
    }

    #[test]
    fn derivations_match_the_published_vector() {
        // spec/wesh-protocol.md A.2.
        let seed = |first: u8| std::array::from_fn(|i| first + i as u8);
        let keys = AccountKeys::new(
            SecretKey::from_seed(seed(0x00)),
            SecretKey::from_seed(seed(0x40)),
            SecretKey::from_seed([1; 32]),
        );
        let b = SecretKey::from_seed(seed(0x20)).public();
        assert_eq!(
            keys.contact_pair_key(&AccountId::new(b)).unwrap().public().to_string(),
            "ee4984ec215065ae10dd91194ecdd161767868b3545e2bbd7d0291451cfe084a"
        );
        assert_eq!(
            keys.member_key_in(GroupId::new(b)).unwrap().public().to_string(),
            "f42aa00aabae18e62911557f6a5e48cf9ab616c5f2ecef87d39f493b8ed1df5c"
        );
    }

    #[test]
    fn secret_types_show_nothing() {
        let keys = AccountKeys::generate(&mut ChaCha12Rng::seed_from_u64(3));
        assert_eq!(
            format!("{keys:?}"),
            "AccountKeys { account: SecretKey(..), proof: SecretKey(..), device: SecretKey(..) }"
        );
    }
}
