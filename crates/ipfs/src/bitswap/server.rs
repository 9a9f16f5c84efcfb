//! What one peer wants from us, and the answers that wait to be sent.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use cid::Cid;
use tokio::time::Instant;

use super::message::{
    BLOCK_BYTES_MAX, Entry, MESSAGE_BYTES_MAX, Message, PresenceType, Version, WantType, Wantlist,
};

/// Wants of one peer that are kept. What exceeds them is ignored; the peer may ask again.
pub const WANTS_PER_PEER_MAX: usize = 8 * 1024;

/// Bytes of blocks after which a message is full. Small enough that the first blocks of many arrive early.
const MESSAGE_BYTES_TARGET: usize = 512 * 1024;

/// Presences in one message.
const PRESENCES_PER_MESSAGE_MAX: usize = 4 * 1024;

/// The fullest message fits: one more block of the largest size, presences, and half a megabyte for wants of
/// ours.
const _: () = assert!(
    MESSAGE_BYTES_TARGET + BLOCK_BYTES_MAX + PRESENCES_PER_MESSAGE_MAX * 128 + 512 * 1024 < MESSAGE_BYTES_MAX
);

/// A block shorter than this is sent to who only asks whether it is here: asking again would cost more.
const INLINE_BYTES_MAX: usize = 1024;

/// All wants of one peer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    wants: HashMap<Cid, Want>,
    /// Wants to be answered, in the order of asking. May name some that are cancelled meanwhile.
    queue: VecDeque<Cid>,
    /// Wants that are held for a while, in the order of their deadlines. May name some that are answered
    /// meanwhile.
    held: VecDeque<(Instant, Cid)>,
    /// Wants answered with "don't have", oldest first. May name some that are gone meanwhile.
    unmet: VecDeque<Cid>,
}

#[derive(Clone, Copy, Debug)]
struct Want {
    presence_only: bool,
    tell_missing: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Waits to be answered for the first time, or again because a block may have come.
    Queued { first: bool },
    /// No block yet; "don't have" is said after this time.
    Held(Instant),
    /// No block; the peer knows, if it wanted to know.
    Unmet,
}

/// A want that a message answers, so that it can be put back if the message is not sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) cid: Cid,
    /// Whether the answer is the block itself.
    pub(crate) served: bool,
    want: Want,
}

impl Ledger {
    /// Takes in a wantlist of the peer.
    pub(crate) fn update(&mut self, wantlist: Wantlist) {
        if wantlist.full {
            *self = Self::default();
        }
        for entry in wantlist.entries {
            let Ok(cid) = Cid::try_from(&*entry.cid) else { continue };
            if entry.cancel {
                self.wants.remove(&cid);
            } else {
                self.want(cid, &entry);
            }
        }
        self.compact();
    }

    /// Looks again for a block, if the peer has asked for it.
    pub(crate) fn offer(&mut self, cid: &Cid) {
        if let Some(want) = self.wants.get_mut(cid) {
            requeue(want, cid, &mut self.queue);
        }
    }

    /// Looks again for everything that was not there.
    pub(crate) fn look_again(&mut self) {
        for (cid, want) in &mut self.wants {
            requeue(want, cid, &mut self.queue);
        }
        self.held.clear();
        self.unmet.clear();
    }

    /// Adds answers to a message until it is full or nothing is left to be answered. `find` looks for a
    /// block, `hold` is the time for which a want without a block is held.
    pub(crate) fn fill(
        &mut self,
        message: &mut Message,
        version: Version,
        find: impl Fn(&Cid) -> Option<Bytes>,
        hold: Duration,
        now: Instant,
    ) -> Vec<Answered> {
        self.release(now);
        let mut bytes = 0;
        let mut answered = Vec::new();
        while bytes < MESSAGE_BYTES_TARGET && message.presences.len() < PRESENCES_PER_MESSAGE_MAX {
            let Some(cid) = self.queue.pop_front() else { break };
            let Some(want) = self.wants.get_mut(&cid) else { continue };
            let State::Queued { first } = want.state else { continue };
            let block = find(&cid).filter(|block| block.len() <= BLOCK_BYTES_MAX);
            match block {
                Some(block) if !want.presence_only || block.len() < INLINE_BYTES_MAX => {
                    bytes += block.len();
                    message.add_block(version, &cid, block);
                    answered.push(Answered { cid, served: true, want: *want });
                    self.wants.remove(&cid);
                }
                Some(_) => {
                    message.add_presence(&cid, PresenceType::Have);
                    answered.push(Answered { cid, served: false, want: *want });
                    self.wants.remove(&cid);
                }
                None if first && !hold.is_zero() => {
                    want.state = State::Held(now + hold);
                    self.held.push_back((now + hold, cid));
                }
                None => {
                    if want.tell_missing && version >= Version::V1_2 {
                        message.add_presence(&cid, PresenceType::DontHave);
                        answered.push(Answered { cid, served: false, want: *want });
                        want.tell_missing = false;
                    }
                    want.state = State::Unmet;
                    self.unmet.push_back(cid);
                }
            }
        }
        answered
    }

    /// Takes back answers of a message that was not sent.
    pub(crate) fn put_back(&mut self, answered: Vec<Answered>) {
        for Answered { cid, want, .. } in answered.into_iter().rev() {
            self.wants.insert(cid, Want { state: State::Queued { first: false }, ..want });
            self.queue.push_front(cid);
        }
    }

    /// Whether [`Self::fill`] has something to look at.
    pub(crate) fn has_work(&self, now: Instant) -> bool {
        !self.queue.is_empty() || self.timeout().is_some_and(|deadline| deadline <= now)
    }

    /// When the next held want is to be answered.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.held.front().map(|(deadline, _)| *deadline)
    }

    fn want(&mut self, cid: Cid, entry: &Entry) {
        if self.wants.len() >= WANTS_PER_PEER_MAX
            && !self.wants.contains_key(&cid)
            && !self.drop_oldest_unmet()
        {
            return;
        }
        let presence_only = entry.want_type == i32::from(WantType::Have);
        let want =
            Want { presence_only, tell_missing: entry.send_dont_have, state: State::Queued { first: true } };
        if let Some(known) = self.wants.get_mut(&cid)
            && matches!(known.state, State::Queued { .. })
        {
            // It is in the queue already. A want of the block includes a want of its presence.
            known.presence_only &= presence_only;
            known.tell_missing |= entry.send_dont_have;
            return;
        }
        self.wants.insert(cid, want);
        self.queue.push_back(cid);
    }

    fn drop_oldest_unmet(&mut self) -> bool {
        while let Some(cid) = self.unmet.pop_front() {
            if self.wants.get(&cid).is_some_and(|want| want.state == State::Unmet) {
                self.wants.remove(&cid);
                return true;
            }
        }
        false
    }

    /// Queues the held wants whose time is over, to be looked for once more and then answered.
    fn release(&mut self, now: Instant) {
        while let Some(&(deadline, cid)) = self.held.front()
            && deadline <= now
        {
            self.held.pop_front();
            if let Some(want) = self.wants.get_mut(&cid)
                && want.state == State::Held(deadline)
            {
                want.state = State::Queued { first: false };
                self.queue.push_back(cid);
            }
        }
    }

    /// Drops names of wants that are gone once they are the larger part, so that asking and cancelling in a
    /// loop costs nothing.
    fn compact(&mut self) {
        let wants = &self.wants;
        if self.queue.len() > 2 * WANTS_PER_PEER_MAX {
            let mut seen = std::collections::HashSet::new();
            let queued =
                |cid: &Cid| wants.get(cid).is_some_and(|want| matches!(want.state, State::Queued { .. }));
            self.queue.retain(|cid| queued(cid) && seen.insert(*cid));
        }
        if self.held.len() > 2 * WANTS_PER_PEER_MAX {
            self.held.retain(|(deadline, cid)| {
                wants.get(cid).is_some_and(|want| want.state == State::Held(*deadline))
            });
        }
        if self.unmet.len() > 2 * WANTS_PER_PEER_MAX {
            let mut seen = std::collections::HashSet::new();
            self.unmet.retain(|cid| {
                wants.get(cid).is_some_and(|want| want.state == State::Unmet) && seen.insert(*cid)
            });
        }
    }
}

fn requeue(want: &mut Want, cid: &Cid, queue: &mut VecDeque<Cid>) {
    match want.state {
        State::Queued { .. } => {}
        // Held anew if it is still not there.
        State::Held(_) => {
            want.state = State::Queued { first: true };
            queue.push_back(*cid);
        }
        State::Unmet => {
            want.state = State::Queued { first: false };
            queue.push_back(*cid);
        }
    }
}

#[cfg(test)]
mod tests;
