//! Members who mean no good, in numbers (`spec/security.md` §2.2).

use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_base::{DeviceId, EntryId, GroupId, PeerId, SecretKey, Span, Time};
use dunlin_log::{Body, Clock, Entry, Writer, heads_from_json, heads_to_json};
use dunlin_orbitdb::{StoreAddress, operation};
use dunlin_wesh::engine::{Action, CHAIN_KEYS_AT_ONCE, Event, Gossip, PAYLOAD_BYTES_MAX};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::heads::{self, HeadsPayload};
use dunlin_wesh::message;
use dunlin_wesh::metadata::{self, Event as MetadataKind};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::rotation;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::device::{Device, NOW};

/// A member who writes what it likes to a log of a group.
pub struct Member {
    pub group: Group,
    address: String,
    writer: Writer,
    rng: ChaCha12Rng,
}

impl Member {
    pub fn of(device: &Device, group: &GroupId, store: &str) -> Self {
        let group = device.engine.known_group(&device.store, group).unwrap().unwrap();
        let address = StoreAddress::new(&group.id(), store, &group.sign_pub()).to_string();
        let writer = Writer::new(group.signing_key().clone());
        Self { group, address, writer, rng: ChaCha12Rng::seed_from_u64(3) }
    }

    pub fn write(&self, value: &[u8], next: &[EntryId]) -> Entry {
        let clock = Clock { time: 1, id: self.writer.identity().public_key.clone() };
        let (log_id, payload) = (self.address.clone(), operation::encode_add(value));
        self.writer.sign(Body { log_id, payload, next: next.to_vec(), refs: Vec::new(), clock })
    }

    /// The entry with which somebody new joins.
    fn join(&mut self, number: u32) -> Entry {
        let key = |kind: u8| {
            let mut seed = [kind; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            SecretKey::from_seed(seed)
        };
        let own = OwnMember { member: key(1), device: key(2) };
        let event = MetadataKind::member_device_added(&own);
        let value = metadata::seal(&self.group, &own, &event, Padding::Buckets, &mut self.rng);
        self.write(&value, &[])
    }

    pub fn heads(&mut self, now: Time, entries: &[Entry]) -> Vec<u8> {
        let payload = HeadsPayload { heads: heads_to_json(entries), device: None, host: None };
        let link_key = self.group.link_key();
        let token = rotation::heads_token(&self.address, link_key, now, Profile::Berty.rotation());
        payload.seal(&self.address, link_key, &token, &mut self.rng)
    }

    /// The name of the topic.
    pub fn topic(&self) -> String {
        self.address.clone()
    }

    /// What a payload that a device sends shows.
    pub fn shown(&self, actions: &[Action]) -> Vec<Vec<EntryId>> {
        let payloads = actions.iter().filter_map(|action| match action {
            Action::SendHeads { data, .. } => Some(data),
            _ => None,
        });
        let opened = payloads.filter_map(|data| {
            let payload = heads::parse(data).unwrap().open(&self.address, self.group.link_key()).ok()?;
            let entries = heads_from_json(&payload.heads).unwrap();
            Some(entries.into_iter().map(|entry| entry.unwrap().id()).collect())
        });
        opened.collect()
    }
}

pub fn peer() -> PeerId {
    PeerId::from_array([9; 34])
}

fn keys_given(device: &Device, group: &GroupId) -> u64 {
    device.kinds(group).iter().filter(|kind| **kind == "key").count() as u64
}

/// O14: a thousand join in a minute. The answers have a pace, on disk, and all are served in the end.
#[test]
fn join_storm() {
    const JOINS: u32 = 1000;
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let before = keys_given(&device, &group);
    let mut member = Member::of(&device, &group, Profile::Berty.metadata_store());
    let entries: Vec<Entry> = (0..JOINS).map(|number| member.join(number)).collect();
    for entries in entries.chunks(100) {
        let data = member.heads(NOW, entries);
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        device.settle();
    }
    assert_eq!(device.engine.members(&device.store, &group).unwrap().len(), JOINS as usize + 1);
    let at_once = keys_given(&device, &group) - before;
    assert_eq!(before + at_once, CHAIN_KEYS_AT_ONCE as u64);

    let mut now = NOW;
    let mut wait = |device: &mut Device, seconds: u64| {
        for _ in 0..seconds {
            now = now + Span::from_secs(1);
            device.step_at(now, |ctx, engine| engine.handle_timeout(ctx).unwrap());
        }
    };
    wait(&mut device, 59);
    assert_eq!(keys_given(&device, &group) - before, at_once, "sixty a minute");
    wait(&mut device, 2);
    let in_a_minute = keys_given(&device, &group) - before;
    assert_eq!(before + in_a_minute, 2 * CHAIN_KEYS_AT_ONCE as u64);

    // Who waits is on disk.
    let Device { store, .. } = device;
    let mut device = Device::open(1, store);
    device.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    wait(&mut device, 1500);
    assert_eq!(keys_given(&device, &group) - before, u64::from(JOINS));
}

/// O6: two heads of a quarter of a megabyte keep no other out of what is told, and the own one is always told.
#[test]
fn heads_take_turns_and_the_own_one_comes_first() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let below = member.write(b"below", &[]);
    let large: Vec<Entry> =
        (0..2_u8).map(|number| member.write(&vec![number; 180 * 1024], &[below.id()])).collect();
    let small: Vec<Entry> = (0..3_u8).map(|number| member.write(&[number], &[])).collect();
    let all = [&[below][..], &large, &small].concat();
    let data = member.heads(NOW, &all);
    device.step_at(NOW, |ctx, engine| {
        engine.handle_connected(ctx, &peer(), true).unwrap();
        engine.handle_heads(ctx, &peer(), &data).unwrap();
    });
    device.settle();

    let mut now = NOW;
    let mut told = |device: &mut Device, member: &Member| {
        let mut told = Vec::new();
        for _ in 0..200 {
            now = now + Span::from_secs(1);
            let (_, actions) = device.step_at(now, |ctx, engine| {
                engine.handle_topic_joined(ctx, &peer(), &member.address).unwrap();
                engine.handle_timeout(ctx).unwrap();
            });
            told.extend(member.shown(&actions));
        }
        told
    };
    let payloads = told(&mut device, &member);
    assert!(payloads.len() >= 5, "{}", payloads.len());
    for head in large.iter().chain(&small) {
        assert!(payloads.iter().any(|shown| shown.contains(&head.id())), "it is never told");
    }

    let own = device.run(|ctx, engine| engine.send_message(ctx, &group, b"my word").unwrap());
    let more: Vec<Entry> = (2..5_u8).map(|number| member.write(&vec![number; 180 * 1024], &[])).collect();
    for entry in &more {
        let data = member.heads(NOW, std::slice::from_ref(entry));
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    }
    device.settle();
    let payloads = told(&mut device, &member);
    assert!(!payloads.is_empty());
    assert!(payloads.iter().all(|shown| shown.first() == Some(&own)));
    for head in &more {
        assert!(payloads.iter().any(|shown| shown.contains(&head.id())), "it is never told");
    }
}

/// A late parent moves a long conversation. That is told in steps, none of which grows with the log, and it goes on
/// after a restart.
#[test]
fn a_long_conversation_moves_in_steps() {
    const MESSAGES: usize = 2500;
    const STEP_MAX: usize = 1024;
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let late = member.write(b"late", &[]);
    let above = member.write(b"above", &[late.id()]);
    let data = member.heads(NOW, std::slice::from_ref(&above));
    device.step_at(NOW, |ctx, engine| {
        engine.handle_connected(ctx, &peer(), true).unwrap();
        engine.handle_heads(ctx, &peer(), &data).unwrap();
    });
    device.run(|ctx, engine| (0..4).for_each(|_| engine.handle_block_missing(ctx, &late.id()).unwrap()));
    device.settle();
    for _ in 0..MESSAGES / 100 {
        device.run(|ctx, engine| {
            for _ in 0..100 {
                engine.send_message(ctx, &group, b"a word").unwrap();
            }
        });
    }

    let data = member.heads(NOW, std::slice::from_ref(&late));
    let moves =
        |device: &Device| device.told.iter().filter(|event| matches!(event, Event::Moved { .. })).count();
    device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    let mut all = moves(&device);
    let mut steps = 0;
    while device.engine.timeout().is_some_and(|due| due <= NOW) {
        device.step_at(NOW, |ctx, engine| engine.handle_timeout(ctx).unwrap());
        let step = moves(&device);
        assert!(step <= STEP_MAX, "{step}");
        all += step;
        steps += usize::from(step > 0);
        if steps == 1 {
            device = Device::open(1, device.store);
            device.step_at(NOW, |ctx, engine| engine.activate(ctx, &group).unwrap());
            all += moves(&device);
            steps += 1;
        }
    }
    assert_eq!(all, MESSAGES);
    assert!(steps > 2);
}

/// Catching up tells messages as they join, a batch in each step, and not all of them at the end.
#[test]
fn what_is_caught_up_is_told_in_steps() {
    const MESSAGES: usize = 1000;
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let mut chain: Vec<Entry> = Vec::new();
    for number in 0..MESSAGES as u32 {
        let next: Vec<EntryId> = chain.last().map(Entry::id).into_iter().collect();
        chain.push(member.write(&number.to_be_bytes(), &next));
    }
    let told = |device: &Device| device.told.iter().filter(|event| event.group() == Some(group)).count();
    let mut steps = Vec::new();
    chain.reverse();
    for part in chain.chunks(100) {
        let data = member.heads(NOW, part);
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        steps.push(told(&device));
    }
    while device.engine.timeout().is_some_and(|due| due <= NOW) {
        device.step_at(NOW, |ctx, engine| engine.handle_timeout(ctx).unwrap());
        steps.push(told(&device));
    }
    steps.retain(|step| *step > 0);
    assert_eq!(steps.iter().sum::<usize>(), MESSAGES);
    assert!(steps.len() >= 4 && steps.iter().all(|step| *step <= 256), "{steps:?}");
}

/// E6: a chain key is not membership. What a device sends waits until it is known whose it is; what nobody can
/// read holds up nothing.
#[test]
fn unknown_device_waits() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut events = Member::of(&device, &group, Profile::Berty.metadata_store());
    let mut messages = Member::of(&device, &group, Profile::Berty.message_store());
    let receiver = device.engine.own_member(&group).unwrap();
    let own = OwnMember { member: SecretKey::from_seed([1; 32]), device: SecretKey::from_seed([2; 32]) };
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let sealed =
        message::own_chain_key_box(&mut tx, &events.group, &own, &receiver, &mut events.rng).unwrap();
    let key = MetadataKind::chain_key_added(&own, receiver, sealed);
    let joined = MetadataKind::member_device_added(&own);
    let [key, joined] = [key, joined].map(|event| {
        let value = metadata::seal(&events.group, &own, &event, Padding::Buckets, &mut events.rng);
        events.write(&value, &[])
    });
    let padding = Padding::Buckets;
    let text =
        message::seal(&mut tx, &messages.group, &own, b"hello", padding, &mut messages.rng).unwrap().envelope;
    let garbage = messages.write(b"nobody can read this", &[]);
    let text = messages.write(&text, &[garbage.id()]);

    let give = |device: &mut Device, member: &mut Member, entries: &[Entry]| {
        let data = member.heads(NOW, entries);
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
        device.settle();
        device.messages(&group)
    };
    assert!(give(&mut device, &mut messages, &[garbage, text]).is_empty());
    assert!(give(&mut device, &mut events, &[key]).is_empty(), "a chain key is not membership");
    assert_eq!(give(&mut device, &mut events, &[joined]), [b"hello"]);
}

/// O4: a block that is another one under the name that was asked for is a failure like any other. Whoever answers so
/// does not keep out what names a parent that is nowhere.
#[test]
fn another_block_under_a_name_holds_up_nothing() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let nowhere = EntryId::of_block(b"nowhere");
    let entry = member.write(b"on top of it", &[nowhere]);
    let data = member.heads(NOW, std::slice::from_ref(&entry));
    device.run(|ctx, engine| {
        engine.handle_connected(ctx, &peer(), true).unwrap();
        engine.handle_topic_joined(ctx, &peer(), &member.address).unwrap();
    });
    let (_, mut actions) =
        device.step_at(NOW, |ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    let (mut now, mut asked) = (NOW, 0);
    while device.engine.position(&device.store, &group, true, &entry.id()).unwrap().is_none() {
        for action in std::mem::take(&mut actions) {
            if matches!(action, Action::Fetch { entry, .. } if entry == nowhere) {
                asked += 1;
                device.run_at(now, |ctx, engine| {
                    engine.handle_block(ctx, &peer(), &nowhere, b"garbage").unwrap()
                });
            }
        }
        assert!(asked < 10, "it waits for ever");
        now = device.engine.timeout().unwrap().max(now);
        (_, actions) = device.step_at(now, |ctx, engine| engine.handle_timeout(ctx).unwrap());
    }
    assert!(asked > 1, "it was asked for again");
}

/// Who is in two groups names a block of one as missing in the other, while it is on its way and judged ahead for the
/// first: both have their answer when it comes.
#[test]
fn a_block_of_another_log_is_refused_where_it_was_named_and_asked_for_no_more() {
    let mut device = Device::new(1);
    let groups = [(); 2].map(|()| device.run(|ctx, engine| engine.create_group(ctx).unwrap()));
    let [mut here, mut there] =
        groups.map(|group| Member::of(&device, &group, Profile::Berty.message_store()));
    let wanted = here.write(b"wanted", &[]);
    let (rightly, wrongly) =
        (here.write(b"on top of it", &[wanted.id()]), there.write(b"on top of it", &[wanted.id()]));
    device.run(|ctx, engine| {
        engine.handle_connected(ctx, &peer(), true).unwrap();
        for member in [&here, &there] {
            engine.handle_topic_joined(ctx, &peer(), &member.address).unwrap();
        }
    });
    let data = here.heads(NOW, std::slice::from_ref(&rightly));
    device.run(|ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    let checker = device.engine.checker_of(&wanted.id()).unwrap();
    let checked = checker.check(wanted.block()).unwrap();
    let data = there.heads(NOW, std::slice::from_ref(&wrongly));
    device.run(|ctx, engine| engine.handle_heads(ctx, &peer(), &data).unwrap());
    device.run(|ctx, engine| engine.handle_checked_block(ctx, &peer(), checked).unwrap());
    device.settle();
    for (group, entry) in groups.iter().zip([&rightly, &wrongly]) {
        assert!(device.engine.position(&device.store, group, true, &entry.id()).unwrap().is_some());
    }
    assert_eq!(device.engine.underway().fetches, 0);
}

/// What came on the topic is told to the topic again, unless those there said it; not to whom it came from.
#[test]
fn what_was_learned_is_told_again() {
    let publishes = |device: &mut Device, hosts: &[PeerId], echo: bool| {
        let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
        let mut member = Member::of(device, &group, Profile::Berty.message_store());
        let topic = member.address.clone();
        for host in hosts {
            device.run(|ctx, engine| {
                engine.handle_connected(ctx, host, true).unwrap();
                engine.handle_topic_joined(ctx, host, &topic).unwrap();
            });
        }
        let entry = member.write(b"news", &[]);
        let data = member.heads(NOW, std::slice::from_ref(&entry));
        let gossip = |device: &mut Device, now, from: &PeerId| {
            device.step_at(now, |ctx, engine| engine.handle_gossip(ctx, &topic, from, &data).unwrap()).1
        };
        let mut actions = gossip(device, NOW, &hosts[0]);
        let (mut now, mut times) = (NOW, Vec::new());
        while let Some(due) = device.engine.timeout().filter(|due| *due < NOW + Span::from_secs(7200)) {
            if echo {
                hosts[1..].iter().for_each(|host| actions.extend(gossip(device, now, host)));
            }
            now = due.max(now);
            actions.extend(device.step_at(now, |ctx, engine| engine.handle_timeout(ctx).unwrap()).1);
            let told = |action: &Action| matches!(action, Action::Publish { topic: on, .. } if *on == topic);
            times.extend(actions.drain(..).filter(told).map(|_| now));
        }
        times
    };
    let hosts: Vec<_> = (10..26).map(|number| PeerId::from_array([number; 34])).collect();
    let alone = publishes(&mut Device::new(1), &hosts[..1], false);
    assert_eq!(alone, [], "it came from the only one there");
    let silent = publishes(&mut Device::new(1), &hosts, false);
    assert_eq!(silent.len(), 7, "{silent:?}");
    assert!(silent[0] < NOW + Span::from_secs(16), "{silent:?}");
    let loud = publishes(&mut Device::new(1), &hosts, true);
    assert!(loud.len() < 3, "all others said it again and again: {loud:?}");
}

/// N6: what a member says on a topic opens, whatever its clock says; what nobody with the key has said is garbage.
#[test]
fn what_does_not_open_is_garbage_and_a_wrong_clock_is_not() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let topic = member.address.clone();
    let mut judge = |topic: &str, data: &[u8]| {
        device.run(|ctx, engine| engine.handle_gossip(ctx, topic, &peer(), data).unwrap())
    };
    let genuine = member.heads(NOW, &[]);
    assert_eq!(judge(&topic, &genuine), Gossip::OfMember);
    for off in [Span::from_secs(90 * 86_400), Span::from_secs(400 * 86_400)] {
        assert_eq!(judge(&topic, &member.heads(NOW + off, &[])), Gossip::OfMember);
        assert_eq!(judge(&topic, &member.heads(NOW - off, &[])), Gossip::OfMember);
    }

    let mut altered = genuine.clone();
    altered[40] ^= 1;
    let mut elsewhere = Member::of(&device, &group, Profile::Berty.metadata_store());
    let mut judge = |topic: &str, data: &[u8]| {
        device.run(|ctx, engine| engine.handle_gossip(ctx, topic, &peer(), data).unwrap())
    };
    for garbage in [altered, b"garbage".to_vec(), Vec::new(), elsewhere.heads(NOW, &[])] {
        assert_eq!(judge(&topic, &garbage), Gossip::Garbage);
    }
    assert_eq!(judge("a topic that was left", &genuine), Gossip::NotOurs);
}

/// D10: a device is where its last heads payload came from.
#[test]
fn peer_id_change() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let mut member = Member::of(&device, &group, Profile::Berty.message_store());
    let other = DeviceId::new(SecretKey::from_seed([5; 32]).public());
    let hosts = [[3; 34], [4; 34]].map(PeerId::from_array);
    for host in &hosts {
        let payload =
            HeadsPayload { heads: heads_to_json(&[]), device: Some(other), host: Some(host.clone()) };
        let (link_key, rotation) = (member.group.link_key(), Profile::Berty.rotation());
        let token = rotation::heads_token(&member.address, link_key, NOW, rotation);
        let data = payload.seal(&member.address, link_key, &token, &mut member.rng);
        device.run(|ctx, engine| {
            engine.handle_connected(ctx, host, true).unwrap();
            engine.handle_heads(ctx, host, &data).unwrap();
        });
        assert_eq!(device.engine.speakers_of(&group), [(host.clone(), other)]);
        // Another host that says the same of itself is not believed: the payload is another one's.
        device.run(|ctx, engine| {
            engine.handle_connected(ctx, &peer(), true).unwrap();
            engine.handle_heads(ctx, &peer(), &data).unwrap();
        });
        assert_eq!(device.engine.speakers_of(&group), [(host.clone(), other)]);
        device.run(|ctx, engine| engine.handle_disconnected(ctx, host).unwrap());
        assert_eq!(device.engine.online_devices(&group), []);
    }
}

/// What is too large to travel is refused before it is accepted, and what fits travels as one entry.
#[test]
fn a_payload_too_large_is_refused_before_it_is_accepted() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let send = |device: &mut Device, bytes: usize| {
        device.run(|ctx, engine| engine.send_message(ctx, &group, &vec![1; bytes]).is_ok())
    };
    assert!(!send(&mut device, PAYLOAD_BYTES_MAX + 1));
    assert!(!send(&mut device, 3 << 20));
    assert!(send(&mut device, 1) && send(&mut device, PAYLOAD_BYTES_MAX));
    assert_eq!(device.messages(&group).iter().map(Vec::len).collect::<Vec<_>>(), [1, PAYLOAD_BYTES_MAX]);
}
