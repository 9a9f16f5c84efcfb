//! Blocks that logs miss: which are asked for, and when the others will be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_base::planted::{self, Bug};
use dunlin_base::{EntryId, GroupId, Span, Time};

use super::StoreKind;

/// Blocks that may be asked for at once. `spec/security.md` O5 allows 64 a peer; the shell asks one peer
/// for a block, so this keeps four busy.
pub const FETCH_IN_FLIGHT_MAX: usize = 256;
/// Blocks known to be missing that are remembered, each for each log that misses it (`spec/security.md` O5); more are
/// found again in the log.
pub const FETCHES_MAX: usize = 100_000;
/// How long a block is waited for before it is asked for again, at first.
const PAUSE_FIRST: Span = Span::from_secs(1);
/// The longest such wait (`spec/security.md` O4).
const PAUSE_LONGEST: Span = Span::from_secs(3600);

/// A log that misses a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Wanter {
    pub group: GroupId,
    pub kind: StoreKind,
    /// How often nobody had the block.
    pub failures: u8,
}

impl Wanter {
    fn is(&self, group: &GroupId, kind: StoreKind) -> bool {
        self.group == *group && self.kind == kind
    }
}

/// A block that is missed. A name says nothing about the log to which its block belongs, and any member of any group can
/// name any block: so whoever wants it is served by its arrival, and none has to wait for what another one was told.
#[derive(Debug)]
struct Fetch {
    wanters: Vec<Wanter>,
    pause: Span,
    /// When to ask; `None` while the shell is being asked.
    due: Option<Time>,
}

/// What the shell is to ask for, and whose peers.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Ask {
    pub entry: EntryId,
    pub wanters: Vec<Wanter>,
    /// It is being asked for already, of the peers of others.
    pub is_further: bool,
}

/// All blocks that are missed, with those that may be asked for in the order of time.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    by_entry: BTreeMap<EntryId, Fetch>,
    due: BTreeSet<(Time, EntryId)>,
    /// Those that are being asked for and that somebody else turned out to want.
    further: VecDeque<(EntryId, Wanter)>,
    /// All that want something, counted.
    wanters: usize,
}

impl Fetches {
    /// How many blocks are asked for or will be.
    pub fn len(&self) -> usize {
        self.by_entry.len()
    }

    /// Adds what is missed, as far as there is room.
    pub fn want(&mut self, now: Time, group: &GroupId, kind: StoreKind, missing: Vec<EntryId>) {
        for entry in missing {
            if self.wanters >= FETCHES_MAX || planted::is(Bug::NothingFetched) {
                return;
            }
            let wanter = Wanter { group: *group, kind, failures: 0 };
            match self.by_entry.get_mut(&entry) {
                Some(fetch) if fetch.wanters.iter().any(|other| other.is(group, kind)) => continue,
                Some(fetch) => {
                    fetch.wanters.push(wanter);
                    fetch.pause = PAUSE_FIRST;
                    match fetch.due {
                        Some(_) => self.postpone(entry, now),
                        None => self.further.push_back((entry, wanter)),
                    }
                }
                None => {
                    let fetch = Fetch { wanters: vec![wanter], pause: PAUSE_FIRST, due: Some(now) };
                    self.by_entry.insert(entry, fetch);
                    self.due.insert((now, entry));
                }
            }
            self.wanters = self.wanters.saturating_add(1);
        }
    }

    /// The next block to ask for, if one is due and not too many are being asked for. It counts as asked.
    pub fn next(&mut self, now: Time) -> Option<Ask> {
        while let Some((entry, wanter)) = self.further.pop_front() {
            let wants = |fetch: &Fetch| {
                fetch.due.is_none() && fetch.wanters.iter().any(|other| other.is(&wanter.group, wanter.kind))
            };
            if self.by_entry.get(&entry).is_some_and(wants) {
                return Some(Ask { entry, wanters: vec![wanter], is_further: true });
            }
        }
        if !self.has_room() {
            return None;
        }
        let (at, entry) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.due.remove(&(at, entry));
        let fetch = self.by_entry.get_mut(&entry)?;
        fetch.due = None;
        Some(Ask { entry, wanters: fetch.wanters.clone(), is_further: false })
    }

    /// The logs for which the shell is asked for a block.
    pub fn asked(&self, entry: &EntryId) -> &[Wanter] {
        let fetch = self.by_entry.get(entry).filter(|fetch| fetch.due.is_none());
        fetch.map_or(&[], |fetch| &fetch.wanters)
    }

    /// Takes out a block that arrived; gives the logs that want it.
    pub fn arrived(&mut self, entry: &EntryId) -> Vec<Wanter> {
        let Some(fetch) = self.by_entry.remove(entry) else { return Vec::new() };
        if let Some(at) = fetch.due {
            self.due.remove(&(at, *entry));
        }
        self.wanters = self.wanters.saturating_sub(fetch.wanters.len());
        fetch.wanters
    }

    /// Puts back a block that nobody had; gives the logs that want it.
    pub fn failed(&mut self, now: Time, entry: &EntryId) -> Vec<Wanter> {
        let Some(fetch) = self.by_entry.get_mut(entry) else { return Vec::new() };
        for wanter in &mut fetch.wanters {
            wanter.failures = wanter.failures.saturating_add(1);
        }
        let at = now + fetch.pause;
        fetch.pause = fetch.pause.doubled(PAUSE_LONGEST);
        let failed = fetch.wanters.clone();
        if planted::is(Bug::FetchForgotten) {
            return self.arrived(entry);
        }
        self.postpone(*entry, at);
        failed
    }

    /// Puts back a block for which there is nobody to ask.
    pub fn park(&mut self, now: Time, entry: EntryId) {
        self.postpone(entry, now + PAUSE_LONGEST);
    }

    /// Lets a block be asked for at once, if it waits.
    pub fn resume(&mut self, now: Time, entry: EntryId) {
        if self.by_entry.get(&entry).is_some_and(|fetch| fetch.due > Some(now)) {
            self.postpone(entry, now);
        }
    }

    /// Puts back what is being asked for and a group misses, to be asked for again, of others. Gives which blocks these are.
    pub fn ask_again(&mut self, now: Time, group: &GroupId) -> Vec<EntryId> {
        let of_group =
            |fetch: &Fetch| fetch.due.is_none() && fetch.wanters.iter().any(|wanter| wanter.group == *group);
        let asked = self.by_entry.iter().filter(|(_, fetch)| of_group(fetch));
        let asked: Vec<_> = asked.map(|(entry, _)| *entry).collect();
        for entry in &asked {
            self.postpone(*entry, now);
        }
        asked
    }

    /// Lets every block that a store misses be asked for at once: somebody new may have it.
    pub fn hasten(&mut self, now: Time, group: &GroupId, kind: StoreKind) {
        self.hasten_those(now, |fetch| fetch.wanters.iter().any(|wanter| wanter.is(group, kind)));
    }

    /// Lets every block be asked for at once.
    pub fn hasten_all(&mut self, now: Time) {
        self.hasten_those(now, |_| true);
    }

    /// The same for what a store misses, while the pauses go on growing: somebody known may have it by now.
    pub fn bring_forward(&mut self, now: Time, group: &GroupId, kind: StoreKind) {
        let of_store = |fetch: &Fetch| fetch.wanters.iter().any(|wanter| wanter.is(group, kind));
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
        for fetch in self.by_entry.values_mut() {
            let before = fetch.wanters.len();
            fetch.wanters.retain(|wanter| wanter.group != *group);
            self.wanters = self.wanters.saturating_sub(before.saturating_sub(fetch.wanters.len()));
        }
        let forgotten: Vec<_> = self.by_entry.extract_if(.., |_, fetch| fetch.wanters.is_empty()).collect();
        for (entry, fetch) in &forgotten {
            if let Some(at) = fetch.due {
                self.due.remove(&(at, *entry));
            }
        }
        forgotten.into_iter().filter(|(_, fetch)| fetch.due.is_none()).map(|(entry, _)| entry).collect()
    }

    /// When the next block may be asked for.
    pub fn timeout(&self) -> Option<Time> {
        if !self.has_room() {
            return None;
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether another block may be asked for.
    pub fn has_room(&self) -> bool {
        self.in_flight() < FETCH_IN_FLIGHT_MAX
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
        assert_eq!(fetches.next(start).unwrap().entry, entry(1));
        assert!(fetches.next(start).is_none(), "it is being asked for");
        assert_eq!(fetches.timeout(), None);

        assert_eq!(fetches.failed(start, &entry(1))[0].failures, 1);
        assert_eq!(fetches.timeout(), Some(start + Span::from_secs(1)));
        fetches.next(start + Span::from_secs(1)).unwrap();
        fetches.failed(start + Span::from_secs(1), &entry(1));
        assert_eq!(fetches.timeout(), Some(start + Span::from_secs(3)));

        fetches.hasten(start, &group(), StoreKind::Messages);
        assert_eq!(fetches.timeout(), Some(start));
        assert_eq!(fetches.arrived(&entry(1)).len(), 1);
        assert_eq!(fetches.timeout(), None);
    }

    /// Who is in two groups names a block of one of them as missing in the other, whose peers do not have it.
    #[test]
    fn a_block_that_two_logs_want_serves_both_and_neither_waits_for_the_other() {
        let (mut fetches, start) = (Fetches::default(), Time::from_secs(100));
        let (here, there) = (group(), GroupId::new(dunlin_base::SecretKey::from_seed([2; 32]).public()));
        let groups = |wanters: &[Wanter]| wanters.iter().map(|wanter| wanter.group).collect::<Vec<_>>();

        // It is being asked for: the other peers are asked at once.
        fetches.want(start, &there, StoreKind::Messages, vec![entry(1)]);
        assert_eq!(groups(&fetches.next(start).unwrap().wanters), [there]);
        fetches.want(start, &here, StoreKind::Messages, vec![entry(1)]);
        fetches.want(start, &here, StoreKind::Messages, vec![entry(1)]);
        let further = fetches.next(start).unwrap();
        assert_eq!((groups(&further.wanters), further.is_further), (vec![here], true));
        assert_eq!(fetches.next(start), None);
        assert_eq!(groups(fetches.asked(&entry(1))), [there, here]);

        // Nobody of either had it: both back off. Somebody else who wants it waits for none of that.
        assert_eq!(fetches.failed(start, &entry(1)).len(), 2);
        fetches.want(start, &here, StoreKind::Metadata, vec![entry(1)]);
        assert_eq!(groups(&fetches.next(start).unwrap().wanters), [there, here, here]);

        assert!(fetches.forget(&there).is_empty(), "others want it");
        assert_eq!(groups(&fetches.arrived(&entry(1))), [here, here]);
        assert_eq!((fetches.wanters, fetches.timeout()), (0, None));
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
