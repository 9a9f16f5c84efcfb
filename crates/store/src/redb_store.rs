//! The store on a disk: one redb database inside sealed sectors.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{
    Batch, CommitError, Direction, Durability, KeyRange, Read, ReadError, Store, Table, Visit,
};
use dunlin_base::planted::{self, Bug};
use rand_core::{CryptoRng, RngCore};

use crate::disk::Disk;
use crate::engine::{Mode, View, Writer};
use crate::error::{Failure, OpenError};
use crate::header::{Header, SCHEMA, SECTOR_BYTES};
use crate::journal::JOURNAL_SECTORS;
use crate::sectors::{JOURNAL_SECTORS_AT_ONCE, Nonces, Sectors, position};

/// A store on a disk, encrypted and authenticated as a whole.
///
/// Many threads may read while one commits; a reader sees the state between two commits.
///
/// When the disk fails or is full, the store opens itself again from what is on the disk and goes on from there. A
/// commit that was stored after all returns `Ok`; one that returns an error is not stored, unless reads fail as
/// well: then opening again did not work yet, and the next call tries it. Nobody outside has to open a store again.
pub struct RedbStore {
    /// Goes first: the writer closes the database, which then has no readers.
    view: RwLock<Option<Arc<View>>>,
    writer: Mutex<Writer>,
}

impl RedbStore {
    /// Opens the store on `disk`, or makes one if the disk is empty.
    ///
    /// `rng` is seeded from the system, except in simulations: it gives the name of a new store and the start
    /// of this opening's nonces.
    ///
    /// # Errors
    /// [`OpenError`]. The key is checked before anything is written.
    pub fn open(
        disk: Arc<dyn Disk>,
        key: &SymmetricKey,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, OpenError> {
        Self::open_or_make(disk, key, rng, JOURNAL_SECTORS)
    }

    /// Like [`Self::open`]; a new store gets a journal of this many sectors.
    pub(crate) fn open_or_make(
        disk: Arc<dyn Disk>,
        key: &SymmetricKey,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
        journal_sectors: u16,
    ) -> Result<Self, OpenError> {
        let header = match Header::read(&*disk, key)? {
            Some(header) if header.complete => header,
            // Making a store was interrupted: nothing was ever committed to it.
            Some(_) | None => begin_store(&*disk, key, rng, journal_sectors)?,
        };
        let sectors =
            Sectors::new(disk.clone(), &header.sector_key(key), Nonces::new(rng), header.journal_sectors);
        let (writer, view) = Writer::start(sectors, !header.complete)?;
        if !header.complete {
            Header { complete: true, ..header }.write(&*disk, key)?;
        }
        Ok(Self { view: RwLock::new(Some(Arc::new(view))), writer: Mutex::new(writer) })
    }

    /// Syncs what was deferred and empties the journal, so that opening after a crash has nothing to take from it.
    /// For the moment when the app goes quiet.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn settle(&self) -> Result<(), CommitError> {
        self.commit_as(&Batch::default(), Mode::Settled)
    }

    fn commit_as(&self, batch: &Batch, mode: Mode) -> Result<(), CommitError> {
        let mut writer = self.lock_writer();
        let mut commit = || -> Result<(), Failure> {
            self.ensure_running(&mut writer)?;
            let does_nothing = mode == Mode::Deferred || !writer.has_deferred();
            if batch.is_empty() && mode != Mode::Settled && does_nothing {
                return Ok(());
            }
            let view = writer.commit(batch, mode)?;
            self.show(Some(view));
            Ok(())
        };
        let Err(failure) = commit() else { return Ok(()) };
        if planted::is(Bug::CommitErrorIgnored) {
            return Ok(());
        }
        if writer.is_running() {
            self.restart(&mut writer, &failure);
        }
        match self.shown().map(|view| view.shows(batch)) {
            // The disk has all of it: what failed came after, and opening again has synced it.
            Some(Ok(true)) if mode != Mode::Settled && !writer.has_deferred() => Ok(()),
            _ if failure.is_full() => Err(CommitError::Full),
            _ => Err(CommitError::Io(Box::new(failure))),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&View) -> Result<T, Failure>) -> Result<T, ReadError> {
        let view = self.view().map_err(|failure| ReadError(Box::new(failure)))?;
        read(&view).map_err(|failure| {
            let mut writer = self.lock_writer();
            if self.shown().is_some_and(|shown| Arc::ptr_eq(&shown, &view)) {
                self.restart(&mut writer, &failure);
            }
            ReadError(Box::new(failure))
        })
    }

    /// The state to read from, after opening again if that is due.
    fn view(&self) -> Result<Arc<View>, Failure> {
        if let Some(view) = self.shown() {
            return Ok(view);
        }
        let mut writer = self.lock_writer();
        self.ensure_running(&mut writer)?;
        self.shown().ok_or(Failure::Stopped)
    }

    /// Gives the failed database up and opens it again, or leaves that to the next call.
    fn restart(&self, writer: &mut Writer, failure: &Failure) {
        self.show(None);
        writer.give_up(failure);
        // Why it fails is told by the next call, which tries again.
        let _ = self.ensure_running(writer);
    }

    fn ensure_running(&self, writer: &mut Writer) -> Result<(), Failure> {
        if !writer.is_running() {
            let view = writer.restart()?;
            self.show(Some(view));
        }
        Ok(())
    }

    fn shown(&self) -> Option<Arc<View>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, view: Option<View>) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view.map(Arc::new);
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedbStore(..)")
    }
}

impl Read for RedbStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(|view| view.get(table, key))
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        self.read(|view| view.scan(table, range, direction, visit))
    }
}

impl Store for RedbStore {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), CommitError> {
        let mode = match durability {
            Durability::Deferred => Mode::Deferred,
            Durability::Synced if planted::is(Bug::CommitDeferred) => Mode::Deferred,
            Durability::Synced => Mode::Synced,
        };
        self.commit_as(&batch, mode)
    }
}

fn begin_store(
    disk: &dyn Disk,
    key: &SymmetricKey,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
    journal_sectors: u16,
) -> Result<Header, OpenError> {
    let mut id = [0; 16];
    rng.fill_bytes(&mut id);
    let header = Header { id, complete: false, schema: SCHEMA, journal_sectors };
    disk.set_len(SECTOR_BYTES as u64)?;
    header.write(disk, key)?;
    // A sync is quicker where a write takes no new room.
    let zeros = [0; JOURNAL_SECTORS_AT_ONCE * SECTOR_BYTES];
    let end = position(journal_sectors.into());
    for start in (position(0)..end).step_by(zeros.len()) {
        let len = usize::try_from(end - start).unwrap_or(usize::MAX).min(zeros.len());
        disk.write(start, zeros.get(..len).unwrap_or_default())?;
    }
    Ok(header)
}
