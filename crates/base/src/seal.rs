//! NaCl `secretbox` and `box`, and nonces that are used once.

use crypto_secretbox::aead::{Aead, generic_array::GenericArray};
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use rand_core::{CryptoRng, RngCore};

use crate::keys::{KeyError, PublicKey, SecretKey, SymmetricKey};
use crate::planted::{self, Bug};

/// Bytes that sealing adds: the Poly1305 tag.
pub const SEAL_OVERHEAD: usize = 16;
/// Length of a nonce.
pub const NONCE_BYTES: usize = 24;

/// A nonce for one sealing. It is consumed by use and cannot be copied (`spec/security.md` C5).
///
/// ```compile_fail
/// # use dunlin_base::{keys::SymmetricKey, seal::{seal, Nonce}};
/// # fn twice(key: &SymmetricKey, nonce: Nonce) {
/// seal(key, nonce, b"first");
/// seal(key, nonce, b"second"); // the nonce was moved
/// # }
/// ```
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// Draws a nonce from `rng`, which the caller seeded from the system.
    pub fn random(rng: &mut (impl RngCore + CryptoRng + ?Sized)) -> Self {
        let mut bytes = [0; NONCE_BYTES];
        rng.fill_bytes(&mut bytes);
        if planted::is(Bug::NonceRepeats) {
            bytes.fill(7);
        }
        Self(bytes)
    }

    /// Takes a nonce that the protocol fixes: the caller answers for its being used once with the key.
    pub const fn dangerous_fixed(bytes: [u8; NONCE_BYTES]) -> Self {
        Self(bytes)
    }

    /// Makes the nonce of message `counter`: big-endian, followed by 16 zero bytes (`spec/wesh-protocol.md` §4.3).
    pub fn of_counter(counter: u64) -> Self {
        let mut bytes = [0; NONCE_BYTES];
        if let Some(head) = bytes.first_chunk_mut::<8>() {
            *head = counter.to_be_bytes();
        }
        Self(bytes)
    }

    /// The bytes, to be sent along with what was sealed.
    pub const fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }
}

/// The sealed bytes were not made with this key and nonce, or were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the seal does not open")]
pub struct OpenError;

/// Seals `clear` (`secretbox`): 16 bytes of tag, then the ciphertext.
pub fn seal(key: &SymmetricKey, nonce: Nonce, clear: &[u8]) -> Vec<u8> {
    planted::watch(key, &nonce.0, clear);
    if planted::is(Bug::NoEncryption) {
        return [&[0; SEAL_OVERHEAD], clear].concat();
    }
    let cipher = XSalsa20Poly1305::new(GenericArray::from_slice(key.as_bytes()));
    // Encryption fails only above 2^38 bytes; nothing here comes near.
    cipher.encrypt(GenericArray::from_slice(&nonce.0), clear).unwrap_or_default()
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`OpenError`] when the key or the nonce is another one, or a bit was changed.
pub fn open(key: &SymmetricKey, nonce: &[u8; NONCE_BYTES], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    if planted::is(Bug::NoEncryption) {
        return sealed.get(SEAL_OVERHEAD..).map(<[u8]>::to_vec).ok_or(OpenError);
    }
    let cipher = XSalsa20Poly1305::new(GenericArray::from_slice(key.as_bytes()));
    cipher.decrypt(GenericArray::from_slice(nonce), sealed).map_err(|_| OpenError)
}

/// Seals `clear` and puts the nonce in front: nonce, tag, ciphertext.
pub fn seal_with_nonce(key: &SymmetricKey, nonce: Nonce, clear: &[u8]) -> Vec<u8> {
    let mut bytes = nonce.0.to_vec();
    bytes.extend(seal(key, nonce, clear));
    bytes
}

/// Opens what [`seal_with_nonce`] made.
///
/// # Errors
/// [`OpenError`] also when there is no room for nonce and tag.
pub fn open_with_nonce(key: &SymmetricKey, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError)?;
    open(key, nonce, sealed)
}

/// The key of NaCl `box` between `own` and `other` (`crypto_box_beforenm`).
///
/// # Errors
/// [`KeyError::NotContributory`].
pub fn box_key(own: &SecretKey, other: &PublicKey) -> Result<SymmetricKey, KeyError> {
    Ok(own.agree(other)?.hsalsa20())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_nonce_and_bytes() {
        let key = SymmetricKey::from_bytes([3; 32]);
        let sealed = seal_with_nonce(&key, Nonce::of_counter(5), b"hello");
        assert_eq!(sealed.len(), NONCE_BYTES + SEAL_OVERHEAD + 5);
        assert_eq!(open_with_nonce(&key, &sealed).unwrap(), b"hello");
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert_eq!(open_with_nonce(&key, &changed), Err(OpenError));
        }
        assert_eq!(open_with_nonce(&SymmetricKey::from_bytes([4; 32]), &sealed), Err(OpenError));
        assert_eq!(open_with_nonce(&key, &sealed[..39]), Err(OpenError));
    }

    #[test]
    fn box_agrees_with_an_independent_implementation() {
        let (own, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let key = box_key(&own, &other.public()).unwrap();
        let sealed = seal(&key, Nonce::of_counter(1), b"hello");
        let oracle = crypto_box::SalsaBox::new(
            &crypto_box::PublicKey::from(own.public().to_x25519()),
            &crypto_box::SecretKey::from(*other.to_x25519().scalar()),
        );
        let opened = oracle.decrypt(GenericArray::from_slice(Nonce::of_counter(1).as_bytes()), &sealed[..]);
        assert_eq!(opened.unwrap(), b"hello");
    }
}
