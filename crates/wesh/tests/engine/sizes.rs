//! How large what is sent and what is taken may be: as large as between Go nodes (`spec/security.md` V1, N2).

use dunlin_base::kv::{Direction, Durability, KeyRange, MemoryStore, Read, Store, Table, Tx};
use dunlin_base::{GroupId, MemberId, PeerId, SecretKey};
use dunlin_log::{ENTRY_BYTES_MAX, Entry};
use dunlin_wesh::engine::{Action, CommandError, Ctx, Event, PAYLOAD_BYTES_MAX};
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

/// A device that was shown a message of a late one, and what that says besides.
struct Said {
    device: Device,
    group: GroupId,
    metadata: Member,
    events: Vec<Entry>,
    bound: Entry,
}

impl Said {
    fn before_it_is_known(count: usize) -> Self {
        let mut device = Device::new(1);
        let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
        let (message, events, bound) = LateDevice::new(&device, &group).say(count);
        let mut messages = Member::of(&device, &group, Profile::Berty.message_store());
        let metadata = Member::of(&device, &group, Profile::Berty.metadata_store());
        let data = messages.heads(NOW, &[messages.write(&message, &[])]);
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        Self { device, group, metadata, events, bound }
    }
}

/// Large events of a device come before its event 1, and last of them its key. They wait in the log alone, are folded in steps
/// once the device is known, and a restart between goes on where it was.
#[test]
fn many_large_events_of_an_unknown_device_are_folded_in_steps() {
    const COUNT: usize = 12;
    let Said { mut device, group, mut metadata, events, bound } = Said::before_it_is_known(COUNT);
    let mut told = 0;
    for entry in &events {
        let data = metadata.heads(NOW, std::slice::from_ref(entry));
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        told += device.told.iter().filter(|event| matches!(event, Event::Metadata(_))).count();
    }
    assert_eq!(told, COUNT + 1);
    assert!(bytes_of(&device, INDEX) < 10_000, "they are in the log alone");

    let data = metadata.heads(NOW, &[bound]);
    device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    let mut steps = 1;
    let Device { store, .. } = device;
    let mut device = Device::open(1, store);
    device.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    assert!(device.messages(&group).is_empty(), "the key stands behind more than one step reads");
    while device.engine.timeout().is_some_and(|due| due <= NOW) {
        device.step_at(NOW, |ctx, engine| engine.handle_timeout(ctx).unwrap());
        told += device.told.iter().filter(|event| matches!(event, Event::Metadata(_))).count();
        steps += 1;
    }
    assert!(steps > 2, "{steps}");
    assert_eq!(device.messages(&group), [b"said before"]);
    assert_eq!(told, COUNT + 1, "none is told twice");
}

/// The log is folded again from its beginning: what waited for a device is folded with it, and large events are neither
/// copied nor kept in memory.
#[test]
fn folding_again_writes_rows_and_no_events() {
    const COUNT: usize = 12;
    let Said { mut device, group, mut metadata, events, bound } = Said::before_it_is_known(COUNT);
    // Its parent is nowhere to be had, and comes after all.
    let late = metadata.write(b"late", &[]);
    let above = metadata.write(b"above", &[late.id()]);
    let data = metadata.heads(NOW, std::slice::from_ref(&above));
    device.step_at(NOW, |ctx, engine| {
        engine.handle_connected(ctx, &peer(), true).unwrap();
        engine.handle_heads(ctx, &peer(), &data).unwrap();
    });
    device.run(|ctx, engine| (0..4).for_each(|_| engine.handle_block_missing(ctx, &late.id()).unwrap()));
    device.settle();
    for entry in events.iter().chain([&bound]) {
        let data = metadata.heads(NOW, std::slice::from_ref(entry));
        device.run(|ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    }
    device.settle();
    assert_eq!(device.messages(&group), [b"said before"]);
    let rows = rows_of(&device, INDEX);

    let data = metadata.heads(NOW, &[late]);
    let mut rng = ChaCha12Rng::seed_from_u64(6);
    let (mut refolds, mut bytes) = (0, 0);
    loop {
        let mut tx = Tx::new(&device.store);
        let mut ctx = Ctx { tx: &mut tx, now: NOW, rng: &mut rng };
        match refolds {
            0 if bytes == 0 => device.engine.handle_heads(&mut ctx, &peer(), &data).unwrap(),
            _ => device.engine.handle_timeout(&mut ctx).unwrap(),
        }
        let told = std::iter::from_fn(|| device.engine.poll_event());
        refolds += told.filter(|event| matches!(event, Event::Refolded { .. })).count();
        bytes += tx.changes_bytes();
        device.store.commit(tx.into_batch(), Durability::Synced).unwrap();
        if device.engine.timeout().is_none_or(|due| due > NOW) {
            break;
        }
    }
    assert_eq!(refolds, 1);
    assert!(bytes < 50_000, "{bytes} bytes were written");
    assert_eq!(rows_of(&device, INDEX).len(), rows.len());
}

/// Where the folded state is: `tables::INDEX`.
const INDEX: Table = Table(0x34);

fn rows_of(device: &Device, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    device.store.collect(table, &KeyRange::default(), Direction::Ascending, usize::MAX).unwrap()
}

fn bytes_of(device: &Device, table: Table) -> usize {
    rows_of(device, table).iter().map(|(key, row)| key.len() + row.len()).sum()
}

/// A device that says much before it says whose it is.
struct LateDevice {
    own: OwnMember,
    log: Member,
    reader: MemberId,
    rng: ChaCha12Rng,
}

impl LateDevice {
    fn new(device: &Device, group: &GroupId) -> Self {
        let own =
            OwnMember { member: SecretKey::from_seed([40; 32]), device: SecretKey::from_seed([41; 32]) };
        let log = Member::of(device, group, Profile::Berty.metadata_store());
        let reader = device.engine.own_member(group).unwrap();
        Self { own, log, reader, rng: ChaCha12Rng::seed_from_u64(5) }
    }

    /// A message; the entries of `count` large events and of the key to the message, on top of each other; and event 1.
    fn say(mut self, count: usize) -> (Vec<u8>, Vec<Entry>, Entry) {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let (own, group) = (&self.own, &self.log.group);
        let key = message::own_chain_key_box(&mut tx, group, own, &self.reader, &mut self.rng).unwrap();
        let sealed =
            message::seal(&mut tx, group, own, b"said before", Padding::Buckets, &mut self.rng).unwrap();
        let large = (0..count).map(|number| MetadataKind::app_metadata(own, &vec![number as u8; 900_000]));
        let said = large.chain([MetadataKind::chain_key_added(own, self.reader, key)]);
        let mut entries: Vec<Entry> = Vec::new();
        for event in said.chain([MetadataKind::member_device_added(own)]) {
            let value = metadata::seal(group, own, &event, Padding::Buckets, &mut self.rng);
            let next: Vec<_> = entries.last().map(Entry::id).into_iter().collect();
            entries.push(self.log.write(&value, &next));
        }
        let bound = entries.pop().unwrap();
        (sealed.envelope, entries, bound)
    }
}
