//! The handle by which a program uses a host.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError,
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::{
        self,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    bare_name::{BareNames, ProtocolNameError, slashed_name},
    behaviour::Behaviour,
    bitswap::{Bitswap, WantError},
    config::{Carrier, Config, carriers},
    dht::DhtError,
    dial::DialError,
    event::{Events, Outbox},
    exchange::{EXCHANGE_FRAME_BYTES_MAX, Exchange},
    frames::{Outbound, SendFrameError},
    gossip::{Judgement, PublishMessageError, Ticket},
    host::{COMMANDS_WAITING_MAX, Command, Host, Opener, Parts},
    listen::{is_in_use, listen},
    peers::{PeerInfo, PeerList},
    scope::Scope,
    streams::OpenStreamError,
    transport::transport,
};

/// The host has been shut down; nothing more can be asked of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the host has been shut down")]
pub struct Stopped;

/// Why a host could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The identity is not a usable Ed25519 secret.
    #[error("the identity is unusable")]
    Identity(#[source] libp2p::identity::DecodingError),
    /// A frame protocol has an impossible name.
    #[error(transparent)]
    ProtocolName(#[from] ProtocolNameError),
    /// The cryptographic handshake could not be set up.
    #[error("the handshake could not be set up")]
    Handshake(#[from] noise::Error),
    /// Something that the host consists of refused to start: with local discovery on, most likely multicast.
    #[error("a part of the host could not start")]
    Part(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Somebody, perhaps this host, listens on an address already. Choose another port.
    #[error("{address} is in use already")]
    AddressInUse {
        /// The address that was refused.
        address: Multiaddr,
    },
    /// An address cannot be listened on. It may be of a kind that this host does not know.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was refused.
        address: Multiaddr,
        /// Why.
        source: TransportError<io::Error>,
    },
}

/// Why a further address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody, perhaps this host, listens there already. Choose another port.
    #[error("the address is in use already")]
    InUse,
    /// It may be of a kind that this host does not know.
    #[error("cannot listen there")]
    Address(#[source] TransportError<io::Error>),
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a relay gave no place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The address cannot be used for a relay.
    #[error("cannot listen there: {0}")]
    Address(#[source] TransportError<io::Error>),
    /// The relay refused, or could not be reached. Try again later.
    #[error("the relay gave no place: {}", .0.as_ref().map_or_else(|| "it ended the reservation".to_owned(), ToString::to_string))]
    Refused(#[source] Option<io::Error>),
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why exchanges cannot be accepted or refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The protocol has a name that cannot be used here.
    #[error(transparent)]
    Name(#[from] ProtocolNameError),
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why an exchange could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenExchangeError {
    /// The protocol has a name that cannot be used here.
    #[error(transparent)]
    Name(#[from] ProtocolNameError),
    /// No stream could be opened.
    #[error(transparent)]
    Open(#[from] OpenStreamError),
}

/// A running host. Clones are cheap and speak for the same host, which stops when the last of them is
/// dropped.
///
/// The asynchronous methods wait for the host's own loop only, so they may be called while handling an event.
/// The exceptions wait for peers, whose answer may come behind events that nobody reads meanwhile:
/// [`dial`](Self::dial), [`dial_peer`](Self::dial_peer) and [`open_exchange`](Self::open_exchange) belong in
/// a task of their own.
#[derive(Clone)]
pub struct Ipfs {
    commands: mpsc::Sender<Command>,
    inner: Arc<Inner>,
}

struct Inner {
    peer_id: PeerId,
    carriers: BTreeMap<&'static str, Carrier>,
    peers: Arc<PeerList>,
    listening: Arc<Mutex<Vec<Multiaddr>>>,
    outbound: Arc<Outbound>,
    bitswap: Arc<Bitswap>,
}

impl Ipfs {
    /// Starts a host on the current Tokio runtime. Each address that it listens on is reported as
    /// [`Event::Listening`](crate::Event::Listening), one per network interface.
    pub async fn start(config: Config) -> Result<(Self, Events), StartError> {
        let carriers = carriers(&config.frame_protocols)?;
        let mut secret = config.identity.clone();
        let identity = Keypair::ed25519_from_bytes(&mut secret[..]).map_err(StartError::Identity)?;
        let peer_id = identity.public().to_peer_id();

        let (transport, relay_client) = transport(&identity, &BareNames::among(carriers.keys().copied()))?;
        let behaviour = Behaviour::new(&identity, &config, relay_client).map_err(StartError::Part)?;
        let keep = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::MAX);
        let mut swarm = Swarm::new(transport, behaviour, peer_id, keep);
        for address in config.listen.clone() {
            listen(&mut swarm, address.clone()).map_err(|source| not_heard(address, source))?;
        }

        let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (outbox, open, events) = Outbox::new();
        let opener = Opener::new(&commands);
        let runtime = Handle::current();
        let peers = Arc::<PeerList>::default();
        let listening = Arc::<Mutex<Vec<Multiaddr>>>::default();
        let outbound =
            Arc::new(Outbound::new(opener.clone(), outbox.clone(), peers.clone(), runtime.clone()));
        let bitswap = Arc::new(Bitswap::new(config.blocks, opener, outbox.clone(), runtime));
        let parts = Parts {
            commands: waiting,
            events: outbox,
            open,
            peers: peers.clone(),
            listening: listening.clone(),
            outbound: outbound.clone(),
            bitswap: bitswap.clone(),
        };
        let reach = config.dht_bootstrap.iter().map(Scope::of).max();
        tokio::spawn(Host::new(swarm, carriers.values(), reach, parts).run());
        let inner = Inner { peer_id, carriers, peers, listening, outbound, bitswap };
        Ok((Self { commands, inner: Arc::new(inner) }, events))
    }

    /// Dials an address. If it ends with a peer id, only that peer is accepted, and if that peer is connected
    /// already, nothing is dialled. Returns who is there.
    pub async fn dial(&self, address: Multiaddr) -> Result<PeerId, DialError> {
        match address.iter().last() {
            Some(Protocol::P2p(peer)) => self.dial_peer(peer, vec![address]).await,
            _ => self.dial_with(DialOpts::from(address)).await,
        }
    }

    /// Dials a peer at any of several addresses, some at the same time. Does nothing if it is connected
    /// already.
    pub async fn dial_peer(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<PeerId, DialError> {
        if peer == self.inner.peer_id {
            // Not left to the handshake: a socket that shares its port with the listener may connect to
            // itself.
            return Err(DialError::Ourselves);
        }
        let options =
            DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(addresses).build();
        self.dial_with(options).await
    }

    /// Closes every connection with a peer.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Stopped> {
        self.ask(Command::Disconnect { peer }).await
    }

    /// Listens on a further address, for example on a circuit through a relay.
    pub async fn listen(&self, address: Multiaddr) -> Result<(), ListenError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Command::Listen { address, reply }).await?;
        outcome.await.map_err(|_| Stopped)?.map_err(|error| match is_in_use(&error) {
            true => ListenError::InUse,
            false => ListenError::Address(error),
        })
    }

    /// Subscribes to a topic. All connected peers are told.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<(), Stopped> {
        self.ask(Command::Subscribe { topic: topic.into() }).await
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, topic: impl Into<String>) -> Result<(), Stopped> {
        self.ask(Command::Unsubscribe { topic: topic.into() }).await
    }

    /// Publishes a message, signed by this host, on a topic that need not be subscribed to. It is not an
    /// error if no peer is on the topic; peers that join later do not get the message.
    pub async fn publish(&self, topic: impl Into<String>, data: Bytes) -> Result<(), PublishMessageError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Command::Publish { topic: topic.into(), data, reply }).await?;
        outcome.await.map_err(|_| Stopped)?
    }

    /// Says what a message on a topic turned out to be. One that nobody judges within some seconds is not passed
    /// on.
    pub async fn judge(&self, ticket: Ticket, judgement: Judgement) -> Result<(), Stopped> {
        self.ask(Command::Judge { ticket, judgement }).await
    }

    /// Queues a frame for a connected peer and returns at once. Frames to one peer on one protocol leave in
    /// order; one that does not arrive is reported as [`Event::FrameNotSent`](crate::Event::FrameNotSent).
    pub fn send_frame(
        &self,
        protocol: &'static str,
        peer: PeerId,
        frame: Bytes,
    ) -> Result<(), SendFrameError> {
        let carrier = self.inner.carriers.get(protocol).ok_or(SendFrameError::UnknownProtocol(protocol))?;
        self.inner.outbound.send(carrier, peer, frame)
    }

    /// Sends a frame like [`Self::send_frame`] and waits until it has left whole, which says that the peer's
    /// host took it and nothing more. A failure is returned and not reported as an event.
    pub async fn deliver_frame(
        &self,
        protocol: &'static str,
        peer: PeerId,
        frame: Bytes,
    ) -> Result<(), SendFrameError> {
        let carrier = self.inner.carriers.get(protocol).ok_or(SendFrameError::UnknownProtocol(protocol))?;
        self.inner.outbound.deliver(carrier, peer, frame).await
    }

    /// Reserves a place at a relay, so that others reach this host through it. Returns once the relay has agreed;
    /// the addresses through it are among [`Self::listen_addresses`] for as long as it does.
    pub async fn reserve(&self, relay: Multiaddr) -> Result<(), ReserveError> {
        let (reply, outcome) = oneshot::channel();
        let address = relay.with(Protocol::P2pCircuit);
        self.ask(Command::Reserve { address, reply }).await?;
        outcome.await.map_err(|_| Stopped)?
    }

    /// Announces in the DHT that this host is found under `name`, for a day at the most.
    pub async fn dht_announce(&self, name: &str) -> Result<(), DhtError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Command::DhtAnnounce { name: name.to_owned(), reply }).await?;
        outcome.await.map_err(|_| Stopped)?
    }

    /// Announces a name no longer.
    pub async fn dht_withdraw(&self, name: &str) -> Result<(), Stopped> {
        self.ask(Command::DhtWithdraw { name: name.to_owned() }).await
    }

    /// Looks in the DHT for who is found under `name`, and dials them: the DHT tells where they are only while
    /// it is asked. Whether one was reached is said by [`Self::is_connected`].
    pub async fn dht_find(&self, name: &str) -> Result<BTreeSet<PeerId>, DhtError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Command::DhtFind { name: name.to_owned(), reply }).await?;
        outcome.await.map_err(|_| Stopped)?
    }

    /// Says which peers keep their connections when there are too many. Replaces what was said before.
    pub async fn protect(&self, peers: BTreeSet<PeerId>) -> Result<(), Stopped> {
        self.ask(Command::Protect { peers }).await
    }

    /// Opens an exchange whose frames may be longer than [`EXCHANGE_FRAME_BYTES_MAX`].
    pub async fn open_long_exchange(
        &self,
        protocol: &'static str,
        peer: PeerId,
        frame_bytes_max: usize,
    ) -> Result<Exchange, OpenExchangeError> {
        let protocols = vec![slashed_name(protocol)?];
        let (stream, _) = Opener::new(&self.commands).open(peer, protocols).await?;
        Ok(Exchange::new(peer, stream, frame_bytes_max, None))
    }

    /// Opens an exchange with a connected peer.
    pub async fn open_exchange(
        &self,
        protocol: &'static str,
        peer: PeerId,
    ) -> Result<Exchange, OpenExchangeError> {
        let protocols = vec![slashed_name(protocol)?];
        let (stream, _) = Opener::new(&self.commands).open(peer, protocols).await?;
        Ok(Exchange::new(peer, stream, EXCHANGE_FRAME_BYTES_MAX, None))
    }

    /// Starts accepting exchanges whose frames may be longer than [`EXCHANGE_FRAME_BYTES_MAX`].
    pub async fn accept_long_exchanges(
        &self,
        protocol: &'static str,
        frame_bytes_max: usize,
    ) -> Result<(), AcceptError> {
        let inner = slashed_name(protocol)?;
        Ok(self
            .ask(Command::AcceptExchanges { name: protocol, protocol: inner, frame_bytes_max, on: true })
            .await?)
    }

    /// Starts or stops accepting exchanges on a protocol, and tells connected peers by identify push, unless its
    /// name begins with `/dunlin/` or `/weshx/`: those are never listed.
    /// Exchanges arrive as [`Event::ExchangeOpened`](crate::Event::ExchangeOpened); open ones go on.
    pub async fn accept_exchanges(&self, protocol: &'static str, on: bool) -> Result<(), AcceptError> {
        let inner = slashed_name(protocol)?;
        let frame_bytes_max = EXCHANGE_FRAME_BYTES_MAX;
        Ok(self
            .ask(Command::AcceptExchanges { name: protocol, protocol: inner, frame_bytes_max, on })
            .await?)
    }

    /// Wants a block from the first of `peers` that is connected and has it. The outcome is
    /// [`Event::Block`](crate::Event::Block) or [`Event::BlockMissing`](crate::Event::BlockMissing).
    ///
    /// One peer is asked at a time, so that a block is not sent twice. The next is asked when one does not
    /// have the block, is gone, or falls silent. Wanting a block that is wanted already adds to the peers
    /// that can be asked.
    pub fn want(&self, cid: Cid, peers: Vec<PeerId>) -> Result<(), WantError> {
        self.inner.bitswap.want(cid, peers)
    }

    /// Stops wanting a block. An event about it may be on its way already.
    pub fn cancel(&self, cid: &Cid) {
        self.inner.bitswap.cancel(cid);
    }

    /// Tells of blocks that have just become available: peers that asked for them before get them now.
    pub fn offer(&self, cids: &[Cid]) {
        self.inner.bitswap.offer(cids);
    }

    /// Looks again for everything that a peer has asked for in vain; to be called when the peer may see more
    /// blocks than before.
    pub fn look_again(&self, peer: &PeerId) {
        self.inner.bitswap.look_again(peer);
    }

    /// Ends the host: closes all connections and waits until that is done. What is still on its way in is
    /// lost, and the events end.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        if self.ask(Command::Shutdown { done }).await.is_ok() {
            // An error means that the host has ended by another way.
            let _ = finished.await;
        }
    }

    /// The peer id of this host.
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer_id
    }

    /// The addresses that the host listens on now, without the peer id.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.inner.listening.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The peers that are connected now, in the order of their ids.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.inner.peers.snapshot()
    }

    /// Whether a peer is connected now.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.inner.peers.is_connected(peer)
    }

    async fn dial_with(&self, options: DialOpts) -> Result<PeerId, DialError> {
        let (reply, outcome) = oneshot::channel();
        self.ask(Command::Dial { options, reply }).await?;
        outcome.await.map_err(|_| Stopped)?
    }

    async fn ask(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }
}

/// Why a host could not start, given what was said of an address.
fn not_heard(address: Multiaddr, source: TransportError<io::Error>) -> StartError {
    if is_in_use(&source) {
        StartError::AddressInUse { address }
    } else {
        StartError::Listen { address, source }
    }
}

impl std::fmt::Debug for Ipfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ipfs").field("peer_id", &self.inner.peer_id).finish_non_exhaustive()
    }
}
