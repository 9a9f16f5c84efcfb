//! Bitswap messages of a peer: they parse or fail, in bounded memory, and blocks answer to their names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dunlin_fuzz::read_bitswap(bytes));
