//! Requests, links, and the names of people and conversations.

use crate::person::{Person, exit, two_in_reach};

#[test]
fn somebody_can_be_blocked_and_asked_again() {
    let (ann, ben) = two_in_reach();
    ann.json(&["contact", "add", &ben.link()]);
    ben.wait_contact("Ann", "asks");
    assert_eq!(ben.json(&["contact", "block", "Ann"])["state"], "blocked");
    ben.refused(exit::REFUSED, &["contact", "accept", "Ann"]);
    ben.refused(exit::REFUSED, &["contact", "add", &ann.link()]);
    ben.json(&["contact", "unblock", "Ann"]);
    assert!(ben.lines(&["contact", "list"]).is_empty());
    ben.json(&["contact", "add", &ann.link()]);
    ben.wait_contact("Ann", "added");
    ann.wait_contact("Ben", "added");
}

#[test]
fn a_request_can_be_refused() {
    let (ann, ben) = two_in_reach();
    ann.json(&["contact", "add", &ben.link()]);
    ben.wait_contact("Ann", "asks");
    ben.json(&["contact", "refuse", "Ann"]);
    assert!(ben.lines(&["contact", "list"]).is_empty());
    ben.refused(exit::NOT_FOUND, &["contact", "accept", "Ann"]);
    ben.refused(exit::NOT_FOUND, &["send", "Ann", "hello"]);
    ann.wait_contact("Ben", "sent");
    // They are not told: what they write waits.
    assert_eq!(ann.json(&["send", "Ben", "hello"])["state"], "kept");
    assert!(ann.text(&["why", "Ben"]).contains("not answered"));
    assert!(ben.lines(&["contact", "list"]).is_empty());
}

#[test]
fn a_bad_link_is_told_apart_and_changes_nothing() {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[]);
    let link = ben.link();
    let damaged = link.replacen("#contact/", "#contact/zz", 1);
    let told = [
        ann.refused(exit::REFUSED, &["contact", "add", &ann.link()]),
        ann.refused(exit::REFUSED, &["contact", "add", &damaged]),
        ann.refused(exit::REFUSED, &["contact", "add", "https://berty.tech/id#key=abc&name=Ben"]),
        ann.refused(exit::REFUSED, &["contact", "add", "https://example.org/id#contact/abc"]),
        ann.refused(exit::REFUSED, &["group", "join", &link]),
    ];
    for (position, sentence) in told.iter().enumerate() {
        assert!(sentence.trim_end().ends_with(['.', '?', '!']), "{sentence}");
        assert!(!told[..position].contains(sentence), "each is told apart: {sentence}");
    }
    assert!(ann.lines(&["contact", "list"]).is_empty(), "nothing changed");
    ann.json(&["contact", "add", &link]);
    let known = ann.refused(exit::REFUSED, &["contact", "add", &link]);
    assert!(known.contains("Ben"), "{known}");
    assert_eq!(ann.lines(&["contact", "list"]).len(), 1);
}

#[test]
fn what_is_named_must_be_there_and_be_one() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    ann.refused(exit::NOT_FOUND, &["send", "Nobody", "hello"]);
    ann.refused(exit::NOT_FOUND, &["why", "abcdefghij"]);
    ann.json(&["group", "new", "Harbour one"]);
    ann.json(&["group", "new", "Harbour two"]);
    ann.refused(exit::NOT_FOUND, &["send", "Harbour", "hello"]);
    ann.json(&["send", "Harbour t", "hello"]);
    ann.refused(exit::USAGE, &["send"]);
}
