//! One simulated device: the engine, a witness above it, and a disk below.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use dunlin_base::kv::{CommitError, Direction, Durability, KeyRange, Read, ReadError, Store, Table, Tx};
use dunlin_base::planted::{self, Bug, Sealing};
use dunlin_base::{DeviceId, EntryId, GroupId, PeerId, Span, Time};
use dunlin_log::{BLOCKS, Entry, LogTag, blocks_in};
use dunlin_orbitdb::{StoreAddress, operation};
use dunlin_store::RedbStore;
use dunlin_store::faults::{Call, Faults, SimDisk};
use dunlin_wesh::archive::Import;
use dunlin_wesh::engine::{Action, App, Ctx, Engine, Event, MetadataEvent, StoreKind, WaitCause};
use dunlin_wesh::profile::Profile;

use crate::chance::Chance;

/// What the witness was shown, by group, device and counter: a count, since twice would be a violation.
const SEEN: Table = Table(0xf0);
/// How long a slow disk takes for a commit at the most.
const SLOW_COMMIT_MS: u64 = 1000;
/// Pause before an engine is opened again on a store whose disk failed.
const REOPEN_PAUSE: Span = Span::from_secs(1);
/// Messages that wait, by group and entry.
const WAITS: Table = Table(0xf1);

/// The application of a simulated device: it accepts every request and writes down what it is shown.
#[derive(Debug, Default)]
pub(crate) struct Witness;

impl App for Witness {
    type Notice = std::convert::Infallible;

    fn start(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        activate_all(ctx, engine)
    }

    fn handle_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        event: &Event,
    ) -> Result<(), ReadError> {
        match event {
            Event::Message(message) => {
                let waited = [message.group.as_bytes().as_slice(), message.entry.digest()].concat();
                let key = shown_key(&message.group, &message.device, message.counter);
                let times = ctx.tx.get(SEEN, &key)?.and_then(|row| row.first().copied()).unwrap_or(0);
                ctx.tx.put(SEEN, &key, &[times.saturating_add(1)]);
                ctx.tx.delete(WAITS, &waited);
            }
            Event::MessageWaits { group, entry, cause } => {
                let key = [group.as_bytes().as_slice(), entry.digest()].concat();
                let for_good = matches!(cause, WaitCause::SentBeforeKey { .. });
                ctx.tx.put(WAITS, &key, &[for_good.into()]);
            }
            Event::RequestReceived { contact, .. } => {
                let _ = engine.accept_contact(ctx, &contact.account);
            }
            Event::RequestSent { account } => {
                if let Ok(group) = engine.contact_group(account) {
                    let _ = engine.activate(ctx, &group);
                }
            }
            // Another device of the account may have joined a group or made a contact.
            Event::Metadata(MetadataEvent { group, .. }) | Event::Refolded { group }
                if *group == engine.account_group() =>
            {
                activate_all(ctx, engine)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_timeout(&mut self, _: &mut Ctx<'_, '_>, _: &mut Engine) -> Result<(), ReadError> {
        Ok(())
    }

    fn timeout(&self) -> Option<Time> {
        None
    }

    fn poll_notice(&mut self) -> Option<Self::Notice> {
        None
    }
}

fn activate_all(ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
    let known = engine.known_groups(ctx.tx)?;
    for (group, _, _) in known {
        if !engine.is_active(&group) {
            // A group that cannot be activated is told by its messages not arriving.
            let _ = engine.activate(ctx, &group);
        }
    }
    Ok(())
}

/// A device that is switched on.
struct Running {
    store: Arc<RedbStore>,
    engine: Engine,
}

/// A device.
pub(crate) struct Node {
    pub id: PeerId,
    disk: SimDisk,
    running: Option<Running>,
    chance: Chance,
    /// What its clock adds to the true time, and what it takes away.
    pub ahead: Span,
    pub behind: Span,
    pub asleep: bool,
    /// When it is switched on again after a crash.
    pub back_at: Option<Time>,
    pub actions: VecDeque<Action>,
    /// How often the next commits fail, in thousandths.
    pub commit_fault: u64,
    /// When the next one may.
    commits_fail_from: Time,
    /// Until when its disk fails.
    pub disk_fails_until: Option<Time>,
    /// Whether each commit takes it a while, and until when it is busy with one.
    pub is_slow: bool,
    pub busy_until: Time,
    /// A further device of an account that is not linked to it yet.
    pub is_blank: bool,
    /// A store that is open, though no engine runs on it: its disk failed.
    halted: Option<Arc<RedbStore>>,
    /// How many messages were shown when it was switched off.
    shown_before: usize,
    /// What was sealed and committed.
    pub sealed: Vec<Sealing>,
}

impl Node {
    pub fn new(seed: u64, number: usize, is_blank: bool) -> Self {
        let mut chance = Chance::new(seed, &format!("node {number}"));
        let mut id = [0; 34];
        rand_core::RngCore::fill_bytes(&mut chance, &mut id);
        Self {
            id: PeerId::from_array(id),
            disk: SimDisk::new(seed.rotate_left(8) ^ number as u64),
            running: None,
            chance,
            ahead: Span::default(),
            behind: Span::default(),
            asleep: false,
            back_at: None,
            actions: VecDeque::new(),
            commit_fault: 0,
            commits_fail_from: Time::default(),
            disk_fails_until: None,
            is_slow: false,
            busy_until: Time::default(),
            is_blank,
            halted: None,
            shown_before: 0,
            sealed: Vec::new(),
        }
    }

    /// What its clock shows.
    pub fn clock(&self, now: Time) -> Time {
        now + self.ahead - self.behind
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub fn is_reachable(&self) -> bool {
        self.running.is_some() && !self.asleep
    }

    pub fn engine(&self) -> Option<&Engine> {
        self.running.as_ref().map(|running| &running.engine)
    }

    pub fn store(&self) -> Option<&RedbStore> {
        self.running.as_ref().map(|running| &*running.store)
    }

    /// Switches the device on. A disk that does not give an account back is a violation.
    pub fn start(&mut self, now: Time) -> Result<(), String> {
        let store = match self.halted.take() {
            Some(store) => store,
            None => Arc::new(self.disk.open_store().map_err(|error| format!("no store: {error}"))?),
        };
        self.start_on(store, now)?;
        match self.shown() {
            shown if shown < self.shown_before => {
                Err(format!("I4: {} messages were shown, now {shown}", self.shown_before))
            }
            _ => Ok(()),
        }
    }

    /// Switches the device on, and loses power when the disk has been called so many times.
    pub fn start_and_lose_power(&mut self, now: Time, calls: u64) {
        self.disk.plan(Faults::error_at(calls).lasting());
        // Whether it came that far is left open.
        let _ = self.start(now);
        let shown = self.shown_before;
        self.crash(now);
        self.shown_before = shown;
    }

    /// Makes a blank device one of the account in the archive.
    pub fn adopt(&mut self, archive: &[u8]) -> Result<(), String> {
        let store = self.disk.open_store().map_err(|error| format!("no store: {error}"))?;
        let mut tx = Tx::new(&store);
        let mut import = Import::begin(&mut tx, Profile::Berty).map_err(|error| error.to_string())?;
        import.feed(&mut tx, archive).map_err(|error| error.to_string())?;
        import.finish(&mut tx, &mut self.chance).map_err(|error| error.to_string())?;
        store.commit(tx.into_batch(), Durability::Synced).map_err(|error| error.to_string())?;
        self.is_blank = false;
        Ok(())
    }

    /// Everything that a further device needs: the whole account, or its own log only.
    pub fn archive(&self, whole: bool) -> Option<Vec<u8>> {
        self.look(|read, engine| {
            let mut export = match whole {
                true => engine.dangerous_export(read).ok()?,
                false => engine.dangerous_export_account_log(),
            };
            let mut archive = Vec::new();
            while let Some(part) = export.next_part(engine, read).ok()? {
                archive.extend_from_slice(part.as_bytes());
            }
            Some(archive)
        })?
    }

    /// Lets the disk fail in the way that is drawn.
    pub fn break_disk(&mut self, until: Time) {
        let at = self.chance.below(12).saturating_add(1);
        match self.chance.below(6) {
            0 => self.disk.plan(Faults::error_at(at)),
            1 => self.disk.plan(Faults::error_at(at).lasting()),
            2 => self.disk.plan(Faults::full_at(at).lasting()),
            3 => self.disk.plan(Faults::error_at(1).only(Call::Sync)),
            4 => self.disk.plan(Faults::flip_at(at)),
            _ => self.is_slow = true,
        }
        self.disk_fails_until = Some(until);
    }

    /// The disk is as good as new.
    pub fn mend_disk(&mut self) {
        self.disk.plan(Faults::none());
        (self.is_slow, self.disk_fails_until) = (false, None);
    }

    /// Opens the account on a store that is open.
    fn start_on(&mut self, store: Arc<RedbStore>, now: Time) -> Result<(), String> {
        // What a step sealed that was not committed never left, and is none of the start's.
        planted::take_sealings();
        let mut tx = Tx::new(&*store);
        let clock = self.clock(now);
        let mut ctx = Ctx { tx: &mut tx, now: clock, rng: &mut self.chance };
        let mut engine = Engine::open(&mut ctx, Profile::Berty, self.id.clone())
            .map_err(|error| format!("no account: {error}"))?;
        let mut witness = Witness;
        witness.start(&mut ctx, &mut engine).map_err(|error| error.to_string())?;
        drain(&mut ctx, &mut engine, &mut witness).map_err(|error| error.to_string())?;
        store.commit(tx.into_batch(), Durability::Synced).map_err(|error| error.to_string())?;
        self.sealed.extend(planted::take_sealings());
        self.actions = std::iter::from_fn(|| engine.poll_action()).collect();
        self.running = Some(Running { store, engine });
        self.back_at = None;
        Ok(())
    }

    /// Cuts the power: what was not synced may be lost, sector by sector.
    pub fn crash(&mut self, back_at: Time) {
        self.shown_before = self.shown_before.max(self.shown());
        self.halted = None;
        // What survives is decided before the store can tidy up.
        let survived = self.disk.crash(self.chance.below(u64::MAX));
        self.running = None;
        self.actions.clear();
        self.disk = survived;
        self.back_at = Some(back_at);
    }

    /// One input and its commit, as the shell of a real node does it. `None` when the device is off, or when
    /// the commit failed; it was opened again then, and has to be told who is connected.
    pub fn step<R>(&mut self, now: Time, input: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> R) -> Step<R> {
        let clock = self.clock(now);
        let Some(running) = &mut self.running else { return Step::Off };
        planted::take_sealings();
        let store = running.store.clone();
        let mut tx = Tx::new(&*store);
        let mut ctx = Ctx { tx: &mut tx, now: clock, rng: &mut self.chance };
        let result = input(&mut ctx, &mut running.engine);
        let drained = drain(&mut ctx, &mut running.engine, &mut Witness);
        // A real shell takes many inputs with one commit, so not many of them fail in a second.
        let fails = self.chance.happens(self.commit_fault) && self.commits_fail_from <= now;
        let committed = match drained {
            Err(error) => Err(CommitError::Io(Box::new(error))),
            Ok(()) if fails => Err(CommitError::Full),
            Ok(()) => store.commit(tx.into_batch(), Durability::Synced),
        };
        if self.is_slow {
            let pause = Span::from_millis(self.chance.below(SLOW_COMMIT_MS));
            self.busy_until = self.busy_until.max(now) + pause;
        }
        if committed.is_err() {
            self.commits_fail_from = now + REOPEN_PAUSE;
            let mut early = VecDeque::new();
            if planted::is(Bug::AnnounceBeforeCommit) {
                early.extend(std::iter::from_fn(|| running.engine.poll_action()));
            }
            self.running = None;
            self.actions.clear();
            let started = self.start_on(store.clone(), now);
            self.actions.extend(early);
            return match started {
                Ok(()) => Step::Reopened,
                Err(_) if self.disk_fails_until.is_some() => {
                    // The shell tries again, on the store as it is.
                    self.halted = Some(store);
                    self.back_at = Some(now + REOPEN_PAUSE);
                    Step::Off
                }
                Err(error) => Step::Broken(error),
            };
        }
        self.sealed.extend(planted::take_sealings());
        self.actions.extend(std::iter::from_fn(|| running.engine.poll_action()));
        Step::Done(result)
    }

    /// Reads without changing anything.
    pub fn look<R>(&self, look: impl FnOnce(&dyn Read, &Engine) -> R) -> Option<R> {
        let running = self.running.as_ref()?;
        Some(look(&*running.store, &running.engine))
    }

    /// What the witness was shown of a group as it came: the device, the counter, and how often.
    pub fn seen(&self, group: &GroupId) -> BTreeMap<(DeviceId, u64), u8> {
        let rows = self.rows(SEEN, group).into_iter();
        let seen = rows.filter_map(|(key, row)| {
            let (device, counter) = key.split_first_chunk::<32>()?;
            let counter = u64::from_be_bytes(*counter.first_chunk()?);
            Some(((DeviceId::from_stored(device)?, counter), row.first().copied().unwrap_or(0)))
        });
        seen.collect()
    }

    /// Entries of a group of which the witness was told that they stay closed for a reason that lasts: they were
    /// sent before this member got a key.
    pub fn stays_closed(&self, group: &GroupId) -> Vec<EntryId> {
        let closed = self.rows(WAITS, group).into_iter().filter(|(_, row)| row == &[1]);
        closed.filter_map(|(key, _)| EntryId::from_slice(&key)).collect()
    }

    /// How many rows its disk holds, and how many entries they are for.
    pub fn rows_and_entries(&self) -> (usize, usize) {
        let Some(store) = self.store() else { return (0, 0) };
        let count = |table| {
            let mut rows = 0_usize;
            let _ = store.scan(table, &KeyRange::default(), Direction::Ascending, &mut |_, _| {
                rows = rows.saturating_add(1);
                ControlFlow::Continue(())
            });
            rows
        };
        ((0..=u8::MAX).map(|table| count(Table(table))).sum(), count(BLOCKS))
    }

    /// What the entries of a group carry.
    pub fn values(&self, group: &GroupId) -> Vec<(StoreKind, Vec<u8>)> {
        let blocks = self.blocks(group).into_iter();
        let value = |(kind, block): (StoreKind, Vec<u8>)| {
            Some((kind, operation::decode_value(Entry::decode(&block).ok()?.payload())?))
        };
        blocks.filter_map(value).collect()
    }

    fn blocks(&self, group: &GroupId) -> Vec<(StoreKind, Vec<u8>)> {
        let mut blocks = Vec::new();
        // A group that cannot be read shows as messages that are missing.
        let _ = self.look(|read, engine| {
            let known = engine.known_group(read, group).ok()??;
            for kind in [StoreKind::Metadata, StoreKind::Messages] {
                let store = match kind {
                    StoreKind::Metadata => engine.profile().metadata_store(),
                    StoreKind::Messages => engine.profile().message_store(),
                };
                let address = StoreAddress::new(group, store, &known.sign_pub());
                let tag = LogTag::of(&address.to_string());
                blocks_in(read, tag, 0, &mut |_, block| {
                    blocks.push((kind, block.to_vec()));
                    ControlFlow::Continue(())
                })
                .ok()?;
            }
            Some(())
        });
        blocks
    }

    /// How many messages its witness was shown.
    fn shown(&self) -> usize {
        let Some(store) = self.store() else { return 0 };
        let mut shown = 0_usize;
        let _ = store.scan(SEEN, &KeyRange::default(), Direction::Ascending, &mut |_, _| {
            shown = shown.saturating_add(1);
            ControlFlow::Continue(())
        });
        shown
    }

    /// Everything on its disk.
    pub fn disk(&self) -> Vec<u8> {
        self.disk.to_bytes()
    }

    fn rows(&self, table: Table, group: &GroupId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let Some(store) = self.store() else { return rows };
        let range = KeyRange::prefix(group.as_bytes());
        // A store that cannot be read shows as messages that are missing.
        let _ = store.scan(table, &range, Direction::Ascending, &mut |key, row| {
            if let Some(rest) = key.get(32..) {
                rows.push((rest.to_vec(), row.to_vec()));
            }
            ControlFlow::Continue(())
        });
        rows
    }
}

fn shown_key(group: &GroupId, device: &DeviceId, counter: u64) -> Vec<u8> {
    [group.as_bytes().as_slice(), device.as_bytes(), &counter.to_be_bytes()].concat()
}

/// What came of an input.
pub(crate) enum Step<R> {
    /// It is committed.
    Done(R),
    /// The device is off.
    Off,
    /// The commit failed; the engine was opened again.
    Reopened,
    /// The device could not be opened again.
    Broken(String),
}

fn drain(ctx: &mut Ctx<'_, '_>, engine: &mut Engine, witness: &mut Witness) -> Result<(), ReadError> {
    while let Some(event) = engine.poll_event() {
        witness.handle_event(ctx, engine, &event)?;
    }
    Ok(())
}
