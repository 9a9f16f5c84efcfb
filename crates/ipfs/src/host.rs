//! The loop that owns the swarm: commands in, events out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, TransportError,
    core::{ConnectedPoint, transport::ListenerId},
    gossipsub::{self, IdentTopic},
    identify, mdns,
    multiaddr::Protocol,
    ping,
    swarm::{
        self, ConnectionId, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    behaviour::{Behaviour, BehaviourEvent},
    bitswap::{Bitswap, Version},
    config::Carrier,
    dht::{DhtError, Queries},
    dial::DialError,
    event::{Event, Open, Outbox},
    exchange::Exchange,
    frames::{Lanes, Outbound, receive_one},
    gossip::{self, Judgement, PublishMessageError, Ticket},
    ipfs::ReserveError,
    listen::listen,
    peers::{ConnectionInfo, PeerList},
    scope::Scope,
    streams::{Inbound, OpenReply, OpenStreamError},
    trim::{TRIM_EVERY, crowd, spares},
};

/// Commands that may wait for the host loop. It never waits for the consumer of events before it takes the
/// next one.
pub(crate) const COMMANDS_WAITING_MAX: usize = 256;

/// Events of the swarm that are kept while the consumer is busy. Beyond that the swarm is not polled.
const PENDING_EVENTS_MAX: usize = 64;

/// Pings in a row without an answer before a connection counts as dead and is closed.
const PINGS_MISSED_MAX: u32 = 2;

/// Time that peers get to hear that we leave.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// What a handle asks of the loop. A reply that nobody waits for is dropped.
pub(crate) enum Command {
    Dial { options: DialOpts, reply: oneshot::Sender<Result<PeerId, DialError>> },
    Listen { address: Multiaddr, reply: oneshot::Sender<Result<(), TransportError<std::io::Error>>> },
    Disconnect { peer: PeerId },
    Subscribe { topic: String },
    Unsubscribe { topic: String },
    Publish { topic: String, data: Bytes, reply: oneshot::Sender<Result<(), PublishMessageError>> },
    Judge { ticket: Ticket, judgement: Judgement },
    Open { peer: PeerId, protocols: Vec<StreamProtocol>, reply: OpenReply },
    AcceptExchanges { name: &'static str, protocol: StreamProtocol, frame_bytes_max: usize, on: bool },
    Reserve { address: Multiaddr, reply: oneshot::Sender<Result<(), ReserveError>> },
    DhtAnnounce { name: String, reply: oneshot::Sender<Result<(), DhtError>> },
    DhtWithdraw { name: String },
    DhtFind { name: String, reply: oneshot::Sender<Result<BTreeSet<PeerId>, DhtError>> },
    Protect { peers: BTreeSet<PeerId> },
    Shutdown { done: oneshot::Sender<()> },
}

/// Opens streams on behalf of tasks, which do not keep the host alive.
#[derive(Clone)]
pub(crate) struct Opener(mpsc::WeakSender<Command>);

impl Opener {
    pub(crate) fn new(commands: &mpsc::Sender<Command>) -> Self {
        Self(commands.downgrade())
    }

    /// Opens a stream for the first of `protocols` that the peer speaks.
    pub(crate) async fn open(
        &self,
        peer: PeerId,
        protocols: Vec<StreamProtocol>,
    ) -> Result<(Stream, StreamProtocol), OpenStreamError> {
        let commands = self.0.upgrade().ok_or(crate::Stopped)?;
        let (reply, outcome) = oneshot::channel();
        commands.send(Command::Open { peer, protocols, reply }).await.map_err(|_| crate::Stopped)?;
        drop(commands);
        // A dropped reply means that the connection ended before the peer answered.
        outcome.await.map_err(|_| OpenStreamError::Broken(None))?
    }
}

/// What becomes of the streams that peers open.
#[derive(Clone)]
enum Use {
    Frames(Carrier),
    Exchange(&'static str, usize),
    Bitswap(Version),
}

impl Use {
    /// The name under which streams of this use are counted.
    fn name(&self) -> &'static str {
        match self {
            Self::Frames(carrier) => carrier.name,
            Self::Exchange(name, _) => name,
            Self::Bitswap(version) => version.name(),
        }
    }
}

/// What the loop shares with handles and tasks.
pub(crate) struct Parts {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: Outbox,
    /// Events end when the host does.
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) open: Open,
    pub(crate) peers: Arc<PeerList>,
    pub(crate) listening: Arc<Mutex<Vec<Multiaddr>>>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) bitswap: Arc<Bitswap>,
}

/// The state of the loop.
pub(crate) struct Host {
    swarm: Swarm<Behaviour>,
    parts: Parts,
    uses: HashMap<StreamProtocol, Use>,
    lanes: Lanes,
    dials: HashMap<ConnectionId, oneshot::Sender<Result<PeerId, DialError>>>,
    pings_missed: BTreeMap<ConnectionId, u32>,
    /// Relays that were asked for a place and have not answered.
    reserving: HashMap<ListenerId, oneshot::Sender<Result<(), ReserveError>>>,
    queries: Queries,
    /// The widest scope among the bootstrap peers of the DHT; `None` while it is off.
    dht_reach: Option<Scope>,
    protected: BTreeSet<PeerId>,
    /// Waiting for room in the event queue, oldest first.
    pending: VecDeque<Event>,
    /// The event that is being handed over.
    leaving: Option<Event>,
    /// Reads what peers send. A panic in one of them ends that task alone.
    readers: JoinSet<()>,
}

impl Host {
    /// Takes a swarm that listens already, and starts accepting streams.
    pub(crate) fn new<'a>(
        mut swarm: Swarm<Behaviour>,
        carriers: impl Iterator<Item = &'a Carrier>,
        dht_reach: Option<Scope>,
        parts: Parts,
    ) -> Self {
        let frames = carriers.map(|carrier| (carrier.protocol.clone(), Use::Frames(carrier.clone())));
        let bitswap = Version::NEWEST_FIRST.map(|version| (version.protocol(), Use::Bitswap(version)));
        let uses: HashMap<_, _> = frames.chain(bitswap).collect();
        for protocol in uses.keys() {
            swarm.behaviour_mut().streams.accept(protocol.clone(), true);
        }
        Self {
            swarm,
            parts,
            uses,
            lanes: Lanes::default(),
            dials: HashMap::new(),
            pings_missed: BTreeMap::new(),
            reserving: HashMap::new(),
            queries: Queries::default(),
            dht_reach,
            protected: BTreeSet::new(),
            pending: VecDeque::new(),
            leaving: None,
            readers: JoinSet::new(),
        }
    }

    /// Runs until the last handle is dropped or one asks for the end.
    pub(crate) async fn run(mut self) {
        let sweeping = tokio::spawn(self.parts.bitswap.clone().sweep());
        let done = self.serve().await;
        sweeping.abort();
        self.farewell().await;
        drop(self);
        if let Some(done) = done {
            // The caller may have stopped waiting.
            let _ = done.send(());
        }
    }

    async fn serve(&mut self) -> Option<oneshot::Sender<()>> {
        let mut trimming = tokio::time::interval(TRIM_EVERY);
        trimming.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.leaving.is_none() {
                self.leaving = self.pending.pop_front();
            }
            // Commands come first and always, so that a consumer that waits for a command never waits for
            // itself.
            tokio::select! {
                biased;
                command = self.parts.commands.recv() => match command {
                    None => return None,
                    Some(Command::Shutdown { done }) => return Some(done),
                    Some(command) => self.obey(command),
                },
                () = self.parts.events.send_from(&mut self.leaving), if self.leaving.is_some() => {}
                Some(ended) = self.readers.join_next() => {
                    if let Err(error) = ended && error.is_panic() {
                        tracing::error!(%error, "a task that reads from a peer has panicked");
                    }
                }
                _ = trimming.tick() => self.trim(),
                event = self.swarm.select_next_some(), if self.pending.len() < PENDING_EVENTS_MAX => {
                    self.on_swarm_event(event);
                }
            }
        }
    }

    /// Closes the connections and gives peers a moment to hear of it.
    async fn farewell(&mut self) {
        self.readers.abort_all();
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            self.parts.bitswap.disconnected(peer);
            self.parts.outbound.forget(peer);
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let emptied = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        // A peer that takes longer finds out by itself.
        let _ = timeout(FAREWELL_MAX, emptied).await;
    }

    fn obey(&mut self, command: Command) {
        // A reply fails to be sent when its caller has stopped waiting; nothing depends on it.
        match command {
            Command::Dial { options, reply } => self.dial(options, reply),
            Command::Listen { address, reply } => {
                let _ = reply.send(listen(&mut self.swarm, address));
            }
            Command::Disconnect { peer } => {
                // The error says that the peer is not connected, which is what was asked for.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::Subscribe { topic } => {
                let subscribed = self.swarm.behaviour_mut().gossip.subscribe(&IdentTopic::new(topic));
                if let Err(error) = subscribed {
                    tracing::warn!(%error, "could not tell all peers of a subscription");
                }
            }
            Command::Unsubscribe { topic } => {
                self.swarm.behaviour_mut().gossip.unsubscribe(&IdentTopic::new(topic));
            }
            Command::Publish { topic, data, reply } => {
                let _ = reply.send(gossip::publish(&mut self.swarm.behaviour_mut().gossip, topic, data));
            }
            Command::Judge { ticket, judgement } => {
                self.swarm.behaviour_mut().gossip.judge(&ticket, judgement);
            }
            Command::Open { peer, protocols, reply } => {
                self.swarm.behaviour_mut().streams.open(peer, protocols, reply);
            }
            Command::Reserve { address, reply } => self.reserve(address, reply),
            Command::DhtAnnounce { name, reply } => {
                let behaviour = self.swarm.behaviour_mut();
                let dhts = [behaviour.dht.as_mut(), behaviour.dht_lan.as_mut()];
                self.queries.announce(dhts, &name, reply);
            }
            Command::DhtWithdraw { name } => {
                let behaviour = self.swarm.behaviour_mut();
                Queries::withdraw([behaviour.dht.as_mut(), behaviour.dht_lan.as_mut()], &name);
            }
            Command::DhtFind { name, reply } => {
                let behaviour = self.swarm.behaviour_mut();
                let dhts = [behaviour.dht.as_mut(), behaviour.dht_lan.as_mut()];
                self.queries.find(dhts, &name, reply);
            }
            Command::Protect { peers } => self.protected = peers,
            Command::AcceptExchanges { name, protocol, frame_bytes_max, on } => {
                if on {
                    self.uses.insert(protocol.clone(), Use::Exchange(name, frame_bytes_max));
                } else {
                    self.uses.remove(&protocol);
                }
                self.swarm.behaviour_mut().streams.accept(protocol, on);
            }
            // Taken by the loop.
            Command::Shutdown { .. } => {}
        }
    }

    fn dial(&mut self, options: DialOpts, reply: oneshot::Sender<Result<PeerId, DialError>>) {
        let connection = options.connection_id();
        let peer = options.get_peer_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, reply);
            }
            Err(swarm::DialError::DialPeerConditionFalse(_)) => {
                // The condition is that there is no connection yet.
                let _ = reply.send(peer.ok_or(DialError::Aborted));
            }
            Err(error) => {
                let _ = reply.send(Err(error.into()));
            }
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id: peer, connection_id, endpoint, .. } => {
                let address = far_end(&endpoint, peer);
                let inbound = endpoint.is_listener();
                let info = ConnectionInfo { address: address.clone(), inbound, since: SystemTime::now() };
                if self.parts.peers.connected(peer, connection_id, info) {
                    self.swarm.behaviour_mut().gossip.remember(&peer);
                    self.parts.bitswap.connected(peer);
                    self.pending.push_back(Event::PeerConnected { peer, address, inbound });
                }
                // Last, so that whoever dialled finds the peer connected.
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Ok(peer));
                }
            }
            SwarmEvent::ConnectionClosed { peer_id: peer, connection_id, .. } => {
                self.pings_missed.remove(&connection_id);
                if self.parts.peers.disconnected(peer, connection_id) {
                    self.parts.outbound.forget(peer);
                    self.parts.bitswap.disconnected(peer);
                    self.lanes.forget(peer);
                    self.pending.push_back(Event::PeerDisconnected { peer });
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(reply) = self.dials.remove(&connection_id) {
                    let _ = reply.send(Err(error.into()));
                }
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                if let Some(reply) = self.reserving.remove(&listener_id) {
                    // The caller may have stopped waiting, here and below.
                    let _ = reply.send(Ok(()));
                }
                self.announce_reach(&address);
                self.listening().push(address.clone());
                self.pending.push_back(Event::Listening { address });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.listens_no_more(address),
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                match (self.reserving.remove(&listener_id), reason) {
                    (Some(reply), reason) => drop(reply.send(Err(ReserveError::Refused(reason.err())))),
                    (None, Err(error)) => tracing::warn!(%error, "a listener has failed"),
                    (None, Ok(())) => {}
                }
                for address in addresses {
                    self.listens_no_more(address);
                }
            }
            _ => {}
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Streams(inbound) => self.on_inbound_stream(inbound),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Ping(ping::Event { peer, connection, result }) => {
                self.on_ping(peer, connection, result)
            }
            BehaviourEvent::Identify(identify::Event::Received { peer_id: peer, info, .. }) => {
                let protocols: Vec<_> = info.protocols.iter().map(ToString::to_string).collect();
                self.parts.peers.identified(peer, info.agent_version, protocols.clone());
                let listen_addresses = info.listen_addrs;
                self.pending.push_back(Event::PeerIdentified { peer, protocols, listen_addresses });
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                self.pending
                    .extend(found.into_iter().map(|(peer, address)| Event::LanPeer { peer, address }));
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(gone)) => {
                self.pending
                    .extend(gone.into_iter().map(|(peer, address)| Event::LanPeerGone { peer, address }));
            }
            BehaviourEvent::Dht(event) => self.on_dht(0, event),
            BehaviourEvent::DhtLan(event) => self.on_dht(1, event),
            BehaviourEvent::Identify(_) | BehaviourEvent::RelayClient(_) | BehaviourEvent::Dcutr(_) => {}
            BehaviourEvent::Limits(never) => match never {},
        }
    }

    /// Dials whom the DHT has found, while it knows where they are.
    fn on_dht(&mut self, network: usize, event: libp2p::kad::Event) {
        for peer in self.queries.on_event(network, event) {
            let options = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%error, "a peer of the DHT is not dialled");
            }
        }
    }

    /// Lets the DHT tell an address, if it reaches as far as the DHT does. A private one is told only where
    /// every bootstrap peer is private too.
    fn announce_reach(&mut self, address: &Multiaddr) {
        if self.dht_reach.is_some_and(|reach| Scope::of(address) >= reach) {
            self.swarm.add_external_address(address.clone());
        }
    }

    fn reserve(&mut self, address: Multiaddr, reply: oneshot::Sender<Result<(), ReserveError>>) {
        match self.swarm.listen_on(address) {
            Ok(listener) => {
                self.reserving.insert(listener, reply);
            }
            Err(error) => drop(reply.send(Err(ReserveError::Address(error)))),
        }
    }

    /// Closes the connections that are too many.
    fn trim(&mut self) {
        self.swarm.behaviour_mut().gossip.forgive();
        let (peers, now) = (self.parts.peers.connections(), SystemTime::now());
        for connection in spares(&peers, now) {
            self.swarm.close_connection(connection);
        }
        for peer in crowd(&peers, &self.protected, now) {
            // The error says that it is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        self.pending.push_back(match event {
            gossipsub::Event::Message { propagation_source: from, message_id, message } => {
                // Strict validation lets no message without an author pass.
                let Some(author) = message.source else { return };
                let (topic, data) = (message.topic.into_string(), message.data.into());
                Event::Message { topic, from, author, data, ticket: Ticket::new(message_id, from) }
            }
            gossipsub::Event::Subscribed { peer_id: peer, topic } => {
                Event::TopicJoined { peer, topic: topic.into_string() }
            }
            gossipsub::Event::Unsubscribed { peer_id: peer, topic } => {
                Event::TopicLeft { peer, topic: topic.into_string() }
            }
            gossipsub::Event::GossipsubNotSupported { .. } | gossipsub::Event::SlowPeer { .. } => return,
        });
    }

    fn on_ping(&mut self, peer: PeerId, connection: ConnectionId, result: Result<Duration, ping::Failure>) {
        match result {
            Ok(latency) => {
                self.pings_missed.remove(&connection);
                self.parts.peers.pinged(peer, latency);
            }
            // The peer answers, if only to say that it does not know pings.
            Err(ping::Failure::Unsupported) => {}
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => {
                let missed = self.pings_missed.entry(connection).or_default();
                *missed += 1;
                if *missed >= PINGS_MISSED_MAX {
                    self.swarm.close_connection(connection);
                }
            }
        }
    }

    fn on_inbound_stream(&mut self, Inbound { peer, protocol, stream }: Inbound) {
        // A stream may have been under way when its protocol was switched off.
        let Some(purpose) = self.uses.get(&protocol) else { return };
        let lane = self.lanes.lane(peer, purpose.name());
        let Some(place) = lane.enter() else {
            tracing::debug!(%peer, %protocol, "the peer has too many streams open");
            return;
        };
        let events = self.parts.events.clone();
        match purpose {
            Use::Frames(carrier) => {
                let reading = receive_one(carrier.name, carrier.frame_bytes_max, peer, stream, lane, events);
                self.readers.spawn(async move {
                    reading.await;
                    drop(place);
                });
            }
            Use::Bitswap(version) => {
                let reading = self.parts.bitswap.clone().receive(peer, *version, stream, lane);
                self.readers.spawn(async move {
                    reading.await;
                    drop(place);
                });
            }
            Use::Exchange(name, frame_bytes_max) => {
                let exchange = Exchange::new(peer, stream, *frame_bytes_max, Some(place));
                self.pending.push_back(Event::ExchangeOpened { protocol: name, peer, exchange });
            }
        }
    }

    fn listening(&self) -> MutexGuard<'_, Vec<Multiaddr>> {
        self.parts.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listens_no_more(&mut self, address: Multiaddr) {
        let known = self.listening().len();
        self.listening().retain(|other| *other != address);
        if self.listening().len() < known {
            self.pending.push_back(Event::ListenerClosed { address });
        }
    }
}

/// The address at the other end of a connection. Of a peer that came through a relay, libp2p tells no more than the
/// id; the relay is in the address that it came to.
fn far_end(endpoint: &ConnectedPoint, peer: PeerId) -> Multiaddr {
    match endpoint {
        ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => {
            let circuit = local_addr.iter().take_while(|part| *part != Protocol::P2pCircuit);
            circuit.chain([Protocol::P2pCircuit, Protocol::P2p(peer)]).collect()
        }
        _ => endpoint.get_remote_address().clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_through_a_relay_is_at_the_relay() {
        let [own, relay, peer] = [PeerId::random(), PeerId::random(), PeerId::random()];
        let place = format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit");
        let there: Multiaddr = format!("{place}/p2p/{peer}").parse().unwrap();
        let send_back_addr: Multiaddr = format!("/p2p/{peer}").parse().unwrap();
        for local in [place.clone(), format!("{place}/p2p/{own}")] {
            let (local_addr, send_back_addr) = (local.parse().unwrap(), send_back_addr.clone());
            assert_eq!(far_end(&ConnectedPoint::Listener { local_addr, send_back_addr }, peer), there);
        }

        let direct: Multiaddr = "/ip4/192.0.2.2/tcp/2".parse().unwrap();
        let local_addr = "/ip4/192.0.2.3/tcp/3".parse().unwrap();
        let endpoint = ConnectedPoint::Listener { local_addr, send_back_addr: direct.clone() };
        assert_eq!(far_end(&endpoint, peer), direct);
    }
}
