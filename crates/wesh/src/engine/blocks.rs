//! Blocks that logs miss: asked for, taken in, given up, and what becomes of those who bring bad ones.

use std::collections::BTreeSet;

use dunlin_base::kv::ReadError;
use dunlin_base::{EntryId, GroupId, PeerId, Time};
use dunlin_log::{Checked, Checker, Ingest, JoinedBatch, Quarantine, Verdict};

use super::fetches::{Ask, FETCHES_MAX, Wanter};
use super::{Action, Ctx, Engine, StoreKind};

/// Failed attempts after which what descends from a missing entry is shown without it. The entry is still
/// asked for; when it arrives, it takes its place.
const FETCH_TRIES_BEFORE_HOLE: u8 = 4;
/// Entries that were given up and are asked for again when somebody comes onto the topic.
const HOLES_RETRIED_MAX: usize = 1000;

impl Engine {
    /// Takes a block that was fetched from `peer`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_block(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        entry: &EntryId,
        block: &[u8],
    ) -> Result<(), ReadError> {
        if EntryId::of_block(block) != *entry {
            // Anything else under this name is as good as nothing, and must not end the count of failures.
            return self.handle_block_missing(ctx, entry);
        }
        let wanters = self.fetches.arrived(entry);
        if wanters.is_empty() {
            return Ok(());
        }
        for wanter in &wanters {
            self.take_block(ctx, &wanter.group, wanter.kind, peer, *entry, block)?;
        }
        self.flood.answered(entry, &wanters);
        self.ask_for_blocks(ctx.now);
        self.finish(ctx)
    }

    /// What judges the block of `entry`, on any thread, if one log asks for it; [`Self::handle_checked_block`] takes
    /// what comes out.
    pub fn checker_of(&self, entry: &EntryId) -> Option<Checker> {
        let [wanter] = self.fetches.asked(entry) else { return None };
        Some(self.groups.get(&wanter.group)?.store(wanter.kind).log.checker().clone())
    }

    /// Takes a block that was fetched from `peer` and judged by the checker of its log.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_checked_block(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        checked: Checked,
    ) -> Result<(), ReadError> {
        let (entry, bytes) = (checked.entry().id(), checked.entry().block().len());
        // Others may want it by now. Those to which it does not belong refuse it, and ask no more.
        let wanters = self.fetches.arrived(&entry);
        for wanter in &wanters {
            self.at_work = Some(wanter.group);
            let store = self.active_mut(&wanter.group)?.store_mut(wanter.kind);
            let taken = store.log.ingest_checked(ctx.tx, checked.clone())?;
            self.note_brought(ctx.now, &wanter.group, peer, entry, &taken, bytes);
            self.follow_ingest(ctx, &wanter.group, wanter.kind, taken);
        }
        self.flood.answered(&entry, &wanters);
        self.ask_for_blocks(ctx.now);
        self.finish(ctx)
    }

    /// Notes that nobody who was asked has the block.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_block_missing(&mut self, ctx: &mut Ctx<'_, '_>, entry: &EntryId) -> Result<(), ReadError> {
        let wanters = self.fetches.failed(ctx.now, entry);
        self.flood.answered(entry, &wanters);
        for wanter in wanters {
            if wanter.failures == FETCH_TRIES_BEFORE_HOLE {
                let active = self.active_mut(&wanter.group)?;
                active.store_mut(wanter.kind).log.give_up(ctx.tx, *entry)?;
                self.backlog.insert((wanter.group, wanter.kind));
            }
        }
        self.finish(ctx)
    }

    /// Asks for what the log of a store names but does not hold, as far as it is not asked for already.
    pub(super) fn want_missing(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        let log = &active.store(kind).log;
        let missing = log.missing(ctx.tx, FETCHES_MAX)?;
        let given_up = log.holes(ctx.tx, None, HOLES_RETRIED_MAX)?;
        self.want(ctx.now, group, kind, missing);
        self.want(ctx.now, group, kind, given_up);
        Ok(())
    }

    /// Asks the shell for blocks that are due, as many as may be in flight.
    pub(super) fn ask_for_blocks(&mut self, now: Time) {
        if self.fetches.has_room() {
            for entry in self.flood.resume(now) {
                self.fetches.resume(now, entry);
            }
        }
        while let Some(Ask { entry, wanters, is_further }) = self.fetches.next(now) {
            let (mut peers, mut beyond_quota) = (BTreeSet::new(), Vec::new());
            for Wanter { group, kind, .. } in &wanters {
                let Some(active) = self.groups.get(group) else { continue };
                for peer in active.store(*kind).subscribers.keys() {
                    if self.flood.is_over(now, group, peer) {
                        beyond_quota.push((*group, peer.clone()));
                    } else {
                        peers.insert(peer.clone());
                    }
                }
            }
            if peers.is_empty() && !is_further {
                peers.extend(self.flood.ask_alone(now, entry, &beyond_quota));
            }
            match (peers.is_empty(), is_further) {
                (false, _) => {
                    let peers = peers.into_iter().collect();
                    self.actions.push_back(Action::Fetch { entry, peers });
                }
                (true, false) => self.fetches.park(now, entry),
                (true, true) => {}
            }
        }
    }

    /// Notes what a host brought into a group: what does not count, and what may turn out not to.
    pub(super) fn note_brought(
        &mut self,
        now: Time,
        group: &GroupId,
        peer: &PeerId,
        entry: EntryId,
        taken: &Ingest,
        bytes: usize,
    ) {
        match taken {
            Ingest::Known => {}
            Ingest::Stored { fault: None, .. } => self.flood.note_unjoined(group, entry, peer),
            Ingest::Stored { fault: Some(_), .. } | Ingest::Refused(_) => {
                self.note_flood(now, group, peer, bytes);
            }
        }
    }

    /// Counts the replays of a batch against those who brought them.
    pub(super) fn note_replays(&mut self, now: Time, group: &GroupId, batch: &JoinedBatch) {
        for joined in &batch.joined {
            let peer = self.flood.joined(group, &joined.id);
            if let (Some(peer), Verdict::Quarantine(Quarantine::Replay)) = (peer, joined.verdict) {
                self.note_flood(now, group, &peer, joined.entry.block().len());
            }
        }
    }

    fn note_flood(&mut self, now: Time, group: &GroupId, peer: &PeerId, bytes: usize) {
        if self.flood.note(now, group, peer, bytes) {
            tracing::debug!("a host floods a group with what does not count");
            // What it is asked for already is asked of others.
            let asked = self.fetches.ask_again(now, group);
            self.actions.extend(asked.into_iter().map(|entry| Action::CancelFetch { entry }));
        }
    }

    pub(super) fn take_block(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
        entry: EntryId,
        block: &[u8],
    ) -> Result<(), ReadError> {
        self.at_work = Some(*group);
        let store = self.active_mut(group)?.store_mut(kind);
        let taken = store.log.ingest(ctx.tx, block)?;
        self.note_brought(ctx.now, group, peer, entry, &taken, block.len());
        self.follow_ingest(ctx, group, kind, taken);
        Ok(())
    }

    pub(super) fn follow_ingest(
        &mut self,
        ctx: &Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        taken: Ingest,
    ) {
        match taken {
            Ingest::Known => {}
            Ingest::Refused(reason) => {
                tracing::debug!(%reason, "an entry is refused");
                // What waited for it goes on without it.
                self.backlog.insert((*group, kind));
            }
            Ingest::Stored { missing, .. } => {
                self.backlog.insert((*group, kind));
                self.want(ctx.now, group, kind, missing);
            }
        }
    }
}
