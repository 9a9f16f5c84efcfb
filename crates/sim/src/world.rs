//! The run itself: time, inputs, and what people do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_base::{EntryId, GroupId, PeerId, Span, Time};
use dunlin_wesh::engine::{Action, ExchangeId, Origin};
use dunlin_wesh::group::Group;

use crate::chance::Chance;
use crate::hostile::{Deed, Villain};
use crate::network::{Delivery, Network, NodeNumber, Parcel};
use crate::node::{Node, Step};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Faults, Plan};

/// When a run begins: 2026-01-01, so that daily tokens change during some runs.
const START: Time = Time::from_secs(1_767_225_600 + 86_370);
/// How long the network may take to settle after the faults stopped.
const SETTLE: Span = Span::from_secs(120);
/// How far clocks are off: in every second run within the grace of the daily tokens, in the others beyond it.
const CLOCK_OFF_DAY_SECS: u64 = 86_400;
const CLOCK_OFF_MONTH_SECS: u64 = 30 * CLOCK_OFF_DAY_SECS;
/// Inputs after which a run is given up: it does not settle.
const STEPS_MAX: u64 = 500_000;

/// Violations that are shown; one fault causes many.
const SHOWN_MAX: usize = 8;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed that makes the same run again.
    pub seed: u64,
    /// What must not have happened.
    pub violations: Vec<Violation>,
    /// Messages that were written, and how often one was shown on a device.
    pub written: usize,
    /// How often a message was shown on a device.
    pub shown: usize,
    /// Inputs that the devices took.
    pub steps: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, written, shown, steps, .. } = self;
        write!(f, "seed {seed}: {written} written, {shown} shown, {steps} steps")?;
        self.violations.iter().take(SHOWN_MAX).try_for_each(|violation| write!(f, "\n  {violation}"))?;
        match self.violations.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Makes one run.
pub fn run(seed: u64, plan: &Plan) -> Outcome {
    let mut world = World::new(seed, plan);
    world.begin();
    world.live(plan);
    world.settle();
    world.judge()
}

struct World {
    seed: u64,
    now: Time,
    chance: Chance,
    network: Network,
    nodes: Vec<Node>,
    /// Hostile peers. Their numbers follow those of the devices.
    villains: Vec<Villain>,
    by_peer: BTreeMap<PeerId, NodeNumber>,
    topics: Vec<BTreeSet<String>>,
    takes_requests: Vec<bool>,
    /// Blocks that hosts are asking for. A host asks once, however often its engine wants the same.
    asked: BTreeSet<(NodeNumber, EntryId)>,
    /// The other end of each stream.
    streams: BTreeMap<(NodeNumber, ExchangeId), (NodeNumber, ExchangeId)>,
    oracle: Oracle,
    steps: u64,
}

impl World {
    fn new(seed: u64, plan: &Plan) -> Self {
        let nodes: Vec<_> = (0..plan.nodes).map(|number| Node::new(seed, number)).collect();
        let villains = plan.hostile.iter().enumerate();
        let villains: Vec<_> = villains.map(|(number, malice)| Villain::new(seed, number, *malice)).collect();
        let hosts = nodes.iter().map(|node| &node.id).chain(villains.iter().map(|villain| &villain.id));
        let by_peer: BTreeMap<_, _> = hosts.cloned().zip(0..).collect();
        let hosts = by_peer.len();
        Self {
            seed,
            now: START,
            chance: Chance::new(seed, "world"),
            network: Network::new(seed, plan.faults),
            topics: vec![BTreeSet::new(); hosts],
            takes_requests: vec![false; hosts],
            nodes,
            villains,
            by_peer,
            asked: BTreeSet::new(),
            streams: BTreeMap::new(),
            oracle: Oracle::default(),
            steps: 0,
        }
    }

    /// Switches everything on and lets everybody accept requests.
    fn begin(&mut self) {
        for number in 0..self.nodes.len() {
            self.start(number);
            self.input(number, |ctx, engine| engine.enable_requests(ctx));
        }
        self.connect_all();
    }

    /// The first half: people do things, and things go wrong.
    fn live(&mut self, plan: &Plan) {
        for _ in 0..plan.seconds {
            self.go_wrong(&plan.faults);
            self.act(plan);
            self.act_hostile();
            self.pass(Span::from_secs(1));
        }
    }

    /// The second half: no faults, until everything had time to arrive.
    fn settle(&mut self) {
        self.network.faults = Faults { delay_ms: 1, ..Faults::default() };
        self.network.heal();
        for number in 0..self.nodes.len() {
            if let Some(node) = self.nodes.get_mut(number) {
                node.commit_fault = 0;
                node.asleep = false;
                (node.ahead, node.behind) = (Span::default(), Span::default());
            }
            if !self.is_running(number) {
                self.start(number);
            }
            self.take(number, |ctx, engine| engine.handle_timeout(ctx));
        }
        self.connect_all();
        self.pass(SETTLE);
    }

    fn judge(mut self) -> Outcome {
        for villain in &self.villains {
            self.oracle.note_villain(villain);
        }
        self.oracle.judge(&self.nodes);
        Outcome {
            seed: self.seed,
            written: self.oracle.written(),
            shown: self.oracle.shown(),
            violations: self.oracle.into_violations(),
            steps: self.steps,
        }
    }

    fn go_wrong(&mut self, faults: &Faults) {
        if self.chance.happens(faults.partition) {
            self.network.split_or_heal(self.takes_requests.len());
        }
        let number = self.any_node();
        if self.chance.happens(faults.sleep)
            && let Some(node) = self.nodes.get_mut(number)
        {
            node.asleep = !node.asleep;
        }
        let number = self.any_node();
        if self.chance.happens(faults.crash) && self.is_running(number) {
            let back = self.now + Span::from_secs(self.chance.below(20));
            self.lose_streams_of(number);
            self.asked.retain(|(asks, _)| *asks != number);
            if let Some(node) = self.nodes.get_mut(number) {
                node.crash(back);
            }
            self.topics_of(number).clear();
        }
        let number = self.any_node();
        let reach = if self.seed.is_multiple_of(2) { CLOCK_OFF_DAY_SECS } else { CLOCK_OFF_MONTH_SECS };
        let (ahead, behind) = (self.chance.below(reach), self.chance.below(reach));
        if self.chance.happens(faults.skew)
            && let Some(node) = self.nodes.get_mut(number)
        {
            (node.ahead, node.behind) = (Span::from_secs(ahead), Span::from_secs(behind));
            // A real shell waits by a clock that is never set, so it wakes up in any case.
            self.take(number, |ctx, engine| engine.handle_timeout(ctx));
        }
        for node in &mut self.nodes {
            node.commit_fault = faults.commit;
        }
        let due: Vec<_> = (0..self.nodes.len())
            .filter(|number| {
                self.nodes.get(*number).is_some_and(|node| node.back_at.is_some_and(|at| at <= self.now))
            })
            .collect();
        for number in due {
            self.start(number);
        }
        self.connect_all();
    }

    /// Somebody does something.
    fn act(&mut self, plan: &Plan) {
        let number = self.any_node();
        match self.chance.below(10) {
            0 | 1 => self.ask_somebody(number),
            2 => self.make_group(number),
            3 => self.join_group(number),
            4 => self.block_somebody(number),
            _ if self.chance.happens(plan.talk) => self.write(number),
            _ => {}
        }
    }

    fn ask_somebody(&mut self, number: NodeNumber) {
        let other = self.any_node();
        let contact =
            self.nodes.get(other).and_then(|node| node.look(|read, engine| engine.own_contact(read)));
        let Some(Ok(contact)) = contact else { return };
        // Asking oneself, or somebody twice, is refused, which is as it should be.
        self.input(number, move |ctx, engine| engine.request_contact(ctx, &contact, b"a name"));
    }

    fn block_somebody(&mut self, number: NodeNumber) {
        let other = self.any_node();
        let account = self.nodes.get(other).and_then(|node| node.engine()).map(|engine| engine.account_id());
        let Some(account) = account else { return };
        if !self.chance.happens(200) {
            return;
        }
        if let Some(Ok(())) = self.input(number, move |ctx, engine| engine.block_contact(ctx, &account)) {
            self.oracle.note_blocked(number, account);
        }
    }

    fn make_group(&mut self, number: NodeNumber) {
        if let Some(Ok(group)) = self.input(number, |ctx, engine| engine.create_group(ctx)) {
            let made = self
                .nodes
                .get(number)
                .and_then(|node| node.look(|read, engine| engine.invitation(read, &group)));
            if let Some(Ok(invitation)) = made {
                self.invite_villains(&invitation);
                self.oracle.note_group(invitation);
            }
        }
    }

    /// An invitation gets into the hands of whoever means no good, which members cannot prevent.
    fn invite_villains(&mut self, invitation: &Group) {
        for place in 0..self.villains.len() {
            let number = self.nodes.len().saturating_add(place);
            let Some(villain) = self.villains.get_mut(place) else { continue };
            for topic in villain.learn(invitation) {
                self.topics_of(number).insert(topic.clone());
                self.tell_neighbours(number, &Parcel::TopicJoined { topic });
            }
        }
    }

    /// What hostile peers do within a second.
    fn act_hostile(&mut self) {
        for place in 0..self.villains.len() {
            let number = self.nodes.len().saturating_add(place);
            let devices = 0..self.nodes.len();
            let reached: Vec<_> = devices.filter(|to| self.network.are_connected(number, *to)).collect();
            let Some(villain) = self.villains.get_mut(place) else { continue };
            let deeds = villain.act(self.now, &reached);
            self.carry_out(number, deeds);
        }
    }

    fn carry_out(&mut self, number: NodeNumber, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Send(to, parcel) => self.network.send(self.now, number, to, parcel),
                Deed::Frame(id, frame) => {
                    if let Some((to, theirs)) = self.streams.get(&(number, id)).copied() {
                        self.network.send(self.now, number, to, Parcel::Frame { id: theirs, frame });
                    }
                }
            }
        }
    }

    fn join_group(&mut self, number: NodeNumber) {
        let Some(group) = self.oracle.any_group(&mut self.chance) else { return };
        let id = group.id();
        self.input(number, move |ctx, engine| {
            engine.join_group(ctx, &group)?;
            engine.activate(ctx, &id)
        });
    }

    fn write(&mut self, number: NodeNumber) {
        let Some(engine) = self.nodes.get(number).and_then(Node::engine) else { return };
        let account = engine.account_group();
        let groups: Vec<GroupId> = engine.active_groups().filter(|group| *group != account).collect();
        let Some(group) = self.chance.pick(&groups).copied() else { return };
        let burst = if self.chance.happens(50) { 150 } else { 1 };
        for _ in 0..burst {
            let text = self.oracle.next_text(self.seed);
            let sent = self.input(number, move |ctx, engine| {
                let entry = engine.send_message(ctx, &group, &text).ok()?;
                Some((entry, engine.message(ctx.tx, &group, &entry), text))
            });
            match sent.flatten() {
                Some((_, Ok(Some(message)), _)) => self.oracle.note_written(number, message),
                Some((entry, _, _)) => self.oracle.violate(Violation::Lost { node: number, entry }),
                None => {}
            }
        }
    }

    /// Lets time pass: parcels arrive and deadlines come, in order.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while self.steps < STEPS_MAX {
            let deadlines = (0..self.nodes.len()).filter_map(|number| Some((self.deadline(number)?, number)));
            let deadline = deadlines.min();
            let arrival = self.network.next_arrival();
            let next = deadline.map(|(at, _)| at).into_iter().chain(arrival).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            match self.network.take(self.now) {
                Some(delivery) => self.deliver(delivery),
                None => {
                    if let Some((_, number)) = deadline {
                        self.input(number, |ctx, engine| engine.handle_timeout(ctx));
                    }
                }
            }
        }
        self.now = end;
    }

    /// When a device wants to be woken up, by true time.
    fn deadline(&self, number: NodeNumber) -> Option<Time> {
        let node = self.nodes.get(number).filter(|node| !node.asleep)?;
        let due = node.engine()?.timeout()?;
        Some((due + node.behind - node.ahead).max(self.now))
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { from, to, parcel } = delivery;
        self.oracle.overhear(parcel.bytes());
        let asleep = self.nodes.get(to).is_some_and(|node| node.asleep && node.is_running());
        if asleep && parcel.is_known_locally() {
            // The host of a sleeping device tells it when it wakes up.
            self.network.tell(self.now + Span::from_secs(1), from, to, parcel);
            return;
        }
        let place = to.checked_sub(self.nodes.len());
        if let Some(villain) = place.and_then(|place| self.villains.get_mut(place)) {
            let deeds = villain.hear(from, parcel);
            self.carry_out(to, deeds);
            return;
        }
        if let Parcel::Block { entry, .. } | Parcel::BlockMissing { entry } = &parcel {
            self.asked.remove(&(to, *entry));
        }
        if !self.nodes.get(to).is_some_and(Node::is_reachable) {
            return;
        }
        let Some(peer) = self.host_of(from) else { return };
        match parcel {
            Parcel::Connected => self.take(to, |ctx, engine| engine.handle_connected(ctx, &peer, true)),
            Parcel::Disconnected => self.take(to, |ctx, engine| engine.handle_disconnected(ctx, &peer)),
            Parcel::TopicJoined { topic } => {
                self.take(to, |ctx, engine| engine.handle_topic_joined(ctx, &peer, &topic));
            }
            Parcel::TopicLeft { topic } => self.take(to, |_, engine| {
                engine.handle_topic_left(&peer, &topic);
                Ok(())
            }),
            Parcel::TakesRequests { takes } => {
                self.take(to, |ctx, engine| engine.handle_takes_requests(ctx, &peer, takes));
            }
            Parcel::Gossip { topic, data } => {
                self.take(to, |ctx, engine| engine.handle_gossip(ctx, &topic, &peer, &data).map(drop));
            }
            Parcel::Heads { data } => self.take(to, |ctx, engine| engine.handle_heads(ctx, &peer, &data)),
            Parcel::Records { data } => self.take(to, |ctx, engine| engine.handle_records(ctx, &peer, &data)),
            Parcel::Want { entry } => self.serve(from, to, &peer, entry),
            Parcel::Block { entry, block } => {
                // A host judges blocks ahead of the engine, or leaves that to it: both have to come to the same.
                let is_ahead = entry.digest().last().is_some_and(|byte| byte % 2 == 0);
                self.take(to, |ctx, engine| {
                    let checker = engine.checker_of(&entry).filter(|_| is_ahead);
                    match checker.and_then(|checker| checker.check(&block).ok()) {
                        Some(checked) if checked.entry().id() == entry => {
                            engine.handle_checked_block(ctx, checked)
                        }
                        Some(_) | None => engine.handle_block(ctx, &entry, &block),
                    }
                });
            }
            Parcel::BlockMissing { entry } => {
                self.take(to, |ctx, engine| engine.handle_block_missing(ctx, &entry));
            }
            Parcel::Open { theirs } => {
                let opened = self
                    .input(to, |ctx, engine| engine.handle_exchange_incoming(ctx, &peer, Origin::Unknown));
                let answer = match opened.flatten() {
                    Some(ours) => {
                        self.streams.insert((to, ours), (from, theirs));
                        self.streams.insert((from, theirs), (to, ours));
                        Parcel::Opened { id: theirs }
                    }
                    None => Parcel::Closed { id: theirs },
                };
                self.network.send(self.now, to, from, answer);
            }
            Parcel::Opened { id } => self.take(to, |ctx, engine| engine.handle_exchange_opened(ctx, id)),
            Parcel::Frame { id, frame } => {
                self.take(to, |ctx, engine| engine.handle_exchange_frame(ctx, id, &frame));
            }
            Parcel::Closed { id } => {
                self.streams.remove(&(to, id));
                self.take(to, |ctx, engine| engine.handle_exchange_closed(ctx, id));
            }
        }
    }

    /// Answers a want as a host does: only for logs of groups of which the other showed something.
    fn serve(&mut self, from: NodeNumber, to: NodeNumber, peer: &PeerId, entry: EntryId) {
        let block = self
            .nodes
            .get(to)
            .and_then(|node| node.look(|read, engine| engine.block_for(read, peer, &entry)));
        let answer = match block {
            Some(Ok(Some(block))) => Parcel::Block { entry, block },
            _ => Parcel::BlockMissing { entry },
        };
        let served = matches!(answer, Parcel::Block { .. });
        self.network.send(self.now, to, from, answer);
        if served {
            let peer = peer.clone();
            self.take(to, move |ctx, engine| engine.handle_block_served(ctx, &peer, &entry));
        }
    }

    /// An input that comes to nothing but what the engine makes of it.
    fn take(
        &mut self,
        number: NodeNumber,
        input: impl FnOnce(
            &mut dunlin_wesh::engine::Ctx<'_, '_>,
            &mut dunlin_wesh::engine::Engine,
        ) -> Result<(), dunlin_base::kv::ReadError>,
    ) {
        if let Some(Err(error)) = self.input(number, input) {
            self.oracle.violate(Violation::Unreadable { node: number, error: error.to_string() });
        }
    }

    /// One step of a device, and what it sends because of it.
    fn input<R>(
        &mut self,
        number: NodeNumber,
        input: impl FnOnce(&mut dunlin_wesh::engine::Ctx<'_, '_>, &mut dunlin_wesh::engine::Engine) -> R,
    ) -> Option<R> {
        self.steps = self.steps.saturating_add(1);
        let node = self.nodes.get_mut(number)?;
        let step = node.step(self.now, input);
        let result = match step {
            Step::Done(result) => Some(result),
            Step::Off => None,
            Step::Reopened => {
                // The host below goes on: it stays on its topics and keeps its connections.
                self.lose_streams_of(number);
                self.tell_presence(number);
                None
            }
            Step::Broken(error) => {
                self.oracle.violate(Violation::Unreadable { node: number, error });
                None
            }
        };
        self.perform_actions(number);
        result
    }

    fn perform_actions(&mut self, number: NodeNumber) {
        while let Some(action) = self.nodes.get_mut(number).and_then(|node| node.actions.pop_front()) {
            self.perform(number, action);
        }
    }

    fn perform(&mut self, from: NodeNumber, action: Action) {
        let now = self.now;
        match action {
            Action::Subscribe { topic } => {
                if self.topics_of(from).insert(topic.clone()) {
                    self.tell_neighbours(from, &Parcel::TopicJoined { topic });
                }
            }
            Action::Unsubscribe { topic } => {
                self.topics_of(from).remove(&topic);
                self.tell_neighbours(from, &Parcel::TopicLeft { topic });
            }
            Action::Publish { topic, data } => {
                for to in self.network.neighbours(from) {
                    if self.topics.get(to).is_some_and(|topics| topics.contains(&topic)) {
                        let parcel = Parcel::Gossip { topic: topic.clone(), data: data.clone() };
                        self.network.send(now, from, to, parcel);
                    }
                }
            }
            Action::SendHeads { id, peer, data } => {
                let to = self.number_of(&peer);
                let reached = to.is_some_and(|to| self.network.are_connected(from, to));
                if let Some(to) = to {
                    self.network.send(now, from, to, Parcel::Heads { data });
                }
                if reached {
                    self.take(from, move |ctx, engine| engine.handle_heads_sent(ctx, &peer, id));
                } else {
                    self.take(from, move |_, engine| {
                        engine.handle_heads_unsent(id);
                        Ok(())
                    });
                }
            }
            Action::SendRecords { peer, data } => self.send_to(from, &peer, Parcel::Records { data }),
            Action::Fetch { entry, peers } => {
                if !self.asked.insert((from, entry)) {
                    return;
                }
                let reached = peers.iter().filter_map(|peer| self.number_of(peer));
                let reached: Vec<_> = reached.filter(|to| self.network.are_connected(from, *to)).collect();
                // A host asks one after another, so whoever would answer is reached.
                let own = self.nodes.get(from).map(|node| node.id.clone());
                let has = |to: &NodeNumber| {
                    let node = self.nodes.get(*to).zip(own.as_ref());
                    let block = node.and_then(|(node, own)| {
                        node.look(|read, engine| engine.block_for(read, own, &entry))
                    });
                    matches!(block, Some(Ok(Some(_))))
                };
                let holder =
                    |to: &NodeNumber| has(to) || self.villain(*to).is_some_and(|villain| villain.has(&entry));
                let holds =
                    reached.iter().find(|to| has(to)).or_else(|| reached.iter().find(|to| holder(to)));
                let holds = holds.copied();
                let chosen = holds.or_else(|| self.chance.pick(&reached).copied());
                match chosen {
                    Some(to) => self.network.send(now, from, to, Parcel::Want { entry }),
                    None => self.network.tell(now, from, from, Parcel::BlockMissing { entry }),
                }
            }
            Action::CancelFetch { .. } => {}
            Action::AcceptExchanges(takes) => {
                let Some(known) = self.takes_requests.get_mut(from) else { return };
                if std::mem::replace(known, takes) != takes {
                    self.tell_neighbours(from, &Parcel::TakesRequests { takes });
                }
            }
            Action::OpenExchange { id, peer } => match self.number_of(&peer) {
                Some(to) if self.network.are_connected(from, to) => {
                    self.network.send(now, from, to, Parcel::Open { theirs: id });
                }
                _ => self.network.tell(now, from, from, Parcel::Closed { id }),
            },
            Action::SendFrame { id, frame } => {
                if let Some((to, theirs)) = self.streams.get(&(from, id)).copied() {
                    self.network.send(now, from, to, Parcel::Frame { id: theirs, frame });
                }
            }
            Action::CloseExchange { id } => {
                if let Some((to, theirs)) = self.streams.remove(&(from, id)) {
                    self.network.send(now, from, to, Parcel::Closed { id: theirs });
                }
            }
        }
    }

    fn send_to(&mut self, from: NodeNumber, peer: &PeerId, parcel: Parcel) {
        if let Some(to) = self.number_of(peer) {
            self.network.send(self.now, from, to, parcel);
        }
    }

    fn tell_neighbours(&mut self, from: NodeNumber, parcel: &Parcel) {
        for to in self.network.neighbours(from) {
            self.network.send(self.now, from, to, parcel.clone());
        }
    }

    /// Connects whoever can reach each other, and separates the others.
    fn connect_all(&mut self) {
        let hosts = self.nodes.len().saturating_add(self.villains.len());
        for a in 0..self.nodes.len() {
            for b in a.saturating_add(1)..hosts {
                // Hostile peers are always there.
                let reachable =
                    [a, b].iter().all(|number| self.nodes.get(*number).is_none_or(Node::is_reachable));
                let connected = reachable && !self.network.is_split_between(a, b);
                if !self.network.set_connected(self.now, a, b, connected) {
                    continue;
                }
                if connected {
                    self.introduce(a, b);
                    self.introduce(b, a);
                } else {
                    self.network.tell(self.now, a, b, Parcel::Disconnected);
                    self.network.tell(self.now, b, a, Parcel::Disconnected);
                    self.streams
                        .retain(|(one, _), (other, _)| (*one, *other) != (a, b) && (*one, *other) != (b, a));
                }
            }
        }
    }

    /// Lets `to` know about `from`, with which it was connected.
    fn introduce(&mut self, from: NodeNumber, to: NodeNumber) {
        let takes = self.takes_requests.get(from).copied().unwrap_or(false);
        let topics: Vec<_> = self.topics.get(from).into_iter().flatten().cloned().collect();
        self.network.send(self.now, from, to, Parcel::Connected);
        self.network.send(self.now, from, to, Parcel::TakesRequests { takes });
        for topic in topics {
            self.network.send(self.now, from, to, Parcel::TopicJoined { topic });
        }
    }

    /// Tells a device whose engine was opened again who is connected: in one input, as a real shell does.
    fn tell_presence(&mut self, number: NodeNumber) {
        let mut there = Vec::new();
        for other in self.network.neighbours(number) {
            let Some(peer) = self.host_of(other) else { continue };
            let takes = self.takes_requests.get(other).copied().unwrap_or(false);
            let topics = self.topics.get(other).cloned().unwrap_or_default();
            there.push((peer, takes, topics));
        }
        self.take(number, |ctx, engine| {
            for (peer, takes, topics) in &there {
                engine.handle_connected(ctx, peer, true)?;
                engine.handle_takes_requests(ctx, peer, *takes)?;
                topics.iter().try_for_each(|topic| engine.handle_topic_joined(ctx, peer, topic))?;
            }
            Ok(())
        });
    }

    fn start(&mut self, number: NodeNumber) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        if let Err(error) = node.start(self.now) {
            self.oracle.violate(Violation::Unreadable { node: number, error });
            return;
        }
        self.topics_of(number).clear();
        self.perform_actions(number);
        self.tell_presence(number);
    }

    fn lose_streams_of(&mut self, number: NodeNumber) {
        let lost: Vec<_> =
            self.streams.iter().filter(|((one, _), _)| *one == number).map(|(_, other)| *other).collect();
        self.streams.retain(|(one, _), (other, _)| *one != number && *other != number);
        for (to, id) in lost {
            self.network.tell(self.now, number, to, Parcel::Closed { id });
        }
    }

    fn topics_of(&mut self, number: NodeNumber) -> &mut BTreeSet<String> {
        if number >= self.topics.len() {
            self.topics.resize(number.saturating_add(1), BTreeSet::new());
        }
        #[expect(clippy::indexing_slicing, reason = "the list was made long enough above")]
        &mut self.topics[number]
    }

    fn villain(&self, number: NodeNumber) -> Option<&Villain> {
        self.villains.get(number.checked_sub(self.nodes.len())?)
    }

    fn host_of(&self, number: NodeNumber) -> Option<PeerId> {
        let place = number.checked_sub(self.nodes.len());
        match place.and_then(|place| self.villains.get(place)) {
            Some(villain) => Some(villain.id.clone()),
            None => self.nodes.get(number).map(|node| node.id.clone()),
        }
    }

    fn number_of(&self, peer: &PeerId) -> Option<NodeNumber> {
        self.by_peer.get(peer).copied()
    }

    fn is_running(&self, number: NodeNumber) -> bool {
        self.nodes.get(number).is_some_and(Node::is_running)
    }

    fn any_node(&mut self) -> NodeNumber {
        usize::try_from(self.chance.below(self.nodes.len() as u64)).unwrap_or(0)
    }
}
