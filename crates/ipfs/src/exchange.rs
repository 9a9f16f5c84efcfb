//! Conversations of a few frames both ways on one stream, for handshakes.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    AsyncReadExt as _, AsyncWriteExt as _,
    io::{ReadHalf, WriteHalf},
};
use libp2p::{PeerId, Stream};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::frames::{Budget, FirstByte, ReadFrameError, WriteFrameError, read_frame, write_frame};

/// Longest frame of an exchange, in bytes without the length, unless it is opened or accepted as a long one.
pub const EXCHANGE_FRAME_BYTES_MAX: usize = 2048;

/// Time that closing may take before the stream is dropped as it is.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// A stream of frames both ways with one peer. Dropping it resets the stream.
///
/// Each frame has the deadlines of [`read_frame`](Self::read_frame); the time that the whole exchange may
/// take is the caller's to limit.
pub struct Exchange {
    peer: PeerId,
    stream: Stream,
    frame_bytes_max: usize,
    _place: Option<OwnedSemaphorePermit>,
}

impl Exchange {
    pub(crate) fn new(
        peer: PeerId,
        stream: Stream,
        frame_bytes_max: usize,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { peer, stream, frame_bytes_max, _place: place }
    }

    /// The peer at the other end, whose identity the connection has proven.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Waits for the next frame: up to [`FRAME_FIRST_BYTE_MAX`](crate::FRAME_FIRST_BYTE_MAX) for its
    /// beginning. Not to be dropped half way.
    pub async fn read_frame(&mut self) -> Result<Bytes, ReadFrameError> {
        read_frame(&mut self.stream, self.frame_bytes_max, FirstByte::Soon, Budget::default()).await
    }

    /// Sends one frame at once.
    pub async fn write_frame(&mut self, frame: &[u8]) -> Result<(), WriteFrameError> {
        write_frame(&mut self.stream, frame, self.frame_bytes_max).await
    }

    /// Says that nothing more will be written and waits until the peer has closed as well, or for ten
    /// seconds: what was written last is lost if the stream is dropped before the peer has read it.
    pub async fn close(mut self) -> Result<(), WriteFrameError> {
        let both_ways = async {
            self.stream.close().await?;
            while let Ok(_ignored) = self.read_frame().await {}
            Ok(())
        };
        timeout(CLOSE_MAX, both_ways).await.map_err(|_| WriteFrameError::Stalled)?
    }
}

/// The reading half of an [`Exchange`].
pub struct ExchangeReader {
    stream: ReadHalf<Stream>,
    frame_bytes_max: usize,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

/// The writing half of an [`Exchange`].
pub struct ExchangeWriter {
    stream: WriteHalf<Stream>,
    frame_bytes_max: usize,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl Exchange {
    /// Takes the two directions apart, for tasks that read and write independently.
    pub fn split(self) -> (ExchangeReader, ExchangeWriter) {
        let (reading, writing) = self.stream.split();
        let frame_bytes_max = self.frame_bytes_max;
        let place = self._place.map(Arc::new);
        (
            ExchangeReader { stream: reading, frame_bytes_max, _place: place.clone() },
            ExchangeWriter { stream: writing, frame_bytes_max, _place: place },
        )
    }
}

impl ExchangeReader {
    /// Waits for the next frame: see [`Exchange::read_frame`].
    pub async fn read_frame(&mut self) -> Result<Bytes, ReadFrameError> {
        read_frame(&mut self.stream, self.frame_bytes_max, FirstByte::Soon, Budget::default()).await
    }
}

impl ExchangeWriter {
    /// Sends one frame at once.
    pub async fn write_frame(&mut self, frame: &[u8]) -> Result<(), WriteFrameError> {
        write_frame(&mut self.stream, frame, self.frame_bytes_max).await
    }

    /// Says that nothing more will be written. The stream stays until the reading half is dropped too.
    pub async fn close(mut self) -> Result<(), WriteFrameError> {
        timeout(CLOSE_MAX, self.stream.close()).await.map_err(|_| WriteFrameError::Stalled)??;
        Ok(())
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("peer", &self.peer).finish_non_exhaustive()
    }
}
