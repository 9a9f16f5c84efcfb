//! Whoever was away is given what it lacks of a log in one stream (`docs/formats/catch-up.md`).
//!
//! While a stream flows, its log asks for no single blocks; one that flows too slowly is ended and the blocks are asked for
//! as ever. So a host that speaks the protocol and means no good costs some seconds, and one that does not speak it nothing.

use dunlin_base::kv::ReadError;
use dunlin_base::{EntryId, GroupId, PeerId, Span, Time};
use dunlin_log::{Checked, Checker, Entry, Ingest};

use super::{Action, Ctx, Engine, StoreKind};
use crate::catch_up::Request;

/// How far the heads that somebody shows have to lie above ours: less is asked for block by block.
const CATCH_UP_FROM: u64 = 16;
/// A stream has to bring so many new entries in each [`CATCH_UP_WINDOW`], whoever waits for how long.
const CATCH_UP_PACE: usize = 64;
const CATCH_UP_WINDOW: Span = Span::from_secs(10);
/// Pause before a host that gave nothing, or too slowly, is asked for a stream of the same log again.
const CATCH_UP_PAUSE: Span = Span::from_secs(600);

/// Heads that are remembered until a stream ends; others are shown again by those who have them.
const CATCH_UP_HEADS_MAX: usize = 64;

/// A stream that was asked for.
#[derive(Debug)]
pub(super) struct CatchUp {
    pub peer: PeerId,
    /// Whether it brought anything, and how many entries in this window, and when the window ends.
    is_of_use: bool,
    brought: usize,
    window_end: Time,
    /// What it is to come to: what others showed meanwhile and lies far above.
    heads: Vec<EntryId>,
}

impl CatchUp {
    /// When it is to be looked at.
    pub fn due(&self) -> Time {
        self.window_end
    }

    /// Makes what is due later due now.
    pub fn hasten(&mut self, now: Time) {
        self.window_end = self.window_end.min(now + CATCH_UP_WINDOW);
    }
}

impl Engine {
    /// Asks for a stream when the heads that `peer` shows lie far above ours.
    pub(super) fn catch_up_with(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
        shown: &[Entry],
    ) -> Result<(), ReadError> {
        let may_ask = self.peers.get(peer).is_some_and(|known| known.no_stream_before <= ctx.now)
            && !self.is_turned_away(peer)
            && !self.flood.is_over(ctx.now, group, peer);
        let store = self.active(group)?.store(kind);
        if !may_ask || store.catch_up.is_some() {
            return Ok(());
        }
        let tag = store.log.tag();
        let reach = dunlin_log::reach(ctx.tx, tag)?.saturating_add(CATCH_UP_FROM);
        // The clock that an entry claims may be any; what it can bring about here is one request.
        let mut is_far = false;
        for entry in shown.iter().filter(|entry| u64::try_from(entry.time()).is_ok_and(|time| time > reach)) {
            is_far |= store.log.position(ctx.tx, entry.id())?.is_none();
        }
        if !is_far {
            return Ok(());
        }
        let request = Request { log: tag, known: dunlin_log::locator(ctx.tx, tag)? };
        let window_end = ctx.now + CATCH_UP_WINDOW;
        self.active_mut(group)?.store_mut(kind).catch_up =
            Some(CatchUp { peer: peer.clone(), is_of_use: false, brought: 0, window_end, heads: Vec::new() });
        self.actions.push_back(Action::CatchUp { group: *group, kind, peer: peer.clone(), request });
        Ok(())
    }

    /// Whether an entry that somebody shows is left to the stream that flows: taken now, everything would wait for what lies
    /// between, and every key of a message be held until then.
    pub(super) fn is_left_to_stream(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        entry: &Entry,
    ) -> Result<bool, ReadError> {
        let store = self.active_mut(group)?.store_mut(kind);
        let Some(stream) = &mut store.catch_up else { return Ok(false) };
        let reach = dunlin_log::reach(ctx.tx, store.log.tag())?.saturating_add(CATCH_UP_FROM);
        let is_far = u64::try_from(entry.time()).is_ok_and(|time| time > reach);
        if is_far && stream.heads.len() < CATCH_UP_HEADS_MAX && !stream.heads.contains(&entry.id()) {
            stream.heads.push(entry.id());
        }
        Ok(is_far)
    }

    /// What judges the blocks of a stream, on any thread; [`Self::handle_streamed`] takes what comes out.
    pub fn checker_for_stream(&self, group: &GroupId, kind: StoreKind) -> Option<Checker> {
        Some(self.groups.get(group)?.store(kind).log.checker().clone())
    }

    fn is_given(&self, group: &GroupId, kind: StoreKind, by: &PeerId) -> bool {
        let stream = self.groups.get(group).and_then(|active| active.store(kind).catch_up.as_ref());
        stream.is_some_and(|stream| stream.peer == *by)
    }

    /// Takes entries out of a stream.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_streamed(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
        entries: Vec<Checked>,
    ) -> Result<(), ReadError> {
        if !self.is_given(group, kind, peer) {
            // It was ended, and what came meanwhile is asked for already.
            return Ok(());
        }
        self.at_work = Some(*group);
        let mut brought = 0_usize;
        for checked in entries {
            let (id, bytes) = (checked.entry().id(), checked.entry().block().len());
            // Others may want it as well; they are served by their own asking.
            let taken = self.active_mut(group)?.store_mut(kind).log.ingest_checked(ctx.tx, checked)?;
            self.note_brought(ctx.now, group, peer, id, &taken, bytes);
            brought = brought.saturating_add(usize::from(matches!(taken, Ingest::Stored { .. })));
            self.follow_ingest(ctx, group, kind, taken);
        }
        if let Some(stream) = &mut self.active_mut(group)?.store_mut(kind).catch_up {
            stream.brought = stream.brought.saturating_add(brought);
            stream.is_of_use |= brought > 0;
        }
        if self.flood.is_over(ctx.now, group, peer) {
            self.end_catch_up(ctx, group, kind, CATCH_UP_PAUSE)?;
        }
        self.finish(ctx)
    }

    /// Notes that a stream is over, or that the host `speaks` no such thing.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_stream_ended(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
        speaks: bool,
    ) -> Result<(), ReadError> {
        if self.is_given(group, kind, peer) {
            let pause = if speaks { Span::default() } else { CATCH_UP_PAUSE };
            self.end_catch_up(ctx, group, kind, pause)?;
        }
        self.finish(ctx)
    }

    /// Ends streams that are too slow.
    pub(super) fn watch_catch_ups(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let stores: Vec<_> = self.topics.values().copied().collect();
        for (group, kind) in stores {
            let Some(active) = self.groups.get_mut(&group) else { continue };
            let Some(stream) = &mut active.store_mut(kind).catch_up else { continue };
            if stream.window_end > ctx.now {
                continue;
            }
            if std::mem::take(&mut stream.brought) >= CATCH_UP_PACE {
                stream.window_end = ctx.now + CATCH_UP_WINDOW;
            } else {
                self.end_catch_up(ctx, &group, kind, CATCH_UP_PAUSE)?;
            }
        }
        self.at_work = None;
        Ok(())
    }

    /// Ends the stream of a log, and asks for what is left as ever.
    fn end_catch_up(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        pause: Span,
    ) -> Result<(), ReadError> {
        let Some(stream) = self.active_mut(group)?.store_mut(kind).catch_up.take() else { return Ok(()) };
        let pause = if stream.is_of_use { pause } else { pause.max(CATCH_UP_WINDOW) };
        if let Some(known) = self.peers.get_mut(&stream.peer) {
            known.no_stream_before = known.no_stream_before.max(ctx.now + pause);
        }
        self.actions.push_back(Action::StopCatchUp { group: *group, kind, peer: stream.peer });
        let log = &self.active(group)?.store(kind).log;
        let mut left = Vec::new();
        for head in stream.heads {
            if !log.contains(ctx.tx, head)? {
                left.push(head);
            }
        }
        self.want(ctx.now, group, kind, left);
        self.want_missing(ctx, group, kind)?;
        self.ask_for_blocks(ctx.now);
        Ok(())
    }

    /// Ends the streams of a host that is gone.
    pub(super) fn end_catch_ups_with(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
    ) -> Result<(), ReadError> {
        let stores: Vec<_> = self.topics.values().copied().collect();
        for (group, kind) in stores {
            if self.is_given(&group, kind, peer) {
                self.end_catch_up(ctx, &group, kind, Span::default())?;
            }
        }
        Ok(())
    }

    /// Adds what a log misses to what is asked for, unless a stream brings it.
    pub(super) fn want(&mut self, now: Time, group: &GroupId, kind: StoreKind, missing: Vec<EntryId>) {
        let flows = self.groups.get(group).is_some_and(|active| active.store(kind).catch_up.is_some());
        if !flows {
            self.fetches.want(now, group, kind, missing);
        }
    }
}
