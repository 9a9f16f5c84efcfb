use dunlin_base::{MemberId, SecretKey, Span};
use dunlin_wesh::engine::Position;

use super::*;
use crate::safety::SafetyNumber;
use crate::views::{MessageContent, Receipt};

/// 12:00 UTC of some day.
const NOON: Time = Time::from_secs(1_763_985_600);
const READER: Reader = Reader { now: minutes(10), zone: Zone::from_minutes(0) };

const fn minutes(after_noon: u64) -> Time {
    Time::from_millis(NOON.as_millis() + after_noon * 60_000)
}

fn key(seed: u8) -> dunlin_base::PublicKey {
    SecretKey::from_seed([seed; 32]).public()
}

fn message() -> Message {
    Message {
        group: GroupId::new(key(9)),
        position: Position { height: 1, id: EntryId::of_block(b"m") },
        content: MessageContent::Text("hi".into()),
        own: true,
        sender: None,
        sender_name: "Ann".into(),
        sent: minutes(1),
        kept: minutes(1),
        delivery: None,
    }
}

fn bob(state: ContactState) -> Others {
    Others { contact: Some(("Bob".into(), state)), own: None, known: true, online: 0, seen: NOON }
}

fn group() -> Others {
    Others { contact: None, own: None, known: true, online: 0, seen: NOON }
}

fn receipt(name: &str, seed: u8, at: Time) -> Receipt {
    Receipt { member: MemberId::new(key(seed)), name: name.into(), at }
}

fn told(delivery: &Delivery, others: &Others, missing: &[&str]) -> String {
    let missing: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
    outgoing(&message(), delivery, others, &missing, READER)
}

#[test]
fn a_message_to_a_contact_goes_through_three_states() {
    let kept = Delivery { recipients: 1, ..Delivery::default() };
    assert_eq!(
        told(&kept, &bob(ContactState::Added), &["Bob"]),
        "It is kept here: none of Bob's devices has been in reach since it was written at 12:01."
    );
    let sent = Delivery { handed: Some(minutes(2)), ..kept.clone() };
    assert_eq!(
        told(&sent, &bob(ContactState::Added), &["Bob"]),
        "It was handed to a device of Bob at 12:02; that device has not confirmed it yet."
    );
    let received = Delivery { receipts: vec![receipt("Bob", 2, minutes(3))], ..sent };
    assert_eq!(told(&received, &bob(ContactState::Added), &[]), "Bob received it at 12:03.");
}

#[test]
fn a_kept_message_says_what_is_missing() {
    let kept = Delivery { recipients: 1, ..Delivery::default() };
    for (others, end) in [
        (bob(ContactState::Kept), "Bob has not got the contact request yet."),
        (Others { known: false, ..bob(ContactState::Sent) }, "Bob has not accepted the contact request yet."),
        (bob(ContactState::Blocked), "Bob is blocked."),
        (
            Others { online: 1, ..bob(ContactState::Added) },
            "a device of Bob is in reach and is about to be given it.",
        ),
        (
            Others { seen: minutes(5), ..bob(ContactState::Added) },
            "a device of Bob was in reach at 12:05 and did not take it; it is offered again as soon as one is.",
        ),
        (Others { known: false, ..group() }, "nobody else is known to be in the group yet."),
        (
            Others { online: 2, ..group() },
            "a device of another member is in reach and is about to be given it.",
        ),
        (group(), "no device of the 1 other member has been in reach since it was written at 12:01."),
    ] {
        assert_eq!(told(&kept, &others, &[]), format!("It is kept here: {end}"));
    }
}

#[test]
fn a_group_is_counted_and_the_missing_are_named() {
    let handed = Delivery { handed: Some(minutes(2)), recipients: 2, ..Delivery::default() };
    assert_eq!(
        told(&handed, &group(), &["Bob", "Carol"]),
        "It was handed to a device of the group at 12:02; none of the 2 other members has confirmed it yet."
    );
    let one = Delivery { receipts: vec![receipt("Bob", 2, minutes(3))], ..handed.clone() };
    assert_eq!(
        told(&one, &group(), &["Carol"]),
        "1 of 2 other members received it, Bob as the last at 12:03; it waits for Carol."
    );
    let many = ["C", "D", "E", "F"];
    assert!(told(&one, &group(), &many).ends_with("it waits for 4 others."));
    let both =
        Delivery { receipts: vec![receipt("Bob", 2, minutes(3)), receipt("Carol", 3, minutes(4))], ..handed };
    assert_eq!(told(&both, &group(), &[]), "All 2 other members received it, Carol as the last at 12:04.");
}

#[test]
fn requests_say_who_has_to_do_what() {
    let account = AccountId::new(key(2));
    let contact = |state| Contact {
        account,
        name: "Bob".into(),
        state,
        safety_number: SafetyNumber::between(&account, &AccountId::new(key(1))),
        since: NOON,
        sent: Some(minutes(1)),
        added: Some(minutes(2)),
        conversation: None,
        online: false,
    };
    for (state, sentence) in [
        (ContactState::Asks, "Bob asked at 12:00 to become a contact: accept or refuse."),
        (
            ContactState::Kept,
            "The request to Bob is kept here: no device of theirs has been reached since it was made at 12:00.",
        ),
        (ContactState::Sent, "Bob got the request at 12:01 and has not answered it yet."),
        (ContactState::Added, "Bob is a contact since 12:02."),
        (ContactState::Blocked, "Bob is blocked: what they send is neither confirmed nor counted."),
    ] {
        assert_eq!(request(&contact(state), READER), sentence);
    }
}

#[test]
fn closed_messages_say_what_would_open_them() {
    let row = |cause: StoredCause| ClosedRow {
        cause: cause.into(),
        since_ms: (NOON + Span::from_secs(60)).as_millis(),
        ..ClosedRow::default()
    };
    assert_eq!(
        closed_one(&row(StoredCause::KeyNotReceived), READER),
        "It is here since it arrived at 12:01 but closed: the key of the sender's device has not arrived yet."
    );
    assert!(closed_one(&row(StoredCause::SentBeforeKey), READER).starts_with("It stays closed for ever"));
    assert_eq!(closed_many(&[]), "Every message that is here is open.");
    assert_eq!(
        closed_many(&[StoredCause::SentBeforeKey, StoredCause::KeyNotReceived, StoredCause::SentBeforeKey]),
        "Messages are here but closed: 1 for want of the key of the sender's device, \
         2 for ever, since the sender had not given this account a key."
    );
}

#[test]
fn what_came_in_says_since_when_it_is_here() {
    let message = Message { own: false, sender_name: "Bob".into(), ..message() };
    assert_eq!(incoming(&message, READER), "It came from Bob and is here since it arrived at 12:01.");
}
