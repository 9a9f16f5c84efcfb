//! Sealed sectors: what lies between the database, which thinks in pages of 4,096 bytes, and the disk.
//!
//! Each page becomes nine sectors of 512 bytes, and each sector carries its own nonce and tag (AES-256-GCM,
//! drawn in `docs/formats/store.md`). A sector is written as a whole or not at all, so a torn write leaves
//! every sector readable, old or new, and the checksums of the database decide which commit is whole. A bit
//! that changed on the disk fails the tag, so the database meets only bytes that it wrote.
//!
//! A sector of zeros is a hole: space that was gained and never written. It reads as zeros where the database
//! may meet such space, which is when it starts from nothing and when it repairs after a crash.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use dunlin_base::keys::SymmetricKey;
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
/// A ninth of a page, rounded up. The last sector of a page holds eight bytes less.
const CLEAR_BYTES: usize = PAGE_BYTES.div_ceil(PAGE_SECTORS as usize);

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
    /// Held while part of a sector is changed, which takes a read before the write.
    partial: Mutex<()>,
}

impl Sectors {
    /// Seals the sectors of `disk` with `key`, which no other disk uses.
    pub fn new(disk: Arc<dyn Disk>, key: &SymmetricKey, nonces: Nonces) -> Self {
        let cipher = Aes256Gcm::new(key.as_bytes().into());
        Self(Arc::new(Inner { cipher, disk, nonces, partial: Mutex::new(()) }))
    }

    /// Opens the sectors to a run of the database.
    pub fn backend(&self) -> Backend {
        Backend { sectors: self.clone(), holes_allowed: Arc::default() }
    }

    /// How many bytes of pages there are.
    pub fn len(&self) -> io::Result<u64> {
        let sectors = self.0.disk.len()?.saturating_sub(SECTOR_BYTES as u64) / SECTOR_BYTES as u64;
        Ok(sectors / PAGE_SECTORS * PAGE_BYTES as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8], holes_allowed: bool) -> io::Result<()> {
        let Some(extent) = Extent::of(offset, out.len()) else { return Ok(()) };
        let mut raw = vec![0; extent.raw_bytes];
        self.0.disk.read(extent.position, &mut raw)?;
        let mut rest = out;
        for (piece, sector) in Pieces::of(offset, rest.len()).zip(raw.as_chunks_mut::<SECTOR_BYTES>().0) {
            let clear = self.open(piece.sector, sector, holes_allowed)?;
            let (part, behind) = rest.split_at_mut_checked(piece.len).ok_or_else(past_the_end)?;
            part.copy_from_slice(clear.get(piece.skip..piece.skip + piece.len).ok_or_else(past_the_end)?);
            rest = behind;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(extent) = Extent::of(offset, bytes.len()) else { return Ok(()) };
        let mut guard = None;
        let mut raw = vec![0; extent.raw_bytes];
        let mut rest = bytes;
        for (piece, sector) in Pieces::of(offset, bytes.len()).zip(raw.as_chunks_mut::<SECTOR_BYTES>().0) {
            let (part, behind) = rest.split_at_checked(piece.len).ok_or_else(past_the_end)?;
            let mut clear = [0; CLEAR_BYTES];
            if !piece.is_whole {
                guard.get_or_insert_with(|| self.0.partial.lock().unwrap_or_else(PoisonError::into_inner));
                let mut before = [0; SECTOR_BYTES];
                self.0.disk.read(position(piece.sector), &mut before)?;
                clear = *self.open(piece.sector, &mut before, true)?;
            }
            let changed = clear.get_mut(piece.skip..piece.skip + piece.len).ok_or_else(past_the_end)?;
            changed.copy_from_slice(part);
            self.seal(piece.sector, &clear, sector)?;
            rest = behind;
        }
        self.0.disk.write(extent.position, &raw)
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
        let aad = number.to_be_bytes();
        let made = self.0.cipher.encrypt_in_place_detached(Nonce::from_slice(nonce), &aad, body);
        *tag = made.map_err(|_| io::Error::other("a sector could not be sealed"))?.into();
        Ok(())
    }

    fn open<'s>(
        &self,
        number: u64,
        sector: &'s mut [u8; SECTOR_BYTES],
        holes_allowed: bool,
    ) -> io::Result<&'s [u8; CLEAR_BYTES]> {
        let is_hole = sector.iter().all(|byte| *byte == 0);
        let (nonce, tag, body) = parts(sector)?;
        if is_hole && holes_allowed {
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
/// sectors each, the chance is below 2^-32.
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

/// The sealed sectors during one run of the database.
pub struct Backend {
    sectors: Sectors,
    holes_allowed: Arc<AtomicBool>,
}

impl Backend {
    /// The switch that lets holes be read as zeros.
    pub fn holes_allowed(&self) -> Arc<AtomicBool> {
        self.holes_allowed.clone()
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
        self.sectors.read(offset, out, self.holes_allowed.load(Ordering::Acquire))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(PAGE_BYTES as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the database uses whole pages"));
        }
        self.sectors.0.disk.set_len(position(len / PAGE_BYTES as u64 * PAGE_SECTORS))
    }

    fn sync_data(&self) -> io::Result<()> {
        // A disk that says only now that it is full has taken the writes: whether they last is not known,
        // and "full" would promise that nothing is stored.
        self.sectors
            .0
            .disk
            .sync()
            .map_err(|error| if is_full(&error) { io::Error::other(error) } else { error })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.sectors.write(offset, bytes)
    }
}

/// Where a run of bytes lies on the disk.
struct Extent {
    position: u64,
    raw_bytes: usize,
}

impl Extent {
    fn of(offset: u64, len: usize) -> Option<Self> {
        let first = Pieces::of(offset, len).next()?.sector;
        let last = Pieces::of(offset.saturating_add(len as u64 - 1), 1).next()?.sector;
        let sectors = usize::try_from(last - first + 1).ok()?;
        Some(Self { position: position(first), raw_bytes: sectors.checked_mul(SECTOR_BYTES)? })
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
    offset: u64,
    left: usize,
}

impl Pieces {
    fn of(offset: u64, len: usize) -> Self {
        Self { offset, left: len }
    }
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
        Some(Piece { sector: page * PAGE_SECTORS + slot as u64, skip, len, is_whole: len == capacity })
    }
}

/// Where a sector lies on the disk: behind the header, which has the first place.
fn position(sector: u64) -> u64 {
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
