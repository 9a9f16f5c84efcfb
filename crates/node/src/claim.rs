//! Whether a data directory is the one that ran last, or a copy of it (`spec/security.md` E3).
//!
//! Every start draws a number and leaves it in two places: in the store, and in one that a copy or a backup of the
//! store does not take along. Where they differ at the next start, the store was copied or came back from a
//! backup, and its keys may be in use elsewhere or were used further. Then the account gets a new device key before
//! anything is sent. The number outside is written first, as a proposal, and becomes the current one once the store has
//! it: a crash in between looks like what it is.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use dunlin_base::kv::{CommitError, Durability, Store, Tx};
use dunlin_wesh::engine::renew_device;
use rand_core::{OsRng, RngCore};

use crate::core::CoreError;
use crate::tables::{self, BOOT, IDENTITY};

/// A number that one start of a node is known by.
pub type BootNonce = [u8; 16];

/// What is kept outside the store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BootNonces {
    /// That of the last start that is known to be in the store.
    pub current: BootNonce,
    /// That of a start that may have got so far.
    pub proposed: BootNonce,
}

/// A place that is not copied with the data directory: the keystore of the system, or a [file](FileBeside).
pub trait Keystore: Send + Sync {
    /// What was written last; `None` when nothing was.
    ///
    /// # Errors
    /// When the place cannot be read. Then nothing is known, and nothing is done.
    fn read(&self) -> io::Result<Option<BootNonces>>;

    /// Writes, and returns once that lasts.
    ///
    /// # Errors
    /// When the place cannot be written.
    fn write(&self, nonces: &BootNonces) -> io::Result<()>;
}

/// A file beside the data directory, whose name follows from that of the directory.
#[derive(Clone, Debug)]
pub struct FileBeside {
    path: PathBuf,
}

impl FileBeside {
    /// The file beside the data directory `dir`; `None` when there is no such place: `dir` is the root of a file
    /// system, and what lies outside that need not last as long.
    pub fn of(dir: &Path) -> Option<Self> {
        let dir = dir.canonicalize().ok()?;
        let (parent, name) = (dir.parent()?, dir.file_name()?);
        if !is_on_one_file_system(&dir, parent) {
            return None;
        }
        let mut file = std::ffi::OsString::from(".");
        file.push(name);
        file.push(".boot");
        Some(Self { path: parent.join(file) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that it ever leaves, for whoever deletes an account.
    pub fn files(&self) -> [PathBuf; 2] {
        [self.path.clone(), self.new_path()]
    }

    fn new_path(&self) -> PathBuf {
        self.path.with_extension("boot.new")
    }
}

impl Keystore for FileBeside {
    fn read(&self) -> io::Result<Option<BootNonces>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::with_capacity(33);
        file.take(33).read_to_end(&mut bytes)?;
        // What is no two numbers tells as little as no file.
        Ok(bytes.split_first_chunk().and_then(|(current, proposed)| {
            Some(BootNonces { current: *current, proposed: proposed.try_into().ok()? })
        }))
    }

    fn write(&self, nonces: &BootNonces) -> io::Result<()> {
        let new = self.new_path();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(&[nonces.current, nonces.proposed].concat())?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        #[cfg(unix)]
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

/// Outside the file system of the directory there is often nothing that lasts, such as below a mounted volume.
#[cfg(unix)]
fn is_on_one_file_system(dir: &Path, parent: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|metadata| metadata.dev()).ok();
    device(dir).is_some() && device(dir) == device(parent)
}

#[cfg(not(unix))]
fn is_on_one_file_system(_dir: &Path, _parent: &Path) -> bool {
    true
}

/// What a start found out about its store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// Nobody ran on it before, as far as is known.
    New,
    /// It is as the last start left it.
    Ours,
    /// It is a copy, or older than what ran last. The account goes on as a new device.
    Copied,
    /// The place outside cannot be used, so nothing is known.
    Unknown,
}

/// Claims a store for this start, before a node is started on it, and gives its account a new device key if it is a
/// copy.
///
/// # Errors
/// When the store cannot be read or written.
pub fn claim(store: &dyn Store, keystore: &dyn Keystore) -> Result<Claim, CoreError> {
    let kept = store.get(tables::NODE, BOOT)?;
    let outside = match keystore.read() {
        Ok(outside) => outside,
        Err(error) => return Ok(not_known(&error)),
    };
    let claim = match (&kept, &outside) {
        (None, _) => Claim::New,
        (Some(kept), Some(outside))
            if [outside.current, outside.proposed].iter().any(|one| one == &**kept) =>
        {
            Claim::Ours
        }
        (Some(_), _) => Claim::Copied,
    };
    let mut fresh = BootNonce::default();
    OsRng.fill_bytes(&mut fresh);
    let current = match claim {
        Claim::Ours => kept.and_then(|kept| kept.try_into().ok()).unwrap_or(fresh),
        _ => outside.map_or(fresh, |outside| outside.current),
    };
    if let Err(error) = keystore.write(&BootNonces { current, proposed: fresh }) {
        return Ok(not_known(&error));
    }
    let mut tx = Tx::new(store);
    tx.put(tables::NODE, BOOT, &fresh);
    if claim == Claim::Copied {
        renew_device(&mut tx, &mut OsRng)?;
        // Two hosts with one identity take the connections of each other.
        tx.delete(tables::NODE, IDENTITY);
    }
    match store.commit(tx.into_batch(), Durability::Synced) {
        Ok(()) => {}
        // It can be started to be read. Either number is known outside, so the next start finds its own as well.
        Err(CommitError::Full) if claim == Claim::Ours => return Ok(claim),
        Err(error) => return Err(error.into()),
    }
    if let Err(error) = keystore.write(&BootNonces { current: fresh, proposed: fresh }) {
        // The proposal is there, which is enough for the next start.
        tracing::debug!(%error, "the boot nonce is not confirmed");
    }
    Ok(claim)
}

fn not_known(error: &io::Error) -> Claim {
    tracing::info!(%error, "whether the data directory is a copy cannot be told");
    Claim::Unknown
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use dunlin_base::DeviceId;
    use dunlin_base::kv::{Batch, Direction, KeyRange, MemoryStore, Read, ReadError, Table, Visit};
    use dunlin_store::Unlock;
    use dunlin_wesh::keys::AccountKeys;

    use super::*;

    /// A keystore whose writes can be made to fail.
    #[derive(Default)]
    struct Parked {
        nonces: Mutex<Option<BootNonces>>,
        writes_left: Mutex<Option<u32>>,
    }

    impl Keystore for Parked {
        fn read(&self) -> io::Result<Option<BootNonces>> {
            Ok(*self.nonces.lock().unwrap())
        }

        fn write(&self, nonces: &BootNonces) -> io::Result<()> {
            if let Some(left) = &mut *self.writes_left.lock().unwrap() {
                *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            }
            *self.nonces.lock().unwrap() = Some(*nonces);
            Ok(())
        }
    }

    fn device(store: &dyn Store) -> DeviceId {
        AccountKeys::load(store).unwrap().unwrap().device_id()
    }

    fn with_account(store: &dyn Store) {
        let mut tx = Tx::new(store);
        AccountKeys::generate(&mut OsRng).store(&mut tx);
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
    }

    fn open(dir: &Path) -> Arc<dyn Store> {
        Arc::new(dunlin_store::open(dir, &Unlock::KeyFile).unwrap())
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }

    /// `spec/security.md` E3, with real directories: one that is copied while it runs.
    #[test]
    fn clone_detect() {
        let room = tempfile::tempdir().unwrap();
        let (first, second) = (room.path().join("first"), room.path().join("second"));
        let store = open(&first);
        let beside = FileBeside::of(&first).unwrap();
        assert_eq!(claim(&*store, &beside).unwrap(), Claim::New);
        with_account(&*store);
        let own = device(&*store);
        copy(&first, &second);

        let copied = open(&second);
        assert_eq!(claim(&*copied, &FileBeside::of(&second).unwrap()).unwrap(), Claim::Copied);
        let other = device(&*copied);
        assert_ne!(other, own);
        drop(copied);
        let copied = open(&second);
        assert_eq!(claim(&*copied, &FileBeside::of(&second).unwrap()).unwrap(), Claim::Ours);
        assert_eq!(device(&*copied), other, "that was once");

        drop(store);
        let store = open(&first);
        assert_eq!(claim(&*store, &beside).unwrap(), Claim::Ours);
        assert_eq!(device(&*store), own, "who ran on goes on");
    }

    /// A directory that comes back from a backup to where it was.
    #[test]
    fn a_rolled_back_directory_is_seen() {
        let room = tempfile::tempdir().unwrap();
        let (dir, backup) = (room.path().join("data"), room.path().join("backup"));
        let store = open(&dir);
        let beside = FileBeside::of(&dir).unwrap();
        claim(&*store, &beside).unwrap();
        with_account(&*store);
        drop(store);
        copy(&dir, &backup);
        let store = open(&dir);
        assert_eq!(claim(&*store, &beside).unwrap(), Claim::Ours);
        drop(store);
        copy(&backup, &dir);
        assert_eq!(claim(&*open(&dir), &beside).unwrap(), Claim::Copied);
    }

    /// Wherever a start ends, the next one on the same store is not taken for a copy, and one on a copy is.
    #[test]
    fn a_crash_in_between_is_no_copy() {
        for writes in 0..=2 {
            let (store, keystore) = (MemoryStore::default(), Parked::default());
            claim(&store, &keystore).unwrap();
            with_account(&store);
            let own = device(&store);
            *keystore.writes_left.lock().unwrap() = Some(writes);
            let _ = claim(&store, &keystore).unwrap();
            *keystore.writes_left.lock().unwrap() = None;
            assert_eq!(claim(&store, &keystore).unwrap(), Claim::Ours, "{writes}");
            assert_eq!(device(&store), own);
        }
        // The proposal was written, the store was not.
        let (store, keystore) = (MemoryStore::default(), Parked::default());
        claim(&store, &keystore).unwrap();
        with_account(&store);
        let nonces = keystore.read().unwrap().unwrap();
        keystore.write(&BootNonces { proposed: [7; 16], ..nonces }).unwrap();
        assert_eq!(claim(&store, &keystore).unwrap(), Claim::Ours);
    }

    /// Where the disk is full, the owner can still read; a copy is not started without a key of its own.
    #[test]
    fn a_full_disk_stops_only_a_copy() {
        let (mut store, keystore) =
            (Full { rows: MemoryStore::default(), is_full: false }, Parked::default());
        claim(&store, &keystore).unwrap();
        with_account(&store);
        store.is_full = true;
        assert_eq!(claim(&store, &keystore).unwrap(), Claim::Ours);
        let full = claim(&store, &Parked::default());
        assert!(matches!(full, Err(CoreError::Commit(CommitError::Full))), "{full:?}");
        store.is_full = false;
        assert_eq!(claim(&store, &keystore).unwrap(), Claim::Ours);
    }

    /// A store whose disk can be full.
    struct Full {
        rows: MemoryStore,
        is_full: bool,
    }

    impl Read for Full {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
            self.rows.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            range: &KeyRange,
            direction: Direction,
            visit: &mut Visit<'_>,
        ) -> Result<(), ReadError> {
            self.rows.scan(table, range, direction, visit)
        }
    }

    impl Store for Full {
        fn commit(&self, batch: Batch, durability: Durability) -> Result<(), CommitError> {
            if self.is_full { Err(CommitError::Full) } else { self.rows.commit(batch, durability) }
        }
    }

    #[test]
    fn without_a_place_outside_nothing_changes() {
        let (store, keystore) = (MemoryStore::default(), Parked::default());
        *keystore.writes_left.lock().unwrap() = Some(0);
        with_account(&store);
        let own = device(&store);
        assert_eq!(claim(&store, &keystore).unwrap(), Claim::Unknown);
        *keystore.writes_left.lock().unwrap() = None;
        assert_eq!(claim(&store, &keystore).unwrap(), Claim::New);
        assert_eq!(device(&store), own);
    }
}
