//! Changed bits, zeroed and exchanged sectors, cut files: an error or what was written, and never a panic.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // Also outside of test functions.

use dunlin_base::kv::{Direction, Durability, KeyRange, Read, Store, Table, Tx};
use dunlin_store::faults::SimDisk;
use dunlin_store::{Damage, Disk, OpenError, RedbStore};

const T: Table = Table(0x50);
const KEYS: u8 = 60;
/// So many fit into the journal of a simulated store, each in a commit of its own.
const KEYS_IN_JOURNAL: u8 = 25;
const SECTOR_BYTES: usize = 512;
/// Of a simulated store.
const JOURNAL_SECTORS: u64 = 64;

#[test]
fn a_changed_bit_is_an_error_or_changes_nothing() {
    let mut refused = 0;
    for crashed in [false, true] {
        let disk = written_disk(crashed);
        let bits = disk.len().unwrap() * 8;
        let mut numbers = Numbers(1);
        for case in 0..150 {
            // The first sectors decide most, so they get more than their share.
            let bit = numbers.below(if case % 2 == 0 { bits } else { 10 * 512 * 8 });
            let changed = disk.copy();
            changed.flip_bit(bit);
            refused += usize::from(error_or_truth(&changed, KEYS, &format!("bit {bit}")));
        }
    }
    assert!(refused > 50, "only {refused} changes were noticed");
}

/// A refused opening changes nothing that counts: the next one refuses too, or shows everything.
#[test]
fn a_changed_bit_in_the_journal_is_refused_by_every_opening_or_changes_nothing() {
    let mut refused = 0;
    // In the first round of the journal, and in a later one.
    for rounds in [1, 3] {
        let disk = SimDisk::new(1);
        let store = disk.open_store().unwrap();
        for (round, key) in
            (0..rounds).rev().flat_map(|round| (0..KEYS_IN_JOURNAL).map(move |key| (round, key)))
        {
            let mut tx = Tx::new(&store);
            tx.put(T, &[key], &value(round, key));
            store.commit(tx.into_batch(), Durability::Synced).unwrap();
        }
        let crashed = disk.crash(1);
        for sector in 0..JOURNAL_SECTORS {
            let changed = crashed.copy();
            changed.flip_bit(((1 + sector) * SECTOR_BYTES as u64 + 100) * 8);
            let is_refused = changed.open_store().is_err();
            refused += usize::from(is_refused);
            for _ in 0..3 {
                let case = format!("{rounds} rounds, sector {sector}");
                assert_eq!(changed.open_store().is_err(), is_refused, "{case}");
                error_or_truth(&changed, KEYS_IN_JOURNAL, &case);
            }
        }
    }
    assert!(refused > 50, "only {refused} changes were noticed");
}

#[test]
fn a_lost_sector_is_an_error_or_changes_nothing_after_a_clean_end() {
    let disk = written_disk(false);
    for sector in 0..disk.len().unwrap() / SECTOR_BYTES as u64 {
        let changed = disk.copy();
        changed.write(sector * SECTOR_BYTES as u64, &[0; SECTOR_BYTES]).unwrap();
        error_or_truth(&changed, KEYS, &format!("sector {sector}"));
    }
}

#[test]
fn a_cut_file_is_an_error() {
    let disk = written_disk(false);
    let len = disk.len().unwrap();
    for cut in [1, 511, 512, 513, 4608, 5120, len / 2, len - 4608, len - 512, len - 1] {
        let changed = disk.copy();
        changed.set_len(cut).unwrap();
        assert!(changed.open_store().is_err(), "a store cut to {cut} of {len} bytes opened");
        assert_eq!(changed.len().unwrap(), cut, "nothing is made anew");
    }
}

#[test]
fn old_sectors_put_back_do_not_end_the_process() {
    let disk = SimDisk::new(1);
    let store = disk.open_store().unwrap();
    let mut images = Vec::new();
    for round in 0..6_u8 {
        write(&store, round);
        images.push(disk.to_bytes());
    }
    drop(store);
    let mut numbers = Numbers(1);
    for _ in 0..100 {
        let changed = disk.copy();
        for _ in 0..=numbers.below(40) {
            let image = &images[numbers.below(images.len() as u64) as usize];
            let sector = (1 + numbers.below((image.len() / SECTOR_BYTES) as u64 - 1)) as usize * SECTOR_BYTES;
            changed.write(sector as u64, &image[sector..sector + SECTOR_BYTES]).unwrap();
        }
        // Each of these sectors was written by the store, so what is read may be old; it may not be a panic.
        if let Ok(store) = changed.open_store() {
            let _ = store.collect(T, &KeyRange::default(), Direction::Ascending, 1000);
            let _ = store.collect(T, &KeyRange::default(), Direction::Descending, 1000);
            (0..KEYS).for_each(|key| drop(store.get(T, &[key])));
            let mut tx = Tx::new(&store);
            tx.put(T, b"more", b"more");
            let _ = store.commit(tx.into_batch(), Durability::Synced);
        }
    }
}

#[test]
fn a_clone_put_back_opens_as_it_was() {
    let disk = SimDisk::new(1);
    let store = disk.open_store().unwrap();
    write(&store, 0);
    let clone = disk.copy();
    write(&store, 1);
    // Whether the state is old is for the node to notice: it asks its peers before it sends.
    assert_eq!(clone.open_store().unwrap().get(T, &[0]).unwrap().as_deref(), Some(value(0, 0).as_slice()));
}

#[test]
fn the_message_names_what_was_changed() {
    let disk = written_disk(false);
    let header = disk.copy();
    header.flip_bit(13 * 8);
    assert!(matches!(header.open_store(), Err(OpenError::Damaged(Damage::Header))));
    let page = disk.copy();
    page.flip_bit((512 + 100) * 8);
    assert!(matches!(page.open_store(), Err(OpenError::Damaged(Damage::Sector(0)))));
    let other = SimDisk::new(2);
    drop(other.open_store().unwrap());
    disk.write(0, &other.to_bytes()[..512]).unwrap();
    assert!(matches!(disk.open_store(), Err(OpenError::WrongKey)));
    disk.write(0, b"something else entirely").unwrap();
    assert!(matches!(disk.open_store(), Err(OpenError::NotAStore)));
}

/// Opens and reads everything; returns whether there was an error.
fn error_or_truth(disk: &SimDisk, keys: u8, case: &str) -> bool {
    let Ok(store) = disk.open_store() else { return true };
    let mut met_error = false;
    for key in 0..keys {
        match store.get(T, &[key]) {
            Ok(found) => assert_eq!(found.as_deref(), Some(value(0, key).as_slice()), "{case}"),
            Err(_) => met_error = true,
        }
    }
    match store.collect(T, &KeyRange::default(), Direction::Ascending, usize::MAX) {
        Ok(pairs) => assert_eq!(pairs.len(), keys as usize, "{case}"),
        Err(_) => met_error = true,
    }
    met_error
}

/// A disk with a store that was closed, or whose machine lost power after the last commit.
fn written_disk(crashed: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let store = disk.open_store().unwrap();
    write(&store, 9);
    write(&store, 0);
    if crashed {
        return disk.crash(1);
    }
    drop(store);
    disk
}

fn write(store: &RedbStore, round: u8) {
    let mut tx = Tx::new(store);
    (0..KEYS).for_each(|key| tx.put(T, &[key], &value(round, key)));
    store.commit(tx.into_batch(), Durability::Synced).unwrap();
}

fn value(round: u8, key: u8) -> Vec<u8> {
    vec![round ^ key; 40 * usize::from(key)]
}

/// Numbers without a pattern, the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
