//! The side that is asked.

use std::collections::VecDeque;

use dunlin_base::keys::{AgreementKey, SecretKey};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{AccountId, Time};
use dunlin_proto::handshake::RequesterAcknowledgePayload;

use super::boxes::{self, Session};
use super::{DEADLINE, FRAME_BYTES_MAX, HandshakeAction, HandshakeError, Step};
use crate::contact::Contact;

/// One request from somebody. See the [module documentation](super).
#[derive(Debug)]
pub struct Responder {
    own: AccountId,
    state: State,
    actions: VecDeque<HandshakeAction>,
    deadline: Time,
}

/// What is known, by the frame that is due. Only the last two know who is asking.
enum State {
    Hello { account: SecretKey, ephemeral: AgreementKey },
    Proof { account: SecretKey, other_ephemeral: [u8; 32], session: Session },
    Acknowledge { requester: AccountId },
    Contact { requester: AccountId },
    Over,
}

impl Responder {
    /// Begins to answer for `account`. `ephemeral` is fresh and used once.
    pub fn new(account: &SecretKey, ephemeral: AgreementKey, now: Time) -> Self {
        Self {
            own: AccountId::new(account.public()),
            state: State::Hello { account: account.clone(), ephemeral },
            actions: VecDeque::new(),
            deadline: now + DEADLINE,
        }
    }

    /// Takes a frame of the requester, without its length prefix.
    ///
    /// # Errors
    /// [`HandshakeError`]; the handshake is over then, and [`HandshakeAction::Close`] is due.
    pub fn handle_frame(&mut self, now: Time, frame: &[u8]) -> Result<(), HandshakeError> {
        self.handle_timeout(now);
        let taken = match std::mem::replace(&mut self.state, State::Over) {
            State::Over if now >= self.deadline => return Err(HandshakeError::Late),
            State::Over => return Err(HandshakeError::Over),
            State::Hello { account, ephemeral } => self.take_hello(account, &ephemeral, frame),
            State::Proof { account, other_ephemeral, session } => {
                self.take_proof(&account, &other_ephemeral, &session, frame)
            }
            State::Acknowledge { requester } => self.take_acknowledge(requester, frame),
            State::Contact { requester } => self.take_contact(&requester, frame),
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

    /// Who is asking, once proved: after frame 3 and until the handshake is over.
    pub fn requester(&self) -> Option<AccountId> {
        match self.state {
            State::Acknowledge { requester } | State::Contact { requester } => Some(requester),
            State::Hello { .. } | State::Proof { .. } | State::Over => None,
        }
    }

    fn take_hello(
        &mut self,
        account: SecretKey,
        ephemeral: &AgreementKey,
        frame: &[u8],
    ) -> Result<(), HandshakeError> {
        let step = Step::RequesterHello;
        let other_ephemeral = boxes::parse_hello(step, frame)?;
        let session = Session::agree(ephemeral, &other_ephemeral)
            .map_err(|source| HandshakeError::Agreement { step, source })?;
        self.actions.push_back(HandshakeAction::Send(boxes::hello(ephemeral)));
        self.state = State::Proof { account, other_ephemeral, session };
        Ok(())
    }

    fn take_proof(
        &mut self,
        account: &SecretKey,
        other_ephemeral: &[u8; 32],
        session: &Session,
        frame: &[u8],
    ) -> Result<(), HandshakeError> {
        let agreement = |step| move |source| HandshakeError::Agreement { step, source };
        let own = account.to_x25519();
        let key = session.box_key(&own, other_ephemeral).map_err(agreement(Step::RequesterAuthenticate))?;
        let requester = boxes::open_proof(session, &key, frame)?;
        let key = session.box_key(&own, &requester.to_x25519()).map_err(agreement(Step::ResponderAccept))?;
        let accept = boxes::seal_accept(session, &key, account);
        self.actions.push_back(HandshakeAction::Send(accept));
        self.state = State::Acknowledge { requester: AccountId::new(requester) };
        Ok(())
    }

    fn take_acknowledge(&mut self, requester: AccountId, frame: &[u8]) -> Result<(), HandshakeError> {
        let acknowledge: RequesterAcknowledgePayload = boxes::parse(Step::RequesterAcknowledge, frame)?;
        if !acknowledge.success {
            return Err(HandshakeError::NotAcknowledged);
        }
        self.state = State::Contact { requester };
        Ok(())
    }

    fn take_contact(&mut self, requester: &AccountId, frame: &[u8]) -> Result<(), HandshakeError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(HandshakeError::Frame { step: Step::Contact });
        }
        let contact = Contact::decode_incoming(frame).map_err(HandshakeError::Contact)?;
        if contact.account != *requester && !planted::is(Bug::RequestIdentity) {
            return Err(HandshakeError::OtherAccount { authenticated: *requester });
        }
        if contact.account == self.own {
            return Err(HandshakeError::OwnAccount);
        }
        self.actions.extend([HandshakeAction::Received(contact), HandshakeAction::Close]);
        Ok(())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Hello { .. } => "Hello(..)",
            Self::Proof { .. } => "Proof(..)",
            Self::Acknowledge { .. } => "Acknowledge(..)",
            Self::Contact { .. } => "Contact(..)",
            Self::Over => "Over",
        })
    }
}
