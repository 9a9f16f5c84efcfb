//! Members who mean no good, in numbers (`spec/security.md` §2.2).

use dunlin_base::{EntryId, GroupId, PeerId, SecretKey, Span, Time};
use dunlin_log::{Body, Clock, Entry, Writer, heads_from_json, heads_to_json};
use dunlin_orbitdb::{StoreAddress, operation};
use dunlin_wesh::engine::{Action, CHAIN_KEYS_AT_ONCE, Event};
use dunlin_wesh::group::{Group, OwnMember};
use dunlin_wesh::heads::{self, HeadsPayload};
use dunlin_wesh::metadata::{self, Event as MetadataKind};
use dunlin_wesh::padding::Padding;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::rotation;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::device::{Device, NOW};

/// A member who writes what it likes to a log of a group.
struct Member {
    group: Group,
    address: String,
    writer: Writer,
    rng: ChaCha12Rng,
}

impl Member {
    fn of(device: &Device, group: &GroupId, store: &str) -> Self {
        let group = device.engine.known_group(&device.store, group).unwrap().unwrap();
        let address = StoreAddress::new(&group.id(), store, &group.sign_pub()).to_string();
        let writer = Writer::new(group.signing_key().clone());
        Self { group, address, writer, rng: ChaCha12Rng::seed_from_u64(3) }
    }

    fn write(&self, value: &[u8], next: &[EntryId]) -> Entry {
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

    fn heads(&mut self, now: Time, entries: &[Entry]) -> Vec<u8> {
        let payload = HeadsPayload { heads: heads_to_json(entries), device: None, host: None };
        let link_key = self.group.link_key();
        let token = rotation::heads_token(&self.address, link_key, now, Profile::Berty.rotation());
        payload.seal(&self.address, link_key, &token, &mut self.rng)
    }

    /// What a payload that a device sends shows.
    fn shown(&self, actions: &[Action]) -> Vec<Vec<EntryId>> {
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

fn peer() -> PeerId {
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
    assert!(at_once <= CHAIN_KEYS_AT_ONCE + 1, "{at_once}");

    let mut now = NOW;
    let mut wait = |device: &mut Device, seconds: u64| {
        for _ in 0..seconds {
            now = now + Span::from_secs(1);
            device.step_at(now, |ctx, engine| engine.handle_timeout(ctx).unwrap());
        }
    };
    wait(&mut device, 60);
    let in_a_minute = keys_given(&device, &group) - before;
    assert!(in_a_minute > at_once && in_a_minute <= 2 * CHAIN_KEYS_AT_ONCE + 1, "{in_a_minute}");

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
