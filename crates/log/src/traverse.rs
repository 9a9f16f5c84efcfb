//! What an append of ours names, exactly as Go chooses it (`spec/ipfs-log.md` §5 and §8, point 6).
//!
//! Entries with equal clocks are common, since all writers of a store share one clock id. Go then
//! flips their order again and again; the law is kept here because links are signed, and only here:
//! nothing that nodes must agree on depends on it.

use std::collections::{BTreeSet, VecDeque};

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};

use crate::rows::{HEADS, Held, LogTag, Place, Position};

/// Most heads that an append of ours names; later appends name the rest (`spec/security.md` O6).
pub const HEADS_PER_APPEND_MAX: usize = 32;
/// How far back the links of an append reach, in entries. OrbitDB stores use 64.
pub const POINTERS: usize = 64;

/// What the next append starts from.
#[derive(Clone, Debug)]
pub(crate) struct Outlook {
    /// The heads it names, oldest first.
    pub next: Vec<EntryId>,
    /// The highest of their clocks.
    pub time: i64,
    /// The traversal from the heads, newest first.
    pub back: VecDeque<EntryId>,
}

impl Outlook {
    /// Looks from the heads with the highest positions.
    pub(crate) fn of(read: &dyn Read, tag: LogTag, pointers: usize) -> Result<Self, ReadError> {
        let mut heads = Vec::new();
        for id in top_heads(read, tag, HEADS_PER_APPEND_MAX)? {
            heads.extend(tag.joined(read, id)?.map(|(held, place)| (place.turn, Node::new(id, held))));
        }
        // The order in which Go stores heads: as they came, those of one writer together.
        heads.sort_by(|(a_turn, a), (b_turn, b)| (&a.clock.1, a_turn).cmp(&(&b.clock.1, b_turn)));
        let stored: Vec<Node> = heads.into_iter().map(|(_, node)| node).collect();
        let time = stored.iter().map(|node| node.clock.0).max().unwrap_or_default();
        let newest_first = flip(stored);
        let next = newest_first.iter().rev().map(|node| node.id).collect();
        let amount = pointers.max(newest_first.len());
        Ok(Self { next, time, back: traverse(read, tag, newest_first, amount)? })
    }

    /// The outlook after `id` was appended, if it follows from this one: with several heads Go's next
    /// traversal may go another way.
    pub(crate) fn after(mut self, id: EntryId, time: i64, pointers: usize) -> Option<Self> {
        if self.next.len() > 1 {
            return None;
        }
        self.back.push_front(id);
        self.back.truncate(pointers.max(1));
        Some(Self { next: vec![id], time, back: self.back })
    }

    /// The links further back: at distances of powers of two, and the last one in reach.
    pub(crate) fn refs(&self, pointers: usize) -> Vec<EntryId> {
        let reach = pointers.min(self.back.len());
        let powers = std::iter::successors(Some(1_usize), |distance| distance.checked_mul(2));
        let mut distances: Vec<usize> = powers.take_while(|distance| *distance <= reach).collect();
        if self.back.len() < pointers {
            distances.push(self.back.len());
        }
        let mut refs = Vec::new();
        for distance in distances {
            let Some(id) = distance.checked_sub(1).and_then(|at| self.back.get(at)) else { continue };
            if !self.next.contains(id) && !refs.contains(id) {
                refs.push(*id);
            }
        }
        refs
    }
}

/// Up to `limit` heads, highest position first.
pub(crate) fn top_heads(read: &dyn Read, tag: LogTag, limit: usize) -> Result<Vec<EntryId>, ReadError> {
    let range = KeyRange::prefix(tag.as_bytes());
    let rows = read.collect(HEADS, &range, Direction::Descending, limit)?;
    Ok(rows.iter().filter_map(|(key, _)| Position::from_key(key)).map(|position| position.id).collect())
}

struct Node {
    id: EntryId,
    /// Time, then id.
    clock: (i64, Vec<u8>),
    next: Vec<EntryId>,
}

impl Node {
    fn new(id: EntryId, held: Held) -> Self {
        Self { id, clock: (held.time, held.clock_id), next: held.next }
    }
}

/// Newest first; those with equal clocks change their order each time.
fn flip(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.sort_by(|a, b| a.clock.cmp(&b.clock));
    nodes.reverse();
    nodes
}

/// Follows accepted entries back from `roots`, newest clock first, until `amount` are found.
fn traverse(
    read: &dyn Read,
    tag: LogTag,
    roots: Vec<Node>,
    amount: usize,
) -> Result<VecDeque<EntryId>, ReadError> {
    let mut found = VecDeque::new();
    let mut seen: BTreeSet<EntryId> = roots.iter().map(|root| root.id).collect();
    let mut stack = flip(roots);
    while found.len() < amount && !stack.is_empty() {
        let node = stack.remove(0);
        found.push_back(node.id);
        let mut added: Vec<Node> = Vec::new();
        for parent in &node.next {
            if seen.contains(parent) {
                continue;
            }
            let Some((held, _)) = accepted(read, tag, *parent)? else { continue };
            seen.insert(*parent);
            added.push(Node::new(*parent, held));
        }
        if !added.is_empty() {
            added.reverse();
            added.append(&mut stack);
            stack = flip(added);
        }
    }
    Ok(found)
}

fn accepted(read: &dyn Read, tag: LogTag, id: EntryId) -> Result<Option<(Held, Place)>, ReadError> {
    Ok(tag.joined(read, id)?.filter(|(held, _)| held.quarantine().is_none()))
}
