//! Taking over an account from an archive, before the node is started.

use std::io::{self, Read};

use dunlin_base::kv::{CommitError, Durability, Store, Tx};
use dunlin_wesh::archive::{Import, ImportArchiveError, Imported};
use dunlin_wesh::profile::Profile;
use rand_core::OsRng;

/// Bytes that are read and committed at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// Why an archive was not imported. What was stored of it is no account; import again, or remove the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive could not be read.
    #[error("the archive cannot be read: {0}")]
    Read(#[from] io::Error),
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
    let mut piece = zeroize::Zeroizing::new(vec![0; PIECE_BYTES]);
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
