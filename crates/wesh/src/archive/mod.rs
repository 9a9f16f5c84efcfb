//! The archive of an account: its keys, the entries of its logs and their heads
//! (`spec/wesh-protocol.md` §1.11).
//!
//! The format is that of the Go node, so archives go both ways: a tar of regular files, neither compressed
//! nor encrypted. **Whoever reads it is the account.** [`Sealer`] puts it under a passphrase, and [`Opener`] opens it again.
//!
//! | File | Holds |
//! |---|---|
//! | `account.key` | the account key, in libp2p form |
//! | `account_proof.key` | the account proof key, in libp2p form |
//! | `entries/<CID>` | the block of an entry |
//! | `heads/<group, base64url>` | a `GroupHeadsExport`, after the entries of the group |
//!
//! Device keys, chain states and message keys are not part of it. Whoever imports becomes a new device of
//! the account; it reads the messages whose chain keys were given to the account as a member.
//!
//! [`Export`](crate::engine::Export) makes archives, [`ArchiveReader`] takes them apart as the bytes come,
//! and [`Import`] puts what is in them into an empty store. Nothing is ever held but one file, which has a
//! limit by its name, so an archive may be of any length. Names are compared and never used as paths.

mod import;
mod reader;
mod sealed;
mod tar;

use dunlin_base::keys::{KeyError, SymmetricKey};
use dunlin_base::{EntryId, GroupId, PublicKey};
use dunlin_log::{ENTRY_BYTES_MAX, HEADS_KNOWN_MAX};
use dunlin_proto::protocol::GroupHeadsExport;
use prost::Message as _;
use zeroize::Zeroizing;

pub use import::{Import, ImportArchiveError, Imported};
pub use reader::{ArchiveReader, Item};
pub use sealed::{
    LockedArchive, Opener, SEALED_CHUNK_BYTES, SEALED_HEAD_BYTES, SEALED_MAGIC, SealedArchiveError,
    SealedHead, Sealer, is_sealed,
};

use crate::errors::{Code, Coded};

/// Longest key file that is read: a key in libp2p form has 68 bytes.
const KEY_FILE_BYTES_MAX: usize = 256;
/// Longest heads file: as many heads of both logs as are ever listed, 38 bytes each, and three keys.
const HEADS_FILE_BYTES_MAX: usize = 2 * HEADS_KNOWN_MAX * 38 + 128;
/// Longest file that is written or held.
const FILE_BYTES_MAX: usize =
    if HEADS_FILE_BYTES_MAX > ENTRY_BYTES_MAX { HEADS_FILE_BYTES_MAX } else { ENTRY_BYTES_MAX };

const ACCOUNT_KEY: &str = "account.key";
const PROOF_KEY: &str = "account_proof.key";
const ENTRIES: &str = "entries/";
const HEADS: &str = "heads/";

/// Why an archive cannot be read. It is damaged or no archive of an account; take another copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The bytes are no tar archive, or were changed.
    #[error("this is no tar archive, or it is damaged")]
    Header,
    /// The archive ends before its end mark.
    #[error("the archive is not complete")]
    Truncated,
    /// The archive was packed again, by a program that uses extensions of the format.
    #[error("the archive uses extensions of the tar format that no export has")]
    Extension,
    /// A file is longer than one of its kind can be.
    #[error("the file {name} has {bytes} bytes, {most} are allowed")]
    TooLong {
        /// Which file, or which folder.
        name: &'static str,
        /// How long it is.
        bytes: u64,
        /// How long it may be.
        most: usize,
    },
    /// A file is empty that cannot be.
    #[error("the file {name} is empty")]
    Empty {
        /// Which file, or which folder.
        name: &'static str,
    },
    /// A key is there twice, so it is not known which one counts.
    #[error("the file {name} is there twice")]
    Twice {
        /// Which file.
        name: &'static str,
    },
    /// A key file holds no Ed25519 private key in libp2p form.
    #[error("the file {name} holds no usable key")]
    Key {
        /// Which file.
        name: &'static str,
        /// What is wrong with it.
        source: KeyError,
    },
    /// The name of an entry is no CID of one.
    #[error("an entry has a name that is no CID of an entry")]
    EntryName,
    /// The block of an entry has another hash than its name says.
    #[error("what is stored as the entry {entry} is something else")]
    OtherEntry {
        /// Under which name.
        entry: EntryId,
    },
    /// A heads file is no `GroupHeadsExport`, or holds keys or CIDs that are none.
    #[error("the heads of a group cannot be read")]
    Heads,
}

impl Coded for ArchiveError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Header | Self::Truncated | Self::Extension | Self::Twice { .. } => vec![Code::ErrInternal],
            Self::TooLong { .. } | Self::Empty { .. } | Self::OtherEntry { .. } => {
                vec![Code::ErrInternal, Code::ErrInvalidInput]
            }
            Self::Key { .. } => vec![Code::ErrInternal, Code::ErrDeserialization, Code::ErrInvalidInput],
            Self::EntryName | Self::Heads => {
                vec![Code::ErrInternal, Code::ErrDeserialization]
            }
        }
    }
}

/// The heads of a group's logs, and what somebody needs who carries the group without reading it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupHeads {
    /// Which group.
    pub group: GroupId,
    /// What proves its entries.
    pub sign_pub: PublicKey,
    /// What seals its heads payloads.
    pub link_key: SymmetricKey,
    /// The heads of the metadata log.
    pub metadata: Vec<EntryId>,
    /// The heads of the message log.
    pub messages: Vec<EntryId>,
}

impl GroupHeads {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let message = GroupHeadsExport::decode(bytes).ok()?;
        let link_key = Zeroizing::new(message.link_key);
        let ids = |cids: &[Vec<u8>]| -> Option<Vec<EntryId>> {
            cids.iter().map(|cid| EntryId::from_cid_bytes(cid)).collect()
        };
        Some(Self {
            group: GroupId::from_bytes(&message.public_key).ok()?,
            sign_pub: PublicKey::from_bytes(&message.sign_pub).ok()?,
            link_key: SymmetricKey::from_slice(&link_key)?,
            metadata: ids(&message.metadata_heads_cids)?,
            messages: ids(&message.messages_heads_cids)?,
        })
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let cids = |ids: &[EntryId]| ids.iter().map(|id| id.cid_bytes().to_vec()).collect();
        let mut message = GroupHeadsExport {
            public_key: self.group.as_bytes().to_vec(),
            sign_pub: self.sign_pub.as_bytes().to_vec(),
            metadata_heads_cids: cids(&self.metadata),
            messages_heads_cids: cids(&self.messages),
            link_key: self.link_key.as_bytes().to_vec(),
        };
        let bytes = Zeroizing::new(message.encode_to_vec());
        zeroize::Zeroize::zeroize(&mut message.link_key);
        bytes
    }
}

/// Files of an archive, written one after another.
///
/// Keys go into memory that wipes itself and is not moved as long as [`Self::is_full`] is heeded.
#[derive(Clone, Default)]
pub struct ArchivePart(Zeroizing<Vec<u8>>);

/// Bytes after which a part is full, so that neither side holds much of an archive.
const PART_BYTES: usize = 64 * 1024;

impl ArchivePart {
    /// Begins a part.
    pub fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(
            PART_BYTES + tar::file_bytes(FILE_BYTES_MAX) + tar::END.len(),
        )))
    }

    /// Appends a file for `item`.
    pub fn put(&mut self, item: &Item) {
        match item {
            Item::AccountKey(key) => tar::put_file(&mut self.0, ACCOUNT_KEY, &key.to_libp2p()),
            Item::ProofKey(key) => tar::put_file(&mut self.0, PROOF_KEY, &key.to_libp2p()),
            Item::Entry(entry) => self.put_block(entry.id(), entry.block()),
            Item::Heads(heads) => {
                let name = data_encoding::BASE64URL_NOPAD.encode(heads.group.as_bytes());
                tar::put_file(&mut self.0, &format!("{HEADS}{name}"), &heads.encode());
            }
        }
    }

    /// Appends a file for the block of an entry.
    pub(crate) fn put_block(&mut self, id: EntryId, block: &[u8]) {
        tar::put_file(&mut self.0, &format!("{ENTRIES}{id}"), block);
    }

    /// Ends the archive.
    pub fn end(&mut self) {
        self.0.extend_from_slice(&tar::END);
    }

    /// Whether the next file belongs into another part.
    pub fn is_full(&self) -> bool {
        self.0.len() >= PART_BYTES
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for ArchivePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArchivePart({} bytes)", self.0.len())
    }
}
