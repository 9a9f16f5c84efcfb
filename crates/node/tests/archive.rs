//! An account moves from one node to another, and a message goes after it outside its log: the calls of the
//! existing service, over a socket.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use dunlin_base::GroupId;
use dunlin_base::kv::MemoryStore;
use dunlin_node::rpc::protocol::protocol_service_client::ProtocolServiceClient;
use dunlin_node::{ImportError, NodeConfig, NodeHandle, import_archive, routes};
use dunlin_proto::protocol as api;
use dunlin_wesh::engine::{CommandError, NoApp};
use dunlin_wesh::profile::Profile;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};

#[tokio::test]
async fn an_account_moves_and_a_message_goes_after_it() {
    let old = Served::start(MemoryStore::default()).await;
    let group = old.node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
    old.send(group, b"in the archive").await;
    let archive = old.export().await;

    let store = MemoryStore::default();
    let imported = import_archive(&store, Profile::Berty, &mut archive.as_slice()).unwrap();
    assert_eq!((imported.refused, imported.left_out, imported.heads_missing), (0, 0, 0));
    let again = import_archive(&store, Profile::Berty, &mut archive.as_slice());
    assert!(matches!(again, Err(ImportError::Archive(_))));
    let new = Served::start(store).await;
    assert_eq!(new.account().await, old.account().await);
    new.node.transact(move |ctx, engine, _| engine.activate(ctx, &group)).await.unwrap();

    let cid = old.send(group, b"after it").await;
    let seal = api::out_of_store_seal::Request { cid, group_public_key: group.as_bytes().to_vec() };
    let payload = old.client().out_of_store_seal(seal).await.unwrap().into_inner().encrypted;
    let receive = api::out_of_store_receive::Request { payload };
    let opened = new.client().out_of_store_receive(receive.clone()).await.unwrap().into_inner();
    assert_eq!(opened.group_public_key, group.as_bytes());
    assert!(opened.cleartext.windows(8).any(|part| part == b"after it"));
    assert!(!opened.already_received);
    assert!(old.client().out_of_store_receive(receive).await.unwrap().into_inner().already_received);

    let list = api::verified_credentials_list::Request::default();
    let mut list = new.client().verified_credentials_list(list).await.unwrap().into_inner();
    assert_eq!(list.message().await.unwrap(), None);
    for served in [old, new] {
        served.node.shutdown().await;
    }
}

/// `spec/wesh-protocol.md` §8.5: what a Go node answers.
#[tokio::test]
async fn what_cannot_be_opened_or_sealed_has_the_codes_of_the_existing_service() {
    let served = Served::start(MemoryStore::default()).await;
    let receive = api::out_of_store_receive::Request { payload: b"garbage".to_vec() };
    let refused = served.client().out_of_store_receive(receive).await.unwrap_err();
    assert!(refused.message().starts_with("ErrCryptoDecrypt(#205): ErrDeserialization(#104)"), "{refused}");
    let group = served.node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
    let seal = api::out_of_store_seal::Request {
        cid: b"none".to_vec(),
        group_public_key: group.as_bytes().to_vec(),
    };
    let refused = served.client().out_of_store_seal(seal).await.unwrap_err();
    assert!(refused.message().starts_with("ErrInvalidInput(#100)"), "{refused}");
    served.node.shutdown().await;
}

/// A node and its service.
struct Served {
    node: NodeHandle<NoApp>,
    channel: Channel,
}

impl Served {
    async fn start(store: MemoryStore) -> Self {
        let mut config = NodeConfig::new(Arc::new(store));
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

    async fn send(&self, group: GroupId, text: &'static [u8]) -> Vec<u8> {
        let sent = self.node.transact(move |ctx, engine, _| engine.send_message(ctx, &group, text));
        let sent: Result<_, dunlin_node::CallError<CommandError>> = sent.await;
        sent.unwrap().cid_bytes().to_vec()
    }

    async fn export(&self) -> Vec<u8> {
        let request = api::service_export_data::Request {};
        let mut pieces = self.client().service_export_data(request).await.unwrap().into_inner();
        let mut archive = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            archive.extend(piece.exported_data);
        }
        archive
    }
}
