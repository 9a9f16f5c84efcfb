//! A log of unique values, entries of any shape for it, and a node that receives them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use dunlin_base::kv::{Direction, Durability, MemoryStore, Store, Tx};
use dunlin_base::{EntryId, SecretKey};
use dunlin_log::{Body, Clock, Entry, Log, Position, Rules, SharedKey, Verdict, Writer};

pub const LOG_ID: &str = "/orbitdb/bafyexample/log";

pub fn key() -> SecretKey {
    SecretKey::from_seed([7; 32])
}

pub fn writer() -> Writer {
    Writer::new(key())
}

/// One key writes, and no payload occurs twice.
struct UniquePayloads(SharedKey);

impl Rules for UniquePayloads {
    fn may_write(&self, entry: &Entry) -> bool {
        self.0.may_write(entry)
    }

    fn is_signed(&self, entry: &Entry) -> bool {
        self.0.is_signed(entry)
    }

    fn unique_value(&self, payload: &str) -> Option<[u8; 32]> {
        Some(*EntryId::of_block(payload.as_bytes()).digest())
    }
}

pub fn open() -> Log {
    Log::new(LOG_ID, Arc::new(UniquePayloads(SharedKey::new(key().public()))))
}

pub fn body(payload: &str, next: &[EntryId], time: i64) -> Body {
    let clock = Clock { time, id: key().public().to_libp2p().to_vec() };
    Body { log_id: LOG_ID.into(), payload: payload.into(), next: next.to_vec(), refs: Vec::new(), clock }
}

pub fn entry(payload: &str, next: &[EntryId], time: i64) -> Entry {
    writer().sign(body(payload, next, time))
}

/// A chain of `length` honest entries.
pub fn chain(length: usize) -> Vec<Entry> {
    let mut chain: Vec<Entry> = Vec::new();
    for at in 0..length {
        let next: Vec<EntryId> = chain.last().map(Entry::id).into_iter().collect();
        chain.push(entry(&format!("{at}"), &next, i64::try_from(at).unwrap() + 1));
    }
    chain
}

/// A node: a disk, and a log that is opened anew whenever the node restarts.
pub struct Node {
    pub disk: MemoryStore,
    pub log: Log,
}

impl Node {
    pub fn new() -> Self {
        Self { disk: MemoryStore::default(), log: open() }
    }

    /// Does something in one transaction and commits it.
    pub fn commit<T>(&mut self, work: impl FnOnce(&mut Log, &mut Tx<'_>) -> T) -> T {
        let mut tx = Tx::new(&self.disk);
        let done = work(&mut self.log, &mut tx);
        self.disk.commit(tx.into_batch(), Durability::Synced).unwrap();
        done
    }

    pub fn take(&mut self, entries: &[Entry]) {
        self.commit(|log, tx| {
            for entry in entries {
                log.ingest(tx, entry.block()).unwrap();
            }
        });
    }

    /// Joins what is ready, `limit` steps a commit; tells whether an earlier order changed.
    pub fn join(&mut self, limit: usize) -> bool {
        let mut reordered = false;
        loop {
            let batch = self.commit(|log, tx| log.join_ready(tx, limit).unwrap());
            reordered |= batch.reordered;
            if !batch.more {
                return reordered;
            }
        }
    }

    pub fn give_up_all(&mut self) {
        loop {
            let missing = self.log.missing(&self.disk, 100).unwrap();
            if missing.is_empty() {
                return;
            }
            self.commit(|log, tx| missing.iter().for_each(|id| log.give_up(tx, *id).unwrap()));
        }
    }

    pub fn order(&self) -> Vec<Position> {
        let mut order = Vec::new();
        self.log
            .walk(&self.disk, None, Direction::Ascending, &mut |position, _| {
                order.push(position);
                ControlFlow::Continue(())
            })
            .unwrap();
        order
    }

    pub fn payloads(&self) -> Vec<String> {
        let mut payloads = Vec::new();
        self.log
            .walk(&self.disk, None, Direction::Ascending, &mut |_, entry| {
                payloads.push(entry.payload().to_owned());
                ControlFlow::Continue(())
            })
            .unwrap();
        payloads
    }

    /// All that must be the same on nodes with the same entries.
    pub fn state(&self, entries: &[Entry]) -> State {
        let verdicts = entries.iter().filter_map(|entry| {
            let verdict = self.log.verdict(&self.disk, entry.id()).unwrap()?;
            Some((entry.id(), (verdict, self.log.position(&self.disk, entry.id()).unwrap()?)))
        });
        State {
            verdicts: verdicts.collect(),
            order: self.order(),
            heads: self.log.heads(&self.disk).unwrap(),
            missing: self.log.missing(&self.disk, usize::MAX).unwrap(),
            holes: self.log.holes(&self.disk, None, usize::MAX).unwrap(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct State {
    pub verdicts: BTreeMap<EntryId, (Verdict, Position)>,
    pub order: Vec<Position>,
    pub heads: Vec<EntryId>,
    pub missing: Vec<EntryId>,
    pub holes: Vec<EntryId>,
}
