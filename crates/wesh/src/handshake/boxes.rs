//! What is inside the boxes, and the keys that close them.

use dunlin_base::kdf::sha256;
use dunlin_base::keys::{AgreementKey, KeyError, PublicKey, SecretKey, Signature, SymmetricKey};
use dunlin_base::seal::{Nonce, OpenError, open, seal};
use dunlin_proto::handshake::{
    BoxEnvelope, HelloPayload, RequesterAuthenticatePayload, ResponderAcceptPayload,
};
use prost::Message;

use super::{FRAME_BYTES_MAX, HandshakeError, Step};

/// Reads the message that is due, from a frame of at most [`FRAME_BYTES_MAX`] bytes.
pub(super) fn parse<M: Message + Default>(step: Step, frame: &[u8]) -> Result<M, HandshakeError> {
    if frame.len() > FRAME_BYTES_MAX {
        return Err(HandshakeError::Frame { step });
    }
    M::decode(frame).map_err(|_| HandshakeError::Frame { step })
}

/// The frame that carries an ephemeral public key.
pub(super) fn hello(ephemeral: &AgreementKey) -> Vec<u8> {
    HelloPayload { ephemeral_pub_key: ephemeral.public().to_vec() }.encode_to_vec()
}

/// The ephemeral public key in a frame.
pub(super) fn parse_hello(step: Step, frame: &[u8]) -> Result<[u8; 32], HandshakeError> {
    let bytes = parse::<HelloPayload>(step, frame)?.ephemeral_pub_key;
    bytes.try_into().map_err(|bytes: Vec<u8>| HandshakeError::EphemeralLength { step, found: bytes.len() })
}

/// The secret of this handshake, which both sides sign: what the ephemeral keys agree on.
pub(super) struct Session(SymmetricKey);

impl Session {
    pub fn agree(own: &AgreementKey, other: &[u8; 32]) -> Result<Self, KeyError> {
        Ok(Self(own.agree(other)?.hsalsa20()))
    }

    /// The key of a box: the session and what one more pair of keys agrees on, hashed.
    pub fn box_key(&self, own: &AgreementKey, other: &[u8; 32]) -> Result<SymmetricKey, KeyError> {
        let second = own.agree(other)?.hsalsa20();
        Ok(SymmetricKey::from_bytes(sha256(&[self.0.as_bytes(), second.as_bytes()])))
    }

    fn sign(&self, account: &SecretKey) -> Vec<u8> {
        account.sign(self.0.as_bytes()).as_bytes().to_vec()
    }

    fn verify(&self, step: Step, account: &PublicKey, signature: &[u8]) -> Result<(), HandshakeError> {
        let verified = Signature::from_slice(signature)
            .is_some_and(|signature| account.verify(self.0.as_bytes(), &signature).is_ok());
        if verified { Ok(()) } else { Err(HandshakeError::Signature { step }) }
    }
}

/// Frame 3: `account` names and proves itself.
pub(super) fn seal_proof(session: &Session, key: &SymmetricKey, account: &SecretKey) -> Vec<u8> {
    let proof = RequesterAuthenticatePayload {
        requester_account_id: account.public().to_libp2p().to_vec(),
        requester_account_sig: session.sign(account),
    };
    close(Step::RequesterAuthenticate, key, &proof)
}

/// The account that frame 3 proves.
pub(super) fn open_proof(
    session: &Session,
    key: &SymmetricKey,
    frame: &[u8],
) -> Result<PublicKey, HandshakeError> {
    let step = Step::RequesterAuthenticate;
    let proof: RequesterAuthenticatePayload = unclose(step, key, frame)?;
    let account = PublicKey::from_libp2p(&proof.requester_account_id).map_err(HandshakeError::AccountId)?;
    session.verify(step, &account, &proof.requester_account_sig)?;
    Ok(account)
}

/// Frame 4: `account` proves itself.
pub(super) fn seal_accept(session: &Session, key: &SymmetricKey, account: &SecretKey) -> Vec<u8> {
    let accept = ResponderAcceptPayload { responder_account_sig: session.sign(account) };
    close(Step::ResponderAccept, key, &accept)
}

/// Checks that frame 4 proves `account`.
pub(super) fn open_accept(
    session: &Session,
    key: &SymmetricKey,
    account: &PublicKey,
    frame: &[u8],
) -> Result<(), HandshakeError> {
    let step = Step::ResponderAccept;
    let accept: ResponderAcceptPayload = unclose(step, key, frame)?;
    session.verify(step, account, &accept.responder_account_sig)
}

/// The nonce of a box. Each key closes one box: it is the hash of two agreements with fresh keys, and the two
/// boxes of a handshake differ in the second of them.
fn nonce(step: Step) -> Nonce {
    let mut bytes = [0; 24];
    if let Some(first) = bytes.first_mut() {
        *first = if step == Step::RequesterAuthenticate { 1 } else { 2 };
    }
    Nonce::dangerous_fixed(bytes)
}

fn close(step: Step, key: &SymmetricKey, content: &impl Message) -> Vec<u8> {
    BoxEnvelope { r#box: seal(key, nonce(step), &content.encode_to_vec()) }.encode_to_vec()
}

fn unclose<M: Message + Default>(step: Step, key: &SymmetricKey, frame: &[u8]) -> Result<M, HandshakeError> {
    let envelope: BoxEnvelope = parse(step, frame)?;
    let content = open(key, nonce(step).as_bytes(), &envelope.r#box)
        .map_err(|source| HandshakeError::Seal { step, source })?;
    if content.is_empty() {
        return Err(HandshakeError::Seal { step, source: OpenError });
    }
    M::decode(&*content).map_err(|_| HandshakeError::Content { step })
}
