//! Who floods a group with entries that do not count (`spec/security.md` O7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_base::{EntryId, GroupId, PeerId, SecretKey, Span, Time};
use dunlin_log::{Body, Clock, Entry, Writer};
use dunlin_orbitdb::operation;
use dunlin_wesh::engine::{Action, QUARANTINE_WINDOW, QUARANTINED_ENTRIES_MAX};
use dunlin_wesh::profile::Profile;

use crate::device::{Device, NOW};
use crate::members::Member;

fn flooder() -> PeerId {
    PeerId::from_array([5; 34])
}

fn honest() -> PeerId {
    PeerId::from_array([6; 34])
}

/// A device between a host that floods and an honest one, both on the topic of its messages.
struct Scene {
    device: Device,
    group: GroupId,
    member: Member,
    now: Time,
    /// What a host has.
    served: BTreeMap<PeerId, BTreeMap<EntryId, Entry>>,
    asked: VecDeque<(EntryId, Vec<PeerId>)>,
}

impl Scene {
    fn new() -> Self {
        let mut device = Device::new(1);
        let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
        let member = Member::of(&device, &group, Profile::Berty.message_store());
        let served = [flooder(), honest()].map(|host| (host, BTreeMap::new())).into();
        let mut scene = Self { device, group, member, now: NOW, served, asked: VecDeque::new() };
        for host in [flooder(), honest()] {
            scene.join(&host);
        }
        scene
    }

    /// Entries in the name of nobody who may write: quarantined.
    fn forgeries(&self, count: u64) -> Vec<Entry> {
        let stranger = Writer::new(SecretKey::from_seed([99; 32]));
        let body = |number: u64| Body {
            log_id: self.member.topic(),
            payload: operation::encode_add(&number.to_be_bytes()),
            next: Vec::new(),
            refs: Vec::new(),
            clock: Clock { time: 1, id: stranger.identity().public_key.clone() },
        };
        (0..count).map(|number| stranger.sign(body(number))).collect()
    }

    fn has(&mut self, host: PeerId, entries: &[Entry]) {
        let blocks = self.served.get_mut(&host).unwrap();
        blocks.extend(entries.iter().map(|entry| (entry.id(), entry.clone())));
    }

    fn step(
        &mut self,
        input: impl FnOnce(&mut dunlin_wesh::engine::Ctx<'_, '_>, &mut dunlin_wesh::engine::Engine),
    ) {
        let ((), actions) = self.device.step_at(self.now, input);
        for action in actions {
            match action {
                Action::Fetch { entry, peers } => self.asked.push_back((entry, peers)),
                Action::CancelFetch { entry } => self.asked.retain(|(asked, _)| *asked != entry),
                _ => {}
            }
        }
    }

    fn join(&mut self, host: &PeerId) {
        let topic = self.member.topic();
        self.step(|ctx, engine| {
            engine.handle_connected(ctx, host, true).unwrap();
            engine.handle_topic_joined(ctx, host, &topic).unwrap();
        });
    }

    fn show(&mut self, host: &PeerId, entries: &[Entry]) {
        let data = self.member.heads(self.now, entries);
        self.step(|ctx, engine| engine.handle_heads(ctx, host, &data).unwrap());
    }

    /// The first of those asked who has it answers; gives who did.
    fn answer(&mut self) -> Option<PeerId> {
        let (entry, peers) = self.asked.pop_front()?;
        let found = peers.iter().find_map(|peer| Some((peer, self.served[peer].get(&entry)?)));
        let found = found.map(|(peer, entry)| (peer.clone(), entry.clone()));
        self.step(|ctx, engine| match &found {
            Some((peer, found)) => engine.handle_block(ctx, peer, &entry, found.block()).unwrap(),
            None => engine.handle_block_missing(ctx, &entry).unwrap(),
        });
        found.map(|(peer, _)| peer)
    }

    /// Lets everything happen that is to happen now; gives how often which host served.
    fn settle(&mut self) -> BTreeMap<PeerId, u64> {
        let mut served = BTreeMap::new();
        loop {
            if !self.asked.is_empty() {
                if let Some(peer) = self.answer() {
                    *served.entry(peer).or_default() += 1;
                }
            } else if self.device.engine.timeout().is_some_and(|due| due <= self.now) {
                self.step(|ctx, engine| engine.handle_timeout(ctx).unwrap());
            } else {
                return served;
            }
        }
    }

    fn is_here(&self, entry: &Entry) -> bool {
        self.device.engine.position(&self.device.store, &self.group, true, &entry.id()).unwrap().is_some()
    }
}

/// Whoever served more than a thousand entries that do not count is asked for no more of them while others are there, until a
/// day is over; what honest members wrote arrives meanwhile.
#[test]
fn quarantine_quota() {
    let mut scene = Scene::new();
    let forged = scene.forgeries(3 * QUARANTINED_ENTRIES_MAX);
    scene.has(flooder(), &forged);
    let (first, later) = forged.split_at(2 * QUARANTINED_ENTRIES_MAX as usize);
    let ids = |entries: &[Entry]| entries.iter().map(Entry::id).collect::<Vec<_>>();
    let bait = scene.member.write(b"on top of much", &ids(first));
    scene.show(&flooder(), std::slice::from_ref(&bait));

    let served = scene.settle();
    assert_eq!(served, [(flooder(), QUARANTINED_ENTRIES_MAX + 1)].into());

    // What honest members wrote comes from the other, and the flooder is not asked for it.
    let root = scene.member.write(b"root", &[]);
    let head = scene.member.write(b"head", &[root.id()]);
    scene.has(honest(), std::slice::from_ref(&root));
    scene.has(flooder(), std::slice::from_ref(&root));
    scene.now = scene.now + Span::from_secs(1);
    scene.show(&honest(), std::slice::from_ref(&head));
    assert!(scene.asked.iter().all(|(_, peers)| !peers.contains(&flooder())));
    assert_eq!(scene.settle().keys().collect::<Vec<_>>(), [&honest()]);
    assert!(scene.is_here(&root) && scene.is_here(&head));

    // A day after the first of them the count ends.
    scene.now = NOW + QUARANTINE_WINDOW;
    let bait = scene.member.write(b"once more", &ids(later));
    scene.show(&flooder(), std::slice::from_ref(&bait));
    assert!(scene.settle()[&flooder()] > 0);
}

/// Where nobody else is there, whoever is beyond the quota is asked for one block after the other: what counts arrives, and what
/// does not comes to twice the quota at most.
#[test]
fn a_flooder_who_is_alone_keeps_back_nothing_that_counts() {
    let mut scene = Scene::new();
    let forged = scene.forgeries(4 * QUARANTINED_ENTRIES_MAX);
    let ids: Vec<_> = forged.iter().map(Entry::id).collect();
    scene.has(flooder(), &forged);
    let bait = scene.member.write(b"on top of much", &ids);
    scene.show(&flooder(), std::slice::from_ref(&bait));
    scene.settle();
    let topic = scene.member.topic();
    scene.step(|_, engine| engine.handle_topic_left(&honest(), &topic));

    let mut chain: Vec<Entry> = Vec::new();
    for number in 0..20_u8 {
        let next: Vec<_> = chain.last().map(Entry::id).into_iter().collect();
        chain.push(scene.member.write(&[number], &next));
    }
    scene.has(flooder(), &chain);
    scene.show(&flooder(), &chain[19..]);
    let mut bad = 0;
    let known: BTreeSet<_> = ids.iter().copied().collect();
    let day = NOW + QUARANTINE_WINDOW;
    while scene.now < day {
        while let Some((entry, _)) = scene.asked.front() {
            assert_eq!(scene.asked.len(), 1, "one at a time");
            bad += u64::from(known.contains(entry));
            scene.answer();
        }
        let due = scene.device.engine.timeout().unwrap_or(day).max(scene.now);
        scene.now = due.min(day);
        if scene.now < day {
            scene.step(|ctx, engine| engine.handle_timeout(ctx).unwrap());
        }
    }
    assert!(scene.is_here(&chain[19]) && scene.is_here(&chain[0]));
    assert!((1..=QUARANTINED_ENTRIES_MAX).contains(&bad), "{bad}");
}
