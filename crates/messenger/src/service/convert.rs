//! Views as messages of the service.

use dunlin_base::{AccountId, EntryId, GroupId, Time};
use dunlin_proto::chat;
use dunlin_wesh::engine::{Engine, Position};

use crate::links::Link;
use crate::short_id;
use crate::text::DisplayName;
use crate::views::{
    Contact, ContactState, Conversation, Delivery, Gap, Member, Message, MessageContent, MessageState, Status,
};

pub(super) fn profile(name: Option<&DisplayName>, engine: &Engine, link: Option<Link>) -> chat::Profile {
    chat::Profile {
        id: engine.account_id().to_string(),
        name: name.map(ToString::to_string).unwrap_or_default(),
        link: link.as_ref().map(Link::web).unwrap_or_default(),
        qr_link: link.as_ref().map(Link::qr).unwrap_or_default(),
    }
}

pub(super) fn contact(contact: &Contact) -> chat::Contact {
    let state = match contact.state {
        ContactState::Asks => chat::ContactState::Asks,
        ContactState::Kept => chat::ContactState::Kept,
        ContactState::Sent => chat::ContactState::Sent,
        ContactState::Added => chat::ContactState::Added,
        ContactState::Blocked => chat::ContactState::Blocked,
    };
    chat::Contact {
        id: contact.account.to_string(),
        name: contact.name.clone(),
        state: state.into(),
        safety_number: contact.safety_number.to_string(),
        since_ms: millis(contact.since),
        sent_ms: contact.sent.map(millis).unwrap_or_default(),
        added_ms: contact.added.map(millis).unwrap_or_default(),
        conversation: contact.conversation.map(|group| group.to_string()).unwrap_or_default(),
        online: contact.online,
    }
}

pub(super) fn conversation(conversation: &Conversation) -> chat::Conversation {
    let kind = match conversation.contact {
        Some(_) => chat::ConversationKind::Contact,
        None => chat::ConversationKind::Group,
    };
    chat::Conversation {
        id: conversation.group.to_string(),
        kind: kind.into(),
        name: conversation.name.clone(),
        unread: conversation.unread,
        last_message: conversation.last.as_ref().map(message),
        changed_ms: millis(conversation.changed),
        contact: conversation.contact.map(|account: AccountId| account.to_string()).unwrap_or_default(),
        members: count(conversation.members),
        devices_online: count(conversation.online),
        left: conversation.left,
        closed: conversation.closed,
    }
}

pub(super) fn member(member: &Member) -> chat::Member {
    chat::Member {
        id: member.id.to_string(),
        name: member.name.clone(),
        own: member.own,
        online: member.online,
        devices: count(member.devices),
    }
}

pub(super) fn message(message: &Message) -> chat::Message {
    let (kind, text, invitation) = match &message.content {
        MessageContent::Text(text) => (chat::MessageKind::Text, text.clone(), None),
        MessageContent::Invitation { group, name, link, joined } => {
            let text = format!("an invitation to the group “{name}”");
            (chat::MessageKind::Invitation, text, Some(invitation(group, name, link, *joined)))
        }
        MessageContent::Other(sentence) => (chat::MessageKind::Other, sentence.clone(), None),
    };
    let entry = message.entry();
    let mut told = chat::Message {
        id: entry.to_string(),
        short_id: short_id(&entry),
        conversation: message.group.to_string(),
        order: order(&message.position),
        kind: kind.into(),
        text,
        invitation,
        own: message.own,
        sender: message.sender.map(|member| member.to_string()).unwrap_or_default(),
        sender_name: message.sender_name.clone(),
        sent_ms: millis(message.sent),
        kept_ms: millis(message.kept),
        ..chat::Message::default()
    };
    if let Some(delivery) = &message.delivery {
        tell_delivery(&mut told, delivery);
    }
    told
}

fn invitation(group: &GroupId, name: &str, link: &str, joined: bool) -> chat::Invitation {
    chat::Invitation { group: group.to_string(), group_name: name.to_owned(), link: link.to_owned(), joined }
}

fn tell_delivery(told: &mut chat::Message, delivery: &Delivery) {
    let state = match delivery.state() {
        MessageState::Kept => chat::MessageState::Kept,
        MessageState::Sent => chat::MessageState::Sent,
        MessageState::Received => chat::MessageState::Received,
    };
    told.state = state.into();
    told.handed_ms = delivery.handed.map(millis).unwrap_or_default();
    told.received_ms = delivery.receipts.first().map(|receipt| millis(receipt.at)).unwrap_or_default();
    told.received_by = count(delivery.receipts.len());
    told.recipients = count(delivery.recipients);
    told.receipts = delivery
        .receipts
        .iter()
        .map(|receipt| chat::Receipt {
            member: receipt.member.to_string(),
            name: receipt.name.clone(),
            at_ms: millis(receipt.at),
        })
        .collect();
}

pub(super) fn erased(group: &GroupId, entry: &EntryId) -> chat::Erased {
    chat::Erased { id: entry.to_string(), short_id: short_id(entry), conversation: group.to_string() }
}

pub(super) fn gap(gap: &Gap, group: GroupId) -> chat::Gap {
    chat::Gap {
        id: gap.position.id.to_string(),
        short_id: short_id(&gap.position.id),
        conversation: group.to_string(),
        order: order(&gap.position),
        since_ms: millis(gap.since),
        sentence: gap.sentence.clone(),
    }
}

pub(super) fn status(status: &Status, profile: chat::Profile) -> chat::StatusReply {
    chat::StatusReply {
        profile: Some(profile),
        contacts: count(status.contacts),
        requests: count(status.requests),
        conversations: count(status.conversations),
        unread: status.unread,
        messages_kept: count(status.kept),
        devices_online: count(status.online),
        devices_new: status.new_devices.iter().map(ToString::to_string).collect(),
        copy_found_ms: status.copy_found.map(millis).unwrap_or_default(),
    }
}

fn order(position: &Position) -> Vec<u8> {
    [position.height.to_be_bytes().as_slice(), position.id.digest()].concat()
}

fn millis(time: Time) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
