//! The Wesh protocol: accounts, groups, the message ratchet, contact requests and delivery.
//!
//! Everything here is a value. It reads storage through a transaction it is handed, it is told what time
//! it is and given randomness, and it answers with actions for the shell to carry out.

pub mod archive;
pub mod catch_up;
pub mod contact;
pub mod context;
pub mod credentials;
pub mod engine;
pub mod errors;
pub mod group;
pub mod handshake;
pub mod heads;
pub mod keys;
pub mod linking;
pub mod message;
pub mod metadata;
pub mod padding;
pub mod profile;
pub mod rotation;
pub mod tables;
