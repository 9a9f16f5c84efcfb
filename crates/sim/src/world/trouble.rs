//! What goes wrong.

use dunlin_base::{Span, Time};

use super::World;
use crate::network::NodeNumber;
use crate::plan::Faults;

/// How far clocks are off: in every second run within the grace of the daily tokens, in the others beyond it.
const CLOCK_OFF_DAY_SECS: u64 = 86_400;
const CLOCK_OFF_MONTH_SECS: u64 = 30 * CLOCK_OFF_DAY_SECS;
/// The ends of time: a clock that lost its battery, and one that counts seconds in 31 bits.
const CLOCK_FIRST: Time = Time::from_secs(3600);
const CLOCK_LAST: Time = Time::from_secs(0x7fff_ff00);
/// How long a machine is off after it lost power, and how long a disk fails, at the most.
const OFF_SECS: u64 = 20;
const DISK_FAILS_SECS: u64 = 15;
/// Of a thousand disks that failed, how many machines lose power over it.
const POWER_LOST_WITH_DISK: u64 = 300;
/// Calls of the disk in which a start comes to its end, or nearly so.
const CALLS_OF_A_START: u64 = 60;

impl World {
    pub(super) fn go_wrong(&mut self, faults: &Faults) {
        if self.chance.happens(faults.partition) {
            self.network.split_or_heal(self.takes_requests.len());
        }
        let number = self.any_node();
        if self.chance.happens(faults.sleep)
            && let Some(node) = self.nodes.get_mut(number)
        {
            node.asleep = !node.asleep;
        }
        self.lose_power(faults);
        self.set_clock(faults);
        self.break_disk(faults);
        for node in &mut self.nodes {
            node.commit_fault = faults.commit;
        }
        self.start_again(faults);
        self.connect_all();
    }

    fn lose_power(&mut self, faults: &Faults) {
        let number = self.any_node();
        if self.chance.happens(faults.crash) && self.is_running(number) {
            self.lose_power_of(number);
        }
    }

    fn lose_power_of(&mut self, number: NodeNumber) {
        let back = self.now + Span::from_secs(self.chance.below(OFF_SECS));
        self.lose_streams_of(number);
        self.asked.retain(|(asks, _)| *asks != number);
        if let Some(node) = self.nodes.get_mut(number) {
            node.crash(back);
        }
        self.topics_of(number).clear();
    }

    fn set_clock(&mut self, faults: &Faults) {
        let number = self.any_node();
        if !self.chance.happens(faults.skew) {
            return;
        }
        let is_wild = !self.seed.is_multiple_of(2);
        let reach = if is_wild { CLOCK_OFF_MONTH_SECS } else { CLOCK_OFF_DAY_SECS };
        let mut off = || Span::from_secs(self.chance.below(reach));
        let (ahead, behind) = match (off(), off(), self.chance.below(10)) {
            (_, _, 0) if is_wild => (Span::default(), self.now.since(CLOCK_FIRST)),
            (_, _, 1) if is_wild => (CLOCK_LAST.since(self.now), Span::default()),
            (_, _, 2) => (Span::default(), Span::default()),
            (ahead, behind, _) => (ahead, behind),
        };
        if let Some(node) = self.nodes.get_mut(number) {
            (node.ahead, node.behind) = (ahead, behind);
        }
        // A real shell waits by a clock that is never set, so it wakes up in any case.
        self.take(number, |ctx, engine| engine.handle_timeout(ctx));
    }

    fn break_disk(&mut self, faults: &Faults) {
        let number = self.any_node();
        let until = self.now + Span::from_secs(self.chance.below(DISK_FAILS_SECS).saturating_add(1));
        let breaks = self.chance.happens(faults.disk);
        for number in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            if node.disk_fails_until.is_none_or(|until| until > self.now) {
                continue;
            }
            node.mend_disk();
            // Often enough it ends with the machine.
            if self.chance.happens(POWER_LOST_WITH_DISK) && self.is_running(number) {
                self.lose_power_of(number);
            }
        }
        if let Some(node) = self.nodes.get_mut(number).filter(|node| breaks && node.is_running()) {
            node.break_disk(until);
        }
    }

    /// Switches those on again that were off for long enough, and some of them lose power over it.
    fn start_again(&mut self, faults: &Faults) {
        for number in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            if node.back_at.is_none_or(|at| at > self.now) {
                continue;
            }
            if self.chance.happens(faults.recrash) && node.disk_fails_until.is_none() {
                node.start_and_lose_power(self.now, self.chance.below(CALLS_OF_A_START).saturating_add(1));
            }
            self.start(number);
        }
    }
}
