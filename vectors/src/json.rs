//! Reading the files: fields by name, with an answer that says what is missing.

use std::fmt::Debug;

use serde_json::Value;

/// The value of `key`.
///
/// # Errors
/// Says which field is missing.
pub fn field<'a>(value: &'a Value, key: &str) -> Result<&'a Value, String> {
    value.get(key).ok_or_else(|| format!("no field {key:?}"))
}

/// The text under `key`.
///
/// # Errors
/// When it is missing or no text.
pub fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    field(value, key)?.as_str().ok_or_else(|| format!("{key:?} is not text"))
}

/// The list under `key`; a missing or null one is empty.
///
/// # Errors
/// When it is something else.
pub fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("{key:?} is not a list")),
    }
}

/// The boolean under `key`; false when it is missing.
///
/// # Errors
/// When it is something else.
pub fn flag(value: &Value, key: &str) -> Result<bool, String> {
    match value.get(key) {
        None => Ok(false),
        Some(found) => found.as_bool().ok_or_else(|| format!("{key:?} is not a boolean")),
    }
}

/// The unsigned number under `key`, written as a number or as decimal text.
///
/// # Errors
/// When it is missing or something else.
pub fn number(value: &Value, key: &str) -> Result<u64, String> {
    let found = field(value, key)?;
    let parsed = found.as_u64().or_else(|| found.as_str().and_then(|digits| digits.parse().ok()));
    parsed.ok_or_else(|| format!("{key:?} is not an unsigned number"))
}

/// The bytes under `key`, written in hex.
///
/// # Errors
/// When they are missing or malformed.
pub fn hex_bytes(value: &Value, key: &str) -> Result<Vec<u8>, String> {
    hex::decode(text(value, key)?).map_err(|error| format!("{key:?}: {error}"))
}

/// The bytes under `key`, written in hex, `N` of them.
///
/// # Errors
/// When they are missing, malformed, or fewer or more.
pub fn hex_array<const N: usize>(value: &Value, key: &str) -> Result<[u8; N], String> {
    let bytes = hex_bytes(value, key)?;
    bytes.try_into().map_err(|bytes: Vec<u8>| format!("{key:?} has {} bytes, not {N}", bytes.len()))
}

/// The bytes under `key`, written in standard base64.
///
/// # Errors
/// When they are missing or malformed.
pub fn base64_bytes(value: &Value, key: &str) -> Result<Vec<u8>, String> {
    base64(text(value, key)?).map_err(|error| format!("{key:?}: {error}"))
}

/// Decodes standard base64.
///
/// # Errors
/// When it is malformed.
pub fn base64(text: &str) -> Result<Vec<u8>, String> {
    data_encoding::BASE64.decode(text.as_bytes()).map_err(|error| error.to_string())
}

/// Compares what came with what the file says.
///
/// # Errors
/// Shows both when they differ.
pub fn equal<T: Debug + PartialEq<U>, U: Debug>(what: &str, got: T, wanted: U) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

/// Compares bytes.
///
/// # Errors
/// Says how long both are, and shows them in hex from where they begin to differ.
pub fn equal_bytes(what: &str, got: impl AsRef<[u8]>, wanted: impl AsRef<[u8]>) -> Result<(), String> {
    let (got, wanted) = (got.as_ref(), wanted.as_ref());
    if got == wanted {
        return Ok(());
    }
    let same = got.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count();
    let shown = |bytes: &[u8]| hex::encode(bytes.iter().skip(same).take(32).copied().collect::<Vec<_>>());
    let (got_bytes, wanted_bytes) = (got.len(), wanted.len());
    let (got, wanted) = (shown(got), shown(wanted));
    Err(format!(
        "{what}: from byte {same} on got {got} ({got_bytes} in all), wanted {wanted} ({wanted_bytes} in all)"
    ))
}

/// The innermost error code of a recorded verdict, if it is a failure that has one.
pub fn last_code(verdict: &Value) -> Option<u64> {
    verdict.get("error_codes")?.as_array()?.last()?.as_u64()
}

/// How a case is called in reports: its label or action, or else its position.
pub fn label(case: &Value, position: usize) -> String {
    let named = ["label", "name", "action", "address"].iter().find_map(|key| case.get(key)?.as_str());
    named.map_or_else(|| format!("#{position}"), |name| format!("#{position} {name}"))
}
