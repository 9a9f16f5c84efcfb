//! What we want from others: which peer is asked for which block, and who is next.
//!
//! One peer is asked for a block at a time, so that it does not arrive twice. The next is asked when one says
//! that it does not have it, is gone, or has sent nothing for a while.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use cid::Cid;
use libp2p::PeerId;
use tokio::time::Instant;

use super::message::{Message, Version, is_verifiable};

/// Blocks that may be wanted at the same time, in all.
pub const WANTS_MAX: usize = 100_000;

/// Wants that one peer is told of at the same time; the others wait here. The Go implementation keeps 1,024
/// wants of a peer and forgets further ones without a word.
pub(crate) const IN_FLIGHT_PER_PEER_MAX: usize = 512;

/// Silence of a peer after which another is asked as well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Silence of a peer after which its wants are given up.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Time after which a want is given up that a peer leaves unanswered while it answers others.
pub(crate) const NEGLECT_MAX: Duration = Duration::from_secs(120);

/// How often silence is looked for, while anything is wanted.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Why a block cannot be wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WantError {
    /// [`WANTS_MAX`] blocks are wanted already. Wait for some of them.
    #[error("{WANTS_MAX} blocks are wanted already")]
    TooMany,
    /// The name has another hash than SHA2-256. Nobody could prove that a block is the right one.
    #[error("only blocks named by SHA2-256 can be fetched")]
    Unverifiable,
}

/// All wants of ours.
#[derive(Debug, Default)]
pub(crate) struct Client {
    wants: HashMap<Cid, Want>,
    peers: HashMap<PeerId, Asked>,
    /// Peers whose wantlist has changed since it was sent.
    changed: BTreeSet<PeerId>,
    /// Wants that nobody could fulfil and that have not been reported.
    missing: VecDeque<Cid>,
}

/// One wanted block.
#[derive(Debug, Default)]
struct Want {
    asks: Vec<Ask>,
    /// Peers that can still be asked, in order.
    reserve: VecDeque<PeerId>,
}

#[derive(Debug)]
struct Ask {
    peer: PeerId,
    place: Place,
    /// Another peer has been asked because this one is silent.
    doubted: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Waiting for room in the peer's wantlist, at this number.
    Queued(u64),
    /// The peer has been told, at this time.
    Told(Instant),
}

/// What one peer is asked for.
#[derive(Debug)]
struct Asked {
    queue: BTreeMap<u64, Cid>,
    next_number: u64,
    told: BTreeSet<Cid>,
    cancels: Vec<Cid>,
    /// When the peer last answered, or began to owe us an answer.
    heard: Instant,
}

impl Asked {
    fn load(&self) -> usize {
        self.queue.len() + self.told.len()
    }

    /// How long the peer has owed us an answer.
    fn silence(&self, now: Instant) -> Duration {
        if self.told.is_empty() { Duration::ZERO } else { now.saturating_duration_since(self.heard) }
    }
}

impl Client {
    pub(crate) fn connected(&mut self, peer: PeerId, now: Instant) {
        let nothing = Asked {
            queue: BTreeMap::new(),
            next_number: 0,
            told: BTreeSet::new(),
            cancels: Vec::new(),
            heard: now,
        };
        self.peers.insert(peer, nothing);
    }

    /// Asks others for what the peer was asked for.
    pub(crate) fn disconnected(&mut self, peer: PeerId) {
        let Some(asked) = self.peers.remove(&peer) else { return };
        self.changed.remove(&peer);
        for cid in asked.told.into_iter().chain(asked.queue.into_values()) {
            self.refused(peer, &cid);
        }
    }

    /// The peer stays connected but cannot be asked for blocks.
    pub(crate) fn speaks_no_bitswap(&mut self, peer: PeerId) {
        self.disconnected(peer);
    }

    /// Wants a block from one of `peers`. If it is wanted already, one of those who were not named before is asked besides.
    pub(crate) fn want(&mut self, cid: Cid, peers: Vec<PeerId>) -> Result<(), WantError> {
        if !is_verifiable(&cid) {
            return Err(WantError::Unverifiable);
        }
        if self.wants.len() + self.missing.len() >= WANTS_MAX && !self.wants.contains_key(&cid) {
            return Err(WantError::TooMany);
        }
        let want = self.wants.entry(cid).or_default();
        let is_wanted = !want.asks.is_empty();
        let before = std::mem::take(&mut want.reserve);
        for peer in peers {
            let known = before.contains(&peer)
                || want.reserve.contains(&peer)
                || want.asks.iter().any(|ask| ask.peer == peer);
            if !known && self.peers.contains_key(&peer) {
                want.reserve.push_back(peer);
            }
        }
        if !is_wanted {
            want.reserve.extend(before);
            self.ask_next(&cid);
        } else {
            if !want.reserve.is_empty() {
                self.ask_next(&cid);
            }
            if let Some(want) = self.wants.get_mut(&cid) {
                want.reserve.extend(before);
            }
        }
        Ok(())
    }

    pub(crate) fn cancel(&mut self, cid: &Cid) {
        if let Some(want) = self.wants.remove(cid) {
            self.withdraw(cid, want.asks, None);
        }
    }

    /// Takes note of a block from a peer and returns whether it was wanted. If so, others need not send it
    /// any more.
    pub(crate) fn received(&mut self, peer: PeerId, cid: &Cid, now: Instant) -> bool {
        self.heard(peer, now);
        let Some(want) = self.wants.remove(cid) else { return false };
        self.withdraw(cid, want.asks, Some(peer));
        true
    }

    /// Takes note that a peer has said that it does not have a block.
    pub(crate) fn dont_have(&mut self, peer: PeerId, cid: &Cid, now: Instant) {
        self.heard(peer, now);
        self.unlist(peer, cid);
        self.refused(peer, cid);
    }

    /// Gives up on silent peers.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let mut doubted = Vec::new();
        let mut given_up = Vec::new();
        for (cid, want) in &mut self.wants {
            for ask in &mut want.asks {
                let Some(asked) = self.peers.get(&ask.peer) else { continue };
                let silence = asked.silence(now);
                let neglect = match ask.place {
                    Place::Queued(_) => Duration::ZERO,
                    Place::Told(since) => now.saturating_duration_since(since),
                };
                if silence >= SILENCE_MAX || neglect >= NEGLECT_MAX {
                    given_up.push((ask.peer, *cid));
                } else if silence >= PATIENCE && !ask.doubted && !want.reserve.is_empty() {
                    ask.doubted = true;
                    doubted.push(*cid);
                }
            }
        }
        for cid in doubted {
            self.ask_next(&cid);
        }
        for (peer, cid) in given_up {
            if self.unlist(peer, &cid)
                && let Some(asked) = self.peers.get_mut(&peer)
            {
                asked.cancels.push(cid);
                self.changed.insert(peer);
            }
            self.refused(peer, &cid);
        }
    }

    /// When to call [`Self::sweep`] next, if there is anything to look after.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Instant> {
        (!self.wants.is_empty()).then(|| now + SWEEP_INTERVAL)
    }

    /// Adds to a message what has changed in the wantlist for a peer. With `afresh`, the message opens a new
    /// stream and the whole wantlist goes into it.
    pub(crate) fn fill(
        &mut self,
        peer: PeerId,
        message: &mut Message,
        version: Version,
        afresh: bool,
        now: Instant,
    ) {
        self.changed.remove(&peer);
        let Some(asked) = self.peers.get_mut(&peer) else { return };
        if afresh {
            asked.cancels.clear();
            message.wantlist.get_or_insert_default().full = true;
            for cid in &asked.told {
                message.add_want(version, cid);
            }
        }
        for cid in asked.cancels.drain(..) {
            message.add_cancel(&cid);
        }
        while asked.told.len() < IN_FLIGHT_PER_PEER_MAX {
            let Some((_, cid)) = asked.queue.pop_first() else { break };
            let ask =
                self.wants.get_mut(&cid).and_then(|want| want.asks.iter_mut().find(|ask| ask.peer == peer));
            if let Some(ask) = ask {
                if asked.told.is_empty() {
                    asked.heard = now;
                }
                ask.place = Place::Told(now);
                asked.told.insert(cid);
                message.add_want(version, &cid);
            }
        }
    }

    /// The last message to the peer may be lost: its whole wantlist is to be sent on a new stream.
    pub(crate) fn resend(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|asked| asked.load() > 0) {
            self.changed.insert(peer);
        }
    }

    /// Whether [`Self::fill`] would add anything for a peer.
    pub(crate) fn has_changed(&self, peer: &PeerId) -> bool {
        self.changed.contains(peer)
    }

    /// Peers whose wantlist waits to be sent.
    pub(crate) fn changed(&self) -> impl Iterator<Item = PeerId> {
        self.changed.iter().copied()
    }

    /// Takes a want that nobody could fulfil.
    pub(crate) fn take_missing(&mut self) -> Option<Cid> {
        self.missing.pop_front()
    }

    fn heard(&mut self, peer: PeerId, now: Instant) {
        if let Some(asked) = self.peers.get_mut(&peer) {
            asked.heard = now;
        }
    }

    /// Drops the ask of a peer, and asks the next if nobody else is being asked.
    fn refused(&mut self, peer: PeerId, cid: &Cid) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        want.asks.retain(|ask| ask.peer != peer);
        if want.asks.is_empty() {
            self.ask_next(cid);
        }
    }

    /// Asks the peer of the reserve that has the least to do; without any, the block is missing.
    fn ask_next(&mut self, cid: &Cid) {
        let Some(want) = self.wants.get_mut(cid) else { return };
        want.reserve.retain(|peer| self.peers.contains_key(peer));
        let load = |peer: &&PeerId| self.peers.get(*peer).map_or(usize::MAX, Asked::load);
        let Some(&peer) = want.reserve.iter().min_by_key(load) else {
            if want.asks.is_empty() {
                self.wants.remove(cid);
                self.missing.push_back(*cid);
            }
            return;
        };
        want.reserve.retain(|other| *other != peer);
        let Some(asked) = self.peers.get_mut(&peer) else { return };
        want.asks.push(Ask { peer, place: Place::Queued(asked.next_number), doubted: false });
        asked.queue.insert(asked.next_number, *cid);
        asked.next_number += 1;
        self.changed.insert(peer);
    }

    /// Takes asks back from everybody but `from`, who has answered.
    fn withdraw(&mut self, cid: &Cid, asks: Vec<Ask>, from: Option<PeerId>) {
        for ask in asks {
            let Some(asked) = self.peers.get_mut(&ask.peer) else { continue };
            match ask.place {
                Place::Queued(number) => {
                    asked.queue.remove(&number);
                }
                Place::Told(_) => {
                    asked.told.remove(cid);
                    if Some(ask.peer) != from {
                        asked.cancels.push(*cid);
                        self.changed.insert(ask.peer);
                    }
                }
            }
            if !asked.queue.is_empty() {
                self.changed.insert(ask.peer);
            }
        }
    }

    /// Removes a want from the list of a peer and returns whether the peer had been told of it.
    fn unlist(&mut self, peer: PeerId, cid: &Cid) -> bool {
        let Some(asked) = self.peers.get_mut(&peer) else { return false };
        let ask = self.wants.get(cid).and_then(|want| want.asks.iter().find(|ask| ask.peer == peer));
        let told = match ask.map(|ask| ask.place) {
            Some(Place::Queued(number)) => {
                asked.queue.remove(&number);
                false
            }
            Some(Place::Told(_)) => asked.told.remove(cid),
            None => false,
        };
        if !asked.queue.is_empty() {
            self.changed.insert(peer);
        }
        told
    }
}

#[cfg(test)]
mod tests;
