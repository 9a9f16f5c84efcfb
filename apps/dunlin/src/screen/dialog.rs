//! What is asked or shown in front of everything else.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui_textarea::{TextArea, WrapMode};

use super::{Answer, Call, Effect, Purpose, Refusal, Row, Screen, editor};
use dunlin_proto::chat::{ContactState, ConversationKind, Member};

/// One dialog; there is never a second behind it.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Dialog {
    /// What the keys do.
    Help,
    /// A link and its QR code.
    Link(Card),
    /// One line is asked for.
    Question(Question),
    /// Somebody asks to talk: their account.
    Answer { contact: String },
    /// What is known about a row.
    Details { row: Row, members: Vec<Member> },
    /// Which contacts to invite.
    Invite(Invite),
    /// What something waits for; `None` until the node has answered.
    Why { sentence: Option<String> },
    /// Whether to leave a group.
    Leave { conversation: String },
    /// Whether to erase a message, and whether it is an own one.
    Erase { message: String, own: bool },
}

/// A link on the screen; empty until the node has told it.
#[derive(Debug)]
pub struct Card {
    pub title: String,
    pub purpose: String,
    pub link: String,
    pub qr_link: String,
    /// Whether its letters are shown in place of the QR code.
    pub as_letters: bool,
}

/// One line that is asked for, and why it was not taken.
#[derive(Debug)]
pub struct Question {
    pub wanted: Wanted,
    pub editor: TextArea<'static>,
    pub refusal: Option<String>,
}

/// What the line will be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    ContactLink,
    ContactPassphrase { link: String },
    GroupName,
    GroupLink,
    GroupPassphrase { link: String },
}

/// Contacts to choose from.
#[derive(Debug)]
pub struct Invite {
    pub conversation: String,
    pub choices: Vec<Choice>,
    pub at: usize,
}

/// A contact that can be invited.
#[derive(Debug)]
pub struct Choice {
    pub contact: String,
    pub name: String,
    pub chosen: bool,
}

impl Dialog {
    /// A link that is on its way.
    pub fn link(title: String, purpose: String) -> Self {
        Self::Link(Card { title, purpose, link: String::new(), qr_link: String::new(), as_letters: false })
    }

    /// Asks for the link of a contact.
    pub fn contact_link(begun: &str) -> Self {
        Self::question(Wanted::ContactLink, begun)
    }

    /// Asks how a new group is called.
    pub fn group_name() -> Self {
        Self::question(Wanted::GroupName, "")
    }

    /// Asks for the link of a group.
    pub fn group_link(begun: &str) -> Self {
        Self::question(Wanted::GroupLink, begun)
    }

    /// Asks what a pasted link is meant for; `None` when it is no link.
    pub fn for_link(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if lower.contains("id#group/") || lower.contains("id#enc/") && lower.contains("group") {
            Some(Self::group_link(text))
        } else if lower.starts_with("https://berty.tech/id#") || lower.starts_with("berty://") {
            Some(Self::contact_link(text))
        } else {
            None
        }
    }

    fn question(wanted: Wanted, begun: &str) -> Self {
        let mut editor = editor();
        // It is one line, broken where the edge is.
        editor.set_wrap_mode(WrapMode::Glyph);
        if matches!(wanted, Wanted::ContactPassphrase { .. } | Wanted::GroupPassphrase { .. }) {
            editor.set_mask_char('•');
        }
        editor.insert_str(begun);
        Self::Question(Question { wanted, editor, refusal: None })
    }
}

impl Wanted {
    /// The call that the line makes possible.
    fn call(&self, line: String) -> Call {
        let passphrase = String::new();
        match self {
            Self::ContactLink => Call::ContactAdd { link: line, passphrase },
            Self::ContactPassphrase { link } => Call::ContactAdd { link: link.clone(), passphrase: line },
            Self::GroupName => Call::GroupNew { name: line },
            Self::GroupLink => Call::GroupJoin { link: line, passphrase },
            Self::GroupPassphrase { link } => Call::GroupJoin { link: link.clone(), passphrase: line },
        }
    }

    /// What to ask for when the node says that the link is protected.
    fn passphrase_for(&self, line: &str) -> Option<Self> {
        match self {
            Self::ContactLink => Some(Self::ContactPassphrase { link: line.to_owned() }),
            Self::GroupLink => Some(Self::GroupPassphrase { link: line.to_owned() }),
            Self::ContactPassphrase { .. } | Self::GroupName | Self::GroupPassphrase { .. } => None,
        }
    }
}

impl Question {
    /// What was typed so far.
    pub fn line(&self) -> String {
        self.editor.lines().concat().trim().to_owned()
    }
}

impl Screen {
    /// A key while a dialog is open.
    pub(super) fn dialog_key(&mut self, key: KeyEvent) {
        if key.code == KeyCode::Esc {
            self.dialog = None;
            return;
        }
        match &mut self.dialog {
            Some(Dialog::Question(_)) => self.question_key(key),
            Some(Dialog::Invite(_)) => self.invite_key(key),
            Some(Dialog::Answer { contact }) => {
                let contact = contact.clone();
                match key.code {
                    KeyCode::Char('a') => self.dialog_call(Call::ContactAccept { contact }),
                    KeyCode::Char('r') => self.dialog_call(Call::ContactRefuse { contact }),
                    KeyCode::Char('b') => self.dialog_call(Call::ContactBlock { contact }),
                    _ => {}
                }
            }
            Some(Dialog::Details { row, .. }) => {
                let row = row.clone();
                self.details_key(key, &row);
            }
            Some(Dialog::Leave { conversation }) => {
                let conversation = conversation.clone();
                match key.code {
                    KeyCode::Char('y') => self.dialog_call(Call::GroupLeave { conversation }),
                    KeyCode::Char('n') => self.dialog = None,
                    _ => {}
                }
            }
            Some(Dialog::Erase { message, .. }) => {
                let message = message.clone();
                match key.code {
                    KeyCode::Char('y') => self.dialog_call(Call::Erase { message }),
                    KeyCode::Char('n') => self.dialog = None,
                    _ => {}
                }
            }
            Some(Dialog::Link(card)) => match key.code {
                KeyCode::Tab => card.as_letters = !card.as_letters,
                KeyCode::Char('c') if !card.link.is_empty() => {
                    self.effects.push(Effect::Copy(card.link.clone()));
                }
                KeyCode::Enter | KeyCode::Char('q') => self.dialog = None,
                _ => {}
            },
            Some(Dialog::Help | Dialog::Why { .. }) => {
                if matches!(key.code, KeyCode::Enter | KeyCode::Char('q')) {
                    self.dialog = None;
                }
            }
            None => {}
        }
    }

    /// Text pasted while a dialog is open.
    pub(super) fn dialog_paste(&mut self, text: &str) {
        if let Some(Dialog::Question(question)) = &mut self.dialog {
            // A link that was broken over lines on its way is one line again.
            question.editor.insert_str(text.replace('\n', ""));
        }
    }

    fn question_key(&mut self, key: KeyEvent) {
        let Some(Dialog::Question(question)) = &mut self.dialog else { return };
        if key.code != KeyCode::Enter {
            question.refusal = None;
            // A new line would not be seen.
            if !matches!(key.code, KeyCode::Char('m' | 'j') if !key.modifiers.is_empty()) {
                question.editor.input(key);
            }
            return;
        }
        let line = question.line();
        if !line.is_empty() {
            let call = question.wanted.call(line);
            self.dialog_call(call);
        }
    }

    fn invite_key(&mut self, key: KeyEvent) {
        let Some(Dialog::Invite(invite)) = &mut self.dialog else { return };
        let last = invite.choices.len().saturating_sub(1);
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => invite.at = invite.at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => invite.at = (invite.at + 1).min(last),
            KeyCode::Char(' ') => {
                if let Some(choice) = invite.choices.get_mut(invite.at) {
                    choice.chosen = !choice.chosen;
                }
            }
            KeyCode::Enter => {
                let chosen = invite.choices.iter().filter(|choice| choice.chosen);
                let contacts: Vec<String> = chosen.map(|choice| choice.contact.clone()).collect();
                if !contacts.is_empty() {
                    let conversation = invite.conversation.clone();
                    self.dialog_call(Call::GroupInvite { conversation, contacts });
                }
            }
            _ => {}
        }
    }

    fn details_key(&mut self, key: KeyEvent, row: &Row) {
        let KeyCode::Char(letter) = key.code else {
            if key.code == KeyCode::Enter {
                self.dialog = None;
            }
            return;
        };
        if letter == 'w' {
            return self.ask_why(row.id().to_owned());
        }
        let group = self.conversations.get(row.id()).filter(|shown| shown.kind() == ConversationKind::Group);
        if let Some(group) = group {
            let (conversation, name, left) = (group.id.clone(), group.name.clone(), group.left);
            match letter {
                'l' => self.show_link(
                    conversation,
                    format!("Link of the group {name}"),
                    format!("Whoever has it can join {name}, and read what is written there."),
                ),
                'a' if !left => self.dialog = Some(Dialog::Invite(self.invite(conversation))),
                'x' if !left => self.dialog = Some(Dialog::Leave { conversation }),
                _ => {}
            }
            return;
        }
        let Some(contact) = self.contact_of(row) else { return };
        let (state, contact) = (contact.state(), contact.id.clone());
        match (letter, state) {
            ('u', ContactState::Blocked) => self.dialog_call(Call::ContactUnblock { contact }),
            ('b', state) if state != ContactState::Blocked => {
                self.dialog_call(Call::ContactBlock { contact })
            }
            _ => {}
        }
    }

    /// The contacts that can be invited to a group.
    fn invite(&self, conversation: String) -> Invite {
        let contacts = self.contacts.values().filter(|contact| contact.state() == ContactState::Added);
        let choice = |contact: &dunlin_proto::chat::Contact| Choice {
            contact: contact.id.clone(),
            name: contact.name.clone(),
            chosen: false,
        };
        let mut choices: Vec<_> = contacts.map(choice).collect();
        choices.sort_by(|one, other| one.name.cmp(&other.name));
        Invite { conversation, choices, at: 0 }
    }

    /// Asks the node for the sake of the dialog, which stays until the answer is there.
    fn dialog_call(&mut self, call: Call) {
        self.call(call, Purpose::Dialog);
    }

    /// Closes the dialog that asked for what has just been done.
    pub(super) fn close_dialog(&mut self, asked: bool) {
        if asked {
            self.dialog = None;
        }
    }

    /// Fills in what the dialog was waiting for. The user may have gone elsewhere meanwhile.
    pub(super) fn dialog_answered(&mut self, answer: Answer) {
        match (&mut self.dialog, answer) {
            (Some(Dialog::Link(card)), Answer::Link { link, qr_link }) => {
                card.link = link;
                card.qr_link = qr_link;
            }
            (Some(Dialog::Details { members, .. }), Answer::Members(told)) => *members = told,
            (Some(Dialog::Why { sentence }), Answer::Why(told)) => *sentence = Some(told),
            _ => {}
        }
    }

    /// Shows why the node did not do it, where the user can do better.
    pub(super) fn dialog_refused(&mut self, refusal: Refusal) {
        let Some(Dialog::Question(question)) = &mut self.dialog else {
            self.dialog = None;
            self.told = Some(refusal.sentence);
            return;
        };
        let protected = (refusal.reason == "password-needed")
            .then(|| question.wanted.passphrase_for(&question.line()))
            .flatten();
        match protected {
            Some(wanted) => self.dialog = Some(Dialog::question(wanted, "")),
            None => question.refusal = Some(refusal.sentence),
        }
    }

    /// The contact that a row is about.
    pub(super) fn contact_of(&self, row: &Row) -> Option<&dunlin_proto::chat::Contact> {
        match row {
            Row::Request(contact) | Row::Asked(contact) => self.contacts.get(contact),
            Row::Conversation(conversation) => {
                self.contacts.get(&self.conversations.get(conversation)?.contact)
            }
        }
    }
}
