//! Taking over an account from an archive, before the node is started.

use std::io::{self, Chain, Cursor, Read};

use dunlin_base::kv::{CommitError, Durability, Store, Tx};
use dunlin_wesh::archive::{
    Import, ImportArchiveError, Imported, LockedArchive, Opener, SEALED_HEAD_BYTES, SealedArchiveError,
    SealedHead, is_sealed,
};
use dunlin_wesh::profile::Profile;
use rand_core::OsRng;
use zeroize::Zeroizing;

/// Bytes that are read and committed at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// Why an archive was not imported. What was stored of it is no account; import again, or remove the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive could not be read.
    #[error("the archive cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The archive is under a passphrase, and damaged or of a later version.
    #[error(transparent)]
    Sealed(#[from] SealedArchiveError),
    /// The archive or the store is not what it has to be.
    #[error(transparent)]
    Archive(#[from] ImportArchiveError),
    /// The store could not be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Imports an archive into an empty store. Blocks as long as it takes.
///
/// # Errors
/// [`ImportError`].
pub fn import_archive(
    store: &dyn Store,
    profile: Profile,
    archive: &mut dyn Read,
) -> Result<Imported, ImportError> {
    let mut tx = Tx::new(store);
    let mut import = Import::begin(&mut tx, profile)?;
    let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
    loop {
        let length = match archive.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        import.feed(&mut tx, piece.get(..length).unwrap_or_default())?;
        store.commit(tx.into_batch(), Durability::Deferred)?;
        tx = Tx::new(store);
    }
    let imported = import.finish(&mut tx, &mut OsRng)?;
    store.commit(tx.into_batch(), Durability::Synced)?;
    Ok(imported)
}

/// An archive as it was found.
pub enum FoundArchive<R> {
    /// In clear, to be imported as it is.
    Clear(Chain<Cursor<Vec<u8>>, R>),
    /// Under a passphrase.
    Locked(LockedFile<R>),
}

/// An archive under a passphrase that was not given yet.
pub struct LockedFile<R> {
    archive: LockedArchive,
    file: R,
}

/// An archive whose passphrase was right: what is inside, to be imported.
pub struct UnlockedFile<R> {
    file: R,
    opener: Option<Opener>,
    sealed: Vec<u8>,
    clear: Zeroizing<Vec<u8>>,
    given: usize,
}

/// Looks what kind of archive a file is.
///
/// # Errors
/// [`ImportError::Read`], or [`ImportError::Sealed`] for one under a passphrase that cannot be read.
pub fn find_archive<R: Read>(mut file: R) -> Result<FoundArchive<R>, ImportError> {
    let mut beginning = Vec::with_capacity(SEALED_HEAD_BYTES);
    file.by_ref().take(SEALED_HEAD_BYTES as u64).read_to_end(&mut beginning)?;
    if !is_sealed(&beginning) {
        return Ok(FoundArchive::Clear(Cursor::new(beginning).chain(file)));
    }
    let head = beginning.as_slice().try_into().map_err(|_| SealedArchiveError::End)?;
    Ok(FoundArchive::Locked(LockedFile { archive: SealedHead::parse(head)?, file }))
}

impl<R: Read> LockedFile<R> {
    /// Tries a passphrase. Slow on purpose.
    ///
    /// # Errors
    /// [`SealedArchiveError::WrongPassphrase`]: try another one.
    pub fn try_passphrase(&self, passphrase: &str) -> Result<Opener, SealedArchiveError> {
        self.archive.unlock(passphrase)
    }

    /// What is inside, by the opener that [`Self::try_passphrase`] gave.
    pub fn open(self, opener: Opener) -> UnlockedFile<R> {
        UnlockedFile {
            file: self.file,
            opener: Some(opener),
            sealed: vec![0; PIECE_BYTES],
            clear: Zeroizing::default(),
            given: 0,
        }
    }
}

impl<R: Read> Read for UnlockedFile<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given >= self.clear.len() {
            let Some(opener) = &mut self.opener else { return Ok(0) };
            let clear = match self.file.read(&mut self.sealed)? {
                0 => match self.opener.take() {
                    Some(opener) => opener.finish(),
                    None => return Ok(0),
                },
                length => opener.feed(self.sealed.get(..length).unwrap_or_default()),
            };
            (self.clear, self.given) = (clear.map_err(io::Error::other)?, 0);
        }
        let mut rest = self.clear.get(self.given..).unwrap_or_default();
        let length = rest.read(buffer)?;
        self.given = self.given.saturating_add(length);
        Ok(length)
    }
}
