//! Telling a topic again what others said: Trickle (RFC 6206), with chance instead of a fixed number of tellers.
//!
//! Whoever wrote an entry gives it to every peer on the topic until each has shown that it has it. But a writer may
//! fall silent after one member heard of it, or show each what it likes. So whoever learns something tells the topic,
//! again and again with longer pauses. Each that is heard to say the same makes the next telling less likely, so in
//! a group of `n` about `ln n` tell in a round; none can keep the others from telling.

use std::collections::BTreeSet;

use dunlin_base::{PeerId, Span, Time};
use rand_core::RngCore;

/// First pause after something came past the topic: the others have not heard of it.
const PAST_THE_TOPIC: Span = Span::from_secs(2);
/// First pause after something came on the topic: most have heard of it too.
const ON_THE_TOPIC: Span = Span::from_secs(16);
/// Longest pause. After it nothing is told until there is something new; who comes later is greeted.
const LONGEST: Span = Span::from_secs(1024);
/// Peers that are counted among those who said the same.
const HEARD_MAX: usize = 15;

/// When a store tells its topic what it has learned.
#[derive(Debug, Default)]
pub(super) struct Retelling {
    pause: Span,
    due: Option<Time>,
    /// Who gave us the newest of it: that is no news to them, nor from them.
    teacher: Option<PeerId>,
    /// Who said all of it on the topic since we last thought of telling.
    heard: BTreeSet<PeerId>,
}

impl Retelling {
    /// Something new was learned, from `teacher` if it is known from whom.
    pub fn learned(
        &mut self,
        now: Time,
        teacher: Option<PeerId>,
        on_topic: bool,
        rng: &mut (impl RngCore + ?Sized),
    ) {
        self.pause = if on_topic { ON_THE_TOPIC } else { PAST_THE_TOPIC };
        self.teacher = teacher;
        self.heard.clear();
        let due = self.moment(now, rng);
        // Who learns without end tells all the same.
        self.due = Some(self.due.map_or(due, |before| before.min(due)));
    }

    /// `peer` told the topic all that we have.
    pub fn heard(&mut self, peer: &PeerId) {
        if self.due.is_some() && self.teacher.as_ref() != Some(peer) && self.heard.len() < HEARD_MAX {
            self.heard.insert(peer.clone());
        }
    }

    /// When to think of telling.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// Makes what is due later due now.
    pub fn hasten(&mut self, now: Time) {
        self.due = self.due.map(|due| due.min(now));
    }

    /// Whether to tell now `those_there`, if it is time; the next time is longer away.
    pub fn takes_turn<'p>(
        &mut self,
        now: Time,
        mut those_there: impl Iterator<Item = &'p PeerId>,
        rng: &mut (impl RngCore + ?Sized),
    ) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        if those_there.all(|peer| self.teacher.as_ref() == Some(peer)) {
            self.due = None;
            return false;
        }
        let tellers = (self.heard.len() as u64).saturating_add(1);
        self.heard.clear();
        let is_last = self.pause == LONGEST;
        self.pause = self.pause.doubled(LONGEST);
        self.due = if is_last { None } else { Some(self.moment(now, rng)) };
        rng.next_u64().is_multiple_of(tellers)
    }

    /// A moment in the second half of the pause.
    fn moment(&self, now: Time, rng: &mut (impl RngCore + ?Sized)) -> Time {
        let half = self.pause.as_millis() / 2;
        now + Span::from_millis(half) + Span::from_millis(rng.next_u64() % half.max(1))
    }
}
