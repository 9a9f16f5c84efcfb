//! Hosts that are connected, and the devices for which they speak.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_base::kv::ReadError;
use dunlin_base::{AccountId, DeviceId, GroupId, PeerId, Time};
use dunlin_log::LogTag;

use super::{Ctx, Engine, Event};
use crate::heads::HeadsPayload;

/// A connected host.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// Whether it is reached over a private network or a proximity transport, so that local records may go
    /// to it (`spec/wesh-protocol.md` §6.7).
    pub local: bool,
    /// Whether it accepts contact requests from somebody.
    pub takes_requests: bool,
    /// The topics that it is on, ours or not: a group of them may be activated later.
    pub topics: BTreeSet<String>,
    /// Until when it is not asked for a stream.
    pub no_stream_before: Time,
    /// When it was last given the heads of a topic on coming onto it.
    pub greeted: BTreeMap<String, Time>,
    /// The discovery names that it announced, with the time until which it does.
    pub records: BTreeMap<String, Time>,
    /// Lookups that were tried with it although it announced nothing, and when they may be again.
    pub not_blindly_before: BTreeMap<AccountId, Time>,
}

impl Engine {
    /// Notes that a host is connected. `local` says that its address is private or a proximity one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_connected(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        local: bool,
    ) -> Result<(), ReadError> {
        let known = self.peers.entry(peer.clone()).or_default();
        known.local |= local;
        self.send_records(ctx, peer)?;
        self.finish(ctx)
    }

    /// Notes whether a connected host accepts contact-request streams, which it says in identify.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_takes_requests(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        takes_requests: bool,
    ) -> Result<(), ReadError> {
        if let Some(known) = self.peers.get_mut(peer)
            && std::mem::replace(&mut known.takes_requests, takes_requests) != takes_requests
        {
            known.not_blindly_before.clear();
        }
        self.hasten_lookups(ctx);
        self.finish(ctx)
    }

    /// Notes that the last connection to a host ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_disconnected(&mut self, ctx: &mut Ctx<'_, '_>, peer: &PeerId) -> Result<(), ReadError> {
        self.peers.remove(peer);
        self.end_exchanges_with(ctx.now, peer);
        for (group, active) in &mut self.groups {
            active.metadata.subscribers.remove(peer);
            active.messages.subscribers.remove(peer);
            let Some(device) = active.speakers.remove(peer) else { continue };
            self.speakers_changed = true;
            let peer = peer.clone();
            self.events.push_back(Event::Presence { group: *group, peer, device, online: false });
        }
        self.end_catch_ups_with(ctx, peer)?;
        self.finish(ctx)
    }

    /// Connected hosts that speak for a device of any active group.
    pub fn speakers(&self) -> Vec<PeerId> {
        let all = self.groups.values().flat_map(|active| active.speakers.keys().cloned());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Connected hosts that speak for a device of one group, and the device.
    pub fn speakers_of(&self, group: &GroupId) -> Vec<(PeerId, DeviceId)> {
        let speakers = self.groups.get(group).into_iter().flat_map(|active| &active.speakers);
        speakers.map(|(peer, device)| (peer.clone(), *device)).collect()
    }

    /// The logs whose blocks each connected host may have: those of the groups of which it showed a payload
    /// (`spec/security.md` D2). `None` while that is what it was at the last call.
    pub fn served_logs_if_changed(&mut self) -> Option<BTreeMap<PeerId, Vec<LogTag>>> {
        if !std::mem::take(&mut self.speakers_changed) {
            return None;
        }
        let mut served: BTreeMap<PeerId, Vec<LogTag>> = BTreeMap::new();
        for active in self.groups.values() {
            for peer in active.speakers.keys().filter(|peer| !self.is_turned_away(peer)) {
                let logs = served.entry(peer.clone()).or_default();
                logs.extend([active.metadata.log.tag(), active.messages.log.tag()]);
            }
        }
        Some(served)
    }

    /// Remembers for which device of a group a host speaks (`spec/security.md` O8, D10).
    pub(super) fn note_speaker(&mut self, group: &GroupId, peer: &PeerId, payload: &HeadsPayload) {
        let (Some(device), Some(host)) = (payload.device, &payload.host) else { return };
        if host != peer || !self.peers.contains_key(peer) {
            return;
        }
        let Some(active) = self.groups.get_mut(group) else { return };
        if active.speakers.insert(peer.clone(), device) != Some(device) {
            self.speakers_changed = true;
            let peer = peer.clone();
            self.events.push_back(Event::Presence { group: *group, peer, device, online: true });
        }
    }
}
