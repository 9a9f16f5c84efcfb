//! The conversation that is open: the messages around what is shown.

use std::collections::{BTreeMap, BTreeSet};

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::wrap::wrap;
use crate::words::{self, Zone};
use dunlin_proto::chat::{Gap, Message, MessageKind};

/// Messages in one page.
pub const PAGE_MESSAGES: u32 = 100;
/// Messages held at once. Who scrolls further sees older ones come and the newest go, and the reverse.
const MESSAGES_HELD_MAX: usize = 1_000;
/// Columns before the text of a message.
const INDENT: usize = 2;

/// Which messages are wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Page {
    /// The last ones.
    Latest,
    /// Those before this one.
    Before(String),
    /// Those after this one.
    After(String),
}

/// Where a message stands: its order, and its id for what orders alike.
type Place = (Vec<u8>, String);

/// One conversation and the message that the user looks at.
#[derive(Debug)]
pub struct Thread {
    conversation: String,
    messages: BTreeMap<Place, Message>,
    places: BTreeMap<String, Place>,
    /// Which of the messages are closed: what they say is why.
    gaps: BTreeSet<String>,
    /// Whether there is nothing before what is held, and nothing after it.
    begins: bool,
    ends: bool,
    loading: bool,
    chosen: Option<Chosen>,
}

/// The message that the user looks at, and how many of its lines are above the edge.
#[derive(Clone, Debug)]
struct Chosen {
    place: Place,
    lines_above: usize,
}

impl Thread {
    /// A conversation of which nothing is known yet.
    pub fn new(conversation: String) -> Self {
        Self {
            conversation,
            messages: BTreeMap::new(),
            places: BTreeMap::new(),
            gaps: BTreeSet::new(),
            begins: false,
            ends: true,
            loading: true,
            chosen: None,
        }
    }

    /// Takes a page that was asked for.
    pub fn loaded(&mut self, page: Page, messages: Vec<Message>, gaps: Vec<Gap>) {
        self.loading = false;
        let complete = messages.len() < PAGE_MESSAGES as usize;
        for message in messages {
            self.insert(message);
        }
        for gap in gaps {
            self.insert_gap(gap);
        }
        match page {
            Page::Latest => self.begins = complete,
            Page::Before(_) => {
                self.begins = complete;
                while self.messages.len() > MESSAGES_HELD_MAX {
                    self.forget_last();
                }
            }
            Page::After(_) => {
                self.ends = complete;
                self.forget_first();
            }
        }
    }

    /// A page did not come; it can be asked for again.
    pub fn not_loaded(&mut self) {
        self.loading = false;
    }

    /// Takes a message that was not there before.
    pub fn added(&mut self, message: Message) {
        if !self.is_held(&place_of(&message)) {
            // It comes with its page.
            return;
        }
        self.insert(message);
        if self.chosen.is_none() {
            self.forget_first();
        }
    }

    /// Takes a message that is here and cannot be shown.
    pub fn gap(&mut self, gap: Gap) {
        if self.is_held(&(gap.order.clone(), gap.id.clone())) {
            self.insert_gap(gap);
        }
    }

    /// Whether what stands there is among what is held.
    fn is_held(&self, place: &Place) -> bool {
        let before_all = self.messages.first_key_value().is_some_and(|(first, _)| place < first);
        let after_all = self.messages.last_key_value().is_none_or(|(last, _)| place > last);
        (self.begins || !before_all) && (self.ends || !after_all)
    }

    /// Takes a message that has another state, place or content than before.
    pub fn changed(&mut self, message: Message) {
        if self.places.contains_key(&message.id) {
            self.insert(message);
        }
    }

    /// Lets a message go. Who looked at it looks at the next one, or else at the one before it.
    pub fn erased(&mut self, id: &str) {
        let Some(place) = self.places.remove(id) else { return };
        self.messages.remove(&place);
        self.gaps.remove(id);
        if self.chosen.as_ref().is_some_and(|chosen| chosen.place == place) {
            let next =
                self.messages.range(&place..).next().or_else(|| self.messages.range(..&place).next_back());
            self.chosen = next.map(|(place, _)| Chosen { place: place.clone(), lines_above: 0 });
        }
    }

    /// Looks at the last message; false when there is none.
    pub fn choose_last(&mut self) -> bool {
        let last = self.messages.keys().next_back().cloned();
        self.chosen = last.map(|place| Chosen { place, lines_above: 0 });
        self.chosen.is_some()
    }

    /// Looks at the first message that is held; tells which page is missing above it.
    pub fn go_to_first(&mut self) -> Option<Page> {
        let first = self.messages.keys().next().cloned()?;
        self.chosen = Some(Chosen { place: first, lines_above: 0 });
        self.missing_before()
    }

    /// Looks further up; tells which page is missing there.
    pub fn up(&mut self, messages: usize, width: u16, height: u16, zone: &Zone) -> Option<Page> {
        let mut chosen = self.chosen.clone()?;
        let step = usize::from(height / 2).max(1);
        if chosen.lines_above > 0 {
            chosen.lines_above = chosen.lines_above.saturating_sub(step);
            self.chosen = Some(chosen);
            return None;
        }
        let above = self.messages.range(..&chosen.place).rev().take(messages.max(1)).last();
        let place = above.map(|(place, _)| place.clone());
        let Some(place) = place else { return self.missing_before() };
        let lines_above = self.lines_hidden(&place, width, height, zone);
        self.chosen = Some(Chosen { place, lines_above });
        None
    }

    /// Looks further down, and at no message in particular behind the last one; tells which page is missing.
    pub fn down(&mut self, messages: usize, width: u16, height: u16, zone: &Zone) -> Option<Page> {
        let mut chosen = self.chosen.clone()?;
        let step = usize::from(height / 2).max(1);
        let hidden = self.lines_hidden(&chosen.place, width, height, zone);
        if chosen.lines_above < hidden {
            chosen.lines_above = (chosen.lines_above + step).min(hidden);
            self.chosen = Some(chosen);
            return None;
        }
        let after = std::ops::Bound::Excluded(&chosen.place);
        let below = self.messages.range((after, std::ops::Bound::Unbounded)).take(messages.max(1)).last();
        let place = below.map(|(place, _)| place.clone());
        match place {
            Some(place) => self.chosen = Some(Chosen { place, lines_above: 0 }),
            None if self.ends => self.chosen = None,
            None => return self.missing_after(),
        }
        None
    }

    /// Looks at the end again.
    pub fn leave(&mut self) {
        self.chosen = None;
    }

    /// Which conversation it is.
    pub fn conversation(&self) -> &str {
        &self.conversation
    }

    /// Whether nothing is here, and nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && !self.loading
    }

    /// Whether the last message of the conversation is among those held.
    pub fn shows_latest(&self) -> bool {
        self.ends
    }

    /// The message that the user looks at.
    pub fn chosen(&self) -> Option<&Message> {
        self.messages.get(&self.chosen.as_ref()?.place)
    }

    /// Whether the user looks at a message that cannot be shown.
    pub fn is_at_gap(&self) -> bool {
        self.chosen().is_some_and(|message| self.gaps.contains(&message.id))
    }

    /// The lines that fit, around the message that the user looks at, or else the last ones.
    pub fn lines(&self, width: u16, height: u16, zone: &Zone) -> Vec<Line<'static>> {
        let height = usize::from(height);
        let Some(chosen) = &self.chosen else {
            return self.lines_above(None, width, height, zone);
        };
        let Some(message) = self.messages.get(&chosen.place) else { return Vec::new() };
        let own = self.lines_of(&chosen.place, message, width, zone);
        if own.len() >= height {
            return own.into_iter().skip(chosen.lines_above).take(height).collect();
        }
        let room = height - own.len();
        let below = self.lines_below(&chosen.place, width, room, zone);
        let above = self.lines_above(Some(&chosen.place), width, room, zone);
        // Half of the room above, or more when there is less below.
        let above_wanted = (room / 2).max(room.saturating_sub(below.len())).min(above.len());
        let hidden = above.len() - above_wanted;
        let mut lines: Vec<_> = above.into_iter().skip(hidden).collect();
        lines.extend(own);
        lines.extend(below);
        lines.truncate(height);
        lines
    }

    /// The last lines before a message, or of all.
    fn lines_above(&self, end: Option<&Place>, width: u16, room: usize, zone: &Zone) -> Vec<Line<'static>> {
        let mut blocks = Vec::new();
        let mut count = 0;
        for (place, message) in
            self.messages.iter().rev().skip_while(|(place, _)| end.is_some_and(|end| *place >= end))
        {
            if count >= room {
                break;
            }
            let block = self.lines_of(place, message, width, zone);
            count += block.len();
            blocks.push(block);
        }
        let lines = blocks.into_iter().rev().flatten();
        lines.skip(count.saturating_sub(room)).collect()
    }

    /// The first lines behind a message.
    fn lines_below(&self, start: &Place, width: u16, room: usize, zone: &Zone) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        let after = (std::ops::Bound::Excluded(start), std::ops::Bound::Unbounded);
        for (place, message) in self.messages.range(after) {
            if lines.len() >= room {
                break;
            }
            lines.extend(self.lines_of(place, message, width, zone));
        }
        lines.truncate(room);
        lines
    }

    /// One message, under the day if it is the first of it.
    fn lines_of(&self, place: &Place, message: &Message, width: u16, zone: &Zone) -> Vec<Line<'static>> {
        let chosen = self.chosen.as_ref().is_some_and(|chosen| chosen.place == *place);
        let mark = if chosen { "▌" } else { " " };
        let mut lines = Vec::new();
        let day = zone.day(message.sent_ms);
        let before = self.messages.range(..place).next_back();
        if before.is_none_or(|(_, before)| zone.day(before.sent_ms) != day) {
            let rule = format!("── {day} ──");
            lines.push(Line::styled(rule, Style::new().add_modifier(Modifier::DIM)).centered());
        }
        if self.gaps.contains(&message.id) {
            let dim = Style::new().add_modifier(Modifier::DIM);
            let room = usize::from(width).saturating_sub(INDENT + 1);
            let head = format!("{} a closed message", zone.time(message.sent_ms));
            lines.push(Line::from(vec![Span::raw(mark), Span::styled(head, dim)]));
            for text in wrap(&message.text, room) {
                let text = Span::styled(text, dim);
                lines.push(Line::from(vec![Span::raw(mark), Span::raw(" ".repeat(INDENT)), text]));
            }
            return lines;
        }
        let state = match words::delivery(message, zone) {
            state if state.is_empty() => state,
            state => format!(" · {state}"),
        };
        lines.push(Line::from(vec![
            Span::raw(mark),
            Span::styled(zone.time(message.sent_ms), Style::new().add_modifier(Modifier::DIM)),
            Span::raw(" "),
            Span::styled(words::sender(message).to_owned(), Style::new().add_modifier(Modifier::BOLD)),
            Span::raw(state),
        ]));
        let room = usize::from(width).saturating_sub(INDENT + 1);
        for text in wrap(&text_of(message), room) {
            lines.push(Line::from(vec![Span::raw(mark), Span::raw(" ".repeat(INDENT)), Span::raw(text)]));
        }
        lines
    }

    /// How many lines of a message do not fit into the window.
    fn lines_hidden(&self, place: &Place, width: u16, height: u16, zone: &Zone) -> usize {
        let lines = self.messages.get(place).map(|message| self.lines_of(place, message, width, zone).len());
        lines.unwrap_or(0).saturating_sub(usize::from(height))
    }

    fn missing_before(&mut self) -> Option<Page> {
        if self.begins || self.loading {
            return None;
        }
        let first = self.messages.values().find(|message| !self.gaps.contains(&message.id))?;
        self.loading = true;
        Some(Page::Before(first.id.clone()))
    }

    fn missing_after(&mut self) -> Option<Page> {
        if self.ends || self.loading {
            return None;
        }
        let last = self.messages.values().rfind(|message| !self.gaps.contains(&message.id))?;
        self.loading = true;
        Some(Page::After(last.id.clone()))
    }

    /// A gap stands where its message would, and says why it is one.
    fn insert_gap(&mut self, gap: Gap) {
        let message = Message {
            id: gap.id.clone(),
            short_id: gap.short_id,
            conversation: gap.conversation,
            order: gap.order,
            text: gap.sentence,
            sent_ms: gap.since_ms,
            kept_ms: gap.since_ms,
            ..Message::default()
        };
        self.insert(message);
        self.gaps.insert(gap.id);
    }

    fn insert(&mut self, message: Message) {
        self.gaps.remove(&message.id);
        let place = place_of(&message);
        if let Some(old) = self.places.insert(message.id.clone(), place.clone()) {
            self.messages.remove(&old);
            if let Some(chosen) = self.chosen.as_mut().filter(|chosen| chosen.place == old) {
                chosen.place = place.clone();
            }
        }
        self.messages.insert(place, message);
    }

    fn forget_first(&mut self) {
        while self.messages.len() > MESSAGES_HELD_MAX {
            if let Some((_, message)) = self.messages.pop_first() {
                self.places.remove(&message.id);
                self.gaps.remove(&message.id);
            }
            self.begins = false;
        }
    }

    fn forget_last(&mut self) {
        if let Some((_, message)) = self.messages.pop_last() {
            self.places.remove(&message.id);
            self.gaps.remove(&message.id);
        }
        self.ends = false;
    }
}

fn place_of(message: &Message) -> Place {
    (message.order.clone(), message.id.clone())
}

/// What a message says.
fn text_of(message: &Message) -> String {
    match (message.kind(), &message.invitation) {
        (MessageKind::Invitation, Some(invitation)) if invitation.joined => {
            format!("Invitation to the group {} (you are in it)", invitation.group_name)
        }
        (MessageKind::Invitation, Some(invitation)) if !message.own => {
            format!(
                "Invitation to the group {}: choose this message and press g to join",
                invitation.group_name
            )
        }
        (MessageKind::Invitation, Some(invitation)) => {
            format!("Invitation to the group {}", invitation.group_name)
        }
        _ => message.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32) -> Message {
        Message {
            id: format!("id{number}"),
            order: number.to_be_bytes().to_vec(),
            text: format!("text {number}"),
            ..Message::default()
        }
    }

    fn thread(numbers: std::ops::Range<u32>) -> Thread {
        let mut thread = Thread::new("c".to_owned());
        thread.loaded(Page::Latest, numbers.map(message).collect(), Vec::new());
        thread
    }

    fn texts(thread: &Thread) -> Vec<&str> {
        thread.messages.values().map(|message| message.text.as_str()).collect()
    }

    #[test]
    fn a_late_message_finds_its_place() {
        let mut thread = thread(1..1);
        for number in [3, 1, 2, 2] {
            thread.added(message(number));
        }
        assert_eq!(texts(&thread), ["text 1", "text 2", "text 3"]);
    }

    #[test]
    fn a_message_that_moves_is_there_once() {
        let mut thread = thread(1..3);
        thread.choose_last();
        thread.changed(Message { order: vec![0], ..message(2) });
        assert_eq!(texts(&thread), ["text 2", "text 1"]);
        assert_eq!(thread.chosen().unwrap().id, "id2");
        thread.changed(message(7));
        assert_eq!(texts(&thread).len(), 2);
    }

    #[test]
    fn a_gap_stands_in_its_place_until_its_message_is_open() {
        let gap = |number: u32| Gap {
            id: format!("id{number}"),
            order: number.to_be_bytes().to_vec(),
            sentence: "closed".to_owned(),
            ..Gap::default()
        };
        let mut thread = Thread::new("c".to_owned());
        let full = (101..101 + PAGE_MESSAGES).map(message).collect();
        thread.loaded(Page::Latest, full, vec![gap(100), gap(150)]);
        thread.gap(gap(10));
        thread.gap(gap(300));
        assert!(!texts(&thread).contains(&"text 150") && texts(&thread).last() == Some(&"closed"));
        thread.choose_last();
        assert!(thread.is_at_gap());
        assert_eq!(thread.go_to_first(), Some(Page::Before("id101".into())), "a page begins at a message");
        thread.added(message(300));
        thread.choose_last();
        assert!(!thread.is_at_gap() && thread.chosen().unwrap().text == "text 300");
        thread.erased("id150");
        assert_eq!(texts(&thread).iter().filter(|text| **text == "closed").count(), 1, "that of the page");
    }

    #[test]
    fn an_erased_message_leaves_its_place_to_the_next() {
        let mut thread = thread(1..4);
        thread.go_to_first();
        thread.erased("id2");
        assert_eq!(texts(&thread), ["text 1", "text 3"]);
        assert_eq!(thread.chosen().unwrap().id, "id1");
        thread.erased("id1");
        assert_eq!(thread.chosen().unwrap().id, "id3");
        thread.erased("id1");
        thread.erased("id3");
        assert!(thread.chosen().is_none() && texts(&thread).is_empty());
    }

    #[test]
    fn the_past_comes_in_pages_and_memory_stays_bounded() {
        let zone = Zone::of_tests();
        let mut thread = thread(9_900..10_000);
        thread.choose_last();
        let mut first = 9_900;
        for _ in 0..50 {
            let page = thread.go_to_first().unwrap();
            assert_eq!(page, Page::Before(format!("id{first}")));
            assert_eq!(thread.up(1, 40, 10, &zone), None, "asked once");
            first -= PAGE_MESSAGES;
            thread.loaded(page, (first..first + PAGE_MESSAGES).map(message).collect(), Vec::new());
            assert!(thread.messages.len() <= MESSAGES_HELD_MAX);
        }
        assert!(!thread.shows_latest());
        thread.added(message(20_000));
        assert_ne!(texts(&thread).last(), Some(&"text 20000"), "it comes with its page");

        let mut pages = 0;
        while thread.chosen().is_some() {
            if let Some(Page::After(id)) = thread.down(30, 40, 10, &zone) {
                let after: u32 = id.trim_start_matches("id").parse().unwrap();
                let end = (after + 1 + PAGE_MESSAGES).min(10_000);
                thread.loaded(Page::After(id), (after + 1..end).map(message).collect(), Vec::new());
                pages += 1;
                assert!(thread.messages.len() <= MESSAGES_HELD_MAX);
            }
        }
        assert!(thread.shows_latest() && pages > 30);
    }

    #[test]
    fn a_message_longer_than_the_window_can_be_read() {
        let zone = Zone::of_tests();
        let text: Vec<String> = (0..50).map(|line| format!("line {line}")).collect();
        let mut thread = thread(1..2);
        thread.added(Message { text: text.join("\n"), ..message(2) });
        thread.choose_last();
        let shown = |thread: &Thread| -> String {
            thread.lines(40, 10, &zone).iter().map(|line| format!("{line}\n")).collect()
        };
        assert!(shown(&thread).contains("line 3"));
        let mut steps = 0;
        while !shown(&thread).contains("line 49") {
            thread.down(1, 40, 10, &zone);
            steps += 1;
            assert!(steps < 20);
        }
        thread.down(1, 40, 10, &zone);
        assert!(thread.chosen().is_none());
        thread.choose_last();
        thread.up(1, 40, 10, &zone);
        assert_eq!(thread.chosen().unwrap().id, "id1");
    }
}
