//! Figures and their bars.

use std::process::ExitCode;
use std::time::Duration;

/// What was measured so far.
#[derive(Default)]
pub(crate) struct Figures {
    missed: usize,
    count: usize,
}

impl Figures {
    /// How much better the last figure is than what Go needs for the same, recorded on a machine like the one of
    /// `docs/performance.md`: more than one is better.
    pub fn beside_go(&mut self, recorded: &str, ratio: f64) {
        println!("{:<58} {ratio:>14.1}   times; Go, recorded: {recorded}", "  beside Go");
    }

    /// A rate that should be at least `bar` a second.
    pub fn rate(&mut self, what: &str, count: usize, took: Duration, bar: f64) {
        let rate = count as f64 / took.as_secs_f64();
        self.line(what, &format!("{rate:.0}/s"), &format!(">= {bar:.0}/s"), rate >= bar);
    }

    /// A time that should be at most `bar`.
    pub fn time(&mut self, what: &str, took: Duration, bar: Duration) {
        let millis = |span: Duration| format!("{:.2} ms", span.as_secs_f64() * 1000.0);
        self.line(what, &millis(took), &format!("<= {}", millis(bar)), took <= bar);
    }

    /// A size in mebibytes that should be at most `bar`.
    pub fn mebibytes(&mut self, what: &str, bytes: u64, bar: f64) {
        let size = bytes as f64 / (1024.0 * 1024.0);
        self.line(what, &format!("{size:.1} MiB"), &format!("<= {bar:.0} MiB"), size <= bar);
    }

    /// A number that should be at most `bar`.
    pub fn number(&mut self, what: &str, number: f64, bar: f64) {
        self.line(what, &format!("{number:.2}"), &format!("<= {bar:.2}"), number <= bar);
    }

    /// Says how many bars were missed.
    pub fn conclude(self) -> ExitCode {
        println!("{} figures, {} below their bar", self.count, self.missed);
        if self.missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(3) }
    }

    fn line(&mut self, what: &str, figure: &str, bar: &str, met: bool) {
        self.count += 1;
        self.missed += usize::from(!met);
        let verdict = if met { "" } else { "  MISSED" };
        println!("{what:<58} {figure:>14}   {bar}{verdict}");
    }
}
