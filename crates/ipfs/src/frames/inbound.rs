//! Receiving: what one peer may hold open for one protocol, and reading its frames.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use libp2p::{PeerId, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Budget, FirstByte, read_frame};
use crate::event::{Event, Outbox};

/// Streams one peer may have open towards us for one protocol. More are reset at once.
pub const INBOUND_STREAMS_MAX: usize = 64;

/// Bytes one peer may have under way towards us for one protocol. Two of the largest frames there are (4
/// MiB).
pub const INBOUND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The limits of one peer and protocol.
#[derive(Debug)]
pub(crate) struct Lane {
    streams: Arc<Semaphore>,
    pub(crate) bytes: Semaphore,
}

impl Lane {
    /// Takes a place for one more stream, or `None` if the peer has enough of them. The place is free when
    /// dropped.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().ok()
    }
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            streams: Arc::new(Semaphore::new(INBOUND_STREAMS_MAX)),
            bytes: Semaphore::new(INBOUND_BYTES_MAX),
        }
    }
}

/// The lanes of all connected peers.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<BTreeMap<(PeerId, &'static str), Arc<Lane>>>);

impl Lanes {
    pub(crate) fn lane(&self, peer: PeerId, protocol: &'static str) -> Arc<Lane> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((peer, protocol)).or_default().clone()
    }

    /// Forgets a peer that is gone. Its streams have ended with its connections.
    pub(crate) fn forget(&self, peer: PeerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _), _| *known != peer);
    }
}

/// Reads the one frame of a stream and reports it. Dropping the stream then resets it, as the protocols have
/// it.
pub(crate) async fn receive_one(
    protocol: &'static str,
    frame_bytes_max: usize,
    peer: PeerId,
    mut stream: Stream,
    lane: Arc<Lane>,
    events: Outbox,
) {
    let budget = Budget { memory: Some(&lane.bytes), pace: None };
    match read_frame(&mut stream, frame_bytes_max, FirstByte::Soon, budget).await {
        Ok(bytes) => events.send(Event::Frame { protocol, peer, bytes }).await,
        Err(error) => tracing::debug!(%peer, protocol, %error, "no frame from a stream"),
    }
}
