//! What a screen shows: plain values, safe to print.

use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId, Time};
use dunlin_wesh::engine::Position;

use crate::safety::SafetyNumber;

/// Where another account stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContactState {
    /// They ask: accept or refuse.
    Asks,
    /// We ask, and the request is still kept here.
    Kept,
    /// We ask, and they have the request; not answered yet.
    Sent,
    /// Both sides agreed.
    Added,
    /// Nothing of theirs is wanted.
    Blocked,
}

/// A person.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The account.
    pub account: AccountId,
    /// What they call themselves, or the name in their link, or the beginning of their id.
    pub name: String,
    /// Where they stand.
    pub state: ContactState,
    /// To be compared with theirs.
    pub safety_number: SafetyNumber,
    /// When the request was made or came in.
    pub since: Time,
    /// When the request was handed over.
    pub sent: Option<Time>,
    /// When both sides agreed.
    pub added: Option<Time>,
    /// The conversation with them.
    pub conversation: Option<GroupId>,
    /// Whether a device of theirs is in reach.
    pub online: bool,
}

/// A conversation with a contact or in a group.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// The group of the Wesh protocol that carries it.
    pub group: GroupId,
    /// The account at the other end; none for a group.
    pub contact: Option<AccountId>,
    /// The contact's or the group's name, or the beginning of its id.
    pub name: String,
    /// Messages that came in since it was last read.
    pub unread: u32,
    /// The last message in its order.
    pub last: Option<Message>,
    /// When the latest message was kept or came in, or else when it began.
    pub changed: Time,
    /// Members that are known, this account included.
    pub members: usize,
    /// Devices of others that are in reach.
    pub online: usize,
    /// Whether the group was left.
    pub left: bool,
    /// Messages that are here but cannot be opened.
    pub closed: u32,
}

/// A member of a conversation.
#[derive(Clone, Debug)]
pub struct Member {
    /// The member.
    pub id: MemberId,
    /// Empty until they say one.
    pub name: String,
    /// Whether it is this account.
    pub own: bool,
    /// Whether a device of theirs is in reach.
    pub online: bool,
    /// How many devices of theirs are known.
    pub devices: usize,
}

/// Something that stands in a conversation.
#[derive(Clone, Debug)]
pub struct Message {
    /// In which conversation.
    pub group: GroupId,
    /// Its place: messages are shown in the order of their positions. The id is in it.
    pub position: Position,
    /// What it is.
    pub content: MessageContent,
    /// Whether this account wrote it.
    pub own: bool,
    /// Who wrote it, as known in this conversation.
    pub sender: Option<MemberId>,
    /// The writer's name, or the beginning of their id.
    pub sender_name: String,
    /// When it was sent, by the sender's clock; a date that cannot be is replaced by that of arrival.
    pub sent: Time,
    /// When it was kept here.
    pub kept: Time,
    /// What became of it; for own messages only.
    pub delivery: Option<Delivery>,
}

impl Message {
    /// The id of the message.
    pub fn entry(&self) -> EntryId {
        self.position.id
    }
}

/// What a message says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MessageContent {
    /// A text.
    Text(String),
    /// An invitation to a group.
    Invitation {
        /// Which group.
        group: GroupId,
        /// How the sender calls it, or the beginning of its id.
        name: String,
        /// The link that leads there.
        link: String,
        /// Whether this account is in it.
        joined: bool,
    },
    /// Something that cannot be shown: a sentence that says so.
    Other(String),
}

/// What became of an own message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Delivery {
    /// When a device first had it.
    pub handed: Option<Time>,
    /// Whose device that was. The own account, when another device of it wrote the message: whom that one
    /// handed it to is known there.
    pub handed_to: Option<MemberId>,
    /// Who confirmed it, first to last.
    pub receipts: Vec<Receipt>,
    /// Other members at this time.
    pub recipients: usize,
}

/// A confirmation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// Who confirmed.
    pub member: MemberId,
    /// The member's name, or the beginning of the id.
    pub name: String,
    /// When the confirmation came in.
    pub at: Time,
}

/// The three states that an own message goes through.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum MessageState {
    /// No device has it.
    Kept,
    /// A device has it and has not confirmed it.
    Sent,
    /// At least one member confirmed it.
    Received,
}

impl Delivery {
    /// Which state that is.
    pub fn state(&self) -> MessageState {
        match (self.receipts.is_empty(), self.handed) {
            (false, _) => MessageState::Received,
            (true, Some(_)) => MessageState::Sent,
            (true, None) => MessageState::Kept,
        }
    }
}

/// Counts for a status line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// People added.
    pub contacts: usize,
    /// Requests that wait for an answer of the owner.
    pub requests: usize,
    /// Conversations.
    pub conversations: usize,
    /// Messages that were not read.
    pub unread: u32,
    /// Own messages that no device has yet.
    pub kept: usize,
    /// Devices of others that are in reach.
    pub online: usize,
    /// Devices that joined the account and that its owner has not looked at.
    pub new_devices: Vec<DeviceId>,
    /// When a copy of the data directory was found at work, unless the owner has looked since.
    pub copy_found: Option<Time>,
}

/// A message that is here and cannot be shown, in its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Gap {
    /// Where it stands.
    pub position: Position,
    /// Since when it is here.
    pub since: Time,
    /// What it waits for, in a sentence.
    pub sentence: String,
}

/// The beginning of an id, for what has no name.
pub(crate) fn short(id: impl std::fmt::Display) -> String {
    id.to_string().chars().take(8).collect()
}
