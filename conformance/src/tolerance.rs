//! Known faults of the existing node (`spec/wesh-protocol.md` §9.2) that a run may let pass, by name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use clap::ValueEnum;

/// A known fault. Scenarios hold nodes to the documented contract; with the tolerance, a node that has the
/// fault passes, and the report says so.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub enum Tolerance {
    /// A contact that is no contact, a join without a group, or a block while the account group is closed ends the
    /// process; the scenarios leave these calls out (§8.5, §9.2 item 19).
    CallsThatCrash,
    /// DebugGroup names no peers (§8.5).
    DebugGroupEmpty,
    /// Payloads are taken that do not arrive everywhere, and hold up what follows; the scenarios send none above
    /// 100 kB (§8.5).
    LargePayloads,
    /// Lists are in the order in which entries came in, not in that of the conversation; ids name places in that
    /// order (§8.6).
    ListOrder,
    /// A message comes twice when it is written while a list is opened (§8.6).
    ListTwice,
    /// A restart undoes blocks, leaves, disables and resets: the oldest event decides (§3.7, §9.2 item 23).
    RestartForgets,
    /// A list with `until_id` stays open after its last item (§9.2 item 13).
    UntilIdStaysOpen,
}

/// The faults that a run lets pass, and those that it met. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Tolerances {
    named: BTreeSet<Tolerance>,
    used: Arc<Mutex<BTreeSet<Tolerance>>>,
}

impl Tolerances {
    /// Lets these pass.
    pub fn of(named: impl IntoIterator<Item = Tolerance>) -> Self {
        Self { named: named.into_iter().collect(), used: Arc::default() }
    }

    /// Whether a fault passes; asked where one would be found.
    pub fn allow(&self, tolerance: Tolerance) -> bool {
        let allowed = self.named.contains(&tolerance);
        if allowed && let Ok(mut used) = self.used.lock() {
            used.insert(tolerance);
        }
        allowed
    }

    /// Those met since the last time.
    pub fn take_used(&self) -> Vec<Tolerance> {
        let Ok(mut used) = self.used.lock() else { return Vec::new() };
        std::mem::take(&mut *used).into_iter().collect()
    }
}

impl Tolerance {
    /// What it is called on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}
