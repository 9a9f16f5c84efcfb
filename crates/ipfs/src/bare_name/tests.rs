use std::collections::VecDeque;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, executor::block_on, future::poll_fn};
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["wesh/p2p/localrecord", "wesh/p2p/other", "/with/slash"];
const INNER: &[u8] = b"\x13/multistream/1.0.0\n\x16/wesh/p2p/localrecord\n";
const WIRE: &[u8] = b"\x13/multistream/1.0.0\n\x15wesh/p2p/localrecord\n";

#[test]
fn a_proposal_is_rewritten_in_both_directions_however_it_is_split() {
    for step in 1..=INNER.len() + 4 {
        let (wire, inner) = through(&[INNER, b"data"].concat(), &[WIRE, b"DATA"].concat(), step, step);

        assert_eq!(wire, [WIRE, b"data"].concat(), "written in steps of {step}");
        assert_eq!(inner, [INNER, b"DATA"].concat(), "read in steps of {step}");
    }
}

#[test]
fn everything_else_passes_untouched() {
    let header = HEADER;
    for bytes in [
        &b""[..],
        b"no negotiation at all",
        &header[..7],
        header,
        &[header, b"\x16/wesh/p2p/localrecor"].concat(),
        &[header, b"\x15wesh/p2p/localrecor"].concat(),
        &[header, b"\x16/wesh/p2p/localrecorD\n"].concat(),
        &[header, b"\x0c/with/slash\n"].concat(),
        &[header, b"\x03na\n", WIRE, INNER].concat(),
        &[header, header, INNER].concat(),
    ] {
        for step in [1, 3, 1000] {
            assert_eq!(through(bytes, bytes, step, step), (bytes.to_vec(), bytes.to_vec()), "{bytes:?}");
        }
    }
}

#[test]
fn names_that_begin_alike_are_told_apart() {
    let inner = [HEADER, &frame("/wesh/p2p/other")].concat();
    let wire = [HEADER, &frame("wesh/p2p/other")].concat();

    assert_eq!(through(&inner, &wire, 1, 1), (wire, inner));
}

#[test]
fn a_name_is_rewritten_once() {
    let (wire, _) = through(&[INNER, INNER].concat(), b"", 5, 5);

    assert_eq!(wire, [WIRE, INNER].concat());
}

#[test]
fn a_proposal_with_a_slash_is_echoed_with_a_slash() {
    let mut stream = BareNameStream::new(Pipe::new(INNER, 1), &BareNames::among(NAMES));
    let mut proposal = vec![0; INNER.len()];

    block_on(stream.write_all(HEADER)).unwrap();
    block_on(stream.read_exact(&mut proposal)).unwrap();
    assert_eq!(proposal, INNER);
    block_on(stream.write_all(&INNER[HEADER.len()..])).unwrap();
    block_on(stream.flush()).unwrap();

    assert_eq!(stream.inner.written, INNER);
}

#[test]
fn a_header_is_not_held_back() {
    // A listener answers with the header before it has read the proposal.
    let mut stream = BareNameStream::new(Pipe::new(b"", 1000), &BareNames::among(NAMES));

    block_on(stream.write_all(HEADER)).unwrap();
    block_on(stream.flush()).unwrap();

    assert_eq!(stream.inner.written, HEADER);
}

#[test]
fn vectored_writes_are_rewritten_too() {
    let mut stream = BareNameStream::new(Pipe::new(b"", 1000), &BareNames::among(NAMES));
    let mut bytes = [INNER, b"data"].concat();

    while !bytes.is_empty() {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let written = block_on(poll_fn(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &slices))).unwrap();
        bytes.drain(..written);
    }
    block_on(stream.flush()).unwrap();

    assert_eq!(stream.inner.written, [WIRE, b"data"].concat());
}

#[test]
fn without_bare_names_nothing_is_watched() {
    let stream = BareNameStream::new(Pipe::new(b"", 1), &BareNames::among(["/with/slash"]));

    assert!(stream.reading.is_done() && stream.writing.is_done());
}

#[test]
fn a_name_has_to_fit_a_frame() {
    assert_eq!(inner_name("wesh/p2p/localrecord").unwrap().as_ref(), "/wesh/p2p/localrecord");
    assert_eq!(inner_name("/with/slash").unwrap().as_ref(), "/with/slash");
    assert_eq!(slashed_name("/with/slash"), inner_name("/with/slash"));
    assert_eq!(slashed_name("without"), Err(ProtocolNameError::Bare("without")));
    let longest: &str = "n".repeat(NAME_BYTES_MAX).leak();
    assert!(inner_name(longest).is_ok());
    let longer: &str = "n".repeat(NAME_BYTES_MAX + 1).leak();
    for name in ["", "a\nb", longer] {
        assert_eq!(inner_name(name), Err(ProtocolNameError::Malformed(name)));
    }
}

proptest! {
    #[test]
    fn whatever_is_rewritten_on_one_side_is_undone_on_the_other(
        name in prop::sample::select(vec!["/wesh/p2p/localrecord", "/wesh/p2p/other", "/with/slash"]),
        data in prop::collection::vec(any::<u8>(), 0..64),
        (wide, narrow) in (1_usize..80, 1_usize..80),
    ) {
        let sent = [HEADER, &frame(name), &data].concat();

        let (wire, _) = through(&sent, b"", wide, narrow);
        let (_, received) = through(b"", &wire, narrow, wide);

        prop_assert_eq!(received, sent);
    }

    #[test]
    fn hostile_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(through(&bytes, &bytes, 3, 3), (bytes.clone(), bytes.clone()));
    }
}

/// Writes and reads through a stream, `chunk` bytes at a time above it and `narrow` bytes below. Returns what
/// arrived on the wire and what was read.
fn through(write: &[u8], wire: &[u8], chunk: usize, narrow: usize) -> (Vec<u8>, Vec<u8>) {
    let mut stream = BareNameStream::new(Pipe::new(wire, narrow), &BareNames::among(NAMES));
    let mut read = Vec::new();
    block_on(async {
        for part in write.chunks(chunk) {
            stream.write_all(part).await.unwrap();
        }
        stream.close().await.unwrap();
        let mut buf = vec![0; chunk];
        loop {
            let count = stream.read(&mut buf).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&buf[..count]);
        }
    });
    (stream.inner.written, read)
}

/// A stream in memory that takes and gives a few bytes at a time, and is not ready every other time.
struct Pipe {
    incoming: VecDeque<u8>,
    written: Vec<u8>,
    step: usize,
    ready: bool,
}

impl Pipe {
    fn new(incoming: &[u8], step: usize) -> Self {
        Self { incoming: incoming.iter().copied().collect(), written: Vec::new(), step, ready: false }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.ready = !self.ready;
        if self.ready {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx));
        let count = buf.len().min(self.step).min(self.incoming.len());
        for (to, from) in buf.iter_mut().zip(self.incoming.drain(..count)) {
            *to = from;
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx));
        let count = buf.len().min(self.step);
        self.written.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
