//! What the devices of an account say about each other: names, when one was added, and that one is removed.
//!
//! A note travels in field 1003 of a re-posted event 1 of its author, in the account group. Go devices accept
//! fields that they do not know and ignore an event 1 of a device that they know already.

use std::fmt;

use dunlin_base::{DeviceId, Time};
use prost::Message;

/// Longest name of a device, in bytes.
pub const DEVICE_NAME_BYTES_MAX: usize = 128;

/// What a device of the account says about one of them.
#[derive(Clone, Eq, PartialEq)]
pub struct DeviceNote {
    /// About which device.
    pub subject: DeviceId,
    /// When, by the clock of its author.
    pub at: Time,
    /// What.
    pub said: NoteKind,
}

/// What can be said of a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoteKind {
    /// It is new. Only a device itself says so.
    Added,
    /// It is called this.
    Named(String),
    /// It is no device of the account any more. For ever.
    Removed,
}

/// The payload of an event 1, as far as notes are concerned.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Carrier {
    #[prost(message, optional, tag = "1003")]
    note: Option<Wire>,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Wire {
    #[prost(bytes = "vec", tag = "1")]
    subject: Vec<u8>,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
    /// 1 added, 2 named, 3 removed.
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(string, tag = "4")]
    name: String,
}

impl DeviceNote {
    /// The field, to be put behind the payload of an event 1.
    pub(crate) fn to_field(&self) -> Vec<u8> {
        let (kind, name) = match &self.said {
            NoteKind::Added => (1, String::new()),
            NoteKind::Named(name) => (2, name.clone()),
            NoteKind::Removed => (3, String::new()),
        };
        let wire = Wire { subject: self.subject.as_bytes().to_vec(), at_ms: self.at.as_millis(), kind, name };
        Carrier { note: Some(wire) }.encode_to_vec()
    }

    /// The note in the payload of an event 1; none when there is none that is known here.
    pub(super) fn in_payload(payload: &[u8]) -> Option<Self> {
        let wire = Carrier::decode(payload).ok()?.note?;
        let said = match wire.kind {
            1 => NoteKind::Added,
            2 if wire.name.len() <= DEVICE_NAME_BYTES_MAX => NoteKind::Named(wire.name),
            3 => NoteKind::Removed,
            _ => return None,
        };
        let subject = DeviceId::from_bytes(&wire.subject).ok()?;
        Some(Self { subject, at: Time::from_millis(wire.at_ms), said })
    }
}

/// Shows no name.
impl fmt::Debug for DeviceNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceNote").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// A device of the account, as the notes in the account log have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceRecord {
    /// The device.
    pub device: DeviceId,
    /// What it is called; empty when nobody has named it. Not made safe to be shown.
    pub name: String,
    /// When it says that it was added.
    pub added: Option<Time>,
    /// When it was removed, by the clock of who did.
    pub removed: Option<Time>,
}

/// Applies notes to devices, in the order of the log. What a device says behind its removal counts for nothing:
/// otherwise a thief could take it back. What it says about others before that, or next to it, counts.
pub(super) fn fold(devices: Vec<DeviceId>, notes: Vec<(DeviceId, DeviceNote)>) -> Vec<DeviceRecord> {
    let fresh = |device| DeviceRecord { device, name: String::new(), added: None, removed: None };
    let mut records: Vec<_> = devices.into_iter().map(fresh).collect();
    for (author, note) in notes {
        if records.iter().any(|record| record.device == author && record.removed.is_some()) {
            continue;
        }
        let Some(record) = records.iter_mut().find(|record| record.device == note.subject) else { continue };
        match note.said {
            NoteKind::Added if author == note.subject => record.added = record.added.or(Some(note.at)),
            NoteKind::Added => {}
            NoteKind::Named(name) => record.name = name,
            NoteKind::Removed => record.removed = record.removed.or(Some(note.at)),
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::new(SecretKey::from_seed([number; 32]).public())
    }

    fn note(subject: u8, said: NoteKind) -> DeviceNote {
        DeviceNote { subject: device(subject), at: Time::from_secs(5), said }
    }

    #[test]
    fn notes_round_trip_in_field_1003() {
        for said in [NoteKind::Added, NoteKind::Named("Phone".into()), NoteKind::Removed] {
            let note = note(1, said);
            let field = note.to_field();
            assert_eq!(field[..2], [0xda, 0x3e]);
            let payload = [&[0x0a, 1, 7][..], &field].concat();
            assert_eq!(DeviceNote::in_payload(&payload), Some(note));
        }
        assert_eq!(DeviceNote::in_payload(&[0x0a, 1, 7]), None);
        let long = note(1, NoteKind::Named("x".repeat(DEVICE_NAME_BYTES_MAX + 1)));
        assert_eq!(DeviceNote::in_payload(&long.to_field()), None);
    }

    #[test]
    fn what_a_removed_device_says_counts_for_nothing() {
        let named = |name: &str| NoteKind::Named(name.to_owned());
        let records = fold(
            vec![device(1), device(2)],
            vec![
                (device(2), note(2, named("Phone"))),
                (device(1), note(2, NoteKind::Removed)),
                (device(2), note(1, NoteKind::Removed)),
                (device(2), note(2, named("Mine"))),
                (device(1), note(3, named("of nobody"))),
            ],
        );
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].removed, records[1].removed), (None, Some(Time::from_secs(5))));
        assert_eq!(records[1].name, "Phone");
    }

    #[test]
    fn only_a_device_itself_says_when_it_was_added() {
        let records = fold(
            vec![device(1), device(2)],
            vec![(device(1), note(1, NoteKind::Added)), (device(1), note(2, NoteKind::Added))],
        );
        assert_eq!((records[0].added, records[1].added), (Some(Time::from_secs(5)), None));
    }
}
