//! Blocks that logs miss: which are asked for, and when the others will be.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{EntryId, GroupId, Span, Time};

use super::StoreKind;

/// Blocks that may be asked for at once. `spec/security.md` O5 allows 64 a peer; the shell asks one peer
/// for a block, so this keeps four busy.
pub const FETCH_IN_FLIGHT_MAX: usize = 256;
/// Blocks known to be missing that are remembered (`spec/security.md` O5); more are found again in the log.
pub const FETCHES_MAX: usize = 100_000;
/// How long a block is waited for before it is asked for again, at first.
const PAUSE_FIRST: Span = Span::from_secs(1);
/// The longest such wait (`spec/security.md` O4).
const PAUSE_LONGEST: Span = Span::from_secs(3600);

/// A block that a log misses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub group: GroupId,
    pub kind: StoreKind,
    /// How often nobody had it.
    pub failures: u8,
    pause: Span,
    /// When to ask; `None` while the shell is being asked.
    due: Option<Time>,
}

/// All blocks that are missed, with those that may be asked for in the order of time.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    by_entry: BTreeMap<EntryId, Fetch>,
    due: BTreeSet<(Time, EntryId)>,
}

impl Fetches {
    /// Adds what is missed, as far as there is room.
    pub fn want(&mut self, now: Time, group: &GroupId, kind: StoreKind, missing: Vec<EntryId>) {
        for entry in missing {
            if self.by_entry.len() >= FETCHES_MAX {
                return;
            }
            if self.by_entry.contains_key(&entry) {
                continue;
            }
            let fetch = Fetch { group: *group, kind, failures: 0, pause: PAUSE_FIRST, due: Some(now) };
            self.by_entry.insert(entry, fetch);
            self.due.insert((now, entry));
        }
    }

    /// The next block to ask for, if one is due and not too many are being asked for. It counts as asked.
    pub fn next(&mut self, now: Time) -> Option<(EntryId, Fetch)> {
        if self.in_flight() >= FETCH_IN_FLIGHT_MAX {
            return None;
        }
        let (at, entry) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, entry));
        let fetch = self.by_entry.get_mut(&entry)?;
        fetch.due = None;
        Some((entry, *fetch))
    }

    /// A block that the shell is asked for.
    pub fn asked(&self, entry: &EntryId) -> Option<&Fetch> {
        self.by_entry.get(entry).filter(|fetch| fetch.due.is_none())
    }

    /// Takes out a block that arrived.
    pub fn arrived(&mut self, entry: &EntryId) -> Option<Fetch> {
        let fetch = self.by_entry.remove(entry)?;
        if let Some(at) = fetch.due {
            self.due.remove(&(at, *entry));
        }
        Some(fetch)
    }

    /// Puts back a block that nobody had; gives what is known of it.
    pub fn failed(&mut self, now: Time, entry: &EntryId) -> Option<Fetch> {
        let fetch = self.by_entry.get_mut(entry)?;
        fetch.failures = fetch.failures.saturating_add(1);
        let at = now + fetch.pause;
        fetch.pause = fetch.pause.doubled(PAUSE_LONGEST);
        let failed = *fetch;
        self.postpone(*entry, at);
        Some(failed)
    }

    /// Puts back a block for which there is nobody to ask.
    pub fn park(&mut self, now: Time, entry: EntryId) {
        self.postpone(entry, now + PAUSE_LONGEST);
    }

    /// Lets every block that a store misses be asked for at once: somebody new may have it.
    pub fn hasten(&mut self, now: Time, group: &GroupId, kind: StoreKind) {
        self.hasten_those(now, |fetch| fetch.group == *group && fetch.kind == kind);
    }

    /// Lets every block be asked for at once.
    pub fn hasten_all(&mut self, now: Time) {
        self.hasten_those(now, |_| true);
    }

    /// The same for what a store misses, while the pauses go on growing: somebody known may have it by now.
    pub fn bring_forward(&mut self, now: Time, group: &GroupId, kind: StoreKind) {
        let of_store = |fetch: &Fetch| fetch.group == *group && fetch.kind == kind;
        let resting = self.by_entry.iter().filter(|(_, fetch)| of_store(fetch) && fetch.due > Some(now));
        let resting: Vec<_> = resting.map(|(id, _)| *id).collect();
        for entry in resting {
            self.postpone(entry, now);
        }
    }

    fn hasten_those(&mut self, now: Time, which: impl Fn(&Fetch) -> bool) {
        let resting = self.by_entry.iter().filter(|(_, fetch)| which(fetch) && fetch.due.is_some());
        let resting: Vec<_> = resting.map(|(id, _)| *id).collect();
        for entry in resting {
            if let Some(fetch) = self.by_entry.get_mut(&entry) {
                fetch.pause = PAUSE_FIRST;
            }
            self.postpone(entry, now);
        }
    }

    /// Forgets what a group misses; gives what is being asked for.
    pub fn forget(&mut self, group: &GroupId) -> Vec<EntryId> {
        let forgotten: Vec<_> = self.by_entry.extract_if(.., |_, fetch| fetch.group == *group).collect();
        for (entry, fetch) in &forgotten {
            if let Some(at) = fetch.due {
                self.due.remove(&(at, *entry));
            }
        }
        forgotten.into_iter().filter(|(_, fetch)| fetch.due.is_none()).map(|(entry, _)| entry).collect()
    }

    /// When the next block may be asked for.
    pub fn timeout(&self) -> Option<Time> {
        if self.in_flight() >= FETCH_IN_FLIGHT_MAX {
            return None;
        }
        self.due.first().map(|(at, _)| *at)
    }

    fn in_flight(&self) -> usize {
        self.by_entry.len().saturating_sub(self.due.len())
    }

    fn postpone(&mut self, entry: EntryId, at: Time) {
        let Some(fetch) = self.by_entry.get_mut(&entry) else { return };
        if let Some(before) = fetch.due.replace(at) {
            self.due.remove(&(before, entry));
        }
        self.due.insert((at, entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupId {
        GroupId::new(dunlin_base::SecretKey::from_seed([1; 32]).public())
    }

    fn entry(number: u8) -> EntryId {
        EntryId::of_block(&[number])
    }

    #[test]
    fn failed_fetches_back_off_and_are_hastened_by_somebody_new() {
        let mut fetches = Fetches::default();
        let start = Time::from_secs(100);
        fetches.want(start, &group(), StoreKind::Messages, vec![entry(1)]);
        assert_eq!(fetches.next(start).unwrap().0, entry(1));
        assert!(fetches.next(start).is_none(), "it is being asked for");
        assert_eq!(fetches.timeout(), None);

        assert_eq!(fetches.failed(start, &entry(1)).unwrap().failures, 1);
        assert_eq!(fetches.timeout(), Some(start + Span::from_secs(1)));
        fetches.next(start + Span::from_secs(1)).unwrap();
        fetches.failed(start + Span::from_secs(1), &entry(1));
        assert_eq!(fetches.timeout(), Some(start + Span::from_secs(3)));

        fetches.hasten(start, &group(), StoreKind::Messages);
        assert_eq!(fetches.timeout(), Some(start));
        assert!(fetches.arrived(&entry(1)).is_some());
        assert_eq!(fetches.timeout(), None);
    }

    #[test]
    fn no_more_than_the_limit_is_in_flight() {
        let mut fetches = Fetches::default();
        let many = (0..1000u32).map(|n| EntryId::of_block(&n.to_be_bytes())).collect();
        fetches.want(Time::default(), &group(), StoreKind::Messages, many);
        let asked = std::iter::from_fn(|| fetches.next(Time::default())).count();
        assert_eq!(asked, FETCH_IN_FLIGHT_MAX);
        assert_eq!(fetches.forget(&group()).len(), FETCH_IN_FLIGHT_MAX);
    }
}
