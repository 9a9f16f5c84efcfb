//! Everything that is done with this repository, behind one word: `cargo xtask`.
//!
//! ```text
//! cargo xtask run        start Dunlin from a clean clone
//! cargo xtask test       the checks to run while editing
//! cargo xtask ci         all checks; continuous integration runs this and nothing else
//! ```
//!
//! The program knows the crates only from outside: through cargo, the files, and the programs that cargo
//! builds. So it compiles in seconds, and a broken crate cannot keep it from saying what is broken.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks to its terminal"
)]

mod arrows;
mod ci;
mod fuzz;
mod licences;
mod rules;
mod run;
mod tally;
mod workspace;

use std::fmt;
use std::process::ExitCode;

use workspace::{Workspace, file_name, succeed};

const USAGE: &str = "\
What is done with this repository, in one place.

Usage: cargo xtask COMMAND [ARGS]

  run [ARGS]               build Dunlin and start the chat; ARGS go to `dunlin chat`
  test                     the checks to run while editing
  ci [STEP ...]            all checks, or only the steps named; `ci --list` shows them
  arrows                   check which crate may see which
  rules                    check that docs/rules.md names what exists
  licences                 check the licences and sources of all dependencies
  vectors [DIR]            run the golden vectors below DIR, or all
  sim [--seed N|--seeds N] simulate a network of nodes from one seed or from many
  sim --planted [BUG ...]  plant faults, each in its turn, and see that the simulation finds them
  bench [ARGS]             measure; ARGS go to dunlin-bench
  conformance [ARGS]       hold running nodes, or nodes that it starts, to the protocol; `--help` tells more
  fuzz [TARGET [FILE ...]] [--seconds N]
                           fuzz all targets or one; with FILE, replay what crashed
  help                     print this
";

/// Why a command failed, as the sentence that its user reads.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// Makes a failure out of a sentence that says what to do.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every command returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result {
    let Some((command, rest)) = args.split_first() else {
        print!("{USAGE}");
        return Ok(());
    };
    let workspace = Workspace::locate()?;
    match command.as_str() {
        "run" => run::run(&workspace, rest),
        "test" => ci::test(&workspace, rest),
        "ci" => ci::ci(&workspace, rest),
        "arrows" => arrows::check(&workspace),
        "rules" => rules::check(&workspace),
        "licences" | "licenses" => licences::check(&workspace),
        "vectors" => vectors(&workspace, rest),
        "sim" => sim(&workspace, rest),
        "bench" => bench(&workspace, rest),
        "conformance" => conformance(&workspace, rest),
        "fuzz" => fuzz::fuzz(&workspace, rest),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            Ok(())
        }
        unknown => Err(Failure::new(format!("there is no command `{unknown}`.\n\n{USAGE}"))),
    }
}

/// Simulates with all optimizations. Faults are planted in the profile of the tests, in a program of its own: only what
/// has to do with the faults is compiled for it.
fn sim(workspace: &Workspace, args: &[String]) -> Result {
    match args.split_first() {
        Some((word, rest)) if word == "--planted" => planted(workspace, rest),
        _ => workspace.cargo_run_release("dunlin-sim", args),
    }
}

fn planted(workspace: &Workspace, args: &[String]) -> Result {
    let program = ["--bin", "dunlin-planted", "--features", "dunlin-sim/planted"];
    succeed(workspace.cargo(["build", "--quiet", "--workspace"]).args(program))?;
    succeed(workspace.built("dunlin-planted")?.args(args))
}

/// Runs the vectors in the profile of the tests: they are compiled there already, and fast enough.
fn vectors(workspace: &Workspace, args: &[String]) -> Result {
    let mut command = workspace.cargo(["run", "--quiet", "--package", "dunlin-vectors", "--"]);
    for folder in args {
        let folder = std::path::absolute(folder)
            .map_err(|error| Failure::new(format!("{folder} is not the name of a folder: {error}")))?;
        command.arg(folder);
    }
    succeed(&mut command)
}

/// Runs in the profile of the tests, so that nothing is compiled for it that the tests do not need.
fn conformance(workspace: &Workspace, args: &[String]) -> Result {
    let programs = ["--bin", "dunlin", "--bin", "dunlin-conformance"];
    succeed(workspace.cargo(["build", "--quiet", "--workspace"]).args(programs))?;
    succeed(workspace.built("dunlin-conformance")?.args(args))
}

/// The benchmark starts the program that lies beside it, so both are built.
fn bench(workspace: &Workspace, parts: &[String]) -> Result {
    let packages = ["--package", "dunlin", "--package", "dunlin-bench"];
    succeed(workspace.cargo(["build", "--quiet", "--release"]).args(packages))?;
    let program = workspace.target_folder()?.join("release").join(file_name("dunlin-bench"));
    succeed(workspace.command(program).args(parts))
}
