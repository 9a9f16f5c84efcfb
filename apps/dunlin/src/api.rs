//! The services of a running node, as the rest of the program says them.

#![allow(missing_docs, unused_qualifications, clippy::all)]
pub mod chat {
    tonic::include_proto!("dunlin.chat.v1");
}
pub mod node {
    tonic::include_proto!("dunlin.node.v1");
}
