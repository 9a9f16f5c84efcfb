//! One of two people has a clock that is wrong, and later sets it right: requests and messages go both ways all
//! the while, and none is lost or shown twice.

use dunlin_base::Span;
use dunlin_messenger::views::MessageState;

use crate::support::{ANN, BOB, World};

const NONE: Span = Span::from_secs(0);
const DAY: Span = Span::from_secs(86_400);
/// In another period of the tokens than the day after tomorrow begins with.
const DAY_AND_A_HALF: Span = Span::from_secs(36 * 3_600);
const MONTH: Span = Span::from_secs(30 * 86_400);

#[test]
fn a_clock_that_is_a_day_ahead_and_set_back_loses_nothing() {
    talk_under_a_wrong_clock(DAY, NONE);
}

#[test]
fn a_clock_that_is_a_day_behind_and_set_right_loses_nothing() {
    talk_under_a_wrong_clock(NONE, DAY);
}

#[test]
fn a_clock_that_is_more_than_a_day_ahead_and_set_back_loses_nothing() {
    talk_under_a_wrong_clock(DAY_AND_A_HALF, NONE);
}

#[test]
fn a_clock_that_is_a_month_ahead_and_set_back_loses_nothing() {
    talk_under_a_wrong_clock(MONTH, NONE);
}

#[test]
fn a_clock_that_is_a_month_behind_and_set_right_loses_nothing() {
    talk_under_a_wrong_clock(NONE, MONTH);
}

/// Bob's clock is wrong. Once it is Ann who asks and once Bob.
fn talk_under_a_wrong_clock(ahead: Span, behind: Span) {
    for (asking, asked) in [(ANN, BOB), (BOB, ANN)] {
        let mut world = World::new(&["Ann", "Bob"]);
        world.set_clock(BOB, ahead, behind);
        world.connect(ANN, BOB);
        world.befriend(asking, asked);
        assert_eq!(world.contact_names(ANN), ["Bob Added"]);
        assert_eq!(world.contact_names(BOB), ["Ann Added"]);
        let mut texts = Vec::new();
        say_both_ways(&mut world, &mut texts, "while it is wrong");

        // What is written while nobody is in reach goes out after the clock was set.
        world.disconnect(ANN, BOB);
        for (index, contact) in [(ANN, "bob"), (BOB, "ann")] {
            let text = format!("kept by {index}");
            world.send(index, contact, &text).unwrap();
            texts.push(text);
        }
        world.set_clock(BOB, NONE, NONE);
        world.connect(ANN, BOB);
        say_both_ways(&mut world, &mut texts, "after it was set");

        world.restart(BOB);
        world.restart(ANN);
        say_both_ways(&mut world, &mut texts, "after a restart");
    }
}

#[test]
fn a_clock_that_is_set_back_while_a_message_is_on_its_way_holds_it_up_no_longer_than_the_others() {
    for ahead in [DAY, MONTH] {
        let mut world = World::new(&["Ann", "Bob"]);
        world.set_clock(BOB, ahead, NONE);
        world.connect(ANN, BOB);
        world.befriend(ANN, BOB);
        let mut texts = Vec::new();
        say_both_ways(&mut world, &mut texts, "before");
        // The connection stays: what was agreed under the wrong clock must not stand in the way.
        world.set_clock(BOB, NONE, NONE);
        say_both_ways(&mut world, &mut texts, "after");
        world.set_clock(BOB, ahead, NONE);
        say_both_ways(&mut world, &mut texts, "and again");
    }
}

/// Ann and Bob both write, and within a minute both have everything, once, and know that the other has it.
fn say_both_ways(world: &mut World, texts: &mut Vec<String>, text: &str) {
    for (index, contact) in [(ANN, "bob"), (BOB, "ann")] {
        let text = format!("{text}, by {index}");
        world.send(index, contact, &text).unwrap();
        texts.push(text);
    }
    world.wait_a_minute();
    texts.sort();
    for (index, contact) in [(ANN, "bob"), (BOB, "ann")] {
        let mut shown = world.texts(index, contact);
        shown.sort();
        assert_eq!(shown, *texts, "at {index}");
        let group = world.conversation(index, contact).group;
        for message in world.messages(index, &group).iter().filter(|message| message.own) {
            assert_eq!(message.delivery.as_ref().unwrap().state(), MessageState::Received, "{message:?}");
        }
    }
    assert_eq!(world.texts(ANN, "bob"), world.texts(BOB, "ann"), "both see the same order");
}
