//! How large what is sent and what is taken may be: as large as between Go nodes (`spec/security.md` V1, N2).

use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_base::{PeerId, SecretKey};
use dunlin_log::{ENTRY_BYTES_MAX, Entry};
use dunlin_wesh::engine::{Action, CommandError, Event, PAYLOAD_BYTES_MAX};
use dunlin_wesh::group::OwnMember;
use dunlin_wesh::message;
use dunlin_wesh::metadata::{self, Event as MetadataKind};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::device::{Device, NOW, host};
use crate::members::{Member, peer};
use crate::pair::Pair;

/// What a topic carries: a message of 1 MiB, with its name, its author and its signature.
const TOPIC_BYTES_MAX: usize = 1024 * 1024 - 256;
/// What a frame of the direct channel carries.
const CHANNEL_BYTES_MAX: usize = 4 * 1024 * 1024;

fn published(actions: &[Action]) -> (String, Vec<u8>) {
    let publish = actions.iter().find_map(|action| match action {
        Action::Publish { topic, data } => Some((topic.clone(), data.clone())),
        _ => None,
    });
    publish.unwrap()
}

/// The largest payload travels by gossip alone, with what is said about it and thirty-two heads below it; one byte more is
/// refused and says so. The same for what all can read.
#[test]
fn the_largest_payload_travels_by_gossip() {
    let (mut pair, group) = Pair::in_a_group();
    // Many wrote at once, so that the next entry names as many heads as one can.
    for store in [Profile::Berty.message_store(), Profile::Berty.metadata_store()] {
        let mut member = Member::of(&pair.devices[0], &group, store);
        let forks: Vec<Entry> = (0..40_u8).map(|number| member.write(&[number], &[])).collect();
        let data = member.heads(pair.now, &forks);
        for which in [0, 1] {
            pair.step(which, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        }
    }
    pair.settle();

    let payload = vec![b'x'; PAYLOAD_BYTES_MAX];
    let (sent, actions) =
        pair.devices[0].step_at(NOW, |ctx, engine| engine.send_message(ctx, &group, &payload).unwrap());
    let (topic, data) = published(&actions);
    assert!(topic.len() + data.len() <= TOPIC_BYTES_MAX, "{}", data.len());
    pair.step(1, |ctx, engine| engine.handle_gossip(ctx, &topic, &host(1), &data).unwrap());
    let other = &pair.devices[1];
    assert_eq!(other.engine.message(&other.store, &group, &sent).unwrap().unwrap().payload, payload);

    let (_, actions) =
        pair.devices[0].step_at(NOW, |ctx, engine| engine.send_metadata(ctx, &group, &payload).unwrap());
    let (topic, data) = published(&actions);
    assert!(topic.len() + data.len() <= TOPIC_BYTES_MAX, "{}", data.len());
    pair.told[1].clear();
    pair.step(1, |ctx, engine| engine.handle_gossip(ctx, &topic, &host(1), &data).unwrap());
    assert!(pair.told[1].iter().any(|event| matches!(event, Event::Metadata(_))));

    let long = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
    let refused = pair.devices[0].run(|ctx, engine| engine.send_message(ctx, &group, &long).unwrap_err());
    assert!(matches!(refused, CommandError::TooLong { .. }));
    assert_eq!(refused.to_string(), "560001 bytes are too long, 560000 are allowed");
    let refused = pair.devices[0].run(|ctx, engine| engine.send_metadata(ctx, &group, &long).unwrap_err());
    assert!(matches!(refused, CommandError::TooLong { .. }));
}

/// A Go member writes what no topic carries. It is taken as far as bitswap carries it, and handed on over the direct
/// channel; topics are told of the others.
#[test]
fn what_go_hands_on_is_taken_and_handed_on() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let small = member.write(b"small", &[]);
    // The value grows by a third; the rest of an entry has less than 2 kB.
    let large = member.write(&vec![7; (ENTRY_BYTES_MAX - 2048) / 4 * 3], &[]);
    assert!(large.block().len() <= ENTRY_BYTES_MAX && large.block().len() > ENTRY_BYTES_MAX - 2048);
    let beyond = member.write(&vec![8; ENTRY_BYTES_MAX / 4 * 3], &[]);
    for entries in [[&small, &large], [&small, &beyond]] {
        let data = member.heads(NOW, &entries.map(Clone::clone));
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        device.settle();
    }
    let position = |entry: &Entry| device.engine.position(&device.store, &group, true, &entry.id()).unwrap();
    assert!(position(&large).is_some() && position(&small).is_some() && position(&beyond).is_none());

    let topic = member.topic();
    let other = PeerId::from_array([8; 34]);
    let (_, actions) = device.step_at(NOW, |ctx, engine| {
        engine.handle_connected(ctx, &other, true).unwrap();
        engine.handle_topic_joined(ctx, &other, &topic).unwrap();
    });
    let sent = actions.iter().find_map(|action| match action {
        Action::SendHeads { data, .. } => Some(data.len()),
        _ => None,
    });
    assert!(sent.is_some_and(|bytes| bytes > 2 * 1024 * 1024 && bytes <= CHANNEL_BYTES_MAX), "{sent:?}");
    assert!(member.shown(&actions).iter().any(|heads| heads.contains(&large.id())));

    // An own one of the largest size goes onto the topic by itself, and over the channel with the other.
    let payload = vec![1; PAYLOAD_BYTES_MAX];
    let fork = member.write(&vec![9; (ENTRY_BYTES_MAX - 2048) / 4 * 3], &[]);
    let (_, actions) = device.step_at(NOW, |ctx, engine| engine.send_message(ctx, &group, &payload).unwrap());
    assert!(published(&actions).1.len() + topic.len() <= TOPIC_BYTES_MAX);
    let data = member.heads(NOW, &[fork]);
    let (_, actions) = device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &other, &data).unwrap());
    for action in &actions {
        if let Action::SendHeads { data, .. } = action {
            assert!(data.len() <= CHANNEL_BYTES_MAX);
        }
    }
}

/// A dozen of the largest messages come before their key. They are opened in steps, none is lost, and a restart between
/// goes on where it was.
#[test]
fn much_that_waited_is_opened_in_steps() {
    const COUNT: usize = 12;
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    let own = OwnMember { member: SecretKey::from_seed([40; 32]), device: SecretKey::from_seed([41; 32]) };
    let mut messages = Member::of(&device, &group, Profile::Berty.message_store());
    let mut events = Member::of(&device, &group, Profile::Berty.metadata_store());
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let reader = device.engine.own_member(&group).unwrap();
    let key = message::own_chain_key_box(&mut tx, &messages.group, &own, &reader, &mut rng).unwrap();
    for number in 0..COUNT {
        let text = vec![number as u8; PAYLOAD_BYTES_MAX];
        let sealed =
            message::seal(&mut tx, &messages.group, &own, &text, Padding::Buckets, &mut rng).unwrap();
        let data = messages.heads(NOW, &[messages.write(&sealed.envelope, &[])]);
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    }
    device.settle();
    let said = [MetadataKind::member_device_added(&own), MetadataKind::chain_key_added(&own, reader, key)];
    let values = said.map(|event| metadata::seal(&events.group, &own, &event, Padding::Buckets, &mut rng));
    let entries = values.map(|value| events.write(&value, &[]));
    let data = events.heads(NOW, &entries);
    device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    let told = device.told.iter().filter(|event| matches!(event, Event::Message(_))).count();
    assert!((1..COUNT).contains(&told), "{told} at once");
    let Device { store, .. } = device;
    let mut device = Device::open(1, store);
    device.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    device.settle();
    assert_eq!(device.messages(&group).len(), COUNT);
}
