//! A node: the Wesh engine over the network host and the store, in one process.
//!
//! The node is the only shell around the pure crates. It moves bytes and time between the engine, the
//! sockets and the disk, and decides nothing by itself. Applications use it in process, by
//! [`NodeHandle`], or through gRPC, by [`routes`].
//!
//! A bot that joins a group and says again what others say there (`examples/echo.rs` is one to run, and a test runs it):
//!
//! ```no_run
//! use dunlin_node::{Event, Group, NodeConfig, NodeHandle};
//!
//! async fn echo(config: NodeConfig, invitation: Group) -> Result<(), Box<dyn std::error::Error>> {
//!     let node = NodeHandle::alone(config).await?;
//!     let mut events = node.events();
//!     let group = node.join(&invitation).await?;
//!     while let Ok(event) = events.recv().await {
//!         if let Event::Message(message) = &*event && !message.own {
//!             node.send(group, message.payload.clone()).await?;
//!         }
//!     }
//!     Ok(())
//! }
//! ```

mod ahead;
mod catch_up;
mod claim;
mod config;
mod core;
mod discovery;
mod finder;
mod handle;
mod import;
mod linking;
mod perform;
mod pump;
mod services;
mod serving;
pub mod tables;
mod traffic;

pub use claim::{BootNonce, BootNonces, Claim, FileBeside, Keystore, claim};
pub use config::NodeConfig;
pub use core::CoreError;
pub use discovery::{SourceKind, SourceReport};
pub use dunlin_base::kv::MemoryStore;
pub use dunlin_wesh::engine::Event;
pub use dunlin_wesh::group::Group;
pub use handle::{CallError, NodeHandle, StartError};
pub use import::{FoundArchive, ImportError, LockedFile, UnlockedFile, find_archive, import_archive};
pub use linking::{JoinAccountError, JoinNews, Joined, LinkEvent, OfferError, join_account};
pub use services::{OriginError, Origins, routes, routes_beside, serve, status_of, stubs as rpc};
