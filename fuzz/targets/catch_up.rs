//! Requests for a log and the frames that answer them: what is read is what was written, and nothing beyond the frame.
#![no_main]

use dunlin_wesh::catch_up::{self, Frame, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    let blocks: Vec<&[u8]> = catch_up::blocks(bytes).collect();
    assert!(blocks.iter().map(|block| block.len() + 4).sum::<usize>() <= bytes.len());
    let mut frame = Frame::default();
    let mut fitted = 0;
    while blocks.get(fitted).is_some_and(|block| frame.push(block)) {
        fitted += 1;
    }
    assert!(frame.as_bytes().len() <= catch_up::FRAME_BYTES_MAX);
    assert_eq!(catch_up::blocks(frame.as_bytes()).collect::<Vec<_>>(), &blocks[..fitted]);
});
