//! How fast this device's chain key is given to new members.
//!
//! Joining a group costs nothing, and every member answers each newcomer with an event that stays for ever. So the
//! answers have a pace (`spec/security.md` O14); who has to wait is kept on disk and served in the end.

use dunlin_base::kv::{Direction, KeyRange, Read as _, ReadError};
use dunlin_base::{GroupId, MemberId, Span, Time};

use super::{Ctx, Engine};
use crate::tables;

/// Answers that may leave at once: as many as a minute brings.
pub const CHAIN_KEYS_AT_ONCE: u64 = 60;
/// After them, how long the next one waits: sixty a minute.
const CHAIN_KEY_PAUSE: Span = Span::from_secs(1);
/// What is added to such a pause at random at the most, so that the members of a group do not answer in step.
const CHAIN_KEY_JITTER_MS: u64 = 250;
/// Members that a device gives its key to when it announces itself: these answer nobody, and the device is of no
/// use to them without.
const CHAIN_KEYS_ANNOUNCED: u64 = 1024;

/// The pace in one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyPace {
    left: u64,
    filled: Time,
    /// When somebody who waits is served.
    pub due: Option<Time>,
}

impl KeyPace {
    /// Whether an answer may leave now; then it counts.
    fn take(&mut self, now: Time) -> bool {
        let gained = now.since(self.filled).as_millis() / CHAIN_KEY_PAUSE.as_millis();
        if gained > 0 {
            self.filled = now;
            self.left = self.left.max(self.left.saturating_add(gained).min(CHAIN_KEYS_AT_ONCE));
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Lets this many more leave at once.
    fn grant(&mut self, more: u64) {
        self.left = self.left.saturating_add(more);
    }

    /// Makes what is due later due now, since the clock was set back.
    pub fn hasten(&mut self, now: Time) {
        self.filled = self.filled.min(now);
        self.due = self.due.map(|due| due.min(now));
    }
}

impl Engine {
    /// Lets a device that has just announced itself give its key to those who are there.
    pub(super) fn serve_announced(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
    ) -> Result<(), ReadError> {
        self.active_mut(group)?.pace.grant(CHAIN_KEYS_ANNOUNCED);
        self.serve_chain_keys(ctx, group)?;
        let pace = &mut self.active_mut(group)?.pace;
        pace.left = pace.left.min(CHAIN_KEYS_AT_ONCE);
        Ok(())
    }

    /// Whether `member` may be answered now; if not, they are remembered.
    pub(super) fn may_answer(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        member: &MemberId,
    ) -> Result<bool, ReadError> {
        let active = self.active_mut(group)?;
        if active.pace.take(ctx.now) {
            return Ok(true);
        }
        ctx.tx.put(tables::OWED, &owed_key(group, member), &[]);
        if active.pace.due.is_none() {
            let jitter = Span::from_millis(ctx.rng.next_u64() % CHAIN_KEY_JITTER_MS);
            active.pace.due = Some(ctx.now + CHAIN_KEY_PAUSE + jitter);
        }
        Ok(false)
    }

    /// Answers those who waited, as far as it is their time.
    pub(super) fn serve_owed(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let is_due = |due: Option<Time>| due.is_some_and(|due| due <= ctx.now);
        let due = self.groups.iter().filter(|(_, active)| is_due(active.pace.due));
        let due: Vec<GroupId> = due.map(|(group, _)| *group).collect();
        for group in due {
            self.at_work = Some(group);
            self.active_mut(&group)?.pace.due = None;
            let range = KeyRange::prefix(group.as_bytes());
            let most = usize::try_from(CHAIN_KEYS_AT_ONCE).unwrap_or(usize::MAX);
            let owed = ctx.tx.collect(tables::OWED, &range, Direction::Ascending, most)?;
            for (key, _) in &owed {
                ctx.tx.delete(tables::OWED, key);
                if let Some(member) = key.get(32..).and_then(MemberId::from_stored) {
                    self.serve_chain_key(ctx, &group, &member)?;
                }
                // Whoever may not be answered yet is remembered again, and the others with them.
                if self.active(&group)?.pace.due.is_some() {
                    break;
                }
            }
            let pace = &mut self.active_mut(&group)?.pace;
            if owed.len() >= most && pace.due.is_none() {
                pace.due = Some(ctx.now + CHAIN_KEY_PAUSE);
            }
        }
        self.at_work = None;
        Ok(())
    }
}

/// Key of [`tables::OWED`]: the raw keys of group and member.
fn owed_key(group: &GroupId, member: &MemberId) -> Vec<u8> {
    [group.as_bytes().as_slice(), member.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_pace_and_a_reserve() {
        let mut pace = KeyPace::default();
        let start = Time::from_secs(1_000_000);
        let at_once = (0..1000).filter(|_| pace.take(start)).count();
        assert_eq!(at_once as u64, CHAIN_KEYS_AT_ONCE);
        let in_a_minute: usize = (1..=60)
            .map(|second| (0..100).filter(|_| pace.take(start + Span::from_secs(second))).count())
            .sum();
        assert_eq!(in_a_minute, 60);
        pace.hasten(Time::from_secs(5));
        assert!(pace.take(Time::from_secs(6)), "a clock that was set back stops nothing");
        pace.grant(300);
        assert_eq!((0..1000).filter(|_| pace.take(Time::from_secs(6))).count(), 300);
    }
}
