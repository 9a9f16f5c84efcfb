//! Checks for metadata events and their index: `metadata-events.json`, `metadata-index.json`.

use std::collections::BTreeSet;

use dunlin_base::EntryId;
use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_log::Position;
use dunlin_orbitdb::operation;
use dunlin_wesh::group::{Group, GroupKind, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::metadata::{Event, Index, OpenedEvent, open, seal, seal_by_group};
use dunlin_wesh::padding::Padding;
use prost::Message;
use serde_json::Value;

use crate::fixed::FixedRng;
use crate::json::{base64_bytes, equal, equal_bytes, hex_bytes, label, list, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{account_keys, group, label_of, member, secret_key, verdict};
use crate::wesh_state::{Expected, same_state};

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    match file.stem() {
        "metadata-events" if file.is_wesh() => Some(events),
        "metadata-index" if file.is_wesh() => Some(index),
        _ => None,
    }
}

fn events(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    for (position, case) in list(&file.json, "events")?.iter().enumerate() {
        report.check(format!("event {}", label(case, position)), event(case));
    }
    for (position, case) in list(&file.json, "checks")?.iter().enumerate() {
        report.check(format!("check {}", label(case, position)), check(case));
    }
    Ok(())
}

/// Opens a recorded event, takes it apart, and makes the same bytes from it.
fn event(case: &Value) -> Result<(), String> {
    let group = group(case, "group")?;
    let envelope = base64_bytes(case, "envelope")?;
    let opened = open(&group, &envelope).map_err(|error| error.to_string())?;
    let event = opened.event();
    equal("type", u64::try_from(event.event_type() as i32).ok(), case["event_type"].as_u64())?;
    equal("type name", event.event_type().as_str_name(), text(case, "name")?)?;
    equal_bytes("payload as received", opened.payload(), base64_bytes(case, "payload")?)?;
    equal_bytes("payload as written", event.encode(), base64_bytes(case, "payload")?)?;
    equal_bytes("signature", opened.signature().as_bytes(), hex_bytes(case, "sig")?)?;
    equal_bytes("clear text", opened.to_proto().encode_to_vec(), base64_bytes(case, "clear")?)?;

    let signer = secret_key(case, "signer_seed")?;
    let mut rng = FixedRng::new(&[&hex_bytes(case, "nonce")?]);
    let sealed = match event {
        Event::InitialMember { .. } => seal_by_group(&group, &signer, event, Padding::Bare, &mut rng),
        _ => {
            let member = secret_key(case, "member_seed").unwrap_or_else(|_| signer.clone());
            let own = OwnMember { member, device: signer };
            if let Event::MemberDeviceAdded { .. } = event {
                equal("made by the member", &Event::member_device_added(&own), event)?;
            }
            seal(&group, &own, event, Padding::Bare, &mut rng)
        }
    };
    equal_bytes("envelope", &sealed, envelope)?;
    equal("operation", operation::encode_add(&sealed).as_str(), text(case, "operation")?)
}

fn check(case: &Value) -> Result<(), String> {
    let result = open(&group(case, "group")?, &base64_bytes(case, "envelope")?);
    if label_of(case).starts_with("101 without a group") {
        // The file asks to refuse it.
        return if result.is_err() { Ok(()) } else { Err("accepted".into()) };
    }
    let Some(opened) = verdict(case, result)? else { return Ok(()) };
    equal("type", u64::try_from(opened.event().event_type() as i32).ok(), case["event_type"].as_u64())
}

fn index(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let keys = file.sibling("keys.json")?;
    for case in list(&file.json, "sequences")? {
        let name = text(case, "name")?;
        match Sequence::read(&keys.json, case) {
            Ok(sequence) => sequence.run(case, report)?,
            Err(why) => report.check(name, Err(why)),
        }
    }
    Ok(())
}

/// Events of one log, oldest first.
struct Sequence {
    group: Group,
    keys: AccountKeys,
    own: OwnMember,
    events: Vec<Option<OpenedEvent>>,
    /// The own device was not announced in the file; it was added in front.
    announced_here: bool,
}

impl Sequence {
    fn read(keys_file: &Value, case: &Value) -> Result<Self, String> {
        let group = group(case, "group")?;
        let keys = account_keys(&case["own"])?;
        let own = own_member(keys_file, &case["own"], &group)?;
        let mut events = Vec::new();
        for event in list(case, "events")? {
            events.push(open(&group, &base64_bytes(event, "envelope")?).ok());
        }
        let announced = events.iter().flatten().any(|opened| {
            matches!(opened.event(), Event::MemberDeviceAdded { .. })
                && opened.device() == Some(&own.device_id())
        });
        Ok(Self { group, keys, own, events, announced_here: !announced })
    }

    fn run(&self, case: &Value, report: &mut Report) -> Result<(), String> {
        let name = text(case, "name")?;
        let orders = list(case, "orders")?;
        let oldest_first =
            orders.iter().find(|order| text(order, "kind") == Ok("oldest first, one at a time"));
        let state = &oldest_first.ok_or("no order to reproduce")?["state"];
        for (number, order) in orders.iter().enumerate() {
            let check = format!("{name} / {number} {}", text(order, "kind")?);
            report.check(check, self.fold(name, order, state));
        }
        Ok(())
    }

    /// Folds the events in one order of arrival. Whatever the order, the state is that of the log.
    fn fold(&self, name: &str, order: &Value, state: &Value) -> Result<(), String> {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let index = Index::new(&self.group, &self.keys, &self.own);
        let find = |position: Position| {
            let number = usize::try_from(position.height).ok()?.checked_sub(1)?;
            self.events.get(number).cloned().flatten()
        };
        for number in list(order, "order")? {
            let number = number.as_u64().ok_or("no number")?;
            let event = usize::try_from(number).ok().and_then(|number| self.events.get(number));
            if let Some(event) = event.ok_or("no such event")? {
                index.apply_all(&mut tx, at(number + 1), event, &find).map_err(|error| error.to_string())?;
            }
        }
        if self.announced_here && self.group.kind() == GroupKind::Account {
            let mut rng = FixedRng::new(&[]);
            let announced =
                seal(&self.group, &self.own, &Event::member_device_added(&self.own), Padding::Bare, &mut rng);
            let announced = open(&self.group, &announced).map_err(|error| error.to_string())?;
            index.apply_all(&mut tx, at(0), &announced, &find).map_err(|error| error.to_string())?;
        }
        same_state(&index, &tx, &self.keys, state, &self.expected(name))
    }

    /// Where we are stricter than the state that the file records.
    fn expected(&self, name: &str) -> Expected {
        let mut expected = Expected::default();
        match name {
            // A contact by a device that no member has claimed waits (O10); a contact whose key has five
            // bytes is none.
            "two devices, unknown device, refused and unhandled events in between" => {
                expected.left_out.insert("contacts");
            }
            // Account events mean nothing in a multi-member group (O10).
            "account events in a multi-member group" => {
                expected.left_out = BTreeSet::from(["contacts", "groups", "contact_requests_enabled"]);
            }
            _ => {}
        }
        if self.announced_here {
            expected.not_compared.insert("members");
        }
        expected
    }
}

fn at(height: u64) -> Position {
    Position { height, id: EntryId::of_block(&height.to_be_bytes()) }
}

/// The member of `group` that the account of the file is.
fn own_member(keys_file: &Value, account: &Value, group: &Group) -> Result<OwnMember, String> {
    if group.kind() != GroupKind::MultiMember {
        return member(account, "account_seed", "device_seed");
    }
    let id = group.id().to_string();
    let groups = list(keys_file, "multi_member_groups")?;
    let known = groups.iter().find(|known| text(known, "public_key") == Ok(&id)).ok_or("unknown group")?;
    let name = text(account, "name")?;
    let own = list(known, "members")?.iter().find(|member| text(member, "account") == Ok(name));
    member(own.ok_or("not a member")?, "member_seed", "device_seed")
}
