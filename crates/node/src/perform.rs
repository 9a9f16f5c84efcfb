//! Carries out what the engine asks for, and tells it what came of that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_base::{EntryId, GroupId, PeerId};
use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{Exchange, Ipfs, Judgement, Multiaddr, Ticket};
use dunlin_log::Checker;
use dunlin_wesh::catch_up::Request;
use dunlin_wesh::engine::{Action, ExchangeId, Origin, Search, StoreKind};
use tokio::sync::mpsc;

use crate::ahead::Ahead;
use crate::catch_up::{self, Asked};
use crate::core::NetworkInput;
use crate::discovery::{Discovery, Note};
use crate::traffic::Traffic;

/// The direct channel for heads payloads (`spec/wesh-protocol.md` §3.9).
pub(crate) const DIRECT_CHANNEL: &str = "/go-orbit-db/direct-channel/1.2.0";
/// Largest frame of the direct channel (`spec/security.md` N2).
pub(crate) const DIRECT_CHANNEL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Local records (`spec/wesh-protocol.md` §6.7); the wire name has no slash in front.
pub(crate) const LOCAL_RECORDS: &str = "wesh/p2p/localrecord";
/// Largest message of local records (`spec/security.md` N2).
pub(crate) const LOCAL_RECORDS_BYTES_MAX: usize = 2048;
/// Contact requests (`spec/wesh-protocol.md` §5.4).
pub(crate) const CONTACT_REQUESTS: &str = "/wesh/contact_req/1.0.0";
/// How long a contact-request stream may take in all (`spec/security.md` N3). The handshake has the same
/// deadline of its own; this one ends the task.
const EXCHANGE_MAX: Duration = Duration::from_secs(15);
/// Frames of one stream that may wait to be written; a handshake has three in each direction.
const EXCHANGE_FRAMES_WAITING_MAX: usize = 8;

/// Carries out actions.
pub(crate) struct Performer {
    ipfs: Ipfs,
    inputs: InputSender,
    ahead: Arc<Ahead>,
    traffic: Arc<Traffic>,
    discovery: Discovery,
    exchanges: BTreeMap<ExchangeId, mpsc::Sender<Outgoing>>,
    streams: BTreeMap<(GroupId, StoreKind, PeerId), AbortOnDrop>,
}

/// Puts what happened on the network before the core.
pub(crate) type InputSender =
    Arc<dyn Fn(NetworkInput) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

/// A task that ends when nobody waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Outgoing {
    Frame(Vec<u8>),
    Close,
}

impl Performer {
    pub fn new(
        ipfs: Ipfs,
        inputs: InputSender,
        ahead: Arc<Ahead>,
        traffic: Arc<Traffic>,
        discovery: Discovery,
    ) -> Self {
        Self { ipfs, inputs, ahead, traffic, discovery, exchanges: BTreeMap::new(), streams: BTreeMap::new() }
    }

    /// Lets `checker` judge the block of `entry` when it comes.
    pub fn expect(&self, entry: EntryId, checker: Checker) {
        self.ahead.expect(entry, checker);
    }

    pub async fn perform(&mut self, action: Action) {
        match action {
            Action::Subscribe { topic } => {
                report(self.ipfs.subscribe(topic.clone()).await);
                self.discovery.tell(Note::Group { topic, on: true }).await;
            }
            Action::Unsubscribe { topic } => {
                report(self.ipfs.unsubscribe(topic.clone()).await);
                self.discovery.tell(Note::Group { topic, on: false }).await;
            }
            Action::Publish { topic, data } => report(self.ipfs.publish(topic, Bytes::from(data)).await),
            Action::SendHeads { id, peer, data } => self.send_heads(id, &peer, data),
            Action::SendRecords { peer, data } => {
                let Some(peer) = ipfs_peer(&peer) else { return };
                report(self.ipfs.send_frame(LOCAL_RECORDS, peer, Bytes::from(data)));
            }
            Action::Fetch { entry, peers } => {
                let peers = peers.iter().filter_map(ipfs_peer).collect();
                if let Err(error) = self.ipfs.want(entry.cid(), peers) {
                    tracing::debug!(%error, "a block cannot be asked for");
                    self.ahead.forget(&entry);
                    self.input(NetworkInput::BlockMissing { entry });
                }
            }
            Action::CancelFetch { entry } => {
                self.ahead.forget(&entry);
                self.ipfs.cancel(&entry.cid());
            }
            // The core says who judges what comes, and has taken this away.
            Action::CatchUp { .. } => {}
            Action::StopCatchUp { group, kind, peer } => drop(self.streams.remove(&(group, kind, peer))),
            Action::AcceptExchanges(on) => report(self.ipfs.accept_exchanges(CONTACT_REQUESTS, on).await),
            Action::OpenExchange { id, peer } => self.open_exchange(id, &peer),
            Action::SendFrame { id, frame } => self.outgoing(id, Outgoing::Frame(frame)),
            Action::CloseExchange { id } => {
                self.outgoing(id, Outgoing::Close);
                self.exchanges.remove(&id);
            }
        }
    }

    /// Asks a host for what a log lacks.
    pub fn catch_up(&mut self, asked: Asked, request: Request) {
        let (group, kind, peer) = (asked.group, asked.kind, asked.peer.clone());
        let Some(to) = ipfs_peer(&peer) else {
            return self.input(NetworkInput::StreamEnded { group, kind, peer, speaks: false });
        };
        let asking = catch_up::ask(self.ipfs.clone(), to, asked, request, self.inputs.clone());
        let task = AbortOnDrop(tokio::spawn(asking).abort_handle());
        self.streams.insert((group, kind, peer), task);
    }

    /// Says whether a message on a topic is to be passed on.
    pub async fn judge(&self, ticket: Ticket, judgement: Judgement) {
        report(self.ipfs.judge(ticket, judgement).await);
    }

    /// Lets others find this account, and looks for those it asked.
    pub async fn search(&self, search: Search) {
        self.discovery.tell(Note::Search(search)).await;
    }

    /// Keeps the connections with those who speak for a known device.
    pub async fn keep(&self, speakers: Vec<PeerId>) {
        let speakers = speakers.iter().filter_map(ipfs_peer).collect();
        self.discovery.tell(Note::Speakers(speakers)).await;
    }

    /// Lets the engine speak on a stream that a peer opened.
    pub fn adopt(&mut self, id: ExchangeId, exchange: Exchange) {
        let (outgoing, frames) = mpsc::channel(EXCHANGE_FRAMES_WAITING_MAX);
        self.exchanges.insert(id, outgoing);
        tokio::spawn(converse(id, exchange, frames, self.inputs.clone()));
    }

    /// The network that a peer connects from.
    pub fn origin_of(&self, peer: &dunlin_ipfs::PeerId) -> Origin {
        let info = self.ipfs.peers().into_iter().find(|info| info.peer == *peer);
        let origins = info.iter().flat_map(|info| &info.connections).map(|each| origin(&each.address));
        // Of several connections it does not matter which, as long as it stays the same.
        origins.max().unwrap_or(Origin::Unknown)
    }

    /// Looks again for the blocks that a peer asked for in vain.
    pub fn look_again(&self, peer: &PeerId) {
        if let Some(peer) = ipfs_peer(peer) {
            self.ipfs.look_again(&peer);
        }
    }

    /// Ends one contact-request stream.
    pub fn forget_exchange(&mut self, id: ExchangeId) {
        self.exchanges.remove(&id);
    }

    /// Ends all contact-request streams, and waits for no block: the engine that asked for them is gone.
    pub fn forget_all(&mut self) {
        self.exchanges.clear();
        self.streams.clear();
        self.ahead.forget_all();
    }

    fn send_heads(&self, id: u64, peer: &PeerId, data: Vec<u8>) {
        let Some(to) = ipfs_peer(peer) else { return self.input(NetworkInput::HeadsUnsent { id }) };
        let (ipfs, inputs, peer) = (self.ipfs.clone(), self.inputs.clone(), peer.clone());
        let (traffic, bytes) = (self.traffic.clone(), data.len());
        tokio::spawn(async move {
            let input = match ipfs.deliver_frame(DIRECT_CHANNEL, to, Bytes::from(data)).await {
                Ok(()) => {
                    traffic.sent(to, bytes);
                    NetworkInput::HeadsSent { peer, id }
                }
                Err(error) => {
                    tracing::debug!(%error, "heads did not leave");
                    NetworkInput::HeadsUnsent { id }
                }
            };
            inputs(input).await;
        });
    }

    fn open_exchange(&mut self, id: ExchangeId, peer: &PeerId) {
        let Some(peer) = ipfs_peer(peer) else { return self.input(NetworkInput::ExchangeClosed { id }) };
        let (outgoing, frames) = mpsc::channel(EXCHANGE_FRAMES_WAITING_MAX);
        self.exchanges.insert(id, outgoing);
        let (ipfs, inputs) = (self.ipfs.clone(), self.inputs.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(EXCHANGE_MAX, ipfs.open_exchange(CONTACT_REQUESTS, peer)).await {
                Ok(Ok(exchange)) => {
                    inputs(NetworkInput::ExchangeOpened { id }).await;
                    converse(id, exchange, frames, inputs).await;
                }
                _ => inputs(NetworkInput::ExchangeClosed { id }).await,
            }
        });
    }

    fn outgoing(&mut self, id: ExchangeId, outgoing: Outgoing) {
        let Some(frames) = self.exchanges.get(&id) else { return };
        if frames.try_send(outgoing).is_err() {
            // The peer does not read, or the stream is gone.
            self.exchanges.remove(&id);
            self.input(NetworkInput::ExchangeClosed { id });
        }
    }

    fn input(&self, input: NetworkInput) {
        tokio::spawn((self.inputs)(input));
    }
}

/// Moves frames between a stream and the core, until either side ends.
async fn converse(id: ExchangeId, exchange: Exchange, frames: mpsc::Receiver<Outgoing>, inputs: InputSender) {
    let conversation = converse_on(id, exchange, frames, &inputs);
    if tokio::time::timeout(EXCHANGE_MAX, conversation).await.is_err() {
        tracing::debug!("a contact request takes too long");
    }
    inputs(NetworkInput::ExchangeClosed { id }).await;
}

async fn converse_on(
    id: ExchangeId,
    exchange: Exchange,
    mut frames: mpsc::Receiver<Outgoing>,
    inputs: &InputSender,
) {
    let (mut reader, mut writer) = exchange.split();
    let reading = async {
        while let Ok(frame) = reader.read_frame().await {
            inputs(NetworkInput::ExchangeFrame { id, frame }).await;
        }
    };
    let writing = async {
        while let Some(Outgoing::Frame(frame)) = frames.recv().await {
            if writer.write_frame(&frame).await.is_err() {
                return;
            }
        }
        report(writer.close().await);
    };
    // The writing half ends the conversation; a peer that closed its half may still read.
    tokio::pin!(reading, writing);
    tokio::select! {
        () = &mut reading => {
            inputs(NetworkInput::ExchangeClosed { id }).await;
            writing.await;
        }
        () = &mut writing => {}
    }
}

/// The peer id of the network library.
pub(crate) fn ipfs_peer(peer: &PeerId) -> Option<dunlin_ipfs::PeerId> {
    dunlin_ipfs::PeerId::from_bytes(peer.as_bytes()).ok()
}

/// The peer id of the pure crates; `None` for one of an unknown, longer kind.
pub(crate) fn base_peer(peer: &dunlin_ipfs::PeerId) -> Option<PeerId> {
    PeerId::from_bytes(&peer.to_bytes())
}

/// Actions need not succeed: what stays without effect is asked for again.
fn report<T, E: std::fmt::Display>(outcome: Result<T, E>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "an action had no effect");
    }
}

/// The network that an address belongs to, for counting requests (`spec/security.md` Q1).
fn origin(address: &Multiaddr) -> Origin {
    let mut relay = None;
    let mut network = Origin::Unknown;
    for part in address {
        match part {
            Protocol::P2p(peer) => relay = base_peer(&peer),
            Protocol::P2pCircuit => return relay.map_or(Origin::Unknown, Origin::Relay),
            Protocol::Ip4(ip) if ip.is_loopback() => network = Origin::ThisMachine,
            Protocol::Ip6(ip) if ip.is_loopback() => network = Origin::ThisMachine,
            Protocol::Ip4(ip) => {
                let [a, b, c, _] = ip.octets();
                network = Origin::Ipv4([a, b, c]);
            }
            Protocol::Ip6(ip) if ip.to_ipv4_mapped().is_some() => network = Origin::Unknown,
            Protocol::Ip6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                network = Origin::Ipv6([a, b, c, d, e, f]);
            }
            _ => {}
        }
    }
    network
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_network_and_by_relay() {
        let relay = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let cases = [
            ("/ip4/127.0.0.1/tcp/1".to_owned(), Origin::ThisMachine),
            ("/ip6/::1/udp/1/quic-v1".to_owned(), Origin::ThisMachine),
            ("/ip4/203.0.113.9/tcp/1".to_owned(), Origin::Ipv4([203, 0, 113])),
            ("/ip6/2001:db8:1:2::3/tcp/1".to_owned(), Origin::Ipv6([0x20, 1, 0xd, 0xb8, 0, 1])),
            ("/dns4/example.org/tcp/1".to_owned(), Origin::Unknown),
            (
                format!("/ip4/203.0.113.9/tcp/1/p2p/{relay}/p2p-circuit"),
                Origin::Relay(base_peer(&relay.parse().unwrap()).unwrap()),
            ),
        ];
        for (address, expected) in cases {
            assert_eq!(origin(&address.parse().unwrap()), expected, "{address}");
        }
    }
}
