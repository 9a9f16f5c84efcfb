//! What a device signs about the place of what it says (`docs/formats/context.md`, `spec/security.md` §3.1).
//!
//! The signature of a message covers its text and nothing else, that of an event its payload: not the group, not the
//! type, not the number. So whoever can seal for the group can put what a device once signed somewhere else. A
//! [`Context`] says under the signature where it belongs. It lies in a field that Go devices skip.

mod links;

use dunlin_base::GroupId;
use dunlin_base::kdf::sha256;
use prost::Message;

pub use links::{Chain, Log};
pub(crate) use links::{chain_of, contexts_since, next_own, note_own, note_seen, require_contexts};

/// The kind of a message; that of an event is its type.
pub const MESSAGE_KIND: u32 = 0;

/// Where an operation belongs, and what its device wrote before it in the same log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Context {
    group: [u8; 8],
    kind: u32,
    counter: u64,
    previous: [u8; 16],
    seq: u64,
}

/// A place that an operation can have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'g> {
    pub group: &'g GroupId,
    /// [`MESSAGE_KIND`] or the type of an event.
    pub kind: u32,
    /// The number of a message; 0 for an event.
    pub counter: u64,
}

impl<'g> Place<'g> {
    pub fn message(group: &'g GroupId, counter: u64) -> Self {
        Self { group, kind: MESSAGE_KIND, counter }
    }

    pub fn event(group: &'g GroupId, event_type: i32) -> Self {
        // Types are not negative; one that is belongs to no event.
        Self { group, kind: u32::try_from(event_type).unwrap_or(u32::MAX), counter: 0 }
    }
}

/// What the signature of an operation says of its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Placed {
    /// Nothing: a Go device signed it, or a version that wrote no contexts.
    Nowhere,
    /// It belongs here.
    Here(Context),
    /// It belongs elsewhere, or the context is malformed.
    Elsewhere,
}

/// The fields in which a context travels.
#[derive(Clone, PartialEq, Message)]
struct Carrier {
    #[prost(message, optional, tag = "1002")]
    context: Option<Wire>,
}

/// An `EncryptedMessage`, as far as contexts are concerned.
#[derive(Clone, PartialEq, Message)]
struct MessageCarrier {
    #[prost(message, optional, tag = "2")]
    metadata: Option<Carrier>,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    group: Vec<u8>,
    #[prost(uint32, tag = "2")]
    kind: u32,
    #[prost(uint64, tag = "3")]
    counter: u64,
    #[prost(bytes = "vec", tag = "4")]
    previous: Vec<u8>,
    #[prost(uint64, tag = "5")]
    seq: u64,
}

impl Context {
    /// The context of what is said at `place`, `seq`th of its device in the log, after `previous`.
    pub(crate) fn new(place: &Place<'_>, previous: [u8; 16], seq: u64) -> Self {
        Self { group: short_of(place.group), kind: place.kind, counter: place.counter, previous, seq }
    }

    /// The field that carries the context.
    pub(crate) fn to_field(&self) -> Vec<u8> {
        let wire = Wire {
            group: self.group.to_vec(),
            kind: self.kind,
            counter: self.counter,
            previous: self.previous.to_vec(),
            seq: self.seq,
        };
        Carrier { context: Some(wire) }.encode_to_vec()
    }

    /// The number of the operation among those of its device in this log; the first has 1.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The first half of the digest of what the device wrote before; zeros before the first.
    pub fn previous(&self) -> &[u8; 16] {
        &self.previous
    }

    fn from_wire(wire: &Wire) -> Option<Self> {
        Some(Self {
            group: wire.group.as_slice().try_into().ok()?,
            kind: wire.kind,
            counter: wire.counter,
            previous: wire.previous.as_slice().try_into().ok()?,
            seq: (wire.seq > 0).then_some(wire.seq)?,
        })
    }

    fn is_for(&self, place: &Place<'_>) -> bool {
        (self.group, self.kind, self.counter) == (short_of(place.group), place.kind, place.counter)
    }
}

impl Placed {
    /// What the payload of an event says of its place.
    pub fn of_event(payload: &[u8], place: &Place<'_>) -> Self {
        Self::of(Carrier::decode(payload).map(|carrier| carrier.context), place)
    }

    /// What a serialized `EncryptedMessage` says of its place.
    pub fn of_message(clear: &[u8], place: &Place<'_>) -> Self {
        let carrier = MessageCarrier::decode(clear);
        Self::of(carrier.map(|carrier| carrier.metadata.and_then(|metadata| metadata.context)), place)
    }

    fn of(wire: Result<Option<Wire>, prost::DecodeError>, place: &Place<'_>) -> Self {
        match wire {
            Ok(None) => Self::Nowhere,
            Ok(Some(wire)) => match Context::from_wire(&wire).filter(|context| context.is_for(place)) {
                Some(context) => Self::Here(context),
                None => Self::Elsewhere,
            },
            Err(_) => Self::Elsewhere,
        }
    }
}

fn short_of(group: &GroupId) -> [u8; 8] {
    let digest = sha256(&[group.as_bytes()]);
    digest.first_chunk().copied().unwrap_or_default()
}

/// What names the value of an operation in the one after it.
pub(crate) fn link_of(value: &[u8]) -> [u8; 16] {
    let digest = sha256(&[value]);
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;

    fn group(first: u8) -> GroupId {
        GroupId::new(SecretKey::from_seed([first; 32]).public())
    }

    /// `spec/security.md` §3.1: the bytes, and that they fit where they belong and nowhere else.
    #[test]
    fn a_context_fits_one_place() {
        let (here, other) = (group(1), group(2));
        let place = Place::message(&here, 7);
        let context = Context::new(&place, [9; 16], 300);
        let field = context.to_field();
        assert_eq!(field[..5], [0xd2, 0x3e, 0x21, 0x0a, 0x08]);
        assert_eq!(field[13..17], [0x18, 7, 0x22, 0x10], "the kind of a message is left out");
        assert_eq!(field[33..], [0x28, 0xac, 0x02]);

        let clear = [&[0x0a, 1, b'x', 0x12, 36][..], &field].concat();
        assert_eq!(Placed::of_message(&clear, &place), Placed::Here(context));
        for elsewhere in [Place::message(&other, 7), Place::message(&here, 8), Place::event(&here, 1001)] {
            assert_eq!(Placed::of_message(&clear, &elsewhere), Placed::Elsewhere);
        }
        assert_eq!(Placed::of_message(&[0x0a, 1, b'x', 0x12, 0], &place), Placed::Nowhere);
        assert_eq!(Placed::of_event(&clear, &place), Placed::Nowhere, "an event has it elsewhere");
        assert_eq!(Placed::of_message(&[0x12, 3, 0xd2, 0x3e, 0], &place), Placed::Elsewhere);
    }

    #[test]
    fn the_largest_usual_context_is_small() {
        let group = group(1);
        let place = Place::message(&group, u64::from(u32::MAX));
        assert!(Context::new(&place, [0; 16], u64::from(u32::MAX)).to_field().len() <= 50);
        let event = Place::event(&group, 1001);
        assert!(Context::new(&event, [0; 16], u64::from(u32::MAX)).to_field().len() <= 50);
    }
}
