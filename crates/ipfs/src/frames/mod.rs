//! Frames: an unsigned varint that gives the length, then that many bytes.
//!
//! A length is a claim by somebody else. It is compared with the limit of its protocol before anything is
//! allocated, and the buffer grows as bytes arrive. A peer that falls silent is given up after the deadlines
//! below.

mod codec;
mod inbound;
mod outbound;
mod pace;

pub(crate) use codec::{Budget, FirstByte, read_frame, write_frame};
pub use codec::{FRAME_FIRST_BYTE_MAX, FRAME_SILENCE_MAX, FRAME_TOTAL_MAX, ReadFrameError, WriteFrameError};
pub use inbound::{INBOUND_BYTES_MAX, INBOUND_STREAMS_MAX};
pub(crate) use inbound::{Lane, Lanes, receive_one};
pub(crate) use outbound::Outbound;
pub use outbound::{SEND_QUEUE_BYTES_MAX, SEND_QUEUE_FRAMES_MAX, SendFrameError};
pub use pace::FETCH_BYTES_PER_S_MAX;
pub(crate) use pace::Pace;
