//! The directory of one account: its lock, its key, its store.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use dunlin_base::keys::SymmetricKey;
use rand_core::{CryptoRng, OsRng, RngCore};
use zeroize::Zeroizing;

use crate::disk::FileDisk;
use crate::error::{Damage, OpenError};
use crate::key_file::{KEY_FILE_BYTES_MAX, KeyFile};
use crate::redb_store::RedbStore;

pub(crate) const KEY: &str = "key";
pub(crate) const KEY_NEW: &str = "key.new";
pub(crate) const LOCK: &str = "lock";
pub(crate) const STORE: &str = "node.redb";

/// What opens the storage key.
pub enum Unlock {
    /// The key lies bare in the key file: who can read the directory can read everything in it.
    ///
    /// This is what `spec/security.md` §3.9 names `dangerous_without_keystore`: the fallback where the system
    /// has no keystore and the user gave no passphrase. It protects a disk that is thrown away without the
    /// file, and nothing else.
    KeyFile,
    /// The key is under this passphrase (Argon2id: 64 MiB, three passes).
    Passphrase(Zeroizing<String>),
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile => f.write_str("KeyFile"),
            Self::Passphrase(_) => f.write_str("Passphrase(..)"),
        }
    }
}

/// Opens the store of the account in `dir`; makes the directory, the key and the store where they are missing.
///
/// The way a new directory is unlocked is chosen here; an existing one opens only the way it was made.
///
/// # Errors
/// [`OpenError`]. What is there already is never overwritten.
pub fn open(dir: &Path, unlock: &Unlock) -> Result<RedbStore, OpenError> {
    make_dir(dir)?;
    let lock = lock(&dir.join(LOCK))?;
    let file = private_file().create(true).truncate(false).open(dir.join(STORE))?;
    let is_new = file.metadata()?.len() == 0;
    let key = match read_key(&dir.join(KEY))? {
        Some(key_file) => take_key(&key_file, unlock)?,
        None if is_new => make_key(dir, unlock, &mut OsRng)?,
        None => return Err(OpenError::KeyMissing),
    };
    let store = RedbStore::open(Arc::new(FileDisk::new(file, Some(lock))), &key, &mut OsRng)?;
    if is_new {
        sync_dir(dir)?;
    }
    Ok(store)
}

fn take_key(key_file: &KeyFile, unlock: &Unlock) -> Result<SymmetricKey, OpenError> {
    match (key_file, unlock) {
        (KeyFile::Bare(key), Unlock::KeyFile) => Ok(key.clone()),
        (KeyFile::Bare(_), Unlock::Passphrase(_)) => Err(OpenError::PassphraseNotSet),
        (KeyFile::Wrapped(_), Unlock::KeyFile) => Err(OpenError::PassphraseRequired),
        (KeyFile::Wrapped(wrapped), Unlock::Passphrase(passphrase)) => wrapped.unwrap(passphrase),
    }
}

/// Draws a key and writes its file, which is on the disk before anything is encrypted with the key.
fn make_key(
    dir: &Path,
    unlock: &Unlock,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<SymmetricKey, OpenError> {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    let key = SymmetricKey::from_bytes(*bytes);
    let key_file = match unlock {
        Unlock::KeyFile => KeyFile::Bare(key.clone()),
        Unlock::Passphrase(passphrase) => KeyFile::wrap(&key, passphrase, rng)?,
    };
    let path = dir.join(KEY_NEW);
    // An earlier attempt may have left its file behind, with a key that nothing was encrypted with.
    let mut file = private_file().create(true).truncate(true).open(&path)?;
    file.write_all(&key_file.to_bytes())?;
    file.sync_all()?;
    std::fs::rename(&path, dir.join(KEY))?;
    sync_dir(dir)?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<Option<KeyFile>, OpenError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_BYTES_MAX as usize + 1));
    file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(Damage::KeyFile.into());
    }
    KeyFile::parse(&bytes).map(Some)
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = private_file().create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Makes the directory readable for its owner alone. One that exists stays as its owner set it up.
fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// A file for its owner alone.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes names lasting: what was created or renamed in `dir`.
#[cfg(unix)]
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Windows opens no directories as files, and writes their changes through its own journal.
#[cfg(not(unix))]
pub(crate) fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}
