//! The rules of ingestion, by the names that `spec/security.md` §2.2 gives their tests.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod appends;
mod converge;
mod fetch_holes;
mod join_per_entry;
mod order_height;
mod world;
