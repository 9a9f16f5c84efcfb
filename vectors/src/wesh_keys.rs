//! Checks for keys and groups: `keys.json`.

use dunlin_base::kv::{MemoryStore, Read, Tx};
use dunlin_base::{AccountId, GroupId, PublicKey, SecretKey};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::metadata::Event;
use dunlin_wesh::tables;
use prost::Message;
use serde_json::Value;

use crate::fixed::FixedRng;
use crate::json::{base64_bytes, equal, equal_bytes, field, flag, hex_array, hex_bytes, label, list, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{account_keys, group_message, label_of, secret_key, verdict};

/// Groups that Go accepts and we refuse, because their fields contradict one another
/// (`spec/security.md` C9).
const STRICTER_GROUPS: &[&str] = &[
    "link_key_sig altered (not checked)",
    "group_type account (not checked)",
    "group_type undefined (not checked)",
    "sign_pub of another key added (not checked)",
    "link_key added (not checked)",
    "empty secret correctly signed",
    "31-byte secret correctly signed",
];

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "keys").then_some(run)
}

fn run(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    each(report, json, "conversions", conversion)?;
    each(report, json, "accounts", account)?;
    each(report, json, "account_groups", |case| account_group(json, case))?;
    each(report, json, "contact_groups", |case| contact_group(json, case))?;
    each(report, json, "multi_member_groups", |case| multi_member_group(json, case))?;
    each(report, json, "group_validity", validity)?;
    each(report, json, "effective_keys", |case| effective_keys(json, case))?;
    each(report, json, "import", import)?;
    each(report, json, "odd_public_keys", odd_key)?;
    report.check("keystore", keystore(json));
    report.check("alias key", alias_key(json));
    Ok(())
}

fn each(
    report: &mut Report,
    json: &Value,
    name: &str,
    check: impl Fn(&Value) -> Result<(), String>,
) -> Result<(), String> {
    for (position, case) in list(json, name)?.iter().enumerate() {
        report.check(format!("{name} {}", label(case, position)), check(case));
    }
    Ok(())
}

fn conversion(case: &Value) -> Result<(), String> {
    let key = secret_key(case, "ed25519_seed")?;
    equal_bytes("public key", key.public().as_bytes(), hex_bytes(case, "ed25519_pk")?)?;
    equal_bytes("libp2p private", key.to_libp2p(), hex_bytes(case, "libp2p_private")?)?;
    equal_bytes("libp2p public", key.public().to_libp2p(), hex_bytes(case, "libp2p_public")?)?;
    let agreement = key.to_x25519();
    equal_bytes("X25519 private", agreement.scalar().as_slice(), hex_bytes(case, "x25519_private")?)?;
    equal_bytes("X25519 public", agreement.public(), hex_bytes(case, "x25519_public")?)?;
    equal_bytes("converted public", key.public().to_x25519(), hex_bytes(case, "x25519_public")?)
}

fn account(case: &Value) -> Result<(), String> {
    let keys = account_keys(case)?;
    equal("account", keys.account_id().to_string().as_str(), text(case, "account_pk")?)?;
    equal("device", keys.device_id().to_string().as_str(), text(case, "device_pk")?)?;
    let proof = secret_key(case, "proof_seed")?.public().to_string();
    equal("proof", proof.as_str(), text(case, "proof_pk")?)
}

fn account_group(json: &Value, case: &Value) -> Result<(), String> {
    let keys = account_keys(named_account(json, text(case, "own")?)?)?;
    let group = Group::account(&keys);
    same_group(case, &group)?;
    same_member(case, &keys, &group, &[])
}

fn contact_group(json: &Value, case: &Value) -> Result<(), String> {
    let keys = account_keys(named_account(json, text(case, "own")?)?)?;
    let other = account_keys(named_account(json, text(case, "other")?)?)?.account_id();
    let pair = keys.contact_pair_key(&other).map_err(|error| error.to_string())?;
    equal_bytes("pair seed", pair.seed().as_slice(), hex_bytes(case, "pair_seed")?)?;
    equal("pair key", pair.public().to_string().as_str(), text(case, "pair_pk")?)?;
    let group = Group::contact(&keys, &other).map_err(|error| error.to_string())?;
    same_group(case, &group)?;
    same_member(case, &keys, &group, &[])
}

fn multi_member_group(json: &Value, case: &Value) -> Result<(), String> {
    let draws = [hex_bytes(case, "group_seed")?, hex_bytes(case, "secret")?];
    let (group, key) = Group::new_multi_member(&mut FixedRng::new(&[&draws[0], &draws[1]]));
    same_group(case, &group)?;
    equal("group key", key.public(), *group.id().key())?;
    let message = group.to_proto();
    equal_bytes("secret_sig", &message.secret_sig, hex_bytes(case, "secret_sig")?)?;
    equal_bytes("link_key_sig", &message.link_key_sig, hex_bytes(case, "link_key_sig")?)?;
    for case in list(case, "members")? {
        let keys = account_keys(named_account(json, text(case, "account")?)?)?;
        let member = keys.member_key_in(group.id()).map_err(|error| error.to_string())?;
        equal_bytes("member seed", member.seed().as_slice(), hex_bytes(case, "member_seed")?)?;
        same_member(case, &keys, &group, &hex_bytes(case, "device_seed")?)?;
    }
    Ok(())
}

/// Compares every derived value and both wire forms.
fn same_group(case: &Value, group: &Group) -> Result<(), String> {
    equal("id", group.id().to_string().as_str(), text(case, "public_key")?)?;
    equal_bytes("secret", group.secret().as_bytes(), hex_bytes(case, "secret")?)?;
    equal_bytes("signing seed", group.signing_key().seed().as_slice(), hex_bytes(case, "sign_seed")?)?;
    equal("sign_pub", group.sign_pub().to_string().as_str(), text(case, "sign_pub")?)?;
    equal_bytes("link key", group.link_key().as_bytes(), hex_bytes(case, "link_key")?)?;
    equal("kind", u64::try_from(group.kind().number()).ok(), case["group_type"].as_u64())?;
    equal_bytes("group", group.to_proto().encode_to_vec(), base64_bytes(case, "group")?)?;
    equal_bytes("replica", group.to_replica_proto().encode_to_vec(), base64_bytes(case, "replica_group")?)?;
    let read = Group::from_proto(&group_message(case, "group")?).map_err(|error| error.to_string())?;
    equal("read back", &read, group)
}

fn same_member(case: &Value, keys: &AccountKeys, group: &Group, device_seed: &[u8]) -> Result<(), String> {
    let store = MemoryStore::default();
    let mut rng = FixedRng::new(&[device_seed]);
    let own = OwnMember::in_group(keys, group, &mut Tx::new(&store), &mut rng);
    let own = own.map_err(|error| error.to_string())?;
    equal("member", own.member_id().to_string().as_str(), text(case, "member_pk")?)?;
    equal("device", own.device_id().to_string().as_str(), text(case, "device_pk")?)
}

fn validity(case: &Value) -> Result<(), String> {
    let result = Group::from_proto(&group_message(case, "group")?);
    if STRICTER_GROUPS.contains(&label_of(case)) {
        return if result.is_err() { Ok(()) } else { Err("accepted, though its fields contradict".into()) };
    }
    verdict(case, result).map(drop)
}

/// Which keys are in force. A group without its secret, or with a key that does not follow from it, is no
/// group of ours; the replica view is one that we write.
fn effective_keys(json: &Value, case: &Value) -> Result<(), String> {
    let result = Group::from_proto(&group_message(case, "group")?);
    match label_of(case) {
        "derived" => {
            let group = result.map_err(|error| error.to_string())?;
            equal("sign_pub", group.sign_pub().to_string().as_str(), text(case, "sign_pub")?)?;
            equal_bytes("link key", group.link_key().as_bytes(), hex_bytes(case, "link_key")?)
        }
        "replica view" => {
            let first = list(json, "multi_member_groups")?.first().ok_or("no group")?;
            let group =
                Group::from_proto(&group_message(first, "group")?).map_err(|error| error.to_string())?;
            equal("replica", group.to_replica_proto(), group_message(case, "group")?)
        }
        other if result.is_ok() => Err(format!("accepted: {other}")),
        _ => Ok(()),
    }
}

fn import(case: &Value) -> Result<(), String> {
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    if flag(case, "keystore_already_has_account_key")? {
        AccountKeys::generate(&mut FixedRng::new(&[&[1; 96]])).store(&mut tx);
    }
    let (account, proof) = (hex_bytes(case, "account_key")?, hex_bytes(case, "account_proof_key")?);
    verdict(case, AccountKeys::import(&tx, &account, &proof, &mut FixedRng::new(&[&[2; 32]]))).map(drop)
}

/// Keys with which no secret can be shared, or that have two encodings. Go takes most of them.
fn odd_key(case: &Value) -> Result<(), String> {
    let bytes = hex_bytes(case, "ed25519_pk")?;
    if PublicKey::from_bytes(&bytes).is_err() { Ok(()) } else { Err("accepted".into()) }
}

/// What is stored after the account met one contact and one group. Derived keys are not stored.
fn keystore(json: &Value) -> Result<(), String> {
    let case = field(json, "keystore")?;
    let own = text(case, "account")?;
    let keys = account_keys(named_account(json, own)?)?;
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    keys.store(&mut tx);
    for case in list(json, "multi_member_groups")? {
        let group = Group::from_proto(&group_message(case, "group")?).map_err(|error| error.to_string())?;
        let member = list(case, "members")?.iter().find(|member| text(member, "account") == Ok(own));
        let seed: [u8; 32] = hex_array(member.ok_or("not a member")?, "device_seed")?;
        OwnMember::in_group(&keys, &group, &mut tx, &mut FixedRng::new(&[&seed]))
            .map_err(|error| error.to_string())?;
    }
    for entry in list(case, "entries")? {
        let name = text(entry, "datastore_key")?.trim_start_matches("/device_keystore/");
        let stored = tx.get(tables::KEYS, name.as_bytes()).map_err(|error| error.to_string())?;
        let value = match derived(&keys, name)? {
            Some(key) => key.to_libp2p().to_vec(),
            None => stored.ok_or_else(|| format!("{name} is not stored"))?,
        };
        equal_bytes(name, value, hex_bytes(entry, "value")?)?;
    }
    Ok(())
}

fn derived(keys: &AccountKeys, name: &str) -> Result<Option<SecretKey>, String> {
    let id = |hex_id: &str| {
        let bytes = hex::decode(hex_id).map_err(|error| error.to_string())?;
        PublicKey::from_bytes(&bytes).map_err(|error| error.to_string())
    };
    let key = match name.split_once('_') {
        Some(("memberSK", group)) => keys.member_key_in(GroupId::new(id(group)?)),
        Some(("contactGroupSK", account)) => keys.contact_pair_key(&AccountId::new(id(account)?)),
        _ => return Ok(None),
    };
    key.map(Some).map_err(|error| error.to_string())
}

fn alias_key(json: &Value) -> Result<(), String> {
    let case = field(json, "alias_key")?;
    let account = named_account(json, text(case, "account")?)?;
    let own = crate::wesh_parts::member(account, "account_seed", "device_seed")?;
    match Event::alias_key_added(&own) {
        Event::AliasKeyAdded { alias, .. } => equal_bytes("alias", alias, hex_bytes(case, "alias_pk")?),
        other => Err(format!("{other:?}")),
    }
}

fn named_account<'j>(json: &'j Value, name: &str) -> Result<&'j Value, String> {
    let found = list(json, "accounts")?.iter().find(|account| text(account, "name") == Ok(name));
    found.ok_or_else(|| format!("no account {name}"))
}
