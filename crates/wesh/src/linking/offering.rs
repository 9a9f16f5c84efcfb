//! The side that has the account.

use std::collections::VecDeque;

use dunlin_base::keys::AgreementKey;
use dunlin_base::{PeerId, Time};

use super::text::Secret;
use super::wire::{self, Frame, LinkId, Session, Transcript};
use super::{
    AGREEMENT_MAX, ARCHIVE, ATTEMPTS_MAX, CONFIRM_MAX, Card, Code, END, LIFETIME, LinkAction,
    PIECE_BYTES_MAX, Reason, SILENCE_MAX, TRANSFER_MAX, WAIT_EVERY,
};

/// One offer, from the moment its string is shown. See the [module documentation](super).
#[derive(Debug)]
pub struct Offering {
    secret: Secret,
    id: LinkId,
    own: PeerId,
    expires: Time,
    attempts: u32,
    state: State,
    actions: VecDeque<LinkAction>,
}

/// Where an offer stands.
enum State {
    /// Nobody is there.
    Idle,
    /// A stream is open, and nothing is proven.
    Agreeing(Box<Agreeing>),
    /// The code is shown.
    Shown { session: Box<Session>, deadline: Time, next_wait: Time },
    /// The account is on its way.
    Giving { session: Box<Session>, bytes: u64, deadline: Time, silent_until: Time, ended: bool },
    /// It ended, and how.
    Over(OfferEnd),
}

/// What is known before anything is proven.
struct Agreeing {
    ephemeral: AgreementKey,
    random: [u8; 32],
    peer: PeerId,
    deadline: Time,
    commitment: Option<[u8; 32]>,
}

/// How an offer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferEnd {
    /// The new device has the account on its disk.
    #[error("the device is linked")]
    Linked,
    /// Nobody used it in time.
    #[error("the link has expired: nobody used it in time; make a new one")]
    Expired,
    /// The user took it back.
    #[error("the link was taken back")]
    Withdrawn,
    /// The code was another than the one on the new device.
    #[error(
        "the code was wrong, so nothing was handed over and the link is void. If it was mistyped, make a new link; \
         if not, somebody is between the two devices"
    )]
    WrongCode,
    /// The code was not typed in time.
    #[error("the code was not confirmed in time, so nothing was handed over; make a new link")]
    NotConfirmed,
    /// A device that knew the string spoke another protocol, or its proof was wrong.
    #[error("the device that used the link did not prove that it knows it; make a new link")]
    BadProof,
    /// So many tried that this can be no honest device.
    #[error("the link was tried too often; make a new one")]
    TooOften,
    /// The new device was gone before the code was confirmed.
    #[error(
        "the new device was gone before the code was confirmed, so nothing was handed over; make a new link"
    )]
    Gone,
    /// The new device was gone before it said that it has the account.
    #[error(
        "the new device was gone before it said that it has the account. Look there: if it has none, make a new link"
    )]
    GoneLate,
    /// The account could not be read.
    #[error("the account could not be read; make a new link")]
    Unreadable,
}

/// Why a code was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// No device has shown a code yet. Wait for it.
    #[error("no device waits for a code: use the link on the new device first")]
    NothingToConfirm,
    /// It is another. The offer is over.
    #[error("{}", OfferEnd::WrongCode)]
    Wrong,
}

impl Offering {
    /// Offers the account of `own` to whoever proves to know `secret`, which is fresh.
    pub fn new(secret: Secret, own: PeerId, now: Time) -> Self {
        let id = wire::link_id(&secret);
        let (state, actions) = (State::Idle, VecDeque::new());
        Self { secret, id, own, expires: now + LIFETIME, attempts: 0, state, actions }
    }

    /// Until when the offer is good.
    pub fn expires(&self) -> Time {
        self.expires
    }

    /// Takes up a stream that `peer` opened, with an ephemeral key and random bytes for it alone. Returns
    /// whether to; otherwise it is to be dropped.
    pub fn handle_opened(
        &mut self,
        now: Time,
        peer: &PeerId,
        ephemeral: AgreementKey,
        random: [u8; 32],
    ) -> bool {
        self.handle_timeout(now);
        if !matches!(self.state, State::Idle) {
            return false;
        }
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts > ATTEMPTS_MAX {
            self.end(OfferEnd::TooOften);
            return false;
        }
        let (peer, deadline) = (peer.clone(), now + AGREEMENT_MAX);
        self.state =
            State::Agreeing(Box::new(Agreeing { ephemeral, random, peer, deadline, commitment: None }));
        true
    }

    /// Takes a frame of the stream.
    pub fn handle_frame(&mut self, now: Time, frame: &[u8]) {
        self.handle_timeout(now);
        let parsed = Frame::parse(frame);
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {}
            State::Agreeing(agreeing) => self.agree(now, agreeing, parsed),
            // Nothing is due from the new device.
            State::Shown { .. } => self.end(OfferEnd::BadProof),
            State::Giving { mut session, bytes, deadline, silent_until, ended } => match parsed {
                Some(Frame::Done(sealed))
                    if ended && session.to_old.open(sealed).is_some_and(|clear| clear.is_empty()) =>
                {
                    self.end(OfferEnd::Linked);
                }
                Some(Frame::Wait) => {
                    let silent_until = silent_until.max(now + SILENCE_MAX);
                    self.state = State::Giving { session, bytes, deadline, silent_until, ended };
                }
                _ => self.end(OfferEnd::GoneLate),
            },
            State::Over(end) => self.state = State::Over(end),
        }
    }

    /// Notes that the stream ended.
    pub fn handle_closed(&mut self) {
        match &self.state {
            State::Idle | State::Over(_) => {}
            State::Agreeing(_) => self.state = State::Idle,
            State::Shown { .. } => self.end(OfferEnd::Gone),
            State::Giving { .. } => self.end(OfferEnd::GoneLate),
        }
    }

    /// Takes the code that the user read on the new device.
    ///
    /// # Errors
    /// [`ConfirmError`]. A wrong code ends the offer: there is one guess.
    pub fn confirm(&mut self, now: Time, code: Code) -> Result<(), ConfirmError> {
        self.handle_timeout(now);
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Shown { session, .. } if session.code == code => {
                let (deadline, silent_until) = (now + TRANSFER_MAX, now + SILENCE_MAX);
                self.state = State::Giving { session, bytes: 0, deadline, silent_until, ended: false };
                self.actions.push_back(LinkAction::HandOver);
                Ok(())
            }
            State::Shown { .. } => {
                self.refuse(Reason::Refused);
                self.end(OfferEnd::WrongCode);
                Err(ConfirmError::Wrong)
            }
            other => {
                self.state = other;
                Err(ConfirmError::NothingToConfirm)
            }
        }
    }

    /// Ends the offer because its owner wants so, or because the account cannot be read.
    pub fn withdraw(&mut self, end: OfferEnd) {
        if matches!(self.state, State::Over(_)) {
            return;
        }
        if !matches!(self.state, State::Idle) {
            self.refuse(if end == OfferEnd::Unreadable { Reason::Failed } else { Reason::Refused });
        }
        self.end(end);
    }

    /// Gives the card, before anything else. Only after [`LinkAction::HandOver`].
    pub fn give_card(&mut self, now: Time, card: &Card) {
        self.give(now, &card.encode(), 0);
    }

    /// Gives the next bytes of the archive, at most [`PIECE_BYTES_MAX`].
    pub fn give_archive(&mut self, now: Time, piece: &[u8]) {
        let piece = piece.get(..PIECE_BYTES_MAX).unwrap_or(piece);
        let content = zeroize::Zeroizing::new([&[ARCHIVE], piece].concat());
        self.give(now, &content, u64::try_from(piece.len()).unwrap_or_default());
    }

    /// Says that the archive is whole.
    pub fn give_end(&mut self, now: Time) {
        let State::Giving { bytes, .. } = &self.state else { return };
        let content = [[END].as_slice(), &bytes.to_be_bytes()].concat();
        self.give(now, &content, 0);
        if let State::Giving { ended, .. } = &mut self.state {
            *ended = true;
        }
    }

    /// Lets time pass; call at or after [`Self::timeout`].
    pub fn handle_timeout(&mut self, now: Time) {
        match &mut self.state {
            State::Idle if now >= self.expires => self.end(OfferEnd::Expired),
            State::Agreeing(agreeing) if now >= agreeing.deadline => {
                self.state = State::Idle;
                self.actions.push_back(LinkAction::Close);
            }
            State::Shown { deadline, .. } if now >= *deadline => {
                self.refuse(Reason::Refused);
                self.end(OfferEnd::NotConfirmed);
            }
            State::Shown { next_wait, .. } if now >= *next_wait => {
                *next_wait = now + WAIT_EVERY;
                self.actions.push_back(LinkAction::Send(wire::wait()));
            }
            State::Giving { deadline, silent_until, .. } if now >= *deadline || now >= *silent_until => {
                self.end(OfferEnd::GoneLate);
            }
            State::Idle
            | State::Agreeing(_)
            | State::Shown { .. }
            | State::Giving { .. }
            | State::Over(_) => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` once the offer is over.
    pub fn timeout(&self) -> Option<Time> {
        match &self.state {
            State::Idle => Some(self.expires),
            State::Agreeing(agreeing) => Some(agreeing.deadline),
            State::Shown { deadline, next_wait, .. } => Some((*deadline).min(*next_wait)),
            State::Giving { deadline, silent_until, .. } => Some((*deadline).min(*silent_until)),
            State::Over(_) => None,
        }
    }

    /// Drains the next thing that the shell should do.
    pub fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    /// How it ended, once it has.
    pub fn end_of_offer(&self) -> Option<OfferEnd> {
        match &self.state {
            State::Over(end) => Some(*end),
            _ => None,
        }
    }

    fn agree(&mut self, now: Time, mut agreeing: Box<Agreeing>, frame: Option<Frame<'_>>) {
        match (agreeing.commitment, frame) {
            (None, Some(Frame::Commit { version, id, commitment })) => {
                if version != super::VERSION {
                    return self.turn_away(Reason::Version);
                }
                if id != self.id {
                    return self.turn_away(Reason::NotOffered);
                }
                let frame = wire::offer(&agreeing.ephemeral.public(), &agreeing.random);
                self.actions.push_back(LinkAction::Send(frame));
                agreeing.commitment = Some(commitment);
                self.state = State::Agreeing(agreeing);
            }
            (Some(commitment), Some(Frame::Open { ephemeral, random, mac })) => {
                // From here on somebody has shown that they know the name of the link, so it is used.
                match self.prove(&agreeing, &commitment, &ephemeral, &random, &mac) {
                    Some(session) => {
                        self.actions.push_back(LinkAction::Send(wire::proof(&session.old_mac)));
                        self.actions.push_back(LinkAction::Show(session.code));
                        let (deadline, next_wait) = (now + CONFIRM_MAX, now + WAIT_EVERY);
                        self.state = State::Shown { session: Box::new(session), deadline, next_wait };
                    }
                    None => {
                        self.refuse(Reason::NotOffered);
                        self.end(OfferEnd::BadProof);
                    }
                }
            }
            _ => self.turn_away(Reason::Failed),
        }
    }

    fn prove(
        &self,
        agreeing: &Agreeing,
        commitment: &[u8; 32],
        ephemeral: &[u8; 32],
        random: &[u8; 32],
        mac: &[u8; 32],
    ) -> Option<Session> {
        if wire::commitment(ephemeral, random) != *commitment {
            return None;
        }
        let transcript = Transcript {
            id: &self.id,
            old: &self.own,
            new: &agreeing.peer,
            commitment,
            old_ephemeral: &agreeing.ephemeral.public(),
            old_random: &agreeing.random,
            new_ephemeral: ephemeral,
            new_random: random,
        };
        let session = Session::agree(&agreeing.ephemeral, ephemeral, &self.secret, &transcript).ok()?;
        session.is_new_mac(mac).then_some(session)
    }

    fn give(&mut self, now: Time, content: &[u8], archive_bytes: u64) {
        let State::Giving { session, bytes, silent_until, ended: false, .. } = &mut self.state else {
            return;
        };
        *bytes = bytes.saturating_add(archive_bytes);
        *silent_until = now + SILENCE_MAX;
        let sealed = session.to_new.seal(content);
        self.actions.push_back(LinkAction::Send(wire::data(&sealed)));
    }

    /// Ends a stream that proved nothing; the offer goes on.
    fn turn_away(&mut self, reason: Reason) {
        self.refuse(reason);
        self.actions.push_back(LinkAction::Close);
        self.state = State::Idle;
    }

    fn refuse(&mut self, reason: Reason) {
        self.actions.push_back(LinkAction::Send(wire::refuse(reason)));
    }

    fn end(&mut self, end: OfferEnd) {
        self.state = State::Over(end);
        self.actions.push_back(LinkAction::Close);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Idle => f.write_str("Idle"),
            Self::Agreeing(_) => f.write_str("Agreeing(..)"),
            Self::Shown { .. } => f.write_str("Shown(..)"),
            Self::Giving { .. } => f.write_str("Giving(..)"),
            Self::Over(end) => write!(f, "Over({end:?})"),
        }
    }
}
