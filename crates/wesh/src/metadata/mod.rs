//! Metadata events and the state folded from them (`spec/wesh-protocol.md` §2.4, §3.6, §3.7).
//!
//! An entry of the metadata log carries a sealed envelope. [`open`] gives the [`Event`] inside, checked
//! against the signature of its author; [`Index`] folds events into the state of the group, whatever the
//! order in which they arrive.

mod caps;
mod change;
mod envelope;
mod event;
mod index;
mod note;
mod payload;

pub use caps::{Capabilities, Features};
pub use change::Change;
pub(crate) use envelope::Extras;
pub(crate) use envelope::seal_with;
pub use envelope::{OpenError, OpenedEvent, open, seal, seal_by_group};
pub use event::{Credential, Event, EventError};
pub use index::{ContactRecord, Index};
pub use note::{DEVICE_NAME_BYTES_MAX, DeviceNote, DeviceRecord, NoteKind};
