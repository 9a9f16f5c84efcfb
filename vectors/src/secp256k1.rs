//! Identities of type `orbitdb`: ECDSA over secp256k1. Only the vectors of the older software use them.

use std::sync::Arc;

use dunlin_log::{Entry, Identity, Rules, Signer, Writer};
use k256::ecdsa::signature::{Signer as _, Verifier as _};
use k256::ecdsa::{Signature, SigningKey, VerifyingKey};

/// A signing key.
pub struct Key(SigningKey);

impl Key {
    /// Takes the private scalar.
    ///
    /// # Errors
    /// When it is no scalar of the curve.
    pub fn from_scalar(scalar: &[u8]) -> Result<Self, String> {
        SigningKey::from_slice(scalar).map(Self).map_err(|error| error.to_string())
    }

    /// The public key in `form`: 33 bytes when compressed, else 65.
    pub fn public(&self, is_compressed: bool) -> Vec<u8> {
        self.0.verifying_key().to_encoded_point(is_compressed).as_bytes().to_vec()
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

/// The writer with these two keys (`spec/ipfs-log.md` §6, LEGACY).
pub fn writer(root: &Key, signing: Key) -> Writer {
    let id = hex::encode(root.public(true));
    let public_key = signing.public(false);
    let id_signature = Signer::sign(&signing, id.as_bytes());
    let key_signature = Signer::sign(root, signed_for_key(&public_key, &id_signature).as_bytes());
    let kind = "orbitdb".to_owned();
    let identity = Identity { id, kind, public_key, id_signature, key_signature };
    Writer::with_identity(identity, Arc::new(signing))
}

/// The text under the second signature of an identity.
pub fn signed_for_key(public_key: &[u8], id_signature: &[u8]) -> String {
    hex::encode(public_key) + &hex::encode(id_signature)
}

/// Admits the listed identities, or all.
pub struct Listed(pub Option<Vec<String>>);

impl Rules for Listed {
    fn may_write(&self, entry: &Entry) -> bool {
        let identity = entry.identity();
        let is_one = entry.key() == identity.public_key && entry.clock().id == identity.public_key;
        let is_listed = self.0.as_ref().is_none_or(|ids| ids.contains(&identity.id));
        is_one && is_listed && is_sound(identity)
    }

    fn is_signed(&self, entry: &Entry) -> bool {
        verifies(entry.key(), entry.body().signed_text().as_bytes(), entry.signature())
    }
}

fn is_sound(identity: &Identity) -> bool {
    let Ok(root) = hex::decode(&identity.id) else { return false };
    let for_key = signed_for_key(&identity.public_key, &identity.id_signature);
    identity.kind == "orbitdb"
        && verifies(&identity.public_key, identity.id.as_bytes(), &identity.id_signature)
        && verifies(&root, for_key.as_bytes(), &identity.key_signature)
}

/// Whether the DER signature verifies. High-S signatures do not: each content has one signature.
fn verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(key), Signature::from_der(signature))
    else {
        return false;
    };
    key.verify(message, &signature).is_ok()
}
