//! What is carried between devices, as hosts carry it.

use dunlin_base::kv::Read;
use dunlin_base::{EntryId, GroupId, PeerId, Span};
use dunlin_wesh::catch_up::{self, Frame, Piece, Request};
use dunlin_wesh::engine::{Action, Origin, StoreKind};

use super::World;
use crate::network::{Delivery, NodeNumber, Parcel};
use crate::node::Node;

/// Bytes of blocks in a piece of a stream.
const PIECE_BYTES: usize = 4096;
/// How long a host waits for an answer.
const HOST_PATIENCE: Span = Span::from_secs(5);

impl World {
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        if let Some(node) = self.nodes.get(delivery.to).filter(|node| node.busy_until > self.now) {
            self.network.put_off(node.busy_until, delivery);
            return;
        }
        let Delivery { from, to, parcel } = delivery;
        self.oracle.overhear(parcel.bytes());
        let asleep = self.nodes.get(to).is_some_and(|node| node.asleep && node.is_running());
        if asleep && parcel.is_known_locally() {
            // The host of a sleeping device tells it when it wakes up.
            self.network.tell(self.now + Span::from_secs(1), from, to, parcel);
            return;
        }
        let place = to.checked_sub(self.nodes.len());
        if let Some(villain) = place.and_then(|place| self.villains.get_mut(place)) {
            let deeds = villain.hear(self.now, from, parcel);
            self.carry_out(to, deeds);
            return;
        }
        if let Parcel::Block { entry, .. } | Parcel::BlockMissing { entry } = &parcel {
            self.asked.remove(&(to, *entry));
        }
        if !self.nodes.get(to).is_some_and(Node::is_reachable) {
            self.give_up(from, to, &parcel);
            return;
        }
        let Some(peer) = self.host_of(from) else { return };
        match parcel {
            Parcel::Connected => self.take(to, |ctx, engine| engine.handle_connected(ctx, &peer, true)),
            Parcel::Disconnected => self.take(to, |ctx, engine| engine.handle_disconnected(ctx, &peer)),
            Parcel::TopicJoined { topic } => {
                self.take(to, |ctx, engine| engine.handle_topic_joined(ctx, &peer, &topic));
            }
            Parcel::TopicLeft { topic } => self.take(to, |_, engine| {
                engine.handle_topic_left(&peer, &topic);
                Ok(())
            }),
            Parcel::TakesRequests { takes } => {
                self.take(to, |ctx, engine| engine.handle_takes_requests(ctx, &peer, takes));
            }
            Parcel::Gossip { topic, data } => {
                self.take(to, |ctx, engine| engine.handle_gossip(ctx, &topic, &peer, &data).map(drop));
            }
            Parcel::Heads { data } => self.take(to, |ctx, engine| engine.handle_heads(ctx, &peer, &data)),
            Parcel::Records { data } => self.take(to, |ctx, engine| engine.handle_records(ctx, &peer, &data)),
            Parcel::Want { entry } => self.serve(from, to, &peer, entry),
            Parcel::Block { entry, block } => {
                // A host judges blocks ahead of the engine, or leaves that to it: both have to come to the same.
                let is_ahead = entry.digest().last().is_some_and(|byte| byte % 2 == 0);
                self.take(to, |ctx, engine| {
                    let checker = engine.checker_of(&entry).filter(|_| is_ahead);
                    match checker.and_then(|checker| checker.check(&block).ok()) {
                        Some(checked) if checked.entry().id() == entry => {
                            engine.handle_checked_block(ctx, &peer, checked)
                        }
                        Some(_) | None => engine.handle_block(ctx, &peer, &entry, &block),
                    }
                });
            }
            Parcel::BlockMissing { entry } => {
                self.take(to, |ctx, engine| engine.handle_block_missing(ctx, &entry));
            }
            Parcel::StreamWanted { group, kind, request } => {
                self.give(from, to, &peer, group, kind, &request)
            }
            Parcel::Streamed { group, kind, frame } => self.take(to, |ctx, engine| {
                let Some(checker) = engine.checker_for_stream(&group, kind) else { return Ok(()) };
                let entries =
                    catch_up::blocks(&frame).filter_map(|block| checker.check(block).ok()).collect();
                engine.handle_streamed(ctx, &group, kind, &peer, entries)
            }),
            Parcel::StreamEnded { group, kind } => {
                self.take(to, |ctx, engine| engine.handle_stream_ended(ctx, &group, kind, &peer, true));
            }
            Parcel::Open { theirs } => {
                let opened = self
                    .input(to, |ctx, engine| engine.handle_exchange_incoming(ctx, &peer, Origin::Unknown));
                let answer = match opened.flatten() {
                    Some(ours) => {
                        self.streams.insert((to, ours), (from, theirs));
                        self.streams.insert((from, theirs), (to, ours));
                        Parcel::Opened { id: theirs }
                    }
                    None => Parcel::Closed { id: theirs },
                };
                self.network.send(self.now, to, from, answer);
            }
            Parcel::Opened { id } => self.take(to, |ctx, engine| engine.handle_exchange_opened(ctx, id)),
            Parcel::Frame { id, frame } => {
                self.take(to, |ctx, engine| engine.handle_exchange_frame(ctx, id, &frame));
            }
            Parcel::Closed { id } => {
                self.streams.remove(&(to, id));
                self.take(to, |ctx, engine| engine.handle_exchange_closed(ctx, id));
            }
        }
    }

    /// What waits for an answer from a device that is off is told that there is none.
    fn give_up(&mut self, from: NodeNumber, to: NodeNumber, parcel: &Parcel) {
        let answer = match parcel {
            Parcel::Want { entry } => Parcel::BlockMissing { entry: *entry },
            Parcel::Open { theirs } => Parcel::Closed { id: *theirs },
            Parcel::StreamWanted { group, kind, .. } => Parcel::StreamEnded { group: *group, kind: *kind },
            _ => return,
        };
        self.network.tell(self.now + HOST_PATIENCE, to, from, answer);
    }

    /// Answers a want as a host does: only for logs of groups of which the other showed something.
    fn serve(&mut self, from: NodeNumber, to: NodeNumber, peer: &PeerId, entry: EntryId) {
        let block = self
            .nodes
            .get(to)
            .and_then(|node| node.look(|read, engine| engine.block_for(read, peer, &entry)));
        let answer = match block {
            Some(Ok(Some(block))) => Parcel::Block { entry, block },
            _ => Parcel::BlockMissing { entry },
        };
        let served = matches!(answer, Parcel::Block { .. });
        self.network.send(self.now, to, from, answer);
        if served {
            let peer = peer.clone();
            self.take(to, move |ctx, engine| engine.handle_block_served(ctx, &peer, &entry));
        }
    }

    /// Gives all that a log has beyond what somebody knows, as a host does: only of groups of which they showed something.
    fn give(
        &mut self,
        from: NodeNumber,
        to: NodeNumber,
        peer: &PeerId,
        group: GroupId,
        kind: StoreKind,
        request: &Request,
    ) {
        let pieces = self.nodes.get(to).and_then(|node| {
            let read = |read: &dyn Read| Piece::all(read, request).collect::<Result<Vec<_>, _>>();
            node.look(|store, engine| engine.may_have_log(peer, request.log).then(|| read(store))).flatten()
        });
        // A disk that fails gives nothing.
        let pieces = pieces.and_then(Result::ok).unwrap_or_default();
        for piece in &pieces {
            // Few blocks to a frame, so that a connection may break in between.
            let mut frame = Frame::default();
            for block in catch_up::blocks(piece.frame.as_bytes()) {
                if frame.as_bytes().len() >= PIECE_BYTES {
                    let frame = std::mem::take(&mut frame).into_bytes();
                    self.network.send(self.now, to, from, Parcel::Streamed { group, kind, frame });
                }
                frame.push(block);
            }
            let frame = frame.into_bytes();
            self.network.send(self.now, to, from, Parcel::Streamed { group, kind, frame });
        }
        self.network.send(self.now, to, from, Parcel::StreamEnded { group, kind });
        let peer = peer.clone();
        self.take(to, move |ctx, engine| {
            let mut given = pieces.iter().flat_map(|piece| &piece.given);
            given.try_for_each(|entry| engine.handle_block_served(ctx, &peer, entry))
        });
    }

    pub(super) fn perform_actions(&mut self, number: NodeNumber) {
        while let Some(action) = self.nodes.get_mut(number).and_then(|node| node.actions.pop_front()) {
            self.perform(number, action);
        }
    }

    fn perform(&mut self, from: NodeNumber, action: Action) {
        let now = self.now;
        match action {
            Action::Subscribe { topic } => {
                if self.topics_of(from).insert(topic.clone()) {
                    self.tell_neighbours(from, &Parcel::TopicJoined { topic });
                }
            }
            Action::Unsubscribe { topic } => {
                self.topics_of(from).remove(&topic);
                self.tell_neighbours(from, &Parcel::TopicLeft { topic });
            }
            Action::Publish { topic, data } => {
                for to in self.network.neighbours(from) {
                    if self.topics.get(to).is_some_and(|topics| topics.contains(&topic)) {
                        let parcel = Parcel::Gossip { topic: topic.clone(), data: data.clone() };
                        self.network.send(now, from, to, parcel);
                    }
                }
            }
            Action::SendHeads { id, peer, data } => {
                let to = self.number_of(&peer);
                let reached = to.is_some_and(|to| self.network.are_connected(from, to));
                if let Some(to) = to {
                    self.network.send(now, from, to, Parcel::Heads { data });
                }
                if reached {
                    self.take(from, move |ctx, engine| engine.handle_heads_sent(ctx, &peer, id));
                } else {
                    self.take(from, move |_, engine| {
                        engine.handle_heads_unsent(id);
                        Ok(())
                    });
                }
            }
            Action::SendRecords { peer, data } => self.send_to(from, &peer, Parcel::Records { data }),
            Action::Fetch { entry, peers } => {
                if !self.asked.insert((from, entry)) {
                    return;
                }
                let reached = peers.iter().filter_map(|peer| self.number_of(peer));
                let reached: Vec<_> = reached.filter(|to| self.network.are_connected(from, *to)).collect();
                // A host asks one after another, so whoever would answer is reached.
                let own = self.nodes.get(from).map(|node| node.id.clone());
                let has = |to: &NodeNumber| {
                    let node = self.nodes.get(*to).zip(own.as_ref());
                    let block = node.and_then(|(node, own)| {
                        node.look(|read, engine| engine.block_for(read, own, &entry))
                    });
                    matches!(block, Some(Ok(Some(_))))
                };
                let holder =
                    |to: &NodeNumber| has(to) || self.villain(*to).is_some_and(|villain| villain.has(&entry));
                let holds =
                    reached.iter().find(|to| has(to)).or_else(|| reached.iter().find(|to| holder(to)));
                let holds = holds.copied();
                let chosen = holds.or_else(|| self.chance.pick(&reached).copied());
                match chosen {
                    Some(to) => self.network.send(now, from, to, Parcel::Want { entry }),
                    None => self.network.tell(now, from, from, Parcel::BlockMissing { entry }),
                }
            }
            Action::CancelFetch { .. } | Action::StopCatchUp { .. } => {}
            Action::CatchUp { group, kind, peer, request } => match self.number_of(&peer) {
                Some(to) if self.network.are_connected(from, to) => {
                    self.network.send(now, from, to, Parcel::StreamWanted { group, kind, request });
                }
                Some(to) => self.network.tell(now, to, from, Parcel::StreamEnded { group, kind }),
                None => {}
            },
            Action::AcceptExchanges(takes) => {
                let Some(known) = self.takes_requests.get_mut(from) else { return };
                if std::mem::replace(known, takes) != takes {
                    self.tell_neighbours(from, &Parcel::TakesRequests { takes });
                }
            }
            Action::OpenExchange { id, peer } => match self.number_of(&peer) {
                Some(to) if self.network.are_connected(from, to) => {
                    self.network.send(now, from, to, Parcel::Open { theirs: id });
                }
                _ => self.network.tell(now, from, from, Parcel::Closed { id }),
            },
            Action::SendFrame { id, frame } => {
                if let Some((to, theirs)) = self.streams.get(&(from, id)).copied() {
                    self.network.send(now, from, to, Parcel::Frame { id: theirs, frame });
                }
            }
            Action::CloseExchange { id } => {
                if let Some((to, theirs)) = self.streams.remove(&(from, id)) {
                    self.network.send(now, from, to, Parcel::Closed { id: theirs });
                }
            }
        }
    }

    fn send_to(&mut self, from: NodeNumber, peer: &PeerId, parcel: Parcel) {
        if let Some(to) = self.number_of(peer) {
            self.network.send(self.now, from, to, parcel);
        }
    }

    pub(super) fn tell_neighbours(&mut self, from: NodeNumber, parcel: &Parcel) {
        for to in self.network.neighbours(from) {
            self.network.send(self.now, from, to, parcel.clone());
        }
    }

    /// Connects whoever can reach each other, and separates the others.
    pub(super) fn connect_all(&mut self) {
        let hosts = self.nodes.len().saturating_add(self.villains.len());
        for a in 0..self.nodes.len() {
            for b in a.saturating_add(1)..hosts {
                // Hostile peers are always there.
                let reachable =
                    [a, b].iter().all(|number| self.nodes.get(*number).is_none_or(Node::is_reachable));
                let connected = reachable && !self.network.is_split_between(a, b);
                if !self.network.set_connected(self.now, a, b, connected) {
                    continue;
                }
                if connected {
                    self.introduce(a, b);
                    self.introduce(b, a);
                } else {
                    self.network.tell(self.now, a, b, Parcel::Disconnected);
                    self.network.tell(self.now, b, a, Parcel::Disconnected);
                    self.streams
                        .retain(|(one, _), (other, _)| (*one, *other) != (a, b) && (*one, *other) != (b, a));
                }
            }
        }
    }

    /// Lets `to` know about `from`, with which it was connected.
    fn introduce(&mut self, from: NodeNumber, to: NodeNumber) {
        let takes = self.takes_requests.get(from).copied().unwrap_or(false);
        let topics: Vec<_> = self.topics.get(from).into_iter().flatten().cloned().collect();
        self.network.send(self.now, from, to, Parcel::Connected);
        self.network.send(self.now, from, to, Parcel::TakesRequests { takes });
        for topic in topics {
            self.network.send(self.now, from, to, Parcel::TopicJoined { topic });
        }
    }

    /// Tells a device whose engine was opened again who is connected: in one input, as a real shell does.
    pub(super) fn tell_presence(&mut self, number: NodeNumber) {
        let mut there = Vec::new();
        for other in self.network.neighbours(number) {
            let Some(peer) = self.host_of(other) else { continue };
            let takes = self.takes_requests.get(other).copied().unwrap_or(false);
            let topics = self.topics.get(other).cloned().unwrap_or_default();
            there.push((peer, takes, topics));
        }
        self.take(number, |ctx, engine| {
            for (peer, takes, topics) in &there {
                engine.handle_connected(ctx, peer, true)?;
                engine.handle_takes_requests(ctx, peer, *takes)?;
                topics.iter().try_for_each(|topic| engine.handle_topic_joined(ctx, peer, topic))?;
            }
            Ok(())
        });
    }
}
