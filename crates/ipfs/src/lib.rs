//! An embeddable libp2p host: connections, topics, frames, handshakes and the exchange of blocks.
//!
//! It speaks to libp2p for Go and JavaScript: TCP with Noise and yamux, QUIC, gossipsub, bitswap, identify,
//! ping, circuits through relays. It knows nothing of what the bytes mean. Everything that a peer can make it
//! do has a limit with a name.
//!
//! A program holds an [`Ipfs`] handle to act and reads [`Events`] to learn:
//!
//! ```
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use dunlin_ipfs::{Config, Event, Ipfs, NoBlocks};
//! # use zeroize::Zeroizing;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host = |secret| Config {
//!     listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
//!     ..Config::new(Zeroizing::new(secret), Arc::new(NoBlocks))
//! };
//! let (alice, mut alice_events) = Ipfs::start(host([1; 32])).await?;
//! let (bob, mut bob_events) = Ipfs::start(host([2; 32])).await?;
//! alice.subscribe("birds").await?;
//! bob.subscribe("birds").await?;
//!
//! let Some(Event::Listening { address }) = alice_events.next().await else { panic!("not heard") };
//! bob.dial(address).await?;
//! while let Some(event) = alice_events.next().await {
//!     match event {
//!         Event::TopicJoined { .. } => alice.publish("birds", Bytes::from("a dunlin!")).await?,
//!         _ => continue,
//!     }
//!     break;
//! }
//! while let Some(event) = bob_events.next().await {
//!     if let Event::Message { author, data, .. } = event {
//!         assert_eq!((author, data), (alice.peer_id(), Bytes::from("a dunlin!")));
//!         break;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The parts
//!
//! | to | call | hear |
//! |---|---|---|
//! | connect | [`Ipfs::dial`], [`Ipfs::disconnect`] | [`Event::PeerConnected`], [`Event::PeerIdentified`] |
//! | tell a topic | [`Ipfs::subscribe`], [`Ipfs::publish`] | [`Event::TopicJoined`], [`Event::Message`] |
//! | send one frame | [`Ipfs::send_frame`] | [`Event::Frame`], [`Event::FrameNotSent`] |
//! | talk frame by frame | [`Ipfs::open_exchange`], [`Ipfs::accept_exchanges`] | [`Event::ExchangeOpened`] |
//! | be found by a name | [`Ipfs::dht_announce`], [`Ipfs::dht_find`] | |
//! | be reached through a relay | [`Ipfs::reserve`] | [`Event::Listening`] |
//! | fetch blocks | [`Ipfs::want`], [`Ipfs::cancel`] | [`Event::Block`], [`Event::BlockMissing`] |
//! | serve blocks | [`BlockSource`], [`Ipfs::offer`], [`Ipfs::look_again`] | [`Event::BlockServed`] |
//!
//! The host keeps the connections it has and dials only what it is told to. Finding peers again is for the
//! program.

mod bare_name;
mod behaviour;
mod bitswap;
mod config;
mod dht;
mod dial;
mod event;
mod exchange;
mod frames;
mod gossip;
mod host;
mod ipfs;
mod listen;
mod peers;
mod pending;
mod scope;
mod streams;
mod transport;
mod trim;
mod unlisted;

pub use bare_name::ProtocolNameError;
pub use behaviour::{CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, PENDING_INBOUND_MAX};
pub use bitswap::{BLOCK_BYTES_MAX, WANTS_MAX, WANTS_PER_PEER_MAX, WantError};
pub use cid::Cid;
pub use config::{BlockSource, Config, FrameProtocol, NoBlocks};
pub use dht::{DHT_NAMES_MAX, DHT_PROVIDERS_MAX, DHT_QUERIES_MAX, DhtError, cid_of_name};
pub use dial::DialError;
pub use event::{EVENT_BYTES_WAITING_MAX, EVENTS_WAITING_MAX, Event, Events};
pub use exchange::{EXCHANGE_FRAME_BYTES_MAX, Exchange, ExchangeReader, ExchangeWriter};
pub use frames::{
    FETCH_BYTES_PER_S_MAX, FRAME_FIRST_BYTE_MAX, FRAME_SILENCE_MAX, FRAME_TOTAL_MAX, INBOUND_BYTES_MAX,
    INBOUND_STREAMS_MAX, ReadFrameError, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_FRAMES_MAX, SendFrameError,
    WriteFrameError,
};
pub use gossip::{Judgement, MESSAGE_BYTES_MAX, PublishMessageError, TOPICS_PER_PEER_MAX, Ticket};
pub use ipfs::{AcceptError, Ipfs, ListenError, OpenExchangeError, ReserveError, StartError, Stopped};
pub use libp2p::{Multiaddr, PeerId, multiaddr};
pub use peers::{ConnectionInfo, PeerInfo};
pub use pending::PENDING_INBOUND_PER_ADDRESS_MAX;
pub use scope::Scope;
pub use streams::OpenStreamError;
pub use transport::HANDSHAKE_MAX;
pub use trim::{CONNECTED_HIGH, CONNECTED_LOW, GRACE, SPARE_GRACE};
