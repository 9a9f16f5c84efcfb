//! One device.

use std::ops::{Bound, ControlFlow};

use dunlin_base::kv::{Direction, Durability, KeyRange, MemoryStore, Read, Store, Table, Tx};
use dunlin_base::{GroupId, PeerId, Time};
use dunlin_wesh::engine::{Action, Ctx, Engine, Event, MessageEvent, MetadataEvent};
use dunlin_wesh::metadata::Event as MetadataKind;
use dunlin_wesh::profile::Profile;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

/// What time it is.
pub const NOW: Time = Time::from_secs(1_700_000_000);

/// The host of a device.
pub fn host(number: u64) -> PeerId {
    PeerId::from_array([number as u8; 34])
}

/// An engine, its store, and nobody to talk to.
pub struct Device {
    pub store: MemoryStore,
    pub engine: Engine,
    rng: ChaCha12Rng,
    /// What the last [`Self::step_at`] told.
    pub told: Vec<Event>,
}

impl Device {
    pub fn new(number: u64) -> Self {
        Self::open(number, MemoryStore::default())
    }

    pub fn open(number: u64, store: MemoryStore) -> Self {
        Self::open_at(number, number, store)
    }

    /// A device whose host and whose chance are named each by itself.
    pub fn open_at(number: u64, chance: u64, store: MemoryStore) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(chance);
        let mut tx = Tx::new(&store);
        let mut ctx = Ctx { tx: &mut tx, now: NOW, rng: &mut rng };
        let engine = Engine::open(&mut ctx, Profile::Berty, host(number)).unwrap();
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
        Self { store, engine, rng, told: Vec::new() }
    }

    pub fn run<R>(&mut self, command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> R) -> R {
        self.run_at(NOW, command)
    }

    pub fn run_at<R>(&mut self, now: Time, command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> R) -> R {
        let mut tx = Tx::new(&self.store);
        let result = command(&mut Ctx { tx: &mut tx, now, rng: &mut self.rng }, &mut self.engine);
        while self.engine.poll_event().is_some() {}
        self.store.commit(tx.into_batch(), Durability::Synced).unwrap();
        while self.engine.poll_action().is_some() {}
        result
    }

    /// The same at another time, with what the shell is asked for.
    pub fn step_at<R>(
        &mut self,
        now: Time,
        command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> R,
    ) -> (R, Vec<Action>) {
        let mut tx = Tx::new(&self.store);
        let result = command(&mut Ctx { tx: &mut tx, now, rng: &mut self.rng }, &mut self.engine);
        self.told = std::iter::from_fn(|| self.engine.poll_event()).collect();
        self.store.commit(tx.into_batch(), Durability::Synced).unwrap();
        (result, std::iter::from_fn(|| self.engine.poll_action()).collect())
    }

    /// Lets everything join that is stored.
    pub fn settle(&mut self) {
        while self.engine.timeout().is_some_and(|due| due <= NOW) {
            self.run(|ctx, engine| engine.handle_timeout(ctx).unwrap());
        }
    }

    pub fn export(&self) -> Vec<u8> {
        let mut export = self.engine.dangerous_export(&self.store).unwrap();
        let mut archive = Vec::new();
        while let Some(part) = export.next_part(&self.engine, &self.store).unwrap() {
            archive.extend_from_slice(part.as_bytes());
        }
        archive
    }

    /// Whether the bytes are anywhere in the store.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        let mut found = false;
        for table in 0..=u8::MAX {
            let mut visit = |key: &[u8], row: &[u8]| {
                found |= [key, row].iter().any(|part| part.windows(bytes.len()).any(|part| part == bytes));
                ControlFlow::Continue(())
            };
            self.store.scan(Table(table), &KeyRange::default(), Direction::Ascending, &mut visit).unwrap();
        }
        found
    }

    pub fn messages(&self, group: &GroupId) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let mut visit = |message: MessageEvent| {
            messages.push(message.payload);
            ControlFlow::Continue(())
        };
        self.engine
            .visit_messages(&self.store, group, Bound::Unbounded, Direction::Ascending, &mut visit)
            .unwrap();
        messages
    }

    /// What the events of the metadata log are, in order.
    pub fn kinds(&self, group: &GroupId) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        let mut visit = |event: MetadataEvent| {
            kinds.push(match event.event.event() {
                MetadataKind::MemberDeviceAdded { .. } => "device",
                MetadataKind::ChainKeyAdded { .. } => "key",
                _ => "other",
            });
            ControlFlow::Continue(())
        };
        self.engine
            .visit_metadata(&self.store, group, Bound::Unbounded, Direction::Ascending, &mut visit)
            .unwrap();
        kinds
    }
}
