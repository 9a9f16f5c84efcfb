//! Messages: the chain of keys of each device, sealed messages, and those that wait for a key
//! (`spec/wesh-protocol.md` §4).
//!
//! Every device has one chain per group and gives it to every member once. A step of the chain yields the
//! key of one message. A receiver keeps a window of [`KEY_WINDOW`] unused keys, so that messages may
//! arrive in any order; what lies beyond it waits.
//!
//! # Layout
//!
//! Keys are raw ids one after another, numbers are big-endian.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | [`CHAINS`](crate::tables::CHAINS) | group, device | own: `01`, counter, chain key |
//! | | | other: `02`, counter it was shared at, counter, chain key, then counter and message key of each skipped message |
//! | [`MESSAGE_KEYS`](crate::tables::MESSAGE_KEYS) | group, device, counter | key of an own message that was sealed and not opened yet |
//! | | | or a key that is held, then the milliseconds until when |
//! | [`HELD`](crate::tables::HELD) | milliseconds, group, device, counter | nothing |
//! | [`CLAIMS`](crate::tables::CLAIMS) | group, device, counter, entry | mark of the signature, then a byte: 1 if shown, 2 if signed for the counter; while the key is held |
//! | [`SIGNATURES`](crate::tables::SIGNATURES) | group, device, mark of the signature, counter | the entry that was opened, or nothing if it was sent before the key |
//! | [`CHAIN_BOXES`](crate::tables::CHAIN_BOXES) | group, own device, member | the box that was made for the member |
//! | [`WAITING`](crate::tables::WAITING) | group, device, counter, entry | nothing |
//!
//! The chain of another device is kept at the newest message that was derived, with the keys of those
//! before it that did not come yet. The window ahead is computed when a message needs it: a message in
//! order costs one step and one row of 49 bytes.

mod boxes;
mod chain;
mod claims;
mod envelope;
mod out_of_store;
mod retire;
mod rows;
mod waiting;

pub use boxes::{ChainBoxError, dangerous_seal_chain_key, open_chain_key_box, own_chain_key_box};
pub use chain::{ChainKey, KEY_WINDOW, KeyUnavailable, OtherChain};
pub use claims::{Arrival, COUNTER_KEY_DAYS_MAX, KEY_HELD_MAX, Shift, erase_due, erasure_due};
pub use envelope::{
    Headers, HeadersError, OpenMessageError, OpenedMessage, Opening, SealError, Sealed, erase_key,
    hand_down_claim, open_headers, open_message, require_contexts, seal, seal_at, withdraw_claim,
};
pub use out_of_store::{
    OUT_OF_STORE_BYTES_MAX, OpenedOutOfStore, OutOfStoreError, SealedOutOfStore, out_of_store_reference,
    seal_out_of_store,
};
pub use retire::{is_made_elsewhere, retire_own_chains};
pub use rows::{ChainView, inspect_chain, register_chain_key};
pub use waiting::{has_chain, keep_waiting, stop_waiting, waiting, waiting_devices};
