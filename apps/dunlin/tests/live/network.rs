//! Addresses and connections, strangers among them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::person::{DEADLINE, LOOPBACK, Person, befriend, exit};

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
fn strangers_who_send_garbage_or_fall_silent_do_not_hold_up_those_who_talk() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    let mut carol = Person::new("Carol");
    ann.start(&[]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    let address = ann.address();
    let parts: Vec<&str> = address.split('/').collect();
    let target = format!("{}:{}", parts[2], parts[4]);
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
