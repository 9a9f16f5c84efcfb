//! What every other crate of Dunlin stands on: identifiers, keys, seals, delimited frames and the
//! shape of storage.
//!
//! Nothing here reads a clock, opens a file or a socket, or draws randomness. Key types are parsed
//! once and cannot hold an invalid key; the only way to an X25519 secret is [`keys::SecretKey::agree`],
//! which refuses contributions of small order.
//!
//! ```
//! use dunlin_base::keys::SecretKey;
//!
//! let key = SecretKey::from_seed([7; 32]);
//! let signature = key.sign(b"tide table");
//! assert!(key.public().verify(b"tide table", &signature).is_ok());
//! assert!(key.public().verify(b"tide tables", &signature).is_err());
//! ```

pub mod cid;
pub mod frame;
pub mod ids;
pub mod kdf;
pub mod keys;
pub mod kv;
#[doc(hidden)]
pub mod passphrase;
pub mod planted;
pub mod seal;
pub mod time;

pub use ::cid::Cid;
pub use cid::EntryId;
pub use ids::{AccountId, DeviceId, GroupId, MemberId, PeerId};
pub use keys::{PublicKey, SecretKey, Signature};
pub use time::{Span, Time};
