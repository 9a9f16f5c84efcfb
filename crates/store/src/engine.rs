//! One run of the database: opening it on sealed sectors, one writer, views to read from.
//!
//! The database panics where it finds itself in a state that it takes for impossible. Every sector is
//! authenticated, so only an old copy of single sectors, put back by somebody with a copy of the file, leads
//! there. [`guard`] turns such a panic into an error of this store, so that the process with its other stores
//! goes on.

use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};

use dunlin_base::kv::{Batch, Direction, KeyRange, Table, Visit, after_prefix};
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction,
};

use crate::error::{Damage, Failure, OpenError};
use crate::header::SCHEMA;
use crate::sectors::Sectors;

/// Memory that the database may use for pages it read or will write: a phone spares this much, and the
/// conversations somebody looks at in one sitting fit.
pub const CACHE_BYTES_MAX: usize = 8 << 20;

/// Bytes of deferred commits that are held until a synced one. Beyond this a deferred commit is synced.
pub const DEFERRED_BYTES_MAX: usize = 4 << 20;

/// Rows up to this length are looked up without memory from the heap: a table, two hashes and a counter fit.
const ROW_KEY_BYTES_INLINE: usize = 96;

/// All rows of all tables, under the byte of the table followed by the key.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// What the store notes for itself.
const NOTES: TableDefinition<'_, &str, u64> = TableDefinition::new("notes");
/// The schema of the rows.
const NOTE_SCHEMA: &str = "schema";
/// Counts the synced commits that carried deferred ones along.
const NOTE_FLUSHES: &str = "flushes";

/// How a commit ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// In memory, until the next commit of another mode.
    Deferred,
    /// On the disk.
    Synced,
    /// On the disk, with a note of where the disk has room, so that no opening needs to search for it.
    Settled,
}

/// The one that changes the database.
pub struct Writer {
    /// `None` after a failure, until opening again worked.
    database: Option<Database>,
    /// Commits that are in the database but not yet on the disk; they are made again after a failure.
    deferred: Vec<Batch>,
    deferred_bytes: usize,
    flushes: u64,
    sectors: Sectors,
}

impl Writer {
    /// Opens the database of a store, or makes it if the store `is_new`.
    pub fn start(sectors: Sectors, is_new: bool) -> Result<(Self, View), OpenError> {
        if !is_new && sectors.len()? == 0 {
            // The database would take this for a new file and start over.
            return Err(Damage::Content("everything behind the first sector is gone".to_owned()).into());
        }
        let mut writer =
            Self { database: None, deferred: Vec::new(), deferred_bytes: 0, flushes: 0, sectors };
        writer.database = Some(writer.open_database()?);
        let database = writer.running()?;
        if is_new {
            guard(|| make_tables(database))?;
        }
        let (schema, flushes) = guard(|| read_notes(database))?;
        if schema > SCHEMA.into() {
            return Err(OpenError::NewerSchema {
                found: schema.try_into().unwrap_or(u32::MAX),
                known: SCHEMA,
            });
        }
        let view = guard(|| View::new(database))?;
        writer.flushes = flushes;
        Ok((writer, view))
    }

    /// Whether the database is open.
    pub fn is_running(&self) -> bool {
        self.database.is_some()
    }

    /// Gives the database up.
    pub fn stop(&mut self) {
        let database = self.database.take();
        // After a failure there is nothing left to save, and without one closing takes what is deferred along.
        let _ = guard(|| {
            drop(database);
            Ok(())
        });
    }

    /// Opens the database again, with the deferred commits that did not reach the disk.
    pub fn restart(&mut self) -> Result<View, Failure> {
        let restarted = self.restart_or_leave_open();
        if restarted.is_err() {
            self.stop();
        }
        restarted
    }

    /// Applies `batch` in one step and returns the state after it.
    pub fn commit(&mut self, batch: &Batch, mode: Mode) -> Result<View, Failure> {
        let database = self.running()?;
        let bytes = self.deferred_bytes.saturating_add(memory_bytes(batch));
        let mode = if bytes > DEFERRED_BYTES_MAX && mode == Mode::Deferred { Mode::Synced } else { mode };
        let flushes = match mode {
            Mode::Synced | Mode::Settled if !self.deferred.is_empty() => self.flushes + 1,
            Mode::Synced | Mode::Settled | Mode::Deferred => self.flushes,
        };
        let view = guard(|| {
            let mut tx = begin(database, mode)?;
            apply(&mut tx, batch)?;
            if flushes > self.flushes {
                tx.open_table(NOTES)?.insert(NOTE_FLUSHES, flushes)?;
            }
            tx.commit()?;
            View::new(database)
        })?;
        match mode {
            Mode::Deferred => {
                self.deferred.push(batch.clone());
                self.deferred_bytes = bytes;
            }
            Mode::Synced | Mode::Settled => self.forget_deferred(),
        }
        self.flushes = flushes;
        Ok(view)
    }

    /// Whether commits wait for a synced one.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    fn restart_or_leave_open(&mut self) -> Result<View, Failure> {
        self.database = Some(self.open_database()?);
        let (_, flushes) = guard(|| read_notes(self.running()?))?;
        if flushes > self.flushes {
            // The commit that failed is stored after all, and it carried them along.
            self.forget_deferred();
            self.flushes = flushes;
        }
        if self.has_deferred() {
            guard(|| {
                let mut tx = begin(self.running()?, Mode::Deferred)?;
                self.deferred.iter().try_for_each(|batch| apply(&mut tx, batch))?;
                Ok(tx.commit()?)
            })?;
        }
        guard(|| View::new(self.running()?))
    }

    fn running(&self) -> Result<&Database, Failure> {
        self.database.as_ref().ok_or(Failure::Stopped)
    }

    fn forget_deferred(&mut self) {
        self.deferred.clear();
        self.deferred_bytes = 0;
    }

    fn open_database(&self) -> Result<Database, Failure> {
        let backend = self.sectors.backend();
        let holes = backend.holes();
        let holes_in_repair = holes.clone();
        let database = guard(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES_MAX);
            builder.set_repair_callback(move |_| holes_in_repair.begin_repair());
            Ok(builder.create_with_backend(backend)?)
        })?;
        holes.end_repair();
        Ok(database)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The state between two commits.
pub struct View {
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Keeps the pages of this state from being used again.
    _transaction: ReadTransaction,
}

impl View {
    fn new(database: &Database) -> Result<Self, Failure> {
        let transaction = database.begin_read()?;
        let rows = transaction.open_table(ROWS)?;
        Ok(Self { rows, _transaction: transaction })
    }

    /// Reads one value.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let mut inline = [0; ROW_KEY_BYTES_INLINE];
        let heap;
        let row = match inline.get_mut(..=key.len()).and_then(|row| row.split_first_mut()) {
            Some((first, rest)) => {
                *first = table.0;
                rest.copy_from_slice(key);
                inline.get(..=key.len()).unwrap_or_default()
            }
            None => {
                heap = row_key(table, key);
                heap.as_slice()
            }
        };
        guard(|| Ok(self.rows.get(row)?.map(|value| value.value().to_vec())))
    }

    /// Whether everything is as `batch` would make it.
    pub fn shows(&self, batch: &Batch) -> Result<bool, Failure> {
        for (table, key, value) in batch.iter() {
            if self.get(table, key)?.as_deref() != value {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Visits the pairs inside `range` in order.
    pub fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), Failure> {
        if range.is_empty() {
            return Ok(());
        }
        let start = row_key(table, &range.start);
        let end = match &range.end {
            Some(end) => Some(row_key(table, end)),
            None => after_prefix(&[table.0]),
        };
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (Bound::Included(&start), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
        let mut rows = guard(|| Ok(self.rows.range::<&[u8]>(bounds)?))?;
        loop {
            let next = guard(|| {
                let next = match direction {
                    Direction::Ascending => rows.next(),
                    Direction::Descending => rows.next_back(),
                };
                Ok(next.transpose()?)
            })?;
            let Some((row, value)) = next else { return Ok(()) };
            // Where they lie in the page is told by the page, too.
            let (row, value) = guard(|| Ok((row.value(), value.value())))?;
            let Some((_, key)) = row.split_first() else { continue };
            if let ControlFlow::Break(()) = visit(key, value) {
                return Ok(());
            }
        }
    }
}

fn begin(database: &Database, mode: Mode) -> Result<WriteTransaction, Failure> {
    let mut tx = database.begin_write()?;
    match mode {
        Mode::Deferred => tx.set_durability(redb::Durability::None)?,
        Mode::Synced => {}
        Mode::Settled => tx.set_quick_repair(true),
    }
    Ok(tx)
}

fn apply(tx: &mut WriteTransaction, batch: &Batch) -> Result<(), Failure> {
    let mut rows = tx.open_table(ROWS)?;
    for (table, key, value) in batch.iter() {
        let row = row_key(table, key);
        match value {
            Some(value) => drop(rows.insert(row.as_slice(), value)?),
            None => drop(rows.remove(row.as_slice())?),
        }
    }
    Ok(())
}

fn make_tables(database: &Database) -> Result<(), Failure> {
    let tx = database.begin_write()?;
    tx.open_table(ROWS)?;
    tx.open_table(NOTES)?.insert(NOTE_SCHEMA, u64::from(SCHEMA))?;
    Ok(tx.commit()?)
}

/// The schema of the rows and the count of flushes.
fn read_notes(database: &Database) -> Result<(u64, u64), Failure> {
    let notes = database.begin_read()?.open_table(NOTES)?;
    let note = |name| Ok::<_, Failure>(notes.get(name)?.map(|value| value.value()));
    let schema = note(NOTE_SCHEMA)?.ok_or_else(|| Damage::Content("it names no schema".to_owned()))?;
    Ok((schema, note(NOTE_FLUSHES)?.unwrap_or(0)))
}

fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1);
    row.push(table.0);
    row.extend(key);
    row
}

/// About what a deferred batch takes in memory.
fn memory_bytes(batch: &Batch) -> usize {
    /// Two vectors and their place in the tree.
    const CHANGE_BYTES: usize = 64;
    batch.iter().map(|(_, key, value)| key.len() + value.map_or(0, <[u8]>::len) + CHANGE_BYTES).sum()
}

/// Runs `f` on the database; a panic in there becomes a failure.
///
/// What `f` touches is given up after a failure, so no half-changed state is used again.
fn guard<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Failure::Panicked))
}
