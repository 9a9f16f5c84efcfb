//! Why a store does not open, and what went wrong inside one that did.

use std::io;

/// Why a store was not opened. It holds what it held before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Bits are not what was written. Restore the directory from a copy, or start a new one.
    #[error("the store is damaged: {0}")]
    Damaged(#[from] Damage),
    /// Another process has the directory open. End that one, or use another directory.
    #[error("another dunlin is running on this directory")]
    InUse,
    /// The disk or the file system refused. Its own error says what to do.
    #[error("the store could not be opened: {0}")]
    Io(#[from] io::Error),
    /// The store is there but its key file is not. Put the key file back; without it the store cannot be read.
    #[error("the key file is missing: without it the store cannot be read")]
    KeyMissing,
    /// The file was written by a newer release. Update, then open it.
    #[error("the store has format {found}, this release knows up to {known}: update dunlin")]
    NewerFormat {
        /// The format of the file.
        found: u8,
        /// The newest format that this release reads.
        known: u8,
    },
    /// The rows were written by a newer release. Update, then open it.
    #[error("the store has schema {found}, this release knows up to {known}: update dunlin")]
    NewerSchema {
        /// The schema of the rows.
        found: u32,
        /// The newest schema that this release understands.
        known: u32,
    },
    /// The rows were written by a build from before the first release. Open them with that build, or use another
    /// directory.
    #[error("the store has schema {found}, which no release wrote")]
    UnreleasedSchema {
        /// The schema of the rows.
        found: u32,
    },
    /// The file is something else. It is left alone; use another directory.
    #[error("the file is not a dunlin store")]
    NotAStore,
    /// A passphrase was given, but the key is not under one. Open without, if the directory is the right one.
    #[error("the directory is not protected by a passphrase")]
    PassphraseNotSet,
    /// The key is under a passphrase. Ask for it.
    #[error("the directory is protected by a passphrase")]
    PassphraseRequired,
    /// The key opens another store. Put the key file back that belongs to this store.
    #[error("the key does not belong to this store")]
    WrongKey,
    /// The passphrase is not the one that was set. Ask again.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
}

/// What does not hold together.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Pages contradict each other.
    #[error("{0}")]
    Content(String),
    /// The first sector of the store.
    #[error("its first sector was changed")]
    Header,
    /// The key file.
    #[error("its key file was changed")]
    KeyFile,
    /// A sector does not carry the seal it was written with.
    #[error("sector {0} was changed")]
    Sector(u64),
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// What went wrong inside an open store.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was read is not what was written.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The database under the store failed.
    #[error(transparent)]
    Database(redb::Error),
    /// The database under the store found itself in a state it takes for impossible, and panicked.
    #[error("the store met damage it did not expect")]
    Panicked,
    /// The store failed before and could not be opened again since.
    #[error("the store failed and could not be opened again: {0}")]
    Reopen(#[source] OpenError),
    /// The database is not open.
    #[error("the store is closed")]
    Stopped,
}

impl Failure {
    /// Whether the disk had no room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Database(redb::Error::Io(error)) => is_full(error),
            Self::Reopen(OpenError::Io(error)) => is_full(error),
            Self::Damaged(_) | Self::Database(_) | Self::Panicked | Self::Reopen(_) | Self::Stopped => false,
        }
    }

    /// The same, but for a full disk, which promises that nothing is stored.
    pub fn without_promise(self) -> Self {
        match self {
            Self::Database(redb::Error::Io(error)) if is_full(&error) => {
                Self::Database(redb::Error::Io(io::Error::other(error)))
            }
            other => other,
        }
    }
}

impl<E: DatabaseFailure> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// The errors of the database, one for each of its operations.
trait DatabaseFailure: Into<redb::Error> {}

impl DatabaseFailure for redb::CommitError {}
impl DatabaseFailure for redb::DatabaseError {}
impl DatabaseFailure for redb::SetDurabilityError {}
impl DatabaseFailure for redb::StorageError {}
impl DatabaseFailure for redb::TableError {}
impl DatabaseFailure for redb::TransactionError {}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Damaged(damage) => damage.into(),
            Failure::Database(redb::Error::Io(error)) => from_io(error),
            Failure::Database(error) => Damage::Content(error.to_string()).into(),
            Failure::Panicked | Failure::Stopped => {
                Damage::Content("a structure leads nowhere".to_owned()).into()
            }
            Failure::Reopen(error) => error,
        }
    }
}

/// Whether `error` says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn from_io(error: io::Error) -> OpenError {
    match error.downcast::<Damage>() {
        Ok(damage) => damage.into(),
        Err(error) => error.into(),
    }
}
