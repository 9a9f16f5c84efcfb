//! How far a log has come, in a few ids: for somebody who gives what lies beyond (`docs/formats/catch-up.md`).

use dunlin_base::EntryId;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};

use crate::rows::{HEADS, LogTag, ORDER, Position, damaged};
use crate::traverse::top_heads;

/// Most ids of a locator: some heads, and one entry for each doubling of the distance from them.
pub const LOCATOR_IDS_MAX: usize = 64;
/// Heads among them.
const HEADS_MAX: usize = 16;

/// Names some of what the log with this tag has: its highest heads, then accepted entries at twice the distance each.
///
/// # Errors
/// [`ReadError`].
pub fn locator(read: &dyn Read, tag: LogTag) -> Result<Vec<EntryId>, ReadError> {
    let mut ids = top_heads(read, tag, HEADS_MAX)?;
    let top = height(read, tag)?;
    let distances = std::iter::successors(Some(1_u64), |distance| distance.checked_mul(2));
    for distance in distances.take_while(|distance| *distance < top).take(LOCATOR_IDS_MAX - HEADS_MAX) {
        let mut range = KeyRange::prefix(tag.as_bytes());
        range.start = tag.key(&[&top.saturating_sub(distance).to_be_bytes()]);
        let found = read.collect(ORDER, &range, Direction::Ascending, 1)?;
        let Some((key, _)) = found.first() else { continue };
        let id = Position::from_key(key).ok_or_else(damaged)?.id;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The height of the highest head; zero in an empty log.
fn height(read: &dyn Read, tag: LogTag) -> Result<u64, ReadError> {
    let highest = read.collect(HEADS, &KeyRange::prefix(tag.as_bytes()), Direction::Descending, 1)?;
    let position = highest.first().map(|(key, _)| Position::from_key(key).ok_or_else(damaged));
    Ok(position.transpose()?.map_or(0, |position| position.height))
}

/// The height of the highest head or the clock that it claims, whichever is more: what lies far above is not here.
///
/// # Errors
/// [`ReadError`].
pub fn reach(read: &dyn Read, tag: LogTag) -> Result<u64, ReadError> {
    let [id] = top_heads(read, tag, 1)?[..] else { return Ok(0) };
    let joined = tag.joined(read, id)?;
    Ok(joined.map_or(0, |(held, place)| place.height.max(u64::try_from(held.time).unwrap_or_default())))
}

/// The number of the block from which on [`blocks_in`](crate::blocks_in) gives what somebody with this locator lacks, and
/// little besides.
///
/// An entry that was the only head when it joined has all in its past that had joined before. Blocks come in another order
/// than they join in, so what is found this way may leave something out: it is a help and no promise.
///
/// # Errors
/// [`ReadError`].
pub fn block_beyond(read: &dyn Read, tag: LogTag, locator: &[EntryId]) -> Result<u64, ReadError> {
    let mut beyond = 0;
    for id in locator.iter().take(LOCATOR_IDS_MAX) {
        if let Some((held, place)) = tag.joined(read, *id)?
            && held.quarantine().is_none()
            && place.is_summit
        {
            beyond = beyond.max(held.block.saturating_add(1));
        }
    }
    Ok(beyond)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::Arc;

    use dunlin_base::SecretKey;
    use dunlin_base::kv::{MemoryStore, Tx};

    use super::*;
    use crate::{Log, SharedKey, Writer, blocks_in};

    fn log_with(entries: usize) -> (Log, Writer, MemoryStore, Vec<Vec<u8>>) {
        let key = SecretKey::from_seed([1; 32]);
        let mut log = Log::new("log", Arc::new(SharedKey::new(key.public())));
        let (store, writer) = (MemoryStore::default(), Writer::new(key));
        let mut blocks = Vec::new();
        for number in 0..entries {
            let mut tx = Tx::new(&store);
            blocks.push(log.append(&mut tx, &writer, &number.to_string()).unwrap().entry.block().to_vec());
            dunlin_base::kv::Store::commit(&store, tx.into_batch(), dunlin_base::kv::Durability::Synced)
                .unwrap();
        }
        (log, writer, store, blocks)
    }

    fn copy_of(log: &Log, blocks: &[Vec<u8>]) -> MemoryStore {
        let store = MemoryStore::default();
        let mut copy = Log::new(log.id(), Arc::new(SharedKey::new(SecretKey::from_seed([1; 32]).public())));
        let mut tx = Tx::new(&store);
        for block in blocks {
            copy.ingest(&mut tx, block).unwrap();
        }
        while copy.join_ready(&mut tx, 1000).unwrap().more {}
        dunlin_base::kv::Store::commit(&store, tx.into_batch(), dunlin_base::kv::Durability::Synced).unwrap();
        store
    }

    fn beyond(log: &Log, store: &MemoryStore, locator: &[EntryId]) -> usize {
        let from = block_beyond(store, log.tag(), locator).unwrap();
        let mut count = 0;
        blocks_in(store, log.tag(), from, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        count
    }

    #[test]
    fn whoever_has_the_beginning_is_given_the_end() {
        let (log, _, store, blocks) = log_with(100);
        for had in [0, 1, 7, 64, 99, 100] {
            let theirs = copy_of(&log, &blocks[..had]);
            assert_eq!(height(&theirs, log.tag()).unwrap(), had as u64);
            let known = locator(&theirs, log.tag()).unwrap();
            assert!(known.len() <= LOCATOR_IDS_MAX);
            assert_eq!(beyond(&log, &store, &known), 100 - had, "{had}");
        }
    }

    #[test]
    fn whoever_wrote_alone_is_given_at_most_twice_what_is_lacking() {
        let (log, writer, store, blocks) = log_with(100);
        let theirs = copy_of(&log, &blocks[..60]);
        let mut copy = Log::new(log.id(), Arc::new(SharedKey::new(SecretKey::from_seed([1; 32]).public())));
        for number in 0..10 {
            let mut tx = Tx::new(&theirs);
            copy.append(&mut tx, &writer, &format!("alone {number}")).unwrap();
            dunlin_base::kv::Store::commit(&theirs, tx.into_batch(), dunlin_base::kv::Durability::Synced)
                .unwrap();
        }
        let known = locator(&theirs, log.tag()).unwrap();
        let given = beyond(&log, &store, &known);
        assert!((40..=40 + 16).contains(&given), "{given}");
    }

    #[test]
    fn unknown_ids_say_nothing() {
        let (log, _, store, _) = log_with(10);
        assert_eq!(beyond(&log, &store, &[EntryId::of_block(b"strange")]), 10);
    }
}
