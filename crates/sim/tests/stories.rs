//! Faults that runs have found, each as the plan that showed it. `docs/simulation.md` tells the stories.

use dunlin_sim::hostile::Malice;
use dunlin_sim::{Faults, Plan, run};

fn holds(seed: u64, plan: &Plan) {
    let outcome = run(seed, plan);
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.shown > 0, "nothing was said");
}

/// An entry reached one member alone, whose writer was never heard of again: nobody told the others.
#[test]
fn what_reached_one_member_alone_is_told_to_all() {
    let hostile = vec![Malice::Relabeller];
    let faults = Faults { delay_ms: 1, partition: 56, sleep: 75, ..Faults::default() };
    holds(19, &Plan { faults, hostile, ..Plan::calm(6, 70, 521) });
}

/// More heads than fit into one payload: those at the end of the list were never shown to anybody.
#[test]
fn heads_that_do_not_fit_into_one_payload_are_shown_in_turn() {
    let hostile = vec![Malice::Forker];
    let faults = Faults { delay_ms: 648, partition: 60, commit: 5, ..Faults::default() };
    holds(49, &Plan { faults, hostile, ..Plan::calm(6, 63, 846) });
}
