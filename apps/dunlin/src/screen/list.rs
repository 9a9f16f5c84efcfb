//! The list on the left: requests first, then conversations, then who was asked.

use super::Screen;
use dunlin_proto::chat::{Contact, ContactState};

/// What a line of the list stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Row {
    /// Somebody asks to talk: the account.
    Request(String),
    /// A conversation.
    Conversation(String),
    /// Somebody was asked, or is blocked, and there is no conversation with them: the account.
    Asked(String),
}

impl Row {
    /// The id of the account or conversation.
    pub fn id(&self) -> &str {
        match self {
            Self::Request(id) | Self::Conversation(id) | Self::Asked(id) => id,
        }
    }
}

impl Screen {
    /// All rows, from the top.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut requests: Vec<&Contact> =
            self.contacts.values().filter(|contact| contact.state() == ContactState::Asks).collect();
        requests.sort_by_key(|contact| (contact.since_ms, contact.id.clone()));

        let mut conversations: Vec<_> = self.conversations.values().collect();
        conversations.sort_by_key(|shown| (std::cmp::Reverse(shown.changed_ms), shown.id.clone()));

        let mut asked: Vec<&Contact> =
            self.contacts.values().filter(|contact| self.is_asked(contact)).collect();
        asked.sort_by_key(|contact| (contact.name.clone(), contact.id.clone()));

        let requests = requests.into_iter().map(|contact| Row::Request(contact.id.clone()));
        let conversations = conversations.into_iter().map(|shown| Row::Conversation(shown.id.clone()));
        let asked = asked.into_iter().map(|contact| Row::Asked(contact.id.clone()));
        requests.chain(conversations).chain(asked).collect()
    }

    /// Whether a contact has no other place in the list.
    fn is_asked(&self, contact: &Contact) -> bool {
        let open = matches!(contact.state(), ContactState::Kept | ContactState::Sent | ContactState::Blocked);
        open && !self.conversations.contains_key(&contact.conversation)
    }
}
