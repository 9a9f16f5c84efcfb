//! How a node is set up.

use std::sync::Arc;

use dunlin_base::kv::Store;
use dunlin_ipfs::Multiaddr;
use dunlin_wesh::profile::Profile;

/// How a node is set up. Nothing is contacted that is not named here or found where it is told to look.
pub struct NodeConfig {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Which deployment it belongs to.
    pub profile: Profile,
    /// Where it listens.
    pub listen: Vec<Multiaddr>,
    /// Peers that it connects to, and connects to again whenever they are gone.
    pub connect: Vec<Multiaddr>,
    /// Whether it announces itself on the local network and connects to whom it finds there.
    pub lan: bool,
    /// Whether replication servers are called without TLS: for tests, on this machine alone.
    pub replication_in_clear: bool,
    /// Rendezvous servers on which names are announced and looked up, each with its peer id.
    pub rendezvous: Vec<Multiaddr>,
    /// Whether groups are announced on these servers, and looked for there. Their topics never change, so a
    /// server can follow who is in a group (`spec/security.md` D7); without it, members have to be connected
    /// some other way.
    pub announce_groups: bool,
    /// Relays through which others reach this node, each with its peer id.
    pub relays: Vec<Multiaddr>,
    /// Peers through which the Kademlia DHT is entered, each with its peer id. Only names of contact requests
    /// are announced there.
    pub dht_bootstrap: Vec<Multiaddr>,
    /// Whether this node is a rendezvous server for others.
    pub rendezvous_server: bool,
}

impl NodeConfig {
    /// A node that listens on loopback alone, knows nobody and looks for nobody.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let loopback = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        Self {
            store,
            profile: Profile::default(),
            listen: loopback.iter().filter_map(|address| address.parse().ok()).collect(),
            connect: Vec::new(),
            lan: false,
            replication_in_clear: false,
            rendezvous: Vec::new(),
            announce_groups: true,
            relays: Vec::new(),
            dht_bootstrap: Vec::new(),
            rendezvous_server: false,
        }
    }
}
