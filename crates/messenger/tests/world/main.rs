//! Real engines with real messengers on them, on a network in memory.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod clocks;
mod clones;
mod conversations;
mod devices;
mod erasing;
mod failing_disk;
mod hostile;
mod rules;
mod support;
