//! What a node does whose store fails while it runs.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dunlin_base::GroupId;
use dunlin_base::kv::{
    Batch, CommitError, Durability, KeyRange, MemoryStore, Read, ReadError, Store, Table, Visit,
};
use dunlin_log::LogTag;
use dunlin_node::{CallError, NodeConfig, NodeHandle};
use dunlin_orbitdb::StoreAddress;
use dunlin_wesh::engine::{App, CommandError, Ctx, Engine, Event, NoApp};
use dunlin_wesh::profile::Profile;
use tokio::sync::watch;

/// A store in memory of which a part cannot be read, or to which nothing can be written.
#[derive(Default)]
struct Failing {
    memory: MemoryStore,
    broken: Mutex<Option<Broken>>,
    is_full: AtomicBool,
    /// Counts the commits for which there was no room.
    refused: watch::Sender<usize>,
}

#[derive(Clone)]
enum Broken {
    /// Every row.
    All,
    /// The rows of one log.
    Log(LogTag),
}

impl Failing {
    fn break_down(&self, what: Option<Broken>) {
        *self.broken.lock().unwrap() = what;
    }

    fn check(&self, key: &[u8]) -> Result<(), ReadError> {
        let is_broken = match &*self.broken.lock().unwrap() {
            None => false,
            Some(Broken::All) => true,
            Some(Broken::Log(tag)) => key.starts_with(tag.as_bytes()),
        };
        if is_broken { Err(ReadError("the sector is damaged".into())) } else { Ok(()) }
    }
}

impl Read for Failing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.check(key)?;
        self.memory.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: dunlin_base::kv::Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        self.check(&range.start)?;
        self.memory.scan(table, range, direction, visit)
    }
}

impl Store for Failing {
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), CommitError> {
        if self.is_full.load(Ordering::SeqCst) && !batch.is_empty() {
            self.refused.send_modify(|count| *count += 1);
            return Err(CommitError::Full);
        }
        self.memory.commit(batch, durability)
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

async fn start(store: &Arc<Failing>) -> NodeHandle<NoApp> {
    start_with(store, || NoApp).await
}

async fn start_with<A: App + Send + 'static>(
    store: &Arc<Failing>,
    make_app: impl Fn() -> A + Send + 'static,
) -> NodeHandle<A> {
    let mut config = NodeConfig::new(store.clone());
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    NodeHandle::start(config, make_app).await.unwrap()
}

/// Uses every group that the account knows, as a messenger does.
struct AllActive;

impl App for AllActive {
    type Notice = ();

    fn start(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        for (group, ..) in engine.known_groups(ctx.tx)? {
            let _ = engine.activate(ctx, &group);
        }
        Ok(())
    }

    fn handle_event(&mut self, _: &mut Ctx<'_, '_>, _: &mut Engine, _: &Event) -> Result<(), ReadError> {
        Ok(())
    }

    fn handle_timeout(&mut self, _: &mut Ctx<'_, '_>, _: &mut Engine) -> Result<(), ReadError> {
        Ok(())
    }

    fn timeout(&self) -> Option<dunlin_base::Time> {
        None
    }

    fn poll_notice(&mut self) -> Option<()> {
        None
    }
}

async fn create(node: &NodeHandle<NoApp>) -> GroupId {
    node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap()
}

async fn send<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    group: GroupId,
) -> Result<(), CallError<CommandError>> {
    node.transact(move |ctx, engine, _| engine.send_message(ctx, &group, b"hello").map(drop)).await
}

#[tokio::test]
async fn a_group_that_cannot_be_read_is_set_aside_and_the_others_go_on() {
    let store = Arc::new(Failing::default());
    let node = start(&store).await;
    let (whole, damaged) = (create(&node).await, create(&node).await);
    let address = node
        .view(move |read, engine, _| {
            let group = engine.known_group(read, &damaged)?.unwrap();
            Ok::<_, ReadError>(StoreAddress::new(
                &damaged,
                Profile::default().message_store(),
                &group.sign_pub(),
            ))
        })
        .await
        .unwrap();
    store.break_down(Some(Broken::Log(LogTag::of(&address.to_string()))));

    // The engine is opened again with the groups that were active; the one that cannot be read stays closed.
    let activate = |group: GroupId| {
        let node = node.clone();
        async move { node.transact(move |ctx, engine, _| engine.activate(ctx, &group)).await }
    };
    assert!(matches!(send(&node, damaged).await, Err(CallError::NotStored(_) | CallError::Refused(_))));
    let mut refused = activate(damaged).await;
    for _ in 0..3 {
        if matches!(refused, Err(CallError::Refused(CommandError::SetAside))) {
            break;
        }
        refused = activate(damaged).await;
    }
    assert!(matches!(refused, Err(CallError::Refused(CommandError::SetAside))), "{refused:?}");
    assert!(matches!(send(&node, damaged).await, Err(CallError::Refused(CommandError::SetAside))));
    send(&node, whole).await.expect("it is active as before");

    // Nothing was deleted: when it can be read again, a new start finds all.
    node.shutdown().await;
    store.break_down(None);
    let node = start(&store).await;
    node.transact(move |ctx, engine, _| engine.activate(ctx, &damaged)).await.unwrap();
    send(&node, damaged).await.unwrap();
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_whose_store_is_gone_answers_and_stops_and_goes_on_when_it_is_back() {
    let store = Arc::new(Failing::default());
    let node = start(&store).await;
    let group = create(&node).await;
    store.break_down(Some(Broken::All));
    for _ in 0..3 {
        assert!(send(&node, group).await.is_err());
    }
    store.break_down(None);
    tokio::time::timeout(PATIENCE, async {
        while let Err(error) = create_result(&node).await {
            assert!(matches!(error, CallError::NotStored(_)), "{error}");
        }
    })
    .await
    .expect("the store is back");

    store.break_down(Some(Broken::All));
    assert!(send(&node, group).await.is_err());
    node.shutdown().await;
    assert!(matches!(send(&node, group).await, Err(CallError::Stopped)));
}

async fn create_result(node: &NodeHandle<NoApp>) -> Result<GroupId, CallError<CommandError>> {
    node.transact(|ctx, engine, _| engine.create_group(ctx)).await
}

#[tokio::test]
async fn what_a_full_disk_cannot_take_is_not_asked_for_in_circles_and_comes_when_there_is_room() {
    let (full, other) = (Arc::new(Failing::default()), Arc::new(Failing::default()));
    let (ours, theirs) = (start_with(&full, || AllActive).await, start(&other).await);
    let group = create(&theirs).await;
    let invitation = theirs.view(move |read, engine, _| engine.invitation(read, &group)).await.unwrap();
    ours.transact(move |ctx, engine, _| {
        engine.join_group(ctx, &invitation)?;
        engine.activate(ctx, &group)
    })
    .await
    .unwrap();
    let mut events = ours.events();
    let mut their_events = theirs.events();
    ours.network().dial(theirs.addresses()[0].clone()).await.unwrap();
    // Who is in the group before a message is written can read it.
    let count = |members: Vec<_>| members.len();
    tokio::time::timeout(PATIENCE, async {
        while theirs.view(move |read, engine, _| engine.members(read, &group).map(count)).await.unwrap() < 2 {
            their_events.recv().await.unwrap();
        }
    })
    .await
    .expect("they see us");
    send(&theirs, group).await.unwrap();
    wait_for_message(&mut events).await;

    full.is_full.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    send(&theirs, group).await.unwrap();
    let mut refused = full.refused.subscribe();
    let third = tokio::time::timeout(PATIENCE, refused.wait_for(|count| *count >= 3)).await;
    third.expect("it goes on trying").unwrap();
    // The first failure is answered at once, the second after a second: three cannot come sooner.
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // What is stored can be read meanwhile.
    assert!(ours.view(move |read, engine, _| engine.invitation(read, &group)).await.is_ok());
    assert!(matches!(send(&ours, group).await, Err(CallError::NotStored(_) | CallError::Refused(_))));

    full.is_full.store(false, Ordering::SeqCst);
    wait_for_message(&mut events).await;
    ours.shutdown().await;
    theirs.shutdown().await;
}

async fn wait_for_message(events: &mut tokio::sync::broadcast::Receiver<Arc<Event>>) {
    let message = async {
        loop {
            if let Event::Message(message) = &*events.recv().await.unwrap()
                && message.payload == b"hello"
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, message).await.expect("the message arrives");
}
