//! `dunlin-sim --seeds N [--from SEED]` makes many runs, `dunlin-sim --seed N` makes one again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a terminal")]

use std::process::ExitCode;

use dunlin_sim::{Plan, run};

const USAGE: &str = "usage: dunlin-sim --seed N | --seeds N [--from SEED]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((from, count)) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut failed = 0u64;
    let mut shown = 0usize;
    for seed in from..from.saturating_add(count) {
        let plan = Plan::from_seed(seed);
        let outcome = run(seed, &plan);
        shown = shown.saturating_add(outcome.shown);
        if !outcome.violations.is_empty() {
            failed = failed.saturating_add(1);
            println!("{outcome}\n  {plan:?}\n  again: cargo xtask sim --seed {seed}");
        } else if count == 1 {
            println!("{outcome}\n  {plan:?}");
        }
    }
    println!("{count} seeds, {shown} messages shown");
    println!("{} passed, {failed} failed", count.saturating_sub(failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The first seed and how many.
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
