//! `dunlin erase`.

use crate::person::{exit, two_contacts};

#[test]
fn an_erased_message_is_gone_here_and_stays_with_the_others() {
    let (ann, mut ben) = two_contacts();
    ann.json(&["send", "Ben", "Hello Ben"]);
    ann.json(&["send", "Ben", "Hello again"]);
    ben.wait_message("Ann", "Hello again");
    let message = ben.wait_message("Ann", "Hello Ben");
    let (id, short) = (message["id"].as_str().unwrap(), message["short_id"].as_str().unwrap());
    let mut at_ben = ben.follow("Ann");
    at_ben.wait_text("Hello again");

    assert_eq!(ben.text(&["erase", short]).trim_end(), "The message is erased from this device.");

    assert_eq!(at_ben.wait("the end of it", |line| line["event"] == "erased")["id"], id);
    assert_eq!(ben.messages("Ann").len(), 1);
    assert_eq!(ben.text(&["why", short]).trim_end(), "It was erased from this device.");
    let again = ben.refused(exit::NOT_FOUND, &["erase", short]);
    assert!(again.contains("erased from this device already"), "{again}");
    ben.refused(exit::NOT_FOUND, &["erase", "zzzzzzzz"]);
    ben.kill();
    ben.refused(exit::NO_NODE, &["erase", short]);
    ben.start(&[&ann]);
    ann.json(&["send", "Ben", "one more"]);
    ben.wait_message("Ann", "one more");
    assert!(ben.message("Ann", "Hello Ben").is_none());
    assert!(ann.message("Ben", "Hello Ben").is_some());
}
