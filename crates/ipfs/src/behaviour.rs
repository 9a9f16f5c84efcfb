//! The parts of libp2p that a host runs.

use libp2p::{
    connection_limits::{self, ConnectionLimits},
    dcutr, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    mdns, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::unlisted::Unaware;
use crate::{config::Config, dht, gossip, pending, streams};

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
    pending: pending::Behaviour,
    identify: Unaware<identify::Behaviour>,
    ping: ping::Behaviour,
    relay_client: relay::client::Behaviour,
    dcutr: Toggle<dcutr::Behaviour>,
    pub(crate) dht: Toggle<kad::Behaviour<MemoryStore>>,
    pub(crate) dht_lan: Toggle<kad::Behaviour<MemoryStore>>,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) gossip: gossip::Behaviour,
    pub(crate) streams: streams::Behaviour,
}

impl Behaviour {
    pub(crate) fn new(
        identity: &Keypair,
        config: &Config,
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
            .with_agent_version(config.agent.clone())
            .with_hide_listen_addrs(true);
        let own = identity.public().to_peer_id();
        let mdns = config
            .lan_discovery
            .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), own))
            .transpose()?;
        let dhts = (!config.dht_bootstrap.is_empty()).then(|| {
            let mut dhts = dht::behaviours(own);
            for dht in &mut dhts {
                for (peer, address) in config.dht_bootstrap.iter().filter_map(dht::bootstrap_peer) {
                    dht.add_address(&peer, address);
                }
            }
            dhts
        });
        let [dht, dht_lan] = dhts.map_or([None, None], |dhts| dhts.map(Some));
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits),
            pending: pending::Behaviour::default(),
            identify: Unaware(identify::Behaviour::new(identify)),
            ping: ping::Behaviour::default(),
            relay_client,
            dcutr: config.hole_punching.then(|| dcutr::Behaviour::new(own)).into(),
            dht: dht.into(),
            dht_lan: dht_lan.into(),
            mdns: mdns.into(),
            gossip: gossip::behaviour(identity, config.judged_topics)?,
            streams: streams::Behaviour::default(),
        })
    }
}
