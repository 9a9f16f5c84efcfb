use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::io::Cursor;

use super::*;

const LIMIT: usize = 2048;

#[tokio::test]
async fn a_frame_is_read_as_it_was_written() {
    for length in [0, 1, 127, 128, LIMIT - 1, LIMIT] {
        let frame = vec![7; length];
        let mut written = Cursor::new(Vec::new());
        write_frame(&mut written, &frame, LIMIT).await.unwrap();

        assert_eq!(read(&written.into_inner()).await.unwrap(), frame);
    }
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_not_written() {
    let mut written = Cursor::new(Vec::new());

    let refused = write_frame(&mut written, &[0; LIMIT + 1], LIMIT).await;

    assert!(matches!(refused, Err(WriteFrameError::TooLong { length: 2049, allowed: 2048 })));
    assert_eq!(written.into_inner(), []);
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_anything_is_read() {
    for (prefix, length) in [
        (&[0x81, 0x10][..], 2_049),
        (&[0x80, 0x80, 0x80, 0x80, 0x10], 4 << 30),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], i64::MAX as u64),
    ] {
        let refused = read(prefix).await;

        assert!(
            matches!(refused, Err(ReadFrameError::TooLong { announced, .. }) if announced == length),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_malformed_length_is_refused() {
    let over_long = [&[0x80, 0x00][..], &[0x81, 0x00], &[0xff, 0x80, 0x00]];
    let out_of_range = [&[0x80; 9][..], &[0xff; 9], &[0xff; 16]];
    for prefix in over_long.into_iter().chain(out_of_range) {
        let refused = read(&[prefix, &[0; 64]].concat()).await;

        assert!(matches!(refused, Err(ReadFrameError::BadLength)), "{prefix:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_says_where() {
    assert!(matches!(read(b"").await, Err(ReadFrameError::Closed)));
    for cut in [&[0x80][..], &[0x05], &[0x05, 1, 2, 3, 4]] {
        assert!(matches!(read(cut).await, Err(ReadFrameError::Broken(_))), "{cut:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up_in_time() {
    let begin = Instant::now();
    assert!(matches!(read_from(Trickle::new(&[], Duration::MAX)).await, Err(ReadFrameError::Silent)));
    assert_eq!(begin.elapsed().as_secs(), FRAME_FIRST_BYTE_MAX.as_secs());

    for begun in [&[0x80][..], &[0x05], &[0x05, 1, 2]] {
        let begin = Instant::now();
        assert!(matches!(read_from(Trickle::new(begun, Duration::MAX)).await, Err(ReadFrameError::Silent)));
        assert_eq!(begin.elapsed().as_secs(), FRAME_SILENCE_MAX.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_trickles_is_given_up_in_time() {
    let begin = Instant::now();

    assert!(matches!(
        read_from(Trickle::new(&[0x7f], Duration::from_secs(29))).await,
        Err(ReadFrameError::Silent)
    ));

    assert_eq!(begin.elapsed().as_secs(), FRAME_TOTAL_MAX.as_secs());
}

#[tokio::test]
async fn a_frame_in_steps_beyond_the_growth_of_the_buffer_is_complete() {
    let length = 3 * BUFFER_GROWTH_BYTES + 1;
    let frame: Vec<_> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
    let mut written = Cursor::new(Vec::new());
    write_frame(&mut written, &frame, length).await.unwrap();

    let mut stream = Cursor::new(written.into_inner());
    let read = read_frame(&mut stream, length, FirstByte::Soon, Budget::default()).await.unwrap();

    assert!(read == frame);
}

async fn read(bytes: &[u8]) -> Result<Bytes, ReadFrameError> {
    read_from(Cursor::new(bytes)).await
}

async fn read_from(mut stream: impl AsyncRead + Unpin) -> Result<Bytes, ReadFrameError> {
    read_frame(&mut stream, LIMIT, FirstByte::Soon, Budget::default()).await
}

/// Gives some bytes at once and then a zero at long intervals.
struct Trickle {
    begun: Vec<u8>,
    interval: Duration,
    next: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Trickle {
    fn new(begun: &[u8], interval: Duration) -> Self {
        Self { begun: begun.to_vec(), interval, next: None }
    }
}

impl AsyncRead for Trickle {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.begun.is_empty() {
            buf[0] = self.begun.remove(0);
            return Poll::Ready(Ok(1));
        }
        let interval = self.interval;
        let next = self.next.get_or_insert_with(|| Box::pin(tokio::time::sleep(interval)));
        std::task::ready!(next.as_mut().poll(cx));
        self.next = None;
        buf[0] = 0;
        Poll::Ready(Ok(1))
    }
}
