//! Heads out, heads in. The blocks between are in [`super::blocks`].
//!
//! Whoever comes onto a topic is given the heads of its log on the direct channel, and an own entry is
//! announced on the topic. Gossip may get lost, so an announcement is repeated to those who have not shown
//! that they have it: after two seconds, then after twice as long, [`REPEATS_MAX`] times.

use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::ReadError;
use dunlin_base::planted::{self, Bug};
use dunlin_base::{EntryId, GroupId, PeerId, Span, Time};
use dunlin_log::{Entry, HeadsJson, JoinedBatch, Verdict, heads_from_json};

use super::groups::Subscriber;
use super::{Action, Ctx, Engine, StoreKind};
use crate::heads::{self, HeadsPayload};
use crate::rotation;

/// First pause before heads are given again to a peer that has not shown that it has them.
const REPEAT_FIRST: Span = Span::from_secs(2);
/// Longest such pause.
const REPEAT_LONGEST: Span = Span::from_secs(300);
/// Shortest pause between two answers to the payloads of one peer.
const ANSWER_PAUSE: Span = Span::from_secs(1);
/// Shortest pause between two greetings of one peer on one topic.
const GREET_PAUSE: Span = Span::from_secs(10);
/// Shortest pause between two rounds of asking again, before its time, for what a store misses.
const HURRY_PAUSE: Span = Span::from_secs(30);
/// How often the same heads are repeated to the same peer: the pauses add up to about ten minutes, after
/// which the peer is given them again when it next comes onto the topic.
const REPEATS_MAX: u8 = 9;
/// Topics of one peer that are remembered: those of two thousand groups.
const TOPICS_PER_PEER_MAX: usize = 4096;
/// Heads of one payload that are looked at (`spec/security.md` O6).
const HEADS_PER_PAYLOAD_MAX: usize = 4096;

/// Bytes of entries in one payload, beyond which the other heads are left out; what is left out has its turn in the next
/// payload. The own head and the one whose turn it is go out whatever their length, as far as the way carries them.
const HEADS_BYTES_MAX: usize = 384 * 1024;
/// Bytes of heads, as JSON, that fit into a message of a topic, which ends at 1 MiB, beside what is around them.
const TOPIC_HEADS_BYTES_MAX: usize = 1024 * 1024 - 4 * 1024;
/// The same for a frame of the direct channel, which ends at 4 MiB: the largest own head and the largest of all, together.
const CHANNEL_HEADS_BYTES_MAX: usize = 4 * 1024 * 1024 - 4 * 1024;
/// Heads that are read and found too long for what is left of a payload, before it goes out as it is.
const HEADS_PASSED_OVER_MAX: usize = 16;

/// When the heads of a store are to be given again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Announcement {
    pub due: Option<Time>,
    pause: Span,
}

impl Announcement {
    fn restart(&mut self, now: Time) {
        self.pause = REPEAT_FIRST;
        self.due = Some(now + self.pause);
    }

    /// Begins anew at `start`, or when it is due if that is before.
    fn restart_at(&mut self, start: Time) {
        self.pause = REPEAT_FIRST;
        self.due = Some(self.due.map_or(start, |due| due.min(start)));
    }

    /// Makes what is due later due now.
    pub fn hasten(&mut self, now: Time) {
        self.due = self.due.map(|due| due.min(now));
    }

    fn step(&mut self, now: Time) {
        self.pause = self.pause.doubled(REPEAT_LONGEST);
        self.due = Some(now + self.pause);
    }
}

/// What a message on a gossip topic turned out to be (`spec/security.md` N6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gossip {
    /// It opens with the link key of the topic's group, so a member said it, however wrong its clock is.
    OfMember,
    /// It is about no group that is in use here.
    NotOurs,
    /// No member of the group would say that.
    Garbage,
}

impl Engine {
    /// Takes a heads payload from a gossip topic. `author` signed the gossip message. What it returns says whether
    /// the message deserves to be passed on.
    ///
    /// # Errors
    /// When the store cannot be read. Payloads that do not open are dropped.
    pub fn handle_gossip(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        topic: &str,
        author: &PeerId,
        data: &[u8],
    ) -> Result<Gossip, ReadError> {
        let Some((group, kind)) = self.topics.get(topic).copied() else { return Ok(Gossip::NotOurs) };
        let Some((_, _, payload)) = self.open_heads(ctx.now, &[(group, kind)], &[(group, kind)], data) else {
            tracing::debug!("a gossip message does not open");
            return Ok(Gossip::Garbage);
        };
        self.take_heads(ctx, &group, kind, author, &payload, false)?;
        self.finish(ctx)?;
        Ok(Gossip::OfMember)
    }

    /// Takes a heads payload from the direct channel.
    ///
    /// # Errors
    /// When the store cannot be read. Payloads that do not open are dropped.
    pub fn handle_heads(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        data: &[u8],
    ) -> Result<(), ReadError> {
        let stores: Vec<_> = self.topics.values().copied().collect();
        let common = |(group, kind): &&(GroupId, StoreKind)| {
            self.groups.get(group).is_some_and(|active| active.store(*kind).subscribers.contains_key(peer))
        };
        let common: Vec<_> = stores.iter().filter(common).copied().collect();
        match self.open_heads(ctx.now, &stores, &common, data) {
            Some((group, kind, payload)) => self.take_heads(ctx, &group, kind, peer, &payload, true)?,
            None => tracing::debug!("a heads payload does not open"),
        }
        self.finish(ctx)
    }

    /// Notes that a peer came onto a topic, and gives it the heads of the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_topic_joined(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        topic: &str,
    ) -> Result<(), ReadError> {
        let Some(known) = self.peers.get_mut(peer) else { return Ok(()) };
        let is_new = known.topics.len() < TOPICS_PER_PEER_MAX && known.topics.insert(topic.to_owned());
        if let Some((group, kind)) = self.topics.get(topic).copied()
            && (is_new || !self.active(&group)?.store(kind).subscribers.contains_key(peer))
        {
            self.greet(ctx, &group, kind, peer)?;
        }
        self.finish(ctx)
    }

    /// Greets whoever is on the topic of a store that was just opened.
    pub(super) fn greet_all(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
    ) -> Result<(), ReadError> {
        let topic = self.active(group)?.store(kind).address.to_string();
        let there = self.peers.iter().filter(|(_, known)| known.topics.contains(&topic));
        let there: Vec<_> = there.map(|(peer, _)| peer.clone()).collect();
        there.iter().try_for_each(|peer| self.greet(ctx, group, kind, peer))
    }

    /// Gives a peer on the topic of a store its heads, and asks it for what the log misses.
    fn greet(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
    ) -> Result<(), ReadError> {
        let store = self.active_mut(group)?.store_mut(kind);
        let topic = store.address.to_string();
        store.subscribers.insert(peer.clone(), Subscriber::default());
        if planted::is(Bug::NoGreeting) {
            return Ok(());
        }
        let greeted = self.peers.get(peer).and_then(|known| known.greeted.get(&topic).copied());
        if let Some(again) = greeted.map(|greeted| greeted + GREET_PAUSE).filter(|again| *again > ctx.now) {
            // It comes and goes. What it is owed is repeated in time.
            self.active_mut(group)?.store_mut(kind).announcement.restart_at(again);
            return Ok(());
        }
        if let Some(known) = self.peers.get_mut(peer) {
            known.greeted.retain(|_, greeted| *greeted + GREET_PAUSE > ctx.now);
            known.greeted.insert(topic, ctx.now);
        }
        self.active_mut(group)?.store_mut(kind).announcement.restart(ctx.now);
        self.send_heads(ctx, group, kind, peer)?;
        self.fetches.hasten(ctx.now, group, kind);
        self.want_missing(ctx, group, kind)?;
        self.ask_for_blocks(ctx.now);
        Ok(())
    }

    /// Notes that a peer left a topic.
    pub fn handle_topic_left(&mut self, peer: &PeerId, topic: &str) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.topics.remove(topic);
        }
        let Some((group, kind)) = self.topics.get(topic).copied() else { return };
        if let Some(active) = self.groups.get_mut(&group) {
            active.store_mut(kind).subscribers.remove(peer);
        }
    }

    /// Notes that the frame of a [`Action::SendHeads`] was written whole to its peer.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn handle_heads_sent(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        peer: &PeerId,
        id: u64,
    ) -> Result<(), ReadError> {
        if planted::is(Bug::FramesKept) {
            return Ok(());
        }
        let Some((group, entries)) = self.heads_sent.remove(&id) else { return Ok(()) };
        self.note_handed_over(ctx, &group, peer, &entries)
    }

    /// Notes that the frame of a [`Action::SendHeads`] could not be written. It is sent again in time.
    pub fn handle_heads_unsent(&mut self, id: u64) {
        self.heads_sent.remove(&id);
    }

    /// Publishes the heads of every store that an own entry changed since it was last announced.
    pub(super) fn announce(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        for (group, kind) in std::mem::take(&mut self.unannounced) {
            if planted::is(Bug::NotAnnounced) {
                continue;
            }
            let now = ctx.now;
            let (data, _) = self.heads_payload(ctx, &group, kind, TOPIC_HEADS_BYTES_MAX)?;
            let store = self.active_mut(&group)?.store_mut(kind);
            if store.subscribers.is_empty() {
                continue;
            }
            store.announcement.restart(now);
            let topic = store.address.to_string();
            self.actions.push_back(Action::Publish { topic, data });
        }
        Ok(())
    }

    /// Notes that what others wrote has joined.
    pub(super) fn note_learned(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        batch: &JoinedBatch,
    ) -> Result<(), ReadError> {
        let store = self.active_mut(group)?.store_mut(kind);
        if !batch.joined.iter().any(|joined| joined.verdict == Verdict::Accept) || planted::is(Bug::NoRelay) {
            return Ok(());
        }
        // What waited on disk joins without a peer, and nobody has been told of it.
        let (teacher, on_topic) = store.learned.clone().unzip();
        if !batch.more {
            store.learned = None;
        }
        store.retelling.learned(ctx.now, teacher, on_topic.unwrap_or_default(), ctx.rng);
        Ok(())
    }

    /// Tells topics what was learned, where it is time.
    pub(super) fn retell(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let stores: Vec<_> = self.topics.values().copied().collect();
        for (group, kind) in stores {
            let Some(active) = self.groups.get_mut(&group) else { continue };
            let store = active.store_mut(kind);
            if store.retelling.takes_turn(ctx.now, store.subscribers.keys(), ctx.rng) {
                let topic = store.address.to_string();
                let (data, _) = self.heads_payload(ctx, &group, kind, TOPIC_HEADS_BYTES_MAX)?;
                self.actions.push_back(Action::Publish { topic, data });
            }
        }
        self.at_work = None;
        Ok(())
    }

    /// Gives heads again to those who have not shown that they have them.
    pub(super) fn repeat_announcements(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let due: Vec<_> = self
            .topics
            .values()
            .copied()
            .filter(|(group, kind)| {
                let due = self.groups.get(group).and_then(|active| active.store(*kind).announcement.due);
                due.is_some_and(|due| due <= ctx.now)
            })
            .collect();
        for (group, kind) in due {
            let store = self.active_mut(&group)?.store_mut(kind);
            let waiting: Vec<_> = store
                .subscribers
                .iter()
                .filter(|(_, subscriber)| !subscriber.confirmed && subscriber.told < REPEATS_MAX)
                .map(|(peer, _)| peer.clone())
                .collect();
            if waiting.is_empty() {
                store.announcement.due = None;
                continue;
            }
            store.announcement.step(ctx.now);
            for peer in waiting {
                self.send_heads(ctx, &group, kind, &peer)?;
            }
        }
        self.at_work = None;
        Ok(())
    }

    /// Opens a heads payload for the one of `stores` that its token names.
    ///
    /// A clock that is days off makes a token that names none. The token is only a name: what opens with a link
    /// key comes from somebody who has the key. So it is tried with those of `common`, which the sender is
    /// known to be on; more than these, and a stranger could make us try every key on megabytes of nothing.
    fn open_heads(
        &self,
        now: Time,
        stores: &[(GroupId, StoreKind)],
        common: &[(GroupId, StoreKind)],
        data: &[u8],
    ) -> Option<(GroupId, StoreKind, HeadsPayload)> {
        let sealed = heads::parse(data).ok()?;
        let rotation = self.profile.rotation();
        for (address, link_key, (group, kind)) in self.named(stores) {
            let mut tokens = rotation::accepted_heads_tokens(&address, link_key, now, rotation);
            if tokens.any(|token| token == sealed.token) {
                return sealed.open(&address, link_key).ok().map(|payload| (group, kind, payload));
            }
        }
        self.named(common).find_map(|(address, link_key, (group, kind))| {
            Some((group, kind, sealed.open(&address, link_key).ok()?))
        })
    }

    /// What stores are called, and the keys to what is said of them.
    fn named<'s>(
        &'s self,
        stores: &'s [(GroupId, StoreKind)],
    ) -> impl Iterator<Item = (String, &'s SymmetricKey, (GroupId, StoreKind))> {
        stores.iter().filter_map(|(group, kind)| {
            let active = self.groups.get(group)?;
            Some((active.store(*kind).address.to_string(), active.group.link_key(), (*group, *kind)))
        })
    }

    fn take_heads(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
        payload: &HeadsPayload,
        direct: bool,
    ) -> Result<(), ReadError> {
        self.at_work = Some(*group);
        self.note_speaker(group, peer, payload);
        let Ok(entries) = heads_from_json(&payload.heads) else {
            tracing::debug!("a heads list is malformed");
            return Ok(());
        };
        let entries: Vec<Entry> = entries.into_iter().flatten().take(HEADS_PER_PAYLOAD_MAX).collect();
        self.catch_up_with(ctx, group, kind, peer, &entries)?;
        for entry in &entries {
            if !self.active(group)?.store(kind).log.contains(ctx.tx, entry.id())?
                && !self.is_left_to_stream(ctx, group, kind, entry)?
            {
                self.active_mut(group)?.store_mut(kind).learned = Some((peer.clone(), !direct));
                self.take_block(ctx, group, kind, peer, entry.id(), entry.block())?;
            }
        }
        if direct && self.peers.contains_key(peer) {
            // Whoever shows heads of a store is on its topic, though we may not have heard of it.
            self.active_mut(group)?.store_mut(kind).subscribers.entry(peer.clone()).or_default();
        }
        self.hurry(ctx, group, kind)?;
        self.ask_for_blocks(ctx.now);
        self.join_backlog(ctx)?;
        let shown: Vec<EntryId> = entries.iter().map(Entry::id).collect();
        if kind == StoreKind::Messages {
            self.note_shown(ctx, group, peer, &shown)?;
        }
        self.answer_heads(ctx, group, kind, peer, &shown, direct)
    }

    /// Somebody on the topic is awake: asks again for what could not be had, now and then.
    fn hurry(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId, kind: StoreKind) -> Result<(), ReadError> {
        let store = self.active_mut(group)?.store_mut(kind);
        if store.no_hurry_until > ctx.now {
            return Ok(());
        }
        store.no_hurry_until = ctx.now + HURRY_PAUSE;
        self.fetches.bring_forward(ctx.now, group, kind);
        self.want_missing(ctx, group, kind)
    }

    /// Notes whether `peer` has all that we have; if not, or if it still waits to hear that we have what it
    /// has, gives it our heads.
    fn answer_heads(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
        shown: &[EntryId],
        direct: bool,
    ) -> Result<(), ReadError> {
        let log = &self.active(group)?.store(kind).log;
        let own = log.heads(ctx.tx)?;
        let covered = own.iter().all(|head| shown.contains(head));
        let caught_up =
            shown.iter().try_fold(true, |all, id| Ok::<_, ReadError>(all && log.contains(ctx.tx, *id)?))?;
        let now = ctx.now;
        let store = self.active_mut(group)?.store_mut(kind);
        if covered && !direct {
            store.retelling.heard(peer);
        }
        if store.told_heads != own {
            store.told_heads = own;
            for subscriber in store.subscribers.values_mut() {
                subscriber.told = 0;
            }
        }
        let Some(subscriber) = store.subscribers.get_mut(peer) else { return Ok(()) };
        let confirmed_before = std::mem::replace(&mut subscriber.confirmed, covered);
        let told = subscriber.told;
        let covered = covered && !planted::is(Bug::AnswersWithoutEnd);
        let told = if planted::is(Bug::AnswersWithoutEnd) { 0 } else { told };
        let worth_an_answer = if covered { direct && (confirmed_before || told == 0) } else { caught_up };
        // Two who answer each other at once would never end; what is left unsaid is repeated in time.
        if worth_an_answer && told < REPEATS_MAX && now >= subscriber.quiet_until {
            subscriber.quiet_until = now + ANSWER_PAUSE;
            self.send_heads(ctx, group, kind, peer)?;
        }
        Ok(())
    }

    fn send_heads(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        peer: &PeerId,
    ) -> Result<(), ReadError> {
        if self.is_turned_away(peer) {
            return Ok(());
        }
        let (data, shown) = self.heads_payload(ctx, group, kind, CHANNEL_HEADS_BYTES_MAX)?;
        let id = self.fresh_id();
        let store = self.active_mut(group)?.store_mut(kind);
        if let Some(subscriber) = store.subscribers.get_mut(peer) {
            subscriber.told = subscriber.told.saturating_add(1);
        }
        if kind == StoreKind::Messages {
            self.heads_sent.insert(id, (*group, shown));
        }
        self.actions.push_back(Action::SendHeads { id, peer: peer.clone(), data });
        Ok(())
    }

    /// The heads of a store, as far as they fit, and which these are.
    ///
    /// What this device wrote last comes first. The others take turns: whoever writes long entries and many
    /// heads keeps no other out of every payload.
    fn heads_payload(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        kind: StoreKind,
        json_bytes_max: usize,
    ) -> Result<(Vec<u8>, Vec<EntryId>), ReadError> {
        self.at_work = Some(*group);
        let store = self.active_mut(group)?.store_mut(kind);
        let (own, mut others): (Vec<_>, Vec<_>) =
            store.log.heads(ctx.tx)?.into_iter().partition(|head| Some(*head) == store.own_head);
        let turn = store.heads_turn.checked_rem(others.len()).unwrap_or_default();
        others.rotate_left(turn);
        let mut heads = HeadsJson::default();
        let mut shown = Vec::new();
        let (mut bytes, mut passed_over, mut in_turn) = (0_usize, 0_usize, 0_usize);
        for head in own.iter().chain(&others) {
            let Some(entry) = store.log.entry(ctx.tx, *head)? else { continue };
            let with_it = bytes.saturating_add(entry.block().len());
            // The own one, and the one whose turn it is.
            let has_the_word = Some(*head) == store.own_head || (in_turn, passed_over) == (0, 0);
            let is_enough = planted::is(Bug::OneHeadShown) && !shown.is_empty();
            let may_go = !is_enough && (has_the_word || with_it <= HEADS_BYTES_MAX);
            if !may_go || !heads.push_within(&entry, json_bytes_max) {
                passed_over = passed_over.saturating_add(1);
                if passed_over >= HEADS_PASSED_OVER_MAX {
                    break;
                }
                continue;
            }
            bytes = with_it;
            shown.push(*head);
            if passed_over == 0 && Some(*head) != store.own_head {
                in_turn = in_turn.saturating_add(1);
            }
        }
        if passed_over > 0 && !planted::is(Bug::HeadsCutOff) {
            // The first that had no place has the next one.
            store.heads_turn = turn.saturating_add(in_turn.max(1));
        }
        let active = self.active(group)?;
        let store = active.store(kind);
        let address = store.address.to_string();
        let link_key = active.group.link_key();
        let payload = HeadsPayload {
            heads: heads.into_bytes(),
            device: Some(active.own_device()),
            host: Some(self.host.clone()),
        };
        let token = rotation::heads_token(&address, link_key, ctx.now, self.profile.rotation());
        Ok((payload.seal(&address, link_key, &token, ctx.rng), shown))
    }
}
