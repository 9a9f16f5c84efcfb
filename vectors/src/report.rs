//! What came of the checks of one file.

use std::io;

/// Failures that are shown per file; the rest is only counted.
const FAILURES_SHOWN_MAX: usize = 8;

/// Collects the verdicts of one file's checks.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failures: Vec<Failure>,
    left_out: Vec<String>,
}

/// A check that did not hold.
#[derive(Debug)]
pub struct Failure {
    /// Which case of the file.
    pub name: String,
    /// What was expected and what came.
    pub why: String,
}

impl Report {
    /// Records one check under `name`.
    pub fn check(&mut self, name: impl Into<String>, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.failures.push(Failure { name: name.into(), why }),
        }
    }

    /// Names a part of the file that is not checked, and says why.
    pub fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    /// How many checks held.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// Those that did not, in the order of the file.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Prints a line for the file and its first failures below.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn write(&self, file: &str, out: &mut impl io::Write) -> io::Result<()> {
        writeln!(out, "{file}: {} passed, {} failed", self.passed, self.failures.len())?;
        for failure in self.failures.iter().take(FAILURES_SHOWN_MAX) {
            writeln!(out, "    {}: {}", failure.name, failure.why)?;
        }
        let hidden = self.failures.len().saturating_sub(FAILURES_SHOWN_MAX);
        if hidden > 0 {
            writeln!(out, "    and {hidden} more")?;
        }
        self.left_out.iter().try_for_each(|what| writeln!(out, "    left out: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_all_failures_and_shows_the_first() {
        let mut report = Report::default();
        report.check("good", Ok(()));
        for number in 0..10 {
            report.check(format!("bad {number}"), Err("differs".into()));
        }
        report.leave_out("the second half: nobody writes such events");
        let mut out = Vec::new();
        report.write("keys.json", &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(shown.starts_with("keys.json: 1 passed, 10 failed\n    bad 0: differs\n"));
        assert!(shown.contains("    bad 7: differs\n    and 2 more\n"));
        assert!(shown.ends_with("    left out: the second half: nobody writes such events\n"));
    }
}
