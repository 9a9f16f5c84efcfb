//! The two deployments of the protocol, which never meet (`DESIGN.md`, Compatibility).

use dunlin_base::Span;

/// Which deployment a node belongs to: the names of its stores and the period of its tokens.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Profile {
    /// The Berty application: stores `berty_*`, tokens change every 24 hours.
    #[default]
    Berty,
    /// The bare weshnet library: stores `wesh_*`, tokens never change.
    Wesh,
}

impl Profile {
    /// The type of a group's metadata store, part of its address (`spec/wesh-protocol.md` §3.1).
    pub const fn metadata_store(self) -> &'static str {
        match self {
            Self::Berty => "berty_group_metadata",
            Self::Wesh => "wesh_group_metadata",
        }
    }

    /// The type of a group's message store.
    pub const fn message_store(self) -> &'static str {
        match self {
            Self::Berty => "berty_group_messages",
            Self::Wesh => "wesh_group_messages",
        }
    }

    /// How long a rotation token is in force; `None` means for ever (`spec/wesh-protocol.md` §6.2).
    pub const fn rotation(self) -> Option<Span> {
        match self {
            Self::Berty => Some(Span::from_secs(86_400)),
            Self::Wesh => None,
        }
    }

    /// The name on the command line and on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Berty => "berty",
            Self::Wesh => "wesh",
        }
    }

    /// The profile called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Berty, Self::Wesh].into_iter().find(|profile| profile.name() == name)
    }

    /// The profile whose groups have stores of this type.
    pub fn of_store(type_name: &str) -> Option<Self> {
        let has =
            |profile: &Self| type_name == profile.metadata_store() || type_name == profile.message_store();
        [Self::Berty, Self::Wesh].into_iter().find(has)
    }
}
