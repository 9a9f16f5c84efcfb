//! Holds nodes of the Wesh network to its protocol, whoever made them.
//!
//! The scenarios speak `weshnet.protocol.v1.ProtocolService` and nothing else. Nodes are given by their
//! addresses, or started by this program:
//!
//! ```text
//! cargo xtask conformance --spawn 3
//! cargo xtask conformance --node http://127.0.0.1:9091 --node unix:/run/node.sock --spawn 1
//! ```
//!
//! Given nodes have to be connected with each other by whoever started them; a spawned node dials all others.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its terminal"
)]

mod circle;
mod feed;
mod hook;
mod mesh;
mod node;
mod options;
mod process;
mod scenarios;
mod tolerance;
mod trouble;
mod wait;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;

use crate::mesh::{Mesh, Setting};
use crate::options::Options;
use crate::scenarios::Scenario;
use crate::trouble::{Outcome, Trouble};

/// How many times the patience with one thing a whole scenario may take.
const SCENARIO_PATIENCE: u32 = 10;

/// The client of the service, as `tonic` makes it from the protobuf files; the messages are in `dunlin_proto`.
mod stubs {
    #![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]
    tonic::include_proto!("weshnet.protocol.v1");
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for scenario in scenarios::all() {
            println!("{:<28} {}", scenario.name, scenario.proves);
        }
        return ExitCode::SUCCESS;
    }
    match run(&options).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(trouble) => {
            eprintln!("error: {trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is chosen, and gives the number of failures.
async fn run(options: &Options) -> Outcome<usize> {
    let chosen = options.chosen()?;
    let origins = options.origins();
    println!("{} nodes: {}", origins.len(), options.described());
    if !options.tolerate.is_empty() {
        let names: Vec<_> = options.tolerate.iter().map(|tolerance| tolerance.name()).collect();
        println!("tolerated: {}", names.join(", "));
    }
    let setting: Setting = options.setting()?;
    let patience = setting.patience.span();
    let mut mesh = Mesh::gather(&origins, setting).await?;
    let mut tally = Tally::default();
    for scenario in chosen {
        let began = Instant::now();
        let outcome = match options.leaves_out(scenario) {
            true => trouble::left_out("so it was asked for"),
            false => attempt(scenario, &mut mesh, patience).await,
        };
        mesh.dismiss_guests();
        tally.report(scenario, outcome, began.elapsed(), &mesh);
    }
    println!("{} passed, {} failed, {} left out", tally.passed, tally.failed, tally.left_out);
    Ok(tally.failed)
}

async fn attempt(scenario: &Scenario, mesh: &mut Mesh, patience: Duration) -> Outcome {
    let count = mesh.nodes().len();
    if count < scenario.nodes {
        return trouble::left_out(format!("it takes {} nodes", scenario.nodes));
    }
    match tokio::time::timeout(patience * SCENARIO_PATIENCE, (scenario.run)(mesh)).await {
        Ok(outcome) => outcome,
        Err(_) => trouble::failed("it took longer than all its waits together may take"),
    }
}

/// What came of the scenarios.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    left_out: usize,
}

impl Tally {
    fn report(&mut self, scenario: &Scenario, outcome: Outcome, took: Duration, mesh: &Mesh) {
        let word = match &outcome {
            Ok(()) => "PASS",
            Err(Trouble::Failed(_)) => "FAIL",
            Err(Trouble::LeftOut(_)) => "LEFT OUT",
        };
        let used: Vec<_> =
            mesh.tolerances().take_used().into_iter().map(tolerance::Tolerance::name).collect();
        let tolerated =
            if used.is_empty() { String::new() } else { format!("  (tolerated: {})", used.join(", ")) };
        let reason = outcome.as_ref().err().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        println!("{word:<8} {:>7.2} s  {}{tolerated}{reason}", took.as_secs_f64(), scenario.name);
        match outcome {
            Ok(()) => self.passed += 1,
            Err(Trouble::Failed(_)) => self.failed += 1,
            Err(Trouble::LeftOut(_)) => self.left_out += 1,
        }
    }
}
