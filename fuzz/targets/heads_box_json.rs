//! Announced heads: the envelope as anybody sends it, the box and the JSON as a hostile member does.
#![no_main]

use dunlin_base::keys::SymmetricKey;
use dunlin_base::seal::{Nonce, seal_with_nonce};
use dunlin_log::{heads_from_json, heads_to_json};
use dunlin_proto::protocol::OrbitDbMessageHeads;
use dunlin_wesh::heads::parse;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const ADDRESS: &str = "/orbitdb/log";
const LINK_KEY: SymmetricKey = SymmetricKey::from_bytes([1; 32]);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(sealed) = parse(bytes) {
        let _ = sealed.open(ADDRESS, &LINK_KEY);
    }

    let envelope = OrbitDbMessageHeads {
        sealed_box: seal_with_nonce(&LINK_KEY, Nonce::dangerous_fixed([2; 24]), bytes),
        raw_rotation: vec![3; 32],
    };
    let sealed = parse(&envelope.encode_to_vec()).expect("an envelope as everybody makes it");
    if let Ok(payload) = sealed.open(ADDRESS, &LINK_KEY) {
        read_list(&payload.heads);
    }

    read_list(bytes);
});

/// What is read from a list is written and read again as the same entries.
fn read_list(json: &[u8]) {
    let Ok(heads) = heads_from_json(json) else { return };
    let entries: Vec<_> = heads.into_iter().flatten().collect();
    let again = heads_from_json(&heads_to_json(&entries)).expect("a list that was just written");
    let again: Vec<_> = again.into_iter().map(|head| head.expect("a head that was just written")).collect();
    assert_eq!(again, entries);
}
