//! Keeps connections with the peers that the user named and with those found on the local network.

use std::collections::BTreeMap;
use std::time::Duration;

use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{DialError, Ipfs, Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// First pause before a peer that cannot be reached is dialled again.
const REDIAL_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const REDIAL_LONGEST: Duration = Duration::from_secs(60);
/// Peers found on the local network that are followed at once.
const LAN_PEERS_MAX: usize = 64;
/// Addresses that the user may name.
const NAMED_MAX: usize = 256;
/// Sightings, orders and outcomes that may wait.
const WAITING_MAX: usize = 256;

/// What was seen of a host.
#[derive(Debug)]
pub(crate) enum Sighting {
    OnLan { peer: PeerId, address: Multiaddr },
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
    #[error("not reached yet ({0}); it is dialled again until it is, or until you disconnect it")]
    Unreachable(DialError),
    #[error("the node has stopped")]
    Stopped,
}

enum Order {
    Connect { address: Multiaddr, reply: oneshot::Sender<Result<PeerId, ConnectError>> },
    Forget { peer: PeerId, reply: oneshot::Sender<bool> },
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
        let mut search = Search { ipfs, targets: BTreeMap::new(), outcomes };
        for address in named {
            search.targets.insert(address.clone(), Target::new(&address, false));
        }
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

    /// Stops to dial a peer; whether it was dialled.
    pub async fn forget(&self, peer: PeerId) -> bool {
        let (reply, answer) = oneshot::channel();
        if self.orders.send(Order::Forget { peer, reply }).await.is_err() {
            return false;
        }
        answer.await.unwrap_or(false)
    }
}

/// One address to keep a connection with.
struct Target {
    peer: Option<PeerId>,
    pause: Duration,
    /// When to dial; `None` while it is being dialled or connected.
    due: Option<Instant>,
    from_lan: bool,
    waiting: Vec<oneshot::Sender<Result<PeerId, ConnectError>>>,
}

impl Target {
    fn new(address: &Multiaddr, from_lan: bool) -> Self {
        let peer = match address.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        Self { peer, pause: REDIAL_FIRST, due: Some(Instant::now()), from_lan, waiting: Vec::new() }
    }
}

type Outcome = (Multiaddr, Result<PeerId, DialError>);

struct Search {
    ipfs: Ipfs,
    targets: BTreeMap<Multiaddr, Target>,
    outcomes: mpsc::Sender<Outcome>,
}

impl Search {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut seen: mpsc::Receiver<Sighting>,
        mut finished: mpsc::Receiver<Outcome>,
    ) {
        loop {
            let due = self.targets.values().filter_map(|target| target.due).min();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                sighting = seen.recv() => match sighting {
                    Some(sighting) => self.note(sighting),
                    None => return,
                },
                Some((address, outcome)) = finished.recv() => self.conclude(&address, outcome),
                () = sleep_until(due), if due.is_some() => self.dial_due(),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Connect { address, reply } => {
                let mut fresh = Target::new(&address, false);
                let refusal = if fresh.peer == Some(self.ipfs.peer_id()) {
                    Some(ConnectError::Own)
                } else if self.targets.len() >= NAMED_MAX.saturating_add(LAN_PEERS_MAX) {
                    Some(ConnectError::TooMany)
                } else {
                    None
                };
                if let Some(refusal) = refusal {
                    // The caller may have stopped waiting, here and below.
                    let _ = reply.send(Err(refusal));
                    return;
                }
                if let Some(before) = self.targets.remove(&address) {
                    fresh.waiting = before.waiting;
                }
                fresh.waiting.push(reply);
                self.targets.insert(address, fresh);
            }
            Order::Forget { peer, reply } => {
                let before = self.targets.len();
                self.targets.retain(|_, target| target.peer != Some(peer));
                let _ = reply.send(self.targets.len() < before);
            }
        }
    }

    fn note(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::OnLan { peer, address } => {
                let found = self.targets.values().filter(|target| target.from_lan).count();
                if found < LAN_PEERS_MAX && peer != self.ipfs.peer_id() {
                    let fresh = Target { peer: Some(peer), ..Target::new(&address, true) };
                    self.targets.entry(address).or_insert(fresh);
                }
            }
            Sighting::Connected { peer } => {
                for target in self.targets.values_mut().filter(|target| target.peer == Some(peer)) {
                    target.pause = REDIAL_FIRST;
                }
            }
            Sighting::Disconnected { peer } => {
                // What was found on the local network is found again there, perhaps at another address.
                self.targets.retain(|_, target| !(target.from_lan && target.peer == Some(peer)));
                for target in self.targets.values_mut().filter(|target| target.peer == Some(peer)) {
                    target.due.get_or_insert(Instant::now() + target.pause);
                }
            }
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        let due = self.targets.iter_mut().filter(|(_, target)| target.due.is_some_and(|due| due <= now));
        for (address, target) in due {
            target.due = None;
            let (ipfs, outcomes) = (self.ipfs.clone(), self.outcomes.clone());
            let (peer, address) = (target.peer, address.clone());
            tokio::spawn(async move {
                let outcome = match peer {
                    Some(peer) => ipfs.dial_peer(peer, vec![address.clone()]).await,
                    None => ipfs.dial(address.clone()).await,
                };
                // When the search is over, nobody asks for the outcome.
                let _ = outcomes.send((address, outcome)).await;
            });
        }
    }

    fn conclude(&mut self, address: &Multiaddr, outcome: Result<PeerId, DialError>) {
        let Some(target) = self.targets.get_mut(address) else { return };
        let waiting = std::mem::take(&mut target.waiting);
        match outcome {
            Ok(peer) => {
                target.peer = Some(peer);
                target.pause = REDIAL_FIRST;
                for reply in waiting {
                    let _ = reply.send(Ok(peer));
                }
                if !self.ipfs.is_connected(&peer) {
                    target.due = Some(Instant::now() + target.pause);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a peer cannot be reached");
                target.due = Some(Instant::now() + target.pause);
                target.pause = (target.pause * 2).min(REDIAL_LONGEST);
                let mut error = Some(error);
                for reply in waiting {
                    let error = error.take().map_or(ConnectError::Stopped, ConnectError::Unreachable);
                    let _ = reply.send(Err(error));
                }
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
