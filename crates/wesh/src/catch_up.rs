//! A log in one stream, for somebody who was away: a protocol of our own (`docs/formats/catch-up.md`).
//!
//! Bitswap asks for blocks one by one and goes backwards: what to ask for stands in what came. Over a long line that is one
//! round trip for each step, and nothing can be shown before the oldest is here. So whoever lacks much tells a host of the
//! group how far it has come, and is given what lies beyond, oldest first. What is left out it asks for as before.

use std::ops::ControlFlow;

use dunlin_base::EntryId;
use dunlin_base::kv::{Read, ReadError};
use dunlin_log::{LOCATOR_IDS_MAX, LogTag};

/// The name of the protocol. It is never listed, only tried (`spec/security.md` D9).
pub const PROTOCOL: &str = "/weshx/log/1.0";
/// Longest frame: a block of the longest entry, with its length.
pub const FRAME_BYTES_MAX: usize = dunlin_log::ENTRY_BYTES_MAX + LENGTH_BYTES;
/// Bytes of blocks after which a frame takes no further one.
pub const FRAME_BYTES: usize = 128 * 1024;

const TAG_BYTES: usize = 16;
const ID_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Which log.
    pub log: LogTag,
    /// What the asking side has: see [`dunlin_log::locator`].
    pub known: Vec<EntryId>,
}

impl Request {
    /// The only frame of the asking side.
    pub fn encode(&self) -> Vec<u8> {
        let ids = self.known.iter().take(LOCATOR_IDS_MAX);
        let mut frame = self.log.as_bytes().to_vec();
        ids.for_each(|id| frame.extend_from_slice(id.digest()));
        frame
    }

    /// Reads it; `None` when it is malformed.
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let (tag, ids) = frame.split_first_chunk::<TAG_BYTES>()?;
        let (ids, []) = ids.as_chunks::<ID_BYTES>() else { return None };
        if ids.len() > LOCATOR_IDS_MAX {
            return None;
        }
        Some(Self {
            log: LogTag::from_bytes(*tag),
            known: ids.iter().map(|id| EntryId::from_digest(*id)).collect(),
        })
    }
}

/// A frame of blocks, as it is filled.
#[derive(Debug, Default)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// Adds a block, unless that would make the frame longer than it may be.
    pub fn push(&mut self, block: &[u8]) -> bool {
        let with_it = self.0.len().saturating_add(LENGTH_BYTES).saturating_add(block.len());
        let Ok(length) = u32::try_from(block.len()) else { return false };
        if with_it > FRAME_BYTES_MAX || (!self.0.is_empty() && with_it > FRAME_BYTES) {
            return false;
        }
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(block);
        true
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for good.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What one frame gives of a log.
#[derive(Debug)]
pub struct Piece {
    /// The frame.
    pub frame: Frame,
    /// The entries in it.
    pub given: Vec<EntryId>,
    /// Where the next piece begins.
    pub next: u64,
}

impl Piece {
    /// Reads the piece that begins at `from`, or the first one; `None` where the log ends.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(read: &dyn Read, request: &Request, from: Option<u64>) -> Result<Option<Self>, ReadError> {
        let from = match from {
            Some(number) => number,
            None => dunlin_log::block_beyond(read, request.log, &request.known)?,
        };
        let mut piece = Self { frame: Frame::default(), given: Vec::new(), next: from };
        dunlin_log::blocks_in(read, request.log, from, &mut |number, block| {
            if !piece.frame.push(block) {
                return ControlFlow::Break(());
            }
            piece.given.push(EntryId::of_block(block));
            piece.next = number.saturating_add(1);
            ControlFlow::Continue(())
        })?;
        Ok((!piece.frame.is_empty()).then_some(piece))
    }

    /// All pieces of what lies beyond what the request says.
    pub fn all(read: &dyn Read, request: &Request) -> impl Iterator<Item = Result<Self, ReadError>> {
        let mut from = None;
        std::iter::from_fn(move || {
            let piece = Self::read(read, request, from).transpose()?;
            from = piece.as_ref().ok().map(|piece| piece.next);
            Some(piece)
        })
    }
}

/// The blocks of a frame; what is malformed ends them.
pub fn blocks(mut frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = frame.split_first_chunk::<LENGTH_BYTES>()?;
        let (block, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        frame = rest;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_and_others_are_refused() {
        let known: Vec<_> =
            (0..LOCATOR_IDS_MAX as u64).map(|n| EntryId::of_block(&n.to_be_bytes())).collect();
        let request = Request { log: LogTag::of("log"), known };
        let frame = request.encode();
        assert_eq!(Request::decode(&frame), Some(request));
        assert_eq!(Request::decode(&frame[..frame.len() - 1]), None);
        assert_eq!(Request::decode(&frame[..15]), None);
        assert_eq!(Request::decode(&[frame.as_slice(), &[0; 32]].concat()), None, "too many");
        assert!(Request::decode(&frame[..16]).unwrap().known.is_empty());
    }

    #[test]
    fn a_frame_holds_many_blocks_or_one_of_the_longest() {
        let mut frame = Frame::default();
        assert!(frame.push(b"one") && frame.push(b"") && frame.push(&[7; 1000]));
        assert!(!frame.push(&vec![0; FRAME_BYTES]), "it waits for the next frame");
        assert_eq!(blocks(frame.as_bytes()).map(<[u8]>::len).collect::<Vec<_>>(), [3, 0, 1000]);
        let mut frame = Frame::default();
        assert!(!frame.push(&vec![0; dunlin_log::ENTRY_BYTES_MAX + 1]));
        assert!(frame.is_empty() && frame.push(&vec![0; dunlin_log::ENTRY_BYTES_MAX]));
    }

    #[test]
    fn a_frame_that_is_cut_off_gives_what_is_whole() {
        let mut frame = Frame::default();
        assert!(frame.push(b"whole") && frame.push(b"not whole"));
        let cut = &frame.as_bytes()[..frame.as_bytes().len() - 1];
        assert_eq!(blocks(cut).collect::<Vec<_>>(), [b"whole"]);
        assert_eq!(blocks(&[0xff; 8]).count(), 0);
    }
}
