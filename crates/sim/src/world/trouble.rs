//! What goes wrong.

use dunlin_base::Span;

use super::{CLOCK_OFF_DAY_SECS, CLOCK_OFF_MONTH_SECS, World};
use crate::plan::Faults;

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
}
