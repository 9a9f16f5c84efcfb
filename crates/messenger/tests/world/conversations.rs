//! What a person can do, with real engines on a network in memory.

use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId};
use dunlin_messenger::app_message::{Content, Envelope};
use dunlin_messenger::clock::Zone;
use dunlin_messenger::links::Link;
use dunlin_messenger::views::{MessageContent, MessageState};
use dunlin_messenger::{MessengerError, Notice, Page, short_id};
use dunlin_wesh::engine::{App, Event, MessageEvent, Position, WaitCause};

use crate::support::{ANN, BOB, CAROL, World, ann_and_bob};

fn state(world: &World, index: usize, entry: &EntryId) -> MessageState {
    world.message(index, entry).delivery.unwrap().state()
}

#[test]
fn a_request_is_kept_sent_and_accepted() {
    let mut world = World::new(&["Ann", "Bob"]);
    let link = world.own_link(BOB);
    world.add(ANN, &link).unwrap();
    assert_eq!(world.contact_names(ANN), ["Bob Kept"]);
    let bob = world.account(BOB);
    assert!(world.why_contact(ANN, &bob).starts_with("The request to Bob is kept here"));

    world.connect(ANN, BOB);
    world.wait_a_minute();
    assert_eq!(world.contact_names(ANN), ["Bob Sent"]);
    assert_eq!(world.contact_names(BOB), ["Ann Asks"]);
    let number = |index| {
        world
            .view(index, |read, engine, app| app.contacts(read, engine).unwrap()[0].safety_number.to_string())
    };
    assert_eq!(number(ANN), number(BOB));

    let ann = world.account(ANN);
    world.act(BOB, |ctx, engine, app| app.accept(ctx, engine, &ann)).unwrap();
    world.wait_a_minute();
    assert_eq!(world.contact_names(ANN), ["Bob Added"]);
    assert_eq!(world.contact_names(BOB), ["Ann Added"]);
}

#[test]
fn links_that_lead_nowhere_new_change_nothing() {
    let mut world = ann_and_bob();
    let (own, bob) = (world.own_link(ANN), world.own_link(BOB));
    assert!(matches!(world.add(ANN, &own), Err(MessengerError::OwnLink)));
    let Err(error) = world.add(ANN, &bob) else { panic!("known") };
    assert_eq!(error.to_string(), "Bob is a contact already");
    assert_eq!(world.contact_names(ANN), ["Bob Added"]);
}

#[test]
fn a_refused_request_is_gone() {
    let mut world = World::new(&["Ann", "Bob"]);
    world.connect(ANN, BOB);
    let link = world.own_link(BOB);
    world.add(ANN, &link).unwrap();
    world.wait_a_minute();
    let ann = world.account(ANN);
    world.act(BOB, |ctx, engine, app| app.refuse(ctx, engine, &ann)).unwrap();
    assert!(world.contact_names(BOB).is_empty());
    assert!(matches!(
        world.act(BOB, |ctx, engine, app| app.accept(ctx, engine, &ann)),
        Err(MessengerError::NoRequest(_))
    ));
    assert!(world.take_notices(BOB).contains(&Notice::ContactRemoved(ann)));
}

#[test]
fn a_message_goes_through_its_states_and_arrives_once() {
    let mut world = ann_and_bob();
    world.disconnect(ANN, BOB);
    let entry = world.send(ANN, "bob", "hello").unwrap();
    assert_eq!(state(&world, ANN, &entry), MessageState::Kept);
    assert!(world.why(ANN, &entry).starts_with("It is kept here: none of Bob's devices has been in reach"));
    world.take_notices(ANN);

    world.restart(ANN);
    world.connect(ANN, BOB);
    world.wait_a_minute();

    assert_eq!(state(&world, ANN, &entry), MessageState::Received);
    assert!(world.why(ANN, &entry).starts_with("Bob received it at "));
    assert_eq!(world.texts(BOB, "ann"), ["hello"]);
    assert_eq!(world.conversation(BOB, "ann").unread, 1);
    let conversation = world.conversation(ANN, "bob");
    assert!(world.take_notices(ANN).contains(&Notice::MessageChanged { group: conversation.group, entry }));
    assert_eq!(world.view(ANN, |read, engine, app| app.status(read, engine).unwrap().kept), 0);

    world.restart(BOB);
    world.restart(ANN);
    world.wait_a_minute();
    assert_eq!(world.texts(BOB, "ann"), ["hello"]);
    assert_eq!(world.log_len(ANN, &conversation.group), (2, 2), "one text, one confirmation, two names");
    assert_eq!(world.log_len(BOB, &conversation.group), (2, 2));
}

#[test]
fn a_message_can_be_written_before_the_request_is_answered() {
    let mut world = World::new(&["Ann", "Bob"]);
    let link = world.own_link(BOB);
    world.add(ANN, &link).unwrap();
    let entry = world.send(ANN, "bob", "are you there?").unwrap();
    assert_eq!(world.why(ANN, &entry), "It is kept here: Bob has not got the contact request yet.");

    world.connect(ANN, BOB);
    world.wait_a_minute();
    assert_eq!(world.why(ANN, &entry), "It is kept here: Bob has not accepted the contact request yet.");

    let ann = world.account(ANN);
    world.act(BOB, |ctx, engine, app| app.accept(ctx, engine, &ann)).unwrap();
    world.wait_a_minute();
    assert_eq!(world.texts(BOB, "ann"), ["are you there?"]);
    assert_eq!(state(&world, ANN, &entry), MessageState::Received);
}

#[test]
fn three_talk_in_a_group_and_each_confirmation_counts() {
    let mut world = World::new(&["Ann", "Bob", "Carol"]);
    for (one, other) in [(ANN, BOB), (ANN, CAROL), (BOB, CAROL)] {
        world.connect(one, other);
    }
    world.befriend(ANN, BOB);
    world.befriend(ANN, CAROL);
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let guests = [world.account(BOB), world.account(CAROL)];
    world.act(ANN, |ctx, engine, app| app.invite(ctx, engine, &group, &guests)).unwrap();
    world.wait_a_minute();

    for guest in [BOB, CAROL] {
        assert_eq!(world.texts(guest, "ann"), ["invitation to Harbour"]);
        let invitation = world.conversation(guest, "ann").last.unwrap();
        let MessageContent::Invitation { link, joined: false, .. } = invitation.content else {
            panic!("not joined")
        };
        let Ok(Link::Group(link)) = Link::parse(&link) else { panic!("a group link") };
        world.act(guest, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
        let again = world.act(guest, |ctx, engine, app| app.join(ctx, engine, &link));
        assert!(matches!(again, Err(MessengerError::AlreadyKnown(_))));
    }
    world.wait_a_minute();
    world.disconnect(ANN, CAROL);
    world.disconnect(BOB, CAROL);
    let entry = world.send(ANN, "Harbour", "ahoy").unwrap();
    world.wait_a_minute();

    let delivery = world.message(ANN, &entry).delivery.unwrap();
    assert_eq!((delivery.receipts.len(), delivery.recipients), (1, 2));
    let why = world.why(ANN, &entry);
    assert!(why.starts_with("1 of 2 other members received it, Bob as the last at "), "{why}");
    assert!(why.ends_with("; it waits for Carol."), "{why}");

    world.connect(BOB, CAROL);
    world.wait_a_minute();
    world.connect(ANN, CAROL);
    world.wait_a_minute();
    assert_eq!(world.texts(CAROL, "harbour"), ["ahoy"]);
    assert_eq!(world.message(ANN, &entry).delivery.unwrap().receipts.len(), 2);
    let names = world.view(CAROL, |read, engine, app| app.members(read, engine, &group).unwrap());
    let names: Vec<_> = names.iter().map(|member| (member.name.as_str(), member.own)).collect();
    assert_eq!(names, [("Carol", true), ("Ann", false), ("Bob", false)]);
}

#[test]
fn names_are_told_once_and_the_latest_stands_everywhere() {
    let mut world = ann_and_bob();
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    assert_eq!(world.log_len(ANN, &group).1, 2, "the name of the group and the own one");
    let link = world.view(ANN, |read, engine, app| app.group_link(read, engine, &group).unwrap());
    let Link::Group(link) = link else { panic!("a group link") };
    world.act(BOB, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
    world.wait_a_minute();
    world.act(BOB, |ctx, engine, app| app.rename(ctx, engine, &group, "Port")).unwrap();
    world.act(BOB, |ctx, engine, app| app.set_name(ctx, engine, "Robert")).unwrap();
    world.act(BOB, |ctx, engine, app| app.set_name(ctx, engine, "Robert")).unwrap();
    world.wait_a_minute();
    for index in [ANN, BOB] {
        assert_eq!(world.conversation(index, "Port").group, group);
        assert_eq!(world.log_len(index, &group).1, 5);
    }
    assert_eq!(world.contact_names(ANN), ["Robert Added"]);
    world.restart(ANN);
    assert_eq!(world.contact_names(ANN), ["Robert Added"]);
    assert_eq!(world.log_len(ANN, &group).1, 5);
}

#[test]
fn a_group_that_was_left_can_be_read_and_joined_again() {
    let mut world = ann_and_bob();
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    world.send(ANN, "harbour", "bye").unwrap();
    let Link::Group(link) =
        world.view(ANN, |read, engine, app| app.group_link(read, engine, &group).unwrap())
    else {
        panic!("a group link")
    };
    world.act(ANN, |ctx, engine, app| app.leave(ctx, engine, &group)).unwrap();
    assert!(world.conversation(ANN, "harbour").left);
    assert_eq!(world.texts(ANN, "harbour"), ["bye"]);
    assert!(matches!(world.send(ANN, "harbour", "again"), Err(MessengerError::Left(_))));
    world.restart(ANN);
    assert!(world.conversation(ANN, "harbour").left);
    world.act(ANN, |ctx, engine, app| app.join(ctx, engine, &link)).unwrap();
    world.send(ANN, "harbour", "back").unwrap();
    assert_eq!(world.texts(ANN, "harbour"), ["bye", "back"]);
}

#[test]
fn somebody_blocked_is_neither_confirmed_nor_counted() {
    let mut world = ann_and_bob();
    let ann = world.account(ANN);
    world.act(BOB, |ctx, engine, app| app.block(ctx, engine, &ann)).unwrap();
    let entry = world.send(ANN, "bob", "hello?").unwrap();
    world.wait_a_minute();
    assert_ne!(state(&world, ANN, &entry), MessageState::Received);
    assert_eq!(world.conversation(BOB, "ann").unread, 0);
    assert!(matches!(world.send(BOB, "ann", "no"), Err(MessengerError::Blocked(_))));
    assert_eq!(world.contact_names(BOB), ["Ann Blocked"]);
    world.act(BOB, |ctx, engine, app| app.unblock(ctx, engine, &ann)).unwrap();
    assert!(world.contact_names(BOB).is_empty());
}

#[test]
fn what_a_bare_peer_sends_is_shown_and_not_confirmed() {
    let mut world = ann_and_bob();
    let group = world.conversation(ANN, "bob").group;
    let before = world.log_len(BOB, &group).0;
    for payload in [&b"plain \x1b[31mtext"[..], &[0xff, 0x00, 0xfe]] {
        world.act(ANN, |ctx, engine, _| Ok(engine.send_message(ctx, &group, payload)?)).unwrap();
    }
    world.wait_a_minute();
    assert_eq!(world.texts(BOB, "ann"), ["plain [31mtext", "a message that cannot be read"]);
    assert_eq!(world.log_len(BOB, &group).0, before + 2);
}

#[test]
fn pages_follow_each_other_without_gap() {
    let mut world = ann_and_bob();
    for number in 0..7 {
        world.send(ANN, "bob", &format!("{number}")).unwrap();
    }
    world.wait_a_minute();
    let group = world.conversation(BOB, "ann").group;
    let page =
        |page: Page| world.view(BOB, |read, engine, app| app.messages(read, engine, &group, &page).unwrap());
    let shown = |messages: &[dunlin_messenger::views::Message]| -> Vec<String> {
        messages
            .iter()
            .map(|message| match &message.content {
                MessageContent::Text(text) => text.clone(),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let last = page(Page { limit: 3, ..Page::default() });
    assert_eq!(shown(&last), ["4", "5", "6"]);
    let before = page(Page { before: Some(last[0].entry()), limit: 3, ..Page::default() });
    assert_eq!(shown(&before), ["1", "2", "3"]);
    let after = page(Page { after: Some(before[0].entry()), limit: 3, ..Page::default() });
    assert_eq!(shown(&after), ["2", "3", "4"]);
    let found = world.view(BOB, |read, _, app| app.find_message(read, &short_id(&last[1].entry())).unwrap());
    assert_eq!(found, last[1].entry());
    world.act(BOB, |ctx, _, app| app.mark_read(ctx, &group)).unwrap();
    assert_eq!(world.conversation(BOB, "ann").unread, 0);
}

#[test]
fn texts_that_cannot_be_sent_are_refused() {
    let mut world = ann_and_bob();
    assert!(matches!(world.send(ANN, "bob", " \n"), Err(MessengerError::TextEmpty)));
    let long = "x".repeat(64 * 1024 + 1);
    let error = world.send(ANN, "bob", &long).unwrap_err();
    assert_eq!(error.to_string(), "the text has 65537 bytes, and a message holds 65536: send it in parts");
    assert!(world.send(ANN, "bob", &long[1..]).is_ok());
    assert!(matches!(world.send(ANN, "carol", "hi"), Err(MessengerError::Unknown { .. })));
}

/// A message as the engine tells it, made up to come at a time at which a network would rarely bring it.
fn told(group: GroupId, member: AccountId, height: u64, block: &[u8], envelope: &Envelope) -> MessageEvent {
    let entry = EntryId::of_block(block);
    MessageEvent {
        group,
        entry,
        position: Position { height, id: entry },
        device: DeviceId::new(*member.key()),
        member: MemberId::new(*member.key()),
        counter: height,
        signature: None,
        parents: Vec::new(),
        payload: envelope.encode(),
        own: false,
    }
}

fn tell(world: &mut World, index: usize, event: Event) {
    world.act(index, |ctx, engine, app| Ok(app.handle_event(ctx, engine, &event)?)).unwrap();
}

#[test]
fn a_confirmation_may_come_before_what_it_confirms() {
    let mut world = ann_and_bob();
    let (ann, bob) = (world.account(ANN), world.account(BOB));
    let group = world.conversation(ANN, "bob").group;
    let own = told(group, ann, 7, b"from another device of mine", &Envelope::text("hi", 1));
    let theirs = told(group, bob, 6, b"theirs", &Envelope::text("hello", 1));
    for (height, target) in [(8, own.entry), (9, theirs.entry)] {
        let confirmation = Envelope::acknowledge(&target);
        let block = [height as u8];
        tell(&mut world, ANN, Event::Message(told(group, bob, height, &block, &confirmation)));
    }
    assert!(world.texts(ANN, "bob").is_empty());

    tell(&mut world, ANN, Event::Message(own.clone()));
    tell(&mut world, ANN, Event::Message(theirs.clone()));

    assert_eq!(state(&world, ANN, &own.entry), MessageState::Received);
    assert!(world.message(ANN, &theirs.entry).delivery.is_none());
}

#[test]
fn a_message_told_twice_is_kept_counted_and_confirmed_once() {
    let mut world = ann_and_bob();
    let bob = world.account(BOB);
    let conversation = world.conversation(ANN, "bob");
    let before = world.log_len(ANN, &conversation.group).0;
    let message = told(conversation.group, bob, 5, b"m", &Envelope::text("hi", 1));
    for _ in 0..2 {
        tell(&mut world, ANN, Event::Message(message.clone()));
    }
    assert_eq!(world.texts(ANN, "bob"), ["hi"]);
    assert_eq!(world.conversation(ANN, "bob").unread, 1);
    assert_eq!(world.log_len(ANN, &conversation.group).0, before + 1);
}

#[test]
fn a_message_follows_its_place_in_the_log() {
    let mut world = ann_and_bob();
    let bob = world.account(BOB);
    let group = world.conversation(ANN, "bob").group;
    let first = told(group, bob, 5, b"first", &Envelope::text("first", 1));
    let second = told(group, bob, 6, b"second", &Envelope::text("second", 2));
    tell(&mut world, ANN, Event::Message(first.clone()));
    tell(&mut world, ANN, Event::Message(second));
    world.take_notices(ANN);

    let to = Position { height: 9, id: first.entry };
    tell(&mut world, ANN, Event::Moved { group, from: first.position, to });

    assert_eq!(world.texts(ANN, "bob"), ["second", "first"]);
    assert_eq!(world.message(ANN, &first.entry).position, to);
    assert_eq!(world.take_notices(ANN), [Notice::MessageChanged { group, entry: first.entry }]);
}

#[test]
fn a_repeat_gives_way_to_the_message_whose_place_it_had() {
    let mut world = ann_and_bob();
    let bob = world.account(BOB);
    let group = world.conversation(ANN, "bob").group;
    let repeat = told(group, bob, 5, b"repeat", &Envelope::text("yes", 1));
    let real = told(group, bob, 6, b"real", &Envelope::text("no", 2));
    tell(&mut world, ANN, Event::Message(repeat.clone()));
    assert_eq!(world.texts(ANN, "bob"), ["yes"]);
    let cause = WaitCause::Repeat { device: repeat.device };
    tell(&mut world, ANN, Event::MessageWaits { group, entry: repeat.entry, cause });
    tell(&mut world, ANN, Event::Message(real));
    assert_eq!(world.texts(ANN, "bob"), ["no"]);
    let why = world.why(ANN, &repeat.entry);
    assert!(why.contains("sent again by somebody else"), "{why}");

    tell(&mut world, ANN, Event::Message(repeat));
    assert_eq!(world.texts(ANN, "bob"), ["yes", "no"], "it turned out to be real after all");
    assert_eq!(world.conversation(ANN, "bob").closed, 0);
}

#[test]
fn a_closed_message_is_counted_until_it_opens() {
    let mut world = ann_and_bob();
    let bob = world.account(BOB);
    let group = world.conversation(ANN, "bob").group;
    let message = told(group, bob, 5, b"m", &Envelope::text("hi", 1));
    for cause in [
        WaitCause::DeviceUnknown { device: message.device },
        WaitCause::KeyNotReceived { device: message.device },
    ] {
        tell(&mut world, ANN, Event::MessageWaits { group, entry: message.entry, cause });
    }
    assert_eq!(world.conversation(ANN, "bob").closed, 1);
    let why = world.why(ANN, &message.entry);
    assert!(why.ends_with("closed: the key of the sender's device has not arrived yet."), "{why}");
    let why = world.view(ANN, |read, _, app| app.why_conversation(read, &group).unwrap());
    assert_eq!(why, "Messages are here but closed: 1 for want of the key of the sender's device.");

    tell(&mut world, ANN, Event::Message(message));

    assert_eq!(world.conversation(ANN, "bob").closed, 0);
    assert_eq!(world.texts(ANN, "bob"), ["hi"]);
}

/// What cannot be opened is told in its place, with its reason, and not as if nothing had been said there.
#[test]
fn a_gap_stands_where_its_message_would() {
    let mut world = World::new(&["Ann", "Bob", "Carol"]);
    world.connect(ANN, BOB);
    world.connect(ANN, CAROL);
    world.connect(BOB, CAROL);
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let link = world.view(ANN, |read, engine, _| engine.invitation(read, &group)).unwrap();
    let join = |world: &mut World, who: usize| {
        let link = link.clone();
        let joined = world.act(who, |ctx, engine, _| {
            engine.join_group(ctx, &link)?;
            Ok(engine.activate(ctx, &group)?)
        });
        joined.unwrap();
        world.wait_a_minute();
    };
    join(&mut world, BOB);
    let early = world.send(ANN, "harbour", "before Carol").unwrap();
    world.wait_a_minute();
    join(&mut world, CAROL);
    let told = world.take_notices(CAROL);
    assert!(told.contains(&Notice::GapFound { group, entry: early }), "{told:?}");
    let late = world.send(ANN, "harbour", "with Carol").unwrap();
    world.wait_a_minute();

    let page = Page { limit: 10, ..Page::default() };
    let gaps = |world: &World, page: &Page| {
        let messages =
            world.view(CAROL, |read, engine, app| app.messages(read, engine, &group, page).unwrap());
        let (now, zone) = (world.now, Zone::from_minutes(0));
        let gaps = world.view(CAROL, |read, engine, app| {
            app.gaps(read, engine, &group, page, &messages, now, zone).unwrap()
        });
        (messages, gaps)
    };
    let (messages, found) = gaps(&world, &page);
    let gap = found.iter().find(|gap| gap.position.id == early).expect("the gap is told");
    let shown = messages.iter().find(|message| message.entry() == late).unwrap();
    assert!(gap.position < shown.position);
    assert!(gap.sentence.contains("before its sender gave this account a key"), "{}", gap.sentence);
    assert!(found.is_sorted_by_key(|gap| gap.position), "{found:?}");
    // What lies before a page is told with the page that it lies in.
    let (_, found) = gaps(&world, &Page { limit: 1, ..Page::default() });
    assert_eq!(found, []);
    let (_, found) = gaps(&world, &Page { after: Some(late), limit: 10, ..Page::default() });
    assert_eq!(found, []);
    let (_, found) = gaps(&world, &Page { before: Some(late), limit: 10, ..Page::default() });
    assert!(found.iter().any(|gap| gap.position.id == early));
    assert!(
        world
            .view(BOB, |read, engine, app| {
                let messages = app.messages(read, engine, &group, &page).unwrap();
                app.gaps(read, engine, &group, &page, &messages, world.now, Zone::from_minutes(0)).unwrap()
            })
            .is_empty(),
        "Bob has the key"
    );
    let one = |entry: &EntryId| {
        world.view(CAROL, |read, engine, app| {
            app.gap(read, engine, &group, entry, world.now, Zone::from_minutes(0)).unwrap()
        })
    };
    assert!(
        one(&early).is_some_and(|gap| gap.sentence.contains("before its sender gave this account a key"))
    );
    assert_eq!(one(&late), None);
}

#[test]
fn what_later_versions_send_is_shown_and_what_is_not_for_people_is_not() {
    let mut world = ann_and_bob();
    let bob = world.account(BOB);
    let group = world.conversation(ANN, "bob").group;
    for number in [2, 7, 8, 14, 15, 99] {
        let content = Content::Other { number, payload: vec![1] };
        let envelope = Envelope { content, sent_date: 1, target: String::new() };
        let message = told(group, bob, number as u64, &number.to_be_bytes(), &envelope);
        tell(&mut world, ANN, Event::Message(message));
    }
    assert_eq!(world.texts(ANN, "bob"), ["a message of a kind that this version does not know"; 2]);
}
