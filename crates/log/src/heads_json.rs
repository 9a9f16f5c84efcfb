//! Entries as heads messages carry them: Go's JSON (`spec/wesh-protocol.md` §3.9.1).

use std::fmt;

use data_encoding::BASE64;
use dunlin_base::EntryId;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::entry::{Body, Clock, ENTRY_VERSION, Entry};
use crate::go_json::push_string;
use crate::identity::Identity;
use crate::log::HEADS_KNOWN_MAX;

/// Writes `entries` as Go writes a list of them, byte for byte.
pub fn heads_to_json(entries: &[Entry]) -> Vec<u8> {
    let mut list = HeadsJson::default();
    for entry in entries {
        list.push_within(entry, usize::MAX);
    }
    list.into_bytes()
}

/// A list of heads that is being written, as [`heads_to_json`] writes it.
#[derive(Clone, Debug, Default)]
pub struct HeadsJson(String);

impl HeadsJson {
    /// Adds an entry, unless the list would have more than `bytes_max` bytes with it. Says whether it was added.
    pub fn push_within(&mut self, entry: &Entry, bytes_max: usize) -> bool {
        let before = self.0.len();
        self.0.push(if before == 0 { '[' } else { ',' });
        push_entry(&mut self.0, entry);
        // The bracket at the end counts.
        let fits = self.0.len() < bytes_max;
        if !fits {
            self.0.truncate(before);
        }
        fits
    }

    /// The list.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.0.push_str(if self.0.is_empty() { "[]" } else { "]" });
        self.0.into_bytes()
    }
}

fn push_entry(out: &mut String, entry: &Entry) {
    out.push('{');
    push_bytes(out, "payload", entry.payload().as_bytes());
    push_text(out, "id", entry.log_id());
    push_links(out, "next", entry.next());
    push_links(out, "refs", entry.refs());
    out.push_str("\"v\":2,");
    push_bytes(out, "key", entry.key());
    push_bytes(out, "sig", entry.signature());
    let identity = entry.identity();
    out.push_str("\"identity\":{");
    push_text(out, "id", &identity.id);
    push_bytes(out, "publicKey", &identity.public_key);
    out.push_str("\"signatures\":{");
    push_bytes(out, "id", &identity.id_signature);
    push_bytes(out, "publicKey", &identity.key_signature);
    close(out);
    out.push(',');
    push_text(out, "type", &identity.kind);
    out.push_str("\"Provider\":null},\"hash\":");
    push_link(out, entry.id());
    out.push_str(",\"clock\":{");
    push_bytes(out, "id", &entry.clock().id);
    if entry.time() != 0 {
        out.push_str("\"time\":");
        out.push_str(&entry.time().to_string());
    }
    close(out);
    out.push('}');
}

/// Ends an object whose last member wrote a comma.
fn close(out: &mut String) {
    if out.ends_with(',') {
        out.pop();
    }
    out.push('}');
}

fn push_bytes(out: &mut String, name: &str, bytes: &[u8]) {
    if !bytes.is_empty() {
        push_string(out, name);
        out.push_str(":\"");
        BASE64.encode_append(bytes, out);
        out.push_str("\",");
    }
}

fn push_text(out: &mut String, name: &str, text: &str) {
    if !text.is_empty() {
        push_string(out, name);
        out.push(':');
        push_string(out, text);
        out.push(',');
    }
}

fn push_links(out: &mut String, name: &str, links: &[EntryId]) {
    if links.is_empty() {
        return;
    }
    push_string(out, name);
    out.push_str(":[");
    for (at, link) in links.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_link(out, *link);
    }
    out.push_str("],");
}

fn push_link(out: &mut String, id: EntryId) {
    out.push_str("{\"/\":\"");
    out.push_str(&id.to_string());
    out.push_str("\"}");
}

/// The list as a whole cannot be read. Drop the message.
#[derive(Debug, thiserror::Error)]
#[error("the heads are not a JSON list of at most {HEADS_KNOWN_MAX}: {0}")]
pub struct HeadsError(#[from] serde_json::Error);

/// One head cannot be used. Skip it; it says nothing about the others (`spec/security.md` O3, O9).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// It is not the JSON of an entry: no object, a member of another type, one missing.
    #[error("the head is no entry: {0}")]
    NotAnEntry(#[from] serde_json::Error),
    /// It is of another version than 2.
    #[error("heads of version {0} are not supported")]
    Version(i64),
    /// Encoded again it gives another hash than it claims.
    #[error("the head claims to be {claimed} but is {actual}")]
    OtherHash {
        /// What the head says.
        claimed: EntryId,
        /// What its content gives.
        actual: EntryId,
    },
}

/// Reads a list of heads, `null` being an empty one. Each head is judged by itself: it must say
/// everything that its entry is made of.
///
/// # Errors
/// [`HeadsError`] when there is no list or a too long one; inside, [`HeadError`] per head.
pub fn heads_from_json(json: &[u8]) -> Result<Vec<Result<Entry, HeadError>>, HeadsError> {
    let heads: Option<RawHeads<'_>> = serde_json::from_slice(json)?;
    let raw = heads.map(|heads| heads.0).unwrap_or_default();
    Ok(raw.into_iter().map(|head| head_from_json(head.get())).collect())
}

fn head_from_json(json: &str) -> Result<Entry, HeadError> {
    let head: JsonEntry = serde_json::from_str(json)?;
    if head.v != ENTRY_VERSION {
        return Err(HeadError::Version(head.v));
    }
    let body = Body {
        log_id: head.id,
        payload: head.payload.0,
        next: head.next.into_iter().map(|link| link.id).collect(),
        refs: head.refs.into_iter().map(|link| link.id).collect(),
        clock: Clock { time: head.clock.time, id: head.clock.id },
    };
    let identity = Identity {
        id: head.identity.id,
        kind: head.identity.kind,
        public_key: head.identity.public_key,
        id_signature: head.identity.signatures.id,
        key_signature: head.identity.signatures.public_key,
    };
    let entry = Entry::assemble(body, head.key, head.sig, identity);
    let (claimed, actual) = (head.hash.id, entry.id());
    if claimed == actual { Ok(entry) } else { Err(HeadError::OtherHash { claimed, actual }) }
}

/// A list whose members are not looked into, so that none of them costs more than its text.
#[derive(Deserialize)]
struct RawHeads<'j>(#[serde(borrow, deserialize_with = "bounded_list")] Vec<&'j RawValue>);

fn bounded_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {HEADS_KNOWN_MAX} heads")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut heads = Vec::new();
            while let Some(head) = list.next_element()? {
                if heads.len() >= HEADS_KNOWN_MAX {
                    return Err(de::Error::invalid_length(heads.len().saturating_add(1), &self));
                }
                heads.push(head);
            }
            Ok(heads)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

#[derive(Deserialize)]
struct JsonEntry {
    #[serde(default)]
    payload: Payload,
    id: String,
    #[serde(default)]
    next: Vec<JsonLink>,
    #[serde(default)]
    refs: Vec<JsonLink>,
    v: i64,
    #[serde(deserialize_with = "base64")]
    key: Vec<u8>,
    #[serde(deserialize_with = "base64")]
    sig: Vec<u8>,
    identity: JsonIdentity,
    hash: JsonLink,
    clock: JsonClock,
}

#[derive(Deserialize)]
struct JsonIdentity {
    id: String,
    #[serde(rename = "publicKey", deserialize_with = "base64")]
    public_key: Vec<u8>,
    signatures: JsonSignatures,
    #[serde(rename = "type")]
    kind: String,
    /// Go cannot read a head in which this is anything but null, so nobody may pass one on.
    #[serde(default, rename = "Provider", deserialize_with = "only_null")]
    _provider: (),
}

#[derive(Deserialize)]
struct JsonSignatures {
    #[serde(default, deserialize_with = "base64")]
    id: Vec<u8>,
    #[serde(default, rename = "publicKey", deserialize_with = "base64")]
    public_key: Vec<u8>,
}

#[derive(Deserialize)]
struct JsonClock {
    #[serde(deserialize_with = "base64")]
    id: Vec<u8>,
    #[serde(default)]
    time: i64,
}

#[derive(Deserialize)]
struct JsonLink {
    #[serde(rename = "/", deserialize_with = "entry_id")]
    id: EntryId,
}

/// Base64 of UTF-8 text.
#[derive(Default)]
struct Payload(String);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::from_utf8(base64(deserializer)?).map(Self).map_err(de::Error::custom)
    }
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text.as_bytes()).map_err(de::Error::custom)
}

fn entry_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EntryId, D::Error> {
    let text = String::deserialize(deserializer)?;
    EntryId::from_cid_text(&text).ok_or_else(|| de::Error::custom("the link is not the CID of an entry"))
}

fn only_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match Option::<IgnoredAny>::deserialize(deserializer)? {
        None => Ok(()),
        Some(_) => Err(de::Error::custom("the provider is not null")),
    }
}
