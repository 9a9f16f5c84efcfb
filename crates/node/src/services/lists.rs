//! Lists of events and messages: what is there, then what comes (`spec/wesh-protocol.md` §8.6).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use dunlin_base::kv::Direction;
use dunlin_base::{EntryId, GroupId};
use dunlin_log::Position;
use dunlin_proto::protocol::{EventContext, GroupMessageEvent, GroupMetadataEvent, MessageHeaders};
use dunlin_wesh::engine::{App, CommandError, Event, MessageEvent, MetadataEvent};
use dunlin_wesh::errors::Code;
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
        after: Option<Position>,
        direction: Direction,
    ) -> Result<Vec<Self>, CommandError>;
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
    let mut given = BTreeSet::new();
    if range.replay
        && let Err(status) = replay::<T, A>(&node, &range, since, until, &mut given, &replies).await
    {
        // The client may be gone.
        let _ = replies.send(Err(status)).await;
        return;
    }
    if range.follow {
        follow::<T>(&range.group, events, given, replies).await;
    }
}

async fn replay<T: Item, A: App + Send + 'static>(
    node: &NodeHandle<A>,
    range: &Range,
    since: Option<Position>,
    until: Option<Position>,
    given: &mut BTreeSet<EntryId>,
    replies: &mpsc::Sender<Result<T::Reply, Status>>,
) -> Result<(), Status> {
    let direction = if range.newest_first { Direction::Descending } else { Direction::Ascending };
    let group = range.group;
    let mut after = None;
    loop {
        let page = node
            .view(move |read, engine, _| T::page(engine, read, &group, after, direction))
            .await
            .map_err(|error| status_of(&error))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.position());
        for item in page {
            let position = item.position();
            let inside =
                since.is_none_or(|since| position >= since) && until.is_none_or(|until| position <= until);
            if !inside {
                continue;
            }
            if range.follow {
                given.insert(item.id());
            }
            if replies.send(Ok(item.reply())).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn follow<T: Item>(
    group: &GroupId,
    mut events: broadcast::Receiver<Arc<Event>>,
    given: BTreeSet<EntryId>,
    replies: mpsc::Sender<Result<T::Reply, Status>>,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = replies.closed() => return,
        };
        let item = match event {
            Ok(event) => T::of_event(&event, group),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                let sentence = format!("the client is too slow: {missed} events were missed; list again");
                // The client may be gone.
                let _ = replies.send(Err(coded(&[Code::ErrStreamWrite], sentence))).await;
                return;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(item) = item.filter(|item| !given.contains(&item.id())) else { continue };
        if replies.send(Ok(item.reply())).await.is_err() {
            return;
        }
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
        after: Option<Position>,
        direction: Direction,
    ) -> Result<Vec<Self>, CommandError> {
        let mut page = Vec::new();
        engine.visit_messages(read, group, after, direction, &mut |message| {
            page.push(message);
            if page.len() >= PAGE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(page)
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
        after: Option<Position>,
        direction: Direction,
    ) -> Result<Vec<Self>, CommandError> {
        let mut page = Vec::new();
        engine.visit_metadata(read, group, after, direction, &mut |event| {
            page.push(event);
            if page.len() >= PAGE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(page)
    }
}

fn context(group: &GroupId, entry: &EntryId, parents: &[EntryId]) -> EventContext {
    EventContext {
        id: entry.cid_bytes().to_vec(),
        parent_ids: parents.iter().map(|parent| parent.cid_bytes().to_vec()).collect(),
        group_pk: group.as_bytes().to_vec(),
    }
}
