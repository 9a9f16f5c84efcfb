//! Finding people by names that change: what is announced where, who is looked for, whom to dial.
//!
//! Each place to look is a [`Driver`]; [`Schedule`] decides what each of them is asked and when, and whom of
//! the found to dial; the [`Discovery`] task moves bytes and time between the two.

mod candidates;
mod dht;
mod driver;
mod rendezvous;
mod schedule;
mod task;

pub use driver::{SourceKind, SourceReport};
pub(crate) use rendezvous::RENDEZVOUS;
pub(crate) use rendezvous::server::{Server, serve};
pub(crate) use task::{Discovery, Note, OnFound, Setup};
