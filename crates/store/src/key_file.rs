//! The key file: the storage key, bare or under a passphrase. Drawn in `docs/formats/store.md`.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use dunlin_base::kdf::sha256;
use dunlin_base::keys::SymmetricKey;
use dunlin_base::passphrase::{Cost, SALT_BYTES};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::error::{Damage, OpenError};
use crate::header::Fields;

/// No key file is longer; what is, is not ours.
pub const KEY_FILE_BYTES_MAX: u64 = 256;

const MAGIC: [u8; 8] = *b"DUNLINky";
const VERSION: u8 = 1;
const KIND_BARE: u8 = 1;
const KIND_PASSPHRASE: u8 = 2;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const SUM_BYTES: usize = 32;

/// What a key file holds.
pub enum KeyFile {
    /// The key itself.
    Bare(SymmetricKey),
    /// The key under a passphrase.
    Wrapped(Wrapped),
}

/// A key under a passphrase.
pub struct Wrapped {
    cost: Cost,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    sealed: [u8; KEY_BYTES],
    tag: [u8; TAG_BYTES],
}

impl KeyFile {
    /// Puts `key` under `passphrase`.
    pub fn wrap(
        key: &SymmetricKey,
        passphrase: &str,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, OpenError> {
        let mut wrapped = Wrapped {
            cost: Cost::CHOSEN,
            salt: [0; SALT_BYTES],
            nonce: [0; NONCE_BYTES],
            sealed: *key.as_bytes(),
            tag: [0; TAG_BYTES],
        };
        rng.fill_bytes(&mut wrapped.salt);
        rng.fill_bytes(&mut wrapped.nonce);
        let cipher = wrapped.cipher(passphrase)?;
        let aad = wrapped.front();
        wrapped.tag = cipher
            .encrypt_in_place_detached(XNonce::from_slice(&wrapped.nonce), &aad, &mut wrapped.sealed)
            .map_err(|_| Damage::KeyFile)?
            .into();
        Ok(Self::Wrapped(wrapped))
    }

    /// Reads a key file.
    pub fn parse(bytes: &[u8]) -> Result<Self, OpenError> {
        let mut fields = Fields(bytes);
        if fields.take() != MAGIC {
            return Err(Damage::KeyFile.into());
        }
        let [version] = fields.take();
        if version > VERSION {
            return Err(OpenError::NewerFormat { found: version, known: VERSION });
        }
        let (body, sum) = bytes.split_at_checked(bytes.len().saturating_sub(SUM_BYTES)).unwrap_or_default();
        if sha256(&[body]) != *sum {
            return Err(Damage::KeyFile.into());
        }
        let [kind] = fields.take();
        let file = match kind {
            KIND_BARE => Self::Bare(SymmetricKey::from_bytes(*Zeroizing::new(fields.take()))),
            KIND_PASSPHRASE => Self::Wrapped(Wrapped::parse(&mut fields)?),
            _ => return Err(Damage::KeyFile.into()),
        };
        // A file of another length was not written by this release, whatever its checksum says.
        if fields.0.len() == SUM_BYTES { Ok(file) } else { Err(Damage::KeyFile.into()) }
    }

    /// Writes the key file.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize));
        match self {
            Self::Bare(key) => {
                bytes.extend(MAGIC);
                bytes.extend([VERSION, KIND_BARE]);
                bytes.extend(key.as_bytes());
            }
            Self::Wrapped(wrapped) => {
                bytes.extend(wrapped.front());
                bytes.extend(wrapped.nonce);
                bytes.extend(wrapped.sealed);
                bytes.extend(wrapped.tag);
            }
        }
        let sum = sha256(&[&bytes]);
        bytes.extend(sum);
        bytes
    }
}

impl Wrapped {
    /// Takes the key out.
    pub fn unwrap(&self, passphrase: &str) -> Result<SymmetricKey, OpenError> {
        let cipher = self.cipher(passphrase)?;
        let mut key = Zeroizing::new(self.sealed);
        cipher
            .decrypt_in_place_detached(
                XNonce::from_slice(&self.nonce),
                &self.front(),
                &mut *key,
                &self.tag.into(),
            )
            .map_err(|_| OpenError::WrongPassphrase)?;
        Ok(SymmetricKey::from_bytes(*key))
    }

    fn parse(fields: &mut Fields<'_>) -> Result<Self, OpenError> {
        let cost = Cost::from_bytes(&fields.take()).ok_or(Damage::KeyFile)?;
        Ok(Self {
            cost,
            salt: fields.take(),
            nonce: fields.take(),
            sealed: fields.take(),
            tag: fields.take(),
        })
    }

    /// Everything before the nonce. The seal covers it, so that nobody can cheapen a passphrase.
    fn front(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([VERSION, KIND_PASSPHRASE]);
        bytes.extend(self.cost.to_bytes());
        bytes.extend(self.salt);
        bytes
    }

    fn cipher(&self, passphrase: &str) -> Result<XChaCha20Poly1305, OpenError> {
        let key = self.cost.stretch(passphrase, &self.salt).ok_or(Damage::KeyFile)?;
        Ok(XChaCha20Poly1305::new((&*key).into()))
    }
}
