//! Metadata events of a group: the envelope as anybody writes it, the event as a hostile member does.
//!
//! The first four bytes are the number of the type of the event.
#![no_main]

use dunlin_base::seal::{Nonce, seal};
use dunlin_fuzz::{group, member};
use dunlin_proto::protocol::{GroupEnvelope, GroupMetadata};
use dunlin_wesh::group::Group;
use dunlin_wesh::metadata::{Event, open};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let group = group();
    let _ = open(group, bytes);
    let _ = open(group, &envelope(group, bytes));

    let Some((event_type, payload)) = bytes.split_first_chunk() else { return };
    let event_type = i32::from_be_bytes(*event_type);
    let Ok(event) = Event::decode(event_type, payload) else { return };
    assert_eq!(i32::from(event.event_type()), event_type);
    assert_eq!(Event::decode(event_type, &event.encode()).expect("an event that was just written"), event);

    let sig = member().device.sign(payload).as_bytes().to_vec();
    let clear = GroupMetadata { event_type, payload: payload.to_vec(), sig, protocol_metadata: None };
    if let Ok(opened) = open(group, &envelope(group, &clear.encode_to_vec())) {
        assert_eq!(opened.event(), &event);
        assert_eq!(opened.payload(), payload);
    }
});

fn envelope(group: &Group, clear: &[u8]) -> Vec<u8> {
    let nonce = [7; 24];
    let event = seal(group.secret(), Nonce::dangerous_fixed(nonce), clear);
    GroupEnvelope { nonce: nonce.to_vec(), event }.encode_to_vec()
}
