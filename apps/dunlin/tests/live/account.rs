//! `dunlin account`: an account that is carried away, and one that is deleted.

use std::fs;
use std::path::Path;

use crate::person::{Person, dunlin, exit, two_contacts};

const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn a_deleted_account_is_gone_and_its_node_has_ended() {
    let (mut ann, ben) = two_contacts();
    let dir = ann.data_dir();
    let beside = dir.parent().unwrap().join(".data.boot");
    assert!(beside.exists());
    let asked = ann.refused(exit::USAGE, &["account", "delete"]);
    assert!(asked.contains("--yes"), "nobody was there to be asked: {asked}");
    assert_eq!(ann.json(&["status"])["contacts"], 1, "nothing happened");
    fs::write(dir.join("thesis.tex"), "chapter one").unwrap();

    let deleted = ann.json(&["account", "delete", "--yes"]);

    assert_eq!(deleted["left"][0], "thesis.tex", "{deleted}");
    ann.has_ended();
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.tex"]);
    assert!(!beside.exists());
    let none = ann.refused(exit::DATA_DIR, &["account", "delete", "--yes"]);
    assert!(none.contains("There is no account"), "{none}");
    ann.refused(exit::NO_NODE, &["status"]);
    assert_eq!(ben.json(&["status"])["contacts"], 1, "nobody else is touched");
}

#[test]
fn a_wipe_asks_nothing_and_ends_a_node_that_runs() {
    for is_running in [true, false] {
        let mut ann = Person::new("Ann");
        ann.start(&[]);
        let account = ann.ready["account"].clone();
        if !is_running {
            ann.kill();
        }
        ann.text(&["account", "wipe"]);
        if is_running {
            ann.has_ended();
        }
        assert!(!ann.data_dir().exists());
        // The place is free for another account.
        ann.start(&[]);
        assert_ne!(ann.ready["account"], account);
    }
}

/// Whoever was killed in the middle of a deletion finishes it with the same command, and nothing opens in between.
#[test]
fn what_a_killed_deletion_left_is_finished() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    ann.kill();
    let dir = ann.data_dir();
    let key = fs::read(dir.join("key")).unwrap();
    for left in ["the key written over", "the key removed", "the store removed"] {
        match left {
            "the key written over" => fs::write(dir.join("key"), vec![0; key.len()]).unwrap(),
            "the key removed" => fs::remove_file(dir.join("key")).unwrap(),
            _ => fs::remove_file(dir.join("node.redb")).unwrap(),
        }
        if left != "the store removed" {
            ann.refused(exit::DATA_DIR, &["node", "--name", "Ann"]);
        }
    }
    ann.text(&["account", "delete", "--yes"]);
    assert!(!dir.exists());
}

#[test]
fn an_account_is_exported_under_a_passphrase_and_imported_as_a_further_device() {
    let (mut ann, ben) = two_contacts();
    ann.json(&["send", "Ben", "Hello"]);
    ben.wait_message("Ann", "Hello");
    let place = tempfile::tempdir().unwrap();
    let (file, secret) = (place.path().join("ann.dunlin"), place.path().join("secret"));
    fs::write(&secret, format!("{PASSPHRASE}\n")).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (file_name, secret_name) = (text(&file), text(&secret));
    let export = ["account", "export", &file_name, "--passphrase-file", &secret_name];

    let written = ann.json(&export);

    let bytes = fs::read(&file).unwrap();
    assert_eq!(written["bytes"].as_u64().unwrap(), bytes.len() as u64);
    assert!(bytes.starts_with(b"DUNLINex"));
    assert!(!bytes.windows(11).any(|part| part == b"account.key"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let there = ann.refused(exit::REFUSED, &export);
    assert!(there.contains("is there already"), "{there}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "what was there is left alone");

    let mut phone = Person::new("Ann");
    let import = |file: &str, secret: &str| {
        let args = ["node", "--name", "Ann", "--import", file, "--import-passphrase-file", secret];
        let fresh = tempfile::tempdir().unwrap();
        let refused = dunlin(&fresh.path().join("data"), &args, "");
        assert_eq!(refused.code, exit::REFUSED, "{}", refused.stderr);
        refused.stderr
    };
    let wrong = place.path().join("wrong");
    fs::write(&wrong, "incorrect horse").unwrap();
    assert!(import(&file_name, &text(&wrong)).contains("passphrase does not open"));
    let (cut, changed) = (place.path().join("cut"), place.path().join("changed"));
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    assert!(import(&text(&cut), &secret_name).contains("missing or damaged"));
    let mut other = bytes.clone();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    fs::write(&changed, other).unwrap();
    assert!(import(&text(&changed), &secret_name).contains("damaged"));
    let fresh = tempfile::tempdir().unwrap();
    let args = ["node", "--name", "Ann", "--import", &file_name];
    let locked = dunlin(&fresh.path().join("data"), &args, "");
    assert_eq!(locked.code, exit::USAGE, "{}", locked.stderr);
    assert!(locked.stderr.contains("--import-passphrase-file"), "{}", locked.stderr);

    let account = ann.ready["account"].clone();
    ann.end();
    phone.start_with(&[
        "--name",
        "Ann",
        "--import",
        &file_name,
        "--import-passphrase-file",
        &secret_name,
        "--connect",
        &ben.address(),
    ]);
    assert_eq!(phone.ready["account"], account);
    phone.wait_contact("Ben", "added");
    ben.json(&["send", "Ann", "welcome back"]);
    phone.wait_message("Ben", "welcome back");
    phone.json(&["send", "Ben", "from the other device"]);
    ben.wait_message("Ann", "from the other device");
}
