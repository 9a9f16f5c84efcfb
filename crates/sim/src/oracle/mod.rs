//! What must hold in every run (`spec/security.md` §4.4).
//!
//! | | Invariant | How it is checked |
//! |---|---|---|
//! | I1 | nothing lost | each message whose sending returned `Ok` is shown at the end on every device that had its key, or told to wait |
//! | I2 | nothing invented | each shown message was written by that device, in that group, with that text, and shown once |
//! | I3 | convergence | devices of one group have the same entries in the same order, and agree on members; devices of one account agree on contacts and groups |
//! | I4 | durability | what was answered `Ok` is there after each start: messages, groups, blocks, requests; and nothing that was shown is gone |
//! | I5 | no key reuse | no two messages of one device carry the same counter, none is left out, and no two envelopes of a group the same nonce; where faults are planted, no key seals two texts under one nonce |
//! | I6 | monotone | blocked accounts stay blocked, what was left stays left |
//! | I7 | secrecy | no text is found in anything that went over the network or lies on a disk, in clear or in base64 |
//! | I8 | bounded | at the end nothing is under way, waits or is repeated, and disks hold few rows for each entry |
//! | I9 | liveness | all this holds sixty seconds after the faults stopped |

mod judge;
mod secrecy;
mod violation;

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId};
use dunlin_wesh::engine::MessageEvent;
use dunlin_wesh::group::Group;

pub use violation::Violation;

use crate::chance::Chance;
use crate::hostile::Villain;
use crate::network::NodeNumber;
use secrecy::{CANARY, OVERHEARD_WHOLE, contains, needles};

/// A message whose sending returned `Ok`.
struct Written {
    by: NodeNumber,
    entry: EntryId,
    text: Vec<u8>,
}

/// Which message it is, whatever entry carries it.
type Number = (DeviceId, u64);

/// Writes down what happens, and judges it in the end.
pub(crate) struct Oracle {
    /// What is searched for in every [`OVERHEARD_WHOLE`]th parcel, and how many there were.
    needles: Vec<Vec<u8>>,
    overheard: u64,
    written: BTreeMap<GroupId, BTreeMap<Number, Written>>,
    texts: u64,
    groups: Vec<Group>,
    /// Devices that say what they like.
    hostile: BTreeSet<DeviceId>,
    hostile_members: BTreeSet<MemberId>,
    /// Who asked whom to become a contact, or tried to.
    asked: BTreeSet<(AccountId, AccountId)>,
    sealed: BTreeMap<([u8; 32], [u8; 24]), [u8; 32]>,
    blocked: BTreeSet<(NodeNumber, AccountId)>,
    /// Messages whose sending failed, which may have reached the disk all the same.
    attempted: BTreeMap<GroupId, BTreeMap<Number, Written>>,
    /// What each device was told last of the groups that it made, joined or left: whether it is in them.
    joined: BTreeMap<(NodeNumber, GroupId), bool>,
    requested: BTreeSet<(NodeNumber, AccountId)>,
    /// Devices of accounts that have several.
    shared: BTreeSet<NodeNumber>,
    /// Whether there are hostile peers.
    is_among_hostile: bool,
    shown: usize,
    violations: Vec<Violation>,
}

impl Oracle {
    pub fn new() -> Self {
        Self {
            needles: needles(),
            overheard: 0,
            written: BTreeMap::new(),
            texts: 0,
            groups: Vec::new(),
            hostile: BTreeSet::new(),
            hostile_members: BTreeSet::new(),
            asked: BTreeSet::new(),
            sealed: BTreeMap::new(),
            blocked: BTreeSet::new(),
            attempted: BTreeMap::new(),
            joined: BTreeMap::new(),
            requested: BTreeSet::new(),
            shared: BTreeSet::new(),
            is_among_hostile: false,
            shown: 0,
            violations: Vec::new(),
        }
    }

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

    /// A device became a further one of the account of another.
    pub fn note_linked(&mut self, old: NodeNumber, new: NodeNumber) {
        self.shared.extend([old, new]);
    }

    /// A hostile peer: whose devices it has, and what it got.
    pub fn note_villain(&mut self, villain: &Villain) {
        self.is_among_hostile = true;
        self.hostile.extend(villain.devices.iter().copied());
        self.hostile_members.extend(villain.members.iter().copied());
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

    pub fn note_attempted(&mut self, by: NodeNumber, message: MessageEvent) {
        let MessageEvent { group, entry, device, counter, payload, .. } = message;
        let written = Written { by, entry, text: payload };
        self.attempted.entry(group).or_default().insert((device, counter), written);
    }

    pub fn note_joined(&mut self, node: NodeNumber, group: GroupId, joined: bool) {
        self.joined.insert((node, group), joined);
    }

    pub fn note_attempted_asking(&mut self, by: AccountId, whom: AccountId) {
        self.asked.insert((by, whom));
    }

    pub fn note_asked(&mut self, node: NodeNumber, whom: AccountId) {
        self.requested.insert((node, whom));
    }

    /// An entry that somebody wrote: ids are no secret.
    pub fn any_entry(&self, chance: &mut Chance) -> Option<EntryId> {
        let written: Vec<_> = self.written.values().flat_map(BTreeMap::values).map(|it| it.entry).collect();
        chance.pick(&written).copied()
    }

    pub fn overhear(&mut self, bytes: &[u8]) {
        self.overheard = self.overheard.wrapping_add(1);
        let tells = contains(bytes, CANARY)
            || (self.overheard.is_multiple_of(OVERHEARD_WHOLE)
                && self.needles.iter().any(|it| contains(bytes, it)));
        if tells {
            self.violate(Violation::Leaked);
        }
    }
}
