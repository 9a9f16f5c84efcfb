//! One account on several devices: each sees what the others see, whoever was off, and whoever comes first.

use dunlin_base::GroupId;
use dunlin_messenger::links::Link;
use dunlin_messenger::views::MessageState;
use dunlin_messenger::{MessengerError, Notice};

use crate::support::{ANN, BOB, CAROL, World, ann_and_bob};

/// What one device shows of one account: people, conversations with what was said there and by whom, and how
/// others find it.
fn shown(world: &World, index: usize) -> Vec<String> {
    let mut lines = world.contact_names(index);
    let conversations = world.view(index, |read, engine, app| app.conversations(read, engine).unwrap());
    for conversation in conversations {
        lines.push(format!("# {} left {}", conversation.name, conversation.left));
        for message in world.messages(index, &conversation.group) {
            lines.push(format!("{:?} own {} {:?}", message.position, message.own, message.content));
        }
    }
    lines.sort();
    lines.extend(world.view(index, |read, engine, _| {
        let enabled = engine.requests_are_enabled(read).unwrap();
        let seed = engine.own_contact(read).unwrap().seed;
        [format!("requests {enabled}"), format!("seed {seed:?}")]
    }));
    lines
}

#[track_caller]
fn assert_same(world: &World, one: usize, other: usize) {
    assert_eq!(shown(world, one), shown(world, other));
}

fn group_id(world: &World, index: usize, name: &str) -> GroupId {
    world.view(index, |read, _, app| app.find_conversation(read, name).unwrap())
}

fn group_link(world: &World, index: usize, name: &str) -> dunlin_messenger::links::GroupLink {
    let group = group_id(world, index, name);
    match world.view(index, |read, engine, app| app.group_link(read, engine, &group).unwrap()) {
        Link::Group(link) => link,
        _ => panic!("a group link"),
    }
}

#[test]
fn a_new_device_sees_contacts_groups_and_messages_history_included() {
    let mut world = ann_and_bob();
    world.send(ANN, "bob", "one").unwrap();
    world.send(BOB, "ann", "two").unwrap();
    world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let link = group_link(&world, ANN, "Harbour");
    world.act(BOB, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
    world.wait_a_minute();
    world.send(BOB, "Harbour", "three").unwrap();
    world.send(ANN, "Harbour", "four").unwrap();

    let phone = world.add_device(ANN);

    assert_eq!(world.contact_names(phone), ["Bob Added"]);
    assert_eq!(world.texts(phone, "bob"), ["one", "two"]);
    assert_eq!(world.texts(phone, "Harbour"), ["three", "four"]);
    assert_same(&world, ANN, phone);
    world.connect(ANN, phone);
    world.restart(phone);
    world.wait_a_minute();
    assert_same(&world, ANN, phone);
}

#[test]
fn what_one_own_device_sends_is_own_on_the_other_and_neither_unread_nor_a_strangers() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    world.connect(ANN, phone);
    world.wait_a_minute();
    world.disconnect(ANN, BOB);
    world.take_notices(ANN);
    let group = group_id(&world, ANN, "bob");

    let entry = world.send(phone, "bob", "from the phone").unwrap();

    assert_eq!(world.conversation(ANN, "bob").unread, 0);
    let message = world.message(ANN, &entry);
    assert!(message.own);
    assert_eq!(world.why(ANN, &entry).split(',').next(), Some("Another of your devices wrote it"));
    assert_eq!(world.message(phone, &entry).delivery.unwrap().state(), MessageState::Kept, "Bob is away");
    assert!(world.take_notices(ANN).contains(&Notice::MessageAdded { group, entry }));

    // Bob is connected with the laptop alone, and hears what the phone said.
    world.connect(ANN, BOB);
    world.wait_a_minute();
    assert_eq!(world.texts(BOB, "ann"), ["from the phone"]);
    assert_eq!(world.conversation(BOB, "ann").unread, 1);
    assert_eq!(world.message(BOB, &entry).sender_name, "Ann");
    for device in [ANN, phone] {
        assert_eq!(world.message(device, &entry).delivery.unwrap().state(), MessageState::Received);
    }
    assert_same(&world, ANN, phone);
}

#[test]
fn what_an_own_device_brings_is_handed_on_to_those_in_reach() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    world.send(phone, "bob", "written on the way").unwrap();
    // Bob is connected with the laptop alone, and has been all along.
    world.connect(ANN, phone);
    world.wait_a_minute();
    assert_eq!(world.texts(BOB, "ann"), ["written on the way"]);
    let group = group_id(&world, ANN, "bob");
    let digest = |index| world.view(index, |read, engine, _| engine.log_digest(read, &group).unwrap());
    assert_eq!(digest(ANN), digest(BOB));
    assert_eq!(digest(ANN), digest(phone));
}

#[test]
fn a_message_is_confirmed_once_by_an_account_with_several_devices() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    world.connect(ANN, phone);
    world.connect(BOB, phone);
    world.wait_a_minute();
    let group = group_id(&world, ANN, "bob");
    let before = world.log_len(BOB, &group).0;

    let entry = world.send(BOB, "ann", "hello").unwrap();
    world.wait_a_minute();

    assert_eq!(world.message(BOB, &entry).delivery.unwrap().state(), MessageState::Received);
    assert_eq!(world.log_len(BOB, &group).0, before + 2, "one text and one confirmation");
    world.restart(ANN);
    world.restart(phone);
    let tablet = world.add_device(phone);
    world.connect(tablet, ANN);
    world.wait_a_minute();
    assert_eq!(world.log_len(BOB, &group).0, before + 2, "and none of the history");
}

#[test]
fn any_own_device_confirms_when_the_others_are_off() {
    for online in [0, 1] {
        let mut world = ann_and_bob();
        let phone = world.add_device(ANN);
        world.connect(ANN, phone);
        world.connect(BOB, phone);
        world.wait_a_minute();
        let (on, off) = if online == 0 { (ANN, phone) } else { (phone, ANN) };
        world.disconnect(BOB, off);
        world.disconnect(ANN, phone);

        let entry = world.send(BOB, "ann", "hello").unwrap();
        world.wait_a_minute();

        assert_eq!(world.texts(on, "bob"), ["hello"]);
        assert_eq!(world.message(BOB, &entry).delivery.unwrap().state(), MessageState::Received);
        let group = group_id(&world, ANN, "bob");
        let sent = world.log_len(BOB, &group).0;
        world.connect(ANN, phone);
        world.connect(BOB, off);
        world.wait_a_minute();
        assert_eq!(world.texts(off, "bob"), ["hello"]);
        assert_eq!(world.log_len(BOB, &group).0, sent);
    }
}

#[test]
fn a_contact_accepted_on_one_device_is_there_on_the_other_and_can_be_written_to_from_both() {
    for phone_is_off in [false, true] {
        let mut world = World::new(&["Ann", "Bob", "Carol"]);
        let phone = world.add_device(ANN);
        world.act(phone, |ctx, engine, app| app.set_name(ctx, engine, "Ann")).unwrap();
        if !phone_is_off {
            world.connect(ANN, phone);
        }
        world.connect(ANN, CAROL);
        world.befriend(CAROL, ANN);
        world.connect(ANN, phone);
        world.wait_a_minute();
        assert_eq!(world.contact_names(phone), ["Carol Added"]);
        assert_eq!(world.contact_names(CAROL), ["Ann Added"]);

        world.disconnect(ANN, CAROL);
        world.connect(phone, CAROL);
        world.send(phone, "carol", "from the phone").unwrap();
        world.send(ANN, "carol", "from the laptop").unwrap();
        world.send(CAROL, "ann", "to both").unwrap();
        world.wait_a_minute();

        let mut heard = world.texts(CAROL, "ann");
        heard.sort();
        assert_eq!(heard, ["from the laptop", "from the phone", "to both"]);
        assert_eq!(world.conversation(CAROL, "ann").unread, 2);
        assert_same(&world, ANN, phone);
    }
}

#[test]
fn a_request_that_waits_on_one_device_is_settled_by_what_the_other_decided() {
    let mut world = World::new(&["Ann", "Bob"]);
    let phone = world.add_device(ANN);
    world.connect(ANN, BOB);
    world.connect(phone, BOB);
    let link = world.own_link(ANN);
    world.add(BOB, &link).unwrap();
    world.wait_a_minute();
    let asked = if world.contact_names(ANN).is_empty() { phone } else { ANN };
    assert_eq!(world.contact_names(asked), ["Bob Asks"]);
    let bob = world.account(BOB);
    world.act(asked, |ctx, engine, app| app.accept(ctx, engine, &bob)).unwrap();
    world.connect(ANN, phone);
    world.wait_a_minute();
    for device in [ANN, phone] {
        assert_eq!(world.contact_names(device), ["Bob Added"]);
        let again = world.act(device, |ctx, engine, app| app.accept(ctx, engine, &bob));
        assert!(matches!(again, Err(MessengerError::NoRequest(_))));
    }
}

#[test]
fn a_group_joined_or_left_on_one_device_is_joined_or_left_on_the_other() {
    for off in [false, true] {
        let mut world = World::new(&["Ann", "Bob"]);
        let phone = world.add_device(ANN);
        world.connect(ANN, phone);
        world.connect(ANN, BOB);
        world.act(BOB, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
        let link = group_link(&world, BOB, "Harbour");
        if off {
            world.disconnect(ANN, phone);
        }
        world.act(ANN, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
        world.wait_a_minute();
        world.send(BOB, "Harbour", "the tide is out").unwrap();
        world.connect(ANN, phone);
        world.wait_a_minute();
        assert_eq!(world.texts(phone, "Harbour"), ["the tide is out"]);
        world.send(phone, "Harbour", "on my way").unwrap();
        world.wait_a_minute();
        assert_eq!(world.texts(BOB, "Harbour"), ["the tide is out", "on my way"]);
        assert_same(&world, ANN, phone);

        if off {
            world.disconnect(ANN, phone);
        }
        let group = group_id(&world, ANN, "Harbour");
        world.act(phone, |ctx, engine, app| app.leave(ctx, engine, &group)).unwrap();
        world.connect(ANN, phone);
        world.wait_a_minute();
        for device in [ANN, phone] {
            world.restart(device);
            assert!(world.conversation(device, "Harbour").left, "off {off}, device {device}");
            assert!(world.view(device, |_, engine, _| !engine.is_active(&group)));
        }
        assert_same(&world, ANN, phone);
        world.act(phone, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
        world.wait_a_minute();
        assert_same(&world, ANN, phone);
        assert!(!world.conversation(ANN, "Harbour").left);
    }
}

/// What Go forgets at a restart, after an import and after a batch (its fault 23): the newest event decides.
#[test]
fn the_newest_event_decides_after_restart_import_and_batch() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let group = group_id(&world, ANN, "Harbour");
    world.act(ANN, |ctx, engine, app| app.leave(ctx, engine, &group)).unwrap();
    let bob = world.account(BOB);
    world.act(ANN, |ctx, engine, app| app.block(ctx, engine, &bob)).unwrap();
    world.act(ANN, |ctx, engine, _| Ok(engine.reset_requests(ctx)?)).unwrap();
    world.act(ANN, |ctx, engine, _| Ok(engine.reset_requests(ctx)?)).unwrap();
    world.act(ANN, |ctx, engine, _| Ok(engine.disable_requests(ctx)?)).unwrap();
    let decided = shown(&world, ANN);

    // A batch, an import, and a restart of each.
    world.connect(ANN, phone);
    world.wait_a_minute();
    let tablet = world.add_device(ANN);
    for device in [ANN, phone, tablet] {
        world.restart(device);
    }
    world.wait_a_minute();

    for device in [ANN, phone, tablet] {
        assert_eq!(world.contact_names(device), ["Bob Blocked"], "device {device}");
        world.view(device, |read, engine, _| assert!(!engine.requests_are_enabled(read).unwrap()));
        let seed = |index| world.view(index, |read, engine, _| engine.own_contact(read).unwrap().seed);
        assert_eq!(seed(device), seed(ANN));
        assert!(world.view(device, |_, engine, _| !engine.is_active(&group)));
    }
    assert_eq!(shown(&world, ANN), decided);
}

#[test]
fn decisions_made_apart_come_to_the_same_on_every_device_in_any_order_of_arrival() {
    let mut outcomes = Vec::new();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut world = ann_and_bob();
        let phone = world.add_device(ANN);
        let tablet = world.add_device(ANN);
        let devices = [ANN, phone, tablet];
        world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
        world.connect(ANN, phone);
        world.connect(ANN, tablet);
        world.wait_a_minute();
        world.disconnect(ANN, phone);
        world.disconnect(ANN, tablet);
        let (group, bob) = (group_id(&world, ANN, "Harbour"), world.account(BOB));

        // Apart, each decides something else about the same things.
        world.act(ANN, |ctx, engine, app| app.leave(ctx, engine, &group)).unwrap();
        world.act(phone, |ctx, engine, app| app.block(ctx, engine, &bob)).unwrap();
        world.act(tablet, |ctx, engine, _| Ok(engine.disable_requests(ctx)?)).unwrap();
        world.act(phone, |ctx, engine, _| Ok(engine.reset_requests(ctx)?)).unwrap();
        world.act(tablet, |ctx, engine, _| Ok(engine.reset_requests(ctx)?)).unwrap();
        world.act(tablet, |ctx, engine, app| app.block(ctx, engine, &bob)).unwrap();
        world.act(tablet, |ctx, engine, app| app.unblock(ctx, engine, &bob)).unwrap();

        let [first, second, third] = order.map(|place| devices[place]);
        world.connect(first, second);
        world.wait_a_minute();
        world.connect(second, third);
        world.wait_a_minute();
        for device in devices {
            world.restart(device);
        }
        world.wait_a_minute();
        let state = |index| {
            let names = world.contact_names(index);
            let (enabled, seed) = world.view(index, |read, engine, _| {
                (engine.requests_are_enabled(read).unwrap(), engine.own_contact(read).unwrap().seed)
            });
            let active = world.view(index, |_, engine, _| engine.is_active(&group));
            (names, enabled, seed, active)
        };
        assert_eq!(state(ANN), state(phone));
        assert_eq!(state(ANN), state(tablet));
        let (names, enabled, _, active) = state(ANN);
        outcomes.push((names, enabled, active));
    }
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    assert_eq!(outcomes[0], (Vec::new(), false, false));
}

#[test]
fn an_account_restored_on_two_machines_at_once_is_one_account() {
    let mut world = ann_and_bob();
    world.send(BOB, "ann", "before").unwrap();
    world.wait_a_minute();
    let (one, two) = (world.add_device(ANN), world.add_device(ANN));
    world.disconnect(ANN, BOB);
    world.act(one, |ctx, engine, app| app.set_name(ctx, engine, "Ann")).unwrap();
    world.act(two, |ctx, engine, app| app.set_name(ctx, engine, "Ann")).unwrap();
    world.send(one, "bob", "from one").unwrap();
    world.send(two, "bob", "from two").unwrap();

    world.connect(one, BOB);
    world.connect(two, BOB);
    world.wait_a_minute();

    let mut heard = world.texts(BOB, "ann");
    heard.sort();
    assert_eq!(heard, ["before", "from one", "from two"]);
    world.connect(one, two);
    world.wait_a_minute();
    assert_same(&world, one, two);
    let devices = world.view(one, |read, engine, _| engine.account_devices(read).unwrap());
    assert_eq!(devices.len(), 3, "each is a device of its own, so no key is used twice");
}

#[test]
fn a_new_device_is_told_to_the_devices_that_were_there_and_not_to_itself() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    world.take_notices(ANN);
    world.connect(ANN, phone);
    world.wait_a_minute();
    let new = |world: &World, index| world.view(index, |read, _, app| app.new_devices(read).unwrap());
    let device = world.view(phone, |_, engine, _| engine.device_id());
    assert_eq!(new(&world, ANN), [device]);
    assert!(world.take_notices(ANN).contains(&Notice::DeviceAdded(device)));
    assert!(new(&world, phone).is_empty(), "the laptop was there before");
    world.restart(ANN);
    assert_eq!(new(&world, ANN), [device], "until somebody looks");
    world.act(ANN, |ctx, _, app| Ok(app.devices_seen(ctx)?)).unwrap();
    assert!(new(&world, ANN).is_empty());
    assert!(world.take_notices(ANN).iter().all(|notice| *notice != Notice::DeviceAdded(device)));
}

#[test]
fn names_and_removal_are_the_same_on_every_device_and_a_removed_one_is_given_nothing_more() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    let tablet = world.add_device(ANN);
    for (one, other) in [(ANN, phone), (ANN, tablet), (phone, tablet)] {
        world.connect(one, other);
    }
    world.wait_a_minute();
    let id = |world: &World, index| world.view(index, |_, engine, _| engine.device_id());
    let (lost, kept) = (id(&world, phone), id(&world, tablet));
    world
        .act(tablet, |ctx, engine, _| {
            engine.name_device(ctx, &lost, "Phone").unwrap();
            Ok(())
        })
        .unwrap();
    world.wait_a_minute();
    world
        .act(ANN, |ctx, engine, _| {
            engine.remove_device(ctx, &lost).unwrap();
            Ok(())
        })
        .unwrap();
    world.wait_a_minute();
    // What the lost one says of others counts for nothing from here on.
    world.disconnect(phone, ANN);
    world.disconnect(phone, tablet);
    let said = world.is_refused(phone, |ctx, engine, _| engine.remove_device(ctx, &kept));
    assert!(!said, "it can write it");
    world.connect(phone, tablet);
    world.wait_a_minute();
    let records = |index| world.view(index, |read, engine, _| engine.devices(read).unwrap());
    assert_eq!(records(ANN), records(tablet));
    for record in records(ANN) {
        assert_eq!(record.removed.is_some(), record.device == lost);
        assert_eq!(record.name, if record.device == lost { "Phone" } else { "" });
    }

    // Alone with one of the others, it is given nothing.
    world.disconnect(phone, tablet);
    world.disconnect(ANN, tablet);
    world.send(ANN, "bob", "not for the phone").unwrap();
    world.wait_a_minute();
    world.disconnect(ANN, BOB);
    world.restart(ANN);
    world.connect(ANN, phone);
    world.wait_a_minute();
    world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    world.wait_a_minute();
    assert!(world.texts(phone, "bob").is_empty());
    world.connect(ANN, tablet);
    world.wait_a_minute();
    assert_eq!(world.texts(tablet, "bob"), ["not for the phone"]);
}

#[test]
fn account_group_private() {
    let mut world = ann_and_bob();
    let phone = world.add_device(ANN);
    world.connect(ANN, phone);
    world.wait_a_minute();
    let host = |index: usize| dunlin_base::PeerId::from_bytes(&[b'h', index as u8]).unwrap();
    world.view(ANN, |read, engine, _| {
        let (account, mut looked_at) = (engine.account_group(), 0);
        let ascending = dunlin_base::kv::Direction::Ascending;
        let mut visit = |event: dunlin_wesh::engine::MetadataEvent| {
            let block = |peer| engine.block_for(read, &host(peer), &event.entry).unwrap();
            assert!(block(BOB).is_none());
            assert!(block(phone).is_some());
            looked_at += 1;
            std::ops::ControlFlow::Continue(())
        };
        engine.visit_metadata(read, &account, std::ops::Bound::Unbounded, ascending, &mut visit).unwrap();
        assert!(looked_at > 5);
    });
}
