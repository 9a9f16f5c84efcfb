//! Links between devices: who reaches whom, and what is on its way.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{EntryId, GroupId, Span, Time};
use dunlin_wesh::catch_up::Request;
use dunlin_wesh::engine::{ExchangeId, StoreKind};

use crate::chance::Chance;
use crate::plan::Faults;

/// A device of the run, by number.
pub(crate) type NodeNumber = usize;

/// How long a host waits for a block before it counts as missing, as the real one does.
const FETCH_PATIENCE: Span = Span::from_secs(5);

/// Something on its way to a device.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    Connected,
    Disconnected,
    TopicJoined {
        topic: String,
    },
    TopicLeft {
        topic: String,
    },
    TakesRequests {
        takes: bool,
    },
    Gossip {
        topic: String,
        data: Vec<u8>,
    },
    Heads {
        data: Vec<u8>,
    },
    Records {
        data: Vec<u8>,
    },
    Want {
        entry: EntryId,
    },
    Block {
        entry: EntryId,
        block: Vec<u8>,
    },
    BlockMissing {
        entry: EntryId,
    },
    /// The other end asks for what its log lacks.
    StreamWanted {
        group: GroupId,
        kind: StoreKind,
        request: Request,
    },
    /// A piece of that.
    Streamed {
        group: GroupId,
        kind: StoreKind,
        frame: Vec<u8>,
    },
    StreamEnded {
        group: GroupId,
        kind: StoreKind,
    },
    /// The other end opens a stream, which it calls `theirs`.
    Open {
        theirs: ExchangeId,
    },
    Opened {
        id: ExchangeId,
    },
    Frame {
        id: ExchangeId,
        frame: Vec<u8>,
    },
    Closed {
        id: ExchangeId,
    },
}

impl Parcel {
    /// Whether it is of a kind that a network may lose without the connection ending.
    fn may_be_lost(&self) -> bool {
        matches!(
            self,
            Self::Gossip { .. }
                | Self::Heads { .. }
                | Self::Records { .. }
                | Self::Want { .. }
                | Self::Block { .. }
        )
    }

    /// Whether it is of a kind that may arrive twice.
    fn may_be_doubled(&self) -> bool {
        matches!(self, Self::Gossip { .. } | Self::Heads { .. } | Self::Block { .. })
    }

    /// Whether it keeps its place behind what was sent before: streams and connections do, messages do not.
    fn keeps_order(&self) -> bool {
        !self.may_be_lost() && !matches!(self, Self::BlockMissing { .. })
    }

    /// Whether it says what the own host knows, rather than what came over the network.
    pub fn is_known_locally(&self) -> bool {
        matches!(
            self,
            Self::Disconnected | Self::BlockMissing { .. } | Self::Closed { .. } | Self::StreamEnded { .. }
        )
    }

    /// What an eavesdropper reads: payloads of the kinds that carry any.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Gossip { data, .. } | Self::Heads { data } | Self::Records { data } => data,
            Self::Block { block, .. } => block,
            Self::Frame { frame, .. } | Self::Streamed { frame, .. } => frame,
            _ => &[],
        }
    }
}

/// A parcel with its sender and its time.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub from: NodeNumber,
    pub to: NodeNumber,
    pub parcel: Parcel,
}

/// How the network is split.
#[derive(Debug)]
enum Split {
    /// Nobody reaches the other half.
    Halves { halves: Vec<bool> },
    /// One device is in both halves.
    Bridge { halves: Vec<bool>, bridge: NodeNumber },
    /// Each reaches its two neighbours.
    Ring { hosts: usize },
    /// One half hears the other and is not heard.
    OneWay { halves: Vec<bool> },
}

/// The network: what is on its way, and who can reach whom.
#[derive(Debug)]
pub(crate) struct Network {
    chance: Chance,
    pub faults: Faults,
    on_the_way: BTreeMap<(Time, u64), Delivery>,
    sent: u64,
    /// The earliest time at which the next ordered parcel of a link may arrive.
    order: BTreeMap<(NodeNumber, NodeNumber), Time>,
    /// Pairs that are connected, smaller number first.
    connected: BTreeSet<(NodeNumber, NodeNumber)>,
    split: Option<Split>,
}

impl Network {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            chance: Chance::new(seed, "network"),
            faults,
            on_the_way: BTreeMap::new(),
            sent: 0,
            order: BTreeMap::new(),
            connected: BTreeSet::new(),
            split: None,
        }
    }

    /// Splits the network, or heals it.
    pub fn split_or_heal(&mut self, hosts: usize) {
        if self.split.take().is_some() {
            return;
        }
        let halves = self.draw_halves(hosts);
        self.split = Some(match self.chance.below(6) {
            0 => Split::Ring { hosts },
            1 => {
                let bridge = usize::try_from(self.chance.below(hosts as u64)).unwrap_or_default();
                Split::Bridge { halves, bridge }
            }
            2 => Split::OneWay { halves },
            _ => Split::Halves { halves },
        });
    }

    /// Splits the network in two halves, whatever it was before.
    pub fn halve(&mut self, hosts: usize) {
        self.split = Some(Split::Halves { halves: self.draw_halves(hosts) });
    }

    fn draw_halves(&mut self, hosts: usize) -> Vec<bool> {
        (0..hosts).map(|_| self.chance.happens(500)).collect()
    }

    /// Ends what splits the network, and lets everything that is late arrive.
    pub fn heal(&mut self, now: Time) {
        self.split = None;
        let late: Vec<_> = std::mem::take(&mut self.on_the_way).into_values().collect();
        self.order.clear();
        late.into_iter().for_each(|delivery| self.put(now, delivery));
    }

    /// Lets a parcel that has arrived arrive later, behind those that were put off before.
    pub fn put_off(&mut self, until: Time, delivery: Delivery) {
        self.put(until, delivery);
    }

    /// Whether the split, if there is one, lies between two devices.
    pub fn is_split_between(&self, a: NodeNumber, b: NodeNumber) -> bool {
        match &self.split {
            Some(Split::Halves { halves }) => halves.get(a) != halves.get(b),
            Some(Split::Bridge { halves, bridge }) => {
                ![a, b].contains(bridge) && halves.get(a) != halves.get(b)
            }
            Some(Split::Ring { hosts }) => {
                let apart = a.abs_diff(b);
                apart != 1 && apart.saturating_add(1) != *hosts
            }
            Some(Split::OneWay { .. }) | None => false,
        }
    }

    /// Whether nothing that may be lost gets from one device to another, though something may come back.
    fn is_mute(&self, from: NodeNumber, to: NodeNumber) -> bool {
        match &self.split {
            Some(Split::OneWay { halves }) => {
                halves.get(from) == Some(&true) && halves.get(to) == Some(&false)
            }
            _ => false,
        }
    }

    pub fn are_connected(&self, a: NodeNumber, b: NodeNumber) -> bool {
        self.connected.contains(&(a.min(b), a.max(b)))
    }

    /// Connects two devices, or separates them: what is on its way between them is lost, and whoever waits
    /// for a block is told so. Whether that changed anything.
    pub fn set_connected(&mut self, now: Time, a: NodeNumber, b: NodeNumber, connected: bool) -> bool {
        let pair = (a.min(b), a.max(b));
        if connected {
            return self.connected.insert(pair);
        }
        let between = |sent: &Delivery| (sent.from.min(sent.to), sent.from.max(sent.to)) == pair;
        let lost: Vec<_> = self.on_the_way.extract_if(.., |_, sent| between(sent)).collect();
        for (_, Delivery { from, to, parcel }) in lost {
            let waiting = match parcel {
                Parcel::Want { entry } => Some((to, from, entry)),
                Parcel::Block { entry, .. } | Parcel::BlockMissing { entry } => Some((from, to, entry)),
                _ => None,
            };
            if let Some((from, to, entry)) = waiting {
                self.put(now, Delivery { from, to, parcel: Parcel::BlockMissing { entry } });
            }
        }
        self.connected.remove(&pair)
    }

    /// Those to whom a device is connected.
    pub fn neighbours(&self, node: NodeNumber) -> Vec<NodeNumber> {
        let pairs = self.connected.iter().filter(|(a, b)| *a == node || *b == node);
        pairs.map(|(a, b)| if *a == node { *b } else { *a }).collect()
    }

    /// Sends a parcel to a connected device; it may be lost, late or doubled, as the faults have it.
    pub fn send(&mut self, now: Time, from: NodeNumber, to: NodeNumber, parcel: Parcel) {
        if !self.are_connected(from, to) && !matches!(parcel, Parcel::Disconnected) {
            if let Parcel::Want { entry } = parcel {
                self.put(now, Delivery { from: to, to: from, parcel: Parcel::BlockMissing { entry } });
            }
            return;
        }
        let lost = parcel.may_be_lost() && (self.chance.happens(self.faults.loss) || self.is_mute(from, to));
        if lost {
            let patient = now + FETCH_PATIENCE;
            match parcel {
                Parcel::Want { entry } => {
                    self.put(
                        patient,
                        Delivery { from: to, to: from, parcel: Parcel::BlockMissing { entry } },
                    );
                }
                Parcel::Block { entry, .. } => {
                    self.put(patient, Delivery { from, to, parcel: Parcel::BlockMissing { entry } });
                }
                _ => {}
            }
            return;
        }
        let times =
            if parcel.may_be_doubled() && self.chance.happens(self.faults.duplication) { 2 } else { 1 };
        for _ in 0..times {
            let delay = Span::from_millis(self.chance.below(self.faults.delay_ms.max(1)));
            let mut arrives = now + delay;
            if parcel.keeps_order() {
                let before = self.order.entry((from, to)).or_default();
                arrives = arrives.max(*before);
                *before = arrives;
            }
            self.put(arrives, Delivery { from, to, parcel: parcel.clone() });
        }
    }

    /// Tells a device something that no network carries, such as that a connection ended.
    pub fn tell(&mut self, now: Time, from: NodeNumber, to: NodeNumber, parcel: Parcel) {
        // What its host learned first, a device is told first: that a connection ended, then that one began.
        let before = self.order.entry((from, to)).or_default();
        *before = now.max(*before);
        let at = *before;
        self.put(at, Delivery { from, to, parcel });
    }

    /// When the next parcel arrives.
    pub fn next_arrival(&self) -> Option<Time> {
        self.on_the_way.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next parcel that has arrived by `now`.
    pub fn take(&mut self, now: Time) -> Option<Delivery> {
        let due = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(due.remove())
    }

    fn put(&mut self, at: Time, delivery: Delivery) {
        self.sent = self.sent.saturating_add(1);
        self.on_the_way.insert((at, self.sent), delivery);
    }
}
