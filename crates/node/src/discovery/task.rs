//! Moves bytes and time between the schedule and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dunlin_base::{AccountId, Span};
use dunlin_ipfs::multiaddr::Protocol;
use dunlin_ipfs::{Ipfs, Multiaddr, PeerId};
use dunlin_wesh::engine::Search;
use tokio::sync::{mpsc, oneshot};

use super::driver::{Driver, SourceKind, SourceReport};
use super::rendezvous::client::Rendezvous;
use super::schedule::{ADVERTISE_TTL, Job, Outcome, Schedule, Topic};
use crate::core::now;

/// Notes and orders that may wait.
const WAITING_MAX: usize = 1024;
/// First pause before a relay is asked again for a place.
const RESERVE_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause, and how often a place that we have is looked at.
const RESERVE_LONGEST: Duration = Duration::from_secs(30);
/// How often there is a look at whether a place at a relay is still ours.
const RESERVED_LOOK: Duration = Duration::from_secs(5);
/// How long a relay may take to answer.
const RESERVE_MAX: Duration = Duration::from_secs(30);
/// The longest that a refresh waits.
const REFRESH_LONGEST: Duration = Duration::from_secs(600);
/// Refreshes that may wait.
const REFRESHES_MAX: usize = 64;
/// How often the peers that are worth a connection are told to the host.
const PROTECT_EVERY: Duration = Duration::from_secs(10);

/// Where to look. Nothing is contacted that is not named here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub rotation: Option<Span>,
    pub rendezvous: Vec<Multiaddr>,
    pub announce_groups: bool,
    pub dht: bool,
    pub relays: Vec<Multiaddr>,
}

/// Who was found for a contact, and where.
pub(crate) type Found = BTreeMap<PeerId, Vec<Multiaddr>>;

/// Why a contact was not looked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    #[error("no request to that contact is under way")]
    NoLookup,
    #[error("another refresh of the same contact took over")]
    Superseded,
    #[error("too many refreshes wait")]
    TooMany,
    #[error("the node has stopped")]
    Stopped,
}

/// What the rest of the node tells.
pub(crate) enum Note {
    Search(Search),
    Group {
        topic: String,
        on: bool,
    },
    Connected(PeerId),
    Disconnected(PeerId),
    /// The addresses of this node have changed.
    Moved,
    /// Peers that speak for a device of a contact or of a group's member.
    Speakers(BTreeSet<PeerId>),
    Refresh {
        account: AccountId,
        timeout: Duration,
        reply: oneshot::Sender<Result<Found, RefreshError>>,
    },
    Report(oneshot::Sender<Vec<SourceReport>>),
    Relay {
        number: usize,
        error: Option<String>,
    },
}

/// Speaks with the task.
#[derive(Clone)]
pub(crate) struct Discovery {
    notes: mpsc::Sender<Note>,
}

/// Told when a peer is connected that somebody says is found under names.
pub(crate) type OnFound =
    Box<dyn Fn(PeerId, Vec<String>) -> futures::future::BoxFuture<'static, ()> + Send + Sync>;

impl Discovery {
    /// Starts the task. It ends with the last handle.
    pub fn start(ipfs: Ipfs, setup: Setup, on_found: OnFound) -> Self {
        let (notes, told) = mpsc::channel(WAITING_MAX);
        let mut drivers: Vec<Arc<dyn Driver>> = Vec::new();
        for address in setup.rendezvous {
            match Rendezvous::new(ipfs.clone(), address.clone(), setup.announce_groups) {
                Some(server) => drivers.push(Arc::new(server)),
                None => tracing::warn!("a rendezvous server without a peer id is left out"),
            }
        }
        if setup.dht {
            drivers.push(Arc::new(super::dht::Dht { ipfs: ipfs.clone() }));
        }
        let mut schedule = Schedule::new(setup.rotation);
        for driver in &drivers {
            let report = SourceReport::new(driver.kind(), driver.place());
            schedule.add_source(report, driver.server(), driver.takes_groups());
        }
        let mut relays = Vec::new();
        for (number, relay) in setup.relays.into_iter().enumerate() {
            relays.push(SourceReport::new(SourceKind::Relay, relay.to_string()));
            tokio::spawn(keep_place(ipfs.clone(), relay, number, notes.downgrade()));
        }
        let (outcomes, finished) = mpsc::channel(WAITING_MAX);
        let (dialled, dials) = mpsc::channel(WAITING_MAX);
        let task = Task {
            ipfs,
            drivers,
            schedule,
            relays,
            speakers: BTreeSet::new(),
            refreshes: BTreeMap::new(),
            on_found,
            outcomes,
            dialled,
        };
        tokio::spawn(task.run(told, finished, dials));
        Self { notes }
    }

    /// Tells something; the task is never long busy.
    pub async fn tell(&self, note: Note) {
        // The task ends only with the node.
        let _ = self.notes.send(note).await;
    }

    /// Looks for a contact at once; returns those found that are connected, as soon as there is one.
    pub async fn refresh(&self, account: AccountId, timeout: Duration) -> Result<Found, RefreshError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Note::Refresh { account, timeout: timeout.min(REFRESH_LONGEST), reply }).await;
        answer.await.unwrap_or(Err(RefreshError::Stopped))
    }

    /// What each source has come to.
    pub async fn report(&self) -> Vec<SourceReport> {
        let (reply, answer) = oneshot::channel();
        self.tell(Note::Report(reply)).await;
        answer.await.unwrap_or_default()
    }
}

struct Refresh {
    until: tokio::time::Instant,
    reply: oneshot::Sender<Result<Found, RefreshError>>,
}

struct Task {
    ipfs: Ipfs,
    drivers: Vec<Arc<dyn Driver>>,
    schedule: Schedule,
    relays: Vec<SourceReport>,
    speakers: BTreeSet<PeerId>,
    refreshes: BTreeMap<AccountId, Refresh>,
    on_found: OnFound,
    outcomes: mpsc::Sender<(Job, Outcome)>,
    dialled: mpsc::Sender<(PeerId, bool)>,
}

impl Task {
    async fn run(
        mut self,
        mut told: mpsc::Receiver<Note>,
        mut finished: mpsc::Receiver<(Job, Outcome)>,
        mut dials: mpsc::Receiver<(PeerId, bool)>,
    ) {
        let mut protecting = tokio::time::interval(PROTECT_EVERY);
        loop {
            self.advance();
            let wait = self.schedule.timeout(now()).map(|due| due.since(now()).as_millis());
            let refresh = self.refreshes.values().map(|refresh| refresh.until).min();
            tokio::select! {
                note = told.recv() => match note {
                    Some(note) => self.note(note),
                    None => return,
                },
                Some((job, outcome)) = finished.recv() => self.finish(job, outcome),
                Some((peer, reached)) = dials.recv() => self.schedule.dialled(now(), peer, reached),
                () = sleep(wait.map(Duration::from_millis)) => {}
                () = sleep_until(refresh) => {}
                _ = protecting.tick() => {
                    let mut peers = self.schedule.servers();
                    peers.extend(self.speakers.iter().copied());
                    peers.extend(self.relays.iter().filter_map(|relay| peer_in(&relay.place)));
                    // A host that has stopped protects nobody.
                    let _ = self.ipfs.protect(peers).await;
                }
            }
        }
    }

    /// Does what is due.
    fn advance(&mut self) {
        self.schedule.handle_timeout(now());
        while let Some(job) = self.schedule.poll_job(now()) {
            let Some(driver) = self.drivers.get(job.source()).cloned() else { continue };
            let outcomes = self.outcomes.clone();
            tokio::spawn(async move {
                let outcome = work(&*driver, &job).await;
                // When the task is over, nobody asks for the outcome.
                let _ = outcomes.send((job, outcome)).await;
            });
        }
        while let Some((peer, addresses)) = self.schedule.poll_dial(now()) {
            let (ipfs, dialled) = (self.ipfs.clone(), self.dialled.clone());
            tokio::spawn(async move {
                let outcome = ipfs.dial_peer(peer, addresses).await;
                if let Err(error) = &outcome {
                    tracing::debug!(%error, "a peer that was found cannot be reached");
                }
                let _ = dialled.send((peer, outcome.is_ok())).await;
            });
        }
        let clock = tokio::time::Instant::now();
        let over: Vec<_> = self
            .refreshes
            .iter()
            .filter(|(account, refresh)| {
                refresh.until <= clock
                    || !self.schedule.is_sought(account)
                    || !self.schedule.reached(account).is_empty()
            })
            .map(|(account, _)| *account)
            .collect();
        for account in over {
            if let Some(refresh) = self.refreshes.remove(&account) {
                // The caller may have stopped waiting.
                let _ = refresh.reply.send(Ok(self.schedule.reached(&account)));
            }
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Search(search) => self.schedule.set_search(now(), search),
            Note::Group { topic, on } => self.schedule.set_group(now(), topic, on),
            Note::Connected(peer) => {
                self.schedule.connected(now(), peer);
                self.tell_names(peer);
            }
            Note::Disconnected(peer) => self.schedule.disconnected(now(), peer),
            Note::Moved => self.schedule.moved(now()),
            Note::Speakers(speakers) => self.speakers = speakers,
            Note::Refresh { account, timeout, reply } => self.refresh(account, timeout, reply),
            Note::Report(reply) => {
                let mut reports = self.schedule.reports();
                reports.extend(self.relays.iter().cloned());
                // The caller may have stopped waiting.
                let _ = reply.send(reports);
            }
            Note::Relay { number, error } => {
                if let Some(relay) = self.relays.get_mut(number) {
                    relay.announced = usize::from(error.is_none());
                    relay.error = error.map(|error| (error, now()));
                }
            }
        }
    }

    fn refresh(
        &mut self,
        account: AccountId,
        timeout: Duration,
        reply: oneshot::Sender<Result<Found, RefreshError>>,
    ) {
        // The caller may have stopped waiting, here and below.
        if !self.schedule.refresh(now(), &account) {
            return drop(reply.send(Err(RefreshError::NoLookup)));
        }
        if self.drivers.is_empty() {
            return drop(reply.send(Ok(Found::new())));
        }
        if self.refreshes.len() >= REFRESHES_MAX && !self.refreshes.contains_key(&account) {
            return drop(reply.send(Err(RefreshError::TooMany)));
        }
        let refresh = Refresh { until: tokio::time::Instant::now() + timeout, reply };
        if let Some(before) = self.refreshes.insert(account, refresh) {
            let _ = before.reply.send(Err(RefreshError::Superseded));
        }
    }

    fn finish(&mut self, job: Job, outcome: Outcome) {
        let found: Vec<PeerId> = match &outcome {
            Outcome::Found(found) => found.iter().map(|sighted| sighted.peer).collect(),
            _ => Vec::new(),
        };
        let account = match &job {
            Job::Find { topic: Topic::Contact(account), .. } => Some(*account),
            _ => None,
        };
        self.schedule.conclude(now(), job, outcome);
        for peer in found.into_iter().filter(|peer| self.ipfs.is_connected(peer)) {
            self.schedule.connected(now(), peer);
        }
        // Those too who were found before: the engine may have started over since.
        for peer in account.into_iter().flat_map(|account| self.schedule.reached(&account).into_keys()) {
            self.tell_names(peer);
        }
    }

    /// Does not wait: whoever is told may wait for this task.
    fn tell_names(&self, peer: PeerId) {
        let names = self.schedule.contact_names_of(now(), &peer);
        if !names.is_empty() {
            tokio::spawn((self.on_found)(peer, names));
        }
    }
}

async fn work(driver: &dyn Driver, job: &Job) -> Outcome {
    let outcome = match job {
        Job::Advertise { name, .. } => driver.advertise(name, ADVERTISE_TTL).await.map(Outcome::Advertised),
        Job::Find { name, all, .. } => driver.find(name, *all).await.map(Outcome::Found),
        Job::Withdraw { name, .. } => driver.withdraw(name).await.map(|()| Outcome::Withdrawn),
    };
    outcome.unwrap_or_else(Outcome::Failed)
}

/// Keeps a place at a relay.
async fn keep_place(ipfs: Ipfs, relay: Multiaddr, number: usize, notes: mpsc::WeakSender<Note>) {
    let mut pause = RESERVE_FIRST;
    let Some(Protocol::P2p(peer)) = relay.iter().last() else {
        return tracing::warn!("a relay without a peer id is left out");
    };
    loop {
        // A request for a place would dial by itself, and be lost if somebody else dials at the same time.
        if !ipfs.is_connected(&peer) {
            let Some(notes) = notes.upgrade() else { return };
            let error = Some("the relay is not connected".to_owned());
            // The task ends only with the node, here and below.
            let _ = notes.send(Note::Relay { number, error }).await;
        } else if !has_place(&ipfs, &relay) {
            let reserved = tokio::time::timeout(RESERVE_MAX, ipfs.reserve(relay.clone())).await;
            let error = match reserved {
                Ok(Ok(())) => None,
                Ok(Err(dunlin_ipfs::ReserveError::Stopped(_))) => return,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the relay does not answer".to_owned()),
            };
            pause = if error.is_none() { RESERVE_FIRST } else { (pause * 2).min(RESERVE_LONGEST) };
            let Some(notes) = notes.upgrade() else { return };
            let _ = notes.send(Note::Relay { number, error }).await;
        }
        if notes.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(if has_place(&ipfs, &relay) { RESERVED_LOOK } else { pause }).await;
    }
}

fn has_place(ipfs: &Ipfs, relay: &Multiaddr) -> bool {
    let Some(Protocol::P2p(peer)) = relay.iter().last() else { return false };
    let through = |address: &Multiaddr| {
        let mut parts = address.iter();
        parts.any(|part| part == Protocol::P2p(peer)) && parts.next() == Some(Protocol::P2pCircuit)
    };
    ipfs.listen_addresses().iter().any(through)
}

fn peer_in(address: &str) -> Option<PeerId> {
    match address.parse::<Multiaddr>().ok()?.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
