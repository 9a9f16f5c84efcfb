//! The one place where engine and store meet: inputs in, one transaction, then actions.
//!
//! Inputs that wait are taken together, so that many of them share a commit. Nothing leaves the node, and no
//! caller is answered, before the commit that covers it returned. When it fails, the engine has seen what
//! the disk has not: it is opened again and told once more who is connected. A group that cannot be read
//! twice within a minute is set aside, and the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dunlin_base::kv::{CommitError, Durability, ReadError, Store, Tx};
use dunlin_base::{EntryId, GroupId, PeerId, Time};
use dunlin_ipfs::{Judgement, Ticket};
use dunlin_log::Checked;
use dunlin_wesh::engine::{
    Action, App, CommandError, Ctx, Engine, Event, ExchangeId, Gossip, OpenError, RenewalCause, StoreKind,
};
use dunlin_wesh::profile::Profile;
use rand_core::OsRng;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::catch_up::Asked;
use crate::perform::Performer;
use crate::serving::Serving;
use crate::tables;

/// Inputs that may wait for the core. Beyond that the network is not read.
pub(crate) const INPUTS_WAITING_MAX: usize = 1024;
/// Inputs that share one commit at the most.
const INPUTS_PER_COMMIT_MAX: usize = 512;
/// Changes after which a transaction takes no further input: about four megabytes.
const CHANGES_PER_COMMIT_MAX: usize = 8192;
/// The same in bytes: a few of the largest entries.
const BYTES_PER_COMMIT_MAX: usize = 16 * 1024 * 1024;
/// Events and notices that a slow watcher may fall behind.
pub(crate) const WATCH_BACKLOG_MAX: usize = 4096;
/// The longest wait without an input. It bounds how long a clock that was set back holds things up.
const WAIT_LONGEST: Duration = Duration::from_secs(300);
/// Pause before a store that failed is tried again.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Time within which a second failure at a group counts against the group, not against the disk.
const SUSPICION: Duration = Duration::from_secs(60);
/// The longest time for which the network is left alone after steps that failed one after the other.
const QUIET_LONGEST: Duration = Duration::from_secs(60);

/// What happened on the network, in the terms of the engine.
pub(crate) enum NetworkInput {
    Connected { peer: PeerId, local: bool },
    TakesRequests { peer: PeerId, takes: bool },
    Disconnected { peer: PeerId },
    TopicJoined { peer: PeerId, topic: String },
    TopicLeft { peer: PeerId, topic: String },
    Gossip(Box<GossipInput>),
    Heads { peer: PeerId, data: bytes::Bytes },
    HeadsSent { peer: PeerId, id: u64 },
    HeadsUnsent { id: u64 },
    Records { peer: PeerId, data: bytes::Bytes },
    Block { peer: PeerId, entry: EntryId, block: bytes::Bytes },
    Checked { peer: PeerId, checked: Box<Checked> },
    BlockMissing { entry: EntryId },
    Streamed(Box<StreamedInput>),
    StreamEnded { group: GroupId, kind: StoreKind, peer: PeerId, speaks: bool },
    BlockServed { peer: PeerId, entry: EntryId },
    Found { peer: PeerId, names: Vec<String> },
    ExchangeIncoming { exchange: Box<dunlin_ipfs::Exchange> },
    ExchangeOpened { id: ExchangeId },
    ExchangeFrame { id: ExchangeId, frame: bytes::Bytes },
    ExchangeClosed { id: ExchangeId },
}

/// A message on a topic.
pub(crate) struct GossipInput {
    pub topic: String,
    /// Who brought it.
    pub from: dunlin_ipfs::PeerId,
    pub author: PeerId,
    pub data: bytes::Bytes,
    pub ticket: Ticket,
}

/// A piece of a stream in which a host gives what a log lacks.
pub(crate) struct StreamedInput {
    pub group: GroupId,
    pub kind: StoreKind,
    pub peer: PeerId,
    pub entries: Vec<Checked>,
    /// Dropped when the piece was taken, so that calls need not wait behind a whole log.
    pub taken: oneshot::Sender<()>,
}

/// One call from above: what to do inside the transaction, and how to answer after the commit.
pub(crate) trait Call<A>: Send {
    /// Runs inside the transaction and keeps its result.
    /// Whether it was refused is what it returns: then it must have changed nothing.
    fn run(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine, app: &mut A) -> bool;
    /// Answers, with what the commit came to.
    fn answer(self: Box<Self>, committed: Result<(), Arc<CommitError>>);
}

/// What the core takes in.
pub(crate) enum Input<A> {
    Network(NetworkInput),
    Call(Box<dyn Call<A>>),
    /// Everything that came before is committed; then the core ends.
    Stop,
}

/// Why a node could not start, or start again after its store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The account cannot be opened.
    #[error("the account cannot be opened: {0}")]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store cannot be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Makes the application anew, whenever the engine is opened.
pub(crate) type MakeApp<A> = Box<dyn Fn() -> A + Send>;

/// Who is connected and on which topics, to tell an engine that was opened again.
#[derive(Default)]
struct Presence {
    peers: BTreeMap<PeerId, (bool, bool)>,
    topics: BTreeSet<(PeerId, String)>,
}

impl Presence {
    fn note(&mut self, input: &NetworkInput) {
        match input {
            NetworkInput::Connected { peer, local } => {
                self.peers.insert(peer.clone(), (*local, false));
            }
            NetworkInput::TakesRequests { peer, takes } => {
                if let Some(known) = self.peers.get_mut(peer) {
                    known.1 = *takes;
                }
            }
            NetworkInput::Disconnected { peer } => {
                self.peers.remove(peer);
                self.topics.retain(|(other, _)| other != peer);
            }
            NetworkInput::TopicJoined { peer, topic } => {
                self.topics.insert((peer.clone(), topic.clone()));
            }
            NetworkInput::TopicLeft { peer, topic } => {
                self.topics.remove(&(peer.clone(), topic.clone()));
            }
            _ => {}
        }
    }
}

/// The engine, the application above it, and the store below.
pub(crate) struct Core<A: App> {
    store: Arc<dyn Store>,
    profile: Profile,
    host: PeerId,
    make_app: MakeApp<A>,
    engine: Engine,
    app: A,
    presence: Presence,
    /// Groups at which a step failed, and when.
    suspects: BTreeMap<GroupId, Instant>,
    /// Others speak for devices than when the network was told.
    speakers_changed: bool,
    /// What the messages of a step turned out to be, told once it is stored.
    judged: Vec<(Ticket, Judgement)>,
    /// Steps that failed since one was stored, and until when the network is left alone for that: otherwise
    /// it would bring about at once what failed.
    failures: u32,
    quiet_until: Option<tokio::time::Instant>,
    /// Groups that stay closed since they cannot be read.
    set_aside: BTreeSet<GroupId>,
    performer: Performer,
    serving: Arc<Serving>,
    events: broadcast::Sender<Arc<Event>>,
    notices: broadcast::Sender<A::Notice>,
}

/// What came out of a transaction, to be told after its commit.
struct Outcome<A: App> {
    calls: Vec<Box<dyn Call<A>>>,
    events: Vec<Arc<Event>>,
}

impl<A: App> Outcome<A> {
    fn new() -> Self {
        Self { calls: Vec::new(), events: Vec::new() }
    }
}

impl<A: App + Send + 'static> Core<A> {
    /// Opens the account and the application, and commits what that wrote.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing that the core holds")]
    pub fn open(
        store: Arc<dyn Store>,
        profile: Profile,
        host: PeerId,
        make_app: MakeApp<A>,
        performer: Performer,
        serving: Arc<Serving>,
        events: broadcast::Sender<Arc<Event>>,
        notices: broadcast::Sender<A::Notice>,
    ) -> Result<Self, CoreError> {
        // Nobody can watch yet, so the events of opening go to the application alone.
        let Opened { engine, app, .. } =
            open_engine(&store, profile, &host, &make_app, &BTreeSet::new(), &InUse::default())
                .map_err(|failed| failed.error)?;
        let presence = Presence::default();
        let mut core = Self {
            store,
            profile,
            host,
            make_app,
            engine,
            app,
            presence,
            suspects: BTreeMap::new(),
            failures: 0,
            quiet_until: None,
            set_aside: BTreeSet::new(),
            speakers_changed: false,
            judged: Vec::new(),
            performer,
            serving,
            events,
            notices,
        };
        core.update_serving();
        core.tell_notices();
        Ok(core)
    }

    /// Runs until told to stop, or until every handle is gone.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input<A>>) {
        self.perform_actions().await;
        loop {
            let wait = self.wait();
            let first = match tokio::time::timeout(wait, inputs.recv()).await {
                Ok(Some(input)) => Some(input),
                Ok(None) => return,
                Err(_elapsed) => None,
            };
            if !self.turn(first, &mut inputs).await {
                return;
            }
        }
    }

    /// How long nothing is to be done unless something comes in.
    fn wait(&self) -> Duration {
        if let Some(quiet_until) = self.quiet_until {
            return quiet_until.saturating_duration_since(tokio::time::Instant::now());
        }
        let due = self.engine.timeout().into_iter().chain(self.app.timeout()).min();
        due.map_or(WAIT_LONGEST, |due| Duration::from_millis(due.since(now()).as_millis())).min(WAIT_LONGEST)
    }

    /// One transaction: as many inputs as wait, then the commit, then what follows from it. Returns whether
    /// to go on.
    async fn turn(&mut self, first: Option<Input<A>>, inputs: &mut mpsc::Receiver<Input<A>>) -> bool {
        let store = self.store.clone();
        let mut tx = Tx::new(&*store);
        let mut outcome = Outcome::new();
        let mut stop = false;
        let mut next = first;
        let woken = next.is_none();
        let passed = match self.quiet_until {
            Some(until) if until > tokio::time::Instant::now() => Ok(()),
            Some(_) => {
                self.quiet_until = None;
                self.tell_presence(&mut tx, &mut outcome)
            }
            None => self.let_time_pass(&mut tx, &mut outcome, woken),
        };
        let mut failed = passed.err();
        for _ in 0..INPUTS_PER_COMMIT_MAX {
            let Some(input) = next.take() else { break };
            if failed.is_some() {
                match input {
                    Input::Network(input) => self.presence.note(&input),
                    Input::Call(call) => outcome.calls.push(call),
                    Input::Stop => stop = true,
                }
                break;
            }
            let taken = match input {
                Input::Network(input) if self.quiet_until.is_some() => {
                    self.presence.note(&input);
                    Ok(())
                }
                Input::Network(input) => self.take_network(&mut tx, input),
                Input::Call(mut call) => {
                    let mut rng = OsRng;
                    let mut ctx = Ctx { tx: &mut tx, now: now(), rng: &mut rng };
                    let before = ctx.tx.changes_len();
                    let refused = call.run(&mut ctx, &mut self.engine, &mut self.app);
                    let half_done = refused && (ctx.tx.changes_len() != before || self.engine.is_at_work());
                    outcome.calls.push(call);
                    // What a refused call changed must not be stored; engine and store start over.
                    if half_done { Err(ReadError("a call was refused half way".into())) } else { Ok(()) }
                }
                Input::Stop => {
                    stop = true;
                    Ok(())
                }
            };
            let drained = taken.and_then(|()| self.drain_events(&mut tx, &mut outcome));
            failed = drained.err();
            let is_full =
                tx.changes_len() > CHANGES_PER_COMMIT_MAX || tx.changes_bytes() > BYTES_PER_COMMIT_MAX;
            if stop || failed.is_some() || is_full {
                break;
            }
            next = inputs.try_recv().ok();
        }
        if failed.is_some() {
            self.suspect(self.engine.failed_at());
        }
        let changed = !tx.is_unchanged();
        let committed = match failed {
            Some(error) => Err(CommitError::Io(Box::new(error))),
            None if changed => store.commit(tx.into_batch(), Durability::Synced),
            None => Ok(()),
        };
        let Err(error) = committed else {
            if changed {
                self.failures = 0;
            }
            self.conclude(outcome).await;
            return !stop;
        };
        tracing::warn!(%error, "nothing of the last step is stored");
        let error = Arc::new(error);
        for call in outcome.calls {
            call.answer(Err(error.clone()));
        }
        !stop && self.open_again(inputs).await
    }

    /// Sets a group aside at which two attempts failed, one soon after the other.
    fn suspect(&mut self, group: Option<GroupId>) {
        let Some(group) = group else { return };
        let before = self.suspects.insert(group, Instant::now());
        if before.is_some_and(|before| before.elapsed() < SUSPICION) {
            tracing::error!(%group, "a group cannot be read and is closed; the others go on");
            self.set_aside.insert(group);
        }
    }

    /// Tells what a step that is stored came to, and does what follows from it.
    async fn conclude(&mut self, outcome: Outcome<A>) {
        // What a call brought about is told before the call is answered: whoever watches from the answer on hears of
        // what comes after it.
        for event in outcome.events {
            // Nobody has to watch.
            let _ = self.events.send(event);
        }
        for call in outcome.calls {
            call.answer(Ok(()));
        }
        self.update_serving();
        self.tell_notices();
        self.perform_actions().await;
    }

    /// Lets the host serve those who have shown a group since the last step.
    fn update_serving(&mut self) {
        for peer in self.serving.update(&mut self.engine) {
            self.speakers_changed = true;
            self.performer.look_again(&peer);
        }
    }

    fn tell_notices(&mut self) {
        while let Some(notice) = self.app.poll_notice() {
            let _ = self.notices.send(notice);
        }
    }

    async fn perform_actions(&mut self) {
        for (ticket, judgement) in std::mem::take(&mut self.judged) {
            self.performer.judge(ticket, judgement).await;
        }
        match self.engine.search_if_changed(&*self.store) {
            Ok(Some(search)) => self.performer.search(search).await,
            Ok(None) => {}
            // It is told after a later step.
            Err(error) => tracing::debug!(%error, "who is to be found cannot be read"),
        }
        if std::mem::take(&mut self.speakers_changed) {
            self.performer.keep(self.engine.speakers()).await;
        }
        while let Some(action) = self.engine.poll_action() {
            if let Action::Fetch { entry, .. } = &action
                && let Some(checker) = self.engine.checker_of(entry)
            {
                self.performer.expect(*entry, checker);
            }
            if let Action::CatchUp { group, kind, peer, request } = action {
                // A group that was closed meanwhile needs nothing.
                if let Some(checker) = self.engine.checker_for_stream(&group, kind) {
                    self.performer.catch_up(Asked { group, kind, peer, checker }, request);
                }
                continue;
            }
            self.performer.perform(action).await;
        }
    }

    fn let_time_pass(
        &mut self,
        tx: &mut Tx<'_>,
        outcome: &mut Outcome<A>,
        woken: bool,
    ) -> Result<(), ReadError> {
        let mut rng = OsRng;
        let now = now();
        let mut ctx = Ctx { tx, now, rng: &mut rng };
        if woken || self.engine.timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(&mut ctx)?;
        }
        if self.app.timeout().is_some_and(|due| due <= now) {
            self.app.handle_timeout(&mut ctx, &mut self.engine)?;
        }
        self.drain_events(tx, outcome)
    }

    fn drain_events(&mut self, tx: &mut Tx<'_>, outcome: &mut Outcome<A>) -> Result<(), ReadError> {
        let mut rng = OsRng;
        while let Some(event) = self.engine.poll_event() {
            let mut ctx = Ctx { tx, now: now(), rng: &mut rng };
            if let Event::DeviceRenewed { cause: RenewalCause::KeyInUseElsewhere, .. } = event {
                tracing::warn!(
                    "another node runs on a copy of this data directory; this one goes on as a new device of the account"
                );
                // From the next start on, the two hosts are two for the network as well.
                ctx.tx.delete(tables::NODE, tables::IDENTITY);
            }
            self.app.handle_event(&mut ctx, &mut self.engine, &event)?;
            outcome.events.push(Arc::new(event));
        }
        Ok(())
    }

    fn take_network(&mut self, tx: &mut Tx<'_>, input: NetworkInput) -> Result<(), ReadError> {
        self.presence.note(&input);
        let mut rng = OsRng;
        let mut ctx = Ctx { tx, now: now(), rng: &mut rng };
        let (ctx, engine) = (&mut ctx, &mut self.engine);
        match input {
            NetworkInput::Connected { peer, local } => engine.handle_connected(ctx, &peer, local),
            NetworkInput::TakesRequests { peer, takes } => engine.handle_takes_requests(ctx, &peer, takes),
            NetworkInput::Disconnected { peer } => engine.handle_disconnected(ctx, &peer),
            NetworkInput::TopicJoined { peer, topic } => engine.handle_topic_joined(ctx, &peer, &topic),
            NetworkInput::TopicLeft { peer, topic } => {
                engine.handle_topic_left(&peer, &topic);
                Ok(())
            }
            NetworkInput::Gossip(message) => {
                let GossipInput { topic, from, author, data, ticket } = *message;
                let gossip = engine.handle_gossip(ctx, &topic, &author, &data)?;
                self.judged.push((ticket, judgement(gossip, self.serving.blames(&from, &author))));
                Ok(())
            }
            NetworkInput::Heads { peer, data } => engine.handle_heads(ctx, &peer, &data),
            NetworkInput::HeadsSent { peer, id } => engine.handle_heads_sent(ctx, &peer, id),
            NetworkInput::HeadsUnsent { id } => {
                engine.handle_heads_unsent(id);
                Ok(())
            }
            NetworkInput::Records { peer, data } => engine.handle_records(ctx, &peer, &data),
            NetworkInput::Block { peer, entry, block } => engine.handle_block(ctx, &peer, &entry, &block),
            NetworkInput::Checked { peer, checked } => engine.handle_checked_block(ctx, &peer, *checked),
            NetworkInput::BlockMissing { entry } => engine.handle_block_missing(ctx, &entry),
            NetworkInput::Streamed(piece) => {
                let StreamedInput { group, kind, peer, entries, taken } = *piece;
                let handled = engine.handle_streamed(ctx, &group, kind, &peer, entries);
                drop(taken);
                handled
            }
            NetworkInput::StreamEnded { group, kind, peer, speaks } => {
                engine.handle_stream_ended(ctx, &group, kind, &peer, speaks)
            }
            NetworkInput::BlockServed { peer, entry } => engine.handle_block_served(ctx, &peer, &entry),
            NetworkInput::Found { peer, names } => engine.handle_found(ctx, &peer, &names),
            NetworkInput::ExchangeIncoming { exchange } => {
                let origin = self.performer.origin_of(&exchange.peer());
                let peer = crate::perform::base_peer(&exchange.peer());
                if let Some(id) = peer.and_then(|peer| engine.handle_exchange_incoming(ctx, &peer, origin)) {
                    self.performer.adopt(id, *exchange);
                }
                Ok(())
            }
            NetworkInput::ExchangeOpened { id } => engine.handle_exchange_opened(ctx, id),
            NetworkInput::ExchangeFrame { id, frame } => engine.handle_exchange_frame(ctx, id, &frame),
            NetworkInput::ExchangeClosed { id } => {
                self.performer.forget_exchange(id);
                engine.handle_exchange_closed(ctx, id)
            }
        }
    }

    /// Opens engine and application from what is stored, and tells them who is connected; tries until that
    /// works. Returns whether to go on.
    async fn open_again(&mut self, inputs: &mut mpsc::Receiver<Input<A>>) -> bool {
        self.performer.forget_all();
        self.judged.clear();
        self.failures = self.failures.saturating_add(1);
        loop {
            let aside = self.set_aside.len();
            let error = match self.try_open_again() {
                Ok(outcome) => {
                    self.conclude(outcome).await;
                    return true;
                }
                Err(error) => error,
            };
            if self.set_aside.len() > aside {
                // It goes without the group that was in the way.
                continue;
            }
            tracing::warn!(%error, "the account cannot be opened again yet");
            let refusal = Arc::new(CommitError::Io(Box::new(error)));
            if !self.wait_closed(inputs, &refusal).await {
                return false;
            }
        }
    }

    fn try_open_again(&mut self) -> Result<Outcome<A>, CoreError> {
        let in_use = InUse::of(&self.engine);
        let opened =
            open_engine(&self.store, self.profile, &self.host, &self.make_app, &self.set_aside, &in_use);
        let opened = opened.map_err(|failed| {
            self.suspect(failed.at);
            failed.error
        })?;
        self.engine = opened.engine;
        self.app = opened.app;
        let mut outcome = Outcome { calls: Vec::new(), events: opened.events };
        // The first failure may have been a passing one. After others, calls go on, but the network waits.
        let again = self.failures.saturating_sub(1);
        if again > 0 {
            let pause = REOPEN_PAUSE.saturating_mul(2_u32.saturating_pow(again - 1)).min(QUIET_LONGEST);
            self.quiet_until = Some(tokio::time::Instant::now() + pause);
            return Ok(outcome);
        }
        let store = self.store.clone();
        let mut tx = Tx::new(&*store);
        if let Err(error) = self.tell_presence(&mut tx, &mut outcome) {
            self.suspect(self.engine.failed_at());
            return Err(error.into());
        }
        store.commit(tx.into_batch(), Durability::Synced)?;
        Ok(outcome)
    }

    /// Waits for the next attempt to open. Calls are refused meanwhile; of the network, only who is there is
    /// noted: the rest is asked for again. Returns whether to go on.
    async fn wait_closed(
        &mut self,
        inputs: &mut mpsc::Receiver<Input<A>>,
        refusal: &Arc<CommitError>,
    ) -> bool {
        let pause = tokio::time::sleep(REOPEN_PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                input = inputs.recv() => match input {
                    Some(Input::Network(input)) => self.presence.note(&input),
                    Some(Input::Call(call)) => call.answer(Err(refusal.clone())),
                    Some(Input::Stop) | None => return false,
                },
            }
        }
    }

    fn tell_presence(&mut self, tx: &mut Tx<'_>, outcome: &mut Outcome<A>) -> Result<(), ReadError> {
        let mut rng = OsRng;
        let mut ctx = Ctx { tx, now: now(), rng: &mut rng };
        for (peer, (local, takes)) in &self.presence.peers {
            self.engine.handle_connected(&mut ctx, peer, *local)?;
            self.engine.handle_takes_requests(&mut ctx, peer, *takes)?;
        }
        for (peer, topic) in &self.presence.topics {
            self.engine.handle_topic_joined(&mut ctx, peer, topic)?;
        }
        self.drain_events(tx, outcome)
    }
}

/// The groups that whoever uses the node has activated, which no store remembers.
#[derive(Default)]
struct InUse {
    groups: Vec<GroupId>,
    account_closed: bool,
}

impl InUse {
    fn of(engine: &Engine) -> Self {
        Self { groups: engine.active_groups().collect(), account_closed: engine.account_is_open().is_err() }
    }

    /// Takes them up again in an engine that was opened anew; those that are gone with what was not stored, or
    /// that cannot be read, are left out.
    fn take_up(&self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        for group in &self.groups {
            if let Err(CommandError::Read(error)) = engine.activate(ctx, group) {
                return Err(error);
            }
        }
        if self.account_closed {
            engine.deactivate(&engine.account_group());
        }
        Ok(())
    }
}

/// Engine and application as they are stored, and what opening them told.
struct Opened<A> {
    engine: Engine,
    app: A,
    events: Vec<Arc<Event>>,
}

/// Why they could not be opened, and at which group, if that is known.
struct Failed {
    error: CoreError,
    at: Option<GroupId>,
}

impl<E: Into<CoreError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), at: None }
    }
}

fn open_engine<A: App>(
    store: &Arc<dyn Store>,
    profile: Profile,
    host: &PeerId,
    make_app: &MakeApp<A>,
    set_aside: &BTreeSet<GroupId>,
    in_use: &InUse,
) -> Result<Opened<A>, Failed> {
    let mut tx = Tx::new(&**store);
    let mut rng = OsRng;
    let mut ctx = Ctx { tx: &mut tx, now: now(), rng: &mut rng };
    let mut engine = Engine::open(&mut ctx, profile, host.clone())?;
    for group in set_aside {
        engine.set_aside(group);
    }
    let mut app = make_app();
    let mut events = Vec::new();
    let mut start = || {
        app.start(&mut ctx, &mut engine)?;
        in_use.take_up(&mut ctx, &mut engine)?;
        while let Some(event) = engine.poll_event() {
            app.handle_event(&mut ctx, &mut engine, &event)?;
            events.push(Arc::new(event));
        }
        Ok::<(), ReadError>(())
    };
    if let Err(error) = start() {
        return Err(Failed { error: error.into(), at: engine.failed_at() });
    }
    store.commit(tx.into_batch(), Durability::Synced)?;
    Ok(Opened { engine, app, events })
}

/// What becomes of a message on a topic. Whoever is not to blame for bringing garbage is left in peace.
fn judgement(gossip: Gossip, to_blame: bool) -> Judgement {
    match gossip {
        Gossip::OfMember => Judgement::Pass,
        Gossip::NotOurs => Judgement::Ignore,
        Gossip::Garbage if to_blame => Judgement::Refuse,
        Gossip::Garbage => Judgement::Ignore,
    }
}

/// The wall clock. A clock before 1970 counts as 1970.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
