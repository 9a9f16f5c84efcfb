//! The gRPC services of a node, as one set of routes.
//!
//! `weshnet.protocol.v1.ProtocolService` has the names, numbers and errors of the existing one, so that its
//! clients work unchanged. `dunlin.node.v1.NodeService` has what that one cannot say: whom to connect to.

mod archive;
mod lists;
mod network;
mod protocol;
mod status;

use dunlin_wesh::engine::App;
use tonic::service::Routes;

use crate::NodeHandle;

pub use status::status_of;

/// Largest request that is accepted, in bytes: the limit of the existing service.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Clients and servers as `tonic` makes them from the protobuf files; the messages are in `dunlin_proto`.
pub mod stubs {
    #![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]

    pub mod protocol {
        tonic::include_proto!("weshnet.protocol.v1");
    }
    pub mod node {
        tonic::include_proto!("dunlin.node.v1");
    }
}

/// The services of `node`, to be served over any transport.
pub fn routes<A: App + Send + 'static>(node: &NodeHandle<A>) -> Routes {
    let protocol = stubs::protocol::protocol_service_server::ProtocolServiceServer::new(
        protocol::Protocol::new(node.clone()),
    );
    let network =
        stubs::node::node_service_server::NodeServiceServer::new(network::Network::new(node.clone()));
    Routes::new(protocol.max_decoding_message_size(REQUEST_BYTES_MAX)).add_service(network)
}
