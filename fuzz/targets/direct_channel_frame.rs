//! Frames as a host reads them off a stream, with the limit of the direct channel, and what they hold.
#![no_main]

use dunlin_fuzz::frames::{read, write};
use dunlin_wesh::heads;
use libfuzzer_sys::fuzz_target;

/// As `dunlin_node` has it.
const DIRECT_CHANNEL_BYTES_MAX: usize = 4 * 1024 * 1024;

fuzz_target!(|stream: &[u8]| {
    for limit in [DIRECT_CHANNEL_BYTES_MAX, 64] {
        let (bodies, rest) = read(stream, limit);
        let mut again = Vec::new();
        for body in &bodies {
            assert!(body.len() <= limit);
            let _ = heads::parse(body);
            again.extend(write(body, limit));
        }
        again.extend_from_slice(rest);
        assert_eq!(again, stream, "a length has one form");
    }
});
