//! How the services are reached: gRPC, gRPC-web, reflection, and who is turned away.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_base::kv::MemoryStore;
use dunlin_node::{NodeConfig, NodeHandle, Origins, routes_beside, serve};
use dunlin_proto::protocol as api;
use dunlin_wesh::engine::NoApp;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// The page that whoever started the node has named.
const OWN_PAGE: &str = "http://localhost:3000";
const CONFIGURATION: &str = "/weshnet.protocol.v1.ProtocolService/ServiceGetConfiguration";

#[tokio::test]
async fn what_is_served_can_be_asked_for() {
    let door = Door::open().await;
    let channel = Channel::from_shared(format!("http://{}", door.address)).unwrap().connect().await.unwrap();
    let mut client = ServerReflectionClient::new(channel);
    let asked = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("weshnet.protocol.v1.ProtocolService".to_owned()),
    ];
    let asked =
        asked.map(|asked| ServerReflectionRequest { host: String::new(), message_request: Some(asked) });
    let answers = client.server_reflection_info(tokio_stream::iter(asked)).await.unwrap().into_inner();
    let answers: Vec<_> = tokio_stream::StreamExt::collect(answers).await;
    let answers: Vec<MessageResponse> = answers
        .into_iter()
        .map(|answer: Result<ServerReflectionResponse, _>| answer.unwrap().message_response.unwrap())
        .collect();
    let [MessageResponse::ListServicesResponse(list), MessageResponse::FileDescriptorResponse(file)] =
        &answers[..]
    else {
        panic!("{answers:?}");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "weshnet.protocol.v1.ProtocolService",
        "weshnet.outofstoremessage.v1.OutOfStoreMessageService",
        "dunlin.node.v1.NodeService",
        "dunlin.chat.v1.ChatService",
    ] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
    assert!(
        !names.contains(&"weshnet.replication.v1.ReplicationService"),
        "what is not served is not listed"
    );
    assert!(!file.file_descriptor_proto.is_empty());
    door.close().await;
}

#[tokio::test]
async fn a_program_may_speak_grpc_web() {
    let door = Door::open().await;
    let answer = door.call(&[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().get("access-control-allow-origin").is_none());
    let reply = configuration(answer.into_body());
    assert_eq!(reply.account_pk.len(), 32);
    door.close().await;
}

#[tokio::test]
async fn only_pages_that_were_named_may_call() {
    let door = Door::open().await;
    let answer = door.call(&[("origin", OWN_PAGE)]).await;
    assert_eq!(answer.headers().get("access-control-allow-origin").unwrap(), OWN_PAGE);
    assert_eq!(configuration(answer.into_body()).account_pk.len(), 32);

    let own = format!("http://{}", door.address);
    for foreign in ["http://evil.example", "http://localhost:3001", "https://localhost:3000", "null", &own] {
        for (method, asks) in [(Method::POST, None), (Method::OPTIONS, Some("POST"))] {
            let mut headers = vec![("origin", foreign)];
            headers.extend(asks.map(|method| ("access-control-request-method", method)));
            let answer = door.send(method.clone(), &headers).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{method} by {foreign}");
            assert!(answer.headers().get("access-control-allow-origin").is_none(), "{method} by {foreign}");
            assert!(answer.body().is_empty(), "{method} by {foreign}");
        }
    }
    door.close().await;
}

#[tokio::test]
async fn a_browser_may_ask_first_for_a_page_that_was_named() {
    let door = Door::open().await;
    let asks = [("origin", OWN_PAGE), ("access-control-request-method", "POST")];
    let answer = door.send(Method::OPTIONS, &asks).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(answer.headers().get("access-control-allow-origin").unwrap(), OWN_PAGE);
    assert_eq!(answer.headers().get("access-control-allow-methods").unwrap(), "POST");
    door.close().await;
}

/// A page can have its own name point to this machine, and is of one origin with it then.
#[tokio::test]
async fn a_foreign_name_of_this_machine_is_turned_away() {
    let door = Door::open().await;
    for headers in
        [vec![("host", "evil.example")], vec![("host", "evil.example"), ("origin", "http://evil.example")]]
    {
        assert_eq!(door.call(&headers).await.status(), StatusCode::FORBIDDEN, "{headers:?}");
    }
    assert_eq!(door.call(&[("host", "localhost")]).await.status(), StatusCode::OK);
    door.close().await;
}

/// The reply in the frames of gRPC-web: a message, and the trailers.
fn configuration(body: Bytes) -> api::service_get_configuration::Reply {
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!(body[0], 0, "the first frame is a message");
    let trailers = String::from_utf8_lossy(&body[5 + length..]).to_lowercase();
    assert!(trailers.contains("grpc-status:0") || trailers.contains("grpc-status: 0"), "{trailers}");
    api::service_get_configuration::Reply::decode(&body[5..5 + length]).unwrap()
}

/// A node that is served.
struct Door {
    node: NodeHandle<NoApp>,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Door {
    async fn open() -> Self {
        let node =
            NodeHandle::start(NodeConfig::new(Arc::new(MemoryStore::default())), || NoApp).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = routes_beside(&node, &["dunlin.chat.v1.ChatService"]);
        let origins = Origins::new([OWN_PAGE]).unwrap();
        tokio::spawn(serve(routes, TcpListenerStream::new(listener), origins, std::future::pending()));
        Self { node, address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Calls `ServiceGetConfiguration` as a page would.
    async fn call(&self, headers: &[(&str, &str)]) -> Response<Bytes> {
        self.send(Method::POST, headers).await
    }

    async fn send(&self, method: Method, headers: &[(&str, &str)]) -> Response<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{CONFIGURATION}", self.address))
            .header("content-type", "application/grpc-web+proto");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let empty_message = Bytes::from_static(&[0; 5]);
        let answer = self.client.request(request.body(Full::new(empty_message)).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }

    async fn close(self) {
        self.node.shutdown().await;
    }
}
