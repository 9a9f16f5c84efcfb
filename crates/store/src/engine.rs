//! One run of the database: opening it on sealed sectors, one writer, views to read from.
//!
//! The database panics where it finds itself in a state that it takes for impossible. Every sector is
//! authenticated, so only an old copy of single sectors, put back by somebody with a copy of the file, leads
//! there. [`guard`] turns such a panic into an error of this store, so that the process with its other stores
//! goes on.

use std::io;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use dunlin_base::kv::{Batch, Direction, KeyRange, Table, Visit, after_prefix};
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction,
};

use crate::error::{Damage, Failure, OpenError};
use crate::header::SCHEMA;
use crate::journal::{Change, End, Journal};
use crate::sectors::{Gate, Sectors};

/// Memory that the database may use for pages it read or will write. It fills up in any node that has talked for a
/// while, and stays; this is what an idle node may keep on a phone, and the pages of a conversation that somebody
/// looks at fit several times.
pub const CACHE_BYTES_MAX: usize = 6 << 20;

/// Rows up to this length are looked up without memory from the heap: a table, two hashes and a counter fit.
const ROW_KEY_BYTES_INLINE: usize = 96;

/// All rows of all tables, under the byte of the table followed by the key.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// What the store notes for itself.
const NOTES: TableDefinition<'_, &str, u64> = TableDefinition::new("notes");
/// The schema of the rows.
const NOTE_SCHEMA: &str = "schema";
/// How many commits the rows hold.
const NOTE_NUMBER: &str = "journal number";
/// The mark of the last of them.
const NOTE_MARK: &str = "journal mark";
/// Where in the journal the next one would be.
const NOTE_PLACE: &str = "journal place";

/// How a commit ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// In the journal, which is synced with the next commit of another mode.
    Deferred,
    /// On the disk.
    Synced,
    /// On the disk and in the database, so that the next opening finds nothing in the journal.
    Settled,
}

/// The one that changes the database.
pub struct Writer {
    /// `None` after a failure, until opening again worked.
    database: Option<Database>,
    /// How far the database has got.
    end: End,
    journal: Journal,
    /// Whether the journal has records that are not synced.
    has_deferred: bool,
    /// The database found itself in a state that it takes for impossible. What it would read again is the same.
    is_broken: bool,
    sectors: Sectors,
}

impl Writer {
    /// Opens the database of a store, or makes it if the store `is_new`.
    pub fn start(sectors: Sectors, is_new: bool) -> Result<(Self, View), OpenError> {
        if !is_new && sectors.len()? == 0 {
            // The database would take this for a new file and start over.
            return Err(Damage::Content("everything behind the journal is gone".to_owned()).into());
        }
        let journal = Journal::new(sectors.clone());
        let (end, has_deferred, is_broken) = (End::default(), false, false);
        let mut writer = Self { database: None, end, journal, has_deferred, is_broken, sectors };
        let view = writer.open(is_new)?;
        Ok((writer, view))
    }

    /// Whether the database is open.
    pub fn is_running(&self) -> bool {
        self.database.is_some()
    }

    /// Gives the database up after a failure: then there is nothing left to save, since what the database does
    /// not have is in the journal.
    pub fn give_up(&mut self, failure: &Failure) {
        if let Some(database) = self.database.take() {
            self.close(database, failure);
        }
    }

    fn close(&mut self, database: Database, failure: &Failure) {
        if matches!(failure, Failure::Panicked) {
            // Closing it would commit once more, and a panic on top of another one ends the process. So its
            // memory is lost, once: it is not opened again.
            std::mem::forget(database);
            self.is_broken = true;
            return;
        }
        drop_guarded(database);
    }

    /// Opens the database again, with what the journal has beyond it.
    pub fn restart(&mut self) -> Result<View, Failure> {
        self.open(false).map_err(Failure::Reopen)
    }

    /// Applies `batch` in one step and returns the state after it.
    pub fn commit(&mut self, batch: &Batch, mode: Mode) -> Result<View, Failure> {
        let database = self.running()?;
        if batch.is_empty() && mode == Mode::Synced {
            self.sectors.sync().map_err(from_disk)?;
            self.has_deferred = false;
            return guard(|| View::new(self.running()?));
        }
        let record = if mode == Mode::Settled { None } else { self.journal.record(&self.end, batch) };
        let end = match &record {
            Some(record) => record.end,
            None => self.journal.start_over(&self.end),
        };
        let mut is_recorded = false;
        let committed = guard(|| {
            // The database takes the changes before the journal does: when it has no room for them, nothing is
            // stored.
            let mut tx = if record.is_some() { begin_in_memory(database)? } else { begin_settled(database)? };
            apply(&mut tx, batch.iter())?;
            put_notes(&tx, &end)?;
            if let Some(record) = &record {
                self.journal.write(record).map_err(from_disk)?;
                if mode == Mode::Synced {
                    self.sectors.sync().map_err(from_disk)?;
                }
            }
            is_recorded = record.is_some();
            Ok(tx.commit()?)
        });
        if let Err(failure) = committed {
            // A record that the database has no room for would keep it from ever opening again.
            let written = record.filter(|_| is_recorded);
            let is_erased = written.is_none_or(|record| self.journal.erase(&record).is_ok());
            return Err(if is_erased { failure } else { failure.without_promise() });
        }
        let view = guard(|| View::new(database))?;
        self.has_deferred = record.is_some() && mode == Mode::Deferred;
        self.end = end;
        Ok(view)
    }

    /// Whether the journal has commits that wait for a synced one.
    pub fn has_deferred(&self) -> bool {
        self.has_deferred
    }

    fn running(&self) -> Result<&Database, Failure> {
        self.database.as_ref().ok_or(Failure::Stopped)
    }

    /// Opens the database and catches up with the journal. Only then is there a database to commit to: the end
    /// of one that has not caught up is not known, and noting another would give the journal up.
    fn open(&mut self, is_new: bool) -> Result<View, OpenError> {
        if self.is_broken {
            return Err(Failure::Panicked.into());
        }
        let (database, gate) = self.open_database()?;
        match guard(|| self.catch_up(&database, is_new)) {
            Ok((end, view)) => {
                self.database = Some(database);
                self.end = end;
                self.has_deferred = false;
                Ok(view)
            }
            Err(failure) => {
                // Closing, the database would commit once more.
                gate.shut();
                self.close(database, &failure);
                Err(failure.into())
            }
        }
    }

    fn open_database(&self) -> Result<(Database, Arc<Gate>), Failure> {
        let backend = self.sectors.backend();
        let (holes, gate) = (backend.holes(), backend.gate());
        let holes_in_repair = holes.clone();
        let database = guard(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES_MAX);
            builder.set_repair_callback(move |_| holes_in_repair.begin_repair());
            Ok(builder.create_with_backend(backend)?)
        })?;
        holes.end_repair();
        Ok((database, gate))
    }

    /// Takes what the journal has beyond the database, and makes it lasting: a crash may have come before that.
    fn catch_up(&self, database: &Database, is_new: bool) -> Result<(End, View), Failure> {
        if is_new {
            make_tables(database)?;
        }
        let (schema, mut end) = read_notes(database)?;
        if schema > SCHEMA.into() {
            let found = schema.try_into().unwrap_or(u32::MAX);
            return Err(Failure::Reopen(OpenError::NewerSchema { found, known: SCHEMA }));
        }
        self.journal.check_reaches(&end).map_err(from_disk)?;
        let mut found = self.journal.read(&end).map_err(from_disk)?;
        if found.is_some() {
            let mut tx = begin_in_memory(database)?;
            while let Some(record) = found {
                apply(&mut tx, record.changes()?.into_iter())?;
                end = record.end;
                found = self.journal.read(&end).map_err(from_disk)?;
            }
            put_notes(&tx, &end)?;
            tx.commit()?;
        }
        self.sectors.sync().map_err(from_disk)?;
        Ok((end, View::new(database)?))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        // So that opening again finds nothing in the journal. Without it nothing is lost, it only takes longer.
        if let Err(failure) = self.commit(&Batch::default(), Mode::Settled) {
            self.give_up(&failure);
        }
        if let Some(database) = self.database.take() {
            drop_guarded(database);
        }
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

fn begin_in_memory(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut tx = database.begin_write()?;
    tx.set_durability(redb::Durability::None)?;
    Ok(tx)
}

/// Begins a commit that notes where the disk has room. Without the note an opening after a crash would read the
/// whole store to find out.
fn begin_settled(database: &Database) -> Result<WriteTransaction, Failure> {
    let mut tx = database.begin_write()?;
    tx.set_quick_repair(true);
    Ok(tx)
}

fn apply<'b>(tx: &mut WriteTransaction, changes: impl Iterator<Item = Change<'b>>) -> Result<(), Failure> {
    let mut rows = tx.open_table(ROWS)?;
    for (table, key, value) in changes {
        let row = row_key(table, key);
        match value {
            Some(value) => drop(rows.insert(row.as_slice(), value)?),
            None => drop(rows.remove(row.as_slice())?),
        }
    }
    Ok(())
}

fn put_notes(tx: &WriteTransaction, end: &End) -> Result<(), Failure> {
    let mut notes = tx.open_table(NOTES)?;
    for (name, value) in [(NOTE_NUMBER, end.number), (NOTE_MARK, end.mark), (NOTE_PLACE, end.place)] {
        notes.insert(name, value)?;
    }
    Ok(())
}

fn make_tables(database: &Database) -> Result<(), Failure> {
    let tx = begin_settled(database)?;
    tx.open_table(ROWS)?;
    tx.open_table(NOTES)?.insert(NOTE_SCHEMA, u64::from(SCHEMA))?;
    Ok(tx.commit()?)
}

/// The schema of the rows, and which commits they hold.
fn read_notes(database: &Database) -> Result<(u64, End), Failure> {
    let notes = database.begin_read()?.open_table(NOTES)?;
    let note = |name| Ok::<_, Failure>(notes.get(name)?.map(|value| value.value()));
    let schema = note(NOTE_SCHEMA)?.ok_or_else(|| Damage::Content("it names no schema".to_owned()))?;
    let end = End {
        number: note(NOTE_NUMBER)?.unwrap_or(0),
        mark: note(NOTE_MARK)?.unwrap_or(0),
        place: note(NOTE_PLACE)?.unwrap_or(0),
    };
    Ok((schema, end))
}

fn row_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1);
    row.push(table.0);
    row.extend(key);
    row
}

/// Closes a database, which then commits once more. Nothing is lost when that fails.
fn drop_guarded(database: Database) {
    let _ = guard(|| {
        drop(database);
        Ok(())
    });
}

fn from_disk(error: io::Error) -> Failure {
    Failure::Database(redb::Error::Io(error))
}

/// Runs `f` on the database; a panic in there becomes a failure.
///
/// What `f` touches is given up after a failure, so no half-changed state is used again.
fn guard<T>(f: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or(Err(Failure::Panicked))
}
