//! Content identifiers: the general one of IPFS and the one kind that log entries have.

use std::fmt;

use ::cid::Cid;
use multihash::Multihash;
use sha2::{Digest, Sha256};

/// Multicodec of dag-cbor blocks.
pub const CODEC_DAG_CBOR: u64 = 0x71;
/// Multicodec of raw blocks.
pub const CODEC_RAW: u64 = 0x55;
/// Multihash code of SHA2-256, the only hash that this project accepts.
pub const HASH_SHA2_256: u64 = 0x12;

/// Computes the version 1, SHA2-256 CID of `block` under `codec`.
pub fn cid_of(codec: u64, block: &[u8]) -> Cid {
    cid_from_digest(codec, Sha256::digest(block).into())
}

fn cid_from_digest(codec: u64, digest: [u8; 32]) -> Cid {
    // A digest of 32 bytes always fits into a multihash of 64.
    let hash = Multihash::wrap(HASH_SHA2_256, &digest).unwrap_or_default();
    Cid::new_v1(codec, hash)
}

/// Identifies a log entry: the SHA2-256 digest of its dag-cbor block.
///
/// Every entry has a version 1 dag-cbor SHA2-256 CID (`spec/ipfs-log.md` §1), so the digest alone
/// names it, in 32 bytes instead of 36 to 96.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub struct EntryId([u8; 32]);

impl EntryId {
    /// Names the entry whose block is `block`.
    pub fn of_block(block: &[u8]) -> Self {
        Self(Sha256::digest(block).into())
    }

    /// Takes a digest that is known to name an entry, such as one read back from storage.
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Takes a stored digest; `None` unless it has 32 bytes.
    pub fn from_slice(digest: &[u8]) -> Option<Self> {
        digest.try_into().ok().map(Self)
    }

    /// Takes a CID from outside; `None` unless it is version 1, dag-cbor and SHA2-256.
    pub fn from_cid(cid: &Cid) -> Option<Self> {
        let hash = cid.hash();
        let is_entry = cid.version() == ::cid::Version::V1
            && cid.codec() == CODEC_DAG_CBOR
            && hash.code() == HASH_SHA2_256;
        if !is_entry {
            return None;
        }
        Self::from_slice(hash.digest())
    }

    /// Parses the binary form of a CID (36 bytes: `01 71 12 20` and the digest).
    pub fn from_cid_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_cid(&Cid::try_from(bytes).ok()?)
    }

    /// Parses the text form of a CID in any multibase.
    pub fn from_cid_text(text: &str) -> Option<Self> {
        Self::from_cid(&Cid::try_from(text).ok()?)
    }

    /// The CID of the entry; prints as base32 (`bafyrei…`).
    pub fn cid(&self) -> Cid {
        cid_from_digest(CODEC_DAG_CBOR, self.0)
    }

    /// The binary CID, 36 bytes.
    pub fn cid_bytes(&self) -> [u8; 36] {
        let mut bytes = [0; 36];
        let (head, digest) = bytes.split_at_mut(4);
        head.copy_from_slice(&[0x01, 0x71, 0x12, 0x20]);
        digest.copy_from_slice(&self.0);
        bytes
    }

    /// The digest, 32 bytes.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cid().fmt(f)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_agree() {
        let id = EntryId::of_block(b"block");
        assert_eq!(EntryId::from_cid(&id.cid()), Some(id));
        assert_eq!(EntryId::from_cid_bytes(&id.cid_bytes()), Some(id));
        assert_eq!(id.cid().to_bytes(), id.cid_bytes());
        assert_eq!(EntryId::from_cid_text(&id.to_string()), Some(id));
        assert!(id.to_string().starts_with("bafyrei"));
    }

    #[test]
    fn other_kinds_of_cid_are_no_entries() {
        assert_eq!(EntryId::from_cid(&cid_of(CODEC_RAW, b"block")), None);
        assert_eq!(EntryId::from_cid_text("QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"), None);
        assert_eq!(EntryId::from_cid_bytes(b"\x01\x71\x12\x20short"), None);
    }
}
