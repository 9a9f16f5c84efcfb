//! Data directories: whose they are, what is wrong with them, and how an account leaves one.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use crate::person::{LOOPBACK, Person, befriend, command, dunlin, exit, limited, two_contacts};

#[test]
fn a_data_directory_has_one_node_and_one_profile() {
    let mut ann = Person::new("Ann");
    ann.refused(exit::NO_NODE, &["status"]);
    ann.refused(exit::USAGE, &["node", "--listen", LOOPBACK]);
    ann.start(&[]);
    let told = ann.refused(exit::DATA_DIR, &["node", "--listen", LOOPBACK]);
    assert!(told.contains("--data-dir"), "{told}");
    assert_eq!(ann.json(&["status"])["account"]["name"], "Ann", "the first node goes on");
    ann.end();
    assert!(!ann.data_dir().join("node.json").exists());
    ann.refused(exit::DATA_DIR, &["node", "--profile", "wesh"]);
    ann.refused(exit::USAGE, &["node", "--listen", "localhost:4001"]);
    ann.refused(exit::USAGE, &["node", "--grpc", "0.0.0.0:0"]);

    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("thesis.tex"), "").unwrap();
    let elsewhere = elsewhere.path().to_str().unwrap();
    let output = dunlin(Path::new(elsewhere), &["node", "--name", "Ann"], "");
    assert_eq!(output.code, exit::DATA_DIR, "{}", output.stderr);
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    ann.end();
    let store = ann.data_dir().join("node.redb");
    let whole = std::fs::read(&store).unwrap();
    let mut newer = whole.clone();
    // The byte behind the eight of the name says which format it is.
    newer[8] += 1;
    std::fs::write(&store, &newer).unwrap();
    let told = ann.refused(exit::DATA_DIR, &["node", "--listen", LOOPBACK]);
    assert!(told.contains("newer Dunlin") && told.contains("Update"), "{told}");
    assert_eq!(std::fs::read(&store).unwrap(), newer, "nothing was changed");
    std::fs::write(&store, &whole).unwrap();
    ann.start(&[]);
}

#[test]
fn a_data_directory_that_cannot_be_read_is_told_with_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    ann.end();
    let refused = |person: &Person| {
        let told = person.refused(exit::DATA_DIR, &["node", "--name", "Ann", "--listen", LOOPBACK]);
        assert!(told.trim_end().ends_with('.'), "{told}");
        told
    };

    // A file in its place, and one on the way to it.
    let file = ann.place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut astray = Person::new("Ann");
    for directory in [file.clone(), file.join("data")] {
        astray.directory = directory;
        let told = refused(&astray);
        assert!(told.contains("--data-dir") && told.contains("file"), "{told}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"", "it is left alone");

    // What belongs to it is missing, or is something else.
    let key = ann.data_dir().join("key");
    let aside = ann.place.path().join("key");
    std::fs::rename(&key, &aside).unwrap();
    let told = refused(&ann);
    assert!(told.contains("`key`") && told.contains("Put it back"), "{told}");
    std::fs::create_dir(&key).unwrap();
    refused(&ann);
    std::fs::remove_dir(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    let told = refused(&ann);
    assert!(told.contains("key file was changed") && told.contains("Restore"), "{told}");
    std::fs::rename(&aside, &key).unwrap();

    let mode = |mode| {
        let path = ann.data_dir().join("node.redb");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        File::open(path).is_err()
    };
    // Permissions do not hold the superuser back.
    if mode(0o000) {
        assert!(refused(&ann).contains("--data-dir"));
    }
    mode(0o600);
    ann.start(&[]);
}

#[test]
fn a_full_disk_is_told_and_what_was_answered_before_is_there_when_it_has_room_again() {
    let (mut ann, mut ben) = two_contacts();
    ben.end();
    ann.end();
    let bytes = std::fs::metadata(ann.data_dir().join("node.redb")).unwrap().len();
    ann.file_kilobytes_max = Some(bytes / 1024 + 1);
    ann.start(&[]);

    let long = "x".repeat(30_000);
    let mut kept = Vec::new();
    let refused = loop {
        let text = format!("{} {long}", kept.len());
        let output = dunlin(&ann.directory, &["--json", "send", "Ben", "-"], &text);
        if output.code != 0 {
            break output;
        }
        kept.push(text);
        assert!(kept.len() < 1000, "the disk is never full");
    };
    assert_eq!(refused.code, exit::DATA_DIR, "{}\n{}", refused.stderr, ann.log());
    assert!(refused.stderr.contains("disk is full") && refused.stderr.contains("free"), "{}", refused.stderr);
    assert_eq!(ann.json(&["status"])["messages_kept"], kept.len(), "reading goes on");
    ann.end();
    let empty = limited(0, command(&ann.place.path().join("new")).args(["node", "--name", "Ann"]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = String::from_utf8(empty.stderr).unwrap();
    assert_eq!(empty.status.code(), Some(exit::DATA_DIR), "{told}");
    assert!(told.contains("Make room on the disk"), "{told}");
    ann.start(&[]);
    assert_eq!(ann.json(&["status"])["messages_kept"], kept.len(), "it can be started to be read");
    ann.end();

    ann.file_kilobytes_max = None;
    ann.start(&[]);
    ann.json(&["send", "Ben", "there is room"]);
    ben.start(&[&ann]);
    ben.wait_message("Ann", "there is room");
    for text in &kept {
        assert_eq!(ben.times("Ann", text), 1);
    }
    assert_eq!(ben.messages("Ann").len(), kept.len() + 1, "and nothing else");
}

#[test]
fn a_data_directory_can_be_locked_by_a_passphrase() {
    let mut ann = Person::new("Ann");
    let file = ann.place.path().join("passphrase");
    std::fs::write(&file, "a long tide\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    ann.start_with(&["--name", "Ann", "--passphrase-file", &file]);
    let account = ann.ready["account"].clone();
    ann.end();
    ann.refused(exit::DATA_DIR, &["node", "--listen", LOOPBACK]);
    std::fs::write(&file, "a short tide\n").unwrap();
    ann.refused(exit::DATA_DIR, &["node", "--listen", LOOPBACK, "--passphrase-file", &file]);
    std::fs::write(&file, "a long tide\n").unwrap();
    ann.start_with(&["--passphrase-file", &file]);
    assert_eq!(ann.ready["account"], account);
}

#[test]
fn an_account_moves_to_another_directory() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start_with(&["--name", "Ann", "--grpc", "127.0.0.1:0"]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    ben.json(&["send", "Ann", "before the move"]);
    ann.wait_message("Ben", "before the move");
    let archive = ann.place.path().join("account.tar");
    std::fs::write(&archive, export(ann.ready["grpc"].as_str().unwrap())).unwrap();
    let archive = archive.to_str().unwrap();
    ann.end();

    let mut moved = Person::new("Ann");
    moved.start_with(&["--name", "Ann", "--connect", &ben.address(), "--import", archive]);

    assert_eq!(moved.ready["account"], ann.ready["account"]);
    moved.wait_contact("Ben", "added");
    assert_eq!(moved.wait_message("Ben", "before the move")["own"], false);
    moved.json(&["send", "Ben", "after the move"]);
    ben.wait_message("Ann", "after the move");
    moved.end();
    let why = moved.refused(exit::REFUSED, &["node", "--import", archive]);
    assert!(why.contains("already holds an account"), "{why}");
}

/// The archive of the account, as any client of the existing service gets it.
pub fn export(grpc: &str) -> Vec<u8> {
    use dunlin_node::rpc::protocol::protocol_service_client::ProtocolServiceClient;
    use dunlin_proto::protocol::service_export_data::Request;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = ProtocolServiceClient::connect(grpc.to_owned()).await.unwrap();
        let mut pieces = client.service_export_data(Request {}).await.unwrap().into_inner();
        let mut archive = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            archive.extend(piece.exported_data);
        }
        archive
    })
}

#[test]
fn commands_are_private_to_the_user() {
    use std::os::unix::fs::PermissionsExt;
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ann.data_dir()), 0o700);
    assert_eq!(mode(&ann.data_dir().join("node.json")), 0o600);
    assert_eq!(mode(&ann.data_dir().join("grpc.sock")), 0o600);

    let mut deep = Person::new("Deep");
    deep.directory = deep.place.path().join("deep".repeat(30)).join("data");
    deep.start(&[]);
    let socket = deep.ready["grpc"].as_str().unwrap().trim_start_matches("unix:").to_owned();
    assert!(socket.len() <= 100, "{socket}");
    assert_eq!(mode(Path::new(&socket).parent().unwrap()), 0o700);
    assert_eq!(deep.json(&["status"])["account"]["name"], "Deep");
    deep.end();
    assert!(!Path::new(&socket).parent().unwrap().exists());

    let mut open = Person::new("Open");
    open.start_with(&["--name", "Open", "--grpc", "127.0.0.1:0"]);
    assert!(open.ready["grpc"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert_eq!(open.json(&["name"])["name"], "Open");
}
