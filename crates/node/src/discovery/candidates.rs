//! Peers that sources told of, and whom of them to dial.
//!
//! What each source tells is kept apart, with limits of its own, and the sources take turns: none of them can
//! fill the memory, the list or the dials so that another is not heard (`spec/security.md` N8).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{Span, Time};
use dunlin_ipfs::{Multiaddr, PeerId};

use super::driver::{ADDRESSES_PER_PEER_MAX, PEERS_PER_ANSWER_MAX, Sighted};
use super::schedule::Topic;

/// Peers that are dialled at the same time on the word of one source.
pub(super) const DIALS_PER_SOURCE_MAX: usize = 4;
/// First pause after a dial that failed.
const REDIAL_FIRST: Span = Span::from_secs(2);
/// Longest such pause.
const REDIAL_LONGEST: Span = Span::from_secs(300);
/// Connected peers of a group beyond which no further ones are dialled: what gossip needs at the most
/// (`spec/wesh-protocol.md` §6.8).
const CONNECTED_PER_GROUP_MAX: usize = 12;
/// Peers whose dials are remembered.
const DIALS_MAX: usize = 65_536;

#[derive(Clone, Debug)]
struct Candidate {
    addresses: Vec<Multiaddr>,
    until: Time,
}

#[derive(Clone, Copy, Debug)]
struct Dial {
    next: Time,
    pause: Span,
    /// The source on whose word it is dialled now.
    by: Option<usize>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Candidates {
    told: BTreeMap<(Topic, usize), BTreeMap<PeerId, Candidate>>,
    dials: BTreeMap<PeerId, Dial>,
    connected: BTreeSet<PeerId>,
    /// Whose turn it is to have a peer dialled.
    turn: usize,
}

impl Candidates {
    /// Takes what a source tells of a topic.
    pub fn add(&mut self, now: Time, topic: &Topic, source: usize, sighted: Vec<Sighted>) {
        let told = self.told.entry((topic.clone(), source)).or_default();
        for Sighted { peer, mut addresses, ttl } in sighted {
            addresses.truncate(ADDRESSES_PER_PEER_MAX);
            let until = now + Span::from_secs(ttl.as_secs().max(1));
            if told.contains_key(&peer) || told.len() < PEERS_PER_ANSWER_MAX {
                told.insert(peer, Candidate { addresses, until });
            } else if let Some(soonest) =
                told.iter().min_by_key(|(_, known)| known.until).map(|(peer, _)| *peer)
                && told.get(&soonest).is_some_and(|known| known.until < until)
            {
                // The one that runs out first makes room.
                told.remove(&soonest);
                told.insert(peer, Candidate { addresses, until });
            }
        }
    }

    /// Forgets what has run out, and topics that are no longer of interest.
    pub fn prune(&mut self, now: Time, of_interest: impl Fn(&Topic) -> bool) {
        self.told.retain(|(topic, _), told| {
            told.retain(|_, candidate| candidate.until > now);
            of_interest(topic) && !told.is_empty()
        });
        let mentioned: BTreeSet<PeerId> = self.told.values().flat_map(BTreeMap::keys).copied().collect();
        self.dials.retain(|peer, dial| dial.by.is_some() || mentioned.contains(peer));
        for dial in self.dials.values_mut() {
            // A clock that was set back would make the wait long.
            dial.next = dial.next.min(now + REDIAL_LONGEST);
        }
    }

    pub fn connected(&mut self, peer: PeerId) {
        self.connected.insert(peer);
        if let Some(dial) = self.dials.get_mut(&peer) {
            dial.pause = REDIAL_FIRST;
        }
    }

    pub fn disconnected(&mut self, now: Time, peer: PeerId) {
        self.connected.remove(&peer);
        if let Some(dial) = self.dials.get_mut(&peer) {
            dial.next = now + dial.pause;
            dial.pause = dial.pause.doubled(REDIAL_LONGEST);
        }
    }

    /// Makes the peers of a topic due.
    pub fn hasten(&mut self, now: Time, topic: &Topic) {
        for ((of, _), told) in &self.told {
            for peer in told.keys().filter(|_| of == topic) {
                if let Some(dial) = self.dials.get_mut(peer) {
                    dial.next = dial.next.min(now);
                }
            }
        }
    }

    /// The next peer to dial, with every address that any source tells of it.
    pub fn poll_dial(&mut self, now: Time, sources: usize) -> Option<(PeerId, Vec<Multiaddr>)> {
        for step in 0..sources {
            let source = (self.turn + step) % sources;
            if self.running(source) >= DIALS_PER_SOURCE_MAX || self.dials.len() >= DIALS_MAX {
                continue;
            }
            if let Some(peer) = self.due(now, source) {
                self.turn = source + 1;
                let dial =
                    self.dials.entry(peer).or_insert(Dial { next: now, pause: REDIAL_FIRST, by: None });
                dial.by = Some(source);
                return Some((peer, self.addresses(&peer)));
            }
        }
        None
    }

    /// Takes what came of a dial.
    pub fn conclude(&mut self, now: Time, peer: PeerId, reached: bool) {
        let Some(dial) = self.dials.get_mut(&peer) else { return };
        dial.by = None;
        dial.next = now + dial.pause;
        if !reached {
            dial.pause = dial.pause.doubled(REDIAL_LONGEST);
        }
    }

    /// When a peer is to be dialled; exact enough, a moment too early does no harm.
    pub fn timeout(&self, now: Time) -> Option<Time> {
        let may = |source: usize| self.running(source) < DIALS_PER_SOURCE_MAX;
        let waiting = self.told.iter().filter(|((topic, source), _)| may(*source) && !self.is_full(topic));
        let peers = waiting.flat_map(|(_, told)| told.iter());
        let peers =
            peers.filter(|(peer, known)| !self.connected.contains(peer) && !known.addresses.is_empty());
        peers
            .filter_map(|(peer, _)| match self.dials.get(peer) {
                Some(Dial { by: Some(_), .. }) => None,
                Some(dial) => Some(dial.next),
                None => Some(now),
            })
            .min()
    }

    /// The topics of which a peer is told.
    pub fn topics_of(&self, peer: &PeerId) -> BTreeSet<Topic> {
        let told = self.told.iter().filter(|(_, told)| told.contains_key(peer));
        told.map(|((topic, _), _)| topic.clone()).collect()
    }

    /// The peers of a topic that are connected, with what was told of where they are.
    pub fn connected_of(&self, topic: &Topic) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let told = self.told.iter().filter(|((of, _), _)| of == topic).flat_map(|(_, told)| told.keys());
        let reached = told.filter(|peer| self.connected.contains(peer));
        reached.map(|peer| (*peer, self.addresses(peer))).collect()
    }

    /// How many peers a source tells of.
    pub fn count(&self, source: usize) -> usize {
        self.told.iter().filter(|((_, of), _)| *of == source).map(|(_, told)| told.len()).sum()
    }

    fn running(&self, source: usize) -> usize {
        self.dials.values().filter(|dial| dial.by == Some(source)).count()
    }

    fn due(&self, now: Time, source: usize) -> Option<PeerId> {
        let told = self.told.iter().filter(|((topic, of), _)| *of == source && !self.is_full(topic));
        let peers = told.flat_map(|(_, told)| told.iter());
        let peers =
            peers.filter(|(peer, known)| !self.connected.contains(peer) && !known.addresses.is_empty());
        let due = peers.filter_map(|(peer, _)| match self.dials.get(peer) {
            Some(Dial { by: Some(_), .. }) => None,
            Some(dial) if dial.next > now => None,
            Some(dial) => Some((dial.next, peer)),
            None => Some((Time::default(), peer)),
        });
        due.min().map(|(_, peer)| *peer)
    }

    fn is_full(&self, topic: &Topic) -> bool {
        matches!(topic, Topic::Group(_)) && self.connected_of(topic).len() >= CONNECTED_PER_GROUP_MAX
    }

    fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let told = self.told.values().filter_map(|told| told.get(peer));
        let mut addresses: Vec<_> = told.flat_map(|known| known.addresses.iter().cloned()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}
