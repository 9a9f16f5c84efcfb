//! How the devices are judged, as they are at the end of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};

use dunlin_base::kv::{Direction, Read};
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_log::{Entry, Log, Position, Verdict, block_in};
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use dunlin_proto::protocol::{GroupEnvelope, MessageEnvelope};
use dunlin_wesh::contact::ContactState;
use dunlin_wesh::engine::{Engine, MessageEvent, MetadataEvent, StoreKind, Wait};
use dunlin_wesh::message;
use prost::Message as _;

use super::secrecy::{CANARY, contains};
use super::{Number, Oracle, Violation, Written};
use crate::hostile::Villain;
use crate::network::NodeNumber;
use crate::node::Node;

/// Rows that a disk may hold for each entry of its logs, and whatever there is.
const ROWS_PER_ENTRY_MAX: usize = 24;
const ROWS_MAX: usize = 512;

impl Oracle {
    /// What hostile peers wrote and nobody must take for what it claims.
    pub fn judge_forgeries(&mut self, nodes: &[Node], villain: &Villain) {
        let mut yielded = BTreeSet::new();
        for (group, kind, entry) in villain.forgeries() {
            if nodes.iter().any(|node| verdict(node, &group, kind, entry) == Some(Verdict::Accept)) {
                yielded.insert("a forged entry into the order");
            }
        }
        for (group, kind, both) in villain.copies() {
            let counts = |node: &Node, entry| {
                let is_in_order = node.look(|read, engine| {
                    let log = log_of(read, engine, &group, kind)?;
                    let from = log.position(read, entry).ok()??;
                    let mut first = None;
                    let visit = &mut |position: Position, _: Entry| {
                        first = Some(position);
                        ControlFlow::Break(())
                    };
                    log.walk(read, Some(from), Direction::Ascending, visit).ok()?;
                    Some(first == Some(from))
                });
                verdict(node, &group, kind, entry) == Some(Verdict::Accept)
                    && is_in_order.flatten() == Some(true)
            };
            if nodes.iter().any(|node| both.into_iter().all(|entry| counts(node, entry))) {
                yielded.insert("the same into the order twice");
            }
        }
        for (group, kind, entry) in villain.holed() {
            let waits = |node: &Node| {
                let is_here = node.look(|read, engine| {
                    engine.is_active(&group).then_some(())?;
                    log_of(read, engine, &group, kind)?.contains(read, entry).ok()
                });
                is_here.flatten() == Some(true) && verdict(node, &group, kind, entry).is_none()
            };
            if nodes.iter().any(waits) {
                yielded.insert("that an entry waits for ever");
            }
        }
        for what in yielded {
            self.violate(Violation::Yielded { to: villain.malice, what });
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

    fn judge_counters(&mut self, group: &GroupId, written: &BTreeMap<Number, Written>) {
        for ((device, counter), it) in written {
            let has = |before: &BTreeMap<Number, Written>| {
                before.contains_key(&(*device, counter.saturating_sub(1)))
            };
            let is_first = !matches!(written.range(..(*device, *counter)).next_back(), Some(((other, _), _)) if other == device);
            if !is_first && !has(written) && !self.attempted.get(group).is_some_and(has) {
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
        let mut groups: BTreeMap<GroupId, Vec<(NodeNumber, &Node)>> = BTreeMap::new();
        for (number, node) in nodes.iter().enumerate() {
            for group in node.engine().into_iter().flat_map(|engine| engine.active_groups()) {
                groups.entry(group).or_default().push((number, node));
            }
        }
        let written = std::mem::take(&mut self.written);
        let none = BTreeMap::new();
        for (group, members) in &groups {
            let written = written.get(group).unwrap_or(&none);
            for (number, node) in members {
                self.judge_shown(*number, node, group, written);
                self.judge_lost(*number, node, group, written, members);
            }
            for pair in members.windows(2) {
                if let [(a, one), (b, other)] = pair {
                    self.judge_agreement((*a, one), (*b, other), group);
                }
            }
            if let Some((number, node)) = members.first() {
                self.judge_nonces(*number, node, group);
            }
        }
        for (group, written) in &written {
            self.judge_counters(group, written);
        }
        self.written = written;
        self.judge_contacts(nodes);
        self.judge_accounts(nodes);
        self.judge_sealings(nodes);
        for (number, node) in nodes.iter().enumerate() {
            self.judge_durable(number, node);
            self.judge_left_over(number, node);
        }
        self.judge_blocks(nodes);
        // One disk a run is enough to see whether disks can be read.
        if nodes.first().is_some_and(|node| contains(&node.disk(), CANARY)) {
            self.violate(Violation::Leaked);
        }
    }

    /// I4: what a device was told is done is done, whenever it is looked at.
    pub fn judge_durable(&mut self, number: NodeNumber, node: &Node) {
        let mut forgotten = BTreeSet::new();
        let has_twin = self.shared.contains(&number);
        for (group, written) in &self.written {
            let mut seen = None;
            for (message, written) in written.iter().filter(|(_, written)| written.by == number) {
                let seen = seen.get_or_insert_with(|| node.seen(group));
                // Another device of the account may have left the group.
                let may_be_left = self.joined.get(&(number, *group)) == Some(&false) || has_twin;
                let known = node.look(|read, engine| engine.known_group(read, group));
                let is_left = may_be_left && matches!(known, Some(Ok(None)));
                let is_kept = is_left || number_of(node, group, &written.entry) == Some(*message);
                if !seen.contains_key(message) || !is_kept {
                    forgotten.insert("a message");
                }
            }
        }
        for ((_, group), joined) in self.joined.iter().filter(|((by, _), _)| *by == number && !has_twin) {
            let known = node.look(|read, engine| engine.known_group(read, group));
            if matches!(known, Some(Ok(known)) if known.is_some() != *joined) {
                forgotten.insert("that it joined a group, or left it");
            }
        }
        for (_, account) in self.requested.iter().filter(|(by, _)| *by == number) {
            let state = node.look(|read, engine| engine.contact_state(read, account));
            if matches!(state, Some(Ok(None))) {
                forgotten.insert("a contact that it asked");
            }
        }
        for (_, account) in self.blocked.iter().filter(|(by, _)| *by == number && !has_twin) {
            let state = node.look(|read, engine| engine.contact_state(read, account));
            if matches!(state, Some(Ok(state)) if state != Some(ContactState::Blocked)) {
                forgotten.insert("a block");
            }
        }
        for what in forgotten {
            self.violate(Violation::Forgotten { node: number, what });
        }
    }

    /// I8: whoever rests has nothing under way. Hostile peers may leave something behind that is never had.
    fn judge_left_over(&mut self, number: NodeNumber, node: &Node) {
        let Some(engine) = node.engine() else { return };
        let underway = engine.underway();
        let mut left = Vec::new();
        if underway.frames > 0 || underway.exchanges > 0 || underway.backlog > 0 {
            left.push(format!("{underway:?}"));
        }
        let waits = node.look(|read, engine| engine.waits(read)).and_then(Result::ok).unwrap_or_default();
        // Whoever left a group took along what only they had: entries, and the keys to messages.
        let is_whole = !self.is_among_hostile && self.joined.values().all(|joined| *joined);
        if is_whole && underway.fetches > 0 {
            left.push(format!("{underway:?}"));
        }
        for wait in waits {
            match wait {
                Wait::Messages { .. } | Wait::Entries { .. } if is_whole => {
                    left.push(format!("{wait:?}"));
                }
                // What only other devices of the account have counts as unsent, and hostile peers do not say what they have.
                Wait::Unsent { peers, .. }
                    if peers > 0 && !self.is_among_hostile && !self.shared.contains(&number) =>
                {
                    left.push(format!("{wait:?}"))
                }
                Wait::SetAside { .. } => left.push(format!("{wait:?}")),
                _ => {}
            }
        }
        let (rows, entries) = node.rows_and_entries();
        if rows > entries.saturating_mul(ROWS_PER_ENTRY_MAX).saturating_add(ROWS_MAX) {
            left.push(format!("{rows} rows on its disk for {entries} entries"));
        }
        for what in left {
            self.violate(Violation::LeftOver { node: number, what });
        }
    }

    /// I5: nonces that are drawn are drawn once.
    fn judge_nonces(&mut self, number: NodeNumber, node: &Node, group: &GroupId) {
        let mut sealed: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut repeats = false;
        for (kind, value) in node.values(group) {
            let (nonce, sealed_bytes) = match kind {
                StoreKind::Messages => match MessageEnvelope::decode(&*value) {
                    Ok(envelope) => (envelope.nonce, envelope.message_headers),
                    Err(_) => continue,
                },
                StoreKind::Metadata => match GroupEnvelope::decode(&*value) {
                    Ok(envelope) => (envelope.nonce, envelope.event),
                    Err(_) => continue,
                },
            };
            let before = sealed.insert(nonce, sealed_bytes.clone());
            repeats |= before.is_some_and(|before| before != sealed_bytes);
        }
        if repeats && !self.is_among_hostile {
            self.violate(Violation::NonceReused { node: number });
        }
    }

    /// I3 among devices of one account: they have the same contacts and groups.
    fn judge_accounts(&mut self, nodes: &[Node]) {
        let accounts: BTreeSet<AccountId> =
            nodes.iter().filter_map(Node::engine).map(Engine::account_id).collect();
        for (b, other) in nodes.iter().enumerate() {
            let account = other.engine().map(Engine::account_id);
            let first = nodes.iter().position(|node| node.engine().map(Engine::account_id) == account);
            let Some((a, one)) = first.and_then(|a| Some((a, nodes.get(a)?))).filter(|(a, _)| *a < b) else {
                continue;
            };
            let groups = |node: &Node| {
                let known = node.look(|read, engine| engine.known_groups(read))?.ok()?;
                Some(known.into_iter().map(|(group, _, _)| group).collect::<BTreeSet<_>>())
            };
            if groups(one) != groups(other) {
                self.violate(Violation::Apart { nodes: (a, b), what: "their groups" });
            }
            let contacts = |node: &Node| {
                let state = |account| node.look(|read, engine| engine.contact_state(read, account))?.ok();
                accounts.iter().map(state).collect::<Vec<_>>()
            };
            if contacts(one) != contacts(other) {
                self.violate(Violation::Apart { nodes: (a, b), what: "their contacts" });
            }
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
            let number_of_it = (message.device, message.counter);
            let attempted = || self.attempted.get(group)?.get(&number_of_it);
            let why = match written.get(&number_of_it).or_else(attempted) {
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
        members: &[(NodeNumber, &Node)],
    ) {
        let seen = node.seen(group);
        let waits: BTreeSet<EntryId> = node.stays_closed(group).into_iter().collect();
        // Whoever left may have done so before anybody had what it wrote; that all have the same is judged elsewhere.
        let is_here = |written: &Written| members.iter().any(|(number, _)| *number == written.by);
        let lost = written.iter().filter(|(message, it)| !seen.contains_key(message) && is_here(it));
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
            // Another device of the account may have said something newer.
            if self.shared.contains(&number) {
                continue;
            }
            let state = nodes
                .get(number)
                .and_then(|node| node.look(|read, engine| engine.contact_state(read, &account)));
            if !matches!(state, Some(Ok(Some(ContactState::Blocked)))) {
                self.violate(Violation::Unblocked { node: number });
            }
        }
    }
}

/// A log of a group that the account knows, active or not.
fn log_of(read: &dyn Read, engine: &Engine, group: &GroupId, kind: StoreKind) -> Option<Log> {
    let known = engine.known_group(read, group).ok()??;
    let store = match kind {
        StoreKind::Metadata => engine.profile().metadata_store(),
        StoreKind::Messages => engine.profile().message_store(),
    };
    Some(shared_store(&StoreAddress::new(group, store, &known.sign_pub()), known.sign_pub()))
}

fn verdict(node: &Node, group: &GroupId, kind: StoreKind, entry: EntryId) -> Option<Verdict> {
    node.look(|read, engine| log_of(read, engine, group, kind)?.verdict(read, entry).ok()?)?
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
