//! What the pure crates do on one thread, in memory and on a disk.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_base::kv::{Direction, Durability, MemoryStore, Store, Tx};
use dunlin_base::{GroupId, PeerId, SecretKey, Time};
use dunlin_log::{Log, Writer};
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use dunlin_store::{Unlock, open};
use dunlin_wesh::engine::{Ctx, Engine};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::message;
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use rand_core::OsRng;

use crate::figures::Figures;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A payload of the size of a chat message.
const TEXT: [u8; 200] = [b'x'; 200];

pub(crate) fn log_and_writer() -> (Log, Writer) {
    let group = GroupId::new(SecretKey::from_seed([1; 32]).public());
    let key = SecretKey::from_seed([2; 32]);
    let address = StoreAddress::new(&group, "wesh_group_messages", &key.public());
    (shared_store(&address, key.public()), Writer::new(key))
}

pub(crate) fn value(number: usize) -> String {
    let mut bytes = TEXT;
    if let Some(head) = bytes.first_chunk_mut::<8>() {
        *head = (number as u64).to_be_bytes();
    }
    operation::encode_add(&bytes)
}

/// Appends: to the bare log, and as messages through the engine.
pub(crate) fn append(figures: &mut Figures) -> Outcome {
    let (mut log, writer) = log_and_writer();
    let memory = MemoryStore::default();
    let count = 20_000;
    let begun = Instant::now();
    for number in 0..count {
        let mut tx = Tx::new(&memory);
        log.append(&mut tx, &writer, &value(number))?;
        memory.commit(tx.into_batch(), Durability::Synced)?;
    }
    figures.rate("append to a log, memory", count, begun.elapsed(), 15_000.0);

    let dir = tempfile::tempdir()?;
    let store = open(&dir.path().join("one"), &Unlock::KeyFile)?;
    let (mut log, writer) = log_and_writer();
    let count = 4_000;
    let begun = Instant::now();
    for number in 0..count {
        let mut tx = Tx::new(&store);
        log.append(&mut tx, &writer, &value(number))?;
        store.commit(tx.into_batch(), Durability::Synced)?;
    }
    figures.rate("append to a log, disk, each synced", count, begun.elapsed(), 2_000.0);

    let store = open(&dir.path().join("batch"), &Unlock::KeyFile)?;
    let (mut log, writer) = log_and_writer();
    let count = 20_000;
    let begun = Instant::now();
    let mut number = 0;
    while number < count {
        let mut tx = Tx::new(&store);
        for _ in 0..256 {
            log.append(&mut tx, &writer, &value(number))?;
            number += 1;
        }
        store.commit(tx.into_batch(), Durability::Synced)?;
    }
    figures.rate("append to a log, disk, batches of 256 synced", number, begun.elapsed(), 10_000.0);

    let store = open(&dir.path().join("engine"), &Unlock::KeyFile)?;
    let (mut engine, group) = engine_with_group(&store)?;
    let count = 2_000;
    let begun = Instant::now();
    for _ in 0..count {
        send(&store, &mut engine, &group, 1)?;
    }
    // No bar: a message is two signatures, three seals and an entry.
    let took = begun.elapsed();
    figures.rate("send a message, disk, each synced", count, took, 0.0);
    figures.beside_go("164/s", count as f64 / took.as_secs_f64() / 164.0);
    Ok(())
}

/// Joins: entries of another writer, oldest first and newest first. Two threads check signatures, and one of them
/// joins what is checked; what one thread alone does is shown beside it.
pub(crate) fn join(figures: &mut Figures) -> Outcome {
    let count = 10_000;
    let mut blocks = blocks(count)?;
    for order in ["oldest first", "newest first"] {
        let begun = Instant::now();
        join_on_two_threads(&blocks)?;
        figures.rate(&format!("join 10,000 entries, {order}"), count, begun.elapsed(), 20_000.0);
        let begun = Instant::now();
        join_on_one_thread(&blocks)?;
        figures.rate("  on one thread", count, begun.elapsed(), 0.0);
        blocks.reverse();
    }
    Ok(())
}

fn join_on_two_threads(blocks: &[Vec<u8>]) -> Outcome {
    let (mut log, _) = log_and_writer();
    let store = MemoryStore::default();
    let checker = log.checker().clone();
    let batches: Vec<_> = blocks.chunks(64).collect();
    let checked: Vec<Mutex<Option<Vec<_>>>> = batches.iter().map(|_| Mutex::default()).collect();
    let next = AtomicUsize::new(0);
    // Whoever is free takes the next batch.
    let check_one = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let (Some(batch), Some(slot)) = (batches.get(number), checked.get(number)) else { return false };
        let done = batch.iter().map(|block| checker.check(block)).collect();
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        true
    };
    std::thread::scope(|scope| {
        scope.spawn(|| while check_one() {});
        for slot in &checked {
            let batch = loop {
                let done = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                match done {
                    Some(batch) => break batch,
                    None if check_one() => {}
                    None => std::thread::yield_now(),
                }
            };
            let mut tx = Tx::new(&store);
            for checked in batch {
                log.ingest_checked(&mut tx, checked?)?;
            }
            store.commit(tx.into_batch(), Durability::Synced)?;
        }
        join_all(&mut log, &store, blocks.len())
    })
}

pub(crate) fn join_on_one_thread(blocks: &[Vec<u8>]) -> Outcome {
    let (mut log, _) = log_and_writer();
    let store = MemoryStore::default();
    for batch in blocks.chunks(256) {
        let mut tx = Tx::new(&store);
        for block in batch {
            log.ingest(&mut tx, block)?;
        }
        store.commit(tx.into_batch(), Durability::Synced)?;
    }
    join_all(&mut log, &store, blocks.len())
}

fn join_all(log: &mut Log, store: &MemoryStore, count: usize) -> Outcome {
    let mut joined = 0;
    loop {
        let mut tx = Tx::new(store);
        let batch = log.join_ready(&mut tx, 1024)?;
        joined += batch.joined.len();
        store.commit(tx.into_batch(), Durability::Synced)?;
        if !batch.more {
            break;
        }
    }
    assert_eq!(joined, count, "all entries join");
    Ok(())
}

pub(crate) fn blocks(count: usize) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let (mut log, writer) = log_and_writer();
    let store = MemoryStore::default();
    let mut blocks = Vec::with_capacity(count);
    for number in 0..count {
        let mut tx = Tx::new(&store);
        blocks.push(log.append(&mut tx, &writer, &value(number))?.entry.block().to_vec());
        store.commit(tx.into_batch(), Durability::Synced)?;
    }
    Ok(blocks)
}

/// The ratchet: sealing and opening messages of one kilobyte.
pub(crate) fn seal(figures: &mut Figures) -> Outcome {
    let (alice, bob) = (AccountKeys::generate(&mut OsRng), AccountKeys::generate(&mut OsRng));
    let (group, _) = Group::new_multi_member(&mut OsRng);
    let (ours, theirs) = (MemoryStore::default(), MemoryStore::default());
    let mut tx = Tx::new(&ours);
    let mut other = Tx::new(&theirs);
    let sender = OwnMember::in_group(&alice, &group, &mut tx, &mut OsRng)?;
    let receiver = OwnMember::in_group(&bob, &group, &mut other, &mut OsRng)?;
    let boxed = message::own_chain_key_box(&mut tx, &group, &sender, &receiver.member_id(), &mut OsRng)?;
    let chain = message::open_chain_key_box(&group, &receiver, &sender.device_id(), &boxed)?;
    message::register_chain_key(&mut other, &group.id(), &sender.device_id(), chain)?;
    let count = 20_000;
    // Real messages differ, if only in their dates; equal ones have equal signatures, whose places have to be compared.
    let differing = |number: usize| [number.to_be_bytes().as_slice(), &[7; 992]].concat();
    let equal = |_| vec![7; 1000];
    let texts: [(&dyn Fn(usize) -> Vec<u8>, _, _); 2] = [
        (&differing, ("seal and sign 1 kB", 15_000.0), ("verify and open 1 kB", 12_000.0)),
        (&equal, ("  the same text each time", 0.0), ("  the same text each time", 0.0)),
    ];
    let arrival = message::Arrival { now: Time::from_secs(1), past_is_synced: true };
    let mut entries = 0_u64;
    for (text, seal, open) in texts {
        let texts: Vec<_> = (0..count).map(text).collect();
        let begun = Instant::now();
        let mut sealed = Vec::with_capacity(count);
        for text in &texts {
            sealed.push(message::seal(&mut tx, &group, &sender, text, Padding::Buckets, &mut OsRng)?);
        }
        figures.rate(seal.0, count, begun.elapsed(), seal.1);
        let begun = Instant::now();
        for sealed in &sealed {
            entries += 1;
            let entry = dunlin_base::EntryId::of_block(&entries.to_be_bytes());
            let headers = message::open_headers(&group, &sealed.envelope)?;
            message::open_message(&mut other, &arrival, &group, entry, &headers, &sealed.envelope)?;
        }
        figures.rate(open.0, count, begun.elapsed(), open.1);
    }
    Ok(())
}

/// A cold start with 10,000 messages: open, list all.
pub(crate) fn reopen(figures: &mut Figures) -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("account");
    let group = write_messages(&path, 10_000)?;
    let begun = Instant::now();
    let store = open(&path, &Unlock::KeyFile)?;
    let mut engine = open_engine(&store)?;
    let mut tx = Tx::new(&store);
    engine.activate(&mut Ctx { tx: &mut tx, now: Time::from_secs(1), rng: &mut OsRng }, &group)?;
    figures.time("open an account with 10,000 messages", begun.elapsed(), Duration::from_millis(100));
    let mut listed = 0;
    engine.visit_messages(&tx, &group, Bound::Unbounded, Direction::Ascending, &mut |_| {
        listed += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(listed, 10_000, "every message is listed");
    let took = begun.elapsed();
    figures.time("open an account and list 10,000 messages", took, Duration::from_millis(500));
    figures.beside_go("9.4 s", 9.4 / took.as_secs_f64());
    Ok(())
}

/// A log of 100,000: opening costs what it costs with ten.
pub(crate) fn large(figures: &mut Figures) -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("account");
    {
        let store = open(&path, &Unlock::KeyFile)?;
        let (mut log, writer) = log_and_writer();
        let mut number = 0;
        while number < 100_000 {
            let mut tx = Tx::new(&store);
            for _ in 0..1000 {
                log.append(&mut tx, &writer, &value(number))?;
                number += 1;
            }
            store.commit(tx.into_batch(), Durability::Synced)?;
        }
    }
    let before = resident_bytes();
    let begun = Instant::now();
    let store = open(&path, &Unlock::KeyFile)?;
    let (mut log, writer) = log_and_writer();
    let heads = log.heads(&store)?;
    let mut tx = Tx::new(&store);
    log.append(&mut tx, &writer, &value(100_001))?;
    store.commit(tx.into_batch(), Durability::Synced)?;
    let took = begun.elapsed();
    assert_eq!(heads.len(), 1, "one writer has one head");
    figures.time("open a log of 100,000 and append to it", took, Duration::from_millis(50));
    figures.mebibytes("  memory that took", resident_bytes().saturating_sub(before), 64.0);
    Ok(())
}

fn write_messages(path: &Path, count: usize) -> Result<GroupId, Box<dyn std::error::Error>> {
    let store = open(path, &Unlock::KeyFile)?;
    let (mut engine, group) = engine_with_group(&store)?;
    let mut written = 0;
    while written < count {
        send(&store, &mut engine, &group, 500)?;
        written += 500;
    }
    Ok(group)
}

pub(crate) fn engine_with_group(store: &dyn Store) -> Result<(Engine, GroupId), Box<dyn std::error::Error>> {
    let mut engine = open_engine(store)?;
    let mut tx = Tx::new(store);
    let group = engine.create_group(&mut Ctx { tx: &mut tx, now: Time::from_secs(1), rng: &mut OsRng })?;
    store.commit(tx.into_batch(), Durability::Synced)?;
    drain(&mut engine);
    Ok((engine, group))
}

pub(crate) fn open_engine(store: &dyn Store) -> Result<Engine, Box<dyn std::error::Error>> {
    let mut tx = Tx::new(store);
    let mut rng = OsRng;
    let mut ctx = Ctx { tx: &mut tx, now: Time::from_secs(1), rng: &mut rng };
    let mut engine = Engine::open(&mut ctx, Profile::Berty, PeerId::from_array([1; 38]))?;
    store.commit(tx.into_batch(), Durability::Synced)?;
    drain(&mut engine);
    Ok(engine)
}

pub(crate) fn send(store: &dyn Store, engine: &mut Engine, group: &GroupId, count: usize) -> Outcome {
    let mut tx = Tx::new(store);
    let mut rng = OsRng;
    let mut ctx = Ctx { tx: &mut tx, now: Time::from_secs(1), rng: &mut rng };
    for _ in 0..count {
        engine.send_message(&mut ctx, group, &TEXT)?;
    }
    store.commit(tx.into_batch(), Durability::Synced)?;
    drain(engine);
    Ok(())
}

pub(crate) fn drain(engine: &mut Engine) {
    while engine.poll_event().is_some() {}
    while engine.poll_action().is_some() {}
}

/// The resident memory of this process, from `/proc`; zero where there is none.
pub(crate) fn resident_bytes() -> u64 {
    crate::processes::resident_bytes(std::process::id())
}
