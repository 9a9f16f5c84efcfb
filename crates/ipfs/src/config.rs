//! What a host is started with.

use std::{
    collections::BTreeMap,
    net::{Ipv6Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use zeroize::Zeroizing;

use crate::bare_name::{ProtocolNameError, inner_name};

/// What a host is started with. [`Config::new`] gives defaults; the fields are there to be changed.
pub struct Config {
    /// The Ed25519 secret from which the peer id derives.
    pub identity: Zeroizing<[u8; 32]>,
    /// Addresses to listen on. The default is a port chosen by the system on all interfaces, TCP and
    /// QUIC, IPv4 and, where there is any, IPv6.
    pub listen: Vec<Multiaddr>,
    /// Whether to announce the peer id on the local network by mDNS and to report who else does. Off by
    /// default, since a peer id is an identifier.
    pub lan_discovery: bool,
    /// Peers through which the Kademlia DHT is entered, each with its peer id. Without one, the DHT is off.
    pub dht_bootstrap: Vec<Multiaddr>,
    /// Whether a connection through a relay tries to become a direct one, for which both sides tell each
    /// other their addresses. Off by default.
    pub hole_punching: bool,
    /// Whether messages on topics are passed on only after [`Ipfs::judge`](crate::Ipfs::judge) has said so, and
    /// peers that bring what is refused lose their place in the mesh. Off by default: whatever its author has
    /// signed is passed on.
    pub judged_topics: bool,
    /// Protocols that carry one frame per stream, for example a direct channel.
    pub frame_protocols: Vec<FrameProtocol>,
    /// Text by which the program introduces itself to every peer. It should not tell more than a peer needs
    /// to know.
    pub agent: String,
    /// Answers the wants of peers.
    pub blocks: Arc<dyn BlockSource>,
}

impl Config {
    /// Takes the defaults for everything but the secret and the blocks.
    pub fn new(identity: Zeroizing<[u8; 32]>, blocks: Arc<dyn BlockSource>) -> Self {
        Self {
            identity,
            listen: everywhere(),
            lan_discovery: false,
            dht_bootstrap: Vec::new(),
            hole_punching: false,
            judged_topics: false,
            frame_protocols: Vec::new(),
            agent: "libp2p".to_owned(),
            blocks,
        }
    }
}

fn everywhere() -> Vec<Multiaddr> {
    let addresses: &[&str] = if has_ipv6() {
        &["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"]
    } else {
        &["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1"]
    };
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

/// Whether sockets of IPv6 can be had; a host that asks for an address that does not exist would not start.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// Where blocks come from when a peer wants them.
///
/// The methods are called from the network tasks and must be quick: a read from a local database, not a
/// request.
pub trait BlockSource: Send + Sync {
    /// Returns the block if `peer` may have it and it is here. `None` is answered as "don't have", whatever
    /// the reason.
    fn block(&self, peer: &PeerId, cid: &Cid) -> Option<Bytes>;

    /// Says how long a want of `peer` that found no block waits for one before it is answered with "don't
    /// have".
    ///
    /// This depends on the peer alone, so that the time of an answer says nothing about which blocks exist. A
    /// held want is looked at again on [`Ipfs::offer`](crate::Ipfs::offer) and
    /// [`Ipfs::look_again`](crate::Ipfs::look_again). The default is not to wait.
    fn hold(&self, peer: &PeerId) -> Duration {
        let _ = peer;
        Duration::ZERO
    }
}

/// A source without blocks, for hosts that only fetch.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBlocks;

impl BlockSource for NoBlocks {
    fn block(&self, _: &PeerId, _: &Cid) -> Option<Bytes> {
        None
    }
}

/// A protocol with one frame per stream: length, bytes, close.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameProtocol {
    /// The name on the wire. It may lack the leading slash; libp2p for Go allows that and some protocols use
    /// it.
    pub name: &'static str,
    /// Longest frame that is sent or accepted, in bytes without the length.
    pub frame_bytes_max: usize,
}

/// A frame protocol, ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    pub(crate) name: &'static str,
    pub(crate) protocol: StreamProtocol,
    pub(crate) frame_bytes_max: usize,
}

/// Checks the names and indexes the protocols by them.
pub(crate) fn carriers(
    protocols: &[FrameProtocol],
) -> Result<BTreeMap<&'static str, Carrier>, ProtocolNameError> {
    let carrier = |&FrameProtocol { name, frame_bytes_max }| {
        Ok((name, Carrier { name, protocol: inner_name(name)?, frame_bytes_max }))
    };
    protocols.iter().map(carrier).collect()
}
