use dunlin_base::Time;
use dunlin_base::kv::MemoryStore;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::*;
use crate::message::{open_chain_key_box, own_chain_key_box, register_chain_key};

/// A sender and a receiver in one group, each with its own store.
struct Pair {
    group: Group,
    sender: OwnMember,
    receiver: OwnMember,
    rng: ChaCha12Rng,
}

impl Pair {
    fn new() -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (group, _) = Group::new_multi_member(&mut rng);
        let member = |first: u8| OwnMember {
            member: SecretKey::from_seed([first; 32]),
            device: SecretKey::from_seed([first + 1; 32]),
        };
        Self { group, sender: member(10), receiver: member(20), rng }
    }

    fn share(&mut self, from: &mut Tx<'_>, to: &mut Tx<'_>) {
        let dest = self.receiver.member_id();
        let sealed = own_chain_key_box(from, &self.group, &self.sender, &dest, &mut self.rng).unwrap();
        let device = self.sender.device_id();
        let chain = open_chain_key_box(&self.group, &self.receiver, &device, &sealed).unwrap();
        assert!(register_chain_key(to, &self.group.id(), &device, chain).unwrap());
    }

    fn seal(&mut self, tx: &mut Tx<'_>, text: &[u8]) -> Vec<u8> {
        seal(tx, &self.group, &self.sender, text, Padding::Buckets, &mut self.rng).unwrap().envelope
    }

    fn open(&self, tx: &mut Tx<'_>, entry: u8, envelope: &[u8]) -> Result<OpenedMessage, OpenMessageError> {
        let headers = open_headers(&self.group, envelope).unwrap();
        let entry = EntryId::from_digest([entry; 32]);
        let arrival = Arrival { now: Time::from_secs(1), past_is_synced: true };
        open_message(tx, &arrival, &self.group, entry, &headers, envelope).map(|opening| opening.message)
    }
}

#[test]
fn messages_open_in_any_order_and_once() {
    let (sending, receiving) = (MemoryStore::default(), MemoryStore::default());
    let (mut from, mut to) = (Tx::new(&sending), Tx::new(&receiving));
    let mut pair = Pair::new();
    pair.share(&mut from, &mut to);
    let sealed: Vec<_> = (1..=3).map(|n| pair.seal(&mut from, &[n])).collect();
    for n in [3, 1, 2] {
        let opened = pair.open(&mut to, n, &sealed[n as usize - 1]).unwrap();
        assert_eq!((opened.counter, opened.plaintext.as_slice()), (n.into(), [n].as_slice()));
    }
    let again = pair.open(&mut to, 2, &sealed[1]);
    assert!(matches!(again, Err(OpenMessageError::AlreadyUsed)), "the key is erased");
    let copy = pair.open(&mut to, 99, &sealed[1]);
    assert!(matches!(copy, Err(OpenMessageError::AlreadyUsed)));
}

#[test]
fn own_messages_open_with_the_key_they_were_sealed_with() {
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let mut pair = Pair::new();
    let first = pair.seal(&mut tx, b"first");
    let second = pair.seal(&mut tx, b"second");
    assert_eq!(pair.open(&mut tx, 1, &first).unwrap().plaintext, b"first");
    assert_eq!(pair.open(&mut tx, 2, &second).unwrap().plaintext, b"second");
    assert!(matches!(pair.open(&mut tx, 3, &first), Err(OpenMessageError::AlreadyUsed)));
}

#[test]
fn a_message_that_does_not_open_leaves_its_key() {
    let (sending, receiving) = (MemoryStore::default(), MemoryStore::default());
    let (mut from, mut to) = (Tx::new(&sending), Tx::new(&receiving));
    let mut pair = Pair::new();
    let early = pair.seal(&mut from, b"early");
    assert!(matches!(pair.open(&mut to, 1, &early), Err(OpenMessageError::NoChainKey)));
    pair.share(&mut from, &mut to);
    assert!(matches!(pair.open(&mut to, 1, &early), Err(OpenMessageError::SentBeforeKey)));

    let good = pair.seal(&mut from, b"good");
    let mut changed = MessageEnvelope::decode(good.as_slice()).unwrap();
    changed.message[20] ^= 1;
    let changed = pair.open(&mut to, 2, &changed.encode_to_vec());
    assert!(matches!(changed, Err(OpenMessageError::DoesNotOpen)));
    assert_eq!(pair.open(&mut to, 3, &good).unwrap().plaintext, b"good");
}

/// A member knows the chains of the others, but not their signatures.
#[test]
fn a_member_cannot_speak_for_another_device() {
    let (sending, receiving) = (MemoryStore::default(), MemoryStore::default());
    let (mut from, mut to) = (Tx::new(&sending), Tx::new(&receiving));
    let mut pair = Pair::new();
    pair.share(&mut from, &mut to);
    let chain = own_chain(&mut from, &pair.group.id(), &pair.sender, &mut pair.rng).unwrap();
    let nonce = Nonce::random(&mut pair.rng);
    let (sealed, ..) =
        seal_at(&pair.group, &pair.receiver.device, &chain, b"forged", Padding::Buckets, nonce).unwrap();
    let mut headers = open_headers(&pair.group, &sealed.envelope).unwrap();
    headers.device = pair.sender.device_id();
    let entry = EntryId::from_digest([1; 32]);
    let arrival = Arrival { now: Time::from_secs(1), past_is_synced: true };
    let forged = open_message(&mut to, &arrival, &pair.group, entry, &headers, &sealed.envelope);
    assert!(matches!(forged, Err(OpenMessageError::Forged)));
    let honest = pair.seal(&mut from, b"honest");
    assert_eq!(pair.open(&mut to, 2, &honest).unwrap().plaintext, b"honest");
}

#[test]
fn sealing_matches_the_published_vector() {
    // spec/wesh-protocol.md A.5.
    use crate::keys::AccountKeys;
    let seed = |first: u8| SecretKey::from_seed(std::array::from_fn(|i| first + i as u8));
    let a = AccountKeys::new(seed(0x00), seed(0x40), seed(0x00));
    let group = Group::contact(&a, &dunlin_base::AccountId::new(seed(0x20).public())).unwrap();
    let chain = ChainKey::new(SymmetricKey::from_bytes([0x42; 32]), 0);
    let nonce = Nonce::dangerous_fixed([9; 24]);
    let (sealed, next, _) = seal_at(&group, &a.device, &chain, b"hello", Padding::Bare, nonce).unwrap();
    assert_eq!((sealed.counter, next.counter()), (1, 1));
    let envelope = MessageEnvelope::decode(sealed.envelope.as_slice()).unwrap();
    assert_eq!(hex::encode(envelope.message), "6a9422f801f2246d0f7230c80b077636beaec4b759c1f5482d");
    let headers = open_headers(&group, &sealed.envelope).unwrap();
    assert_eq!(
        hex::encode(headers.signature.unwrap().as_bytes()),
        "8d84a3e67dcc089532de7ce1a3e8111f58b6b94da589d56694243007c6d8319732111f49558a0803ee89d22d19159a279c8325582c9f48a2db09301086094704"
    );
}

#[test]
fn opened_messages_do_not_show_their_text() {
    let opened = OpenedMessage {
        device: Pair::new().sender.device_id(),
        counter: 1,
        plaintext: b"between us".to_vec(),
    };
    assert!(format!("{opened:?}").ends_with("counter: 1, .. }"));
}

/// `spec/security.md` E10, over what leaves: the same text comes out of an envelope whose length is a bucket.
#[test]
fn sealed_messages_fill_buckets() {
    let (sending, receiving) = (MemoryStore::default(), MemoryStore::default());
    let (mut from, mut to) = (Tx::new(&sending), Tx::new(&receiving));
    let mut pair = Pair::new();
    pair.share(&mut from, &mut to);
    for (entry, length) in [0, 1, 100, 229, 230, 231, 5_000, 128 * 1024].into_iter().enumerate() {
        let text = vec![0x61; length];
        let sealed = pair.seal(&mut from, &text);
        let envelope = MessageEnvelope::decode(sealed.as_slice()).unwrap();
        assert_eq!(crate::padding::bucket_of(envelope.message.len()), envelope.message.len());
        assert_eq!(pair.open(&mut to, entry as u8, &sealed).unwrap().plaintext, text);
    }
}
