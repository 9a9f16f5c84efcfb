//! Operations in the entries of a store: any text is an operation or none, and any value comes back.
#![no_main]

use dunlin_orbitdb::operation::{decode_value, encode_add};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(decode_value(&encode_add(bytes)).as_deref(), Some(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(value) = decode_value(text) {
        assert_eq!(decode_value(&encode_add(&value)), Some(value));
    }
});
