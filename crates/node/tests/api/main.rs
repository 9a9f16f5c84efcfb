//! `ProtocolService` as its clients see it: over gRPC, on nodes of their own.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod closing;
mod codes;
mod lists;
mod outside;
mod people;
mod served;
