//! Fetched blocks are judged before they reach the core: their signatures, half of what they cost, are checked on
//! a thread of the network while the core joins and opens those that came before.
//!
//! What comes out is the same as if the core judged them, in the same order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dunlin_base::{EntryId, PeerId};
use dunlin_log::Checker;

use crate::core::NetworkInput;

/// Blocks whose checker is kept: several times those that may be asked for at once. The core judges the others.
const CHECKERS_MAX: usize = 1024;

/// Who judges which block that was asked for.
#[derive(Default)]
pub(crate) struct Ahead {
    checkers: Mutex<BTreeMap<EntryId, Checker>>,
}

impl Ahead {
    /// Lets `checker` judge the block of `entry` when it comes.
    pub fn expect(&self, entry: EntryId, checker: Checker) {
        let mut checkers = self.lock();
        if checkers.len() < CHECKERS_MAX {
            checkers.insert(entry, checker);
        }
    }

    /// Notes that a block will not come.
    pub fn forget(&self, entry: &EntryId) {
        self.lock().remove(entry);
    }

    /// Notes that nothing is wanted any more.
    pub fn forget_all(&self) {
        self.lock().clear();
    }

    /// Judges a block that came from `peer`.
    pub fn judge(&self, peer: PeerId, entry: EntryId, block: Bytes) -> NetworkInput {
        let checker = self.lock().remove(&entry);
        match checker.and_then(|checker| checker.check(&block).ok()) {
            Some(checked) if checked.entry().id() == entry => {
                NetworkInput::Checked { peer, checked: Box::new(checked) }
            }
            // What is refused, the core refuses again and says so.
            Some(_) | None => NetworkInput::Block { peer, entry, block },
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntryId, Checker>> {
        self.checkers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_base::SecretKey;
    use dunlin_base::kv::{MemoryStore, Tx};
    use dunlin_log::{Log, SharedKey, Writer};

    use super::*;

    fn peer() -> PeerId {
        PeerId::from_array([1; 34])
    }

    #[test]
    fn only_the_block_that_was_asked_for_is_passed_on_as_judged() {
        let key = SecretKey::from_seed([1; 32]);
        let mut log = Log::new("log", Arc::new(SharedKey::new(key.public())));
        let (store, writer) = (MemoryStore::default(), Writer::new(key));
        let mut tx = Tx::new(&store);
        let [first, second] = ["1", "2"].map(|payload| log.append(&mut tx, &writer, payload).unwrap().entry);
        let block = |entry: &dunlin_log::Entry| Bytes::copy_from_slice(entry.block());

        let ahead = Ahead::default();
        let is_judged = |input| match input {
            NetworkInput::Checked { checked, .. } => checked.entry() == &first && checked.fault().is_none(),
            _ => false,
        };
        assert!(!is_judged(ahead.judge(peer(), first.id(), block(&first))), "nobody said who judges it");
        ahead.expect(first.id(), log.checker().clone());
        assert!(!is_judged(ahead.judge(peer(), first.id(), block(&second))), "another block came");
        ahead.expect(first.id(), log.checker().clone());
        ahead.forget(&first.id());
        assert!(!is_judged(ahead.judge(peer(), first.id(), block(&first))), "it was not wanted any more");
        ahead.expect(first.id(), log.checker().clone());
        assert!(is_judged(ahead.judge(peer(), first.id(), block(&first))));
    }
}
