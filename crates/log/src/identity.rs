//! Who writes: identity records, and the key that signs entries under one.

use std::fmt;
use std::sync::Arc;

use dunlin_base::SecretKey;

use crate::entry::{Body, Entry};

/// The identity type of entries whose one key is shared by all who may write. The spelling is on the wire.
pub const SHARED_KEY_KIND: &str = "betry_group_entry";

/// The identity record that each entry carries. It is not covered by the entry's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name that access lists use.
    pub id: String,
    /// The kind of identity, which says how the other fields belong together.
    pub kind: String,
    /// The key that signs entries.
    pub public_key: Vec<u8>,
    /// Signature over `id`.
    pub id_signature: Vec<u8>,
    /// Signature over `public_key`, in kinds that have one.
    pub key_signature: Vec<u8>,
}

/// A private key that signs entries.
pub trait Signer: Send + Sync {
    /// Signs `message`; the same message always gives the same signature.
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}

impl Signer for SecretKey {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        SecretKey::sign(self, message).as_bytes().to_vec()
    }
}

/// Writes entries: a signing key and the identity record that goes with it. Make it once and keep it.
#[derive(Clone)]
pub struct Writer {
    identity: Identity,
    signer: Arc<dyn Signer>,
}

impl Writer {
    /// Writes with an Ed25519 key that everybody who may write holds (`spec/wesh-protocol.md` §3.4).
    pub fn new(key: SecretKey) -> Self {
        let id = key.public().to_string();
        let identity = Identity {
            kind: SHARED_KEY_KIND.to_owned(),
            public_key: key.public().to_libp2p().to_vec(),
            id_signature: Signer::sign(&key, id.as_bytes()),
            key_signature: Vec::new(),
            id,
        };
        Self::with_identity(identity, Arc::new(key))
    }

    /// Writes as `identity`, whose `public_key` belongs to `signer`.
    pub fn with_identity(identity: Identity, signer: Arc<dyn Signer>) -> Self {
        Self { identity, signer }
    }

    /// The record that goes into each entry.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Signs `body` and makes it an entry.
    pub fn sign(&self, body: Body) -> Entry {
        let signature = self.signer.sign(body.signed_text().as_bytes());
        Entry::assemble(body, self.identity.public_key.clone(), signature, self.identity.clone())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("identity", &self.identity.id).finish_non_exhaustive()
    }
}
