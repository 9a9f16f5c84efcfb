//! Checks for wire forms and error codes: `protobuf.json`, `error-codes.json`, and the messenger's
//! `protobuf.json` as far as its messages exist here.

use std::collections::BTreeSet;

use dunlin_proto::{FILE_DESCRIPTOR_SET, recode};
use dunlin_wesh::errors::{Code, Failure};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};
use serde_json::Value as Json;

use crate::json::{base64, base64_bytes, equal, equal_bytes, field, label, list, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    match file.stem() {
        "protobuf" if file.is_wesh() => Some(protobuf),
        "protobuf" if file.is_messenger() => Some(messenger_protobuf),
        "error-codes" if file.is_wesh() => Some(error_codes),
        _ => None,
    }
}

/// Every message from its fields, and through the type made for it; every enum.
fn protobuf(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())?;
    for case in list(&file.json, "messages")? {
        let name = text(case, "message")?;
        let fields = field(case, "fields")?;
        report.check(format!("{name} ({})", text(case, "kind")?), message(&pool, name, case, fields));
    }
    for (name, values) in enums(file)? {
        report.check(name, enumeration(&pool, name, values));
    }
    Ok(())
}

/// The same for the messages and enums of the messenger that exist here; the others are counted.
fn messenger_protobuf(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())?;
    let mut absent = BTreeSet::new();
    for case in list(&file.json, "messages")? {
        let name = text(case, "message")?;
        if pool.get_message_by_name(name).is_none() {
            absent.insert(name);
            continue;
        }
        let fields = field(case, "json")?;
        report.check(format!("{name} ({})", text(case, "variant")?), message(&pool, name, case, fields));
    }
    for (name, values) in enums(file)? {
        if pool.get_enum_by_name(name).is_none() {
            absent.insert(name);
            continue;
        }
        report.check(name, enumeration(&pool, name, values));
    }
    if !absent.is_empty() {
        report.leave_out(format!("{} messages and enums that do not exist here", absent.len()));
    }
    Ok(())
}

fn enums(file: &VectorFile) -> Result<&serde_json::Map<String, Json>, String> {
    field(&file.json, "enums")?.as_object().ok_or_else(|| "\"enums\" is no object".to_owned())
}

fn message(pool: &DescriptorPool, name: &str, case: &Json, fields: &Json) -> Result<(), String> {
    let wanted = base64_bytes(case, "bytes")?;
    let descriptor = pool.get_message_by_name(name).ok_or("no such message")?;
    let built = dynamic(descriptor.clone(), fields)?;
    equal_bytes("encoded fields", built.encode_to_vec(), &wanted)?;
    let parsed = DynamicMessage::decode(descriptor, &*wanted).map_err(|error| error.to_string())?;
    equal("decoded fields", parsed, built)?;
    let recoded = recode(name, &wanted).ok_or("no type for the message")?;
    equal_bytes("through its type", recoded.map_err(|error| error.to_string())?, &wanted)
}

fn enumeration(pool: &DescriptorPool, name: &str, values: &Json) -> Result<(), String> {
    let descriptor = pool.get_enum_by_name(name).ok_or("no such enum")?;
    let got: serde_json::Map<_, _> =
        descriptor.values().map(|value| (value.name().to_owned(), value.number().into())).collect();
    equal("values", &Json::Object(got), values)
}

/// Builds a message from fields as the files write them.
fn dynamic(descriptor: MessageDescriptor, fields: &Json) -> Result<DynamicMessage, String> {
    let mut message = DynamicMessage::new(descriptor);
    for (name, json) in fields.as_object().ok_or("fields are no object")? {
        let field =
            message.descriptor().get_field_by_name(name).ok_or_else(|| format!("no field {name:?}"))?;
        let value =
            if let (true, Kind::Message(entry), Json::Object(pairs)) = (field.is_map(), field.kind(), json) {
                let kind = entry.map_entry_value_field().kind();
                let pairs =
                    pairs.iter().map(|(key, value)| Ok((MapKey::String(key.clone()), single(&kind, value)?)));
                Value::Map(pairs.collect::<Result<_, String>>()?)
            } else if let (true, Json::Array(items)) = (field.is_list(), json) {
                Value::List(items.iter().map(|item| single(&field.kind(), item)).collect::<Result<_, _>>()?)
            } else {
                single(&field.kind(), json)?
            };
        message.try_set_field(&field, value).map_err(|error| format!("{name:?}: {error}"))?;
    }
    Ok(message)
}

/// One value: bytes in base64, 64-bit integers as text, enums as numbers.
fn single(kind: &Kind, json: &Json) -> Result<Value, String> {
    let value = match (kind, json) {
        (Kind::Bytes, Json::String(text)) => Some(Value::Bytes(base64(text)?.into())),
        (Kind::String, Json::String(text)) => Some(Value::String(text.clone())),
        (Kind::Bool, Json::Bool(value)) => Some(Value::Bool(*value)),
        (Kind::Int64, Json::String(text)) => text.parse().ok().map(Value::I64),
        (Kind::Uint64 | Kind::Fixed64, Json::String(text)) => text.parse().ok().map(Value::U64),
        (Kind::Fixed32 | Kind::Uint32, json) => json.as_u64().and_then(|n| n.try_into().ok()).map(Value::U32),
        (Kind::Enum(_), json) => json.as_i64().and_then(|n| n.try_into().ok()).map(Value::EnumNumber),
        // The numbers of the files are exact in both widths.
        (Kind::Float, json) => json.as_f64().map(|number| Value::F32(number as f32)),
        (Kind::Message(descriptor), json) => Some(Value::Message(dynamic(descriptor.clone(), json)?)),
        _ => None,
    };
    value.ok_or_else(|| format!("{json} is no {kind:?}"))
}

/// Names and numbers; chains of codes as text and as gRPC status.
fn error_codes(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let codes = field(&file.json, "codes")?.as_object().ok_or("\"codes\" is no object")?;
    for (name, code) in codes {
        report.check(name, error_code(name, code));
    }
    for (position, case) in list(&file.json, "examples")?.iter().enumerate() {
        report.check(label(case, position), error_example(case));
    }
    Ok(())
}

fn error_code(name: &str, number: &Json) -> Result<(), String> {
    let code = Code::from_str_name(name).ok_or("no such code")?;
    equal("number", Some(i64::from(i32::from(code))), number.as_i64())
}

/// Builds the chain from its text, where every part is a code or words.
fn error_example(case: &Json) -> Result<(), String> {
    let failure = text(case, "text")?.rsplit(": ").fold(None, |inner: Option<Failure>, part| {
        let code = part.split_once("(#").and_then(|(name, _)| Code::from_str_name(name));
        Some(match (inner, code) {
            (None, Some(code)) => Failure::new(code),
            (None, None) => Failure::uncoded(part),
            (Some(inner), Some(code)) => inner.within(code),
            (Some(inner), None) => inner.explained(part),
        })
    });
    let failure = failure.ok_or("no text")?;
    let codes: Vec<Json> = failure.details().codes.into_iter().map(Json::from).collect();
    equal("codes", codes.as_slice(), list(case, "codes")?)?;
    // Go says -1 for an error without codes.
    let last = failure.last().map_or(-1, i32::from);
    equal("last code", &Json::from(last), field(case, "last_code")?)?;
    equal("gRPC code", &Json::from(failure.grpc_code()), field(case, "grpc_code")?)?;
    equal("message", failure.to_string().as_str(), text(case, "grpc_message")?)?;
    equal_bytes("status", failure.to_rpc_status(), base64_bytes(case, "grpc_status")?)
}
