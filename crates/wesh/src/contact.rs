//! Contacts: how an account introduces itself, and what may be done about another one
//! (`spec/wesh-protocol.md` §3.7, §5.1).
//!
//! The account log holds the state of each contact. [`next_step`] says which event an action writes in
//! which state, or why it writes none:
//!
//! ```text
//!                  enqueue 106          sent 107, received again 107
//!      (none) ───────────────► ToRequest ───────────────► Added
//!         │ received 108                                    ▲
//!         └──────► Received ── accept 110, enqueue 107 ─────┘
//!                     └─────── discard 109 ──► Discarded
//!      any of them ── block 111 ──► Blocked ── unblock 112 ──► Removed
//! ```

use std::fmt;

use dunlin_base::AccountId;
use dunlin_base::keys::KeyError;
use dunlin_proto::protocol::{self, ShareableContact};
use prost::Message;

use crate::errors::{Code, Coded};

/// Longest metadata of an incoming request, in bytes (`spec/security.md` Q4): it is shown to somebody who
/// does not know the sender.
pub const METADATA_BYTES_MAX: usize = 1000;

/// An account as it introduces itself: what links and contact requests carry.
#[derive(Clone, Eq, PartialEq)]
pub struct Contact {
    /// Who.
    pub account: AccountId,
    /// Where its contact requests are received; none when it receives none.
    pub seed: Option<[u8; 32]>,
    /// What the application adds; opaque here.
    pub metadata: Vec<u8>,
}

/// Why bytes are no contact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContactError {
    /// They are no `ShareableContact` message. The link or the peer is broken.
    #[error("the bytes are no contact")]
    Malformed(#[from] prost::DecodeError),
    /// The account key is missing.
    #[error("the contact has no account key")]
    NoKey,
    /// The account key is none. It may be cut off.
    #[error("the contact's account key is unusable")]
    Key(#[source] KeyError),
    /// The rendezvous seed has neither 32 bytes nor none.
    #[error("a rendezvous seed of {found} bytes")]
    SeedLength {
        /// How many bytes there are.
        found: usize,
    },
    /// The rendezvous seed is missing where one is needed: nobody can be asked without it.
    #[error("the contact has no rendezvous seed")]
    NoSeed,
    /// An incoming introduction is longer than [`METADATA_BYTES_MAX`]. Drop it.
    #[error("an introduction of {found} bytes, {METADATA_BYTES_MAX} are allowed")]
    MetadataLength {
        /// How many bytes there are.
        found: usize,
    },
}

impl Coded for ContactError {
    fn codes(&self) -> Vec<Code> {
        vec![match self {
            Self::Malformed(_) | Self::Key(_) => Code::ErrDeserialization,
            Self::NoKey | Self::SeedLength { .. } | Self::NoSeed | Self::MetadataLength { .. } => {
                Code::ErrInvalidInput
            }
        }]
    }
}

impl Contact {
    /// Reads a contact that can be asked: one with a rendezvous seed, as links carry it.
    ///
    /// # Errors
    /// [`ContactError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ContactError> {
        let contact = Self::from_proto(ShareableContact::decode(bytes)?)?;
        if contact.seed.is_none() { Err(ContactError::NoSeed) } else { Ok(contact) }
    }

    /// Reads the introduction of somebody who asks: it may lack a seed, and its metadata is limited.
    ///
    /// # Errors
    /// [`ContactError`].
    pub fn decode_incoming(bytes: &[u8]) -> Result<Self, ContactError> {
        let contact = Self::from_proto(ShareableContact::decode(bytes)?)?;
        let found = contact.metadata.len();
        if found > METADATA_BYTES_MAX { Err(ContactError::MetadataLength { found }) } else { Ok(contact) }
    }

    /// Takes the message, with or without a seed.
    ///
    /// # Errors
    /// [`ContactError`] on the key or on the length of the seed.
    pub fn from_proto(message: ShareableContact) -> Result<Self, ContactError> {
        if message.pk.is_empty() {
            return Err(ContactError::NoKey);
        }
        let account = AccountId::from_bytes(&message.pk).map_err(ContactError::Key)?;
        let seed = match &*message.public_rendezvous_seed {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| ContactError::SeedLength { found: bytes.len() })?),
        };
        Ok(Self { account, seed, metadata: message.metadata })
    }

    /// The message.
    pub fn to_proto(&self) -> ShareableContact {
        ShareableContact {
            pk: self.account.as_bytes().to_vec(),
            public_rendezvous_seed: self.seed.map(Vec::from).unwrap_or_default(),
            metadata: self.metadata.clone(),
        }
    }

    /// The message, serialized.
    pub fn encode(&self) -> Vec<u8> {
        self.to_proto().encode_to_vec()
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Where the account stands with another. One that the log does not mention has no state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContactState {
    /// It is to be asked.
    ToRequest,
    /// It asked and waits for an answer.
    Received,
    /// Both sides know each other.
    Added,
    /// It was blocked once and is not any more.
    Removed,
    /// Its request was put away.
    Discarded,
    /// Nothing from it is wanted.
    Blocked,
}

impl ContactState {
    /// Whether whoever is brought into this state has a group with the account from then on.
    pub const fn has_group(self) -> bool {
        matches!(self, Self::ToRequest | Self::Added)
    }
}

impl From<ContactState> for protocol::ContactState {
    fn from(state: ContactState) -> Self {
        match state {
            ContactState::ToRequest => Self::ToRequest,
            ContactState::Received => Self::Received,
            ContactState::Added => Self::Added,
            ContactState::Removed => Self::Removed,
            ContactState::Discarded => Self::Discarded,
            ContactState::Blocked => Self::Blocked,
        }
    }
}

/// What is to be done about a contact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContactAction {
    /// The owner asks it to become a contact.
    Enqueue,
    /// The handshake of the owner's request ended well.
    MarkSent,
    /// It asks.
    Receive,
    /// The owner accepts its request.
    Accept,
    /// The owner puts its request away.
    Discard,
    /// The owner blocks it.
    Block,
    /// The owner unblocks it.
    Unblock,
}

/// The event that an action writes into the account log, and with it the state that follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContactStep {
    /// 106: to be asked.
    OutgoingEnqueued,
    /// 107: asked, hence added.
    OutgoingSent,
    /// 108: it asked.
    IncomingReceived,
    /// 109: put away.
    IncomingDiscarded,
    /// 110: accepted.
    IncomingAccepted,
    /// 111.
    Blocked,
    /// 112.
    Unblocked,
}

impl ContactStep {
    /// The state after the event.
    pub const fn state(self) -> ContactState {
        match self {
            Self::OutgoingEnqueued => ContactState::ToRequest,
            Self::OutgoingSent => ContactState::Added,
            Self::IncomingReceived => ContactState::Received,
            Self::IncomingDiscarded => ContactState::Discarded,
            Self::IncomingAccepted => ContactState::Added,
            Self::Blocked => ContactState::Blocked,
            Self::Unblocked => ContactState::Removed,
        }
    }

    /// The type of the event.
    pub const fn event_type(self) -> protocol::EventType {
        use protocol::EventType;
        match self {
            Self::OutgoingEnqueued => EventType::AccountContactRequestOutgoingEnqueued,
            Self::OutgoingSent => EventType::AccountContactRequestOutgoingSent,
            Self::IncomingReceived => EventType::AccountContactRequestIncomingReceived,
            Self::IncomingDiscarded => EventType::AccountContactRequestIncomingDiscarded,
            Self::IncomingAccepted => EventType::AccountContactRequestIncomingAccepted,
            Self::Blocked => EventType::AccountContactBlocked,
            Self::Unblocked => EventType::AccountContactUnblocked,
        }
    }
}

/// Why an action writes nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ContactRefusal {
    /// The contact is the account itself.
    #[error("that contact is this account itself")]
    OwnAccount,
    /// The contact was added before: nothing is to be done.
    #[error("that contact was added before")]
    AlreadyAdded,
    /// The contact is blocked, and stays so until it is unblocked (`spec/security.md` Q6).
    #[error("that contact is blocked")]
    Blocked,
    /// Nothing is known of the contact.
    #[error("that contact was never asked")]
    Unknown,
    /// The contact asked before and waits for an answer.
    #[error("that contact asked before")]
    AlreadyReceived,
    /// There is no request to answer, or nothing to block or unblock.
    #[error("that contact is not in a state in which this can be done")]
    WrongState,
}

impl Coded for ContactRefusal {
    fn codes(&self) -> Vec<Code> {
        vec![match self {
            Self::OwnAccount => Code::ErrContactRequestSameAccount,
            Self::AlreadyAdded => Code::ErrContactRequestContactAlreadyAdded,
            Self::Blocked => Code::ErrContactRequestContactBlocked,
            Self::Unknown => Code::ErrContactRequestContactUndefined,
            Self::AlreadyReceived => Code::ErrContactRequestIncomingAlreadyReceived,
            Self::WrongState => Code::ErrInvalidInput,
        }]
    }
}

/// What `action` of the account `own` on `contact` writes when that is in `state`.
///
/// Unlike in Go, a blocked contact stays blocked when it is enqueued (`spec/security.md` Q6).
///
/// # Errors
/// [`ContactRefusal`]; then nothing is written.
pub fn next_step(
    own: &AccountId,
    contact: &AccountId,
    state: Option<ContactState>,
    action: ContactAction,
) -> Result<ContactStep, ContactRefusal> {
    match action {
        ContactAction::Enqueue | ContactAction::Receive if own == contact => Err(ContactRefusal::OwnAccount),
        ContactAction::Block if own == contact => Err(ContactRefusal::WrongState),
        _ => next_step_of_other(state, action),
    }
}

const fn next_step_of_other(
    state: Option<ContactState>,
    action: ContactAction,
) -> Result<ContactStep, ContactRefusal> {
    use {ContactAction as Action, ContactRefusal as Refusal, ContactState as State, ContactStep as Step};
    match (action, state) {
        (Action::Enqueue, None | Some(State::ToRequest)) => Ok(Step::OutgoingEnqueued),
        // It asked before, or was known once: asking back is accepting.
        (Action::Enqueue, Some(State::Received | State::Removed | State::Discarded)) => {
            Ok(Step::OutgoingSent)
        }
        (Action::Enqueue, Some(State::Added)) => Err(Refusal::AlreadyAdded),
        (Action::Enqueue, Some(State::Blocked)) => Err(Refusal::Blocked),

        (Action::MarkSent, None) => Err(Refusal::Unknown),
        (Action::MarkSent, Some(State::Added)) => Err(Refusal::AlreadyAdded),
        (Action::MarkSent, Some(State::Blocked)) => Err(Refusal::Blocked),
        (Action::MarkSent, Some(_)) => Ok(Step::OutgoingSent),

        (Action::Receive, None | Some(State::Removed | State::Discarded)) => Ok(Step::IncomingReceived),
        // Both asked: that is an answer.
        (Action::Receive, Some(State::ToRequest)) => Ok(Step::OutgoingSent),
        (Action::Receive, Some(State::Received)) => Err(Refusal::AlreadyReceived),
        (Action::Receive, Some(State::Added)) => Err(Refusal::AlreadyAdded),
        (Action::Receive, Some(State::Blocked)) => Err(Refusal::Blocked),

        (Action::Accept, Some(State::Received)) => Ok(Step::IncomingAccepted),
        (Action::Discard, Some(State::Received)) => Ok(Step::IncomingDiscarded),
        (Action::Accept | Action::Discard, _) => Err(Refusal::WrongState),

        (Action::Block, Some(State::Blocked)) => Err(Refusal::WrongState),
        (Action::Block, _) => Ok(Step::Blocked),
        (Action::Unblock, Some(State::Blocked)) => Ok(Step::Unblocked),
        (Action::Unblock, _) => Err(Refusal::WrongState),
    }
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;

    fn contact() -> Contact {
        let account = AccountId::new(SecretKey::from_seed([7; 32]).public());
        Contact { account, seed: Some([9; 32]), metadata: b"at the harbour".to_vec() }
    }

    #[test]
    fn contacts_survive_encoding() {
        let full = contact();
        assert_eq!(Contact::decode(&full.encode()).unwrap(), full);
        let without = Contact { seed: None, ..full };
        assert!(matches!(Contact::decode(&without.encode()), Err(ContactError::NoSeed)));
        assert_eq!(Contact::decode_incoming(&without.encode()).unwrap(), without);
    }

    #[test]
    fn an_introduction_has_a_limit() {
        let longest = Contact { metadata: vec![1; METADATA_BYTES_MAX], ..contact() };
        assert!(Contact::decode_incoming(&longest.encode()).is_ok());
        let longer = Contact { metadata: vec![1; METADATA_BYTES_MAX + 1], ..contact() };
        let refused = Contact::decode_incoming(&longer.encode());
        assert!(matches!(refused, Err(ContactError::MetadataLength { found: 1001 })));
        assert!(Contact::decode(&longer.encode()).is_ok());
    }

    #[test]
    fn a_blocked_contact_leaves_that_state_only_by_unblocking() {
        use ContactAction::{Accept, Block, Discard, Enqueue, MarkSent, Receive, Unblock};
        let own = AccountId::new(SecretKey::from_seed([8; 32]).public());
        let step = |action| next_step(&own, &contact().account, Some(ContactState::Blocked), action);
        for action in [Enqueue, MarkSent, Receive, Accept, Discard, Block] {
            assert!(step(action).is_err(), "{action:?}");
        }
        assert_eq!(step(Unblock), Ok(ContactStep::Unblocked));
    }

    #[test]
    fn the_account_itself_is_nobody_to_act_on() {
        use ContactAction::{Accept, Block, Discard, Enqueue, MarkSent, Receive, Unblock};
        let own = contact().account;
        for action in [Enqueue, MarkSent, Receive, Accept, Discard, Block, Unblock] {
            assert!(next_step(&own, &own, None, action).is_err(), "{action:?}");
        }
    }

    #[test]
    fn debug_shows_neither_seed_nor_metadata() {
        let account = contact().account;
        assert_eq!(format!("{:?}", contact()), format!("Contact {{ account: AccountId({account}), .. }}"));
    }
}
