//! A host under test, and waiting for what it reports.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail by panicking")]
#![allow(dead_code, reason = "each test program uses a part of this")]

use std::{
    collections::HashMap,
    ops::ControlFlow::{self, Break, Continue},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cid::multihash::Multihash;
use dunlin_ipfs::{
    BlockSource, Cid, Config, Event, Events, FrameProtocol, Ipfs, Multiaddr, PeerId, multiaddr::Protocol,
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use zeroize::Zeroizing;

pub const TCP: &str = "/ip4/127.0.0.1/tcp/0";
pub const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub const TCP_6: &str = "/ip6/::1/tcp/0";
pub const QUIC_6: &str = "/ip6/::1/udp/0/quic-v1";

pub const DIRECT: FrameProtocol =
    FrameProtocol { name: "/go-orbit-db/direct-channel/1.2.0", frame_bytes_max: 4 * 1024 * 1024 };
pub const RECORDS: FrameProtocol = FrameProtocol { name: "wesh/p2p/localrecord", frame_bytes_max: 2048 };
pub const CONTACT: &str = "/wesh/contact_req/1.0.0";

/// Far longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host on loopback with the events it has reported and nobody has waited for.
pub struct Host {
    pub ipfs: Ipfs,
    pub address: Multiaddr,
    pub blocks: Arc<Blocks>,
    events: Events,
    unread: Vec<Event>,
}

impl Host {
    pub async fn start(listen: &str) -> Self {
        Self::start_with(listen, |_| {}).await
    }

    pub async fn start_with(listen: &str, change: impl FnOnce(&mut Config)) -> Self {
        static HOSTS: AtomicU8 = AtomicU8::new(1);
        let secret = [HOSTS.fetch_add(1, Ordering::Relaxed); 32];
        let blocks = Arc::<Blocks>::default();
        let mut config = Config::new(Zeroizing::new(secret), blocks.clone());
        config.listen = vec![listen.parse().unwrap()];
        config.frame_protocols = vec![DIRECT, RECORDS];
        change(&mut config);
        let (ipfs, events) = Ipfs::start(config).await.unwrap();
        let mut host = Self { ipfs, address: Multiaddr::empty(), blocks, events, unread: Vec::new() };
        host.address = host
            .wait("an address", |event| match event {
                Event::Listening { address } => Break(address),
                other => Continue(other),
            })
            .await
            .with(Protocol::P2p(host.id()));
        host
    }

    /// A pair of connected hosts.
    pub async fn pair(listen: &str) -> (Self, Self) {
        let mut a = Self::start(listen).await;
        let mut b = Self::start(listen).await;
        a.connect(&mut b).await;
        (a, b)
    }

    pub fn id(&self) -> PeerId {
        self.ipfs.peer_id()
    }

    pub async fn connect(&mut self, other: &mut Self) {
        assert_eq!(self.ipfs.dial(other.address.clone()).await.unwrap(), other.id());
        self.connected(other.id()).await;
        other.connected(self.id()).await;
    }

    pub async fn connected(&mut self, who: PeerId) {
        self.wait("a connection", |event| match event {
            Event::PeerConnected { peer, .. } if peer == who => Break(()),
            other => Continue(other),
        })
        .await;
    }

    pub async fn disconnected(&mut self, who: PeerId) {
        self.wait("a disconnection", |event| match event {
            Event::PeerDisconnected { peer } if peer == who => Break(()),
            other => Continue(other),
        })
        .await;
    }

    pub async fn frame(&mut self) -> (&'static str, PeerId, Bytes) {
        self.wait("a frame", |event| match event {
            Event::Frame { protocol, peer, bytes } => Break((protocol, peer, bytes)),
            other => Continue(other),
        })
        .await
    }

    pub async fn block(&mut self) -> (Cid, Bytes, PeerId) {
        self.wait("a block", |event| match event {
            Event::Block { cid, bytes, peer } => Break((cid, bytes, peer)),
            Event::BlockMissing { cid } => panic!("{cid} is missing"),
            other => Continue(other),
        })
        .await
    }

    pub async fn missing(&mut self) -> Cid {
        self.wait("a missing block", |event| match event {
            Event::BlockMissing { cid } => Break(cid),
            other => Continue(other),
        })
        .await
    }

    pub async fn message(&mut self) -> (String, PeerId, Bytes) {
        self.wait("a message", |event| match event {
            Event::Message { topic, author, data, .. } => Break((topic, author, data)),
            other => Continue(other),
        })
        .await
    }

    pub async fn joined(&mut self, who: PeerId, what: &str) {
        self.wait("a peer on the topic", |event| match event {
            Event::TopicJoined { peer, topic } if peer == who && topic == what => Break(()),
            other => Continue(other),
        })
        .await;
    }

    /// Waits until there are no more events.
    pub async fn ended(&mut self) {
        let ending = async { while self.events.next().await.is_some() {} };
        timeout(PATIENCE, ending).await.expect("the events go on");
    }

    /// Waits until `pick` takes an event; the others are kept for later calls.
    pub async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> ControlFlow<T, Event>) -> T {
        let mut unread = std::mem::take(&mut self.unread).into_iter();
        while let Some(event) = unread.next() {
            match pick(event) {
                Break(picked) => {
                    self.unread.extend(unread);
                    return picked;
                }
                Continue(event) => self.unread.push(event),
            }
        }
        let picking = async {
            loop {
                match pick(self.events.next().await.expect("the host has stopped")) {
                    Break(picked) => return picked,
                    Continue(event) => self.unread.push(event),
                }
            }
        };
        let picked = timeout(PATIENCE, picking).await;
        picked.unwrap_or_else(|_| panic!("no {what} in time, but {:?}", self.unread))
    }
}

/// Whether this machine has IPv6, which some containers lack.
pub fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::1]:0").is_ok()
}

/// Blocks that every peer may have.
#[derive(Default)]
pub struct Blocks(Mutex<HashMap<Cid, Bytes>>);

impl Blocks {
    pub fn put(&self, bytes: impl Into<Bytes>) -> Cid {
        let bytes = bytes.into();
        let cid = cid_of(&bytes);
        self.0.lock().unwrap().insert(cid, bytes);
        cid
    }
}

impl BlockSource for Blocks {
    fn block(&self, _: &PeerId, cid: &Cid) -> Option<Bytes> {
        self.0.lock().unwrap().get(cid).cloned()
    }
}

/// The name of a block as dag-cbor.
pub fn cid_of(bytes: &[u8]) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x12, &Sha256::digest(bytes)).unwrap())
}
