//! What is listed: messages and events, those of requests that wait outside the log included.

use std::ops::{Bound, ControlFlow};

use dunlin_base::kv::{Direction, Read};
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_log::Position;
use dunlin_proto::protocol::{EventContext, GroupMessageEvent, GroupMetadataEvent, MessageHeaders};
use dunlin_wesh::engine::{CommandError, Engine, Event, MessageEvent, MetadataEvent};
use dunlin_wesh::metadata::Event as EventKind;

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
    /// Whose contact request it tells of, and whether that waits for an answer, outside the log.
    fn asks(&self) -> Option<(AccountId, bool)> {
        None
    }
    /// Whose contact request it refuses.
    fn refuses(&self) -> Option<AccountId> {
        None
    }
    fn page(
        engine: &Engine,
        read: &dyn Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Self>, CommandError>;

    /// One item, if it is there and opens.
    fn read(
        engine: &Engine,
        read: &dyn Read,
        group: &GroupId,
        id: EntryId,
    ) -> Result<Option<Self>, CommandError> {
        let Some(position) = engine.position(read, group, Self::IN_MESSAGES, &id)? else { return Ok(None) };
        let found = Self::page(engine, read, group, Bound::Included(position), Direction::Ascending, 1)?;
        Ok(found.into_iter().find(|item| item.id() == id))
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
                sig: self.signature.map(|signature| signature.as_bytes().to_vec()).unwrap_or_default(),
                ..MessageHeaders::default()
            }),
            message: self.payload,
        }
    }

    fn page(
        engine: &Engine,
        read: &dyn Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Self>, CommandError> {
        let mut page = Vec::new();
        engine.visit_messages(read, group, start, direction, &mut |message| {
            page.push(message);
            if page.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
            Event::RequestReceived { event, .. } | Event::RequestDiscarded { event }
                if event.group == *group =>
            {
                Some((**event).clone())
            }
            _ => None,
        }
    }

    fn asks(&self) -> Option<(AccountId, bool)> {
        match self.event.event() {
            EventKind::ContactReceived { contact, .. } => Some((contact.account, is_outside(self.position))),
            _ => None,
        }
    }

    fn refuses(&self) -> Option<AccountId> {
        match self.event.event() {
            EventKind::ContactDiscarded { account, .. } => Some(*account),
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
        engine: &Engine,
        read: &dyn Read,
        group: &GroupId,
        start: Bound<Position>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Self>, CommandError> {
        let mut page = Vec::new();
        if direction == Direction::Descending {
            add_requests(engine, read, group, start, direction, limit, &mut page)?;
        }
        if page.len() < limit {
            engine.visit_metadata(read, group, start, direction, &mut |event| {
                page.push(event);
                if page.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        if direction == Direction::Ascending {
            add_requests(engine, read, group, start, direction, limit, &mut page)?;
        }
        Ok(page)
    }

    fn read(
        engine: &Engine,
        read: &dyn Read,
        group: &GroupId,
        id: EntryId,
    ) -> Result<Option<Self>, CommandError> {
        let position = engine.position(read, group, Self::IN_MESSAGES, &id)?;
        let start = position.unwrap_or(Position { height: u64::MAX, id });
        let found = Self::page(engine, read, group, Bound::Included(start), Direction::Ascending, 1)?;
        Ok(found.into_iter().find(|item| item.id() == id))
    }
}

/// Adds contact requests that wait for an answer to what is listed of the account group.
///
/// The existing service writes them into the log at once, and its clients wait for the events. Here they stand
/// outside until they are answered (`spec/security.md` Q2), and are listed behind what is in the log.
fn add_requests(
    engine: &Engine,
    read: &dyn Read,
    group: &GroupId,
    start: Bound<Position>,
    direction: Direction,
    limit: usize,
    page: &mut Vec<MetadataEvent>,
) -> Result<(), CommandError> {
    if *group != engine.account_group() {
        return Ok(());
    }
    let mut events = engine.requests_as_events(read)?;
    events.sort_by_key(|event| event.position);
    if direction == Direction::Descending {
        events.reverse();
    }
    let follows = |event: &MetadataEvent| match (start, direction) {
        (Bound::Unbounded, _) => true,
        (Bound::Included(start), Direction::Ascending) => event.position >= start,
        (Bound::Excluded(start), Direction::Ascending) => event.position > start,
        (Bound::Included(start), Direction::Descending) => event.position <= start,
        (Bound::Excluded(start), Direction::Descending) => event.position < start,
    };
    page.extend(events.into_iter().filter(follows).take(limit.saturating_sub(page.len())));
    Ok(())
}

/// Whether something stands behind everything that is in a log.
fn is_outside(position: Position) -> bool {
    position.height == u64::MAX
}

fn context(group: &GroupId, entry: &EntryId, parents: &[EntryId]) -> EventContext {
    EventContext {
        id: entry.cid_bytes().to_vec(),
        parent_ids: parents.iter().map(|parent| parent.cid_bytes().to_vec()).collect(),
        group_pk: group.as_bytes().to_vec(),
    }
}
