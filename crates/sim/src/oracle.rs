//! What must hold in every run (`spec/security.md` §4.4).
//!
//! | | Invariant | How it is checked |
//! |---|---|---|
//! | I1 | nothing lost | each message whose sending returned `Ok` is shown at the end on every device that had its key, or told to wait |
//! | I2 | nothing invented | each shown message was written by that device, in that group, with that text, and shown once |
//! | I3 | convergence | devices of one group show the same messages in the same order, and agree on members |
//! | I5 | no key reuse | no two sealed messages of one device carry the same counter |
//! | I6 | monotone | blocked accounts stay blocked |
//! | I7 | secrecy | no text is found in anything that went over the network |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Bound, ControlFlow};

use dunlin_base::kv::Direction;
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_wesh::contact::ContactState;
use dunlin_wesh::engine::MessageEvent;
use dunlin_wesh::group::Group;

use crate::chance::Chance;
use crate::network::NodeNumber;
use crate::node::Node;

/// What every text begins with, to be looked for on the network.
const CANARY: &[u8] = b"canary-in-the-coal-mine-";

/// A breach of an invariant.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Violation {
    /// I1: a message is neither shown nor told to wait.
    Lost {
        /// The device that misses it.
        node: usize,
        /// The message.
        entry: EntryId,
    },
    /// I2: something is shown that nobody wrote, or elsewhere, or more than once.
    Invented {
        /// The device that shows it.
        node: usize,
        /// The message.
        entry: EntryId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// I3: two devices of a group differ.
    Diverged {
        /// The two devices.
        nodes: (usize, usize),
        /// In what.
        what: &'static str,
    },
    /// I5: two messages of one device carry the same counter.
    CounterReused {
        /// Who shows them.
        node: usize,
        /// The counter.
        counter: u64,
    },
    /// I6: a blocked account is not blocked any more.
    Unblocked {
        /// Whose block is gone.
        node: usize,
    },
    /// I7: a text went over the network in clear.
    Leaked,
    /// A store or an account does not open, or cannot be read.
    Unreadable {
        /// Whose.
        node: usize,
        /// Why.
        error: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { node, entry } => write!(f, "I1: node {node} misses {entry}"),
            Self::Invented { node, entry, why } => write!(f, "I2: node {node} shows {entry}, which {why}"),
            Self::Diverged { nodes: (a, b), what } => write!(f, "I3: nodes {a} and {b} differ in {what}"),
            Self::CounterReused { node, counter } => {
                write!(f, "I5: node {node} shows two messages with counter {counter} of one device")
            }
            Self::Unblocked { node } => write!(f, "I6: a block of node {node} is gone"),
            Self::Leaked => write!(f, "I7: a text went over the network in clear"),
            Self::Unreadable { node, error } => write!(f, "node {node} cannot be read: {error}"),
        }
    }
}

/// A message whose sending returned `Ok`.
struct Written {
    by: NodeNumber,
    group: GroupId,
    text: Vec<u8>,
    counter: u64,
}

/// Writes down what happens, and judges it in the end.
#[derive(Default)]
pub(crate) struct Oracle {
    written: BTreeMap<EntryId, Written>,
    texts: u64,
    groups: Vec<Group>,
    blocked: BTreeSet<(NodeNumber, AccountId)>,
    shown: usize,
    violations: Vec<Violation>,
}

impl Oracle {
    pub fn violate(&mut self, violation: Violation) {
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    pub fn into_violations(self) -> Vec<Violation> {
        self.violations
    }

    pub fn written(&self) -> usize {
        self.written.len()
    }

    pub fn shown(&self) -> usize {
        self.shown
    }

    /// A text that nobody wrote before.
    pub fn next_text(&mut self, seed: u64) -> Vec<u8> {
        self.texts = self.texts.saturating_add(1);
        [CANARY, format!("{seed}-{}", self.texts).as_bytes()].concat()
    }

    pub fn note_group(&mut self, group: Group) {
        self.groups.push(group);
    }

    pub fn any_group(&self, chance: &mut Chance) -> Option<Group> {
        chance.pick(&self.groups).cloned()
    }

    pub fn note_blocked(&mut self, node: NodeNumber, account: AccountId) {
        self.blocked.insert((node, account));
    }

    pub fn note_written(
        &mut self,
        by: NodeNumber,
        node: &Node,
        group: &GroupId,
        entry: EntryId,
        text: Vec<u8>,
    ) {
        match node.look(|read, engine| engine.message(read, group, &entry)) {
            Some(Ok(Some(message))) => {
                let counter = message.counter;
                self.written.insert(entry, Written { by, group: *group, text, counter });
            }
            _ => self.violate(Violation::Lost { node: by, entry }),
        }
    }

    pub fn overhear(&mut self, bytes: &[u8]) {
        if bytes.windows(CANARY.len()).any(|window| window == CANARY) {
            self.violate(Violation::Leaked);
        }
    }

    /// Judges the devices as they are at the end.
    pub fn judge(&mut self, nodes: &[Node]) {
        let groups: BTreeSet<GroupId> = self.written.values().map(|written| written.group).collect();
        for group in groups {
            let members = nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| node.engine().is_some_and(|engine| engine.is_active(&group)));
            let members: Vec<_> = members.collect();
            for (number, node) in &members {
                self.judge_shown(*number, node, &group);
                self.judge_lost(*number, node, &group);
            }
            for pair in members.windows(2) {
                if let [(a, one), (b, other)] = pair {
                    self.judge_agreement((*a, one), (*b, other), &group);
                }
            }
        }
        self.judge_blocks(nodes);
    }

    fn judge_shown(&mut self, number: NodeNumber, node: &Node, group: &GroupId) {
        let mut counters = BTreeSet::new();
        for message in messages(node, group) {
            self.shown = self.shown.saturating_add(1);
            if !counters.insert((message.device, message.counter)) {
                self.violate(Violation::CounterReused { node: number, counter: message.counter });
            }
            let why = match self.written.get(&message.entry) {
                // A commit that failed after the entry left is possible only if something left too early.
                None => Some("nobody wrote"),
                Some(written) if written.text != message.payload => Some("has another text"),
                Some(written) if written.group != *group => Some("belongs to another group"),
                Some(written) if written.counter != message.counter => Some("has another counter"),
                Some(written) if message.own != (written.by == number) => Some("is taken for another's"),
                Some(_) => None,
            };
            if let Some(why) = why {
                self.violate(Violation::Invented { node: number, entry: message.entry, why });
            }
        }
        for (entry, times) in node.seen(group) {
            if times != 1 {
                self.violate(Violation::Invented { node: number, entry, why: "was shown more than once" });
            }
        }
    }

    fn judge_lost(&mut self, number: NodeNumber, node: &Node, group: &GroupId) {
        let seen: BTreeSet<EntryId> = node.seen(group).into_iter().map(|(entry, _)| entry).collect();
        let waits: BTreeSet<EntryId> = node.waits(group).into_iter().collect();
        let lost = self.written.iter().filter(|(_, written)| written.group == *group);
        let lost = lost.filter(|(entry, _)| !seen.contains(entry) && !waits.contains(entry));
        let lost: Vec<_> = lost.map(|(entry, _)| Violation::Lost { node: number, entry: *entry }).collect();
        for violation in lost {
            self.violate(violation);
        }
    }

    fn judge_agreement(
        &mut self,
        (a, one): (NodeNumber, &Node),
        (b, other): (NodeNumber, &Node),
        group: &GroupId,
    ) {
        let order = |node: &Node| node.look(|read, engine| engine.log_digest(read, group));
        match (order(one), order(other)) {
            (Some(Ok(left)), Some(Ok(right))) if left == right => {}
            _ => self.violate(Violation::Diverged { nodes: (a, b), what: "the order of their logs" }),
        }
        let members = |node: &Node| node.look(|read, engine| engine.members(read, group));
        match (members(one), members(other)) {
            (Some(Ok(left)), Some(Ok(right))) if left == right => {}
            _ => self.violate(Violation::Diverged { nodes: (a, b), what: "their members" }),
        }
    }

    fn judge_blocks(&mut self, nodes: &[Node]) {
        for (number, account) in self.blocked.clone() {
            let state = nodes
                .get(number)
                .and_then(|node| node.look(|read, engine| engine.contact_state(read, &account)));
            if !matches!(state, Some(Ok(Some(ContactState::Blocked)))) {
                self.violate(Violation::Unblocked { node: number });
            }
        }
    }
}

fn messages(node: &Node, group: &GroupId) -> Vec<MessageEvent> {
    let mut found = Vec::new();
    let visited = node.look(|read, engine| {
        engine.visit_messages(read, group, Bound::Unbounded, Direction::Ascending, &mut |message| {
            found.push(message);
            ControlFlow::Continue(())
        })
    });
    match visited {
        Some(Ok(())) => found,
        _ => Vec::new(),
    }
}
