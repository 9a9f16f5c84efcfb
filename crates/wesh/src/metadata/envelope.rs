//! Metadata events sealed for the group, and opened again (`spec/wesh-protocol.md` §3.6).

use std::fmt;

use dunlin_base::planted::{self, Bug};
use dunlin_base::seal::{self, Nonce};
use dunlin_base::{DeviceId, EntryId, GroupId, SecretKey, Signature};
use dunlin_proto::protocol::{GroupEnvelope, GroupMetadata, ProtocolMetadata};
use prost::Message;
use rand_core::{CryptoRng, RngCore};

use super::caps::Capabilities;
use super::event::{Event, EventError};
use super::note::DeviceNote;
use crate::context::{Context, Place, Placed};
use crate::errors::{Code, Coded};
use crate::group::{Group, OwnMember};
use crate::padding::{Carrier, Padding};

/// Seals an event of the own member as Go devices do: the value of an entry of the metadata log.
///
/// `event` was made with the same `own`.
pub fn seal(
    group: &Group,
    own: &OwnMember,
    event: &Event,
    padding: Padding,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Vec<u8> {
    debug_assert_eq!(event.device(), Some(&own.device_id()), "the event belongs to another device");
    seal_signed(group, &own.device, event, padding, rng)
}

/// What an event says beside what Go knows of it, in fields behind its payload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras<'e> {
    /// What the device can do; in an event 1.
    pub caps: Option<&'e Capabilities>,
    /// What it says about a device of the account; in an event 1.
    pub note: Option<&'e DeviceNote>,
    /// Where the event belongs.
    pub context: Option<&'e Context>,
}

/// Seals an event of the own member with more than Go says. Gives the value of the entry, and the payload that was signed.
pub(crate) fn seal_with(
    group: &Group,
    own: &OwnMember,
    event: &Event,
    extras: &Extras<'_>,
    padding: Padding,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> (Vec<u8>, Vec<u8>) {
    debug_assert_eq!(event.device(), Some(&own.device_id()), "the event belongs to another device");
    let mut payload = event.encode();
    payload.extend(extras.caps.map(|caps| caps.to_field(&group.id(), &own.device)).unwrap_or_default());
    payload.extend(extras.note.map(DeviceNote::to_field).unwrap_or_default());
    payload.extend(extras.context.map(Context::to_field).unwrap_or_default());
    (seal_payload(group, &own.device, event, payload.clone(), padding, rng), payload)
}

/// Seals the one event that the key of a new multi-member group signs: [`Event::InitialMember`].
pub fn seal_by_group(
    group: &Group,
    group_key: &SecretKey,
    event: &Event,
    padding: Padding,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Vec<u8> {
    debug_assert_eq!(group.id().key(), &group_key.public(), "the key belongs to another group");
    debug_assert!(event.device().is_none(), "the group key signs for no device");
    seal_signed(group, group_key, event, padding, rng)
}

fn seal_signed(
    group: &Group,
    signer: &SecretKey,
    event: &Event,
    padding: Padding,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Vec<u8> {
    seal_payload(group, signer, event, event.encode(), padding, rng)
}

fn seal_payload(
    group: &Group,
    signer: &SecretKey,
    event: &Event,
    payload: Vec<u8>,
    padding: Padding,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Vec<u8> {
    let clear = GroupMetadata {
        event_type: event.event_type().into(),
        sig: signer.sign(&payload).as_bytes().to_vec(),
        payload,
        protocol_metadata: None,
    };
    let mut clear = clear.encode_to_vec();
    padding.close(&mut clear, Carrier::Metadata);
    let nonce = Nonce::random(rng);
    let envelope =
        GroupEnvelope { nonce: nonce.as_bytes().to_vec(), event: seal::seal(group.secret(), nonce, &clear) };
    envelope.encode_to_vec()
}

/// Why the value of a metadata entry is no event. It changes nothing; the entry stays in the log as a
/// parent of others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The value is no `GroupEnvelope`.
    #[error("the value is no metadata envelope")]
    Envelope,
    /// The nonce has not 24 bytes.
    #[error("the nonce of the envelope has not 24 bytes")]
    Nonce,
    /// Somebody without the secret of the group made it, or it was changed.
    #[error("the envelope does not open with the secret of the group")]
    DoesNotOpen,
    /// What was sealed is no `GroupMetadata`.
    #[error("the envelope holds no metadata")]
    Clear,
    /// The payload is no event that is known here.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The signature is not by the device that the event names, by its member, or by the group key.
    #[error("the event is not signed by whom it names")]
    Forged,
    /// Its device signed it for another group, or as another type. Somebody moved it.
    #[error("the event belongs to another place")]
    OutOfPlace,
}

impl Coded for OpenError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Envelope => vec![Code::ErrInvalidInput],
            Self::Nonce => vec![Code::ErrSerialization, Code::ErrInvalidInput],
            Self::DoesNotOpen => vec![Code::ErrGroupMemberLogEventOpen],
            Self::Clear => vec![Code::Todo],
            Self::Event(EventError::UnknownType { .. }) => vec![Code::ErrInvalidInput],
            Self::Event(EventError::Malformed(_)) => vec![Code::ErrDeserialization],
            Self::Event(EventError::Key(_)) => {
                vec![Code::ErrCryptoSignatureVerification, Code::ErrDeserialization]
            }
            Self::Event(EventError::Field { field: "member_sig" }) => {
                vec![Code::ErrCryptoSignatureVerification]
            }
            Self::Event(EventError::Field { .. }) => vec![Code::ErrDeserialization],
            Self::Forged | Self::OutOfPlace => vec![Code::ErrCryptoSignatureVerification],
        }
    }
}

/// An event that its author signed, with the bytes that were signed (`spec/security.md` C3).
#[derive(Clone, Eq, PartialEq)]
pub struct OpenedEvent {
    event: Event,
    payload: Vec<u8>,
    signature: Signature,
    context: Option<Context>,
}

impl OpenedEvent {
    /// What was said.
    pub fn event(&self) -> &Event {
        &self.event
    }

    /// The device that said it; none for [`Event::InitialMember`].
    pub fn device(&self) -> Option<&DeviceId> {
        self.event.device()
    }

    /// The payload as it was received: it may hold fields that are unknown here.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// What an event 1 says about a device of the account beside who it belongs to.
    pub fn note(&self) -> Option<DeviceNote> {
        match self.event {
            Event::MemberDeviceAdded { .. } => DeviceNote::in_payload(&self.payload),
            _ => None,
        }
    }

    /// What its device signed about its place; none for devices that sign nothing about that.
    pub fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// What an event 1 says that its device can do, and the bytes of that.
    pub(super) fn capabilities(&self, group: &GroupId) -> Option<(Capabilities, Vec<u8>)> {
        match &self.event {
            Event::MemberDeviceAdded { device, .. } => Capabilities::in_payload(&self.payload, group, device),
            _ => None,
        }
    }

    /// The signature over the payload.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// An event that `own` signs and that is in no log: to be told to those who wait for such an event.
    pub(crate) fn unlogged(own: &OwnMember, event: Event) -> Self {
        let payload = event.encode();
        Self { signature: own.device.sign(&payload), event, payload, context: None }
    }

    /// What stands for the entry of an event that is in no log: it follows from what is said.
    pub fn unlogged_id(&self) -> EntryId {
        EntryId::of_block(&self.payload)
    }

    /// The opened message as the API gives it out, with the bytes that were received.
    pub fn to_proto(&self) -> GroupMetadata {
        GroupMetadata {
            event_type: self.event.event_type().into(),
            payload: self.payload.clone(),
            sig: self.signature.as_bytes().to_vec(),
            protocol_metadata: Some(ProtocolMetadata::default()),
        }
    }
}

impl fmt::Debug for OpenedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedEvent").field("event", &self.event).finish_non_exhaustive()
    }
}

/// Opens the value of an entry of the metadata log.
///
/// The signature is checked over the payload as it was received. Whether the event means something in
/// the group, and whether the device is known, is for [`super::Index`] to judge.
///
/// # Errors
/// [`OpenError`].
pub fn open(group: &Group, value: &[u8]) -> Result<OpenedEvent, OpenError> {
    let envelope = GroupEnvelope::decode(value).map_err(|_| OpenError::Envelope)?;
    let nonce = envelope.nonce.as_slice().try_into().map_err(|_| OpenError::Nonce)?;
    let clear = seal::open(group.secret(), nonce, &envelope.event).map_err(|_| OpenError::DoesNotOpen)?;
    let clear = GroupMetadata::decode(clear.as_slice()).map_err(|_| OpenError::Clear)?;
    let event = Event::decode(clear.event_type, &clear.payload)?;
    let signature = Signature::from_slice(&clear.sig).ok_or(OpenError::Forged)?;
    verify(group, &event, &clear.payload, &signature)?;
    let context =
        placed(&group.id(), &event, clear.event_type, &clear.payload).ok_or(OpenError::OutOfPlace)?;
    Ok(OpenedEvent { event, payload: clear.payload, signature, context })
}

/// The context of an event of a device; `None` when it belongs elsewhere.
fn placed(group: &GroupId, event: &Event, event_type: i32, payload: &[u8]) -> Option<Option<Context>> {
    if event.device().is_none() {
        return Some(None);
    }
    match Placed::of_event(payload, &Place::event(group, event_type)) {
        Placed::Nowhere => Some(None),
        Placed::Here(context) => Some(Some(context)),
        Placed::Elsewhere => None,
    }
}

/// Checks every signature that an event of this type has (`spec/wesh-protocol.md` §2.4).
fn verify(group: &Group, event: &Event, payload: &[u8], signature: &Signature) -> Result<(), OpenError> {
    let signer = match event.device() {
        Some(device) => *device.key(),
        None => *group.id().key(),
    };
    if !planted::is(Bug::EventSigUnchecked) {
        signer.verify(payload, signature).map_err(|_| OpenError::Forged)?;
    }
    if let Event::MemberDeviceAdded { device, member, member_sig } = event
        && !planted::is(Bug::MemberSigUnchecked)
    {
        member.key().verify(device.as_bytes(), member_sig).map_err(|_| OpenError::Forged)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn member(first: u8) -> OwnMember {
        OwnMember { member: SecretKey::from_seed([first; 32]), device: SecretKey::from_seed([first + 1; 32]) }
    }

    #[test]
    fn events_open_for_members_only() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (group, group_key) = Group::new_multi_member(&mut rng);
        let (other, _) = Group::new_multi_member(&mut rng);
        let own = member(10);
        let sealed = [
            seal(&group, &own, &Event::member_device_added(&own), Padding::Buckets, &mut rng),
            seal(&group, &own, &Event::app_metadata(&own, b"name"), Padding::Buckets, &mut rng),
            seal_by_group(&group, &group_key, &Event::initial_member(&own), Padding::Buckets, &mut rng),
        ];
        for value in &sealed {
            assert!(open(&group, value).is_ok());
            assert!(matches!(open(&other, value), Err(OpenError::DoesNotOpen)));
        }
    }

    /// `spec/security.md` C3.
    #[test]
    fn signed_bytes_kept() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (group, _) = Group::new_multi_member(&mut rng);
        let own = member(10);
        let mut payload = Event::app_metadata(&own, b"name").encode();
        payload.extend([0xf2, 0x01, 0x01, 0x2a]); // Field 30, unknown, one byte.
        let clear = GroupMetadata {
            event_type: 1001,
            sig: own.device.sign(&payload).as_bytes().to_vec(),
            payload: payload.clone(),
            protocol_metadata: None,
        };
        let nonce = Nonce::random(&mut rng);
        let envelope = GroupEnvelope {
            nonce: nonce.as_bytes().to_vec(),
            event: seal::seal(group.secret(), nonce, &clear.encode_to_vec()),
        };
        let opened = open(&group, &envelope.encode_to_vec()).unwrap();
        assert_eq!(opened.payload(), payload);
    }

    #[test]
    fn a_device_needs_its_member_and_itself() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (group, _) = Group::new_multi_member(&mut rng);
        let (own, other) = (member(10), member(20));
        let stolen = Event::MemberDeviceAdded {
            device: own.device_id(),
            member: other.member_id(),
            member_sig: own.member.sign(own.device_id().as_bytes()),
        };
        let value = seal(&group, &own, &stolen, Padding::Buckets, &mut rng);
        assert!(matches!(open(&group, &value), Err(OpenError::Forged)));
        let by_another =
            seal_signed(&group, &other.device, &Event::member_device_added(&own), Padding::Buckets, &mut rng);
        assert!(matches!(open(&group, &by_another), Err(OpenError::Forged)));
        let initial =
            seal_signed(&group, &own.device, &Event::initial_member(&own), Padding::Buckets, &mut rng);
        assert!(matches!(open(&group, &initial), Err(OpenError::Forged)));
    }

    #[test]
    fn events_do_not_show_what_is_said() {
        let own = member(10);
        assert_eq!(format!("{:?}", Event::app_metadata(&own, b"secret")), "Event(1001)");
        assert_eq!(format!("{:?}", Event::seed_reset(&own, [7; 32])), "Event(105)");
    }
}
