//! Reading and writing one frame. Knows streams of bytes alone and no libp2p, so that the fuzzer does without it too.

use std::{future::Future, io, sync::Mutex, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::pace::{self, Pace};

/// Time a peer has from opening a stream to the first byte of its frame.
pub const FRAME_FIRST_BYTE_MAX: Duration = Duration::from_secs(10);

/// Time a peer may let pass in the middle of a frame without a single byte.
pub const FRAME_SILENCE_MAX: Duration = Duration::from_secs(30);

/// Time a whole frame may take, however steadily it trickles.
pub const FRAME_TOTAL_MAX: Duration = Duration::from_secs(120);

/// Step by which the buffer for a frame grows. A peer has to send this much before we reserve as much again.
const BUFFER_GROWTH_BYTES: usize = 64 * 1024;

/// Bytes of the longest varint that a length may use; more would not fit 63 bits.
const LENGTH_BYTES_MAX: usize = 9;

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFrameError {
    /// The peer closed the stream between frames. Nothing is lost.
    #[error("the peer closed the stream")]
    Closed,
    /// The length is not a shortest-form varint. Drop the stream.
    #[error("the length of the frame is malformed")]
    BadLength,
    /// The peer announced more than the protocol allows. Drop the stream; nothing was read or allocated.
    #[error("a frame of {announced} bytes was announced, {allowed} are allowed")]
    TooLong {
        /// Bytes the peer wanted to send.
        announced: u64,
        /// Bytes the protocol allows.
        allowed: usize,
    },
    /// The peer missed a deadline. Drop the stream.
    #[error("the peer fell silent")]
    Silent,
    /// The stream broke in the middle of a frame.
    #[error("the stream broke")]
    Broken(#[from] io::Error),
}

/// Why a frame could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFrameError {
    /// The frame is longer than the protocol allows. Nothing was sent.
    #[error("a frame of {length} bytes, {allowed} are allowed")]
    TooLong {
        /// Bytes of the frame.
        length: usize,
        /// Bytes the protocol allows.
        allowed: usize,
    },
    /// The peer took no bytes before the deadline.
    #[error("the peer takes nothing")]
    Stalled,
    /// The stream broke; how much the peer got is unknown.
    #[error("the stream broke")]
    Broken(#[from] io::Error),
}

/// How long to wait for the first byte of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FirstByte {
    /// The peer opened the stream to send a frame at once.
    Soon,
    /// The stream stays open between frames.
    Whenever,
}

/// What bounds the frames of one peer.
#[derive(Clone, Copy, Default)]
pub(crate) struct Budget<'b> {
    /// The bytes of a body are taken from here for as long as they arrive, so that one peer cannot fill memory with many
    /// half-sent frames.
    pub memory: Option<&'b Semaphore>,
    /// How fast bodies may come.
    pub pace: Option<&'b Mutex<Pace>>,
}

/// Reads one frame of at most `bytes_max` bytes, within `budget`.
pub(crate) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    bytes_max: usize,
    first_byte: FirstByte,
    budget: Budget<'_>,
) -> Result<Bytes, ReadFrameError> {
    let first = match first_byte {
        FirstByte::Soon => in_time(FRAME_FIRST_BYTE_MAX, read_byte(stream)).await?,
        FirstByte::Whenever => read_byte(stream).await?,
    };
    let Some(first) = first else { return Err(ReadFrameError::Closed) };
    let deadline = Instant::now() + FRAME_TOTAL_MAX;
    let whole = async {
        let length = in_time(FRAME_SILENCE_MAX, read_length(stream, first)).await?;
        let length = match usize::try_from(length) {
            Ok(length) if length <= bytes_max => length,
            Ok(_) | Err(_) => return Err(ReadFrameError::TooLong { announced: length, allowed: bytes_max }),
        };
        let _reserved = match (budget.memory, u32::try_from(length)) {
            (Some(budget), Ok(permits)) => budget.acquire_many(permits).await.ok(),
            (None, _) | (_, Err(_)) => None,
        };
        if let Some(pace) = budget.pace {
            pace::keep(pace, length).await;
        }
        read_body(stream, length).await
    };
    timeout_at(deadline, whole).await.map_err(|_| ReadFrameError::Silent)?
}

/// Writes one frame and flushes it.
pub(crate) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
    bytes_max: usize,
) -> Result<(), WriteFrameError> {
    if frame.len() > bytes_max {
        return Err(WriteFrameError::TooLong { length: frame.len(), allowed: bytes_max });
    }
    let mut buffer = unsigned_varint::encode::usize_buffer();
    let length = unsigned_varint::encode::usize(frame.len(), &mut buffer);
    let whole = async {
        // One write for a short frame: a length alone in a packet costs as much as both.
        if frame.len() <= BUFFER_GROWTH_BYTES {
            stream.write_all(&[length, frame].concat()).await?;
        } else {
            stream.write_all(length).await?;
            stream.write_all(frame).await?;
        }
        stream.flush().await
    };
    timeout(FRAME_TOTAL_MAX, whole).await.map_err(|_| WriteFrameError::Stalled)??;
    Ok(())
}

async fn in_time<T>(
    limit: Duration,
    reading: impl Future<Output = Result<T, ReadFrameError>>,
) -> Result<T, ReadFrameError> {
    timeout(limit, reading).await.map_err(|_| ReadFrameError::Silent)?
}

async fn read_byte(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<u8>, ReadFrameError> {
    let mut byte = [0];
    let count = stream.read(&mut byte).await?;
    let [byte] = byte;
    Ok((count > 0).then_some(byte))
}

async fn read_length(stream: &mut (impl AsyncRead + Unpin), first: u8) -> Result<u64, ReadFrameError> {
    let mut prefix = Vec::with_capacity(LENGTH_BYTES_MAX);
    prefix.push(first);
    while prefix.last().is_some_and(|byte| byte & 0x80 != 0) {
        if prefix.len() == LENGTH_BYTES_MAX {
            return Err(ReadFrameError::BadLength);
        }
        let Some(byte) = read_byte(stream).await? else {
            return Err(ReadFrameError::Broken(io::ErrorKind::UnexpectedEof.into()));
        };
        prefix.push(byte);
    }
    // Refuses forms that are not the shortest.
    let (length, _) = unsigned_varint::decode::u64(&prefix).map_err(|_| ReadFrameError::BadLength)?;
    Ok(length)
}

async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Bytes, ReadFrameError> {
    let mut body = BytesMut::new();
    let mut filled = 0;
    while filled < length {
        if filled == body.len() {
            body.resize(length.min(filled + BUFFER_GROWTH_BYTES), 0);
        }
        let (_, free) = body.split_at_mut(filled);
        let count = in_time(FRAME_SILENCE_MAX, async { Ok(stream.read(free).await?) }).await?;
        if count == 0 {
            return Err(ReadFrameError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        filled += count;
    }
    Ok(body.freeze())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
