//! What the engine asks of its shell.

use dunlin_base::{EntryId, GroupId, PeerId};

use super::StoreKind;
use crate::catch_up::Request;

/// Names one contact-request stream between the engine and its shell.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExchangeId(pub u64);

/// Something for the shell to carry out, once the transaction of the input that caused it is committed.
///
/// None of them has to succeed: the engine sends again what stays without effect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Take part in a gossip topic.
    Subscribe {
        /// The store address.
        topic: String,
    },
    /// Leave a gossip topic.
    Unsubscribe {
        /// The store address.
        topic: String,
    },
    /// Give a heads payload to everybody on the topic.
    Publish {
        /// The store address.
        topic: String,
        /// The payload (`spec/wesh-protocol.md` §3.9).
        data: Vec<u8>,
    },
    /// Give a heads payload to one peer, as one frame of the direct channel. Answer with
    /// `handle_heads_sent` or `handle_heads_unsent`.
    SendHeads {
        /// Names this sending.
        id: u64,
        /// To whom.
        peer: PeerId,
        /// The payload.
        data: Vec<u8>,
    },
    /// Give local records to one peer, as one frame (`spec/wesh-protocol.md` §6.7).
    SendRecords {
        /// To whom.
        peer: PeerId,
        /// A serialized `Records` message.
        data: Vec<u8>,
    },
    /// Fetch a block. Answer with `handle_block` or `handle_block_missing`. When the block is being fetched already, these
    /// peers are to be asked at once, besides those who are: another group misses it.
    Fetch {
        /// Which.
        entry: EntryId,
        /// Connected peers that probably have it.
        peers: Vec<PeerId>,
    },
    /// The block is not wanted any more.
    CancelFetch {
        /// Which.
        entry: EntryId,
    },
    /// Ask a host for what a log lacks, in one stream (`docs/formats/catch-up.md`). Answer with `handle_streamed` as it comes,
    /// and with `handle_stream_ended`.
    CatchUp {
        /// The group.
        group: GroupId,
        /// Which of its logs.
        kind: StoreKind,
        /// Whom.
        peer: PeerId,
        /// The only frame of the asking side.
        request: Request,
    },
    /// Read no further in such a stream. No answer.
    StopCatchUp {
        /// The group.
        group: GroupId,
        /// Which of its logs.
        kind: StoreKind,
        /// Who gives it.
        peer: PeerId,
    },
    /// Accept contact-request streams, or stop doing so.
    AcceptExchanges(bool),
    /// Open a contact-request stream. Answer with `handle_exchange_opened` or `handle_exchange_closed`.
    OpenExchange {
        /// The name under which it is spoken of.
        id: ExchangeId,
        /// To whom.
        peer: PeerId,
    },
    /// Write one frame (at most 2,048 bytes, without its length prefix).
    SendFrame {
        /// On which stream.
        id: ExchangeId,
        /// The body.
        frame: Vec<u8>,
    },
    /// Write what was asked for so far, then close the stream.
    CloseExchange {
        /// Which.
        id: ExchangeId,
    },
}
