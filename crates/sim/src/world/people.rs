//! What people do, and what hostile peers do.

use dunlin_base::{DeviceId, GroupId, MemberId};
use dunlin_wesh::engine::Engine;
use dunlin_wesh::group::Group;

use super::World;
use crate::hostile::{Deed, Malice};
use crate::network::{NodeNumber, Parcel};
use crate::node::Node;
use crate::oracle::Violation;
use crate::plan::Plan;

/// Of a thousand looks at a device that is to be linked, in how many it is.
const LINKED_IN_A_SECOND: u64 = 300;

impl World {
    /// Somebody does something.
    pub(super) fn act(&mut self, plan: &Plan) {
        if self.chance.happens(plan.storm) {
            self.join_all();
        }
        let number = self.any_node();
        if self.chance.happens(plan.leave) {
            self.leave_or_close(number);
        }
        let blank = self.any_node();
        if self.is_blank(blank) && self.chance.happens(LINKED_IN_A_SECOND) {
            self.link_device(blank);
        }
        match self.chance.below(10) {
            0 | 1 => self.ask_somebody(number),
            2 => self.make_group(number),
            3 => self.join_group(number),
            4 => self.block_somebody(number),
            _ if self.chance.happens(plan.talk) => self.write(number),
            _ => {}
        }
    }

    fn ask_somebody(&mut self, number: NodeNumber) {
        let other = self.any_node();
        let contact =
            self.nodes.get(other).and_then(|node| node.look(|read, engine| engine.own_contact(read)));
        let Some(Ok(contact)) = contact else { return };
        // Asking oneself, or somebody twice, is refused, which is as it should be.
        let whom = contact.account;
        let Some(by) = self.nodes.get(number).and_then(Node::engine).map(Engine::account_id) else { return };
        // The disk may have it though it says that it failed.
        self.oracle.note_attempted_asking(by, whom);
        let asked = self.input(number, |ctx, engine| engine.request_contact(ctx, &contact, b"a name"));
        if let Some(Ok(_)) = asked {
            self.oracle.note_asked(number, whom);
        }
    }

    fn block_somebody(&mut self, number: NodeNumber) {
        let other = self.any_node();
        let account = self.nodes.get(other).and_then(|node| node.engine()).map(|engine| engine.account_id());
        let Some(account) = account else { return };
        if !self.chance.happens(200) {
            return;
        }
        if let Some(Ok(())) = self.input(number, move |ctx, engine| engine.block_contact(ctx, &account)) {
            self.oracle.note_blocked(number, account);
        }
    }

    fn make_group(&mut self, number: NodeNumber) {
        if let Some(Ok(group)) = self.input(number, |ctx, engine| engine.create_group(ctx)) {
            let made = self
                .nodes
                .get(number)
                .and_then(|node| node.look(|read, engine| engine.invitation(read, &group)));
            self.oracle.note_joined(number, group, true);
            if let Some(Ok(invitation)) = made {
                self.invite_villains(&invitation);
                self.oracle.note_group(invitation);
            }
        }
    }

    /// An invitation gets into the hands of whoever means no good, which members cannot prevent.
    fn invite_villains(&mut self, invitation: &Group) {
        for place in 0..self.villains.len() {
            let number = self.nodes.len().saturating_add(place);
            let Some(villain) = self.villains.get_mut(place) else { continue };
            for topic in villain.learn(invitation) {
                self.topics_of(number).insert(topic.clone());
                self.tell_neighbours(number, &Parcel::TopicJoined { topic });
            }
        }
    }

    /// What hostile peers do within a second.
    pub(super) fn act_hostile(&mut self) {
        for place in 0..self.villains.len() {
            let number = self.nodes.len().saturating_add(place);
            let devices = 0..self.nodes.len();
            let reached: Vec<_> = devices.filter(|to| self.network.are_connected(number, *to)).collect();
            let known = self.oracle.any_entry(&mut self.chance);
            let account =
                |to: &NodeNumber| self.nodes.get(*to)?.engine().map(|engine| (*to, engine.account_id()));
            let accounts: Vec<_> = reached.iter().filter_map(account).collect();
            let Some(villain) = self.villains.get_mut(place) else { continue };
            villain.learn_names(known, accounts);
            let groups: Vec<_> =
                if villain.malice == Malice::Forger { villain.groups().collect() } else { Vec::new() };
            for group in groups {
                let members = self.nodes.iter().find_map(|node| members_of(node, &group));
                if let (Some(members), Some(villain)) = (members, self.villains.get_mut(place)) {
                    villain.learn_members(&group, members);
                }
            }
            let Some(villain) = self.villains.get_mut(place) else { continue };
            let deeds = villain.act(self.now, &reached);
            self.carry_out(number, deeds);
        }
    }

    pub(super) fn carry_out(&mut self, number: NodeNumber, deeds: Vec<Deed>) {
        for deed in deeds {
            match deed {
                Deed::Send(to, parcel) => self.network.send(self.now, number, to, parcel),
                Deed::Frame(id, frame) => {
                    if let Some((to, theirs)) = self.streams.get(&(number, id)).copied() {
                        self.network.send(self.now, number, to, Parcel::Frame { id: theirs, frame });
                    }
                }
            }
        }
    }

    fn join_group(&mut self, number: NodeNumber) {
        let Some(group) = self.oracle.any_group(&mut self.chance) else { return };
        self.join(number, &group);
    }

    fn join(&mut self, number: NodeNumber, group: &Group) {
        let id = group.id();
        let joined = self.input(number, |ctx, engine| {
            engine.join_group(ctx, group)?;
            engine.activate(ctx, &id)
        });
        if let Some(Ok(())) = joined {
            self.oracle.note_joined(number, id, true);
        }
    }

    /// Everybody joins one group at the same moment.
    fn join_all(&mut self) {
        let Some(group) = self.oracle.any_group(&mut self.chance) else { return };
        for number in 0..self.nodes.len() {
            self.join(number, &group);
        }
    }

    /// Somebody leaves a group, or closes one, to open it again later.
    fn leave_or_close(&mut self, number: NodeNumber) {
        let Some(engine) = self.nodes.get(number).and_then(Node::engine) else { return };
        let account = engine.account_group();
        let groups: Vec<GroupId> = engine.active_groups().filter(|group| *group != account).collect();
        let Some(group) = self.chance.pick(&groups).copied() else { return };
        match self.chance.below(4) {
            0 => {
                self.open_again();
            }
            1 => {
                self.input(number, |_, engine| engine.deactivate(&group));
                self.closed.insert((number, group));
            }
            // A group of two cannot be left, and that is refused.
            _ => {
                let left = self.input(number, |ctx, engine| engine.leave_group(ctx, &group));
                if let Some(Ok(())) = left {
                    self.oracle.note_joined(number, group, false);
                }
            }
        }
    }

    /// Opens what was closed for a while. What was left meanwhile stays closed.
    pub(super) fn open_again(&mut self) {
        for (number, group) in std::mem::take(&mut self.closed) {
            self.input(number, |ctx, engine| engine.activate(ctx, &group));
        }
    }

    /// A further device becomes one of an account: by linking, or by an archive of the whole account.
    pub(super) fn link_device(&mut self, number: NodeNumber) {
        let others: Vec<_> = (0..self.nodes.len()).filter(|other| self.is_running(*other)).collect();
        let Some(old) = self.chance.pick(&others).copied() else { return };
        let whole = self.chance.happens(300);
        let Some(archive) = self.nodes.get(old).and_then(|node| node.archive(whole)) else { return };
        let Some(node) = self.nodes.get_mut(number) else { return };
        if let Err(error) = node.adopt(&archive) {
            self.oracle.violate(Violation::Unreadable { node: number, error });
            return;
        }
        self.oracle.note_linked(old, number);
        self.start(number);
        self.connect_all();
    }

    fn write(&mut self, number: NodeNumber) {
        let Some(engine) = self.nodes.get(number).and_then(Node::engine) else { return };
        let account = engine.account_group();
        let groups: Vec<GroupId> = engine.active_groups().filter(|group| *group != account).collect();
        let Some(group) = self.chance.pick(&groups).copied() else { return };
        let burst = if self.chance.happens(50) { 150 } else { 1 };
        for _ in 0..burst {
            let text = self.oracle.next_text(self.seed);
            let mut attempted = None;
            let sent = self.input(number, |ctx, engine| {
                let entry = engine.send_message(ctx, &group, &text).ok()?;
                attempted = engine.message(ctx.tx, &group, &entry).ok().flatten();
                Some(entry)
            });
            match (sent.flatten(), attempted) {
                (Some(_), Some(message)) => self.oracle.note_written(number, message),
                (Some(entry), None) => self.oracle.violate(Violation::Lost { node: number, entry }),
                // The disk may have it though it said that it failed.
                (None, Some(message)) => self.oracle.note_attempted(number, message),
                (None, None) => {}
            }
        }
    }
}

/// The members of a group and their devices, as a device has them that is in it.
fn members_of(node: &Node, group: &GroupId) -> Option<Vec<(MemberId, Vec<DeviceId>)>> {
    node.look(|read, engine| {
        let members = engine.members(read, group).ok()?.into_iter();
        let with_devices = |member| Some((member, engine.devices_of(read, group, &member).ok()?));
        members.map(with_devices).collect()
    })?
}
