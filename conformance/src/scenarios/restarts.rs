//! What a node keeps when it ends, and how it catches up.

use std::collections::BTreeSet;

use dunlin_proto::errcode::ErrCode;
use dunlin_proto::protocol as api;

use super::contacts::{befriend, refused};
use super::{Scenario, scenario};
use crate::circle::{Circle, Ear, listed_once};
use crate::mesh::{End, Mesh, Seat};
use crate::node::Node;
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, ensure, failed, left_out};

pub const SCENARIOS: &[Scenario] = &[
    scenario!("restart", "a node that ends and starts is who it was, and has what it had", 1, true, restart),
    scenario!(
        "newest-decides",
        "what was left, blocked, disabled and reset stays so after a restart",
        2,
        false,
        newest
    ),
    scenario!(
        "offline",
        "what is sent while the other is away arrives when it is back, both ways",
        2,
        false,
        offline
    ),
    scenario!("partition", "both sides of a partition write, and agree when it heals", 2, true, partition),
    scenario!(
        "kill-in-burst",
        "a kill in a burst of messages loses nothing that was taken, and doubles nothing",
        1,
        false,
        kill
    ),
];

/// Messages of the burst in which a node is killed.
const BURST: usize = 1000;
/// How many of them are taken before the kill.
const BEFORE_KILL: usize = 400;
/// Callers that send at the same time.
const CALLERS: usize = 8;

async fn restart(mesh: &mut Mesh) -> Outcome {
    let seats = mesh.seats();
    mesh.can_restart(&seats)?;
    let circle = Circle::make(&mesh.nodes()).await?;
    circle.talk("before", 3).await?;
    for seat in seats {
        let before = mesh.node(seat)?;
        let listed = in_order(&before, &circle.group).await?;
        let after = mesh.restart(seat, End::Stop).await?;
        ensure(before.account == after.account && before.device == after.device, || {
            format!("{} is somebody else after a restart", after.name())
        })?;
        ensure(before.peer_id == after.peer_id, || {
            format!("{} has another peer id after a restart", after.name())
        })?;
        after.activate(&circle.group).await?;
        let kept = in_order(&after, &circle.group).await?;
        let same = match mesh.tolerances().allow(Tolerance::ListOrder) {
            true => kept.iter().collect::<BTreeSet<_>>() == listed.iter().collect(),
            false => kept == listed,
        };
        ensure(same, || {
            format!("{} lists {} messages, and after a restart {}", after.name(), listed.len(), kept.len())
        })?;
        Circle::open(&circle.group, &mesh.nodes()).await?.talk(&format!("after {}", after.name()), 1).await?;
    }
    Ok(())
}

async fn in_order(node: &Node, group: &[u8]) -> Outcome<Vec<Vec<u8>>> {
    Ok(node
        .all_messages(group)
        .await?
        .into_iter()
        .map(|event| event.event_context.unwrap_or_default().id)
        .collect())
}

async fn newest(mesh: &mut Mesh) -> Outcome {
    let seats = mesh.seats();
    mesh.can_restart(&seats)?;
    if mesh.tolerances().allow(Tolerance::RestartForgets) {
        return left_out("what a restart forgets is let pass");
    }
    for seat in seats {
        let node = mesh.node(seat)?;
        let nodes = mesh.nodes();
        let Some(other) = nodes.iter().find(|other| other.account != node.account) else {
            return failed("two nodes are needed");
        };
        befriend(other, &node).await?;
        let group = Circle::make(std::slice::from_ref(&node)).await?.group;
        let leave = api::multi_member_group_leave::Request { group_pk: group.clone() };
        node.multi_member_group_leave(leave.clone()).await?;
        let block = api::contact_block::Request { contact_pk: other.account.clone() };
        node.contact_block(block.clone()).await?;
        let reset =
            node.contact_request_reset_reference(api::contact_request_reset_reference::Request {}).await?;
        node.contact_request_disable(api::contact_request_disable::Request {}).await?;

        let node = mesh.restart(seat, End::Stop).await?;

        refused(node.multi_member_group_leave(leave).await, ErrCode::ErrInvalidInput)?;
        refused(node.contact_block(block).await, ErrCode::ErrInvalidInput)?;
        let reference = node.contact_request_reference(api::contact_request_reference::Request {}).await?;
        ensure(!reference.enabled, || format!("{} takes requests again after a restart", node.name()))?;
        let enabled = node.contact_request_enable(api::contact_request_enable::Request {}).await?;
        ensure(enabled.public_rendezvous_seed == reset.public_rendezvous_seed, || {
            format!("{} has an old reference after a restart", node.name())
        })?;
        let unblock = api::contact_unblock::Request { contact_pk: other.account.clone() };
        node.contact_unblock(unblock).await?;
        let contact = Some(other.contact().await?);
        node.contact_request_send(api::contact_request_send::Request { contact, own_metadata: Vec::new() })
            .await?;
    }
    Ok(())
}

async fn offline(mesh: &mut Mesh) -> Outcome {
    let seats = mesh.seats();
    let [first, second, ..] = seats.as_slice() else { return failed("two nodes are needed") };
    mesh.can_restart(&[*first, *second])?;
    let circle = Circle::make(&[mesh.node(*first)?, mesh.node(*second)?]).await?;
    let group = circle.group.clone();
    circle.talk("both here", 1).await?;
    let mut all = BTreeSet::new();
    for (away, here) in [(second, first), (first, second), (second, first)] {
        mesh.end(*away, End::Stop).await?;
        let writer = mesh.node(*here)?;
        let mut said = BTreeSet::new();
        for number in 0..5 {
            let words =
                format!("{number} of {} while the other is away, {}", writer.name(), all.len()).into_bytes();
            writer.send(&group, words.clone()).await?;
            said.insert(words);
        }
        mesh.start(*away).await?;
        let back = mesh.node(*away)?;
        back.activate(&group).await?;
        Ear::open(&back, &group).hear_all(&said).await?;
        all.extend(said);
    }
    for seat in [first, second] {
        listed_once(&mesh.node(*seat)?, &group, &all).await?;
    }
    Circle::open(&group, &[mesh.node(*first)?, mesh.node(*second)?]).await?.talk("both again", 1).await
}

async fn partition(mesh: &mut Mesh) -> Outcome {
    let seats = mesh.seats();
    mesh.can_restart(&seats)?;
    // One that starts alone is cut off: the others do not know where it listens now.
    let Some((cut, connected)) = seats.split_last() else { return failed("two nodes are needed") };
    mesh.can_start_alone(*cut)?;
    let circle = Circle::make(&mesh.nodes()).await?;
    let group = circle.group.clone();
    circle.talk("before", 1).await?;
    mesh.end(*cut, End::Stop).await?;
    mesh.start_alone(*cut).await?;
    let alone = mesh.node(*cut)?;
    alone.activate(&group).await?;
    let alone_with = alone.peer_list(api::peer_list::Request {}).await?.peers.len();
    ensure(alone_with == 0, || format!("{} started alone and has {alone_with} peers", alone.name()))?;
    let mut said = BTreeSet::new();
    for number in 0..5 {
        for seat in &seats {
            let node = mesh.node(*seat)?;
            let words = format!("{number} of {} in the partition", node.name()).into_bytes();
            node.send(&group, words.clone()).await?;
            said.insert(words);
        }
    }
    mesh.restart(*cut, End::Stop).await?;
    for seat in connected.iter().chain([cut]) {
        let node = mesh.node(*seat)?;
        node.activate(&group).await?;
        Ear::open(&node, &group).hear_all(&said).await?;
        listed_once(&node, &group, &said).await?;
    }
    Circle::open(&group, &mesh.nodes()).await?.talk("healed", 1).await?;
    if mesh.tolerances().allow(Tolerance::ListOrder) {
        return Ok(());
    }
    let mut orders = Vec::new();
    for node in mesh.nodes() {
        orders.push(in_order(&node, &group).await?);
    }
    ensure(orders.windows(2).all(|pair| pair.first() == pair.last()), || {
        "after the partition two nodes list the messages in different orders".to_owned()
    })
}

async fn kill(mesh: &mut Mesh) -> Outcome {
    for seat in mesh.seats() {
        if mesh.can_restart(&[seat]).is_ok() {
            kill_one(mesh, seat).await?;
        }
    }
    mesh.can_restart(&mesh.seats())
}

async fn kill_one(mesh: &mut Mesh, seat: Seat) -> Outcome {
    let circle = Circle::make(&mesh.nodes()).await?;
    let group = circle.group.clone();
    let node = mesh.node(seat)?;
    let words = |number: usize| format!("burst {number}").into_bytes();
    let (taken_now, mut taken_later) = tokio::sync::mpsc::unbounded_channel();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (node, group, taken) = (node.clone(), group.clone(), taken_now.clone());
        callers.spawn(async move {
            for number in (0..BURST).filter(|number| number % CALLERS == caller) {
                if node.send(&group, words(number)).await.is_err() || taken.send(number).is_err() {
                    break;
                }
            }
        });
    }
    drop(taken_now);
    let mut taken = BTreeSet::new();
    while taken.len() < BEFORE_KILL
        && let Some(number) = taken_later.recv().await
    {
        taken.insert(number);
    }
    mesh.end(seat, End::Kill).await?;
    callers.join_all().await;
    while let Some(number) = taken_later.recv().await {
        taken.insert(number);
    }
    mesh.start(seat).await?;
    let node = mesh.node(seat)?;
    node.activate(&group).await?;
    let kept: BTreeSet<_> = node.all_messages(&group).await?.into_iter().map(|event| event.message).collect();
    let lost: Vec<_> = taken.iter().filter(|number| !kept.contains(&words(**number))).collect();
    ensure(lost.is_empty(), || {
        format!("{} lost {} of {} messages that it took: {lost:?}", node.name(), lost.len(), taken.len())
    })?;
    // What was under way when it was killed may be there or not; it is not sent again.
    for number in (0..BURST).filter(|number| !kept.contains(&words(*number))) {
        node.send(&group, words(number)).await?;
    }
    let all: BTreeSet<_> = (0..BURST).map(words).collect();
    for node in mesh.nodes() {
        Ear::open(&node, &group).hear_all(&all).await?;
        listed_once(&node, &group, &all).await?;
    }
    Ok(())
}
