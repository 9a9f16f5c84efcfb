//! Stores of sealed values that all members of a group write with one key.

use std::sync::Arc;

use dunlin_base::PublicKey;
use dunlin_base::kdf::sha256;
use dunlin_log::{Entry, Log, Rules, SharedKey};

use crate::address::StoreAddress;
use crate::operation;

/// The rules of such a store: one key writes, and no sealed value occurs twice, since sealing never gives
/// the same bytes again (`spec/security.md` V4, V5, V8).
#[derive(Clone, Debug)]
pub struct SharedStore(SharedKey);

impl SharedStore {
    /// Admits what is written with `key`.
    pub fn new(key: PublicKey) -> Self {
        Self(SharedKey::new(key))
    }
}

impl Rules for SharedStore {
    fn may_write(&self, entry: &Entry) -> bool {
        self.0.may_write(entry)
    }

    fn is_signed(&self, entry: &Entry) -> bool {
        self.0.is_signed(entry)
    }

    fn unique_value(&self, payload: &str) -> Option<[u8; 32]> {
        operation::decode_value(payload).map(|value| sha256(&[&value]))
    }
}

/// Opens the log of the store at `address`, written with `key`.
pub fn shared_store(address: &StoreAddress, key: PublicKey) -> Log {
    Log::new(&address.to_string(), Arc::new(SharedStore::new(key)))
}
