//! Commands that talk to a running node.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::json;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::cli::{ContactCommand, GroupCommand, LinkOptions, PeersCommand, ReadOptions};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::words;
use dunlin_proto::chat;
use dunlin_proto::chat::notice::Notice;
use dunlin_proto::chat::read_reply::Event;
use dunlin_proto::chat::{
    Contact, ContactAddRequest, ContactListRequest, ContactRef, ContactState, Conversation, ConversationKind,
    ConversationRef, ConversationsRequest, EraseRequest, GetProfileRequest, GroupInviteRequest,
    GroupJoinRequest, GroupNewRequest, GroupRenameRequest, LinkForm, LinkRequest, Member, Message,
    ReadRequest, SendRequest, SetNameRequest, StatusRequest, WatchRequest, WhyRequest,
};
use dunlin_proto::dunlin::node::v1::{
    ConnectRequest, DisconnectRequest, InfoRequest, PeersRequest, SourcesRequest,
};

/// Longest text that is read from the standard input, in bytes: more than a message takes, so that the
/// node refuses it with the reason, and no endless stream fills the memory.
const STDIN_BYTES_MAX: u64 = 1 << 20;

type Outcome = Result<(), Failure>;

/// `dunlin contact`.
pub async fn contact(mut client: Client, command: ContactCommand, out: &mut Output) -> Outcome {
    match command {
        ContactCommand::List => contact_list(client, out).await,
        ContactCommand::Add { link, passphrase } => {
            let request = ContactAddRequest { link, passphrase: passphrase.unwrap_or_default() };
            let contact = client.chat.contact_add(request).await?.into_inner();
            let told = format!(
                "{} was asked. The request waits here until one of their devices is in reach.\n{}",
                contact.name,
                safety_number(&contact)
            );
            out.say(output::of_contact(&contact), told)
        }
        ContactCommand::Accept { contact } => {
            let contact = client.chat.contact_accept(ContactRef { contact }).await?.into_inner();
            let told = format!("{} is your contact now.\n{}", contact.name, safety_number(&contact));
            out.say(output::of_contact(&contact), told)
        }
        ContactCommand::Refuse { contact } => {
            let refused = client.chat.contact_refuse(ContactRef { contact }).await?.into_inner();
            out.say(json!({ "id": refused.id }), "The request is gone. They are not told.")
        }
        ContactCommand::Block { contact } => {
            let contact = client.chat.contact_block(ContactRef { contact }).await?.into_inner();
            out.say(output::of_contact(&contact), format!("{} is blocked.", contact.name))
        }
        ContactCommand::Unblock { contact } => {
            let contact = client.chat.contact_unblock(ContactRef { contact }).await?.into_inner();
            out.say(
                json!({ "id": contact.id }),
                "Not blocked any more. To talk again, one of you asks the other.",
            )
        }
        ContactCommand::Link(options) => link(client, "", options, out).await,
    }
}

async fn contact_list(mut client: Client, out: &mut Output) -> Outcome {
    let contacts = client.chat.contact_list(ContactListRequest {}).await?.into_inner().contacts;
    let row = |contact: &Contact| {
        let reach = if contact.online { "in reach" } else { "" };
        let number =
            if contact.state() == ContactState::Asks { safety_number(contact) } else { String::new() };
        vec![contact.name.clone(), words::standing(contact).to_owned(), reach.to_owned(), number]
    };
    out.list(
        contacts.iter().map(output::of_contact).collect(),
        contacts.iter().map(row).collect(),
        "No contacts yet. Give your link to somebody (dunlin contact link), or add theirs (dunlin contact add).",
    )
}

fn safety_number(contact: &Contact) -> String {
    format!("Safety number: {}", contact.safety_number)
}

/// Shows the link of a group, or the own one when no conversation is named.
async fn link(mut client: Client, conversation: &str, options: LinkOptions, out: &mut Output) -> Outcome {
    let passphrase = options.passphrase.unwrap_or_default();
    let request = |form: LinkForm| LinkRequest {
        form: form.into(),
        conversation: conversation.to_owned(),
        passphrase: passphrase.clone(),
    };
    let web = client.chat.link(request(LinkForm::Web)).await?.into_inner().link;
    if !options.qr {
        return out.link(&web, None);
    }
    let qr = client.chat.link(request(LinkForm::Qr)).await?.into_inner().link;
    out.link(&web, Some(&qr))
}

/// `dunlin group`.
pub async fn group(mut client: Client, command: GroupCommand, out: &mut Output) -> Outcome {
    match command {
        GroupCommand::List => group_list(client, out).await,
        GroupCommand::New { name } => {
            let group = client.chat.group_new(GroupNewRequest { name }).await?.into_inner();
            out.say(output::of_conversation(&group), format!("The group {} is made.", group.name))
        }
        GroupCommand::Invite { group, contacts } => {
            let request = GroupInviteRequest { conversation: group, contacts };
            let sent = client.chat.group_invite(request).await?.into_inner().messages;
            let told = format!("{} sent.", words::count(sent.len() as u32, "invitation", "invitations"));
            out.say(json!({ "messages": sent.iter().map(output::of_message).collect::<Vec<_>>() }), told)
        }
        GroupCommand::Join { link, passphrase } => {
            let request = GroupJoinRequest { link, passphrase: passphrase.unwrap_or_default() };
            let group = client.chat.group_join(request).await?.into_inner();
            out.say(output::of_conversation(&group), format!("You are in the group {}.", group.name))
        }
        GroupCommand::Leave { group } => {
            let group = client.chat.group_leave(ConversationRef { conversation: group }).await?.into_inner();
            let told = format!("You left the group {}. What you received stays readable.", group.name);
            out.say(output::of_conversation(&group), told)
        }
        GroupCommand::Rename { group, name } => {
            let request = GroupRenameRequest { conversation: group, name };
            let group = client.chat.group_rename(request).await?.into_inner();
            out.say(output::of_conversation(&group), format!("The group is called {} now.", group.name))
        }
        GroupCommand::Members { group } => members(client, group, out).await,
        GroupCommand::Link { group, options } => link(client, &group, options, out).await,
    }
}

async fn group_list(mut client: Client, out: &mut Output) -> Outcome {
    let mut groups = client.chat.conversations(ConversationsRequest {}).await?.into_inner().conversations;
    groups.retain(|conversation| conversation.kind() == ConversationKind::Group);
    let row = |group: &Conversation| {
        let left = if group.left { "left" } else { "" };
        vec![
            group.name.clone(),
            words::count(group.members, "member", "members"),
            unread(group),
            left.to_owned(),
        ]
    };
    out.list(
        groups.iter().map(output::of_conversation).collect(),
        groups.iter().map(row).collect(),
        "No groups yet. Make one: dunlin group new NAME.",
    )
}

async fn members(mut client: Client, group: String, out: &mut Output) -> Outcome {
    let request = ConversationRef { conversation: group };
    let members = client.chat.members(request).await?.into_inner().members;
    let row = |member: &Member| {
        let name = match (member.own, member.name.as_str()) {
            (true, _) => words::YOU,
            (false, "") => "somebody who has not told their name",
            (false, name) => name,
        };
        let reach = if member.online { "in reach" } else { "" };
        vec![name.to_owned(), words::count(member.devices, "device", "devices"), reach.to_owned()]
    };
    out.list(
        members.iter().map(output::of_member).collect(),
        members.iter().map(row).collect(),
        "Nobody is there.",
    )
}

fn unread(conversation: &Conversation) -> String {
    if conversation.unread == 0 { String::new() } else { format!("{} unread", conversation.unread) }
}

/// `dunlin send`.
pub async fn send(mut client: Client, conversation: String, text: Vec<String>, out: &mut Output) -> Outcome {
    let text = match text.as_slice() {
        [dash] if dash == "-" => text_from_stdin()?,
        words => words.join(" "),
    };
    let message = client.chat.send(SendRequest { conversation, text }).await?.into_inner();
    let told = format!("{}  {}", message.short_id, words::delivery(&message, out.zone()));
    out.say(output::of_message(&message), told)
}

fn text_from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(STDIN_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::told(format!("The standard input is no text: {error}. Send UTF-8.")))?;
    // What ends the last line belongs to the file, not to the text.
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

/// `dunlin read`.
pub async fn read(client: Client, options: ReadOptions, out: &mut Output) -> Outcome {
    match &options.conversation {
        Some(conversation) => read_one(client, conversation.clone(), &options, out).await,
        None => read_unread(client, &options, out).await,
    }
}

/// Shows a conversation, and with `--follow` what becomes of it.
async fn read_one(
    mut client: Client,
    conversation: String,
    options: &ReadOptions,
    out: &mut Output,
) -> Outcome {
    let request = ReadRequest {
        conversation,
        limit: options.limit,
        before: options.before.clone().unwrap_or_default(),
        after: options.after.clone().unwrap_or_default(),
        follow: options.follow,
        mark_read: !options.peek,
        utc_offset_minutes: out.zone().utc_offset_minutes(),
    };
    let mut replies = client.chat.read(request).await?.into_inner();
    while let Some(reply) = replies.next().await {
        match reply?.event {
            Some(Event::History(message)) => out.message("history", &message)?,
            Some(Event::Gap(gap)) => out.gap(&gap)?,
            Some(Event::HistoryEnd(_)) => out.history_end()?,
            Some(Event::Added(message)) => out.message("added", &message)?,
            Some(Event::Changed(message)) => out.progress(&message)?,
            Some(Event::Erased(erased)) => out.erased(&erased)?,
            // A newer node tells something that this version cannot show.
            None => {}
        }
    }
    Ok(())
}

/// Shows what is unread in every conversation, and with `--follow` what arrives in any.
async fn read_unread(mut client: Client, options: &ReadOptions, out: &mut Output) -> Outcome {
    // Watching begins before reading, so that nothing falls between the two.
    let utc_offset_minutes = out.zone().utc_offset_minutes();
    let notices = match options.follow {
        true => Some(client.chat.watch(WatchRequest { utc_offset_minutes }).await?.into_inner()),
        false => None,
    };
    let mut names = BTreeMap::new();
    for conversation in client.chat.conversations(ConversationsRequest {}).await?.into_inner().conversations {
        names.insert(conversation.id.clone(), conversation.name.clone());
        if conversation.unread == 0 {
            continue;
        }
        out.heading(&conversation.id, &conversation.name)?;
        let options = ReadOptions {
            conversation: None,
            follow: false,
            limit: conversation.unread.min(options.limit),
            before: None,
            after: None,
            peek: options.peek,
        };
        read_one(client.clone(), conversation.id, &options, out).await?;
    }
    let Some(notices) = notices else { return Ok(()) };
    out.history_end()?;
    follow_all(client, notices, names, options.peek, out).await
}

/// Shows what arrives and changes in every conversation.
async fn follow_all(
    mut client: Client,
    mut notices: Streaming<chat::Notice>,
    mut names: BTreeMap<String, String>,
    peek: bool,
    out: &mut Output,
) -> Outcome {
    while let Some(notice) = notices.next().await {
        match notice?.notice {
            Some(Notice::MessageAdded(message)) => {
                let name = names.get(&message.conversation).map_or("", String::as_str);
                out.heading(&message.conversation, name)?;
                out.message("added", &message)?;
                if !peek && !message.own {
                    mark_read(&mut client, message).await?;
                }
            }
            Some(Notice::MessageChanged(message)) => out.progress(&message)?,
            Some(Notice::MessageErased(erased)) => out.erased(&erased)?,
            Some(Notice::Gap(gap)) => {
                let name = names.get(&gap.conversation).map_or("", String::as_str);
                out.heading(&gap.conversation, name)?;
                out.gap(&gap)?;
            }
            Some(Notice::ConversationChanged(conversation)) => {
                names.insert(conversation.id, conversation.name);
            }
            Some(Notice::Missed(missed)) => {
                return Err(Failure::told(format!(
                    "{} changes were missed, because this output was read too slowly. Start again.",
                    missed.count
                )));
            }
            Some(
                Notice::ContactChanged(_)
                | Notice::ContactRemoved(_)
                | Notice::ProfileChanged(_)
                | Notice::Gone(_)
                | Notice::DeviceAdded(_),
            )
            | None => {}
            Some(Notice::CopyFound(_)) => out.warning("copy-found", words::COPY_FOUND)?,
        }
    }
    Ok(())
}

async fn mark_read(client: &mut Client, message: Message) -> Outcome {
    client.chat.mark_read(ConversationRef { conversation: message.conversation }).await?;
    Ok(())
}

/// `dunlin erase`.
pub async fn erase(mut client: Client, message: String, out: &mut Output) -> Outcome {
    let gone = client.chat.erase(EraseRequest { message }).await?.into_inner();
    out.say(json!({ "id": gone.id }), words::ERASED)
}

/// `dunlin why`.
pub async fn why(mut client: Client, what: String, out: &mut Output) -> Outcome {
    let utc_offset_minutes = out.zone().utc_offset_minutes();
    let reply = client.chat.why(WhyRequest { what, utc_offset_minutes }).await?.into_inner();
    let message = reply.message.as_ref().map(output::of_message);
    out.say(json!({ "sentence": reply.sentence, "message": message }), &reply.sentence)
}

/// `dunlin name`.
pub async fn name(mut client: Client, name: Option<String>, out: &mut Output) -> Outcome {
    let profile = match name {
        Some(name) => client.chat.set_name(SetNameRequest { name }).await?,
        None => client.chat.get_profile(GetProfileRequest {}).await?,
    };
    let profile = profile.into_inner();
    out.say(output::of_profile(&profile), &profile.name)
}

/// `dunlin peers`.
pub async fn peers(mut client: Client, command: Option<PeersCommand>, out: &mut Output) -> Outcome {
    match command {
        None => peers_list(client, out).await,
        Some(PeersCommand::Connect { multiaddr }) => {
            let peer = client.node.connect(ConnectRequest { address: multiaddr }).await?.into_inner();
            out.say(output::of_peer(&peer), format!("Connected with {}.", peer.peer_id))
        }
        Some(PeersCommand::Disconnect { peer }) => {
            client.node.disconnect(DisconnectRequest { peer_id: peer.clone() }).await?;
            out.say(json!({ "peer_id": peer }), format!("Disconnected from {peer}."))
        }
    }
}

async fn peers_list(mut client: Client, out: &mut Output) -> Outcome {
    let peers = client.node.peers(PeersRequest {}).await?.into_inner().peers;
    let mut rows = Vec::new();
    for peer in &peers {
        let known = if peer.known { "known" } else { "" };
        let latency = match peer.latency_us {
            0 => String::new(),
            us => format!("{:.1} ms", f64::from(us) / 1_000.0),
        };
        for connection in &peer.connections {
            let direction = output::direction_word(connection.direction());
            rows.push(vec![
                peer.peer_id.clone(),
                direction.to_owned(),
                latency.clone(),
                known.to_owned(),
                connection.address.clone(),
            ]);
        }
    }
    let none =
        "No peer is connected. Point at one with `dunlin peers connect MULTIADDR`, or start with --lan.";
    out.list(peers.iter().map(output::of_peer).collect(), rows, none)
}

/// `dunlin status`.
pub async fn status(mut client: Client, out: &mut Output) -> Outcome {
    let status = client.chat.status(StatusRequest {}).await?.into_inner();
    let node = client.node.info(InfoRequest {}).await?.into_inner();
    let peers = client.node.peers(PeersRequest {}).await?.into_inner().peers.len();
    let sources = client.node.sources(SourcesRequest {}).await?.into_inner().sources;
    let profile = status.profile.unwrap_or_default();
    let json = json!({
        "account": output::of_profile(&profile),
        "contacts": status.contacts,
        "requests": status.requests,
        "conversations": status.conversations,
        "unread": status.unread,
        "messages_kept": status.messages_kept,
        "devices_online": status.devices_online,
        "devices_new": status.devices_new,
        "copy_found_ms": status.copy_found_ms,
        "peers": peers,
        "peer_id": node.peer_id,
        "listen": node.listen,
        "profile": node.profile,
        "lan": node.lan,
        "started_ms": node.started_ms,
        "sources": sources.iter().map(output::of_source).collect::<Vec<_>>(),
    });
    let counts = [
        words::count(status.contacts, "contact", "contacts"),
        words::count(status.conversations, "conversation", "conversations"),
        words::count(status.unread, "unread message", "unread messages"),
    ];
    let mut lines = vec![format!("{}: {}", profile.name, counts.join(", "))];
    if !status.devices_new.is_empty() {
        lines.push(words::NEW_DEVICE.to_owned());
    }
    if status.copy_found_ms > 0 {
        lines.push(words::COPY_FOUND.to_owned());
    }
    if status.requests > 0 {
        lines.push(format!("{}: dunlin contact list", words::count(status.requests, "request", "requests")));
    }
    if status.messages_kept > 0 {
        let kept = words::count(status.messages_kept, "message is", "messages are");
        lines.push(format!("{kept} kept here until a device can take them"));
    }
    lines.push(format!(
        "{} connected, {} of contacts and groups in reach",
        words::count(peers as u32, "peer", "peers"),
        words::count(status.devices_online, "device", "devices")
    ));
    lines.extend(node.listen.iter().map(|address| format!("listening on {address}")));
    lines.extend(sources.iter().filter_map(words::of_source));
    out.say(json, lines.join("\n"))
}
