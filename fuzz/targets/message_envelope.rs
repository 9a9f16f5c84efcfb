//! Messages in a group: the envelope as anybody writes it, the headers and the content as a hostile member
//! does.
#![no_main]

use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_base::seal::{Nonce, seal};
use dunlin_base::{DeviceId, EntryId, Time};
use dunlin_fuzz::{group, member};
use dunlin_proto::protocol::{MessageEnvelope, MessageHeaders};
use dunlin_wesh::group::Group;
use dunlin_wesh::message::{Arrival, ChainKey, OpenMessageError, OtherChain, open_headers, open_message, register_chain_key};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let group = group();
    let device = member().device;
    let chain = ChainKey::new(SymmetricKey::from_bytes([6; 32]), 0);
    let (next, message_key) = chain.step(&group.id()).expect("the first of many counters");

    read(group, &chain, bytes);

    let headers_only = envelope(group, bytes, Vec::new());
    read(group, &chain, &headers_only);

    let headers = MessageHeaders {
        counter: next.counter(),
        device_pk: device.public().as_bytes().to_vec(),
        sig: device.sign(bytes).as_bytes().to_vec(),
        ..MessageHeaders::default()
    };
    let message = seal(&message_key, Nonce::of_counter(next.counter()), bytes);
    read(group, &chain, &envelope(group, &headers.encode_to_vec(), message));
});

/// Opens an envelope as a member who has the chain of the device. What opens, opens again unless its key is erased.
fn read(group: &Group, chain: &ChainKey, envelope: &[u8]) {
    let Ok(headers) = open_headers(group, envelope) else { return };
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let device = DeviceId::new(member().device.public());
    let shared = OtherChain::new(chain.clone()).expect("a chain at its beginning");
    register_chain_key(&mut tx, &group.id(), &device, shared).expect("a store in memory");
    let entry = EntryId::of_block(envelope);
    let arrival = Arrival { now: Time::default(), past_is_synced: true };
    let Ok(opening) = open_message(&mut tx, &arrival, group, entry, &headers, envelope) else { return };
    assert_eq!(opening.message.device, device, "only its chain is known");
    match open_message(&mut tx, &arrival, group, entry, &headers, envelope) {
        Ok(again) => assert_eq!(again.message, opening.message),
        Err(OpenMessageError::AlreadyUsed) => {}
        Err(error) => panic!("the same message in the same entry: {error}"),
    }
}

/// An envelope whose headers open with the secret of the group.
fn envelope(group: &Group, headers: &[u8], message: Vec<u8>) -> Vec<u8> {
    let nonce = [7; 24];
    let message_headers = seal(group.secret(), Nonce::dangerous_fixed(nonce), headers);
    MessageEnvelope { message, nonce: nonce.to_vec(), message_headers }.encode_to_vec()
}
