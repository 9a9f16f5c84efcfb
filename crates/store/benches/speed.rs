//! How fast the store is on this machine's disk, next to the figures it must reach.
//!
//! `cargo bench -p dunlin-store` runs it in a directory under the system's temporary one; set `DUNLIN_BENCH_DIR`
//! to measure another disk.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_base::kv::{Durability, Read, Store, Table, Tx};
use dunlin_store::faults::SimDisk;
use dunlin_store::{RedbStore, Unlock, open};

const T: Table = Table(0x50);
const VALUE: [u8; 500] = [7; 500];

fn main() {
    let home = match std::env::var_os("DUNLIN_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    sync_of_the_disk(home.path());
    on_the_disk(&home.path().join("account"));
    simulated();
}

/// What one write of a page and one sync cost without any store.
fn sync_of_the_disk(dir: &Path) {
    let disk = dunlin_store::FileDisk::new(
        std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(dir.join("raw"))
            .unwrap(),
        None,
    );
    use dunlin_store::Disk;
    disk.set_len(1 << 20).unwrap();
    disk.sync().unwrap();
    let each = fastest(100, 5, |index| {
        disk.write(index % 200 * 4096, &[1; 4096]).unwrap();
        disk.sync().unwrap();
    });
    report("page and sync without a store", each, None);
}

fn on_the_disk(dir: &Path) {
    let store = open(dir, &Unlock::KeyFile).unwrap();
    let each = fastest(200, 4, |index| put(&store, &[index], Durability::Synced));
    report("synced commit of one row", each, Some(2_000));
    let each = fastest(30, 1, |batch| {
        let keys: Vec<u64> = (0..1_000).map(|row| 1_000_000 + batch * 1_000 + row).collect();
        put(&store, &keys, Durability::Synced);
    });
    report("row in a synced commit of 1,000", each / 1_000, Some(20_000));
    let each = fastest(200, 10, |index| put(&store, &[2_000_000 + index], Durability::Deferred));
    report("deferred commit of one row", each, None);
    let each = fastest(300, 500, |index| {
        black_box(store.get(T, &key(1_000_000 + index % 200)).unwrap().unwrap());
    });
    report("get of a row lately used", each, Some(500_000));

    let rows = 200_000;
    for first in (0..rows).step_by(10_000) {
        put(&store, &(first..first + 10_000).collect::<Vec<_>>(), Durability::Synced);
    }
    let each = fastest(300, 50, |index| {
        black_box(store.get(T, &key(index.wrapping_mul(7_919) % rows)).unwrap().unwrap());
    });
    report("get of any of 200,000 rows", each, None);
    let each = fastest(200, 4, |index| put(&store, &[3_000_000 + index], Durability::Synced));
    report("synced commit of one row, then", each, Some(2_000));

    for (name, settle) in [("opening after a crash", false), ("opening after a crash, settled", true)] {
        if settle {
            store.settle().unwrap();
        }
        // What a killed process leaves: the files as they are.
        let copy = dir.with_extension(if settle { "settled" } else { "crashed" });
        std::fs::create_dir(&copy).unwrap();
        for file in ["key", "node.redb"] {
            std::fs::copy(dir.join(file), copy.join(file)).unwrap();
            std::fs::File::open(copy.join(file)).unwrap().sync_all().unwrap();
        }
        let began = Instant::now();
        let opened = open(&copy, &Unlock::KeyFile).unwrap();
        report(name, began.elapsed(), None);
        drop(opened);
    }
    let megabytes = std::fs::metadata(dir.join("node.redb")).unwrap().len() >> 20;
    println!("{:<36} {megabytes:>9} MiB", "the file by then");
}

fn simulated() {
    let each = fastest(100, 1, |seed| drop(black_box(SimDisk::new(seed).open_store().unwrap())));
    report("making a simulated store", each, Some(1_000));
    let store = SimDisk::new(1).open_store().unwrap();
    let each = fastest(300, 5, |index| put(&store, &[index], Durability::Synced));
    report("commit to a simulated store", each, Some(20_000));
}

fn put(store: &RedbStore, keys: &[u64], durability: Durability) {
    let mut tx = Tx::new(store);
    keys.iter().for_each(|index| tx.put(T, &key(*index), &VALUE));
    store.commit(tx.into_batch(), durability).unwrap();
}

/// Keys without order, as hashes are.
fn key(index: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

/// The time of one call, from the fastest of `rounds`: others use the machine too, so rounds
/// are short.
fn fastest(rounds: u64, calls: u64, mut call: impl FnMut(u64)) -> Duration {
    let round = |round: u64| {
        let began = Instant::now();
        (0..calls).for_each(|index| call(round * calls + index));
        began.elapsed() / calls as u32
    };
    (0..rounds).map(round).min().unwrap()
}

fn report(name: &str, each: Duration, bar: Option<u64>) {
    let per_second = 1.0 / each.as_secs_f64();
    let bar = bar.map(|bar| format!("(bar {bar}/s)")).unwrap_or_default();
    println!("{name:<36} {:>9.1} us {per_second:>10.0}/s {bar}", each.as_secs_f64() * 1e6);
}
