//! A running node, as those above it use it.

use std::sync::Arc;

use dunlin_base::kv::{CommitError, Read, ReadError, Store};
use dunlin_base::{EntryId, GroupId};
use dunlin_ipfs::{Config, FrameProtocol, Ipfs, Multiaddr};
use dunlin_wesh::catch_up;
use dunlin_wesh::engine::{App, CommandError, Ctx, Engine, Event, NoApp};
use dunlin_wesh::group::Group;
use dunlin_wesh::profile::Profile;
use rand_core::{OsRng, RngCore};
use tokio::sync::{broadcast, mpsc, oneshot};
use zeroize::Zeroizing;

use crate::ahead::Ahead;
use crate::catch_up::Giver;
use crate::config::NodeConfig;
use crate::core::{Call, Core, CoreError, INPUTS_WAITING_MAX, Input, MakeApp, WATCH_BACKLOG_MAX};
use crate::discovery::{Discovery, Server, Setup, SourceKind, SourceReport};
use crate::finder::Finder;
use crate::linking::Desk;
use crate::perform::{
    DIRECT_CHANNEL, DIRECT_CHANNEL_BYTES_MAX, LOCAL_RECORDS, LOCAL_RECORDS_BYTES_MAX, Performer,
};
use crate::pump::{Listeners, input_sender, on_found, own_host, pump};
use crate::serving::Serving;
use crate::tables;
use crate::traffic::Traffic;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The account could not be opened or its first events not be written.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The network host could not start: most often an address is in use.
    #[error("the network cannot be used: {0}")]
    Network(#[from] dunlin_ipfs::StartError),
    /// What others may ask this node for could not be switched on.
    #[error("the network host takes no streams: {0}")]
    Accept(#[from] dunlin_ipfs::AcceptError),
    /// The core could not be given a thread of its own.
    #[error("no thread can be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a call to a node gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The node refused: see the error. Nothing changed.
    #[error(transparent)]
    Refused(E),
    /// What the call changed could not be stored. Nothing changed.
    #[error("{0}")]
    NotStored(Arc<CommitError>),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// A running node with an application `A` on top. Clones are cheap and speak for the same node.
pub struct NodeHandle<A: App = NoApp> {
    ipfs: Ipfs,
    finder: Finder,
    discovery: Discovery,
    desk: Desk,
    profile: Profile,
    lan: bool,
    replication_in_clear: bool,
    traffic: Arc<Traffic>,
    relays: bool,
    inputs: mpsc::Sender<Input<A>>,
    events: broadcast::Sender<Arc<Event>>,
    notices: broadcast::Sender<A::Notice>,
    started: std::time::Instant,
}

impl<A: App> Clone for NodeHandle<A> {
    fn clone(&self) -> Self {
        Self {
            ipfs: self.ipfs.clone(),
            finder: self.finder.clone(),
            discovery: self.discovery.clone(),
            desk: self.desk.clone(),
            profile: self.profile,
            lan: self.lan,
            replication_in_clear: self.replication_in_clear,
            traffic: self.traffic.clone(),
            relays: self.relays,
            inputs: self.inputs.clone(),
            events: self.events.clone(),
            notices: self.notices.clone(),
            started: self.started,
        }
    }
}

impl NodeHandle {
    /// Starts a node without an application on top: what comes is told by [`Self::events`].
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn alone(config: NodeConfig) -> Result<Self, StartError> {
        Self::start(config, || NoApp).await
    }
}

impl<A: App + Send + 'static> NodeHandle<A> {
    /// Starts a node. `make_app` makes the application, again whenever the account has to be opened again.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running.
    pub async fn start(
        mut config: NodeConfig,
        make_app: impl Fn() -> A + Send + 'static,
    ) -> Result<Self, StartError> {
        let serving = Arc::new(Serving::new(config.store.clone()));
        let seed = identity(&*config.store).map_err(StartError::Core)?;
        let mut network = Config::new(seed, serving.clone());
        network.listen = std::mem::take(&mut config.listen);
        network.lan_discovery = config.lan;
        network.dht_bootstrap.clone_from(&config.dht_bootstrap);
        // Whoever is found somewhere may be behind a relay.
        let looks = [&config.rendezvous, &config.relays, &config.dht_bootstrap];
        network.hole_punching = looks.iter().any(|places| !places.is_empty());
        network.judged_topics = true;
        network.frame_protocols = vec![
            FrameProtocol { name: DIRECT_CHANNEL, frame_bytes_max: DIRECT_CHANNEL_BYTES_MAX },
            FrameProtocol { name: LOCAL_RECORDS, frame_bytes_max: LOCAL_RECORDS_BYTES_MAX },
        ];
        let (ipfs, host_events) = Ipfs::start(network).await?;
        let longest = catch_up::FRAME_BYTES_MAX;
        ipfs.accept_long_exchanges(catch_up::PROTOCOL, longest).await?;
        let rendezvous = match config.rendezvous_server {
            true => Some(Server::start(&ipfs).await?),
            false => None,
        };
        let started =
            Self::start_on(ipfs.clone(), host_events, config, serving, rendezvous, Box::new(make_app));
        if started.is_err() {
            ipfs.shutdown().await;
        }
        started
    }

    /// Starts all that lies above the host.
    fn start_on(
        ipfs: Ipfs,
        host_events: dunlin_ipfs::Events,
        config: NodeConfig,
        serving: Arc<Serving>,
        rendezvous: Option<Arc<Server>>,
        make_app: MakeApp<A>,
    ) -> Result<Self, StartError> {
        let (inputs, waiting) = mpsc::channel(INPUTS_WAITING_MAX);
        let (events, _) = broadcast::channel(WATCH_BACKLOG_MAX);
        let (notices, _) = broadcast::channel(WATCH_BACKLOG_MAX);
        let sender = input_sender(inputs.clone());
        let ahead = Arc::new(Ahead::default());
        let setup = Setup {
            rotation: config.profile.rotation(),
            rendezvous: config.rendezvous.clone(),
            announce_groups: config.announce_groups,
            dht: !config.dht_bootstrap.is_empty(),
            relays: config.relays.clone(),
        };
        let relays = !config.relays.is_empty();
        let discovery = Discovery::start(ipfs.clone(), setup, on_found(sender.clone()));
        let traffic = Arc::new(Traffic::default());
        let performer =
            Performer::new(ipfs.clone(), sender.clone(), ahead.clone(), traffic.clone(), discovery.clone());
        let Some(host) = own_host(&ipfs.peer_id()) else {
            return Err(StartError::Thread(std::io::Error::other("the peer id is of an unknown kind")));
        };
        let core = Core::open(
            config.store,
            config.profile,
            host,
            make_app,
            performer,
            serving.clone(),
            events.clone(),
            notices.clone(),
        )?;
        run_core(core, waiting)?;
        let places = [config.connect, config.rendezvous, config.relays, config.dht_bootstrap];
        let (finder, sightings) = Finder::start(ipfs.clone(), places.concat());
        let desk = Desk::default();
        let giver = Giver::new(serving, sender.clone());
        let listeners =
            Listeners { sightings, discovery: discovery.clone(), rendezvous, desk: desk.clone(), giver };
        tokio::spawn(pump(host_events, sender, ahead, traffic.clone(), listeners));
        let (profile, lan, started) = (config.profile, config.lan, std::time::Instant::now());
        let replication_in_clear = config.replication_in_clear;
        Ok(Self {
            ipfs,
            finder,
            discovery,
            desk,
            profile,
            lan,
            replication_in_clear,
            traffic,
            relays,
            inputs,
            events,
            notices,
            started,
        })
    }

    /// Runs `change` inside a transaction; returns once that is committed.
    ///
    /// # Errors
    /// [`CallError`]. A `change` that fails must have changed nothing.
    pub async fn transact<R, E>(
        &self,
        change: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut A) -> Result<R, E> + Send + 'static,
    ) -> Result<R, CallError<E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Transaction { change: Some(change), result: None, reply };
        self.inputs.send(Input::Call(Box::new(call))).await.map_err(|_| CallError::Stopped)?;
        answer.await.unwrap_or(Err(CallError::Stopped))
    }

    /// Joins the group of an invitation and starts to use it; does nothing in a group that is in use.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn join(&self, invitation: &Group) -> Result<GroupId, CallError<CommandError>> {
        let (group, id) = (invitation.clone(), invitation.id());
        self.transact(move |ctx, engine, _| {
            if engine.known_group(ctx.tx, &id)?.is_none() {
                engine.join_group(ctx, &group)?;
            }
            engine.activate(ctx, &id)?;
            Ok(id)
        })
        .await
    }

    /// Sends a message to a group in use; returns once it is stored.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send(&self, group: GroupId, payload: Vec<u8>) -> Result<EntryId, CallError<CommandError>> {
        self.transact(move |ctx, engine, _| engine.send_message(ctx, &group, &payload)).await
    }

    /// Runs `look` on the state as it is after everything that came before.
    ///
    /// # Errors
    /// [`CallError::Stopped`], or [`CallError::Refused`] with the error of `look`.
    pub async fn view<R, E>(
        &self,
        look: impl FnOnce(&dyn Read, &Engine, &A) -> Result<R, E> + Send + 'static,
    ) -> Result<R, CallError<E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        self.transact(move |ctx, engine, app| look(ctx.tx, engine, app)).await
    }

    /// What the engine tells from now on. A watcher that falls behind by more than 4,096 events misses some
    /// and is told how many.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// What the application tells from now on.
    pub fn notices(&self) -> broadcast::Receiver<A::Notice> {
        self.notices.subscribe()
    }

    /// The network host below.
    pub fn network(&self) -> &Ipfs {
        &self.ipfs
    }

    /// The profile under which the node runs.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Whether it announces itself on the local network.
    pub fn is_on_lan(&self) -> bool {
        self.lan
    }

    /// Whether replication servers are called without TLS.
    pub(crate) fn replicates_in_clear(&self) -> bool {
        self.replication_in_clear
    }

    /// What went over to each peer and came from it.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Whether it can be reached through relays.
    pub fn uses_relays(&self) -> bool {
        self.relays
    }

    /// What each place where this node looks for others has come to. What is switched off is not among them.
    pub async fn sources(&self) -> Vec<SourceReport> {
        let (named, lan) = self.finder.counts().await;
        let mut reports =
            vec![SourceReport { found: named, ..SourceReport::new(SourceKind::Static, String::new()) }];
        if self.lan {
            reports.push(SourceReport { found: lan, ..SourceReport::new(SourceKind::Lan, String::new()) });
        }
        let told =
            self.view(|_, engine, _| Ok::<_, std::convert::Infallible>(engine.peers_with_records())).await;
        let local = SourceReport::new(SourceKind::LocalRecords, String::new());
        reports.push(SourceReport { found: told.unwrap_or_default(), ..local });
        reports.extend(self.discovery.report().await);
        reports
    }

    /// The task that finds people.
    pub(crate) fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// The task that keeps connections.
    pub(crate) fn finder(&self) -> &Finder {
        &self.finder
    }

    /// Where offers of a link are found.
    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// How long it has been running.
    pub fn uptime(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// The addresses at which the node is reached, with its peer id.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let peer = self.ipfs.peer_id();
        // One through a relay has it already.
        let named = |address: Multiaddr| address.clone().with_p2p(peer).unwrap_or(address);
        self.ipfs.listen_addresses().into_iter().map(named).collect()
    }

    /// Stops the node: what came before is committed, peers are told, connections are closed.
    pub async fn shutdown(&self) {
        // A core that is gone already has committed what it had.
        let _ = self.inputs.send(Input::Stop).await;
        self.inputs.closed().await;
        self.ipfs.shutdown().await;
    }
}

/// Gives the core a thread of its own, since a commit waits for the disk.
fn run_core<A: App + Send + 'static>(
    core: Core<A>,
    inputs: mpsc::Receiver<Input<A>>,
) -> Result<(), std::io::Error> {
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("dunlin-core".to_owned())
        .spawn(move || runtime.block_on(core.run(inputs)))
        .map(drop)
}

/// The seed of the peer identity, made at the first start.
pub(crate) fn identity(store: &dyn Store) -> Result<Zeroizing<[u8; 32]>, CoreError> {
    let kept = store.get(tables::NODE, tables::IDENTITY)?.map(Zeroizing::new);
    if let Some(seed) = kept.and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok()) {
        return Ok(Zeroizing::new(seed));
    }
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *seed);
    let mut tx = dunlin_base::kv::Tx::new(store);
    tx.put(tables::NODE, tables::IDENTITY, &*seed);
    store.commit(tx.into_batch(), dunlin_base::kv::Durability::Synced)?;
    Ok(seed)
}

/// A call on its way through the core.
struct Transaction<F, R, E> {
    change: Option<F>,
    result: Option<Result<R, E>>,
    reply: oneshot::Sender<Result<R, CallError<E>>>,
}

impl<A, F, R, E> Call<A> for Transaction<F, R, E>
where
    A: App,
    F: FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut A) -> Result<R, E> + Send,
    R: Send,
    E: Send,
{
    fn run(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine, app: &mut A) -> bool {
        if let Some(change) = self.change.take() {
            self.result = Some(change(ctx, engine, app));
        }
        matches!(self.result, Some(Err(_)))
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<CommitError>>) {
        let answer = match (self.result, committed) {
            (Some(Err(error)), _) => Err(CallError::Refused(error)),
            (Some(Ok(_)), Err(error)) => Err(CallError::NotStored(error)),
            (Some(Ok(result)), Ok(())) => Ok(result),
            (None, Err(error)) => Err(CallError::NotStored(error)),
            (None, Ok(())) => Err(CallError::Stopped),
        };
        // The caller may have stopped waiting.
        let _ = self.reply.send(answer);
    }
}

/// Failing to read is a refusal that leaves everything as it is.
impl From<ReadError> for CallError<ReadError> {
    fn from(error: ReadError) -> Self {
        Self::Refused(error)
    }
}
