//! Where a node keeps what it knows: ordered tables of bytes, changed in one step, encrypted from the first
//! byte, whole after a crash at any moment.
//!
//! [`open`] gives the store of an account's directory. It is read and changed through the traits of
//! [`dunlin_base::kv`], so that what runs on a disk runs in memory ([`MemoryStore`]) too.
//!
//! ```
//! use dunlin_base::kv::{Durability, Read, Store, Table, Tx};
//! use dunlin_store::{Unlock, open};
//!
//! const NAMES: Table = Table(0x50);
//! # let home = tempfile::tempdir()?;
//! # let dir = home.path().join("account");
//! let store = open(&dir, &Unlock::KeyFile)?;
//! let mut tx = Tx::new(&store);
//! tx.put(NAMES, b"a", b"alice");
//! store.commit(tx.into_batch(), Durability::Synced)?;
//! drop(store);
//!
//! let store = open(&dir, &Unlock::KeyFile)?;
//! assert_eq!(store.get(NAMES, b"a")?, Some(b"alice".to_vec()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - A synced commit that returned is there after a crash; any other is there as a whole or not at all. A deferred
//!   one is there with the next synced one, or when the store is closed.
//! - A synced commit writes its changes once, in one run of sectors; the database takes them up from there.
//! - Opening after a crash reads what is in the journal, and not the store: it takes as long for a large store as
//!   for a small one. [`RedbStore::settle`], called when the app goes quiet, spares it the journal too.
//! - A full or failing disk is an error of the one call; the store opens itself again and goes on.
//! - What changed on the disk is an error, never a wrong row. What the files look like, and what they do not
//!   protect against, is in `docs/formats/store.md`.
//! - [`faults`] has the disk for tests and simulations: it fails, fills up and loses power on request.

mod destroy;
mod dir;
mod disk;
mod engine;
mod error;
pub mod faults;
mod header;
mod journal;
mod key_file;
mod redb_store;
mod sectors;

pub use destroy::{Destruction, destroy_key, holds_account};
pub use dir::{Unlock, open};
pub use disk::{Disk, FileDisk};
pub use dunlin_base::kv::MemoryStore;
pub use engine::CACHE_BYTES_MAX;
pub use error::{Damage, OpenError};
pub use journal::JOURNAL_SECTORS;
pub use redb_store::RedbStore;
