//! Nodes that are served, and their clients.

use std::sync::Arc;
use std::time::Duration;

use dunlin_base::kv::MemoryStore;
use dunlin_node::rpc::node::node_service_client::NodeServiceClient;
use dunlin_node::rpc::protocol::protocol_service_client::ProtocolServiceClient;
use dunlin_node::{NodeConfig, NodeHandle, Origins, routes, serve};
use dunlin_proto::errcode::ErrDetails;
use dunlin_proto::protocol as api;
use dunlin_wesh::engine::NoApp;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Longest wait for something that one machine does in moments.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node and its services.
pub struct Served {
    pub node: NodeHandle<NoApp>,
    channel: Channel,
}

impl Served {
    pub async fn start() -> Self {
        Self::start_as(|_| {}).await
    }

    pub async fn start_as(settle: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::new(Arc::new(MemoryStore::default()));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        settle(&mut config);
        let node = NodeHandle::start(config, || NoApp).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(serve(routes(&node), incoming, Origins::default(), std::future::pending()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { node, channel }
    }

    pub fn client(&self) -> ProtocolServiceClient<Channel> {
        ProtocolServiceClient::new(self.channel.clone())
    }

    pub fn node_client(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Where the node listens, once it does.
    pub async fn address(&self) -> dunlin_ipfs::Multiaddr {
        let there = async {
            loop {
                if let Some(address) = self.node.addresses().into_iter().next() {
                    return address;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(there).await
    }

    pub async fn configuration(&self) -> api::service_get_configuration::Reply {
        self.client()
            .service_get_configuration(api::service_get_configuration::Request {})
            .await
            .unwrap()
            .into_inner()
    }

    /// Makes a group; gives its key.
    pub async fn group(&self) -> Vec<u8> {
        let created =
            self.client().multi_member_group_create(api::multi_member_group_create::Request {}).await;
        created.unwrap().into_inner().group_pk
    }

    /// Sends a message; gives its id.
    pub async fn send(&self, group: &[u8], payload: &[u8]) -> Vec<u8> {
        let request = api::app_message_send::Request { group_pk: group.to_vec(), payload: payload.to_vec() };
        self.client().app_message_send(request).await.unwrap().into_inner().cid
    }

    /// The texts that a list gives until it ends.
    pub async fn texts(&self, request: api::group_message_list::Request) -> Vec<String> {
        let mut list = self.client().group_message_list(request).await.unwrap().into_inner();
        let mut texts = Vec::new();
        while let Some(event) = soon(list.message()).await.unwrap() {
            texts.push(String::from_utf8(event.message).unwrap());
        }
        texts
    }

    pub async fn stop(self) {
        self.node.shutdown().await;
    }
}

/// The next of a stream that has to have one.
pub async fn next<T>(stream: &mut Streaming<T>) -> T {
    soon(stream.message()).await.unwrap().expect("the stream goes on")
}

/// What has to come in time.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// The codes of a refusal, outermost first.
pub fn codes(status: &Status) -> Vec<i32> {
    #[derive(Clone, PartialEq, Message)]
    struct RpcStatus {
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct Any {
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    let rpc = RpcStatus::decode(status.details()).unwrap();
    let details = rpc.details.iter().flat_map(|any| ErrDetails::decode(&*any.value).unwrap().codes);
    details.collect()
}
