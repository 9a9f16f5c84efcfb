//! What the engine tells those above it.

use dunlin_base::keys::Signature;
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId, PeerId, Time};
use dunlin_log::Position;

use super::RenewalCause;
use crate::contact::Contact;
use crate::metadata::{Change, OpenedEvent};

/// Something happened. Events of one transaction come in the order in which they were caused.
///
/// An event is handed out inside the transaction that stores it: a projection that writes into the same
/// transaction has seen it exactly once, whatever crashes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A metadata event joined its log and was opened.
    Metadata(MetadataEvent),
    /// A message joined its log and was opened.
    Message(MessageEvent),
    /// A message joined its log but cannot be shown yet; or one that was told turns out to be a
    /// [repeat](WaitCause::Repeat), and is not to be shown any more.
    MessageWaits {
        /// In which group.
        group: GroupId,
        /// The entry.
        entry: EntryId,
        /// Why.
        cause: WaitCause,
    },
    /// An entry told before stands elsewhere in the conversation now: a late parent arrived, or the same
    /// message arrived in an entry that comes first, which then is what `to` names.
    Moved {
        /// In which group.
        group: GroupId,
        /// Where it stood.
        from: Position,
        /// Where it stands.
        to: Position,
    },
    /// A late parent changed the order of a metadata log: what follows from its events was found anew, and
    /// a projection of it should be compared with the engine.
    Refolded {
        /// In which group.
        group: GroupId,
    },
    /// Somebody asks to become a contact. Waits in the inbox until it is answered.
    RequestReceived {
        /// Who, as they introduce themselves.
        contact: Contact,
        /// When it arrived.
        at: Time,
        /// The event that accepting it will write, for those who wait for that one: it is in no log, and stands
        /// behind all others.
        event: Box<MetadataEvent>,
    },
    /// A request was refused, of which nothing is written.
    RequestDiscarded {
        /// The same in the form of the event that another implementation writes; it is in no log.
        event: Box<MetadataEvent>,
    },
    /// The owner erased a message from this device ([`Engine::erase_message`](super::Engine::erase_message)).
    Erased {
        /// In which group.
        group: GroupId,
        /// The entry that carries it.
        entry: EntryId,
    },
    /// The handshake of an own request was completed: the other side has it.
    RequestSent {
        /// Whom it went to.
        account: AccountId,
    },
    /// An own entry was handed to a device of another member.
    Delivered {
        /// In which group.
        group: GroupId,
        /// The entry.
        entry: EntryId,
        /// The device, where it is known.
        device: Option<DeviceId>,
        /// When.
        at: Time,
    },
    /// This device goes on under a new key, because another one may run with the present one. The others see a
    /// new device of this account.
    DeviceRenewed {
        /// The new device, as it is known in the account group and in contact groups.
        device: DeviceId,
        /// What made it necessary.
        cause: RenewalCause,
    },
    /// A host that speaks for a device of a group came into reach or went out of it.
    Presence {
        /// In which group.
        group: GroupId,
        /// The host.
        peer: PeerId,
        /// The device.
        device: DeviceId,
        /// Whether it came or went.
        online: bool,
    },
}

impl Event {
    /// The group that it is about.
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Self::Metadata(event) => Some(event.group),
            Self::Message(message) => Some(message.group),
            Self::MessageWaits { group, .. }
            | Self::Moved { group, .. }
            | Self::Refolded { group }
            | Self::Erased { group, .. }
            | Self::Delivered { group, .. }
            | Self::Presence { group, .. } => Some(*group),
            Self::RequestReceived { .. }
            | Self::RequestDiscarded { .. }
            | Self::RequestSent { .. }
            | Self::DeviceRenewed { .. } => None,
        }
    }
}

/// An opened metadata event and where it stands.
#[derive(Clone, Debug)]
pub struct MetadataEvent {
    /// In which group.
    pub group: GroupId,
    /// The log entry that carries it.
    pub entry: EntryId,
    /// Its place in the order of the log.
    pub position: Position,
    /// What was said, as received.
    pub event: OpenedEvent,
    /// What it changed in the state of the group; empty when it changed nothing.
    pub changes: Vec<Change>,
}

/// An opened message and where it stands.
#[derive(Clone, Debug)]
pub struct MessageEvent {
    /// In which group.
    pub group: GroupId,
    /// The log entry that carries it.
    pub entry: EntryId,
    /// Its place in the order of the log.
    pub position: Position,
    /// The sending device.
    pub device: DeviceId,
    /// The member whose device it is; a message waits until that is known (`spec/security.md` E6).
    pub member: MemberId,
    /// The number of the message among those of its device.
    pub counter: u64,
    /// The device's signature of what it said, as the entry carries it; `None` where it carries none that could be one.
    pub signature: Option<Signature>,
    /// The entries that its writer had seen last.
    pub parents: Vec<EntryId>,
    /// What the application sent.
    pub payload: Vec<u8>,
    /// Whether this device sent it.
    pub own: bool,
}

/// Why a message that is in the log is not shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum WaitCause {
    /// The chain key of the sending device has not arrived, or starts after this message.
    KeyNotReceived {
        /// The sending device.
        device: DeviceId,
    },
    /// The sending device has not announced itself in the group, or the announcement has not arrived.
    DeviceUnknown {
        /// The sending device.
        device: DeviceId,
    },
    /// It was sent before the sender gave this member a key; it stays closed for ever.
    SentBeforeKey {
        /// The sending device.
        device: DeviceId,
    },
    /// More than the window of messages of its device are missing before it.
    BeyondWindow {
        /// The sending device.
        device: DeviceId,
    },
    /// Another message has its number: somebody sent what its device once signed again, in another place
    /// (`spec/security.md` E5). It is kept, and shown after all should it turn out to be the real one.
    Repeat {
        /// The device whose message was repeated.
        device: DeviceId,
    },
    /// The device did not sign it for this place: somebody moved what it signed for another group or another number, or
    /// took it from the time before the device said where its messages belong (`spec/security.md` §3.1).
    OutOfPlace {
        /// The device whose message was moved.
        device: DeviceId,
    },
    /// It cannot be opened with any key: damaged or forged.
    Unreadable,
}
