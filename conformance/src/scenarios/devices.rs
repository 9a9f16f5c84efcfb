//! Several devices of one account, by export and import.

use dunlin_proto::protocol::{self as api, EventType};

use super::contacts::befriend;
use super::{Scenario, scenario};
use crate::circle::{Circle, listed_once};
use crate::mesh::Mesh;
use crate::node::payload;
use crate::trouble::{Outcome, ensure, failed};

pub const SCENARIOS: &[Scenario] = &[scenario!(
    "second-device",
    "a node with the export of another is a second device of its account",
    2,
    false,
    second
)];

async fn second(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let [first, friend, ..] = nodes.as_slice() else { return failed("two nodes are needed") };
    befriend(friend, first).await?;
    let circle = Circle::make(&[first.clone(), friend.clone()]).await?;
    circle.talk("before", 1).await?;
    let history = circle.say("history", 2).await?;
    let archive = first.service_export_data(api::service_export_data::Request {}).rest().await?;
    let archive: Vec<u8> = archive.into_iter().flat_map(|part| part.exported_data).collect();

    let second = mesh.guest_with(&archive).await?;
    let second = mesh.node(second)?;

    ensure(second.account == first.account, || format!("{} has another account", second.name()))?;
    ensure(second.device != first.device, || format!("{} is the same device", second.name()))?;
    let mut feed = second.follow_metadata(&second.account_group);
    feed.find("the group among those joined", |event| {
        let joined: api::AccountGroupJoined = payload(&event, EventType::AccountGroupJoined)?;
        (joined.group?.public_key == circle.group).then_some(())
    })
    .await?;
    let all = [first.clone(), friend.clone(), second.clone()];
    let three = Circle::open(&circle.group, &all).await?;
    three.talk("three devices", 2).await?;
    listed_once(&second, &circle.group, &history).await?;
    // What one device does, the other one sees.
    let created = second.multi_member_group_create(api::multi_member_group_create::Request {}).await?;
    let mut feed = first.follow_metadata(&first.account_group);
    feed.find("the group that the second device made", |event| {
        let joined: api::AccountGroupJoined = payload(&event, EventType::AccountGroupJoined)?;
        (joined.group?.public_key == created.group_pk).then_some(())
    })
    .await?;
    Circle::open(&created.group_pk, &[first.clone(), second.clone()])
        .await?
        .talk("between devices", 1)
        .await?;
    let pair = first.describe_contact(&friend.account).await?;
    let pair = pair.group.map(|group| group.public_key).unwrap_or_default();
    Circle::open(&pair, &all).await?.talk("a contact of three devices", 1).await
}
