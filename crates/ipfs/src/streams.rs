//! Raw streams by protocol name: the part of the host below frames, exchanges and bitswap.
//!
//! Every stream that a peer opens for an accepted protocol is handed to the host loop, none is dropped
//! because a reader was busy; the host loop itself is slowed down when its consumer is slow, and libp2p then
//! stops reading from the connection.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::future::{Ready, ready};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandlerInEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::oneshot;

use crate::unlisted::is_unlisted;

/// Why a stream to a peer could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStreamError {
    /// There is no connection to the peer. Dial it first.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// The peer does not speak the protocol (now). Asking again helps only after it has announced it.
    #[error("the peer does not speak the protocol")]
    Unsupported,
    /// The peer did not answer the proposal in time. Try again, or treat the peer as unreachable.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The connection broke while the stream was being opened. Dial again.
    #[error("the connection broke")]
    Broken(#[source] Option<io::Error>),
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] crate::Stopped),
}

/// Where the outcome of an opening goes.
pub(crate) type OpenReply = oneshot::Sender<Result<(Stream, StreamProtocol), OpenStreamError>>;

/// A stream that a peer has opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// Opens and accepts streams.
#[derive(Default)]
pub(crate) struct Behaviour {
    accepted: Accepted,
    connections: BTreeMap<PeerId, Vec<Link>>,
    actions: VecDeque<ToSwarm<Inbound, FromBehaviour>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Starts or stops accepting `protocol` on all connections; peers are told by identify push.
    pub(crate) fn accept(&mut self, protocol: StreamProtocol, on: bool) {
        if !self.accepted.set(protocol, on) {
            return;
        }
        for (peer, links) in &self.connections {
            for link in links {
                self.actions.push_back(ToSwarm::NotifyHandler {
                    peer_id: *peer,
                    handler: NotifyHandler::One(link.connection),
                    event: FromBehaviour::AcceptedChanged,
                });
            }
        }
        self.wake();
    }

    /// Opens a stream for the first of `protocols` that the peer speaks.
    pub(crate) fn open(&mut self, peer: PeerId, protocols: Vec<StreamProtocol>, reply: OpenReply) {
        let best = self.connections.get(&peer).and_then(|links| links.iter().min_by_key(|link| link.relayed));
        let Some(link) = best else {
            // The caller may have lost interest; then there is nobody to tell.
            let _ = reply.send(Err(OpenStreamError::NotConnected(peer)));
            return;
        };
        self.actions.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(link.connection),
            event: FromBehaviour::Open { protocols, reply },
        });
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// One connection to a peer. Streams prefer the direct ones.
struct Link {
    connection: ConnectionId,
    relayed: bool,
}

/// The protocols that peers may open, shared with every connection.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<Vec<StreamProtocol>>>);

impl Accepted {
    /// Returns whether anything changed.
    fn set(&self, protocol: StreamProtocol, on: bool) -> bool {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (list.iter().position(|known| *known == protocol), on) {
            (None, true) => list.push(protocol),
            (Some(at), false) => {
                list.remove(at);
            }
            (None, false) | (Some(_), true) => return false,
        }
        true
    }

    fn list(&self) -> Vec<StreamProtocol> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(self.accepted.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(self.accepted.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.connections.entry(established.peer_id).or_default().push(Link {
                    connection: established.connection_id,
                    relayed: established.endpoint.is_relayed(),
                });
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(links) = self.connections.get_mut(&closed.peer_id) {
                    links.retain(|link| link.connection != closed.connection_id);
                    if links.is_empty() {
                        self.connections.remove(&closed.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: Negotiated) {
        let Negotiated { stream, protocol } = event;
        self.actions.push_back(ToSwarm::GenerateEvent(Inbound { peer, protocol, stream }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Inbound, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the behaviour asks of one connection.
pub(crate) enum FromBehaviour {
    /// Open a stream. If the connection ends first, the reply is dropped, which its owner sees.
    Open { protocols: Vec<StreamProtocol>, reply: OpenReply },
    /// Look at the accepted protocols again.
    AcceptedChanged,
}

impl fmt::Debug for FromBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { protocols, .. } => f.debug_tuple("Open").field(protocols).finish(),
            Self::AcceptedChanged => f.write_str("AcceptedChanged"),
        }
    }
}

/// A stream with the protocol that both sides agreed on.
#[derive(Debug)]
pub(crate) struct Negotiated {
    stream: Stream,
    protocol: StreamProtocol,
}

/// The streams of one connection.
pub(crate) struct Handler {
    accepted: Accepted,
    /// What of that the connection knows. Unlisted protocols come and go by themselves, never in one step with
    /// others and never at the beginning: see [`crate::unlisted`].
    told: Vec<StreamProtocol>,
    openings: VecDeque<(Vec<StreamProtocol>, OpenReply)>,
    arrived: VecDeque<Negotiated>,
    waker: Option<Waker>,
}

impl Handler {
    fn new(accepted: Accepted) -> Self {
        let told = accepted.list().into_iter().filter(|protocol| !is_unlisted(protocol)).collect();
        Self { accepted, told, openings: VecDeque::new(), arrived: VecDeque::new(), waker: None }
    }

    /// Takes over what is accepted: first what is listed, and when that is told, the rest.
    fn tell_accepted(&mut self) {
        let (unlisted, listed): (Vec<_>, Vec<_>) = self.accepted.list().into_iter().partition(is_unlisted);
        let (told_unlisted, told): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.told).into_iter().partition(is_unlisted);
        self.told =
            if told == listed { [listed, unlisted].concat() } else { [listed, told_unlisted].concat() };
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = FromBehaviour;
    type ToBehaviour = Negotiated;
    type InboundProtocol = AnyOf;
    type OutboundProtocol = AnyOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenReply;

    fn listen_protocol(&self) -> SubstreamProtocol<AnyOf> {
        SubstreamProtocol::new(AnyOf(self.told.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        // A messenger keeps its peers; the host closes what it no longer wants.
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<AnyOf, OpenReply, Negotiated>> {
        if let Some(arrived) = self.arrived.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(arrived));
        }
        if let Some((protocols, reply)) = self.openings.pop_front() {
            let protocol = SubstreamProtocol::new(AnyOf(protocols), reply);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.tell_accepted();
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: FromBehaviour) {
        match event {
            FromBehaviour::Open { protocols, reply } => self.openings.push_back((protocols, reply)),
            // They are looked at each time the connection polls; being woken is all it needs.
            FromBehaviour::AcceptedChanged => {}
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, AnyOf, AnyOf, (), OpenReply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, info: () }) => {
                self.arrived.push_back(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info: reply }) => {
                // Nobody waiting any more: dropping the stream resets it.
                let _ = reply.send(Ok((protocol.stream, protocol.protocol)));
            }
            ConnectionEvent::DialUpgradeError(failed) => {
                let cause = match failed.error {
                    StreamUpgradeError::Timeout => OpenStreamError::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenStreamError::Unsupported,
                    StreamUpgradeError::Io(error) => OpenStreamError::Broken(Some(error)),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = failed.info.send(Err(cause));
            }
            _ => {}
        }
    }
}

/// Negotiates one of a list of protocols and hands out the bare stream.
pub(crate) struct AnyOf(Vec<StreamProtocol>);

impl UpgradeInfo for AnyOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyOf {
    type Output = Negotiated;
    type Error = Infallible;
    type Future = Ready<Result<Negotiated, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok(Negotiated { stream, protocol }))
    }
}

impl OutboundUpgrade<Stream> for AnyOf {
    type Output = Negotiated;
    type Error = Infallible;
    type Future = Ready<Result<Negotiated, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok(Negotiated { stream, protocol }))
    }
}
