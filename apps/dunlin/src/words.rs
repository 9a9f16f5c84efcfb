//! States and times as people read them. The command line and the screen say the same thing the same way.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use dunlin_proto::dunlin::node::v1::Source;

use dunlin_proto::chat::{Contact, ContactState, Conversation, ConversationKind, Message, MessageState};

/// A device joined the account, and the owner may not know.
pub const NEW_DEVICE: &str =
    "A new device joined your account. If it is not yours, somebody has your keys: dunlin device list";

/// Another node is at work on a copy of the data directory.
pub const COPY_FOUND: &str = "Another node runs on a copy of this data directory; this one goes on as a new device of your account. \
     If you made no copy, somebody has your keys: dunlin device list";

/// A message was erased.
pub const ERASED: &str = "The message is erased from this device.";

/// Asks whether to erase an own message, and another one.
pub const ERASE_OWN: &str =
    "Erase it from this device, for good? Who has it keeps it, and who lacks it still gets it.";
pub const ERASE_THEIRS: &str =
    "Erase it from this device, for good? The others, and your other devices, keep it.";

/// What the own user is called beside their own messages.
pub const YOU: &str = "you";

/// The time zone of whoever reads.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// The zone of this machine.
    pub fn of_machine() -> Self {
        Self(TimeZone::system())
    }

    /// Hours and minutes.
    pub fn time(&self, at_ms: i64) -> String {
        self.format(at_ms, "%H:%M")
    }

    /// The day, such as `Tue 24 Nov 2026`.
    pub fn day(&self, at_ms: i64) -> String {
        self.format(at_ms, "%a %-d %b %Y")
    }

    /// The day and the time.
    pub fn moment(&self, at_ms: i64) -> String {
        self.format(at_ms, "%a %-d %b %Y, %H:%M")
    }

    /// How far the clock on the wall is ahead of UTC now.
    pub fn utc_offset_minutes(&self) -> i32 {
        self.0.to_offset(Timestamp::now()).seconds() / 60
    }

    fn format(&self, at_ms: i64, pattern: &str) -> String {
        self.zoned(at_ms).strftime(pattern).to_string()
    }

    /// A time that is no time, which a peer's clock can be, is the nearest one that is.
    fn zoned(&self, at_ms: i64) -> Zoned {
        let bound = if at_ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_millisecond(at_ms).unwrap_or(bound).to_zoned(self.0.clone())
    }
}

#[cfg(test)]
impl Zone {
    /// The zone of the tests, which is nobody's.
    pub fn of_tests() -> Self {
        Self(TimeZone::fixed(jiff::tz::offset(1)))
    }
}

/// A place to look for others, in a line; those without a server are told only when they found somebody.
pub fn of_source(source: &Source) -> Option<String> {
    let Source { kind, place, announced, found, error, .. } = source;
    let what = match kind.as_str() {
        "rendezvous" => "rendezvous server",
        "relay" => "relay",
        "dht" => "DHT",
        "lan" => "local network",
        _ => return None,
    };
    let told = match (error.as_str(), kind.as_str()) {
        ("", "relay") if *announced > 0 => "others reach this node through it".to_owned(),
        ("", "relay") => "not asked yet".to_owned(),
        ("", "lan") => format!("{} found", count(*found, "peer", "peers")),
        ("", _) => format!(
            "{} announced, {} found",
            count(*announced, "name", "names"),
            count(*found, "peer", "peers")
        ),
        (error, _) => error.to_owned(),
    };
    let place = if place.is_empty() { String::new() } else { format!(" {place}") };
    Some(format!("{what}{place}: {told}"))
}

/// How far an own message got; empty for others' messages.
pub fn delivery(message: &Message, zone: &Zone) -> String {
    if !message.own {
        return String::new();
    }
    match message.state() {
        MessageState::Unspecified | MessageState::Kept => "kept here".to_owned(),
        MessageState::Sent => format!("sent to a device {}", zone.time(message.handed_ms)),
        MessageState::Received if message.recipients > 1 => format!(
            "received by {} of {} {}",
            message.received_by,
            message.recipients,
            zone.time(message.received_ms)
        ),
        MessageState::Received => format!("received {}", zone.time(message.received_ms)),
    }
}

/// The one word for an own message's state that scripts match.
pub fn delivery_word(message: &Message) -> Option<&'static str> {
    message.own.then(|| match message.state() {
        MessageState::Unspecified | MessageState::Kept => "kept",
        MessageState::Sent => "sent",
        MessageState::Received => "received",
    })
}

/// Who wrote it.
pub fn sender(message: &Message) -> &str {
    match (message.own, message.sender_name.as_str()) {
        (true, _) => YOU,
        (false, "") => "somebody",
        (false, name) => name,
    }
}

/// Where a contact stands.
pub fn standing(contact: &Contact) -> &'static str {
    match contact.state() {
        ContactState::Unspecified => "unknown",
        ContactState::Asks => "asks to talk with you",
        ContactState::Kept => "asked; the request is kept here",
        ContactState::Sent => "asked; they have the request",
        ContactState::Added => "contact",
        ContactState::Blocked => "blocked",
    }
}

/// How it came that a contact stands there.
pub fn story(contact: &Contact, zone: &Zone) -> String {
    let asked = zone.moment(contact.since_ms);
    match contact.state() {
        ContactState::Asks => format!("They asked on {asked}."),
        ContactState::Kept => {
            format!("You asked on {asked}. The request is kept here until one of their devices is in reach.")
        }
        ContactState::Sent => format!("You asked on {asked}. They have the request, and have not answered."),
        ContactState::Added => format!("Your contact since {}.", zone.moment(contact.added_ms)),
        ContactState::Blocked => "Blocked: you take nothing from them.".to_owned(),
        ContactState::Unspecified => String::new(),
    }
}

/// The one word for a contact's state that scripts match.
pub fn standing_word(contact: &Contact) -> &'static str {
    match contact.state() {
        ContactState::Unspecified => "unknown",
        ContactState::Asks => "asks",
        ContactState::Kept => "kept",
        ContactState::Sent => "sent",
        ContactState::Added => "added",
        ContactState::Blocked => "blocked",
    }
}

/// The one word for the kind of a conversation that scripts match.
pub fn kind_word(conversation: &Conversation) -> &'static str {
    match conversation.kind() {
        ConversationKind::Unspecified => "unknown",
        ConversationKind::Contact => "contact",
        ConversationKind::Group => "group",
    }
}

/// `1 message`, `2 messages`.
pub fn count(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_far_off_is_shown_and_not_believed() {
        let zone = Zone::of_tests();
        assert_eq!(zone.moment(1_795_525_443_000), "Tue 24 Nov 2026, 14:04");
        assert_eq!(zone.day(i64::MAX), zone.day(i64::MAX - 1));
        assert!(!zone.time(i64::MIN).is_empty());
    }

    #[test]
    fn a_message_says_how_far_it_got() {
        let zone = Zone::of_tests();
        let mut message = Message { own: true, recipients: 1, ..Message::default() };
        message.set_state(MessageState::Kept);
        assert_eq!(delivery(&message, &zone), "kept here");
        message.set_state(MessageState::Sent);
        message.handed_ms = 1_795_525_443_000;
        assert_eq!(delivery(&message, &zone), "sent to a device 14:04");
        message.set_state(MessageState::Received);
        message.received_ms = 1_795_525_503_000;
        assert_eq!(delivery(&message, &zone), "received 14:05");
        message.recipients = 2;
        message.received_by = 1;
        assert_eq!(delivery(&message, &zone), "received by 1 of 2 14:05");
        message.own = false;
        assert_eq!(delivery(&message, &zone), "");
    }
}
