//! OrbitDB stores as Go keeps them: where a store has its address from, what its entries carry, and the
//! rules of a store that a group shares.
//!
//! A store is a [`dunlin_log::Log`] whose id is the store's address. The address follows from name, type
//! and access list alone, so that everybody who knows a group computes the same one and fetches nothing.
//!
//! ```
//! use dunlin_base::kv::{MemoryStore, Tx};
//! use dunlin_base::{GroupId, SecretKey};
//! use dunlin_log::Writer;
//! use dunlin_orbitdb::{StoreAddress, operation, shared_store};
//!
//! let group = GroupId::new(SecretKey::from_seed([1; 32]).public());
//! let key = SecretKey::from_seed([2; 32]);
//! let address = StoreAddress::new(&group, "wesh_group_messages", &key.public());
//! assert!(address.to_string().starts_with("/orbitdb/bafyrei"));
//!
//! let mut log = shared_store(&address, key.public());
//! let writer = Writer::new(key);
//! let disk = MemoryStore::default();
//! let mut tx = Tx::new(&disk);
//! let joined = log.append(&mut tx, &writer, &operation::encode_add(b"sealed"))?;
//! assert_eq!(operation::decode_value(joined.entry.payload()), Some(b"sealed".to_vec()));
//!
//! // What is sealed twice is somebody's replay.
//! assert!(log.append(&mut tx, &writer, &operation::encode_add(b"sealed")).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
pub mod manifest;
pub mod operation;
mod shared;

pub use address::{AddressError, StoreAddress};
pub use shared::{SharedStore, shared_store};
