//! Bitswap messages: the protobuf, the versions, and what a message of a peer means.

use bytes::{Bytes, BytesMut};
use cid::{Cid, multihash::Multihash};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

/// Longest block that is sent or accepted, as the Go implementation has it.
pub const BLOCK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Longest message, without its length. The Go implementation drops longer ones.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Entries, blocks and presences in one message. A peer pays two bytes for the smallest entry, we would pay
/// eighty.
const MESSAGE_ITEMS_MAX: usize = 32 * 1024;

/// Code of SHA2-256 in a multihash, the only one we verify.
const SHA2_256: u64 = 0x12;

/// Bytes of a SHA2-256 digest.
const DIGEST_BYTES: usize = 32;

/// Codecs under which a block may be wanted from a peer that sends blocks without their CIDs.
const CODECS_GUESSED: [u64; 3] = [0x71, 0x55, 0x70];

/// The versions of the protocol. Each later one can say more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Version {
    /// `/ipfs/bitswap`, the same as 1.0.0 for us.
    Unversioned,
    /// Wants of blocks, and blocks without their CIDs.
    V1_0,
    /// Blocks with the prefix of their CIDs.
    V1_1,
    /// Wants of presences, and answers for what is not there.
    V1_2,
}

impl Version {
    /// All versions, in the order in which they are proposed.
    pub(crate) const NEWEST_FIRST: [Self; 4] = [Self::V1_2, Self::V1_1, Self::V1_0, Self::Unversioned];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unversioned => "/ipfs/bitswap",
            Self::V1_0 => "/ipfs/bitswap/1.0.0",
            Self::V1_1 => "/ipfs/bitswap/1.1.0",
            Self::V1_2 => "/ipfs/bitswap/1.2.0",
        }
    }
}

/// A message as it travels.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(message, optional, tag = "1")]
    pub(crate) wantlist: Option<Wantlist>,
    /// Blocks without CIDs, up to 1.0.0.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(crate) blocks: Vec<Bytes>,
    /// Blocks from 1.1.0 on.
    #[prost(message, repeated, tag = "3")]
    pub(crate) payload: Vec<Block>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) presences: Vec<Presence>,
    /// Bytes of blocks that the sender still has for us. Not used by us.
    #[prost(int32, tag = "5")]
    pub(crate) pending_bytes: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Wantlist {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<Entry>,
    /// Whether this replaces all earlier wants of the sender.
    #[prost(bool, tag = "2")]
    pub(crate) full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) cid: Bytes,
    #[prost(int32, tag = "2")]
    pub(crate) priority: i32,
    #[prost(bool, tag = "3")]
    pub(crate) cancel: bool,
    #[prost(enumeration = "WantType", tag = "4")]
    pub(crate) want_type: i32,
    #[prost(bool, tag = "5")]
    pub(crate) send_dont_have: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, prost::Enumeration)]
pub(crate) enum WantType {
    Block = 0,
    Have = 1,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Block {
    /// The CID without the digest: version, codec, hash function, length of the digest.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) prefix: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Presence {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) cid: Bytes,
    #[prost(enumeration = "PresenceType", tag = "2")]
    pub(crate) kind: i32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, prost::Enumeration)]
pub(crate) enum PresenceType {
    Have = 0,
    DontHave = 1,
}

/// Why a message of a peer was not understood. The stream is dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("not a bitswap message")]
    Malformed(#[from] prost::DecodeError),
    #[error("more than {MESSAGE_ITEMS_MAX} items in one message")]
    TooManyItems,
}

impl Message {
    /// Decodes a message. Items are counted before anything is allocated for them.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, MessageError> {
        if items(&bytes) > MESSAGE_ITEMS_MAX {
            return Err(MessageError::TooManyItems);
        }
        Ok(Self::decode(bytes)?)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wantlist.is_none()
            && self.blocks.is_empty()
            && self.payload.is_empty()
            && self.presences.is_empty()
    }

    /// The bytes of the message, to be framed.
    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::from(self.encode_to_vec())
    }

    /// Adds a block in the form of `version`.
    pub(crate) fn add_block(&mut self, version: Version, cid: &Cid, data: Bytes) {
        if version >= Version::V1_1 {
            self.payload.push(Block { prefix: prefix(cid), data });
        } else {
            self.blocks.push(data);
        }
    }

    pub(crate) fn add_presence(&mut self, cid: &Cid, kind: PresenceType) {
        self.presences.push(Presence { cid: cid.to_bytes().into(), kind: kind.into() });
    }

    /// Adds an entry that wants a block, and to hear of it if there is none.
    pub(crate) fn add_want(&mut self, version: Version, cid: &Cid) {
        self.add_entry(cid, false, version >= Version::V1_2);
    }

    pub(crate) fn add_cancel(&mut self, cid: &Cid) {
        self.add_entry(cid, true, false);
    }

    fn add_entry(&mut self, cid: &Cid, cancel: bool, send_dont_have: bool) {
        let want_type = WantType::Block.into();
        let entry = Entry { cid: cid.to_bytes().into(), priority: 1, cancel, want_type, send_dont_have };
        self.wantlist.get_or_insert_default().entries.push(entry);
    }
}

/// The CIDs under which a block of a message may be wanted, with its bytes. The digest is computed from the
/// bytes, so a block answers to its name or is not among the wanted. Blocks of other hash functions are
/// refused.
pub(crate) fn named_blocks(message: &mut Message) -> Vec<(Vec<Cid>, Bytes)> {
    let payload = std::mem::take(&mut message.payload).into_iter();
    let blocks = std::mem::take(&mut message.blocks).into_iter();
    let named = payload.filter(|block| block.data.len() <= BLOCK_BYTES_MAX).filter_map(|block| {
        let cid = cid_from_prefix(&block.prefix, &block.data)?;
        Some((vec![cid], block.data))
    });
    let guessed = blocks.filter(|data| data.len() <= BLOCK_BYTES_MAX).filter_map(|data| {
        let hash = digest(&data)?;
        let mut cids: Vec<_> = CODECS_GUESSED.iter().map(|&codec| Cid::new_v1(codec, hash)).collect();
        cids.extend(Cid::new_v0(hash));
        Some((cids, data))
    });
    named.chain(guessed).collect()
}

/// Whether we can verify blocks of this name.
pub(crate) fn is_verifiable(cid: &Cid) -> bool {
    cid.hash().code() == SHA2_256 && usize::from(cid.hash().size()) == DIGEST_BYTES
}

fn digest(data: &[u8]) -> Option<Multihash<64>> {
    Multihash::wrap(SHA2_256, &Sha256::digest(data)).ok()
}

fn prefix(cid: &Cid) -> Bytes {
    let mut bytes = BytesMut::new();
    let digest_bytes = u64::from(cid.hash().size());
    for part in [u64::from(cid.version()), cid.codec(), cid.hash().code(), digest_bytes] {
        let mut buffer = unsigned_varint::encode::u64_buffer();
        bytes.extend_from_slice(unsigned_varint::encode::u64(part, &mut buffer));
    }
    bytes.freeze()
}

fn cid_from_prefix(prefix: &[u8], data: &[u8]) -> Option<Cid> {
    let (version, rest) = unsigned_varint::decode::u64(prefix).ok()?;
    let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (code, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let (digest_bytes, rest) = unsigned_varint::decode::u64(rest).ok()?;
    let full_length = u64::try_from(DIGEST_BYTES).ok();
    if code != SHA2_256 || Some(digest_bytes) != full_length || !rest.is_empty() {
        return None;
    }
    let hash = digest(data)?;
    match version {
        0 => Cid::new_v0(hash).ok(),
        1 => Some(Cid::new_v1(codec, hash)),
        _ => None,
    }
}

/// Counts entries, blocks and presences. A malformed rest counts nothing; decoding refuses it.
fn items(message: &[u8]) -> usize {
    let mut count = 0;
    for (tag, content) in Fields(message) {
        count += match tag {
            // Entries of the wantlist. A repeated wantlist is merged by protobuf rules, so all of them count.
            1 => Fields(content).filter(|(tag, _)| *tag == 1).count(),
            2..=4 => 1,
            _ => 0,
        };
    }
    count
}

/// The length-delimited fields of a protobuf message, skipping the others.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
        loop {
            let (tag, wire_type) = decode_key(&mut self.0).ok()?;
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, tag, &mut self.0, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
            let (content, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            return Some((tag, content));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cid_of(data: &[u8]) -> Cid {
        Cid::new_v1(0x71, digest(data).unwrap())
    }

    #[test]
    fn a_block_is_named_by_its_prefix_and_digest() {
        let mut message = Message::default();
        message.add_block(Version::V1_2, &cid_of(b"block"), Bytes::from_static(b"block"));
        assert_eq!(message.payload[0].prefix, [1, 0x71, 0x12, 32][..]);

        let mut received = Message::parse(message.to_bytes()).unwrap();

        assert_eq!(named_blocks(&mut received), [(vec![cid_of(b"block")], Bytes::from_static(b"block"))]);
    }

    #[test]
    fn a_block_without_name_may_be_any_codec_we_know() {
        let mut message = Message::default();
        message.add_block(Version::V1_0, &cid_of(b"block"), Bytes::from_static(b"block"));

        let named = named_blocks(&mut message);

        assert_eq!(named.len(), 1);
        assert!(named[0].0.contains(&cid_of(b"block")));
    }

    #[test]
    fn prefixes_that_cannot_be_verified_are_refused() {
        for prefix in [
            &[1, 0x71, 0x13, 64][..],
            &[1, 0x71, 0x12, 20],
            &[1, 0x71, 0x12, 32, 0],
            &[2, 0x71, 0x12, 32],
            &[1],
            &[],
        ] {
            assert_eq!(cid_from_prefix(prefix, b"block"), None, "{prefix:?}");
        }
    }

    #[test]
    fn the_entry_of_a_want_has_the_bytes_that_go_writes() {
        let mut message = Message::default();
        message.add_want(Version::V1_2, &cid_of(b"block"));

        let cid = cid_of(b"block").to_bytes();
        let entry = [&[0x0a, 36][..], &cid, &[0x10, 1, 0x28, 1]].concat();
        let wantlist = [&[0x0a, 42][..], &entry].concat();
        assert_eq!(message.to_bytes(), [&[0x0a, 44][..], &wantlist].concat());
    }

    #[test]
    fn a_flood_of_empty_entries_is_counted_before_it_is_decoded() {
        let entries = [0x0a, 0x00].repeat(MESSAGE_ITEMS_MAX + 1);
        let mut bytes = BytesMut::from(&[0x0a][..]);
        let mut buffer = unsigned_varint::encode::usize_buffer();
        bytes.extend_from_slice(unsigned_varint::encode::usize(entries.len(), &mut buffer));
        bytes.extend_from_slice(&entries);

        assert!(matches!(Message::parse(bytes.freeze()), Err(MessageError::TooManyItems)));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(mut message) = Message::parse(bytes.into()) {
                named_blocks(&mut message);
            }
        }
    }
}
