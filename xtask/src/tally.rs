//! Counts tests by the lines that cargo prints about them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::workspace::{not_started, shown};
use crate::{Failure, Result};

/// How many tests ran, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that are there and did not run.
    pub ignored: u64,
}

impl Tally {
    /// Runs `cargo test`, lets its output through, and adds what it says. Fails unless cargo succeeds.
    pub fn run(&mut self, command: &mut Command) -> Result {
        let mut child =
            command.stdout(Stdio::piped()).spawn().map_err(|error| not_started(command, &error))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line =
                    line.map_err(|error| Failure::new(format!("the output of cargo was cut: {error}")))?;
                let line = String::from_utf8_lossy(&line);
                println!("{line}");
                self.add_line(&line);
            }
        }
        let status = child.wait().map_err(|error| not_started(command, &error))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("`{}` failed ({status})", shown(command))))
    }

    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines say nothing.
    fn add_line(&mut self, line: &str) {
        let Some((_verdict, counts)) =
            line.trim().strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split(';') {
            let Some((number, what)) = count.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up_and_other_lines_count_nothing() {
        let mut tally = Tally::default();
        for line in [
            "running 4 tests",
            "test join::keeps_order ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
            "9 passed, 0 failed, 0 not understood",
        ] {
            tally.add_line(line);
        }
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 1 });
    }
}
