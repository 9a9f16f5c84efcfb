//! Streams in which hosts give each other what a log lacks (`docs/formats/catch-up.md`): the bytes of
//! [`dunlin_wesh::catch_up`] on the network.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_base::{GroupId, PeerId};
use dunlin_ipfs::{Exchange, Ipfs};
use dunlin_log::{Checked, Checker};
use dunlin_wesh::catch_up::{self, FRAME_BYTES_MAX, Piece, Request};
use dunlin_wesh::engine::StoreKind;
use tokio::sync::{Semaphore, oneshot};

use crate::core::{NetworkInput, StreamedInput};
use crate::perform::{InputSender, base_peer};
use crate::serving::Serving;

/// Streams that are given at a time; others are refused, and ask block by block.
const STREAMS_GIVEN_MAX: usize = 8;
/// How long opening a stream and reading its request may take.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Pieces of a stream that may wait for the core: as many entries as share a commit.
const PIECES_WAITING_MAX: usize = 4;

/// A stream that was asked for.
pub(crate) struct Asked {
    pub group: GroupId,
    pub kind: StoreKind,
    pub peer: PeerId,
    pub checker: Checker,
}

/// Asks a host for a stream, and puts before the core what it gives.
pub(crate) async fn ask(
    ipfs: Ipfs,
    to: dunlin_ipfs::PeerId,
    asked: Asked,
    request: Request,
    inputs: InputSender,
) {
    let Asked { group, kind, peer, checker } = asked;
    let opening = ipfs.open_long_exchange(catch_up::PROTOCOL, to, FRAME_BYTES_MAX);
    let speaks = match tokio::time::timeout(OPEN_MAX, opening).await {
        Ok(Ok(mut exchange)) => {
            if exchange.write_frame(&request.encode()).await.is_ok() {
                let mut waiting = VecDeque::new();
                while let Ok(frame) = exchange.read_frame().await {
                    let entries = judge(checker.clone(), frame).await;
                    if waiting.len() >= PIECES_WAITING_MAX
                        && let Some(taken) = waiting.pop_front()
                    {
                        // Taken or gone, it is out of the way.
                        let _: Result<(), oneshot::error::RecvError> = taken.await;
                    }
                    let (taken, is_taken) = oneshot::channel();
                    let piece = StreamedInput { group, kind, peer: peer.clone(), entries, taken };
                    inputs(NetworkInput::Streamed(Box::new(piece))).await;
                    waiting.push_back(is_taken);
                }
            }
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a host gives no stream");
            false
        }
        Err(_elapsed) => false,
    };
    inputs(NetworkInput::StreamEnded { group, kind, peer, speaks }).await;
}

/// Checks signatures, where nothing waits for it. What is refused is left out: it is asked for again, and then counts.
async fn judge(checker: Checker, frame: Bytes) -> Vec<Checked> {
    let judging = tokio::task::spawn_blocking(move || {
        catch_up::blocks(&frame).filter_map(|block| checker.check(block).ok()).collect()
    });
    judging.await.unwrap_or_default()
}

/// Gives streams to those who may have them.
#[derive(Clone)]
pub(crate) struct Giver {
    serving: Arc<Serving>,
    inputs: InputSender,
    places: Arc<Semaphore>,
}

impl Giver {
    pub fn new(serving: Arc<Serving>, inputs: InputSender) -> Self {
        Self { serving, inputs, places: Arc::new(Semaphore::new(STREAMS_GIVEN_MAX)) }
    }

    /// Takes up a stream that a peer opened.
    pub fn opened(&self, exchange: Exchange) {
        let giver = self.clone();
        tokio::spawn(async move { giver.give(exchange).await });
    }

    async fn give(&self, mut exchange: Exchange) {
        let peer = exchange.peer();
        let Ok(Ok(frame)) = tokio::time::timeout(OPEN_MAX, exchange.read_frame()).await else { return };
        let Some(request) = Request::decode(&frame) else { return };
        // It may be about to show that it is of the group.
        if !self.serving.waits_for(&peer, request.log).await {
            return;
        }
        // Only now: strangers, who wait in vain, take no place. Dropping the stream says that there is none.
        let Ok(_place) = self.places.try_acquire() else { return };
        let mut from = None;
        while let Some(piece) = self.read(request.clone(), from, peer).await {
            if exchange.write_frame(piece.frame.as_bytes()).await.is_err() {
                return;
            }
            if let Some(peer) = base_peer(&peer) {
                for entry in piece.given {
                    (self.inputs)(NetworkInput::BlockServed { peer: peer.clone(), entry }).await;
                }
            }
            from = Some(piece.next);
        }
        let _ = exchange.close().await;
    }

    /// Reads one piece; `None` at the end, or when the peer may not have it any more.
    async fn read(&self, request: Request, from: Option<u64>, peer: dunlin_ipfs::PeerId) -> Option<Piece> {
        let serving = self.serving.clone();
        let reading = tokio::task::spawn_blocking(move || {
            if !serving.may_have(&peer, request.log) {
                return Ok(None);
            }
            Piece::read(serving.store(), &request, from)
        });
        match reading.await.ok()? {
            Ok(piece) => piece,
            Err(error) => {
                tracing::warn!(%error, "a log cannot be read");
                None
            }
        }
    }
}
