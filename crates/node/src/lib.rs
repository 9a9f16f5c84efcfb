//! A node: the Wesh engine over the network host and the store, in one process.
//!
//! The node is the only shell around the pure crates. It moves bytes and time between the engine, the
//! sockets and the disk, and decides nothing by itself. Applications use it in process, by
//! [`NodeHandle`], or through gRPC, by [`routes`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use dunlin_base::kv::MemoryStore;
//! use dunlin_node::{NodeConfig, NodeHandle};
//! use dunlin_wesh::engine::NoApp;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let node = NodeHandle::start(NodeConfig::new(Arc::new(MemoryStore::default())), || NoApp).await?;
//! let group = node.transact(|ctx, engine, _| engine.create_group(ctx)).await?;
//! node.transact(move |ctx, engine, _| engine.send_message(ctx, &group, b"hello")).await?;
//! # Ok(())
//! # }
//! ```

mod ahead;
mod claim;
mod config;
mod core;
mod finder;
mod handle;
mod import;
mod perform;
mod pump;
mod services;
mod serving;
pub mod tables;

pub use claim::{BootNonce, BootNonces, Claim, FileBeside, Keystore, claim};
pub use config::NodeConfig;
pub use core::CoreError;
pub use handle::{CallError, NodeHandle, StartError};
pub use import::{ImportError, import_archive};
pub use services::{OriginError, Origins, routes, routes_beside, serve, status_of, stubs as rpc};
