//! Lists: their order, their ends, and that nothing is missing or twice in them (`spec/wesh-protocol.md` §8.6).

use std::collections::BTreeSet;

use dunlin_proto::protocol::{self as api, EventType};
use futures::future::try_join_all;

use super::{Scenario, scenario};
use crate::circle::{Circle, Ear, listed_once};
use crate::mesh::Mesh;
use crate::node::{Node, payload};
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, ensure, failed};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(
        "list-options",
        "each option of a list gives its part of the log, in order, and its end",
        1,
        false,
        options
    ),
    scenario!("event-lists", "events of an application are listed with the same options", 1, false, events),
    scenario!(
        "event-context",
        "what is listed names its entry, its parents and its sender",
        1,
        false,
        context
    ),
    scenario!("live-once", "every subscription gets every message of a burst once", 1, true, burst),
    scenario!("cancelled-streams", "streams that are dropped leave the node alone", 1, false, cancelled),
];

/// Streams that are dropped at once.
const DROPPED: usize = 64;
/// Messages of each node in a burst.
const BURST: usize = 100;

async fn options(mesh: &mut Mesh) -> Outcome {
    let any_order = mesh.tolerances().allow(Tolerance::ListOrder);
    let stays_open = mesh.tolerances().allow(Tolerance::UntilIdStaysOpen);
    for node in mesh.nodes() {
        let circle = Circle::make(std::slice::from_ref(&node)).await?;
        let mut ids = Vec::new();
        for number in 0..5 {
            ids.push(node.send(&circle.group, format!("m{number}")).await?);
        }
        let [_, first, _, third, _] = ids.as_slice() else { return failed("five messages were sent") };
        let base = api::group_message_list::Request { group_pk: circle.group.clone(), ..Default::default() };
        let all = api::group_message_list::Request { until_now: true, ..base.clone() };
        let back = api::group_message_list::Request { reverse_order: true, ..all.clone() };
        let since = api::group_message_list::Request { since_id: first.clone(), ..all.clone() };
        let until = api::group_message_list::Request { until_id: third.clone(), ..base.clone() };
        let within = api::group_message_list::Request { since_id: first.clone(), ..until.clone() };
        let within_back = api::group_message_list::Request { reverse_order: true, ..within.clone() };
        let cases: [(&str, api::group_message_list::Request, &[&str]); 6] = [
            ("until_now", all, &["m0", "m1", "m2", "m3", "m4"]),
            ("until_now, reverse_order", back, &["m4", "m3", "m2", "m1", "m0"]),
            ("since_id, until_now", since, &["m1", "m2", "m3", "m4"]),
            ("until_id", until, &["m0", "m1", "m2", "m3"]),
            ("since_id, until_id", within, &["m1", "m2", "m3"]),
            ("since_id, until_id, reverse_order", within_back, &["m3", "m2", "m1"]),
        ];
        for (what, request, expected) in cases {
            let has_id = !request.since_id.is_empty() || !request.until_id.is_empty();
            if any_order && has_id {
                continue;
            }
            let mut feed = node.group_message_list(request.clone());
            let listed = match stays_open && !request.until_id.is_empty() {
                true => feed.take(expected.len(), what).await?,
                false => feed.rest().await?,
            };
            let mut listed: Vec<_> = listed.iter().map(|event| words(&event.message)).collect();
            let mut expected: Vec<_> = expected.iter().map(|&word| word.to_owned()).collect();
            if any_order {
                listed.sort();
                expected.sort();
            }
            ensure(listed == expected, || {
                format!("{}: {what} gives {listed:?}, not {expected:?}", node.name())
            })?;
        }
        if !any_order {
            let request = api::group_message_list::Request {
                since_id: third.clone(),
                until_id: first.clone(),
                ..base.clone()
            };
            let refused = node.group_message_list(request).refusal().await;
            let code = refused.map(|refusal| refusal.codes()).unwrap_or_default();
            ensure(code.last() == Some(&101), || {
                format!("{}: since_id after until_id is refused with {code:?}, not 101", node.name())
            })?;
        }
        let now = api::group_message_list::Request { since_now: true, ..base };
        only_new(&node, &circle.group, now).await?;
    }
    Ok(())
}

/// A list since now gives what is sent after it was opened, and nothing older.
async fn only_new(node: &Node, group: &[u8], request: api::group_message_list::Request) -> Outcome {
    let mut feed = node.group_message_list(request);
    // Nothing tells when the node has begun to listen, so it is spoken to until it has heard something.
    let speaker = node.clone();
    let group = group.to_vec();
    let speaking = async {
        for number in 0.. {
            speaker.send(&group, format!("new {number}")).await?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Ok(())
    };
    let hearing = feed.find("a new message", |event| Some(words(&event.message)));
    let heard = tokio::select! {
        heard = hearing => heard?,
        spoken = speaking => return spoken,
    };
    ensure(heard.starts_with("new "), || format!("{}: since_now gives {heard:?}", node.name()))
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn events(mesh: &mut Mesh) -> Outcome {
    let any_order = mesh.tolerances().allow(Tolerance::ListOrder);
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    let mut ids = Vec::new();
    for node in &nodes {
        let payload = format!("event of {}", node.name()).into_bytes();
        let request = api::app_metadata_send::Request { group_pk: circle.group.clone(), payload };
        ids.push(node.app_metadata_send(request).await?.cid);
    }
    for node in &nodes {
        let mut missing: BTreeSet<_> = ids.iter().cloned().collect();
        let mut feed = node.follow_metadata(&circle.group);
        feed.find("the events of all", |event| {
            let sent: Option<api::GroupMetadataPayloadSent> =
                payload(&event, EventType::GroupMetadataPayloadSent);
            if sent.is_some_and(|sent| sent.message.starts_with(b"event of ")) {
                missing.remove(&event.event_context.unwrap_or_default().id);
            }
            missing.is_empty().then_some(())
        })
        .await?;
        let base = api::group_metadata_list::Request {
            group_pk: circle.group.clone(),
            until_now: true,
            ..Default::default()
        };
        let forward = node.group_metadata_list(base.clone()).rest().await?;
        let backward = api::group_metadata_list::Request { reverse_order: true, ..base };
        let backward = node.group_metadata_list(backward).rest().await?;
        let ids = |events: Vec<api::GroupMetadataEvent>| -> Vec<Vec<u8>> {
            events.into_iter().map(|event| event.event_context.unwrap_or_default().id).collect()
        };
        let (forward, mut backward) = (ids(forward), ids(backward));
        backward.reverse();
        ensure(forward == backward, || format!("{}: reverse_order is not the reverse order", node.name()))?;
        let once: BTreeSet<_> = forward.iter().collect();
        ensure(once.len() == forward.len(), || format!("{}: an event is listed twice", node.name()))?;
    }
    if !any_order {
        let mut orders = Vec::new();
        for node in &nodes {
            let events = node.all_metadata(&circle.group).await?;
            orders.push(
                events
                    .into_iter()
                    .map(|event| event.event_context.unwrap_or_default().id)
                    .collect::<Vec<_>>(),
            );
        }
        ensure(orders.windows(2).all(|pair| pair.first() == pair.last()), || {
            "two nodes list the same events in different orders".to_owned()
        })?;
    }
    Ok(())
}

async fn context(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    for sender in &circle.members {
        let first = sender.node.send(&circle.group, "1").await?;
        let second = sender.node.send(&circle.group, "2").await?;
        for hearer in &circle.members {
            let mut feed = hearer.node.follow_messages(&circle.group);
            let mut found = Vec::new();
            feed.find("both messages", |event| {
                let id = &event.event_context.as_ref()?.id;
                if *id == first || *id == second {
                    found.push(event);
                }
                (found.len() == 2).then_some(())
            })
            .await?;
            found.sort_by_key(|event| event.message.clone());
            for (event, is_first) in found.into_iter().zip([true, false]) {
                let context = event.event_context.unwrap_or_default();
                let headers = event.headers.unwrap_or_default();
                ensure(context.group_pk == circle.group, || {
                    format!("{}: another group", hearer.node.name())
                })?;
                ensure(headers.device_pk == sender.device, || {
                    format!("{} names another device than that of {}", hearer.node.name(), sender.node.name())
                })?;
                // What it follows is what its sender knew last, which need not be the message before.
                ensure(is_first || !context.parent_ids.is_empty(), || {
                    format!("{}: the second message follows nothing", hearer.node.name())
                })?;
            }
        }
    }
    for node in &nodes {
        for event in node.all_metadata(&circle.group).await? {
            ensure(event.event_context.is_some_and(|context| context.parent_ids.is_empty()), || {
                "an event of the group names parents".to_owned()
            })?;
        }
    }
    Ok(())
}

async fn burst(mesh: &mut Mesh) -> Outcome {
    let circle = Circle::make(&mesh.nodes()).await?;
    let mut ears = circle.listen();
    let speaking = try_join_all(circle.nodes().map(|node| {
        let group = &circle.group;
        async move {
            for number in 0..BURST {
                node.send(group, format!("{number} of {}", node.name())).await?;
            }
            Outcome::Ok(())
        }
    }));
    let all: BTreeSet<Vec<u8>> = circle
        .nodes()
        .flat_map(|node| (0..BURST).map(move |number| format!("{number} of {}", node.name()).into_bytes()))
        .collect();
    // These subscribe in the middle.
    let late = async {
        let mut late = Vec::new();
        for node in circle.nodes() {
            node.describe(&circle.group).await?;
            late.push(Ear::open(node, &circle.group));
        }
        Outcome::Ok(late)
    };
    let (spoken, late) = tokio::join!(speaking, late);
    spoken?;
    ears.extend(late?);
    try_join_all(ears.iter_mut().map(|ear| ear.hear_all(&all))).await?;
    let fence = circle.say("the end", 1).await?;
    try_join_all(ears.iter_mut().map(|ear| ear.hear_all(&fence))).await?;
    for node in circle.nodes() {
        listed_once(node, &circle.group, &all).await?;
    }
    Ok(())
}

async fn cancelled(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    for node in &nodes {
        for _ in 0..DROPPED {
            let mut feed = node.follow_metadata(&circle.group);
            feed.find("any event", |_| Some(())).await?;
            drop(node.follow_messages(&circle.group));
        }
    }
    circle.talk("after that", 1).await
}
