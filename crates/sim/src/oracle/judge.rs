//! How the devices are judged, as they are at the end of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use dunlin_base::kv::Direction;
use dunlin_base::{EntryId, GroupId};
use dunlin_log::{Entry, Verdict, block_in};
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use dunlin_wesh::contact::ContactState;
use dunlin_wesh::engine::{MessageEvent, MetadataEvent, StoreKind};
use dunlin_wesh::message;

use super::secrecy::{CANARY, contains};
use super::{Number, Oracle, Violation, Written};
use crate::hostile::Villain;
use crate::network::NodeNumber;
use crate::node::Node;

impl Oracle {
    /// What hostile peers wrote and nobody must take for what it claims.
    pub fn judge_forgeries(&mut self, nodes: &[Node], villain: &Villain) {
        for (group, kind, entry) in villain.forgeries() {
            let is_taken = |node: &Node| {
                let verdict = node.look(|read, engine| {
                    let known = engine.known_group(read, &group).ok()??;
                    let store = match kind {
                        StoreKind::Metadata => engine.profile().metadata_store(),
                        StoreKind::Messages => engine.profile().message_store(),
                    };
                    let address = StoreAddress::new(&group, store, &known.sign_pub());
                    shared_store(&address, known.sign_pub()).verdict(read, entry).ok()?
                });
                verdict.flatten() == Some(Verdict::Accept)
            };
            if nodes.iter().any(is_taken) {
                self.violate(Violation::Yielded {
                    to: villain.malice,
                    what: "a forged entry into the order",
                });
            }
        }
        let forged: BTreeSet<EntryId> = villain.forged_events().collect();
        for group in villain.groups() {
            for node in nodes {
                let mut is_taken = false;
                // A group that is not active lists nothing.
                let _ = node.look(|read, engine| {
                    let visit = &mut |event: MetadataEvent| {
                        is_taken |= forged.contains(&event.entry);
                        ControlFlow::Continue(())
                    };
                    engine.visit_metadata(read, &group, Bound::Unbounded, Direction::Ascending, visit)
                });
                let members = node.look(|read, engine| engine.members(read, &group));
                let others = members.and_then(Result::ok).unwrap_or_default().into_iter();
                let mut others = others.filter(|member| !self.hostile_members.contains(member));
                let has_seat = others.any(|member| {
                    let devices = node.look(|read, engine| engine.devices_of(read, &group, &member));
                    let devices = devices.and_then(Result::ok).unwrap_or_default();
                    devices.iter().any(|device| self.hostile.contains(device))
                });
                if is_taken {
                    let what = "an event in the name of another device into the list";
                    self.violate(Violation::Yielded { to: villain.malice, what });
                }
                if has_seat {
                    self.violate(Violation::Yielded {
                        to: villain.malice,
                        what: "a device into another's seat",
                    });
                }
            }
        }
    }

    fn judge_contacts(&mut self, nodes: &[Node]) {
        let accounts: Vec<_> =
            nodes.iter().filter_map(|node| node.engine()).map(|engine| engine.account_id()).collect();
        for (number, node) in nodes.iter().enumerate() {
            let Some(own) = node.engine().map(|engine| engine.account_id()) else { continue };
            for other in &accounts {
                let state = node.look(|read, engine| engine.contact_state(read, other));
                let is_contact = matches!(state, Some(Ok(Some(ContactState::Added))));
                if is_contact && !self.asked.contains(&(own, *other)) && !self.asked.contains(&(*other, own))
                {
                    self.violate(Violation::ContactInvented { node: number });
                }
            }
        }
    }

    fn judge_counters(&mut self, written: &BTreeMap<Number, Written>) {
        for ((device, counter), it) in written {
            let is_first = !written.keys().any(|(other, before)| other == device && before < counter);
            if !is_first && !written.contains_key(&(*device, counter.saturating_sub(1))) {
                self.violate(Violation::CounterSkipped { node: it.by });
            }
        }
    }

    fn judge_sealings(&mut self, nodes: &[Node]) {
        for (number, node) in nodes.iter().enumerate() {
            for (key, nonce, text) in &node.sealed {
                let before = self.sealed.insert((*key, *nonce), *text);
                if before.is_some_and(|before| before != *text) {
                    self.violate(Violation::NonceReused { node: number });
                }
            }
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
        for written in written.values() {
            self.judge_counters(written);
        }
        self.written = written;
        self.judge_blocks(nodes);
        self.judge_contacts(nodes);
        self.judge_sealings(nodes);
        // One disk a run is enough to see whether disks can be read.
        if nodes.first().is_some_and(|node| contains(&node.disk(), CANARY)) {
            self.violate(Violation::Leaked);
        }
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
        let waits: BTreeSet<EntryId> = node.stays_closed(group).into_iter().collect();
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
