//! What a node says of itself, and the group of its own devices.

use std::collections::BTreeSet;

use dunlin_proto::protocol as api;
use prost::Message as _;

use super::{Scenario, scenario};
use crate::circle::Circle;
use crate::mesh::Mesh;
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, ensure};

pub const SCENARIOS: &[Scenario] = &[
    scenario!("configuration", "nodes say who they are, and are different ones", 1, true, configuration),
    scenario!("share-contact", "what a node shares decodes to its account, everywhere", 1, false, share),
    scenario!("account-messages", "messages in the own account group come and are listed", 1, false, account),
    scenario!(
        "network",
        "nodes list their peers, their groups and what is in a group's logs",
        1,
        false,
        network
    ),
];

/// Keys are raw.
const KEY_BYTES: usize = 32;

async fn configuration(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    for node in &nodes {
        for (what, key) in
            [("account", &node.account), ("device", &node.device), ("account group", &node.account_group)]
        {
            ensure(key.len() == KEY_BYTES, || {
                format!("{}: the key of its {what} has {} bytes", node.name(), key.len())
            })?;
        }
        ensure(node.account != node.device, || format!("{}: account and device have one key", node.name()))?;
        ensure(!node.peer_id.is_empty(), || format!("{} has no peer id", node.name()))?;
        ensure(!node.listeners.is_empty(), || format!("{} listens nowhere", node.name()))?;
        let group = node.describe(&node.account_group).await?.group.unwrap_or_default();
        ensure(group.group_type() == api::GroupType::Account, || {
            format!("{}: its account group is of type {:?}", node.name(), group.group_type())
        })?;
    }
    let accounts: BTreeSet<_> = nodes.iter().map(|node| &node.account).collect();
    ensure(accounts.len() == nodes.len(), || "two nodes have one account".to_owned())
}

async fn share(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    for node in &nodes {
        let contact = node.contact().await?;
        ensure(contact.pk == node.account, || format!("{} shares another account", node.name()))?;
        ensure(contact.public_rendezvous_seed.len() == KEY_BYTES, || {
            format!("{}: its seed has {} bytes", node.name(), contact.public_rendezvous_seed.len())
        })?;
        let reference = node.contact_request_reference(api::contact_request_reference::Request {}).await?;
        ensure(reference.enabled, || format!("{}: sharing does not enable requests", node.name()))?;
        ensure(reference.public_rendezvous_seed == contact.public_rendezvous_seed, || {
            format!("{}: what it shares and its reference differ", node.name())
        })?;
        for other in &nodes {
            let request = api::decode_contact::Request { encoded_contact: contact.encode_to_vec() };
            let decoded = other.decode_contact(request).await?.contact;
            ensure(decoded.as_ref() == Some(&contact), || {
                format!("{} decodes what {} shares to something else", other.name(), node.name())
            })?;
        }
    }
    Ok(())
}

async fn account(mesh: &mut Mesh) -> Outcome {
    for node in mesh.nodes() {
        let circle = Circle::open(&node.account_group, std::slice::from_ref(&node)).await?;
        circle.talk("note to self", 3).await?;
    }
    Ok(())
}

async fn network(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let circle = Circle::make(&nodes).await?;
    circle.talk("look at me", 1).await?;
    for node in &nodes {
        let peers = node.peer_list(api::peer_list::Request {}).await?.peers;
        for other in nodes.iter().filter(|other| other.account != node.account) {
            let listed = peers.iter().any(|peer| peer.id == other.peer_id && peer.is_active);
            ensure(listed, || format!("{} does not list {} as a connected peer", node.name(), other.name()))?;
        }
        let info = node.system_info(api::system_info::Request {}).await?;
        ensure(info.process.is_some(), || format!("{} tells nothing of its process", node.name()))?;
        let connected = info.p2p.unwrap_or_default().connected_peers;
        ensure(connected >= nodes.len() as i64 - 1, || format!("{} counts {connected} peers", node.name()))?;
        let groups = node.debug_list_groups(api::debug_list_groups::Request {}).rest().await?;
        for (group, kind) in
            [(&node.account_group, api::GroupType::Account), (&circle.group, api::GroupType::MultiMember)]
        {
            ensure(
                groups.iter().any(|listed| listed.group_pk == *group && listed.group_type() == kind),
                || format!("{} does not list a group of type {kind:?}", node.name()),
            )?;
        }
        for log_type in [api::DebugInspectGroupLogType::Message, api::DebugInspectGroupLogType::Metadata] {
            let request = api::debug_inspect_group_store::Request {
                group_pk: circle.group.clone(),
                log_type: log_type.into(),
            };
            let entries = node.debug_inspect_group_store(request).rest().await?;
            ensure(
                entries.len() >= nodes.len() && entries.iter().all(|entry| !entry.cid.is_empty()),
                || format!("{}: {} entries in its {log_type:?} log", node.name(), entries.len()),
            )?;
        }
        let filter = api::verified_credentials_list::Request::default();
        node.verified_credentials_list(filter).rest().await?;
        if !mesh.tolerances().allow(Tolerance::DebugGroupEmpty) {
            let request = api::debug_group::Request { group_pk: circle.group.clone() };
            let count = node.debug_group(request).await?.peer_ids.len();
            ensure(count + 1 >= nodes.len(), || format!("{}: {count} peers in the group", node.name()))?;
        }
    }
    Ok(())
}
