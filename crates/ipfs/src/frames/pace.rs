//! How many bytes a second somebody may bring.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// Bytes of blocks, and of what is around them, that one peer may bring in a second (`spec/security.md` O5). What comes faster
/// stays in the network, whose flow control holds the peer back.
pub const FETCH_BYTES_PER_S_MAX: usize = 8 * 1024 * 1024;

/// What may come at once, as the time that it would take at that pace: two of the largest messages, so that nobody is held up
/// who brings less in the long run.
const BURST: Duration = Duration::from_secs(1);

/// What one peer brought, as the time at which all of it would have come at its pace.
#[derive(Debug, Default)]
pub(crate) struct Pace(Option<Instant>);

impl Pace {
    /// Takes note of bytes that are to be read, and says for how long they have to wait.
    fn spend(&mut self, bytes: usize, now: Instant) -> Duration {
        let start = self.0.map_or(now, |at| at.max(now));
        let at = start + time_of(bytes);
        self.0 = Some(at);
        at.saturating_duration_since(now).saturating_sub(BURST)
    }
}

/// Waits until bytes may be read.
pub(crate) async fn keep(pace: &Mutex<Pace>, bytes: usize) {
    let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).spend(bytes, Instant::now());
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

fn time_of(bytes: usize) -> Duration {
    let nanos = (bytes as u128) * 1_000_000_000 / (FETCH_BYTES_PER_S_MAX as u128);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    /// `spec/security.md` O5: whoever brings more is slowed down to the pace, and nobody below it.
    #[tokio::test(start_paused = true)]
    async fn fetch_bytes_per_second() {
        let begin = Instant::now();
        let mut pace = Pace::default();
        let mut now = begin;
        for _ in 0..100 {
            now += pace.spend(4 * MIB, now);
        }
        // Four hundred, less what came at once.
        assert_eq!(now - begin, Duration::from_secs(49));

        // Evenly, just as fast as one may: it never waits.
        let mut pace = Pace::default();
        for number in 0..1000_u32 {
            let now = begin + Duration::from_millis(125) * number;
            assert_eq!(pace.spend(MIB, now), Duration::ZERO);
        }
        // Nothing is saved up while it is quiet.
        let later = begin + Duration::from_secs(3600);
        assert_eq!(pace.spend(16 * MIB, later), Duration::from_secs(1));
    }

    /// Many streams of one peer share its pace.
    #[tokio::test(start_paused = true)]
    async fn streams_of_one_peer_share_its_pace() {
        let (begin, pace) = (Instant::now(), Mutex::default());
        futures::future::join_all((0..64).map(|_| keep(&pace, 4 * MIB))).await;
        assert_eq!(begin.elapsed().as_secs(), 31);
    }
}
