//! A place where names are announced and looked up.

use std::time::Duration;

use dunlin_base::Time;
use dunlin_ipfs::{Multiaddr, PeerId};

/// Peers of one answer that are looked at (`spec/security.md` N8).
pub(crate) const PEERS_PER_ANSWER_MAX: usize = 1000;
/// Addresses of one peer that are looked at (`spec/security.md` N8).
pub(crate) const ADDRESSES_PER_PEER_MAX: usize = 16;

/// What kind of source it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum SourceKind {
    /// Peers that the user named.
    Static,
    /// Multicast on the local network.
    Lan,
    /// Records that connected peers on the local network tell each other.
    LocalRecords,
    /// A rendezvous server.
    Rendezvous,
    /// The Kademlia DHT.
    Dht,
    /// A relay, through which others reach this node.
    Relay,
}

impl SourceKind {
    /// The name for programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Lan => "lan",
            Self::LocalRecords => "local-records",
            Self::Rendezvous => "rendezvous",
            Self::Dht => "dht",
            Self::Relay => "relay",
        }
    }
}

/// What a source has come to so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceReport {
    /// What kind it is.
    pub kind: SourceKind,
    /// Which one, as the user named it; empty where there is only one.
    pub place: String,
    /// Names that are announced there now.
    pub announced: usize,
    /// Peers that it told of and that are still of interest.
    pub found: usize,
    /// When it last told of a peer.
    pub found_at: Option<Time>,
    /// What failed last, and when; kept until the same works.
    pub error: Option<(String, Time)>,
}

impl SourceReport {
    /// A source of which nothing is known yet.
    pub fn new(kind: SourceKind, place: String) -> Self {
        Self { kind, place, announced: 0, found: 0, found_at: None, error: None }
    }
}

/// A peer that a source tells of. It is a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Sighted {
    pub peer: PeerId,
    pub addresses: Vec<Multiaddr>,
    /// How long the claim holds.
    pub ttl: Duration,
}

/// Why a source could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// Asked again when it is connected.
    #[error("not connected")]
    NotConnected,
    /// Asked again when there is one.
    #[error("this node has no address that could be announced there")]
    NoAddress,
    /// The server refused; asked again later.
    #[error("refused with status {status}: {text}")]
    Refused { status: i32, text: String },
    /// The answer makes no sense; asked again later.
    #[error("the answer cannot be understood")]
    Malformed,
    /// Asked again later.
    #[error("{0}")]
    Failed(String),
}

/// A place where names are announced and looked up. One that is switched off is not made.
#[tonic::async_trait]
pub(crate) trait Driver: Send + Sync {
    fn kind(&self) -> SourceKind;

    /// Which one, as the user named it.
    fn place(&self) -> String;

    /// The server, if there is one: what failed is tried again when it is connected.
    fn server(&self) -> Option<PeerId> {
        None
    }

    /// Whether group topics go there. They never change, so they are told only where the user wants it
    /// (`spec/security.md` D7).
    fn takes_groups(&self) -> bool;

    /// Announces this node under a name; returns for how long.
    async fn advertise(&self, name: &str, ttl: Duration) -> Result<Duration, DriverError>;

    /// Says who is announced under a name. With `all`, those too who were told before.
    async fn find(&self, name: &str, all: bool) -> Result<Vec<Sighted>, DriverError>;

    /// Takes an announcement back, as far as that can be done.
    async fn withdraw(&self, name: &str) -> Result<(), DriverError>;
}
