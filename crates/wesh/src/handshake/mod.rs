//! The contact request handshake, version 1, from both sides (`spec/wesh-protocol.md` §5.4, §5.5).
//!
//! ```text
//! Requester                                          Responder
//!    1  HelloPayload { a }                     ───►
//!                                              ◄───  2  HelloPayload { b }
//!    3  BoxEnvelope { account, signature }     ───►
//!                                              ◄───  4  BoxEnvelope { signature }
//!    5  RequesterAcknowledgePayload            ───►
//!    6  ShareableContact                       ───►
//! ```
//!
//! Each side is a value that is fed frames, without their length prefix, and the time. It hands back what is
//! to be done, and ends with [`HandshakeAction::Close`] in every case. The other side is never told why.
//!
//! The responder learns the requester's account only from frame 3, whose signature it verifies, and hands out
//! a contact only with frame 6, whose key it compares with that account. Both sides refuse a key agreement to
//! which the other contributed nothing (`spec/security.md` C1).

mod boxes;
mod requester;
mod responder;
#[cfg(test)]
mod tests;

use dunlin_base::keys::KeyError;
use dunlin_base::seal::OpenError;
use dunlin_base::{AccountId, Span};

pub use requester::Requester;
pub use responder::Responder;

use crate::contact::{Contact, ContactError};
use crate::errors::{Code, Coded};

/// The protocol under which the streams are opened.
pub const PROTOCOL: &str = "/wesh/contact_req/1.0.0";
/// Longest frame, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 2048;
/// How long a handshake may take in all (`spec/security.md` N3).
pub const DEADLINE: Span = Span::from_secs(10);

/// What a handshake asks of its shell, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeAction {
    /// Write a frame with this body.
    Send(Vec<u8>),
    /// The requester's last frame is among those to be written. Nothing more will come from the other side,
    /// so this is all that can be known: sent, not accepted.
    Sent,
    /// The responder has a request from this contact, whose account is authenticated.
    Received(Contact),
    /// Write what was asked for so far, then close the stream. Nothing follows.
    Close,
}

/// The frames, by what they are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Frame 1.
    RequesterHello,
    /// Frame 2.
    ResponderHello,
    /// Frame 3.
    RequesterAuthenticate,
    /// Frame 4.
    ResponderAccept,
    /// Frame 5.
    RequesterAcknowledge,
    /// Frame 6.
    Contact,
}

impl Step {
    /// The codes that stand around what goes wrong in this step.
    fn codes(self) -> &'static [Code] {
        match self {
            Self::RequesterHello => {
                &[Code::ErrHandshakeRequesterHello, Code::ErrHandshakePeerEphemeralKeyRecv]
            }
            Self::ResponderHello => {
                &[Code::ErrHandshakeResponderHello, Code::ErrHandshakePeerEphemeralKeyRecv]
            }
            Self::RequesterAuthenticate => &[Code::ErrHandshakeRequesterAuthenticate],
            Self::ResponderAccept => &[Code::ErrHandshakeResponderAccept],
            Self::RequesterAcknowledge => &[Code::ErrHandshakeRequesterAcknowledge],
            Self::Contact => &[],
        }
    }
}

/// Why a handshake failed. It is over, and the stream is to be closed; a requester may try again later or
/// elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The frame is too long or is not the message that is due.
    #[error("{step:?}: the frame is malformed")]
    Frame {
        /// Which message was due.
        step: Step,
    },
    /// The key for this handshake has not 32 bytes.
    #[error("{step:?}: an ephemeral key of {found} bytes")]
    EphemeralLength {
        /// Which message it came with.
        step: Step,
        /// How many bytes there are.
        found: usize,
    },
    /// The other side contributes nothing to the secret: it is up to no good.
    #[error("{step:?}: the key agreement fails")]
    Agreement {
        /// Which message it came with.
        step: Step,
        /// What is wrong with the key.
        source: KeyError,
    },
    /// The box does not open, or nothing is in it: the other side is not the one that is meant.
    #[error("{step:?}: the box does not open")]
    Seal {
        /// Which message it is.
        step: Step,
        /// That it does not open.
        source: OpenError,
    },
    /// The box holds something else.
    #[error("{step:?}: the content of the box is malformed")]
    Content {
        /// Which message it is.
        step: Step,
    },
    /// The account is named by something else than an Ed25519 key in libp2p form (`spec/security.md` C4).
    #[error("the requester's account is no Ed25519 key")]
    AccountId(#[source] KeyError),
    /// The signature does not verify: the other side is not the account it claims to be.
    #[error("{step:?}: the signature does not verify")]
    Signature {
        /// Which message it came with.
        step: Step,
    },
    /// The requester does not believe our proof.
    #[error("the requester does not acknowledge")]
    NotAcknowledged,
    /// The introduction cannot be used.
    #[error("the contact is refused")]
    Contact(#[source] ContactError),
    /// The introduction names another account than the one that was authenticated.
    #[error("the contact is not the account that was authenticated")]
    OtherAccount {
        /// Who it is.
        authenticated: AccountId,
    },
    /// The account asks itself.
    #[error("the requester is this account itself")]
    OwnAccount,
    /// The deadline has passed.
    #[error("the handshake takes too long")]
    Late,
    /// The handshake is over, and nothing more is due.
    #[error("a frame after the end of the handshake")]
    Over,
}

impl Coded for HandshakeError {
    fn codes(&self) -> Vec<Code> {
        let (step, inner): (Step, &[Code]) = match self {
            Self::Frame { step: Step::Contact } => (Step::Contact, &[]),
            Self::Frame { step } => (*step, &[Code::ErrStreamRead]),
            Self::EphemeralLength { step, .. } => (*step, &[Code::ErrSerialization, Code::ErrInvalidInput]),
            Self::Agreement { step, .. } => (*step, &[Code::ErrCryptoKeyConversion, Code::ErrInvalidInput]),
            Self::Seal { step, .. } => (*step, &[Code::ErrCryptoDecrypt]),
            Self::Content { step } => (*step, &[Code::ErrDeserialization]),
            Self::AccountId(_) => (Step::RequesterAuthenticate, &[Code::ErrDeserialization]),
            Self::Signature { step } => (*step, &[Code::ErrCryptoSignatureVerification]),
            Self::NotAcknowledged => (Step::RequesterAcknowledge, &[Code::ErrInvalidInput]),
            Self::Contact(error) => return error.codes(),
            Self::OwnAccount => (Step::Contact, &[Code::ErrContactRequestSameAccount]),
            Self::OtherAccount { .. } | Self::Late | Self::Over => (Step::Contact, &[]),
        };
        [step.codes(), inner].concat()
    }
}
