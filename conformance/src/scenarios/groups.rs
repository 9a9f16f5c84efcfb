//! Multi-member groups.

use std::collections::BTreeSet;

use dunlin_proto::errcode::ErrCode;
use dunlin_proto::protocol::{self as api, EventType};
use prost::Message as _;

use super::contacts::{race_group, refused};
use super::{Scenario, scenario};
use crate::circle::{Circle, Ear, invitation};
use crate::mesh::Mesh;
use crate::node::payload;
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, ensure, failed};

pub const SCENARIOS: &[Scenario] = &[
    scenario!("create-group", "a new group is described, announced and can be joined", 1, false, create),
    scenario!(
        "group-messages",
        "each member's messages reach all members, whoever made the group",
        1,
        true,
        talk
    ),
    scenario!("several-groups", "groups do not mix", 1, true, several),
    scenario!("late-joiner", "who joins late sees the events of before, and reads what comes", 2, true, late),
    scenario!("leave-group", "who leaves is out, the others go on, and the door stays open", 2, false, leave),
    scenario!("reactivate-group", "a group that was closed and opened is as before", 2, false, reactivate),
    scenario!(
        "race-reactivate-group",
        "so is one that is closed and opened at the same time",
        2,
        false,
        race
    ),
    scenario!(
        "device-status",
        "each node tells which peers of a group it is connected with",
        2,
        true,
        status
    ),
    scenario!(
        "large-messages",
        "what is taken arrives, however large; what is too large is refused",
        1,
        false,
        large
    ),
    scenario!(
        "out-of-store",
        "a message taken out of its log is opened by all members",
        2,
        false,
        out_of_store
    ),
];

/// Nodes that make a group, one after the other; more of them would prove the same.
const CREATORS_MAX: usize = 3;
/// Payloads of these sizes: the first [`LARGE_CARRIED`] every node carries, the last none, though it is no larger than a
/// request may be.
const LARGE_BYTES: [usize; 6] = [100_000, 500_000, 560_000, 800_000, 1_500_000, 3 * 1024 * 1024];
/// How many of [`LARGE_BYTES`] reach connected members at once, whoever made the nodes.
const LARGE_CARRIED: usize = 3;

async fn create(mesh: &mut Mesh) -> Outcome {
    for node in mesh.nodes() {
        let created = node.multi_member_group_create(api::multi_member_group_create::Request {}).await?;
        let group = created.group_pk;
        let info = node.describe(&group).await?;
        let described = info.group.unwrap_or_default();
        ensure(
            described.public_key == group && described.group_type() == api::GroupType::MultiMember,
            || format!("{} describes another group than it made", node.name()),
        )?;
        let invited = invitation(&node, &group).await?;
        ensure(invited == described, || format!("{}: invitation and description differ", node.name()))?;
        ensure(invited.secret.len() == 32 && invited.secret_sig.len() == 64, || {
            format!("{}: an invitation without secret or its signature", node.name())
        })?;
        let mut account = node.follow_metadata(&node.account_group);
        account
            .find("the group among those joined", |event| {
                let joined: api::AccountGroupJoined = payload(&event, EventType::AccountGroupJoined)?;
                (joined.group?.public_key == group).then_some(())
            })
            .await?;
        let mut events = node.follow_metadata(&group);
        let (mut announced, mut device, mut key) = (false, false, false);
        events
            .find("its first member, its device and its key", |event| {
                let initial: Option<api::MultiMemberGroupInitialMemberAnnounced> =
                    payload(&event, EventType::MultiMemberGroupInitialMemberAnnounced);
                announced |= initial.is_some();
                let added: Option<api::GroupMemberDeviceAdded> =
                    payload(&event, EventType::GroupMemberDeviceAdded);
                device |= added.is_some_and(|added| {
                    added.member_pk == info.member_pk && added.device_pk == info.device_pk
                });
                let handed: Option<api::GroupDeviceChainKeyAdded> =
                    payload(&event, EventType::GroupDeviceChainKeyAdded);
                key |= handed.is_some_and(|handed| handed.device_pk == info.device_pk);
                (announced && device && key).then_some(())
            })
            .await?;
    }
    Ok(())
}

async fn talk(mesh: &mut Mesh) -> Outcome {
    let mut nodes = mesh.nodes();
    for turn in 0..nodes.len().min(CREATORS_MAX) {
        let circle = Circle::make(&nodes).await?;
        circle.talk(&format!("turn {turn}"), 3).await?;
        nodes.rotate_left(1);
    }
    Ok(())
}

async fn several(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let mut circles = Vec::new();
    for _ in 0..3 {
        circles.push(Circle::make(&nodes).await?);
    }
    let talks = circles
        .iter()
        .zip(1..)
        .map(|(circle, number)| async move { circle.talk(&format!("group {number}"), 3).await });
    futures::future::try_join_all(talks).await?;
    for (circle, number) in circles.iter().zip(1..) {
        for node in circle.nodes() {
            for event in node.all_messages(&circle.group).await? {
                let begin = format!("group {number}");
                ensure(event.message.starts_with(begin.as_bytes()), || {
                    format!("{} lists a message of another group", node.name())
                })?;
            }
        }
    }
    Ok(())
}

async fn late(mesh: &mut Mesh) -> Outcome {
    let mut nodes = mesh.nodes();
    for _ in 0..2 {
        let Some((newcomer, others)) = nodes.split_last() else { return failed("two nodes are needed") };
        let Some(host) = others.first() else { return failed("two nodes are needed") };
        let mut circle = Circle::make(others).await?;
        circle.talk("before", 2).await?;
        let request =
            api::app_metadata_send::Request { group_pk: circle.group.clone(), payload: b"a rule".to_vec() };
        host.app_metadata_send(request).await?;
        circle.join(host, newcomer).await?;
        circle.share_keys().await?;
        circle.talk("after", 2).await?;
        let mut feed = newcomer.follow_metadata(&circle.group);
        feed.find("an event from before", |event| {
            let sent: api::GroupMetadataPayloadSent = payload(&event, EventType::GroupMetadataPayloadSent)?;
            (sent.message == b"a rule").then_some(())
        })
        .await?;
        nodes.rotate_left(1);
    }
    Ok(())
}

async fn leave(mesh: &mut Mesh) -> Outcome {
    let mut nodes = mesh.nodes();
    for _ in 0..2 {
        let circle = Circle::make(&nodes).await?;
        circle.talk("all of us", 1).await?;
        let Some((leaver, stayers)) = nodes.split_last() else { return failed("two nodes are needed") };
        let request = api::multi_member_group_leave::Request { group_pk: circle.group.clone() };
        leaver.multi_member_group_leave(request.clone()).await?;
        refused(leaver.send(&circle.group, "from outside").await, ErrCode::ErrGroupUnknown)?;
        refused(leaver.multi_member_group_leave(request).await, ErrCode::ErrInvalidInput)?;
        Circle::open(&circle.group, stayers).await?.talk("without one", 1).await?;
        let Some(host) = stayers.first() else { return failed("two nodes are needed") };
        let group = Some(invitation(host, &circle.group).await?);
        leaver.multi_member_group_join(api::multi_member_group_join::Request { group }).await?;
        Circle::open(&circle.group, &nodes).await?.talk("all again", 1).await?;
        nodes.rotate_left(1);
    }
    Ok(())
}

async fn reactivate(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    circle.talk("before it was closed", 1).await?;
    for node in &nodes {
        node.deactivate(&circle.group).await?;
        refused(node.send(&circle.group, "into a closed group").await, ErrCode::ErrGroupUnknown)?;
        node.activate(&circle.group).await?;
        circle.talk(&format!("after {} closed it", node.name()), 1).await?;
    }
    Ok(())
}

async fn race(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    for node in &nodes {
        race_group(&circle, node).await?;
    }
    Ok(())
}

async fn status(mesh: &mut Mesh) -> Outcome {
    use api::group_device_status::{Reply, Request, Type, reply::PeerConnected};
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    for own in &circle.members {
        let mut missing: BTreeSet<String> = circle
            .members
            .iter()
            .filter(|other| other.device != own.device)
            .map(|other| other.node.peer_id.clone())
            .collect();
        let mut feed = own.node.group_device_status(Request { group_pk: circle.group.clone() });
        feed.find("all other peers as connected", |reply: Reply| {
            if reply.r#type() == Type::PeerConnected
                && let Ok(connected) = PeerConnected::decode(&*reply.event)
            {
                missing.remove(&connected.peer_id);
            }
            missing.is_empty().then_some(())
        })
        .await?;
    }
    Ok(())
}

async fn large(mesh: &mut Mesh) -> Outcome {
    let spare = mesh.tolerances().allow(Tolerance::LargePayloads);
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    for (node, number) in nodes.iter().zip(1..) {
        let mut ears = circle.listen();
        let sizes = LARGE_BYTES.into_iter().zip(1..);
        for (bytes, rank) in sizes.take(if spare { LARGE_CARRIED } else { LARGE_BYTES.len() }) {
            let mut words = format!("{bytes} bytes of {}", node.name()).into_bytes();
            words.resize(bytes, b'.');
            let taken = node.send(&circle.group, words.clone()).await;
            if rank > LARGE_CARRIED
                && let Err(refusal) = &taken
                && refusal.last_code() == Some(ErrCode::ErrInvalidInput)
            {
                continue;
            }
            taken?;
            let wanted = BTreeSet::from([words]);
            futures::future::try_join_all(ears.iter_mut().map(|ear: &mut Ear| ear.hear_all(&wanted))).await?;
        }
        circle.talk(&format!("after the large ones of {number}"), 1).await?;
    }
    Ok(())
}

async fn out_of_store(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    let mut ears = circle.listen();
    for sender in &nodes {
        let words = format!("pushed by {}", sender.name()).into_bytes();
        let cid = sender.send(&circle.group, words.clone()).await?;
        let seal =
            api::out_of_store_seal::Request { cid: cid.clone(), group_public_key: circle.group.clone() };
        let sealed = sender.out_of_store_seal(seal).await?.encrypted;
        let wanted = BTreeSet::from([words.clone()]);
        futures::future::try_join_all(ears.iter_mut().map(|ear| ear.hear_all(&wanted))).await?;
        for node in nodes.iter().filter(|node| node.account != sender.account) {
            let opened = node
                .out_of_store_receive(api::out_of_store_receive::Request { payload: sealed.clone() })
                .await?;
            ensure(opened.group_public_key == circle.group, || {
                format!("{} names another group", node.name())
            })?;
            ensure(opened.message.as_ref().is_some_and(|message| message.cid == cid), || {
                format!("{} names another entry", node.name())
            })?;
            // The service gives the sealed form of what was sent: a message with the words in it.
            let plain = api::EncryptedMessage::decode(&*opened.cleartext).map(|message| message.plaintext);
            ensure(opened.cleartext == words || plain == Ok(words.clone()), || {
                format!("{} opens other words", node.name())
            })?;
            ensure(opened.already_received, || format!("{} says that it did not have it", node.name()))?;
        }
    }
    Ok(())
}
