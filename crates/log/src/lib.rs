//! A grow-only, signed, causally linked log (ipfs-log version 2 as Go writes it), stored in tables and
//! never held in memory.
//!
//! The log is handed bytes, keys and [`Rules`]; it knows nothing of encryption, groups or networks.
//! A block comes in by [`Log::ingest`], is judged by its own bytes, waits for its parents and joins by
//! [`Log::join_ready`]. What [`Log::missing`] lists is to be fetched, and what cannot be is left out by
//! [`Log::give_up`]; should it come later, all is as if it had come in time. Verdicts, order and heads
//! follow from the set of entries alone: whatever the batches, the duplicates and the restarts, the same
//! set gives the same log (`spec/security.md` §2.2).
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::sync::Arc;
//!
//! use dunlin_base::SecretKey;
//! use dunlin_base::kv::{Direction, Durability, MemoryStore, Store, Tx};
//! use dunlin_log::{Ingest, Log, SharedKey, Writer};
//!
//! let key = SecretKey::from_seed([7; 32]);
//! let rules = Arc::new(SharedKey::new(key.public()));
//! let writer = Writer::new(key);
//!
//! // One node appends …
//! let store = MemoryStore::default();
//! let mut log = Log::new("/orbitdb/bafy…/tides", rules.clone());
//! let mut tx = Tx::new(&store);
//! let low = log.append(&mut tx, &writer, "low water 04:12")?;
//! let high = log.append(&mut tx, &writer, "high water 10:31")?;
//! store.commit(tx.into_batch(), Durability::Synced)?;
//!
//! // … and another one receives, newest first.
//! let other_store = MemoryStore::default();
//! let mut other = Log::new("/orbitdb/bafy…/tides", rules);
//! let mut tx = Tx::new(&other_store);
//! let stored = other.ingest(&mut tx, high.entry.block())?;
//! assert_eq!(stored, Ingest::Stored { fault: None, missing: vec![low.id] });
//! other.ingest(&mut tx, low.entry.block())?;
//! assert_eq!(other.join_ready(&mut tx, 100)?.joined.len(), 2);
//! assert_eq!(other.heads(&tx)?, log.heads(&store)?);
//!
//! let mut shown = Vec::new();
//! other.walk(&tx, None, Direction::Ascending, &mut |_, entry| {
//!     shown.push(entry.payload().to_owned());
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(shown, ["low water 04:12", "high water 10:31"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod agenda;
mod base58;
pub mod cbor;
mod copies;
mod entry;
pub mod go_json;
mod heads_json;
mod heights;
mod identity;
mod locator;
mod log;
mod rows;
mod session;
mod traverse;
mod verdict;
mod waiting;

pub use cbor::DecodeError;
pub use entry::{Body, Clock, ENTRY_VERSION, Entry, SealedLinks};
pub use heads_json::{HeadError, HeadsError, HeadsJson, heads_from_json, heads_to_json};
pub use identity::{Identity, SHARED_KEY_KIND, Signer, Writer};
pub use locator::{LOCATOR_IDS_MAX, block_beyond, locator, reach};
pub use log::{AppendError, HEADS_KNOWN_MAX, Ingest, Log, block_in, blocks_in};
pub use rows::{BLOCKS, LogTag, Position};
pub use session::{ClockReport, Joined, JoinedBatch, Replaced};
pub use traverse::{HEADS_PER_APPEND_MAX, POINTERS};
pub use verdict::{
    Checked, Checker, ENTRY_BYTES_MAX, NEXT_COMPAT_MAX, Quarantine, REFS_MAX, Refusal, Rules, SharedKey,
    VERDICT_RULES, Verdict,
};
pub use waiting::UNKNOWN_CIDS_MAX;
