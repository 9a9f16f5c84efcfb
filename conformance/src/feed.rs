//! What a node streams.

use std::collections::VecDeque;

use dunlin_proto::protocol as api;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status, Streaming};

use crate::trouble::{Outcome, Refusal, failed};
use crate::wait::Patience;

/// How many of the last items a failed wait shows.
const SHOWN_MAX: usize = 12;

/// Items that wait to be looked at; more wait in the node.
const WAITING_MAX: usize = 16;

/// How much of one item it shows.
const SHOWN_CHARS_MAX: usize = 48;

/// A stream of one node, and what came out of it last. Dropping it cancels the stream.
pub struct Feed<T> {
    node: String,
    call: &'static str,
    patience: Patience,
    items: mpsc::Receiver<Result<T, Status>>,
    reading: JoinHandle<()>,
    seen: VecDeque<String>,
    count: usize,
}

/// Something that a failed wait can show.
pub trait Shown: Send + 'static {
    /// A few words that tell it from others.
    fn shown(&self) -> String;
}

impl<T: Shown> Feed<T> {
    /// Reads from what `opening` opens. It is not waited for: some nodes answer only with the first item.
    pub fn open(
        node: &str,
        call: &'static str,
        patience: Patience,
        opening: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    ) -> Self {
        let (found, items) = mpsc::channel(WAITING_MAX);
        let reading = tokio::spawn(async move {
            let ended = async {
                let mut stream = opening.await?.into_inner();
                while let Some(item) = stream.message().await? {
                    if found.send(Ok(item)).await.is_err() {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(status) = ended.await {
                // Nobody may want to know any more.
                let _ = found.send(Err(status)).await;
            }
        });
        Self { node: node.to_owned(), call, patience, items, reading, seen: VecDeque::new(), count: 0 }
    }

    /// The next item, none at the end, unless the wait for `what` is over before.
    async fn next(&mut self, what: &str, deadline: Instant) -> Outcome<Option<T>> {
        match timeout_at(deadline, self.items.recv()).await {
            Ok(Some(Ok(item))) => {
                self.note(&item);
                Ok(Some(item))
            }
            Ok(Some(Err(status))) => {
                let refusal = Refusal::refused(&self.node, self.call, status);
                failed(format!("{refusal}, while waiting for {what}; {}", self.told()))
            }
            Ok(None) => Ok(None),
            Err(_) => failed(format!(
                "{}: waited {:.0} s for {what} in {}; {}",
                self.node,
                self.patience.span().as_secs_f64(),
                self.call,
                self.told()
            )),
        }
    }

    /// Reads on until an item is what is looked for. The patience is with each item, so that a thousand of them
    /// may take their time.
    pub async fn find<R>(&mut self, what: &str, mut look: impl FnMut(T) -> Option<R>) -> Outcome<R> {
        loop {
            let Some(item) = self.next(what, self.patience.deadline()).await? else {
                return failed(format!("{}: {} ended before {what}; {}", self.node, self.call, self.told()));
            };
            if let Some(found) = look(item) {
                return Ok(found);
            }
        }
    }

    /// Reads to the end, which has to come.
    pub async fn rest(mut self) -> Outcome<Vec<T>> {
        let mut items = Vec::new();
        while let Some(item) = self.next("its end", self.patience.deadline()).await? {
            items.push(item);
        }
        Ok(items)
    }

    /// Reads this many items, and then the end if there is one at once.
    pub async fn take(&mut self, count: usize, what: &str) -> Outcome<Vec<T>> {
        let mut items = Vec::new();
        while items.len() < count {
            items.push(self.find(what, Some).await?);
        }
        Ok(items)
    }

    /// The refusal with which a stream ends that must not be opened; what came instead, if something did.
    pub async fn refusal(mut self) -> Result<Refusal, String> {
        match timeout_at(self.patience.deadline(), self.items.recv()).await {
            Ok(Some(Err(status))) => Ok(Refusal::refused(&self.node, self.call, status)),
            Ok(Some(Ok(item))) => Err(format!("{}: {} gives {}", self.node, self.call, item.shown())),
            Ok(None) => Err(format!("{}: {} ends without an error", self.node, self.call)),
            Err(_) => Err(format!("{}: {} stays open", self.node, self.call)),
        }
    }

    fn note(&mut self, item: &T) {
        self.count += 1;
        if self.seen.len() >= SHOWN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(item.shown());
    }

    /// What came last, in words.
    fn told(&self) -> String {
        if self.seen.is_empty() {
            return "nothing came".to_owned();
        }
        let seen = self.seen.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("{} came, the last: {seen}", self.count)
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Shown for api::GroupMessageEvent {
    fn shown(&self) -> String {
        text(&self.message)
    }
}

impl Shown for api::GroupMetadataEvent {
    fn shown(&self) -> String {
        let Some(metadata) = &self.metadata else { return "an event without content".to_owned() };
        let name = metadata.event_type().as_str_name();
        name.strip_prefix("EventType").unwrap_or(name).to_owned()
    }
}

impl Shown for api::group_device_status::Reply {
    fn shown(&self) -> String {
        self.r#type().as_str_name().to_owned()
    }
}

impl Shown for api::debug_list_groups::Reply {
    fn shown(&self) -> String {
        format!("{:?} {}", self.group_type(), hex::encode(&self.group_pk))
    }
}

impl Shown for api::debug_inspect_group_store::Reply {
    fn shown(&self) -> String {
        format!("{:?} {}", self.metadata_event_type(), hex::encode(&self.cid))
    }
}

impl Shown for api::service_export_data::Reply {
    fn shown(&self) -> String {
        format!("{} bytes", self.exported_data.len())
    }
}

impl Shown for api::verified_credentials_list::Reply {
    fn shown(&self) -> String {
        "a credential".to_owned()
    }
}

/// Bytes as the text that they most likely are.
pub fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return format!("{text:?}");
    }
    let begin: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{begin:?}… ({} bytes)", bytes.len())
}
