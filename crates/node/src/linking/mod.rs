//! Linking a device, on the side that has the account: the shell around
//! [`Offering`](dunlin_wesh::linking::Offering).

mod join;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use dunlin_base::keys::AgreementKey;
use dunlin_base::kv::ReadError;
use dunlin_base::{Span, Time};
use dunlin_ipfs::{Exchange, ExchangeWriter, Multiaddr, ReadFrameError};
use dunlin_wesh::engine::{App, Export};
use dunlin_wesh::linking::{
    self, ADDRESSES_MAX, Card, Code, ConfirmError, LinkAction, LinkText, OfferEnd, Offering, PIECE_BYTES_MAX,
    Secret,
};
use rand_core::{OsRng, RngCore};
use tokio::sync::{mpsc, oneshot};

pub use join::{JoinAccountError, JoinNews, Joined, join_account};

use crate::perform::base_peer;
use crate::{CallError, NodeHandle};

/// Streams and codes that may wait for the task of an offer.
const VISITS_WAITING_MAX: usize = 8;
/// Frames of the new device that may wait; it sends three in all.
const FRAMES_WAITING_MAX: usize = 4;
/// Events of an offer that may wait: it has three.
const EVENTS_WAITING_MAX: usize = 8;

/// What becomes of an offer.
#[derive(Debug)]
pub enum LinkEvent {
    /// It stands: this is the string for the new device, and until when it is good.
    Offered(LinkText),
    /// A device proved that it knows the string. It shows the same code.
    Code(Code),
    /// It is over.
    Ended(OfferEnd),
}

/// Why nothing can be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// Nobody can reach this node.
    #[error("this node listens on no address, so no device can reach it: start it with --listen")]
    NoAddress,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Where streams and codes find the offer that stands, if one does.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    current: Arc<Mutex<Option<(OfferId, mpsc::Sender<Visit>)>>>,
}

/// Tells one offer of this process from another.
type OfferId = u64;

enum Visit {
    Opened(Box<Exchange>),
    Confirm(Code, oneshot::Sender<Result<(), ConfirmError>>),
}

impl Desk {
    /// Takes up a stream that a peer opened.
    pub fn opened(&self, exchange: Exchange) {
        if let Some(offer) = self.offer() {
            // An offer that is busy or gone takes none, and dropping the stream says so.
            let _ = offer.try_send(Visit::Opened(Box::new(exchange)));
        }
    }

    async fn confirm(&self, code: Code) -> Result<(), ConfirmError> {
        let nothing = ConfirmError::NothingToConfirm;
        let Some(offer) = self.offer() else { return Err(nothing) };
        let (reply, answer) = oneshot::channel();
        if offer.send(Visit::Confirm(code, reply)).await.is_err() {
            return Err(nothing);
        }
        answer.await.unwrap_or(Err(nothing))
    }

    fn offer(&self) -> Option<mpsc::Sender<Visit>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|(_, offer)| offer.clone())
    }

    /// Puts an offer in the place of the one before, which ends by that.
    fn replace(&self) -> (OfferId, mpsc::Receiver<Visit>) {
        let (offer, visits) = mpsc::channel(VISITS_WAITING_MAX);
        let id = OsRng.next_u64();
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((id, offer));
        (id, visits)
    }

    /// Ends an offer. Returns whether none stands after that.
    fn end(&self, id: OfferId) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(other, _)| *other != id) {
            return false;
        }
        *current = None;
        true
    }
}

impl<A: App + Send + 'static> NodeHandle<A> {
    /// Offers the account to one new device. `owner` is how its owner is called, for the new device.
    ///
    /// The offer ends when what comes back is dropped.
    ///
    /// # Errors
    /// [`OfferError`].
    pub async fn offer_link(&self, owner: String) -> Result<mpsc::Receiver<LinkEvent>, OfferError> {
        let addresses = self.network().listen_addresses();
        let own = base_peer(&self.network().peer_id()).ok_or(OfferError::NoAddress)?;
        if addresses.is_empty() {
            return Err(OfferError::NoAddress);
        }
        let mut secret = [0; 16];
        OsRng.fill_bytes(&mut secret);
        let secret = Secret::from_bytes(secret);
        let clock = Clock::start();
        let offering = Offering::new(secret.clone(), own.clone(), clock.now());
        let addresses = best(addresses).iter().map(Multiaddr::to_vec).collect();
        let text = LinkText { secret, expires: offering.expires(), peer: own, addresses };

        let (id, visits) = self.desk().replace();
        let accepted = self.network().accept_exchanges(linking::PROTOCOL, true).await;
        accepted.map_err(|_| OfferError::Stopped)?;
        let (events, told) = mpsc::channel(EVENTS_WAITING_MAX);
        // There is room: nothing was told yet.
        let _ = events.try_send(LinkEvent::Offered(text));
        let card = Card { profile: self.profile(), name: owner };
        let offer = Offer { id, node: self.clone(), offering, clock, card, stream: None, events };
        tokio::spawn(offer.serve(visits));
        Ok(told)
    }

    /// Takes the code that the user read on the new device.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub async fn confirm_link(&self, code: Code) -> Result<(), ConfirmError> {
        self.desk().confirm(code).await
    }
}

/// Of many addresses those that lead somewhere first: others than loopback, then the rest.
fn best(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let is_loopback = |address: &Multiaddr| {
        address.iter().any(|part| match part {
            dunlin_ipfs::multiaddr::Protocol::Ip4(ip) => ip.is_loopback(),
            dunlin_ipfs::multiaddr::Protocol::Ip6(ip) => ip.is_loopback(),
            _ => false,
        })
    };
    addresses.sort_by_key(is_loopback);
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// The time of the protocol, which no setting of the clock moves.
#[derive(Clone, Copy)]
struct Clock {
    wall: Time,
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { wall: crate::core::now(), since: Instant::now() }
    }

    fn now(&self) -> Time {
        let elapsed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.wall + Span::from_millis(elapsed)
    }

    /// Sleeps until `due`; for ever when nothing is.
    async fn sleep_until(&self, due: Option<Time>) {
        match due {
            Some(due) => {
                let left = due.since(self.now()).as_millis();
                tokio::time::sleep(std::time::Duration::from_millis(left)).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// The stream of a new device.
struct Stream {
    writer: ExchangeWriter,
    frames: mpsc::Receiver<Bytes>,
}

impl Stream {
    fn new(exchange: Exchange) -> Self {
        let (mut reader, writer) = exchange.split();
        let (sender, frames) = mpsc::channel(FRAMES_WAITING_MAX);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    read = reader.read_frame() => match read {
                        Ok(frame) => if sender.send(frame).await.is_err() { return },
                        // The new device has nothing to say while its user reads a code.
                        Err(ReadFrameError::Silent) => {}
                        Err(_) => return,
                    },
                    () = sender.closed() => return,
                }
            }
        });
        Self { writer, frames }
    }
}

/// One offer and its task.
struct Offer<A: App> {
    id: OfferId,
    node: NodeHandle<A>,
    offering: Offering,
    clock: Clock,
    card: Card,
    stream: Option<Stream>,
    events: mpsc::Sender<LinkEvent>,
}

impl<A: App + Send + 'static> Offer<A> {
    async fn serve(mut self, mut visits: mpsc::Receiver<Visit>) {
        let end = loop {
            self.perform().await;
            if let Some(end) = self.offering.end_of_offer() {
                break end;
            }
            let due = self.offering.timeout();
            tokio::select! {
                visit = visits.recv() => match visit {
                    Some(Visit::Opened(exchange)) => self.open(*exchange),
                    Some(Visit::Confirm(code, reply)) => {
                        // Whoever asked may have stopped waiting; the code counts all the same.
                        let _ = reply.send(self.offering.confirm(self.clock.now(), code));
                    }
                    None => self.offering.withdraw(OfferEnd::Withdrawn),
                },
                frame = next_frame(&mut self.stream) => match frame {
                    Some(frame) => self.offering.handle_frame(self.clock.now(), &frame),
                    None => {
                        self.stream = None;
                        self.offering.handle_closed();
                    }
                },
                () = self.events.closed() => self.offering.withdraw(OfferEnd::Withdrawn),
                () = self.clock.sleep_until(due) => self.offering.handle_timeout(self.clock.now()),
            }
        };
        // An offer that took this one's place goes on with the protocol.
        if self.node.desk().end(self.id) {
            // A host that is gone accepts nothing any more.
            let _ = self.node.network().accept_exchanges(linking::PROTOCOL, false).await;
        }
        // Nobody may be listening any more.
        let _ = self.events.send(LinkEvent::Ended(end)).await;
    }

    fn open(&mut self, exchange: Exchange) {
        let Some(peer) = base_peer(&exchange.peer()) else { return };
        let mut random = [0; 32];
        OsRng.fill_bytes(&mut random);
        if self.offering.handle_opened(self.clock.now(), &peer, ephemeral(), random) {
            self.stream = Some(Stream::new(exchange));
        } else {
            tokio::spawn(async move {
                let mut exchange = exchange;
                // Whoever came too late may be gone as well.
                let _ = exchange.write_frame(&linking::busy()).await;
                let _ = exchange.close().await;
            });
        }
    }

    /// Does what the offer asks for.
    async fn perform(&mut self) {
        while let Some(action) = self.offering.poll_action() {
            match action {
                LinkAction::Send(frame) => self.send(&frame).await,
                LinkAction::Show(code) => {
                    // Nobody listening is noticed by the task.
                    let _ = self.events.send(LinkEvent::Code(code)).await;
                }
                LinkAction::HandOver => self.hand_over().await,
                LinkAction::Close => self.close(),
                LinkAction::Card(_) | LinkAction::Archive(_) | LinkAction::Store => {}
            }
        }
    }

    async fn send(&mut self, frame: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        if let Err(error) = stream.writer.write_frame(frame).await {
            tracing::debug!(%error, "a frame of a link did not leave");
            self.stream = None;
            self.offering.handle_closed();
        }
    }

    /// Lets what was written arrive before the stream is dropped.
    fn close(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        tokio::spawn(async move {
            let Stream { writer, mut frames } = stream;
            if writer.close().await.is_ok() {
                let silent = std::time::Duration::from_secs(linking::WAIT_EVERY.as_millis() / 1000);
                while let Ok(Some(_)) = tokio::time::timeout(silent, frames.recv()).await {}
            }
        });
    }

    /// Gives the card, the keys and the account log.
    async fn hand_over(&mut self) {
        self.offering.give_card(self.clock.now(), &self.card);
        let begun =
            self.node.view(|_, engine, _| Ok::<_, ReadError>(engine.dangerous_export_account_log())).await;
        let mut export: Option<Export> = begun.ok();
        while let Some(exporting) = export.take() {
            let part: Result<_, CallError<ReadError>> = self
                .node
                .view(move |read, engine, _| {
                    let mut exporting = exporting;
                    let part = exporting.next_part(engine, read)?;
                    Ok((exporting, part))
                })
                .await;
            match part {
                Ok((rest, Some(part))) => {
                    for piece in part.as_bytes().chunks(PIECE_BYTES_MAX) {
                        self.offering.give_archive(self.clock.now(), piece);
                        self.send_given().await;
                    }
                    if self.stream.is_none() {
                        return;
                    }
                    export = Some(rest);
                }
                Ok((_, None)) => {
                    self.offering.give_end(self.clock.now());
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the account cannot be handed over");
                    break;
                }
            }
        }
        self.offering.withdraw(OfferEnd::Unreadable);
    }

    /// Writes pieces as they come, so that no more than one is held.
    async fn send_given(&mut self) {
        while let Some(action) = self.offering.poll_action() {
            match action {
                LinkAction::Send(frame) => self.send(&frame).await,
                LinkAction::Close => self.close(),
                _ => {}
            }
        }
    }
}

/// The next frame, if a stream is open; for ever otherwise.
async fn next_frame(stream: &mut Option<Stream>) -> Option<Bytes> {
    match stream {
        Some(stream) => stream.frames.recv().await,
        None => std::future::pending().await,
    }
}

/// A key for one stream.
fn ephemeral() -> AgreementKey {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *bytes);
    AgreementKey::from_bytes(*bytes)
}
