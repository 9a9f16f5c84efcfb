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
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId};
use dunlin_log::{Entry, block_in};
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use dunlin_wesh::contact::ContactState;
use dunlin_wesh::engine::MessageEvent;
use dunlin_wesh::group::Group;
use dunlin_wesh::message;

use crate::chance::Chance;
use crate::hostile::{Malice, Villain};
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
    /// I2: what is listed is not what was given as it came, once each.
    ListedOtherwise {
        /// The device.
        node: usize,
        /// How many messages.
        messages: usize,
    },
    /// A hostile peer got what nobody must get.
    Yielded {
        /// Which kind of peer.
        to: Malice,
        /// What.
        what: &'static str,
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
            Self::ListedOtherwise { node, messages } => {
                write!(
                    f,
                    "I2: node {node} lists {messages} messages that it did not give once as they came, or not those"
                )
            }
            Self::Yielded { to, what } => write!(f, "{to} got {what}"),
            Self::Unblocked { node } => write!(f, "I6: a block of node {node} is gone"),
            Self::Leaked => write!(f, "I7: a text went over the network in clear"),
            Self::Unreadable { node, error } => write!(f, "node {node} cannot be read: {error}"),
        }
    }
}

/// A message whose sending returned `Ok`.
struct Written {
    by: NodeNumber,
    entry: EntryId,
    text: Vec<u8>,
}

/// Which message it is, whatever entry carries it.
type Number = (DeviceId, u64);

/// Writes down what happens, and judges it in the end.
#[derive(Default)]
pub(crate) struct Oracle {
    written: BTreeMap<GroupId, BTreeMap<Number, Written>>,
    texts: u64,
    groups: Vec<Group>,
    /// Devices that say what they like.
    hostile: BTreeSet<DeviceId>,
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
        self.written.values().map(BTreeMap::len).sum()
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

    /// A hostile peer: whose devices it has, and what it got.
    pub fn note_villain(&mut self, villain: &Villain) {
        self.hostile.extend(villain.devices.iter().copied());
        for spoil in &villain.spoils {
            self.violate(Violation::Yielded { to: villain.malice, what: spoil });
        }
    }

    pub fn note_written(&mut self, by: NodeNumber, message: MessageEvent) {
        let MessageEvent { group, entry, device, counter, payload, .. } = message;
        let written = Written { by, entry, text: payload };
        if self.written.entry(group).or_default().insert((device, counter), written).is_some() {
            self.violate(Violation::CounterReused { node: by, counter });
        }
    }

    pub fn overhear(&mut self, bytes: &[u8]) {
        if bytes.windows(CANARY.len()).any(|window| window == CANARY) {
            self.violate(Violation::Leaked);
        }
    }

    /// Judges the devices as they are at the end.
    pub fn judge(&mut self, nodes: &[Node]) {
        let written = std::mem::take(&mut self.written);
        for (group, written) in &written {
            let members = nodes
                .iter()
                .enumerate()
                .filter(|(_, node)| node.engine().is_some_and(|engine| engine.is_active(group)));
            let members: Vec<_> = members.collect();
            for (number, node) in &members {
                self.judge_shown(*number, node, group, written);
                self.judge_lost(*number, node, group, written);
            }
            for pair in members.windows(2) {
                if let [(a, one), (b, other)] = pair {
                    self.judge_agreement((*a, one), (*b, other), group);
                }
            }
        }
        self.written = written;
        self.judge_blocks(nodes);
    }

    fn judge_shown(
        &mut self,
        number: NodeNumber,
        node: &Node,
        group: &GroupId,
        written: &BTreeMap<Number, Written>,
    ) {
        let mut listed = BTreeSet::new();
        for message in messages(node, group) {
            self.shown = self.shown.saturating_add(1);
            if self.hostile.contains(&message.device) {
                continue;
            }
            if !listed.insert((message.device, message.counter)) {
                self.violate(Violation::CounterReused { node: number, counter: message.counter });
            }
            let why = match written.get(&(message.device, message.counter)) {
                // A commit that failed after the entry left is possible only if something left too early.
                None => Some("nobody wrote"),
                Some(written) if written.text != message.payload => Some("has another text"),
                Some(written) if message.own != (written.by == number) => Some("is taken for another's"),
                Some(_) => None,
            };
            if let Some(why) = why {
                self.violate(Violation::Invented { node: number, entry: message.entry, why });
            }
        }
        // What is listed was given as it came, once, and the other way round.
        let mut seen = node.seen(group);
        seen.retain(|(device, _), _| !self.hostile.contains(device));
        let odd = seen.iter().filter(|(number, times)| **times != 1 || !listed.contains(number)).count();
        let quiet = listed.iter().filter(|number| !seen.contains_key(number)).count();
        if odd.saturating_add(quiet) > 0 {
            self.violate(Violation::ListedOtherwise { node: number, messages: odd.saturating_add(quiet) });
        }
    }

    fn judge_lost(
        &mut self,
        number: NodeNumber,
        node: &Node,
        group: &GroupId,
        written: &BTreeMap<Number, Written>,
    ) {
        let seen = node.seen(group);
        let waits: BTreeSet<EntryId> = node.waits(group).into_iter().collect();
        let lost = written.iter().filter(|(message, _)| !seen.contains_key(message));
        let mut lost: Vec<_> = lost.filter(|(_, written)| !waits.contains(&written.entry)).collect();
        if lost.is_empty() {
            return;
        }
        // It may wait in an entry into which somebody else put it.
        let in_copies: BTreeSet<Number> =
            waits.iter().filter_map(|entry| number_of(node, group, entry)).collect();
        lost.retain(|(message, _)| !in_copies.contains(message));
        for (_, written) in lost {
            self.violate(Violation::Lost { node: number, entry: written.entry });
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

/// Which message an entry carries.
fn number_of(node: &Node, group: &GroupId, entry: &EntryId) -> Option<Number> {
    let block = node.look(|read, engine| {
        let group = engine.known_group(read, group).ok()??;
        let address = StoreAddress::new(&group.id(), engine.profile().message_store(), &group.sign_pub());
        let log = shared_store(&address, group.sign_pub());
        let block = block_in(read, log.tag(), *entry).ok()??;
        Some((group, block))
    });
    let (group, block) = block??;
    let value = operation::decode_value(Entry::decode(&block).ok()?.payload())?;
    let headers = message::open_headers(&group, &value).ok()?;
    Some((headers.device, headers.counter))
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
