//! Who is connected, for a peer list on a screen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

/// A connected peer, as of the moment it was asked for.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// Every connection with the peer, oldest first. There is at least one.
    pub connections: Vec<ConnectionInfo>,
    /// Round trip of the last ping, once there was one.
    pub latency: Option<Duration>,
    /// How the peer's program introduces itself; empty until it has. Chosen by the peer.
    pub agent: String,
    /// Protocols that the peer has announced. Chosen by the peer.
    pub protocols: Vec<String>,
}

/// One connection with a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConnectionInfo {
    /// The address at the other end.
    pub address: Multiaddr,
    /// Whether the peer dialled us.
    pub inbound: bool,
    /// Since when, by the clock of this machine.
    pub since: SystemTime,
}

/// The peers of a host. Written by the host loop, read by everybody.
#[derive(Debug, Default)]
pub(crate) struct PeerList(Mutex<BTreeMap<PeerId, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    connections: Vec<(ConnectionId, ConnectionInfo)>,
    latency: Option<Duration>,
    agent: String,
    protocols: Vec<String>,
}

impl PeerList {
    /// Returns whether this is the first connection with the peer.
    pub(crate) fn connected(&self, peer: PeerId, connection: ConnectionId, info: ConnectionInfo) -> bool {
        let mut peers = self.lock();
        let entry = peers.entry(peer).or_default();
        entry.connections.push((connection, info));
        entry.connections.len() == 1
    }

    /// Returns whether this was the last connection with the peer.
    pub(crate) fn disconnected(&self, peer: PeerId, connection: ConnectionId) -> bool {
        let mut peers = self.lock();
        let Some(entry) = peers.get_mut(&peer) else { return false };
        entry.connections.retain(|(known, _)| *known != connection);
        let last = entry.connections.is_empty();
        if last {
            peers.remove(&peer);
        }
        last
    }

    pub(crate) fn identified(&self, peer: PeerId, agent: String, protocols: Vec<String>) {
        if let Some(entry) = self.lock().get_mut(&peer) {
            entry.agent = agent;
            entry.protocols = protocols;
        }
    }

    pub(crate) fn pinged(&self, peer: PeerId, latency: Duration) {
        if let Some(entry) = self.lock().get_mut(&peer) {
            entry.latency = Some(latency);
        }
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.lock().contains_key(peer)
    }

    /// Every connection, by peer, oldest first.
    pub(crate) fn connections(&self) -> BTreeMap<PeerId, Vec<(ConnectionId, ConnectionInfo)>> {
        self.lock().iter().map(|(peer, entry)| (*peer, entry.connections.clone())).collect()
    }

    pub(crate) fn snapshot(&self) -> Vec<PeerInfo> {
        let info = |(peer, entry): (&PeerId, &Entry)| PeerInfo {
            peer: *peer,
            connections: entry.connections.iter().map(|(_, info)| info.clone()).collect(),
            latency: entry.latency,
            agent: entry.agent.clone(),
            protocols: entry.protocols.clone(),
        };
        self.lock().iter().map(info).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
