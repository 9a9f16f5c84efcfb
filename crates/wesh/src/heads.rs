//! The payload that announces the heads of a log, on a gossip topic or on a direct channel
//! (`spec/wesh-protocol.md` §3.9).
//!
//! ```text
//! OrbitDBMessageHeads { sealed_box: nonce 24 || secretbox(link key, Box), raw_rotation: token 32 }
//! Box { address, heads: JSON array of entries, device_pk, peer_id }
//! ```
//!
//! The token says which store it is for, and so which link key opens it. [`parse`] gives the token, the
//! caller finds the store among the ones it knows ([`crate::rotation::accepted_heads_tokens`]), and
//! [`SealedHeads::open`] opens the box for that store and no other. The JSON is read one layer below.

use dunlin_base::keys::SymmetricKey;
use dunlin_base::seal::{Nonce, OpenError, open_with_nonce, seal_with_nonce};
use dunlin_base::{DeviceId, PeerId};
use dunlin_proto::protocol::OrbitDbMessageHeads;
use dunlin_proto::protocol::orbit_db_message_heads::Box as BoxMessage;
use prost::Message;
use rand_core::{CryptoRng, RngCore};

use crate::rotation::Token;

/// What a heads payload says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeadsPayload {
    /// The heads: a JSON array of entries, as received.
    pub heads: Vec<u8>,
    /// The announcing device in this group; replicas have none.
    pub device: Option<DeviceId>,
    /// The host that says so. Nothing proves it: compare it with the peer at the other end.
    pub host: Option<PeerId>,
}

/// A heads payload of which only the token is known.
#[derive(Clone, Debug)]
pub struct SealedHeads {
    /// Says which store it is for.
    pub token: Token,
    sealed_box: Vec<u8>,
}

/// Why a heads payload says nothing. Drop it; nothing is answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadsError {
    /// It is no `OrbitDBMessageHeads` message.
    #[error("the bytes are no heads payload")]
    Malformed(#[source] prost::DecodeError),
    /// The token has not 32 bytes.
    #[error("the heads payload has no token")]
    Token,
    /// The box was not sealed with the link key of the store that the token stands for.
    #[error("the heads payload does not open with the link key of its store")]
    Seal(#[from] OpenError),
    /// What was sealed is no `Box` message.
    #[error("the content of the heads payload is malformed")]
    Content(#[source] prost::DecodeError),
    /// It names another store than the token does: one group's key would reach into another store
    /// (`spec/security.md` O8).
    #[error("the heads payload is sealed for one store and names another")]
    OtherStore,
}

/// Reads the outer message.
///
/// # Errors
/// [`HeadsError::Malformed`] or [`HeadsError::Token`].
pub fn parse(data: &[u8]) -> Result<SealedHeads, HeadsError> {
    let message = OrbitDbMessageHeads::decode(data).map_err(HeadsError::Malformed)?;
    let token = Token::from_slice(&message.raw_rotation).ok_or(HeadsError::Token)?;
    Ok(SealedHeads { token, sealed_box: message.sealed_box })
}

impl SealedHeads {
    /// Opens it for the store at `address`, for which the token stands.
    ///
    /// A device key or a host that cannot be read is left out, and nothing else
    /// (`spec/security.md` O8).
    ///
    /// # Errors
    /// [`HeadsError`].
    pub fn open(&self, address: &str, link_key: &SymmetricKey) -> Result<HeadsPayload, HeadsError> {
        let content = open_with_nonce(link_key, &self.sealed_box)?;
        let content = BoxMessage::decode(&*content).map_err(HeadsError::Content)?;
        if content.address != address {
            return Err(HeadsError::OtherStore);
        }
        Ok(HeadsPayload {
            heads: content.heads,
            device: DeviceId::from_bytes(&content.device_pk).ok(),
            host: PeerId::from_bytes(&content.peer_id),
        })
    }
}

impl HeadsPayload {
    /// Seals it for the store at `address` under `token`.
    pub fn seal(
        &self,
        address: &str,
        link_key: &SymmetricKey,
        token: &Token,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Vec<u8> {
        self.seal_with(address, link_key, token, Nonce::random(rng))
    }

    /// Seals it with a given nonce: see [`Self::seal`].
    pub fn seal_with(&self, address: &str, link_key: &SymmetricKey, token: &Token, nonce: Nonce) -> Vec<u8> {
        let content = BoxMessage {
            address: address.to_owned(),
            heads: self.heads.clone(),
            device_pk: self.device.map(|device| device.as_bytes().to_vec()).unwrap_or_default(),
            peer_id: self.host.as_ref().map(|host| host.as_bytes().to_vec()).unwrap_or_default(),
        };
        let message = OrbitDbMessageHeads {
            sealed_box: seal_with_nonce(link_key, nonce, &content.encode_to_vec()),
            raw_rotation: token.as_bytes().to_vec(),
        };
        message.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_base::{SecretKey, Time};

    use super::*;
    use crate::rotation::heads_token;

    const ADDRESS: &str = "/orbitdb/bafyexample/one";
    const KEY: SymmetricKey = SymmetricKey::from_bytes([5; 32]);

    fn payload() -> HeadsPayload {
        HeadsPayload {
            heads: b"[]".to_vec(),
            device: Some(DeviceId::new(SecretKey::from_seed([6; 32]).public())),
            host: PeerId::from_bytes(&[7; 38]),
        }
    }

    fn seal(payload: &HeadsPayload, address: &str) -> Vec<u8> {
        let token = heads_token(ADDRESS, &KEY, Time::default(), None);
        payload.seal_with(address, &KEY, &token, Nonce::dangerous_fixed([8; 24]))
    }

    #[test]
    fn opens_for_its_store() {
        let sealed = parse(&seal(&payload(), ADDRESS)).unwrap();
        assert_eq!(sealed.token, heads_token(ADDRESS, &KEY, Time::default(), None));
        assert_eq!(sealed.open(ADDRESS, &KEY).unwrap(), payload());
    }

    #[test]
    fn the_address_inside_has_to_be_that_of_the_store() {
        let sealed = parse(&seal(&payload(), "/orbitdb/bafyexample/another")).unwrap();
        assert!(matches!(sealed.open(ADDRESS, &KEY), Err(HeadsError::OtherStore)));
    }

    #[test]
    fn the_key_has_to_be_that_of_the_store() {
        let sealed = parse(&seal(&payload(), ADDRESS)).unwrap();
        let other = SymmetricKey::from_bytes([6; 32]);
        assert!(matches!(sealed.open(ADDRESS, &other), Err(HeadsError::Seal(_))));
    }

    #[test]
    fn a_hint_that_cannot_be_read_is_left_out() {
        let content = BoxMessage {
            address: ADDRESS.into(),
            heads: b"[]".to_vec(),
            device_pk: vec![1; 31],
            peer_id: Vec::new(),
        };
        let message = OrbitDbMessageHeads {
            sealed_box: seal_with_nonce(&KEY, Nonce::dangerous_fixed([8; 24]), &content.encode_to_vec()),
            raw_rotation: vec![0; 32],
        };
        let opened = parse(&message.encode_to_vec()).unwrap().open(ADDRESS, &KEY).unwrap();
        assert_eq!(opened, HeadsPayload { heads: b"[]".to_vec(), device: None, host: None });
    }

    #[test]
    fn the_token_has_32_bytes() {
        let message = OrbitDbMessageHeads { sealed_box: vec![0; 60], raw_rotation: vec![0; 31] };
        assert!(matches!(parse(&message.encode_to_vec()), Err(HeadsError::Token)));
    }
}
