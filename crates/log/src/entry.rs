//! One entry: what it says, the bytes it is stored as, the text under its signature.

use std::fmt::Write as _;

use dunlin_base::EntryId;

use crate::base58::push_cid;
use crate::cbor::{self, DecodeError, LINK_BYTES, Reader};
use crate::go_json;
use crate::identity::Identity;

/// The only version of entries that Go and this log share.
pub const ENTRY_VERSION: i64 = 2;

/// The Lamport clock of an entry, as its writer claims it.
///
/// It is signed, shown and answered to, but never used for order: see [`crate::Position`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock {
    /// The claimed time. Go counts in signed integers, and hostile entries use all of them.
    pub time: i64,
    /// The public key of the writer.
    pub id: Vec<u8>,
}

/// What a writer signs: everything in an entry but the key, the signature and the identity record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The log that the entry belongs to: the address of its store.
    pub log_id: String,
    /// The content.
    pub payload: String,
    /// The heads that the writer knew: the causal parents.
    pub next: Vec<EntryId>,
    /// Links further back, for those who fetch the log.
    pub refs: Vec<EntryId>,
    /// The writer's clock.
    pub clock: Clock,
}

impl Body {
    /// The text under the signature: JSON with sorted keys, escaped as Go does (`spec/ipfs-log.md` §4).
    pub fn signed_text(&self) -> String {
        let links = self.next.len().saturating_add(self.refs.len());
        let mut text = String::with_capacity(
            256_usize.saturating_add(self.payload.len()).saturating_add(links.saturating_mul(52)),
        );
        text.push_str(r#"{"clock":{"id":""#);
        data_encoding::HEXLOWER.encode_append(&self.clock.id, &mut text);
        // Writing to a string cannot fail.
        let _ = write!(text, r#"","time":{}}},"hash":null,"id":"#, self.clock.time);
        go_json::push_string(&mut text, &self.log_id);
        text.push_str(r#","next":"#);
        push_links(&mut text, &self.next);
        text.push_str(r#","payload":"#);
        go_json::push_string(&mut text, &self.payload);
        text.push_str(r#","refs":"#);
        push_links(&mut text, &self.refs);
        let _ = write!(text, r#","v":{ENTRY_VERSION}}}"#);
        text
    }
}

fn push_links(text: &mut String, links: &[EntryId]) {
    text.push('[');
    for (at, link) in links.iter().enumerate() {
        text.push_str(if at == 0 { "\"" } else { ",\"" });
        push_cid(text, *link);
        text.push('"');
    }
    text.push(']');
}

/// Links that were sealed before signing. No writer in use does so; nobody can verify such an entry
/// (`spec/ipfs-log.md` §4, point 6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedLinks {
    /// The sealed links, base64 text.
    pub links: String,
    /// The nonce, base64 text.
    pub nonce: String,
}

/// A version 2 entry whose block is in the one form that re-encoding gives again.
///
/// That it was decoded says nothing about its writer: see [`crate::Checker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    id: EntryId,
    block: Vec<u8>,
    body: Body,
    key: Vec<u8>,
    signature: Vec<u8>,
    identity: Identity,
    sealed_links: Option<SealedLinks>,
}

impl Entry {
    /// Puts an entry together. Nothing is checked and nothing is signed.
    pub fn assemble(body: Body, key: Vec<u8>, signature: Vec<u8>, identity: Identity) -> Self {
        let block = encode(&body, &key, &signature, &identity);
        let id = EntryId::of_block(&block);
        Self { id, block, body, key, signature, identity, sealed_links: None }
    }

    /// Parses the block of an entry, strictly (`spec/security.md` V2).
    ///
    /// # Errors
    /// [`DecodeError`] unless the block is exactly what [`Self::assemble`] would have made.
    pub fn decode(block: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_as(EntryId::of_block(block), block)
    }

    /// Parses a block whose id is known already.
    pub(crate) fn decode_as(id: EntryId, block: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(block);
        let has_sealed_links = match reader.map()? {
            10 => false,
            12 => true,
            _ => return Err(DecodeError::Expected("a map of an entry's fields")),
        };
        reader.key("v")?;
        let version = reader.integer()?;
        if version != ENTRY_VERSION {
            return Err(DecodeError::Version(version));
        }
        reader.key("id")?;
        let log_id = reader.text()?.to_owned();
        reader.key("key")?;
        let key = reader.hex()?;
        reader.key("sig")?;
        let signature = reader.hex()?;
        reader.key("hash")?;
        reader.null()?;
        reader.key("next")?;
        let next = reader.links()?;
        reader.key("refs")?;
        let refs = reader.links()?;
        reader.key("clock")?;
        let clock = decode_clock(&mut reader)?;
        reader.key("payload")?;
        let payload = reader.text()?.to_owned();
        reader.key("identity")?;
        let identity = decode_identity(&mut reader)?;
        let sealed_links = has_sealed_links.then(|| decode_sealed_links(&mut reader)).transpose()?;
        reader.end()?;
        let body = Body { log_id, payload, next, refs, clock };
        Ok(Self { id, block: block.to_vec(), body, key, signature, identity, sealed_links })
    }

    /// The id: the digest of the block.
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// The block.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// What the writer signed.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The log that the entry belongs to.
    pub fn log_id(&self) -> &str {
        &self.body.log_id
    }

    /// The content.
    pub fn payload(&self) -> &str {
        &self.body.payload
    }

    /// The causal parents.
    pub fn next(&self) -> &[EntryId] {
        &self.body.next
    }

    /// Links further back.
    pub fn refs(&self) -> &[EntryId] {
        &self.body.refs
    }

    /// The claimed Lamport time.
    pub fn time(&self) -> i64 {
        self.body.clock.time
    }

    /// The claimed clock.
    pub fn clock(&self) -> &Clock {
        &self.body.clock
    }

    /// The key that the signature shall verify under.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The signature over [`Body::signed_text`].
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Who the writer claims to be.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The sealed links, in an entry that has them.
    pub fn sealed_links(&self) -> Option<&SealedLinks> {
        self.sealed_links.as_ref()
    }
}

fn decode_clock(reader: &mut Reader<'_>) -> Result<Clock, DecodeError> {
    if reader.map()? != 2 {
        return Err(DecodeError::Expected("a map of id and time"));
    }
    reader.key("id")?;
    let id = reader.hex()?;
    reader.key("time")?;
    let time = reader.integer()?;
    Ok(Clock { time, id })
}

fn decode_identity(reader: &mut Reader<'_>) -> Result<Identity, DecodeError> {
    if reader.map()? != 4 {
        return Err(DecodeError::Expected("a map of an identity's fields"));
    }
    reader.key("id")?;
    let id = reader.text()?.to_owned();
    reader.key("type")?;
    let kind = reader.text()?.to_owned();
    reader.key("publicKey")?;
    let public_key = reader.hex()?;
    reader.key("signatures")?;
    if reader.map()? != 2 {
        return Err(DecodeError::Expected("a map of two signatures"));
    }
    reader.key("id")?;
    let id_signature = reader.hex()?;
    reader.key("publicKey")?;
    let key_signature = reader.hex()?;
    Ok(Identity { id, kind, public_key, id_signature, key_signature })
}

fn decode_sealed_links(reader: &mut Reader<'_>) -> Result<SealedLinks, DecodeError> {
    reader.key("enc_links")?;
    let links = reader.text()?.to_owned();
    reader.key("enc_links_nonce")?;
    let nonce = reader.text()?.to_owned();
    Ok(SealedLinks { links, nonce })
}

fn encode(body: &Body, key: &[u8], signature: &[u8], identity: &Identity) -> Vec<u8> {
    let links = body.next.len().saturating_add(body.refs.len());
    let mut block = Vec::with_capacity(
        1024_usize.saturating_add(body.payload.len()).saturating_add(links.saturating_mul(LINK_BYTES)),
    );
    let out = &mut block;
    cbor::put_map(out, 10);
    cbor::put_text(out, "v");
    cbor::put_integer(out, ENTRY_VERSION);
    cbor::put_text(out, "id");
    cbor::put_text(out, &body.log_id);
    cbor::put_text(out, "key");
    cbor::put_hex(out, key);
    cbor::put_text(out, "sig");
    cbor::put_hex(out, signature);
    cbor::put_text(out, "hash");
    cbor::put_null(out);
    cbor::put_text(out, "next");
    cbor::put_links(out, &body.next);
    cbor::put_text(out, "refs");
    cbor::put_links(out, &body.refs);
    cbor::put_text(out, "clock");
    cbor::put_map(out, 2);
    cbor::put_text(out, "id");
    cbor::put_hex(out, &body.clock.id);
    cbor::put_text(out, "time");
    cbor::put_integer(out, body.clock.time);
    cbor::put_text(out, "payload");
    cbor::put_text(out, &body.payload);
    cbor::put_text(out, "identity");
    encode_identity(out, identity);
    block
}

fn encode_identity(out: &mut Vec<u8>, identity: &Identity) {
    cbor::put_map(out, 4);
    cbor::put_text(out, "id");
    cbor::put_text(out, &identity.id);
    cbor::put_text(out, "type");
    cbor::put_text(out, &identity.kind);
    cbor::put_text(out, "publicKey");
    cbor::put_hex(out, &identity.public_key);
    cbor::put_text(out, "signatures");
    cbor::put_map(out, 2);
    cbor::put_text(out, "id");
    cbor::put_hex(out, &identity.id_signature);
    cbor::put_text(out, "publicKey");
    cbor::put_hex(out, &identity.key_signature);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Entry {
        let parent = EntryId::of_block(b"parent");
        let body = Body {
            log_id: "/orbitdb/log".into(),
            payload: r#"{"op":"ADD","value":"dg=="}"#.into(),
            next: vec![parent],
            refs: vec![EntryId::of_block(b"grandparent")],
            clock: Clock { time: 3, id: vec![8, 1] },
        };
        let identity = Identity {
            id: "ab".into(),
            kind: "kind".into(),
            public_key: vec![8, 1],
            id_signature: vec![1; 64],
            key_signature: Vec::new(),
        };
        Entry::assemble(body, vec![8, 1], vec![7; 64], identity)
    }

    #[test]
    fn blocks_decode_to_what_they_were_made_of() {
        let entry = sample();
        assert_eq!(Entry::decode(entry.block()), Ok(entry));
    }

    /// Whatever decodes re-encodes to the same bytes, so no content has two ids.
    #[test]
    fn altered_blocks_are_refused_or_canonical() {
        let entry = sample();
        for at in 0..entry.block().len() {
            for bit in 0..8 {
                let mut block = entry.block().to_vec();
                block[at] ^= 1 << bit;
                let Ok(decoded) = Entry::decode(&block) else { continue };
                let again = Entry::assemble(
                    decoded.body.clone(),
                    decoded.key.clone(),
                    decoded.signature.clone(),
                    decoded.identity.clone(),
                );
                assert_eq!(again.block(), block, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn every_prefix_is_refused() {
        let entry = sample();
        for end in 0..entry.block().len() {
            assert!(Entry::decode(&entry.block()[..end]).is_err(), "{end}");
        }
        let longer = [entry.block(), &[0]].concat();
        assert_eq!(Entry::decode(&longer), Err(DecodeError::Trailing));
    }

    #[test]
    fn the_signed_text_is_sorted_json() {
        let text = sample().body.signed_text();
        assert!(
            text.starts_with(
                r#"{"clock":{"id":"0801","time":3},"hash":null,"id":"/orbitdb/log","next":["zdpu"#
            )
        );
        assert!(text.contains(r#""payload":"{\"op\":\"ADD\",\"value\":\"dg==\"}","refs":["zdpu"#));
        assert!(text.ends_with(r#""],"v":2}"#));
    }
}
