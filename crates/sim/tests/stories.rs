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

/// Links to nowhere, and another block under the name of each: what named them waited for ever.
#[test]
fn links_to_nowhere_hold_up_nothing() {
    let hostile = vec![Malice::Forger, Malice::Forger];
    let faults = Faults { duplication: 34, delay_ms: 70, partition: 36, sleep: 100, ..Faults::default() };
    holds(48, &Plan { faults, hostile, ..Plan::calm(2, 78, 190) });
}

/// Each kind of hostile peer alone, among members whom nothing else troubles.
#[test]
fn no_kind_of_hostile_peer_breaks_an_invariant() {
    for malice in Malice::ALL {
        let plan = Plan { hostile: vec![malice], ..Plan::calm(5, 40, 900) };
        let outcome = run(1, &plan);
        assert!(outcome.violations.is_empty(), "{malice}: {outcome}");
    }
}

/// A hundred devices, on a network that loses, with machines that lose power: all is settled a minute later.
#[test]
fn a_hundred_devices_settle_within_a_minute() {
    let faults = Faults { loss: 50, delay_ms: 300, crash: 300, recrash: 500, disk: 200, ..Faults::default() };
    holds(7, &Plan { faults, ..Plan::calm(100, 60, 900) });
}

/// Two halves that hear nothing of each other for thirty days are one again within a minute.
#[test]
fn after_a_month_apart_all_have_the_same() {
    holds(3, &Plan { month_apart: true, ..Plan::calm(4, 40, 900) });
}

/// Devices join one account from several of its devices, while groups are joined and left.
#[test]
fn devices_that_are_added_on_two_devices_have_the_same() {
    holds(5, &Plan { linked: 6, leave: 50, storm: 50, ..Plan::calm(2, 60, 700) });
}
