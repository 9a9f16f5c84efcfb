//! A real process, killed in the middle of its work, on a real file.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // Also outside of test functions.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use dunlin_base::kv::{Durability, Read, Store, Table, Tx};
use dunlin_store::{Unlock, open};

const T: Table = Table(0x50);
const ROWS: u8 = 4;
const DIR: &str = "DUNLIN_STORE_KILL_DIR";

#[test]
fn a_killed_process_loses_nothing_it_was_told_is_synced() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("account");
    let mut next = 0;
    for acknowledged in [1, 3, 10, 30, 31] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "the_process_that_is_killed"])
            .env(DIR, &dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let last = lines.filter_map(|line| line.parse::<u64>().ok()).nth(acknowledged - 1).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(last, next + acknowledged as u64 - 1);

        next = commits(&dir);
        assert!(next > last, "{next} commits are there, {last} was synced");
    }
}

#[test]
#[ignore = "runs inside the other test"]
fn the_process_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = open(dir.as_ref(), &Unlock::KeyFile).unwrap();
    let first = (0..).find(|index| !store.contains(T, &key(*index, 0)).unwrap()).unwrap();
    for index in first.. {
        let mut tx = Tx::new(&store);
        (0..ROWS).for_each(|row| tx.put(T, &key(index, row), &[row; 3000]));
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
        let mut out = std::io::stdout().lock();
        // The test harness may have left its line open.
        writeln!(out, "\n{index}").unwrap();
        out.flush().unwrap();
    }
}

/// Opens the directory and counts commits, each of which has to be whole.
fn commits(dir: &Path) -> u64 {
    let store = open(dir, &Unlock::KeyFile).unwrap();
    let is_there = |index, row| store.contains(T, &key(index, row)).unwrap();
    let count = (0..).find(|index| !is_there(*index, 0)).unwrap();
    for index in 0..=count {
        assert!((0..ROWS).all(|row| is_there(index, row) == (index < count)), "commit {index} of {count}");
    }
    count
}

fn key(index: u64, row: u8) -> Vec<u8> {
    [&index.to_be_bytes()[..], &[row]].concat()
}
