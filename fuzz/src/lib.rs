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

// For the same reason.
#[allow(dead_code)]
#[path = "../../crates/ipfs/src/dht.rs"]
mod dht;
#[allow(dead_code)]
#[path = "../../crates/ipfs/src/gossip.rs"]
mod gossip;

/// What those two name of the crate that they belong to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the host has been shut down")]
pub struct Stopped;

pub mod host;

// For the same reason.
#[allow(dead_code, unreachable_pub)]
#[path = "."]
pub mod frames {
    #[path = "../../crates/ipfs/src/frames/codec.rs"]
    mod codec;
    #[path = "../../crates/ipfs/src/frames/pace.rs"]
    mod pace;

    use std::sync::LazyLock;

    use codec::{Budget, FirstByte};
    use futures::io::Cursor;
    use tokio::runtime::{Builder, Runtime};

    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

    /// The frames that a host reads off a stream of these bytes, and what is left where it gives up.
    pub fn read(stream: &[u8], bytes_max: usize) -> (Vec<bytes::Bytes>, &[u8]) {
        let mut cursor = Cursor::new(stream);
        let mut bodies = Vec::new();
        let mut end = 0;
        RUNTIME.block_on(async {
            while let Ok(body) =
                codec::read_frame(&mut cursor, bytes_max, FirstByte::Whenever, Budget::default()).await
            {
                bodies.push(body);
                end = cursor.position();
            }
        });
        (bodies, stream.get(usize::try_from(end).expect("a place in memory")..).unwrap_or_default())
    }

    /// A frame as a host writes it.
    pub fn write(body: &[u8], bytes_max: usize) -> Vec<u8> {
        let mut cursor = Cursor::new(Vec::new());
        let written = RUNTIME.block_on(codec::write_frame(&mut cursor, body, bytes_max));
        written.expect("memory that takes all");
        cursor.into_inner()
    }
}

// For the same reason. Of `dunlin_ipfs` it needs the peer id alone, which the manifest gives that name.
#[allow(dead_code, unreachable_pub)]
#[path = "."]
mod rendezvous {
    #[path = "../../crates/node/src/discovery/rendezvous/limits.rs"]
    mod limits;
    #[path = "../../crates/node/src/discovery/rendezvous/registry.rs"]
    mod registry;

    const MEMORY_MAX: usize = 64 * 1024;

    /// Lets a server with little memory answer requests, one a minute, of three peers in turn. No answer is longer than
    /// what may be registered, whatever is asked.
    pub fn serve(input: &[u8]) {
        let mut registry = registry::Registry::new([7; 16], MEMORY_MAX);
        let peers = [1, 2, 3].map(|number| {
            let multihash = [&[0x12, 0x20], [number; 32].as_slice()].concat();
            dunlin_ipfs::PeerId::from_bytes(&multihash).expect("a hash of a key")
        });
        let mut now = dunlin_base::Time::from_secs(1_700_000_000);
        for (message, from) in super::messages(input).zip(peers.iter().cycle()).take(256) {
            now = now + dunlin_base::Span::from_secs(60);
            let Ok(request) = prost::Message::decode(message) else { continue };
            // A message that is no request ends a stream.
            if let Ok(Some(answer)) = registry.handle(now, *from, request) {
                assert!(prost::Message::encoded_len(&answer) < 4 * MEMORY_MAX);
            }
        }
    }
}

pub use rendezvous::serve as serve_rendezvous;

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
