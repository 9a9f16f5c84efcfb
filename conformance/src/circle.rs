//! Groups, and what happens in them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_proto::protocol::{self as api, EventType};

use crate::feed::{Feed, text};
use crate::node::{Node, payload};
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, Trouble, ensure, failed};

/// A group of nodes that all hold each other's chain keys.
pub struct Circle {
    /// The group.
    pub group: Vec<u8>,
    /// Who is in it.
    pub members: Vec<Member>,
}

/// One node in a group.
#[derive(Clone)]
pub struct Member {
    /// The node.
    pub node: Node,
    /// Its account's key in this group.
    pub member: Vec<u8>,
    /// Its own key in this group.
    pub device: Vec<u8>,
}

impl Member {
    /// Asks a node who it is in a group.
    pub async fn of(node: &Node, group: &[u8]) -> Outcome<Self> {
        let info = node.describe(group).await?;
        Ok(Self { node: node.clone(), member: info.member_pk, device: info.device_pk })
    }
}

impl Circle {
    /// Makes a multi-member group, by the first of the nodes, which the others join.
    pub async fn make(nodes: &[Node]) -> Outcome<Self> {
        let Some((creator, others)) = nodes.split_first() else { return failed("a group needs a node") };
        let created = creator.multi_member_group_create(api::multi_member_group_create::Request {}).await?;
        let mut circle = Self { group: created.group_pk, members: Vec::new() };
        circle.members.push(Member::of(creator, &circle.group).await?);
        for node in others {
            circle.join(creator, node).await?;
        }
        circle.share_keys().await?;
        Ok(circle)
    }

    /// Takes a node in, on the invitation of another. Keys are on their way when this returns.
    pub async fn join(&mut self, host: &Node, node: &Node) -> Outcome {
        let invitation = invitation(host, &self.group).await?;
        let request = api::multi_member_group_join::Request { group: Some(invitation) };
        node.multi_member_group_join(request).await?;
        node.activate(&self.group).await?;
        self.members.push(Member::of(node, &self.group).await?);
        Ok(())
    }

    /// Opens the group of two contacts on both sides.
    pub async fn of_contacts(alice: &Node, bob: &Node) -> Outcome<Self> {
        let at_alice = group_of(alice.describe_contact(&bob.account).await?)?;
        let at_bob = group_of(bob.describe_contact(&alice.account).await?)?;
        ensure(at_alice.public_key == at_bob.public_key, || {
            format!("{} and {} derive different contact groups", alice.name(), bob.name())
        })?;
        Self::open(&at_alice.public_key, &[alice.clone(), bob.clone()]).await
    }

    /// Opens a group that all these nodes are in.
    pub async fn open(group: &[u8], nodes: &[Node]) -> Outcome<Self> {
        let mut circle = Self { group: group.to_vec(), members: Vec::new() };
        for node in nodes {
            node.activate(group).await?;
        }
        for node in nodes {
            circle.members.push(Member::of(node, group).await?);
        }
        circle.share_keys().await?;
        Ok(circle)
    }

    /// Waits until each node has been handed the chain key of each other.
    pub async fn share_keys(&self) -> Outcome {
        futures::future::try_join_all(self.members.iter().map(|own| self.keys_at(own))).await?;
        Ok(())
    }

    async fn keys_at(&self, own: &Member) -> Outcome {
        let mut missing: BTreeMap<&[u8], &str> = BTreeMap::new();
        for other in self.members.iter().filter(|other| other.device != own.device) {
            missing.insert(&other.device, other.node.name());
        }
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.values().copied().collect::<Vec<_>>().join(", ");
        let mut feed = own.node.follow_metadata(&self.group);
        feed.find(&format!("the chain keys of {names}"), |event| {
            let kind = EventType::GroupDeviceChainKeyAdded;
            if let Some(handed) = payload::<api::GroupDeviceChainKeyAdded>(&event, kind)
                && handed.dest_member_pk == own.member
            {
                missing.remove(handed.device_pk.as_slice());
            }
            missing.is_empty().then_some(())
        })
        .await
    }

    /// The nodes of the group.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.members.iter().map(|member| &member.node)
    }

    /// Opens the messages of every node.
    pub fn listen(&self) -> Vec<Ear> {
        self.nodes().map(|node| Ear::open(node, &self.group)).collect()
    }

    /// Lets every node say `count` things, and sees to it that all of it reaches every node, once.
    pub async fn talk(&self, subject: &str, count: usize) -> Outcome {
        let mut ears = self.listen();
        let said = self.say(subject, count).await?;
        futures::future::try_join_all(ears.iter_mut().map(|ear| ear.hear_all(&said))).await?;
        // What comes twice comes before what is said after it.
        let fences = self.say(&format!("{subject}, end"), 1).await?;
        futures::future::try_join_all(ears.iter_mut().map(|ear| ear.hear_all(&fences))).await?;
        for node in self.nodes() {
            listed_once(node, &self.group, &said).await?;
        }
        Ok(())
    }

    /// Lets every node say `count` things, and gives what was said.
    pub async fn say(&self, subject: &str, count: usize) -> Outcome<BTreeSet<Vec<u8>>> {
        let mut said = BTreeSet::new();
        for number in 1..=count {
            for node in self.nodes() {
                let words = format!("{subject}: {number} of {}", node.name()).into_bytes();
                node.send(&self.group, words.clone()).await?;
                said.insert(words);
            }
        }
        Ok(said)
    }
}

/// The messages of one group as one node tells them.
pub struct Ear {
    node: Node,
    feed: Feed<api::GroupMessageEvent>,
    heard: BTreeSet<Vec<u8>>,
}

impl Ear {
    /// Listens to all messages, those that are there first.
    pub fn open(node: &Node, group: &[u8]) -> Self {
        Self { node: node.clone(), feed: node.follow_messages(group), heard: BTreeSet::new() }
    }

    /// Waits until all of these came; any message that comes twice is a failure.
    pub async fn hear_all(&mut self, wanted: &BTreeSet<Vec<u8>>) -> Outcome {
        let mut missing: BTreeSet<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
        for heard in &self.heard {
            missing.remove(heard.as_slice());
        }
        if missing.is_empty() {
            return Ok(());
        }
        let first = missing.first().map(|first| text(first)).unwrap_or_default();
        let what = format!("{} messages, one of them {first}", missing.len());
        let mut twice = None;
        let (heard, tolerances) = (&mut self.heard, self.node.tolerances());
        self.feed
            .find(&what, |event| {
                missing.remove(event.message.as_slice());
                if !heard.insert(event.message.clone()) && !tolerances.allow(Tolerance::ListTwice) {
                    twice = Some(event.message);
                }
                (missing.is_empty() || twice.is_some()).then_some(())
            })
            .await?;
        match twice {
            Some(message) => failed(format!("{}: {} came twice", self.node.name(), text(&message))),
            None => Ok(()),
        }
    }
}

/// Sees to it that a node lists each of these messages once.
pub async fn listed_once(node: &Node, group: &[u8], wanted: &BTreeSet<Vec<u8>>) -> Outcome {
    let mut counts: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for event in node.all_messages(group).await? {
        *counts.entry(event.message).or_default() += 1;
    }
    for message in wanted {
        let count = counts.get(message).copied().unwrap_or_default();
        ensure(count == 1, || format!("{} lists {} {count} times", node.name(), text(message)))?;
    }
    Ok(())
}

/// The invitation to a group.
pub async fn invitation(host: &Node, group: &[u8]) -> Outcome<api::Group> {
    let request = api::multi_member_group_invitation_create::Request { group_pk: group.to_vec() };
    let reply = host.multi_member_group_invitation_create(request).await?;
    reply.group.ok_or_else(|| Trouble::Failed(format!("{}: an invitation without a group", host.name())))
}

/// The group that a node describes.
pub fn group_of(info: api::group_info::Reply) -> Outcome<api::Group> {
    info.group.ok_or_else(|| Trouble::Failed("a node describes a group without the group".to_owned()))
}
