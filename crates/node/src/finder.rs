//! Keeps connections with the peers that the user named and with those found on the local network.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{ConnectionInfo, DialError, Ipfs, Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// First pause before a peer that cannot be reached is dialled again.
const REDIAL_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const REDIAL_LONGEST: Duration = Duration::from_secs(60);
/// Peers found on the local network that are followed at once.
const LAN_PEERS_MAX: usize = 64;
/// Addresses of one such peer: two interfaces with TCP and QUIC, IPv4 and IPv6. The oldest makes room.
const LAN_ADDRESSES_MAX: usize = 8;
/// Dials of such a peer in a row that may fail before it is given up.
///
/// With the pauses above they take more than six minutes, the life of a multicast record. The host reports a
/// peer again only after its record has run out; one that was given up earlier would not be found again.
const LAN_DIALS_MAX: u32 = 12;
/// Addresses that the user may name.
const NAMED_MAX: usize = 256;
/// Callers that may wait for one address.
const CALLERS_MAX: usize = 64;
/// Sightings, orders and outcomes that may wait.
const WAITING_MAX: usize = 256;

/// What was seen of a host.
#[derive(Debug)]
pub(crate) enum Sighting {
    OnLan { peer: PeerId, address: Multiaddr },
    GoneFromLan { peer: PeerId, address: Multiaddr },
    Connected { peer: PeerId },
    Disconnected { peer: PeerId },
}

/// Why an address that the user named is not connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("that address is this node's own")]
    Own,
    #[error("{NAMED_MAX} addresses are dialled already: disconnect one first")]
    TooMany,
    #[error("{CALLERS_MAX} callers wait for that address already")]
    Busy,
    #[error("not reached yet ({0}); it is dialled again until it is, or until you disconnect it")]
    Unreachable(Arc<DialError>),
    #[error("the node has stopped")]
    Stopped,
}

type Reply = oneshot::Sender<Result<PeerId, ConnectError>>;

enum Order {
    Connect { address: Multiaddr, reply: Reply },
    Forget { peer: PeerId, reply: oneshot::Sender<bool> },
    Ask { peer: PeerId, reply: oneshot::Sender<bool> },
    Count { reply: oneshot::Sender<(usize, usize)> },
}

/// Gives orders to the task that keeps connections.
#[derive(Clone)]
pub(crate) struct Finder {
    orders: mpsc::Sender<Order>,
}

impl Finder {
    /// Starts to keep a connection with each of `named`. Sightings go into the channel that comes back.
    pub fn start(ipfs: Ipfs, named: Vec<Multiaddr>) -> (Self, mpsc::Sender<Sighting>) {
        let (orders, ordered) = mpsc::channel(WAITING_MAX);
        let (sightings, seen) = mpsc::channel(WAITING_MAX);
        let (outcomes, finished) = mpsc::channel(WAITING_MAX);
        let mut targets = Targets::new(ipfs.peer_id());
        for address in named {
            if let Err(error) = targets.name(Instant::now(), address, None) {
                tracing::warn!(%error, "an address to connect to is left out");
            }
        }
        let search = Search { ipfs, targets, outcomes };
        tokio::spawn(search.run(ordered, seen, finished));
        (Self { orders }, sightings)
    }

    /// Dials an address, and dials it again whenever its connection is lost.
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, ConnectError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Connect { address, reply };
        self.orders.send(order).await.map_err(|_| ConnectError::Stopped)?;
        answer.await.unwrap_or(Err(ConnectError::Stopped))
    }

    /// How many addresses the user named, and how many peers were found on the local network.
    pub async fn counts(&self) -> (usize, usize) {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Count { reply }).await.is_err() {
            return (0, 0);
        }
        answer.await.unwrap_or_default()
    }

    /// Stops to dial a peer; whether it was dialled.
    pub async fn forget(&self, peer: PeerId) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Forget { peer, reply }).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }

    /// Whether a peer is dialled again when its connection is lost.
    pub async fn keeps(&self, peer: PeerId) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Ask { peer, reply }).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }
}

struct Search {
    ipfs: Ipfs,
    targets: Targets,
    outcomes: mpsc::Sender<(Key, Result<PeerId, DialError>)>,
}

impl Search {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut seen: mpsc::Receiver<Sighting>,
        mut finished: mpsc::Receiver<(Key, Result<PeerId, DialError>)>,
    ) {
        loop {
            let due = self.targets.timeout();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                sighting = seen.recv() => match sighting {
                    Some(sighting) => self.targets.note(Instant::now(), sighting),
                    None => return,
                },
                Some((key, outcome)) = finished.recv() => {
                    let connected = |peer: &PeerId| self.ipfs.is_connected(peer);
                    self.targets.conclude(Instant::now(), &key, outcome, connected);
                }
                () = sleep_until(due), if due.is_some() => self.dial_due(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Connect { address, reply } => {
                let there = self.connected_at(&address);
                match self.targets.name(Instant::now(), address.clone(), there) {
                    // The caller may have stopped waiting, here and below.
                    Err(refusal) => drop(reply.send(Err(refusal))),
                    Ok(()) => match there {
                        Some(peer) => drop(reply.send(Ok(peer))),
                        None => self.targets.wait(address, reply),
                    },
                }
            }
            Order::Count { reply } => {
                let named = self.targets.all.keys().filter(|key| matches!(key, Key::Named(_))).count();
                // The caller may have stopped waiting.
                let _ = reply.send((named, self.targets.all.len() - named));
            }
            Order::Forget { peer, reply } => drop(reply.send(self.targets.forget(peer))),
            Order::Ask { peer, reply } => drop(reply.send(self.targets.of(peer).next().is_some())),
        }
    }

    /// The peer that an address leads to, if it is connected.
    fn connected_at(&self, address: &Multiaddr) -> Option<PeerId> {
        if let Some(peer) = peer_in(address).or_else(|| self.targets.peer_at(address)) {
            return self.ipfs.is_connected(&peer).then_some(peer);
        }
        let leads_there = |connection: &ConnectionInfo| {
            let dialled = connection.address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
            !connection.inbound && dialled.eq(address.iter())
        };
        let peers = self.ipfs.peers();
        peers.iter().find(|info| info.connections.iter().any(leads_there)).map(|info| info.peer)
    }

    fn dial_due(&mut self) {
        while let Some((key, peer, addresses)) = self.targets.poll_dial(Instant::now()) {
            let (ipfs, outcomes) = (self.ipfs.clone(), self.outcomes.clone());
            tokio::spawn(async move {
                let outcome = dial(&ipfs, peer, addresses).await;
                // When the search is over, nobody asks for the outcome.
                let _ = outcomes.send((key, outcome)).await;
            });
        }
    }
}

async fn dial(ipfs: &Ipfs, peer: Option<PeerId>, addresses: Vec<Multiaddr>) -> Result<PeerId, DialError> {
    let Some(peer) = peer else {
        let address = addresses.into_iter().next().ok_or(DialError::NoAddress)?;
        return ipfs.dial(address).await;
    };
    ipfs.dial_peer(peer, addresses).await
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// The peer id at the end of an address.
fn peer_in(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

/// What a connection is kept with.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    /// An address that the user named.
    Named(Multiaddr),
    /// A peer found on the local network.
    Lan(PeerId),
}

struct Target {
    /// Who is there, as far as known.
    peer: Option<PeerId>,
    /// Newest last.
    addresses: Vec<Multiaddr>,
    pause: Duration,
    /// Dials in a row that failed.
    failed: u32,
    /// When to dial; `None` while it is being dialled or connected.
    due: Option<Instant>,
    dialling: bool,
    waiting: Vec<Reply>,
}

impl Target {
    fn new(peer: Option<PeerId>, address: Multiaddr, due: Option<Instant>) -> Self {
        let (pause, waiting) = (REDIAL_FIRST, Vec::new());
        Self { peer, addresses: vec![address], pause, failed: 0, due, dialling: false, waiting }
    }

    /// Dials at once, unless that is going on.
    fn hurry(&mut self, now: Instant) {
        if !self.dialling {
            self.due = Some(now);
        }
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.pause = REDIAL_FIRST;
        self.failed = 0;
    }
}

/// Whom to keep a connection with, and when to dial. It knows the time and the network only from what it is
/// told.
struct Targets {
    own: PeerId,
    all: BTreeMap<Key, Target>,
}

impl Targets {
    fn new(own: PeerId) -> Self {
        Self { own, all: BTreeMap::new() }
    }

    /// Takes an address that the user named; `there` is the peer that is connected at it.
    fn name(&mut self, now: Instant, address: Multiaddr, there: Option<PeerId>) -> Result<(), ConnectError> {
        let peer = there.or(peer_in(&address));
        if peer == Some(self.own) {
            return Err(ConnectError::Own);
        }
        let named = self.all.keys().filter(|key| matches!(key, Key::Named(_))).count();
        match self.all.entry(Key::Named(address.clone())) {
            Entry::Vacant(_) if named >= NAMED_MAX => return Err(ConnectError::TooMany),
            Entry::Vacant(free) => {
                free.insert(Target::new(peer, address, there.is_none().then_some(now)));
            }
            Entry::Occupied(mut known) => {
                let target = known.get_mut();
                target.waiting.retain(|reply| !reply.is_closed());
                match there {
                    Some(_) => {
                        target.peer = there;
                        target.begin_anew();
                    }
                    None if target.waiting.len() >= CALLERS_MAX => return Err(ConnectError::Busy),
                    None => target.hurry(now),
                }
            }
        }
        Ok(())
    }

    /// Answers a caller when the next dial of a named address is over.
    fn wait(&mut self, address: Multiaddr, reply: Reply) {
        if let Some(target) = self.all.get_mut(&Key::Named(address)) {
            target.waiting.push(reply);
        }
    }

    /// Stops to dial a peer; whether it was dialled.
    fn forget(&mut self, peer: PeerId) -> bool {
        let before = self.all.len();
        self.all.retain(|_, target| target.peer != Some(peer));
        self.all.len() < before
    }

    fn note(&mut self, now: Instant, sighting: Sighting) {
        match sighting {
            Sighting::OnLan { peer, address } => self.found(now, peer, address),
            Sighting::GoneFromLan { peer, address } => {
                let Some(target) = self.all.get_mut(&Key::Lan(peer)) else { return };
                target.addresses.retain(|known| *known != address);
                if target.addresses.is_empty() {
                    self.all.remove(&Key::Lan(peer));
                }
            }
            Sighting::Connected { peer } => {
                self.of(peer).for_each(|target| {
                    target.begin_anew();
                    target.due = None;
                });
            }
            Sighting::Disconnected { peer } => {
                for target in self.of(peer).filter(|target| !target.dialling) {
                    target.due.get_or_insert(now + target.pause);
                }
            }
        }
    }

    fn found(&mut self, now: Instant, peer: PeerId, address: Multiaddr) {
        if peer == self.own {
            return;
        }
        let lan = self.all.keys().filter(|key| matches!(key, Key::Lan(_))).count();
        match self.all.entry(Key::Lan(peer)) {
            Entry::Vacant(free) if lan < LAN_PEERS_MAX => {
                free.insert(Target::new(Some(peer), address, Some(now)));
            }
            Entry::Vacant(_) => {}
            Entry::Occupied(mut known) => {
                let target = known.get_mut();
                target.addresses.retain(|known| *known != address);
                if target.addresses.len() >= LAN_ADDRESSES_MAX {
                    target.addresses.remove(0);
                }
                target.addresses.push(address);
                // A peer that waits for its next dial may be reached at the new address. One that is
                // connected stays as it is.
                target.due = target.due.map(|due| due.min(now + REDIAL_FIRST));
            }
        }
    }

    /// What is to be dialled now, one target at a time.
    fn poll_dial(&mut self, now: Instant) -> Option<(Key, Option<PeerId>, Vec<Multiaddr>)> {
        let is_due = |target: &Target| target.due.is_some_and(|due| due <= now);
        let (key, target) = self.all.iter_mut().find(|(_, target)| is_due(target))?;
        target.due = None;
        target.dialling = true;
        Some((key.clone(), target.peer, target.addresses.clone()))
    }

    /// Takes what came of a dial; `connected` says who is connected by now.
    fn conclude(
        &mut self,
        now: Instant,
        key: &Key,
        outcome: Result<PeerId, DialError>,
        connected: impl Fn(&PeerId) -> bool,
    ) {
        let Some(target) = self.all.get_mut(key) else { return };
        target.dialling = false;
        let waiting = std::mem::take(&mut target.waiting);
        // The peer may have reached us meanwhile.
        let outcome = match (outcome, target.peer) {
            (Err(_), Some(peer)) if connected(&peer) => Ok(peer),
            (outcome, _) => outcome,
        };
        match outcome {
            Ok(peer) => {
                target.peer = Some(peer);
                target.begin_anew();
                if !connected(&peer) {
                    target.due = Some(now + target.pause);
                }
                for reply in waiting {
                    // The caller may have stopped waiting, here and below.
                    let _ = reply.send(Ok(peer));
                }
            }
            Err(DialError::Ourselves) => {
                self.all.remove(key);
                for reply in waiting {
                    let _ = reply.send(Err(ConnectError::Own));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a peer cannot be reached");
                target.failed = target.failed.saturating_add(1);
                target.due = Some(now + target.pause);
                target.pause = (target.pause * 2).min(REDIAL_LONGEST);
                if matches!(key, Key::Lan(_)) && target.failed >= LAN_DIALS_MAX {
                    self.all.remove(key);
                }
                let error = Arc::new(error);
                for reply in waiting {
                    let _ = reply.send(Err(ConnectError::Unreachable(error.clone())));
                }
            }
        }
    }

    /// When something is to be dialled.
    fn timeout(&self) -> Option<Instant> {
        self.all.values().filter_map(|target| target.due).min()
    }

    /// Who was found at a named address.
    fn peer_at(&self, address: &Multiaddr) -> Option<PeerId> {
        self.all.get(&Key::Named(address.clone())).and_then(|target| target.peer)
    }

    fn of(&mut self, peer: PeerId) -> impl Iterator<Item = &mut Target> {
        self.all.values_mut().filter(move |target| target.peer == Some(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lan_peer_that_never_answers_is_given_up_after_its_record_has_run_out() {
        let mut targets = Targets::new(PeerId::random());
        let (peer, begun) = (PeerId::random(), Instant::now());
        targets.note(begun, Sighting::OnLan { peer, address: address(1) });

        let mut dials = 0;
        let mut last = begun;
        while let Some(now) = targets.timeout() {
            fail(&mut targets, now);
            dials += 1;
            last = now;
        }

        assert_eq!(dials, LAN_DIALS_MAX);
        assert!(last - begun > Duration::from_secs(6 * 60), "{:?}", last - begun);
        targets.note(last, Sighting::OnLan { peer, address: address(1) });
        assert_eq!(targets.timeout(), Some(last));
    }

    #[test]
    fn an_address_that_the_user_named_is_dialled_for_ever() {
        let mut targets = Targets::new(PeerId::random());
        targets.name(Instant::now(), address(1), None).unwrap();

        for _ in 0..10 * LAN_DIALS_MAX {
            let now = targets.timeout().unwrap();
            fail(&mut targets, now);
            assert!(targets.timeout().unwrap() - now <= REDIAL_LONGEST);
        }
    }

    #[test]
    fn a_lan_peer_whose_connection_is_lost_is_dialled_again() {
        let mut targets = Targets::new(PeerId::random());
        let (peer, now) = (PeerId::random(), Instant::now());
        targets.note(now, Sighting::OnLan { peer, address: address(1) });
        let (key, ..) = targets.poll_dial(now).unwrap();
        targets.conclude(now, &key, Ok(peer), |_| true);
        targets.note(now, Sighting::Connected { peer });
        assert_eq!(targets.timeout(), None);

        targets.note(now, Sighting::Disconnected { peer });

        assert_eq!(targets.timeout(), Some(now + REDIAL_FIRST));
    }

    #[test]
    fn a_lan_peer_is_followed_until_its_last_address_is_gone() {
        let mut targets = Targets::new(PeerId::random());
        let (peer, now) = (PeerId::random(), Instant::now());
        for port in [1, 2] {
            targets.note(now, Sighting::OnLan { peer, address: address(port) });
        }

        targets.note(now, Sighting::GoneFromLan { peer, address: address(1) });
        let (_, _, addresses) = targets.poll_dial(now).unwrap();
        assert_eq!(addresses, [address(2)]);
        targets.note(now, Sighting::GoneFromLan { peer, address: address(2) });

        assert!(targets.all.is_empty());
    }

    #[test]
    fn lan_peers_are_counted_by_peer_and_their_addresses_apart() {
        let mut targets = Targets::new(PeerId::random());
        let now = Instant::now();
        let peers: Vec<_> = (0..=LAN_PEERS_MAX).map(|_| PeerId::random()).collect();
        for peer in &peers {
            for port in 0..=LAN_ADDRESSES_MAX as u16 {
                targets.note(now, Sighting::OnLan { peer: *peer, address: address(port) });
            }
        }

        assert_eq!(targets.all.len(), LAN_PEERS_MAX);
        assert!(!targets.all.contains_key(&Key::Lan(peers[LAN_PEERS_MAX])));
        let newest: Vec<_> = (1..=LAN_ADDRESSES_MAX as u16).map(address).collect();
        assert!(targets.all.values().all(|target| target.addresses == newest));
    }

    #[test]
    fn named_addresses_and_lan_peers_leave_room_for_each_other() {
        let mut targets = Targets::new(PeerId::random());
        let now = Instant::now();
        for _ in 0..LAN_PEERS_MAX {
            targets.note(now, Sighting::OnLan { peer: PeerId::random(), address: address(1) });
        }
        for port in 0..NAMED_MAX as u16 {
            targets.name(now, address(port), None).unwrap();
        }

        let refused = targets.name(now, address(NAMED_MAX as u16), None);
        assert!(matches!(refused, Err(ConnectError::TooMany)), "{refused:?}");
        targets.name(now, address(0), None).unwrap();
        assert_eq!(targets.all.len(), LAN_PEERS_MAX + NAMED_MAX);
    }

    #[test]
    fn an_address_that_is_dialled_is_not_dialled_twice() {
        let mut targets = Targets::new(PeerId::random());
        let now = Instant::now();
        targets.name(now, address(1), None).unwrap();
        let (key, ..) = targets.poll_dial(now).unwrap();
        let callers: Vec<_> = (0..CALLERS_MAX).map(|_| ask(&mut targets, now).unwrap()).collect();
        let refused = ask(&mut targets, now);
        assert!(matches!(refused, Err(ConnectError::Busy)), "{refused:?}");
        assert!(targets.poll_dial(now).is_none());

        targets.conclude(now, &key, Err(DialError::NoAddress), |_| false);

        for mut caller in callers {
            let told = caller.try_recv().unwrap();
            assert!(matches!(told, Err(ConnectError::Unreachable(_))), "{told:?}");
        }
    }

    #[test]
    fn an_address_that_leads_to_this_node_is_forgotten() {
        let own = PeerId::random();
        let mut targets = Targets::new(own);
        let now = Instant::now();
        let spelled = targets.name(now, address(1).with(Protocol::P2p(own)), None);
        assert!(matches!(spelled, Err(ConnectError::Own)), "{spelled:?}");
        let mut caller = ask(&mut targets, now).unwrap();

        let (key, ..) = targets.poll_dial(now).unwrap();
        targets.conclude(now, &key, Err(DialError::Ourselves), |_| false);

        assert!(matches!(caller.try_recv().unwrap(), Err(ConnectError::Own)));
        assert!(targets.all.is_empty());
    }

    #[tokio::test]
    async fn connecting_again_answers_at_once_and_makes_no_second_connection() {
        let (alice, _alice_events) = host(1).await;
        let (bob, mut bob_events) = host(2).await;
        let Some(dunlin_ipfs::Event::Listening { address }) = bob_events.next().await else {
            panic!("not heard")
        };
        let (finder, _sightings) = Finder::start(alice.clone(), Vec::new());
        assert_eq!(finder.connect(address.clone()).await.unwrap(), bob.peer_id());

        // Without, with, and with another way to say where the peer is.
        let named = address.clone().with(Protocol::P2p(bob.peer_id()));
        let elsewhere = self::address(1).with(Protocol::P2p(bob.peer_id()));
        for again in [address, named, elsewhere] {
            assert_eq!(finder.connect(again).await.unwrap(), bob.peer_id());
        }

        let peers = alice.peers();
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].connections.len(), 1);
    }

    async fn host(number: u8) -> (Ipfs, dunlin_ipfs::Events) {
        let secret = zeroize::Zeroizing::new([number; 32]);
        let mut config = dunlin_ipfs::Config::new(secret, Arc::new(dunlin_ipfs::NoBlocks));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        Ipfs::start(config).await.unwrap()
    }

    fn ask(
        targets: &mut Targets,
        now: Instant,
    ) -> Result<oneshot::Receiver<Result<PeerId, ConnectError>>, ConnectError> {
        let (reply, answer) = oneshot::channel();
        targets.name(now, address(1), None)?;
        targets.wait(address(1), reply);
        Ok(answer)
    }

    fn fail(targets: &mut Targets, now: Instant) {
        let (key, ..) = targets.poll_dial(now).unwrap();
        targets.conclude(now, &key, Err(DialError::NoAddress), |_| false);
    }

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }
}
