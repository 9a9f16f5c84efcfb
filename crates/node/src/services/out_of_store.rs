//! Messages that came outside their log (`spec/wesh-protocol.md` §7.4): the call that two services have.

use dunlin_proto::protocol::out_of_store_receive::{Reply, Request};
use dunlin_wesh::engine::App;
use tonic::{Response, Status};

use super::status::status_of;
use super::stubs::out_of_store::out_of_store_message_service_server::OutOfStoreMessageService;
use crate::NodeHandle;

/// Answers the one call of `OutOfStoreMessageService`.
pub(super) struct OutOfStore<A: App> {
    node: NodeHandle<A>,
}

impl<A: App> OutOfStore<A> {
    pub fn new(node: NodeHandle<A>) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl<A: App + Send + 'static> OutOfStoreMessageService for OutOfStore<A> {
    async fn out_of_store_receive(
        &self,
        request: tonic::Request<Request>,
    ) -> Result<Response<Reply>, Status> {
        receive(&self.node, request.into_inner()).await.map(Response::new)
    }
}

/// Opens what came outside its log.
pub(super) async fn receive<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    request: Request,
) -> Result<Reply, Status> {
    let opened = node.view(move |read, engine, _| engine.open_out_of_store(read, &request.payload)).await;
    let opened = opened.map_err(|error| status_of(&error))?;
    Ok(Reply {
        cleartext: opened.clear,
        group_public_key: opened.group.as_bytes().to_vec(),
        already_received: opened.already_received,
        message: Some(opened.message),
    })
}
