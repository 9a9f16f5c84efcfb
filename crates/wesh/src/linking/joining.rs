//! The side that has no account yet.

use std::collections::VecDeque;

use dunlin_base::keys::AgreementKey;
use dunlin_base::{PeerId, Time};
use zeroize::Zeroizing;

use super::wire::{self, Frame, LinkId, Session, Transcript};
use super::{
    AGREEMENT_MAX, ARCHIVE, ARCHIVE_BYTES_MAX, CARD, CONFIRM_MAX, Card, END, LinkAction, LinkText, Reason,
    SILENCE_MAX, TRANSFER_MAX,
};

/// One attempt to join. See the [module documentation](super).
#[derive(Debug)]
pub struct Joining {
    state: State,
    actions: VecDeque<LinkAction>,
    /// When it is over unless it has come further.
    deadline: Time,
    silent_until: Time,
}

enum State {
    Committed(Box<Known>),
    Opened(Box<Session>),
    /// The code is shown, or the account is coming.
    Taking {
        session: Box<Session>,
        card: bool,
        bytes: usize,
    },
    /// The archive is whole, and being stored.
    Storing(Box<Session>),
    Over,
}

/// What is known from the start.
struct Known {
    link: LinkText,
    id: LinkId,
    own: PeerId,
    ephemeral: AgreementKey,
    random: [u8; 32],
    commitment: [u8; 32],
}

/// Why joining came to nothing. Nothing of an account was stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The string is of an older offer.
    #[error(
        "the other device does not offer this link any more: it was used, taken back or replaced. Make a new one there: \
         dunlin device link"
    )]
    NotOffered,
    /// Another device is quicker.
    #[error("the other device is linking another device right now: try again when that has ended")]
    Busy,
    /// Its user said no.
    #[error(
        "the link was not confirmed on the other device: the code was wrong, came too late, or was refused. Make a new \
         link there: dunlin device link"
    )]
    Refused,
    /// The two devices are of different versions.
    #[error("the other device speaks another version of linking: update the older one of the two")]
    Version,
    /// It could not read the account.
    #[error("the other device could not hand the account over: look there for the reason")]
    Failed,
    /// It does not know the secret, or somebody changed what was said.
    #[error(
        "what answers there does not know this link: somebody may be between the two devices. Make a new link, and use \
         it on a network that you trust"
    )]
    BadProof,
    /// What it sent is damaged.
    #[error("what the other device sent is damaged: try again with a new link")]
    Damaged,
    /// It was silent for too long.
    #[error("the other device did not answer in time: try again with a new link")]
    Late,
    /// It was gone.
    #[error("the connection with the other device was lost: try again with a new link")]
    Gone,
    /// The account log is longer than linking takes.
    #[error("the account is too large to be linked: move it by an archive, dunlin node --import")]
    TooLarge,
}

impl Joining {
    /// Begins on a fresh stream to the device of `link`. `ephemeral` and `random` are used once.
    pub fn new(link: LinkText, own: PeerId, ephemeral: AgreementKey, random: [u8; 32], now: Time) -> Self {
        let id = wire::link_id(&link.secret);
        let commitment = wire::commitment(&ephemeral.public(), &random);
        let actions = VecDeque::from([LinkAction::Send(wire::commit(&id, &commitment))]);
        let known = Known { link, id, own, ephemeral, random, commitment };
        let deadline = now + AGREEMENT_MAX;
        Self { state: State::Committed(Box::new(known)), actions, deadline, silent_until: deadline }
    }

    /// Takes a frame of the old device.
    ///
    /// # Errors
    /// [`JoinError`]; it is over then.
    pub fn handle_frame(&mut self, now: Time, frame: &[u8]) -> Result<(), JoinError> {
        self.handle_timeout(now)?;
        self.silent_until = now + SILENCE_MAX;
        let taken = self.take(now, frame);
        if taken.is_err() {
            self.over();
        }
        taken
    }

    /// Notes that the stream ended.
    ///
    /// # Errors
    /// [`JoinError::Gone`], unless it was over.
    pub fn handle_closed(&mut self) -> Result<(), JoinError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Over => Ok(()),
            // Everything is here. That it was stored can be told to nobody, which does no harm.
            State::Storing(session) => {
                self.state = State::Storing(session);
                Ok(())
            }
            _ => Err(JoinError::Gone),
        }
    }

    /// Says that the account is on the disk.
    pub fn stored(&mut self) {
        if let State::Storing(session) = &mut self.state {
            let frame = wire::done(&session.to_old.seal(&[]));
            self.actions.push_back(LinkAction::Send(frame));
            self.over();
        }
    }

    /// Lets time pass; call at or after [`Self::timeout`].
    ///
    /// # Errors
    /// [`JoinError::Late`]; it is over then.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), JoinError> {
        match &self.state {
            State::Storing(_) | State::Over => Ok(()),
            _ if now >= self.deadline || now >= self.silent_until => {
                self.over();
                Err(JoinError::Late)
            }
            _ => Ok(()),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once it is over.
    pub fn timeout(&self) -> Option<Time> {
        match &self.state {
            State::Storing(_) | State::Over => None,
            _ => Some(self.deadline.min(self.silent_until)),
        }
    }

    /// Drains the next thing that the shell should do.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    fn take(&mut self, now: Time, frame: &[u8]) -> Result<(), JoinError> {
        let frame = Frame::parse(frame).ok_or(JoinError::Damaged)?;
        if let Frame::Refuse(reason) = frame {
            return Err(refused(reason));
        }
        match (std::mem::replace(&mut self.state, State::Over), frame) {
            (State::Committed(known), Frame::Offer { ephemeral, random }) => {
                let transcript = Transcript {
                    id: &known.id,
                    old: &known.link.peer,
                    new: &known.own,
                    commitment: &known.commitment,
                    old_ephemeral: &ephemeral,
                    old_random: &random,
                    new_ephemeral: &known.ephemeral.public(),
                    new_random: &known.random,
                };
                let session = Session::agree(&known.ephemeral, &ephemeral, &known.link.secret, &transcript)
                    .map_err(|_| JoinError::BadProof)?;
                let frame =
                    wire::open_commitment(&known.ephemeral.public(), &known.random, session.new_mac());
                self.actions.push_back(LinkAction::Send(frame));
                self.state = State::Opened(Box::new(session));
                Ok(())
            }
            (State::Opened(session), Frame::Proof { mac }) => {
                if !session.is_old_mac(&mac) {
                    return Err(JoinError::BadProof);
                }
                self.actions.push_back(LinkAction::Show(session.code));
                self.deadline = now + CONFIRM_MAX + AGREEMENT_MAX;
                self.state = State::Taking { session, card: false, bytes: 0 };
                Ok(())
            }
            (taking @ State::Taking { .. }, Frame::Wait) => {
                self.state = taking;
                Ok(())
            }
            (State::Taking { mut session, card, bytes }, Frame::Data(sealed)) => {
                let piece = session.to_new.open(sealed).ok_or(JoinError::Damaged)?;
                self.take_piece(now, session, card, bytes, &piece)
            }
            _ => Err(JoinError::Damaged),
        }
    }

    fn take_piece(
        &mut self,
        now: Time,
        session: Box<Session>,
        card: bool,
        bytes: usize,
        piece: &[u8],
    ) -> Result<(), JoinError> {
        let (kind, content) = piece.split_first().ok_or(JoinError::Damaged)?;
        match (*kind, card) {
            (CARD, false) => {
                let card = Card::decode(content).ok_or(JoinError::Damaged)?;
                self.actions.push_back(LinkAction::Card(card));
                self.deadline = now + TRANSFER_MAX;
                self.state = State::Taking { session, card: true, bytes };
                Ok(())
            }
            (ARCHIVE, true) => {
                let bytes = bytes.saturating_add(content.len());
                if bytes > ARCHIVE_BYTES_MAX {
                    return Err(JoinError::TooLarge);
                }
                self.actions.push_back(LinkAction::Archive(Zeroizing::new(content.to_vec())));
                self.state = State::Taking { session, card, bytes };
                Ok(())
            }
            (END, true) => {
                let said = content.try_into().map(u64::from_be_bytes).map_err(|_| JoinError::Damaged)?;
                if u64::try_from(bytes) != Ok(said) {
                    return Err(JoinError::Damaged);
                }
                self.actions.push_back(LinkAction::Store);
                self.state = State::Storing(session);
                Ok(())
            }
            _ => Err(JoinError::Damaged),
        }
    }

    fn over(&mut self) {
        self.state = State::Over;
        self.actions.push_back(LinkAction::Close);
    }
}

fn refused(reason: Reason) -> JoinError {
    match reason {
        Reason::NotOffered => JoinError::NotOffered,
        Reason::Busy => JoinError::Busy,
        Reason::Refused => JoinError::Refused,
        Reason::Version => JoinError::Version,
        Reason::Failed => JoinError::Failed,
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Committed(_) => "Committed(..)",
            Self::Opened(_) => "Opened(..)",
            Self::Taking { .. } => "Taking(..)",
            Self::Storing(_) => "Storing(..)",
            Self::Over => "Over",
        })
    }
}
