//! What a message says to the application: what is read says the same when it is written.
#![no_main]

use dunlin_fuzz::app_message::Envelope;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(envelope) = Envelope::decode(bytes) else { return };
    assert_eq!(Envelope::decode(&envelope.encode()), Some(envelope));
});
