//! Destroying the directory of an account: its key before anything else (`spec/security.md` S7, §3.9).
//!
//! What is left after any step is no readable store, and whoever begins again finishes. What is not ours stays.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::dir::{KEY, KEY_NEW, LOCK, STORE, sync_dir};
use crate::error::OpenError;

/// What is written over a key: as much as any key file has, in one piece.
const OVERWRITTEN: [u8; crate::key_file::KEY_FILE_BYTES_MAX as usize] = [0; _];

/// The end of an account, step by step.
///
/// Dropped before its last step, it leaves the rest as it is; another one takes it up.
#[derive(Debug)]
pub struct Destruction {
    steps: VecDeque<Step>,
    // Whoever has the lock has the directory to itself.
    _lock: Option<File>,
}

/// One change of the disk.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    /// Writes over a file, and waits until that is on the disk.
    Overwrite(PathBuf),
    Remove(PathBuf),
    /// Makes the removal of names lasting.
    Sync(PathBuf),
    /// Removes the directory if nothing is in it.
    RemoveDirectory(PathBuf),
}

/// Destroys the key of the account in `dir`, whoever has the directory open: without it nothing there can be read once
/// that one has ended. The rest is for [`Destruction`].
///
/// The key is written over before its file is removed. A disk that writes elsewhere than it was told, as flash does, may
/// keep what was there; against that helps a passphrase, which the key file is useless without.
///
/// # Errors
/// When the disk refuses. A key that is not there is destroyed.
pub fn destroy_key(dir: &Path) -> io::Result<()> {
    run_all(key_steps(dir))
}

/// Whether an account is in `dir`, or what is left of one.
pub fn holds_account(dir: &Path) -> bool {
    [KEY, KEY_NEW, STORE, LOCK].iter().any(|name| dir.join(name).symlink_metadata().is_ok())
}

impl Destruction {
    /// Prepares to destroy the account in `dir`: its key, its store, the files `beside` the directory that belong to it,
    /// the files `names` that its owner's program keeps in it, and the directory itself, if then nothing is left in it.
    ///
    /// # Errors
    /// [`OpenError::InUse`] while a process has it open, or [`OpenError::Io`].
    pub fn of(dir: &Path, names: &[&str], beside: &[PathBuf]) -> Result<Self, OpenError> {
        let lock = match OpenOptions::new().read(true).write(true).open(dir.join(LOCK)) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        match lock.as_ref().map(File::try_lock) {
            None | Some(Ok(())) => {}
            Some(Err(TryLockError::WouldBlock)) => return Err(OpenError::InUse),
            Some(Err(TryLockError::Error(error))) => return Err(error.into()),
        }
        let mut steps = VecDeque::from(key_steps(dir));
        steps.extend([Step::Remove(dir.join(STORE)), Step::Sync(dir.to_owned())]);
        steps.extend(beside.iter().cloned().map(Step::Remove));
        steps.extend(
            beside.iter().filter_map(|path| path.parent()).map(|parent| Step::Sync(parent.to_owned())),
        );
        steps.extend(names.iter().map(|name| Step::Remove(dir.join(name))));
        // The last file: as long as it is there, one can see what the directory was.
        steps.push_back(Step::Remove(dir.join(LOCK)));
        steps.extend([Step::Sync(dir.to_owned()), Step::RemoveDirectory(dir.to_owned())]);
        Ok(Self { steps, _lock: lock })
    }

    /// Takes the next step; `None` after the last.
    pub fn step(&mut self) -> Option<io::Result<()>> {
        self.steps.pop_front().map(|step| step.run())
    }

    /// Takes all steps, those too that come after one that fails.
    ///
    /// # Errors
    /// The first refusal of the disk.
    pub fn run(self) -> io::Result<()> {
        run_all(self.steps)
    }
}

fn run_all(steps: impl IntoIterator<Item = Step>) -> io::Result<()> {
    let mut first = Ok(());
    for step in steps {
        let done = step.run();
        first = first.and(done);
    }
    first
}

/// The key, and what a making of it that was broken off may have left.
fn key_steps(dir: &Path) -> Vec<Step> {
    let files = [KEY, KEY_NEW].map(|name| dir.join(name));
    let mut steps: Vec<_> = files.iter().cloned().map(Step::Overwrite).collect();
    steps.extend(files.into_iter().map(Step::Remove));
    steps.push(Step::Sync(dir.to_owned()));
    steps
}

impl Step {
    fn run(&self) -> io::Result<()> {
        let done = match self {
            Self::Overwrite(path) => overwrite(path),
            Self::Remove(path) => std::fs::remove_file(path),
            Self::Sync(dir) => sync_dir(dir),
            Self::RemoveDirectory(dir) => match std::fs::remove_dir(dir) {
                // Something of somebody else is in it.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                removed => removed,
            },
        };
        match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// Writes over what is there, where it is: a new file would leave the old one on the disk.
fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    file.seek(SeekFrom::Start(0))?;
    file.write_all(OVERWRITTEN.get(..length.min(OVERWRITTEN.len())).unwrap_or(&OVERWRITTEN))?;
    file.sync_all()
}
