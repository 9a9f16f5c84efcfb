//! Which blocks go to whom.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use dunlin_base::kv::Store;
use dunlin_base::{EntryId, PeerId};
use dunlin_ipfs::{BlockSource, Cid};
use dunlin_log::LogTag;
use dunlin_wesh::engine::Engine;

use crate::perform::base_peer;

/// How long a want of a peer that has shown no group waits for it to do so, before the answer is "don't
/// have", as for a block that does not exist (`spec/security.md` D2).
const STRANGER_HOLD: Duration = Duration::from_secs(10);

/// Gives blocks of a group's logs to hosts that have shown a payload of that group, and to nobody else.
pub(crate) struct Serving {
    store: Arc<dyn Store>,
    allowed: RwLock<BTreeMap<PeerId, Vec<LogTag>>>,
    changed: tokio::sync::Notify,
}

impl Serving {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, allowed: RwLock::default(), changed: tokio::sync::Notify::new() }
    }

    /// Takes over from the engine who speaks for which groups. Returns the hosts that may have more than
    /// before: what they asked for in vain has to be looked at again.
    pub fn update(&self, engine: &mut Engine) -> Vec<PeerId> {
        let Some(now) = engine.served_logs_if_changed() else { return Vec::new() };
        let mut allowed = self.allowed.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *allowed, now);
        self.changed.notify_waiters();
        let changed = allowed.iter().filter(|(peer, logs)| before.get(*peer) != Some(*logs));
        changed.map(|(peer, _)| peer.clone()).collect()
    }

    /// Whether a peer that brings garbage on a topic is to blame for it. Members whose software passes on what it has not
    /// looked at are not, unless they made it: whoever wants to part us from them would only have to send them some.
    pub fn blames(&self, from: &dunlin_ipfs::PeerId, author: &PeerId) -> bool {
        base_peer(from).as_ref() == Some(author) || self.logs_of(from).is_none()
    }

    /// What is served.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Whether a peer has shown a payload of the group of this log.
    pub fn may_have(&self, peer: &dunlin_ipfs::PeerId, log: LogTag) -> bool {
        self.logs_of(peer).is_some_and(|logs| logs.contains(&log))
    }

    /// Waits for a peer to do so, as long as a want of it would wait.
    pub async fn waits_for(&self, peer: &dunlin_ipfs::PeerId, log: LogTag) -> bool {
        let shown = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // From here on no change is missed.
                changed.as_mut().enable();
                if self.may_have(peer, log) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(STRANGER_HOLD, shown).await.is_ok()
    }

    fn logs_of(&self, peer: &dunlin_ipfs::PeerId) -> Option<Vec<LogTag>> {
        let allowed = self.allowed.read().unwrap_or_else(PoisonError::into_inner);
        allowed.get(&base_peer(peer)?).cloned()
    }
}

impl BlockSource for Serving {
    fn block(&self, peer: &dunlin_ipfs::PeerId, cid: &Cid) -> Option<Bytes> {
        let entry = EntryId::from_cid(cid)?;
        for log in self.logs_of(peer)? {
            match dunlin_log::block_in(&*self.store, log, entry) {
                Ok(Some(block)) => return Some(Bytes::from(block)),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "a block cannot be read"),
            }
        }
        None
    }

    fn hold(&self, peer: &dunlin_ipfs::PeerId) -> Duration {
        if self.logs_of(peer).is_some() { Duration::ZERO } else { STRANGER_HOLD }
    }
}
