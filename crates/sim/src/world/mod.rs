//! The run itself: time, inputs, and what people do.

mod carry;
mod people;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_base::{EntryId, GroupId, PeerId, Span, Time};
use dunlin_wesh::engine::ExchangeId;

use crate::chance::Chance;
use crate::hostile::Villain;
use crate::network::{Network, NodeNumber, Parcel};
use crate::node::{Node, Step};
use crate::oracle::{Oracle, Violation};
use crate::plan::{Faults, Plan};

/// When a run begins: 2026-01-01, so that daily tokens change during some runs.
const START: Time = Time::from_secs(1_767_225_600 + 86_370);
/// How long the network may take to settle after the faults stopped.
const SETTLE: Span = Span::from_secs(60);
/// How long is watched after that whether anything is left to do, and the inputs that this may take for each pair of
/// hosts: more among hostile peers, to which much is repeated since they never say that they have it.
const QUIET: Span = Span::from_secs(30);
const QUIET_STEPS_MAX: u64 = 20;
const QUIET_STEPS_HOSTILE_MAX: u64 = 100;
/// Days that the network lies in halves, in runs in which it does.
const DAYS_APART: u64 = 30;
const DAY: Span = Span::from_secs(86_400);
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
    /// When each device wants to be woken up.
    due: Vec<Option<Time>>,
    /// Groups that somebody closed for a while.
    closed: BTreeSet<(NodeNumber, GroupId)>,
    oracle: Oracle,
    steps: u64,
}

impl World {
    fn new(seed: u64, plan: &Plan) -> Self {
        let devices = plan.nodes.saturating_add(plan.linked);
        let nodes = (0..devices).map(|number| Node::new(seed, number, number >= plan.nodes));
        let nodes: Vec<_> = nodes.collect();
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
            due: Vec::new(),
            closed: BTreeSet::new(),
            oracle: Oracle::new(),
            steps: 0,
        }
    }

    /// Switches everything on and lets everybody accept requests.
    fn begin(&mut self) {
        for number in 0..self.nodes.len() {
            if self.is_blank(number) {
                continue;
            }
            self.start(number);
            self.input(number, |ctx, engine| engine.enable_requests(ctx));
        }
        self.connect_all();
    }

    /// The first half: people do things, and things go wrong.
    fn live(&mut self, plan: &Plan) {
        for second in 0..plan.seconds {
            self.go_wrong(&plan.faults);
            self.act(plan);
            self.act_hostile();
            self.pass(Span::from_secs(1));
            if plan.month_apart && second == plan.seconds / 2 {
                self.spend_apart(plan);
            }
        }
    }

    /// A month in two halves, in which people say little.
    fn spend_apart(&mut self, plan: &Plan) {
        self.network.halve(self.takes_requests.len());
        self.connect_all();
        for _ in 0..DAYS_APART {
            self.act(plan);
            self.pass(DAY);
        }
        self.network.heal(self.now);
        self.connect_all();
    }

    /// The second half: no faults, until everything had time to arrive.
    fn settle(&mut self) {
        self.network.faults = Faults { delay_ms: 1, ..Faults::default() };
        self.network.heal(self.now);
        for number in 0..self.nodes.len() {
            if let Some(node) = self.nodes.get_mut(number) {
                node.commit_fault = 0;
                node.asleep = false;
                node.busy_until = self.now;
                node.mend_disk();
                (node.ahead, node.behind) = (Span::default(), Span::default());
            }
        }
        for number in 0..self.nodes.len() {
            if self.is_blank(number) {
                self.link_device(number);
            } else if !self.is_running(number) {
                self.start(number);
            }
            self.take(number, |ctx, engine| engine.handle_timeout(ctx));
        }
        self.open_again();
        self.connect_all();
        self.pass(SETTLE);
        let before = self.steps;
        self.pass(QUIET);
        let steps = self.steps.saturating_sub(before);
        let hosts = self.takes_requests.len() as u64;
        let each = if self.villains.is_empty() { QUIET_STEPS_MAX } else { QUIET_STEPS_HOSTILE_MAX };
        let most = hosts.saturating_mul(hosts).saturating_mul(each);
        if steps > most || self.steps >= STEPS_MAX {
            self.oracle.violate(Violation::Restless { steps: self.steps.min(STEPS_MAX) });
        }
    }

    fn judge(mut self) -> Outcome {
        for villain in &self.villains {
            self.oracle.note_villain(villain);
        }
        for villain in &self.villains {
            self.oracle.judge_forgeries(&self.nodes, villain);
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

    /// Lets time pass: parcels arrive and deadlines come, in order.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        self.due = (0..self.nodes.len()).map(|number| self.deadline(number)).collect();
        while self.steps < STEPS_MAX {
            let due = self.due.iter().zip(0..);
            let deadline = due.filter_map(|(due, number)| Some(((*due)?.max(self.now), number))).min();
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
        Some((due + node.behind - node.ahead).max(node.busy_until))
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
            Step::Off => {
                if self.nodes.get(number).is_some_and(|node| node.back_at.is_some()) {
                    self.lose_streams_of(number);
                }
                None
            }
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
        let due = self.deadline(number);
        if let Some(known) = self.due.get_mut(number) {
            *known = due;
        }
        result
    }

    fn start(&mut self, number: NodeNumber) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        if let Err(error) = node.start(self.now) {
            if node.disk_fails_until.is_some() {
                node.back_at = Some(self.now + Span::from_secs(1));
                return;
            }
            self.oracle.violate(Violation::Unreadable { node: number, error });
            return;
        }
        self.topics_of(number).clear();
        self.perform_actions(number);
        self.tell_presence(number);
        if let Some(node) = self.nodes.get(number) {
            self.oracle.judge_durable(number, node);
        }
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

    fn is_blank(&self, number: NodeNumber) -> bool {
        self.nodes.get(number).is_some_and(|node| node.is_blank)
    }

    fn is_running(&self, number: NodeNumber) -> bool {
        self.nodes.get(number).is_some_and(Node::is_running)
    }

    fn any_node(&mut self) -> NodeNumber {
        usize::try_from(self.chance.below(self.nodes.len() as u64)).unwrap_or(0)
    }
}
