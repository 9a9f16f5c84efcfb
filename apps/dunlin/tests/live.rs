//! People talk: real processes, real sockets, real disks, by the command line alone.
//!
//! Every test has its own nodes, which listen on free ports of loopback and keep their data in directories
//! that go away with the test. Nothing waits for a time: everything waits for a condition, up to
//! [`DEADLINE`].

// A test says what is wrong by ending.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// After so long, what did not happen never will.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a condition that cannot be followed.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// What `--help` promises.
mod exit {
    pub const FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const NO_NODE: i32 = 3;
    pub const NOT_FOUND: i32 = 4;
    pub const REFUSED: i32 = 5;
    pub const DATA_DIR: i32 = 6;
}

#[test]
fn two_people_talk() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);

    let asked = ann.json(&["contact", "add", &ben.link()]);
    assert_eq!(asked["name"], "Ben");
    assert!(["kept", "sent"].contains(&asked["state"].as_str().unwrap()), "{asked}");

    let request = ben.wait_contact("Ann", "asks");
    let number = request["safety_number"].as_str().unwrap();
    assert_eq!(number.split(' ').filter(|group| group.len() == 5).count(), 12, "{number}");
    assert_eq!(asked["safety_number"], request["safety_number"], "both see the same number");
    assert!(ben.text(&["contact", "list"]).contains(number), "it is shown before the answer");

    assert_eq!(ben.json(&["contact", "accept", "Ann"])["state"], "added");
    ann.wait_contact("Ben", "added");

    let mut at_ben = ben.follow("Ann");
    let mut at_ann = ann.follow("Ben");
    ann.json(&["send", "Ben", "Hello", "Ben"]);
    assert_eq!(at_ben.wait_text("Hello Ben")["sender_name"], "Ann");
    ben.json_with_input(&["send", "Ann", "-"], "Two lines\nof text: 渡り鳥\n");
    assert_eq!(at_ann.wait_text("Two lines\nof text: 渡り鳥")["own"], false);

    let received = ann.wait_state("Ben", "Hello Ben", "received");
    assert!(received["handed_ms"].as_i64().unwrap() <= received["received_ms"].as_i64().unwrap());
    let why = ann.text(&["why", received["short_id"].as_str().unwrap()]);
    assert!(why.trim_end().ends_with('.') && why.lines().count() == 1, "{why}");
}

#[test]
fn three_talk_in_a_group() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    let mut carol = Person::new("Carol");
    ann.start(&[]);
    ben.start(&[&ann]);
    carol.start(&[&ann, &ben]);
    befriend(&ann, &ben);
    befriend(&ann, &carol);

    let group = ann.json(&["group", "new", "Harbour"]);
    assert_eq!(group["kind"], "group");
    ann.json(&["group", "invite", "Harbour", "Ben", "Carol"]);
    for guest in [&ben, &carol] {
        let invitation = guest.wait("an invitation", || {
            let messages = guest.messages("Ann");
            messages.into_iter().find(|message| message["invitation"]["name"] == "Harbour")
        });
        guest.json(&["group", "join", invitation["id"].as_str().unwrap()]);
    }
    for person in [&ann, &ben, &carol] {
        person.wait("three members", || {
            (person.lines(&["group", "members", "Harbour"]).len() == 3).then_some(())
        });
    }
    for (person, text) in [(&ann, "from Ann"), (&ben, "from Ben"), (&carol, "from Carol")] {
        person.json(&["send", "Harbour", text]);
    }
    for person in [&ann, &ben, &carol] {
        for text in ["from Ann", "from Ben", "from Carol"] {
            person.wait_message("Harbour", text);
        }
    }
    ann.wait("both confirm", || {
        let message = ann.message("Harbour", "from Ann")?;
        (message["received_by"] == 2 && message["recipients"] == 2).then_some(())
    });

    assert_eq!(carol.json(&["group", "leave", "Harbour"])["left"], true);
    carol.refused(exit::REFUSED, &["send", "Harbour", "too late"]);
    assert!(carol.message("Harbour", "from Ann").is_some(), "what was received stays");
}

#[test]
fn the_lid_is_closed_and_the_sender_is_back_first() {
    close_the_lid(true);
}

#[test]
fn the_lid_is_closed_and_the_receiver_is_back_first() {
    close_the_lid(false);
}

/// One writes while the other is away, and both start again in either order.
fn close_the_lid(sender_first: bool) {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    ben.end();

    assert_eq!(ann.json(&["send", "Ben", "while you sleep"])["state"], "kept");
    let why = ann.text(&["why", ann.message("Ben", "while you sleep").unwrap()["id"].as_str().unwrap()]);
    assert!(why.contains("Ben"), "{why}");
    assert_eq!(ann.json(&["status"])["messages_kept"], 1);
    ann.end();

    if sender_first {
        ann.start(&[]);
        assert_eq!(ann.message("Ben", "while you sleep").unwrap()["state"], "kept");
        ben.start(&[&ann]);
    } else {
        ben.start(&[]);
        ann.start(&[&ben]);
    }
    ben.wait_message("Ann", "while you sleep");
    let received = ann.wait_state("Ben", "while you sleep", "received");
    let time = |field: &str| received[field].as_i64().unwrap();
    assert!(time("kept_ms") <= time("handed_ms") && time("handed_ms") <= time("received_ms"), "{received}");

    // What arrives a second time arrives before this answer.
    ben.json(&["send", "Ann", "good morning"]);
    ann.wait_message("Ben", "good morning");
    assert_eq!(ben.times("Ann", "while you sleep"), 1);
}

#[test]
fn a_state_never_goes_back_and_leaves_none_out() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    ben.end();
    ann.json(&["send", "Ben", "step by step"]);
    let mut at_ann = ann.follow("Ben");
    assert_eq!(at_ann.wait_text("step by step")["state"], "kept");
    ben.start(&[&ann]);
    let mut changed = at_ann.wait("a change", |line| line["event"] == "changed");
    // Whoever looks sees how it is now: "sent" lasts only as long as the confirmation takes.
    if changed["state"] == "sent" {
        assert!(changed["received_ms"].is_null());
        changed = at_ann.wait("a change", |line| line["event"] == "changed" && line["state"] != "sent");
    }
    assert_eq!(changed["state"], "received");
    assert!(changed["handed_ms"].as_i64() <= changed["received_ms"].as_i64(), "{changed}");
}

#[test]
fn somebody_can_be_blocked_and_asked_again() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    ann.json(&["contact", "add", &ben.link()]);
    ben.wait_contact("Ann", "asks");
    assert_eq!(ben.json(&["contact", "block", "Ann"])["state"], "blocked");
    ben.refused(exit::REFUSED, &["contact", "accept", "Ann"]);
    ben.refused(exit::REFUSED, &["contact", "add", &ann.link()]);
    ben.json(&["contact", "unblock", "Ann"]);
    assert!(ben.lines(&["contact", "list"]).is_empty());
    ben.json(&["contact", "add", &ann.link()]);
    ben.wait_contact("Ann", "added");
    ann.wait_contact("Ben", "added");
}

#[test]
fn a_message_survives_a_kill_right_after_it_was_sent() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    for round in 0..3 {
        let text = format!("before the crash {round}");
        ann.json(&["send", "Ben", &text]);
        ann.kill();
        ann.refused(exit::NO_NODE, &["status"]);
        ann.start(&[&ben]);
        assert_eq!(ann.times("Ben", &text), 1, "it is kept");
        ben.wait_message("Ann", &text);
        ann.wait_state("Ben", &text, "received");
    }
    ben.json(&["send", "Ann", "all there"]);
    ann.wait_message("Ben", "all there");
    for round in 0..3 {
        assert_eq!(ben.times("Ann", &format!("before the crash {round}")), 1);
    }
}

#[test]
fn a_request_can_be_refused() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    ann.json(&["contact", "add", &ben.link()]);
    ben.wait_contact("Ann", "asks");
    ben.json(&["contact", "refuse", "Ann"]);
    assert!(ben.lines(&["contact", "list"]).is_empty());
    ben.refused(exit::NOT_FOUND, &["contact", "accept", "Ann"]);
    ben.refused(exit::NOT_FOUND, &["send", "Ann", "hello"]);
    ann.wait_contact("Ben", "sent");
    // They are not told: what they write waits.
    assert_eq!(ann.json(&["send", "Ben", "hello"])["state"], "kept");
    assert!(ann.text(&["why", "Ben"]).contains("not answered"));
    assert!(ben.lines(&["contact", "list"]).is_empty());
}

#[test]
fn a_bad_link_is_told_apart_and_changes_nothing() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[]);
    let link = ben.link();
    let damaged = link.replacen("#contact/", "#contact/zz", 1);
    let told = [
        ann.refused(exit::REFUSED, &["contact", "add", &ann.link()]),
        ann.refused(exit::REFUSED, &["contact", "add", &damaged]),
        ann.refused(exit::REFUSED, &["contact", "add", "https://berty.tech/id#key=abc&name=Ben"]),
        ann.refused(exit::REFUSED, &["contact", "add", "https://example.org/id#contact/abc"]),
        ann.refused(exit::REFUSED, &["group", "join", &link]),
    ];
    for (position, sentence) in told.iter().enumerate() {
        assert!(sentence.trim_end().ends_with(['.', '?', '!']), "{sentence}");
        assert!(!told[..position].contains(sentence), "each is told apart: {sentence}");
    }
    assert!(ann.lines(&["contact", "list"]).is_empty(), "nothing changed");
    ann.json(&["contact", "add", &link]);
    let known = ann.refused(exit::REFUSED, &["contact", "add", &link]);
    assert!(known.contains("Ben"), "{known}");
    assert_eq!(ann.lines(&["contact", "list"]).len(), 1);
}

#[test]
fn what_is_named_must_be_there_and_be_one() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    ann.refused(exit::NOT_FOUND, &["send", "Nobody", "hello"]);
    ann.refused(exit::NOT_FOUND, &["why", "abcdefghij"]);
    ann.json(&["group", "new", "Harbour one"]);
    ann.json(&["group", "new", "Harbour two"]);
    ann.refused(exit::NOT_FOUND, &["send", "Harbour", "hello"]);
    ann.json(&["send", "Harbour t", "hello"]);
    ann.refused(exit::USAGE, &["send"]);
}

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
fn a_port_in_use_is_told() {
    let mut ann = Person::new("Ann");
    let ben = Person::new("Ben");
    ann.start(&[]);
    let address = ann.address();
    let address = address.split("/p2p/").next().unwrap();
    let told = ben.refused(exit::FAILED, &["node", "--name", "Ben", "--listen", address]);
    assert!(told.contains(address), "{told}");
    let port = address.rsplit('/').next().unwrap();
    let listen = ["--listen", LOOPBACK, "--grpc", &format!("127.0.0.1:{port}")];
    ben.refused(exit::FAILED, &[&["node", "--name", "Ben"][..], &listen].concat());
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
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
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
fn strangers_who_send_garbage_or_fall_silent_do_not_hold_up_those_who_talk() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    let mut carol = Person::new("Carol");
    ann.start(&[]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    let address = ann.address();
    let mut parts = address.split('/').skip(2).step_by(2);
    let target = format!("{}:{}", parts.next().unwrap(), parts.next().unwrap());
    let dial = || TcpStream::connect(&target).unwrap();

    let hello = b"\x13/multistream/1.0.0\n";
    let mut garbage = vec![0xa5; 64 * 1024];
    garbage[..4].copy_from_slice(b"\x7fGET");
    let beginnings: [&[u8]; 6] = [
        // A length of 2^63, one that never ends, and one of all that a length may be.
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        &[0xff; 4096],
        b"\xff\x7f",
        &garbage,
        // A handshake that announces its longest frame and leaves it at that.
        &[hello.as_slice(), b"\x07/noise\n", b"\xff\xff"].concat(),
        &[hello.as_slice(), b"\x0d/no/such/one\n"].concat(),
    ];
    // With those that speak, half of the connections that may wait for a handshake at once.
    let silent: Vec<_> = (0..26).map(|_| dial()).collect();
    let mut hostile: Vec<_> = beginnings
        .iter()
        .map(|beginning| {
            let mut stream = dial();
            // The node may hang up in the middle of it.
            let _ = stream.write_all(beginning);
            stream
        })
        .collect();

    for (from, to, text) in [(&ann, &ben, "do you hear them?"), (&ben, &ann, "who?")] {
        from.json(&["send", &to.name, text]);
        to.wait_message(&from.name, text);
    }
    // Somebody new comes through as well, while a stranger goes on.
    carol.start(&[&ann]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut stream = dial();
                let _ = stream.write_all(&garbage);
                // The node hangs up, so there are never many.
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        befriend(&ann, &carol);
        ann.json(&["send", "Carol", "come in"]);
        carol.wait_message("Ann", "come in");
        stop.store(true, Ordering::Relaxed);
    });
    ann.wait_state("Carol", "come in", "received");

    // Whoever says nothing sensible is hung up on.
    for stream in &mut hostile {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut said = Vec::new();
        let ended = stream.read_to_end(&mut said);
        let waits =
            ended.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        assert!(!waits, "a connection that leads nowhere stays open");
        assert!(said.len() < 4096, "{said:?}");
    }
    drop(silent);
    let peers = ann.lines(&["peers"]);
    assert_eq!(peers.len(), 2, "strangers are no peers: {peers:?}");
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
fn export(grpc: &str) -> Vec<u8> {
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
fn a_node_is_pointed_at_another_and_away_again() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[]);
    assert!(ann.lines(&["peers"]).is_empty());
    let connected = ann.json(&["peers", "connect", &ben.address()]);
    assert_eq!(connected["peer_id"], ben.ready["peer_id"]);
    assert_eq!(ann.lines(&["peers"])[0]["connections"][0]["direction"], "outbound");
    ann.json(&["peers", "disconnect", ben.ready["peer_id"].as_str().unwrap()]);
    ann.wait("the connection is closed", || ann.lines(&["peers"]).is_empty().then_some(()));
    ann.refused(exit::REFUSED, &["peers", "connect", "somewhere"]);
    ann.refused(exit::REFUSED, &["peers", "connect", &ann.address()]);
    ben.end();
    ann.refused(exit::FAILED, &["peers", "connect", &ben.address()]);
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

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// Makes contacts of two people whose nodes are connected.
fn befriend(one: &Person, other: &Person) {
    one.json(&["contact", "add", &other.link()]);
    other.wait_contact(&one.name, "asks");
    other.json(&["contact", "accept", &one.name]);
    one.wait_contact(&other.name, "added");
    other.wait_contact(&one.name, "added");
}

/// Somebody with a data directory, and a node while it runs.
struct Person {
    name: String,
    place: tempfile::TempDir,
    directory: PathBuf,
    node: Option<Child>,
    ready: Value,
    starts: usize,
    /// How long the files of the node may become. The system refuses more as it does on a full disk.
    file_kilobytes_max: Option<u64>,
}

impl Person {
    fn new(name: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("data");
        Self {
            name: name.to_owned(),
            place,
            directory,
            node: None,
            ready: Value::Null,
            starts: 0,
            file_kilobytes_max: None,
        }
    }

    /// Starts the node, pointed at others.
    fn start(&mut self, others: &[&Person]) {
        let mut options = vec!["--name".to_owned(), self.name.clone()];
        for other in others {
            options.extend(["--connect".to_owned(), other.address()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.start_with(&options);
    }

    fn start_with(&mut self, options: &[&str]) {
        assert!(self.node.is_none());
        self.starts += 1;
        // Where the disk is full, the log has no room either.
        let log = match self.file_kilobytes_max {
            Some(_) if cfg!(target_os = "linux") => File::options().write(true).open("/dev/full").unwrap(),
            _ => File::create(self.log_path(self.starts)).unwrap(),
        };
        let mut command = command(&self.directory);
        if let Some(kilobytes) = self.file_kilobytes_max {
            command = limited(kilobytes, &command);
        }
        let mut node = command
            .args(["node", "--log", "info", "--listen", LOOPBACK])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.node = Some(node);
        self.ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", self.log()));
    }

    /// Asks the node to end, and waits until it has.
    fn end(&mut self) {
        let mut node = self.node.take().unwrap();
        let pid = node.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ended = node.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", self.log());
        self.check_log();
    }

    /// Ends the node in the middle of whatever it does.
    fn kill(&mut self) {
        let mut node = self.node.take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    fn link(&self) -> String {
        self.ready["link"].as_str().unwrap().to_owned()
    }

    /// Where the node is reached.
    fn address(&self) -> String {
        self.ready["listen"][0].as_str().unwrap().to_owned()
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.clone()
    }

    /// Runs a command that works out, for people.
    fn text(&self, args: &[&str]) -> String {
        let output = dunlin(&self.directory, args, "");
        assert_eq!(output.code, 0, "{args:?}: {}\n{}", output.stderr, self.log());
        output.stdout
    }

    /// Runs a command that works out, for programs.
    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let text = self.text(&[args, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn json(&self, args: &[&str]) -> Value {
        self.json_with_input(args, "")
    }

    fn json_with_input(&self, args: &[&str], input: &str) -> Value {
        // A text may hold anything, so options come before it.
        let output = dunlin(&self.directory, &[&["--json"], args].concat(), input);
        assert_eq!(output.code, 0, "{args:?}: {}\n{}", output.stderr, self.log());
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// Runs a command that does not work out, and gives the sentence that says why.
    fn refused(&self, code: i32, args: &[&str]) -> String {
        let output = dunlin(&self.directory, args, "");
        assert_eq!(output.code, code, "{args:?}: {}{}", output.stdout, output.stderr);
        assert!(!output.stderr.trim().is_empty() && output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        output.stderr
    }

    fn messages(&self, conversation: &str) -> Vec<Value> {
        let output = dunlin(&self.directory, &["--json", "read", conversation], "");
        // The conversation may not be there yet.
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn message(&self, conversation: &str, text: &str) -> Option<Value> {
        self.messages(conversation).into_iter().find(|message| message["text"] == text)
    }

    fn times(&self, conversation: &str, text: &str) -> usize {
        self.messages(conversation).iter().filter(|message| message["text"] == text).count()
    }

    fn wait_message(&self, conversation: &str, text: &str) -> Value {
        self.wait(&format!("«{text}»"), || self.message(conversation, text))
    }

    fn wait_state(&self, conversation: &str, text: &str, state: &str) -> Value {
        self.wait(&format!("«{text}» {state}"), || {
            self.message(conversation, text).filter(|message| message["state"] == state)
        })
    }

    fn wait_contact(&self, name: &str, state: &str) -> Value {
        self.wait(&format!("{name} {state}"), || {
            let contacts = self.lines(&["contact", "list"]);
            contacts.into_iter().find(|contact| contact["name"] == name && contact["state"] == state)
        })
    }

    /// Looks until there is something to see.
    fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(started.elapsed() < DEADLINE, "{} never saw {what}\n{}", self.name, self.log());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Follows a conversation from its beginning.
    fn follow(&self, conversation: &str) -> Follower {
        let mut process = command(&self.directory)
            .args(["--json", "read", conversation, "--follow"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Follower { process, lines }
    }

    fn log_path(&self, start: usize) -> PathBuf {
        self.place.path().join(format!("log-{start}"))
    }

    fn log(&self) -> String {
        let logs =
            (1..=self.starts).map(|start| std::fs::read_to_string(self.log_path(start)).unwrap_or_default());
        logs.collect::<Vec<_>>().join("---\n")
    }

    /// Logs travel: nothing in them tells who it is, who they know and what they wrote.
    fn check_log(&self) {
        let log = self.log();
        for secret in ["Hello", "while you sleep", "before the crash", "Harbour", "Ben", "/ip4/"] {
            assert!(!log.contains(secret), "{secret} in the log:\n{log}");
        }
        for field in ["account", "peer_id"] {
            assert!(!log.contains(self.ready[field].as_str().unwrap()), "{field} in the log:\n{log}");
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            // It may have ended by itself.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// A `dunlin read --follow` and what it has printed.
struct Follower {
    process: Child,
    lines: Receiver<Value>,
}

impl Follower {
    fn wait_text(&mut self, text: &str) -> Value {
        self.wait(text, |line| line["text"] == text)
    }

    /// Waits for a line; those before it are gone.
    fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never followed by {what}"));
            if fits(&line) {
                return line;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a command left behind.
struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.arg("--data-dir").arg(data_dir).env_remove("DUNLIN_PASSPHRASE").env("TZ", "UTC");
    command
}

/// The same command with a limit to the files that it writes. Units of `ulimit -f` are 512 bytes.
fn limited(kilobytes: u64, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn dunlin(data_dir: &Path, args: &[&str], input: &str) -> Output {
    let mut process = command(data_dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let mut stderr_pipe = process.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut stderr = String::new();
        stderr_pipe.read_to_string(&mut stderr).map(|_| stderr)
    });
    let mut stdout = String::new();
    process.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let stderr = errors.join().unwrap().unwrap();
    let code = process.wait().unwrap().code().unwrap_or(-1);
    Output { code, stdout, stderr }
}
