//! Lists of events and messages: what is there, then what comes (`spec/wesh-protocol.md` §8.6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, ControlFlow};
use std::pin::Pin;
use std::sync::Arc;

use dunlin_base::kv::Direction;
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_log::Position;
use dunlin_proto::protocol::{EventContext, GroupMessageEvent, GroupMetadataEvent, MessageHeaders};
use dunlin_wesh::engine::{App, CommandError, Event, MessageEvent, MetadataEvent};
use dunlin_wesh::errors::Code;
use dunlin_wesh::metadata;
use futures::Stream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::status::{coded, invalid, status_of};
use crate::{CallError, NodeHandle};

/// Items that may wait for a slow client before the log is read on.
const ITEMS_WAITING_MAX: usize = 128;
/// Items that are read at once.
const PAGE: usize = 256;
/// Items that may come while the log is read, before the client has to list again.
const OVERLAP_MAX: usize = 4096;

/// Items in no log that one stream was given and that are remembered: many times what may wait for an answer.
const UNLOGGED_MAX: usize = 1024;

/// A stream of replies.
pub(super) type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What part of a log is asked for, and in which order.
#[derive(Clone, Debug)]
pub(super) struct Range {
    group: GroupId,
    since: Option<EntryId>,
    until: Option<EntryId>,
    replay: bool,
    follow: bool,
    newest_first: bool,
}

impl Range {
    /// Checks the options of a list call against each other.
    pub fn new(
        group: GroupId,
        since_id: &[u8],
        since_now: bool,
        until_id: &[u8],
        until_now: bool,
        newest_first: bool,
    ) -> Result<Self, Status> {
        let since = entry(since_id)?;
        let until = entry(until_id)?;
        if since.is_some() && since_now {
            return Err(invalid("since_id and since_now exclude each other"));
        }
        if until.is_some() && until_now {
            return Err(invalid("until_id and until_now exclude each other"));
        }
        if since_now && until_now {
            return Err(invalid("since_now and until_now leave nothing to list"));
        }
        let follow = until.is_none() && !until_now;
        if newest_first && follow {
            return Err(invalid("reverse_order needs until_id or until_now"));
        }
        Ok(Self { group, since, until, replay: !since_now, follow, newest_first })
    }
}

fn entry(id: &[u8]) -> Result<Option<EntryId>, Status> {
    if id.is_empty() {
        return Ok(None);
    }
    let unknown = || coded(&[Code::ErrInvalidRange], "that id names no entry");
    EntryId::from_cid_bytes(id).map(Some).ok_or_else(unknown)
}

/// One kind of item that a log holds.
pub(super) trait Item: Clone + Send + Sized + 'static {
    /// What the client gets.
    type Reply: Send + 'static;
    /// Which log it is in.
    const IN_MESSAGES: bool;

    fn id(&self) -> EntryId;
    fn position(&self) -> Position;
    fn of_event(event: &Event, group: &GroupId) -> Option<Self>;
    fn reply(self) -> Self::Reply;
    fn page(
        engine: &dunlin_wesh::engine::Engine,
        read: &dyn dunlin_base::kv::Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
    ) -> Result<Vec<Self>, CommandError>;
    /// What waits to be written, in no log yet.
    fn pending(
        engine: &dunlin_wesh::engine::Engine,
        read: &dyn dunlin_base::kv::Read,
        group: &GroupId,
    ) -> Result<Vec<Self>, CommandError>;
    /// Whom it is about, if it is of a kind that is told before it is in a log, and its id until then.
    fn unlogged_id(&self) -> Option<(AccountId, EntryId)>;
}

/// Starts a list.
pub(super) async fn list<T: Item, A: App + Send + 'static>(
    node: &NodeHandle<A>,
    range: Range,
) -> Result<Replies<T::Reply>, Status> {
    // Watching begins before reading, so that nothing falls between.
    let events = node.events();
    let (group, since, until) = (range.group, range.since, range.until);
    let bounds = node
        .view(move |read, engine, _| {
            let position = |id: Option<EntryId>| match id {
                Some(id) => engine.position(read, &group, T::IN_MESSAGES, &id).map(Some),
                None => Ok(None),
            };
            let pending = T::pending(engine, read, &group)?;
            // Whoever goes on from what is in no log yet begins anew: it has no place to go on from.
            let since = since.filter(|since| pending.iter().all(|item| item.id() != *since));
            Ok((position(since)?, position(until)?))
        })
        .await
        .map_err(|error| status_of_list(&error))?;
    let (since, until) = match bounds {
        (Some(None), _) | (_, Some(None)) => {
            return Err(coded(&[Code::ErrInvalidRange], "that id is not in the log"));
        }
        (since, until) => (since.flatten(), until.flatten()),
    };
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(coded(&[Code::ErrInvalidRange], "since_id comes after until_id"));
    }
    let (replies, stream) = mpsc::channel(ITEMS_WAITING_MAX);
    tokio::spawn(serve::<T, A>(node.clone(), range, since, until, events, replies));
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// A group that is not open is reported to lists in another way than elsewhere.
fn status_of_list(error: &CallError<CommandError>) -> Status {
    match error {
        CallError::Refused(CommandError::NotActive) => {
            coded(&[Code::ErrGroupMemberUnknownGroupId, Code::ErrGroupUnknown], "the group is not active")
        }
        other => status_of(other),
    }
}

async fn serve<T: Item, A: App + Send + 'static>(
    node: NodeHandle<A>,
    range: Range,
    since: Option<Position>,
    until: Option<Position>,
    events: broadcast::Receiver<Arc<Event>>,
    replies: mpsc::Sender<Result<T::Reply, Status>>,
) {
    let overlap = Overlap::<T>::default();
    let mut live = Live { events, group: range.group, overlap, unlogged: BTreeMap::new() };
    let served = async {
        if range.replay {
            replay(&node, &range, since, until, &mut live, &replies).await?;
        }
        if range.follow { follow(live, &replies).await } else { Ok(()) }
    };
    if let Err(status) = served.await {
        // The client may be gone.
        let _ = replies.send(Err(status)).await;
    }
}

async fn replay<T: Item, A: App + Send + 'static>(
    node: &NodeHandle<A>,
    range: &Range,
    since: Option<Position>,
    until: Option<Position>,
    live: &mut Live<T>,
    replies: &mpsc::Sender<Result<T::Reply, Status>>,
) -> Result<(), Status> {
    let group = range.group;
    let (direction, first) = match range.newest_first {
        false => (Direction::Ascending, since),
        true => (Direction::Descending, until),
    };
    let mut start = first.map_or(Bound::Unbounded, Bound::Included);
    if range.newest_first && until.is_none() && !pending(node, range, live, replies).await? {
        return Ok(());
    }
    loop {
        let page = node
            .view(move |read, engine, _| T::page(engine, read, &group, start, direction))
            .await
            .map_err(|error| status_of(&error))?;
        if range.follow {
            live.keep_up(&page)?;
        }
        let Some(last) = page.last() else { break };
        start = Bound::Excluded(last.position());
        for item in page {
            let position = item.position();
            let inside =
                since.is_none_or(|since| position >= since) && until.is_none_or(|until| position <= until);
            // What follows lies still further outside.
            if !inside || replies.send(Ok(item.reply())).await.is_err() {
                return Ok(());
            }
        }
    }
    if !range.newest_first && until.is_none() {
        pending(node, range, live, replies).await?;
    }
    Ok(())
}

/// Gives what is in no log yet. Returns whether to go on.
async fn pending<T: Item, A: App + Send + 'static>(
    node: &NodeHandle<A>,
    range: &Range,
    live: &mut Live<T>,
    replies: &mpsc::Sender<Result<T::Reply, Status>>,
) -> Result<bool, Status> {
    let group = range.group;
    let waiting = node.view(move |read, engine, _| T::pending(engine, read, &group)).await;
    let waiting = waiting.map_err(|error| status_of(&error))?;
    if range.follow {
        live.keep_up(&waiting)?;
    }
    for item in waiting {
        if live.is_new(&item) && replies.send(Ok(item.reply())).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn follow<T: Item>(
    mut live: Live<T>,
    replies: &mpsc::Sender<Result<T::Reply, Status>>,
) -> Result<(), Status> {
    let overlap: Vec<T> = live.overlap.rest().collect();
    for item in overlap {
        if live.is_new(&item) && replies.send(Ok(item.reply())).await.is_err() {
            return Ok(());
        }
    }
    loop {
        let event = tokio::select! {
            event = live.events.recv() => event,
            () = replies.closed() => return Ok(()),
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => return Err(too_slow(missed)),
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let Some(item) = T::of_event(&event, &live.group) else { continue };
        if live.is_new(&item) && replies.send(Ok(item.reply())).await.is_err() {
            return Ok(());
        }
    }
}

fn too_slow(missed: u64) -> Status {
    let sentence = format!("the client is too slow: {missed} events were missed; list again");
    coded(&[Code::ErrStreamWrite], sentence)
}

/// What comes while the log is read.
struct Live<T> {
    events: broadcast::Receiver<Arc<Event>>,
    group: GroupId,
    overlap: Overlap<T>,
    /// What the client was given last of each account while it was in no log.
    unlogged: BTreeMap<AccountId, EntryId>,
}

impl<T: Item> Live<T> {
    /// Whether the client has not been given `item`, in a log or before it was in one.
    fn is_new(&mut self, item: &T) -> bool {
        match item.unlogged_id() {
            Some((about, id)) if item.id() == id => {
                if self.unlogged.len() >= UNLOGGED_MAX {
                    self.unlogged.pop_first();
                }
                self.unlogged.insert(about, id) != Some(id)
            }
            Some((about, id)) => self.unlogged.remove(&about) != Some(id),
            None => true,
        }
    }

    /// Takes what has been told up to the answer of a read that found `page`.
    fn keep_up(&mut self, page: &[T]) -> Result<(), Status> {
        loop {
            match self.events.try_recv() {
                Ok(event) => {
                    if let Some(item) = T::of_event(&event, &self.group) {
                        self.overlap.told(item)?;
                    }
                }
                Err(broadcast::error::TryRecvError::Lagged(missed)) => return Err(too_slow(missed)),
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => break,
            }
        }
        self.overlap.found(page);
        Ok(())
    }
}

/// Sees to it that what is told while the log is read comes once.
///
/// An item that a read finds is told at the latest right after the transaction of that read, which is before
/// the answer to the next read. So it is enough to remember what was told and not found yet, and what the
/// last read found. The read that finds nothing more settles the last ones.
struct Overlap<T> {
    told: VecDeque<T>,
    found: BTreeSet<EntryId>,
}

impl<T> Default for Overlap<T> {
    fn default() -> Self {
        Self { told: VecDeque::new(), found: BTreeSet::new() }
    }
}

impl<T: Item> Overlap<T> {
    /// An item was told since the read before.
    fn told(&mut self, item: T) -> Result<(), Status> {
        if self.found.contains(&item.id()) {
            return Ok(());
        }
        if self.told.len() >= OVERLAP_MAX {
            return Err(too_slow(1));
        }
        self.told.push_back(item);
        Ok(())
    }

    /// A read found these, and everything that was told before its answer is known.
    fn found(&mut self, page: &[T]) {
        self.found = page.iter().map(Item::id).collect();
        self.told.retain(|item| !self.found.contains(&item.id()));
    }

    /// What was told and not found.
    fn rest(&mut self) -> impl Iterator<Item = T> {
        self.told.drain(..)
    }
}

impl Item for MessageEvent {
    type Reply = GroupMessageEvent;
    const IN_MESSAGES: bool = true;

    fn id(&self) -> EntryId {
        self.entry
    }

    fn position(&self) -> Position {
        self.position
    }

    fn of_event(event: &Event, group: &GroupId) -> Option<Self> {
        match event {
            Event::Message(message) if message.group == *group => Some(message.clone()),
            _ => None,
        }
    }

    fn reply(self) -> GroupMessageEvent {
        GroupMessageEvent {
            event_context: Some(context(&self.group, &self.entry, &self.parents)),
            headers: Some(MessageHeaders {
                counter: self.counter,
                device_pk: self.device.as_bytes().to_vec(),
                ..MessageHeaders::default()
            }),
            message: self.payload,
        }
    }

    fn page(
        engine: &dunlin_wesh::engine::Engine,
        read: &dyn dunlin_base::kv::Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
    ) -> Result<Vec<Self>, CommandError> {
        let mut page = Vec::new();
        engine.visit_messages(read, group, start, direction, &mut |message| {
            page.push(message);
            if page.len() >= PAGE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(page)
    }

    fn pending(
        _: &dunlin_wesh::engine::Engine,
        _: &dyn dunlin_base::kv::Read,
        _: &GroupId,
    ) -> Result<Vec<Self>, CommandError> {
        Ok(Vec::new())
    }

    fn unlogged_id(&self) -> Option<(AccountId, EntryId)> {
        None
    }
}

impl Item for MetadataEvent {
    type Reply = GroupMetadataEvent;
    const IN_MESSAGES: bool = false;

    fn id(&self) -> EntryId {
        self.entry
    }

    fn position(&self) -> Position {
        self.position
    }

    fn of_event(event: &Event, group: &GroupId) -> Option<Self> {
        match event {
            Event::Metadata(metadata) if metadata.group == *group => Some(metadata.clone()),
            Event::RequestReceived { event, .. } | Event::RequestDiscarded { event }
                if event.group == *group =>
            {
                Some(MetadataEvent::clone(event))
            }
            _ => None,
        }
    }

    fn reply(self) -> GroupMetadataEvent {
        let metadata = self.event.to_proto();
        let event = metadata.payload.clone();
        // Events about the group carry no parents, as in the existing service.
        let event_context = Some(context(&self.group, &self.entry, &[]));
        GroupMetadataEvent { event_context, metadata: Some(metadata), event }
    }

    fn page(
        engine: &dunlin_wesh::engine::Engine,
        read: &dyn dunlin_base::kv::Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
    ) -> Result<Vec<Self>, CommandError> {
        let mut page = Vec::new();
        engine.visit_metadata(read, group, start, direction, &mut |event| {
            page.push(event);
            if page.len() >= PAGE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(page)
    }

    fn pending(
        engine: &dunlin_wesh::engine::Engine,
        read: &dyn dunlin_base::kv::Read,
        group: &GroupId,
    ) -> Result<Vec<Self>, CommandError> {
        if *group != engine.account_group() || !engine.is_active(group) {
            return Ok(Vec::new());
        }
        Ok(engine.requests_as_events(read)?)
    }

    /// Requests and refusals are told before they are written, or without being written.
    fn unlogged_id(&self) -> Option<(AccountId, EntryId)> {
        let about = match self.event.event() {
            metadata::Event::ContactReceived { contact, .. } => contact.account,
            metadata::Event::ContactDiscarded { account, .. } => *account,
            _ => return None,
        };
        Some((about, self.event.unlogged_id()))
    }
}

fn context(group: &GroupId, entry: &EntryId, parents: &[EntryId]) -> EventContext {
    EventContext {
        id: entry.cid_bytes().to_vec(),
        parent_ids: parents.iter().map(|parent| parent.cid_bytes().to_vec()).collect(),
        group_pk: group.as_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dunlin_base::kv::{
        Batch, CommitError, Durability, KeyRange, MemoryStore, Read, ReadError, Store, Table, Visit,
    };
    use dunlin_base::{DeviceId, MemberId};
    use futures::StreamExt as _;

    use super::*;
    use crate::NodeConfig;

    #[test]
    fn an_item_told_before_or_after_it_is_found_comes_once() {
        let mut overlap = Overlap::default();
        // Told in time for the first read.
        overlap.told(item(1)).unwrap();
        overlap.found(&[item(1), item(2)]);
        // Told right after the read that found it.
        overlap.told(item(2)).unwrap();
        overlap.told(item(3)).unwrap();
        overlap.told(item(4)).unwrap();
        overlap.found(&[item(3)]);
        overlap.found(&[]);

        let rest: Vec<_> = overlap.rest().map(|item| item.counter).collect();
        assert_eq!(rest, [4]);
    }

    #[test]
    fn what_is_remembered_while_the_log_is_read_has_a_bound() {
        let mut overlap = Overlap::default();
        for page in 0..20 {
            let page: Vec<_> = (0..PAGE as u64).map(|at| item(page * 1_000_000 + at)).collect();
            overlap.found(&page);
            assert!(overlap.found.len() <= PAGE);
        }
        for number in 0..OVERLAP_MAX as u64 {
            overlap.told(item(u64::MAX - number)).unwrap();
        }

        let refused = overlap.told(item(0)).unwrap_err();

        assert!(refused.message().contains("list again"), "{refused}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_message_comes_once_while_more_are_sent() {
        let node = NodeHandle::start(NodeConfig::new(Arc::new(MemoryStore::default())), || {
            dunlin_wesh::engine::NoApp
        })
        .await
        .unwrap();
        let group = node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
        let before = 3 * PAGE + 17;
        send(&node, group, before).await;

        let mut lists = Vec::new();
        for _ in 0..4 {
            let range = Range::new(group, &[], false, &[], false, false).unwrap();
            lists.push(list::<MessageEvent, _>(&node, range).await.unwrap());
        }
        let during = 500;
        let sending = tokio::spawn({
            let node = node.clone();
            async move {
                for _ in 0..during {
                    send(&node, group, 1).await;
                }
            }
        });

        for mut list in lists {
            let mut seen = BTreeSet::new();
            for _ in 0..before + during {
                let reply = list.next().await.unwrap().unwrap();
                let id = reply.event_context.unwrap().id;
                assert!(seen.insert(id), "a message came twice");
            }
        }
        sending.await.unwrap();
        node.shutdown().await;
    }

    #[tokio::test]
    async fn a_list_since_an_entry_reads_from_there() {
        let store = Arc::new(Counting::default());
        let node =
            NodeHandle::start(NodeConfig::new(store.clone()), || dunlin_wesh::engine::NoApp).await.unwrap();
        let group = node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
        let sent = send(&node, group, 5 * PAGE).await;

        let cases = [(&sent[sent.len() - 3..], false), (&sent[..3], true)];
        for (part, newest_first) in cases {
            let (first, last) = (part[0].cid_bytes(), part[2].cid_bytes());
            let range = match newest_first {
                false => Range::new(group, &first, false, &[], true, false),
                true => Range::new(group, &[], false, &last, false, true),
            };
            store.reads.store(0, Ordering::Relaxed);
            let list = list::<MessageEvent, _>(&node, range.unwrap()).await.unwrap();
            let mut ids: Vec<_> = list.map(|reply| reply.unwrap().event_context.unwrap().id).collect().await;
            if newest_first {
                ids.reverse();
            }

            let expected: Vec<_> = part.iter().map(|id| id.cid_bytes().to_vec()).collect();
            assert_eq!(ids, expected);
            let reads = store.reads.load(Ordering::Relaxed);
            assert!(reads < PAGE, "{reads} reads for three messages");
        }
        node.shutdown().await;
    }

    /// In the existing service, a list with an end goes on waiting for more.
    #[tokio::test]
    async fn a_list_with_an_end_ends_while_more_is_sent() {
        let node = NodeHandle::start(NodeConfig::new(Arc::new(MemoryStore::default())), || {
            dunlin_wesh::engine::NoApp
        })
        .await
        .unwrap();
        let group = node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
        let sent = send(&node, group, 2 * PAGE).await;
        let last = PAGE + 3;
        let range = Range::new(group, &[], false, &sent[last].cid_bytes(), false, false).unwrap();
        let list = list::<MessageEvent, _>(&node, range).await.unwrap();
        send(&node, group, 5).await;
        let ids: Vec<_> = list.map(|reply| reply.unwrap().event_context.unwrap().id).collect().await;
        let expected: Vec<_> = sent[..=last].iter().map(|id| id.cid_bytes().to_vec()).collect();
        assert_eq!(ids, expected);
        node.shutdown().await;
    }

    async fn send<A: App + Send + 'static>(
        node: &NodeHandle<A>,
        group: GroupId,
        count: usize,
    ) -> Vec<EntryId> {
        let send = move |ctx: &mut dunlin_wesh::engine::Ctx<'_, '_>,
                         engine: &mut dunlin_wesh::engine::Engine,
                         _: &mut A| {
            (0..count).map(|_| engine.send_message(ctx, &group, b"a dunlin")).collect()
        };
        node.transact::<_, CommandError>(send).await.unwrap()
    }

    fn item(number: u64) -> MessageEvent {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let entry = EntryId::from_digest(digest);
        // The base point of the curve: somebody's key, whose does not matter.
        let mut key = [0x66; 32];
        key[0] = 0x58;
        MessageEvent {
            group: GroupId::from_bytes(&key).unwrap(),
            entry,
            position: Position { height: 1, id: entry },
            device: DeviceId::from_bytes(&key).unwrap(),
            member: MemberId::from_bytes(&key).unwrap(),
            counter: number,
            parents: Vec::new(),
            payload: Vec::new(),
            own: false,
        }
    }

    /// Memory that counts how often a single value is read.
    #[derive(Default)]
    struct Counting {
        inner: MemoryStore,
        reads: AtomicUsize,
    }

    impl Read for Counting {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.inner.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            range: &KeyRange,
            direction: Direction,
            visit: &mut Visit<'_>,
        ) -> Result<(), ReadError> {
            self.inner.scan(table, range, direction, visit)
        }
    }

    impl Store for Counting {
        fn commit(&self, batch: Batch, durability: Durability) -> Result<(), CommitError> {
            self.inner.commit(batch, durability)
        }
    }
}
