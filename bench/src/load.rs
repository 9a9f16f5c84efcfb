//! What grows: many groups, many heads, and how costs follow the number of entries.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dunlin_base::kv::{Durability, MemoryStore, Store, Tx};
use dunlin_base::{GroupId, Span, Time};
use dunlin_log::{Body, Clock, HEADS_KNOWN_MAX};
use dunlin_store::{Unlock, open};
use dunlin_wesh::engine::{Ctx, Engine};
use rand_core::OsRng;

use crate::Outcome;
use crate::core::{
    blocks, drain, engine_with_group, join_on_one_thread, log_and_writer, open_engine, resident_bytes, send,
    value,
};
use crate::figures::Figures;

/// The word by which this program opens an account in a process of its own, so that what filled it is not counted.
pub(crate) const OPEN: &str = "open-account";
/// Sets how many messages each group gets, to try the measurement out.
const MESSAGES: &str = "DUNLIN_BENCH_MESSAGES";
const GROUPS: usize = 100;

/// A cold start with 100 groups of 10,000 messages each, and what they cost while nothing happens.
pub(crate) fn groups(figures: &mut Figures) -> Outcome {
    let each = std::env::var(MESSAGES).ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_usize);
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("account");
    let groups = make_groups(&path)?;
    fill(&path, &groups, each / 2)?;
    let half = open_apart(&path)?;
    fill(&path, &groups, each - each / 2)?;
    let whole = open_apart(&path)?;
    let what = format!("open {GROUPS} groups of {each} messages");
    figures.time(&what, whole.took, Duration::from_millis(1500));
    figures.mebibytes("  memory of the process", whole.resident, 150.0);
    figures.number("  wake-ups in an hour without peers", whole.wakes, 0.0);
    figures.number("  time(2n)/time(n)", whole.took.as_secs_f64() / half.took.as_secs_f64(), 1.5);
    Ok(())
}

fn make_groups(path: &Path) -> Result<Vec<GroupId>, Box<dyn std::error::Error>> {
    let store = open(path, &Unlock::KeyFile)?;
    let (mut engine, first) = engine_with_group(&store)?;
    let mut groups = vec![first];
    while groups.len() < GROUPS {
        let mut tx = Tx::new(&store);
        let mut ctx = Ctx { tx: &mut tx, now: Time::from_secs(1), rng: &mut OsRng };
        groups.push(engine.create_group(&mut ctx)?);
        store.commit(tx.into_batch(), Durability::Synced)?;
        drain(&mut engine);
    }
    Ok(groups)
}

/// Writes messages as fast as a device can seal them.
fn fill(path: &Path, groups: &[GroupId], each: usize) -> Outcome {
    let store = open(path, &Unlock::KeyFile)?;
    let mut engine = open_engine(&store)?;
    for group in groups {
        activate(&store, &mut engine, group)?;
        let mut left = each;
        while left > 0 {
            let batch = left.min(1000);
            send(&store, &mut engine, group, batch)?;
            left -= batch;
        }
        engine.deactivate(group);
        drain(&mut engine);
    }
    Ok(())
}

fn activate(store: &dyn Store, engine: &mut Engine, group: &GroupId) -> Outcome {
    let mut tx = Tx::new(store);
    engine.activate(&mut Ctx { tx: &mut tx, now: Time::from_secs(1), rng: &mut OsRng }, group)?;
    store.commit(tx.into_batch(), Durability::Synced)?;
    drain(engine);
    Ok(())
}

/// What opening came to in a process of its own.
struct Opened {
    took: Duration,
    resident: u64,
    wakes: f64,
}

fn open_apart(path: &Path) -> Result<Opened, Box<dyn std::error::Error>> {
    let output = Command::new(std::env::current_exe()?).arg(OPEN).arg(path).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let said = String::from_utf8(output.stdout)?;
    let mut numbers = said.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().ok_or("it says too little")?.map_err(|_| "it says no number");
    let (micros, resident, wakes) = (next()?, next()?, next()?);
    Ok(Opened { took: Duration::from_micros(micros), resident, wakes: wakes as f64 })
}

/// Opens an account with all its groups, and prints what that took, the memory, and how often it then wants to be
/// woken up in an hour.
pub(crate) fn open_account(path: &str) -> Outcome {
    let begun = Instant::now();
    let store = open(Path::new(path), &Unlock::KeyFile)?;
    let mut engine = open_engine(&store)?;
    for (group, _, _) in engine.known_groups(&store)? {
        activate(&store, &mut engine, &group)?;
    }
    let took = begun.elapsed();
    let hour = Time::from_secs(1) + Span::from_secs(3600);
    // What is left to do at once belongs to opening.
    let mut wakes = 0;
    while let Some(due) = engine.timeout().filter(|due| *due <= hour) {
        let mut tx = Tx::new(&store);
        let now = due.max(Time::from_secs(1));
        engine.handle_timeout(&mut Ctx { tx: &mut tx, now, rng: &mut OsRng })?;
        store.commit(tx.into_batch(), Durability::Synced)?;
        drain(&mut engine);
        wakes += usize::from(now > Time::from_secs(1));
    }
    println!("{} {} {wakes}", took.as_micros(), resident_bytes());
    Ok(())
}

/// Ten thousand heads become one.
pub(crate) fn heads(figures: &mut Figures) -> Outcome {
    let count = 10_000;
    let store = MemoryStore::default();
    let (mut log, writer) = log_and_writer();
    let blocks: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let clock = Clock { time: 1, id: writer.identity().public_key.clone() };
            let (log_id, payload) = (log.id().to_owned(), value(number));
            let body = Body { log_id, payload, next: Vec::new(), refs: Vec::new(), clock };
            writer.sign(body).block().to_vec()
        })
        .collect();
    let before = resident_bytes();
    let begun = Instant::now();
    for batch in blocks.chunks(256) {
        let mut tx = Tx::new(&store);
        for block in batch {
            log.ingest(&mut tx, block)?;
        }
        while log.join_ready(&mut tx, 1024)?.more {}
        store.commit(tx.into_batch(), Durability::Synced)?;
    }
    assert_eq!(log.heads(&store)?.len(), count.min(HEADS_KNOWN_MAX), "as many heads as are told");
    let mut number = count;
    while log.heads(&store)?.len() > 1 {
        let mut tx = Tx::new(&store);
        log.append(&mut tx, &writer, &value(number))?;
        store.commit(tx.into_batch(), Durability::Synced)?;
        number += 1;
    }
    figures.time("merge 10,000 heads", begun.elapsed(), Duration::from_secs(2));
    figures.mebibytes("  memory that took, the store in it", resident_bytes().saturating_sub(before), 64.0);
    Ok(())
}

/// How the cost of joining follows the number of entries, and how long single appends take.
pub(crate) fn growth(figures: &mut Figures) -> Outcome {
    let blocks = blocks(20_000)?;
    let time = |count: usize| -> Result<f64, Box<dyn std::error::Error>> {
        let begun = Instant::now();
        join_on_one_thread(blocks.get(..count).unwrap_or_default())?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let (once, twice) = (time(10_000)?, time(20_000)?);
    figures.number("join entries: time(2n)/time(n), n = 10,000", twice / once, 2.2);

    let dir = tempfile::tempdir()?;
    let store = open(&dir.path().join("appends"), &Unlock::KeyFile)?;
    let (mut log, writer) = log_and_writer();
    let mut times = Vec::new();
    for number in 0..2000 {
        let begun = Instant::now();
        let mut tx = Tx::new(&store);
        log.append(&mut tx, &writer, &value(number))?;
        store.commit(tx.into_batch(), Durability::Synced)?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    figures.time("append, synced: half of them take", at(50), Duration::from_millis(2));
    figures.time("  all but one in a hundred take", at(99), Duration::from_millis(10));
    Ok(())
}
