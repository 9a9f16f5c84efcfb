//! Contact requests as a client of the existing service sees them: it waits for event 108 on the account group
//! and then accepts, though a request is in no log before that.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use dunlin_base::kv::MemoryStore;
use dunlin_node::rpc::protocol::protocol_service_client::ProtocolServiceClient;
use dunlin_node::{NodeConfig, NodeHandle, routes};
use dunlin_proto::protocol as api;
use dunlin_wesh::engine::NoApp;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Streaming;
use tonic::transport::{Channel, Server};

type Events = Streaming<api::GroupMetadataEvent>;

/// Q2, Q3: what a request adds to the log, it adds when it is answered; whoever listens hears of it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hears_of_a_request_before_it_is_in_the_log_and_once() {
    let [ann, bob] = [Served::start().await, Served::start().await];
    let account = ann.account().await;
    let mut early = ann.events(true).await;
    bob.node.transact(|ctx, engine, _| engine.enable_requests(ctx)).await.unwrap();
    let request = ann.introduction(b"Bob, the baker").await;
    bob.node.network().dial(ann.node.addresses().remove(0)).await.unwrap();
    bob.client().contact_request_send(request).await.unwrap();

    let asked = next(&mut early, EventType::AccountContactRequestIncomingReceived).await;
    assert_eq!(asked.contact_pk, bob.account().await);
    assert_eq!(asked.contact_metadata, b"Bob, the baker");
    assert_eq!(ann.logged(EventType::AccountContactRequestIncomingReceived).await, 0, "it is in no log");
    let mut late = ann.events(false).await;
    let pending = next(&mut late, EventType::AccountContactRequestIncomingReceived).await;
    assert_eq!(pending, asked, "who comes later finds it among what there is");

    let contact_pk = asked.contact_pk.clone();
    ann.client().contact_request_accept(api::contact_request_accept::Request { contact_pk }).await.unwrap();
    for events in [&mut early, &mut late] {
        let kinds = kinds_until(events, EventType::AccountContactRequestIncomingAccepted).await;
        let again = EventType::AccountContactRequestIncomingReceived;
        assert!(!kinds.contains(&again), "it is not told twice: {kinds:?}");
    }
    assert_eq!(ann.logged(EventType::AccountContactRequestIncomingReceived).await, 1);
    assert_eq!(ann.account().await, account);
    for served in [ann, bob] {
        served.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hears_of_a_refusal_that_is_in_no_log_and_of_the_next_request() {
    let [ann, bob] = [Served::start().await, Served::start().await];
    let mut events = ann.events(true).await;
    let request = ann.introduction(b"Bob").await;
    bob.node.network().dial(ann.node.addresses().remove(0)).await.unwrap();
    bob.client().contact_request_send(request).await.unwrap();
    let asked = next(&mut events, EventType::AccountContactRequestIncomingReceived).await;

    let contact_pk = asked.contact_pk.clone();
    ann.client().contact_request_discard(api::contact_request_discard::Request { contact_pk }).await.unwrap();
    kinds_until(&mut events, EventType::AccountContactRequestIncomingDiscarded).await;
    assert_eq!(ann.logged(EventType::AccountContactRequestIncomingReceived).await, 0);
    assert_eq!(ann.logged(EventType::AccountContactRequestIncomingDiscarded).await, 0);
    for served in [ann, bob] {
        served.node.shutdown().await;
    }
}

use api::EventType;

/// The next event of a kind, as this kind says it.
async fn next(events: &mut Events, kind: EventType) -> api::AccountContactRequestIncomingReceived {
    loop {
        let event = events.message().await.unwrap().expect("the stream goes on");
        if event.metadata.as_ref().unwrap().event_type() == kind {
            return api::AccountContactRequestIncomingReceived::decode(&*event.event).unwrap();
        }
    }
}

/// The kinds of what comes, up to one.
async fn kinds_until(events: &mut Events, last: EventType) -> Vec<EventType> {
    let mut kinds = Vec::new();
    while kinds.last() != Some(&last) {
        let event = events.message().await.unwrap().expect("the stream goes on");
        kinds.push(event.metadata.unwrap().event_type());
    }
    kinds
}

/// A node and its service.
struct Served {
    node: NodeHandle<NoApp>,
    channel: Channel,
}

impl Served {
    async fn start() -> Self {
        let mut config = NodeConfig::new(Arc::new(MemoryStore::default()));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let node = NodeHandle::start(config, || NoApp).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_routes(routes(&node));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self { node, channel }
    }

    fn client(&self) -> ProtocolServiceClient<Channel> {
        ProtocolServiceClient::new(self.channel.clone())
    }

    async fn account(&self) -> Vec<u8> {
        let request = api::service_get_configuration::Request {};
        self.client().service_get_configuration(request).await.unwrap().into_inner().account_pk
    }

    /// What somebody sends to ask this account.
    async fn introduction(&self, own_metadata: &[u8]) -> api::contact_request_send::Request {
        let request = api::contact_request_enable::Request {};
        let enabled = self.client().contact_request_enable(request).await.unwrap().into_inner();
        let contact = api::ShareableContact {
            pk: self.account().await,
            public_rendezvous_seed: enabled.public_rendezvous_seed,
            metadata: Vec::new(),
        };
        let own_metadata = own_metadata.to_vec();
        api::contact_request_send::Request { contact: Some(contact), own_metadata }
    }

    /// The events of the account group, those to come alone or all.
    async fn events(&self, since_now: bool) -> Events {
        let group_pk = self.account().await;
        let list = api::group_metadata_list::Request { group_pk, since_now, ..Default::default() };
        self.client().group_metadata_list(list).await.unwrap().into_inner()
    }

    /// How many events of a kind the account log holds.
    async fn logged(&self, kind: EventType) -> usize {
        let account = self.node.transact(|_, engine, _| Ok::<_, ()>(engine.account_group())).await.unwrap();
        let counted = self.node.view(move |read, engine, _| {
            let mut count = 0;
            let (from, up) = (std::ops::Bound::Unbounded, dunlin_base::kv::Direction::Ascending);
            engine.visit_metadata(read, &account, from, up, &mut |event| {
                count += usize::from(event.event.to_proto().event_type() == kind);
                std::ops::ControlFlow::Continue(())
            })?;
            Ok::<_, dunlin_wesh::engine::CommandError>(count)
        });
        counted.await.unwrap()
    }
}
