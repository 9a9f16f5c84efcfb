//! The side that asks.

use std::collections::VecDeque;

use dunlin_base::keys::{AgreementKey, SecretKey};
use dunlin_base::{AccountId, Time};
use dunlin_proto::handshake::RequesterAcknowledgePayload;
use prost::Message;

use super::boxes::{self, Session};
use super::{DEADLINE, FRAME_BYTES_MAX, HandshakeAction, HandshakeError, Step};
use crate::contact::Contact;

/// One request to one account. See the [module documentation](super).
#[derive(Debug)]
pub struct Requester {
    state: State,
    actions: VecDeque<HandshakeAction>,
    deadline: Time,
}

/// What is known, by the frame that is due.
enum State {
    Hello(Known),
    Accept { known: Known, session: Session },
    Over,
}

/// What is known from the start.
struct Known {
    account: SecretKey,
    ephemeral: AgreementKey,
    responder: AccountId,
    introduction: Vec<u8>,
}

impl Requester {
    /// Begins to ask `responder`, which gets to see `introduction`. `ephemeral` is fresh and used once.
    ///
    /// When the introduction does not fit into a frame, the handshake is over before it begins.
    pub fn new(
        account: &SecretKey,
        introduction: &Contact,
        responder: &AccountId,
        ephemeral: AgreementKey,
        now: Time,
    ) -> Self {
        let introduction = introduction.encode();
        let mut requester = Self { state: State::Over, actions: VecDeque::new(), deadline: now + DEADLINE };
        if introduction.len() > FRAME_BYTES_MAX {
            requester.actions.push_back(HandshakeAction::Close);
            return requester;
        }
        requester.actions.push_back(HandshakeAction::Send(boxes::hello(&ephemeral)));
        let known = Known { account: account.clone(), ephemeral, responder: *responder, introduction };
        requester.state = State::Hello(known);
        requester
    }

    /// Takes a frame of the responder, without its length prefix.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake is over then, and [`HandshakeAction::Close`] is due.
    pub fn handle_frame(&mut self, now: Time, frame: &[u8]) -> Result<(), HandshakeError> {
        self.handle_timeout(now);
        let taken = match std::mem::replace(&mut self.state, State::Over) {
            State::Over if now >= self.deadline => return Err(HandshakeError::Late),
            State::Over => return Err(HandshakeError::Over),
            State::Hello(known) => self.take_hello(known, frame),
            State::Accept { known, session } => self.take_accept(&known, &session, frame),
        };
        if taken.is_err() {
            self.actions.push_back(HandshakeAction::Close);
        }
        taken
    }

    /// Lets time pass: at the deadline the handshake is over.
    pub fn handle_timeout(&mut self, now: Time) {
        if now >= self.deadline && !matches!(self.state, State::Over) {
            self.state = State::Over;
            self.actions.push_back(HandshakeAction::Close);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once the handshake is over.
    pub fn timeout(&self) -> Option<Time> {
        (!matches!(self.state, State::Over)).then_some(self.deadline)
    }

    /// Drains the next thing that the shell should do.
    pub fn poll_action(&mut self) -> Option<HandshakeAction> {
        self.actions.pop_front()
    }

    fn take_hello(&mut self, known: Known, frame: &[u8]) -> Result<(), HandshakeError> {
        let step = Step::ResponderHello;
        let other = boxes::parse_hello(step, frame)?;
        let agreement = |source| HandshakeError::Agreement { step, source };
        let session = Session::agree(&known.ephemeral, &other).map_err(agreement)?;
        let responder = known.responder.key().to_x25519();
        let key = session.box_key(&known.ephemeral, &responder).map_err(agreement)?;
        let proof = boxes::seal_proof(&session, &key, &known.account);
        self.actions.push_back(HandshakeAction::Send(proof));
        self.state = State::Accept { known, session };
        Ok(())
    }

    fn take_accept(&mut self, known: &Known, session: &Session, frame: &[u8]) -> Result<(), HandshakeError> {
        let responder = known.responder.key();
        let key = session
            .box_key(&known.account.to_x25519(), &responder.to_x25519())
            .map_err(|source| HandshakeError::Agreement { step: Step::ResponderAccept, source })?;
        boxes::open_accept(session, &key, responder, frame)?;
        let acknowledge = RequesterAcknowledgePayload { success: true }.encode_to_vec();
        self.actions.extend([
            HandshakeAction::Send(acknowledge),
            HandshakeAction::Send(known.introduction.clone()),
            HandshakeAction::Sent,
            HandshakeAction::Close,
        ]);
        Ok(())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello(_) => "Hello(..)",
            Self::Accept { .. } => "Accept(..)",
            Self::Over => "Over",
        })
    }
}
