//! Counts what goes to each peer and comes from it, since the node was started.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_ipfs::{Event, PeerId};

/// Peers that are counted. It is twice as many as are ever connected; when there are more, one makes room.
const PEERS_MAX: usize = 1024;

/// What went over the connections with a peer, as far as it carried something: messages of topics, frames and blocks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    pub messages_in: u64,
    pub bytes_in: u64,
    pub messages_out: u64,
    pub bytes_out: u64,
    pub blocks_served: u64,
}

/// Counts of all peers.
#[derive(Default)]
pub(crate) struct Traffic(Mutex<BTreeMap<PeerId, Counts>>);

impl Traffic {
    /// Counts what an event of the host brought.
    pub fn note(&self, event: &Event) {
        match event {
            Event::Message { from: peer, data: bytes, .. }
            | Event::Frame { peer, bytes, .. }
            | Event::Block { peer, bytes, .. } => self.of(*peer, |counts| {
                counts.messages_in += 1;
                counts.bytes_in += bytes.len() as u64;
            }),
            Event::BlockServed { peer, .. } => self.of(*peer, |counts| counts.blocks_served += 1),
            _ => {}
        }
    }

    /// Counts a frame that was sent.
    pub fn sent(&self, peer: PeerId, bytes: usize) {
        self.of(peer, |counts| {
            counts.messages_out += 1;
            counts.bytes_out += bytes as u64;
        });
    }

    /// All that was counted, by peer.
    pub fn all(&self) -> Vec<(PeerId, Counts)> {
        self.lock().iter().map(|(peer, counts)| (*peer, *counts)).collect()
    }

    fn of(&self, peer: PeerId, count: impl FnOnce(&mut Counts)) {
        let mut peers = self.lock();
        if !peers.contains_key(&peer) && peers.len() >= PEERS_MAX {
            peers.pop_first();
        }
        count(peers.entry(peer).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_counted_one_by_one_and_not_without_end() {
        let traffic = Traffic::default();
        let peer = PeerId::random();
        traffic.sent(peer, 3);
        traffic.sent(peer, 4);
        assert_eq!(traffic.all(), [(peer, Counts { messages_out: 2, bytes_out: 7, ..Counts::default() })]);
        for _ in 0..2 * PEERS_MAX {
            traffic.sent(PeerId::random(), 1);
        }
        assert_eq!(traffic.all().len(), PEERS_MAX);
    }
}
