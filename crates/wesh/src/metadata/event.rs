//! Metadata events: what a device says about a group (`spec/wesh-protocol.md` §2.4, §2.5).

use std::fmt;

use dunlin_base::keys::KeyError;
use dunlin_base::{AccountId, DeviceId, GroupId, MemberId, PublicKey, Signature};
use dunlin_proto::protocol::{self as proto, EventType};

use crate::contact::{Contact, ContactStep};
use crate::group::{Group, GroupKind, OwnMember};

/// What a device says about a group. Every key, signature and length in it has been checked.
///
/// `device` is the device that says it, and whose signature makes it an event. Only
/// [`Event::InitialMember`] comes from no device: the group key signs it.
#[derive(Clone, Eq, PartialEq)]
pub enum Event {
    /// 1: the device belongs to the member.
    MemberDeviceAdded {
        /// The device.
        device: DeviceId,
        /// The member.
        member: MemberId,
        /// The member's signature over the device key.
        member_sig: Signature,
    },
    /// 2: the device gives its chain to a member.
    ChainKeyAdded {
        /// The device.
        device: DeviceId,
        /// The member who can open the box.
        dest: MemberId,
        /// The chain-key box ([`crate::message::open_chain_key_box`]).
        sealed: Vec<u8>,
    },
    /// 101: the account joins a multi-member group.
    GroupJoined {
        /// The device.
        device: DeviceId,
        /// The group.
        group: Box<Group>,
    },
    /// 102: the account leaves a group.
    GroupLeft {
        /// The device.
        device: DeviceId,
        /// The group.
        group: GroupId,
    },
    /// 103: the account accepts no more contact requests.
    RequestsDisabled {
        /// The device.
        device: DeviceId,
    },
    /// 104: the account accepts contact requests.
    RequestsEnabled {
        /// The device.
        device: DeviceId,
    },
    /// 105: the account is found under a new seed.
    SeedReset {
        /// The device.
        device: DeviceId,
        /// The seed.
        seed: [u8; 32],
    },
    /// 106: a contact is to be asked.
    ContactEnqueued {
        /// The device.
        device: DeviceId,
        /// Whom.
        contact: Contact,
        /// How the account introduces itself to it.
        own_metadata: Vec<u8>,
    },
    /// 107: a contact was asked, or had asked before.
    ContactSent {
        /// The device.
        device: DeviceId,
        /// Whom.
        account: AccountId,
    },
    /// 108: somebody asks to become a contact.
    ContactReceived {
        /// The device.
        device: DeviceId,
        /// Who.
        contact: Contact,
    },
    /// 109: a request was put away.
    ContactDiscarded {
        /// The device.
        device: DeviceId,
        /// Whose.
        account: AccountId,
    },
    /// 110: a request was accepted.
    ContactAccepted {
        /// The device.
        device: DeviceId,
        /// Whose.
        account: AccountId,
    },
    /// 111: a contact was blocked.
    ContactBlocked {
        /// The device.
        device: DeviceId,
        /// Which.
        account: AccountId,
    },
    /// 112: a contact was unblocked.
    ContactUnblocked {
        /// The device.
        device: DeviceId,
        /// Which.
        account: AccountId,
    },
    /// 201: under which key the member of a contact group is known elsewhere. Go devices write the account
    /// key.
    AliasKeyAdded {
        /// The device.
        device: DeviceId,
        /// The key, not checked to be one.
        alias: [u8; 32],
    },
    /// 301: never filled by anybody.
    AliasResolverAdded {
        /// The device.
        device: DeviceId,
        /// Opaque.
        resolver: Vec<u8>,
        /// Opaque.
        proof: Vec<u8>,
    },
    /// 302: who made the multi-member group. Go devices write the key of the device.
    InitialMember {
        /// The key of the member or its device.
        member: PublicKey,
    },
    /// 303: never applied, since its type is outside the signature (`spec/security.md` O12).
    AdminGranted {
        /// The device.
        device: DeviceId,
        /// The member key, as it came.
        grantee: Vec<u8>,
    },
    /// 403: a server carries the group.
    Replicating {
        /// The device.
        device: DeviceId,
        /// Where the server's tokens are obtained.
        authentication_url: String,
        /// The server.
        server: String,
    },
    /// 500: somebody confirmed something about the account.
    CredentialRegistered {
        /// The device.
        device: DeviceId,
        /// What.
        credential: Credential,
    },
    /// 1001: what an application writes.
    AppMetadata {
        /// The device.
        device: DeviceId,
        /// Opaque.
        payload: Vec<u8>,
    },
}

/// A verified credential (`spec/wesh-protocol.md` §7.6).
#[derive(Clone, Eq, PartialEq)]
pub struct Credential {
    /// The key that was confirmed.
    pub signed_identity_public_key: Vec<u8>,
    /// The credential itself.
    pub verified_credential: String,
    /// When it was registered, in nanoseconds since 1970.
    pub registration_date: i64,
    /// When it ends, in nanoseconds since 1970.
    pub expiration_date: i64,
    /// What was confirmed, such as a telephone number.
    pub identifier: String,
    /// Who confirmed it.
    pub issuer: String,
}

/// Why a payload is no event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// The type is unknown. Perhaps a newer version knows it; it changes nothing here.
    #[error("events of type {number} are not known")]
    UnknownType {
        /// Which number came.
        number: i32,
    },
    /// The payload is not the message of its type. Ignore the event.
    #[error("the payload is not what its type says: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A key is missing or none. Ignore the event.
    #[error("a key of the event is not usable: {0}")]
    Key(#[from] KeyError),
    /// A field has another length than the one it always has, or another content. Ignore the event.
    #[error("the field {field} is not usable")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

/// Events of the own member. What is sealed with [`super::seal`] is made here.
impl Event {
    /// 1: this device belongs to this member.
    pub fn member_device_added(own: &OwnMember) -> Self {
        let device = own.device_id();
        let member_sig = own.member.sign(device.as_bytes());
        Self::MemberDeviceAdded { device, member: own.member_id(), member_sig }
    }

    /// 2: this device gives its chain to `dest`; `sealed` is its [`crate::message::own_chain_key_box`].
    pub fn chain_key_added(own: &OwnMember, dest: MemberId, sealed: Vec<u8>) -> Self {
        Self::ChainKeyAdded { device: own.device_id(), dest, sealed }
    }

    /// 101: this account joins a multi-member group.
    pub fn group_joined(own: &OwnMember, group: Group) -> Self {
        Self::GroupJoined { device: own.device_id(), group: Box::new(group) }
    }

    /// 102: this account leaves a group.
    pub fn group_left(own: &OwnMember, group: GroupId) -> Self {
        Self::GroupLeft { device: own.device_id(), group }
    }

    /// 103: this account accepts no more contact requests.
    pub fn requests_disabled(own: &OwnMember) -> Self {
        Self::RequestsDisabled { device: own.device_id() }
    }

    /// 104: this account accepts contact requests.
    pub fn requests_enabled(own: &OwnMember) -> Self {
        Self::RequestsEnabled { device: own.device_id() }
    }

    /// 105: this account is found under a new seed.
    pub fn seed_reset(own: &OwnMember, seed: [u8; 32]) -> Self {
        Self::SeedReset { device: own.device_id(), seed }
    }

    /// 106: `contact` is to be asked; `own_metadata` introduces this account to it.
    pub fn contact_enqueued(own: &OwnMember, contact: Contact, own_metadata: &[u8]) -> Self {
        Self::ContactEnqueued { device: own.device_id(), contact, own_metadata: own_metadata.to_vec() }
    }

    /// 107: `account` was asked, or had asked before.
    pub fn contact_sent(own: &OwnMember, account: AccountId) -> Self {
        Self::ContactSent { device: own.device_id(), account }
    }

    /// 108: `contact` asks to become one.
    pub fn contact_received(own: &OwnMember, contact: Contact) -> Self {
        Self::ContactReceived { device: own.device_id(), contact }
    }

    /// 109: the request of `account` was put away.
    pub fn contact_discarded(own: &OwnMember, account: AccountId) -> Self {
        Self::ContactDiscarded { device: own.device_id(), account }
    }

    /// 110: the request of `account` was accepted.
    pub fn contact_accepted(own: &OwnMember, account: AccountId) -> Self {
        Self::ContactAccepted { device: own.device_id(), account }
    }

    /// 111: `account` was blocked.
    pub fn contact_blocked(own: &OwnMember, account: AccountId) -> Self {
        Self::ContactBlocked { device: own.device_id(), account }
    }

    /// 112: `account` was unblocked.
    pub fn contact_unblocked(own: &OwnMember, account: AccountId) -> Self {
        Self::ContactUnblocked { device: own.device_id(), account }
    }

    /// 201: under which key this member of a contact group is known elsewhere.
    ///
    /// Writes the account key, as Go devices do: the proof key, which this was meant to carry, is a
    /// secret (`spec/security.md` C7).
    pub fn alias_key_added(own: &OwnMember) -> Self {
        Self::AliasKeyAdded { device: own.device_id(), alias: *own.member.public().as_bytes() }
    }

    /// 301: this member could be recognized elsewhere. Go devices leave both fields empty.
    pub fn alias_resolver_added(own: &OwnMember) -> Self {
        Self::AliasResolverAdded { device: own.device_id(), resolver: Vec::new(), proof: Vec::new() }
    }

    /// 302: this member made the group. Sealed by [`super::seal_by_group`].
    ///
    /// Writes the key of the device, as Go devices do and expect.
    pub fn initial_member(own: &OwnMember) -> Self {
        Self::InitialMember { member: own.device.public() }
    }

    /// 403: a server carries the group.
    pub fn replicating(own: &OwnMember, authentication_url: String, server: String) -> Self {
        Self::Replicating { device: own.device_id(), authentication_url, server }
    }

    /// 500: somebody confirmed something about this account.
    pub fn credential_registered(own: &OwnMember, credential: Credential) -> Self {
        Self::CredentialRegistered { device: own.device_id(), credential }
    }

    /// 1001: what an application writes.
    pub fn app_metadata(own: &OwnMember, payload: &[u8]) -> Self {
        Self::AppMetadata { device: own.device_id(), payload: payload.to_vec() }
    }
}

impl Event {
    /// The device that says it.
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::InitialMember { .. } => None,
            Self::MemberDeviceAdded { device, .. }
            | Self::ChainKeyAdded { device, .. }
            | Self::GroupJoined { device, .. }
            | Self::GroupLeft { device, .. }
            | Self::RequestsDisabled { device }
            | Self::RequestsEnabled { device }
            | Self::SeedReset { device, .. }
            | Self::ContactEnqueued { device, .. }
            | Self::ContactSent { device, .. }
            | Self::ContactReceived { device, .. }
            | Self::ContactDiscarded { device, .. }
            | Self::ContactAccepted { device, .. }
            | Self::ContactBlocked { device, .. }
            | Self::ContactUnblocked { device, .. }
            | Self::AliasKeyAdded { device, .. }
            | Self::AliasResolverAdded { device, .. }
            | Self::AdminGranted { device, .. }
            | Self::Replicating { device, .. }
            | Self::CredentialRegistered { device, .. }
            | Self::AppMetadata { device, .. } => Some(device),
        }
    }

    /// The type on the wire.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::MemberDeviceAdded { .. } => EventType::GroupMemberDeviceAdded,
            Self::ChainKeyAdded { .. } => EventType::GroupDeviceChainKeyAdded,
            Self::GroupJoined { .. } => EventType::AccountGroupJoined,
            Self::GroupLeft { .. } => EventType::AccountGroupLeft,
            Self::RequestsDisabled { .. } => EventType::AccountContactRequestDisabled,
            Self::RequestsEnabled { .. } => EventType::AccountContactRequestEnabled,
            Self::SeedReset { .. } => EventType::AccountContactRequestReferenceReset,
            Self::ContactEnqueued { .. } => ContactStep::OutgoingEnqueued.event_type(),
            Self::ContactSent { .. } => ContactStep::OutgoingSent.event_type(),
            Self::ContactReceived { .. } => ContactStep::IncomingReceived.event_type(),
            Self::ContactDiscarded { .. } => ContactStep::IncomingDiscarded.event_type(),
            Self::ContactAccepted { .. } => ContactStep::IncomingAccepted.event_type(),
            Self::ContactBlocked { .. } => ContactStep::Blocked.event_type(),
            Self::ContactUnblocked { .. } => ContactStep::Unblocked.event_type(),
            Self::AliasKeyAdded { .. } => EventType::ContactAliasKeyAdded,
            Self::AliasResolverAdded { .. } => EventType::MultiMemberGroupAliasResolverAdded,
            Self::InitialMember { .. } => EventType::MultiMemberGroupInitialMemberAnnounced,
            Self::AdminGranted { .. } => EventType::MultiMemberGroupAdminRoleGranted,
            Self::Replicating { .. } => EventType::GroupReplicating,
            Self::CredentialRegistered { .. } => EventType::AccountVerifiedCredentialRegistered,
            Self::AppMetadata { .. } => EventType::GroupMetadataPayloadSent,
        }
    }

    /// Whether such an event means something in a group of this kind (`spec/security.md` O10).
    pub fn is_legal_in(&self, kind: GroupKind) -> bool {
        match self {
            Self::MemberDeviceAdded { .. }
            | Self::ChainKeyAdded { .. }
            | Self::Replicating { .. }
            | Self::AppMetadata { .. } => true,
            Self::GroupJoined { .. }
            | Self::GroupLeft { .. }
            | Self::RequestsDisabled { .. }
            | Self::RequestsEnabled { .. }
            | Self::SeedReset { .. }
            | Self::ContactEnqueued { .. }
            | Self::ContactSent { .. }
            | Self::ContactReceived { .. }
            | Self::ContactDiscarded { .. }
            | Self::ContactAccepted { .. }
            | Self::ContactBlocked { .. }
            | Self::ContactUnblocked { .. }
            | Self::CredentialRegistered { .. } => kind == GroupKind::Account,
            Self::AliasKeyAdded { .. } => kind == GroupKind::Contact,
            Self::AliasResolverAdded { .. } | Self::InitialMember { .. } | Self::AdminGranted { .. } => {
                kind == GroupKind::MultiMember
            }
        }
    }
}

/// Shows the type alone: events hold what people say, and seeds.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({})", self.event_type() as i32)
    }
}

/// Shows nothing of what was confirmed.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Credential {
    /// The payload of event 500 by `device`.
    pub(super) fn to_proto(&self, device: &DeviceId) -> proto::AccountVerifiedCredentialRegistered {
        proto::AccountVerifiedCredentialRegistered {
            device_pk: device.as_bytes().to_vec(),
            signed_identity_public_key: self.signed_identity_public_key.clone(),
            verified_credential: self.verified_credential.clone(),
            registration_date: self.registration_date,
            expiration_date: self.expiration_date,
            identifier: self.identifier.clone(),
            issuer: self.issuer.clone(),
        }
    }

    /// Takes the payload of an event 500.
    pub(super) fn from_proto(payload: proto::AccountVerifiedCredentialRegistered) -> Self {
        Self {
            signed_identity_public_key: payload.signed_identity_public_key,
            verified_credential: payload.verified_credential,
            registration_date: payload.registration_date,
            expiration_date: payload.expiration_date,
            identifier: payload.identifier,
            issuer: payload.issuer,
        }
    }
}
