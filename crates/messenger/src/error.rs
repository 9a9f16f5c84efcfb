//! Why something that the user asked for was not done.

use dunlin_base::kv::ReadError;
use dunlin_wesh::contact::ContactRefusal;
use dunlin_wesh::engine::CommandError;

use crate::links::LinkError;
use crate::text::{NAME_CHARS_MAX, NameError, TEXT_BYTES_MAX};

/// Why something was not done. Each says it in a sentence; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessengerError {
    /// The link cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The link leads to something else than was asked for.
    #[error("this link leads to {found}, not to {wanted}")]
    LinkKind {
        /// What it leads to.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// The link is the account's own.
    #[error("this is your own link: give it to others")]
    OwnLink,
    /// The contact or group of the link is there already.
    #[error("{0}")]
    AlreadyKnown(String),
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is nothing to send.
    #[error("there is no text to send")]
    TextEmpty,
    /// The text is too long for one message.
    #[error("the text has {bytes} bytes, and a message holds {TEXT_BYTES_MAX}: send it in parts")]
    TextTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Nothing is called like that.
    #[error("there is no {what} called “{reference}”")]
    Unknown {
        /// What was looked for.
        what: Named,
        /// How it was called; safe to print.
        reference: String,
    },
    /// More than one thing is called like that.
    #[error("“{reference}” fits more than one {what}: {}", candidates.join(", "))]
    Ambiguous {
        /// What was looked for.
        what: Named,
        /// How it was called; safe to print.
        reference: String,
        /// What it fits, as names and beginnings of ids.
        candidates: Vec<String>,
    },
    /// The beginning of a message id is too short.
    #[error("a message is named by its id or by the first 6 or more characters of its short id")]
    ReferenceTooShort,
    /// The message was erased before.
    #[error("the message is erased from this device already")]
    Erased,
    /// There is no text of the message here that could be erased.
    #[error("the message was never open on this device, so nothing of it can be erased")]
    Closed,
    /// There is no conversation with somebody who is not a contact.
    #[error("{0} is not a contact")]
    NotAContact(String),
    /// Only groups can do that.
    #[error("this is no group: only groups can be invited to, renamed, shared and left")]
    NotAGroup,
    /// The contact is blocked.
    #[error("{0} is blocked: unblock them first")]
    Blocked(String),
    /// There is no request to answer.
    #[error("{0} has not asked to become a contact")]
    NoRequest(String),
    /// The contact is not blocked.
    #[error("{0} is not blocked")]
    NotBlocked(String),
    /// The group was left.
    #[error("the group “{0}” was left: it can only be read")]
    Left(String),
    /// The engine refused.
    #[error(transparent)]
    Engine(CommandError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What a reference can name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Named {
    /// A contact.
    Contact,
    /// A conversation.
    Conversation,
    /// A message.
    Message,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Contact => "contact",
            Self::Conversation => "conversation",
            Self::Message => "message",
        })
    }
}

impl From<CommandError> for MessengerError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Read(error) => Self::Read(error),
            CommandError::Contact(ContactRefusal::OwnAccount) => Self::OwnLink,
            other => Self::Engine(other),
        }
    }
}

const _: () = assert!(NAME_CHARS_MAX * 4 < crate::text::NAME_BYTES_MAX);
