//! Who floods a group with entries that do not count, and is asked for less (`spec/security.md` O7).
//!
//! This is backpressure and no verdict: what an entry is worth hangs on its bytes and its past alone, and not on who
//! brought it or when.
//!
//! # Who is held to it
//!
//! All who write to a log sign with the key of its group, so an entry that does not count names no device. What is counted
//! is what a *host* brings into a log: blocks that it served and entries that it showed as heads, when they are quarantined or
//! refused. An honest host stores what is quarantined and serves it when it is asked, so a hostile member can have its entries
//! counted against somebody who only hands them on. Therefore whoever is beyond the quota is not shut out:
//!
//! - the count holds for one group alone, and ends [`QUARANTINE_WINDOW`] after it began;
//! - blocks are asked of the others on the topic, and what was asked of it already is asked again, of them;
//! - where nobody else is there, it is asked for one block at a time, and after each that does not count it rests as long as its
//!   part of the quota would have lasted. So it brings twice the quota in a window at most, while what counts goes on at the
//!   pace of one block after the other.
//!
//! All of it is in memory: whoever restarts begins to count anew, and has to be flooded anew.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::{EntryId, GroupId, PeerId, Span, Time};

use super::fetches::{FETCHES_MAX, Wanter};

/// Entries that do not count which a host may bring into a group in [`QUARANTINE_WINDOW`]. Honest members make none, so this is
/// what one hostile member among them may have handed on.
pub const QUARANTINED_ENTRIES_MAX: u64 = 1_000;
/// The same in bytes: a few of the largest entries, and more than a thousand usual ones.
pub const QUARANTINED_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How long a count holds, from its first entry.
pub const QUARANTINE_WINDOW: Span = Span::from_secs(24 * 3600);
/// Counts that are kept, each of one host in one group: more than the members of all groups that anybody is in. The one that
/// began first makes room.
const TALLIES_MAX: usize = 4096;
/// Entries of which is remembered who brought them until they join, and turn out to be replays or not (V8): several times the
/// quota. Others count against nobody.
const UNJOINED_MAX: usize = 4096;

/// What a host brought into a group.
#[derive(Debug)]
struct Tally {
    since: Time,
    entries: u64,
    bytes: u64,
    /// Until when it is asked for nothing, not even where it is alone.
    rests_until: Time,
    /// What it is asked for, where it is alone.
    asked: Option<EntryId>,
}

impl Tally {
    fn end(&self) -> Time {
        self.since + QUARANTINE_WINDOW
    }

    fn is_over(&self, now: Time) -> bool {
        let is_much = self.entries > QUARANTINED_ENTRIES_MAX || self.bytes > QUARANTINED_BYTES_MAX;
        is_much && now < self.end()
    }
}

/// Blocks of a group that only hosts beyond the quota may have.
#[derive(Debug, Default)]
struct Parked {
    entries: BTreeSet<EntryId>,
    /// When one of them may be asked for; `None` while all of these hosts are being asked.
    wake: Option<Time>,
}

/// All counts.
#[derive(Debug, Default)]
pub(super) struct Flood {
    tallies: BTreeMap<(GroupId, PeerId), Tally>,
    unjoined: BTreeMap<(GroupId, EntryId), PeerId>,
    parked: BTreeMap<GroupId, Parked>,
}

impl Flood {
    /// Counts an entry that does not count; says whether its host is beyond the quota from now on.
    pub fn note(&mut self, now: Time, group: &GroupId, peer: &PeerId, bytes: usize) -> bool {
        let key = (*group, peer.clone());
        let before = self.tallies.get(&key);
        if before.is_none_or(|tally| now >= tally.end()) {
            let asked = before.and_then(|tally| tally.asked);
            if before.is_none() {
                self.make_room();
            }
            let nothing = Tally { since: now, entries: 0, bytes: 0, rests_until: now, asked };
            self.tallies.insert(key.clone(), nothing);
        }
        let Some(tally) = self.tallies.get_mut(&key) else { return false };
        let was_over = tally.is_over(now);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        tally.entries = tally.entries.saturating_add(1);
        tally.bytes = tally.bytes.saturating_add(bytes);
        if was_over {
            tally.rests_until = tally.rests_until.max(now) + share_of_window(bytes);
        }
        !was_over && tally.is_over(now)
    }

    /// Remembers who brought an entry, until [`Self::joined`].
    pub fn note_unjoined(&mut self, group: &GroupId, entry: EntryId, peer: &PeerId) {
        if self.unjoined.len() < UNJOINED_MAX {
            self.unjoined.insert((*group, entry), peer.clone());
        }
    }

    /// Who brought an entry that joins now, as far as is known.
    pub fn joined(&mut self, group: &GroupId, entry: &EntryId) -> Option<PeerId> {
        self.unjoined.remove(&(*group, *entry))
    }

    /// Whether somebody else is to be asked.
    pub fn is_over(&self, now: Time, group: &GroupId, peer: &PeerId) -> bool {
        let tally = if self.tallies.is_empty() { None } else { self.tallies.get(&(*group, peer.clone())) };
        tally.is_some_and(|tally| tally.is_over(now))
    }

    /// Whom to ask for a block that none but these hosts beyond the quota may have. Nobody, if each of them is being asked or
    /// rests: then [`Self::resume`] gives the block when it is time.
    pub fn ask_alone(&mut self, now: Time, entry: EntryId, hosts: &[(GroupId, PeerId)]) -> Vec<PeerId> {
        let mut asked = Vec::new();
        for host in hosts {
            let Some(tally) = self.tallies.get_mut(host) else { continue };
            if tally.asked.is_none() && tally.rests_until <= now {
                tally.asked = Some(entry);
                asked.push(host.1.clone());
            }
        }
        if !asked.is_empty() {
            return asked;
        }
        let places: usize = self.parked.values().map(|parked| parked.entries.len()).sum();
        for host in hosts {
            let Some(tally) = self.tallies.get(host) else { continue };
            let parked = self.parked.entry(host.0).or_default();
            if places < FETCHES_MAX {
                parked.entries.insert(entry);
            }
            if tally.asked.is_none() {
                let again = tally.rests_until.min(tally.end());
                parked.wake = Some(parked.wake.map_or(again, |wake| wake.min(again)));
            }
        }
        asked
    }

    /// Notes that a block came, or that nobody had it: whoever was asked for it alone may be asked for the next.
    pub fn answered(&mut self, entry: &EntryId, wanters: &[Wanter]) {
        if self.parked.is_empty() && self.tallies.is_empty() {
            return;
        }
        for wanter in wanters {
            let of_group = self.tallies.iter_mut().filter(|((group, _), _)| *group == wanter.group);
            for (_, tally) in of_group.filter(|(_, tally)| tally.asked == Some(*entry)) {
                tally.asked = None;
                if let Some(parked) = self.parked.get_mut(&wanter.group) {
                    let again = tally.rests_until.min(tally.end());
                    parked.wake = Some(parked.wake.map_or(again, |wake| wake.min(again)));
                }
            }
        }
    }

    /// Blocks that may be asked for now: one of a group whose hosts may be asked again, all where nobody is beyond the quota any more.
    pub fn resume(&mut self, now: Time) -> Vec<EntryId> {
        let mut freed = Vec::new();
        for (group, parked) in &mut self.parked {
            if parked.wake.is_none_or(|wake| wake > now) {
                continue;
            }
            parked.wake = None;
            let is_flooded = self.tallies.iter().any(|((of, _), tally)| of == group && tally.is_over(now));
            if is_flooded {
                freed.extend(parked.entries.pop_first());
            } else {
                freed.extend(std::mem::take(&mut parked.entries));
            }
        }
        self.parked.retain(|_, parked| !parked.entries.is_empty());
        freed
    }

    /// When [`Self::resume`] has something.
    pub fn timeout(&self) -> Option<Time> {
        self.parked.values().filter_map(|parked| parked.wake).min()
    }

    /// Forgets what was under way for a group. What was counted stays.
    pub fn forget(&mut self, group: &GroupId) {
        self.parked.remove(group);
        self.unjoined.retain(|(of, _), _| of != group);
        for (_, tally) in self.tallies.iter_mut().filter(|((of, _), _)| of == group) {
            tally.asked = None;
        }
    }

    /// Begins to count anew: the clock was set back. What waits is found again by whoever asks for it.
    pub fn clear(&mut self) {
        self.tallies.clear();
        self.parked.clear();
    }

    fn make_room(&mut self) {
        if self.tallies.len() < TALLIES_MAX {
            return;
        }
        let first = self.tallies.iter().min_by_key(|(_, tally)| tally.since).map(|(key, _)| key.clone());
        if let Some(first) = first {
            self.tallies.remove(&first);
        }
    }
}

/// How long the quota lasts for an entry of so many bytes, when it is used up evenly.
fn share_of_window(bytes: u64) -> Span {
    let window = QUARANTINE_WINDOW.as_millis();
    let for_one = window.checked_div(QUARANTINED_ENTRIES_MAX).unwrap_or(window);
    let for_bytes = bytes.saturating_mul(window).checked_div(QUARANTINED_BYTES_MAX).unwrap_or(window);
    Span::from_millis(for_one.max(for_bytes).min(window))
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;
    use crate::engine::StoreKind;

    const NOW: Time = Time::from_secs(1_000_000);

    fn host(number: u8) -> PeerId {
        PeerId::from_array([number; 34])
    }

    fn group(number: u8) -> GroupId {
        GroupId::new(SecretKey::from_seed([number; 32]).public())
    }

    fn entry(number: u8) -> EntryId {
        EntryId::of_block(&[number])
    }

    fn flooded(group: &GroupId, host: &PeerId) -> Flood {
        let mut flood = Flood::default();
        for number in 0..=QUARANTINED_ENTRIES_MAX {
            assert!(!flood.is_over(NOW, group, host));
            assert_eq!(flood.note(NOW, group, host, 100), number == QUARANTINED_ENTRIES_MAX);
        }
        flood
    }

    #[test]
    fn the_quota_is_one_of_entries_and_one_of_bytes_and_ends_with_its_window() {
        let (here, there) = (group(1), group(2));
        let flood = flooded(&here, &host(1));
        assert!(flood.is_over(NOW, &here, &host(1)));
        assert!(!flood.is_over(NOW, &there, &host(1)), "it holds for one group");
        assert!(!flood.is_over(NOW, &here, &host(2)));
        assert!(!flood.is_over(NOW + QUARANTINE_WINDOW, &here, &host(1)));

        let mut flood = Flood::default();
        let crossings = (0..8).filter(|_| flood.note(NOW, &here, &host(1), 2 * 1024 * 1024)).count();
        assert_eq!(crossings, 1, "it is said once");
        assert!(flood.is_over(NOW, &here, &host(1)));
        flood.note(NOW + QUARANTINE_WINDOW, &here, &host(1), 1);
        assert!(!flood.is_over(NOW + QUARANTINE_WINDOW, &here, &host(1)), "a new window begins");
    }

    /// Where nobody else is there, what counts goes on, and what does not costs its share of the quota.
    #[test]
    fn whoever_is_alone_is_asked_for_one_block_at_a_time_and_rests_after_bad_ones() {
        let here = group(1);
        let mut flood = flooded(&here, &host(1));
        let hosts = [(here, host(1))];
        let wanters = [Wanter { group: here, kind: StoreKind::Messages, failures: 0 }];
        assert_eq!(flood.ask_alone(NOW, entry(1), &hosts), [host(1)]);
        for number in 2..5 {
            assert!(flood.ask_alone(NOW, entry(number), &hosts).is_empty());
        }
        assert_eq!((flood.timeout(), flood.resume(NOW)), (None, Vec::new()), "it is being asked");

        // A good one came: the next.
        flood.answered(&entry(1), &wanters);
        let [next] = flood.resume(NOW)[..] else { panic!("one") };
        assert_eq!(flood.ask_alone(NOW, next, &hosts), [host(1)]);
        // A bad one came.
        flood.note(NOW, &here, &host(1), 1024 * 1024);
        flood.answered(&next, &wanters);
        let again = flood.timeout().unwrap();
        assert_eq!(again.since(NOW), Span::from_secs(24 * 3600 / 10));
        assert!(flood.resume(NOW).is_empty());
        assert_eq!(flood.resume(again).len(), 1);
        assert_eq!(flood.timeout(), None);

        // The window ends while it rests.
        let mut flood = flooded(&here, &host(1));
        flood.note(NOW, &here, &host(1), 11 * 1024 * 1024);
        assert!((1..4).all(|number| flood.ask_alone(NOW, entry(number), &hosts).is_empty()));
        assert_eq!(flood.timeout(), Some(NOW + QUARANTINE_WINDOW));
        assert_eq!(flood.resume(NOW + QUARANTINE_WINDOW).len(), 3);
    }

    #[test]
    fn what_is_counted_has_a_bound() {
        let mut flood = Flood::default();
        for number in 0..TALLIES_MAX as u32 + 10 {
            let mut bytes = [0; 34];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let peer = PeerId::from_array(bytes);
            let now = NOW + Span::from_secs(number.into());
            flood.note(now, &group(1), &peer, 1);
            flood.note_unjoined(&group(1), EntryId::of_block(&number.to_be_bytes()), &peer);
        }
        assert_eq!((flood.tallies.len(), flood.unjoined.len()), (TALLIES_MAX, UNJOINED_MAX));
        assert!(flood.tallies.values().all(|tally| tally.since >= NOW + Span::from_secs(10)));
        flood.forget(&group(1));
        assert_eq!(flood.unjoined.len(), 0);
    }
}
