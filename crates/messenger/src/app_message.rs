//! What conversations carry: the AppMessage envelope (`spec/messenger.md` §1.7).
//!
//! Types that this version does not know are kept with their bytes and shown as something that cannot be
//! read here; payloads that are no envelope at all come from peers that speak the protocol alone, and are
//! taken for text when they are text.

use dunlin_base::EntryId;
use dunlin_proto::messenger::app_message::{GroupInvitation, SetGroupInfo, SetUserInfo, Type, UserMessage};
use dunlin_proto::messenger::{AppMessage, ContactMetadata};
use prost::Message;

use crate::text::DisplayName;

/// An envelope and what is in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Envelope {
    /// What is said.
    pub content: Content,
    /// Milliseconds since 1970 by the sender's clock; 0 for what anything later replaces.
    pub sent_date: i64,
    /// The entry that is acknowledged or answered, as text; empty for none.
    pub target: String,
}

/// What an envelope holds.
#[derive(Clone, Eq, PartialEq)]
pub enum Content {
    /// Something that a person wrote.
    Text(String),
    /// An invitation to a group, as a link.
    Invitation(String),
    /// The group is called something else.
    GroupInfo(String),
    /// The sender is called something else.
    UserInfo(String),
    /// The target arrived.
    Acknowledge,
    /// Something that this version has no use for.
    Other {
        /// The number of the type.
        number: i32,
        /// What came with it.
        payload: Vec<u8>,
    },
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

/// Shows the kind and nothing that anybody wrote.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content(type {})", self.number())
    }
}

impl Content {
    /// The number of the type on the wire.
    pub fn number(&self) -> i32 {
        match self {
            Self::Text(_) => Type::UserMessage.into(),
            Self::Invitation(_) => Type::GroupInvitation.into(),
            Self::GroupInfo(_) => Type::SetGroupInfo.into(),
            Self::UserInfo(_) => Type::SetUserInfo.into(),
            Self::Acknowledge => Type::Acknowledge.into(),
            Self::Other { number, .. } => *number,
        }
    }

    fn payload(&self) -> Vec<u8> {
        match self {
            Self::Text(body) => UserMessage { body: body.clone() }.encode_to_vec(),
            Self::Invitation(link) => GroupInvitation { link: link.clone() }.encode_to_vec(),
            Self::GroupInfo(name) => SetGroupInfo { display_name: name.clone() }.encode_to_vec(),
            Self::UserInfo(name) => SetUserInfo { display_name: name.clone() }.encode_to_vec(),
            Self::Acknowledge => Vec::new(),
            Self::Other { payload, .. } => payload.clone(),
        }
    }

    /// `None` when the payload is not what the type says.
    fn read(number: i32, payload: &[u8]) -> Option<Self> {
        let content = match Type::try_from(number) {
            Ok(Type::UserMessage) => Self::Text(UserMessage::decode(payload).ok()?.body),
            Ok(Type::GroupInvitation) => Self::Invitation(GroupInvitation::decode(payload).ok()?.link),
            Ok(Type::SetGroupInfo) => Self::GroupInfo(SetGroupInfo::decode(payload).ok()?.display_name),
            Ok(Type::SetUserInfo) => Self::UserInfo(SetUserInfo::decode(payload).ok()?.display_name),
            Ok(Type::Acknowledge) => Self::Acknowledge,
            _ => Self::Other { number, payload: payload.to_vec() },
        };
        Some(content)
    }
}

impl Envelope {
    /// A text, sent at `sent_date`.
    pub fn text(body: &str, sent_date: i64) -> Self {
        Self { content: Content::Text(body.to_owned()), sent_date, target: String::new() }
    }

    /// An acknowledgement of `entry`. It carries no date.
    pub fn acknowledge(entry: &EntryId) -> Self {
        Self { content: Content::Acknowledge, sent_date: 0, target: entry.to_string() }
    }

    /// Reads an envelope; `None` when the bytes are none, or its payload is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let message = AppMessage::decode(bytes).ok()?;
        if message.r#type == i32::from(Type::Undefined) {
            return None;
        }
        let content = Content::read(message.r#type, &message.payload)?;
        Some(Self { content, sent_date: message.sent_date, target: message.target_cid })
    }

    /// The bytes that go into a message or into application metadata.
    pub fn encode(&self) -> Vec<u8> {
        let message = AppMessage {
            r#type: self.content.number(),
            payload: self.content.payload(),
            sent_date: self.sent_date,
            target_cid: self.target.clone(),
        };
        message.encode_to_vec()
    }
}

/// How an account introduces itself in a contact request.
pub fn introduction(name: &DisplayName) -> Vec<u8> {
    ContactMetadata { display_name: name.as_str().to_owned() }.encode_to_vec()
}

/// How somebody introduced themselves. A peer that speaks the protocol alone may send plain text.
pub fn introduced_as(metadata: &[u8]) -> Option<DisplayName> {
    let name = match ContactMetadata::decode(metadata) {
        Ok(introduction) => introduction.display_name,
        Err(_) => std::str::from_utf8(metadata).ok()?.to_owned(),
    };
    DisplayName::received(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_content_comes_back() {
        let contents = [
            Content::Text("hello".into()),
            Content::Invitation("BERTY://PB/ABC".into()),
            Content::GroupInfo("Room".into()),
            Content::UserInfo("Ann".into()),
            Content::Acknowledge,
            Content::Other { number: 2, payload: vec![8, 1] },
            Content::Other { number: 15, payload: vec![1, 2, 3] },
        ];
        for content in contents {
            let envelope = Envelope { content, sent_date: -5, target: "bafyreig5q".into() };
            assert_eq!(Envelope::decode(&envelope.encode()), Some(envelope));
        }
    }

    #[test]
    fn the_invitation_link_is_in_field_two() {
        let envelope =
            Envelope { content: Content::Invitation("x".into()), sent_date: 0, target: String::new() };
        assert_eq!(envelope.encode(), [0x08, 3, 0x12, 3, 0x12, 1, b'x']);
    }

    #[test]
    fn acknowledgements_have_a_target_and_no_date() {
        let entry = EntryId::of_block(b"block");
        let bytes = Envelope::acknowledge(&entry).encode();
        let message = AppMessage::decode(&*bytes).unwrap();
        assert_eq!((message.r#type, message.sent_date), (6, 0));
        assert!(message.payload.is_empty());
        assert_eq!(message.target_cid, entry.to_string());
    }

    #[test]
    fn what_is_no_envelope_is_told_apart() {
        for bytes in
            [&b""[..], b"hello", b"{\"text\":1}", &[0xff; 9], &[0x18, 1], &[0x08, 1, 0x12, 2, 0x0a, 9]]
        {
            assert_eq!(Envelope::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn introductions_come_in_both_spellings() {
        let name = DisplayName::chosen("Ann").unwrap();
        assert_eq!(introduced_as(&introduction(&name)), Some(name.clone()));
        assert_eq!(introduced_as(b"Ann"), Some(name));
        assert_eq!(introduced_as(b""), None);
        assert_eq!(introduced_as(&[0xff, 0xfe]), None);
    }
}
