//! Messages outside their log: as anybody sends them, as a hostile member seals them, and with content that
//! only the sender can make up.
#![no_main]

use dunlin_base::DeviceId;
use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_base::seal::{Nonce, seal};
use dunlin_fuzz::{group, member};
use dunlin_proto::protocol::{EncryptedMessage, OutOfStoreMessage, OutOfStoreMessageEnvelope};
use dunlin_wesh::message::{
    ChainKey, OtherChain, SealedOutOfStore, out_of_store_reference, register_chain_key,
};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    open(bytes);
    open(&envelope(bytes, 1));
    if let Ok(message) = OutOfStoreMessage::decode(bytes) {
        open(&envelope(bytes, message.counter));
    }

    // What its sender seals need not be a message inside.
    open(&sealed(bytes));
    let clear = EncryptedMessage { plaintext: bytes.to_vec(), ..EncryptedMessage::default() };
    assert!(open(&sealed(&clear.encode_to_vec())), "a message as every sender makes it");
});

/// What the device sends with `clear` inside.
fn sealed(clear: &[u8]) -> Vec<u8> {
    let device = member().device;
    let (_, key) = chain().step(&group().id()).expect("the first of many counters");
    let message = OutOfStoreMessage {
        cid: Vec::new(),
        device_pk: DeviceId::new(device.public()).as_bytes().to_vec(),
        counter: 1,
        sig: device.sign(clear).as_bytes().to_vec(),
        encrypted_payload: seal(&key, Nonce::of_counter(1), clear),
        ..OutOfStoreMessage::default()
    };
    envelope(&message.encode_to_vec(), 1)
}

fn chain() -> ChainKey {
    ChainKey::new(SymmetricKey::from_bytes([6; 32]), 0)
}

/// Opens an envelope as a member who has the chain of the device.
fn open(payload: &[u8]) -> bool {
    let Ok(sealed) = SealedOutOfStore::parse(payload) else { return false };
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let device = DeviceId::new(member().device.public());
    let shared = OtherChain::new(chain()).expect("a chain at its beginning");
    register_chain_key(&mut tx, &group().id(), &device, shared).expect("a store in memory");
    match sealed.open(&tx, group(), &|_| Ok(None)) {
        Ok(Some(opened)) => {
            assert_eq!(opened.device, device, "only its chain is known");
            true
        }
        _ => false,
    }
}

/// An envelope that opens with the secret of the group.
fn envelope(message: &[u8], counter: u64) -> Vec<u8> {
    let device = DeviceId::new(member().device.public());
    OutOfStoreMessageEnvelope {
        nonce: vec![7; 24],
        r#box: seal(group().secret(), Nonce::dangerous_fixed([7; 24]), message),
        group_reference: out_of_store_reference(group().secret(), &device, counter).to_vec(),
    }
    .encode_to_vec()
}
