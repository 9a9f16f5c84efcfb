//! The node of one account as a value: groups, their logs, their peers, contact requests and delivery.
//!
//! The shell calls a `handle_*` method or a command inside a transaction, commits it, and then carries out
//! what [`Engine::poll_action`] gives. Events are drained before the commit, so that an application above
//! can write into the same transaction. When a commit fails, the engine has seen what the disk has not:
//! drop it and open it again, which costs the same whatever the history.
//!
//! ```text
//!   input ──► handle_*(ctx) ──► events ──► App        ┐ one transaction
//!                  │                                   ┘
//!                  └──► actions ──► shell, after the commit
//! ```

mod account;
mod action;
mod app;
mod blocks;
mod catching_up;
mod commands;
mod contacts;
mod credentials;
mod delivery;
mod devices;
mod discovery;
mod event;
mod export;
mod fetches;
mod flood;
mod fold;
mod groups;
mod inbox;
mod inspect;
mod key_pace;
mod late_devices;
mod moves;
mod opening;
mod out_of_store;
mod peers;
mod renewal;
mod replicas;
mod requests;
mod retelling;
mod statements;
mod sync;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_base::kv::{ReadError, Tx};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, PeerId, Span, Time};
use rand_core::CryptoRngCore;

pub use action::{Action, ExchangeId};
pub use app::{App, NoApp};
pub use commands::{CommandError, PAYLOAD_BYTES_MAX};
pub use credentials::CredentialError;
pub use delivery::Delivery;
pub use devices::DeviceError;
pub use discovery::{Findable, Search};
pub use dunlin_log::Position;
pub use event::{Event, MessageEvent, MetadataEvent, WaitCause};
pub use export::Export;
pub use flood::{QUARANTINE_WINDOW, QUARANTINED_BYTES_MAX, QUARANTINED_ENTRIES_MAX};
pub use groups::StoreKind;
pub use inbox::{Origin, PENDING_MAX, REQUESTS_PER_HOUR_MAX, Request};
pub use inspect::{GroupState, InspectedEntry, Underway, Wait};
pub use key_pace::CHAIN_KEYS_AT_ONCE;
pub use renewal::{RenewalCause, renew_device};
pub use statements::ShownByDevice;
pub use sync::Gossip;

use crate::credentials::Verification;
use crate::keys::AccountKeys;
use crate::message;
use crate::profile::Profile;
use fetches::Fetches;
use flood::Flood;
use groups::ActiveGroup;
use inbox::Quota;
use peers::Peer;
use requests::{Lookup, OpenExchange};

/// How far time may run backwards before that counts as a clock that was set.
const CLOCK_JITTER: Span = Span::from_secs(5);

/// What an input may use: storage, the time, and randomness, all owned by the shell.
pub struct Ctx<'a, 's> {
    /// The transaction that everything this input causes is written into.
    pub tx: &'a mut Tx<'s>,
    /// What time it is.
    pub now: Time,
    /// Randomness, seeded from the system by the shell and from a number by the simulator.
    pub rng: &'a mut dyn CryptoRngCore,
}

/// One account on one device: see the [module documentation](self).
pub struct Engine {
    profile: Profile,
    host: PeerId,
    keys: AccountKeys,
    groups: BTreeMap<GroupId, ActiveGroup>,
    topics: BTreeMap<String, (GroupId, StoreKind)>,
    peers: BTreeMap<PeerId, Peer>,
    fetches: Fetches,
    /// Who brings entries that do not count.
    flood: Flood,
    /// Logs that hold stored entries which can join now.
    backlog: BTreeSet<(GroupId, StoreKind)>,
    /// Devices whose waiting messages were too much for one step.
    unopened: BTreeSet<(GroupId, DeviceId)>,
    /// Devices whose waiting events were too much for one step.
    unfolded: BTreeSet<(GroupId, DeviceId)>,
    /// Logs whose heads changed by an own entry since they were announced.
    unannounced: BTreeSet<(GroupId, StoreKind)>,
    /// The messages that each frame on its way holds.
    heads_sent: BTreeMap<u64, (GroupId, Vec<EntryId>)>,
    lookups: BTreeMap<AccountId, Lookup>,
    exchanges: BTreeMap<ExchangeId, OpenExchange>,
    requests_enabled: bool,
    /// Who has asked how often.
    quota: Quota,
    /// What an issuer is asked to confirm. Forgotten when the engine is dropped.
    verification: Option<Verification>,
    /// Who is to be found changed since the shell was told.
    search_changed: bool,
    records_due: Option<Time>,
    /// An entry showed that another device has the key of this one.
    key_is_shared: bool,
    /// When message keys are to be erased; never later than the first is due.
    keys_due: Option<Time>,
    speakers_changed: bool,
    /// Logs whose folded state is behind the order of their entries; also in [`crate::tables::STALE`].
    stale: BTreeSet<(GroupId, StoreKind)>,
    /// Groups in which this device is not announced yet: what their logs hold joins first.
    to_be_announced: BTreeSet<GroupId>,
    /// Devices of this account that are removed from it.
    removed: BTreeSet<DeviceId>,
    /// Groups that stay closed, since what is stored of them cannot be read.
    set_aside: BTreeSet<GroupId>,
    /// The owner has closed the account group: what needs it is refused until it is activated again.
    account_closed: bool,
    /// The group that an input has to do with, as long as it has not ended.
    at_work: Option<GroupId>,
    /// The latest moment that an input told.
    latest: Time,
    next_id: u64,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl Engine {
    /// Opens the account in the store of `ctx`, or makes one when there is none.
    ///
    /// `host` is the peer id under which the shell is reached; it goes into heads payloads. The account
    /// group is active afterwards; other groups are activated by whoever needs them.
    ///
    /// # Errors
    /// When the store cannot be read, or holds keys that are none.
    pub fn open(ctx: &mut Ctx<'_, '_>, profile: Profile, host: PeerId) -> Result<Self, OpenError> {
        let keys = match AccountKeys::load(ctx.tx)? {
            Some(keys) => keys,
            None => {
                let keys = AccountKeys::generate(ctx.rng);
                keys.store(ctx.tx);
                keys
            }
        };
        let mut engine = Self {
            profile,
            host,
            keys,
            groups: BTreeMap::new(),
            topics: BTreeMap::new(),
            peers: BTreeMap::new(),
            fetches: Fetches::default(),
            flood: Flood::default(),
            backlog: BTreeSet::new(),
            unopened: BTreeSet::new(),
            unfolded: BTreeSet::new(),
            unannounced: BTreeSet::new(),
            heads_sent: BTreeMap::new(),
            lookups: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            requests_enabled: false,
            quota: Quota::default(),
            verification: None,
            search_changed: true,
            records_due: None,
            key_is_shared: false,
            keys_due: message::erasure_due(ctx.tx)?,
            // Whoever watches may still have what an engine before this one told.
            speakers_changed: true,
            stale: BTreeSet::new(),
            to_be_announced: BTreeSet::new(),
            removed: BTreeSet::new(),
            set_aside: BTreeSet::new(),
            account_closed: false,
            at_work: None,
            latest: Time::default(),
            // An engine before this one may have used small numbers, and be answered late.
            next_id: ctx.rng.next_u64(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
        };
        engine.tell_renewal(ctx)?;
        engine.open_account_group(ctx)?;
        engine.resume_requests(ctx)?;
        Ok(engine)
    }

    /// Lets time pass; call at or after [`Self::timeout`].
    ///
    /// # Errors
    /// When the store cannot be read: open the engine again.
    pub fn handle_timeout(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        self.heed_clock(ctx.now);
        self.fold_unfolded(ctx)?;
        self.open_unopened(ctx)?;
        self.join_backlog(ctx)?;
        self.watch_catch_ups(ctx)?;
        self.ask_for_blocks(ctx.now);
        self.retell(ctx)?;
        self.repeat_announcements(ctx)?;
        self.serve_owed(ctx)?;
        self.expire_exchanges(ctx)?;
        self.retry_lookups(ctx);
        self.refresh_records(ctx)?;
        if self.keys_due.is_some_and(|due| due <= ctx.now) {
            message::erase_due(ctx.tx, ctx.now)?;
            self.keys_due = message::erasure_due(ctx.tx)?;
        }
        self.finish(ctx)
    }

    /// When [`Self::handle_timeout`] wants to be called next; a moment in the past means "as soon as can be".
    pub fn timeout(&self) -> Option<Time> {
        if !(self.backlog.is_empty() && self.unopened.is_empty() && self.unfolded.is_empty()) {
            return Some(Time::default());
        }
        let announcements = self.groups.values().filter_map(ActiveGroup::announcement_due);
        let streams = self.groups.values().flat_map(ActiveGroup::streams_due);
        let exchanges = self.exchanges.values().filter_map(OpenExchange::due);
        let lookups = self.lookups.values().filter_map(Lookup::due);
        let freed = self.flood.timeout().filter(|_| self.fetches.has_room());
        let fetches = self.fetches.timeout().into_iter();
        fetches
            .chain(freed)
            .chain(announcements)
            .chain(streams)
            .chain(exchanges)
            .chain(lookups)
            .chain(self.records_due)
            .chain(self.keys_due)
            .min()
    }

    /// Drains the next thing that the shell should do. Only after the commit.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Drains the next event. Before the commit.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        self.at_work = event.as_ref().and_then(Event::group);
        event
    }

    /// The group at which an input failed, if it was one of those that the account can do without.
    pub fn failed_at(&self) -> Option<GroupId> {
        self.at_work.filter(|group| *group != self.account_group())
    }

    /// Whether the last input ended in the middle of something: then the engine is to be opened again.
    pub fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    /// Keeps a group closed whose stored state cannot be read, so that the others go on. Until the engine is
    /// opened again; nothing of the group is deleted.
    pub fn set_aside(&mut self, group: &GroupId) {
        self.set_aside.insert(*group);
        self.deactivate(group);
    }

    /// The account.
    pub fn account_id(&self) -> AccountId {
        self.keys.account_id()
    }

    /// This device, as it is known in the account group and in contact groups.
    pub fn device_id(&self) -> DeviceId {
        DeviceId::new(self.keys.device.public())
    }

    /// The profile under which the engine runs.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Names something new in the traffic with the shell.
    fn fresh_id(&mut self) -> u64 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// What every input ends with: joins what became joinable and announces what is new.
    fn finish(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        self.heed_clock(ctx.now);
        self.join_backlog(ctx)?;
        self.renew_if_shared(ctx)?;
        self.announce(ctx)?;
        self.at_work = None;
        Ok(())
    }

    /// When the clock was set back, deadlines made before would lie too far ahead: all of them are due now.
    fn heed_clock(&mut self, now: Time) {
        let set_back = now + CLOCK_JITTER < self.latest && !planted::is(Bug::ClockSetBack);
        self.latest = if set_back { now } else { self.latest.max(now) };
        if !set_back {
            return;
        }
        self.fetches.hasten_all(now);
        self.quota.clear();
        self.flood.clear();
        for peer in self.peers.values_mut() {
            peer.greeted.clear();
            peer.no_stream_before = Time::default();
            peer.not_blindly_before.clear();
        }
        for active in self.groups.values_mut() {
            active.pace.hasten(now);
            for announcement in [&mut active.metadata.announcement, &mut active.messages.announcement] {
                announcement.hasten(now);
            }
            for store in [&mut active.metadata, &mut active.messages] {
                if let Some(stream) = &mut store.catch_up {
                    stream.hasten(now);
                }
                store.no_hurry_until = store.no_hurry_until.min(now);
                store.retelling.hasten(now);
                for subscriber in store.subscribers.values_mut() {
                    subscriber.quiet_until = subscriber.quiet_until.min(now);
                }
            }
        }
        self.break_off_exchanges(now);
        for lookup in self.lookups.values_mut() {
            lookup.hasten(now);
        }
        self.records_due = self.records_due.map(|due| due.min(now));
        self.keys_due = self.keys_due.map(|due| due.min(now));
    }
}

/// Why an account cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store cannot be read. Try again, or look at the disk.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store holds account keys that are damaged. Restore the directory from a copy.
    #[error(transparent)]
    Keys(#[from] crate::keys::KeyStoreError),
}
