//! `dunlin-planted [--seeds N] [BUG ...]` plants each fault, or those named, and makes runs until it shows.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a terminal")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use dunlin_base::planted::Bug;
use dunlin_sim::planted::{Catch, Hunter};

const USAGE: &str = "usage: dunlin-planted [--seeds N] [BUG ...]";
/// Of a hundred planted faults, so many have to be found (`spec/security.md` §4.1).
const CAUGHT_PERCENT_MIN: usize = 95;
/// Runs after which a fault counts as not found.
const SEEDS_MAX: u64 = 120;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((seeds, bugs)) = parse(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // A fault that panics is told in the table, not as it happens.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let caught = hunt_all(seeds, &bugs);
    println!("{caught} of {} caught, in {} s", bugs.len(), started.elapsed().as_secs());
    let enough = caught.saturating_mul(100) >= bugs.len().saturating_mul(CAUGHT_PERCENT_MIN);
    if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Hunts faults on all cores, prints what came of each in the order of the list, and returns how many were found.
fn hunt_all(seeds: u64, bugs: &[Bug]) -> usize {
    let next = AtomicUsize::new(0);
    let hunter = Hunter::default();
    let (tell, told) = mpsc::channel::<(usize, Option<Catch>)>();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (next, tell, hunter) = (&next, tell.clone(), &hunter);
            scope.spawn(move || {
                while let Some((place, bug)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|place| Some((place, bugs.get(place)?)))
                {
                    // Whoever is told waits for all of them.
                    let _ = tell.send((place, hunter.hunt(*bug, seeds)));
                }
            });
        }
        drop(tell);
        let mut caught = 0_usize;
        for (place, catch) in told {
            let Some(bug) = bugs.get(place) else { continue };
            let (name, words) = (format!("{bug:?}"), bug.words());
            match catch {
                Some(Catch { seed, what }) => {
                    caught = caught.saturating_add(1);
                    println!("{name:<22} seed {seed:>3}  {what}");
                }
                None => println!("{name:<22} SURVIVES {seeds} seeds: {words}"),
            }
        }
        caught
    })
}

fn parse(arguments: &[String]) -> Option<(u64, Vec<Bug>)> {
    let mut seeds = SEEDS_MAX;
    let mut named = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--seeds" {
            seeds = rest.next()?.parse().ok()?;
            continue;
        }
        named.push(*Bug::ALL.iter().find(|bug| format!("{bug:?}") == *argument)?);
    }
    if named.is_empty() {
        named.extend(Bug::ALL);
    }
    Some((seeds, named))
}
