//! Lists of events and messages: what is there, then what comes (`spec/wesh-protocol.md` §8.6).

use std::collections::{BTreeSet, VecDeque};
use std::marker::PhantomData;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;

use dunlin_base::kv::Direction;
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_log::Position;
use dunlin_wesh::engine::{App, CommandError, Event};
use dunlin_wesh::errors::Code;
use futures::Stream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::groups::{status_in_use, used};
use super::items::Item;
use super::status::{coded, invalid, status_of};
use crate::{CallError, NodeHandle};

/// What lists put around the cause when the group is not in use.
const UNKNOWN: [Code; 1] = [Code::ErrGroupMemberUnknownGroupId];

/// Items that may wait for a slow client before the log is read on.
const ITEMS_WAITING_MAX: usize = 128;
/// Items that are read at once.
const PAGE: usize = 256;
/// Items that may come while the client reads what came before, before it has to list again: two megabytes of
/// their names. What they hold stays in the log.
const TOLD_MAX: usize = 64 * 1024;
/// Of these, how many are read out of the log at once.
const TOLD_PAGE: usize = 64;

/// Contacts of whom a list remembers that it told their request: many times those that may wait at once.
const ASKING_MAX: usize = 1024;

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

/// Starts a list. `range` is judged once it is known that the group is in use.
pub(super) async fn list<T: Item, A: App + Send + 'static>(
    node: &NodeHandle<A>,
    group_pk: &[u8],
    range: impl FnOnce(GroupId) -> Result<Range, Status>,
) -> Result<Replies<T::Reply>, Status> {
    let group = used(&UNKNOWN, group_pk)?;
    // Watching begins before reading, so that nothing falls between.
    let events = node.events();
    let in_use = node.view(move |_, engine, _| match engine.is_active(&group) {
        true => Ok(()),
        false => Err(CommandError::NotActive),
    });
    in_use.await.map_err(|error| status_in_use(&UNKNOWN, &error))?;
    let range = range(group)?;
    let (since, until) = (range.since, range.until);
    let bounds = node
        .view(move |read, engine, _| {
            let position = |id: Option<EntryId>| match id {
                Some(id) => engine.position(read, &group, T::IN_MESSAGES, &id).map(Some),
                None => Ok(None),
            };
            Ok((position(since)?, position(until)?))
        })
        .await
        .map_err(|error| status_in_use(&UNKNOWN, &error))?;
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
    let live = Live { events, ended: false, group, overlap: Overlap::default() };
    let mut list =
        List::<T, A> { node: node.clone(), range, since, until, live, asking: BTreeSet::new(), replies };
    tokio::spawn(async move {
        if let Err(End::Failed(status)) = list.serve().await {
            // The client may be gone.
            let _ = list.replies.send(Err(status)).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// Why a list ends before its time.
enum End {
    /// The client is gone.
    Unwanted,
    /// The client is told why.
    Failed(Status),
}

/// A list on its way to a client. While the client is slow, what comes meanwhile is remembered by name, and read out
/// of the log when its turn comes: nobody else waits for this client.
struct List<T: Item, A: App> {
    node: NodeHandle<A>,
    range: Range,
    since: Option<Position>,
    until: Option<Position>,
    live: Live<T>,
    /// Who was told to ask while their request stands outside the log: accepting it is no news then.
    asking: BTreeSet<AccountId>,
    replies: mpsc::Sender<Result<T::Reply, Status>>,
}

impl<T: Item, A: App + Send + 'static> List<T, A> {
    async fn serve(&mut self) -> Result<(), End> {
        if self.range.replay {
            self.replay().await?;
        }
        if self.range.follow { self.follow().await } else { Ok(()) }
    }

    async fn replay(&mut self) -> Result<(), End> {
        let (group, since, until) = (self.range.group, self.since, self.until);
        let (direction, first) = match self.range.newest_first {
            false => (Direction::Ascending, since),
            true => (Direction::Descending, until),
        };
        let mut start = first.map_or(Bound::Unbounded, Bound::Included);
        loop {
            let page =
                self.node.view(move |read, engine, _| T::page(engine, read, &group, start, direction, PAGE));
            let page = match self.range.follow {
                true => self.live.meanwhile(page).await?,
                false => page.await,
            };
            let page = page.map_err(|error| End::Failed(status_in_use(&UNKNOWN, &error)))?;
            if self.range.follow {
                self.live.keep_up()?;
                self.live.overlap.found(&page);
            }
            let Some(last) = page.last() else { return Ok(()) };
            start = Bound::Excluded(last.position());
            for item in page {
                let position = item.position();
                let inside = since.is_none_or(|since| position >= since)
                    && until.is_none_or(|until| position <= until);
                if !inside {
                    // What follows lies still further outside.
                    return Ok(());
                }
                self.send(item).await?;
            }
        }
    }

    /// Gives out what comes, until nobody wants it any more.
    async fn follow(&mut self) -> Result<(), End> {
        loop {
            let told = self.live.overlap.take(TOLD_PAGE);
            if told.is_empty() {
                let Some(item) = self.next().await? else { return Ok(()) };
                match self.replies.capacity() {
                    0 => self.live.overlap.told(item.id())?,
                    _ => self.send(item).await?,
                }
                continue;
            }
            match self.read(told.clone()).await? {
                Some(items) => {
                    for item in items {
                        self.send(item).await?;
                    }
                }
                None => {
                    // The group was put out of use. What is to be told is there again when it is in use again.
                    self.live.overlap.put_back(told);
                    match self.next_event().await? {
                        Some(event) => self.live.note(&event)?,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// Items that were told, as they are in the log; `None` while the group is not in use.
    async fn read(&mut self, ids: Vec<EntryId>) -> Result<Option<Vec<T>>, End> {
        let group = self.range.group;
        let items = self.node.view(move |read, engine, _| {
            let found = ids.into_iter().map(|id| T::read(engine, read, &group, id));
            found.filter_map(Result::transpose).collect::<Result<Vec<_>, CommandError>>()
        });
        match self.live.meanwhile(items).await? {
            Ok(items) => Ok(Some(items)),
            Err(CallError::Refused(CommandError::NotActive)) => Ok(None),
            Err(error) => Err(End::Failed(status_of(&error))),
        }
    }

    /// The next item of the group; `None` when the node has stopped.
    async fn next(&mut self) -> Result<Option<T>, End> {
        loop {
            let Some(event) = self.next_event().await? else { return Ok(None) };
            if let Some(item) = T::of_event(&event, &self.live.group) {
                return Ok(Some(item));
            }
        }
    }

    async fn next_event(&mut self) -> Result<Option<Arc<Event>>, End> {
        let event = tokio::select! {
            event = self.live.events.recv() => event,
            () = self.replies.closed() => return Err(End::Unwanted),
        };
        match event {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(too_slow(missed)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
        }
    }

    /// Gives the client one item as soon as it can take it, and notes what comes meanwhile.
    async fn send(&mut self, item: T) -> Result<(), End> {
        if let Some(account) = item.refuses() {
            self.asking.remove(&account);
        }
        if let Some((account, is_outside)) = item.asks() {
            let known = if is_outside { !self.asking.insert(account) } else { self.asking.remove(&account) };
            if self.asking.len() > ASKING_MAX {
                self.asking.pop_first();
            }
            if known {
                return Ok(());
            }
        }
        let reply = item.reply();
        let watches = self.range.follow;
        loop {
            let event = tokio::select! {
                biased;
                place = self.replies.reserve() => {
                    place.map_err(|_| End::Unwanted)?.send(Ok(reply));
                    return Ok(());
                }
                event = self.live.events.recv(), if watches && !self.live.ended => event,
            };
            match event {
                Ok(event) => self.live.note(&event)?,
                Err(broadcast::error::RecvError::Lagged(missed)) => return Err(too_slow(missed)),
                Err(broadcast::error::RecvError::Closed) => self.live.ended = true,
            }
        }
    }
}

fn too_slow(missed: u64) -> End {
    let sentence = format!("the client is too slow: {missed} events were missed; list again");
    End::Failed(coded(&[Code::ErrStreamWrite], sentence))
}

/// What comes while the log is read.
struct Live<T> {
    events: broadcast::Receiver<Arc<Event>>,
    /// The node has stopped; nothing more comes.
    ended: bool,
    group: GroupId,
    overlap: Overlap<T>,
}

impl<T: Item> Live<T> {
    /// Waits for the answer of a read, and notes what is told in the meantime.
    async fn meanwhile<R>(&mut self, reading: impl Future<Output = R>) -> Result<R, End> {
        tokio::pin!(reading);
        loop {
            let event = tokio::select! {
                biased;
                answer = &mut reading => return Ok(answer),
                event = self.events.recv(), if !self.ended => event,
            };
            match event {
                Ok(event) => self.note(&event)?,
                Err(broadcast::error::RecvError::Lagged(missed)) => return Err(too_slow(missed)),
                Err(broadcast::error::RecvError::Closed) => self.ended = true,
            }
        }
    }

    /// Takes what has been told up to the answer of a read.
    fn keep_up(&mut self) -> Result<(), End> {
        loop {
            match self.events.try_recv() {
                Ok(event) => self.note(&event)?,
                Err(broadcast::error::TryRecvError::Lagged(missed)) => return Err(too_slow(missed)),
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => {
                    return Ok(());
                }
            }
        }
    }

    fn note(&mut self, event: &Event) -> Result<(), End> {
        match T::of_event(event, &self.group) {
            Some(item) => self.overlap.told(item.id()),
            None => Ok(()),
        }
    }
}

/// Sees to it that what is told while the log is read comes once.
///
/// An item that a read finds is told at the latest right after the transaction of that read, which is before
/// the answer to the next read. So it is enough to remember what was told and not found yet, and what the
/// last read found. The read that finds nothing more settles the last ones.
struct Overlap<T> {
    told: VecDeque<EntryId>,
    found: BTreeSet<EntryId>,
    of: PhantomData<fn() -> T>,
}

impl<T> Default for Overlap<T> {
    fn default() -> Self {
        Self { told: VecDeque::new(), found: BTreeSet::new(), of: PhantomData }
    }
}

impl<T: Item> Overlap<T> {
    /// An item was told since the read before.
    fn told(&mut self, id: EntryId) -> Result<(), End> {
        if self.found.contains(&id) {
            return Ok(());
        }
        if self.told.len() >= TOLD_MAX {
            return Err(too_slow(1));
        }
        self.told.push_back(id);
        Ok(())
    }

    /// A read found these, and everything that was told before its answer is known.
    fn found(&mut self, page: &[T]) {
        self.found = page.iter().map(Item::id).collect();
        self.told.retain(|id| !self.found.contains(id));
    }

    /// Up to `count` that were told and not found, the first ones.
    fn take(&mut self, count: usize) -> Vec<EntryId> {
        self.told.drain(..count.min(self.told.len())).collect()
    }

    fn put_back(&mut self, ids: Vec<EntryId>) {
        ids.into_iter().rev().for_each(|id| self.told.push_front(id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dunlin_base::kv::{
        Batch, CommitError, Durability, KeyRange, MemoryStore, Read, ReadError, Store, Table, Visit,
    };
    use dunlin_base::{DeviceId, MemberId};
    use dunlin_wesh::engine::MessageEvent;
    use futures::StreamExt as _;

    use super::*;
    use crate::NodeConfig;

    #[test]
    fn an_item_told_before_or_after_it_is_found_comes_once() {
        let mut overlap = Overlap::<MessageEvent>::default();
        // Told in time for the first read.
        assert!(overlap.told(item(1).entry).is_ok());
        overlap.found(&[item(1), item(2)]);
        // Told right after the read that found it.
        for number in [2, 3, 4] {
            assert!(overlap.told(item(number).entry).is_ok());
        }
        overlap.found(&[item(3)]);
        overlap.found(&[]);

        assert_eq!(overlap.take(TOLD_PAGE), [item(4).entry]);
    }

    #[test]
    fn what_is_remembered_while_the_log_is_read_has_a_bound() {
        let mut overlap = Overlap::<MessageEvent>::default();
        for page in 0..20 {
            let page: Vec<_> = (0..PAGE as u64).map(|at| item(page * 1_000_000 + at)).collect();
            overlap.found(&page);
            assert!(overlap.found.len() <= PAGE);
        }
        for number in 0..TOLD_MAX as u64 {
            assert!(overlap.told(item(u64::MAX - number).entry).is_ok());
        }

        let Err(End::Failed(refused)) = overlap.told(item(0).entry) else { panic!("it is remembered") };

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
            let range = |group| Range::new(group, &[], false, &[], false, false);
            lists.push(list::<MessageEvent, _>(&node, group.as_bytes(), range).await.unwrap());
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
            let range = |group| match newest_first {
                false => Range::new(group, &first, false, &[], true, false),
                true => Range::new(group, &[], false, &last, false, true),
            };
            store.reads.store(0, Ordering::Relaxed);
            let list = list::<MessageEvent, _>(&node, group.as_bytes(), range).await.unwrap();
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
            signature: None,
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
