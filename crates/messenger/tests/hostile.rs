//! What a member or a caller who means no good comes to.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod support;

use dunlin_base::{EntryId, GroupId};
use dunlin_log::{Body, Clock, Entry, Writer, heads_to_json};
use dunlin_messenger::views::MessageState;
use dunlin_orbitdb::StoreAddress;
use dunlin_wesh::heads::HeadsPayload;
use dunlin_wesh::profile::Profile;
use dunlin_wesh::rotation;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use support::World;

const ANN: usize = 0;
const BOB: usize = 1;

fn ann_and_bob() -> (World, GroupId) {
    let mut world = World::new(&["Ann", "Bob"]);
    world.connect(ANN, BOB);
    world.befriend(ANN, BOB);
    let group = world.conversation(ANN, "bob").group;
    (world, group)
}

/// Heads that name a copy of an entry with the payload of `original`, on top of nothing: it comes before all
/// that has a parent, and any member can write it.
fn copy_of(world: &World, group: &GroupId, original: &EntryId) -> (EntryId, Vec<u8>) {
    let (group, payload) = world.view(ANN, |read, engine, _| {
        let group = engine.known_group(read, group).unwrap().unwrap();
        let host = engine.speakers_of(&group.id())[0].0.clone();
        let block = engine.block_for(read, &host, original).unwrap().unwrap();
        (group, Entry::decode(&block).unwrap().payload().to_owned())
    });
    let profile = Profile::Berty;
    let address = StoreAddress::new(&group.id(), profile.message_store(), &group.sign_pub()).to_string();
    let writer = Writer::new(group.signing_key().clone());
    let clock = Clock { time: 1, id: writer.identity().public_key.clone() };
    let body = Body { log_id: address.clone(), payload, next: Vec::new(), refs: Vec::new(), clock };
    let copy = writer.sign(body);
    let payload =
        HeadsPayload { heads: heads_to_json(std::slice::from_ref(&copy)), device: None, host: None };
    let token = rotation::heads_token(&address, group.link_key(), world.now, profile.rotation());
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    (copy.id(), payload.seal(&address, group.link_key(), &token, &mut rng))
}

#[test]
fn a_copy_that_comes_first_is_the_same_message_shown_once() {
    let (mut world, group) = ann_and_bob();
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

#[test]
fn a_copy_handed_twice_changes_nothing_the_second_time() {
    let (mut world, group) = ann_and_bob();
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
