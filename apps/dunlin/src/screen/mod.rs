//! The chat in the terminal, as a value.
//!
//! [`Screen::update`] takes what happens and tells what should be done about it; [`Screen::render`] draws.
//! Neither reads a clock, a terminal or a socket: the loop in `chat.rs` does. Every call that the screen
//! asks for carries an id, and its answer carries it back.

mod calls;
mod dialog;
mod list;
mod thread;
mod view;
mod wrap;

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Size;
use ratatui_textarea::{TextArea, WrapMode};

use crate::words::Zone;
pub use calls::{Answer, Call, CallId, Effect, Event, Refusal};
use dialog::Dialog;
use dunlin_proto::chat::notice::Notice;
use dunlin_proto::chat::{Contact, ContactState, Conversation, Message, Profile};
pub use list::Row;
use thread::Thread;
pub use thread::{PAGE_MESSAGES, Page};

/// Calls that wait for an answer. A person types a few; more means that the node does not answer.
const CALLS_WAITING_MAX: usize = 32;

/// Where keys go while no dialog is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Focus {
    List,
    Input,
    /// Choosing among the messages of the conversation.
    Messages,
}

/// What a call was made for.
#[derive(Clone, Debug)]
enum Purpose {
    /// A text that must not be lost when it is refused.
    Text { conversation: String, text: String },
    /// The dialog that is open waits for it.
    Dialog,
    /// The answer says it all.
    Plain,
}

/// Everything that is on the screen.
#[derive(Debug)]
pub struct Screen {
    zone: Zone,
    size: Size,
    profile: Profile,
    contacts: BTreeMap<String, Contact>,
    conversations: BTreeMap<String, Conversation>,
    loaded: bool,
    selected: Option<Row>,
    thread: Option<Thread>,
    focus: Focus,
    input: TextArea<'static>,
    /// What was begun to write in other conversations.
    drafts: BTreeMap<String, String>,
    dialog: Option<Dialog>,
    /// A sentence for the user, until the next key.
    told: Option<String>,
    waiting: BTreeMap<CallId, Purpose>,
    calls_made: u64,
    effects: Vec<Effect>,
}

impl Screen {
    /// An empty screen that may begin with a sentence for the user, and what to do first.
    pub fn new(size: Size, zone: Zone, told: Option<String>) -> (Self, Vec<Effect>) {
        let mut screen = Self {
            zone,
            size,
            profile: Profile::default(),
            contacts: BTreeMap::new(),
            conversations: BTreeMap::new(),
            loaded: false,
            selected: None,
            thread: None,
            focus: Focus::List,
            input: editor(),
            drafts: BTreeMap::new(),
            dialog: None,
            told,
            waiting: BTreeMap::new(),
            calls_made: 0,
            effects: Vec::new(),
        };
        screen.call(Call::Load, Purpose::Plain);
        let effects = std::mem::take(&mut screen.effects);
        (screen, effects)
    }

    /// Takes what happened, and tells what to do about it.
    pub fn update(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Key(key) if key.kind == KeyEventKind::Release => {}
            Event::Key(key) => self.key(key),
            Event::Pasted(text) => self.paste(&text),
            Event::Resized(size) => self.size = size,
            Event::Answered(id, answer) => self.answered(id, answer),
            Event::Noticed(notice) => self.noticed(notice),
            Event::Lost => {
                self.told = Some("The node has ended. Leave with ctrl-c, and open Dunlin again.".to_owned());
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn key(&mut self, key: KeyEvent) {
        self.told = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            self.effects.push(Effect::Quit);
            return;
        }
        if self.dialog.is_some() {
            self.dialog_key(key);
            return;
        }
        if key.code == KeyCode::F(1) {
            self.dialog = Some(Dialog::Help);
            return;
        }
        match self.focus {
            Focus::List => self.list_key(key),
            Focus::Input => self.input_key(key),
            Focus::Messages => self.messages_key(key),
        }
    }

    fn list_key(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.select_near(-1),
            KeyCode::Down | KeyCode::Char('j') => self.select_near(1),
            KeyCode::Home => self.select_near(isize::MIN),
            KeyCode::End => self.select_near(isize::MAX),
            KeyCode::Enter | KeyCode::Right | KeyCode::Tab => self.enter(),
            KeyCode::Char('l') => self.show_link(
                String::new(),
                "Your link".to_owned(),
                "Whoever has it can ask to talk with you. You see each request, and accept or refuse it."
                    .to_owned(),
            ),
            KeyCode::Char('a') => self.dialog = Some(Dialog::contact_link("")),
            KeyCode::Char('n') => self.dialog = Some(Dialog::group_name()),
            KeyCode::Char('g') => self.dialog = Some(Dialog::group_link("")),
            KeyCode::Char('i') => self.show_details(),
            KeyCode::Char('w') => self.why_selected(),
            KeyCode::Char('?') => self.dialog = Some(Dialog::Help),
            KeyCode::Char('q') => self.effects.push(Effect::Quit),
            _ => {}
        }
    }

    fn input_key(&mut self, key: KeyEvent) {
        let plain = key.modifiers.is_empty();
        match key.code {
            KeyCode::Enter if plain => self.send(),
            // Terminals tell a modified enter in different ways, and some not at all.
            KeyCode::Enter => self.input.insert_newline(),
            KeyCode::Char('j') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.input.insert_newline()
            }
            KeyCode::Esc | KeyCode::Tab => self.set_focus(Focus::List),
            KeyCode::PageUp => self.choose_message(),
            KeyCode::Up if self.input.cursor().0 == 0 => self.choose_message(),
            _ => {
                self.input.input(key);
            }
        }
    }

    fn messages_key(&mut self, key: KeyEvent) {
        let (width, height) = view::thread_size(self.size);
        let zone = self.zone.clone();
        let Some(thread) = &mut self.thread else { return self.set_focus(Focus::List) };
        let page = match key.code {
            KeyCode::Up | KeyCode::Char('k') => thread.up(1, width, height, &zone),
            KeyCode::PageUp => thread.up(usize::from(height) / 4, width, height, &zone),
            KeyCode::Down | KeyCode::Char('j') => thread.down(1, width, height, &zone),
            KeyCode::PageDown => thread.down(usize::from(height) / 4, width, height, &zone),
            KeyCode::Home => thread.go_to_first(),
            KeyCode::Char('w') => return self.why_message(),
            KeyCode::Char('x') => return self.ask_erasing(),
            KeyCode::Char('g') => return self.join_invitation(),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Tab | KeyCode::End => {
                return self.set_focus(Focus::Input);
            }
            _ => None,
        };
        if let Some(page) = page {
            let conversation = thread.conversation().to_owned();
            self.call(Call::Read { conversation, page }, Purpose::Plain);
        } else if thread.chosen().is_none() {
            self.set_focus(Focus::Input);
        }
    }

    fn paste(&mut self, text: &str) {
        let text = crate::output::harmless(&text.replace("\r\n", "\n").replace('\r', "\n"));
        if self.dialog.is_some() {
            self.dialog_paste(&text);
            return;
        }
        match self.focus {
            Focus::Input => {
                self.input.insert_str(text);
            }
            // Somebody who pastes a link here has a reason.
            Focus::List | Focus::Messages => self.dialog = Dialog::for_link(text.trim()),
        }
    }

    /// Goes where the selected row leads: to the answer of a request, or to writing.
    fn enter(&mut self) {
        match self.selected.clone() {
            Some(Row::Request(contact)) => self.dialog = Some(Dialog::Answer { contact }),
            Some(Row::Asked(_)) => self.show_details(),
            Some(Row::Conversation(_)) => self.set_focus(Focus::Input),
            None => {}
        }
    }

    fn send(&mut self) {
        let Some(conversation) = self.thread.as_ref().map(|thread| thread.conversation().to_owned()) else {
            return;
        };
        let text = self.input.lines().join("\n").trim_end().to_owned();
        if text.trim().is_empty() {
            return;
        }
        let purpose = Purpose::Text { conversation: conversation.clone(), text: text.clone() };
        if self.call(Call::Send { conversation, text }, purpose).is_some() {
            self.set_input("");
        }
    }

    fn choose_message(&mut self) {
        let Some(thread) = &mut self.thread else { return };
        if thread.choose_last() {
            self.set_focus(Focus::Messages);
        }
    }

    fn why_message(&mut self) {
        let chosen = self.thread.as_ref().and_then(Thread::chosen).map(|message| message.id.clone());
        if let Some(what) = chosen {
            self.ask_why(what);
        }
    }

    fn ask_erasing(&mut self) {
        let Some(thread) = &self.thread else { return };
        if thread.is_at_gap() {
            self.told =
                Some("This message is closed: nothing of it is here that could be erased.".to_owned());
        } else if let Some(message) = thread.chosen() {
            self.dialog = Some(Dialog::Erase { message: message.id.clone(), own: message.own });
        }
    }

    fn why_selected(&mut self) {
        if let Some(row) = &self.selected {
            let what = row.id().to_owned();
            self.ask_why(what);
        }
    }

    fn ask_why(&mut self, what: String) {
        if self.call(Call::Why { what }, Purpose::Dialog).is_some() {
            self.dialog = Some(Dialog::Why { sentence: None });
        }
    }

    fn join_invitation(&mut self) {
        let chosen = self.thread.as_ref().and_then(Thread::chosen);
        let Some(invitation) = chosen.and_then(|message| message.invitation.as_ref()) else {
            self.told = Some("This message is no invitation to a group.".to_owned());
            return;
        };
        if invitation.joined {
            self.told = Some(format!("You are in the group {} already.", invitation.group_name));
            return;
        }
        let link = invitation.link.clone();
        self.call(Call::GroupJoin { link, passphrase: String::new() }, Purpose::Plain);
    }

    fn show_link(&mut self, conversation: String, title: String, purpose: String) {
        if self.call(Call::Link { conversation }, Purpose::Dialog).is_some() {
            self.dialog = Some(Dialog::link(title, purpose));
        }
    }

    fn show_details(&mut self) {
        let Some(row) = self.selected.clone() else { return };
        match row {
            Row::Request(contact) => self.dialog = Some(Dialog::Answer { contact }),
            Row::Asked(_) => self.dialog = Some(Dialog::Details { row, members: Vec::new() }),
            Row::Conversation(ref conversation) => {
                let call = Call::Members { conversation: conversation.clone() };
                if self.call(call, Purpose::Dialog).is_some() {
                    self.dialog = Some(Dialog::Details { row, members: Vec::new() });
                }
            }
        }
    }

    fn select_near(&mut self, step: isize) {
        let rows = self.rows();
        let here = self.selected.as_ref().and_then(|row| rows.iter().position(|other| other == row));
        let last = rows.len().saturating_sub(1);
        let there = here.map_or(0, |here| here.saturating_add_signed(step).min(last));
        if let Some(row) = rows.into_iter().nth(there) {
            self.select(row);
        }
    }

    /// Selects a row, and opens the conversation that it stands for.
    fn select(&mut self, row: Row) {
        if self.selected.as_ref() == Some(&row) {
            return;
        }
        self.close_thread();
        if let Row::Conversation(conversation) = &row {
            let draft = self.drafts.remove(conversation).unwrap_or_default();
            self.set_input(&draft);
            self.open_thread(conversation.clone());
        }
        self.selected = Some(row);
    }

    fn open_thread(&mut self, conversation: String) {
        self.thread = Some(Thread::new(conversation.clone()));
        self.call(Call::Read { conversation, page: Page::Latest }, Purpose::Plain);
    }

    fn close_thread(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let draft = self.input.lines().join("\n");
        if !draft.trim().is_empty() {
            self.drafts.insert(thread.conversation().to_owned(), draft);
        }
        self.set_input("");
    }

    fn set_focus(&mut self, focus: Focus) {
        self.focus = focus;
        if focus != Focus::Messages
            && let Some(thread) = &mut self.thread
        {
            thread.leave();
            if !thread.shows_latest() {
                let conversation = thread.conversation().to_owned();
                self.open_thread(conversation);
            }
        }
        self.mark_read();
    }

    /// Tells the node that the user sees the conversation, if they do and there is something new.
    fn mark_read(&mut self) {
        let (Focus::Input | Focus::Messages, Some(thread)) = (self.focus, &self.thread) else { return };
        let conversation = thread.conversation().to_owned();
        let Some(shown) = self.conversations.get_mut(&conversation) else { return };
        if shown.unread > 0 {
            shown.unread = 0;
            self.call(Call::MarkRead { conversation }, Purpose::Plain);
        }
    }

    fn set_input(&mut self, text: &str) {
        self.input = editor();
        self.input.insert_str(text);
    }

    fn answered(&mut self, id: CallId, answer: Result<Answer, Refusal>) {
        let Some(purpose) = self.waiting.remove(&id) else { return };
        match answer {
            Ok(answer) => self.fulfilled(answer, &purpose),
            Err(refusal) => self.refused(refusal, purpose),
        }
    }

    fn fulfilled(&mut self, answer: Answer, purpose: &Purpose) {
        let asked = matches!(purpose, Purpose::Dialog);
        match answer {
            Answer::Loaded { profile, contacts, conversations } => {
                self.loaded = true;
                self.profile = profile;
                self.contacts = contacts.into_iter().map(|contact| (contact.id.clone(), contact)).collect();
                let conversations = conversations.into_iter().map(|shown| (shown.id.clone(), shown));
                self.conversations = conversations.collect();
                self.select_something();
            }
            Answer::Messages { conversation, page, messages, gaps } => {
                if let Some(thread) = self.thread_of(&conversation) {
                    thread.loaded(page, messages, gaps);
                }
            }
            Answer::Sent(message) => self.message_added(message),
            Answer::Erased { message } => {
                self.close_dialog(asked);
                self.message_erased(&message);
                self.told = Some(crate::words::ERASED.to_owned());
            }
            Answer::Contact(contact) => self.contact_answered(contact, asked),
            Answer::Refused(contact) => {
                self.contact_gone(&contact, asked);
                self.told = Some("The request is gone. They are not told.".to_owned());
            }
            Answer::Unblocked(contact) => {
                self.contact_gone(&contact, asked);
                self.told =
                    Some("Not blocked any more. To talk again, one of you asks the other.".to_owned());
            }
            Answer::Entered(conversation) => {
                let row = Row::Conversation(conversation.id.clone());
                self.conversations.insert(conversation.id.clone(), conversation);
                self.close_dialog(asked);
                self.select(row);
                self.set_focus(Focus::Input);
            }
            Answer::Conversation(conversation) => {
                self.conversations.insert(conversation.id.clone(), conversation);
                self.close_dialog(asked);
            }
            Answer::Invited(count) => {
                self.close_dialog(asked);
                let noun = if count == 1 { "invitation" } else { "invitations" };
                self.told = Some(format!("{count} {noun} sent."));
            }
            Answer::Link { .. } | Answer::Members(_) | Answer::Why(_) => self.dialog_answered(answer),
        }
    }

    fn contact_gone(&mut self, contact: &str, asked: bool) {
        self.contacts.remove(contact);
        self.close_dialog(asked);
        self.select_something();
    }

    fn contact_answered(&mut self, contact: Contact, asked: bool) {
        self.close_dialog(asked);
        let row = match contact.state() {
            ContactState::Added if !contact.conversation.is_empty() => {
                self.told = Some(format!("{} is your contact.", contact.name));
                Some(Row::Conversation(contact.conversation.clone()))
            }
            ContactState::Kept | ContactState::Sent => {
                self.told = Some(format!(
                    "{} was asked. The request waits here until one of their devices is in reach.",
                    contact.name
                ));
                Some(Row::Asked(contact.id.clone()))
            }
            ContactState::Blocked => {
                self.told = Some(format!("{} is blocked.", contact.name));
                None
            }
            ContactState::Unspecified | ContactState::Asks | ContactState::Added => None,
        };
        self.contacts.insert(contact.id.clone(), contact);
        match row {
            Some(row) => self.select(row),
            None => self.select_something(),
        }
    }

    fn refused(&mut self, refusal: Refusal, purpose: Purpose) {
        match purpose {
            Purpose::Text { conversation, text } => {
                self.keep_text(conversation, text);
                self.told = Some(refusal.sentence);
            }
            Purpose::Dialog if self.dialog.is_some() => self.dialog_refused(refusal),
            Purpose::Dialog | Purpose::Plain => {
                if let Some(thread) = &mut self.thread {
                    thread.not_loaded();
                }
                self.told = Some(refusal.sentence);
            }
        }
    }

    /// Gives a text back that was not sent.
    fn keep_text(&mut self, conversation: String, text: String) {
        let here = self.thread.as_ref().is_some_and(|thread| thread.conversation() == conversation);
        if !here {
            self.drafts.insert(conversation, text);
        } else if self.input.is_empty() {
            self.set_input(&text);
        } else {
            let begun = self.input.lines().join("\n");
            self.set_input(&format!("{text}\n{begun}"));
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::MessageAdded(message) => self.message_added(message),
            Notice::MessageChanged(message) => {
                if let Some(thread) = self.thread_of(&message.conversation) {
                    thread.changed(message);
                }
            }
            Notice::MessageErased(erased) => self.message_erased(&erased.id),
            Notice::Gap(gap) => {
                if let Some(thread) = self.thread_of(&gap.conversation) {
                    thread.gap(gap);
                }
            }
            Notice::Gone(gone) => self.message_erased(&gone.id),
            Notice::ContactChanged(contact) => self.contact_changed(contact),
            Notice::ContactRemoved(contact) => {
                self.contacts.remove(&contact);
                self.select_something();
            }
            Notice::ConversationChanged(conversation) => {
                self.conversations.insert(conversation.id.clone(), conversation);
                self.select_something();
                self.mark_read();
            }
            Notice::ProfileChanged(profile) => self.profile = profile,
            Notice::DeviceAdded(_) => self.told = Some(crate::words::NEW_DEVICE.to_owned()),
            Notice::CopyFound(_) => self.told = Some(crate::words::COPY_FOUND.to_owned()),
            Notice::Missed(_) => {
                self.call(Call::Load, Purpose::Plain);
                if let Some(thread) = &self.thread {
                    let conversation = thread.conversation().to_owned();
                    self.open_thread(conversation);
                }
            }
        }
    }

    fn contact_changed(&mut self, contact: Contact) {
        let before = self.contacts.get(&contact.id).map(Contact::state);
        if contact.state() == ContactState::Added
            && matches!(before, Some(ContactState::Kept | ContactState::Sent))
        {
            self.told = Some(format!("{} accepted: you can write to each other.", contact.name));
        }
        self.contacts.insert(contact.id.clone(), contact);
        self.select_something();
    }

    fn message_added(&mut self, message: Message) {
        if let Some(thread) = self.thread_of(&message.conversation) {
            thread.added(message);
        }
    }

    fn message_erased(&mut self, message: &str) {
        let Some(thread) = &mut self.thread else { return };
        thread.erased(message);
        if self.focus == Focus::Messages && thread.chosen().is_none() {
            self.set_focus(Focus::Input);
        }
    }

    fn thread_of(&mut self, conversation: &str) -> Option<&mut Thread> {
        self.thread.as_mut().filter(|thread| thread.conversation() == conversation)
    }

    /// Selects the first row when what was selected is not there any more.
    fn select_something(&mut self) {
        let rows = self.rows();
        if self.selected.as_ref().is_some_and(|row| rows.contains(row)) {
            return;
        }
        // Who was asked or asks becomes a conversation: stay with them.
        let followed =
            self.selected.as_ref().and_then(|row| self.contacts.get(row.id())).and_then(|contact| {
                rows.iter().find(|row| matches!(row, Row::Conversation(id) if *id == contact.conversation))
            });
        match followed.or_else(|| rows.first()).cloned() {
            Some(row) => self.select(row),
            None => {
                self.close_thread();
                self.selected = None;
                self.focus = Focus::List;
            }
        }
    }

    /// Asks the node, unless it already owes too many answers.
    fn call(&mut self, call: Call, purpose: Purpose) -> Option<CallId> {
        if self.waiting.len() >= CALLS_WAITING_MAX {
            self.told = Some("The node does not answer. Wait a moment and try again.".to_owned());
            return None;
        }
        let id = CallId(self.calls_made);
        self.calls_made += 1;
        self.waiting.insert(id, purpose);
        self.effects.push(Effect::Call(id, call));
        Some(id)
    }
}

/// An empty field to write in.
fn editor() -> TextArea<'static> {
    let mut editor = TextArea::default();
    editor.set_cursor_line_style(ratatui::style::Style::new());
    editor.set_wrap_mode(WrapMode::WordOrGlyph);
    editor
}

#[cfg(test)]
mod tests;
