//! Contact requests: who is looked for, who asked, and the handshakes under way.
//!
//! A request from somebody new waits in an inbox outside the account log, so that strangers cannot make the
//! log grow; accepting it writes both events at once (`spec/security.md` Q2, Q3).

use dunlin_base::keys::AgreementKey;
use dunlin_base::kv::{Read, ReadError};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{AccountId, PeerId, Span, Time};
use dunlin_proto::tinder::{Record, Records};
use prost::Message as _;

use super::inbox::Origin;
use super::peers::Peer;
use super::{Action, CommandError, Ctx, Engine, Event, ExchangeId, Wait};
use crate::contact::{Contact, ContactAction, ContactRefusal, ContactState, ContactStep};
use crate::handshake::{HandshakeAction, Requester, Responder};
use crate::metadata::Event as MetadataKind;
use crate::rotation;

/// Handshakes that peers may have under way with us (`spec/security.md` Q1).
pub const HANDSHAKES_PARALLEL_MAX: usize = 8;
/// Of these, how many one peer may have: the others keep their turn.
pub const HANDSHAKES_PER_PEER_MAX: usize = 2;
/// How long a local record stays in force, in seconds; receivers cap it there too (`spec/security.md` N7).
const RECORD_TTL: Span = Span::from_secs(7200);
/// How long before the end of its life a record is sent again.
const RECORD_REFRESH: Span = Span::from_secs(5760);
/// Records of one message that are looked at (`spec/security.md` N7).
const RECORDS_PER_MESSAGE_MAX: usize = 64;
/// Names of one peer that are remembered.
pub(super) const RECORDS_PER_PEER_MAX: usize = 256;
/// Names that are remembered in all; those of the peer that has most leave first (`spec/security.md` N7).
const RECORDS_MAX: usize = 4096;
/// How long a stream may take to open. A host gives up earlier; without an end of its own, a request whose host never
/// answers would wait for ever.
const OPENING_LONGEST: Span = Span::from_secs(30);
/// First pause after a failed attempt to reach somebody.
const LOOKUP_FIRST: Span = Span::from_secs(1);
/// Longest such pause.
const LOOKUP_LONGEST: Span = Span::from_secs(60);
/// Pause before a peer that announced nothing is tried again: it may have taken up another account.
const BLIND_PAUSE: Span = Span::from_secs(600);

/// Somebody whom this account asked and has not reached yet.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    contact: Contact,
    own_metadata: Vec<u8>,
    pause: Span,
    not_before: Time,
    exchange: Option<ExchangeId>,
    /// There was nobody to try at the last look; somebody new ends that.
    idle: bool,
}

impl Lookup {
    /// When an attempt is due: only while there is somebody to try.
    pub fn due(&self) -> Option<Time> {
        (self.exchange.is_none() && !self.idle).then_some(self.not_before)
    }

    /// The seed of whom is looked for.
    pub fn seed(&self) -> Option<[u8; 32]> {
        self.contact.seed
    }

    /// Makes what is due later due now.
    pub fn hasten(&mut self, now: Time) {
        self.not_before = self.not_before.min(now);
    }
}

/// One handshake.
pub(super) struct OpenExchange {
    peer: PeerId,
    origin: Origin,
    side: Side,
}

enum Side {
    /// The stream is being opened, which counts as failed at `due`.
    Opening {
        account: AccountId,
        due: Time,
    },
    Requester(Box<Requester>, AccountId),
    Responder(Box<Responder>),
}

impl OpenExchange {
    pub fn due(&self) -> Option<Time> {
        match &self.side {
            Side::Opening { due, .. } => Some(*due),
            Side::Requester(requester, _) => requester.timeout(),
            Side::Responder(responder) => responder.timeout(),
        }
    }
}

impl Peer {
    /// From when on it makes sense to try a lookup with this peer although it announced nothing; never
    /// while it takes no requests.
    fn may_be(&self, account: &AccountId) -> Option<Time> {
        self.takes_requests.then(|| self.not_blindly_before.get(account).copied().unwrap_or_default())
    }
}

impl Engine {
    /// Lets others find this account by its contact link. Makes a rendezvous seed when there is none yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn enable_requests(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), CommandError> {
        self.account_is_open()?;
        let account = self.account_group();
        let active = self.active(&account)?;
        if !active.index.requests_enabled(ctx.tx)? {
            let event = MetadataKind::requests_enabled(&active.own);
            self.append_event(ctx, &account, &event)?;
        }
        if self.active(&account)?.index.seed(ctx.tx)?.is_none() {
            self.reset_requests(ctx)?;
        }
        self.finish(ctx)?;
        Ok(())
    }

    /// Stops to accept contact requests.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn disable_requests(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), CommandError> {
        self.account_is_open()?;
        let account = self.account_group();
        let active = self.active(&account)?;
        if active.index.requests_enabled(ctx.tx)? {
            let event = MetadataKind::requests_disabled(&active.own);
            self.append_event(ctx, &account, &event)?;
        }
        self.finish(ctx)?;
        Ok(())
    }

    /// Makes a new rendezvous seed: links given away before lead nowhere from now on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn reset_requests(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), CommandError> {
        self.account_is_open()?;
        let account = self.account_group();
        let mut seed = [0; 32];
        ctx.rng.fill_bytes(&mut seed);
        let event = MetadataKind::seed_reset(&self.active(&account)?.own, seed);
        self.append_event(ctx, &account, &event)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Whether this account accepts contact requests.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn requests_are_enabled(&self, read: &dyn Read) -> Result<bool, ReadError> {
        self.active(&self.account_group())?.index.requests_enabled(read)
    }

    /// This account as a contact: what a link carries. Without a seed until requests were enabled once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn own_contact(&self, read: &dyn Read) -> Result<Contact, ReadError> {
        let seed = self.active(&self.account_group())?.index.seed(read)?;
        Ok(Contact { account: self.account_id(), seed, metadata: Vec::new() })
    }

    /// Contacts that are to be asked.
    pub(super) fn lookups_waiting(&self) -> impl Iterator<Item = Wait> {
        self.lookups.iter().map(|(account, lookup)| Wait::Request {
            account: *account,
            trying: lookup.exchange.is_some(),
            next: lookup.due(),
        })
    }

    /// Takes local records from a connected peer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_records(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        data: &[u8],
    ) -> Result<(), ReadError> {
        let Some(known) = self.peers.get_mut(peer) else { return Ok(()) };
        let Ok(records) = Records::decode(data) else {
            tracing::debug!("local records are malformed");
            return Ok(());
        };
        for record in records.records.into_iter().take(RECORDS_PER_MESSAGE_MAX) {
            let claimed = Time::from_secs(u64::try_from(record.expire).unwrap_or_default());
            let expires = claimed.min(ctx.now + RECORD_TTL);
            if expires > ctx.now && known.records.len() < RECORDS_PER_PEER_MAX {
                known.records.insert(record.cid, expires);
            }
        }
        known.records.retain(|_, expires| *expires > ctx.now);
        self.bound_records();
        self.hasten_lookups(ctx);
        self.finish(ctx)
    }

    fn bound_records(&mut self) {
        let mut all: usize = self.peers.values().map(|peer| peer.records.len()).sum();
        while all > RECORDS_MAX {
            let most = self.peers.values_mut().max_by_key(|peer| peer.records.len());
            if most.and_then(|peer| peer.records.pop_first()).is_none() {
                return;
            }
            all = all.saturating_sub(1);
        }
    }

    /// Notes that a peer opened a contact-request stream, and from where. `None` refuses it: close the stream.
    pub fn handle_exchange_incoming(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        origin: Origin,
    ) -> Option<ExchangeId> {
        let incoming = self.exchanges.values().filter(|open| matches!(open.side, Side::Responder(_)));
        let (all, of_peer) =
            incoming.fold((0, 0), |(all, own), open| (all + 1, own + usize::from(open.peer == *peer)));
        let full = all >= HANDSHAKES_PARALLEL_MAX || of_peer >= HANDSHAKES_PER_PEER_MAX;
        if !self.requests_enabled || full || self.quota.is_used_up(&origin, ctx.now) {
            return None;
        }
        let responder = Responder::new(&self.keys.account, ephemeral(ctx), ctx.now);
        let id = ExchangeId(self.fresh_id());
        let side = Side::Responder(Box::new(responder));
        self.exchanges.insert(id, OpenExchange { peer: peer.clone(), origin, side });
        Some(id)
    }

    /// Notes that the stream of an [`Action::OpenExchange`] is open.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_exchange_opened(&mut self, ctx: &mut Ctx<'_, '_>, id: ExchangeId) -> Result<(), ReadError> {
        let Some(open) = self.exchanges.get(&id) else { return Ok(()) };
        let Side::Opening { account, .. } = open.side else { return Ok(()) };
        let Some(lookup) = self.lookups.get(&account) else { return Ok(()) };
        let mut introduction = self.own_contact(ctx.tx)?;
        if !self.requests_enabled {
            introduction.seed = None;
        }
        introduction.metadata.clone_from(&lookup.own_metadata);
        let requester = Requester::new(&self.keys.account, &introduction, &account, ephemeral(ctx), ctx.now);
        if let Some(open) = self.exchanges.get_mut(&id) {
            open.side = Side::Requester(Box::new(requester), account);
        }
        self.drain_exchange(ctx, id)?;
        self.finish(ctx)
    }

    /// Takes a frame of a contact-request stream.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_exchange_frame(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        id: ExchangeId,
        frame: &[u8],
    ) -> Result<(), ReadError> {
        let Some(open) = self.exchanges.get_mut(&id) else { return Ok(()) };
        let taken = match &mut open.side {
            Side::Opening { .. } => return Ok(()),
            Side::Requester(requester, _) => requester.handle_frame(ctx.now, frame),
            Side::Responder(responder) => responder.handle_frame(ctx.now, frame),
        };
        if let Err(error) = taken {
            tracing::debug!(%error, "a contact request fails");
        }
        self.drain_exchange(ctx, id)?;
        self.finish(ctx)
    }

    /// Notes that a contact-request stream ended or could not be opened.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_exchange_closed(&mut self, ctx: &mut Ctx<'_, '_>, id: ExchangeId) -> Result<(), ReadError> {
        self.end_exchange(ctx.now, id);
        self.finish(ctx)
    }

    /// Takes up the lookups and the announcements that the account log asks for, after it was opened.
    pub(super) fn resume_requests(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let account = self.account_group();
        let waiting = self.active(&account)?.index.contacts_to_request(ctx.tx)?;
        for contact in waiting {
            self.start_lookup(ctx, &contact)?;
        }
        self.follow_requests(ctx)
    }

    /// Takes up or drops the lookup of a contact whose state changed.
    pub(super) fn follow_lookup(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        account: &AccountId,
        state: ContactState,
    ) -> Result<(), ReadError> {
        if state == ContactState::ToRequest {
            return self.start_lookup(ctx, account);
        }
        let lookup = self.lookups.remove(account);
        self.search_changed |= lookup.is_some();
        if let Some(lookup) = lookup
            && let Some(id) = lookup.exchange
            && self.exchanges.get(&id).is_some_and(|open| matches!(open.side, Side::Opening { .. }))
        {
            self.exchanges.remove(&id);
            self.actions.push_back(Action::CloseExchange { id });
        }
        Ok(())
    }

    /// Starts or stops to accept requests and to announce the own contact name.
    pub(super) fn follow_requests(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let enabled = self.requests_are_enabled(ctx.tx)?;
        self.search_changed = true;
        if enabled != self.requests_enabled {
            self.requests_enabled = enabled;
            self.actions.push_back(Action::AcceptExchanges(enabled));
        }
        let peers: Vec<_> = self.peers.keys().cloned().collect();
        peers.iter().try_for_each(|peer| self.send_records(ctx, peer))?;
        self.records_due = enabled.then(|| ctx.now + RECORD_REFRESH);
        Ok(())
    }

    /// Gives the own contact name to a peer on a private network. No other name goes to anybody: a list of
    /// topics is a fingerprint (`spec/security.md` D4).
    pub(super) fn send_records(&mut self, ctx: &mut Ctx<'_, '_>, peer: &PeerId) -> Result<(), ReadError> {
        if !self.requests_enabled || !self.peers.get(peer).is_some_and(|known| known.local) {
            return Ok(());
        }
        let account = self.account_group();
        let Some(seed) = self.active(&account)?.index.seed(ctx.tx)? else { return Ok(()) };
        let expire = i64::try_from((ctx.now + RECORD_TTL).as_secs()).unwrap_or(i64::MAX);
        let rotation = self.profile.rotation();
        let names =
            rotation::announced_contact_names(&self.account_id(), &seed, ctx.now, rotation, RECORD_TTL);
        let records = names.into_iter().map(|cid| Record { cid, expire }).collect();
        let data = Records { records }.encode_to_vec();
        self.actions.push_back(Action::SendRecords { peer: peer.clone(), data });
        Ok(())
    }

    /// Sends the own contact name again before it runs out.
    pub(super) fn refresh_records(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        match self.records_due {
            Some(due) if due <= ctx.now => self.follow_requests(ctx),
            _ => Ok(()),
        }
    }

    /// Tries the lookups again that had nobody to try.
    pub(super) fn hasten_lookups(&mut self, ctx: &mut Ctx<'_, '_>) {
        for lookup in self.lookups.values_mut() {
            lookup.idle = false;
        }
        self.retry_lookups(ctx);
    }

    /// Tries every lookup that is due with a peer that announced the name looked for, or else with one that
    /// accepts requests and was not tried before.
    pub(super) fn retry_lookups(&mut self, ctx: &mut Ctx<'_, '_>) {
        let rotation = self.profile.rotation();
        for (account, lookup) in &mut self.lookups {
            if lookup.exchange.is_some() || lookup.not_before > ctx.now {
                continue;
            }
            let Some(seed) = &lookup.contact.seed else {
                lookup.idle = true;
                continue;
            };
            let names = rotation::sought_contact_names(account, seed, ctx.now, rotation);
            let named = |peer: &Peer| {
                names.iter().any(|name| peer.records.get(name).is_some_and(|until| *until > ctx.now))
            };
            // Anybody can claim a name: the one that failed longest ago comes first, so that each has its turn.
            let failed = |peer: &Peer| peer.not_blindly_before.get(account).copied().unwrap_or_default();
            let announced = self.peers.iter().filter(|(_, peer)| named(peer));
            let announced = announced.min_by_key(|(_, peer)| failed(peer)).map(|(id, _)| id.clone());
            let chosen = announced.or_else(|| {
                let may_be = |peer: &Peer| peer.may_be(account).is_some_and(|from| from <= ctx.now);
                let (id, peer) = self.peers.iter_mut().find(|(_, peer)| may_be(peer))?;
                peer.not_blindly_before.insert(*account, ctx.now + BLIND_PAUSE);
                Some(id.clone())
            });
            let Some(peer) = chosen else {
                match self.peers.values().filter_map(|peer| peer.may_be(account)).min() {
                    Some(from) => lookup.not_before = from,
                    None => lookup.idle = true,
                }
                continue;
            };
            self.next_id = self.next_id.wrapping_add(1);
            let id = ExchangeId(self.next_id);
            lookup.exchange = Some(id);
            let side = Side::Opening { account: *account, due: ctx.now + OPENING_LONGEST };
            let origin = Origin::ThisMachine;
            self.exchanges.insert(id, OpenExchange { peer: peer.clone(), origin, side });
            self.actions.push_back(Action::OpenExchange { id, peer });
        }
    }

    /// Ends handshakes whose time is over.
    pub(super) fn expire_exchanges(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let late = self.exchanges.iter().filter(|(_, open)| open.due().is_some_and(|due| due <= ctx.now));
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        if planted::is(Bug::ExchangesNeverEnd) {
            return Ok(());
        }
        for id in late {
            match self.exchanges.get_mut(&id).map(|open| &mut open.side) {
                Some(Side::Requester(requester, _)) => requester.handle_timeout(ctx.now),
                Some(Side::Responder(responder)) => responder.handle_timeout(ctx.now),
                Some(Side::Opening { .. }) => {
                    self.actions.push_back(Action::CloseExchange { id });
                    self.end_exchange(ctx.now, id);
                }
                None => {}
            }
            self.drain_exchange(ctx, id)?;
        }
        Ok(())
    }

    /// Ends the handshakes with a peer that is gone.
    pub(super) fn end_exchanges_with(&mut self, now: Time, peer: &PeerId) {
        let ended = self.exchanges.iter().filter(|(_, open)| open.peer == *peer);
        let ended: Vec<_> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            self.end_exchange(now, id);
        }
    }

    /// Breaks off all handshakes: nobody can tell any more when their time is over.
    pub(super) fn break_off_exchanges(&mut self, now: Time) {
        while let Some((id, _)) = self.exchanges.first_key_value() {
            let id = *id;
            self.actions.push_back(Action::CloseExchange { id });
            self.end_exchange(now, id);
        }
    }

    fn end_exchange(&mut self, now: Time, id: ExchangeId) {
        if let Some(open) = self.exchanges.remove(&id) {
            self.lookup_failed(now, &open);
        }
    }

    fn start_lookup(&mut self, ctx: &mut Ctx<'_, '_>, account: &AccountId) -> Result<(), ReadError> {
        let group = self.account_group();
        let index = &self.active(&group)?.index;
        let Some(contact) = index.contact(ctx.tx, account)? else { return Ok(()) };
        let own_metadata = index.own_metadata_for(ctx.tx, account)?.unwrap_or_default();
        let lookup = Lookup {
            contact,
            own_metadata,
            pause: LOOKUP_FIRST,
            not_before: Time::default(),
            exchange: None,
            idle: false,
        };
        self.lookups.insert(*account, lookup);
        self.search_changed = true;
        self.retry_lookups(ctx);
        Ok(())
    }

    /// Does what a handshake asks for, until it asks for nothing more.
    fn drain_exchange(&mut self, ctx: &mut Ctx<'_, '_>, id: ExchangeId) -> Result<(), ReadError> {
        loop {
            let action = match self.exchanges.get_mut(&id).map(|open| &mut open.side) {
                Some(Side::Requester(requester, _)) => requester.poll_action(),
                Some(Side::Responder(responder)) => responder.poll_action(),
                _ => None,
            };
            match action {
                None => return Ok(()),
                Some(HandshakeAction::Send(frame)) => self.actions.push_back(Action::SendFrame { id, frame }),
                Some(HandshakeAction::Sent) => self.request_sent(ctx, id)?,
                Some(HandshakeAction::Received(contact)) => self.request_received(ctx, id, contact)?,
                Some(HandshakeAction::Close) => {
                    self.actions.push_back(Action::CloseExchange { id });
                    self.end_exchange(ctx.now, id);
                }
            }
        }
    }

    /// An own request reached the other side: the account log says so, and the shared group is opened.
    fn request_sent(&mut self, ctx: &mut Ctx<'_, '_>, id: ExchangeId) -> Result<(), ReadError> {
        let Some(OpenExchange { side: Side::Requester(_, account), .. }) = self.exchanges.get(&id) else {
            return Ok(());
        };
        let account = *account;
        match self.act_on_contact(ctx, &account, ContactAction::MarkSent) {
            Ok(()) => self.events.push_back(Event::RequestSent { account }),
            Err(CommandError::Read(error)) => return Err(error),
            Err(error) => tracing::debug!(%error, "a request was sent that is not wanted any more"),
        }
        Ok(())
    }

    /// Somebody asked. Whom we asked too is added at once; a blocked one is dropped without a word, and so is
    /// one who was refused lately.
    fn request_received(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        id: ExchangeId,
        contact: Contact,
    ) -> Result<(), ReadError> {
        if let Some(open) = self.exchanges.get(&id) {
            self.quota.note(&open.origin, ctx.now);
        }
        match self.next_contact_step(ctx, &contact.account, ContactAction::Receive) {
            Ok(ContactStep::IncomingReceived)
            | Err(CommandError::Contact(ContactRefusal::AlreadyReceived)) => {}
            Ok(_) => {
                return match self.act_on_contact(ctx, &contact.account, ContactAction::Receive) {
                    Err(CommandError::Read(error)) => Err(error),
                    _ => Ok(()),
                };
            }
            Err(CommandError::Read(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "a request is dropped");
                return Ok(());
            }
        }
        self.keep_request(ctx, contact)
    }

    fn lookup_failed(&mut self, now: Time, open: &OpenExchange) {
        let account = match &open.side {
            Side::Opening { account, .. } | Side::Requester(_, account) => account,
            Side::Responder(_) => return,
        };
        if let Some(peer) = self.peers.get_mut(&open.peer) {
            peer.not_blindly_before.insert(*account, now + BLIND_PAUSE);
        }
        let Some(lookup) = self.lookups.get_mut(account) else { return };
        lookup.exchange = None;
        lookup.not_before = now + lookup.pause;
        lookup.pause = lookup.pause.doubled(LOOKUP_LONGEST);
    }
}

fn ephemeral(ctx: &mut Ctx<'_, '_>) -> AgreementKey {
    let mut bytes = [0; 32];
    ctx.rng.fill_bytes(&mut bytes);
    AgreementKey::from_bytes(bytes)
}
