//! Messages that come outside their log, such as in a push notification (`spec/wesh-protocol.md` §7.4).
//!
//! A message of the log is sealed once more, with the secret of its group, together with what its headers
//! say. Whoever has the chain of the sender opens it without the log and without the network.
//!
//! The envelope names its group by a reference that is another one for every message, so that who carries
//! envelopes cannot tell which belong together. Go keeps a table of all references that may come. Here
//! nothing is kept: the group is the one whose secret opens the envelope, and the reference has to be the one
//! that follows from what is inside.
//!
//! Opening changes nothing. The key stays there for the entry in the log.

use dunlin_base::kdf::hkdf_sha3_256;
use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{Read, ReadError};
use dunlin_base::seal::{self, NONCE_BYTES, Nonce};
use dunlin_base::{DeviceId, EntryId, GroupId, Signature};
use dunlin_proto::protocol::{
    EncryptedMessage, MessageEnvelope, OutOfStoreMessage, OutOfStoreMessageEnvelope,
};
use prost::Message as _;
use zeroize::Zeroizing;

use super::chain::{ChainKey, KeyUnavailable, OtherChain};
use super::claims::{Claims, mark_of};
use super::envelope::{
    Headers, HeadersError, OpenMessageError, OpenedMessage, TakenKey, open_headers, placed, proven,
};
use super::rows::Chain;
use crate::errors::{Code, Coded};
use crate::group::Group;
use crate::padding::{Carrier, Padding};

/// Longest envelope that is opened: it holds a message of an entry.
pub const OUT_OF_STORE_BYTES_MAX: usize = dunlin_log::ENTRY_BYTES_MAX;

/// How many messages beyond the window of keys open out of store: as many as with Go.
const OUT_OF_STORE_AHEAD: u64 = 1;

/// Why an out-of-store message was not opened. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutOfStoreError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is longer than any message.
    #[error("an envelope of {0} bytes is too long")]
    TooLong(usize),
    /// The bytes are no `OutOfStoreMessageEnvelope`.
    #[error("this is no envelope of an out-of-store message")]
    Envelope,
    /// The nonce has not 24 bytes.
    #[error("the nonce of the envelope has not 24 bytes")]
    Nonce,
    /// No group of this account has the secret that opens it. It is for somebody else, or damaged.
    #[error("the message belongs to no group of this account")]
    NoGroup,
    /// The envelope names another message than it holds.
    #[error("the group reference does not belong to the message")]
    OtherReference,
    /// What a member sealed is no `OutOfStoreMessage`, or names no device or no entry.
    #[error("the out-of-store message is malformed")]
    Malformed,
    /// The device has not announced itself in the group as far as is known here (`spec/security.md` E6).
    #[error("the device that sent the message is not known in its group")]
    DeviceUnknown,
    /// The message inside does not open.
    #[error(transparent)]
    Message(#[from] OpenMessageError),
}

impl Coded for OutOfStoreError {
    fn codes(&self) -> Vec<Code> {
        let within = |code| vec![Code::ErrCryptoDecrypt, code];
        match self {
            Self::Read(_) => within(Code::ErrDbRead),
            Self::TooLong(_) => within(Code::ErrInvalidInput),
            Self::Envelope => within(Code::ErrDeserialization),
            Self::Nonce => vec![Code::ErrCryptoDecrypt, Code::ErrInvalidInput, Code::ErrInvalidInput],
            Self::NoGroup | Self::OtherReference => within(Code::ErrNotFound),
            Self::Malformed => within(Code::ErrDeserialization),
            Self::DeviceUnknown => within(Code::ErrMissingInput),
            Self::Message(error) => [vec![Code::ErrCryptoDecrypt], error.codes()].concat(),
        }
    }
}

/// What names the message `counter` of `device` to those who have the `secret` of the group, and nothing to
/// others.
pub fn out_of_store_reference(secret: &SymmetricKey, device: &DeviceId, counter: u64) -> [u8; 32] {
    let secret = hkdf_sha3_256::<32>(secret.as_bytes(), b"push_secret_ref");
    let message = [device.as_bytes().as_slice(), &counter.to_be_bytes()].concat();
    *hkdf_sha3_256::<32>(secret.as_slice(), &message)
}

/// Seals the message in the entry `entry` of the log, whose value is `envelope`, to be sent outside it.
///
/// # Errors
/// [`HeadersError`] when the value is no message of the group.
pub fn seal_out_of_store(
    group: &Group,
    entry: EntryId,
    envelope: &[u8],
    nonce: Nonce,
) -> Result<Vec<u8>, HeadersError> {
    let headers = open_headers(group, envelope)?;
    let signature = headers.signature.ok_or(HeadersError::Malformed)?;
    let envelope = MessageEnvelope::decode(envelope).map_err(|_| HeadersError::Envelope)?;
    let message = OutOfStoreMessage {
        cid: entry.cid_bytes().to_vec(),
        device_pk: headers.device.as_bytes().to_vec(),
        counter: headers.counter,
        sig: signature.as_bytes().to_vec(),
        flags: 0,
        encrypted_payload: envelope.message,
        nonce: envelope.nonce,
    };
    let sealed = OutOfStoreMessageEnvelope {
        nonce: nonce.as_bytes().to_vec(),
        group_reference: out_of_store_reference(group.secret(), &headers.device, headers.counter).to_vec(),
        r#box: seal::seal(group.secret(), nonce, &message.encode_to_vec()),
    };
    Ok(sealed.encode_to_vec())
}

/// An out-of-store message whose group is not known yet.
#[derive(Clone, Debug)]
pub struct SealedOutOfStore {
    nonce: [u8; NONCE_BYTES],
    sealed: Vec<u8>,
    reference: Vec<u8>,
}

/// An out-of-store message that its device signed.
#[derive(Clone, PartialEq)]
pub struct OpenedOutOfStore {
    /// The group it belongs to.
    pub group: GroupId,
    /// The device that sent it.
    pub device: DeviceId,
    /// Its number among those of the device.
    pub counter: u64,
    /// Which entry of the log carries it. A sender may leave it out.
    pub entry: Option<EntryId>,
    /// The serialized `EncryptedMessage`, which is what the device signed.
    pub clear: Vec<u8>,
    /// Whether the entry was opened before.
    pub already_received: bool,
    /// The message as it was sealed.
    pub message: OutOfStoreMessage,
}

impl std::fmt::Debug for OpenedOutOfStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedOutOfStore")
            .field("device", &self.device)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl SealedOutOfStore {
    /// Parses an `OutOfStoreMessageEnvelope`.
    ///
    /// # Errors
    /// [`OutOfStoreError::TooLong`], [`OutOfStoreError::Envelope`] or [`OutOfStoreError::Nonce`].
    pub fn parse(payload: &[u8]) -> Result<Self, OutOfStoreError> {
        if payload.len() > OUT_OF_STORE_BYTES_MAX {
            return Err(OutOfStoreError::TooLong(payload.len()));
        }
        let envelope = OutOfStoreMessageEnvelope::decode(payload).map_err(|_| OutOfStoreError::Envelope)?;
        let nonce = envelope.nonce.as_slice().try_into().map_err(|_| OutOfStoreError::Nonce)?;
        Ok(Self { nonce, sealed: envelope.r#box, reference: envelope.group_reference })
    }

    /// Opens it as a message of `group`; `None` when it belongs to another one.
    ///
    /// The key of a message that came in the log is erased: then the text is what `kept` has for its entry.
    ///
    /// # Errors
    /// [`OutOfStoreError`], when it belongs to the group and does not open.
    pub fn open(
        &self,
        read: &dyn Read,
        group: &Group,
        kept: &dyn Fn(&EntryId) -> Result<Option<OpenedMessage>, ReadError>,
    ) -> Result<Option<OpenedOutOfStore>, OutOfStoreError> {
        let Ok(clear) = seal::open(group.secret(), &self.nonce, &self.sealed) else { return Ok(None) };
        let message = OutOfStoreMessage::decode(&*clear).map_err(|_| OutOfStoreError::Malformed)?;
        let named = match message.cid.as_slice() {
            [] => None,
            cid => Some(EntryId::from_cid_bytes(cid).ok_or(OutOfStoreError::Malformed)?),
        };
        let signature = Signature::from_slice(&message.sig);
        let headers = Headers {
            counter: message.counter,
            device: DeviceId::from_bytes(&message.device_pk).map_err(|_| OutOfStoreError::Malformed)?,
            signature,
        };
        let signature = signature.ok_or(OpenMessageError::Forged)?;
        let id = group.id();
        let claims = Claims { group: &id, device: &headers.device };
        let opened_as = claims.opened_as(read, headers.counter, &mark_of(&signature))?;
        let entry = named.or(opened_as);
        let clear = match message_key(read, group, &headers) {
            Ok(key) => {
                let clear = proven(&key, &headers, &message.encrypted_payload)?;
                placed(read, &id, &headers, &clear)?;
                clear
            }
            Err(OpenMessageError::AlreadyUsed) => {
                let here = opened_as.or(named).map_or(Ok(None), |entry| kept(&entry))?;
                here.and_then(|kept| signed_again(&kept, &headers, &signature, opened_as.is_some()))
                    .ok_or(OpenMessageError::AlreadyUsed)?
            }
            Err(error) => return Err(error.into()),
        };
        let already_received = match opened_as {
            Some(_) => true,
            // What earlier versions opened has no mark.
            None => named.map_or(Ok(None), |entry| kept(&entry))?.is_some(),
        };
        let clear = Zeroizing::new(clear);
        let reference = out_of_store_reference(group.secret(), &headers.device, headers.counter);
        if self.reference != reference {
            return Err(OutOfStoreError::OtherReference);
        }
        Ok(Some(OpenedOutOfStore {
            group: group.id(),
            device: headers.device,
            counter: headers.counter,
            entry,
            clear: clear.to_vec(),
            already_received,
            message,
        }))
    }
}

/// What a device signed, made again from the text that is left of it: in the form that the signature fits. Texts that
/// `is_known` to have that signature and fit in no form had fields that are not known here.
fn signed_again(
    kept: &OpenedMessage,
    headers: &Headers,
    signature: &Signature,
    is_known: bool,
) -> Option<Vec<u8>> {
    if (kept.device, kept.counter) != (headers.device, headers.counter) {
        return None;
    }
    let form = |padding: Padding| {
        let message = EncryptedMessage { plaintext: kept.plaintext.clone(), protocol_metadata: None };
        let mut clear = message.encode_to_vec();
        padding.close(&mut clear, Carrier::Message);
        clear
    };
    let fits = |clear: &Vec<u8>| headers.device.key().verify(clear, signature).is_ok();
    let forms = [Padding::Buckets, Padding::Bare].map(form);
    match forms.iter().find(|clear| fits(clear)) {
        Some(clear) => Some(clear.clone()),
        None => is_known.then(|| form(Padding::Bare)),
    }
}

/// The key of a message; it stays where it is.
fn message_key(read: &dyn Read, group: &Group, headers: &Headers) -> Result<SymmetricKey, OpenMessageError> {
    match TakenKey::take(read, &group.id(), headers) {
        Ok(taken) => Ok(taken.key().clone()),
        Err(OpenMessageError::BeyondWindow) => match Chain::load(read, &group.id(), &headers.device)? {
            Some(Chain::Other(chain)) => {
                let beyond = headers.counter.saturating_sub(chain.window_end());
                match beyond <= OUT_OF_STORE_AHEAD {
                    true => beyond_window(&chain, &group.id(), headers.counter),
                    false => Err(OpenMessageError::BeyondWindow),
                }
            }
            _ => Err(OpenMessageError::BeyondWindow),
        },
        Err(error) => Err(error),
    }
}

/// Derives the key of a message that lies a little beyond the window.
fn beyond_window(
    chain: &OtherChain,
    group: &GroupId,
    counter: u64,
) -> Result<SymmetricKey, OpenMessageError> {
    let mut state: ChainKey = chain.tip.clone();
    loop {
        let (next, key) = state.step(group).ok_or(KeyUnavailable::BeyondWindow)?;
        if next.counter() == counter {
            return Ok(key);
        }
        state = next;
    }
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;
    use dunlin_base::kv::{MemoryStore, Tx};
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    use super::super::{Arrival, inspect_chain, open_message, register_chain_key, seal_at};
    use super::*;

    /// A sender, a group, and a receiver with the chain of the sender.
    struct Scene {
        group: Group,
        device: SecretKey,
        store: MemoryStore,
    }

    impl Scene {
        fn new() -> Self {
            let (group, _) = Group::new_multi_member(&mut ChaCha12Rng::seed_from_u64(1));
            Self { group, device: SecretKey::from_seed([1; 32]), store: MemoryStore::default() }
        }

        fn receiver(&self) -> Tx<'_> {
            let mut tx = Tx::new(&self.store);
            let chain = OtherChain::new(Self::start()).unwrap();
            let device = DeviceId::new(self.device.public());
            register_chain_key(&mut tx, &self.group.id(), &device, chain).unwrap();
            tx
        }

        fn start() -> ChainKey {
            ChainKey::new(SymmetricKey::from_bytes([9; 32]), 0)
        }

        /// The entry, the value and the out-of-store form of a message.
        fn message(&self, counter: u64) -> (EntryId, Vec<u8>, Vec<u8>) {
            let mut state = Self::start();
            while state.counter() + 1 < counter {
                state = state.step(&self.group.id()).unwrap().0;
            }
            let nonce = || Nonce::dangerous_fixed([counter as u8; 24]);
            let text = format!("text {counter}");
            let (sealed, ..) =
                seal_at(&self.group, &self.device, &state, text.as_bytes(), Padding::Buckets, nonce())
                    .unwrap();
            let entry = EntryId::of_block(&sealed.envelope);
            let out = seal_out_of_store(&self.group, entry, &sealed.envelope, nonce()).unwrap();
            (entry, sealed.envelope, out)
        }
    }

    fn open(tx: &Tx<'_>, group: &Group, payload: &[u8]) -> Result<Option<OpenedOutOfStore>, OutOfStoreError> {
        SealedOutOfStore::parse(payload)?.open(tx, group, &|_| Ok(None))
    }

    #[test]
    fn reference_matches_the_published_vector() {
        // spec/wesh-protocol.md A.6.
        let secret = hex::decode("3c36830a206fac7ea51ee8061f2c9ee94aff8c62ac6b29e1572cf2435daa6e0f").unwrap();
        let secret = SymmetricKey::from_slice(&secret).unwrap();
        let device = SecretKey::from_seed(std::array::from_fn(|i| i as u8)).public();
        assert_eq!(
            hex::encode(out_of_store_reference(&secret, &DeviceId::new(device), 1)),
            "284c77cf015e38d765431866749b5db4591e0182e088c944552948feefe1c535"
        );
    }

    #[test]
    fn opening_changes_nothing_and_the_log_still_opens() {
        let scene = Scene::new();
        let mut tx = scene.receiver();
        let device = DeviceId::new(scene.device.public());
        let before = inspect_chain(&tx, &scene.group.id(), &device).unwrap();
        let (entry, value, out) = scene.message(3);
        for _ in 0..2 {
            let opened = open(&tx, &scene.group, &out).unwrap().unwrap();
            assert_eq!((opened.entry, opened.counter, opened.already_received), (Some(entry), 3, false));
        }
        assert_eq!(inspect_chain(&tx, &scene.group.id(), &device).unwrap(), before);

        let headers = open_headers(&scene.group, &value).unwrap();
        let arrival = Arrival { now: dunlin_base::Time::from_secs(1), past_is_synced: true };
        let opening = open_message(&mut tx, &arrival, &scene.group, entry, &headers, &value).unwrap();
        assert!(open(&tx, &scene.group, &out).unwrap().unwrap().already_received);

        // Once nothing is missing before it, its key is erased, and the text is the one that was kept.
        for counter in [1, 2] {
            let (entry, value, _) = scene.message(counter);
            let headers = open_headers(&scene.group, &value).unwrap();
            open_message(&mut tx, &arrival, &scene.group, entry, &headers, &value).unwrap();
        }
        let closed = open(&tx, &scene.group, &out);
        assert!(matches!(closed, Err(OutOfStoreError::Message(OpenMessageError::AlreadyUsed))));
        let kept = |of: &EntryId| Ok((*of == entry).then(|| opening.message.clone()));
        let opened = SealedOutOfStore::parse(&out).unwrap().open(&tx, &scene.group, &kept).unwrap().unwrap();
        assert!(opened.already_received);
        let signature = Signature::from_slice(&opened.message.sig).unwrap();
        assert!(opened.device.key().verify(&opened.clear, &signature).is_ok(), "what the device signed");
    }

    /// `spec/security.md` E8: nothing wraps at either end of the counters.
    #[test]
    fn oos_window() {
        let scene = Scene::new();
        let tx = scene.receiver();
        for (counter, opens) in [(1, true), (100, true), (101, true), (102, false)] {
            let (_, _, out) = scene.message(counter);
            assert_eq!(open(&tx, &scene.group, &out).is_ok(), opens, "{counter}");
        }
        for counter in [0, u64::MAX - 99, u64::MAX] {
            let message = OutOfStoreMessage {
                device_pk: scene.device.public().as_bytes().to_vec(),
                counter,
                sig: vec![0; 64],
                ..Default::default()
            };
            let refused = open(&tx, &scene.group, &sealed_by_member(&scene.group, &message)).unwrap_err();
            assert!(matches!(refused, OutOfStoreError::Message(_)), "{refused:?}");
        }
    }

    #[test]
    fn another_group_and_a_stranger_are_told_apart_from_a_hostile_member() {
        let scene = Scene::new();
        let tx = scene.receiver();
        let (other, _) = Group::new_multi_member(&mut ChaCha12Rng::seed_from_u64(2));
        let (_, _, out) = scene.message(1);
        assert_eq!(open(&tx, &other, &out).unwrap(), None);

        let mut renamed = OutOfStoreMessageEnvelope::decode(&*out).unwrap();
        renamed.group_reference[0] ^= 1;
        let refused = open(&tx, &scene.group, &renamed.encode_to_vec());
        assert!(matches!(refused, Err(OutOfStoreError::OtherReference)));

        let nobody = OutOfStoreMessage { device_pk: vec![1; 31], ..Default::default() };
        let refused = open(&tx, &scene.group, &sealed_by_member(&scene.group, &nobody));
        assert!(matches!(refused, Err(OutOfStoreError::Malformed)));

        let long = vec![0; OUT_OF_STORE_BYTES_MAX + 1];
        assert!(matches!(SealedOutOfStore::parse(&long), Err(OutOfStoreError::TooLong(_))));
        assert!(matches!(SealedOutOfStore::parse(b"\xff"), Err(OutOfStoreError::Envelope)));
        assert!(matches!(SealedOutOfStore::parse(b""), Err(OutOfStoreError::Nonce)));
    }

    #[test]
    fn a_value_that_is_no_message_is_not_sealed() {
        let scene = Scene::new();
        let refused =
            seal_out_of_store(&scene.group, EntryId::of_block(b""), b"", Nonce::dangerous_fixed([0; 24]));
        assert_eq!(refused, Err(HeadersError::Nonce));
    }

    #[test]
    fn secret_types_show_nothing() {
        let scene = Scene::new();
        let opened = open(&scene.receiver(), &scene.group, &scene.message(1).2).unwrap().unwrap();
        let shown = format!("{opened:?}");
        assert!(
            shown.starts_with("OpenedOutOfStore { device: ") && shown.ends_with(", counter: 1, .. }"),
            "{shown}"
        );
    }

    fn sealed_by_member(group: &Group, message: &OutOfStoreMessage) -> Vec<u8> {
        let envelope = OutOfStoreMessageEnvelope {
            nonce: vec![3; 24],
            r#box: seal::seal(group.secret(), Nonce::dangerous_fixed([3; 24]), &message.encode_to_vec()),
            group_reference: vec![0; 32],
        };
        envelope.encode_to_vec()
    }
}
