//! Hosts that are in no group, beside nodes that are.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail by panicking")]

mod crawler;
mod gossip;

use std::time::Duration;

use dunlin_ipfs::Multiaddr;
use dunlin_node::NodeHandle;
use tokio::time::timeout;

/// Far longer than anything takes, even on a busy machine. A want of a stranger is held for ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a node listens, once it does.
async fn address(node: &NodeHandle) -> Multiaddr {
    let there = async {
        loop {
            if let Some(address) = node.addresses().into_iter().next() {
                return address;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, there).await.expect("the node does not listen")
}
