//! Sealing and opening messages (`spec/wesh-protocol.md` §4.3, §4.6).

use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{Read, ReadError, Tx};
use dunlin_base::planted::{self, Bug};
use dunlin_base::seal::{self, Nonce};
use dunlin_base::{DeviceId, EntryId, GroupId, SecretKey, Signature};
use dunlin_proto::protocol::{EncryptedMessage, MessageEnvelope, MessageHeaders};
use prost::Message as _;
use rand_core::{CryptoRng, RngCore};

use super::chain::{ChainKey, KeyUnavailable, OtherChain};
use super::claims::{Arrival, Claim, Claims, Mark, Shift, Standing, StoredKey, mark_of};
use super::rows::{Chain, counter_key};
use crate::context::{self, Context, Log, Place, Placed};
use crate::errors::{Code, Coded};
use crate::group::{Group, OwnMember};
use crate::padding::{Carrier, Padding};
use crate::tables;
use crate::tables::damaged;

/// Why a message was not sealed. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// This device has sent as many messages as can be counted.
    #[error("all counters of this device are used")]
    CountersUsed,
}

/// A sealed message, ready to be appended to the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    /// The serialized `MessageEnvelope`.
    pub envelope: Vec<u8>,
    /// The number of the message among those of the device.
    pub counter: u64,
    mark: Mark,
}

/// Seals `plaintext` as the next message of the own device.
///
/// The next state of the chain and the key of the message are written into `tx`, where the caller puts the
/// entry as well: no counter is used twice and none is skipped (`spec/security.md` E1). The chain begins
/// with the first message or chain-key box.
///
/// # Errors
/// [`SealError`].
pub fn seal(
    tx: &mut Tx<'_>,
    group: &Group,
    own: &OwnMember,
    plaintext: &[u8],
    padding: Padding,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Result<Sealed, SealError> {
    let (id, device) = (group.id(), own.device_id());
    let chain = own_chain(tx, &id, own, rng)?;
    let counter = chain.counter().checked_add(1).ok_or(SealError::CountersUsed)?;
    let context = match padding {
        Padding::Buckets => Some(context::next_own(tx, &device, &Place::message(&id, counter))?),
        Padding::Bare => None,
    };
    let nonce = Nonce::random(rng);
    let form = Form { padding, context: context.as_ref() };
    let (sealed, next, key) =
        seal_as(group, &own.device, &chain, plaintext, &form, nonce).ok_or(SealError::CountersUsed)?;
    if let Some(context) = &context {
        context::note_own(tx, &id, &device, Log::Messages, context, &sealed.envelope);
    }
    tx.put(tables::MESSAGE_KEYS, &counter_key(&id, &device, sealed.counter), key.as_bytes());
    Claims { group: &id, device: &device }.note_hearsay(tx, sealed.counter, &sealed.mark)?;
    let next = match next.step(&id) {
        Some((skipped, _)) if planted::is(Bug::CounterSkips) => skipped,
        _ => next,
    };
    if !planted::is(Bug::ChainNotStored) {
        Chain::Own(next).store(tx, &id, &device);
    }
    Ok(sealed)
}

/// Seals `plaintext` as the message that follows the state `chain` of `device`: the message, the state
/// after it, and its key. `None` when all counters are used.
///
/// Whoever seals two messages from one state uses a counter twice; [`seal()`] keeps track of that. Nothing is signed
/// about the place of the message: it is one as Go devices write them.
pub fn seal_at(
    group: &Group,
    device: &SecretKey,
    chain: &ChainKey,
    plaintext: &[u8],
    padding: Padding,
    nonce: Nonce,
) -> Option<(Sealed, ChainKey, SymmetricKey)> {
    seal_as(group, device, chain, plaintext, &Form { padding, context: None }, nonce)
}

/// What a message is sealed with beside its text.
pub(super) struct Form<'c> {
    pub padding: Padding,
    pub context: Option<&'c Context>,
}

pub(super) fn seal_as(
    group: &Group,
    device: &SecretKey,
    chain: &ChainKey,
    plaintext: &[u8],
    form: &Form<'_>,
    nonce: Nonce,
) -> Option<(Sealed, ChainKey, SymmetricKey)> {
    let (next, key) = chain.step(&group.id())?;
    let counter = next.counter();
    let clear = EncryptedMessage { plaintext: plaintext.to_vec(), protocol_metadata: None };
    let mut clear = clear.encode_to_vec();
    let within = form.context.map(Context::to_field).unwrap_or_default();
    form.padding.close_with(&mut clear, Carrier::Message, &within);
    let signature = device.sign(&clear);
    let headers = MessageHeaders {
        counter,
        device_pk: device.public().as_bytes().to_vec(),
        sig: signature.as_bytes().to_vec(),
        ..Default::default()
    };
    let envelope = MessageEnvelope {
        message: seal::seal(&key, Nonce::of_counter(counter), &clear),
        nonce: nonce.as_bytes().to_vec(),
        message_headers: seal::seal(group.secret(), nonce, &headers.encode_to_vec()),
    };
    Some((Sealed { envelope: envelope.encode_to_vec(), counter, mark: mark_of(&signature) }, next, key))
}

/// The chain of this device, begun if there is none.
pub(super) fn own_chain(
    tx: &mut Tx<'_>,
    group: &GroupId,
    own: &OwnMember,
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Result<ChainKey, ReadError> {
    let device = own.device_id();
    match Chain::load(tx, group, &device)? {
        Some(Chain::Own(state)) => Ok(state),
        // Only a chain that was taken from a box is stored so, and boxes of the own device are not taken.
        Some(Chain::Other(_)) => Err(damaged(tables::CHAINS)),
        None => {
            let state = ChainKey::random(rng);
            Chain::Own(state.clone()).store(tx, group, &device);
            Ok(state)
        }
    }
}

/// Why the headers of a message do not open. Every member sees the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadersError {
    /// The value is no `MessageEnvelope`.
    #[error("the value is no message envelope")]
    Envelope,
    /// The nonce has not 24 bytes.
    #[error("the nonce of the headers has not 24 bytes")]
    Nonce,
    /// Somebody without the secret of the group made them, or they were changed.
    #[error("the headers do not open with the secret of the group")]
    DoNotOpen,
    /// They are no `MessageHeaders`, or name no device.
    #[error("the headers are malformed")]
    Malformed,
}

impl Coded for HeadersError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Envelope => vec![Code::ErrDeserialization],
            Self::Nonce => vec![Code::ErrSerialization, Code::ErrInvalidInput],
            Self::DoNotOpen => vec![Code::ErrCryptoDecrypt],
            Self::Malformed => vec![Code::ErrDeserialization],
        }
    }
}

/// Which message an envelope carries. Known to every member, whether the message itself opens or not.
#[derive(Clone, Debug)]
pub struct Headers {
    /// The number of the message among those of its device.
    pub counter: u64,
    /// The device that claims to have sent it; proven once the message is opened.
    pub device: DeviceId,
    /// What it says that the device signed with; checked once the message is opened.
    pub signature: Option<Signature>,
}

/// Opens the headers of a message.
///
/// # Errors
/// [`HeadersError`].
pub fn open_headers(group: &Group, envelope: &[u8]) -> Result<Headers, HeadersError> {
    let envelope = MessageEnvelope::decode(envelope).map_err(|_| HeadersError::Envelope)?;
    let nonce = envelope.nonce.as_slice().try_into().map_err(|_| HeadersError::Nonce)?;
    let clear =
        seal::open(group.secret(), nonce, &envelope.message_headers).map_err(|_| HeadersError::DoNotOpen)?;
    let headers = MessageHeaders::decode(clear.as_slice()).map_err(|_| HeadersError::Malformed)?;
    Ok(Headers {
        counter: headers.counter,
        device: DeviceId::from_bytes(&headers.device_pk).map_err(|_| HeadersError::Malformed)?,
        signature: Signature::from_slice(&headers.sig),
    })
}

/// Why a message does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenMessageError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The chain of the device did not come yet. Let the message wait for it.
    #[error("the chain key of the device is not known")]
    NoChainKey,
    /// Too many messages of the device are missing before it. Let it wait for them.
    #[error("the message lies beyond the window of keys")]
    BeyondWindow,
    /// The device shared its chain with this member later. It stays closed for ever.
    #[error("the message was sent before its key was shared")]
    SentBeforeKey,
    /// Another entry holds its counter, and the key is erased; or it is that message once more. It stays closed
    /// for ever.
    #[error("another message has the number of this one")]
    AlreadyUsed,
    /// The value is no `MessageEnvelope`: not the one that the headers came from.
    #[error("the value is no message envelope")]
    Envelope,
    /// The device signed it, but not for this place: for another group or number, or before it began to say where what
    /// it signs belongs. Somebody moved it. It stays closed for ever, and the counter is free for what belongs there.
    #[error("the device did not sign the message for this place")]
    OutOfPlace,
    /// The message was changed, or made without the chain of the device.
    #[error("the message does not open with its key")]
    DoesNotOpen,
    /// The message opens, but the device did not sign it.
    #[error("the message is not signed by its device")]
    Forged,
    /// The device signed something else than an `EncryptedMessage`. Its counter is used.
    #[error("the opened message is malformed")]
    Malformed,
}

impl OpenMessageError {
    /// Whether the message may open later, so that it should wait.
    pub const fn may_open_later(&self) -> bool {
        matches!(self, Self::Read(_) | Self::NoChainKey | Self::BeyondWindow)
    }
}

impl Coded for OpenMessageError {
    fn codes(&self) -> Vec<Code> {
        let within_payload = |code| vec![Code::ErrCryptoDecryptPayload, code];
        let no_key = || vec![Code::ErrCryptoDecryptPayload, Code::ErrCryptoDecrypt, Code::ErrMissingInput];
        match self {
            Self::Read(_) => within_payload(Code::ErrDbRead),
            Self::NoChainKey => no_key(),
            Self::BeyondWindow => no_key(),
            Self::SentBeforeKey => no_key(),
            Self::AlreadyUsed => no_key(),
            Self::Envelope => vec![Code::ErrDeserialization],
            Self::DoesNotOpen => within_payload(Code::ErrCryptoDecrypt),
            Self::Forged | Self::OutOfPlace => within_payload(Code::ErrCryptoSignatureVerification),
            Self::Malformed => vec![Code::ErrDeserialization],
        }
    }
}

impl From<KeyUnavailable> for OpenMessageError {
    fn from(unavailable: KeyUnavailable) -> Self {
        match unavailable {
            KeyUnavailable::SentBeforeKey => Self::SentBeforeKey,
            KeyUnavailable::AlreadyUsed => Self::AlreadyUsed,
            KeyUnavailable::BeyondWindow => Self::BeyondWindow,
        }
    }
}

/// A message that its device signed.
#[derive(Clone, Eq, PartialEq)]
pub struct OpenedMessage {
    /// The device that sent it.
    pub device: DeviceId,
    /// Its number among those of the device.
    pub counter: u64,
    /// What the application sent.
    pub plaintext: Vec<u8>,
}

impl std::fmt::Debug for OpenedMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedMessage")
            .field("device", &self.device)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// A message that was opened, and what that changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    /// The message.
    pub message: OpenedMessage,
    /// Whether it is to be kept and not shown, because its counter belongs to another one. Before `shifts`.
    pub is_repeat: bool,
    /// What its device signed about its place; none if the device signs nothing about that.
    pub context: Option<Context>,
    /// Which messages of the device changed places, in the order in which that happened.
    pub shifts: Vec<Shift>,
}

/// Opens the message in the entry `entry`, whose `envelope` has the given `headers`.
///
/// The counter is given to the entry as [`claims`](super::claims) describes, and the key is erased as soon as it
/// is settled: after that, nothing opens with it any more, the same entry included.
///
/// # Errors
/// [`OpenMessageError`]; the chain is as it was, but for [`OpenMessageError::Malformed`].
pub fn open_message(
    tx: &mut Tx<'_>,
    arrival: &Arrival,
    group: &Group,
    entry: EntryId,
    headers: &Headers,
    envelope: &[u8],
) -> Result<Opening, OpenMessageError> {
    let envelope = MessageEnvelope::decode(envelope).map_err(|_| OpenMessageError::Envelope)?;
    let signature = headers.signature.ok_or(OpenMessageError::Forged)?;
    let (id, mark) = (group.id(), mark_of(&signature));
    let claims = Claims { group: &id, device: &headers.device };
    let counter = headers.counter;
    let taken = match TakenKey::take(tx, &id, headers) {
        Ok(taken) => taken,
        Err(error) => {
            if matches!(error, OpenMessageError::SentBeforeKey) {
                claims.note_hearsay(tx, counter, &mark)?;
            }
            return Err(error);
        }
    };
    let standing = match &taken {
        TakenKey::Held(_) => claims.standing(tx, counter, entry, &mark)?,
        _ => Standing::First,
    };
    if matches!(standing, Standing::Refused) {
        return Err(OpenMessageError::AlreadyUsed);
    }
    let clear = proven(taken.key(), headers, &envelope.message)?;
    let message = opened(headers, &clear);
    let context = match message {
        Ok(_) => placed(tx, &id, headers, &clear)?,
        Err(_) => None,
    };
    if let TakenKey::Other(_, chain) = &taken {
        Chain::Other(chain.clone()).store(tx, &id, &headers.device);
    }
    let message = message?;
    let mut opening = Opening { message, is_repeat: false, context: None, shifts: Vec::new() };
    let claim = Claim { entry, mark, is_placed: context.is_some(), is_shown: true };
    if context.is_some() {
        opening.shifts = require_contexts(tx, &id, &headers.device, counter)?;
    }
    opening.context = context;
    match standing {
        Standing::Again { is_repeat } => opening.is_repeat = is_repeat,
        Standing::Disputed => {
            claims.note_signature(tx, counter, &mark, entry);
            claims.dispute(tx, counter, claim);
            opening.is_repeat = true;
            opening.shifts.extend(claims.judge(tx, counter, &mark)?);
        }
        Standing::First | Standing::Refused => {
            let is_settled = match &taken {
                TakenKey::Other(_, chain) => {
                    arrival.past_is_synced
                        && chain.skipped.is_empty()
                        && claims.settles_at_once(tx, counter, &claim)?
                }
                TakenKey::Own(_) | TakenKey::Held(_) => false,
            };
            claims.note_signature(tx, counter, &mark, entry);
            if is_settled {
                // Then nothing else is held either.
                return Ok(opening);
            }
            claims.hold(tx, arrival.now, counter, taken.key(), claim);
            opening.shifts.extend(claims.judge(tx, counter, &mark)?);
        }
    }
    if arrival.past_is_synced
        && let Some(Chain::Other(chain)) = Chain::load(tx, &id, &headers.device)?
    {
        claims.settle(tx, chain.skipped.first().map_or(u64::MAX, |(counter, _)| *counter))?;
    }
    Ok(opening)
}

/// Shows from now on no message of `device` behind `counter` that carries no context: the device signs all of them with
/// one. Returns which messages are not to be shown any more.
///
/// # Errors
/// [`ReadError`].
pub fn require_contexts(
    tx: &mut Tx<'_>,
    group: &GroupId,
    device: &DeviceId,
    counter: u64,
) -> Result<Vec<Shift>, ReadError> {
    if !context::require_contexts(tx, group, device, counter)? {
        return Ok(Vec::new());
    }
    Claims { group, device }.judge_behind(tx, counter)
}

/// What the device signed about the place of a message, as far as that lets it be opened there.
pub(super) fn placed(
    read: &dyn Read,
    group: &GroupId,
    headers: &Headers,
    clear: &[u8],
) -> Result<Option<Context>, OpenMessageError> {
    match Placed::of_message(clear, &Place::message(group, headers.counter)) {
        Placed::Here(context) => Ok(Some(context)),
        Placed::Elsewhere => Err(OpenMessageError::OutOfPlace),
        Placed::Nowhere => {
            let since = context::contexts_since(read, group, &headers.device)?;
            if since.is_some_and(|since| headers.counter > since) {
                return Err(OpenMessageError::OutOfPlace);
            }
            Ok(None)
        }
    }
}

/// Lets the entry `by` take over what is known of the message with these `headers` in `entry`: it carries the
/// same sealed bytes.
///
/// # Errors
/// [`ReadError`].
pub fn hand_down_claim(
    tx: &mut Tx<'_>,
    group: &GroupId,
    headers: &Headers,
    entry: &EntryId,
    by: &EntryId,
) -> Result<(), ReadError> {
    let Some(signature) = headers.signature else { return Ok(()) };
    let claims = Claims { group, device: &headers.device };
    claims.hand_down(tx, headers.counter, &mark_of(&signature), entry, *by)
}

/// Erases the key of the message `counter` of `device`, if it is held: nothing opens the message again.
///
/// # Errors
/// [`ReadError`].
pub fn erase_key(tx: &mut Tx<'_>, group: &GroupId, device: &DeviceId, counter: u64) -> Result<(), ReadError> {
    Claims { group, device }.erase(tx, counter)
}

/// Takes the claim of `entry` to the counter `counter` of `device` back, if it is not the one that is shown.
///
/// # Errors
/// [`ReadError`].
pub fn withdraw_claim(
    tx: &mut Tx<'_>,
    group: &GroupId,
    device: &DeviceId,
    counter: u64,
    entry: &EntryId,
) -> Result<(), ReadError> {
    Claims { group, device }.withdraw(tx, counter, entry)
}

fn open_with(key: &SymmetricKey, headers: &Headers, sealed: &[u8]) -> Result<Vec<u8>, OpenMessageError> {
    let nonce = Nonce::of_counter(headers.counter);
    seal::open(key, nonce.as_bytes(), sealed).map_err(|_| OpenMessageError::DoesNotOpen)
}

/// Opens a sealed message and checks that its device signed what is inside.
pub(super) fn proven(
    key: &SymmetricKey,
    headers: &Headers,
    sealed: &[u8],
) -> Result<Vec<u8>, OpenMessageError> {
    let clear = open_with(key, headers, sealed)?;
    let signature = headers.signature.ok_or(OpenMessageError::Forged)?;
    headers.device.key().verify(&clear, &signature).map_err(|_| OpenMessageError::Forged)?;
    Ok(clear)
}

fn opened(headers: &Headers, clear: &[u8]) -> Result<OpenedMessage, OpenMessageError> {
    let message = EncryptedMessage::decode(clear).map_err(|_| OpenMessageError::Malformed)?;
    Ok(OpenedMessage { device: headers.device, counter: headers.counter, plaintext: message.plaintext })
}

/// The key of a message, and where it came from. Nothing is changed by taking it.
pub(super) enum TakenKey {
    /// Of an own message that was not opened yet.
    Own(SymmetricKey),
    /// Of the chain of another device, and what is left of that without it.
    Other(SymmetricKey, OtherChain),
    /// Of a counter that another entry claims.
    Held(SymmetricKey),
}

impl TakenKey {
    pub fn take(read: &dyn Read, group: &GroupId, headers: &Headers) -> Result<Self, OpenMessageError> {
        let chain = Chain::load(read, group, &headers.device)?.ok_or(OpenMessageError::NoChainKey)?;
        if let Some(stored) = StoredKey::load(read, group, &headers.device, headers.counter)? {
            return Ok(if stored.is_held { Self::Held(stored.key) } else { Self::Own(stored.key) });
        }
        match chain {
            Chain::Own(state) if headers.counter <= state.counter() => {
                Err(KeyUnavailable::AlreadyUsed.into())
            }
            Chain::Own(_) => Err(KeyUnavailable::BeyondWindow.into()),
            Chain::Other(mut chain) => {
                let key = chain.take(group, headers.counter)?;
                Ok(Self::Other(key, chain))
            }
        }
    }

    pub fn key(&self) -> &SymmetricKey {
        match self {
            Self::Own(key) | Self::Held(key) | Self::Other(key, _) => key,
        }
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
