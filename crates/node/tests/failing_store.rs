//! What a node does whose store fails while it runs.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, Mutex};

use dunlin_base::GroupId;
use dunlin_base::kv::{
    Batch, CommitError, Durability, KeyRange, MemoryStore, Read, ReadError, Store, Table, Visit,
};
use dunlin_log::LogTag;
use dunlin_node::{CallError, NodeConfig, NodeHandle};
use dunlin_orbitdb::StoreAddress;
use dunlin_wesh::engine::{CommandError, NoApp};
use dunlin_wesh::profile::Profile;

/// A store in memory of which a part cannot be read.
#[derive(Default)]
struct Failing {
    memory: MemoryStore,
    broken: Mutex<Option<Broken>>,
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
        self.memory.commit(batch, durability)
    }
}

async fn start(store: &Arc<Failing>) -> NodeHandle<NoApp> {
    let mut config = NodeConfig::new(store.clone());
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    NodeHandle::start(config, || NoApp).await.unwrap()
}

async fn create(node: &NodeHandle<NoApp>) -> GroupId {
    node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap()
}

async fn send(node: &NodeHandle<NoApp>, group: GroupId) -> Result<(), CallError<CommandError>> {
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

    // The engine is opened again with no group active but that of the account; the user opens them.
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
    activate(whole).await.unwrap();
    send(&node, whole).await.unwrap();

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
    while let Err(error) = create_result(&node).await {
        assert!(matches!(error, CallError::NotStored(_)), "{error}");
    }

    store.break_down(Some(Broken::All));
    assert!(send(&node, group).await.is_err());
    node.shutdown().await;
    assert!(matches!(send(&node, group).await, Err(CallError::Stopped)));
}

async fn create_result(node: &NodeHandle<NoApp>) -> Result<GroupId, CallError<CommandError>> {
    node.transact(|ctx, engine, _| engine.create_group(ctx)).await
}
