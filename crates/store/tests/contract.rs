//! What every store promises, asked of each: in memory, in a file, on a simulated disk.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // Also outside of test functions.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use dunlin_base::kv::{Batch, CommitError, Durability, Read, ReadError, Store, Table, Tx, Visit};
use dunlin_base::kv::{Direction, KeyRange};
use dunlin_store::faults::SimDisk;
use dunlin_store::{MemoryStore, Unlock, open};
use proptest::prelude::*;

const T: Table = Table(0x50);
/// Tables a crate may name; behind the last one `MemoryStore` finds no end.
const TABLES: u8 = 0xff;

#[test]
fn what_was_put_is_read_until_it_is_deleted() {
    for place in places() {
        let store = place.open();
        write(&*store, &[(T, b"a", Some(b"1")), (T, b"b", Some(b"")), (T, b"", Some(b"empty key"))]);
        assert_eq!(store.get(T, b"a").unwrap().as_deref(), Some(b"1".as_slice()), "{place:?}");
        assert_eq!(store.get(T, b"b").unwrap().as_deref(), Some(b"".as_slice()));
        assert_eq!(store.get(T, b"").unwrap().as_deref(), Some(b"empty key".as_slice()));
        assert!(store.contains(T, b"b").unwrap() && !store.contains(T, b"c").unwrap());

        write(&*store, &[(T, b"a", Some(b"2")), (T, b"b", None), (T, b"never there", None)]);
        assert_eq!(store.get(T, b"a").unwrap().as_deref(), Some(b"2".as_slice()));
        assert_eq!(store.get(T, b"b").unwrap(), None);
    }
}

#[test]
fn tables_do_not_see_each_other() {
    for place in places() {
        let store = place.open();
        for byte in 0..TABLES {
            write(
                &*store,
                &[(Table(byte), &[byte], Some(&[byte])), (Table(byte), &[0xff, 0xff], Some(b"last"))],
            );
        }
        for byte in 0..TABLES {
            for direction in [Direction::Ascending, Direction::Descending] {
                let mut pairs = store.collect(Table(byte), &KeyRange::default(), direction, 9).unwrap();
                pairs.sort();
                let expected = [(vec![byte], vec![byte]), (vec![0xff, 0xff], b"last".to_vec())];
                assert_eq!(pairs, expected, "{place:?}, table {byte}");
            }
        }
    }
}

#[test]
fn scans_keep_to_their_bounds_and_stop_when_told() {
    for place in places() {
        let store = place.open();
        let keys: [&[u8]; 5] = [b"a", b"b", b"b\0", b"c", b"\xff"];
        for key in keys {
            write(&*store, &[(T, key, Some(key))]);
        }
        let scan = |range: KeyRange, direction| {
            let pairs = store.collect(T, &range, direction, 9).unwrap();
            pairs.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        use Direction::{Ascending, Descending};
        assert_eq!(scan(KeyRange::default(), Ascending), keys, "{place:?}");
        assert_eq!(scan(KeyRange::between(b"b", b"c"), Ascending), [b"b".to_vec(), b"b\0".to_vec()]);
        assert_eq!(scan(KeyRange::prefix(b"b"), Descending), [b"b\0".to_vec(), b"b".to_vec()]);
        assert_eq!(scan(KeyRange::prefix(b"\xff"), Descending), [b"\xff".to_vec()]);
        assert!(scan(KeyRange::between(b"c", b"b"), Ascending).is_empty());
        assert!(scan(KeyRange::between(b"b", b"b"), Descending).is_empty());

        let mut visits = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            visits += 1;
            if visits == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan(T, &KeyRange::default(), Ascending, &mut visit as &mut Visit<'_>).unwrap();
        assert_eq!(visits, 2);
    }
}

#[test]
fn a_scan_sees_one_state_while_others_commit() {
    for place in places().into_iter().filter(|place| place.persists()) {
        let store = place.open();
        write(&*store, &[(T, b"a", Some(b"old")), (T, b"b", Some(b"old"))]);
        let mut seen = Vec::new();
        store
            .scan(T, &KeyRange::default(), Direction::Ascending, &mut |key, value| {
                write(&*store, &[(T, b"b", Some(b"new")), (T, b"c", Some(b"new"))]);
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, [(b"a".to_vec(), b"old".to_vec()), (b"b".to_vec(), b"old".to_vec())]);
        assert_eq!(store.get(T, b"b").unwrap().as_deref(), Some(b"new".as_slice()));
    }
}

#[test]
fn readers_in_other_threads_see_whole_commits() {
    for place in places() {
        let store = place.open();
        write(&*store, &[(T, b"left", Some(b"0")), (T, b"right", Some(b"0"))]);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        while store.get(T, b"left").unwrap().as_deref() != Some(b"end") {
                            let pairs =
                                store.collect(T, &KeyRange::default(), Direction::Ascending, 9).unwrap();
                            assert_eq!(pairs[0].1, pairs[1].1, "{place:?}");
                        }
                    })
                })
                .collect();
            for index in 0..20_u8 {
                write(&*store, &[(T, b"left", Some(&[index])), (T, b"right", Some(&[index]))]);
            }
            write(&*store, &[(T, b"left", Some(b"end")), (T, b"right", Some(b"end"))]);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }
}

#[test]
fn a_transaction_lies_on_top_of_each_store() {
    for place in places() {
        let store = place.open();
        write(&*store, &[(T, b"a", Some(b"1")), (T, b"b", Some(b"1"))]);
        let mut tx = Tx::new(&*store);
        tx.delete(T, b"a");
        tx.put(T, b"c", b"2");
        let keys = tx.collect(T, &KeyRange::default(), Direction::Descending, 9).unwrap();
        assert_eq!(keys, [(b"c".to_vec(), b"2".to_vec()), (b"b".to_vec(), b"1".to_vec())], "{place:?}");
        assert!(store.contains(T, b"a").unwrap(), "nothing is stored before the commit");
    }
}

#[test]
fn long_keys_and_values_and_empty_batches_are_taken() {
    for place in places() {
        let store = place.open();
        let value: Vec<u8> = (0..256 << 10).map(|index| (index % 251) as u8).collect();
        for len in [94, 95, 96, 97, 1000] {
            write(&*store, &[(T, &vec![b'k'; len], Some(&value))]);
        }
        store.commit(Batch::default(), Durability::Synced).unwrap();
        store.commit(Batch::default(), Durability::Deferred).unwrap();
        for len in [94, 95, 96, 97, 1000] {
            assert_eq!(store.get(T, &vec![b'k'; len]).unwrap().as_ref(), Some(&value), "{place:?}, {len}");
        }
    }
}

#[test]
fn what_was_committed_is_there_after_opening_again() {
    for place in places().into_iter().filter(|place| place.persists()) {
        let store = place.open();
        write(&*store, &[(T, b"synced", Some(b"1"))]);
        commit(&*store, &[(T, b"deferred", Some(b"1"))], Durability::Deferred).unwrap();
        assert!(store.contains(T, b"deferred").unwrap());
        drop(store);
        let store = place.open();
        assert!(store.contains(T, b"synced").unwrap(), "{place:?}");
        assert!(store.contains(T, b"deferred").unwrap(), "closing takes along what was deferred");
    }
}

#[test]
fn many_deferred_commits_do_not_pile_up() {
    for place in places() {
        let store = place.open();
        let value = vec![7; 64 << 10];
        for index in 0..200_u8 {
            commit(&*store, &[(T, &[index], Some(&value))], Durability::Deferred).unwrap();
        }
        assert_eq!(store.collect(T, &KeyRange::default(), Direction::Ascending, 999).unwrap().len(), 200);
    }
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>, bool),
    Scan(u8, Vec<u8>, Option<Vec<u8>>, bool),
    Reopen,
}

type Change = (u8, Vec<u8>, Option<Vec<u8>>);

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::collection::vec(prop::sample::select(vec![0, 1, b'k', 0xff]), 0..4);
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..600));
    let table = || prop::sample::select(vec![0, 0x50, TABLES - 1]);
    prop_oneof![
        6 => (prop::collection::vec((table(), key(), value), 0..8), any::<bool>())
            .prop_map(|(changes, synced)| Step::Commit(changes, synced)),
        3 => (table(), key(), prop::option::of(key()), any::<bool>())
            .prop_map(|(table, start, end, ascending)| Step::Scan(table, start, end, ascending)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_store_behaves_like_a_map(steps in prop::collection::vec(step(), 1..30)) {
        for place in places() {
            let mut store = place.open();
            let mut model: BTreeMap<(u8, Vec<u8>), Vec<u8>> = BTreeMap::new();
            for step in &steps {
                match step {
                    Step::Commit(changes, synced) => {
                        let durability = if *synced { Durability::Synced } else { Durability::Deferred };
                        let mut tx = Tx::new(&*store);
                        for (table, key, value) in changes {
                            match value {
                                Some(value) => tx.put(Table(*table), key, value),
                                None => tx.delete(Table(*table), key),
                            }
                            match value {
                                Some(value) => model.insert((*table, key.clone()), value.clone()),
                                None => model.remove(&(*table, key.clone())),
                            };
                        }
                        let batch = tx.into_batch();
                        store.commit(batch, durability).unwrap();
                    }
                    Step::Scan(table, start, end, ascending) => {
                        let range = KeyRange { start: start.clone(), end: end.clone() };
                        let direction = if *ascending { Direction::Ascending } else { Direction::Descending };
                        let found = store.collect(Table(*table), &range, direction, usize::MAX).unwrap();
                        let mut expected: Vec<_> = model
                            .iter()
                            .filter(|((of, key), _)| of == table && key >= start)
                            .filter(|((_, key), _)| end.as_ref().is_none_or(|end| key < end))
                            .map(|((_, key), value)| (key.clone(), value.clone()))
                            .collect();
                        if !ascending {
                            expected.reverse();
                        }
                        prop_assert_eq!(found, expected, "{:?}", place);
                    }
                    Step::Reopen => {
                        drop(store);
                        store = place.open();
                    }
                }
            }
            for ((table, key), value) in &model {
                let found = store.get(Table(*table), key).unwrap();
                prop_assert_eq!(found.as_ref(), Some(value));
            }
        }
    }
}

/// Where a store can be.
enum Place {
    Memory(Arc<MemoryStore>),
    Directory(tempfile::TempDir),
    Simulation(SimDisk),
}

fn places() -> [Place; 3] {
    [
        Place::Memory(Arc::default()),
        Place::Directory(tempfile::tempdir().unwrap()),
        Place::Simulation(SimDisk::new(1)),
    ]
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "in memory",
            Self::Directory(_) => "in a directory",
            Self::Simulation(_) => "on a simulated disk",
        })
    }
}

impl Place {
    fn open(&self) -> Box<dyn Store> {
        match self {
            Self::Memory(store) => Box::new(Shared(store.clone())),
            Self::Directory(dir) => Box::new(open(dir.path(), &Unlock::KeyFile).unwrap()),
            Self::Simulation(disk) => Box::new(disk.open_store().unwrap()),
        }
    }

    fn persists(&self) -> bool {
        !matches!(self, Self::Memory(_))
    }
}

/// A key of a table, and its value unless it is to be deleted.
type Put<'a> = (Table, &'a [u8], Option<&'a [u8]>);

fn write(store: &dyn Store, changes: &[Put<'_>]) {
    commit(store, changes, Durability::Synced).unwrap();
}

fn commit(store: &dyn Store, changes: &[Put<'_>], durability: Durability) -> Result<(), CommitError> {
    let reader = MemoryStore::default();
    let mut tx = Tx::new(&reader);
    for (table, key, value) in changes {
        match value {
            Some(value) => tx.put(*table, key, value),
            None => tx.delete(*table, key),
        }
    }
    store.commit(tx.into_batch(), durability)
}

/// A store in memory that outlives its closing.
struct Shared(Arc<MemoryStore>);

impl Read for Shared {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        self.0.scan(table, range, direction, visit)
    }
}

impl Store for Shared {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), CommitError> {
        self.0.commit(batch, durability)
    }
}
