//! The loop between the terminal, the node and the [`Screen`].

use std::io;
use std::time::Duration;

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste, Event as TerminalEvent, EventStream};
use crossterm::execute;
use ratatui::DefaultTerminal;
use ratatui::layout::Size;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::client::Client;
use crate::failure::{Failure, reason_of, sentence_of};
use crate::screen::{Answer, Call, CallId, Effect, Event, PAGE_MESSAGES, Page, Refusal, Screen};
use crate::stop::Stop;
use crate::words::Zone;
use dunlin_proto::chat::read_reply::Event as ReadEvent;
use dunlin_proto::chat::{
    ContactAddRequest, ContactListRequest, ContactRef, ConversationRef, ConversationsRequest, EraseRequest,
    GetProfileRequest, GroupInviteRequest, GroupJoinRequest, GroupNewRequest, LinkForm, LinkRequest, Notice,
    ReadRequest, SendRequest, WatchRequest, WhyRequest,
};

/// Answers that wait to be shown. A call waits when there are more.
const ANSWERS_WAITING_MAX: usize = 32;
/// What happens in between is drawn together: the eye sees no more pictures in a second.
const FRAME_INTERVAL: Duration = Duration::from_millis(16);

/// Shows the chat until the user leaves it; `told` is a sentence to begin with.
pub async fn run(mut client: Client, told: Option<String>, stop: &mut Stop) -> Result<(), Failure> {
    // Watching begins before anything is read, so that nothing falls between the two.
    let utc_offset_minutes = Zone::of_machine().utc_offset_minutes();
    let notices = client.chat.watch(WatchRequest { utc_offset_minutes }).await?.into_inner();
    let failed = |error: io::Error| Failure::told(format!("The terminal cannot be used: {error}."));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let shown = match execute!(io::stdout(), EnableBracketedPaste) {
        Ok(()) => show(&mut terminal, client, notices, told, stop).await,
        Err(error) => Err(error),
    };
    // The terminal is given back even if it did not take everything.
    let _ = execute!(io::stdout(), DisableBracketedPaste);
    ratatui::restore();
    shown.map_err(failed)
}

async fn show(
    terminal: &mut DefaultTerminal,
    client: Client,
    notices: Streaming<Notice>,
    told: Option<String>,
    stop: &mut Stop,
) -> io::Result<()> {
    let zone = Zone::of_machine();
    let (mut screen, mut effects) = Screen::new(terminal.size()?, zone.clone(), told);
    let (answer_sender, mut answers) = mpsc::channel(ANSWERS_WAITING_MAX);
    let mut keys = EventStream::new();
    let mut notices = Some(notices);
    let mut draw_at = Some(Instant::now());
    loop {
        for effect in effects.drain(..) {
            match effect {
                Effect::Call(id, call) => {
                    tokio::spawn(answer(client.clone(), zone.clone(), id, call, answer_sender.clone()));
                }
                Effect::Copy(text) => execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text))?,
                Effect::Quit => return Ok(()),
            }
        }
        let event = tokio::select! {
            () = stop.wait() => return Ok(()),
            () = at(draw_at) => {
                draw_at = None;
                terminal.draw(|frame| screen.render(frame))?;
                continue;
            }
            event = keys.next() => match event {
                Some(event) => of_terminal(event?),
                None => return Ok(()),
            },
            Some((id, answer)) = answers.recv() => Some(Event::Answered(id, answer)),
            notice = next_notice(&mut notices) => Some(notice),
        };
        let Some(event) = event else { continue };
        effects = screen.update(event);
        draw_at = draw_at.or_else(|| Some(Instant::now() + FRAME_INTERVAL));
    }
}

/// Waits for the time, for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What the terminal tells, as far as the screen cares.
fn of_terminal(event: TerminalEvent) -> Option<Event> {
    match event {
        TerminalEvent::Key(key) => Some(Event::Key(key)),
        TerminalEvent::Paste(text) => Some(Event::Pasted(text)),
        TerminalEvent::Resize(width, height) => Some(Event::Resized(Size { width, height })),
        TerminalEvent::FocusGained | TerminalEvent::FocusLost | TerminalEvent::Mouse(_) => None,
    }
}

/// What changed in the node; after the end of the stream, nothing ever again.
async fn next_notice(notices: &mut Option<Streaming<Notice>>) -> Event {
    loop {
        let Some(stream) = notices else { return std::future::pending().await };
        match stream.next().await {
            Some(Ok(Notice { notice: Some(notice) })) => return Event::Noticed(notice),
            // A newer node tells something that this version cannot show.
            Some(Ok(Notice { notice: None })) => {}
            Some(Err(_)) | None => {
                *notices = None;
                return Event::Lost;
            }
        }
    }
}

/// Makes a call, and brings its answer.
async fn answer(
    client: Client,
    zone: Zone,
    id: CallId,
    call: Call,
    answers: mpsc::Sender<(CallId, Result<Answer, Refusal>)>,
) {
    let answer = perform(client, &zone, call)
        .await
        .map_err(|status| Refusal { reason: reason_of(&status).to_owned(), sentence: sentence_of(&status) });
    // Nobody listens once the chat is closed.
    let _ = answers.send((id, answer)).await;
}

async fn perform(client: Client, zone: &Zone, call: Call) -> Result<Answer, Status> {
    let mut chat = client.chat.clone();
    Ok(match call {
        Call::Load => load(client).await?,
        Call::Read { conversation, page } => read(client, zone, conversation, page).await?,
        Call::MarkRead { conversation } => {
            Answer::Conversation(chat.mark_read(ConversationRef { conversation }).await?.into_inner())
        }
        Call::Send { conversation, text } => {
            Answer::Sent(chat.send(SendRequest { conversation, text }).await?.into_inner())
        }
        Call::ContactAdd { link, passphrase } => {
            Answer::Contact(chat.contact_add(ContactAddRequest { link, passphrase }).await?.into_inner())
        }
        Call::ContactAccept { contact } => {
            Answer::Contact(chat.contact_accept(ContactRef { contact }).await?.into_inner())
        }
        Call::ContactRefuse { contact } => {
            Answer::Refused(chat.contact_refuse(ContactRef { contact }).await?.into_inner().id)
        }
        Call::ContactBlock { contact } => {
            Answer::Contact(chat.contact_block(ContactRef { contact }).await?.into_inner())
        }
        Call::ContactUnblock { contact } => {
            Answer::Unblocked(chat.contact_unblock(ContactRef { contact }).await?.into_inner().id)
        }
        Call::GroupNew { name } => {
            Answer::Entered(chat.group_new(GroupNewRequest { name }).await?.into_inner())
        }
        Call::GroupInvite { conversation, contacts } => {
            let request = GroupInviteRequest { conversation, contacts };
            Answer::Invited(chat.group_invite(request).await?.into_inner().messages.len())
        }
        Call::GroupJoin { link, passphrase } => {
            Answer::Entered(chat.group_join(GroupJoinRequest { link, passphrase }).await?.into_inner())
        }
        Call::GroupLeave { conversation } => {
            Answer::Conversation(chat.group_leave(ConversationRef { conversation }).await?.into_inner())
        }
        Call::Link { conversation } => {
            let request = |form: LinkForm| LinkRequest {
                form: form.into(),
                conversation: conversation.clone(),
                passphrase: String::new(),
            };
            let link = chat.link(request(LinkForm::Web)).await?.into_inner().link;
            let qr_link = chat.link(request(LinkForm::Qr)).await?.into_inner().link;
            Answer::Link { link, qr_link }
        }
        Call::Members { conversation } => {
            Answer::Members(chat.members(ConversationRef { conversation }).await?.into_inner().members)
        }
        Call::Erase { message } => {
            let gone = chat.erase(EraseRequest { message }).await?.into_inner();
            Answer::Erased { message: gone.id }
        }
        Call::Why { what } => {
            let request = WhyRequest { what, utc_offset_minutes: zone.utc_offset_minutes() };
            Answer::Why(chat.why(request).await?.into_inner().sentence)
        }
    })
}

async fn load(client: Client) -> Result<Answer, Status> {
    let mut chat = client.chat;
    let profile = chat.get_profile(GetProfileRequest {}).await?.into_inner();
    let contacts = chat.contact_list(ContactListRequest {}).await?.into_inner().contacts;
    let conversations = chat.conversations(ConversationsRequest {}).await?.into_inner().conversations;
    Ok(Answer::Loaded { profile, contacts, conversations })
}

async fn read(client: Client, zone: &Zone, conversation: String, page: Page) -> Result<Answer, Status> {
    let (before, after) = match &page {
        Page::Latest => (String::new(), String::new()),
        Page::Before(message) => (message.clone(), String::new()),
        Page::After(message) => (String::new(), message.clone()),
    };
    let request = ReadRequest {
        conversation: conversation.clone(),
        limit: PAGE_MESSAGES,
        before,
        after,
        follow: false,
        mark_read: false,
        utc_offset_minutes: zone.utc_offset_minutes(),
    };
    let mut chat = client.chat;
    let mut replies = chat.read(request).await?.into_inner();
    let (mut messages, mut gaps) = (Vec::new(), Vec::new());
    while let Some(reply) = replies.next().await {
        match reply?.event {
            Some(ReadEvent::History(message)) => messages.push(message),
            Some(ReadEvent::Gap(gap)) => gaps.push(gap),
            _ => {}
        }
    }
    Ok(Answer::Messages { conversation, page, messages, gaps })
}
