//! What an event changes.

use std::fmt;

use dunlin_base::{AccountId, DeviceId, GroupId, MemberId, PublicKey};

use super::event::Credential;
use crate::contact::{Contact, ContactState};
use crate::group::Group;

/// What an event changed in the state of a group, for those who act on it.
///
/// Which changes come, and how often, follows from the order of arrival; the state they lead to does not.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A device belongs to a member from now on. Worth a notice to the user (`spec/security.md` O14).
    MemberDeviceAdded {
        /// The member.
        member: MemberId,
        /// The device.
        device: DeviceId,
    },
    /// Something was said about a device of the account. What holds of it is the index's to say.
    DeviceNoted {
        /// The device.
        device: DeviceId,
    },
    /// A device shows for the first time that nothing without a context is from it in this group.
    ContextsAlways {
        /// The device.
        device: DeviceId,
    },
    /// Something that was folded counts no more, or elsewhere: the log is to be folded from its beginning.
    FoldAgain,
    /// Two members claim one device; the first in the order of the log has it (`spec/security.md` O13).
    DeviceContested {
        /// The device.
        device: DeviceId,
        /// Who has it.
        member: MemberId,
        /// Who does not.
        other: MemberId,
    },
    /// A device offers its chain to a member.
    ChainKeyOffered {
        /// The device.
        device: DeviceId,
        /// The member who can open the box.
        dest: MemberId,
        /// The chain-key box.
        sealed: Vec<u8>,
    },
    /// The account is in a group.
    GroupJoined(Box<Group>),
    /// The account is not in a group any more.
    GroupLeft(GroupId),
    /// The account accepts contact requests, or does not.
    RequestsChanged {
        /// Whether it does.
        enabled: bool,
    },
    /// The account is found under another seed.
    SeedReset {
        /// The seed.
        seed: [u8; 32],
    },
    /// A contact stands in another state than before, or is known better.
    ContactChanged {
        /// Which.
        account: AccountId,
        /// The state before; none when it was not known.
        before: Option<ContactState>,
        /// The state.
        state: ContactState,
        /// How it introduces itself.
        contact: Contact,
    },
    /// There is a group with a contact from now on, whatever becomes of the contact.
    ContactGroupMade {
        /// Which.
        account: AccountId,
    },
    /// A member of a contact group said under which key it is known elsewhere.
    AliasKeyAdded {
        /// The device that said it.
        device: DeviceId,
        /// The key.
        alias: [u8; 32],
    },
    /// Somebody is named as the maker of the group: a member key or a device key.
    InitialMember {
        /// The key.
        member: PublicKey,
    },
    /// A server carries the group.
    Replicating {
        /// The device that gave the group to it.
        device: DeviceId,
        /// The server.
        server: String,
    },
    /// Somebody confirmed something about the account.
    CredentialRegistered(Credential),
    /// An application wrote something.
    AppMetadata {
        /// The device.
        device: DeviceId,
        /// What.
        payload: Vec<u8>,
    },
}

/// Shows what kind of change it is and whose: not what people say, nor seeds.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = match self {
            Self::MemberDeviceAdded { .. } => f.debug_struct("MemberDeviceAdded"),
            Self::DeviceNoted { .. } => f.debug_struct("DeviceNoted"),
            Self::ContextsAlways { .. } => f.debug_struct("ContextsAlways"),
            Self::FoldAgain => f.debug_struct("FoldAgain"),
            Self::DeviceContested { .. } => f.debug_struct("DeviceContested"),
            Self::ChainKeyOffered { .. } => f.debug_struct("ChainKeyOffered"),
            Self::GroupJoined(_) => f.debug_struct("GroupJoined"),
            Self::GroupLeft(_) => f.debug_struct("GroupLeft"),
            Self::RequestsChanged { .. } => f.debug_struct("RequestsChanged"),
            Self::SeedReset { .. } => f.debug_struct("SeedReset"),
            Self::ContactChanged { .. } => f.debug_struct("ContactChanged"),
            Self::ContactGroupMade { .. } => f.debug_struct("ContactGroupMade"),
            Self::AliasKeyAdded { .. } => f.debug_struct("AliasKeyAdded"),
            Self::InitialMember { .. } => f.debug_struct("InitialMember"),
            Self::Replicating { .. } => f.debug_struct("Replicating"),
            Self::CredentialRegistered(_) => f.debug_struct("CredentialRegistered"),
            Self::AppMetadata { .. } => f.debug_struct("AppMetadata"),
        };
        match self {
            Self::MemberDeviceAdded { member, device } => {
                shown.field("member", member).field("device", device).finish()
            }
            Self::DeviceContested { device, member, other } => {
                shown.field("device", device).field("member", member).field("other", other).finish()
            }
            Self::ChainKeyOffered { device, dest, .. } => {
                shown.field("device", device).field("dest", dest).finish_non_exhaustive()
            }
            Self::GroupJoined(group) => shown.field("group", &group.id()).finish_non_exhaustive(),
            Self::GroupLeft(group) => shown.field("group", group).finish(),
            Self::RequestsChanged { enabled } => shown.field("enabled", enabled).finish(),
            Self::ContactChanged { account, before, state, .. } => shown
                .field("account", account)
                .field("before", before)
                .field("state", state)
                .finish_non_exhaustive(),
            Self::ContactGroupMade { account } => shown.field("account", account).finish(),
            Self::InitialMember { member } => shown.field("member", member).finish(),
            Self::DeviceNoted { device }
            | Self::ContextsAlways { device }
            | Self::AliasKeyAdded { device, .. }
            | Self::Replicating { device, .. }
            | Self::AppMetadata { device, .. } => shown.field("device", device).finish_non_exhaustive(),
            Self::SeedReset { .. } | Self::CredentialRegistered(_) | Self::FoldAgain => {
                shown.finish_non_exhaustive()
            }
        }
    }
}
