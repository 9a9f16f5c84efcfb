//! What is judged of an entry by its bytes alone (`spec/security.md` V1 to V6).

use std::fmt;
use std::sync::Arc;

use dunlin_base::EntryId;
use dunlin_base::keys::{PublicKey, Signature, Verifier};
use dunlin_base::planted::{self, Bug};

use crate::cbor::DecodeError;
use crate::entry::Entry;

/// The number of the rule set. A log that was judged by another one has to be indexed again.
pub const VERDICT_RULES: u8 = 1;
/// Longest block of an entry (V1): the longest that bitswap carries. What a Go device hands on reaches every other one, and
/// must reach this one.
pub const ENTRY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most links that `refs` may hold. Go, with its 64 pointers, writes up to seven (V6).
pub const REFS_MAX: usize = 64;
/// Most links that `next` may hold while Go devices write too: those name every head they know (V6).
pub const NEXT_COMPAT_MAX: usize = 4096;

/// What differs between kinds of logs: who may write, what a signature is, what must not be repeated.
///
/// All answers are pure functions of their arguments, or nodes come to different verdicts.
pub trait Rules: Send + Sync {
    /// Whether key, clock id and identity of `entry` belong together, and to somebody who may write (V4).
    fn may_write(&self, entry: &Entry) -> bool;

    /// Whether the signature of `entry` verifies under its key (V5).
    fn is_signed(&self, entry: &Entry) -> bool;

    /// The digest of what may occur only once in the causal past, if `payload` holds such a thing (V8).
    fn unique_value(&self, payload: &str) -> Option<[u8; 32]> {
        let _ = payload;
        None
    }
}

/// The rules of a log that is written with one Ed25519 key, held by all who may write.
#[derive(Clone, Debug)]
pub struct SharedKey {
    verifier: Verifier,
    id: String,
    libp2p: [u8; 36],
}

impl SharedKey {
    /// Admits what is signed by `key`.
    pub fn new(key: PublicKey) -> Self {
        Self { verifier: Verifier::new(key), id: key.to_string(), libp2p: key.to_libp2p() }
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        self.verifier.key()
    }
}

impl Rules for SharedKey {
    fn may_write(&self, entry: &Entry) -> bool {
        entry.key() == self.libp2p
            && entry.clock().id == self.libp2p
            && entry.identity().public_key == self.libp2p
            && entry.identity().id == self.id
    }

    fn is_signed(&self, entry: &Entry) -> bool {
        let Some(signature) = Signature::from_slice(entry.signature()) else { return false };
        self.verifier.verify(entry.body().signed_text().as_bytes(), &signature).is_ok()
    }
}

/// Why a block is not stored. It is a hole to those that name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The block is longer than [`ENTRY_BYTES_MAX`] (V1).
    #[error("a block of {0} bytes is too long for an entry")]
    TooLong(usize),
    /// The block is not an entry in canonical form (V2, V3).
    #[error("the block is no entry: {0}")]
    NotAnEntry(#[from] DecodeError),
    /// The entry belongs to another log (V3).
    #[error("the entry belongs to another log")]
    OtherLog,
}

/// Why an entry is stored but does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Quarantine {
    /// Key, clock id and identity do not belong together, or to nobody who may write (V4).
    #[error("the writer may not write here, or is not who the entry says")]
    Writer,
    /// The signature does not verify (V5).
    #[error("the signature does not verify")]
    Signature,
    /// Too many links, a link twice, or one to itself (V6).
    #[error("the links are out of bounds")]
    Links,
    /// The links are sealed, so that nobody can verify the signature (V5).
    #[error("the links are sealed")]
    SealedLinks,
    /// An accepted entry in the causal past holds the same value (V8).
    #[error("the value was written before")]
    Replay,
}

/// Whether an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Indexed, announced, named by later entries of ours.
    Accept,
    /// Kept, and its links are followed; nothing else.
    Quarantine(Quarantine),
}

/// Judges blocks by their bytes. Cheap to clone, so that other threads can work ahead of the log.
#[derive(Clone)]
pub struct Checker {
    log_id: Arc<str>,
    rules: Arc<dyn Rules>,
}

/// An entry of this log with the verdict on its own bytes; only a [`Checker`] makes one.
#[derive(Clone, Debug)]
pub struct Checked {
    pub(crate) entry: Entry,
    pub(crate) fault: Option<Quarantine>,
    pub(crate) unique: Option<[u8; 32]>,
}

impl Checked {
    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// What is wrong with the entry, if anything is.
    pub fn fault(&self) -> Option<Quarantine> {
        self.fault
    }
}

impl Checker {
    /// Judges for the log named `log_id`.
    pub fn new(log_id: &str, rules: Arc<dyn Rules>) -> Self {
        Self { log_id: log_id.into(), rules }
    }

    /// The log.
    pub fn log_id(&self) -> &str {
        &self.log_id
    }

    /// Judges `block`.
    ///
    /// # Errors
    /// [`Refusal`] when the block must not be stored.
    pub fn check(&self, block: &[u8]) -> Result<Checked, Refusal> {
        self.check_as(EntryId::of_block(block), block)
    }

    pub(crate) fn check_as(&self, id: EntryId, block: &[u8]) -> Result<Checked, Refusal> {
        if block.len() > ENTRY_BYTES_MAX {
            return Err(Refusal::TooLong(block.len()));
        }
        let entry = Entry::decode_as(id, block)?;
        if entry.log_id() != &*self.log_id && !planted::is(Bug::OtherLog) {
            return Err(Refusal::OtherLog);
        }
        let fault = self.fault(&entry);
        Ok(self.sort(entry, fault))
    }

    /// Takes an entry that was signed here.
    pub(crate) fn trust(&self, entry: Entry) -> Checked {
        self.sort(entry, None)
    }

    pub(crate) fn rules(&self) -> &dyn Rules {
        &*self.rules
    }

    fn sort(&self, entry: Entry, fault: Option<Quarantine>) -> Checked {
        let unique = if fault.is_none() { self.rules.unique_value(entry.payload()) } else { None };
        Checked { entry, fault, unique }
    }

    fn fault(&self, entry: &Entry) -> Option<Quarantine> {
        if entry.sealed_links().is_some() {
            return Some(Quarantine::SealedLinks);
        }
        if !self.rules.may_write(entry) && !planted::is(Bug::WriterUnchecked) {
            return Some(Quarantine::Writer);
        }
        if !links_in_bounds(entry) && !planted::is(Bug::LinksUnchecked) {
            return Some(Quarantine::Links);
        }
        if !self.rules.is_signed(entry) && !planted::is(Bug::EntryUnsigned) {
            return Some(Quarantine::Signature);
        }
        None
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("log_id", &self.log_id).finish_non_exhaustive()
    }
}

fn links_in_bounds(entry: &Entry) -> bool {
    entry.refs().len() <= REFS_MAX
        && entry.next().len() <= NEXT_COMPAT_MAX
        && are_distinct(entry.id(), entry.next())
        && are_distinct(entry.id(), entry.refs())
}

fn are_distinct(own: EntryId, links: &[EntryId]) -> bool {
    match links {
        [] => true,
        [one] => *one != own,
        many => {
            let mut sorted = many.to_vec();
            sorted.sort_unstable();
            sorted.is_sorted_by(|a, b| a < b) && sorted.binary_search(&own).is_err()
        }
    }
}
