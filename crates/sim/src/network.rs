//! Links between devices: who reaches whom, and what is on its way.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{EntryId, Span, Time};
use dunlin_wesh::engine::ExchangeId;

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
        matches!(self, Self::Disconnected | Self::BlockMissing { .. } | Self::Closed { .. })
    }

    /// What an eavesdropper reads: payloads of the kinds that carry any.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Gossip { data, .. } | Self::Heads { data } | Self::Records { data } => data,
            Self::Block { block, .. } => block,
            Self::Frame { frame, .. } => frame,
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
    /// Which half each device is in while the network is split.
    halves: Option<Vec<bool>>,
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
            halves: None,
        }
    }

    /// Splits the network in two, or heals it.
    pub fn split_or_heal(&mut self, nodes: usize) {
        self.halves = match self.halves {
            Some(_) => None,
            None => Some((0..nodes).map(|_| self.chance.happens(500)).collect()),
        };
    }

    pub fn heal(&mut self) {
        self.halves = None;
    }

    /// Whether the split, if there is one, lies between two devices.
    pub fn is_split_between(&self, a: NodeNumber, b: NodeNumber) -> bool {
        self.halves.as_ref().is_some_and(|halves| halves.get(a) != halves.get(b))
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
        let lost = parcel.may_be_lost() && self.chance.happens(self.faults.loss);
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
