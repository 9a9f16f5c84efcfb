//! The chat service on two nodes that speak over loopback.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::sync::Arc;
use std::time::Duration;

use dunlin_base::kv::MemoryStore;
use dunlin_messenger::rpc::chat_service_server::ChatService;
use dunlin_messenger::{Chat, Messenger};
use dunlin_node::{NodeConfig, NodeHandle};
use dunlin_proto::chat::read_reply::Event;
use dunlin_proto::chat::{
    ContactAddRequest, ContactListRequest, ContactRef, ContactState, LinkRequest, Message, MessageState,
    ReadRequest, SendRequest, SetNameRequest, WhyRequest,
};
use tokio_stream::StreamExt;
use tonic::{Code, Request};

/// Longest wait for something that two nodes on one machine do in a second.
const PATIENCE: Duration = Duration::from_secs(30);

struct Party {
    node: NodeHandle<Messenger>,
    chat: Chat,
}

impl Party {
    async fn new(name: &str) -> Self {
        let mut config = NodeConfig::new(Arc::new(MemoryStore::default()));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let node = NodeHandle::start(config, Messenger::new).await.unwrap();
        let chat = Chat::new(&node);
        chat.set_name(Request::new(SetNameRequest { name: name.into() })).await.unwrap();
        Self { node, chat }
    }

    async fn link(&self) -> String {
        self.chat.link(Request::new(LinkRequest::default())).await.unwrap().into_inner().link
    }

    async fn add(&self, link: String) -> Result<(), tonic::Status> {
        let request = ContactAddRequest { link, passphrase: String::new() };
        self.chat.contact_add(Request::new(request)).await.map(drop)
    }

    async fn wait_for(&self, state: ContactState) {
        tokio::time::timeout(PATIENCE, async {
            loop {
                let list = self.chat.contact_list(Request::new(ContactListRequest {})).await.unwrap();
                if list.into_inner().contacts.iter().any(|contact| contact.state() == state) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
    }

    async fn send(&self, conversation: &str, text: &str) -> Message {
        let request = SendRequest { conversation: conversation.into(), text: text.into() };
        self.chat.send(Request::new(request)).await.unwrap().into_inner()
    }
}

fn reason(status: &tonic::Status) -> &str {
    status.metadata().get("dunlin-reason").unwrap().to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_meet_and_talk() {
    let (ann, bob) = (Party::new("Ann").await, Party::new("Bob").await);
    let address = ann.node.addresses().into_iter().next().unwrap();
    bob.node.network().dial(address).await.unwrap();

    ann.add(bob.link().await).await.unwrap();
    bob.wait_for(ContactState::Asks).await;
    bob.chat.contact_accept(Request::new(ContactRef { contact: "Ann".into() })).await.unwrap();
    ann.wait_for(ContactState::Added).await;

    let request =
        ReadRequest { conversation: "ann".into(), follow: true, mark_read: true, ..ReadRequest::default() };
    let mut replies = bob.chat.read(Request::new(request)).await.unwrap().into_inner();
    assert!(matches!(replies.next().await.unwrap().unwrap().event, Some(Event::HistoryEnd(_))));
    let sent = ann.send("bob", "hello").await;
    assert!(sent.own && !sent.id.is_empty());
    let Some(Event::Added(arrived)) = next(&mut replies).await else { panic!("a new message") };
    assert_eq!((arrived.text.as_str(), arrived.sender_name.as_str(), arrived.own), ("hello", "Ann", false));
    assert_eq!(arrived.id, sent.id);

    let request = ReadRequest { conversation: "bob".into(), follow: true, ..ReadRequest::default() };
    let mut replies = ann.chat.read(Request::new(request)).await.unwrap().into_inner();
    let received = tokio::time::timeout(PATIENCE, async {
        loop {
            match next(&mut replies).await {
                Some(Event::History(message) | Event::Changed(message))
                    if message.state() == MessageState::Received =>
                {
                    return message;
                }
                _ => {}
            }
        }
    });
    let received = received.await.unwrap();
    assert_eq!((received.received_by, received.recipients), (1, 1));
    let why = WhyRequest { what: sent.short_id, utc_offset_minutes: 0 };
    let why = ann.chat.why(Request::new(why)).await.unwrap().into_inner();
    assert!(why.sentence.starts_with("Bob received it at "), "{}", why.sentence);

    for party in [ann, bob] {
        party.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_a_sentence_and_a_word() {
    let ann = Party::new("Ann").await;
    let refused = ann.add(ann.link().await).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, "own-link"));
    assert_eq!(refused.message(), "this is your own link: give it to others");
    let refused = ann.add("https://example.org/".into()).await.unwrap_err();
    assert_eq!(reason(&refused), "link-host");
    let request = LinkRequest { passphrase: "tide".into(), ..LinkRequest::default() };
    let protected = ann.chat.link(Request::new(request)).await.unwrap().into_inner().link;
    let refused = ann.add(protected).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "password-needed"));
    let request = SendRequest { conversation: "nobody".into(), text: "hi".into() };
    let refused = ann.chat.send(Request::new(request)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "conversation-unknown"));
    ann.node.shutdown().await;
}

async fn next(
    replies: &mut (impl tokio_stream::Stream<Item = Result<dunlin_proto::chat::ReadReply, tonic::Status>> + Unpin),
) -> Option<Event> {
    tokio::time::timeout(PATIENCE, replies.next()).await.unwrap().unwrap().unwrap().event
}
