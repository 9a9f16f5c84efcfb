//! What watchers are told.

use dunlin_base::{AccountId, DeviceId, EntryId, GroupId};

/// Something on the screen is different now. It says where to look, not what is there: whoever watches reads
/// it again, so that a notice that comes late or twice does no harm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The own name is another.
    ProfileChanged,
    /// A device joined the account. Whoever has the keys of the account can add one (`spec/security.md` O14).
    DeviceAdded(DeviceId),
    /// Another node was at work on a copy of this data directory, and this one goes on as a new device
    /// (`spec/security.md` E3).
    CopyFound,
    /// A contact or a request is new or stands elsewhere.
    ContactChanged(AccountId),
    /// A contact or a request is gone.
    ContactRemoved(AccountId),
    /// A conversation is new, or its name, members, unread count or reach is another.
    ConversationChanged(GroupId),
    /// A message is new.
    MessageAdded {
        /// In which conversation.
        group: GroupId,
        /// The message.
        entry: EntryId,
    },
    /// A message was erased from this device.
    MessageErased {
        /// In which conversation.
        group: GroupId,
        /// The message.
        entry: EntryId,
    },
    /// A message is here and cannot be shown, or waits for something else than before.
    GapFound {
        /// In which conversation.
        group: GroupId,
        /// The message.
        entry: EntryId,
    },
    /// Nothing is in this place any more: what was closed is open and told next, or what was shown does not belong there.
    Gone {
        /// In which conversation.
        group: GroupId,
        /// What was there.
        entry: EntryId,
    },
    /// A message has another state or place.
    MessageChanged {
        /// In which conversation.
        group: GroupId,
        /// The message.
        entry: EntryId,
    },
}
