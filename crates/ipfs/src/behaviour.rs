//! The parts of libp2p that a host runs.

use libp2p::{
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::unlisted::Unaware;
use crate::{gossip, streams};

/// Connections one peer may have with us. Several are normal: TCP, QUIC and a relayed one while a direct one
/// is made.
pub const CONNECTIONS_PER_PEER_MAX: u32 = 8;

/// Connections in all. Each costs two buffers of 16 KiB and up.
pub const CONNECTIONS_MAX: u32 = 512;

/// Inbound connections whose handshake has not finished.
pub const PENDING_INBOUND_MAX: u32 = 64;

/// Everything that happens on a connection.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: Unaware<identify::Behaviour>,
    ping: ping::Behaviour,
    relay_client: relay::client::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) gossip: gossip::Behaviour,
    pub(crate) streams: streams::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(
        identity: &Keypair,
        agent: &str,
        lan_discovery: bool,
        relay_client: relay::client::Behaviour,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let limits = ConnectionLimits::default()
            .with_max_established_per_peer(Some(CONNECTIONS_PER_PEER_MAX))
            .with_max_established(Some(CONNECTIONS_MAX))
            .with_max_pending_incoming(Some(PENDING_INBOUND_MAX));
        // Listen addresses are not announced: most are private, and identify cannot tell a public peer from a
        // neighbour. Peers see the address we dial from, which is the one we listen on because ports are
        // reused.
        let identify = identify::Config::new(String::new(), identity.public())
            .with_agent_version(agent.to_owned())
            .with_hide_listen_addrs(true);
        let mdns = lan_discovery
            .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), identity.public().to_peer_id()))
            .transpose()?;
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            identify: Unaware(identify::Behaviour::new(identify)),
            ping: ping::Behaviour::default(),
            relay_client,
            mdns: mdns.into(),
            gossip: gossip::behaviour(identity)?,
            streams: streams::Behaviour::default(),
        })
    }
}
