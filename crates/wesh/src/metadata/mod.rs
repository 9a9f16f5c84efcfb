//! Metadata events and the state folded from them (`spec/wesh-protocol.md` §2.4, §3.6, §3.7).

mod envelope;
mod event;
mod payload;

pub use envelope::{OpenError, OpenedEvent, open, seal, seal_by_group};
pub use event::{Credential, Event, EventError};
