//! `dunlin-sim --seeds N [--from SEED]` makes many runs, `dunlin-sim --seed N` makes one again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a terminal")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use dunlin_sim::{Outcome, Plan, run};

const USAGE: &str = "usage: dunlin-sim --seed N | --seeds N [--from SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((from, count)) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let tally = run_all(from, count);
    println!("{count} seeds, {} messages shown", tally.shown);
    println!("{} passed, {} failed", count.saturating_sub(tally.failed), tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What many runs came to.
#[derive(Default)]
struct Tally {
    failed: u64,
    shown: usize,
}

/// Makes `count` runs on all cores. Each is a pure function of its seed, so it does not matter who makes it.
fn run_all(from: u64, count: u64) -> Tally {
    let next = AtomicU64::new(0);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= count {
                return tally;
            }
            let seed = from.saturating_add(turn);
            let plan = Plan::from_seed(seed);
            let outcome = run(seed, &plan);
            report(&outcome, &plan, count == 1);
            tally.shown = tally.shown.saturating_add(outcome.shown);
            tally.failed = tally.failed.saturating_add(u64::from(!outcome.violations.is_empty()));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let started: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        started.into_iter().fold(Tally::default(), |sum, worker| match worker.join() {
            Ok(tally) => Tally {
                failed: sum.failed.saturating_add(tally.failed),
                shown: sum.shown.saturating_add(tally.shown),
            },
            // A run that panics is a failure like any other; the panic says where.
            Err(_) => Tally { failed: sum.failed.saturating_add(1), ..sum },
        })
    })
}

fn report(outcome: &Outcome, plan: &Plan, always: bool) {
    if !outcome.violations.is_empty() {
        println!("{outcome}\n  {plan:?}\n  again: cargo xtask sim --seed {}", outcome.seed);
    } else if always {
        println!("{outcome}\n  {plan:?}");
    }
}

/// The first seed, and how many.
fn parse(arguments: &[String]) -> Option<(u64, u64)> {
    let mut from = 1;
    let mut count = None;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let number = rest.next()?.parse().ok()?;
        match argument.as_str() {
            "--seed" => (from, count) = (number, Some(1)),
            "--seeds" => count = Some(number),
            "--from" => from = number,
            _ => return None,
        }
    }
    Some((from, count?))
}
