//! What a peer of the DHT answers to a host that looks a name up, or announces one.
//!
//! The first byte says which of them, and whether the rest is the answer, length included, or what is framed.
#![no_main]

use std::cell::RefCell;

use dunlin_fuzz::host::{Network, frame};
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// One host for all inputs: it remembers nobody of whom it only heard.
    static NETWORK: RefCell<Network> = RefCell::new(start());
}

/// An answer that names somebody who is found under the name.
const PROVIDER: &[u8] = &[0x08, 3, 0x4a, 12, 0x0a, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];

fn start() -> Network {
    let mut network = Network::start();
    assert_eq!(network.answer(false, &frame(PROVIDER)), 1, "what is said reaches the host");
    network
}

fuzz_target!(|input: &[u8]| {
    let Some((form, rest)) = input.split_first() else { return };
    let said = if form & 2 == 0 { rest.to_vec() } else { frame(rest) };
    NETWORK.with_borrow_mut(|network| {
        network.answer(form & 1 != 0, &said);
    });
});
