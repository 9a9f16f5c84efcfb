//! The two calls that go on: reading a conversation, and watching everything.

use std::collections::BTreeSet;

use dunlin_base::{EntryId, GroupId};
use dunlin_node::NodeHandle;
use dunlin_proto::chat::notice::Notice as Told;
use dunlin_proto::chat::read_reply::Event as Reply;
use dunlin_proto::chat::{self, ReadReply};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{convert, look_at, status};
use crate::clock::Zone;
use crate::views::{Gap, Message};
use crate::{Messenger, MessengerError, Notice, PAGE_MESSAGES_MAX, Page};

/// Replies that wait for a slow client before the watcher waits too.
const REPLIES_WAITING_MAX: usize = 64;
/// Messages of a history when the client names no number.
const HISTORY_MESSAGES: usize = 100;

pub(super) type Replies<R> = ReceiverStream<Result<R, Status>>;

/// What a client reads.
pub(super) struct Reading {
    pub group: GroupId,
    pub page: Page,
    pub follow: bool,
    pub mark_read: bool,
    pub zone: Zone,
}

/// How many messages a client gets that asked for `limit`.
pub(super) fn history_limit(limit: u32) -> usize {
    match usize::try_from(limit) {
        Ok(0) => HISTORY_MESSAGES,
        Ok(limit) => limit.min(PAGE_MESSAGES_MAX),
        Err(_) => PAGE_MESSAGES_MAX,
    }
}

/// The history, and then what arrives and changes.
pub(super) async fn read(
    node: NodeHandle<Messenger>,
    reading: Reading,
) -> Result<Replies<ReadReply>, Status> {
    // Watch before looking, so that nothing falls between the two.
    let notices = node.notices();
    let (group, page, zone) = (reading.group, reading.page, reading.zone);
    let history = node.transact(move |ctx, engine, app| {
        let messages = app.messages(ctx.tx, engine, &group, &page)?;
        let gaps = app.gaps(ctx.tx, engine, &group, &page, &messages, ctx.now, zone)?;
        Ok::<_, MessengerError>((messages, gaps))
    });
    let (history, gaps) = history.await.map_err(|error| status::of_call(&error))?;
    let (replies, stream) = mpsc::channel(REPLIES_WAITING_MAX);
    let mut reader = Reader { node, reading, replies, seen: BTreeSet::new() };
    tokio::spawn(async move {
        if reader.tell_history(history, gaps).await.is_ok() && reader.reading.follow {
            reader.follow(notices).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// The client is gone; nothing more is to be done for it.
struct Gone;

struct Reader {
    node: NodeHandle<Messenger>,
    reading: Reading,
    replies: mpsc::Sender<Result<ReadReply, Status>>,
    /// Messages that the client has. As many as it was sent, 32 bytes each.
    seen: BTreeSet<EntryId>,
}

impl Reader {
    async fn tell_history(&mut self, history: Vec<Message>, gaps: Vec<Gap>) -> Result<(), Gone> {
        let mut gaps = gaps.iter().peekable();
        for message in &history {
            while let Some(gap) = gaps.next_if(|gap| gap.position < message.position) {
                self.reply(Reply::Gap(convert::gap(gap, self.reading.group))).await?;
            }
            self.seen.insert(message.entry());
            self.reply(Reply::History(convert::message(message))).await?;
        }
        for gap in gaps {
            self.reply(Reply::Gap(convert::gap(gap, self.reading.group))).await?;
        }
        if self.reading.follow {
            self.reply(Reply::HistoryEnd(chat::HistoryEnd {})).await?;
        }
        self.mark_read().await
    }

    async fn follow(&mut self, mut notices: broadcast::Receiver<Notice>) {
        let replies = self.replies.clone();
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = replies.closed() => return,
            };
            let told = match notice {
                Ok(Notice::MessageAdded { group, entry } | Notice::MessageChanged { group, entry })
                    if group == self.reading.group =>
                {
                    self.tell(&entry).await
                }
                Ok(Notice::GapFound { group, entry }) if group == self.reading.group => {
                    self.tell_gap(entry).await
                }
                Ok(Notice::MessageErased { group, entry }) if group == self.reading.group => {
                    self.reply(Reply::Erased(convert::erased(&group, &entry))).await
                }
                Ok(_) => Ok(()),
                Err(RecvError::Lagged(_)) => self.catch_up().await,
                Err(RecvError::Closed) => return,
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn tell(&mut self, entry: &EntryId) -> Result<(), Gone> {
        let id = *entry;
        let found = look_at(&self.node, move |read, engine, app| Ok(app.message(read, engine, &id)?)).await;
        match found {
            Ok(Some(message)) => self.tell_message(&message).await,
            Ok(None) => Ok(()),
            Err(status) => self.fail(status).await,
        }
    }

    async fn tell_gap(&mut self, entry: EntryId) -> Result<(), Gone> {
        let (group, zone) = (self.reading.group, self.reading.zone);
        match gap_now(&self.node, group, entry, zone).await {
            Ok(Some(gap)) => self.reply(Reply::Gap(gap)).await,
            Ok(None) => Ok(()),
            Err(status) => self.fail(status).await,
        }
    }

    async fn tell_message(&mut self, message: &Message) -> Result<(), Gone> {
        if !self.seen.insert(message.entry()) {
            return self.reply(Reply::Changed(convert::message(message))).await;
        }
        self.reply(Reply::Added(convert::message(message))).await?;
        if message.own { Ok(()) } else { self.mark_read().await }
    }

    /// After notices were missed: the latest messages once more, as they are now.
    async fn catch_up(&mut self) -> Result<(), Gone> {
        let group = self.reading.group;
        let page = Page { limit: PAGE_MESSAGES_MAX, ..Page::default() };
        match look_at(&self.node, move |read, engine, app| app.messages(read, engine, &group, &page)).await {
            Ok(messages) => {
                for message in &messages {
                    self.tell_message(message).await?;
                }
                Ok(())
            }
            Err(status) => self.fail(status).await,
        }
    }

    async fn mark_read(&self) -> Result<(), Gone> {
        if !self.reading.mark_read {
            return Ok(());
        }
        let group = self.reading.group;
        let marked = self.node.transact(move |ctx, _, app| app.mark_read(ctx, &group)).await;
        match marked {
            Ok(()) => Ok(()),
            Err(error) => self.fail(status::of_call(&error)).await,
        }
    }

    async fn reply(&self, event: Reply) -> Result<(), Gone> {
        self.replies.send(Ok(ReadReply { event: Some(event) })).await.map_err(|_| Gone)
    }

    async fn fail(&self, status: Status) -> Result<(), Gone> {
        // The stream ends with its first error.
        let _ = self.replies.send(Err(status)).await;
        Err(Gone)
    }
}

/// A closed message as it is now; none when it is open meanwhile.
async fn gap_now(
    node: &NodeHandle<Messenger>,
    group: GroupId,
    entry: EntryId,
    zone: Zone,
) -> Result<Option<chat::Gap>, Status> {
    // A look knows no time, which the sentence needs.
    let gap = node.transact(move |ctx, engine, app| {
        Ok::<_, MessengerError>(app.gap(ctx.tx, engine, &group, &entry, ctx.now, zone)?)
    });
    let gap = gap.await.map_err(|error| status::of_call(&error))?;
    Ok(gap.map(|gap| convert::gap(&gap, group)))
}

/// Everything that changes from now on.
pub(super) fn watch(node: NodeHandle<Messenger>, zone: Zone) -> Replies<chat::Notice> {
    let mut notices = node.notices();
    let (replies, stream) = mpsc::channel(REPLIES_WAITING_MAX);
    tokio::spawn(async move {
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = replies.closed() => return,
            };
            let told = match notice {
                Ok(Notice::GapFound { group, entry }) => {
                    gap_now(&node, group, entry, zone).await.map(|gap| gap.map(Told::Gap))
                }
                Ok(notice) => {
                    look_at(&node, move |read, engine, app| notice_told(read, engine, app, notice)).await
                }
                Err(RecvError::Lagged(count)) => Ok(Some(Told::Missed(chat::Missed { count }))),
                Err(RecvError::Closed) => return,
            };
            let reply = match told {
                Ok(None) => continue,
                Ok(notice) => Ok(chat::Notice { notice }),
                Err(status) => Err(status),
            };
            let is_last = reply.is_err();
            if replies.send(reply).await.is_err() || is_last {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// What a notice says, as things are now; nothing when what it is about is gone again.
fn notice_told(
    read: &dyn dunlin_base::kv::Read,
    engine: &dunlin_wesh::engine::Engine,
    app: &Messenger,
    notice: Notice,
) -> Result<Option<Told>, MessengerError> {
    Ok(match notice {
        Notice::ProfileChanged => {
            let profile = convert::profile(app.name(), engine, app.own_link(read, engine)?);
            Some(Told::ProfileChanged(profile))
        }
        Notice::CopyFound => Some(Told::CopyFound(chat::CopyFound {})),
        Notice::DeviceAdded(device) => Some(Told::DeviceAdded(device.to_string())),
        Notice::ContactChanged(account) => {
            let contact = app.contact(read, engine, &account)?;
            contact.map(|contact| Told::ContactChanged(convert::contact(&contact)))
        }
        Notice::ContactRemoved(account) => Some(Told::ContactRemoved(account.to_string())),
        Notice::ConversationChanged(group) => {
            let conversation = app.conversation(read, engine, &group)?;
            Some(Told::ConversationChanged(convert::conversation(&conversation)))
        }
        // Told with the time, by the caller.
        Notice::GapFound { .. } => None,
        Notice::Gone { group, entry } => {
            Some(Told::Gone(chat::Gone { id: entry.to_string(), conversation: group.to_string() }))
        }
        Notice::MessageErased { group, entry } => Some(Told::MessageErased(convert::erased(&group, &entry))),
        Notice::MessageAdded { entry, .. } => {
            app.message(read, engine, &entry)?.map(|message| Told::MessageAdded(convert::message(&message)))
        }
        Notice::MessageChanged { entry, .. } => {
            app.message(read, engine, &entry)?.map(|message| Told::MessageChanged(convert::message(&message)))
        }
    })
}
