//! The gRPC services of a node, as one set of routes.
//!
//! `weshnet.protocol.v1.ProtocolService` has the names, numbers and errors of the existing one, so that its
//! clients work unchanged; `weshnet.outofstoremessage.v1.OutOfStoreMessageService` has the one call that a push
//! extension needs. `dunlin.node.v1.NodeService` has what those cannot say: whom to connect to; and
//! `dunlin.device.v1.DeviceService` what concerns the devices of the account. What is served
//! can be asked for by reflection.

mod archive;
mod credentials;
mod debug;
mod devices;
mod groups;
mod items;
mod lists;
mod network;
mod out_of_store;
mod outside;
mod presence;
mod process;
mod protocol;
mod replication;
mod status;
mod waiting;
mod web;

use dunlin_wesh::engine::App;
use stubs::device::device_service_server::{self, DeviceServiceServer};
use stubs::node::node_service_server::{self, NodeServiceServer};
use stubs::out_of_store::out_of_store_message_service_server::{self, OutOfStoreMessageServiceServer};
use stubs::protocol::protocol_service_server::{self, ProtocolServiceServer};
use tonic::service::Routes;

use crate::NodeHandle;

pub use status::status_of;
pub use web::{OriginError, Origins, serve};

/// Largest request that is accepted, in bytes: the limit of the existing service.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Clients and servers as `tonic` makes them from the protobuf files; the messages are in `dunlin_proto`.
pub mod stubs {
    #![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]

    pub mod protocol {
        tonic::include_proto!("weshnet.protocol.v1");
    }
    pub mod out_of_store {
        tonic::include_proto!("weshnet.outofstoremessage.v1");
    }
    pub mod replication {
        tonic::include_proto!("weshnet.replication.v1");
    }
    pub mod device {
        tonic::include_proto!("dunlin.device.v1");
    }
    pub mod node {
        tonic::include_proto!("dunlin.node.v1");
    }
}

/// The services of `node`, to be served over any transport, such as by [`serve`].
pub fn routes<A: App + Send + 'static>(node: &NodeHandle<A>) -> Routes {
    routes_beside(node, &[])
}

/// The services of `node`, where reflection also tells of the services of those names: they are added beside.
pub fn routes_beside<A: App + Send + 'static>(node: &NodeHandle<A>, beside: &[&str]) -> Routes {
    let protocol = ProtocolServiceServer::new(protocol::Protocol::new(node.clone()));
    let out_of_store = OutOfStoreMessageServiceServer::new(out_of_store::OutOfStore::new(node.clone()));
    let network = NodeServiceServer::new(network::Network::new(node.clone()));
    let devices = DeviceServiceServer::new(devices::Devices::new(node.clone()));
    let names = [
        protocol_service_server::SERVICE_NAME,
        out_of_store_message_service_server::SERVICE_NAME,
        node_service_server::SERVICE_NAME,
        device_service_server::SERVICE_NAME,
    ];
    let names: Vec<&str> = names.iter().chain(beside).copied().collect();
    let routes = Routes::new(protocol.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(out_of_store.max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(network)
        .add_service(devices);
    with_reflection(routes, &names)
}

/// Adds both versions of reflection; clients know one or the other.
fn with_reflection(routes: Routes, names: &[&str]) -> Routes {
    let described = || {
        let described = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(dunlin_proto::FILE_DESCRIPTOR_SET);
        names.iter().fold(described, |described, name| described.with_service_name(*name))
    };
    match (described().build_v1(), described().build_v1alpha()) {
        (Ok(current), Ok(older)) => routes.add_service(current).add_service(older),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "the services cannot be described");
            routes
        }
    }
}
