use dunlin_base::kv::MemoryStore;
use dunlin_base::seal::{self, Nonce};
use dunlin_base::{DeviceId, SecretKey};
use dunlin_proto::protocol::{EncryptedMessage, MessageEnvelope, MessageHeaders};
use prost::Message as _;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use super::super::envelope::{Form, seal_as};
use super::super::{
    ChainKey, OpenMessageError, Opening, OtherChain, open_headers, open_message, register_chain_key,
    require_contexts, seal_at,
};
use super::*;
use crate::context::{Context, Place};
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

    /// The same with a context, as the device of a later version sends it.
    fn placed(&self, counter: u64, text: &str) -> Sealed {
        let nonce = Nonce::dangerous_fixed([100 + counter as u8; 24]);
        let id = self.group.id();
        let context = Context::new(&Place::message(&id, counter), [0; 16], counter);
        let form = Form { padding: Padding::Buckets, context: Some(&context) };
        let state = self.state(counter - 1);
        let (sealed, ..) = seal_as(&self.group, &self.device, &state, text.as_bytes(), &form, nonce).unwrap();
        Sealed { entry: EntryId::of_block(&sealed.envelope), envelope: sealed.envelope }
    }

    /// What a member makes of a message of the device: the same signed text at another counter.
    fn repeated(&self, message: &Sealed, at: u64) -> Sealed {
        self.sealed_anew(&self.clear_of(message), at)
    }

    /// What the device signed, and the signature.
    fn clear_of(&self, message: &Sealed) -> (Vec<u8>, Signature) {
        let headers = open_headers(&self.group, &message.envelope).unwrap();
        let envelope = MessageEnvelope::decode(message.envelope.as_slice()).unwrap();
        let (_, key) = self.state(headers.counter - 1).step(&self.group.id()).unwrap();
        let nonce = Nonce::of_counter(headers.counter);
        let clear = seal::open(&key, nonce.as_bytes(), &envelope.message).unwrap();
        assert!(EncryptedMessage::decode(clear.as_slice()).is_ok());
        (clear.to_vec(), headers.signature.unwrap())
    }

    fn sealed_anew(&self, (clear, signature): &(Vec<u8>, Signature), at: u64) -> Sealed {
        let (_, key) = self.state(at - 1).step(&self.group.id()).unwrap();
        let nonce = Nonce::dangerous_fixed([200 + at as u8; 24]);
        let forged = MessageHeaders {
            counter: at,
            device_pk: self.device.public().as_bytes().to_vec(),
            sig: signature.as_bytes().to_vec(),
            ..Default::default()
        };
        let envelope = MessageEnvelope {
            message: seal::seal(&key, Nonce::of_counter(at), clear),
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
            self.shown.retain(|shown| Some(shown.1) != shift.from);
            self.shown.extend(shift.to.map(|entry| (shift.counter, entry)));
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

/// `spec/security.md` §3.1: what a device signed for one counter opens at no other, and uses up none.
#[test]
fn ctx_binding() {
    let scene = Scene::new();
    let said: Vec<_> = (1..=4).map(|counter| scene.placed(counter, &format!("text {counter}"))).collect();
    let moved = scene.repeated(&said[0], 3);
    let mut reader = scene.reader();
    assert!(matches!(reader.open(&moved), Err(OpenMessageError::OutOfPlace)), "before all others");
    for message in [&said[0], &said[1]] {
        reader.open(message).unwrap();
    }
    assert!(matches!(reader.open(&moved), Err(OpenMessageError::OutOfPlace)));
    for message in [&said[3], &said[2]] {
        assert!(!reader.open(message).unwrap().is_repeat);
    }
    assert_eq!(reader.shows(), places(&[(1, &said[0]), (2, &said[1]), (3, &said[2]), (4, &said[3])]));
    assert_eq!(reader.keys(), 0, "nobody can have a better claim");

    // Another group in which the device has the same key, and a member that is in both.
    let (other, _) = Group::new_multi_member(&mut ChaCha12Rng::seed_from_u64(2));
    let there = Scene { group: other, device: scene.device.clone(), store: MemoryStore::default() };
    let brought = there.sealed_anew(&scene.clear_of(&said[0]), 1);
    assert!(matches!(there.reader().open(&brought), Err(OpenMessageError::OutOfPlace)));
}

/// A copy with the right context that comes first is what the device said, shown once; it hides nothing else.
#[test]
fn a_copy_with_the_right_context_is_shown_once() {
    let scene = Scene::new();
    let (one, two) = (scene.placed(1, "one"), scene.placed(2, "two"));
    let copy = scene.sealed_anew(&scene.clear_of(&two), 2);
    let mut reader = scene.reader();
    reader.open(&copy).unwrap();
    assert!(matches!(reader.open(&two), Err(OpenMessageError::AlreadyUsed)), "it is the same message");
    reader.open(&one).unwrap();
    assert_eq!(reader.shows(), places(&[(1, &one), (2, &copy)]));
}

/// A device that began to sign contexts at its third message. Old texts of it are put behind that by a member, and
/// come in any order: what it sent is shown, and nothing else.
#[test]
fn downgrade_refused() {
    let scene = Scene::new();
    let old = [scene.real(1, "yes"), scene.real(2, "no")];
    let new = [scene.placed(3, "maybe"), scene.placed(4, "well")];
    let moved = [scene.repeated(&old[0], 4), scene.repeated(&old[1], 5)];
    let all = [&old[0], &old[1], &new[0], &new[1], &moved[0], &moved[1]];
    for order in orders(&all) {
        let mut reader = scene.reader();
        for message in order {
            match reader.open(message) {
                Ok(_) | Err(OpenMessageError::OutOfPlace) => {}
                // The key of the fourth is erased by then.
                Err(OpenMessageError::AlreadyUsed) if message.entry == moved[0].entry => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(
            reader.shows(),
            places(&[(1, &old[0]), (2, &old[1]), (3, &new[0]), (4, &new[1])]),
            "old texts stay and moved ones go"
        );
        // The place of the one that went is free for what belongs there.
        let late = scene.placed(5, "so be it");
        reader.open(&late).unwrap();
        assert!(reader.shows().contains(&(5, late.entry)));
    }
}

/// From a device that says that it signs all of its messages with a context, nothing else is shown.
#[test]
fn contexts_are_required_from_the_first() {
    let scene = Scene::new();
    let mut reader = scene.reader();
    let bare = scene.real(2, "not from here");
    reader.open(&bare).unwrap();
    let shifts = require_contexts(&mut reader.tx, &scene.group.id(), &scene.device_id(), 0).unwrap();
    assert_eq!(shifts, [Shift { counter: 2, from: Some(bare.entry), to: None }]);
    assert!(matches!(reader.open(&bare), Err(OpenMessageError::OutOfPlace)));
    let real = scene.placed(2, "two");
    assert!(!reader.open(&real).unwrap().is_repeat);
}
