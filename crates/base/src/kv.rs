//! The shape of storage: ordered tables of bytes, read at any time, changed in one step.
//!
//! Pure crates read through a [`Tx`] and write into it; nothing reaches a disk before the shell commits
//! the [`Batch`] that the transaction ends as. So whatever one input causes (the next chain state, the
//! entry that used it, the row on the screen) is on the disk together or not at all.
//!
//! ```
//! use dunlin_base::kv::{Durability, MemoryStore, Read, Store, Table, Tx};
//!
//! const NAMES: Table = Table(0x01);
//! let store = MemoryStore::default();
//! let mut tx = Tx::new(&store);
//! tx.put(NAMES, b"a", b"alice");
//! assert_eq!(tx.get(NAMES, b"a")?, Some(b"alice".to_vec()));
//! assert_eq!(store.get(NAMES, b"a")?, None);
//! store.commit(tx.into_batch(), Durability::Synced)?;
//! assert_eq!(store.get(NAMES, b"a")?, Some(b"alice".to_vec()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{PoisonError, RwLock};

use crate::planted::{self, Bug};

/// A table: the first byte of each stored key.
///
/// Who owns which: `0x10..` the log, `0x20..` OrbitDB, `0x30..` Wesh, `0x50..` the node, `0x60..` the
/// messenger. Each crate names its own in one place.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Table(pub u8);

/// Reading failed. What was read before stays true; the store may answer again later.
#[derive(Debug, thiserror::Error)]
#[error("the store could not be read: {0}")]
pub struct ReadError(pub Box<dyn std::error::Error + Send + Sync>);

/// Why a batch was not committed. Nothing of it is stored unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The disk is full. Free space, then try again; reading goes on. Where reads fail too, whether the batch is
    /// stored is known only after the store was opened again.
    #[error("the disk is full: free some space, then try again")]
    Full,
    /// Writing failed. Whether the batch is stored is known only after the store was opened again.
    #[error("the store could not be written: {0}")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How much a commit promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// Survives a crash of process and machine once the call returns.
    Synced,
    /// Survives a crash of neither, until a later synced commit. For what a peer will send again.
    Deferred,
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// A half-open range of keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyRange {
    /// First key inside.
    pub start: Vec<u8>,
    /// First key outside; `None` means the end of the table.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { start: prefix.to_vec(), end: after_prefix(prefix) }
    }

    /// Keys from `start` (inside) to `end` (outside).
    pub fn between(start: &[u8], end: &[u8]) -> Self {
        Self { start: start.to_vec(), end: Some(end.to_vec()) }
    }

    /// Whether no key can be inside.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The smallest key that follows every key with `prefix`, if there is one.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte = byte.wrapping_add(1);
    }
    Some(end)
}

/// Something by table and key. A tree for each table, so that a key is looked up as the slice that it is.
type ByKey<T> = BTreeMap<Table, BTreeMap<Vec<u8>, T>>;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A key and what a transaction does with it: a new value, or `None` to delete it.
type Change<'b> = (&'b Vec<u8>, &'b Option<Vec<u8>>);

/// What a scan calls for each pair; `Break` ends the scan.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Tables that can be read.
pub trait Read {
    /// Reads one value.
    ///
    /// # Errors
    /// [`ReadError`] when the store fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Visits the pairs inside `range` in order until `visit` breaks. Keys come without the table byte.
    ///
    /// # Errors
    /// [`ReadError`] when the store fails; pairs visited before stay valid.
    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError>;

    /// Whether `key` has a value.
    ///
    /// # Errors
    /// [`ReadError`] when the store fails.
    fn contains(&self, table: Table, key: &[u8]) -> Result<bool, ReadError> {
        Ok(self.get(table, key)?.is_some())
    }

    /// Collects the first `limit` pairs inside `range`.
    ///
    /// # Errors
    /// [`ReadError`] when the store fails.
    fn collect(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Pair>, ReadError> {
        let mut pairs = Vec::new();
        if limit == 0 {
            return Ok(pairs);
        }
        self.scan(table, range, direction, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            if pairs.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(pairs)
    }
}

/// What of `tree`, one table, lies inside `range`, which is not empty.
fn inside<'t, T>(
    tree: Option<&'t BTreeMap<Vec<u8>, T>>,
    range: &KeyRange,
) -> impl DoubleEndedIterator<Item = (&'t Vec<u8>, &'t T)> + use<'t, T> {
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let pairs = tree.map(|tree| tree.range::<[u8], _>((Bound::Included(range.start.as_slice()), end)));
    pairs.into_iter().flatten()
}

/// Tables that can be changed.
pub trait Store: Read + Send + Sync {
    /// Applies `batch` in one step.
    ///
    /// # Errors
    /// [`CommitError`]; after [`CommitError::Io`] the store answers reads from its last good state.
    fn commit(&self, batch: Batch, durability: Durability) -> Result<(), CommitError>;
}

/// Changes of a batch that is large enough for the fault that cuts it short.
const LARGE_BATCH: usize = 12;

/// Changes that belong together, ordered by table and key: a value to put, or `None` to delete.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: ByKey<Option<Vec<u8>>>,
}

impl Batch {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many keys change.
    pub fn len(&self) -> usize {
        self.changes.values().map(BTreeMap::len).sum()
    }

    /// The changes in order of table and key.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        let most = if planted::is(Bug::BatchCutShort) { LARGE_BATCH } else { usize::MAX };
        let changes = self.changes.iter().flat_map(|(table, changes)| {
            changes.iter().map(|(key, value)| (*table, key.as_slice(), value.as_deref()))
        });
        changes.take(most)
    }
}

/// A transaction under way: the store as it was, with own changes on top.
pub struct Tx<'s> {
    base: &'s dyn Read,
    batch: Batch,
    /// What was put, counted as often as it was.
    bytes: usize,
}

impl<'s> Tx<'s> {
    /// Begins on top of `base`.
    pub fn new(base: &'s dyn Read) -> Self {
        Self { base, batch: Batch::default(), bytes: 0 }
    }

    /// Goes on with the changes of `batch`, which was not committed yet.
    pub fn resume(base: &'s dyn Read, batch: Batch) -> Self {
        let bytes = batch.iter().map(|(_, key, value)| key.len() + value.map_or(0, <[u8]>::len)).sum();
        Self { base, batch, bytes }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.change(table, key, Some(value.to_vec()));
    }

    /// Removes `key`.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        self.change(table, key, None);
    }

    /// Whether nothing changed so far.
    pub fn is_unchanged(&self) -> bool {
        self.batch.is_empty()
    }

    /// How many keys changed so far.
    pub fn changes_len(&self) -> usize {
        self.batch.len()
    }

    /// How many bytes of keys and values were put so far. What was put twice counts twice.
    pub fn changes_bytes(&self) -> usize {
        self.bytes
    }

    /// Ends the transaction; the caller commits or forgets what comes out.
    pub fn into_batch(self) -> Batch {
        self.batch
    }

    fn change(&mut self, table: Table, key: &[u8], change: Option<Vec<u8>>) {
        let bytes = key.len().saturating_add(change.as_ref().map_or(0, Vec::len));
        self.bytes = self.bytes.saturating_add(bytes);
        let changes = self.batch.changes.entry(table).or_default();
        match changes.get_mut(key) {
            Some(before) => *before = change,
            None => _ = changes.insert(key.to_vec(), change),
        }
    }
}

impl Read for Tx<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.batch.changes.get(&table).and_then(|changes| changes.get(key)) {
            Some(change) => Ok(change.clone()),
            None => self.base.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        if range.is_empty() {
            return Ok(());
        }
        let changes = inside(self.batch.changes.get(&table), range);
        let ordered: Box<dyn Iterator<Item = Change<'_>>> = match direction {
            Direction::Ascending => Box::new(changes),
            Direction::Descending => Box::new(changes.rev()),
        };
        let mut changes = ordered.peekable();
        let comes_first = |own: &[u8], stored: &[u8]| match direction {
            Direction::Ascending => own <= stored,
            Direction::Descending => own >= stored,
        };
        let mut stopped = false;
        self.base.scan(table, range, direction, &mut |key, value| {
            while let Some((own, change)) = changes.next_if(|(own, _)| comes_first(own, key)) {
                if let Some(changed) = change
                    && visit(own, changed).is_break()
                {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                if own == key {
                    return ControlFlow::Continue(());
                }
            }
            let flow = visit(key, value);
            stopped = flow.is_break();
            flow
        })?;
        if stopped {
            return Ok(());
        }
        for (own, change) in changes {
            if let Some(changed) = change
                && visit(own, changed).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

/// A store in memory: for tests, and for a node that shall leave nothing behind.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: RwLock<ByKey<Vec<u8>>>,
}

impl Read for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.get(&table).and_then(|values| values.get(key)).cloned())
    }

    fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        if range.is_empty() {
            return Ok(());
        }
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = inside(tables.get(&table), range);
        let ordered: Box<dyn Iterator<Item = _>> = match direction {
            Direction::Ascending => Box::new(pairs),
            Direction::Descending => Box::new(pairs.rev()),
        };
        for (key, value) in ordered {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch, _durability: Durability) -> Result<(), CommitError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for (table, changes) in batch.changes {
            let values = tables.entry(table).or_default();
            for (key, change) in changes {
                match change {
                    Some(value) => values.insert(key, value),
                    None => values.remove(&key),
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Table = Table(1);

    fn keys(read: &dyn Read, range: &KeyRange, direction: Direction) -> Vec<String> {
        let pairs = read.collect(T, range, direction, usize::MAX).unwrap();
        pairs.into_iter().map(|(key, value)| format!("{}={}", text(&key), text(&value))).collect()
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn own_changes_cover_the_store_in_both_directions() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        for key in ["b", "d", "f"] {
            tx.put(T, key.as_bytes(), b"old");
        }
        store.commit(tx.into_batch(), Durability::Synced).unwrap();

        let mut tx = Tx::new(&store);
        tx.put(T, b"a", b"new");
        tx.put(T, b"d", b"new");
        tx.delete(T, b"f");
        tx.put(T, b"g", b"new");
        tx.put(Table(2), b"c", b"other table");

        let all = KeyRange::default();
        assert_eq!(keys(&tx, &all, Direction::Ascending), ["a=new", "b=old", "d=new", "g=new"]);
        assert_eq!(keys(&tx, &all, Direction::Descending), ["g=new", "d=new", "b=old", "a=new"]);
        assert_eq!(keys(&tx, &KeyRange::between(b"b", b"g"), Direction::Descending), ["d=new", "b=old"]);
        assert_eq!(tx.collect(T, &all, Direction::Ascending, 2).unwrap().len(), 2);
        assert_eq!(keys(&store, &all, Direction::Ascending), ["b=old", "d=old", "f=old"]);
    }

    #[test]
    fn prefixes_end_where_they_should() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 0xff, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff]), None);
        assert_eq!(after_prefix(b""), None);
    }
}
