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
        }
    }
}
