//! Delimited frames off any stream: what is split off is what was written, and the limit holds.
#![no_main]

use dunlin_base::frame::{split_frame, write_frame};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 2048;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((body, rest))) = split_frame(bytes, LIMIT) else { return };
    assert!(body.len() <= LIMIT);
    let mut again = Vec::new();
    write_frame(&mut again, body);
    again.extend_from_slice(rest);
    assert_eq!(again, bytes);
});
