//! Events as the bytes of their payload, and back.

use dunlin_base::{AccountId, DeviceId, GroupId, MemberId, PublicKey, Signature};
use dunlin_proto::protocol::{self as proto, EventType};
use prost::Message;

use super::event::{Credential, Event, EventError};
use crate::contact::Contact;
use crate::group::{Group, GroupKind};

impl Event {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::MemberDeviceAdded { device, member, member_sig } => proto::GroupMemberDeviceAdded {
                member_pk: member.as_bytes().to_vec(),
                device_pk: device.as_bytes().to_vec(),
                member_sig: member_sig.as_bytes().to_vec(),
            }
            .encode_to_vec(),
            Self::ChainKeyAdded { device, dest, sealed } => proto::GroupDeviceChainKeyAdded {
                device_pk: device.as_bytes().to_vec(),
                dest_member_pk: dest.as_bytes().to_vec(),
                payload: sealed.clone(),
            }
            .encode_to_vec(),
            Self::GroupJoined { device, group } => proto::AccountGroupJoined {
                device_pk: device.as_bytes().to_vec(),
                group: Some(group.to_proto()),
            }
            .encode_to_vec(),
            Self::GroupLeft { device, group } => proto::AccountGroupLeft {
                device_pk: device.as_bytes().to_vec(),
                group_pk: group.as_bytes().to_vec(),
            }
            .encode_to_vec(),
            Self::SeedReset { device, seed } => proto::AccountContactRequestReferenceReset {
                device_pk: device.as_bytes().to_vec(),
                public_rendezvous_seed: seed.to_vec(),
            }
            .encode_to_vec(),
            Self::ContactEnqueued { device, contact, own_metadata } => {
                proto::AccountContactRequestOutgoingEnqueued {
                    device_pk: device.as_bytes().to_vec(),
                    group_pk: Vec::new(),
                    contact: Some(contact.to_proto()),
                    own_metadata: own_metadata.clone(),
                }
                .encode_to_vec()
            }
            Self::ContactReceived { device, contact } => proto::AccountContactRequestIncomingReceived {
                device_pk: device.as_bytes().to_vec(),
                contact_pk: contact.account.as_bytes().to_vec(),
                contact_rendezvous_seed: contact.seed.map(Vec::from).unwrap_or_default(),
                contact_metadata: contact.metadata.clone(),
            }
            .encode_to_vec(),
            Self::AliasKeyAdded { device, alias } => proto::ContactAliasKeyAdded {
                device_pk: device.as_bytes().to_vec(),
                alias_pk: alias.to_vec(),
            }
            .encode_to_vec(),
            Self::AliasResolverAdded { device, resolver, proof } => {
                proto::MultiMemberGroupAliasResolverAdded {
                    device_pk: device.as_bytes().to_vec(),
                    alias_resolver: resolver.clone(),
                    alias_proof: proof.clone(),
                }
                .encode_to_vec()
            }
            Self::InitialMember { member } => {
                proto::MultiMemberGroupInitialMemberAnnounced { member_pk: member.as_bytes().to_vec() }
                    .encode_to_vec()
            }
            Self::AdminGranted { device, grantee } => proto::MultiMemberGroupAdminRoleGranted {
                device_pk: device.as_bytes().to_vec(),
                grantee_member_pk: grantee.clone(),
            }
            .encode_to_vec(),
            Self::Replicating { device, authentication_url, server } => proto::GroupReplicating {
                device_pk: device.as_bytes().to_vec(),
                authentication_url: authentication_url.clone(),
                replication_server: server.clone(),
            }
            .encode_to_vec(),
            Self::CredentialRegistered { device, credential } => credential.to_proto(device).encode_to_vec(),
            Self::AppMetadata { device, payload } => proto::GroupMetadataPayloadSent {
                device_pk: device.as_bytes().to_vec(),
                message: payload.clone(),
            }
            .encode_to_vec(),
            Self::RequestsDisabled { device } | Self::RequestsEnabled { device } => encode_device(device),
            Self::ContactSent { device, account }
            | Self::ContactDiscarded { device, account }
            | Self::ContactAccepted { device, account }
            | Self::ContactBlocked { device, account }
            | Self::ContactUnblocked { device, account } => encode_contact(device, account),
        }
    }

    /// Reads the payload of an event of this type.
    ///
    /// # Errors
    /// [`EventError`].
    pub fn decode(event_type: i32, payload: &[u8]) -> Result<Self, EventError> {
        let known = EventType::try_from(event_type).unwrap_or(EventType::Undefined);
        match known {
            EventType::Undefined => Err(EventError::UnknownType { number: event_type }),
            EventType::GroupMemberDeviceAdded => decode_member_device(payload),
            EventType::GroupDeviceChainKeyAdded => {
                let payload = proto::GroupDeviceChainKeyAdded::decode(payload)?;
                Ok(Self::ChainKeyAdded {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    dest: MemberId::from_bytes(&payload.dest_member_pk)?,
                    sealed: payload.payload,
                })
            }
            EventType::AccountGroupJoined => decode_group_joined(payload),
            EventType::AccountGroupLeft => {
                let payload = proto::AccountGroupLeft::decode(payload)?;
                Ok(Self::GroupLeft {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    group: GroupId::from_bytes(&payload.group_pk)?,
                })
            }
            EventType::AccountContactRequestDisabled => {
                Ok(Self::RequestsDisabled { device: decode_device(payload)? })
            }
            EventType::AccountContactRequestEnabled => {
                Ok(Self::RequestsEnabled { device: decode_device(payload)? })
            }
            EventType::AccountContactRequestReferenceReset => {
                let payload = proto::AccountContactRequestReferenceReset::decode(payload)?;
                Ok(Self::SeedReset {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    seed: exactly("public_rendezvous_seed", &payload.public_rendezvous_seed)?,
                })
            }
            EventType::AccountContactRequestOutgoingEnqueued => decode_enqueued(payload),
            EventType::AccountContactRequestOutgoingSent => {
                let (device, account) = decode_contact(payload)?;
                Ok(Self::ContactSent { device, account })
            }
            EventType::AccountContactRequestIncomingReceived => decode_received(payload),
            EventType::AccountContactRequestIncomingDiscarded => {
                let (device, account) = decode_contact(payload)?;
                Ok(Self::ContactDiscarded { device, account })
            }
            EventType::AccountContactRequestIncomingAccepted => {
                let (device, account) = decode_contact(payload)?;
                Ok(Self::ContactAccepted { device, account })
            }
            EventType::AccountContactBlocked => {
                let (device, account) = decode_contact(payload)?;
                Ok(Self::ContactBlocked { device, account })
            }
            EventType::AccountContactUnblocked => {
                let (device, account) = decode_contact(payload)?;
                Ok(Self::ContactUnblocked { device, account })
            }
            EventType::ContactAliasKeyAdded => {
                let payload = proto::ContactAliasKeyAdded::decode(payload)?;
                Ok(Self::AliasKeyAdded {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    alias: exactly("alias_pk", &payload.alias_pk)?,
                })
            }
            EventType::MultiMemberGroupAliasResolverAdded => {
                let payload = proto::MultiMemberGroupAliasResolverAdded::decode(payload)?;
                Ok(Self::AliasResolverAdded {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    resolver: payload.alias_resolver,
                    proof: payload.alias_proof,
                })
            }
            EventType::MultiMemberGroupInitialMemberAnnounced => {
                let payload = proto::MultiMemberGroupInitialMemberAnnounced::decode(payload)?;
                Ok(Self::InitialMember { member: PublicKey::from_bytes(&payload.member_pk)? })
            }
            EventType::MultiMemberGroupAdminRoleGranted => {
                let payload = proto::MultiMemberGroupAdminRoleGranted::decode(payload)?;
                Ok(Self::AdminGranted {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    grantee: payload.grantee_member_pk,
                })
            }
            EventType::GroupReplicating => {
                let payload = proto::GroupReplicating::decode(payload)?;
                Ok(Self::Replicating {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    authentication_url: payload.authentication_url,
                    server: payload.replication_server,
                })
            }
            EventType::AccountVerifiedCredentialRegistered => {
                let payload = proto::AccountVerifiedCredentialRegistered::decode(payload)?;
                Ok(Self::CredentialRegistered {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    credential: Credential::from_proto(payload),
                })
            }
            EventType::GroupMetadataPayloadSent => {
                let payload = proto::GroupMetadataPayloadSent::decode(payload)?;
                Ok(Self::AppMetadata {
                    device: DeviceId::from_bytes(&payload.device_pk)?,
                    payload: payload.message,
                })
            }
        }
    }
}

fn decode_member_device(payload: &[u8]) -> Result<Event, EventError> {
    let payload = proto::GroupMemberDeviceAdded::decode(payload)?;
    Ok(Event::MemberDeviceAdded {
        device: DeviceId::from_bytes(&payload.device_pk)?,
        member: MemberId::from_bytes(&payload.member_pk)?,
        member_sig: Signature::from_slice(&payload.member_sig)
            .ok_or(EventError::Field { field: "member_sig" })?,
    })
}

fn decode_group_joined(payload: &[u8]) -> Result<Event, EventError> {
    let payload = proto::AccountGroupJoined::decode(payload)?;
    let device = DeviceId::from_bytes(&payload.device_pk)?;
    let group = payload.group.and_then(|group| Group::from_proto(&group).ok());
    // Only multi-member groups are joined: the others follow from the account and its contacts.
    match group {
        Some(group) if group.kind() == GroupKind::MultiMember => {
            Ok(Event::GroupJoined { device, group: Box::new(group) })
        }
        _ => Err(EventError::Field { field: "group" }),
    }
}

fn decode_enqueued(payload: &[u8]) -> Result<Event, EventError> {
    let payload = proto::AccountContactRequestOutgoingEnqueued::decode(payload)?;
    let device = DeviceId::from_bytes(&payload.device_pk)?;
    let contact = payload.contact.and_then(|contact| Contact::from_proto(contact).ok());
    let contact = contact.ok_or(EventError::Field { field: "contact" })?;
    Ok(Event::ContactEnqueued { device, contact, own_metadata: payload.own_metadata })
}

fn decode_received(payload: &[u8]) -> Result<Event, EventError> {
    let payload = proto::AccountContactRequestIncomingReceived::decode(payload)?;
    let account = AccountId::from_bytes(&payload.contact_pk)?;
    let seed = match payload.contact_rendezvous_seed.as_slice() {
        [] => None,
        seed => Some(exactly("contact_rendezvous_seed", seed)?),
    };
    let contact = Contact { account, seed, metadata: payload.contact_metadata };
    Ok(Event::ContactReceived { device: DeviceId::from_bytes(&payload.device_pk)?, contact })
}

/// Payload of the types that name a device and nothing else. They differ in nothing but their type.
fn encode_device(device: &DeviceId) -> Vec<u8> {
    proto::AccountContactRequestDisabled { device_pk: device.as_bytes().to_vec() }.encode_to_vec()
}

fn decode_device(payload: &[u8]) -> Result<DeviceId, EventError> {
    let payload = proto::AccountContactRequestDisabled::decode(payload)?;
    Ok(DeviceId::from_bytes(&payload.device_pk)?)
}

/// Payload of the types that name a device and a contact. They differ in nothing but their type.
fn encode_contact(device: &DeviceId, account: &AccountId) -> Vec<u8> {
    proto::AccountContactBlocked {
        device_pk: device.as_bytes().to_vec(),
        contact_pk: account.as_bytes().to_vec(),
    }
    .encode_to_vec()
}

fn decode_contact(payload: &[u8]) -> Result<(DeviceId, AccountId), EventError> {
    let payload = proto::AccountContactBlocked::decode(payload)?;
    Ok((DeviceId::from_bytes(&payload.device_pk)?, AccountId::from_bytes(&payload.contact_pk)?))
}

fn exactly<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], EventError> {
    bytes.try_into().map_err(|_| EventError::Field { field })
}
