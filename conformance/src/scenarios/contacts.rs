//! Contacts: requests, and the groups of two.

use dunlin_proto::errcode::ErrCode;
use dunlin_proto::protocol::{self as api, EventType};

use super::{Scenario, scenario};
use crate::circle::Circle;
use crate::mesh::Mesh;
use crate::node::{Called, Node, payload};
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, ensure, failed, left_out};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(
        "contact-request",
        "a request arrives with its metadata, is answered once, and opens the group",
        2,
        false,
        flow
    ),
    scenario!("add-contacts", "all pairs become contacts by request and acceptance", 2, true, add_all),
    scenario!("contact-messages", "messages between all pairs of contacts arrive", 2, true, talk),
    scenario!("request-without-own", "one who takes no requests can make one", 1, false, without_own),
    scenario!(
        "request-discarded",
        "who is discarded is not told, and cannot be accepted any more",
        1,
        false,
        discarded
    ),
    scenario!("requests-cross", "two who ask each other become contacts without an answer", 1, false, cross),
    scenario!("request-waits", "a request waits for one who allows requests later", 1, false, waits),
    scenario!(
        "reference",
        "requests are disabled and enabled with one reference, and reset to another",
        1,
        false,
        reference
    ),
    scenario!("block", "a contact is blocked once, unblocked once, and heard again", 2, false, block),
    scenario!(
        "reactivate-contact",
        "a contact group that was closed and opened is as before",
        2,
        false,
        reactivate
    ),
    scenario!(
        "race-reactivate-contact",
        "so is one that is closed and opened at the same time",
        2,
        false,
        race
    ),
    scenario!(
        "reactivate-account",
        "an account group that was closed and opened takes part again",
        1,
        false,
        reactivate_account
    ),
    scenario!(
        "race-reactivate-account",
        "so does one that is closed and opened at the same time",
        1,
        false,
        race_account
    ),
];

/// How often a group is closed and opened at the same time.
const RACES: usize = 10;

async fn flow(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let [alice, bob, ..] = nodes.as_slice() else { return failed("two nodes are needed") };
    alice.contact_request_enable(api::contact_request_enable::Request {}).await?;
    bob.contact_request_enable(api::contact_request_enable::Request {}).await?;
    let reset = bob.contact_request_reset_reference(api::contact_request_reset_reference::Request {}).await?;
    let contact = api::ShareableContact {
        pk: bob.account.clone(),
        public_rendezvous_seed: reset.public_rendezvous_seed,
        ..Default::default()
    };
    let request = api::contact_request_send::Request {
        contact: Some(contact.clone()),
        own_metadata: b"sender 1".to_vec(),
    };
    if let Err(refusal) = alice.contact_request_send(request.clone()).await {
        return match refusal.last_code() {
            Some(ErrCode::ErrContactRequestContactAlreadyAdded) => left_out("these two are contacts already"),
            _ => Err(refusal.into()),
        };
    }
    let received = received(bob, &alice.account).await?;
    ensure(received.contact_metadata == b"sender 1", || {
        "the metadata of the sender are not there".to_owned()
    })?;
    sent(alice, &bob.account).await?;

    let accept = |contact_pk: &[u8]| api::contact_request_accept::Request { contact_pk: contact_pk.to_vec() };
    for (who, whom) in [(alice, alice), (alice, bob), (bob, bob)] {
        refused(who.contact_request_accept(accept(&whom.account)).await, ErrCode::ErrInvalidInput)?;
    }
    bob.contact_request_accept(accept(&alice.account)).await?;
    refused(bob.contact_request_accept(accept(&alice.account)).await, ErrCode::ErrInvalidInput)?;
    let circle = Circle::of_contacts(alice, bob).await?;
    circle.talk("first words", 1).await?;
    refused(alice.contact_request_send(request).await, ErrCode::ErrContactRequestContactAlreadyAdded)
}

async fn without_own(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let guest = mesh.guest().await?;
    let guest = mesh.node(guest)?;
    let own = guest.contact_request_reference(api::contact_request_reference::Request {}).await?;
    if own.enabled {
        guest.contact_request_disable(api::contact_request_disable::Request {}).await?;
    }
    for node in &nodes {
        befriend(&guest, node).await?;
        Circle::of_contacts(&guest, node).await?.talk("without a reference of mine", 1).await?;
    }
    Ok(())
}

async fn discarded(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let guest = mesh.guest().await?;
    let guest = mesh.node(guest)?;
    for node in &nodes {
        ask(&guest, node).await?;
        discard(node, &guest).await?;
        sent(&guest, &node.account).await?;
        let accept = api::contact_request_accept::Request { contact_pk: guest.account.clone() };
        refused(node.contact_request_accept(accept).await, ErrCode::ErrInvalidInput)?;
        let discard = api::contact_request_discard::Request { contact_pk: guest.account.clone() };
        refused(node.contact_request_discard(discard).await, ErrCode::ErrInvalidInput)?;
    }
    Ok(())
}

async fn cross(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let guest = mesh.guest().await?;
    let guest = mesh.node(guest)?;
    for node in &nodes {
        let (to_node, to_guest) = (node.contact().await?, guest.contact().await?);
        let request =
            |contact| api::contact_request_send::Request { contact: Some(contact), own_metadata: Vec::new() };
        let (there, back) = tokio::join!(
            guest.contact_request_send(request(to_node)),
            node.contact_request_send(request(to_guest))
        );
        there?;
        // The other's request may have arrived before this one was made, which then answers it.
        match back {
            Err(refusal) if refusal.last_code() != Some(ErrCode::ErrContactRequestContactAlreadyAdded) => {
                return Err(refusal.into());
            }
            _ => {}
        }
        for (who, whom) in [(&guest, node), (node, &guest)] {
            sent(who, &whom.account).await?;
        }
        Circle::of_contacts(&guest, node).await?.talk("at once", 1).await?;
    }
    Ok(())
}

async fn waits(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let guest = mesh.guest().await?;
    let guest = mesh.node(guest)?;
    for node in &nodes {
        let contact = node.contact().await?;
        node.contact_request_disable(api::contact_request_disable::Request {}).await?;
        let request =
            api::contact_request_send::Request { contact: Some(contact), own_metadata: b"later".to_vec() };
        let asked = guest.contact_request_send(request).await;
        node.contact_request_enable(api::contact_request_enable::Request {}).await?;
        asked?;
        accept(node, &guest).await?;
        sent(&guest, &node.account).await?;
    }
    Ok(())
}

async fn reference(mesh: &mut Mesh) -> Outcome {
    for node in mesh.nodes() {
        let now = async || node.contact_request_reference(api::contact_request_reference::Request {}).await;
        let first = node.contact().await?.public_rendezvous_seed;
        node.contact_request_disable(api::contact_request_disable::Request {}).await?;
        ensure(!now().await?.enabled, || format!("{}: requests are not disabled", node.name()))?;
        let enabled = node.contact_request_enable(api::contact_request_enable::Request {}).await?;
        ensure(enabled.public_rendezvous_seed == first, || {
            format!("{}: enabling changes the reference", node.name())
        })?;
        let reset =
            node.contact_request_reset_reference(api::contact_request_reset_reference::Request {}).await?;
        let second = reset.public_rendezvous_seed;
        ensure(second.len() == 32 && second != first, || {
            format!("{}: a reset gives no new reference", node.name())
        })?;
        let now = now().await?;
        ensure(now.enabled && now.public_rendezvous_seed == second, || {
            format!("{}: the reference is not the one that was reset to", node.name())
        })?;
        let shared = node.contact().await?;
        ensure(shared.public_rendezvous_seed == second, || {
            format!("{} shares an old reference", node.name())
        })?;
    }
    Ok(())
}

async fn block(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let [alice, bob, ..] = nodes.as_slice() else { return failed("two nodes are needed") };
    befriend(alice, bob).await?;
    let circle = Circle::of_contacts(alice, bob).await?;
    circle.talk("before", 1).await?;
    for (who, whom) in [(alice, bob), (bob, alice)] {
        let block = api::contact_block::Request { contact_pk: whom.account.clone() };
        let unblock = api::contact_unblock::Request { contact_pk: whom.account.clone() };
        who.contact_block(block.clone()).await?;
        refused(who.contact_block(block).await, ErrCode::ErrInvalidInput)?;
        who.contact_unblock(unblock.clone()).await?;
        refused(who.contact_unblock(unblock).await, ErrCode::ErrInvalidInput)?;
    }
    // To unblock is to remove: asking again makes contacts of them at once.
    for (who, whom) in [(alice, bob), (bob, alice)] {
        let request = api::contact_request_send::Request {
            contact: Some(whom.contact().await?),
            own_metadata: Vec::new(),
        };
        who.contact_request_send(request).await?;
    }
    Circle::of_contacts(alice, bob).await?.talk("after", 1).await
}

async fn reactivate(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let [alice, bob, ..] = nodes.as_slice() else { return failed("two nodes are needed") };
    befriend(alice, bob).await?;
    let circle = Circle::of_contacts(alice, bob).await?;
    circle.talk("before it was closed", 1).await?;
    for node in [alice, bob] {
        node.deactivate(&circle.group).await?;
        refused(node.send(&circle.group, "into a closed group").await, ErrCode::ErrGroupUnknown)?;
        node.activate(&circle.group).await?;
        circle.talk(&format!("after {} closed it", node.name()), 1).await?;
    }
    Ok(())
}

async fn race(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let [alice, bob, ..] = nodes.as_slice() else { return failed("two nodes are needed") };
    befriend(alice, bob).await?;
    let circle = Circle::of_contacts(alice, bob).await?;
    race_group(&circle, alice).await
}

/// Closes and opens a group at the same time, again and again; it then works as before.
pub async fn race_group(circle: &Circle, node: &Node) -> Outcome {
    for _ in 0..RACES {
        let (closed, opened) = tokio::join!(node.deactivate(&circle.group), node.activate(&circle.group));
        closed?;
        opened?;
    }
    node.activate(&circle.group).await?;
    circle.talk(&format!("after the race at {}", node.name()), 1).await
}

async fn reactivate_account(mesh: &mut Mesh) -> Outcome {
    let crashes = mesh.tolerances().allow(Tolerance::CallsThatCrash);
    let nodes = mesh.nodes();
    for node in &nodes {
        let own = Circle::open(&node.account_group, std::slice::from_ref(node)).await?;
        own.talk("before it was closed", 1).await?;
        node.deactivate(&node.account_group).await?;
        refused(node.send(&node.account_group, "closed").await, ErrCode::ErrGroupUnknown)?;
        let enable = node.contact_request_enable(api::contact_request_enable::Request {}).await;
        refused(enable, ErrCode::ErrGroupMissing)?;
        let create = node.multi_member_group_create(api::multi_member_group_create::Request {}).await;
        refused(create, ErrCode::ErrGroupMissing)?;
        if !crashes {
            let block = api::contact_block::Request { contact_pk: node.device.clone() };
            refused(node.contact_block(block).await, ErrCode::ErrGroupMissing)?;
        }
        node.activate(&node.account_group).await?;
        own.talk("after it was closed", 1).await?;
    }
    if !mesh.has_guests() {
        return Ok(());
    }
    let guest = mesh.guest().await?;
    let guest = mesh.node(guest)?;
    for node in &nodes {
        befriend(&guest, node).await?;
        Circle::of_contacts(&guest, node).await?.talk("after it was closed", 1).await?;
    }
    Ok(())
}

async fn race_account(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    for node in &nodes {
        let own = Circle::open(&node.account_group, std::slice::from_ref(node)).await?;
        race_group(&own, node).await?;
    }
    if !mesh.has_guests() {
        return Ok(());
    }
    let guest = mesh.guest().await?;
    let guest = mesh.node(guest)?;
    for node in &nodes {
        befriend(&guest, node).await?;
        Circle::of_contacts(&guest, node).await?.talk("after the race", 1).await?;
    }
    Ok(())
}

/// Sees to it that a call was refused, and how.
pub fn refused<T>(answer: Called<T>, code: ErrCode) -> Outcome {
    match answer {
        Ok(_) => failed(format!("a call was taken that had to be refused with {}", code as i32)),
        Err(refusal) if refusal.last_code() == Some(code) => Ok(()),
        Err(refusal) => failed(format!("not {}, but {refusal}", code as i32)),
    }
}

/// Sends a request.
async fn ask(alice: &Node, bob: &Node) -> Called<()> {
    let contact = bob.contact_of().await?;
    let own_metadata = format!("I am {}", alice.name()).into_bytes();
    let request = api::contact_request_send::Request { contact, own_metadata };
    alice.contact_request_send(request).await.map(|_| ())
}

/// Waits for the request of an account.
async fn received(node: &Node, from: &[u8]) -> Outcome<api::AccountContactRequestIncomingReceived> {
    let mut feed = node.follow_metadata(&node.account_group);
    feed.find("the contact request", |event| {
        let received: api::AccountContactRequestIncomingReceived =
            payload(&event, EventType::AccountContactRequestIncomingReceived)?;
        (received.contact_pk == from).then_some(received)
    })
    .await
}

/// Waits until a request is handed over.
async fn sent(node: &Node, to: &[u8]) -> Outcome {
    let mut feed = node.follow_metadata(&node.account_group);
    feed.find("the contact request as sent", |event| {
        let sent: api::AccountContactRequestOutgoingSent =
            payload(&event, EventType::AccountContactRequestOutgoingSent)?;
        (sent.contact_pk == to).then_some(())
    })
    .await
}

async fn add_all(mesh: &mut Mesh) -> Outcome {
    for (alice, bob) in pairs(&mesh.nodes()) {
        befriend(&alice, &bob).await?;
    }
    Ok(())
}

async fn talk(mesh: &mut Mesh) -> Outcome {
    for (alice, bob) in pairs(&mesh.nodes()) {
        befriend(&alice, &bob).await?;
        Circle::of_contacts(&alice, &bob).await?.talk("between us", 3).await?;
    }
    Ok(())
}

/// All pairs; who asks and who is asked alternates.
fn pairs(nodes: &[Node]) -> Vec<(Node, Node)> {
    let mut pairs = Vec::new();
    let mut left = nodes;
    while let [alice, others @ ..] = left {
        left = others;
        for bob in others {
            pairs.push(match pairs.len() % 2 {
                0 => (alice.clone(), bob.clone()),
                _ => (bob.clone(), alice.clone()),
            });
        }
    }
    pairs
}

/// Makes contacts of two accounts, unless they are: the first asks, the second accepts.
pub async fn befriend(alice: &Node, bob: &Node) -> Outcome {
    // The log of one tells it, also where the other has forgotten it.
    if bob.all_metadata(&bob.account_group).await?.iter().any(|event| is_added(event, &alice.account)) {
        return Ok(());
    }
    match ask(alice, bob).await {
        Ok(()) => {}
        Err(refusal) if refusal.last_code() == Some(ErrCode::ErrContactRequestContactAlreadyAdded) => {
            // Asked before; whether that was answered, is not told.
            let accept = api::contact_request_accept::Request { contact_pk: alice.account.clone() };
            let _ = bob.contact_request_accept(accept).await;
            return Ok(());
        }
        Err(refusal) => return Err(refusal.into()),
    }
    accept(bob, alice).await?;
    sent(alice, &bob.account).await?;
    let mut feed = bob.follow_metadata(&bob.account_group);
    feed.find("the contact request as accepted", |event| {
        let accepted: api::AccountContactRequestIncomingAccepted =
            payload(&event, EventType::AccountContactRequestIncomingAccepted)?;
        (accepted.contact_pk == alice.account).then_some(())
    })
    .await
}

/// Whether an event makes a contact of an account.
fn is_added(event: &api::GroupMetadataEvent, account: &[u8]) -> bool {
    let sent: Option<api::AccountContactRequestOutgoingSent> =
        payload(event, EventType::AccountContactRequestOutgoingSent);
    let accepted: Option<api::AccountContactRequestIncomingAccepted> =
        payload(event, EventType::AccountContactRequestIncomingAccepted);
    sent.is_some_and(|sent| sent.contact_pk == account)
        || accepted.is_some_and(|accepted| accepted.contact_pk == account)
}

/// Accepts a request as soon as it has arrived.
async fn accept(node: &Node, from: &Node) -> Outcome {
    let accept = async || {
        let request = api::contact_request_accept::Request { contact_pk: from.account.clone() };
        node.contact_request_accept(request).await.map_err(|refusal| refusal.to_string())
    };
    node.patience().until(&format!("the request of {} to be there", from.name()), accept).await?;
    Ok(())
}

/// Discards a request as soon as it has arrived.
async fn discard(node: &Node, from: &Node) -> Outcome {
    let discard = async || {
        let request = api::contact_request_discard::Request { contact_pk: from.account.clone() };
        node.contact_request_discard(request).await.map_err(|refusal| refusal.to_string())
    };
    node.patience().until(&format!("the request of {} to be there", from.name()), discard).await?;
    Ok(())
}
