//! What a run consists of: how many nodes, how much they say, and what goes wrong.

use crate::chance::Chance;
use crate::hostile::Malice;

/// Devices that spend a month apart at the most.
const MONTH_APART_NODES_MAX: usize = 3;
/// Devices among which a forker is at the most, and how often all join a group at once among hostile peers.
const FORKED_NODES_MAX: usize = 5;
const HOSTILE_STORM_MAX: u64 = 10;
/// The longest delay that is drawn.
const DELAY_LONGEST_MS: u64 = 60_000;

/// What goes wrong in the first half of a run. Chances are in thousandths.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// A message of gossip, a frame or a block gets lost.
    pub loss: u64,
    /// A message of gossip or a frame arrives twice.
    pub duplication: u64,
    /// The longest delay on a link, in milliseconds; each parcel draws its own, so they overtake each other.
    pub delay_ms: u64,
    /// In a second, the network splits (into halves, halves with a bridge, a ring, or in one direction) or heals.
    pub partition: u64,
    /// In a second, one device falls asleep or wakes up.
    pub sleep: u64,
    /// In a second, one machine loses power, and starts again some seconds later.
    pub crash: u64,
    /// In a second, one clock is set to another time: up to a day away, or in runs of odd seeds up to a month away,
    /// to 1970 or to 2038.
    pub skew: u64,
    /// A commit fails because the disk is full or broken.
    pub commit: u64,
    /// In a second, one disk begins to fail for some seconds: with errors, full, reading what was never written, or slow.
    pub disk: u64,
    /// A machine that lost power loses it again while it starts.
    pub recrash: u64,
}

/// A run to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// How many devices, each with an account of its own: 2 to 10.
    pub nodes: usize,
    /// How many further devices of these accounts, which join them as the run goes.
    pub linked: usize,
    /// How many seconds the faulty half takes.
    pub seconds: u64,
    /// In a second, somebody writes a message; in thousandths.
    pub talk: u64,
    /// In a second, somebody leaves a group or closes one for a while; in thousandths.
    pub leave: u64,
    /// In a second, everybody joins one group; in thousandths.
    pub storm: u64,
    /// In the middle, the network lies in two halves for thirty days.
    pub month_apart: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// Hostile peers among the devices.
    pub hostile: Vec<Malice>,
}

impl Plan {
    /// A run in which nothing goes wrong.
    pub fn calm(nodes: usize, seconds: u64, talk: u64) -> Self {
        Self {
            nodes,
            linked: 0,
            seconds,
            talk,
            leave: 0,
            storm: 0,
            month_apart: false,
            faults: Faults { delay_ms: 1, ..Faults::default() },
            hostile: Vec::new(),
        }
    }

    /// Draws a run: most are bad in two or three ways, some in none or in all; in two of five there are
    /// hostile peers.
    pub fn from_seed(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "plan");
        let mut draw = |likely: u64, most: u64| match chance.happens(likely) {
            true => chance.below(most).saturating_add(1),
            false => 0,
        };
        let faults = Faults {
            loss: draw(500, 300),
            duplication: draw(500, 200),
            delay_ms: draw(700, 3000).max(1),
            partition: draw(400, 80),
            sleep: draw(400, 100),
            crash: draw(400, 60),
            skew: draw(300, 50),
            commit: draw(250, 20),
            ..Faults::default()
        };
        let nodes = usize::try_from(draw(1000, 9)).unwrap_or(1).saturating_add(1);
        let seconds = draw(1000, 60).saturating_add(30);
        let talk = draw(1000, 900).saturating_add(100);
        let hostile: Vec<_> = (0..draw(400, 2)).filter_map(|_| chance.pick(&Malice::ALL).copied()).collect();
        let mut draw = |likely: u64, most: u64| match chance.happens(likely) {
            true => chance.below(most).saturating_add(1),
            false => 0,
        };
        let delay_ms = draw(60, DELAY_LONGEST_MS).max(faults.delay_ms);
        let faults = Faults { delay_ms, disk: draw(300, 80), recrash: draw(400, 700), ..faults };
        let drawn = Self {
            nodes,
            linked: usize::try_from(draw(300, 3)).unwrap_or_default(),
            seconds,
            talk,
            leave: draw(300, 150),
            storm: draw(200, 60),
            // Time that passes is what costs most, so only few devices take it.
            month_apart: draw(300, 1) > 0 && nodes <= MONTH_APART_NODES_MAX,
            faults,
            hostile,
        };
        drawn.within_means()
    }

    /// The same among fewer devices, where hostile peers make every step dear: CI has minutes for hundreds of runs.
    #[must_use]
    pub fn within_means(self) -> Self {
        // With many heads, whatever anybody shows is as long as can be.
        if self.hostile.contains(&Malice::Forker) {
            let nodes = self.nodes.min(FORKED_NODES_MAX);
            return Self { nodes, linked: 0, storm: 0, ..self };
        }
        match self.hostile.is_empty() {
            true => self,
            false => Self { linked: self.linked.min(1), storm: self.storm.min(HOSTILE_STORM_MAX), ..self },
        }
    }
}
