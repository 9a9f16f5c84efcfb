//! All checks, in the order in which their failures are easiest to read: what takes a second comes
//! first, and a part is tested before the whole.
//!
//! Every cargo command below selects the whole workspace and narrows it by target. A command for one
//! package would resolve the features of that package alone, and compile the network stack a second time.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::tally::Tally;
use crate::workspace::{Package, Workspace, succeed};
use crate::{Failure, Result, arrows, fuzz, licences, rules};

/// Networks that the simulation step runs, each from its own seed.
const SIMULATED_SEEDS: &str = "500";

/// How long the fuzz step spends on each target: enough to replay the corpus and to find what is shallow.
const FUZZ_SECONDS: u32 = 10;

/// Seconds that a node may take for one thing, on a machine that has others to run.
const CONFORMANCE_PATIENCE: &str = "60";

/// The package whose integration tests are live: they start whole programs that talk over loopback.
const LIVE_PACKAGE: &str = "dunlin";

/// The integration test that talks to nothing but the Go peer, the one that does so beside others, and the variable that tells it where that program is.
const GO_TEST: &str = "go_peer";
const GO_TOO_TEST: &str = "discovery";
const GO_PEER: &str = "DUNLIN_GO_PEER";

/// One named check.
struct Step {
    name: &'static str,
    /// What it proves, in a few words.
    proves: &'static str,
    run: fn(&mut Checks) -> Result,
}

const STEPS: &[Step] = &[
    Step { name: "format", proves: "the sources look as rustfmt lays them out", run: format },
    Step {
        name: "arrows",
        proves: "no crate sees what it must not see",
        run: |checks| arrows::check(checks.workspace),
    },
    Step {
        name: "licences",
        proves: "dependencies are what deny.toml allows",
        run: |checks| licences::check(checks.workspace),
    },
    Step { name: "lints", proves: "the compiler and clippy have no remark", run: lints },
    Step {
        name: "docs",
        proves: "the documentation builds, its links lead somewhere, its rules are tested",
        run: docs,
    },
    Step { name: "build", proves: "all programs and tests compile", run: build },
    Step { name: "units", proves: "each function does its job", run: units },
    Step { name: "integration", proves: "the public surface of each crate holds together", run: integration },
    Step { name: "examples", proves: "the examples in the documentation run", run: examples },
    Step { name: "vectors", proves: "the bytes are those of the original software", run: golden_vectors },
    Step { name: "simulation", proves: "the protocol survives the world, from many seeds", run: simulation },
    Step { name: "live", proves: "whole programs talk to each other over loopback", run: live },
    Step {
        name: "conformance",
        proves: "2, 3, 5 and 8 nodes keep to the protocol, seen over gRPC alone",
        run: conformance,
    },
    Step { name: "interop", proves: "the node talks to the Go software", run: interop },
    Step { name: "fuzz", proves: "hostile bytes do not hurt the decoders", run: fuzz_smoke },
];

/// The steps of `cargo xtask test`: all that is fast once it is compiled.
const QUICK_STEPS: &[&str] = &["format", "arrows", "build", "units", "integration", "vectors"];

/// What the steps share.
struct Checks<'a> {
    workspace: &'a Workspace,
    packages: Vec<Package>,
    tally: Tally,
    /// Whether what is missing fails, rather than being left out: so it is where the variable CI is set.
    strict: bool,
}

/// Runs all steps, or those named, and stops at the first that fails.
pub fn ci(workspace: &Workspace, args: &[String]) -> Result {
    if args.first().is_some_and(|arg| arg == "--list") {
        for step in STEPS {
            println!("{:<12} {}", step.name, step.proves);
        }
        return Ok(());
    }
    let mut chosen = Vec::new();
    for name in args {
        let Some(step) = STEPS.iter().find(|step| step.name == name) else {
            return Err(Failure::new(format!(
                "there is no step `{name}`; `cargo xtask ci --list` shows them"
            )));
        };
        chosen.push(step);
    }
    if chosen.is_empty() {
        chosen.extend(STEPS);
    }
    run_steps(workspace, &chosen)
}

/// Runs what is worth running after each change.
pub fn test(workspace: &Workspace, args: &[String]) -> Result {
    if !args.is_empty() {
        return Err(Failure::new("test takes no arguments; `cargo test` runs a single test"));
    }
    let quick: Vec<&Step> = STEPS.iter().filter(|step| QUICK_STEPS.contains(&step.name)).collect();
    run_steps(workspace, &quick)
}

fn run_steps(workspace: &Workspace, steps: &[&Step]) -> Result {
    let mut checks = Checks {
        workspace,
        packages: workspace.packages()?,
        tally: Tally::default(),
        strict: std::env::var_os("CI").is_some_and(|value| !value.is_empty()),
    };
    let started = Instant::now();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut outcome = Ok(());
    for (number, step) in (1..).zip(steps) {
        println!("\n== {number}/{} {}: {}", steps.len(), step.name, step.proves);
        let step_started = Instant::now();
        let result = (step.run)(&mut checks);
        times.push((step.name, step_started.elapsed()));
        if let Err(failure) = result {
            outcome = Err(Failure::new(format!(
                "step {} failed: {failure}\nTo run it alone: cargo xtask ci {}",
                step.name, step.name
            )));
            break;
        }
    }
    report(&times, started.elapsed(), checks.tally);
    outcome
}

/// Prints how long each step took, and last the line that sums the tests.
fn report(times: &[(&str, Duration)], total: Duration, tally: Tally) {
    println!();
    for (name, time) in times {
        println!("{name:<12} {:>7.1} s", time.as_secs_f64());
    }
    println!("{:<12} {:>7.1} s", "all", total.as_secs_f64());
    if tally.ignored > 0 {
        println!("tests left out: {}", tally.ignored);
    }
    if tally.passed + tally.failed > 0 {
        println!("{} passed, {} failed", tally.passed, tally.failed);
    }
}

fn format(checks: &mut Checks) -> Result {
    succeed(&mut checks.workspace.cargo(["fmt", "--all", "--check"]))
}

fn lints(checks: &mut Checks) -> Result {
    succeed(&mut checks.cargo(["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"]))
}

fn docs(checks: &mut Checks) -> Result {
    rules::check(checks.workspace)?;
    succeed(checks.cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny=warnings"))
}

fn build(checks: &mut Checks) -> Result {
    succeed(&mut checks.cargo(["build", "--workspace", "--all-targets"]))
}

fn units(checks: &mut Checks) -> Result {
    let mut command = checks.cargo(["test", "--workspace", "--no-fail-fast", "--lib", "--bins"]);
    checks.tally.run(&mut command)
}

fn integration(checks: &mut Checks) -> Result {
    let tests = checks.test_names(|package, test| package != LIVE_PACKAGE && test != GO_TEST);
    checks.run_tests(&tests)
}

fn examples(checks: &mut Checks) -> Result {
    let mut command = checks.cargo(["test", "--workspace", "--no-fail-fast", "--doc"]);
    checks.tally.run(&mut command)
}

fn golden_vectors(checks: &mut Checks) -> Result {
    succeed(&mut checks.workspace.built("dunlin-vectors")?)
}

fn simulation(checks: &mut Checks) -> Result {
    succeed(checks.workspace.built("dunlin-sim")?.args(["--seeds", SIMULATED_SEEDS]))
}

fn live(checks: &mut Checks) -> Result {
    let tests = checks.test_names(|package, _| package == LIVE_PACKAGE);
    checks.run_tests(&tests)
}

/// Two and three nodes run everything; more of them only what more of them make harder, for the time it takes.
fn conformance(checks: &mut Checks) -> Result {
    for (nodes, part) in [("2", None), ("3", None), ("5", Some("--growing")), ("8", Some("--growing"))] {
        let mut command = checks.workspace.built("dunlin-conformance")?;
        succeed(command.args(["--spawn", nodes, "--patience", CONFORMANCE_PATIENCE]).args(part))?;
    }
    Ok(())
}

fn interop(checks: &mut Checks) -> Result {
    let go_is_there = Command::new("go").arg("version").output().is_ok_and(|output| output.status.success());
    if !go_is_there && checks.strict {
        return Err(Failure::new("there is no `go`; install the Go tool chain that interop/go/go.mod names"));
    }
    if !go_is_there {
        println!("left out: there is no `go` on this machine");
        return Ok(());
    }
    let peer = checks.workspace.target_folder()?.join("interop").join("go-peer");
    let mut go = checks.workspace.command("go");
    succeed(go.args(["build", "-C", "interop/go", "-o"]).arg(&peer).arg("."))?;
    let mut command = checks.cargo(["test", "--workspace", "--test", GO_TEST, "--test", GO_TOO_TEST]);
    checks.tally.run(command.env(GO_PEER, peer))
}

fn fuzz_smoke(checks: &mut Checks) -> Result {
    fuzz::smoke(checks.workspace, FUZZ_SECONDS)
}

impl Checks<'_> {
    /// A cargo command that leaves out what helps only a second build, where there will be none.
    fn cargo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.workspace.cargo(args);
        if self.strict {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    /// The integration tests that a choice by package and name takes.
    fn test_names(&self, chosen: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let mut names = Vec::new();
        for package in &self.packages {
            names.extend(package.tests.iter().filter(|test| chosen(&package.name, test)).cloned());
        }
        names.sort();
        names.dedup();
        names
    }

    fn run_tests(&mut self, names: &[String]) -> Result {
        if names.is_empty() {
            println!("there are no such tests");
            return Ok(());
        }
        let mut command = self.cargo(["test", "--workspace", "--no-fail-fast"]);
        for name in names {
            command.args(["--test", name]);
        }
        self.tally.run(&mut command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quick_step_is_a_step() {
        for name in QUICK_STEPS {
            assert!(STEPS.iter().any(|step| step.name == *name), "{name}");
        }
    }

    #[test]
    fn steps_have_names_of_their_own() {
        for (index, step) in STEPS.iter().enumerate() {
            assert!(STEPS.iter().skip(index + 1).all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
