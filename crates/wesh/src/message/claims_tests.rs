use dunlin_base::kv::MemoryStore;
use dunlin_base::seal::{self, Nonce};
use dunlin_base::{DeviceId, SecretKey};
use dunlin_proto::protocol::{EncryptedMessage, MessageEnvelope, MessageHeaders};
use prost::Message as _;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::super::{
    ChainKey, OpenMessageError, Opening, OtherChain, open_headers, open_message, register_chain_key, seal_at,
};
use super::*;
use crate::group::Group;
use crate::padding::Padding;

const DAY: u64 = 24 * 3600;

/// An honest device, a member that knows its chain as every member does, and somebody who reads.
struct Scene {
    group: Group,
    device: SecretKey,
    store: MemoryStore,
}

/// A message as it was sealed by whoever.
#[derive(Clone)]
struct Sealed {
    entry: EntryId,
    envelope: Vec<u8>,
}

/// What the reader shows of one device, after the events that the engine would make of it.
struct Reader<'s> {
    scene: &'s Scene,
    tx: Tx<'s>,
    shown: Vec<(u64, EntryId)>,
    now: u64,
}

impl Scene {
    fn new() -> Self {
        let (group, _) = Group::new_multi_member(&mut ChaCha12Rng::seed_from_u64(1));
        Self { group, device: SecretKey::from_seed([1; 32]), store: MemoryStore::default() }
    }

    fn state(&self, counter: u64) -> ChainKey {
        let mut state = ChainKey::new(SymmetricKey::from_bytes([9; 32]), 0);
        while state.counter() < counter {
            state = state.step(&self.group.id()).unwrap().0;
        }
        state
    }

    /// What the device sends at `counter`.
    fn real(&self, counter: u64, text: &str) -> Sealed {
        let nonce = Nonce::dangerous_fixed([counter as u8; 24]);
        let state = self.state(counter - 1);
        let (sealed, ..) =
            seal_at(&self.group, &self.device, &state, text.as_bytes(), Padding::Buckets, nonce).unwrap();
        Sealed { entry: EntryId::of_block(&sealed.envelope), envelope: sealed.envelope }
    }

    /// What a member makes of a message of the device: the same signed text at another counter.
    fn repeated(&self, message: &Sealed, at: u64) -> Sealed {
        let headers = open_headers(&self.group, &message.envelope).unwrap();
        let envelope = MessageEnvelope::decode(message.envelope.as_slice()).unwrap();
        let (_, key) = self.state(headers.counter - 1).step(&self.group.id()).unwrap();
        let of = |counter| *Nonce::of_counter(counter).as_bytes();
        let clear = seal::open(&key, &of(headers.counter), &envelope.message).unwrap();
        assert!(EncryptedMessage::decode(clear.as_slice()).is_ok());
        let (_, key) = self.state(at - 1).step(&self.group.id()).unwrap();
        let nonce = Nonce::dangerous_fixed([200 + at as u8; 24]);
        let forged = MessageHeaders {
            counter: at,
            device_pk: self.device.public().as_bytes().to_vec(),
            sig: headers.signature.unwrap().as_bytes().to_vec(),
            ..Default::default()
        };
        let envelope = MessageEnvelope {
            message: seal::seal(&key, Nonce::of_counter(at), &clear),
            nonce: nonce.as_bytes().to_vec(),
            message_headers: seal::seal(self.group.secret(), nonce, &forged.encode_to_vec()),
        };
        let envelope = envelope.encode_to_vec();
        Sealed { entry: EntryId::of_block(&envelope), envelope }
    }

    fn reader(&self) -> Reader<'_> {
        let mut tx = Tx::new(&self.store);
        let chain = OtherChain::new(self.state(0)).unwrap();
        register_chain_key(&mut tx, &self.group.id(), &self.device_id(), chain).unwrap();
        Reader { scene: self, tx, shown: Vec::new(), now: DAY }
    }

    fn device_id(&self) -> DeviceId {
        DeviceId::new(self.device.public())
    }
}

impl Reader<'_> {
    fn open(&mut self, message: &Sealed) -> Result<Opening, OpenMessageError> {
        let headers = open_headers(&self.scene.group, &message.envelope).unwrap();
        let arrival = Arrival { now: Time::from_secs(self.now), past_is_synced: true };
        let opening = open_message(
            &mut self.tx,
            &arrival,
            &self.scene.group,
            message.entry,
            &headers,
            &message.envelope,
        )?;
        if !opening.is_repeat {
            self.shown.push((headers.counter, message.entry));
        }
        for shift in &opening.shifts {
            let place = self.shown.iter().position(|shown| *shown == (shift.counter, shift.from)).unwrap();
            self.shown[place].1 = shift.to;
        }
        Ok(opening)
    }

    fn shows(&self) -> Vec<(u64, EntryId)> {
        let mut shown = self.shown.clone();
        shown.sort_unstable();
        shown
    }

    fn keys(&self) -> usize {
        let all = KeyRange::default();
        self.tx.collect(tables::MESSAGE_KEYS, &all, Direction::Ascending, usize::MAX).unwrap().len()
    }
}

fn places(messages: &[(u64, &Sealed)]) -> Vec<(u64, EntryId)> {
    messages.iter().map(|(counter, message)| (*counter, message.entry)).collect()
}

/// Every order of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for place in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(place);
        for mut order in orders(&rest) {
            order.insert(0, first.clone());
            all.push(order);
        }
    }
    all
}

/// `spec/security.md` E4, E5: whatever comes first, the message that the device sent at a counter is the one that is
/// shown there, and a text of another counter is not.
#[test]
fn counter_conflict() {
    let scene = Scene::new();
    let real: Vec<_> = (1..=4).map(|counter| scene.real(counter, &format!("text {counter}"))).collect();
    for (of, at) in [(1, 3), (2, 3), (2, 4), (1, 4)] {
        let forged = scene.repeated(&real[of - 1], at);
        let mut all: Vec<_> = real.clone();
        all.push(forged);
        for order in orders(&all) {
            let mut reader = scene.reader();
            for message in &order {
                // A counter that is settled takes nothing more.
                let _ = reader.open(message);
            }
            let wanted: Vec<_> = (1..).zip(&real).collect();
            assert_eq!(reader.shows(), places(&wanted), "{of} repeated at {at}");
            assert_eq!(reader.keys(), 0, "all is settled");
        }
    }
}

/// A repeat of what comes before a message takes its place until the message comes, even days later.
#[test]
fn a_repeat_gives_way() {
    let scene = Scene::new();
    let (first, second) = (scene.real(1, "yes"), scene.real(2, "no"));
    let forged = scene.repeated(&first, 2);
    let mut reader = scene.reader();
    reader.open(&first).unwrap();
    reader.open(&forged).unwrap();
    assert_eq!(reader.shows(), places(&[(1, &first), (2, &forged)]));
    reader.now += 6 * DAY;
    erase_due(&mut reader.tx, Time::from_secs(reader.now)).unwrap();
    let opening = reader.open(&second).unwrap();
    assert!(opening.is_repeat && opening.shifts.len() == 1, "it comes as one, and takes the place");
    assert_eq!(reader.shows(), places(&[(1, &first), (2, &second)]));
    assert!(matches!(reader.open(&forged), Err(OpenMessageError::AlreadyUsed)));
}

/// `spec/security.md` E5: who says the same twice is heard twice.
#[test]
fn honest_repeats() {
    let scene = Scene::new();
    let said = ["ok", "yes", "ok", "ok", "done"];
    let said: Vec<_> = (1..).zip(said).map(|(counter, text)| (counter, scene.real(counter, text))).collect();
    for order in orders(&said) {
        let mut reader = scene.reader();
        for (_, message) in &order {
            let opening = reader.open(message).unwrap();
            assert!(!opening.is_repeat && opening.shifts.is_empty());
        }
        let wanted: Vec<_> = said.iter().map(|(counter, message)| (*counter, message)).collect();
        assert_eq!(reader.shows(), places(&wanted));
    }
}

/// `spec/security.md` E4: a key is held for as long as it may decide something, and not longer than that.
#[test]
fn keys_are_erased_in_time() {
    let scene = Scene::new();
    let mut reader = scene.reader();
    for counter in [1, 2] {
        reader.open(&scene.real(counter, &format!("{counter}"))).unwrap();
        assert_eq!(reader.keys(), 0, "nothing is missing before it");
    }
    for counter in [4, 5] {
        reader.open(&scene.real(counter, &format!("{counter}"))).unwrap();
    }
    assert_eq!(reader.keys(), 2);
    let due = erasure_due(&reader.tx).unwrap().unwrap();
    assert!(due <= Time::from_secs(reader.now) + KEY_HELD_MAX);
    reader.open(&scene.real(3, "3")).unwrap();
    assert_eq!(reader.keys(), 0, "the gap is closed");

    reader.open(&scene.real(7, "7")).unwrap();
    let due = erasure_due(&reader.tx).unwrap().unwrap();
    erase_due(&mut reader.tx, Time::from_secs(due.as_secs() - 1)).unwrap();
    assert_eq!(reader.keys(), 1);
    erase_due(&mut reader.tx, due).unwrap();
    assert_eq!((reader.keys(), erasure_due(&reader.tx).unwrap()), (0, None));
    assert!(reader.open(&scene.real(6, "6")).is_ok(), "what was skipped still opens");

    reader.open(&scene.real(9, "9")).unwrap();
    erase_due(&mut reader.tx, Time::from_secs(0)).unwrap();
    assert_eq!(reader.keys(), 0, "a clock that was set back keeps nothing alive");
}

/// Keys that earlier versions kept for every entry are erased.
#[test]
fn keys_by_entry_are_erased() {
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    for number in 0..ERASED_PER_STEP as u64 + 1 {
        tx.put(tables::OPENED_KEYS, EntryId::of_block(&number.to_be_bytes()).digest(), &[7; 32]);
    }
    let mut steps = 0;
    while erasure_due(&tx).unwrap().is_some() {
        erase_due(&mut tx, Time::from_secs(1)).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 2);
}

/// One member cannot make a reader keep more and more.
#[test]
fn claims_to_a_counter_are_few() {
    let scene = Scene::new();
    let real: Vec<_> = (1..=20).map(|counter| scene.real(counter, &format!("{counter}"))).collect();
    let mut reader = scene.reader();
    let refused =
        (real.iter().take(19)).filter(|real| reader.open(&scene.repeated(real, 50)).is_err()).count();
    assert_eq!(refused, 19 - CLAIMS_PER_COUNTER_MAX);
}
