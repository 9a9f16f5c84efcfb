//! Ed25519 keys, and the X25519 agreement made with them (`spec/wesh-protocol.md` §1.3).

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha512};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::planted::{self, Bug};

/// Prefix of the libp2p protobuf form of an Ed25519 public key: `{Type = 1, Data = 32 bytes}`.
const LIBP2P_PUBLIC_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// Prefix of the libp2p protobuf form of an Ed25519 private key: `{Type = 1, Data = 64 bytes}`.
const LIBP2P_SECRET_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x40];

/// Why bytes are not a usable key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The length is wrong. The bytes are something else.
    #[error("a key of {expected} bytes was expected, {found} came")]
    Length {
        /// What the form requires.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// The bytes are no canonical point on the curve, or one of small order (`spec/security.md` C2).
    #[error("the bytes are not a point of the Ed25519 group that may be used as a key")]
    NotAPoint,
    /// The libp2p form names another key type than Ed25519, or its two halves do not belong together.
    #[error("the key is not an Ed25519 key in libp2p form")]
    NotEd25519,
    /// The other side contributed nothing to the shared secret (`spec/security.md` C1). Drop the peer.
    #[error("the key agreement was not contributory")]
    NotContributory,
}

/// The signature does not belong to this key and these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

/// An Ed25519 public key: a canonical encoding of a point that is not of small order.
#[derive(Clone, Copy, Eq, PartialEq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Parses a raw key.
    ///
    /// # Errors
    /// [`KeyError::Length`] or [`KeyError::NotAPoint`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let raw: [u8; 32] =
            bytes.try_into().map_err(|_| KeyError::Length { expected: 32, found: bytes.len() })?;
        let point = CompressedEdwardsY(raw).decompress().ok_or(KeyError::NotAPoint)?;
        if point.is_small_order() || point.compress().0 != raw {
            return Err(KeyError::NotAPoint);
        }
        Ok(Self(raw))
    }

    /// Takes a key back out of the node's own store, into which only checked keys go. `None` unless it has 32
    /// bytes.
    ///
    /// Checking it again takes longer than reading it. Bytes from anywhere else go through [`Self::from_bytes`].
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Parses the libp2p protobuf form, exactly 36 bytes.
    ///
    /// # Errors
    /// [`KeyError::NotEd25519`] for any other form or key type, [`KeyError::NotAPoint`] for a bad key.
    pub fn from_libp2p(bytes: &[u8]) -> Result<Self, KeyError> {
        let raw = bytes.strip_prefix(&LIBP2P_PUBLIC_PREFIX).ok_or(KeyError::NotEd25519)?;
        Self::from_bytes(raw)
    }

    /// The libp2p protobuf form, 36 bytes.
    pub fn to_libp2p(&self) -> [u8; 36] {
        let mut bytes = [0; 36];
        let (prefix, raw) = bytes.split_at_mut(4);
        prefix.copy_from_slice(&LIBP2P_PUBLIC_PREFIX);
        raw.copy_from_slice(&self.0);
        bytes
    }

    /// The raw key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks `signature` over `message`, strictly (`spec/security.md` C2).
    ///
    /// # Errors
    /// [`SignatureError`] when it does not verify.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        Verifier::new(*self).verify(message, signature)
    }

    /// The Montgomery form for key agreement, 32 bytes.
    pub fn to_x25519(&self) -> [u8; 32] {
        // The constructor proved that the point decompresses.
        CompressedEdwardsY(self.0).decompress().map(|point| point.to_montgomery().0).unwrap_or_default()
    }
}

/// A public key that checks many signatures: what every check needs of it is computed once.
///
/// Accepts exactly what [`PublicKey::verify`] accepts.
#[derive(Clone)]
pub struct Verifier {
    key: PublicKey,
    /// Always there: the constructor of the key proved that it is a point.
    point: Option<VerifyingKey>,
}

impl Verifier {
    /// Expects signatures of `key`.
    pub fn new(key: PublicKey) -> Self {
        Self { key, point: VerifyingKey::from_bytes(&key.0).ok() }
    }

    /// The key.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Checks `signature` over `message`, strictly (`spec/security.md` C2).
    ///
    /// # Errors
    /// [`SignatureError`] when it does not verify.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        let point = self.point.as_ref().ok_or(SignatureError)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        point.verify_strict(message, &signature).map_err(|_| SignatureError)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({})", self.key)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// An Ed25519 signature: 64 bytes that may or may not verify.
#[derive(Clone, Copy, Eq, PartialEq, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes 64 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// An Ed25519 private key. Wipes itself; shows nothing of itself.
#[derive(Clone)]
pub struct SecretKey {
    signing: SigningKey,
}

impl SecretKey {
    /// Makes the key with this 32-byte seed.
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&seed);
        seed.zeroize();
        Self { signing }
    }

    /// Parses the libp2p protobuf form, 68 bytes: prefix, seed, public key.
    ///
    /// # Errors
    /// [`KeyError::NotEd25519`] for another form, or when the public half does not belong to the seed.
    pub fn from_libp2p(bytes: &[u8]) -> Result<Self, KeyError> {
        let raw = bytes.strip_prefix(&LIBP2P_SECRET_PREFIX).ok_or(KeyError::NotEd25519)?;
        let (seed, public) = raw.split_at_checked(32).ok_or(KeyError::NotEd25519)?;
        let key = Self::from_seed(seed.try_into().map_err(|_| KeyError::NotEd25519)?);
        if key.public().as_bytes() != public {
            return Err(KeyError::NotEd25519);
        }
        Ok(key)
    }

    /// The libp2p protobuf form, 68 bytes.
    pub fn to_libp2p(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(68));
        bytes.extend_from_slice(&LIBP2P_SECRET_PREFIX);
        bytes.extend_from_slice(self.signing.as_bytes());
        bytes.extend_from_slice(self.signing.verifying_key().as_bytes());
        bytes
    }

    /// The seed.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The 64-byte form of Go's `crypto/ed25519`: the seed followed by the public key.
    pub fn to_keypair_bytes(&self) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.signing.to_keypair_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        // A clamped scalar times the base point is canonical and of full order.
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// Signs `message`; the same message always gives the same signature.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.signing.sign(message).to_bytes())
    }

    /// The X25519 form of this key.
    pub fn to_x25519(&self) -> AgreementKey {
        let hash = Zeroizing::new(<[u8; 64]>::from(Sha512::digest(self.signing.as_bytes())));
        let mut scalar = [0; 32];
        scalar.copy_from_slice(hash.first_chunk::<32>().unwrap_or(&[0; 32]));
        AgreementKey::from_bytes(scalar)
    }

    /// Agrees on a secret with the owner of `other`: raw X25519 of the two converted keys, not hashed.
    ///
    /// # Errors
    /// [`KeyError::NotContributory`] when the result is zero.
    pub fn agree(&self, other: &PublicKey) -> Result<SharedSecret, KeyError> {
        self.to_x25519().agree(&other.to_x25519())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// An X25519 private key, long-lived or for one handshake.
#[derive(Clone)]
pub struct AgreementKey(x25519_dalek::StaticSecret);

impl AgreementKey {
    /// Takes 32 bytes; they are clamped when used, as RFC 7748 says.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(bytes))
    }

    /// The public half, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        x25519_dalek::PublicKey::from(&self.0).to_bytes()
    }

    /// The clamped private scalar, 32 bytes.
    pub fn scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(curve25519_dalek::scalar::clamp_integer(self.0.to_bytes()))
    }

    /// Computes the raw X25519 secret with the owner of `public`. This is the only way to one: the
    /// check of `spec/security.md` C1 (`dh_contributory`) sits here.
    ///
    /// # Errors
    /// [`KeyError::NotContributory`] when the result is zero.
    pub fn agree(&self, public: &[u8; 32]) -> Result<SharedSecret, KeyError> {
        let shared = self.0.diffie_hellman(&x25519_dalek::PublicKey::from(*public));
        if !shared.was_contributory() && !planted::is(Bug::ZeroDh) {
            return Err(KeyError::NotContributory);
        }
        Ok(SharedSecret(Zeroizing::new(shared.to_bytes())))
    }
}

impl fmt::Debug for AgreementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgreementKey(..)")
    }
}

/// A raw X25519 result to which both sides contributed.
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<[u8; 32]>);

impl SharedSecret {
    /// The 32 bytes, for a key derivation.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// `crypto_box_beforenm` of NaCl: HSalsa20 of the secret with a zero input block.
    pub fn hsalsa20(&self) -> SymmetricKey {
        let key = salsa20::hsalsa::<salsa20::cipher::consts::U10>(
            self.0.as_slice().into(),
            &salsa20::cipher::generic_array::GenericArray::default(),
        );
        SymmetricKey::from_bytes(key.into())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(..)")
    }
}

/// A 32-byte symmetric key. Compares in constant time, wipes itself, shows nothing of itself.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct SymmetricKey([u8; 32]);

impl SymmetricKey {
    /// Takes 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Takes a slice; `None` unless it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for a cipher, a derivation or the encrypted store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SymmetricKey {}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seven encodings of points of small order on Curve25519, and 2^255 - 19 + {0, 1}.
    const LOW_ORDER: [[u8; 32]; 7] = [
        [0; 32],
        {
            let mut one = [0; 32];
            one[0] = 1;
            one
        },
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
            0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        p_plus(0xec),
        p_plus(0xed),
        p_plus(0xee),
    ];

    const fn p_plus(lowest: u8) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        bytes[0] = lowest;
        bytes[31] = 0x7f;
        bytes
    }

    #[test]
    fn dh_contributory() {
        let key = SecretKey::from_seed([1; 32]).to_x25519();
        for encoding in LOW_ORDER {
            assert_eq!(key.agree(&encoding).unwrap_err(), KeyError::NotContributory);
        }
    }

    #[test]
    fn ed25519_strict_refuses_bad_points() {
        // The identity, a point of order 8, and a non-canonical encoding of y = 1.
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::NotAPoint));
        let order8 = [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
            0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ];
        assert_eq!(PublicKey::from_bytes(&order8), Err(KeyError::NotAPoint));
        assert_eq!(PublicKey::from_bytes(&p_plus(0xee)), Err(KeyError::NotAPoint));
        assert_eq!(PublicKey::from_bytes(&[0; 31]), Err(KeyError::Length { expected: 32, found: 31 }));
    }

    #[test]
    fn a_verifier_checks_what_its_key_signed() {
        let secret = SecretKey::from_seed([6; 32]);
        let verifier = Verifier::new(secret.public());
        let good = secret.sign(b"message");
        assert_eq!(verifier.verify(b"message", &good), Ok(()));
        assert_eq!(verifier.verify(b"other", &good), Err(SignatureError));
        for bit in 0..512 {
            let mut bad = good;
            bad.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(verifier.verify(b"message", &bad), Err(SignatureError), "bit {bit}");
        }
        let other = Verifier::new(SecretKey::from_seed([7; 32]).public());
        assert_eq!(other.verify(b"message", &good), Err(SignatureError));
    }

    /// C2: a signature has one form. `S` plus the order of the group, and points that are none, are other forms.
    #[test]
    fn ed25519_strict_refuses_other_forms_of_a_signature() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let secret = SecretKey::from_seed([6; 32]);
        let verifier = Verifier::new(secret.public());
        let good = secret.sign(b"message");
        let mut larger = good;
        let mut carry = 0;
        for (byte, add) in larger.0[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert_eq!(verifier.verify(b"message", &larger), Err(SignatureError));
        for point in [[0; 32], p_plus(0xee), [0xff; 32]] {
            let mut other = good;
            other.0[..32].copy_from_slice(&point);
            assert_eq!(verifier.verify(b"message", &other), Err(SignatureError));
        }
    }

    #[test]
    fn libp2p_forms_round_trip() {
        let key = SecretKey::from_seed([9; 32]);
        assert_eq!(SecretKey::from_libp2p(&key.to_libp2p()).unwrap().public(), key.public());
        assert_eq!(PublicKey::from_libp2p(&key.public().to_libp2p()), Ok(key.public()));
        let mut other_half = key.to_libp2p().to_vec();
        other_half[67] ^= 1;
        assert_eq!(SecretKey::from_libp2p(&other_half).unwrap_err(), KeyError::NotEd25519);
        assert_eq!(PublicKey::from_libp2p(&[0x08, 0x02]), Err(KeyError::NotEd25519));
    }

    #[test]
    fn agreement_is_symmetric_and_matches_the_published_vector() {
        // spec/wesh-protocol.md A.1, A.2.
        let seed = |first: u8| std::array::from_fn(|i| first + i as u8);
        let (a, b) = (SecretKey::from_seed(seed(0x00)), SecretKey::from_seed(seed(0x20)));
        let ab = a.agree(&b.public()).unwrap();
        assert_eq!(ab.as_bytes(), b.agree(&a.public()).unwrap().as_bytes());
        let hex: String = ab.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "f6f92efb32945aff683324a1c984c5001f46aaea513f3453138d740b3a604b7d");
    }

    #[test]
    fn secret_types_show_nothing() {
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            SecretKey::from_seed([0xaa; 32]),
            SecretKey::from_seed([0xaa; 32]).to_x25519(),
            SymmetricKey::from_bytes([0xaa; 32]),
            SecretKey::from_seed([0xaa; 32]).agree(&SecretKey::from_seed([1; 32]).public()).unwrap(),
        );
        assert_eq!(shown, "SecretKey(..) AgreementKey(..) SymmetricKey(..) SharedSecret(..)");
    }
}
