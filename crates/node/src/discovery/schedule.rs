//! Decides what each source is asked, and when, as a value: it knows the time and the network only from what
//! it is told.
//!
//! Names are made for the time at hand each time they are looked at, and never kept as truth
//! (`spec/security.md` D6): those that are no longer right are taken back, and new ones are announced and
//! looked up (D8).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dunlin_base::{AccountId, Span, Time};
use dunlin_ipfs::{Multiaddr, PeerId};
use dunlin_wesh::engine::{Findable, Search};
use dunlin_wesh::rotation;

use super::candidates::Candidates;
use super::driver::{DriverError, Sighted, SourceReport};

/// How long an announcement is asked to last (`spec/wesh-protocol.md` §6.5).
pub(super) const ADVERTISE_TTL: Duration = Duration::from_secs(7200);
/// The same as a span of time.
const ADVERTISE_SPAN: Span = Span::from_secs(7200);
/// The shortest pause before an announcement is made again, whatever lifetime a server grants.
const READVERTISE_SHORTEST: Span = Span::from_secs(60);
/// First pause after something failed, and between two looks.
const PAUSE_FIRST: Span = Span::from_secs(2);
/// Longest pause after an announcement failed.
const ADVERTISE_PAUSE_LONGEST: Span = Span::from_secs(30);
/// Longest pause between two looks (`spec/wesh-protocol.md` §6.3).
const FIND_PAUSE_LONGEST: Span = Span::from_secs(60);
/// How often the names are made anew, at the least.
const SETTLE_EVERY: Span = Span::from_secs(60);
/// Requests to one source that may be under way.
const JOBS_PER_SOURCE_MAX: usize = 4;
/// Contacts that are looked for at once; those beyond wait until others are found.
const SOUGHT_MAX: usize = 256;
/// Groups that are announced and looked for at once.
const GROUPS_MAX: usize = 1024;

/// What somebody is found or looked for by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Topic {
    /// A contact that was asked.
    Contact(AccountId),
    /// A gossip topic of a group.
    Group(String),
}

/// Something for a source to do. Answer with [`Schedule::conclude`].
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Job {
    Advertise { source: usize, name: String },
    Find { source: usize, name: String, topic: Topic, all: bool },
    Withdraw { source: usize, name: String },
}

impl Job {
    pub fn source(&self) -> usize {
        match self {
            Self::Advertise { source, .. } | Self::Find { source, .. } | Self::Withdraw { source, .. } => {
                *source
            }
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    Advertised(Duration),
    Found(Vec<Sighted>),
    Withdrawn,
    Failed(DriverError),
}

/// One name at one source.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Key {
    Advertise(usize, String),
    Find(usize, String, Topic),
}

impl Key {
    fn source(&self) -> usize {
        match self {
            Self::Advertise(source, _) | Self::Find(source, ..) => *source,
        }
    }
}

struct Task {
    due: Time,
    pause: Span,
    running: bool,
    /// Announced at the moment, or looked up once.
    done: bool,
    /// Ask for everything at the next look.
    all: bool,
}

struct Source {
    takes_groups: bool,
    server: Option<PeerId>,
    running: usize,
    report: SourceReport,
}

/// The value.
pub(super) struct Schedule {
    rotation: Option<Span>,
    sources: Vec<Source>,
    search: Search,
    groups: BTreeSet<String>,
    tasks: BTreeMap<Key, Task>,
    withdrawals: BTreeSet<(usize, String)>,
    /// Under way. The same name is announced again only after them: each request has a stream of its own, and
    /// one that overtakes would undo the other.
    withdrawing: BTreeSet<(usize, String)>,
    candidates: Candidates,
    settle_at: Time,
}

impl Schedule {
    pub fn new(rotation: Option<Span>) -> Self {
        Self {
            rotation,
            sources: Vec::new(),
            search: Search::default(),
            groups: BTreeSet::new(),
            tasks: BTreeMap::new(),
            withdrawals: BTreeSet::new(),
            withdrawing: BTreeSet::new(),
            candidates: Candidates::default(),
            settle_at: Time::default(),
        }
    }

    /// Adds a source; they are spoken of by the order in which they were added.
    pub fn add_source(&mut self, report: SourceReport, server: Option<PeerId>, takes_groups: bool) {
        self.sources.push(Source { takes_groups, server, running: 0, report });
    }

    /// Takes who is to be found from now on.
    pub fn set_search(&mut self, now: Time, mut search: Search) {
        search.sought.truncate(SOUGHT_MAX);
        self.search = search;
        self.settle(now);
    }

    /// Takes up or drops a group topic.
    pub fn set_group(&mut self, now: Time, topic: String, on: bool) {
        if !on {
            self.groups.remove(&topic);
        } else if self.groups.len() < GROUPS_MAX {
            self.groups.insert(topic);
        }
        self.settle(now);
    }

    /// Lets time pass; call at or after [`Self::timeout`].
    pub fn handle_timeout(&mut self, now: Time) {
        // Also when the clock was set back.
        if self.settle_at <= now || self.settle_at > now + SETTLE_EVERY {
            self.settle(now);
        }
    }

    /// When something is to be done; a moment in the past means at once.
    pub fn timeout(&self, now: Time) -> Option<Time> {
        if self.sources.is_empty() {
            return None;
        }
        let free = |source: usize| {
            self.sources.get(source).is_some_and(|source| source.running < JOBS_PER_SOURCE_MAX)
        };
        let tasks =
            self.tasks.iter().filter(|(key, task)| !task.running && free(key.source()) && !self.is_held(key));
        let tasks = tasks.map(|(_, task)| task.due);
        let withdrawals = self.withdrawals.iter().filter(|(source, _)| free(*source)).map(|_| now);
        let dials = self.candidates.timeout(now);
        tasks.chain(withdrawals).chain(dials).chain([self.settle_at]).min()
    }

    /// The next thing for a source to do.
    pub fn poll_job(&mut self, now: Time) -> Option<Job> {
        let free: BTreeSet<usize> = (0..)
            .zip(&self.sources)
            .filter(|(_, of)| of.running < JOBS_PER_SOURCE_MAX)
            .map(|(of, _)| of)
            .collect();
        if let Some(next) = self.withdrawals.iter().find(|(source, _)| free.contains(source)).cloned() {
            self.withdrawals.remove(&next);
            self.withdrawing.insert(next.clone());
            let (source, name) = next;
            self.begin(source);
            return Some(Job::Withdraw { source, name });
        }
        let due = self.tasks.iter().filter(|(key, task)| {
            !task.running && task.due <= now && free.contains(&key.source()) && !self.is_held(key)
        });
        let (key, _) = due.min_by_key(|(_, task)| task.due)?;
        let key = key.clone();
        self.begin(key.source());
        let task = self.tasks.get_mut(&key)?;
        task.running = true;
        Some(match key {
            Key::Advertise(source, name) => Job::Advertise { source, name },
            Key::Find(source, name, topic) => {
                let all = std::mem::take(&mut task.all);
                Job::Find { source, name, topic, all }
            }
        })
    }

    /// Takes what came of a job.
    pub fn conclude(&mut self, now: Time, job: Job, outcome: Outcome) {
        if let Job::Withdraw { source, name } = &job {
            self.withdrawing.remove(&(*source, name.clone()));
        }
        let Some(source) = self.sources.get_mut(job.source()) else { return };
        source.running = source.running.saturating_sub(1);
        match &outcome {
            Outcome::Failed(error) => {
                tracing::debug!(%error, "a source could not do what it was asked");
                source.report.error = Some((error.to_string(), now));
            }
            Outcome::Found(found) => {
                source.report.error = None;
                if !found.is_empty() {
                    source.report.found_at = Some(now);
                }
            }
            Outcome::Advertised(_) | Outcome::Withdrawn => source.report.error = None,
        }
        let key = match job {
            Job::Advertise { source, name } => Key::Advertise(source, name),
            Job::Find { source, name, topic, .. } => Key::Find(source, name, topic),
            Job::Withdraw { .. } => return,
        };
        let Some(task) = self.tasks.get_mut(&key) else {
            // It was dropped meanwhile; what was announced after all is taken back.
            if let (Key::Advertise(source, name), Outcome::Advertised(_)) = (key, outcome) {
                self.withdrawals.insert((source, name));
            }
            return;
        };
        task.running = false;
        match (outcome, &key) {
            (Outcome::Advertised(ttl), _) => {
                task.done = true;
                task.pause = PAUSE_FIRST;
                let lasts = Span::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) / 5 * 4);
                task.due = now + lasts.max(READVERTISE_SHORTEST).min(ADVERTISE_SPAN);
            }
            (Outcome::Found(found), Key::Find(source, _, topic)) => {
                task.done = true;
                task.due = now + task.pause;
                task.pause = task.pause.doubled(FIND_PAUSE_LONGEST);
                self.candidates.add(now, topic, *source, found);
            }
            _ => {
                let longest = match key {
                    Key::Advertise(..) => ADVERTISE_PAUSE_LONGEST,
                    Key::Find(..) => FIND_PAUSE_LONGEST,
                };
                // The answer may be lost, not the announcement.
                task.all = true;
                task.due = now + task.pause;
                task.pause = task.pause.doubled(longest);
            }
        }
    }

    /// The next peer to dial. Answer with [`Self::dialled`].
    pub fn poll_dial(&mut self, now: Time) -> Option<(PeerId, Vec<Multiaddr>)> {
        self.candidates.poll_dial(now, self.sources.len())
    }

    pub fn dialled(&mut self, now: Time, peer: PeerId, reached: bool) {
        self.candidates.conclude(now, peer, reached);
    }

    /// Notes that a peer is connected: what its server could not be asked before is due now.
    pub fn connected(&mut self, now: Time, peer: PeerId) {
        self.candidates.connected(peer);
        for (key, task) in &mut self.tasks {
            let server = self.sources.get(key.source()).and_then(|source| source.server);
            if server == Some(peer) && !task.running {
                task.due = task.due.min(now);
                task.pause = PAUSE_FIRST;
            }
        }
    }

    pub fn disconnected(&mut self, now: Time, peer: PeerId) {
        self.candidates.disconnected(now, peer);
    }

    /// Announces everything again: the addresses of this node have changed.
    pub fn moved(&mut self, now: Time) {
        for (key, task) in &mut self.tasks {
            if matches!(key, Key::Advertise(..)) {
                task.due = task.due.min(now);
            }
        }
    }

    /// Looks for a contact at once, everywhere; `false` if nobody looks for it.
    pub fn refresh(&mut self, now: Time, account: &AccountId) -> bool {
        if !self.search.sought.iter().any(|sought| sought.account == *account) {
            return false;
        }
        self.settle(now);
        let topic = Topic::Contact(*account);
        for (key, task) in &mut self.tasks {
            if matches!(key, Key::Find(_, _, of) if *of == topic) {
                (task.all, task.pause) = (true, PAUSE_FIRST);
                task.due = task.due.min(now);
            }
        }
        self.candidates.hasten(now, &topic);
        true
    }

    /// Whether someone is looked for.
    pub fn is_sought(&self, account: &AccountId) -> bool {
        self.search.sought.iter().any(|sought| sought.account == *account)
    }

    /// The peers that were found for a contact and are connected.
    pub fn reached(&self, account: &AccountId) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        self.candidates.connected_of(&Topic::Contact(*account))
    }

    /// The names of contact requests under which a peer is said to be found, as they are now.
    pub fn contact_names_of(&self, now: Time, peer: &PeerId) -> Vec<String> {
        let topics = self.candidates.topics_of(peer);
        let sought =
            self.search.sought.iter().filter(|sought| topics.contains(&Topic::Contact(sought.account)));
        sought
            .map(|Findable { account, seed }| {
                rotation::contact_token(account, seed, now, self.rotation).namespace()
            })
            .collect()
    }

    /// The servers among the sources.
    pub fn servers(&self) -> BTreeSet<PeerId> {
        self.sources.iter().filter_map(|source| source.server).collect()
    }

    pub fn reports(&self) -> Vec<SourceReport> {
        let report = |(number, source): (usize, &Source)| {
            let announced = self
                .tasks
                .iter()
                .filter(|(key, task)| task.done && matches!(key, Key::Advertise(of, _) if *of == number));
            SourceReport {
                announced: announced.count(),
                found: self.candidates.count(number),
                ..source.report.clone()
            }
        };
        (0..).zip(&self.sources).map(report).collect()
    }

    /// Whether a task has to wait for one that is under way.
    fn is_held(&self, key: &Key) -> bool {
        matches!(key, Key::Advertise(source, name) if self.withdrawing.contains(&(*source, name.clone())))
    }

    fn begin(&mut self, source: usize) {
        if let Some(source) = self.sources.get_mut(source) {
            source.running += 1;
        }
    }

    /// Makes the names anew, and the tasks from them.
    fn settle(&mut self, now: Time) {
        let wanted = self.wanted(now);
        let gone: Vec<_> = self.tasks.keys().filter(|key| !wanted.contains(key)).cloned().collect();
        for key in gone {
            let task = self.tasks.remove(&key);
            if let (Key::Advertise(source, name), Some(Task { done: true, running: false, .. })) = (key, task)
            {
                self.withdrawals.insert((source, name));
            }
        }
        for key in wanted {
            if let Key::Advertise(source, name) = &key {
                self.withdrawals.remove(&(*source, name.clone()));
            }
            let task = self.tasks.entry(key).or_insert(Task {
                due: now,
                pause: PAUSE_FIRST,
                running: false,
                done: false,
                all: true,
            });
            // A clock that was set back would make the wait long.
            task.due = task.due.min(now + ADVERTISE_SPAN);
        }
        let (search, groups) = (&self.search, &self.groups);
        self.candidates.prune(now, |topic| match topic {
            Topic::Contact(account) => search.sought.iter().any(|sought| sought.account == *account),
            Topic::Group(topic) => groups.contains(topic),
        });
        let period = rotation::period_end(now, self.rotation);
        self.settle_at = period.into_iter().chain([now + SETTLE_EVERY]).min().unwrap_or(now + SETTLE_EVERY);
    }

    fn wanted(&self, now: Time) -> BTreeSet<Key> {
        let mut wanted = BTreeSet::new();
        let announced = self.search.own.iter().flat_map(|Findable { account, seed }| {
            rotation::announced_contact_names(account, seed, now, self.rotation, ADVERTISE_SPAN)
        });
        let announced: Vec<_> = announced.collect();
        let sought = self.search.sought.iter().flat_map(|Findable { account, seed }| {
            let names = rotation::sought_contact_names(account, seed, now, self.rotation);
            names.into_iter().map(|name| (name, Topic::Contact(*account)))
        });
        let sought: Vec<_> = sought.collect();
        for (number, source) in (0..).zip(&self.sources) {
            wanted.extend(announced.iter().map(|name| Key::Advertise(number, name.clone())));
            wanted.extend(sought.iter().map(|(name, topic)| Key::Find(number, name.clone(), topic.clone())));
            if source.takes_groups {
                for group in &self.groups {
                    // As the gossip library of Go nodes names it.
                    let name = format!("floodsub:{group}");
                    wanted.insert(Key::Advertise(number, name.clone()));
                    wanted.insert(Key::Find(number, name, Topic::Group(group.clone())));
                }
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests;
