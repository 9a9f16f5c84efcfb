//! `cargo xtask bench`: measures what the project promises, one line a figure, with the bar beside it.
//!
//! Each part makes its own data, runs on loopback and on a temporary directory, and says how often a bar
//! was missed by its exit code. Which machine it ran on matters more than anything else: compare runs of
//! one machine only.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to a terminal")]

mod core;
mod figures;
mod line;
mod load;
mod processes;

use std::process::ExitCode;

use figures::Figures;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, fn(&mut Figures) -> Outcome); 11] = [
        ("append", core::append),
        ("join", core::join),
        ("seal", core::seal),
        ("reopen", core::reopen),
        ("large", core::large),
        ("groups", load::groups),
        ("heads", load::heads),
        ("growth", load::growth),
        ("catch-up", processes::catch_up),
        ("sync", processes::sync),
        ("live", processes::live),
    ];
    if let [word, path] = wanted.as_slice()
        && word == load::OPEN
    {
        return match load::open_account(path) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{path}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let mut figures = Figures::default();
    for (name, part) in parts {
        if !wanted.is_empty() && !wanted.iter().any(|wish| wish == name) {
            continue;
        }
        if let Err(error) = part(&mut figures) {
            eprintln!("{name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    figures.conclude()
}
