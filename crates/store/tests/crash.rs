//! Crashes, failing disks and full disks at every step.
//!
//! One script of commits runs on a disk that fails at its first call, then at its second, and so on until a run
//! meets no failure. After each run the power goes, the store is opened on what survived, and two things hold:
//! what was synced is there, and every commit is there as a whole or not at all.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // Also outside of test functions.

use dunlin_base::kv::{
    Batch, CommitError, Direction, Durability, KeyRange, MemoryStore, Read, Store, Table, Tx,
};
use dunlin_store::RedbStore;
use dunlin_store::faults::{Call, Faults, SimDisk};

const T: Table = Table(0x50);
const COMMITS: u8 = 7;
/// Rows that each commit writes. Each also overwrites the one row that all of them share.
const ROWS: u8 = 5;
const SHARED: &[u8] = b"shared";

#[test]
fn power_is_lost_at_every_call() {
    let calls = fail_at_each_call(|n| Faults::error_at(n).lasting(), |_| {});
    assert!(calls > 60, "the script makes {calls} calls");
}

#[test]
fn one_call_fails_and_the_store_goes_on() {
    fail_at_each_call(Faults::error_at, |disk| {
        // What goes on after the failure must not stand on what the failure lost.
        let store = disk.open_store().unwrap();
        assert_commit_works(&store);
    });
}

#[test]
fn one_kind_of_call_fails_and_the_store_goes_on() {
    for call in [Call::Read, Call::SetLen, Call::Sync, Call::Write] {
        fail_at_each_call(|n| Faults::error_at(n).only(call), |_| {});
    }
}

#[test]
fn the_disk_is_full_at_every_call_and_then_has_room_again() {
    fail_at_each_call(Faults::full_at, |_| {});
    fail_at_each_call(|n| Faults::full_at(n).lasting(), |_| {});
}

#[test]
fn a_full_disk_is_told_read_from_and_written_again_after_space_was_freed() {
    let disk = SimDisk::new(1);
    let store = disk.open_store().unwrap();
    write(&store, 0, Durability::Synced).unwrap();
    let room = disk.to_bytes().len() as u64;
    disk.plan(Faults::room(room));
    let value = vec![7; 64 << 10];
    let fill = |index: u8| {
        let reader = MemoryStore::default();
        let mut tx = Tx::new(&reader);
        tx.put(Table(0x51), &[index], &value);
        store.commit(tx.into_batch(), Durability::Synced)
    };
    let failed = (0..=255).find(|index| fill(*index).is_err()).unwrap();
    assert!(matches!(fill(failed), Err(CommitError::Full)), "still full");
    assert!(is_whole(&store, 0), "reading goes on");
    assert_eq!(store.get(Table(0x51), &[failed]).unwrap(), None, "nothing of it is stored");

    disk.plan(Faults::none());
    fill(failed).unwrap();
    assert_eq!(store.get(Table(0x51), &[failed]).unwrap().as_ref(), Some(&value));
}

/// A commit that fits into the journal and not into the database is none, or the store would never open again.
#[test]
fn a_file_that_cannot_grow_is_a_full_disk_and_reading_goes_on() {
    let disk = SimDisk::new(1);
    let store = disk.open_store().unwrap();
    disk.plan(Faults::full_at(1).only(Call::SetLen).lasting());
    let failed = (0..250).find(|index| match write(&store, *index, Durability::Synced) {
        Ok(()) => false,
        Err(error) => {
            assert!(matches!(error, CommitError::Full), "{error}");
            true
        }
    });
    let failed = failed.unwrap();
    assert!(failed > 0 && (0..failed).all(|index| is_whole(&store, index)), "reading goes on");
    assert_eq!(rows(&store, failed).unwrap(), 0, "nothing of it is stored");

    let survived = disk.crash(1);
    survived.plan(Faults::full_at(1).only(Call::SetLen).lasting());
    let opened = survived.open_store().unwrap();
    assert!((0..failed).all(|index| is_whole(&opened, index)), "it opens without growing");
    assert_eq!(rows(&opened, failed).unwrap(), 0);

    disk.plan(Faults::none());
    write(&store, failed, Durability::Synced).unwrap();
    assert!((0..=failed).all(|index| is_whole(&store, index)));
}

#[test]
fn deferred_commits_stay_readable_through_a_failure_and_the_next_synced_one_keeps_them() {
    for n in 1..200 {
        let disk = SimDisk::new(n);
        let store = disk.open_store().unwrap();
        write(&store, 0, Durability::Deferred).unwrap();
        disk.plan(Faults::error_at(n));
        let failed = write(&store, 1, Durability::Synced).is_err();
        // Opening again inside may have met the failure too; the call after that works.
        let _ = store.get(T, SHARED);
        assert!(is_whole(&store, 0), "n = {n}");
        disk.plan(Faults::none());
        write(&store, 2, Durability::Synced).unwrap();
        let survived = disk.crash(n).open_store().unwrap();
        assert!(is_whole(&survived, 0) && is_whole(&survived, 2), "n = {n}");
        assert_eq!(survived.get(T, SHARED).unwrap().as_deref(), Some([2].as_slice()));
        if !failed {
            return;
        }
    }
    panic!("no run was free of failures");
}

#[test]
fn a_deferred_commit_never_hides_a_synced_one_that_failed_but_was_stored() {
    for n in 1..200 {
        let disk = SimDisk::new(n);
        let store = disk.open_store().unwrap();
        write(&store, 0, Durability::Deferred).unwrap();
        disk.plan(Faults::error_at(n).only(Call::Sync));
        let failed = write(&store, 1, Durability::Synced).is_err();
        let shared = store.get(T, SHARED).unwrap().unwrap();
        assert_eq!(is_whole(&store, 1), shared == [1], "n = {n}");
        if !failed {
            return;
        }
    }
    panic!("no run was free of failures");
}

#[test]
fn making_a_store_may_be_interrupted_anywhere_and_again_while_recovering() {
    for n in 1..200 {
        let disk = SimDisk::new(n);
        disk.plan(Faults::error_at(n).lasting());
        let clean = disk.open_store().is_ok();
        for m in 1..200 {
            let survived = disk.crash(m);
            survived.plan(Faults::error_at(m).lasting());
            let clean = survived.open_store().is_ok();
            assert_commit_works(&survived.crash(m).open_store().unwrap());
            if clean {
                break;
            }
        }
        if clean {
            return;
        }
    }
    panic!("no run was free of failures");
}

#[test]
fn recovery_may_be_interrupted_anywhere() {
    let ways: [fn(u64) -> Faults; 4] = [
        |n| Faults::error_at(n).lasting(),
        Faults::error_at,
        |n| Faults::error_at(n).only(Call::Read),
        |n| Faults::error_at(n).only(Call::Sync),
    ];
    // In the first round of the journal, and in a later one.
    for commits in [2, COMMITS] {
        let disk = SimDisk::new(5);
        let store = disk.open_store().unwrap();
        (0..commits).for_each(|index| write(&store, index, Durability::Synced).unwrap());
        ways.iter().for_each(|way| interrupt_recovery(&disk, commits, way));
    }
}

/// Interrupts the recovery of `disk` after a crash at each call. A later one finds everything, on what the failed
/// one left and on what survives when the power goes once more.
fn interrupt_recovery(disk: &SimDisk, commits: u8, way: impl Fn(u64) -> Faults) {
    for n in 1..400 {
        let survived = disk.crash(n);
        survived.plan(way(n));
        let opened = survived.open_store();
        let is_clean = opened.is_ok();
        drop(opened);
        for (again, name) in [(survived.crash(n + 1), "crashed"), (survived, "dropped")] {
            again.plan(Faults::none());
            let store = again.open_store().unwrap();
            let case = format!("{:?}, {commits} commits, {name}", way(n));
            assert!((0..commits).all(|index| is_whole(&store, index)), "{case}");
            assert_commit_works(&store);
            // What goes on stands on what is there.
            let store = again.crash(n + 2).open_store().unwrap();
            assert!((0..commits).chain([99]).all(|index| is_whole(&store, index)), "{case}, later");
        }
        if is_clean {
            return;
        }
    }
    panic!("no recovery was free of failures");
}

#[test]
fn opening_after_a_crash_takes_as_long_for_a_large_store_as_for_a_small_one() {
    let [small, large] = [40, 400].map(|rows| {
        let disk = SimDisk::new(1);
        let store = disk.open_store().unwrap();
        // Each is too long for the journal, which starts over.
        (0..rows).for_each(|row| write_long(&store, row, Durability::Deferred));
        write(&store, 0, Durability::Synced).unwrap();
        let (opened, calls) = open_counting(&disk);
        let is_there = |row| opened.get(T, &long_key(row)).unwrap() == Some(vec![7; LONG]);
        assert!((0..rows).all(is_there) && is_whole(&opened, 0));
        calls
    });
    assert!(large < small + 20, "{small} calls for a small store, {large} for a large one");
}

#[test]
fn a_settled_store_opens_after_a_crash_without_its_journal() {
    let disk = SimDisk::new(1);
    let store = disk.open_store().unwrap();
    write_long(&store, 0, Durability::Deferred);
    write(&store, 0, Durability::Synced).unwrap();
    let (_, with_journal) = open_counting(&disk);
    store.settle().unwrap();
    let (_, settled) = open_counting(&disk);
    assert!(settled + 20 < with_journal, "{settled} calls, {with_journal} with the journal");
}

const LONG: usize = 64 << 10;

fn long_key(row: u16) -> Vec<u8> {
    [b"long".as_slice(), &row.to_be_bytes()].concat()
}

fn write_long(store: &RedbStore, row: u16, durability: Durability) {
    let reader = MemoryStore::default();
    let mut tx = Tx::new(&reader);
    tx.put(T, &long_key(row), &[7; LONG]);
    store.commit(tx.into_batch(), durability).unwrap();
}

/// Opens the store after a crash; returns how many calls of the disk that took, too.
fn open_counting(disk: &SimDisk) -> (RedbStore, u64) {
    let crashed = disk.crash(1);
    let before = crashed.calls();
    let store = crashed.open_store().unwrap();
    (store, crashed.calls() - before)
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let store = disk.open_store().unwrap();
        disk.plan(Faults::error_at(20));
        (0..COMMITS).for_each(|index| drop(write(&store, index, Durability::Synced)));
        disk.crash(seed).to_bytes()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// Runs the script once for each call that can fail; returns how many there were.
fn fail_at_each_call(faults: impl Fn(u64) -> Faults, after: impl Fn(&SimDisk)) -> u64 {
    for n in 1..2000 {
        let disk = SimDisk::new(n);
        let store = disk.open_store().unwrap();
        disk.plan(faults(n));
        let outcomes: Vec<Outcome> = (0..COMMITS).map(|index| Outcome::of(&store, index)).collect();
        for seed in 0..2 {
            let survived = disk.crash(n * 7 + seed);
            check(&survived.open_store().unwrap(), &outcomes, &format!("n = {n}, seed = {seed}"));
            after(&survived);
        }
        if outcomes.iter().all(|outcome| outcome.is_ok) {
            return n;
        }
    }
    panic!("no run was free of failures");
}

struct Outcome {
    durability: Durability,
    is_ok: bool,
}

impl Outcome {
    /// Makes the commit `index` of the script: every third one is deferred.
    fn of(store: &RedbStore, index: u8) -> Self {
        let durability = if index % 3 == 1 { Durability::Deferred } else { Durability::Synced };
        let is_ok = match write(store, index, durability) {
            Ok(()) => true,
            Err(CommitError::Full) => {
                // Nothing of it is stored, as far as the store can be read.
                if let Ok(found) = rows(store, index) {
                    assert_eq!(found, 0, "full, but commit {index} is there");
                }
                false
            }
            Err(_) => false,
        };
        Self { durability, is_ok }
    }
}

fn check(store: &RedbStore, outcomes: &[Outcome], case: &str) {
    let last_synced =
        outcomes.iter().rposition(|outcome| outcome.is_ok && outcome.durability == Durability::Synced);
    for (index, outcome) in outcomes.iter().enumerate() {
        let found = rows(store, index as u8).unwrap();
        assert!(found == 0 || found == ROWS as usize, "{case}: commit {index} is there in part");
        if outcome.is_ok && last_synced >= Some(index) {
            assert_eq!(found, ROWS as usize, "{case}: commit {index} is lost");
        }
    }
    // The shared row tells which commit came last: none that is there may be newer.
    let newest = (0..outcomes.len() as u8).rev().find(|index| is_whole(store, *index));
    assert_eq!(store.get(T, SHARED).unwrap(), newest.map(|index| vec![index]), "{case}");
    assert_commit_works(store);
}

fn write(store: &RedbStore, index: u8, durability: Durability) -> Result<(), CommitError> {
    store.commit(batch(index), durability)
}

fn batch(index: u8) -> Batch {
    let reader = MemoryStore::default();
    let mut tx = Tx::new(&reader);
    for row in 0..ROWS {
        // Long enough for the file to grow during the script.
        tx.put(T, &[index, row], &vec![index; 700 * usize::from(row + 1)]);
    }
    tx.put(T, SHARED, &[index]);
    tx.into_batch()
}

fn rows(store: &RedbStore, index: u8) -> Result<usize, dunlin_base::kv::ReadError> {
    let pairs = store.collect(T, &KeyRange::prefix(&[index]), Direction::Ascending, usize::MAX)?;
    for (key, value) in &pairs {
        assert_eq!(*value, vec![index; 700 * usize::from(key[1] + 1)]);
    }
    Ok(pairs.len())
}

fn is_whole(store: &RedbStore, index: u8) -> bool {
    rows(store, index).unwrap() == ROWS as usize
}

fn assert_commit_works(store: &RedbStore) {
    write(store, 99, Durability::Synced).unwrap();
    assert!(is_whole(store, 99));
}
