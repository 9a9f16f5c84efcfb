use crossterm::event::KeyEvent;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::output::turns_direction;
use dunlin_proto::chat::{
    ConversationKind, Erased, Gap, Gone, Invitation, Member, MessageKind, MessageState,
};

/// Tuesday, 24 November 2026, 14:03 in the zone of the tests.
const NOON_MS: i64 = 1_795_525_380_000;
const MINUTE_MS: i64 = 60_000;
const SAFETY_NUMBER: &str = "01234 56789 01234 56789 01234 56789 01234 56789 01234 56789 01234 56789";
const LINK: &str = "https://berty.tech/id#contact/oZBLFbMoa3nX8yGvYbWPLKX5f4Sd7GnH1kEKyKJ3BsJJdxV4JgxNVwXrDeLPgf\
                    ijHN9q6yHmNTnNKyJpxoLtnqCN1Wpp1/name=Ann";
const QR_LINK: &str = "BERTY://PB/5FUD0CK7LR37.YQGHB7V4E*YW1J4*ADXVRVK$EJZBTJPOVGPT2AWGA7QWVJD20QZ.ZK0A5XK\
                       R:GJR2PJ*Q0LT5Q0QGPAOL8KB0WJ5A1J69Z3X";

#[test]
fn a_new_account_is_told_how_to_begin() {
    let mut screen = Shown::new(80, 24);
    screen.load(vec![], vec![]);
    insta::assert_snapshot!("first_start", screen.drawn());
}

#[test]
fn requests_stand_on_top_and_unread_messages_are_counted() {
    let mut screen = Shown::with_everything(80, 24);
    insta::assert_snapshot!("list", screen.drawn());
    screen.resize(40, 20);
    insta::assert_snapshot!("list_narrow", screen.drawn());
}

#[test]
fn a_request_shows_name_and_safety_number_before_the_answer() {
    let mut screen = Shown::with_everything(80, 24);
    assert_eq!(screen.press("enter"), []);
    insta::assert_snapshot!("request", screen.drawn());
    screen.resize(40, 20);
    insta::assert_snapshot!("request_narrow", screen.drawn());
    let effects = screen.press("a");
    let [Effect::Call(id, Call::ContactAccept { contact })] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(contact, "carol");
    let carol = Contact { conversation: "with-carol".into(), ..contact_of("carol", ContactState::Added) };
    screen.answer(*id, Ok(Answer::Contact(carol)));
    screen.notice(Notice::ConversationChanged(conversation("with-carol", "Carol", "carol")));
    assert_eq!(screen.screen.selected, Some(Row::Conversation("with-carol".into())));
    assert!(screen.screen.dialog.is_none());
}

#[test]
fn a_conversation_shows_who_when_and_how_far() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    insta::assert_snapshot!("conversation", screen.drawn());
    screen.resize(40, 20);
    insta::assert_snapshot!("conversation_narrow", screen.drawn());
}

#[test]
fn who_was_asked_is_told_apart_until_they_accept() {
    let mut screen = Shown::new(80, 24);
    let dora = Contact { conversation: "with-dora".into(), ..contact_of("dora", ContactState::Sent) };
    screen.load(vec![dora.clone()], vec![conversation("with-dora", "Dora", "dora")]);
    screen.open_if_selected();
    insta::assert_snapshot!("asked", screen.drawn());
    let mut accepted = dora;
    accepted.set_state(ContactState::Added);
    screen.notice(Notice::ContactChanged(accepted));
    let drawn = screen.drawn();
    assert!(drawn.contains("Dora accepted") && !drawn.contains("asked"), "{drawn}");
}

#[test]
fn opening_a_conversation_reads_it() {
    let mut screen = Shown::with_everything(80, 24);
    screen.press("down");
    let effects = screen.press("enter");
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Call(_, Call::MarkRead { conversation }) if conversation == "with-ben")),
        "{effects:?}"
    );
}

#[test]
fn what_is_sent_leaves_the_input_and_comes_back_when_refused() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    screen.type_text("See you at the pier");
    let effects = screen.press("enter");
    let [Effect::Call(id, Call::Send { conversation, text })] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!((conversation.as_str(), text.as_str()), ("with-ben", "See you at the pier"));
    assert!(screen.screen.input.is_empty());
    let refusal = Refusal { reason: "disk-full".into(), sentence: "The disk is full.".into() };
    screen.answer(*id, Err(refusal));
    assert_eq!(screen.screen.input.lines(), ["See you at the pier"]);
    assert!(screen.drawn().contains("The disk is full."));
}

#[test]
fn a_draft_waits_where_it_was_begun() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    screen.type_text("half a thou");
    screen.press("esc");
    screen.press("down");
    assert!(screen.screen.input.is_empty());
    screen.press("up");
    assert_eq!(screen.screen.input.lines(), ["half a thou"]);
}

#[test]
fn why_is_asked_about_a_chosen_message() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    screen.press("up");
    let effects = screen.press("w");
    let [Effect::Call(id, Call::Why { what })] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(what, "m4");
    let sentence =
        "It waits here until one of Ben's devices is in reach; the last was seen Tue 24 Nov, 13:40.";
    screen.answer(*id, Ok(Answer::Why(sentence.into())));
    insta::assert_snapshot!("why", screen.drawn());
}

#[test]
fn a_chosen_message_is_erased_after_a_question() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    screen.press("up");
    assert_eq!(screen.press("x"), []);
    insta::assert_snapshot!("erase", screen.drawn());
    assert_eq!(screen.press("n"), []);
    assert!(screen.screen.dialog.is_none() && screen.drawn().contains("Are you there?"), "nothing happened");
    screen.press("x");
    let effects = screen.press("y");
    let [Effect::Call(id, Call::Erase { message })] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(message, "m4");
    screen.answer(*id, Ok(Answer::Erased { message: "m4".into() }));
    let drawn = screen.drawn();
    assert!(drawn.contains("The message is erased from this device."), "{drawn}");
    assert!(!drawn.contains("Are you there?"), "{drawn}");
    assert_eq!(screen.screen.thread.as_ref().unwrap().chosen().unwrap().id, "m3");
}

#[test]
fn a_message_that_cannot_be_opened_stands_in_its_place_and_says_why() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    let gap = |id: &str, minute: i64, sentence: &str| Gap {
        id: id.into(),
        conversation: "with-ben".into(),
        order: minute.to_be_bytes().to_vec(),
        since_ms: NOON_MS + 3 * MINUTE_MS,
        sentence: sentence.into(),
        ..Gap::default()
    };
    let early = "It stays closed for ever: it was sent before its sender gave this account a key.";
    screen.notice(Notice::Gap(gap("g1", 2, early)));
    let waits = "It is here since it arrived at 14:06 but closed: the key of the sender's device has not arrived yet.";
    screen.notice(Notice::Gap(gap("g2", 5, waits)));
    screen.press("up");
    insta::assert_snapshot!("gaps", screen.drawn());
    assert_eq!(screen.press("x"), []);
    assert!(screen.screen.dialog.is_none() && screen.drawn().contains("nothing of it is here"));
    let effects = screen.press("w");
    assert!(matches!(&*effects, [Effect::Call(_, Call::Why { what })] if what == "g2"), "{effects:?}");
    screen.press("esc");
    screen.notice(Notice::Gone(Gone { id: "g2".into(), conversation: "with-ben".into() }));
    screen.notice(Notice::MessageAdded(message("g2", 5, "open at last")));
    let drawn = screen.drawn();
    assert!(drawn.contains("open at last") && !drawn.contains("the key of the sender"), "{drawn}");
}

#[test]
fn what_is_erased_elsewhere_goes_from_the_screen() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    let erased = |id: &str| {
        let (id, conversation) = (id.to_owned(), "with-ben".to_owned());
        Notice::MessageErased(Erased { short_id: id.clone(), id, conversation })
    };
    screen.notice(erased("m1"));
    assert!(!screen.drawn().contains("Hello Ann"));
    screen.notice(erased("m1"));
    screen.press("up");
    for id in ["m4", "m3", "m2", "m0"] {
        screen.notice(erased(id));
    }
    assert!(screen.drawn().contains("Nothing was written yet."));
    assert_eq!(screen.screen.focus, Focus::Input);
}

#[test]
fn the_own_link_is_one_key_away() {
    let mut screen = Shown::with_everything(80, 24);
    let effects = screen.press("l");
    let [Effect::Call(id, Call::Link { conversation })] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(conversation, "");
    screen.answer(*id, Ok(Answer::Link { link: LINK.into(), qr_link: QR_LINK.into() }));
    insta::assert_snapshot!("link", screen.drawn());
    screen.resize(40, 20);
    insta::assert_snapshot!("link_narrow", screen.drawn());
    screen.resize(80, 24);
    screen.press("tab");
    assert!(screen.drawn().contains(LINK.get(..80).unwrap()), "letters from edge to edge");
    assert_eq!(screen.press("c"), [Effect::Copy(LINK.into())]);
}

#[test]
fn a_pasted_link_is_asked_for_and_a_refusal_is_told_beside_it() {
    let mut screen = Shown::with_everything(80, 24);
    screen.event(Event::Pasted(format!("{LINK}\r\n")));
    let effects = screen.press("enter");
    let [Effect::Call(id, Call::ContactAdd { link, .. })] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(link, LINK);
    let sentence = "This is your own link. Give it to somebody else.";
    screen.answer(*id, Err(Refusal { reason: "own-link".into(), sentence: sentence.into() }));
    insta::assert_snapshot!("link_refused", screen.drawn());
}

#[test]
fn a_protected_link_asks_for_its_passphrase_without_showing_it() {
    let mut screen = Shown::with_everything(80, 24);
    screen.press("a");
    screen.type_text(LINK);
    let effects = screen.press("enter");
    let [Effect::Call(id, _)] = effects.as_slice() else { panic!("{effects:?}") };
    let needed = Refusal { reason: "password-needed".into(), sentence: "It is protected.".into() };
    screen.answer(*id, Err(needed));
    screen.type_text("hunter2");
    let drawn = screen.drawn();
    assert!(drawn.contains("Protected link") && !drawn.contains("hunter2"), "{drawn}");
    let effects = screen.press("enter");
    let [Effect::Call(_, Call::ContactAdd { link, passphrase })] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!((link.as_str(), passphrase.as_str()), (LINK, "hunter2"));
}

#[test]
fn contacts_are_invited_to_a_group() {
    let mut screen = Shown::with_everything(80, 24);
    screen.press("down");
    screen.press("down");
    let effects = screen.press("i");
    let member = |name: &str, own| Member { name: name.into(), own, online: own, ..Member::default() };
    for effect in effects {
        if let Effect::Call(id, Call::Members { .. }) = effect {
            screen.answer(id, Ok(Answer::Members(vec![member("Ann", true), member("Ben", false)])));
        }
    }
    insta::assert_snapshot!("group", screen.drawn());
    screen.press("a");
    screen.press(" ");
    insta::assert_snapshot!("invite", screen.drawn());
    let effects = screen.press("enter");
    let [Effect::Call(id, Call::GroupInvite { conversation, contacts })] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!((conversation.as_str(), contacts.as_slice()), ("harbour", ["ben".to_owned()].as_slice()));
    screen.answer(*id, Ok(Answer::Invited(1)));
    assert!(screen.drawn().contains("1 invitation sent."));
}

#[test]
fn the_help_fits_both_sizes() {
    let mut screen = Shown::with_everything(80, 24);
    screen.press("?");
    insta::assert_snapshot!("help", screen.drawn());
    screen.resize(40, 20);
    assert!(screen.drawn().contains("ctrl-c"));
}

#[test]
fn messages_arrive_change_and_move_while_the_conversation_is_open() {
    let mut screen = Shown::with_everything(80, 24);
    screen.open_ben();
    screen.notice(Notice::MessageAdded(message("m5", 5, "new")));
    assert!(screen.drawn().contains("new"));
    let mut received = own(message("m4", 4, "Are you there?"), MessageState::Received);
    received.received_ms = NOON_MS + 9 * MINUTE_MS;
    screen.notice(Notice::MessageChanged(received));
    assert!(screen.drawn().contains("received 14:12"));
    screen.notice(Notice::MessageAdded(Message {
        conversation: "other".into(),
        ..message("m6", 6, "elsewhere")
    }));
    assert!(!screen.drawn().contains("elsewhere"));
}

#[test]
fn every_size_can_be_drawn() {
    for (width, height) in [(1, 1), (3, 2), (10, 4), (20, 5), (59, 3), (60, 6), (300, 100)] {
        for keys in [
            &[][..],
            &["enter"],
            &["down", "enter"],
            &["down", "enter", "up"],
            &["down", "enter", "up", "x"],
            &["l"],
            &["a"],
            &["n"],
            &["?"],
            &["down", "down", "i"],
        ] {
            let mut screen = Shown::with_everything(80, 24);
            for key in keys {
                screen.press(key);
            }
            screen.open_if_selected();
            screen.resize(width, height);
            screen.drawn();
            for key in ["up", "pageup", "down", "home", "end"] {
                screen.press(key);
                screen.drawn();
            }
        }
    }
}

#[test]
fn nothing_from_a_peer_controls_the_terminal() {
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{7}\r\u{8}\u{0}x\u{1b}]0;t\u{7}\u{200f}";
    let mut screen = Shown::new(80, 24);
    let contact = Contact {
        name: hostile.into(),
        safety_number: hostile.into(),
        ..contact_of("e", ContactState::Asks)
    };
    screen.load(vec![contact], vec![conversation("c", hostile, "x")]);
    let check = |screen: &mut Shown| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| screen.screen.render(frame)).unwrap();
        for cell in terminal.backend().buffer().content() {
            assert!(
                !cell.symbol().chars().any(|c| c.is_control() || turns_direction(c)),
                "{:?}",
                cell.symbol()
            );
        }
    };
    check(&mut screen);
    screen.press("enter");
    check(&mut screen);
    screen.press("esc");
    screen.press("down");
    screen.open_if_selected();
    screen.notice(Notice::MessageAdded(Message {
        conversation: "c".into(),
        sender_name: hostile.into(),
        ..message("m", 1, hostile)
    }));
    check(&mut screen);
    screen.event(Event::Pasted(hostile.into()));
    screen.press("enter");
    screen.event(Event::Pasted(hostile.into()));
    check(&mut screen);
}

#[test]
fn a_node_that_does_not_answer_is_not_asked_without_end() {
    let mut screen = Shown::with_everything(80, 24);
    let asked: usize = (0..200)
        .map(|_| {
            let asked = screen.press("w").len();
            screen.press("esc");
            asked
        })
        .sum();
    assert!(asked <= CALLS_WAITING_MAX);
    assert!(screen.drawn().contains("does not answer") || screen.screen.waiting.len() == CALLS_WAITING_MAX);
}

/// A screen and the size of its terminal.
struct Shown {
    screen: Screen,
    effects: Vec<Effect>,
}

impl Shown {
    fn new(width: u16, height: u16) -> Self {
        let (screen, effects) = Screen::new(Size { width, height }, Zone::of_tests(), None);
        Self { screen, effects }
    }

    fn with_everything(width: u16, height: u16) -> Self {
        let mut shown = Self::new(width, height);
        let contacts = vec![
            contact_of("ben", ContactState::Added),
            contact_of("carol", ContactState::Asks),
            contact_of("dora", ContactState::Kept),
        ];
        let ben = Conversation {
            unread: 2,
            changed_ms: NOON_MS + 3 * MINUTE_MS,
            ..conversation("with-ben", "Ben", "ben")
        };
        let mut harbour =
            Conversation {
                members: 3, devices_online: 1, ..conversation("harbour", "Harbour 渡り鳥", "")
            };
        harbour.set_kind(ConversationKind::Group);
        shown.load(contacts, vec![ben, harbour]);
        shown
    }

    fn load(&mut self, contacts: Vec<Contact>, conversations: Vec<Conversation>) {
        let effects = std::mem::take(&mut self.effects);
        let [Effect::Call(id, Call::Load)] = effects.as_slice() else { panic!("{effects:?}") };
        let profile = Profile { name: "Ann".into(), ..Profile::default() };
        self.answer(*id, Ok(Answer::Loaded { profile, contacts, conversations }));
    }

    /// Opens the conversation with Ben and answers what the screen asks for.
    fn open_ben(&mut self) {
        let mut effects = self.press("down");
        effects.extend(self.press("enter"));
        let mut group = message("m3", 3, "");
        group.set_kind(MessageKind::Invitation);
        group.invitation = Some(Invitation { group_name: "Harbour".into(), ..Invitation::default() });
        let mut received = own(message("m2", 2, "Good morning!"), MessageState::Received);
        received.received_ms = NOON_MS + 2 * MINUTE_MS;
        let messages = vec![
            Message {
                sent_ms: NOON_MS - 24 * 60 * MINUTE_MS,
                ..message("m0", 0, "The tide turns at noon tomorrow.")
            },
            message(
                "m1",
                1,
                "Hello Ann, this is a text that is long enough to need a second line here.\nAnd a third.",
            ),
            received,
            group,
            own(message("m4", 4, "Are you there?"), MessageState::Kept),
        ];
        for effect in effects {
            if let Effect::Call(id, Call::Read { conversation, page }) = effect {
                let messages = messages.clone();
                self.answer(id, Ok(Answer::Messages { conversation, page, messages, gaps: vec![] }));
            }
        }
    }

    /// Tells that the selected conversation is empty.
    fn open_if_selected(&mut self) {
        if let Some(thread) = &mut self.screen.thread {
            thread.loaded(Page::Latest, Vec::new(), Vec::new());
        }
    }

    fn press(&mut self, key: &str) -> Vec<Effect> {
        let code = match key {
            "enter" => KeyCode::Enter,
            "esc" => KeyCode::Esc,
            "up" => KeyCode::Up,
            "down" => KeyCode::Down,
            "pageup" => KeyCode::PageUp,
            "home" => KeyCode::Home,
            "end" => KeyCode::End,
            "tab" => KeyCode::Tab,
            letter => KeyCode::Char(letter.chars().next().unwrap()),
        };
        self.event(Event::Key(KeyEvent::from(code)))
    }

    fn type_text(&mut self, text: &str) {
        for letter in text.chars() {
            self.event(Event::Key(KeyEvent::from(KeyCode::Char(letter))));
        }
    }

    fn answer(&mut self, id: CallId, answer: Result<Answer, Refusal>) {
        self.event(Event::Answered(id, answer));
    }

    fn notice(&mut self, notice: Notice) {
        self.event(Event::Noticed(notice));
    }

    fn resize(&mut self, width: u16, height: u16) {
        self.event(Event::Resized(Size { width, height }));
    }

    fn event(&mut self, event: Event) -> Vec<Effect> {
        self.screen.update(event)
    }

    fn drawn(&self) -> String {
        let Size { width, height } = self.screen.size;
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| self.screen.render(frame)).unwrap();
        terminal.backend().to_string()
    }
}

fn contact_of(id: &str, state: ContactState) -> Contact {
    let (first, rest) = id.split_at(1);
    let mut contact = Contact {
        id: id.into(),
        name: format!("{}{rest}", first.to_uppercase()),
        safety_number: SAFETY_NUMBER.into(),
        since_ms: NOON_MS,
        ..Contact::default()
    };
    contact.set_state(state);
    contact
}

fn conversation(id: &str, name: &str, contact: &str) -> Conversation {
    let mut conversation = Conversation {
        id: id.into(),
        name: name.into(),
        contact: contact.into(),
        members: 2,
        changed_ms: NOON_MS,
        ..Conversation::default()
    };
    conversation.set_kind(ConversationKind::Contact);
    conversation
}

fn message(id: &str, minute: i64, text: &str) -> Message {
    Message {
        id: id.into(),
        conversation: "with-ben".into(),
        order: minute.to_be_bytes().to_vec(),
        text: text.into(),
        sender_name: "Ben".into(),
        sent_ms: NOON_MS + minute * MINUTE_MS,
        ..Message::default()
    }
}

fn own(mut message: Message, state: MessageState) -> Message {
    message.own = true;
    message.recipients = 1;
    message.set_state(state);
    message
}
