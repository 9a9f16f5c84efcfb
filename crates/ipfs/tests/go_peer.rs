//! Everything that the crate does, against libp2p for Go.
//!
//! The peer is `interop/go`. These tests run when `DUNLIN_GO_PEER` names its program, and otherwise say that
//! they were skipped.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    ops::ControlFlow::{Break, Continue},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use common::{CONTACT, DIRECT, Host, QUIC, RECORDS, TCP, cid_of};
use dunlin_ipfs::{Event, Multiaddr, PeerId, multiaddr::Protocol};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, time::timeout};

#[tokio::test]
async fn topics_carry_messages_both_ways() {
    for transport in [TCP, QUIC] {
        let Some(mut go) = Go::start(transport) else { return };
        let mut host = Host::start(transport).await;
        host.ipfs.subscribe("birds").await.unwrap();
        go.connect(&mut host).await;
        go.tell("subscribe birds");
        host.joined(go.id, "birds").await;
        go.wait(&["joined", "birds", &host.id().to_string()]).await;

        host.ipfs.publish("birds", Bytes::from("dunlin")).await.unwrap();
        go.wait(&["message", "birds", &host.id().to_string(), &described(b"dunlin")]).await;

        go.tell(&format!("publish birds {}", hex(b"knot")));
        assert_eq!(host.message().await, ("birds".to_owned(), go.id, Bytes::from("knot")));
    }
}

#[tokio::test]
async fn frames_arrive_both_ways_and_need_no_leading_slash() {
    for transport in [TCP, QUIC] {
        let Some(mut go) = Go::start(transport) else { return };
        let mut host = Host::start(transport).await;
        go.connect(&mut host).await;

        for protocol in [DIRECT, RECORDS] {
            for length in [1, 127, 128, protocol.frame_bytes_max] {
                let frame = vec![0; length];
                host.ipfs.send_frame(protocol.name, go.id, frame.clone().into()).unwrap();
                go.wait(&["frame", protocol.name, &host.id().to_string(), &described(&frame)]).await;

                go.tell(&format!("frame {} {} zeros:{length}", protocol.name, host.id()));
                assert_eq!(host.frame().await, (protocol.name, go.id, frame.into()));
            }
        }
    }
}

#[tokio::test]
async fn exchanges_go_both_ways_and_their_protocol_comes_and_goes() {
    let Some(mut go) = Go::start(TCP) else { return };
    let mut host = Host::start(TCP).await;
    go.connect(&mut host).await;
    let mut exchange = host.ipfs.open_exchange(CONTACT, go.id).await.unwrap();
    exchange.write_frame(b"echo").await.unwrap();
    assert_eq!(exchange.read_frame().await.unwrap(), "echo");
    exchange.close().await.unwrap();

    host.ipfs.accept_exchanges(CONTACT, true).await.unwrap();
    go.wait(&["updated", &host.id().to_string(), &format!("+{CONTACT}")]).await;
    go.tell(&format!("exchange {CONTACT} {} {}", host.id(), hex(b"hello")));
    let mut exchange = host
        .wait("an exchange", |event| match event {
            Event::ExchangeOpened { protocol: CONTACT, exchange, .. } => Break(exchange),
            other => Continue(other),
        })
        .await;
    assert_eq!(exchange.read_frame().await.unwrap(), "hello");
    exchange.write_frame(b"answer").await.unwrap();
    go.wait(&["answer", CONTACT, &described(b"answer")]).await;

    host.ipfs.accept_exchanges(CONTACT, false).await.unwrap();
    go.wait(&["updated", &host.id().to_string(), "+", &format!("-{CONTACT}")]).await;
}

#[tokio::test]
async fn blocks_are_fetched_from_go() {
    const BLOCKS: usize = 200;
    let Some(mut go) = Go::start(TCP) else { return };
    let mut host = Host::start(TCP).await;
    go.connect(&mut host).await;
    let small = (0..BLOCKS).map(|n| n.to_be_bytes().repeat(100));
    let blocks: Vec<_> = small.chain([vec![0; 2 * 1024 * 1024]]).collect();
    for block in &blocks {
        let bytes =
            if block.iter().all(|byte| *byte == 0) { format!("zeros:{}", block.len()) } else { hex(block) };
        go.tell(&format!("put {bytes}"));
        go.wait(&["stored", &cid_of(block).to_string()]).await;
    }

    for block in &blocks {
        host.ipfs.want(cid_of(block), vec![go.id]).unwrap();
    }
    for _ in &blocks {
        let (cid, bytes, peer) = host.block().await;
        assert_eq!((cid_of(&bytes), peer), (cid, go.id));
    }

    host.ipfs.want(cid_of(b"nowhere"), vec![go.id]).unwrap();
    assert_eq!(host.missing().await, cid_of(b"nowhere"));
}

#[tokio::test]
async fn a_block_that_go_gets_later_is_fetched_later() {
    let Some(mut go) = Go::start(TCP) else { return };
    let mut host = Host::start(TCP).await;
    go.connect(&mut host).await;
    let cid = cid_of(b"late");
    host.ipfs.want(cid, vec![go.id]).unwrap();
    assert_eq!(host.missing().await, cid);

    go.tell(&format!("put {}", hex(b"late")));
    go.wait(&["stored", &cid.to_string()]).await;
    host.ipfs.want(cid, vec![go.id]).unwrap();

    assert_eq!(host.block().await, (cid, Bytes::from("late"), go.id));
}

#[tokio::test]
async fn go_fetches_blocks_from_us() {
    const BLOCKS: u32 = 200;
    let Some(mut go) = Go::start(TCP) else { return };
    let mut host = Host::start(TCP).await;
    go.connect(&mut host).await;
    let small = (0..BLOCKS).map(|n| n.to_be_bytes().repeat(100));
    let larger = (0..BLOCKS).map(|n| n.to_be_bytes().repeat(500));
    let blocks: Vec<_> = small.chain(larger).chain([vec![1; 2 * 1024 * 1024]]).collect();
    for block in &blocks {
        host.blocks.put(block.clone());
    }

    for block in &blocks {
        go.tell(&format!("get {}", cid_of(block)));
    }

    for block in &blocks {
        go.wait(&["block", &cid_of(block).to_string(), &described(block)]).await;
    }
}

#[tokio::test]
async fn go_gets_a_block_that_we_get_later() {
    let Some(mut go) = Go::start(TCP) else { return };
    let mut host = Host::start(TCP).await;
    go.connect(&mut host).await;
    let early = host.blocks.put("early");
    go.tell(&format!("get {}", cid_of(b"late")));
    // By the time that another block is there, the want of the first has been answered.
    go.tell(&format!("get {early}"));
    go.wait(&["block", &early.to_string()]).await;

    let late = host.blocks.put("late");
    host.ipfs.offer(&[late]);

    go.wait(&["block", &late.to_string(), &described(b"late")]).await;
}

#[tokio::test]
async fn hosts_that_do_not_reach_each_other_talk_through_a_go_relay() {
    for transport in [TCP, QUIC] {
        let Some(relay) = Go::start_with(transport, &["-relay"]) else { return };
        let (mut ann, mut ben) = (Host::start(transport).await, Host::start(transport).await);
        for host in [&ann, &ben] {
            host.ipfs.subscribe("birds").await.unwrap();
        }
        meet_through(&relay, &mut ann, &mut ben).await;

        let frame = Bytes::from(vec![7; DIRECT.frame_bytes_max]);
        ben.ipfs.send_frame(DIRECT.name, ann.id(), frame.clone()).unwrap();
        assert_eq!(ann.frame().await, (DIRECT.name, ben.id(), frame));
        ben.joined(ann.id(), "birds").await;
        ann.joined(ben.id(), "birds").await;
        ben.ipfs.publish("birds", Bytes::from("knot")).await.unwrap();
        assert_eq!(ann.message().await, ("birds".to_owned(), ben.id(), Bytes::from("knot")));
        let block = ann.blocks.put(vec![1; 1024 * 1024]);
        ben.ipfs.want(block, vec![ann.id()]).unwrap();
        assert_eq!(ben.block().await.0, block);

        for (host, other) in [(&ann, ben.id()), (&ben, ann.id())] {
            assert!(ways_to(host, other).iter().all(is_relayed), "nobody asked for a direct connection");
        }
    }
}

#[tokio::test]
async fn hosts_that_met_at_a_go_relay_go_on_without_it() {
    for transport in [TCP, QUIC] {
        let Some(relay) = Go::start_with(transport, &["-relay"]) else { return };
        let mut ann = Host::start_with(transport, |config| config.hole_punching = true).await;
        let mut ben = Host::start_with(transport, |config| config.hole_punching = true).await;
        meet_through(&relay, &mut ann, &mut ben).await;

        let direct = async {
            while ways_to(&ann, ben.id()).iter().all(is_relayed)
                || ways_to(&ben, ann.id()).iter().all(is_relayed)
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), direct).await.expect("there is no direct connection");

        drop(relay);
        ann.ipfs.send_frame(DIRECT.name, ben.id(), Bytes::from("still there")).unwrap();
        assert_eq!(ben.frame().await, (DIRECT.name, ann.id(), Bytes::from("still there")));
    }
}

/// Ann takes a place at the relay, and Ben dials her there.
async fn meet_through(relay: &Go, ann: &mut Host, ben: &mut Host) {
    let place: Multiaddr = relay.address.parse().unwrap();
    ann.ipfs.dial(place.clone()).await.unwrap();
    ann.ipfs.reserve(place.clone()).await.unwrap();
    let circuit = place.with(Protocol::P2pCircuit).with(Protocol::P2p(ann.id()));
    assert_eq!(ben.ipfs.dial(circuit).await.unwrap(), ann.id());
    ann.connected(ben.id()).await;
    ben.connected(ann.id()).await;
}

/// The addresses at the other ends of the connections with a peer.
fn ways_to(host: &Host, who: PeerId) -> Vec<Multiaddr> {
    let peers = host.ipfs.peers();
    let peer = peers.iter().find(|info| info.peer == who).unwrap();
    peer.connections.iter().map(|connection| connection.address.clone()).collect()
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The Go peer, and what it has said.
struct Go {
    id: PeerId,
    address: String,
    process: Child,
    input: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
    unread: Vec<String>,
}

impl Go {
    fn start(listen: &str) -> Option<Self> {
        Self::start_with(listen, &[])
    }

    #[allow(clippy::print_stderr, reason = "a test that did not run has to say so")]
    fn start_with(listen: &str, services: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os("DUNLIN_GO_PEER") else {
            eprintln!("SKIPPED: set DUNLIN_GO_PEER to the program built from interop/go");
            return None;
        };
        let mut process = Command::new(program)
            .args(["-listen", listen])
            .args(["-frames", &format!("{},{}", DIRECT.name, RECORDS.name)])
            .args(["-exchanges", CONTACT])
            .args(services)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("DUNLIN_GO_PEER does not start");
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let listening = output.next().unwrap().unwrap();
        let address = listening.strip_prefix("listening ").unwrap().to_owned();
        let Some(Protocol::P2p(id)) = address.parse::<Multiaddr>().unwrap().pop() else {
            panic!("{address} names no peer");
        };
        let (said, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.map_while(Result::ok) {
                if said.send(line).is_err() {
                    break;
                }
            }
        });
        Some(Self { id, address, process, input, lines, unread: Vec::new() })
    }

    /// Lets the host dial the peer.
    async fn connect(&mut self, host: &mut Host) {
        assert_eq!(host.ipfs.dial(self.address.parse().unwrap()).await.unwrap(), self.id);
        host.connected(self.id).await;
        self.wait(&["identified", &host.id().to_string(), "\"libp2p\""]).await;
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// Waits for a line that begins with these words.
    async fn wait(&mut self, words: &[&str]) {
        let expected = words.join(" ");
        if let Some(at) = self.unread.iter().position(|line| line.starts_with(&expected)) {
            self.unread.remove(at);
            return;
        }
        let saying = async {
            loop {
                let line = self.lines.recv().await.expect("the Go peer has ended");
                if line.starts_with(&expected) {
                    break;
                }
                self.unread.push(line);
            }
        };
        if timeout(Duration::from_secs(60), saying).await.is_err() {
            panic!("the Go peer did not say {expected:?}, but {:?}", self.unread);
        }
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as the Go peer describes them.
fn described(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), hex(&Sha256::digest(bytes)))
}
