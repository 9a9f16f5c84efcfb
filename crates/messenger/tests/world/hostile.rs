//! What a member or a caller who means no good comes to.

use dunlin_base::{EntryId, GroupId};
use dunlin_log::{Body, Clock, Entry, Writer, heads_to_json};
use dunlin_messenger::links::Link;
use dunlin_messenger::views::MessageState;
use dunlin_orbitdb::StoreAddress;
use dunlin_wesh::group::Group;
use dunlin_wesh::heads::HeadsPayload;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::rotation;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::support::{ANN, BOB, CAROL, World, ann_and_bob};

/// A member who writes what it likes to the message log of a group.
struct Member {
    group: Group,
    address: String,
    writer: Writer,
}

impl Member {
    fn of(world: &World, group: &GroupId) -> Self {
        let group = world.view(ANN, |read, engine, _| engine.known_group(read, group).unwrap().unwrap());
        let store = Profile::Berty.message_store();
        let address = StoreAddress::new(&group.id(), store, &group.sign_pub()).to_string();
        let writer = Writer::new(group.signing_key().clone());
        Self { group, address, writer }
    }

    /// An entry as Ann has it.
    fn entry(&self, world: &World, id: &EntryId) -> Entry {
        world.view(ANN, |read, engine, _| {
            let host = engine.speakers_of(&self.group.id())[0].0.clone();
            Entry::decode(&engine.block_for(read, &host, id).unwrap().unwrap()).unwrap()
        })
    }

    fn write(&self, payload: &str, next: &[EntryId]) -> Entry {
        let clock = Clock { time: 1, id: self.writer.identity().public_key.clone() };
        let (log_id, payload) = (self.address.clone(), payload.to_owned());
        self.writer.sign(Body { log_id, payload, next: next.to_vec(), refs: Vec::new(), clock })
    }

    /// A payload that shows `entries` as heads.
    fn heads(&self, world: &World, entries: &[Entry]) -> Vec<u8> {
        let payload = HeadsPayload { heads: heads_to_json(entries), device: None, host: None };
        let link_key = self.group.link_key();
        let rotation = Profile::Berty.rotation();
        let token = rotation::heads_token(&self.address, link_key, world.now, rotation);
        payload.seal(&self.address, link_key, &token, &mut ChaCha20Rng::from_seed([3; 32]))
    }
}

/// Heads that name a copy of an entry with the payload of `original`, on top of nothing: it comes before all
/// that has a parent, and any member can write it.
fn copy_of(world: &World, group: &GroupId, original: &EntryId) -> (EntryId, Vec<u8>) {
    let member = Member::of(world, group);
    let copy = member.write(member.entry(world, original).payload(), &[]);
    (copy.id(), member.heads(world, &[copy]))
}

#[test]
fn a_copy_that_comes_first_is_the_same_message_shown_once() {
    let mut world = ann_and_bob();
    let group = world.conversation(ANN, "bob").group;
    world.send(ANN, "bob", "first").unwrap();
    let original = world.send(ANN, "bob", "second").unwrap();
    world.wait_a_minute();
    assert_eq!(world.message(ANN, &original).delivery.unwrap().state(), MessageState::Received);
    let unread = world.conversation(BOB, "ann").unread;

    let (copy, heads) = copy_of(&world, &group, &original);
    for (index, other) in [(ANN, BOB), (BOB, ANN)] {
        world.hand_heads(index, other, &heads);
    }
    world.wait_a_minute();

    for (index, other) in [(ANN, "bob"), (BOB, "ann")] {
        let mut texts = world.texts(index, other);
        texts.sort_unstable();
        assert_eq!(texts, ["first", "second"]);
        assert!(world.messages(index, &group).iter().all(|message| message.entry() != original));
        assert_eq!(world.conversation(index, other).closed, 0);
    }
    // What was known of it is known of it still.
    assert_eq!(world.message(ANN, &copy).delivery.unwrap().state(), MessageState::Received);
    assert_eq!(world.conversation(BOB, "ann").unread, unread);

    for index in [ANN, BOB] {
        world.restart(index);
    }
    world.send(BOB, "ann", "third").unwrap();
    world.wait_a_minute();
    assert_eq!(world.texts(ANN, "bob").len(), 3);
    assert_eq!(world.texts(BOB, "ann"), world.texts(ANN, "bob"));
}

/// Neither does the message come back by a copy that takes its place, nor by one that comes behind it.
#[test]
fn a_copy_of_an_erased_message_does_not_bring_it_back() {
    let mut world = ann_and_bob();
    let group = world.conversation(ANN, "bob").group;
    world.send(ANN, "bob", "first").unwrap();
    let original = world.send(ANN, "bob", "the canary sings at dawn").unwrap();
    world.wait_a_minute();
    let (copy, before) = copy_of(&world, &group, &original);
    let member = Member::of(&world, &group);
    let later = member.write(member.entry(&world, &original).payload(), &[original]);
    let behind = member.heads(&world, &[later]);
    let is_gone = |world: &World| {
        assert!(!world.holds(BOB, b"the canary sings at dawn"));
        assert_eq!(world.texts(BOB, "ann"), ["first"]);
        assert_eq!(world.conversation(BOB, "ann").unread, 1);
    };

    world.act(BOB, |ctx, engine, app| app.erase(ctx, engine, &original)).unwrap();
    is_gone(&world);
    for heads in [behind, before] {
        world.hand_heads(BOB, ANN, &heads);
        world.wait_a_minute();
        is_gone(&world);
        world.restart(BOB);
        is_gone(&world);
    }
    assert_eq!(world.why(BOB, &copy), "It was erased from this device.");
    assert!(world.texts(ANN, "bob").contains(&"the canary sings at dawn".to_owned()));
}

#[test]
fn a_copy_handed_twice_changes_nothing_the_second_time() {
    let mut world = ann_and_bob();
    let group = world.conversation(ANN, "bob").group;
    world.send(ANN, "bob", "first").unwrap();
    let original = world.send(ANN, "bob", "second").unwrap();
    world.wait_a_minute();
    let (copy, heads) = copy_of(&world, &group, &original);
    world.hand_heads(BOB, ANN, &heads);
    world.wait_a_minute();
    let before = world.texts(BOB, "ann");
    world.take_notices(BOB);
    world.hand_heads(BOB, ANN, &heads);
    assert_eq!(world.texts(BOB, "ann"), before);
    assert_eq!(world.message(BOB, &copy).entry(), copy);
    assert!(world.take_notices(BOB).is_empty());
}

/// A message waits for its key. Then a copy of it joins that comes behind it, and in the same step a withheld
/// parent that moves the message behind the copy: it goes on waiting in the copy, and opens.
#[test]
fn a_message_that_waits_is_not_lost_when_a_copy_takes_its_place_within_one_step() {
    let mut world = World::new(&["Ann", "Bob", "Carol"]);
    for (one, other) in [(ANN, CAROL), (BOB, CAROL)] {
        world.connect(one, other);
    }
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let link = world.view(ANN, |read, engine, app| app.group_link(read, engine, &group).unwrap());
    let Link::Group(link) = link else { panic!("a group link") };
    world.disconnect(BOB, CAROL);
    world.act(CAROL, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
    world.wait_a_minute();
    // Ann hears of Bob from Carol, while Bob hears nothing of Ann.
    world.disconnect(ANN, CAROL);
    world.act(BOB, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
    world.disconnect(ANN, BOB);
    let member = Member::of(&world, &group);
    let known = world.view(BOB, |read, engine, _| engine.members(read, &group).unwrap().len());
    assert_eq!(known, 1, "Bob knows himself alone");
    world.connect(BOB, CAROL);
    world.disconnect(BOB, CAROL);
    world.connect(ANN, CAROL);
    world.wait_a_minute();

    let sent: Vec<EntryId> =
        ["one", "two", "three", "four"].map(|text| world.send(ANN, "Harbour", text).unwrap()).into();
    let entries: Vec<Entry> = sent.iter().map(|id| member.entry(&world, id)).collect();
    let [before @ .., last] = entries.as_slice() else { panic!("four entries") };
    let below = member.write("nothing that anybody can read", &[]);
    let copy = member.write(last.payload(), &[below.id()]);

    world.hand_heads(BOB, CAROL, &member.heads(&world, std::slice::from_ref(last)));
    for parent in last.next() {
        world.give_up(BOB, parent);
    }
    assert_eq!(world.conversation(BOB, "harbour").closed, 1);
    let rest = [&[below, copy.clone()], before].concat();
    world.hand_heads(BOB, CAROL, &member.heads(&world, &rest));
    world.connect(BOB, CAROL);
    world.wait_a_minute();

    let mut texts = world.texts(BOB, "harbour");
    texts.sort_unstable();
    assert_eq!(texts, ["four", "one", "three", "two"]);
    assert_eq!(world.message(BOB, &copy.id()).entry(), copy.id());
    assert_eq!(world.conversation(BOB, "harbour").closed, 0);
}

#[test]
fn answering_a_request_that_is_not_there_changes_nothing() {
    let mut world = World::new(&["Ann", "Bob"]);
    let bob = world.account(BOB);
    assert!(world.is_refused(ANN, |ctx, engine, _| engine.accept_contact(ctx, &bob)));
    assert!(world.is_refused(ANN, |ctx, engine, _| engine.discard_contact(ctx, &bob)));
    assert!(world.is_refused(ANN, |ctx, engine, _| engine.unblock_contact(ctx, &bob)));
    assert!(world.is_refused(ANN, |ctx, engine, app| app.accept(ctx, engine, &bob)));
}

#[test]
fn an_introduction_that_would_be_dropped_is_refused() {
    let mut world = World::new(&["Ann", "Bob"]);
    let bob = world.view(BOB, |read, engine, _| engine.own_contact(read).unwrap());
    assert!(world.is_refused(ANN, |ctx, engine, _| engine.request_contact(ctx, &bob, &[0; 1001])));
    assert!(!world.is_refused(ANN, |ctx, engine, _| engine.request_contact(ctx, &bob, &[0; 1000])));
}
