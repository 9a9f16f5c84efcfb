//! The engine of one account, through its public surface.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panicking"
)]

mod archive;
mod catching_up;
mod contexts;
mod credentials;
mod device;
mod erasure;
mod floods;
mod members;
mod out_of_store;
mod pair;
mod requests;
mod sizes;
