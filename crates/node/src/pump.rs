//! Puts what the network reports before the core, in the terms of the engine.

use std::sync::Arc;

use dunlin_base::{EntryId, PeerId};
use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{Event, Events, Multiaddr};
use dunlin_wesh::{catch_up, linking};
use tokio::sync::mpsc;

use crate::ahead::Ahead;
use crate::catch_up::Giver;
use crate::core::{GossipInput, NetworkInput};
use crate::discovery::{Discovery, Note, OnFound, RENDEZVOUS, Server, serve};
use crate::finder::Sighting;
use crate::linking::Desk;
use crate::perform::{CONTACT_REQUESTS, DIRECT_CHANNEL, InputSender, LOCAL_RECORDS, base_peer};
use crate::traffic::Traffic;

/// Those who hear of what the host reports, besides the engine.
pub(crate) struct Listeners {
    /// What keeps connections.
    pub sightings: mpsc::Sender<Sighting>,
    /// What finds people.
    pub discovery: Discovery,
    /// What others find people by, if this node serves them.
    pub rendezvous: Option<Arc<Server>>,
    /// What hands the account to a new device.
    pub desk: Desk,
    /// What gives others what their logs lack.
    pub giver: Giver,
}

/// Reads the events of the host until it stops.
pub(crate) async fn pump(
    mut events: Events,
    inputs: InputSender,
    ahead: Arc<Ahead>,
    traffic: Arc<Traffic>,
    listeners: Listeners,
) {
    let Listeners { sightings, discovery, rendezvous, desk, giver } = listeners;
    while let Some(event) = events.next().await {
        traffic.note(&event);
        if let Some(sighting) = sighting(&event) {
            // The search ends only with the node.
            let _ = sightings.send(sighting).await;
        }
        let note = note(&event);
        match (event, &rendezvous) {
            (Event::ExchangeOpened { protocol: linking::PROTOCOL, exchange, .. }, _) => desk.opened(exchange),
            (Event::ExchangeOpened { protocol: catch_up::PROTOCOL, exchange, .. }, _) => {
                giver.opened(exchange)
            }
            (Event::ExchangeOpened { protocol: RENDEZVOUS, exchange, .. }, Some(server)) => {
                tokio::spawn(serve(server.clone(), exchange));
            }
            (event, _) => {
                if let Some(input) = translate(event, &ahead) {
                    inputs(input).await;
                }
            }
        }
        // After the engine: what is found of a peer is of use once it knows the peer.
        if let Some(note) = note {
            discovery.tell(note).await;
        }
    }
}

fn translate(event: Event, ahead: &Ahead) -> Option<NetworkInput> {
    let input = match event {
        Event::PeerConnected { peer, address, .. } => {
            NetworkInput::Connected { peer: base_peer(&peer)?, local: is_local(&address) }
        }
        Event::PeerIdentified { peer, protocols, .. } => {
            let takes = protocols.iter().any(|protocol| protocol == CONTACT_REQUESTS);
            NetworkInput::TakesRequests { peer: base_peer(&peer)?, takes }
        }
        Event::PeerDisconnected { peer } => NetworkInput::Disconnected { peer: base_peer(&peer)? },
        Event::TopicJoined { peer, topic } => NetworkInput::TopicJoined { peer: base_peer(&peer)?, topic },
        Event::TopicLeft { peer, topic } => NetworkInput::TopicLeft { peer: base_peer(&peer)?, topic },
        Event::Message { topic, from, author, data, ticket } => {
            let author = base_peer(&author)?;
            NetworkInput::Gossip(Box::new(GossipInput { topic, from, author, data, ticket }))
        }
        Event::Frame { protocol: DIRECT_CHANNEL, peer, bytes } => {
            NetworkInput::Heads { peer: base_peer(&peer)?, data: bytes }
        }
        Event::Frame { protocol: LOCAL_RECORDS, peer, bytes } => {
            NetworkInput::Records { peer: base_peer(&peer)?, data: bytes }
        }
        Event::ExchangeOpened { protocol: CONTACT_REQUESTS, exchange, .. } => {
            NetworkInput::ExchangeIncoming { exchange: Box::new(exchange) }
        }
        Event::Block { cid, bytes, peer } => ahead.judge(base_peer(&peer)?, EntryId::from_cid(&cid)?, bytes),
        Event::BlockMissing { cid } => {
            let entry = EntryId::from_cid(&cid)?;
            ahead.forget(&entry);
            NetworkInput::BlockMissing { entry }
        }
        Event::BlockServed { peer, cid } => {
            NetworkInput::BlockServed { peer: base_peer(&peer)?, entry: EntryId::from_cid(&cid)? }
        }
        _ => return None,
    };
    Some(input)
}

fn note(event: &Event) -> Option<Note> {
    match event {
        Event::PeerConnected { peer, .. } => Some(Note::Connected(*peer)),
        Event::PeerDisconnected { peer } => Some(Note::Disconnected(*peer)),
        Event::Listening { .. } | Event::ListenerClosed { .. } => Some(Note::Moved),
        _ => None,
    }
}

fn sighting(event: &Event) -> Option<Sighting> {
    match event {
        Event::LanPeer { peer, address } => Some(Sighting::OnLan { peer: *peer, address: address.clone() }),
        Event::LanPeerGone { peer, address } => {
            Some(Sighting::GoneFromLan { peer: *peer, address: address.clone() })
        }
        Event::PeerConnected { peer, .. } => Some(Sighting::Connected { peer: *peer }),
        Event::PeerDisconnected { peer } => Some(Sighting::Disconnected { peer: *peer }),
        _ => None,
    }
}

/// Whether an address lies in a private network, on this machine or on the same link: where local records
/// may go (`spec/wesh-protocol.md` §6.7). What comes through a relay does not.
pub(crate) fn is_local(address: &Multiaddr) -> bool {
    let relayed = address.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    let private = address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Protocol::Ip6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        _ => false,
    });
    private && !relayed
}

/// Makes the sender through which tasks put inputs before the core.
pub(crate) fn input_sender<A: Send + 'static>(core: mpsc::Sender<crate::core::Input<A>>) -> InputSender {
    Arc::new(move |input| {
        let core = core.clone();
        Box::pin(async move {
            // A core that is gone needs no input.
            let _ = core.send(crate::core::Input::Network(input)).await;
        })
    })
}

/// Puts before the core what is said of a connected peer.
pub(crate) fn on_found(inputs: InputSender) -> OnFound {
    Box::new(move |peer, names| {
        let inputs = inputs.clone();
        Box::pin(async move {
            if let Some(peer) = base_peer(&peer) {
                inputs(NetworkInput::Found { peer, names }).await;
            }
        })
    })
}

/// The own peer id in the terms of the pure crates.
pub(crate) fn own_host(peer: &dunlin_ipfs::PeerId) -> Option<PeerId> {
    base_peer(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_addresses_are_local() {
        for local in
            ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.2/udp/1/quic-v1", "/ip6/::1/tcp/1", "/ip6/fe80::1/tcp/1"]
        {
            assert!(is_local(&local.parse().unwrap()), "{local}");
        }
        let relay = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let relayed = format!("/ip4/127.0.0.1/tcp/1/p2p/{relay}/p2p-circuit");
        for far in
            ["/ip4/203.0.113.9/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns4/example.org/tcp/1", relayed.as_str()]
        {
            assert!(!is_local(&far.parse().unwrap()), "{far}");
        }
    }
}
