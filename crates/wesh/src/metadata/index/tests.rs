use std::ops::ControlFlow;

use dunlin_base::kv::MemoryStore;
use dunlin_base::{EntryId, SecretKey};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

use super::*;
use crate::contact::{Contact, ContactState};
use crate::context::{Context, Place as ContextPlace};
use crate::metadata::{Capabilities, Extras, Features, OpenError, open, seal, seal_by_group, seal_with};
use crate::padding::Padding;

/// A group with the keys of the account that looks at it.
struct Scene {
    group: Group,
    keys: AccountKeys,
    own: OwnMember,
    rng: ChaCha12Rng,
}

impl Scene {
    fn account() -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let keys = AccountKeys::generate(&mut rng);
        let own = OwnMember { member: keys.account.clone(), device: keys.device.clone() };
        Self { group: Group::account(&keys), keys, own, rng }
    }

    fn multi_member() -> Self {
        let mut scene = Self::account();
        scene.group = Group::new_multi_member(&mut scene.rng).0;
        scene.own = member(100);
        scene
    }

    fn index(&self) -> Index {
        Index::new(&self.group, &self.keys, &self.own)
    }

    fn by(&mut self, own: &OwnMember, event: &Event) -> OpenedEvent {
        open(&self.group, &seal(&self.group, own, event, Padding::Buckets, &mut self.rng)).unwrap()
    }

    fn by_own(&mut self, event: fn(&OwnMember) -> Event) -> OpenedEvent {
        let own = self.own.clone();
        self.by(&own, &event(&own))
    }

    /// Another device of the same account.
    fn second_device(&self) -> OwnMember {
        OwnMember { member: self.own.member.clone(), device: SecretKey::from_seed([77; 32]) }
    }
}

fn member(first: u8) -> OwnMember {
    OwnMember { member: SecretKey::from_seed([first; 32]), device: SecretKey::from_seed([first + 1; 32]) }
}

fn at(height: u64) -> Position {
    Position { height, id: EntryId::of_block(&height.to_be_bytes()) }
}

fn account(first: u8) -> AccountId {
    AccountId::new(SecretKey::from_seed([first; 32]).public())
}

fn contact(first: u8, seed: Option<u8>, metadata: &[u8]) -> Contact {
    Contact { account: account(first), seed: seed.map(|byte| [byte; 32]), metadata: metadata.to_vec() }
}

/// Folds events as whoever holds the log does: what waits for a device is folded once it is known.
fn fold(index: &Index, tx: &mut Tx<'_>, events: &[(Position, OpenedEvent)]) -> Vec<Change> {
    let find = |at: Position| Some(events.iter().find(|(position, _)| *position == at)?.1.clone());
    let mut apply =
        |(position, event): &(Position, OpenedEvent)| index.apply_all(tx, *position, event, &find).unwrap();
    events.iter().flat_map(&mut apply).collect()
}

/// Events of every kind about a few items, by two devices of the account, on two claimed members.
fn busy_account_log(scene: &mut Scene, seed: u64) -> Vec<(Position, OpenedEvent)> {
    let mut dice = ChaCha12Rng::seed_from_u64(seed);
    let devices = [scene.own.clone(), scene.second_device(), member(30)];
    let mut events = Vec::new();
    for own in &devices {
        events.push(scene.by(own, &Event::member_device_added(own)));
    }
    for _ in 0..40 {
        let own = devices[dice.next_u32() as usize % devices.len()].clone();
        let who = 1 + (dice.next_u32() % 3) as u8;
        let text = [dice.next_u32() as u8; 3];
        let about = contact(who, (dice.next_u32() % 2 == 0).then_some(text[0]), &text);
        let (group, _) = Group::new_multi_member(&mut ChaCha12Rng::seed_from_u64(who.into()));
        let event = match dice.next_u32() % 14 {
            0 => Event::contact_enqueued(&own, about, b"hello"),
            1 => Event::contact_sent(&own, about.account),
            2 => Event::contact_received(&own, about),
            3 => Event::contact_discarded(&own, about.account),
            4 => Event::contact_accepted(&own, about.account),
            5 => Event::contact_blocked(&own, about.account),
            6 => Event::contact_unblocked(&own, about.account),
            7 => Event::group_left(&own, group.id()),
            8 => Event::group_joined(&own, group),
            9 => Event::requests_enabled(&own),
            10 => Event::requests_disabled(&own),
            11 => Event::seed_reset(&own, [text[0]; 32]),
            12 => Event::chain_key_added(&own, member(who).member_id(), vec![1, 2]),
            _ => Event::app_metadata(&own, &text),
        };
        events.push(scene.by(&own, &event));
    }
    // Several entries at one height: the log has forks.
    let places = (0u64..).map(|n| Position { height: n / 3, id: EntryId::of_block(&n.to_be_bytes()) });
    places.zip(events).collect()
}

/// `spec/security.md` O2: any permutation and duplication of one set gives one state.
#[test]
fn converge() {
    let mut scene = Scene::account();
    let index = scene.index();
    for seed in 0..8 {
        let log = busy_account_log(&mut scene, seed);
        let state_after = |order: &[(Position, OpenedEvent)]| {
            let store = MemoryStore::default();
            let mut tx = Tx::new(&store);
            fold(&index, &mut tx, order);
            let all = KeyRange::default();
            tx.collect(tables::INDEX, &all, Direction::Ascending, usize::MAX).unwrap()
        };
        let expected = state_after(&log);
        let mut dice = ChaCha12Rng::seed_from_u64(seed);
        for _ in 0..12 {
            let mut order = log.clone();
            order.extend(log[..10].iter().cloned());
            for i in (1..order.len()).rev() {
                order.swap(i, dice.next_u32() as usize % (i + 1));
            }
            assert_eq!(state_after(&order), expected, "log {seed}");
        }
    }
}

/// `spec/security.md` O10: every type in every kind of group.
#[test]
fn event_legality() {
    let scene = Scene::account();
    let own = &scene.own;
    let device = own.device_id();
    let legal = |event: &Event| {
        [GroupKind::Account, GroupKind::Contact, GroupKind::MultiMember].map(|kind| event.is_legal_in(kind))
    };
    let credential = crate::metadata::Credential {
        signed_identity_public_key: Vec::new(),
        verified_credential: String::new(),
        registration_date: 0,
        expiration_date: 0,
        identifier: String::new(),
        issuer: String::new(),
    };
    let cases = [
        ([true, true, true], Event::member_device_added(own)),
        ([true, true, true], Event::chain_key_added(own, own.member_id(), Vec::new())),
        ([true, false, false], Event::group_joined(own, scene.group.clone())),
        ([true, false, false], Event::group_left(own, scene.group.id())),
        ([true, false, false], Event::requests_disabled(own)),
        ([true, false, false], Event::requests_enabled(own)),
        ([true, false, false], Event::seed_reset(own, [1; 32])),
        ([true, false, false], Event::contact_enqueued(own, contact(1, None, b""), b"")),
        ([true, false, false], Event::contact_sent(own, account(1))),
        ([true, false, false], Event::contact_received(own, contact(1, None, b""))),
        ([true, false, false], Event::contact_discarded(own, account(1))),
        ([true, false, false], Event::contact_accepted(own, account(1))),
        ([true, false, false], Event::contact_blocked(own, account(1))),
        ([true, false, false], Event::contact_unblocked(own, account(1))),
        ([false, true, false], Event::alias_key_added(own)),
        ([false, false, true], Event::AliasResolverAdded { device, resolver: Vec::new(), proof: Vec::new() }),
        ([false, false, true], Event::initial_member(own)),
        ([false, false, true], Event::AdminGranted { device, grantee: Vec::new() }),
        ([true, true, true], Event::replicating(own, String::new(), String::new())),
        ([true, false, false], Event::credential_registered(own, credential)),
        ([true, true, true], Event::app_metadata(own, b"")),
    ];
    for (expected, event) in &cases {
        assert_eq!(legal(event), *expected, "{event:?}");
    }
    let mut types: Vec<i32> = cases.iter().map(|(_, event)| event.event_type() as i32).collect();
    types.dedup();
    assert_eq!(types.len(), 21);
}

/// `spec/security.md` O11.
#[test]
fn closed_membership() {
    let mut scene = Scene::account();
    let stranger = member(50);
    let strange = scene.by(&stranger, &Event::member_device_added(&stranger));
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    assert_eq!(scene.index().apply(&mut tx, at(1), &strange).unwrap(), []);

    let other = AccountKeys::generate(&mut scene.rng);
    scene.group = Group::contact(&scene.keys, &other.account_id()).unwrap();
    let other = OwnMember { member: other.account.clone(), device: other.device.clone() };
    let index = scene.index();
    let strange = scene.by(&stranger, &Event::member_device_added(&stranger));
    let expected = scene.by(&other, &Event::member_device_added(&other));
    let own = scene.by_own(Event::member_device_added);
    assert_eq!(index.apply(&mut tx, at(1), &strange).unwrap(), []);
    assert_eq!(index.apply(&mut tx, at(2), &expected).unwrap().len(), 1);
    assert_eq!(index.apply(&mut tx, at(3), &own).unwrap().len(), 1);
    assert_eq!(index.members(&tx).unwrap().len(), 2);
}

/// `spec/security.md` O12.
#[test]
fn no_compat_admin() {
    let mut scene = Scene::multi_member();
    let own = scene.own.clone();
    let bound = scene.by_own(Event::member_device_added);
    let granted =
        Event::AdminGranted { device: own.device_id(), grantee: own.member.public().as_bytes().to_vec() };
    let granted = scene.by(&own, &granted);
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let index = scene.index();
    index.apply(&mut tx, at(1), &bound).unwrap();
    let before = tx.changes_len();
    assert_eq!(index.apply(&mut tx, at(2), &granted).unwrap(), []);
    assert_eq!(tx.changes_len(), before);
}

/// `spec/security.md` O13: whoever claims the device first in the log has it, however they arrive.
#[test]
fn device_binding() {
    let mut scene = Scene::multi_member();
    let first = member(10);
    let second = OwnMember { member: SecretKey::from_seed([20; 32]), device: first.device.clone() };
    let claims = [
        (at(1), scene.by(&first, &Event::member_device_added(&first))),
        (at(2), scene.by(&second, &Event::member_device_added(&second))),
    ];
    let (device, member, other) = (first.device_id(), first.member_id(), second.member_id());
    let contested = Change::DeviceContested { device, member, other };
    for order in [[0, 1], [1, 0]] {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let index = scene.index();
        let changes = fold(&index, &mut tx, &order.map(|i: usize| claims[i].clone()));
        assert!(changes.contains(&contested));
        assert_eq!(index.member_of(&tx, &device).unwrap(), Some(member));
        assert_eq!(index.members(&tx).unwrap(), [member]);
        assert_eq!(index.devices_of(&tx, &member).unwrap(), [device]);
    }
}

#[test]
fn events_wait_for_their_device() {
    let mut scene = Scene::account();
    let own = scene.own.clone();
    let device = own.device_id();
    let log = [
        (at(1), scene.by(&own, &Event::contact_blocked(&own, account(1)))),
        (at(2), scene.by(&own, &Event::chain_key_added(&own, own.member_id(), vec![7; 100_000]))),
        (at(3), scene.by_own(Event::member_device_added)),
    ];
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let index = scene.index();
    assert_eq!(fold(&index, &mut tx, &log[..2]), []);
    assert_eq!(index.contact_state(&tx, &account(1)).unwrap(), None);
    assert_eq!(index.waiting(&tx, &device, 10).unwrap(), [at(1), at(2)]);
    assert_eq!(index.waiting(&tx, &device, 1).unwrap(), [at(1)]);
    assert!(tx.changes_bytes() < 1000, "what waits is in the log and not here once more");
    let changes = fold(&index, &mut tx, &log);
    assert_eq!(changes.len(), 3, "{changes:?}");
    assert!(!index.has_waiting(&tx, &device).unwrap());
    assert_eq!(index.contact_state(&tx, &account(1)).unwrap(), Some(ContactState::Blocked));
    assert!(index.is_served(&tx, &own.member_id()).unwrap());
}

#[test]
fn newest_event_decides_and_older_ones_fill_in() {
    let mut scene = Scene::account();
    let own = scene.own.clone();
    let log = [
        (at(1), scene.by_own(Event::member_device_added)),
        (at(2), scene.by(&own, &Event::contact_enqueued(&own, contact(1, Some(9), b"old"), b"me"))),
        (at(3), scene.by(&own, &Event::contact_received(&own, contact(1, None, b"new")))),
        (at(4), scene.by(&own, &Event::contact_blocked(&own, account(1)))),
    ];
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let index = scene.index();
    fold(&index, &mut tx, &log);
    let record = index.contact_record(&tx, &account(1)).unwrap().unwrap();
    assert_eq!(record.contact, contact(1, Some(9), b"new"));
    assert_eq!((record.state, record.own_metadata), (ContactState::Blocked, Vec::new()));
    assert_eq!(fold(&index, &mut tx, &log[1..]), []);
}

/// Which contacts have a group does not hang on what is heard first: one that was added and then blocked has one where the
/// block came before, and whoever was never more than asking has none.
#[test]
fn a_contact_has_its_group_in_whatever_order_it_was_added_and_blocked() {
    let mut scene = Scene::account();
    let own = scene.own.clone();
    let log = [
        (at(1), scene.by_own(Event::member_device_added)),
        (at(2), scene.by(&own, &Event::contact_received(&own, contact(1, None, b"")))),
        (at(3), scene.by(&own, &Event::contact_accepted(&own, account(1)))),
        (at(4), scene.by(&own, &Event::contact_blocked(&own, account(1)))),
        (at(5), scene.by(&own, &Event::contact_received(&own, contact(2, None, b"")))),
        (at(6), scene.by(&own, &Event::contact_blocked(&own, account(2)))),
    ];
    let index = scene.index();
    for turn in 0..log.len() {
        for backwards in [false, true] {
            let mut order = log.to_vec();
            order.rotate_left(turn);
            if backwards {
                order.reverse();
            }
            let store = MemoryStore::default();
            let mut tx = Tx::new(&store);
            let changes = fold(&index, &mut tx, &order);
            let made: Vec<_> =
                changes.iter().filter(|change| matches!(change, Change::ContactGroupMade { .. })).collect();
            assert_eq!(made, [&Change::ContactGroupMade { account: account(1) }], "{order:?}");
            assert_eq!(index.contacts_with_group(&tx).unwrap(), [account(1)]);
            assert_eq!(index.contact_state(&tx, &account(1)).unwrap(), Some(ContactState::Blocked));
        }
    }
}

#[test]
fn groups_seeds_and_requests_follow_the_log() {
    let mut scene = Scene::account();
    let own = scene.own.clone();
    let (group, _) = Group::new_multi_member(&mut scene.rng);
    let joined = scene.by(&own, &Event::group_joined(&own, group.clone()));
    let left = scene.by(&own, &Event::group_left(&own, group.id()));
    let log = [
        (at(1), scene.by_own(Event::member_device_added)),
        (at(2), left),
        (at(3), joined),
        (at(4), scene.by_own(Event::requests_enabled)),
        (at(5), scene.by(&own, &Event::seed_reset(&own, [2; 32]))),
        (at(6), scene.by(&own, &Event::seed_reset(&own, [1; 32]))),
    ];
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let index = scene.index();
    fold(&index, &mut tx, &log);
    let mut found = Vec::new();
    let mut collect = |id, group| {
        found.push((id, group));
        ControlFlow::Continue(())
    };
    index.groups(&tx, &mut collect).unwrap();
    assert_eq!(found, [(group.id(), Some(group))]);
    assert!(index.requests_enabled(&tx).unwrap());
    assert_eq!(index.seed(&tx).unwrap(), Some([1; 32]));
    assert_eq!(index.seeds(&tx).unwrap(), [[1; 32], [2; 32]]);

    index.clear(&mut tx).unwrap();
    assert!(!index.requests_enabled(&tx).unwrap());
    assert_eq!(index.members(&tx).unwrap(), []);
}

#[test]
fn the_maker_of_a_group_needs_no_device() {
    let mut scene = Scene::multi_member();
    let (group, group_key) = Group::new_multi_member(&mut scene.rng);
    scene.group = group;
    let initial = Event::initial_member(&scene.own);
    let value = seal_by_group(&scene.group, &group_key, &initial, Padding::Buckets, &mut scene.rng);
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let index = scene.index();
    let changes = index.apply(&mut tx, at(1), &open(&scene.group, &value).unwrap()).unwrap();
    assert_eq!(changes, [Change::InitialMember { member: scene.own.device.public() }]);
    assert_eq!(index.initial_members(&tx).unwrap(), [scene.own.device.public()]);
}

#[test]
fn changes_do_not_show_what_is_said() {
    let shown = [
        Change::SeedReset { seed: [7; 32] },
        Change::AppMetadata { device: member(1).device_id(), payload: b"between us".to_vec() },
    ]
    .map(|change| format!("{change:?}"));
    assert_eq!(shown[0], "SeedReset { .. }");
    assert!(shown[1].ends_with(".. }") && !shown[1].contains("payload"), "{}", shown[1]);
}

/// An event as a device of this version seals it: the `seq`th of its device.
fn placed(
    scene: &mut Scene,
    own: &OwnMember,
    event: &Event,
    caps: Option<Capabilities>,
    seq: u64,
) -> OpenedEvent {
    let id = scene.group.id();
    let context = Context::new(&ContextPlace::event(&id, event.event_type().into()), [0; 16], seq);
    let extras = Extras { caps: caps.as_ref(), note: None, context: Some(&context) };
    let (value, _) = seal_with(&scene.group, own, event, &extras, Padding::Buckets, &mut scene.rng);
    open(&scene.group, &value).unwrap()
}

/// `spec/security.md` §3.1, I6: the newest statement counts, features only become more, in whatever order they come and
/// however often somebody repeats an old one.
#[test]
fn caps_monotone() {
    let mut scene = Scene::multi_member();
    let own = member(40);
    let bound = Event::member_device_added(&own);
    let caps = |features, seq| Capabilities::current(Features::from_bits(features), seq);
    let statements = [
        (at(1), placed(&mut scene, &own, &bound, Some(caps(0b0001, 1)), 1)),
        (at(2), placed(&mut scene, &own, &bound, Some(caps(0b0101, 2)), 2)),
        (at(3), placed(&mut scene, &own, &bound, Some(caps(0b1000, 3)), 3)),
        (at(4), scene.by(&own, &bound)),
    ];
    let index = scene.index();
    let device = own.device_id();
    for turn in 0..statements.len() {
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let mut order = statements.to_vec();
        order.rotate_left(turn);
        order.extend_from_slice(&statements);
        for event in &order {
            let before = index.capabilities(&tx, &device).unwrap();
            fold(&index, &mut tx, std::slice::from_ref(event));
            let after = index.capabilities(&tx, &device).unwrap();
            if let Some(before) = before {
                let after = after.unwrap();
                assert!(after.seq >= before.seq && after.features.include(before.features));
            }
        }
        let known = index.capabilities(&tx, &device).unwrap().unwrap();
        assert_eq!((known.seq, known.features.bits()), (3, 0b1101));
        index.clear(&mut tx).unwrap();
        assert_eq!(index.capabilities(&tx, &device).unwrap(), Some(known), "it does not hang on the order");
        assert_eq!(index.member_of(&tx, &device).unwrap(), None);
    }
}

/// `spec/security.md` §3.1, M14: neither a repeated event from before, nor one that carries no context, undoes anything.
#[test]
fn downgrade_refused() {
    let mut scene = Scene::multi_member();
    let own = member(40);
    let device = own.device_id();
    let always = Features::CONTEXTS.with(Features::CONTEXTS_ALWAYS);
    let bound = Event::member_device_added(&own);
    let announced = placed(&mut scene, &own, &bound, Some(Capabilities::current(always, 1)), 1);
    let named = placed(&mut scene, &own, &Event::app_metadata(&own, b"name"), None, 2);
    let bare = scene.by(&own, &Event::app_metadata(&own, b"from elsewhere"));
    let index = scene.index();

    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let changes = fold(&index, &mut tx, &[(at(1), announced.clone()), (at(2), named), (at(3), bare.clone())]);
    assert!(matches!(changes[0], Change::ContextsAlways { .. }));
    let said: Vec<_> = changes.iter().filter(|change| matches!(change, Change::AppMetadata { .. })).collect();
    assert_eq!(said, [&Change::AppMetadata { device, payload: b"name".to_vec() }]);
    assert!(!index.counts(&tx, &at(3), &bare).unwrap());

    // It came before the statement: then the log is folded again, and it is not there any more.
    let mut tx = Tx::new(&store);
    let plain = scene.by(&own, &bound);
    let changes = fold(&index, &mut tx, &[(at(1), plain), (at(3), bare.clone()), (at(4), announced)]);
    assert!(changes.contains(&Change::FoldAgain));
    assert!(!index.counts(&tx, &at(3), &bare).unwrap());
}

/// `spec/security.md` §3.1: an event is for its group and its type, and the same one counts once, where it stands first.
#[test]
fn ctx_binding() {
    let mut scene = Scene::multi_member();
    let own = member(40);
    let id = scene.group.id();
    let event = Event::app_metadata(&own, b"name");
    let (other, _) = Group::new_multi_member(&mut scene.rng);
    for elsewhere in [
        ContextPlace::event(&other.id(), 1001),
        ContextPlace::event(&id, 302),
        ContextPlace::message(&id, 0),
        ContextPlace { counter: 1, ..ContextPlace::event(&id, 1001) },
    ] {
        let context = Context::new(&elsewhere, [0; 16], 1);
        let extras = Extras { context: Some(&context), ..Extras::default() };
        let (value, _) = seal_with(&scene.group, &own, &event, &extras, Padding::Buckets, &mut scene.rng);
        assert!(matches!(open(&scene.group, &value), Err(OpenError::OutOfPlace)));
    }

    let index = scene.index();
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let bound = scene.by(&own, &Event::member_device_added(&own));
    let named = placed(&mut scene, &own, &event, None, 1);
    let once = fold(&index, &mut tx, &[(at(1), bound), (at(5), named.clone()), (at(9), named.clone())]);
    assert_eq!(once.iter().filter(|change| matches!(change, Change::AppMetadata { .. })).count(), 1);
    assert!(index.counts(&tx, &at(5), &named).unwrap() && !index.counts(&tx, &at(9), &named).unwrap());
    // A copy that stands before it takes its place; what followed from the place is found anew.
    assert!(fold(&index, &mut tx, &[(at(3), named.clone())]).contains(&Change::FoldAgain));
    assert!(index.counts(&tx, &at(3), &named).unwrap() && !index.counts(&tx, &at(5), &named).unwrap());
}
