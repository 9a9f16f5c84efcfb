//! A host of ours and a hostile peer, in one thread, over a connection in memory.
//!
//! The codecs of libp2p are private, so bytes are fed to them as a peer does: on a stream. The host has gossipsub and the
//! client of the DHT, from the sources and with the settings of ours; what a whole host has beside them would take longer to
//! compile than all the rest.

use std::future::Future;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::transport::{MemoryTransport, Transport as _};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::kad::{self, store::MemoryStore};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, gossipsub, noise, swarm, yamux};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::dht::{self, DHT_PROVIDERS_MAX, Queries};
use crate::gossip;

/// Nothing takes that long, even with the sanitizer: a host that needs longer hangs.
const PATIENCE: Duration = Duration::from_secs(4);
/// Bytes that the hostile peer reads of what the host says on a stream.
const HEARD_BYTES_MAX: u64 = 1024 * 1024;
/// Streams that the hostile peer opens on one connection: gossipsub takes no more than four from a peer. A new connection for
/// each would take ten times as long, for its handshake.
const STREAMS_MAX: usize = 4;
/// Turns of both that it takes to hear that a connection has ended.
const TURNS_MAX: usize = 10_000;

const MESHSUB: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
const KADEMLIA: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");
/// The topic on which the host is.
const TOPIC: &str = "topic";

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Parts {
    gossip: gossip::Behaviour,
    dht: kad::Behaviour<MemoryStore>,
}

/// The two, and what drives them.
pub struct Network {
    runtime: Runtime,
    sides: Sides,
    control: libp2p_stream::Control,
    meshed: libp2p_stream::IncomingStreams,
    asked: libp2p_stream::IncomingStreams,
    hostile_key: Keypair,
    written: u64,
    /// Streams of the host's that are kept open, on the present connection.
    held: Vec<Stream>,
    opened: usize,
}

struct Sides {
    host: Swarm<Parts>,
    queries: Queries,
    hostile: Swarm<libp2p_stream::Behaviour>,
    /// Messages on the topic that reached the host.
    heard: usize,
}

impl Network {
    /// Starts both.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let key = |number| Keypair::ed25519_from_bytes([number; 32]).expect("a key");
        let (key, hostile_key) = (key(1), key(2));
        let place: Multiaddr = "/memory/7001".parse().expect("an address");
        let mut gossip = gossip::behaviour(&key, true).expect("settings that agree");
        gossip.subscribe(&gossipsub::IdentTopic::new(TOPIC)).expect("a topic");
        let [mut dht, _] = dht::behaviours(key.public().to_peer_id());
        dht.add_address(&hostile_key.public().to_peer_id(), place.clone());
        let streams = libp2p_stream::Behaviour::new();
        let mut control = streams.new_control();
        let [meshed, asked] =
            [MESHSUB, KADEMLIA].map(|protocol| control.accept(protocol).expect("one of each"));
        let (host, mut hostile) = {
            let _inside = runtime.enter();
            (swarm(&key, Parts { gossip, dht }), swarm(&hostile_key, streams))
        };
        hostile.listen_on(place).expect("a place");
        let sides = Sides { host, queries: Queries::default(), hostile, heard: 0 };
        Self { runtime, sides, control, meshed, asked, hostile_key, written: 0, held: Vec::new(), opened: 0 }
    }

    /// Lets the hostile peer say these bytes on a stream of gossipsub, and go now and then.
    pub fn gossip(&mut self, said: &[u8]) {
        self.connect();
        let (host, mut control) = (*self.sides.host.local_peer_id(), self.control.clone());
        let saying = async move {
            let Ok(mut stream) = control.open_stream(host, MESHSUB).await else { return };
            say(&mut stream, said).await;
            // It ends when the host has read what was said, or has had enough.
            let _ = stream.take(HEARD_BYTES_MAX).read_to_end(&mut Vec::new()).await;
        };
        let (meshed, held) = (&mut self.meshed, &mut self.held);
        let holding = async move {
            while let Some((_, stream)) = meshed.next().await {
                held.push(stream);
            }
        };
        let both = async move {
            tokio::select! {
                () = saying => {}
                () = holding => {}
            }
        };
        self.runtime.block_on(self.sides.until(both));
        self.opened += 1;
        if self.opened >= STREAMS_MAX {
            self.part();
        }
    }

    /// How many messages on its topic the host has heard from those who are gone.
    pub fn heard(&self) -> usize {
        self.sides.heard
    }

    /// Lets the hostile peer go, so that what it said before is not held against what it says next.
    pub fn part(&mut self) {
        self.opened = 0;
        self.held.clear();
        let hostile = *self.sides.hostile.local_peer_id();
        let _ = self.sides.host.disconnect_peer_id(hostile);
        self.wait(|sides| !sides.is_connected());
        assert_eq!(self.sides.host.behaviour().gossip.all_peers().count(), 0, "whoever is gone is forgotten");
    }

    /// A message on the topic of the host as the hostile peer signs it, in its frame.
    pub fn signed(&mut self, data: &[u8]) -> Vec<u8> {
        self.written += 1;
        let author = self.sides.hostile.local_peer_id().to_bytes();
        let mut message = Vec::new();
        let fields = [author.as_slice(), data, &self.written.to_be_bytes(), TOPIC.as_bytes()];
        for (number, bytes) in (1..).zip(fields) {
            put_field(&mut message, number, bytes);
        }
        let signature = self.hostile_key.sign(&[b"libp2p-pubsub:", message.as_slice()].concat());
        put_field(&mut message, 5, &signature.expect("a key that signs"));
        let mut rpc = Vec::new();
        put_field(&mut rpc, 2, &message);
        frame(&rpc)
    }

    /// Lets the host ask the DHT who is found under a name, or tell that it is, while the hostile peer answers each
    /// question with these bytes. Gives how many it found.
    pub fn answer(&mut self, announce: bool, said: &[u8]) -> usize {
        self.connect();
        let dhts = [Some(&mut self.sides.host.behaviour_mut().dht), None];
        let (announced, is_announced) = oneshot::channel();
        let (found, is_found) = oneshot::channel();
        if announce {
            self.sides.queries.announce(dhts, "name", announced);
        } else {
            self.sides.queries.find(dhts, "name", found);
        }
        let mut count = 0;
        let asking = async {
            if announce {
                let _ = is_announced.await;
            } else if let Ok(Ok(found)) = is_found.await {
                count = found.len();
            }
        };
        let asked = &mut self.asked;
        let answering = async move {
            while let Some((_, mut stream)) = asked.next().await {
                let _ = stream.read(&mut [0; 256]).await;
                say(&mut stream, said).await;
            }
        };
        let both = async move {
            tokio::select! {
                () = asking => {}
                () = answering => {}
            }
        };
        self.runtime.block_on(self.sides.until(both));
        Queries::withdraw([Some(&mut self.sides.host.behaviour_mut().dht), None], "name");
        let peers: usize =
            self.sides.host.behaviour_mut().dht.kbuckets().map(|bucket| bucket.num_entries()).sum();
        assert!(peers <= 1, "nobody is remembered who was only named");
        assert!(count <= DHT_PROVIDERS_MAX);
        count
    }

    fn connect(&mut self) {
        if self.sides.is_connected() {
            return;
        }
        let hostile = *self.sides.hostile.local_peer_id();
        let place = "/memory/7001".parse().expect("an address");
        let options = DialOpts::peer_id(hostile).addresses(vec![place]).build();
        let inside = self.runtime.enter();
        match self.sides.host.dial(options) {
            // The client of the DHT may be at it already: it knows the place.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => panic!("the place cannot be dialled: {error}"),
        }
        drop(inside);
        let host = *self.sides.host.local_peer_id();
        self.wait(|sides| sides.is_connected() && sides.hostile.is_connected(&host));
    }

    /// Lets both take turns until it is so.
    fn wait(&mut self, is_so: impl Fn(&Sides) -> bool) {
        for _ in 0..TURNS_MAX {
            if is_so(&self.sides) {
                return;
            }
            self.runtime.block_on(self.sides.until(tokio::task::yield_now()));
        }
        panic!("the host hears of no connection, or of no end of one");
    }
}

impl Sides {
    fn is_connected(&self) -> bool {
        self.host.is_connected(self.hostile.local_peer_id())
    }

    /// Lets both go on until `work` is done.
    async fn until(&mut self, work: impl Future<Output = ()>) {
        let mut work = std::pin::pin!(work);
        let done = async {
            loop {
                tokio::select! {
                    () = &mut work => return,
                    event = self.host.select_next_some() => self.take(event),
                    _ = self.hostile.select_next_some() => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, done).await.expect("the host does not come to an end");
    }

    /// What a host does with what its parts report.
    fn take(&mut self, event: SwarmEvent<PartsEvent>) {
        match event {
            SwarmEvent::Behaviour(PartsEvent::Gossip(gossipsub::Event::Message { message, .. })) => {
                assert!(message.source.is_some() && message.topic.as_str() == TOPIC);
                self.heard += 1;
            }
            SwarmEvent::Behaviour(PartsEvent::Dht(event)) => {
                for peer in self.queries.on_event(0, event) {
                    // Most cannot be reached.
                    let _ = self.host.dial(DialOpts::from(peer));
                }
            }
            _ => {}
        }
    }
}

fn swarm<B: NetworkBehaviour>(key: &Keypair, behaviour: B) -> Swarm<B> {
    let transport = MemoryTransport::default()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).expect("a key"))
        .multiplex(yamux::Config::default())
        .boxed();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(3600));
    Swarm::new(transport, behaviour, PeerId::from(key.public()), config)
}

/// The other side may have had enough before all is said.
async fn say(stream: &mut Stream, said: &[u8]) {
    let _ = stream.write_all(said).await;
    let _ = stream.close().await;
}

/// A length as libp2p writes it, and the bytes.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    dunlin_base::frame::write_frame(&mut framed, bytes);
    framed
}

fn put_field(message: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, message);
    message.extend(frame(bytes));
}
