//! Comparing the index of a group with a state that weshnet computed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use dunlin_base::kv::Read;
use dunlin_proto::protocol;
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::metadata::Index;
use prost::Message;
use serde_json::{Map, Value, json};

use crate::json::equal;
use crate::wesh_parts::contact_group_hex;

/// Where the state that is expected differs from the recorded one.
#[derive(Debug, Default)]
pub struct Expected {
    /// Items that are empty or false with us.
    pub left_out: BTreeSet<&'static str>,
    /// Items that are not compared.
    pub not_compared: BTreeSet<&'static str>,
}

/// Compares the whole state.
///
/// # Errors
/// Says which item differs.
pub fn same_state(
    index: &Index,
    read: &dyn Read,
    keys: &AccountKeys,
    recorded: &Value,
    expected: &Expected,
) -> Result<(), String> {
    let got = state(index, read, keys)?;
    let recorded = recorded.as_object().ok_or("no state")?;
    // Left by the producer: what its own update failed with.
    let items = recorded.keys().filter(|item| !item.starts_with("update"));
    let items: BTreeSet<&str> = items.chain(got.keys()).map(String::as_str).collect();
    for item in items {
        if expected.not_compared.contains(item) {
            continue;
        }
        let wanted = if expected.left_out.contains(item) {
            match recorded.get(item) {
                Some(Value::Array(_)) => Some(json!([])),
                Some(Value::Bool(_)) => Some(json!(false)),
                _ => None,
            }
        } else {
            recorded.get(item).cloned()
        };
        equal(item, got.get(item), wanted.as_ref())?;
    }
    Ok(())
}

/// The state as the files write it.
fn state(index: &Index, read: &dyn Read, keys: &AccountKeys) -> Result<Map<String, Value>, String> {
    let told = |error: dunlin_base::kv::ReadError| error.to_string();
    let mut state = Map::new();
    let initial = index.initial_members(read).map_err(told)?;
    state.insert("admins".into(), initial.iter().map(ToString::to_string).collect());
    state.insert("contact_requests_enabled".into(), index.requests_enabled(read).map_err(told)?.into());
    if let Some(seed) = index.seed(read).map_err(told)? {
        state.insert("contact_request_seed".into(), hex::encode(seed).into());
    }
    state.insert("contacts".into(), contacts(index, read, keys)?);
    let credentials = index.credentials(read).map_err(told)?;
    state.insert("credentials".into(), credentials.into_iter().map(|known| known.identifier).collect());
    state.insert("groups".into(), groups(index, read)?);
    state.insert("members".into(), members(index, read)?);
    state.insert("own_alias_key_sent".into(), index.own_alias_sent(read).map_err(told)?.into());
    if let Some(alias) = index.other_alias(read).map_err(told)? {
        state.insert("other_alias_key".into(), hex::encode(alias).into());
    }
    let served = index.served(read).map_err(told)?;
    state.insert("secrets_sent_to".into(), served.iter().map(ToString::to_string).collect());
    Ok(state)
}

/// The members with their devices, as the files write them.
///
/// # Errors
/// When the index cannot be read.
pub fn members(index: &Index, read: &dyn Read) -> Result<Value, String> {
    let mut members = Vec::new();
    for member in index.members(read).map_err(|error| error.to_string())? {
        let devices = index.devices_of(read, &member).map_err(|error| error.to_string())?;
        let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
        members.push(json!({ "devices": devices, "pk": member.to_string() }));
    }
    Ok(members.into())
}

fn groups(index: &Index, read: &dyn Read) -> Result<Value, String> {
    let mut groups = Vec::new();
    let mut visit = |id: dunlin_base::GroupId, group: Option<dunlin_wesh::group::Group>| {
        groups.push(match group {
            Some(group) => {
                let message = data_encoding::BASE64.encode(&group.to_proto().encode_to_vec());
                json!({ "group": message, "pk": id.to_string(), "state": "joined" })
            }
            None => json!({ "pk": id.to_string(), "state": "left" }),
        });
        ControlFlow::Continue(())
    };
    index.groups(read, &mut visit).map_err(|error| error.to_string())?;
    Ok(groups.into())
}

fn contacts(index: &Index, read: &dyn Read, keys: &AccountKeys) -> Result<Value, String> {
    let mut records = Vec::new();
    let mut visit = |record| {
        records.push(record);
        ControlFlow::Continue(())
    };
    index.contacts(read, &mut visit).map_err(|error| error.to_string())?;
    let mut contacts = Vec::new();
    for record in records {
        let mut contact = Map::new();
        let account = record.contact.account;
        contact.insert("group_pk".into(), contact_group_hex(keys, &account)?.into());
        contact.insert("pk".into(), account.to_string().into());
        let state = protocol::ContactState::from(record.state);
        contact.insert("state".into(), (state as i32).into());
        contact.insert("state_name".into(), state.as_str_name().into());
        if let Some(seed) = record.contact.seed {
            contact.insert("rendezvous_seed".into(), hex::encode(seed).into());
        }
        for (name, bytes) in [("metadata", record.contact.metadata), ("own_metadata", record.own_metadata)] {
            if !bytes.is_empty() {
                contact.insert(name.into(), data_encoding::BASE64.encode(&bytes).into());
            }
        }
        contacts.push(Value::Object(contact));
    }
    Ok(contacts.into())
}
