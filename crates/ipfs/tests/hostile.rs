//! Peers that lie, flood or fall silent, beside one that behaves.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::ops::ControlFlow::{Break, Continue};

use bytes::Bytes;
use common::{CONTACT, DIRECT, Host, RECORDS, TCP, cid_of};
use dunlin_ipfs::{Event, INBOUND_STREAMS_MAX, Multiaddr, PeerId, ReadFrameError};
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::{Stream, StreamProtocol, Swarm, SwarmBuilder, noise, swarm::SwarmEvent, tcp, yamux};

const BITSWAP: &str = "/ipfs/bitswap/1.2.0";

#[tokio::test]
async fn lengths_that_lie_cost_only_their_stream() {
    let mut host = Host::start(TCP).await;
    let mut hostile = Hostile::dial(host.address.clone()).await;

    for protocol in [DIRECT.name, BITSWAP] {
        for bytes in [
            // 4 GiB are announced.
            &[0x80, 0x80, 0x80, 0x80, 0x10, 1, 2, 3][..],
            // One byte more than is allowed.
            &[0x81, 0x80, 0x80, 0x02],
            &[0xff; 32],
            &[0x80, 0x00],
        ] {
            let mut stream = hostile.open(protocol).await;
            stream.write_all(bytes).await.unwrap();
            stream.flush().await.unwrap();
            ended(&mut stream).await;
        }
    }

    still_works(&mut host, &hostile).await;
}

#[tokio::test]
async fn garbage_costs_only_its_stream() {
    let mut host = Host::start(TCP).await;
    let mut hostile = Hostile::dial(host.address.clone()).await;
    let wanted = cid_of(b"wanted");

    for garbage in [&b"\x05hello"[..], b"\x04\x0a\xff\xff\x7f", b"\x01\x0a"] {
        let mut stream = hostile.open(BITSWAP).await;
        stream.write_all(garbage).await.unwrap();
        stream.flush().await.unwrap();
        ended(&mut stream).await;
    }
    // A block that nobody wants, and one that is not what it claims to be, are dropped without ending the
    // stream.
    let mut stream = hostile.open(BITSWAP).await;
    let unwanted = b"\x0d\x1a\x0b\x0a\x04\x01\x71\x12\x20\x12\x03abc";
    stream.write_all(unwanted).await.unwrap();
    stream.flush().await.unwrap();

    still_works(&mut host, &hostile).await;
    host.ipfs.want(wanted, vec![]).unwrap();
    assert_eq!(host.missing().await, wanted);
}

#[tokio::test]
async fn a_peer_that_opens_streams_in_silence_stops_nobody_else() {
    let mut host = Host::start(TCP).await;
    let mut hostile = Hostile::dial(host.address.clone()).await;

    let mut silent = Vec::new();
    for _ in 0..INBOUND_STREAMS_MAX {
        silent.push(hostile.open(DIRECT.name).await);
    }
    // One more is refused.
    ended(&mut hostile.open(DIRECT.name).await).await;
    // Other protocols have their own places.
    let mut stream = hostile.open("/wesh/p2p/localrecord").await;
    stream.write_all(b"\x02hi").await.unwrap();
    stream.close().await.unwrap();

    assert_eq!(host.frame().await, (RECORDS.name, hostile.id, Bytes::from("hi")));
    still_works(&mut host, &hostile).await;
    drop(silent);
}

#[tokio::test]
async fn half_a_frame_holds_up_nobody_else() {
    let mut host = Host::start(TCP).await;
    let mut hostile = Hostile::dial(host.address.clone()).await;

    let mut halves = Vec::new();
    for _ in 0..8 {
        let mut stream = hostile.open(DIRECT.name).await;
        // 4 MiB are announced and do not come.
        stream.write_all(b"\x80\x80\x80\x02half").await.unwrap();
        stream.flush().await.unwrap();
        halves.push(stream);
    }

    still_works(&mut host, &hostile).await;
}

#[tokio::test]
async fn frames_of_an_exchange_have_a_limit() {
    let mut host = Host::start(TCP).await;
    host.ipfs.accept_exchanges(CONTACT, true).await.unwrap();
    let mut hostile = Hostile::dial(host.address.clone()).await;
    let mut stream = hostile.open(CONTACT).await;
    stream.write_all(&[0x81, 0x10]).await.unwrap();
    stream.flush().await.unwrap();

    let mut exchange = host
        .wait("an exchange", |event| match event {
            Event::ExchangeOpened { exchange, .. } => Break(exchange),
            other => Continue(other),
        })
        .await;

    let refused = exchange.read_frame().await;
    assert!(
        matches!(refused, Err(ReadFrameError::TooLong { announced: 2049, allowed: 2048 })),
        "{refused:?}"
    );
}

/// The hostile peer is still connected, and another peer gets everything that it asks for.
async fn still_works(host: &mut Host, hostile: &Hostile) {
    let mut friend = Host::start(TCP).await;
    friend.connect(host).await;
    let cid = host.blocks.put("block");

    friend.ipfs.want(cid, vec![host.id()]).unwrap();
    friend.ipfs.send_frame(DIRECT.name, host.id(), Bytes::from("frame")).unwrap();

    assert_eq!(friend.block().await.0, cid);
    assert_eq!(host.frame().await, (DIRECT.name, friend.id(), Bytes::from("frame")));
    assert!(host.ipfs.is_connected(&hostile.id));
}

/// Waits until the other side lets go of the stream.
async fn ended(stream: &mut Stream) {
    let mut rest = Vec::new();
    // Closed or reset, both will do.
    let _ = stream.read_to_end(&mut rest).await;
    assert_eq!(rest, []);
}

/// A peer that writes whatever it likes.
struct Hostile {
    id: PeerId,
    target: PeerId,
    control: libp2p_stream::Control,
}

impl Hostile {
    async fn dial(address: Multiaddr) -> Self {
        let mut swarm = SwarmBuilder::with_new_identity()
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(std::time::Duration::MAX))
            .build();
        let (id, control) = (*swarm.local_peer_id(), swarm.behaviour().new_control());
        swarm.dial(address).unwrap();
        let target = Self::connected(&mut swarm).await;
        tokio::spawn(async move { while swarm.next().await.is_some() {} });
        Self { id, target, control }
    }

    async fn connected(swarm: &mut Swarm<libp2p_stream::Behaviour>) -> PeerId {
        loop {
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
                return peer_id;
            }
        }
    }

    async fn open(&mut self, protocol: &'static str) -> Stream {
        self.control.open_stream(self.target, StreamProtocol::new(protocol)).await.unwrap()
    }
}
