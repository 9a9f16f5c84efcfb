//! What a host reports.

use std::sync::Arc;

use bytes::Bytes;
use cid::Cid;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{exchange::Exchange, frames::SendFrameError, gossip::Ticket};

/// Events that may wait for the consumer. When so many wait, the host stops reading from the network.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Bytes of frames, messages and blocks that may wait for the consumer, in all. Sixteen of the largest
/// frames.
pub const EVENT_BYTES_WAITING_MAX: usize = 64 * 1024 * 1024;

/// Something happened on the network.
///
/// Events about connections and topics arrive in the order in which they happened. Frames, exchanges and
/// blocks are read by tasks of their own and may overtake them by a moment: a frame can come before the
/// [`Event::PeerConnected`] of its sender.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The host can be reached at this address from now on.
    Listening {
        /// A local address, without the peer id.
        address: Multiaddr,
    },
    /// The host can no longer be reached at this address.
    ListenerClosed {
        /// The address that was reported before.
        address: Multiaddr,
    },
    /// A peer has its first connection with us.
    PeerConnected {
        /// Who.
        peer: PeerId,
        /// The address at the other end.
        address: Multiaddr,
        /// Whether the peer dialled us.
        inbound: bool,
    },
    /// The last connection with a peer has ended.
    PeerDisconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer has said, for the first time or again, which protocols it speaks.
    PeerIdentified {
        /// Who.
        peer: PeerId,
        /// Protocol names. Names without a leading slash do not show here even if the peer speaks them.
        protocols: Vec<String>,
        /// Addresses that the peer claims to listen on.
        listen_addresses: Vec<Multiaddr>,
    },
    /// A connected peer subscribes to a topic.
    TopicJoined {
        /// Who.
        peer: PeerId,
        /// The topic, which need not be one of ours.
        topic: String,
    },
    /// A connected peer no longer subscribes to a topic.
    TopicLeft {
        /// Who.
        peer: PeerId,
        /// The topic.
        topic: String,
    },
    /// A message on a subscribed topic, for the first time, with a valid signature of its author.
    Message {
        /// The topic.
        topic: String,
        /// The peer that passed it on to us.
        from: PeerId,
        /// The peer that signed it.
        author: PeerId,
        /// The payload.
        data: Bytes,
        /// By which it is judged, if [`Config::judged_topics`](crate::Config::judged_topics) asks for that.
        ticket: Ticket,
    },
    /// A frame on one of [`Config::frame_protocols`](crate::Config::frame_protocols).
    Frame {
        /// The wire name of the protocol.
        protocol: &'static str,
        /// The sender.
        peer: PeerId,
        /// The frame without its length.
        bytes: Bytes,
    },
    /// A frame given to [`Ipfs::send_frame`](crate::Ipfs::send_frame) did not arrive. The ones behind it are
    /// still tried.
    FrameNotSent {
        /// The wire name of the protocol.
        protocol: &'static str,
        /// The peer it was meant for.
        peer: PeerId,
        /// Why.
        cause: SendFrameError,
    },
    /// A peer has opened an exchange on a protocol given to
    /// [`Ipfs::accept_exchanges`](crate::Ipfs::accept_exchanges).
    ExchangeOpened {
        /// The wire name of the protocol.
        protocol: &'static str,
        /// Who.
        peer: PeerId,
        /// The open exchange. Dropping it tells the peer that we are not interested.
        exchange: Exchange,
    },
    /// A wanted block is here. Its digest matches its CID.
    Block {
        /// Which.
        cid: Cid,
        /// The block.
        bytes: Bytes,
        /// The peer that had it.
        peer: PeerId,
    },
    /// No peer that was asked for the block has it: each said so, fell silent or is gone. It is no longer
    /// wanted.
    BlockMissing {
        /// Which.
        cid: Cid,
    },
    /// A block has been sent to a peer that wanted it.
    BlockServed {
        /// Who.
        peer: PeerId,
        /// Which.
        cid: Cid,
    },
    /// Somebody announces itself on the local network. Reported for each address; it is not dialled by
    /// itself.
    LanPeer {
        /// Who it claims to be.
        peer: PeerId,
        /// Where.
        address: Multiaddr,
    },
    /// A peer on the local network has not announced itself for a while.
    LanPeerGone {
        /// Who it claimed to be.
        peer: PeerId,
        /// Where it was.
        address: Multiaddr,
    },
}

impl Event {
    /// Bytes that the event keeps in memory, when a peer chose how many.
    fn bytes(&self) -> usize {
        match self {
            Self::Message { data: bytes, .. } | Self::Frame { bytes, .. } | Self::Block { bytes, .. } => {
                bytes.len()
            }
            _ => 0,
        }
    }
}

/// The events of a host, in order.
///
/// Read them all the time: a host whose events are not read stops reading from its peers after
/// [`EVENTS_WAITING_MAX`] of them.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Waiting>);

impl Events {
    /// Waits for the next event. `None` means that the host has stopped. Nothing is lost if the future is
    /// dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await.map(|waiting| waiting.event)
    }

    /// Returns the next event if it is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok().map(|waiting| waiting.event)
    }
}

/// An event with the memory that is reserved for it until it is read.
#[derive(Debug)]
struct Waiting {
    event: Event,
    _memory: OwnedSemaphorePermit,
}

/// Where the parts of the host put their events. It does not keep the queue open: that is for the host alone,
/// so that the events end with it.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    events: mpsc::WeakSender<Waiting>,
    memory: Arc<Semaphore>,
}

/// Keeps the queue of events open.
#[derive(Debug)]
pub(crate) struct Open(#[expect(dead_code, reason = "held, not read")] mpsc::Sender<Waiting>);

impl Outbox {
    pub(crate) fn new() -> (Self, Open, Events) {
        let (events, waiting) = mpsc::channel(EVENTS_WAITING_MAX);
        let memory = Arc::new(Semaphore::new(EVENT_BYTES_WAITING_MAX));
        (Self { events: events.downgrade(), memory }, Open(events), Events(waiting))
    }

    /// Waits for room and reports an event. If nobody listens any more, the event is lost.
    pub(crate) async fn send(&self, event: Event) {
        let mut event = Some(event);
        self.send_from(&mut event).await;
    }

    /// Like [`Self::send`], but the event is taken only at the moment it is sent, so that the future may be
    /// dropped.
    pub(crate) async fn send_from(&self, slot: &mut Option<Event>) {
        let bytes = slot.as_ref().map_or(0, Event::bytes).min(EVENT_BYTES_WAITING_MAX);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let Ok(memory) = self.memory.clone().acquire_many_owned(permits).await else { return };
        let events = self.events.upgrade();
        let place = match &events {
            Some(events) => events.reserve().await.ok(),
            None => None,
        };
        let Some(event) = slot.take() else { return };
        if let Some(place) = place {
            place.send(Waiting { event, _memory: memory });
        }
    }
}
