//! The journal: where commits go first, one behind the other, before they go into the database.
//!
//! A commit in the database changes a dozen pages all over the file, and a disk takes ten times as long to make
//! those lasting as one run of sectors. So a commit is a record here, synced, and the database takes it in memory
//! only, where the next hundred commits change the same pages. When the journal is full the database makes
//! everything lasting at once and the journal starts over (drawn in `docs/formats/store.md`).
//!
//! Which record is next follows from the database: it notes the [`End`] of what it holds, in the same commit. A
//! record names the one before it by its mark, and each of its sectors carries its own mark, so what earlier
//! rounds or failed attempts left behind is never taken for a part of it.

use std::io;

use dunlin_base::kv::{Batch, Table};
use dunlin_base::planted::{self, Bug};

use crate::error::Damage;
use crate::header::Fields;
use crate::sectors::{CLEAR_BYTES, Sectors};

/// Sectors of the journal of a new store, two megabytes: some five hundred small commits. More would let a start
/// after a crash take longer, and the pages that they change would no longer fit into the cache.
pub const JOURNAL_SECTORS: u16 = 4096;

/// What each sector begins with: the mark of its record and its number within.
const SECTOR_HEAD_BYTES: usize = 8 + 4;
/// What of a record fits into one of its sectors.
const PART_BYTES: usize = CLEAR_BYTES - SECTOR_HEAD_BYTES;
/// What a record begins with: the mark of the one before it, its number, the length of the changes.
const RECORD_HEAD_BYTES: usize = 8 + 8 + 8;
/// The length that stands for a row that is deleted.
const DELETED: u32 = u32::MAX;

/// How far the database has got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct End {
    /// How many commits there were.
    pub number: u64,
    /// The mark of the last one.
    pub mark: u64,
    /// The sector at which the next record begins.
    pub place: u64,
}

/// A commit, ready to be written.
pub struct Record {
    bytes: Vec<u8>,
    place: u64,
    mark: u64,
    /// How far the database has got once it has taken this.
    pub end: End,
}

/// The changes of a record that was read.
pub struct Found {
    bytes: Vec<u8>,
    /// How far the database has got once it has taken them.
    pub end: End,
}

/// One change of a row: a new value, or `None` to delete it.
pub type Change<'b> = (Table, &'b [u8], Option<&'b [u8]>);

/// The journal of one store.
pub struct Journal {
    sectors: Sectors,
}

impl Journal {
    /// The journal that lies in front of the pages of `sectors`.
    pub fn new(sectors: Sectors) -> Self {
        Self { sectors }
    }

    /// Makes a record of `batch`, unless it does not fit behind `end`.
    pub fn record(&self, end: &End, batch: &Batch) -> Option<Record> {
        let mut bytes = vec![0; RECORD_HEAD_BYTES];
        for (table, key, value) in batch.iter() {
            bytes.push(table.0);
            bytes.extend(u32::try_from(key.len()).ok()?.to_be_bytes());
            let length = value.map_or(Some(DELETED), |value| u32::try_from(value.len()).ok())?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(key);
            bytes.extend(value.unwrap_or_default());
        }
        let count = sectors_for(bytes.len());
        let behind = end.place.checked_add(count)?;
        if behind > self.sectors.journal_len() {
            return None;
        }
        let next = End { number: end.number.wrapping_add(1), mark: self.sectors.fresh_mark(), place: behind };
        let head = [end.mark, next.number, bytes.len() as u64].map(u64::to_be_bytes).concat();
        bytes.get_mut(..RECORD_HEAD_BYTES)?.copy_from_slice(&head);
        Some(Record { bytes, place: end.place, mark: next.mark, end: next })
    }

    /// The end of a commit that the database makes lasting itself, so that the journal starts over.
    pub fn start_over(&self, end: &End) -> End {
        End { number: end.number.wrapping_add(1), mark: self.sectors.fresh_mark(), place: 0 }
    }

    /// Writes a record. It is there when its first sector is, which therefore comes last: as long as that is not
    /// tried, an error means that nothing is stored.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let mut clears = record.bytes.chunks(PART_BYTES).zip(0_u32..).map(|(part, index)| {
            let mut clear = [0; CLEAR_BYTES];
            let (mark, index) = (record.mark.to_be_bytes(), index.to_be_bytes());
            clear.iter_mut().zip(mark.iter().chain(&index).chain(part)).for_each(|(to, from)| *to = *from);
            clear
        });
        let Some(first) = clears.next() else { return Ok(()) };
        self.sectors.put_journal(record.place + 1, clears)?;
        // "Full" would promise that nothing is stored.
        self.sectors.put_journal(record.place, std::iter::once(first)).map_err(io::Error::other)
    }

    /// Makes a record that was written none again, lastingly.
    pub fn erase(&self, record: &Record) -> io::Result<()> {
        let mut clear = [0; CLEAR_BYTES];
        // No record begins with a sector of this number.
        let head = [self.sectors.fresh_mark().to_be_bytes().as_slice(), &u32::MAX.to_be_bytes()].concat();
        clear.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        self.sectors.put_journal(record.place, std::iter::once(clear))?;
        self.sectors.sync()
    }

    /// Reads the record behind `end`; `None` when there is none.
    pub fn read(&self, end: &End) -> io::Result<Option<Found>> {
        if end.place >= self.sectors.journal_len() || planted::is(Bug::JournalNotRead) {
            return Ok(None);
        }
        let Some((mark, 0, first)) = self.read_sector(end.place)? else { return Ok(None) };
        let mut fields = Fields(&first);
        let [before, number, len] = [(); 3].map(|()| u64::from_be_bytes(fields.take()));
        let next = End { number: end.number.wrapping_add(1), mark, place: end.place };
        if before != end.mark || number != next.number {
            return Ok(None);
        }
        let Some(len) = usize::try_from(len).ok().filter(|len| self.fits(end.place, *len)) else {
            return Ok(None);
        };
        let count = sectors_for(len);
        let mut bytes = Vec::with_capacity(len.saturating_add(PART_BYTES));
        bytes.extend(first);
        for (place, index) in (end.place + 1..end.place + count).zip(1_u32..) {
            match self.read_sector(place)? {
                Some((found, at, part)) if found == mark && at == index => bytes.extend(part),
                // It was being written when the power went.
                Some(_) | None => return Ok(None),
            }
        }
        bytes.truncate(len);
        Ok(Some(Found { bytes, end: End { place: end.place + count, ..next } }))
    }

    /// Checks that the journal does not go on where the database does not: then the database is an older one.
    pub fn check_reaches(&self, end: &End) -> io::Result<()> {
        if self.sectors.journal_len() == 0 {
            return Ok(());
        }
        let Some((_, 0, first)) = self.read_sector(0)? else { return Ok(()) };
        let mut fields = Fields(&first);
        let [_, number] = [(); 2].map(|()| u64::from_be_bytes(fields.take()));
        if number > end.number.saturating_add(1) {
            return Err(Damage::Content("its pages are older than its journal".to_owned()).into());
        }
        Ok(())
    }

    fn fits(&self, place: u64, len: usize) -> bool {
        len >= RECORD_HEAD_BYTES
            && place.checked_add(sectors_for(len)).is_some_and(|behind| behind <= self.sectors.journal_len())
    }

    /// Mark, number within the record, and the part of the record.
    fn read_sector(&self, place: u64) -> io::Result<Option<(u64, u32, [u8; PART_BYTES])>> {
        let Some(clear) = self.sectors.look_in_journal(place)? else { return Ok(None) };
        let mut fields = Fields(&clear);
        let mark = u64::from_be_bytes(fields.take());
        let index = u32::from_be_bytes(fields.take());
        Ok(Some((mark, index, fields.take())))
    }
}

impl Found {
    /// The changes, in the order in which they were made.
    pub fn changes(&self) -> Result<Vec<Change<'_>>, Damage> {
        let mut rest = self.bytes.get(RECORD_HEAD_BYTES..).unwrap_or_default();
        let mut changes = Vec::new();
        while !rest.is_empty() {
            let (change, behind) =
                split_change(rest).ok_or_else(|| Damage::Content("a record does not end".to_owned()))?;
            changes.push(change);
            rest = behind;
        }
        Ok(changes)
    }
}

fn split_change(bytes: &[u8]) -> Option<(Change<'_>, &[u8])> {
    let (&table, rest) = bytes.split_first()?;
    let (key_len, rest) = rest.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*key_len)).ok()?)?;
    match u32::from_be_bytes(*value_len) {
        DELETED => Some(((Table(table), key, None), rest)),
        len => {
            let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
            Some(((Table(table), key, Some(value)), rest))
        }
    }
}

fn sectors_for(record_bytes: usize) -> u64 {
    record_bytes.div_ceil(PART_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_base::keys::SymmetricKey;
    use dunlin_base::kv::{MemoryStore, Tx};
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::disk::Disk;
    use crate::faults::SimDisk;
    use crate::header::SECTOR_BYTES;
    use crate::sectors::Nonces;

    const SECTORS: u16 = 32;

    fn journal_on(disk: &SimDisk, opening: u64) -> Journal {
        let nonces = Nonces::new(&mut ChaCha8Rng::seed_from_u64(opening));
        disk.set_len((usize::from(SECTORS) + 1) as u64 * SECTOR_BYTES as u64).unwrap();
        Journal::new(Sectors::new(
            Arc::new(disk.clone()),
            &SymmetricKey::from_bytes([7; 32]),
            nonces,
            SECTORS,
        ))
    }

    fn batch(byte: u8, len: usize) -> Batch {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        tx.put(Table(1), &[byte], &vec![byte; len]);
        tx.delete(Table(2), b"gone");
        tx.into_batch()
    }

    fn write(journal: &Journal, end: &End, byte: u8, len: usize) -> End {
        let record = journal.record(end, &batch(byte, len)).unwrap();
        journal.write(&record).unwrap();
        record.end
    }

    /// The first bytes of the values behind `end`.
    fn values(journal: &Journal, mut end: End) -> Vec<u8> {
        let mut values = Vec::new();
        while let Some(found) = journal.read(&end).unwrap() {
            let changes = found.changes().unwrap();
            assert_eq!(changes[1], (Table(2), b"gone".as_slice(), None));
            values.push(changes[0].2.unwrap()[0]);
            end = found.end;
        }
        values
    }

    #[test]
    fn records_read_back_in_order_from_any_end() {
        let journal = journal_on(&SimDisk::new(1), 1);
        let start = End::default();
        let first = write(&journal, &start, 1, 100);
        let second = write(&journal, &first, 2, 3000);
        write(&journal, &second, 3, 1);
        assert_eq!(values(&journal, start), [1, 2, 3]);
        assert_eq!(values(&journal, first), [2, 3]);
        assert_eq!(values(&journal, End { mark: 9, ..first }), [0; 0], "another record came before");
    }

    #[test]
    fn what_does_not_fit_is_no_record() {
        let journal = journal_on(&SimDisk::new(1), 1);
        let full = usize::from(SECTORS) * PART_BYTES - RECORD_HEAD_BYTES - (9 + 1) - (9 + 4);
        assert!(journal.record(&End::default(), &batch(1, full + 1)).is_none());
        let end = write(&journal, &End::default(), 1, full);
        assert_eq!(end.place, u64::from(SECTORS));
        assert!(journal.record(&end, &Batch::default()).is_none());
        assert_eq!(values(&journal, End::default()), [1]);
        assert_eq!(values(&journal, end), [0; 0]);
    }

    /// A record that is written a second time where an attempt failed does not take up parts of it, and what
    /// followed the first attempt does not follow the second one.
    #[test]
    fn leftovers_are_never_part_of_a_record() {
        let disk = SimDisk::new(1);
        let journal = journal_on(&disk, 1);
        let first = write(&journal, &End::default(), 1, 3000);
        write(&journal, &first, 2, 3000);
        let old = disk.to_bytes();

        let journal = journal_on(&disk, 2);
        let again = write(&journal, &End::default(), 3, 3000);
        assert_eq!(again.place, first.place);
        assert_eq!(values(&journal, End::default()), [3], "the second old record stands on the first");
        // Any one sector of the new record that did not reach the disk makes it none.
        for sector in 0..again.place {
            let torn = disk.copy();
            let at = (sector as usize + 1) * SECTOR_BYTES;
            torn.write(at as u64, &old[at..at + SECTOR_BYTES]).unwrap();
            assert_eq!(values(&journal_on(&torn, 3), End::default()), [0; 0], "sector {sector}");
        }
    }

    #[test]
    fn an_erased_record_is_none_and_another_one_takes_its_place() {
        let journal = journal_on(&SimDisk::new(1), 1);
        let first = write(&journal, &End::default(), 1, 3000);
        let record = journal.record(&first, &batch(2, 3000)).unwrap();
        journal.write(&record).unwrap();
        assert_eq!(values(&journal, End::default()), [1, 2]);
        journal.erase(&record).unwrap();
        assert_eq!(values(&journal, End::default()), [1]);
        write(&journal, &first, 3, 10);
        assert_eq!(values(&journal, End::default()), [1, 3]);
    }

    #[test]
    fn a_database_that_is_too_old_is_noticed() {
        let journal = journal_on(&SimDisk::new(1), 1);
        let end = End { number: 7, mark: 5, place: 0 };
        write(&journal, &end, 1, 10);
        journal.check_reaches(&end).unwrap();
        journal.check_reaches(&End { number: 9, ..end }).unwrap();
        journal.check_reaches(&End { number: 6, ..end }).unwrap_err();
    }
}
