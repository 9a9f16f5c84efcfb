//! Protocol names without a leading slash.
//!
//! The network has at least one such name (`wesh/p2p/localrecord`), and libp2p for Rust neither proposes nor
//! accepts it. So a thin layer between the multiplexer and libp2p writes the name with a slash towards libp2p
//! and without one towards the peer. It looks only at the first two frames of a stream in each direction, the
//! multistream-select header and the first proposal or its echo, and is out of the way after that:
//!
//! ```text
//! on the wire   13 "/multistream/1.0.0\n"   15 "wesh/p2p/localrecord\n"    data ...
//! inside        13 "/multistream/1.0.0\n"   16 "/wesh/p2p/localrecord\n"   data ...
//! ```
//!
//! A proposal has the same bytes as its echo, so the same rule serves the side that dials and the side that
//! listens. A peer that proposes the name with a slash, as libp2p for Rust does without this layer, gets it
//! back with a slash.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{AsyncRead, AsyncWrite};
use libp2p::{
    StreamProtocol,
    core::{StreamMuxer, muxing::StreamMuxerEvent},
};

/// The frame that opens every negotiation.
const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Longest name, so that the length of its frame (with slash and newline) is one byte.
const NAME_BYTES_MAX: usize = 125;

/// Bytes read at once while a negotiation is watched. Larger than header and proposal of any real protocol.
const WATCH_BYTES: usize = 128;

/// Why a protocol name cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolNameError {
    /// The name is empty, longer than 125 bytes or has a line break. No peer could propose it.
    #[error("{0:?} cannot be a protocol name")]
    Malformed(&'static str),
    /// The name has no leading slash, which only [frame protocols](crate::Config::frame_protocols) may lack.
    #[error("{0:?} has no leading slash")]
    Bare(&'static str),
}

/// The name by which libp2p knows a protocol whose wire name is `name`.
pub(crate) fn inner_name(name: &'static str) -> Result<StreamProtocol, ProtocolNameError> {
    let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains('\n');
    let inner = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
    match StreamProtocol::try_from_owned(inner) {
        Ok(protocol) if fits => Ok(protocol),
        Ok(_) | Err(_) => Err(ProtocolNameError::Malformed(name)),
    }
}

/// Like [`inner_name`], for a protocol that was not known when the host started, so that its name cannot be
/// rewritten.
pub(crate) fn slashed_name(name: &'static str) -> Result<StreamProtocol, ProtocolNameError> {
    if name.starts_with('/') { inner_name(name) } else { Err(ProtocolNameError::Bare(name)) }
}

/// The bare names that a host speaks.
#[derive(Clone, Debug)]
pub(crate) struct BareNames(Arc<[Name]>);

impl BareNames {
    /// Takes those of `names` that have no leading slash.
    pub(crate) fn among(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(names.into_iter().filter(|name| !name.starts_with('/')).map(Name::new).collect())
    }
}

/// One name as a negotiation frame, on either side.
#[derive(Debug)]
struct Name {
    wire: Vec<u8>,
    inner: Vec<u8>,
}

impl Name {
    fn new(name: &str) -> Self {
        Self { wire: frame(name), inner: frame(&format!("/{name}")) }
    }
}

fn frame(name: &str) -> Vec<u8> {
    // `inner_name` has checked that the length fits one byte.
    let length = u8::try_from(name.len() + 1).unwrap_or(u8::MAX);
    [&[length], name.as_bytes(), b"\n"].concat()
}

/// A multiplexer whose streams speak bare names.
pub(crate) struct BareNameMuxer<M> {
    inner: M,
    names: BareNames,
}

impl<M> BareNameMuxer<M> {
    pub(crate) fn new(inner: M, names: BareNames) -> Self {
        Self { inner, names }
    }
}

impl<M> StreamMuxer for BareNameMuxer<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = BareNameStream<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(BareNameStream::new(stream, &self.names)))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(BareNameStream::new(stream, &self.names)))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// A stream that rewrites bare names while they are negotiated.
pub(crate) struct BareNameStream<S> {
    inner: S,
    reading: Rewriter,
    writing: Rewriter,
}

impl<S> BareNameStream<S> {
    fn new(inner: S, names: &BareNames) -> Self {
        Self {
            inner,
            reading: Rewriter::new(names, Direction::FromWire),
            writing: Rewriter::new(names, Direction::ToWire),
        }
    }
}

impl<S: AsyncWrite + Unpin> BareNameStream<S> {
    /// Hands rewritten bytes to the stream below until none is left.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.out.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.writing.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.writing.out.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BareNameStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            if !this.reading.out.is_empty() {
                return Poll::Ready(Ok(this.reading.take(buf)));
            }
            if this.reading.is_done() || buf.is_empty() {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut chunk = [0; WATCH_BYTES];
            let count = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            let (arrived, _) = chunk.split_at(count);
            if arrived.is_empty() {
                this.reading.finish();
                continue;
            }
            let consumed = this.reading.feed(arrived);
            let (_, untouched) = arrived.split_at(consumed);
            this.reading.out.extend_from_slice(untouched);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BareNameStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_drain(cx))?;
        if this.reading.is_done() && !this.reading.rewritten {
            // The peer has proposed something else, perhaps the name with a slash: the echo is what was
            // proposed.
            this.writing.finish();
            ready!(this.poll_drain(cx))?;
        }
        if !this.writing.is_done() {
            let consumed = this.writing.feed(buf);
            // The bytes are ours now; what the stream below does not take at once goes with the next call.
            let drained = this.poll_drain(cx)?;
            if consumed > 0 || buf.is_empty() {
                return Poll::Ready(Ok(consumed));
            }
            ready!(drained);
        }
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writing.is_done() && self.writing.out.is_empty() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| &**buf);
        self.poll_write(cx, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writing.finish();
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToWire,
    FromWire,
}

/// What a direction of a stream is waiting for.
#[derive(Debug)]
enum Watch {
    /// The header, of which so many bytes have matched. They were passed on already.
    Header(usize),
    /// The first proposal. These bytes are held because they begin one of the names.
    Proposal(Vec<u8>),
    /// Nothing: all bytes pass untouched.
    Done,
}

/// Rewrites one direction of one stream.
#[derive(Debug)]
struct Rewriter {
    names: BareNames,
    direction: Direction,
    watch: Watch,
    /// Whether the proposal was one of the names.
    rewritten: bool,
    /// Bytes to be passed on before anything else.
    out: Vec<u8>,
}

impl Rewriter {
    fn new(names: &BareNames, direction: Direction) -> Self {
        let watch = if names.0.is_empty() { Watch::Done } else { Watch::Header(0) };
        Self { names: names.clone(), direction, watch, rewritten: false, out: Vec::new() }
    }

    fn is_done(&self) -> bool {
        matches!(self.watch, Watch::Done)
    }

    /// Consumes the bytes that belong to the negotiation and returns how many those are.
    fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        for &byte in bytes {
            match &mut self.watch {
                Watch::Header(matched) => {
                    if HEADER.get(*matched) != Some(&byte) {
                        self.watch = Watch::Done;
                        break;
                    }
                    self.out.push(byte);
                    *matched += 1;
                    if *matched == HEADER.len() {
                        self.watch = Watch::Proposal(Vec::new());
                    }
                }
                Watch::Proposal(held) => {
                    held.push(byte);
                    let direction = self.direction;
                    let mut candidates = self.names.0.iter().map(|name| match direction {
                        Direction::ToWire => (&name.inner, &name.wire),
                        Direction::FromWire => (&name.wire, &name.inner),
                    });
                    match candidates.find(|(from, _)| from.starts_with(held)) {
                        None => self.finish(),
                        Some((from, to)) if from.len() == held.len() => {
                            self.out.extend_from_slice(to);
                            self.rewritten = true;
                            self.watch = Watch::Done;
                        }
                        Some(_) => {}
                    }
                }
                Watch::Done => break,
            }
            consumed += 1;
        }
        consumed
    }

    /// Stops watching; what was held passes unchanged.
    fn finish(&mut self) {
        if let Watch::Proposal(held) = mem::replace(&mut self.watch, Watch::Done) {
            self.out.extend(held);
        }
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.out.len());
        for (to, from) in buf.iter_mut().zip(self.out.drain(..count)) {
            *to = from;
        }
        if self.out.is_empty() {
            self.out = Vec::new();
        }
        count
    }
}

#[cfg(test)]
mod tests;
