//! Requests to a rendezvous server: each is answered or not, in bounded memory.
//!
//! The input stands for several messages.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| dunlin_fuzz::serve_rendezvous(input));
