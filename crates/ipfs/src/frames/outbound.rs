//! Sending: one queue and one task per peer and protocol, so that frames leave in order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _, stream::FuturesUnordered};
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{FRAME_TOTAL_MAX, WriteFrameError, write_frame};
use crate::{
    config::Carrier,
    event::{Event, Outbox},
    host::Opener,
    peers::PeerList,
    streams::OpenStreamError,
};

/// Frames that may wait for one peer and protocol. A member of 100 groups greets a peer with 200 frames at
/// once.
pub const SEND_QUEUE_FRAMES_MAX: usize = 1024;

/// Bytes that may wait for one peer and protocol: four of the largest frames.
pub const SEND_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Streams that are closed on our side and still read by the peer. Dropping them earlier would take unread
/// bytes back.
const LINGERING_MAX: usize = 32;

/// Time a peer has to read a frame that has left us completely.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// Why a frame was not accepted for sending, or did not arrive later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendFrameError {
    /// The protocol is not among [`Config::frame_protocols`](crate::Config::frame_protocols).
    #[error("{0} is not a frame protocol of this host")]
    UnknownProtocol(&'static str),
    /// Too much waits for this peer already. Let it drain, then send what is still of interest.
    #[error("the queue for this peer is full")]
    QueueFull,
    /// No stream could be opened.
    #[error("no stream to the peer")]
    Open(#[from] OpenStreamError),
    /// The frame is too long, or writing failed half way.
    #[error("the frame could not be written")]
    Write(#[from] WriteFrameError),
}

/// The queues of all connected peers.
pub(crate) struct Outbound {
    opener: Opener,
    events: Outbox,
    peers: Arc<PeerList>,
    runtime: Handle,
    queues: Mutex<BTreeMap<(PeerId, &'static str), Queue>>,
}

struct Queue {
    frames: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
}

struct Queued {
    frame: Bytes,
    /// Who waits for the outcome; otherwise a failure becomes an event.
    waiting: Option<oneshot::Sender<Result<(), SendFrameError>>>,
    _room: OwnedSemaphorePermit,
}

impl Outbound {
    pub(crate) fn new(opener: Opener, events: Outbox, peers: Arc<PeerList>, runtime: Handle) -> Self {
        Self { opener, events, peers, runtime, queues: Mutex::default() }
    }

    /// Puts a frame in the queue of a connected peer.
    pub(crate) fn send(&self, carrier: &Carrier, peer: PeerId, frame: Bytes) -> Result<(), SendFrameError> {
        self.enqueue(carrier, peer, frame, None)
    }

    /// Puts a frame in the queue of a connected peer, and waits until it has left whole.
    pub(crate) async fn deliver(
        &self,
        carrier: &Carrier,
        peer: PeerId,
        frame: Bytes,
    ) -> Result<(), SendFrameError> {
        let (outcome, waiting) = oneshot::channel();
        self.enqueue(carrier, peer, frame, Some(outcome))?;
        // A dropped outcome means that the queue ended with its peer.
        waiting.await.unwrap_or(Err(OpenStreamError::NotConnected(peer).into()))
    }

    fn enqueue(
        &self,
        carrier: &Carrier,
        peer: PeerId,
        frame: Bytes,
        waiting: Option<oneshot::Sender<Result<(), SendFrameError>>>,
    ) -> Result<(), SendFrameError> {
        if frame.len() > carrier.frame_bytes_max {
            return Err(
                WriteFrameError::TooLong { length: frame.len(), allowed: carrier.frame_bytes_max }.into()
            );
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked under the lock: `forget` runs after the peer has left the list, so no queue outlives its
        // peer.
        if !self.peers.is_connected(&peer) {
            return Err(OpenStreamError::NotConnected(peer).into());
        }
        let queue = queues.entry((peer, carrier.name)).or_insert_with(|| self.start(carrier, peer));
        let permits = u32::try_from(frame.len()).map_err(|_| SendFrameError::QueueFull)?;
        let room =
            queue.bytes.clone().try_acquire_many_owned(permits).map_err(|_| SendFrameError::QueueFull)?;
        queue.frames.try_send(Queued { frame, waiting, _room: room }).map_err(|_| SendFrameError::QueueFull)
    }

    /// Ends the queues of a peer that is gone. Frames still in them fail one by one and are reported.
    pub(crate) fn forget(&self, peer: PeerId) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _), _| *known != peer);
    }

    fn start(&self, carrier: &Carrier, peer: PeerId) -> Queue {
        let (frames, waiting) = mpsc::channel(SEND_QUEUE_FRAMES_MAX);
        let sender = Sender {
            peer,
            name: carrier.name,
            protocol: carrier.protocol.clone(),
            opener: self.opener.clone(),
            events: self.events.clone(),
        };
        self.runtime.spawn(sender.run(waiting));
        Queue { frames, bytes: Arc::new(Semaphore::new(SEND_QUEUE_BYTES_MAX)) }
    }
}

/// Empties one queue.
struct Sender {
    peer: PeerId,
    name: &'static str,
    protocol: StreamProtocol,
    opener: Opener,
    events: Outbox,
}

impl Sender {
    async fn run(self, mut waiting: mpsc::Receiver<Queued>) {
        let mut lingering = FuturesUnordered::new();
        loop {
            tokio::select! {
                queued = waiting.recv(), if lingering.len() < LINGERING_MAX => {
                    let Some(queued) = queued else { break };
                    let outcome = match self.send(&queued.frame).await {
                        Ok(stream) => {
                            lingering.push(linger(stream));
                            Ok(())
                        }
                        Err(cause) => Err(cause),
                    };
                    match (queued.waiting, outcome) {
                        // Whoever waited may have stopped.
                        (Some(waiting), outcome) => drop(waiting.send(outcome)),
                        (None, Ok(())) => {}
                        (None, Err(cause)) => {
                            let (protocol, peer) = (self.name, self.peer);
                            self.events.send(Event::FrameNotSent { protocol, peer, cause }).await;
                        }
                    }
                }
                Some(()) = lingering.next() => {}
            }
        }
        lingering.collect::<()>().await;
    }

    async fn send(&self, frame: &[u8]) -> Result<Stream, SendFrameError> {
        let (mut stream, _) = self.opener.open(self.peer, vec![self.protocol.clone()]).await?;
        write_frame(&mut stream, frame, frame.len()).await?;
        timeout(FRAME_TOTAL_MAX, stream.close())
            .await
            .map_err(|_| WriteFrameError::Stalled)?
            .map_err(WriteFrameError::Broken)?;
        Ok(stream)
    }
}

/// Waits until the peer has let go of the stream. It has nothing to say on it.
async fn linger(mut stream: Stream) {
    let mut nothing = [0];
    // Whatever comes, end, reset or silence, the stream is finished.
    let _ = timeout(LINGER_MAX, stream.read(&mut nothing)).await;
}
