//! The way to a running node.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::failure::{Exit, Failure};
use crate::home::Home;
use dunlin_messenger::rpc::chat_service_client::ChatServiceClient;
use dunlin_node::rpc::device::device_service_client::DeviceServiceClient;
use dunlin_node::rpc::node::node_service_client::NodeServiceClient;

/// How long a node on the same machine may take to answer the door.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls to the node of a data directory. Clones share one connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// People, conversations and messages.
    pub chat: ChatServiceClient<Channel>,
    /// The devices of the account.
    pub device: DeviceServiceClient<Channel>,
    /// Peers and addresses.
    pub node: NodeServiceClient<Channel>,
}

impl Client {
    /// Connects with the node that runs on `home`.
    pub async fn connect(home: &Home) -> Result<Self, Failure> {
        Self::find(home).await.ok_or_else(|| {
            let told = format!(
                "No node is running on {}. Start one with `dunlin node`, or open the chat with `dunlin`.",
                home.path().display()
            );
            Failure::new(Exit::NoNode, told)
        })
    }

    /// Connects with the node that runs on `home`, if there is one. A file left by a process that is gone
    /// counts as none.
    pub async fn find(home: &Home) -> Option<Self> {
        Self::at(&home.node_file()?.grpc).await
    }

    /// Connects with the node that serves on `address`, if there is one.
    pub async fn at(address: &str) -> Option<Self> {
        let endpoint = Endpoint::from_shared(address.to_owned()).ok()?.connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect().await.ok()?;
        Some(Self {
            chat: ChatServiceClient::new(channel.clone()),
            device: DeviceServiceClient::new(channel.clone()),
            node: NodeServiceClient::new(channel),
        })
    }
}
