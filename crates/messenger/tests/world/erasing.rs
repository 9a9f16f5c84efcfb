//! A message that was erased from a device is nowhere on it, and does not come back.

use dunlin_messenger::views::MessageState;
use dunlin_messenger::{MessengerError, Notice};

use crate::support::{ANN, BOB, World, ann_and_bob};

const CANARY: &str = "the canary sings at dawn";

/// `spec/security.md` E9, as the messenger sees it: no row holds the text, on the screen it is as if it had never been
/// there, and neither a restart nor the others bring it back.
#[test]
fn an_erased_message_is_nowhere_on_this_device() {
    let mut world = ann_and_bob();
    let before = world.send(ANN, "bob", "before").unwrap();
    let entry = world.send(ANN, "bob", CANARY).unwrap();
    let group = world.conversation(BOB, "ann").group;
    assert!(world.holds(BOB, CANARY.as_bytes()));
    world.take_notices(BOB);

    world.erase(BOB, &entry).unwrap();

    let told = world.take_notices(BOB);
    assert!(told.contains(&Notice::MessageErased { group, entry }), "{told:?}");
    for round in 0..3 {
        assert!(!world.holds(BOB, CANARY.as_bytes()));
        assert_eq!(world.texts(BOB, "ann"), ["before"]);
        assert_eq!(
            world.conversation(BOB, "ann").last.unwrap().entry(),
            before,
            "the last message is another one"
        );
        assert_eq!(world.why(BOB, &entry), "It was erased from this device.");
        assert!(matches!(world.erase(BOB, &entry), Err(MessengerError::Erased)));
        match round {
            0 => world.restart(BOB),
            _ => world.wait_a_minute(),
        }
    }
    assert_eq!(world.texts(ANN, "bob"), ["before", CANARY], "who wrote it keeps it");
    assert_eq!(world.message(ANN, &entry).delivery.unwrap().state(), MessageState::Received);
    world.send(ANN, "bob", "after").unwrap();
    assert_eq!(world.texts(BOB, "ann"), ["before", "after"]);
}

#[test]
fn an_own_message_that_was_erased_still_arrives_and_is_not_shown_again() {
    let mut world = ann_and_bob();
    world.disconnect(ANN, BOB);
    let entry = world.send(ANN, "bob", CANARY).unwrap();
    let kept = |world: &World| world.view(ANN, |read, engine, app| app.status(read, engine).unwrap().kept);
    assert_eq!(kept(&world), 1);

    world.erase(ANN, &entry).unwrap();

    assert!(!world.holds(ANN, CANARY.as_bytes()));
    assert_eq!(kept(&world), 0, "nothing is told to wait that cannot be looked at");
    world.restart(ANN);
    world.connect(ANN, BOB);
    world.wait_a_minute();
    assert_eq!(world.texts(BOB, "ann"), [CANARY]);
    // The confirmation came, and is of nothing any more.
    assert!(world.texts(ANN, "bob").is_empty() && !world.holds(ANN, CANARY.as_bytes()));
    assert_eq!(world.why(ANN, &entry), "It was erased from this device.");
}

#[test]
fn unread_messages_are_counted_without_those_that_were_erased() {
    let mut world = ann_and_bob();
    let read = world.send(ANN, "bob", "read").unwrap();
    let group = world.conversation(BOB, "ann").group;
    world.act(BOB, |ctx, _, app| app.mark_read(ctx, &group)).unwrap();
    let unread = ["one", "two"].map(|text| world.send(ANN, "bob", text).unwrap());
    let own = world.send(BOB, "ann", "own").unwrap();
    assert_eq!(world.conversation(BOB, "ann").unread, 2);
    for (entry, left) in [(read, 2), (own, 2), (unread[0], 1), (unread[1], 0)] {
        world.erase(BOB, &entry).unwrap();
        assert_eq!(world.conversation(BOB, "ann").unread, left);
    }
    world.send(ANN, "bob", "three").unwrap();
    assert_eq!(world.conversation(BOB, "ann").unread, 1);
    world.act(BOB, |ctx, _, app| app.mark_read(ctx, &group)).unwrap();
    assert_eq!(world.conversation(BOB, "ann").unread, 0);
}

#[test]
fn a_message_of_a_group_that_was_left_can_be_erased() {
    let mut world = World::new(&["Ann"]);
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let entry = world.send(ANN, "Harbour", CANARY).unwrap();
    world.act(ANN, |ctx, engine, app| app.leave(ctx, engine, &group)).unwrap();
    world.restart(ANN);
    assert_eq!(world.texts(ANN, "Harbour"), [CANARY]);
    world.erase(ANN, &entry).unwrap();
    assert!(world.texts(ANN, "Harbour").is_empty() && !world.holds(ANN, CANARY.as_bytes()));
}

#[test]
fn erasing_is_for_one_device_alone() {
    let mut world = ann_and_bob();
    let phone = world.add_device(BOB);
    world.connect(BOB, phone);
    world.connect(ANN, phone);
    world.wait_a_minute();
    let entry = world.send(ANN, "bob", CANARY).unwrap();
    world.wait_a_minute();
    world.erase(BOB, &entry).unwrap();
    world.wait_a_minute();
    assert!(world.texts(BOB, "ann").is_empty() && !world.holds(BOB, CANARY.as_bytes()));
    assert_eq!(world.texts(phone, "ann"), [CANARY]);
}

#[test]
fn what_is_not_there_cannot_be_erased() {
    let mut world = ann_and_bob();
    let entry = world.send(ANN, "bob", CANARY).unwrap();
    let nowhere = dunlin_base::EntryId::of_block(b"nowhere");
    assert!(matches!(world.erase(BOB, &nowhere), Err(MessengerError::Unknown { .. })));
    // A name that others say is a message of the log, and none of the conversation.
    let group = world.conversation(ANN, "bob").group;
    let confirmation = world.view(ANN, |read, engine, _| {
        let mut found = None;
        let mut visit = |message: dunlin_wesh::engine::MessageEvent| {
            found = Some(message.entry).filter(|other| *other != entry).or(found);
            std::ops::ControlFlow::Continue(())
        };
        let (start, ascending) = (std::ops::Bound::Unbounded, dunlin_base::kv::Direction::Ascending);
        engine.visit_messages(read, &group, start, ascending, &mut visit).unwrap();
        found.unwrap()
    });
    assert!(matches!(world.erase(ANN, &confirmation), Err(MessengerError::Unknown { .. })));
    assert_eq!(world.texts(ANN, "bob"), [CANARY]);
}
