//! What the fuzz targets share.
//!
//! A fuzzer cannot forge a seal or a signature, so behind a sealed box it would only ever see refusals. The
//! targets therefore play a hostile member or peer: they know the secrets that such a one knows, and seal
//! what the fuzzer makes up.

// These three are compiled from their sources: the crate that they belong to serves the screen, and so links
// the whole network stack, which would take longer to compile with the fuzzer's flags than all the rest.
#[path = "../../crates/messenger/src/app_message.rs"]
pub mod app_message;
#[path = "../../crates/messenger/src/links/mod.rs"]
pub mod links;
#[path = "../../crates/messenger/src/text.rs"]
pub mod text;

// For the same reason.
#[allow(dead_code)]
#[path = "../../crates/ipfs/src/bitswap/message.rs"]
mod bitswap_message;

use std::sync::LazyLock;

use dunlin_base::SecretKey;
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;

/// Takes apart an input that stands for several messages: each has two bytes of length before it, and the
/// last may be cut short.
pub fn messages(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = input.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (message, rest) = rest.split_at(length);
        input = rest;
        Some(message)
    })
}

/// A key that is the same in every run.
pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

/// A group that the fuzzer is a member of.
pub fn group() -> &'static Group {
    static GROUP: LazyLock<Group> =
        LazyLock::new(|| Group::account(&AccountKeys::new(key(1), key(2), key(3))));
    &GROUP
}

/// The fuzzer as a member of [`group`].
pub fn member() -> OwnMember {
    OwnMember { member: key(4), device: key(5) }
}

/// Reads a bitswap message as a host does.
pub fn read_bitswap(bytes: &[u8]) {
    use bitswap_message::{BLOCK_BYTES_MAX, Message, is_verifiable, named_blocks};

    let Ok(mut message) = Message::parse(bytes::Bytes::copy_from_slice(bytes)) else { return };
    let again = Message::parse(message.to_bytes()).expect("a message that was just written");
    assert_eq!(again, message);
    for (names, block) in named_blocks(&mut message) {
        assert!(block.len() <= BLOCK_BYTES_MAX);
        assert!(names.iter().all(is_verifiable));
    }
}
