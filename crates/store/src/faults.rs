//! A disk that fails on request and loses power, for tests and for simulations of many nodes.
//!
//! Everything follows from the seed, so a failure that was seen once is seen again.
//!
//! ```
//! use dunlin_base::kv::{Durability, Read, Store, Table, Tx};
//! use dunlin_store::faults::{Call, Faults, SimDisk};
//!
//! let disk = SimDisk::new(7);
//! let store = disk.open_store()?;
//! disk.plan(Faults::error_at(1).only(Call::Sync).lasting());
//! let mut tx = Tx::new(&store);
//! tx.put(Table(0x50), b"a", b"alice");
//! assert!(store.commit(tx.into_batch(), Durability::Synced).is_err());
//!
//! let survived = disk.crash(8).open_store()?;
//! assert!(matches!(survived.get(Table(0x50), b"a")?.as_deref(), None | Some(b"alice")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_base::kdf::sha256;
use dunlin_base::keys::SymmetricKey;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::disk::Disk;
use crate::error::OpenError;
use crate::header::SECTOR_BYTES;
use crate::redb_store::RedbStore;

/// Sectors of the journal of a simulated store: few, so that it is full again and again.
const JOURNAL_SECTORS: u16 = 64;

/// What can fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// [`Disk::read`].
    Read,
    /// [`Disk::set_len`].
    SetLen,
    /// [`Disk::sync`].
    Sync,
    /// [`Disk::write`].
    Write,
}

/// Which calls of a disk fail, and how.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    at: Option<u64>,
    only: Option<Call>,
    lasting: bool,
    full: bool,
    flips: bool,
    room_bytes: Option<u64>,
}

impl Faults {
    /// Nothing fails.
    pub fn none() -> Self {
        Self::default()
    }

    /// The `n`th call from now fails, counted from one.
    pub fn error_at(n: u64) -> Self {
        Self { at: Some(n), ..Self::default() }
    }

    /// The `n`th call from now finds the disk full.
    pub fn full_at(n: u64) -> Self {
        Self { full: true, ..Self::error_at(n) }
    }

    /// The `n`th read from now gives back what was written but for one bit.
    pub fn flip_at(n: u64) -> Self {
        Self { flips: true, ..Self::error_at(n).only(Call::Read) }
    }

    /// No more than `bytes` of the disk can be in use. Space that was gained and never written takes none.
    pub fn room(bytes: u64) -> Self {
        Self { room_bytes: Some(bytes), ..Self::default() }
    }

    /// Counts and fails only calls of this kind.
    #[must_use]
    pub fn only(self, call: Call) -> Self {
        Self { only: Some(call), ..self }
    }

    /// Keeps failing from there on.
    #[must_use]
    pub fn lasting(self) -> Self {
        Self { lasting: true, ..self }
    }
}

/// A disk in memory. Clones are the same disk.
///
/// Written sectors wait for a sync, each on its own: [`Self::crash`] decides for each whether it, or an earlier
/// version of it, reached the disk. A sync that fails may forget sectors for good, as Linux does: a later sync
/// that succeeds says nothing about them.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

type Sector = [u8; SECTOR_BYTES];

/// The end of a disk that was cut off.
#[derive(Clone, Debug)]
struct Cut {
    start: usize,
    bytes: Vec<u8>,
    unsynced: BTreeMap<u64, Vec<Sector>>,
}

#[derive(Clone, Debug)]
struct State {
    seed: u64,
    rng: ChaCha8Rng,
    openings: u64,
    bytes: Vec<u8>,
    /// What sectors held at the last sync and between then and now, oldest first.
    unsynced: BTreeMap<u64, Vec<Sector>>,
    /// Sectors that a failed sync forgot; only writing them again helps.
    forgotten: BTreeSet<u64>,
    synced_len: u64,
    /// What was cut off since the last sync, first cut first.
    cuts: Vec<Cut>,
    /// Sectors that take room.
    used: BTreeSet<u64>,
    faults: Faults,
    calls: u64,
    matching_calls: u64,
}

impl SimDisk {
    /// Makes an empty disk.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            openings: 0,
            bytes: Vec::new(),
            unsynced: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            synced_len: 0,
            cuts: Vec::new(),
            used: BTreeSet::new(),
            faults: Faults::none(),
            calls: 0,
            matching_calls: 0,
        })))
    }

    /// Opens the store on this disk, under a key that follows from the seed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_store(&self) -> Result<RedbStore, OpenError> {
        let (seed, opening) = {
            let mut state = self.lock();
            state.openings += 1;
            (state.seed, state.openings)
        };
        let key = SymmetricKey::from_bytes(sha256(&[b"key of the disk", &seed.to_be_bytes()]));
        let opening_seed = sha256(&[&seed.to_be_bytes(), &opening.to_be_bytes()]);
        let rng = &mut ChaCha8Rng::from_seed(opening_seed);
        RedbStore::open_or_make(Arc::new(self.clone()), &key, rng, JOURNAL_SECTORS)
    }

    /// Replaces what shall fail; calls are counted from here.
    pub fn plan(&self, faults: Faults) {
        let mut state = self.lock();
        state.faults = faults;
        state.matching_calls = 0;
    }

    /// How many calls there were so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// What a loss of power leaves, as a new disk without faults. This one goes on as if nothing had happened.
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.lock().clone();
        state.lose_power(&mut ChaCha8Rng::seed_from_u64(seed));
        state.faults = Faults::none();
        Self(Arc::new(Mutex::new(state)))
    }

    /// A copy of the disk as it is, to be put back later.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Flips one bit of the disk, counted from the start; beyond the end nothing happens.
    pub fn flip_bit(&self, bit: u64) {
        let mut state = self.lock();
        let byte = usize::try_from(bit / 8).ok().and_then(|index| state.bytes.get_mut(index));
        if let Some(byte) = byte {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Everything on the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        let flips = if state.faults.flips {
            state.is_met(Call::Read)
        } else {
            state.meet_faults(Call::Read)?;
            false
        };
        let start = index(offset)?;
        let from = state.bytes.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        if flips {
            let (byte, bit) = (state.below(out.len()), state.below(8));
            if let Some(byte) = out.get_mut(byte) {
                *byte ^= 1 << bit;
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.meet_faults(Call::SetLen)?;
        state.set_len(index(len)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.lock();
        let met = state.meet_faults(Call::Sync);
        if met.is_err() {
            state.forget_some();
        } else {
            state.sync();
        }
        met
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let fault = state.meet_faults(Call::Write).err();
        let fitting = match fault {
            // As after a short write: whole sectors at the front are written.
            Some(_) => state.below(bytes.len() / SECTOR_BYTES + 1) * SECTOR_BYTES,
            None => bytes.len(),
        };
        let written = state.write(index(offset)?, bytes.get(..fitting).unwrap_or(bytes));
        match fault {
            Some(fault) => Err(fault),
            None => written,
        }
    }
}

impl State {
    /// Counts a call, and whether it is one that is planned to fail.
    fn is_met(&mut self, call: Call) -> bool {
        self.calls += 1;
        let Some(at) = self.faults.at else { return false };
        if self.faults.only.is_some_and(|only| only != call) {
            return false;
        }
        self.matching_calls += 1;
        if self.faults.lasting { self.matching_calls >= at } else { self.matching_calls == at }
    }

    fn meet_faults(&mut self, call: Call) -> io::Result<()> {
        let fails = self.is_met(call);
        match (fails, self.faults.full) {
            (false, _) => Ok(()),
            (true, false) => Err(io::Error::other("the simulated disk fails")),
            // Reading needs no room.
            (true, true) if call == Call::Read => Ok(()),
            (true, true) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn write(&mut self, start: usize, bytes: &[u8]) -> io::Result<()> {
        let end = start.saturating_add(bytes.len());
        let sectors = sectors_of(start, end);
        if let Some(room) = self.faults.room_bytes {
            let more = sectors.clone().filter(|sector| !self.used.contains(sector)).count();
            if ((self.used.len() + more) * SECTOR_BYTES) as u64 > room {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        for sector in sectors {
            self.remember(sector);
            self.forgotten.remove(&sector);
            self.used.insert(sector);
        }
        if let Some(to) = self.bytes.get_mut(start..end) {
            to.copy_from_slice(bytes);
        }
        Ok(())
    }

    fn set_len(&mut self, len: usize) {
        if len < self.bytes.len() {
            let first = len.div_ceil(SECTOR_BYTES) as u64;
            self.used.split_off(&first);
            self.forgotten.split_off(&first);
            self.cuts.push(Cut {
                start: len,
                bytes: self.bytes.split_off(len),
                unsynced: self.unsynced.split_off(&first),
            });
        }
        self.bytes.resize(len, 0);
    }

    fn sync(&mut self) {
        let forgotten = &self.forgotten;
        self.unsynced.retain(|sector, _| forgotten.contains(sector));
        self.synced_len = self.bytes.len() as u64;
        self.cuts.clear();
    }

    /// Marks some of the unsynced sectors as written although they are not.
    fn forget_some(&mut self) {
        let unsynced: Vec<u64> = self.unsynced.keys().copied().collect();
        let some = unsynced.into_iter().filter(|_| self.rng.next_u32() & 1 == 0);
        self.forgotten.extend(some);
    }

    fn lose_power(&mut self, rng: &mut ChaCha8Rng) {
        let mut coin = || rng.next_u32() & 1 == 0;
        let mut len_before = usize::try_from(self.synced_len).unwrap_or(usize::MAX);
        // File systems keep the order of cutting and growing.
        if coin() {
            self.undo_cuts();
        } else if let Some(cut) = self.cuts.last() {
            len_before = cut.start;
        }
        let len = if coin() { len_before.min(self.bytes.len()) } else { self.bytes.len() };
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let chosen = rng.next_u64() as usize % (versions.len() + 1);
            // Beyond the earlier versions is the one that was there last.
            if let Some(version) = versions.get(chosen) {
                self.put(sector, version);
            }
        }
        self.bytes.truncate(len);
        self.forgotten.clear();
        self.cuts.clear();
        self.synced_len = len as u64;
    }

    fn undo_cuts(&mut self) {
        while let Some(mut cut) = self.cuts.pop() {
            self.bytes.truncate(cut.start);
            self.bytes.append(&mut cut.bytes);
            self.unsynced.split_off(&(cut.start.div_ceil(SECTOR_BYTES) as u64));
            self.unsynced.append(&mut cut.unsynced);
        }
    }

    fn remember(&mut self, sector: u64) {
        let mut before = [0; SECTOR_BYTES];
        let start = sector as usize * SECTOR_BYTES;
        let end = self.bytes.len().min(start + SECTOR_BYTES);
        if let Some(bytes) = self.bytes.get(start..end) {
            before.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
        self.unsynced.entry(sector).or_default().push(before);
    }

    fn put(&mut self, sector: u64, version: &Sector) {
        let start = sector as usize * SECTOR_BYTES;
        if let Some(bytes) = self.bytes.get_mut(start..) {
            bytes.iter_mut().zip(version).for_each(|(to, from)| *to = *from);
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.rng.next_u32() as usize % limit.max(1)
    }
}

fn sectors_of(start: usize, end: usize) -> std::ops::Range<u64> {
    let first = start / SECTOR_BYTES;
    first as u64..end.div_ceil(SECTOR_BYTES).max(first) as u64
}

fn index(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
