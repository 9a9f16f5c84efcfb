//! A running node, as those above it use it.

use std::sync::Arc;

use dunlin_base::kv::{CommitError, Read, ReadError, Store};
use dunlin_ipfs::{Config, FrameProtocol, Ipfs, Multiaddr};
use dunlin_wesh::engine::{App, Ctx, Engine, Event, NoApp};
use dunlin_wesh::profile::Profile;
use rand_core::{OsRng, RngCore};
use tokio::sync::{broadcast, mpsc, oneshot};
use zeroize::Zeroizing;

use crate::ahead::Ahead;
use crate::config::NodeConfig;
use crate::core::{Call, Core, CoreError, INPUTS_WAITING_MAX, Input, MakeApp, WATCH_BACKLOG_MAX};
use crate::finder::Finder;
use crate::perform::{
    DIRECT_CHANNEL, DIRECT_CHANNEL_BYTES_MAX, LOCAL_RECORDS, LOCAL_RECORDS_BYTES_MAX, Performer,
};
use crate::pump::{input_sender, own_host, pump};
use crate::serving::Serving;
use crate::tables;

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
    profile: Profile,
    lan: bool,
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
            profile: self.profile,
            lan: self.lan,
            inputs: self.inputs.clone(),
            events: self.events.clone(),
            notices: self.notices.clone(),
            started: self.started,
        }
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
        network.frame_protocols = vec![
            FrameProtocol { name: DIRECT_CHANNEL, frame_bytes_max: DIRECT_CHANNEL_BYTES_MAX },
            FrameProtocol { name: LOCAL_RECORDS, frame_bytes_max: LOCAL_RECORDS_BYTES_MAX },
        ];
        let (ipfs, host_events) = Ipfs::start(network).await?;
        let started = Self::start_on(ipfs.clone(), host_events, config, serving, Box::new(make_app));
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
        make_app: MakeApp<A>,
    ) -> Result<Self, StartError> {
        let (inputs, waiting) = mpsc::channel(INPUTS_WAITING_MAX);
        let (events, _) = broadcast::channel(WATCH_BACKLOG_MAX);
        let (notices, _) = broadcast::channel(WATCH_BACKLOG_MAX);
        let sender = input_sender(inputs.clone());
        let ahead = Arc::new(Ahead::default());
        let performer = Performer::new(ipfs.clone(), sender.clone(), ahead.clone());
        let Some(host) = own_host(&ipfs.peer_id()) else {
            return Err(StartError::Thread(std::io::Error::other("the peer id is of an unknown kind")));
        };
        let core = Core::open(
            config.store,
            config.profile,
            host,
            make_app,
            performer,
            serving,
            events.clone(),
            notices.clone(),
        )?;
        run_core(core, waiting)?;
        let (finder, sightings) = Finder::start(ipfs.clone(), config.connect);
        tokio::spawn(pump(host_events, sender, ahead, sightings));
        let (profile, lan, started) = (config.profile, config.lan, std::time::Instant::now());
        Ok(Self { ipfs, finder, profile, lan, inputs, events, notices, started })
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

    /// The task that keeps connections.
    pub(crate) fn finder(&self) -> &Finder {
        &self.finder
    }

    /// How long it has been running.
    pub fn uptime(&self) -> std::time::Duration {
        self.started.elapsed()
    }

    /// The addresses at which the node is reached, with its peer id.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let peer = self.ipfs.peer_id();
        let own = dunlin_ipfs::multiaddr::Protocol::P2p(peer);
        self.ipfs.listen_addresses().into_iter().map(|address| address.with(own.clone())).collect()
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
fn identity(store: &dyn Store) -> Result<Zeroizing<[u8; 32]>, CoreError> {
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
