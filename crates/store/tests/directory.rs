//! The directory of an account: who may open it, how, and what is left alone.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // Also outside of test functions.

use std::fs;
use std::path::Path;

use dunlin_base::kv::{Durability, Read, Store, Table, Tx};
use dunlin_store::{Damage, OpenError, RedbStore, Unlock, open};
use tempfile::{TempDir, tempdir};

const T: Table = Table(0x50);
const CANARY: &[u8] = b"the canary sings at midnight";

#[test]
fn a_directory_opens_the_way_it_was_made_and_no_other() {
    let bare = made(&Unlock::KeyFile);
    let wrapped = made(&passphrase("correct horse"));
    assert_canary(&open(bare.path(), &Unlock::KeyFile).unwrap());
    assert_canary(&open(wrapped.path(), &passphrase("correct horse")).unwrap());

    refused(wrapped.path(), &passphrase("correct horsE"), |error| {
        matches!(error, OpenError::WrongPassphrase)
    });
    refused(wrapped.path(), &passphrase(""), |error| matches!(error, OpenError::WrongPassphrase));
    refused(wrapped.path(), &Unlock::KeyFile, |error| matches!(error, OpenError::PassphraseRequired));
    refused(bare.path(), &passphrase("any"), |error| matches!(error, OpenError::PassphraseNotSet));
    assert_canary(&open(wrapped.path(), &passphrase("correct horse")).unwrap());
}

#[test]
fn two_cannot_have_a_directory_open() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), &Unlock::KeyFile).unwrap();
    assert!(matches!(open(dir.path(), &Unlock::KeyFile), Err(OpenError::InUse)));
    drop(store);
    open(dir.path(), &Unlock::KeyFile).unwrap();
}

#[test]
fn nothing_that_was_written_is_on_the_disk_in_clear() {
    for unlock in [Unlock::KeyFile, passphrase("open sesame")] {
        let dir = made(&unlock);
        let store = open(dir.path(), &unlock).unwrap();
        let mut tx = Tx::new(&store);
        for index in 0..100_u8 {
            tx.put(Table(b'T'), &[CANARY, &[index]].concat(), &CANARY.repeat(50));
        }
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
        let running = bytes_of(dir.path());
        store.settle().unwrap();
        drop(store);
        for bytes in [running, bytes_of(dir.path())] {
            for clear in [&CANARY[..12], b"rows", b"notes", b"schema", b"redb\x1a\x0a", b"open sesame"] {
                assert!(!bytes.windows(clear.len()).any(|window| window == clear), "{clear:?} is readable");
            }
        }
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let dir = made(&Unlock::KeyFile);
    let other = made(&Unlock::KeyFile);

    fs::copy(other.path().join("key"), dir.path().join("key")).unwrap();
    refused(dir.path(), &Unlock::KeyFile, |error| matches!(error, OpenError::WrongKey));

    fs::remove_file(dir.path().join("key")).unwrap();
    refused(dir.path(), &Unlock::KeyFile, |error| matches!(error, OpenError::KeyMissing));
    refused(dir.path(), &passphrase("any"), |error| matches!(error, OpenError::KeyMissing));

    for content in [b"x".repeat(100), b"x".repeat(10_000), vec![0; 100], vec![0; 10_000]] {
        fs::write(other.path().join("node.redb"), content).unwrap();
        refused(other.path(), &Unlock::KeyFile, |error| matches!(error, OpenError::NotAStore));
    }
}

#[test]
fn a_changed_key_file_is_noticed() {
    for unlock in [Unlock::KeyFile, passphrase("pass")] {
        let dir = made(&unlock);
        let key = dir.path().join("key");
        let whole = fs::read(&key).unwrap();
        for index in 0..whole.len() {
            let mut changed = whole.clone();
            changed[index] ^= 1;
            fs::write(&key, changed).unwrap();
            refused(dir.path(), &unlock, |error| matches!(error, OpenError::Damaged(Damage::KeyFile)));
        }
        for content in [&[][..], &whole[..whole.len() - 1], &[whole.as_slice(), b"x"].concat(), &[0; 5000]] {
            fs::write(&key, content).unwrap();
            refused(dir.path(), &unlock, |error| matches!(error, OpenError::Damaged(Damage::KeyFile)));
        }
        fs::write(&key, &whole).unwrap();
        assert_canary(&open(dir.path(), &unlock).unwrap());
    }
}

#[test]
fn files_of_a_newer_release_are_left_alone() {
    let dir = made(&Unlock::KeyFile);
    let bump = |file: &str| {
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] += 1;
        fs::write(path, bytes).unwrap();
    };
    bump("node.redb");
    refused(dir.path(), &Unlock::KeyFile, |error| {
        matches!(error, OpenError::NewerFormat { found: 2, known: 1 })
    });
    bump("key");
    refused(dir.path(), &Unlock::KeyFile, |error| {
        matches!(error, OpenError::NewerFormat { found: 2, known: 1 })
    });
}

#[test]
fn making_a_directory_may_stop_after_any_file() {
    let whole = tempdir().unwrap();
    drop(open(whole.path(), &Unlock::KeyFile).unwrap());
    let key = fs::read(whole.path().join("key")).unwrap();

    for left in [vec![("lock", &b""[..])], vec![("node.redb", b""), ("key.new", &key[..20])]] {
        let dir = tempdir().unwrap();
        for (name, content) in left {
            fs::write(dir.path().join(name), content).unwrap();
        }
        write_canary(&open(dir.path(), &Unlock::KeyFile).unwrap());
        assert_canary(&open(dir.path(), &Unlock::KeyFile).unwrap());
    }
    for size in [0, 512] {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("key"), &key).unwrap();
        fs::write(dir.path().join("node.redb"), vec![0; size]).unwrap();
        write_canary(&open(dir.path(), &Unlock::KeyFile).unwrap());
        assert_eq!(fs::read(dir.path().join("key")).unwrap(), key, "the key stays");
    }
}

#[test]
#[cfg(unix)]
fn only_the_owner_can_read_what_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempdir().unwrap();
    let dir = home.path().join("deep/account");
    drop(open(&dir, &Unlock::KeyFile).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in ["key", "lock", "node.redb"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["key", "lock", "node.redb"]);
}

#[test]
fn secrets_do_not_show() {
    assert_eq!(format!("{:?}", passphrase("open sesame")), "Passphrase(..)");
    let dir = made(&Unlock::KeyFile);
    assert_eq!(format!("{:?}", open(dir.path(), &Unlock::KeyFile).unwrap()), "RedbStore(..)");
}

fn made(unlock: &Unlock) -> TempDir {
    let dir = tempdir().unwrap();
    write_canary(&open(dir.path(), unlock).unwrap());
    dir
}

fn write_canary(store: &RedbStore) {
    let mut tx = Tx::new(store);
    tx.put(T, CANARY, CANARY);
    store.commit(tx.into_batch(), Durability::Synced).unwrap();
}

fn assert_canary(store: &RedbStore) {
    assert_eq!(store.get(T, CANARY).unwrap().as_deref(), Some(CANARY));
}

fn refused(dir: &Path, unlock: &Unlock, expected: impl Fn(&OpenError) -> bool) {
    let before = bytes_of(dir);
    let error = open(dir, unlock).unwrap_err();
    assert!(expected(&error), "{error:?}");
    assert_eq!(bytes_of(dir), before, "a refused directory is left as it was");
}

/// All files of a directory, one after another.
fn bytes_of(dir: &Path) -> Vec<u8> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| fs::read(path).unwrap()).collect()
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(text.to_owned().into())
}
