//! What a peer says on a stream of gossipsub, to a host that is on a topic.
//!
//! The first byte says whether the rest is what is said, lengths included, or messages that are framed, or messages that the
//! peer signs.
#![no_main]

use std::cell::RefCell;

use dunlin_fuzz::host::{Network, frame};
use dunlin_fuzz::messages;
use libfuzzer_sys::fuzz_target;

thread_local! {
    /// One host for all inputs: what it remembers of a peer, it forgets with the connection.
    static NETWORK: RefCell<Network> = RefCell::new(Network::start());
}

fuzz_target!(|input: &[u8]| {
    let Some((form, rest)) = input.split_first() else { return };
    NETWORK.with_borrow_mut(|network| match form % 3 {
        0 => network.gossip(rest),
        1 => network.gossip(&messages(rest).flat_map(frame).collect::<Vec<_>>()),
        _ => {
            network.part();
            let before = network.heard();
            let signed: Vec<_> = messages(rest).take(8).map(|data| network.signed(data)).collect();
            network.gossip(&signed.concat());
            network.part();
            assert_eq!(network.heard() - before, signed.len(), "what is signed as it should be arrives");
        }
    });
});
