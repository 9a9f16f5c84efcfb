//! Fuzzing with the stable compiler: libFuzzer, its coverage hooks and the address sanitizer.
//!
//! The hooks are flags that the stable compiler has and does not offer, hence the variable that makes it
//! offer them. Everything is built once for all targets, below `target/fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workspace::{Package, Workspace, not_started, output, succeed};
use crate::{Failure, Result};

/// What makes the compiler count the edges that an input takes, and the sanitizer watch the memory.
const COMPILER_FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// A decoder that needs longer than this for one input is broken.
const INPUT_SECONDS_MAX: u32 = 5;

/// A decoder that needs more memory than this is broken; the sanitizer itself takes a good part of it.
const MEMORY_MIB_MAX: u32 = 1024;

/// The longest input that libFuzzer makes up: two blocks' worth, so that limits are crossed.
const INPUT_BYTES_MAX: u32 = 8 * 1024;

/// How long a target is fuzzed by hand when nothing is said.
const SECONDS_BY_HAND: u32 = 60;

/// `cargo xtask fuzz [TARGET [FILE …]] [--seconds N]`
pub fn fuzz(workspace: &Workspace, args: &[String]) -> Result {
    let mut seconds = SECONDS_BY_HAND;
    let mut names = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seconds" => {
                let number = args.next().and_then(|number| number.parse().ok());
                seconds = number.ok_or_else(|| Failure::new("--seconds wants a number"))?;
            }
            option if option.starts_with('-') => {
                return Err(Failure::new(format!("fuzz has no option `{option}`; it has --seconds N")));
            }
            name => names.push(name),
        }
    }
    let fuzzer = Fuzzer::new(workspace)?;
    let Some((name, files)) = names.split_first() else {
        return fuzzer.fuzz_all(seconds);
    };
    if !fuzzer.targets.iter().any(|target| target == name) {
        return Err(Failure::new(format!(
            "there is no target `{name}`; there are {}",
            fuzzer.targets.join(", ")
        )));
    }
    fuzzer.build(Some(name))?;
    if files.is_empty() { fuzzer.fuzz_one(name, seconds) } else { fuzzer.replay(name, files) }
}

/// Fuzzes each target for a moment.
pub fn smoke(workspace: &Workspace, seconds: u32) -> Result {
    Fuzzer::new(workspace)?.fuzz_all(seconds)
}

/// The fuzz workspace, and where its programs are.
struct Fuzzer<'a> {
    workspace: &'a Workspace,
    /// The triple of this machine. It is named to cargo, so that build scripts do without the flags.
    triple: String,
    /// Below the target folder of the workspace, so that one `cargo clean` cleans all.
    target_folder: PathBuf,
    targets: Vec<String>,
}

impl<'a> Fuzzer<'a> {
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let compiler = output(workspace.command("rustc").arg("-vV"))?;
        let triple = compiler.lines().find_map(|line| line.strip_prefix("host: "));
        let triple = triple.ok_or_else(|| Failure::new("`rustc -vV` does not name its host"))?;
        let metadata = workspace.metadata(&["--no-deps", "--manifest-path", "fuzz/Cargo.toml"])?;
        let targets = Package::all(&metadata).flat_map(|package| package.programs).collect();
        Ok(Self {
            workspace,
            triple: triple.to_owned(),
            target_folder: workspace.target_folder()?.join("fuzz"),
            targets,
        })
    }

    /// Builds one target, or all.
    fn build(&self, only: Option<&str>) -> Result {
        let mut cargo = self.workspace.cargo(["build", "--release", "--manifest-path", "fuzz/Cargo.toml"]);
        cargo.args(["--target", &self.triple, "--target-dir"]).arg(&self.target_folder);
        if let Some(target) = only {
            cargo.args(["--bin", target]);
        }
        cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", COMPILER_FLAGS.join("\x1f"));
        succeed(&mut cargo)
    }

    fn fuzz_all(&self, seconds: u32) -> Result {
        self.build(None)?;
        for target in &self.targets {
            self.fuzz_one(target, seconds)?;
        }
        Ok(())
    }

    /// Fuzzes a target from its seeds and from what earlier runs on this machine have found.
    fn fuzz_one(&self, target: &str, seconds: u32) -> Result {
        let found = self.target_folder.join("corpus").join(target);
        let artifacts = self.workspace.root().join("fuzz/artifacts").join(target);
        for folder in [&found, &artifacts] {
            make_folder(folder)?;
        }
        let mut program = self.program(target);
        program.arg(format!("-max_total_time={seconds}"));
        // The trailing slash makes it a folder for libFuzzer.
        program.arg(format!("-artifact_prefix={}/", artifacts.display()));
        program.arg(&found);
        let seeds = self.workspace.root().join("fuzz/corpus").join(target);
        if seeds.is_dir() {
            program.arg(seeds);
        }
        let output =
            program.stderr(Stdio::piped()).output().map_err(|error| not_started(&program, &error))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            println!("{target:<30} {}", done_line(&said));
            return Ok(());
        }
        eprintln!("{said}");
        let crash = said.lines().rev().find_map(|line| line.split_once("Test unit written to "));
        let replay = match crash {
            Some((_, file)) => {
                format!("replay it with `cargo xtask fuzz {target} {file}`, and make it a test")
            }
            None => "its own words are above".to_owned(),
        };
        Err(Failure::new(format!("the fuzz target {target} found something; {replay}")))
    }

    /// Runs a target on inputs in files.
    fn replay(&self, target: &str, files: &[&str]) -> Result {
        let mut program = self.program(target);
        for file in files {
            let path = std::path::absolute(file)
                .map_err(|error| Failure::new(format!("{file} is not the name of a file: {error}")))?;
            program.arg(path);
        }
        succeed(&mut program)
    }

    fn program(&self, target: &str) -> Command {
        let mut program =
            self.workspace.command(self.target_folder.join(&self.triple).join("release").join(target));
        program.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        program.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        program.arg(format!("-max_len={INPUT_BYTES_MAX}"));
        program
    }
}

/// What libFuzzer says in the end, such as `Done 57811 runs in 11 second(s)`.
fn done_line(said: &str) -> &str {
    said.lines().rev().find(|line| line.starts_with("Done ")).unwrap_or("done")
}

fn make_folder(folder: &Path) -> Result {
    fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("{} was not made: {error}", folder.display())))
}
