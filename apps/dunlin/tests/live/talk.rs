//! What people say to each other arrives, once, whatever happens to their nodes.

use crate::person::{Person, befriend, exit, two_contacts, two_in_reach};

#[test]
fn two_people_talk() {
    let (ann, ben) = two_in_reach();

    let asked = ann.json(&["contact", "add", &ben.link()]);
    assert_eq!(asked["name"], "Ben");
    assert!(["kept", "sent"].contains(&asked["state"].as_str().unwrap()), "{asked}");

    let request = ben.wait_contact("Ann", "asks");
    let number = request["safety_number"].as_str().unwrap();
    assert_eq!(number.split(' ').filter(|group| group.len() == 5).count(), 12, "{number}");
    assert_eq!(asked["safety_number"], request["safety_number"], "both see the same number");
    assert!(ben.text(&["contact", "list"]).contains(number), "it is shown before the answer");

    assert_eq!(ben.json(&["contact", "accept", "Ann"])["state"], "added");
    ann.wait_contact("Ben", "added");

    let mut at_ben = ben.follow("Ann");
    let mut at_ann = ann.follow("Ben");
    ann.json(&["send", "Ben", "Hello", "Ben"]);
    assert_eq!(at_ben.wait_text("Hello Ben")["sender_name"], "Ann");
    ben.json_with_input(&["send", "Ann", "-"], "Two lines\nof text: 渡り鳥\n");
    assert_eq!(at_ann.wait_text("Two lines\nof text: 渡り鳥")["own"], false);

    let received = ann.wait_state("Ben", "Hello Ben", "received");
    assert!(received["handed_ms"].as_i64().unwrap() <= received["received_ms"].as_i64().unwrap());
    let why = ann.text(&["why", received["short_id"].as_str().unwrap()]);
    assert!(why.trim_end().ends_with('.') && why.lines().count() == 1, "{why}");
}

#[test]
fn three_talk_in_a_group() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    let mut carol = Person::new("Carol");
    ann.start(&[]);
    ben.start(&[&ann]);
    carol.start(&[&ann, &ben]);
    befriend(&ann, &ben);
    befriend(&ann, &carol);

    let group = ann.json(&["group", "new", "Harbour"]);
    assert_eq!(group["kind"], "group");
    ann.json(&["group", "invite", "Harbour", "Ben", "Carol"]);
    for guest in [&ben, &carol] {
        let invitation = guest.wait("an invitation", || {
            let messages = guest.messages("Ann");
            messages.into_iter().find(|message| message["invitation"]["name"] == "Harbour")
        });
        guest.json(&["group", "join", invitation["id"].as_str().unwrap()]);
    }
    for person in [&ann, &ben, &carol] {
        person.wait("three members", || {
            (person.lines(&["group", "members", "Harbour"]).len() == 3).then_some(())
        });
    }
    for (person, text) in [(&ann, "from Ann"), (&ben, "from Ben"), (&carol, "from Carol")] {
        person.json(&["send", "Harbour", text]);
    }
    for person in [&ann, &ben, &carol] {
        for text in ["from Ann", "from Ben", "from Carol"] {
            person.wait_message("Harbour", text);
        }
    }
    ann.wait("both confirm", || {
        let message = ann.message("Harbour", "from Ann")?;
        (message["received_by"] == 2 && message["recipients"] == 2).then_some(())
    });

    assert_eq!(carol.json(&["group", "leave", "Harbour"])["left"], true);
    carol.refused(exit::REFUSED, &["send", "Harbour", "too late"]);
    assert!(carol.message("Harbour", "from Ann").is_some(), "what was received stays");
}

/// Who follows sees that something was said that they cannot read, and why.
#[test]
fn what_was_sent_before_somebody_joined_is_followed_as_a_gap() {
    let (ann, ben) = two_contacts();
    ann.json(&["group", "new", "Harbour"]);
    let early = ann.json(&["send", "Harbour", "before Ben"]);
    let mut at_ben = ben.watch(&["read", "--follow"]);
    let link = ann.json(&["group", "link", "Harbour"])["link"].as_str().unwrap().to_owned();
    ben.json(&["group", "join", &link]);
    let gap = at_ben.wait("a gap", |line| {
        let is_final =
            line["sentence"].as_str().is_some_and(|sentence| sentence.contains("before its sender gave"));
        line["event"] == "gap" && is_final
    });
    assert_eq!(gap["id"], early["id"]);
    ann.json(&["send", "Harbour", "with Ben"]);
    at_ben.wait_text("with Ben");
    let shown = ben.text(&["read", "Harbour"]);
    assert!(
        shown.contains("a closed message: It stays closed for ever") && shown.contains("with Ben"),
        "{shown}"
    );
}

#[test]
fn the_lid_is_closed_and_the_sender_is_back_first() {
    close_the_lid(true);
}

#[test]
fn the_lid_is_closed_and_the_receiver_is_back_first() {
    close_the_lid(false);
}

/// One writes while the other is away, and both start again in either order.
fn close_the_lid(sender_first: bool) {
    let (mut ann, mut ben) = two_contacts();
    ben.end();

    assert_eq!(ann.json(&["send", "Ben", "while you sleep"])["state"], "kept");
    let why = ann.text(&["why", ann.message("Ben", "while you sleep").unwrap()["id"].as_str().unwrap()]);
    assert!(why.contains("Ben"), "{why}");
    assert_eq!(ann.json(&["status"])["messages_kept"], 1);
    ann.end();

    if sender_first {
        ann.start(&[]);
        assert_eq!(ann.message("Ben", "while you sleep").unwrap()["state"], "kept");
        ben.start(&[&ann]);
    } else {
        ben.start(&[]);
        ann.start(&[&ben]);
    }
    ben.wait_message("Ann", "while you sleep");
    let received = ann.wait_state("Ben", "while you sleep", "received");
    let time = |field: &str| received[field].as_i64().unwrap();
    assert!(time("kept_ms") <= time("handed_ms") && time("handed_ms") <= time("received_ms"), "{received}");

    // What arrives a second time arrives before this answer.
    ben.json(&["send", "Ann", "good morning"]);
    ann.wait_message("Ben", "good morning");
    assert_eq!(ben.times("Ann", "while you sleep"), 1);
}

#[test]
fn a_state_never_goes_back_and_leaves_none_out() {
    let (ann, mut ben) = two_contacts();
    ben.end();
    ann.json(&["send", "Ben", "step by step"]);
    let mut at_ann = ann.follow("Ben");
    assert_eq!(at_ann.wait_text("step by step")["state"], "kept");
    ben.start(&[&ann]);
    let mut changed = at_ann.wait("a change", |line| line["event"] == "changed");
    // Whoever looks sees how it is now: "sent" lasts only as long as the confirmation takes.
    if changed["state"] == "sent" {
        assert!(changed["received_ms"].is_null());
        changed = at_ann.wait("a change", |line| line["event"] == "changed" && line["state"] != "sent");
    }
    assert_eq!(changed["state"], "received");
    assert!(changed["handed_ms"].as_i64() <= changed["received_ms"].as_i64(), "{changed}");
}

#[test]
fn a_message_survives_a_kill_right_after_it_was_sent() {
    let (mut ann, ben) = two_contacts();
    for round in 0..3 {
        let text = format!("before the crash {round}");
        ann.json(&["send", "Ben", &text]);
        ann.kill();
        ann.refused(exit::NO_NODE, &["status"]);
        ann.start(&[&ben]);
        assert_eq!(ann.times("Ben", &text), 1, "it is kept");
        ben.wait_message("Ann", &text);
        ann.wait_state("Ben", &text, "received");
    }
    ben.json(&["send", "Ann", "all there"]);
    ann.wait_message("Ben", "all there");
    for round in 0..3 {
        assert_eq!(ben.times("Ann", &format!("before the crash {round}")), 1);
    }
}
