//! Two devices, and a wire between them that loses nothing.

use dunlin_base::{GroupId, Time};
use dunlin_log::Checked;
use dunlin_wesh::catch_up::{self, Piece, Request};
use dunlin_wesh::engine::{Action, Ctx, Engine, Event, StoreKind};

use crate::device::{Device, NOW, host};

/// Two accounts that are connected.
pub struct Pair {
    pub devices: [Device; 2],
    pub now: Time,
    /// What was told to each.
    pub told: [Vec<Event>; 2],
    actions: Vec<(usize, Action)>,
    /// How often one asked the other for a stream.
    pub streams: usize,
}

impl Pair {
    /// Two accounts that are in one group.
    pub fn in_a_group() -> (Self, GroupId) {
        let mut pair = Self::of([Device::new(1), Device::new(2)]);
        let group = pair.step(0, |ctx, engine| engine.create_group(ctx).unwrap());
        let store = &pair.devices[0].store;
        let invitation = pair.devices[0].engine.invitation(store, &group).unwrap();
        pair.step(1, |ctx, engine| {
            engine.join_group(ctx, &invitation).unwrap();
            engine.activate(ctx, &group).unwrap();
        });
        pair.connect();
        (pair, group)
    }

    /// Two devices, of the hosts 1 and 2.
    pub fn of(devices: [Device; 2]) -> Self {
        Self { devices, now: NOW, told: [Vec::new(), Vec::new()], actions: Vec::new(), streams: 0 }
    }

    /// Connects the two, who then hear all that the other has.
    pub fn connect(&mut self) {
        for (one, other) in [(0, 1), (1, 0)] {
            let peer = host(other as u64 + 1);
            self.step(one, |ctx, engine| engine.handle_connected(ctx, &peer, one == 0).unwrap());
        }
        self.settle();
    }

    /// Lets a device do something, without letting it reach the other.
    pub fn step<R>(&mut self, which: usize, command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> R) -> R {
        let device = &mut self.devices[which];
        let (result, actions) = device.step_at(self.now, command);
        self.told[which].append(&mut device.told);
        self.actions.extend(actions.into_iter().map(|action| (which, action)));
        result
    }

    /// Carries everything over, until nobody has anything to say.
    pub fn settle(&mut self) {
        loop {
            let Some((from, action)) = (!self.actions.is_empty()).then(|| self.actions.remove(0)) else {
                let busy = |device: &Device| device.engine.timeout().is_some_and(|due| due <= self.now);
                let Some(which) = self.devices.iter().position(busy) else { return };
                self.step(which, |ctx, engine| engine.handle_timeout(ctx).unwrap());
                continue;
            };
            let to = 1 - from;
            let sender = host(from as u64 + 1);
            match action {
                Action::Subscribe { topic } => {
                    self.step(to, |ctx, engine| engine.handle_topic_joined(ctx, &sender, &topic).unwrap());
                }
                Action::Publish { topic, data } => {
                    self.step(to, |ctx, engine| engine.handle_gossip(ctx, &topic, &sender, &data).unwrap());
                }
                Action::SendHeads { id, data, .. } => {
                    self.step(to, |ctx, engine| engine.handle_heads(ctx, &sender, &data).unwrap());
                    let peer = host(to as u64 + 1);
                    self.step(from, |ctx, engine| engine.handle_heads_sent(ctx, &peer, id).unwrap());
                }
                Action::Fetch { entry, .. } => {
                    let other = &self.devices[to];
                    let block = other.engine.block_for(&other.store, &sender, &entry).unwrap();
                    let server = host(to as u64 + 1);
                    self.step(from, |ctx, engine| match block {
                        Some(block) => engine.handle_block(ctx, &server, &entry, &block).unwrap(),
                        None => engine.handle_block_missing(ctx, &entry).unwrap(),
                    });
                }
                Action::CatchUp { group, kind, request, .. } => {
                    self.streams += 1;
                    let entries = self.streamed(to, &group, kind, &request);
                    let server = host(to as u64 + 1);
                    self.step(from, |ctx, engine| {
                        engine.handle_streamed(ctx, &group, kind, &server, entries).unwrap();
                        engine.handle_stream_ended(ctx, &group, kind, &server, true).unwrap();
                    });
                }
                _ => {}
            }
        }
    }

    /// What a device gives to the other that asks for a stream.
    pub fn streamed(
        &self,
        which: usize,
        group: &GroupId,
        kind: StoreKind,
        request: &Request,
    ) -> Vec<Checked> {
        let giver = &self.devices[which];
        let asking = &self.devices[1 - which];
        let checker = asking.engine.checker_for_stream(group, kind).unwrap();
        if !giver.engine.may_have_log(&host(2 - which as u64), request.log) {
            return Vec::new();
        }
        let pieces = Piece::all(&giver.store, request).map(Result::unwrap);
        let frames: Vec<_> = pieces.map(|piece| piece.frame).collect();
        let blocks = frames.iter().flat_map(|frame| catch_up::blocks(frame.as_bytes()));
        blocks.map(|block| checker.check(block).unwrap()).collect()
    }
}
