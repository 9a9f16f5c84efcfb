//! Bitswap: peers ask each other for blocks by name.
//!
//! [`client`] decides whom to ask, [`server`] keeps what a peer asks for; both are values that know neither
//! clock nor stream. This file moves their messages. Each connected peer has one task that writes: it wakes
//! up when there is something for the peer, opens a stream if there is none, and puts everything that waits
//! into one message, wants and answers alike. Each stream that a peer opens has one task that reads.

mod client;
mod message;
mod server;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cid::Cid;
use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::{
    runtime::Handle,
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    BlockSource,
    event::{Event, Outbox},
    frames::{Budget, FirstByte, Lane, Pace, read_frame, write_frame},
    host::Opener,
    streams::OpenStreamError,
};
use client::Client;
use message::{MESSAGE_BYTES_MAX, Message, PresenceType, named_blocks};
use server::Ledger;

pub use client::{WANTS_MAX, WantError};
pub use message::BLOCK_BYTES_MAX;
pub(crate) use message::Version;
pub use server::WANTS_PER_PEER_MAX;

/// Failures to open or use a stream in a row before a peer counts as one that does not exchange blocks.
const FAILURES_MAX: u32 = 3;

/// Pause before a stream is opened again after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The exchange of blocks with all peers.
pub(crate) struct Bitswap {
    source: Arc<dyn BlockSource>,
    opener: Opener,
    events: Outbox,
    runtime: Handle,
    client: Mutex<Client>,
    links: Mutex<HashMap<PeerId, Link>>,
    /// Rung when a want is missing or the first one is added.
    sweeper: Notify,
}

/// The versions as the names of protocols. [`message`] does without libp2p, so that the fuzzer does too.
impl Version {
    pub(crate) fn protocol(self) -> StreamProtocol {
        StreamProtocol::new(self.name())
    }

    pub(crate) fn of(protocol: &StreamProtocol) -> Self {
        // A stream is only ever opened for one of these.
        Self::NEWEST_FIRST
            .into_iter()
            .find(|version| version.name() == protocol.as_ref())
            .unwrap_or(Self::Unversioned)
    }
}

/// One connected peer.
struct Link {
    shared: Arc<Shared>,
    writer: AbortHandle,
}

#[derive(Default)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// What the peer brought, over all its streams and versions.
    pace: Mutex<Pace>,
    /// Rung when there may be something to write.
    bell: Notify,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bitswap {
    pub(crate) fn new(source: Arc<dyn BlockSource>, opener: Opener, events: Outbox, runtime: Handle) -> Self {
        let (client, links, sweeper) = (Mutex::default(), Mutex::default(), Notify::new());
        Self { source, opener, events, runtime, client, links, sweeper }
    }

    pub(crate) fn connected(self: &Arc<Self>, peer: PeerId) {
        self.client().connected(peer, Instant::now());
        let shared = Arc::<Shared>::default();
        let writer =
            Writer { bitswap: self.clone(), peer, shared: shared.clone(), stream: None, failures: 0 };
        let writer = self.runtime.spawn(writer.run()).abort_handle();
        self.links().insert(peer, Link { shared, writer });
    }

    pub(crate) fn disconnected(&self, peer: PeerId) {
        if let Some(link) = self.links().remove(&peer) {
            link.writer.abort();
        }
        self.client().disconnected(peer);
        self.follow_up();
    }

    pub(crate) fn want(&self, cid: Cid, peers: Vec<PeerId>) -> Result<(), WantError> {
        self.client().want(cid, peers)?;
        self.follow_up();
        Ok(())
    }

    pub(crate) fn cancel(&self, cid: &Cid) {
        self.client().cancel(cid);
        self.follow_up();
    }

    pub(crate) fn offer(&self, cids: &[Cid]) {
        for link in self.links().values() {
            let mut ledger = link.shared.ledger();
            for cid in cids {
                ledger.offer(cid);
            }
            link.shared.bell.notify_one();
        }
    }

    pub(crate) fn look_again(&self, peer: &PeerId) {
        if let Some(shared) = self.link(peer) {
            shared.ledger().look_again();
            shared.bell.notify_one();
        }
    }

    /// Reads the messages of one stream until it ends.
    pub(crate) async fn receive(
        self: Arc<Self>,
        peer: PeerId,
        version: Version,
        mut stream: Stream,
        lane: Arc<Lane>,
    ) {
        loop {
            let link = self.link(&peer);
            let budget =
                Budget { memory: Some(&lane.bytes), pace: link.as_deref().map(|shared| &shared.pace) };
            let frame = read_frame(&mut stream, MESSAGE_BYTES_MAX, FirstByte::Whenever, budget).await;
            let message = match frame.map(Message::parse) {
                Ok(Ok(message)) => message,
                Ok(Err(error)) => {
                    return tracing::debug!(%peer, ?version, %error, "a bitswap stream is dropped");
                }
                Err(error) => return tracing::trace!(%peer, ?version, %error, "a bitswap stream has ended"),
            };
            self.on_message(peer, message).await;
        }
    }

    /// Looks for peers that fell silent, while anything is wanted, and reports what is missing.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            let timeout = self.client().timeout(Instant::now());
            let woken = self.sweeper.notified();
            match timeout {
                None => woken.await,
                Some(timeout) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(timeout) => self.client().sweep(Instant::now()),
                },
            }
            self.ring();
            loop {
                let Some(cid) = self.client().take_missing() else { break };
                self.events.send(Event::BlockMissing { cid }).await;
            }
        }
    }

    async fn on_message(&self, peer: PeerId, mut message: Message) {
        if let (Some(wantlist), Some(shared)) = (message.wantlist.take(), self.link(&peer)) {
            shared.ledger().update(wantlist);
            shared.bell.notify_one();
        }
        let named = named_blocks(&mut message);
        let wanted = self.sort_out(peer, named, &message);
        self.follow_up();
        for (cid, bytes) in wanted {
            self.events.send(Event::Block { cid, bytes, peer }).await;
        }
    }

    /// Returns the blocks that were wanted, and takes note of what the peer does not have.
    fn sort_out(
        &self,
        peer: PeerId,
        named: Vec<(Vec<Cid>, bytes::Bytes)>,
        message: &Message,
    ) -> Vec<(Cid, bytes::Bytes)> {
        let now = Instant::now();
        let mut client = self.client();
        let mut wanted = Vec::new();
        for (cids, bytes) in named {
            match cids.into_iter().find(|cid| client.received(peer, cid, now)) {
                Some(cid) => wanted.push((cid, bytes)),
                None => tracing::debug!(%peer, "a block that is not wanted (any more) is dropped"),
            }
        }
        for presence in &message.presences {
            if presence.kind == i32::from(PresenceType::DontHave)
                && let Ok(cid) = Cid::try_from(&*presence.cid)
            {
                client.dont_have(peer, &cid, now);
            }
        }
        wanted
    }

    /// Lets changed wantlists be sent, and what is missing be reported.
    fn follow_up(&self) {
        self.ring();
        self.sweeper.notify_one();
    }

    fn ring(&self) {
        let changed: Vec<_> = self.client().changed().collect();
        let links = self.links();
        for link in changed.iter().filter_map(|peer| links.get(peer)) {
            link.shared.bell.notify_one();
        }
    }

    fn link(&self, peer: &PeerId) -> Option<Arc<Shared>> {
        self.links().get(peer).map(|link| link.shared.clone())
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, HashMap<PeerId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to one peer.
struct Writer {
    bitswap: Arc<Bitswap>,
    peer: PeerId,
    shared: Arc<Shared>,
    stream: Option<(Stream, Version)>,
    /// In a row.
    failures: u32,
}

impl Writer {
    async fn run(mut self) {
        loop {
            self.wait().await;
            while self.has_work() {
                self.write_once().await;
            }
        }
    }

    async fn wait(&mut self) {
        let held_until = self.shared.ledger().timeout();
        match held_until {
            None => self.shared.bell.notified().await,
            Some(deadline) => tokio::select! {
                () = self.shared.bell.notified() => {}
                () = sleep_until(deadline) => {}
            },
        }
    }

    fn has_work(&self) -> bool {
        self.bitswap.client().has_changed(&self.peer) || self.shared.ledger().has_work(Instant::now())
    }

    /// Sends one message with everything that waits, as far as it fits.
    async fn write_once(&mut self) {
        let (mut stream, version, afresh) = match self.stream.take() {
            Some((stream, version)) => (stream, version, false),
            None => {
                let protocols = Version::NEWEST_FIRST.iter().map(|version| version.protocol()).collect();
                match self.bitswap.opener.open(self.peer, protocols).await {
                    Ok((stream, protocol)) => (stream, Version::of(&protocol), true),
                    Err(error) => return self.failed(&error).await,
                }
            }
        };
        let mut message = Message::default();
        let now = Instant::now();
        self.bitswap.client().fill(self.peer, &mut message, version, afresh, now);
        let hold = self.bitswap.source.hold(&self.peer);
        let find = |cid: &Cid| self.bitswap.source.block(&self.peer, cid);
        let answered = self.shared.ledger().fill(&mut message, version, find, hold, now);
        if message.is_empty() {
            self.stream = Some((stream, version));
            return;
        }
        match write_frame(&mut stream, &message.to_bytes(), MESSAGE_BYTES_MAX).await {
            Ok(()) => {
                self.failures = 0;
                self.stream = Some((stream, version));
                for served in answered.iter().filter(|answered| answered.served) {
                    let (peer, cid) = (self.peer, served.cid);
                    self.bitswap.events.send(Event::BlockServed { peer, cid }).await;
                }
            }
            Err(error) => {
                self.shared.ledger().put_back(answered);
                self.bitswap.client().resend(self.peer);
                self.failed(&OpenStreamError::Broken(Some(std::io::Error::other(error)))).await;
            }
        }
    }

    /// Pauses before the next attempt, or gives up on the peer until it connects again.
    async fn failed(&mut self, error: &OpenStreamError) {
        self.failures += 1;
        tracing::debug!(peer = %self.peer, %error, self.failures, "no bitswap stream");
        if self.failures >= FAILURES_MAX
            || matches!(error, OpenStreamError::Unsupported | OpenStreamError::Stopped(_))
        {
            self.failures = 0;
            *self.shared.ledger() = Ledger::default();
            self.bitswap.client().speaks_no_bitswap(self.peer);
            self.bitswap.follow_up();
        } else {
            sleep(RETRY_AFTER).await;
        }
    }
}
