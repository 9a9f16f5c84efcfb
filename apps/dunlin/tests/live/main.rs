//! People talk: real processes, real sockets, real disks, by the command line alone.
//!
//! Every test has its own nodes, which listen on free ports of loopback and keep their data in directories
//! that go away with the test. Nothing waits for a time: everything waits for a condition, up to
//! [`person::DEADLINE`].

// A test says what is wrong by ending.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod account;
mod contacts;
mod devices;
mod directories;
mod erasing;
mod logs;
mod network;
mod person;
mod talk;
