//! How fast this device's chain key is given to new members.
//!
//! Joining a group costs nothing, and every member answers each newcomer with an event that stays for ever. So the
//! answers have a pace (`spec/security.md` O14); who has to wait is kept on disk and served in the end.

use std::collections::VecDeque;

use dunlin_base::kv::{Direction, KeyRange, Read as _, ReadError};
use dunlin_base::{GroupId, MemberId, Span, Time};

use super::{Ctx, Engine};
use crate::tables;

/// Answers that leave within [`CHAIN_KEY_SPAN`] at the most, whenever that begins.
pub const CHAIN_KEYS_AT_ONCE: usize = 60;
/// See [`CHAIN_KEYS_AT_ONCE`]: sixty a minute.
const CHAIN_KEY_SPAN: Span = Span::from_secs(60);
/// Between two looks at who waits, where there is room for more.
const CHAIN_KEY_PAUSE: Span = Span::from_secs(1);
/// What is added to a wait at random at the most, so that the members of a group do not answer in step.
const CHAIN_KEY_JITTER_MS: u64 = 250;
/// Members that a device gives its key to when it announces itself: these answer nobody, and the device is of no
/// use to them without.
const CHAIN_KEYS_ANNOUNCED: u64 = 1024;

/// The pace in one group.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyPace {
    /// When the last answers left, at most [`CHAIN_KEYS_AT_ONCE`] of them.
    left: VecDeque<Time>,
    /// How many more may leave without being counted.
    granted: u64,
    /// When somebody who waits is served.
    pub due: Option<Time>,
}

impl KeyPace {
    /// Counts an answer that leaves now; `Err` with the time at which it may, if it may not yet.
    fn take(&mut self, now: Time) -> Result<(), Time> {
        if let Some(left) = self.granted.checked_sub(1) {
            self.granted = left;
            return Ok(());
        }
        if self.left.len() >= CHAIN_KEYS_AT_ONCE
            && let Some(first) = self.left.front()
        {
            let free = *first + CHAIN_KEY_SPAN;
            if free > now {
                return Err(free);
            }
            self.left.pop_front();
        }
        self.left.push_back(now);
        Ok(())
    }

    /// Lets this many leave at once.
    fn grant(&mut self, more: u64) {
        self.granted = more;
    }

    /// Makes what is due later due now, since the clock was set back.
    pub fn hasten(&mut self, now: Time) {
        for left in &mut self.left {
            *left = (*left).min(now);
        }
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
        self.active_mut(group)?.pace.grant(0);
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
        let Err(free) = active.pace.take(ctx.now) else { return Ok(true) };
        ctx.tx.put(tables::OWED, &owed_key(group, member), &[]);
        if active.pace.due.is_none() {
            let jitter = Span::from_millis(ctx.rng.next_u64() % CHAIN_KEY_JITTER_MS);
            active.pace.due = Some(free + jitter);
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
            let owed = ctx.tx.collect(tables::OWED, &range, Direction::Ascending, CHAIN_KEYS_AT_ONCE)?;
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
            if owed.len() >= CHAIN_KEYS_AT_ONCE && pace.due.is_none() {
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

    /// `spec/security.md` O14: at most sixty in any minute, and no fewer when more wait.
    #[test]
    fn no_more_than_sixty_answers_leave_in_any_minute() {
        let mut pace = KeyPace::default();
        let start = Time::from_secs(1_000_000);
        let mut left = Vec::new();
        for half_second in 0..1200 {
            let now = start + Span::from_millis(half_second * 500);
            // Few ask at first, then many.
            let asked = if half_second < 100 { half_second % 2 } else { 100 };
            left.extend((0..asked).filter(|_| pace.take(now).is_ok()).map(|_| now));
        }
        for (at, first) in left.iter().enumerate() {
            let within = left[at..].iter().take_while(|other| **other < *first + CHAIN_KEY_SPAN).count();
            assert!(within <= CHAIN_KEYS_AT_ONCE, "{within} in a minute");
        }
        assert!(left.len() >= 600 - CHAIN_KEYS_AT_ONCE, "{}", left.len());

        pace.hasten(Time::from_secs(5));
        assert!(pace.take(Time::from_secs(65)).is_ok(), "a clock that was set back stops nothing");
        pace.grant(300);
        assert_eq!((0..1000).filter(|_| pace.take(Time::from_secs(66)).is_ok()).count(), 359);
    }
}
