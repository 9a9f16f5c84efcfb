//! Names in a Kademlia DHT: announcing that this host is found under a name, and finding who is.
//!
//! The host is a client: it asks and stores nothing for others. A name is looked up under the digest that
//! libp2p for Go uses for it, a CID of its SHA-256. No block is ever announced.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    time::Duration,
};

use cid::{Cid, multihash::Multihash};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    kad::{
        self, GetProvidersOk, QueryId, QueryResult, RecordKey,
        store::{MemoryStore, MemoryStoreConfig},
    },
    multiaddr::Protocol,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

/// Names under which this host may be announced at once.
pub const DHT_NAMES_MAX: usize = 256;
/// Queries that may run at once; more are refused.
pub const DHT_QUERIES_MAX: usize = 64;
/// Peers of one answer that are used: each is dialled.
pub const DHT_PROVIDERS_MAX: usize = 32;
/// Peers that are asked at the same time (`spec/wesh-protocol.md` §6.9).
const PARALLELISM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);
/// Time that a query has in all.
const QUERY_MAX: Duration = Duration::from_secs(60);
/// Multicodec of bytes without a structure.
const RAW: u64 = 0x55;
/// Multicodec of SHA-256.
const SHA2_256: u64 = 0x12;

/// The public DHT, and the one of local networks.
const NETWORKS: [StreamProtocol; 2] =
    [StreamProtocol::new("/ipfs/kad/1.0.0"), StreamProtocol::new("/ipfs/lan/kad/1.0.0")];

/// Why a name could not be announced or looked up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DhtError {
    /// The host was started without bootstrap peers. Give it some.
    #[error("the DHT is switched off: no bootstrap peer is configured")]
    Off,
    /// Too many names or queries. Try again when others are done.
    #[error("too many names or queries at once")]
    TooMany,
    /// No peer of the DHT took the announcement or answered. Look at the bootstrap peers.
    #[error("no peer of the DHT answered")]
    Unanswered,
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] crate::Stopped),
}

/// The CID that stands for a name.
pub fn cid_of_name(name: &str) -> Option<Cid> {
    let hash = Multihash::wrap(SHA2_256, &Sha256::digest(name.as_bytes())).ok()?;
    Some(Cid::new_v1(RAW, hash))
}

fn key_of(name: &str) -> Option<RecordKey> {
    Some(RecordKey::new(&cid_of_name(name)?.hash().to_bytes()))
}

/// Makes the two clients.
pub(crate) fn behaviours(own: PeerId) -> [kad::Behaviour<MemoryStore>; 2] {
    NETWORKS.map(|network| {
        let mut config = kad::Config::new(network);
        config
            .set_parallelism(PARALLELISM)
            .set_query_timeout(QUERY_MAX)
            // Whoever asks us to announce does so again; nothing is announced behind its back.
            .set_provider_publication_interval(None)
            .set_publication_interval(None)
            .set_replication_interval(None);
        let kept = MemoryStoreConfig {
            max_provided_keys: DHT_NAMES_MAX,
            max_records: 0,
            ..MemoryStoreConfig::default()
        };
        let mut behaviour = kad::Behaviour::with_config(own, MemoryStore::with_config(own, kept), config);
        behaviour.set_mode(Some(kad::Mode::Client));
        behaviour
    })
}

/// The peer and the address of a bootstrap peer.
pub(crate) fn bootstrap_peer(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut address = address.clone();
    match address.pop() {
        Some(Protocol::P2p(peer)) => Some((peer, address)),
        _ => None,
    }
}

/// What somebody waits for.
pub(crate) enum Ask {
    /// That a name is announced.
    Announce(oneshot::Sender<Result<(), DhtError>>),
    /// Who is announced under a name.
    Find(oneshot::Sender<Result<BTreeSet<PeerId>, DhtError>>),
}

struct Running {
    ask: Ask,
    queries: usize,
    answered: bool,
    found: BTreeSet<PeerId>,
}

/// Which queries run for whom.
#[derive(Default)]
pub(crate) struct Queries {
    of: HashMap<(usize, QueryId), u64>,
    running: BTreeMap<u64, Running>,
    next: u64,
}

impl Queries {
    /// Starts to announce a name in the DHTs.
    pub(crate) fn announce(
        &mut self,
        dhts: [Option<&mut kad::Behaviour<MemoryStore>>; 2],
        name: &str,
        reply: oneshot::Sender<Result<(), DhtError>>,
    ) {
        self.start(dhts, name, Ask::Announce(reply), |dht, key| dht.start_providing(key).ok());
    }

    /// Starts to look a name up.
    pub(crate) fn find(
        &mut self,
        dhts: [Option<&mut kad::Behaviour<MemoryStore>>; 2],
        name: &str,
        reply: oneshot::Sender<Result<BTreeSet<PeerId>, DhtError>>,
    ) {
        self.start(dhts, name, Ask::Find(reply), |dht, key| Some(dht.get_providers(key)));
    }

    /// Announces a name no longer. Those who hear of it hear until the announcement runs out.
    pub(crate) fn withdraw(dhts: [Option<&mut kad::Behaviour<MemoryStore>>; 2], name: &str) {
        let Some(key) = key_of(name) else { return };
        dhts.into_iter().flatten().for_each(|dht| dht.stop_providing(&key));
    }

    fn start(
        &mut self,
        dhts: [Option<&mut kad::Behaviour<MemoryStore>>; 2],
        name: &str,
        ask: Ask,
        query: impl Fn(&mut kad::Behaviour<MemoryStore>, RecordKey) -> Option<QueryId>,
    ) {
        let mut running = Running { ask, queries: 0, answered: false, found: BTreeSet::new() };
        if self.running.len() >= DHT_QUERIES_MAX {
            return finish(running, Some(DhtError::TooMany));
        }
        let Some(key) = key_of(name) else { return finish(running, Some(DhtError::Unanswered)) };
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let mut on = false;
        for (network, dht) in dhts.into_iter().enumerate() {
            let Some(dht) = dht else { continue };
            on = true;
            if let Some(query) = query(dht, key.clone()) {
                self.of.insert((network, query), id);
                running.queries += 1;
            }
        }
        if running.queries == 0 {
            return finish(running, Some(if on { DhtError::TooMany } else { DhtError::Off }));
        }
        self.running.insert(id, running);
    }

    /// Takes what a DHT reports. Returns peers that were found just now, whose addresses the DHT knows only for
    /// as long as the query runs.
    pub(crate) fn on_event(&mut self, network: usize, event: kad::Event) -> Vec<PeerId> {
        let kad::Event::OutboundQueryProgressed { id: query, result, step, stats } = event else {
            return Vec::new();
        };
        let Some(id) = self.of.get(&(network, query)).copied() else { return Vec::new() };
        let Some(running) = self.running.get_mut(&id) else { return Vec::new() };
        let mut fresh = Vec::new();
        running.answered |= stats.num_successes() > 0;
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                for peer in providers {
                    if running.found.len() < DHT_PROVIDERS_MAX && running.found.insert(peer) {
                        fresh.push(peer);
                    }
                }
            }
            QueryResult::StartProviding(Err(error)) => {
                tracing::debug!(%error, "a name was not announced");
                running.answered = false;
            }
            _ => {}
        }
        if step.last {
            self.of.remove(&(network, query));
            running.queries -= 1;
            if running.queries == 0
                && let Some(running) = self.running.remove(&id)
            {
                let error = (!running.answered && running.found.is_empty()).then_some(DhtError::Unanswered);
                finish(running, error);
            }
        }
        fresh
    }
}

/// Tells what came of it; whoever asked may have stopped waiting.
fn finish(running: Running, error: Option<DhtError>) {
    match running.ask {
        Ask::Announce(reply) => drop(reply.send(error.map_or(Ok(()), Err))),
        Ask::Find(reply) => drop(reply.send(error.map_or(Ok(running.found), Err))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_cid_that_go_gives_it() {
        // CIDv1, raw, SHA-256 of "hello world".
        let cid = cid_of_name("hello world").unwrap();
        assert_eq!(cid.to_string(), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    }
}
