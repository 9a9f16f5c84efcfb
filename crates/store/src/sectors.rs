//! Sealed sectors: what lies between the database, which thinks in pages of 4,096 bytes, and the disk.
//!
//! The sectors of the journal come first, then those of the pages. Each page becomes nine sectors of 512 bytes,
//! and each sector carries its own nonce and tag (AES-256-GCM, drawn in `docs/formats/store.md`). A sector is
//! written as a whole or not at all, so a torn write leaves every sector readable, old or new, and the checksums
//! of the database decide which commit is whole. A bit that changed on the disk fails the tag, so the database
//! meets only bytes that it wrote.
//!
//! A sector of zeros is a hole: space that was gained and never written. It reads as zeros where the database
//! may meet such space, which is while it repairs after a crash; at all other times it is damage.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use dunlin_base::keys::SymmetricKey;
use dunlin_base::planted::{self, Bug};
use rand_core::{CryptoRng, RngCore};
use redb::StorageBackend;

use crate::disk::Disk;
use crate::error::{Damage, is_full};
use crate::header::SECTOR_BYTES;

/// The page of the database.
const PAGE_BYTES: usize = 4096;
/// Sectors that hold one page: eight would leave no room for nonce and tag.
const PAGE_SECTORS: u64 = 9;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Sectors of the journal that are sealed and written at once: memory that is soon given back stays this small.
pub const JOURNAL_SECTORS_AT_ONCE: usize = 128;
/// A ninth of a page, rounded up. The last sector of a page holds eight bytes less.
pub const CLEAR_BYTES: usize = PAGE_BYTES.div_ceil(PAGE_SECTORS as usize);

const _: () = assert!(NONCE_BYTES + TAG_BYTES + CLEAR_BYTES <= SECTOR_BYTES);

/// The sealed sectors of one disk, as the database uses them.
///
/// Clones share everything; each run of the database gets its own [`Backend`].
#[derive(Clone)]
pub struct Sectors(Arc<Inner>);

struct Inner {
    cipher: Aes256Gcm,
    disk: Arc<dyn Disk>,
    nonces: Nonces,
    /// How many sectors in front of the pages are the journal's.
    journal_sectors: u16,
    /// Held while sectors change: some are read before they are written, and nothing may come between.
    changing: Mutex<()>,
    unsynced: Mutex<Unsynced>,
}

/// What was written since the last sync that returned `Ok`.
#[derive(Default)]
struct Unsynced {
    extents: Vec<Extent>,
    /// Whether a sync failed: the system may then take what was written for synced, and never write it again.
    is_doubtful: bool,
}

impl Sectors {
    /// Seals the sectors of `disk` with `key`, which no other disk uses.
    ///
    /// The first `journal_sectors` are the journal's.
    pub fn new(disk: Arc<dyn Disk>, key: &SymmetricKey, nonces: Nonces, journal_sectors: u16) -> Self {
        let cipher = Aes256Gcm::new(key.as_bytes().into());
        let (changing, unsynced) = (Mutex::new(()), Mutex::default());
        Self(Arc::new(Inner { cipher, disk, nonces, journal_sectors, changing, unsynced }))
    }

    /// Opens the sectors to a run of the database.
    pub fn backend(&self) -> Backend {
        Backend { sectors: self.clone(), holes: Arc::default(), gate: Arc::default() }
    }

    /// How many bytes of pages there are.
    pub fn len(&self) -> io::Result<u64> {
        let sectors = self.0.disk.len()?.saturating_sub(position(self.journal_len())) / SECTOR_BYTES as u64;
        Ok(sectors / PAGE_SECTORS * PAGE_BYTES as u64)
    }

    /// How many sectors the journal has.
    pub fn journal_len(&self) -> u64 {
        self.0.journal_sectors.into()
    }

    /// A number that no other call gives, in this run of the process or in another.
    pub fn fresh_mark(&self) -> u64 {
        let [_, _, _, _, mark @ ..] = self.0.nonces.next();
        u64::from_be_bytes(mark)
    }

    /// Seals and writes sectors of the journal from `first` on.
    pub fn put_journal(&self, first: u64, clears: impl Iterator<Item = [u8; CLEAR_BYTES]>) -> io::Result<()> {
        let _changing = self.lock_changing();
        let mut raw = vec![0; clears.size_hint().0.clamp(1, JOURNAL_SECTORS_AT_ONCE) * SECTOR_BYTES];
        let mut clears = (first..).zip(clears).peekable();
        while let Some((begin, _)) = clears.peek() {
            let begin = position(*begin);
            let mut raw_bytes = 0;
            for (sector, (number, clear)) in raw.as_chunks_mut::<SECTOR_BYTES>().0.iter_mut().zip(&mut clears)
            {
                self.seal(number, &clear, sector)?;
                raw_bytes += SECTOR_BYTES;
            }
            let sealed = raw.get(..raw_bytes).ok_or_else(past_the_end)?;
            self.write_raw(Extent { position: begin, raw_bytes }, sealed)?;
        }
        Ok(())
    }

    /// Reads a sector of the journal; `None` if it was never written.
    pub fn look_in_journal(&self, number: u64) -> io::Result<Option<[u8; CLEAR_BYTES]>> {
        let mut sector = [0; SECTOR_BYTES];
        self.0.disk.read(position(number), &mut sector)?;
        if is_hole(&sector) {
            return Ok(None);
        }
        self.open(number, &mut sector).map(|clear| Some(*clear))
    }

    fn read(&self, offset: u64, out: &mut [u8], holes: &Holes) -> io::Result<()> {
        let Some(extent) = self.extent(offset, out.len()) else { return Ok(()) };
        let mut raw = vec![0; extent.raw_bytes];
        self.0.disk.read(extent.position, &mut raw)?;
        let mut rest = out;
        for (piece, sector) in self.pieces(offset, rest.len()).zip(raw.as_chunks_mut::<SECTOR_BYTES>().0) {
            let clear = if is_hole(sector) && holes.accept(piece.sector) {
                &[0; CLEAR_BYTES]
            } else {
                self.open(piece.sector, sector)?
            };
            let (part, behind) = rest.split_at_mut_checked(piece.len).ok_or_else(past_the_end)?;
            part.copy_from_slice(clear.get(piece.skip..piece.skip + piece.len).ok_or_else(past_the_end)?);
            rest = behind;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(extent) = self.extent(offset, bytes.len()) else { return Ok(()) };
        let _changing = self.lock_changing();
        let mut raw = vec![0; extent.raw_bytes];
        let mut rest = bytes;
        for (piece, sector) in self.pieces(offset, bytes.len()).zip(raw.as_chunks_mut::<SECTOR_BYTES>().0) {
            let (part, behind) = rest.split_at_checked(piece.len).ok_or_else(past_the_end)?;
            let mut clear = [0; CLEAR_BYTES];
            if !piece.is_whole {
                let mut before = [0; SECTOR_BYTES];
                self.0.disk.read(position(piece.sector), &mut before)?;
                if !is_hole(&before) {
                    clear = *self.open(piece.sector, &mut before)?;
                }
            }
            let changed = clear.get_mut(piece.skip..piece.skip + piece.len).ok_or_else(past_the_end)?;
            changed.copy_from_slice(part);
            self.seal(piece.sector, &clear, sector)?;
            rest = behind;
        }
        self.write_raw(extent, &raw)
    }

    /// Called with `changing` held, so that no sync comes between the note and the write.
    fn write_raw(&self, extent: Extent, raw: &[u8]) -> io::Result<()> {
        self.lock_unsynced().extents.push(extent);
        self.0.disk.write(extent.position, raw)
    }

    /// Fills a hole with sealed zeros, unless it was written or cut off since it was met.
    fn fill(&self, number: u64) -> io::Result<()> {
        let _changing = self.lock_changing();
        let mut sector = [0; SECTOR_BYTES];
        if position(number + 1) > self.0.disk.len()? {
            return Ok(());
        }
        self.0.disk.read(position(number), &mut sector)?;
        if !is_hole(&sector) {
            return Ok(());
        }
        self.seal(number, &[0; CLEAR_BYTES], &mut sector)?;
        self.write_raw(Extent::of_sector(number), &sector)
    }

    fn pieces(&self, offset: u64, len: usize) -> Pieces {
        Pieces { first: self.journal_len(), offset, left: len }
    }

    /// Where a run of bytes of the pages lies on the disk.
    fn extent(&self, offset: u64, len: usize) -> Option<Extent> {
        let first = self.pieces(offset, len).next()?.sector;
        let last = self.pieces(offset.saturating_add(len as u64 - 1), 1).next()?.sector;
        let sectors = usize::try_from(last - first + 1).ok()?;
        Some(Extent { position: position(first), raw_bytes: sectors.checked_mul(SECTOR_BYTES)? })
    }

    /// Makes lasting what was written, also what was written before a sync that failed.
    pub fn sync(&self) -> io::Result<()> {
        if planted::is(Bug::DropFsync) {
            return Ok(());
        }
        let mut unsynced = {
            // What is noted is written: a write that comes after this sync would otherwise count as synced.
            let _changing = self.lock_changing();
            std::mem::take(&mut *self.lock_unsynced())
        };
        let synced = if unsynced.is_doubtful { self.write_again(&unsynced.extents) } else { Ok(()) };
        let synced = synced.and_then(|()| self.0.disk.sync());
        if planted::is(Bug::SyncErrorIgnored) {
            return Ok(());
        }
        let synced = synced.inspect_err(|_| {
            let mut since = self.lock_unsynced();
            since.extents.append(&mut unsynced.extents);
            since.is_doubtful = true;
        });
        // A disk that says only now that it is full has taken the writes: whether they last is not known,
        // and "full" would promise that nothing is stored.
        synced.map_err(|error| if is_full(&error) { io::Error::other(error) } else { error })
    }

    fn write_again(&self, extents: &[Extent]) -> io::Result<()> {
        let _changing = self.lock_changing();
        let len = self.0.disk.len()?;
        // The file may have been cut since.
        let kept = |extent: &&Extent| extent.position.saturating_add(extent.raw_bytes as u64) <= len;
        for extent in extents.iter().filter(kept) {
            let mut raw = vec![0; extent.raw_bytes];
            self.0.disk.read(extent.position, &mut raw)?;
            self.0.disk.write(extent.position, &raw)?;
        }
        Ok(())
    }

    fn lock_changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.0.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seal(
        &self,
        number: u64,
        clear: &[u8; CLEAR_BYTES],
        sector: &mut [u8; SECTOR_BYTES],
    ) -> io::Result<()> {
        let (nonce, tag, body) = parts(sector)?;
        *nonce = self.0.nonces.next();
        *body = *clear;
        if planted::is(Bug::DiskInClear) {
            return Ok(());
        }
        let aad = number.to_be_bytes();
        let made = self.0.cipher.encrypt_in_place_detached(Nonce::from_slice(nonce), &aad, body);
        *tag = made.map_err(|_| io::Error::other("a sector could not be sealed"))?.into();
        Ok(())
    }

    fn open<'s>(&self, number: u64, sector: &'s mut [u8; SECTOR_BYTES]) -> io::Result<&'s [u8; CLEAR_BYTES]> {
        let (nonce, tag, body) = parts(sector)?;
        if planted::is(Bug::DiskInClear) {
            return Ok(body);
        }
        let aad = number.to_be_bytes();
        self.0
            .cipher
            .decrypt_in_place_detached(Nonce::from_slice(nonce), &aad, body, Tag::from_slice(tag))
            .map_err(|_| Damage::Sector(number))?;
        Ok(body)
    }
}

/// Nonces for one opening of a store: they count up from a random start of 96 bits.
///
/// Two openings meet only if their starts lie closer than what either writes: with 2^16 openings of 2^32
/// sectors each, the chance is about 2^-32.
pub struct Nonces {
    start: u128,
    used: AtomicU64,
}

impl Nonces {
    /// Draws the start from `rng`, which the caller seeded from the system.
    pub fn new(rng: &mut (impl RngCore + CryptoRng + ?Sized)) -> Self {
        let mut start = [0; 16];
        rng.fill_bytes(&mut start);
        Self { start: u128::from_be_bytes(start), used: AtomicU64::new(0) }
    }

    fn next(&self) -> [u8; NONCE_BYTES] {
        let nonce = self.start.wrapping_add(self.used.fetch_add(1, Ordering::Relaxed).into());
        let [_, _, _, _, low @ ..] = nonce.to_be_bytes();
        low
    }
}

/// Which holes the database may read.
///
/// A page may end in sectors that its checksum does not cover. When a crash leaves those as holes, the repair
/// takes the page for whole, and rightly so. The holes that a repair met stay readable in this run and are filled
/// with its first sync after the repair, so that no later run meets them.
#[derive(Default)]
pub struct Holes {
    repairing: AtomicBool,
    met: Mutex<MetHoles>,
}

#[derive(Default)]
struct MetHoles {
    sectors: BTreeSet<u64>,
    is_filled: bool,
}

impl Holes {
    /// Lets the database read holes from here on: it checks every page against its checksum.
    pub fn begin_repair(&self) {
        self.repairing.store(true, Ordering::Release);
    }

    /// From here on the database trusts what it reads.
    pub fn end_repair(&self) {
        self.repairing.store(false, Ordering::Release);
    }

    fn accept(&self, sector: u64) -> bool {
        let mut met = self.lock_met();
        if self.repairing.load(Ordering::Acquire) {
            met.sectors.insert(sector);
        }
        met.sectors.contains(&sector)
    }

    /// Fills with `fill` what is not filled yet. Not during the repair, which must work on a full disk.
    fn fill(&self, fill: impl Fn(u64) -> io::Result<()>) -> io::Result<()> {
        let mut met = self.lock_met();
        if !met.is_filled && !self.repairing.load(Ordering::Acquire) {
            met.sectors.iter().try_for_each(|sector| fill(*sector))?;
            met.is_filled = true;
        }
        Ok(())
    }

    fn lock_met(&self) -> MutexGuard<'_, MetHoles> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one run of the database may still change the disk.
#[derive(Default)]
pub struct Gate {
    is_shut: AtomicBool,
}

impl Gate {
    /// From here on the database changes nothing, whatever it tries.
    pub fn shut(&self) {
        self.is_shut.store(true, Ordering::Release);
    }

    fn pass(&self) -> io::Result<()> {
        if self.is_shut.load(Ordering::Acquire) {
            return Err(io::Error::other("this run of the database was given up"));
        }
        Ok(())
    }
}

/// The sealed sectors during one run of the database.
pub struct Backend {
    sectors: Sectors,
    holes: Arc<Holes>,
    gate: Arc<Gate>,
}

impl Backend {
    /// Which holes this run may read.
    pub fn holes(&self) -> Arc<Holes> {
        self.holes.clone()
    }

    /// What keeps this run from changing the disk.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend(..)")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.sectors.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.sectors.read(offset, out, &self.holes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.gate.pass()?;
        if !len.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the database uses whole pages"));
        }
        let pages = len / PAGE_BYTES as u64;
        self.sectors.0.disk.set_len(position(self.sectors.journal_len() + pages * PAGE_SECTORS))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass()?;
        self.holes.fill(|sector| self.sectors.fill(sector))?;
        self.sectors.sync()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.gate.pass()?;
        self.sectors.write(offset, bytes)
    }
}

/// Where a run of bytes lies on the disk.
#[derive(Clone, Copy)]
struct Extent {
    position: u64,
    raw_bytes: usize,
}

impl Extent {
    fn of_sector(sector: u64) -> Self {
        Self { position: position(sector), raw_bytes: SECTOR_BYTES }
    }
}

/// The part of a run of bytes that lies in one sector.
struct Piece {
    sector: u64,
    skip: usize,
    len: usize,
    is_whole: bool,
}

/// Cuts a run of bytes at the borders of sectors.
struct Pieces {
    /// The sector in which the pages begin.
    first: u64,
    offset: u64,
    left: usize,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.left == 0 {
            return None;
        }
        let page = self.offset / PAGE_BYTES as u64;
        let in_page = usize::try_from(self.offset % PAGE_BYTES as u64).ok()?;
        let (slot, skip) = (in_page / CLEAR_BYTES, in_page % CLEAR_BYTES);
        let capacity = CLEAR_BYTES.min(PAGE_BYTES - slot * CLEAR_BYTES);
        let len = self.left.min(capacity - skip);
        self.offset = self.offset.checked_add(len as u64)?;
        self.left -= len;
        Some(Piece {
            sector: self.first + page * PAGE_SECTORS + slot as u64,
            skip,
            len,
            is_whole: len == capacity,
        })
    }
}

/// Whether the sector is space that was gained and never written.
fn is_hole(sector: &[u8; SECTOR_BYTES]) -> bool {
    sector.iter().all(|byte| *byte == 0)
}

/// Where a sector lies on the disk: behind the header, which has the first place.
pub fn position(sector: u64) -> u64 {
    (sector + 1).saturating_mul(SECTOR_BYTES as u64)
}

/// Nonce, tag and body of a sector.
type Parts<'s> = (&'s mut [u8; NONCE_BYTES], &'s mut [u8; TAG_BYTES], &'s mut [u8; CLEAR_BYTES]);

fn parts(sector: &mut [u8; SECTOR_BYTES]) -> io::Result<Parts<'_>> {
    let (nonce, rest) = sector.split_first_chunk_mut().ok_or_else(past_the_end)?;
    let (tag, rest) = rest.split_first_chunk_mut().ok_or_else(past_the_end)?;
    let body = rest.first_chunk_mut().ok_or_else(past_the_end)?;
    Ok((nonce, tag, body))
}

fn past_the_end() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::faults::{Call, Faults, SimDisk};

    const PAGES: usize = 3;
    const JOURNAL: u16 = 5;

    fn sectors_on(disk: &SimDisk) -> Sectors {
        sectors_over(Arc::new(disk.clone()))
    }

    fn sectors_over(disk: Arc<dyn Disk>) -> Sectors {
        let nonces = Nonces::new(&mut ChaCha8Rng::seed_from_u64(1));
        Sectors::new(disk, &SymmetricKey::from_bytes([7; 32]), nonces, JOURNAL)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_writes_read_back_as_from_plain_memory(
            writes in prop::collection::vec((0..PAGES * PAGE_BYTES, 1..2 * PAGE_BYTES, any::<u8>()), 1..12),
            (start, len) in (0..PAGES * PAGE_BYTES, 0..PAGES * PAGE_BYTES),
        ) {
            let backend = sectors_on(&SimDisk::new(1)).backend();
            backend.holes().begin_repair();
            backend.set_len((PAGES * PAGE_BYTES) as u64).unwrap();
            let mut model = vec![0; PAGES * PAGE_BYTES];
            for (offset, len, byte) in writes {
                let end = model.len().min(offset + len);
                backend.write(offset as u64, &vec![byte; end - offset]).unwrap();
                model[offset..end].fill(byte);
            }
            let end = model.len().min(start + len);
            let mut out = vec![0xaa; end - start];
            backend.read(start as u64, &mut out).unwrap();
            prop_assert_eq!(&out, &model[start..end]);
        }
    }

    #[test]
    fn a_changed_or_moved_sector_is_damage_and_its_neighbours_are_not() {
        let disk = SimDisk::new(1);
        let backend = sectors_on(&disk).backend();
        backend.set_len(PAGE_BYTES as u64).unwrap();
        backend.write(0, &[5; PAGE_BYTES]).unwrap();
        let read = |from: usize| backend.read(from as u64, &mut [0; CLEAR_BYTES]);

        let page_sector = |number| position(u64::from(JOURNAL) + number);
        disk.flip_bit((page_sector(1) + 100) * 8);
        assert!(read(0).is_ok() && read(CLEAR_BYTES).is_err() && read(2 * CLEAR_BYTES).is_ok());

        let mut sector = [0; SECTOR_BYTES];
        disk.read(page_sector(2), &mut sector).unwrap();
        disk.write(page_sector(3), &sector).unwrap();
        assert_eq!(read(3 * CLEAR_BYTES).unwrap_err().to_string(), "sector 8 was changed");
    }

    #[test]
    fn holes_read_as_zeros_only_where_the_database_may_meet_them() {
        let backend = sectors_on(&SimDisk::new(1)).backend();
        backend.set_len(2 * PAGE_BYTES as u64).unwrap();
        backend.write(10, b"abc").unwrap();

        assert!(backend.read(PAGE_BYTES as u64, &mut [0; 8]).is_err());
        backend.read(10, &mut [0; 3]).unwrap();
        backend.holes().begin_repair();
        let mut out = [9; 8];
        backend.read(PAGE_BYTES as u64, &mut out).unwrap();
        assert_eq!(out, [0; 8]);
        backend.holes().end_repair();
        backend.read(PAGE_BYTES as u64, &mut out).unwrap();
        assert!(backend.read(2 * PAGE_BYTES as u64, &mut out).is_err(), "behind the end");
    }

    /// A disk whose next write tells that it began, and then waits to be released or for a moment.
    #[derive(Debug)]
    struct PausingDisk {
        disk: SimDisk,
        pause: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    }

    impl Disk for PausingDisk {
        fn len(&self) -> io::Result<u64> {
            self.disk.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.disk.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.disk.set_len(len)
        }

        fn sync(&self) -> io::Result<()> {
            self.disk.sync()
        }

        fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            if let Some((began, released)) = self.pause.lock().unwrap().take() {
                began.send(()).unwrap();
                // A sync that waits for this write cannot release it.
                let _ = released.recv_timeout(Duration::from_millis(200));
            }
            self.disk.write(offset, bytes)
        }
    }

    /// The database writes from threads that read, too, while another one syncs.
    #[test]
    fn a_write_during_a_sync_is_not_taken_for_synced() {
        let disk = SimDisk::new(3);
        let (began, has_begun) = channel();
        let (release, released) = channel();
        let pausing =
            Arc::new(PausingDisk { disk: disk.clone(), pause: Mutex::new(Some((began, released))) });
        let sectors = sectors_over(pausing);
        let backend = sectors.backend();
        backend.set_len(PAGE_BYTES as u64).unwrap();
        thread::scope(|scope| {
            let writing = scope.spawn(|| backend.write(0, &[5; PAGE_BYTES]));
            has_begun.recv().unwrap();
            sectors.sync().unwrap();
            let _ = release.send(());
            writing.join().unwrap().unwrap();
        });
        disk.plan(Faults::error_at(1).only(Call::Sync));
        sectors.sync().unwrap_err();
        sectors.sync().unwrap();
        assert_page_survives(&disk);
    }

    #[test]
    fn what_a_failed_sync_forgot_is_written_again() {
        let disk = SimDisk::new(3);
        let backend = sectors_on(&disk).backend();
        backend.set_len(PAGE_BYTES as u64).unwrap();
        backend.sync_data().unwrap();
        backend.write(0, &[5; PAGE_BYTES]).unwrap();
        disk.plan(Faults::error_at(1).only(Call::Sync));
        backend.sync_data().unwrap_err();
        backend.sync_data().unwrap();

        assert_page_survives(&disk);
    }

    fn assert_page_survives(disk: &SimDisk) {
        for seed in 0..20 {
            let mut out = [0; PAGE_BYTES];
            sectors_on(&disk.crash(seed)).backend().read(0, &mut out).unwrap();
            assert_eq!(out, [5; PAGE_BYTES]);
        }
    }
}
