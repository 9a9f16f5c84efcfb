//! What commands print.
//!
//! Everything goes through [`Output::line`], which lets nothing through that could control a terminal:
//! names, texts and sentences may have come from a peer, and a node may be of another version than this
//! program.

use std::io::{self, IsTerminal, Write};

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::failure::Failure;
use crate::qr::Qr;
use crate::words::{self, Zone};
use dunlin_proto::chat::{Contact, Conversation, Erased, Gap, Member, Message, Profile};
use dunlin_proto::dunlin::node::v1::{Direction, Peer, Source};

/// Columns between two cells of a table.
const GAP: usize = 2;

/// The standard output, for people or for programs.
#[derive(Debug)]
pub struct Output {
    json: bool,
    zone: Zone,
    /// The day of the last message that was printed, and its conversation if there are several.
    day: String,
    conversation: String,
}

impl Output {
    /// Prints JSON if asked to, else what people read.
    pub fn new(json: bool) -> Self {
        Self { json, zone: Zone::of_machine(), day: String::new(), conversation: String::new() }
    }

    /// The time zone in which times are told.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Prints one thing: `json` for programs or else `text` for people.
    pub fn say(&mut self, json: Value, text: impl AsRef<str>) -> Result<(), Failure> {
        match self.json {
            true => self.line(&json.to_string()),
            false => self.line(text.as_ref()),
        }
    }

    /// Prints many things: an object on each line, or a table.
    pub fn list(
        &mut self,
        objects: Vec<Value>,
        rows: Vec<Vec<String>>,
        when_empty: &str,
    ) -> Result<(), Failure> {
        if self.json {
            return objects.iter().try_for_each(|object| self.line(&object.to_string()));
        }
        if rows.is_empty() {
            return self.line(when_empty);
        }
        table(&rows).iter().try_for_each(|row| self.line(row))
    }

    /// Prints a message. Programs learn why they see it now from `event`.
    pub fn message(&mut self, event: &str, message: &Message) -> Result<(), Failure> {
        if self.json {
            let mut object = of_message(message);
            if let Some(fields) = object.as_object_mut() {
                fields.insert("event".to_owned(), event.into());
            }
            return self.line(&object.to_string());
        }
        let day = self.zone.day(message.sent_ms);
        if day != self.day {
            self.line(&format!("-- {day} --"))?;
            self.day = day;
        }
        let head = format!(
            "{}  {}  {}: ",
            message.short_id,
            self.zone.time(message.sent_ms),
            words::sender(message)
        );
        let indent = " ".repeat(head.width());
        let text = message.text.replace('\n', &format!("\n{indent}"));
        let tail = match words::delivery(message, &self.zone) {
            state if state.is_empty() => state,
            state => format!("  ({state})"),
        };
        self.line(&format!("{head}{text}{tail}"))
    }

    /// Prints what stands in the place of a message that cannot be shown.
    pub fn gap(&mut self, gap: &Gap) -> Result<(), Failure> {
        if self.json {
            let Gap { id, short_id, conversation, since_ms, sentence, .. } = gap;
            let object = json!({
                "event": "gap", "id": id, "short_id": short_id, "conversation": conversation,
                "since_ms": since_ms, "sentence": sentence,
            });
            return self.line(&object.to_string());
        }
        self.line(&format!("{}  a closed message: {}", gap.short_id, gap.sentence))
    }

    /// Prints that a message was erased from this device.
    pub fn erased(&mut self, erased: &Erased) -> Result<(), Failure> {
        let Erased { id, short_id, conversation } = erased;
        let object =
            json!({ "event": "erased", "id": id, "short_id": short_id, "conversation": conversation });
        self.say(object, format!("{short_id}  erased"))
    }

    /// Prints what the user has to know, whatever they do.
    pub fn warning(&mut self, event: &str, sentence: &str) -> Result<(), Failure> {
        self.say(json!({ "event": event, "sentence": sentence }), sentence)
    }

    /// Says in which conversation the next messages are, if it is another one than before; programs find it
    /// in each of them.
    pub fn heading(&mut self, conversation: &str, name: &str) -> Result<(), Failure> {
        if self.json || self.conversation == conversation {
            return Ok(());
        }
        self.conversation = conversation.to_owned();
        self.day.clear();
        self.line(&format!("== {name} =="))
    }

    /// Tells programs that what follows is new; people see it by the pause.
    pub fn history_end(&mut self) -> Result<(), Failure> {
        if self.json { self.line(&json!({ "event": "history-end" }).to_string()) } else { Ok(()) }
    }

    /// Prints that the state of an own message changed.
    pub fn progress(&mut self, message: &Message) -> Result<(), Failure> {
        if self.json {
            return self.message("changed", message);
        }
        match words::delivery(message, &self.zone) {
            state if state.is_empty() => Ok(()),
            state => self.line(&format!("{}  {state}", message.short_id)),
        }
    }

    /// Prints a link, and its QR code for phones if it has one.
    pub fn link(&mut self, link: &str, qr_link: Option<&str>) -> Result<(), Failure> {
        if self.json {
            return self.line(&json!({ "link": link, "qr_link": qr_link }).to_string());
        }
        if let Some(qr) = qr_link.map(Qr::of) {
            let qr = qr.ok_or_else(|| Failure::told("The link is too long for a QR code."))?;
            self.raw(&qr.for_output(io::stdout().is_terminal()))?;
        }
        self.line(link)
    }

    /// Prints the link for a new device, and its QR code.
    pub fn device_link(&mut self, object: Value, link: &str) -> Result<(), Failure> {
        if self.json {
            return self.line(&object.to_string());
        }
        if let Some(qr) = Qr::of(link) {
            self.raw(&qr.for_output(io::stdout().is_terminal()))?;
        }
        self.line(link)?;
        self.line("")?;
        self.line("On the new device, with a new data directory: dunlin node --link LINK")?;
        self.line("It is good for ten minutes and one device. Show it to nobody else. Leave this open.")
    }

    /// Prints a line, without whatever in it could control a terminal.
    fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.raw(&format!("{}\n", harmless(line)))
    }

    fn raw(&mut self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            // Whoever read has seen enough, as `head` has after ten lines.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(Failure::told(format!("Printing failed: {error}. Look at where it goes."))),
        }
    }
}

/// The text without what could control a terminal. Line ends and tabs stay.
pub fn harmless(text: &str) -> String {
    let keeps = |c: &char| matches!(c, '\n' | '\t') || !(c.is_control() || turns_direction(*c));
    text.chars().filter(keeps).collect()
}

/// Embeddings, overrides and isolates change how everything after them is laid out.
pub fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Lines up the cells of all rows.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width.saturating_sub(cell.width()) + GAP));
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Zero means that it has not happened.
fn moment(at_ms: i64) -> Option<i64> {
    (at_ms != 0).then_some(at_ms)
}

/// A profile for programs.
pub fn of_profile(profile: &Profile) -> Value {
    json!({ "id": profile.id, "name": profile.name, "link": profile.link, "qr_link": profile.qr_link })
}

/// A contact for programs.
pub fn of_contact(contact: &Contact) -> Value {
    json!({
        "id": contact.id,
        "name": contact.name,
        "state": words::standing_word(contact),
        "safety_number": contact.safety_number,
        "since_ms": moment(contact.since_ms),
        "sent_ms": moment(contact.sent_ms),
        "added_ms": moment(contact.added_ms),
        "conversation": (!contact.conversation.is_empty()).then_some(&contact.conversation),
        "online": contact.online,
    })
}

/// A conversation for programs.
pub fn of_conversation(conversation: &Conversation) -> Value {
    json!({
        "id": conversation.id,
        "kind": words::kind_word(conversation),
        "name": conversation.name,
        "unread": conversation.unread,
        "changed_ms": moment(conversation.changed_ms),
        "contact": (!conversation.contact.is_empty()).then_some(&conversation.contact),
        "members": conversation.members,
        "devices_online": conversation.devices_online,
        "left": conversation.left,
        "closed": conversation.closed,
    })
}

/// A member for programs.
pub fn of_member(member: &Member) -> Value {
    json!({
        "id": member.id,
        "name": member.name,
        "own": member.own,
        "online": member.online,
        "devices": member.devices,
    })
}

/// A message for programs.
pub fn of_message(message: &Message) -> Value {
    json!({
        "id": message.id,
        "short_id": message.short_id,
        "conversation": message.conversation,
        "text": message.text,
        "invitation": message.invitation.as_ref().map(|invitation| json!({
            "group": invitation.group,
            "name": invitation.group_name,
            "link": invitation.link,
            "joined": invitation.joined,
        })),
        "own": message.own,
        "sender": message.sender,
        "sender_name": message.sender_name,
        "sent_ms": moment(message.sent_ms),
        "kept_ms": moment(message.kept_ms),
        "state": words::delivery_word(message),
        "handed_ms": moment(message.handed_ms),
        "received_ms": moment(message.received_ms),
        "received_by": message.received_by,
        "recipients": message.recipients,
        "receipts": message.receipts.iter().map(|receipt| json!({
            "member": receipt.member,
            "name": receipt.name,
            "at_ms": moment(receipt.at_ms),
        })).collect::<Vec<_>>(),
    })
}

/// A peer for programs.
pub fn of_peer(peer: &Peer) -> Value {
    json!({
        "peer_id": peer.peer_id,
        "known": peer.known,
        "latency_us": (peer.latency_us != 0).then_some(peer.latency_us),
        "connections": peer.connections.iter().map(|connection| json!({
            "address": connection.address,
            "direction": direction_word(connection.direction()),
            "since_ms": moment(connection.since_ms),
        })).collect::<Vec<_>>(),
    })
}

/// A place to look for others, for programs.
pub fn of_source(source: &Source) -> Value {
    json!({
        "kind": source.kind,
        "place": source.place,
        "announced": source.announced,
        "found": source.found,
        "found_ms": moment(source.found_ms),
        "error": (!source.error.is_empty()).then_some(&source.error),
        "error_ms": moment(source.error_ms),
    })
}

/// Which side dialled.
pub fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Unspecified => "unknown",
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_a_peer_controls_the_terminal() {
        let hostile = "\u{1b}]0;title\u{7}\u{9b}2J\u{202e}txt.exe\u{2066}\r\u{8}\u{7f}\nfine\tä";
        assert_eq!(harmless(hostile), "]0;title2Jtxt.exe\nfine\tä");
    }

    #[test]
    fn json_stays_json() {
        let hostile = Message { text: "\u{1b}[2J\u{9b}\u{202e}\"\\\n".to_owned(), ..Message::default() };
        let line = harmless(&of_message(&hostile).to_string());
        assert!(!line.contains('\n') && !line.chars().any(char::is_control));
        assert!(serde_json::from_str::<Value>(&line).is_ok());
    }

    #[test]
    fn wide_characters_line_up() {
        let row = |name: &str| vec![name.to_owned(), "contact".to_owned()];
        assert_eq!(table(&[row("Ben"), row("渡り鳥")]), ["Ben     contact", "渡り鳥  contact"]);
    }
}
