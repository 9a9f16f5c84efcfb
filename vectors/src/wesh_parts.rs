//! What several files of weshnet write the same way: accounts, groups, codes.

use dunlin_base::{AccountId, SecretKey};
use dunlin_proto::protocol;
use dunlin_wesh::errors::{Code, Coded};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use prost::Message;
use serde_json::Value;

use crate::json::{base64_bytes, equal, hex_array, last_code, text};

/// The private key whose seed stands under `name`.
pub fn secret_key(case: &Value, name: &str) -> Result<SecretKey, String> {
    Ok(SecretKey::from_seed(hex_array(case, name)?))
}

/// The keys of an account object.
pub fn account_keys(account: &Value) -> Result<AccountKeys, String> {
    Ok(AccountKeys::new(
        secret_key(account, "account_seed")?,
        secret_key(account, "proof_seed")?,
        secret_key(account, "device_seed")?,
    ))
}

/// A member of a group from its two seeds.
pub fn member(case: &Value, member_seed: &str, device_seed: &str) -> Result<OwnMember, String> {
    Ok(OwnMember { member: secret_key(case, member_seed)?, device: secret_key(case, device_seed)? })
}

/// The serialized group under `name`.
pub fn group_message(case: &Value, name: &str) -> Result<protocol::Group, String> {
    protocol::Group::decode(base64_bytes(case, name)?.as_slice()).map_err(|error| error.to_string())
}

/// The group under `name`, checked.
pub fn group(case: &Value, name: &str) -> Result<Group, String> {
    Group::from_proto(&group_message(case, name)?).map_err(|error| error.to_string())
}

/// The id of the contact group with `other`, as the files write it.
pub fn contact_group_hex(keys: &AccountKeys, other: &AccountId) -> Result<String, String> {
    Ok(Group::contact(keys, other).map_err(|error| error.to_string())?.id().to_string())
}

/// Compares a result with the recorded verdict: `ok`, and the innermost code of a failure that has one.
pub fn verdict<T, E: Coded>(case: &Value, result: Result<T, E>) -> Result<Option<T>, String> {
    let expected = case.get("ok").and_then(Value::as_bool).ok_or("no verdict")?;
    match result {
        Ok(value) if expected => Ok(Some(value)),
        Ok(_) => Err(format!("accepted, though {} is recorded", text_of(case, "error_codes"))),
        Err(error) if expected => Err(format!("refused: {error}")),
        Err(error) => {
            let got = error.codes().last().map(|code: &Code| i32::from(*code) as u64);
            last_code(case).map_or(Ok(()), |wanted| equal("code", got, Some(wanted)))?;
            Ok(None)
        }
    }
}

/// The label of a case, or nothing.
pub fn label_of(case: &Value) -> &str {
    text(case, "label").unwrap_or_default()
}

fn text_of(case: &Value, key: &str) -> String {
    case.get(key).map(Value::to_string).unwrap_or_default()
}
