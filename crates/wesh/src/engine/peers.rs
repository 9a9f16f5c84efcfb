//! Hosts that are connected, and the devices for which they speak.

use std::collections::BTreeMap;

use dunlin_base::kv::ReadError;
use dunlin_base::{GroupId, PeerId, Time};

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
    /// The discovery names that it announced, with the time until which it does.
    pub records: BTreeMap<String, Time>,
    /// Lookups that were tried with it although it announced nothing.
    pub tried_blindly: std::collections::BTreeSet<dunlin_base::AccountId>,
}

impl Engine {
    /// Notes that a host is connected. `local` says that its address is private or a proximity one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_connected(&mut self, ctx: &mut Ctx<'_, '_>, peer: &PeerId, local: bool) -> Result<(), ReadError> {
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
        if let Some(known) = self.peers.get_mut(peer) {
            known.takes_requests = takes_requests;
        }
        self.retry_lookups(ctx);
        self.finish(ctx)
    }

    /// Notes that the last connection to a host ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_disconnected(&mut self, ctx: &mut Ctx<'_, '_>, peer: &PeerId) -> Result<(), ReadError> {
        self.peers.remove(peer);
        for (group, active) in &mut self.groups {
            active.metadata.subscribers.remove(peer);
            active.messages.subscribers.remove(peer);
            let Some(device) = active.speakers.remove(peer) else { continue };
            if !active.speakers.values().any(|other| *other == device) {
                self.events.push_back(Event::Presence { group: *group, device, online: false });
            }
        }
        self.finish(ctx)
    }

    /// Remembers for which device of a group a host speaks (`spec/security.md` O8, D10).
    pub(super) fn note_speaker(&mut self, group: &GroupId, peer: &PeerId, payload: &HeadsPayload) {
        let (Some(device), Some(host)) = (payload.device, &payload.host) else { return };
        if host != peer || !self.peers.contains_key(peer) {
            return;
        }
        let Some(active) = self.groups.get_mut(group) else { return };
        let was_online = active.speakers.values().any(|other| *other == device);
        active.speakers.insert(peer.clone(), device);
        if !was_online {
            self.events.push_back(Event::Presence { group: *group, device, online: true });
        }
    }
}
