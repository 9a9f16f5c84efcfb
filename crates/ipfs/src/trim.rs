//! Which connections are closed when there are too many.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol, swarm::ConnectionId};

use crate::peers::ConnectionInfo;

/// Connected peers beyond which some are let go (`spec/wesh-protocol.md` §6.9).
pub const CONNECTED_HIGH: usize = 200;
/// Connected peers that remain then.
pub const CONNECTED_LOW: usize = 150;
/// How long a new connection is left alone, to become useful.
pub const GRACE: Duration = Duration::from_secs(20);
/// How long a connection through a relay stays after a direct one is there: what is under way on it can end.
pub const SPARE_GRACE: Duration = Duration::from_secs(30);
/// How often there is a look.
pub(crate) const TRIM_EVERY: Duration = Duration::from_secs(10);

type Connections = BTreeMap<PeerId, Vec<(ConnectionId, ConnectionInfo)>>;

/// Peers to disconnect: those connected longest of the unprotected, until [`CONNECTED_LOW`] remain.
pub(crate) fn crowd(peers: &Connections, protected: &BTreeSet<PeerId>, now: SystemTime) -> Vec<PeerId> {
    if peers.len() <= CONNECTED_HIGH {
        return Vec::new();
    }
    let since = |connections: &[(ConnectionId, ConnectionInfo)]| {
        connections.iter().map(|(_, info)| info.since).min().unwrap_or(now)
    };
    let mut free: Vec<_> = peers
        .iter()
        .filter(|(peer, _)| !protected.contains(peer))
        .map(|(peer, connections)| (since(connections), *peer))
        .filter(|(since, _)| age(*since, now) >= GRACE)
        .collect();
    free.sort();
    free.into_iter().take(peers.len() - CONNECTED_LOW).map(|(_, peer)| peer).collect()
}

/// Connections through a relay to peers that are connected directly as well, for some time.
pub(crate) fn spares(peers: &Connections, now: SystemTime) -> Vec<ConnectionId> {
    let mut spares = Vec::new();
    for connections in peers.values() {
        let direct =
            |info: &ConnectionInfo| !is_relayed(&info.address) && age(info.since, now) >= SPARE_GRACE;
        if connections.iter().any(|(_, info)| direct(info)) {
            let relayed = connections.iter().filter(|(_, info)| is_relayed(&info.address));
            spares.extend(relayed.map(|(connection, _)| *connection));
        }
    }
    spares
}

/// A clock that was set back makes nothing old.
fn age(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::P2pCircuit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: usize, address: &str, since: SystemTime) -> (ConnectionId, ConnectionInfo) {
        let info = ConnectionInfo { address: address.parse().unwrap(), inbound: false, since };
        (ConnectionId::new_unchecked(id), info)
    }

    #[test]
    fn a_crowd_is_thinned_to_the_low_mark_and_protected_peers_stay() {
        let begun = SystemTime::UNIX_EPOCH;
        let now = begun + Duration::from_secs(1000);
        let mut peers = Connections::new();
        for id in 0..=CONNECTED_HIGH {
            let since = begun + Duration::from_secs(id as u64);
            peers.insert(PeerId::random(), vec![connection(id, "/ip4/192.0.2.1/tcp/1", since)]);
        }
        let oldest = *peers.iter().min_by_key(|(_, list)| list[0].1.since).unwrap().0;
        let protected = BTreeSet::from([oldest]);

        let gone = crowd(&peers, &protected, now);

        assert_eq!(peers.len() - gone.len(), CONNECTED_LOW);
        assert!(!gone.contains(&oldest));
        peers.remove(&gone[0]);
        assert_eq!(crowd(&peers, &protected, now), []);
    }

    #[test]
    fn new_connections_are_left_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let one = |id| (PeerId::random(), vec![connection(id, "/ip4/192.0.2.1/tcp/1", now)]);
        let peers: Connections = (0..=CONNECTED_HIGH).map(one).collect();
        assert_eq!(crowd(&peers, &BTreeSet::new(), now), []);
        assert!(!crowd(&peers, &BTreeSet::new(), now + GRACE).is_empty());
    }

    #[test]
    fn a_relayed_connection_goes_once_a_direct_one_has_lasted() {
        let begun = SystemTime::UNIX_EPOCH;
        let relayed = format!("/ip4/192.0.2.1/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        let list = vec![connection(1, &relayed, begun), connection(2, "/ip4/192.0.2.2/tcp/1", begun)];
        let peers = Connections::from([(PeerId::random(), list)]);
        assert_eq!(spares(&peers, begun), []);
        assert_eq!(spares(&peers, begun + SPARE_GRACE), [ConnectionId::new_unchecked(1)]);
        let alone = Connections::from([(PeerId::random(), vec![connection(1, &relayed, begun)])]);
        assert_eq!(spares(&alone, begun + SPARE_GRACE), []);
    }
}
