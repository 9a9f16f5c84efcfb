//! What devices sign about the places of what they say (`spec/security.md` §3.1).

use dunlin_base::kv::{Direction, Durability, KeyRange, MemoryStore, Read as _, Store as _, Tx};
use dunlin_base::seal::{self, Nonce};
use dunlin_base::{DeviceId, EntryId, GroupId};
use dunlin_log::Writer;
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use dunlin_proto::protocol::{GroupEnvelope, GroupMetadata, MessageEnvelope, MessageHeaders};
use dunlin_wesh::engine::{Event, WaitCause};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::keys::AccountKeys;
use dunlin_wesh::message::{self, ChainKey};
use dunlin_wesh::metadata::{self, Event as MetadataKind, Features};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::tables;
use prost::Message as _;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::device::Device;
use crate::members::{Member, peer};
use crate::pair::Pair;

/// The last value of a log of a group, as everybody in it has it.
fn last_value(device: &Device, group: &GroupId, store: &str) -> Vec<u8> {
    let group = device.engine.known_group(&device.store, group).unwrap().unwrap();
    let address = StoreAddress::new(&group.id(), store, &group.sign_pub());
    let log = shared_store(&address, group.sign_pub());
    let head = log.heads(&device.store).unwrap()[0];
    operation::decode_value(log.entry(&device.store, head).unwrap().unwrap().payload()).unwrap()
}

/// What was signed with the key that follows `chain`, sealed once more with that which follows `at`.
fn moved(group: &Group, envelope: &[u8], chain: &ChainKey, at: &ChainKey) -> Vec<u8> {
    let headers = message::open_headers(group, envelope).unwrap();
    let sealed = MessageEnvelope::decode(envelope).unwrap();
    let nonce: [u8; 24] = sealed.nonce.as_slice().try_into().unwrap();
    let clear_headers = seal::open(group.secret(), &nonce, &sealed.message_headers).unwrap();
    let clear_headers = MessageHeaders::decode(clear_headers.as_slice()).unwrap();
    let (_, key) = chain.step(&group.id()).unwrap();
    let clear = seal::open(&key, Nonce::of_counter(headers.counter).as_bytes(), &sealed.message).unwrap();
    let (state, key) = at.step(&group.id()).unwrap();
    let nonce = Nonce::dangerous_fixed([3; 24]);
    let headers = MessageHeaders { counter: state.counter(), ..clear_headers };
    MessageEnvelope {
        message: seal::seal(&key, Nonce::of_counter(state.counter()), &clear),
        nonce: nonce.as_bytes().to_vec(),
        message_headers: seal::seal(group.secret(), nonce, &headers.encode_to_vec()),
    }
    .encode_to_vec()
}

fn chain(device: &Device, group: &GroupId, of: &DeviceId) -> ChainKey {
    message::inspect_chain(&device.store, group, of).unwrap().unwrap().state
}

fn waits(told: &[Event], entry: EntryId) -> Vec<WaitCause> {
    let of_entry = told.iter().filter_map(|event| match event {
        Event::MessageWaits { entry: of, cause, .. } if *of == entry => Some(*cause),
        _ => None,
    });
    of_entry.collect()
}

/// A member puts what another one signed at one number at the next. It is kept back with its cause, whatever comes when,
/// and what belongs there is shown.
#[test]
fn ctx_binding() {
    let (mut pair, group) = Pair::in_a_group();
    let ann = pair.devices[0].engine.own_device(&group).unwrap();
    let before_yes = chain(&pair.devices[0], &group, &ann);
    pair.step(0, |ctx, engine| engine.send_message(ctx, &group, b"yes").unwrap());
    pair.settle();
    let after_yes = chain(&pair.devices[0], &group, &ann);

    let mut member = Member::of(&pair.devices[1], &group, Profile::Berty.message_store());
    let yes = last_value(&pair.devices[0], &group, Profile::Berty.message_store());
    let forged = member.write(&moved(&member.group, &yes, &before_yes, &after_yes), &[]);
    let data = member.heads(pair.now, std::slice::from_ref(&forged));
    pair.step(1, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    pair.settle();
    assert_eq!(pair.devices[1].messages(&group), [b"yes"]);
    assert_eq!(waits(&pair.told[1], forged.id()), [WaitCause::OutOfPlace { device: ann }]);

    pair.step(0, |ctx, engine| engine.send_message(ctx, &group, b"no").unwrap());
    pair.settle();
    for device in &pair.devices {
        assert_eq!(device.messages(&group).last().unwrap(), b"no");
        assert_eq!(device.messages(&group).len(), 2);
    }
    let shown = pair.devices[1].engine.shown_by_devices(&pair.devices[1].store, &group).unwrap();
    let shown = shown.iter().find(|shown| shown.device == ann).unwrap();
    let chain = shown.messages.unwrap();
    assert_eq!((chain.first, chain.last, chain.missing, chain.breaks), (1, 2, 0, 0));
    let features = shown.capabilities.as_ref().unwrap().features;
    assert!(features.include(Features::CONTEXTS.with(Features::CONTEXTS_ALWAYS)));
}

/// The same with events: another type is none, and the same one again is not told again.
#[test]
fn events_are_for_one_type_and_count_once() {
    let (mut pair, group) = Pair::in_a_group();
    pair.step(0, |ctx, engine| engine.send_metadata(ctx, &group, b"a name").unwrap());
    pair.settle();
    let before = pair.devices[1].kinds(&group);
    let mut member = Member::of(&pair.devices[1], &group, Profile::Berty.metadata_store());
    let value = last_value(&pair.devices[0], &group, Profile::Berty.metadata_store());

    let envelope = GroupEnvelope::decode(value.as_slice()).unwrap();
    let nonce: [u8; 24] = envelope.nonce.as_slice().try_into().unwrap();
    let clear = seal::open(member.group.secret(), &nonce, &envelope.event).unwrap();
    let clear = GroupMetadata::decode(clear.as_slice()).unwrap();
    assert_eq!(clear.event_type, 1001);
    let sealed = |event_type: i32, nonce: u8| {
        let clear = GroupMetadata { event_type, ..clear.clone() };
        let nonce = Nonce::dangerous_fixed([nonce; 24]);
        let (kept, event) = (nonce.as_bytes().to_vec(), clear.encode_to_vec());
        let event = seal::seal(member.group.secret(), nonce, &event);
        GroupEnvelope { nonce: kept, event }.encode_to_vec()
    };
    // 301 has fields of the same numbers.
    let other_type = sealed(301, 1);
    assert!(matches!(metadata::open(&member.group, &other_type), Err(metadata::OpenError::OutOfPlace)));
    let again = sealed(1001, 2);
    assert!(metadata::open(&member.group, &again).is_ok());
    let entries = [member.write(&other_type, &[]), member.write(&again, &[])];
    let data = member.heads(pair.now, &entries);
    pair.told[1].clear();
    for which in [0, 1] {
        pair.step(which, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    }
    pair.settle();

    assert_eq!(pair.devices[1].kinds(&group).len(), before.len());
    let [one, other] = &pair.devices;
    let digest = |device: &Device| device.engine.log_digest(&device.store, &group).unwrap();
    assert_eq!((digest(one), one.kinds(&group)), (digest(other), other.kinds(&group)));
}

/// A device that signs all its messages with a context writes one without, as an older version would: it is kept and not
/// shown, and says why.
#[test]
fn downgrade_refused() {
    let (mut pair, group) = Pair::in_a_group();
    let ann = &pair.devices[0];
    let device = ann.engine.own_device(&group).unwrap();
    let state = chain(ann, &group, &device);
    let keys = AccountKeys::load(&ann.store).unwrap().unwrap();
    let known = ann.engine.known_group(&ann.store, &group).unwrap().unwrap();
    let mut tx = Tx::new(&ann.store);
    let own = OwnMember::in_group(&keys, &known, &mut tx, &mut ChaCha12Rng::seed_from_u64(1)).unwrap();
    let nonce = Nonce::dangerous_fixed([5; 24]);
    let (sealed, ..) =
        message::seal_at(&known, &own.device, &state, b"bare", Padding::Buckets, nonce).unwrap();
    let mut member = Member::of(&pair.devices[1], &group, Profile::Berty.message_store());
    let entry = member.write(&sealed.envelope, &[]);
    let data = member.heads(pair.now, std::slice::from_ref(&entry));
    pair.step(1, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    pair.settle();
    assert!(pair.devices[1].messages(&group).is_empty());
    assert_eq!(waits(&pair.told[1], entry.id()), [WaitCause::OutOfPlace { device }]);
}

/// An account of an earlier version announced itself without saying what it can do. It says so once, and does not claim
/// that it always did.
#[test]
fn an_older_device_states_what_it_can_do_once() {
    let store = MemoryStore::default();
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let mut tx = Tx::new(&store);
    let keys = AccountKeys::generate(&mut rng);
    keys.store(&mut tx);
    let group = Group::account(&keys);
    let own = OwnMember::in_group(&keys, &group, &mut tx, &mut rng).unwrap();
    let event = MetadataKind::member_device_added(&own);
    let value = metadata::seal(&group, &own, &event, Padding::Buckets, &mut rng);
    let address = StoreAddress::new(&group.id(), Profile::Berty.metadata_store(), &group.sign_pub());
    let mut log = shared_store(&address, group.sign_pub());
    log.append(&mut tx, &Writer::new(group.signing_key().clone()), &operation::encode_add(&value)).unwrap();
    let mark = dunlin_base::kdf::sha256(&[&event.encode()]);
    tx.put(tables::OWN_EVENTS, &[group.id().as_bytes().as_slice(), &mark[..16]].concat(), &[]);
    tx.put(tables::STALE, &[group.id().as_bytes().as_slice(), &[0]].concat(), &[]);
    store.commit(tx.into_batch(), Durability::Synced).unwrap();

    let device = Device::open(1, store);
    assert_eq!(device.engine.device_id(), own.device_id(), "it goes on under its key");
    let stated = |device: &Device| {
        let account = device.engine.account_group();
        let kinds = device.kinds(&account);
        let shown = device.engine.shown_by_devices(&device.store, &account).unwrap();
        (kinds.iter().filter(|kind| **kind == "device").count(), shown[0].capabilities.clone().unwrap())
    };
    let (events, capabilities) = stated(&device);
    assert_eq!((events, capabilities.features, capabilities.seq), (2, Features::CONTEXTS, 1));
    let device = Device::open(1, device.store);
    assert_eq!(stated(&device), (events, capabilities));
    let rows =
        device.store.collect(tables::CONTEXTS, &KeyRange::default(), Direction::Ascending, 10).unwrap();
    assert!(!rows.is_empty());
}
