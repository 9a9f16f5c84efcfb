//! Whether runs find the faults that are planted (`spec/security.md` §4.1).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use dunlin_base::planted::{Bug, plant};

use crate::hostile::Malice;
use crate::{Plan, run};

/// How a planted fault showed itself.
#[derive(Clone, Debug)]
pub struct Catch {
    /// The first seed that showed it.
    pub seed: u64,
    /// As what.
    pub what: String,
}

/// Looks for planted faults.
#[derive(Debug, Default)]
pub struct Hunter {
    /// Which seeds pass without a fault, as far as that was needed.
    clean: Mutex<BTreeMap<u64, bool>>,
}

impl Hunter {
    /// Makes runs with a fault, one seed after the other, until it shows or `seeds` are used up.
    ///
    /// What shows without the fault as well does not count.
    pub fn hunt(&self, bug: Bug, seeds: u64) -> Option<Catch> {
        (1..=seeds).find_map(|seed| {
            let what = trouble(Some(bug), seed)?;
            self.is_clean(seed).then_some(Catch { seed, what })
        })
    }

    fn is_clean(&self, seed: u64) -> bool {
        let known = |clean: &Mutex<BTreeMap<_, _>>| {
            clean.lock().unwrap_or_else(PoisonError::into_inner).get(&seed).copied()
        };
        known(&self.clean).unwrap_or_else(|| {
            let passes = trouble(None, seed).is_none();
            self.clean.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, passes);
            passes
        })
    }
}

/// What is wrong with the run of a seed, with a fault or without.
pub fn trouble(bug: Option<Bug>, seed: u64) -> Option<String> {
    plant(bug);
    // A panic is what it is: a fault that shows.
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, &plan(seed))));
    plant(None);
    match outcome {
        Err(_) => Some("a panic".to_owned()),
        Ok(outcome) => outcome.violations.first().map(ToString::to_string),
    }
}

/// The last seed whose run is among honest devices, and the last in which kinds of hostile peers take turns.
const HONEST_UNTIL: u64 = 24;
const TURNS_UNTIL: u64 = 44;

/// The run of a seed as [`Plan::from_seed`] draws it, but that the first ones are honest and that then each kind of
/// hostile peer has its turn: what shows at all mostly shows there.
fn plan(seed: u64) -> Plan {
    if seed > TURNS_UNTIL {
        return Plan::from_seed(seed);
    }
    let turn = seed.checked_sub(HONEST_UNTIL + 1).map(|seed| seed % Malice::ALL.len() as u64);
    let malice = turn.and_then(|turn| Malice::ALL.get(usize::try_from(turn).ok()?)).copied();
    Plan { hostile: malice.into_iter().collect(), ..Plan::from_seed(seed) }.within_means()
}
