//! The end of an account: its key first, and nothing of it whichever step was the last.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // Also outside of test functions.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_base::kv::{Durability, Read, Store, Table, Tx};
use dunlin_store::{Destruction, OpenError, Unlock, destroy_key, holds_account, open};
use tempfile::{TempDir, tempdir};

const T: Table = Table(0x50);
const CANARY: &[u8] = b"the canary sings at midnight";
const NAMES: [&str; 2] = ["config.toml", "dunlin.log"];

/// `spec/security.md` S7: whoever is killed after any step leaves nothing that opens, and whoever goes on finishes.
#[test]
fn a_destruction_that_stops_after_any_step_leaves_no_readable_store_and_is_finished_by_the_next() {
    let mut steps = 0;
    loop {
        let (home, dir, beside) = account();
        let key = fs::read(dir.join("key")).unwrap()[10..42].to_vec();
        let mut destruction = Destruction::of(&dir, &NAMES, &beside).unwrap();
        let done = (0..steps).map_while(|_| destruction.step()).map(Result::unwrap).count();
        // The process is gone, and its lock with it.
        drop(destruction);
        if steps > 0 {
            let left: Vec<u8> =
                files_below(home.path()).iter().flat_map(|path| fs::read(path).unwrap()).collect();
            assert!(!left.windows(key.len()).any(|part| part == key), "the key is gone after {steps} steps");
            assert!(opened(&dir, &home).is_none_or(|found| found.is_none()), "after {steps} steps");
        }
        Destruction::of(&dir, &NAMES, &beside).unwrap().run().unwrap();
        assert_eq!(files_below(home.path()), Vec::<PathBuf>::new(), "after {steps} steps");
        assert!(!dir.exists() && !holds_account(&dir));
        if done < steps {
            break;
        }
        steps += 1;
    }
    assert!(steps > 10, "{steps}");
}

#[test]
fn the_key_is_destroyed_while_a_process_has_the_directory_open() {
    let (_home, dir, beside) = account();
    let store = open(&dir, &Unlock::KeyFile).unwrap();
    assert!(matches!(Destruction::of(&dir, &NAMES, &beside), Err(OpenError::InUse)));
    destroy_key(&dir).unwrap();
    assert_eq!(
        store.get(T, CANARY).unwrap().as_deref(),
        Some(CANARY),
        "who has it open sees it until they end"
    );
    drop(store);
    assert!(matches!(open(&dir, &Unlock::KeyFile), Err(OpenError::KeyMissing)));
    destroy_key(&dir).unwrap();
    assert!(holds_account(&dir), "what is left of one");
    Destruction::of(&dir, &NAMES, &beside).unwrap().run().unwrap();
    assert!(!dir.exists());
}

#[test]
fn a_key_under_a_passphrase_goes_the_same_way() {
    let home = tempdir().unwrap();
    let dir = home.path().join("account");
    let unlock = Unlock::Passphrase("correct horse".to_owned().into());
    drop(open(&dir, &unlock).unwrap());
    let key = fs::read(dir.join("key")).unwrap();
    let mut destruction = Destruction::of(&dir, &[], &[]).unwrap();
    destruction.step().unwrap().unwrap();
    assert_eq!(fs::read(dir.join("key")).unwrap(), vec![0; key.len()], "written over where it is");
    assert!(open(&dir, &unlock).is_err());
}

#[test]
fn what_is_not_ours_stays() {
    let (_home, dir, beside) = account();
    fs::write(dir.join("thesis.tex"), "chapter one").unwrap();
    fs::create_dir(dir.join("pictures")).unwrap();
    Destruction::of(&dir, &NAMES, &beside).unwrap().run().unwrap();
    let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["pictures", "thesis.tex"]);
    assert!(!holds_account(&dir));
    assert_eq!(fs::read(dir.join("thesis.tex")).unwrap(), b"chapter one");
}

/// The rest goes even where one thing refuses, and the refusal is told.
#[test]
fn one_file_that_cannot_be_removed_keeps_nothing_else() {
    let (_home, dir, beside) = account();
    fs::remove_file(dir.join("config.toml")).unwrap();
    // A directory is no file.
    fs::create_dir(dir.join("config.toml")).unwrap();
    assert!(Destruction::of(&dir, &NAMES, &beside).unwrap().run().is_err());
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["config.toml"]);
}

#[test]
fn where_nothing_is_nothing_is_done() {
    let home = tempdir().unwrap();
    let dir = home.path().join("nothing");
    assert!(!holds_account(&dir));
    destroy_key(&dir).unwrap();
    Destruction::of(&dir, &NAMES, &[]).unwrap().run().unwrap();
    assert!(home.path().exists());
}

/// A directory with an account, and what a program keeps in it and beside it.
fn account() -> (TempDir, PathBuf, Vec<PathBuf>) {
    let home = tempdir().unwrap();
    let dir = home.path().join("account");
    let store = open(&dir, &Unlock::KeyFile).unwrap();
    let mut tx = Tx::new(&store);
    tx.put(T, CANARY, CANARY);
    store.commit(tx.into_batch(), Durability::Synced).unwrap();
    drop(store);
    // A making that was broken off once, with a key that nothing was encrypted with.
    fs::write(dir.join("key.new"), [7; 74]).unwrap();
    for name in NAMES {
        fs::write(dir.join(name), "x").unwrap();
    }
    let beside = vec![home.path().join(".account.boot"), home.path().join(".account.boot.new")];
    fs::write(&beside[0], "x").unwrap();
    (home, dir, beside)
}

/// What is in the store, if there is one that opens. It is looked at in a copy: opening makes a new one where none is.
fn opened(dir: &Path, home: &TempDir) -> Option<Option<Vec<u8>>> {
    if !dir.exists() {
        return None;
    }
    let copy = home.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for path in files_below(dir) {
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let found = open(&copy, &Unlock::KeyFile).ok().map(|store| store.get(T, CANARY).unwrap());
    fs::remove_dir_all(copy).unwrap();
    found
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}
