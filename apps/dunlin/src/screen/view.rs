//! How the screen looks. Words and places carry the meaning; no colours do.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect, Size};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Borders, Clear, Padding, Paragraph};
use unicode_width::UnicodeWidthStr;

use super::dialog::{Card, Dialog, Invite, Question, Wanted};
use super::wrap::{shorten, wrap};
use super::{Focus, Row, Screen};
use crate::output::harmless;
use crate::qr::{QUIET_MAX, QUIET_MIN, Qr};
use crate::words::{self, Zone};
use dunlin_proto::chat::{Contact, ContactState, Conversation, ConversationKind, Member};

/// Narrower than this, the list and the conversation take turns.
const TWO_PANES_COLUMNS_MIN: u16 = 60;
/// Columns of the list beside a conversation.
const LIST_COLUMNS: std::ops::RangeInclusive<u16> = 20..=32;
/// Lines of the input; a longer text scrolls.
const INPUT_LINES_MAX: u16 = 5;
/// Lines that a sentence at the bottom may take.
const TOLD_LINES_MAX: usize = 4;
/// Widest dialog, in columns.
const DIALOG_COLUMNS_MAX: u16 = 64;
/// Groups of the safety number in a line.
const SAFETY_GROUPS: usize = 4;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Columns and lines that messages have on a terminal of this size, while one line is written.
pub fn thread_size(size: Size) -> (u16, u16) {
    let columns = match size.width >= TWO_PANES_COLUMNS_MIN {
        true => size.width.saturating_sub(list_columns(size.width) + 1),
        false => size.width,
    };
    // Title bar, title of the conversation, rule, one line of input, help.
    (columns, size.height.saturating_sub(5))
}

fn list_columns(columns: u16) -> u16 {
    (columns / 3).clamp(*LIST_COLUMNS.start(), *LIST_COLUMNS.end())
}

impl Screen {
    /// Draws everything.
    pub fn render(&self, frame: &mut Frame) {
        let area = frame.area();
        let told = self.told_lines(area.width);
        let [top, body, told_area, help] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(told.len() as u16),
            Constraint::Length(1),
        ])
        .areas(area);
        self.render_top(frame, top);
        if area.width >= TWO_PANES_COLUMNS_MIN {
            let [list, rule, thread] = Layout::horizontal([
                Constraint::Length(list_columns(area.width)),
                Constraint::Length(1),
                Constraint::Min(0),
            ])
            .areas(body);
            self.render_list(frame, list);
            frame.render_widget(Block::new().borders(Borders::LEFT).border_style(DIM), rule);
            self.render_pane(frame, thread);
        } else if self.focus == Focus::List {
            self.render_list(frame, body);
        } else {
            self.render_pane(frame, body);
        }
        frame.render_widget(Paragraph::new(told).style(BOLD), told_area);
        frame.render_widget(self.help_line(area.width), help);
        if let Some(dialog) = &self.dialog {
            self.render_dialog(frame, area, dialog);
        }
        disarm(frame.buffer_mut());
    }

    fn render_top(&self, frame: &mut Frame, area: Rect) {
        let rows = self.rows();
        let requests = rows.iter().filter(|row| matches!(row, Row::Request(_))).count();
        let unread: u32 = self.conversations.values().map(|shown| shown.unread).sum();
        let mut right = Vec::new();
        if requests > 0 {
            right.push(words::count(requests as u32, "request", "requests"));
        }
        if unread > 0 {
            right.push(format!("{unread} unread"));
        }
        let right = format!("{} ", right.join(" · "));
        let room = usize::from(area.width).saturating_sub(right.width() + 9);
        let left = format!(" Dunlin  {}", shorten(&self.profile.name, room));
        let gap = usize::from(area.width).saturating_sub(left.width() + right.width());
        frame.render_widget(Line::styled(format!("{left}{}{right}", " ".repeat(gap)), CHOSEN), area);
    }

    fn render_list(&self, frame: &mut Frame, area: Rect) {
        let rows = self.rows();
        if rows.is_empty() && area.width == frame.area().width {
            return self.render_welcome(frame, area);
        }
        let height = usize::from(area.height);
        let selected = self.selected.as_ref().and_then(|row| rows.iter().position(|other| other == row));
        // The selected row stays in sight, with rows around it.
        let first = selected.unwrap_or(0).saturating_sub(height / 2).min(rows.len().saturating_sub(height));
        let shown = rows.iter().enumerate().skip(first).take(height);
        let lines: Vec<Line> =
            shown.map(|(index, row)| self.list_line(row, Some(index) == selected, area.width)).collect();
        frame.render_widget(Paragraph::new(lines), area);
    }

    /// How to begin, while there is nobody.
    fn render_welcome(&self, frame: &mut Frame, area: Rect) {
        if !self.loaded {
            return;
        }
        let width = usize::from(area.width).saturating_sub(2);
        let mut lines = Vec::new();
        for text in [
            "Nobody is here yet.",
            "",
            "Press l to see your link, and give it to somebody.",
            "Press a to add a contact by the link that they gave you.",
        ] {
            lines.extend(paragraph(text, width));
        }
        frame.render_widget(Paragraph::new(lines).block(Block::new().padding(Padding::left(1))), area);
    }

    /// One row: mark, name, and what there is to know at the right edge.
    fn list_line(&self, row: &Row, selected: bool, width: u16) -> Line<'static> {
        let (sign, name, right) = match row {
            Row::Request(_) => ("?", self.name_of(row), "asks".to_owned()),
            Row::Asked(_) => match self.contact_of(row).map(Contact::state) {
                Some(ContactState::Blocked) => ("-", self.name_of(row), "blocked".to_owned()),
                _ => ("…", self.name_of(row), "asked".to_owned()),
            },
            Row::Conversation(id) => {
                let shown = self.conversations.get(id);
                let state = self.contact_of(row).map(Contact::state);
                let sign = match (shown.map(Conversation::kind), state) {
                    (Some(ConversationKind::Group), _) => "#",
                    (_, Some(ContactState::Kept | ContactState::Sent)) => "…",
                    (_, Some(ContactState::Blocked)) => "-",
                    _ => " ",
                };
                let right = match (shown, state) {
                    (Some(shown), _) if shown.unread > 0 => format!("({})", shown.unread),
                    (Some(shown), _) if shown.left => "left".to_owned(),
                    (_, Some(ContactState::Kept | ContactState::Sent)) => "asked".to_owned(),
                    (_, Some(ContactState::Blocked)) => "blocked".to_owned(),
                    _ => String::new(),
                };
                (sign, self.name_of(row), right)
            }
        };
        let mark = if selected { "›" } else { " " };
        let room = usize::from(width).saturating_sub(right.width() + 5);
        let name = shorten(&name, room);
        let gap = room.saturating_sub(name.width());
        let text = format!("{mark}{sign} {name}{} {right} ", " ".repeat(gap));
        let loud = matches!(row, Row::Request(_)) || right.starts_with('(');
        let style = if loud { BOLD } else { Style::new() };
        let style = if selected && self.focus == Focus::List { style.patch(CHOSEN) } else { style };
        Line::styled(text, style)
    }

    fn name_of(&self, row: &Row) -> String {
        let contact = || self.contact_of(row).map(|contact| contact.name.clone());
        let conversation = || self.conversations.get(row.id()).map(|shown| shown.name.clone());
        conversation().or_else(contact).unwrap_or_default()
    }

    /// What the selected row stands for.
    fn render_pane(&self, frame: &mut Frame, area: Rect) {
        match &self.selected {
            Some(Row::Conversation(conversation)) => self.render_thread(frame, area, conversation),
            Some(row) => {
                let Some(contact) = self.contact_of(row) else { return };
                let width = usize::from(area.width).saturating_sub(2);
                let mut text = vec![Line::styled(shorten(&contact.name, width), BOLD), Line::default()];
                text.extend(contact_lines(contact, width, &self.zone));
                if matches!(row, Row::Request(_)) {
                    text.extend(paragraph("Press enter to answer.", width));
                }
                frame.render_widget(Paragraph::new(text).block(Block::new().padding(Padding::left(1))), area);
            }
            None => self.render_welcome(frame, area),
        }
    }

    fn render_thread(&self, frame: &mut Frame, area: Rect, conversation: &str) {
        let Some(shown) = self.conversations.get(conversation) else { return };
        let lines_wanted = self.input_lines(area.width);
        let [title, messages, rule, input] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
            Constraint::Length(lines_wanted),
        ])
        .areas(area);

        let right = format!("{} ", presence(shown, self.contacts.get(&shown.contact)));
        let room = usize::from(title.width).saturating_sub(right.width() + 2);
        let name = shorten(&shown.name, room);
        let gap = " ".repeat(room.saturating_sub(name.width()) + 1);
        let spans = vec![Span::raw(" "), Span::styled(name, BOLD), Span::raw(gap), Span::styled(right, DIM)];
        frame.render_widget(Line::from(spans), title);

        let Some(thread) = &self.thread else { return };
        let lines = if thread.is_empty() {
            self.lines_before_the_first(shown, messages.width)
        } else {
            thread.lines(messages.width, messages.height, &self.zone)
        };
        // The latest message stands right above the input.
        let lines_missing = usize::from(messages.height).saturating_sub(lines.len());
        let mut text = vec![Line::default(); lines_missing];
        text.extend(lines);
        frame.render_widget(Paragraph::new(text), messages);

        let rule_text = match shown.closed {
            0 => String::new(),
            closed => {
                format!("─ {} cannot be opened yet (w) ", words::count(closed, "message", "messages"))
            }
        };
        let rest = usize::from(rule.width).saturating_sub(rule_text.width());
        frame.render_widget(Line::styled(format!("{rule_text}{}", "─".repeat(rest)), DIM), rule);
        self.render_input(frame, input, shown);
    }

    /// What is told while nothing was written: with whom this is.
    fn lines_before_the_first(&self, shown: &Conversation, width: u16) -> Vec<Line<'static>> {
        let mut lines = match self.contacts.get(&shown.contact) {
            Some(contact) => contact_lines(contact, usize::from(width).saturating_sub(2), &self.zone),
            None => Vec::new(),
        };
        lines.push(Line::styled("Nothing was written yet.", DIM));
        for line in &mut lines {
            line.spans.insert(0, Span::raw(" "));
        }
        lines
    }

    fn render_input(&self, frame: &mut Frame, area: Rect, shown: &Conversation) {
        let [mark, field] = Layout::horizontal([Constraint::Length(2), Constraint::Min(0)]).areas(area);
        if shown.left {
            frame.render_widget(Line::styled(" You left this group; it can only be read.", DIM), area);
            return;
        }
        let writing = self.focus == Focus::Input && self.dialog.is_none();
        frame.render_widget(Span::styled("›", if writing { BOLD } else { DIM }), mark);
        let mut input = self.input.clone();
        if !writing {
            input.set_cursor_style(Style::new());
        }
        if input.is_empty() && !writing {
            let invitation = format!("write to {}", shown.name);
            frame.render_widget(Line::styled(shorten(&invitation, usize::from(field.width)), DIM), field);
            return;
        }
        frame.render_widget(&input, field);
    }

    /// How many lines the input takes as it is.
    fn input_lines(&self, width: u16) -> u16 {
        let room = usize::from(width).saturating_sub(3);
        let lines: usize = self.input.lines().iter().map(|line| wrap(line, room).len()).sum();
        (lines as u16).clamp(1, INPUT_LINES_MAX)
    }

    fn told_lines(&self, width: u16) -> Vec<Line<'static>> {
        let Some(told) = &self.told else { return Vec::new() };
        let lines = wrap(told, usize::from(width).saturating_sub(4));
        let line = |(index, text): (usize, String)| {
            let mark = if index == 0 { " ! " } else { "   " };
            Line::raw(format!("{mark}{text}"))
        };
        lines.into_iter().take(TOLD_LINES_MAX).enumerate().map(line).collect()
    }

    /// What the keys do here; what does not fit is in the help.
    fn help_line(&self, width: u16) -> Line<'static> {
        let keys: &[(&str, &str)] = match self.focus {
            Focus::List => &[
                ("enter", "open"),
                ("l", "my link"),
                ("a", "add"),
                ("?", "help"),
                ("n", "new group"),
                ("g", "join group"),
                ("i", "details"),
                ("q", "quit"),
            ],
            Focus::Input => &[
                ("enter", "send"),
                ("esc", "list"),
                ("↑", "messages"),
                ("alt+enter", "new line"),
                ("F1", "help"),
            ],
            Focus::Messages => &[
                ("↑↓", "choose"),
                ("w", "why"),
                ("x", "erase"),
                ("esc", "back"),
                ("g", "join"),
                ("F1", "help"),
            ],
        };
        keys_line(keys, width)
    }

    fn render_dialog(&self, frame: &mut Frame, area: Rect, dialog: &Dialog) {
        let width = area.width.min(DIALOG_COLUMNS_MAX);
        let room = usize::from(width).saturating_sub(4);
        match dialog {
            Dialog::Help => {
                dialog_box(frame, area, width, "Keys", help_text(room), &[("esc", "close")]);
            }
            Dialog::Link(card) => render_link(frame, area, card),
            Dialog::Question(question) => render_question(frame, area, width, question),
            Dialog::Answer { contact } => {
                let Some(contact) = self.contacts.get(contact) else { return };
                let keys = [("a", "accept"), ("r", "refuse"), ("b", "block"), ("esc", "later")];
                let title = format!("{} asks to talk with you", contact.name);
                dialog_box(frame, area, width, &title, contact_lines(contact, room, &self.zone), &keys);
            }
            Dialog::Details { row, members } => self.render_details(frame, area, width, row, members),
            Dialog::Invite(invite) => {
                let keys = [("space", "choose"), ("enter", "invite"), ("esc", "close")];
                dialog_box(frame, area, width, "Invite to the group", invite_lines(invite, room), &keys);
            }
            Dialog::Why { sentence } => {
                let sentence = sentence.as_deref().unwrap_or("…");
                dialog_box(frame, area, width, "Why", paragraph(sentence, room), &[("esc", "close")]);
            }
            Dialog::Leave { conversation } => {
                let name = self.conversations.get(conversation).map_or("", |shown| shown.name.as_str());
                let question = format!(
                    "Leave the group {name}? You receive nothing more from it. What you received stays readable."
                );
                let keys = [("y", "leave"), ("n", "stay")];
                dialog_box(frame, area, width, "Leave the group", paragraph(&question, room), &keys);
            }
            Dialog::Erase { own, .. } => {
                let question = match own {
                    true => words::ERASE_OWN,
                    false => words::ERASE_THEIRS,
                };
                let keys = [("y", "erase"), ("n", "keep")];
                dialog_box(frame, area, width, "Erase the message", paragraph(question, room), &keys);
            }
        }
    }

    fn render_details(&self, frame: &mut Frame, area: Rect, width: u16, row: &Row, members: &[Member]) {
        let room = usize::from(width).saturating_sub(4);
        let group = self.conversations.get(row.id()).filter(|shown| shown.kind() == ConversationKind::Group);
        if let Some(group) = group {
            let mut lines: Vec<Line> = Vec::new();
            for member in members {
                let name = match (member.own, member.name.as_str()) {
                    (true, _) => words::YOU,
                    (false, "") => "somebody who has not told their name",
                    (false, name) => name,
                };
                let reach = if member.online { " · in reach" } else { "" };
                lines.push(Line::raw(shorten(&format!("{name}{reach}"), room)));
            }
            let keys: &[(&str, &str)] = match group.left {
                true => &[("l", "link"), ("esc", "close")],
                false => &[("a", "invite"), ("l", "link"), ("x", "leave"), ("w", "why"), ("esc", "close")],
            };
            let title = format!("{}: {}", group.name, words::count(group.members, "member", "members"));
            dialog_box(frame, area, width, &title, lines, keys);
            return;
        }
        let Some(contact) = self.contact_of(row) else { return };
        let block = match contact.state() {
            ContactState::Blocked => ("u", "unblock"),
            _ => ("b", "block"),
        };
        let keys = [block, ("w", "why"), ("esc", "close")];
        dialog_box(frame, area, width, &contact.name, contact_lines(contact, room, &self.zone), &keys);
    }
}

/// Takes out of every cell what could control the terminal, whoever it came from and whichever way.
fn disarm(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        let shown = harmless(cell.symbol());
        if shown != cell.symbol() {
            cell.set_symbol(if shown.is_empty() { " " } else { &shown });
        }
    }
}

/// Who can be reached, for the title of a conversation.
fn presence(shown: &Conversation, contact: Option<&Contact>) -> String {
    if shown.left {
        return "you left".to_owned();
    }
    if let Some(contact) = contact {
        return match (contact.state(), contact.online) {
            (ContactState::Blocked, _) => "blocked".to_owned(),
            (ContactState::Kept, _) => "asked, kept here".to_owned(),
            (ContactState::Sent, _) => "asked, not answered".to_owned(),
            (_, true) => "in reach".to_owned(),
            (_, false) => "not in reach".to_owned(),
        };
    }
    let members = words::count(shown.members, "member", "members");
    match shown.devices_online {
        0 => members,
        online => format!("{members} · {} in reach", words::count(online, "device", "devices")),
    }
}

/// Everything that helps to decide about somebody.
fn contact_lines(contact: &Contact, width: usize, zone: &Zone) -> Vec<Line<'static>> {
    let mut lines = paragraph(&words::story(contact, zone), width);
    lines.push(Line::default());
    lines.push(Line::styled("Safety number", BOLD));
    let groups: Vec<&str> = contact.safety_number.split(' ').collect();
    lines.extend(groups.chunks(SAFETY_GROUPS).map(|groups| Line::raw(format!("  {}", groups.join(" ")))));
    lines.push(Line::default());
    let explanation = format!(
        "Compare it with {}, face to face or by phone. If both see the same, nobody sits between you.",
        contact.name
    );
    lines.extend(paragraph(&explanation, width));
    lines.push(Line::default());
    lines
}

fn invite_lines(invite: &Invite, width: usize) -> Vec<Line<'static>> {
    if invite.choices.is_empty() {
        return paragraph("You have no contacts to invite yet.", width);
    }
    let line = |(index, choice): (usize, &super::dialog::Choice)| {
        let mark = if choice.chosen { "x" } else { " " };
        let text = shorten(&format!("[{mark}] {}", choice.name), width);
        Line::styled(text, if index == invite.at { CHOSEN } else { Style::new() })
    };
    invite.choices.iter().enumerate().map(line).collect()
}

fn help_text(width: usize) -> Vec<Line<'static>> {
    let entries = [
        ("In the list", ""),
        ("enter", "write, or answer a request"),
        ("l", "your link and its QR code"),
        ("a", "add a contact by their link"),
        ("n  g", "new group, join a group by link"),
        ("i  w", "details, what it waits for"),
        ("In a conversation", ""),
        ("enter", "send; alt+enter begins a line"),
        ("esc", "back to the list"),
        ("↑ ↓", "choose a message, read the past"),
        ("w  x  g", "why it waits, erase it, join a group"),
        ("Own messages are", ""),
        ("kept here", "no device has it yet"),
        ("sent", "a device has it"),
        ("received", "a member confirmed it"),
        ("Anywhere", ""),
        ("ctrl-c", "end Dunlin"),
    ];
    let line = |(key, meaning): (&str, &str)| match meaning {
        "" => Line::styled(key.to_owned(), BOLD),
        meaning => Line::raw(shorten(&format!("  {key:<10} {meaning}"), width)),
    };
    entries.into_iter().map(line).collect()
}

fn render_question(frame: &mut Frame, area: Rect, width: u16, question: &Question) {
    let room = usize::from(width).saturating_sub(4);
    let (title, explanation, done) = match &question.wanted {
        Wanted::ContactLink => (
            "Add a contact",
            "Paste the link that they gave you. They will see your name and can accept.",
            "ask",
        ),
        Wanted::ContactPassphrase { .. } | Wanted::GroupPassphrase { .. } => {
            ("Protected link", "This link needs the passphrase that was agreed with it.", "go on")
        }
        Wanted::GroupName => ("New group", "What is it called? You can invite contacts then.", "make"),
        Wanted::GroupLink => ("Join a group", "Paste the link of the group.", "join"),
    };
    let mut lines = paragraph(explanation, room);
    lines.push(Line::default());
    // The field is drawn over these; the cursor takes a column too.
    let typed: usize = question.editor.lines().iter().map(|line| line.width() + 1).sum();
    let field_lines = (typed.div_ceil(room.max(1)) as u16).clamp(1, INPUT_LINES_MAX);
    let field_at = lines.len() as u16;
    lines.extend(vec![Line::default(); usize::from(field_lines)]);
    lines.push(Line::default());
    if let Some(refusal) = &question.refusal {
        lines.extend(paragraph(refusal, room).into_iter().map(|line| line.style(BOLD)));
    }
    let inner = dialog_box(frame, area, width, title, lines, &[("enter", done), ("esc", "close")]);
    let field = Rect { y: inner.y.saturating_add(field_at), height: field_lines, ..inner };
    frame.render_widget(&question.editor, field.intersection(inner));
}

/// A link on the whole screen: its QR code, or its letters from edge to edge so that they can be copied.
fn render_link(frame: &mut Frame, area: Rect, card: &Card) {
    frame.render_widget(Clear, area);
    let [body, help] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(area);
    let other = if card.as_letters { "QR code" } else { "letters" };
    frame.render_widget(keys_line(&[("tab", other), ("c", "copy"), ("esc", "close")], area.width), help);
    let qr = Qr::of(&card.qr_link).filter(|_| !card.as_letters && !card.qr_link.is_empty());
    let fits = |qr: &Qr, quiet: usize| {
        let (columns, rows) = qr.size(quiet);
        columns <= usize::from(body.width) && rows <= usize::from(body.height)
    };
    // The more space around it the better, but it must fit.
    let quiet = qr.as_ref().and_then(|qr| (QUIET_MIN..=QUIET_MAX).rev().find(|quiet| fits(qr, *quiet)));
    if let (Some(qr), Some(quiet)) = (&qr, quiet) {
        return render_qr(frame, body, qr, quiet, card);
    }
    let width = usize::from(body.width);
    let mut lines = vec![Line::styled(shorten(&card.title, width), BOLD), Line::default()];
    lines.extend(paragraph(if card.link.is_empty() { "…" } else { &card.link }, width));
    if let Some(qr) = qr {
        let (columns, rows) = qr.size(QUIET_MIN);
        let needed = format!("The QR code needs a terminal of {columns} columns and {} lines.", rows + 1);
        lines.push(Line::default());
        lines.extend(paragraph(&needed, width));
    }
    frame.render_widget(Paragraph::new(lines), body);
}

/// The code, and what it is for where there is room beside it.
fn render_qr(frame: &mut Frame, area: Rect, qr: &Qr, quiet: usize, card: &Card) {
    let (columns, rows) = qr.size(quiet);
    let code: Vec<Line> = qr.lines(quiet).into_iter().map(Line::raw).collect();
    // A code is dark on light, whatever the terminal is.
    let style = Style::new().fg(Color::Black).bg(Color::White);
    let place = Rect { width: columns as u16, height: rows as u16, ..area };
    frame.render_widget(Paragraph::new(code).style(style), place);
    let beside = Rect {
        x: place.right().saturating_add(2).min(area.right()),
        width: area.width.saturating_sub(place.width + 2),
        ..area
    };
    let width = usize::from(beside.width);
    let mut lines = vec![Line::default(), Line::styled(shorten(&card.title, width), BOLD), Line::default()];
    lines.extend(paragraph(&card.purpose, width));
    frame.render_widget(Paragraph::new(lines), beside);
}

/// Draws a frame around some lines, with the keys below, and tells where the lines are.
fn dialog_box(
    frame: &mut Frame,
    area: Rect,
    width: u16,
    title: &str,
    mut lines: Vec<Line<'static>>,
    keys: &[(&str, &str)],
) -> Rect {
    // The keys stay in sight when there are too many lines.
    let height = (lines.len() as u16).saturating_add(3).min(area.height);
    lines.truncate(usize::from(height.saturating_sub(3)));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let title = format!(" {} ", shorten(title, usize::from(width).saturating_sub(6)));
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .title(Span::styled(title, BOLD))
        .padding(Padding::horizontal(1));
    let inner = block.inner(place);
    frame.render_widget(block, place);
    let [text, help] = Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(inner);
    frame.render_widget(Paragraph::new(lines), text);
    frame.render_widget(keys_line(keys, help.width), help);
    text
}

fn paragraph(text: &str, width: usize) -> Vec<Line<'static>> {
    wrap(text, width).into_iter().map(Line::raw).collect()
}

/// Keys and what they do, as many as fit.
fn keys_line(keys: &[(&str, &str)], width: u16) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 1;
    for (key, meaning) in keys {
        used += key.width() + meaning.width() + 3;
        if used > usize::from(width) + 2 {
            break;
        }
        spans.push(Span::styled(format!(" {key}"), BOLD));
        spans.push(Span::raw(format!(" {meaning} ")));
    }
    Line::from(spans)
}
