//! Conversations: what a person sees of the Wesh protocol.
//!
//! [`Messenger`] is a value that lives above the engine, in the same transaction: it folds events into
//! contacts, conversations and messages, confirms what arrives, and says of everything what it waits for.
//! It reads no clock, opens no socket and draws no randomness. It never touches keys, nor the insides of a
//! log: groups carry conversations, entries name messages, and that is all it knows of them.
//!
//! [`links`] and [`app_message`] are what others see of it: the links that pass people and groups around,
//! and what conversations carry. [`text`] makes what others wrote safe to print, [`safety`] is the number
//! that two people compare.
//!
//! ```
//! use dunlin_messenger::links::Link;
//! use dunlin_messenger::text::DisplayName;
//!
//! # let text = "https://berty.tech/id#contact/oZBLFpbGYAEhTMNpRbBTor8mrdkr4uy4phZgcAvR7rYsbgy37aXG33PVKHZF3nfqgRjjbBx\
//! #             o5H3akgB47N8jSuH1mpybSJL/name=Ann";
//! match Link::parse(text) {
//!     Ok(Link::Contact(contact)) => assert_eq!(contact.name, DisplayName::received("Ann")),
//!     Ok(other) => println!("not a contact: {other:?}"),
//!     Err(error) => println!("{error}"),
//! }
//! ```

pub mod app_message;
pub mod clock;
mod error;
pub mod links;
mod messenger;
mod notice;
mod rows;
pub mod safety;
#[cfg(feature = "service")]
mod service;
pub mod tables;
pub mod text;
pub mod views;

pub use error::{MessengerError, Named};
pub use messenger::{Messenger, PAGE_MESSAGES_MAX, Page, short_id};
pub use notice::Notice;
#[cfg(feature = "service")]
pub use service::{Chat, chat_service, rpc};
