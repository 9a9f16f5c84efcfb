//! Waiting for what a node does in its own time: on streams, or by looking again until a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::trouble::{Outcome, failed};

/// How long the first look waits for the second. Each further one waits longer.
const LOOK_FIRST: Duration = Duration::from_millis(5);

/// The longest pause between two looks.
const LOOK_LONGEST: Duration = Duration::from_millis(100);

/// How long a node may take for one thing.
#[derive(Clone, Copy, Debug)]
pub struct Patience(Duration);

impl Patience {
    /// Waits this long.
    pub fn of(span: Duration) -> Self {
        Self(span)
    }

    /// As long as this.
    pub fn span(self) -> Duration {
        self.0
    }

    /// When it is over.
    pub fn deadline(self) -> Instant {
        Instant::now() + self.0
    }

    /// Looks until what is looked for is there. A look that does not find it says what it saw instead.
    pub async fn until<T>(self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> Outcome<T> {
        let deadline = self.deadline();
        let mut pause = LOOK_FIRST;
        loop {
            match look().await {
                Ok(found) => return Ok(found),
                Err(seen) if Instant::now() >= deadline => {
                    return failed(format!(
                        "waited {:.0} s for {what}; seen instead: {seen}",
                        self.0.as_secs_f64()
                    ));
                }
                Err(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(LOOK_LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_wait_says_what_was_seen_instead() {
        let patience = Patience::of(Duration::from_millis(20));
        let mut looks = 0;
        let outcome: Outcome = patience
            .until("the moon", async || {
                looks += 1;
                Err(format!("{looks} clouds"))
            })
            .await;
        let told = outcome.unwrap_err().to_string();
        assert!(told.contains("the moon") && told.ends_with(&format!("{looks} clouds")), "{told}");
    }
}
