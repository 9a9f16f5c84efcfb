//! The calls, one by one.

use dunlin_base::AccountId;
use dunlin_base::kv::Read;
use dunlin_proto::chat;
use dunlin_wesh::engine::{Ctx, Engine};
use tonic::{Request, Response, Status};

use super::rpc::chat_service_server::ChatService;
use super::streams::{self, Reading, Replies};
use super::{Chat, convert, read_link, status, write_link};
use crate::clock::Zone;
use crate::links::{GroupLink, Link, LinkError};
use crate::views::{ContactState, MessageContent};
use crate::{Messenger, MessengerError, Page};

type Answer<R> = Result<Response<R>, Status>;

/// A command about one account.
type ContactCommand =
    fn(&mut Messenger, &mut Ctx<'_, '_>, &mut Engine, &AccountId) -> Result<(), MessengerError>;

#[tonic::async_trait]
impl ChatService for Chat {
    type ReadStream = Replies<chat::ReadReply>;
    type WatchStream = Replies<chat::Notice>;

    async fn get_profile(&self, _: Request<chat::GetProfileRequest>) -> Answer<chat::Profile> {
        self.profile().await.map(Response::new)
    }

    async fn set_name(&self, request: Request<chat::SetNameRequest>) -> Answer<chat::Profile> {
        let name = request.into_inner().name;
        self.command(move |ctx, engine, app| app.set_name(ctx, engine, &name)).await?;
        self.profile().await.map(Response::new)
    }

    async fn link(&self, request: Request<chat::LinkRequest>) -> Answer<chat::LinkReply> {
        let request = request.into_inner();
        let form = request.form();
        let conversation = request.conversation;
        let link = self.look(move |read, engine, app| shown_link(read, engine, app, &conversation)).await?;
        let link = write_link(link, form, request.passphrase).await?;
        Ok(Response::new(chat::LinkReply { link }))
    }

    async fn contact_list(&self, _: Request<chat::ContactListRequest>) -> Answer<chat::ContactListReply> {
        let contacts = self.look(|read, engine, app| Ok(app.contacts(read, engine)?)).await?;
        let contacts = contacts.iter().map(convert::contact).collect();
        Ok(Response::new(chat::ContactListReply { contacts }))
    }

    async fn contact_add(&self, request: Request<chat::ContactAddRequest>) -> Answer<chat::Contact> {
        let request = request.into_inner();
        let link = match read_link(request.link, request.passphrase).await? {
            Link::Contact(link) => link,
            other => return Err(status::of(&wrong_kind(&other, "a contact"))),
        };
        let account = link.account;
        self.command(move |ctx, engine, app| app.add_contact(ctx, engine, &link)).await?;
        self.contact(account).await
    }

    async fn contact_accept(&self, request: Request<chat::ContactRef>) -> Answer<chat::Contact> {
        let account = self.on_contact(request, Messenger::accept).await?;
        self.contact(account).await
    }

    async fn contact_refuse(&self, request: Request<chat::ContactRef>) -> Answer<chat::ContactRefuseReply> {
        let account = self.on_contact(request, Messenger::refuse).await?;
        Ok(Response::new(chat::ContactRefuseReply { id: account.to_string() }))
    }

    async fn contact_block(&self, request: Request<chat::ContactRef>) -> Answer<chat::Contact> {
        let account = self.on_contact(request, Messenger::block).await?;
        self.contact(account).await
    }

    async fn contact_unblock(&self, request: Request<chat::ContactRef>) -> Answer<chat::Contact> {
        let account = self.on_contact(request, Messenger::unblock).await?;
        self.contact(account).await
    }

    async fn group_new(&self, request: Request<chat::GroupNewRequest>) -> Answer<chat::Conversation> {
        let name = request.into_inner().name;
        let group = self.command(move |ctx, engine, app| app.new_group(ctx, engine, &name)).await?;
        self.conversation(group).await.map(Response::new)
    }

    async fn group_invite(
        &self,
        request: Request<chat::GroupInviteRequest>,
    ) -> Answer<chat::GroupInviteReply> {
        let request = request.into_inner();
        let sent = self
            .command(move |ctx, engine, app| {
                let group = app.find_conversation(ctx.tx, &request.conversation)?;
                let find = |reference: &String| app.find_contact(ctx.tx, reference);
                let contacts: Vec<_> = request.contacts.iter().map(find).collect::<Result<_, _>>()?;
                app.invite(ctx, engine, &group, &contacts)
            })
            .await?;
        let messages = self
            .look(move |read, engine, app| {
                let mut messages = Vec::new();
                for (_, entry) in &sent {
                    messages.extend(app.message(read, engine, entry)?);
                }
                Ok(messages)
            })
            .await?;
        let messages = messages.iter().map(convert::message).collect();
        Ok(Response::new(chat::GroupInviteReply { messages }))
    }

    async fn group_join(&self, request: Request<chat::GroupJoinRequest>) -> Answer<chat::Conversation> {
        let request = request.into_inner();
        let link = self.group_link(request).await?;
        let group = self.command(move |ctx, engine, app| app.join(ctx, engine, &link)).await?;
        self.conversation(group).await.map(Response::new)
    }

    async fn group_leave(&self, request: Request<chat::ConversationRef>) -> Answer<chat::Conversation> {
        let reference = request.into_inner().conversation;
        let left = self
            .command(move |ctx, engine, app| {
                let group = app.find_conversation(ctx.tx, &reference)?;
                app.leave(ctx, engine, &group).map(|()| group)
            })
            .await?;
        self.conversation(left).await.map(Response::new)
    }

    async fn group_rename(&self, request: Request<chat::GroupRenameRequest>) -> Answer<chat::Conversation> {
        let request = request.into_inner();
        let renamed = self
            .command(move |ctx, engine, app| {
                let group = app.find_conversation(ctx.tx, &request.conversation)?;
                app.rename(ctx, engine, &group, &request.name).map(|()| group)
            })
            .await?;
        self.conversation(renamed).await.map(Response::new)
    }

    async fn members(&self, request: Request<chat::ConversationRef>) -> Answer<chat::MembersReply> {
        let reference = request.into_inner().conversation;
        let members = self
            .look(move |read, engine, app| {
                app.members(read, engine, &app.find_conversation(read, &reference)?)
            })
            .await?;
        Ok(Response::new(chat::MembersReply { members: members.iter().map(convert::member).collect() }))
    }

    async fn conversations(
        &self,
        _: Request<chat::ConversationsRequest>,
    ) -> Answer<chat::ConversationsReply> {
        let conversations = self.look(|read, engine, app| Ok(app.conversations(read, engine)?)).await?;
        let conversations = conversations.iter().map(convert::conversation).collect();
        Ok(Response::new(chat::ConversationsReply { conversations }))
    }

    async fn send(&self, request: Request<chat::SendRequest>) -> Answer<chat::Message> {
        let request = request.into_inner();
        let entry = self
            .command(move |ctx, engine, app| {
                let group = app.find_conversation(ctx.tx, &request.conversation)?;
                app.send(ctx, engine, &group, &request.text)
            })
            .await?;
        let message = self.look(move |read, engine, app| Ok(app.message(read, engine, &entry)?)).await?;
        let message = message.ok_or_else(|| Status::internal("the message was kept but is not shown"))?;
        Ok(Response::new(convert::message(&message)))
    }

    async fn read(&self, request: Request<chat::ReadRequest>) -> Answer<Self::ReadStream> {
        let request = request.into_inner();
        let limit = streams::history_limit(request.limit);
        let (follow, mark_read) = (request.follow, request.mark_read);
        let request_zone = request.utc_offset_minutes;
        let (group, page) = self
            .look(move |read, _, app| {
                let group = app.find_conversation(read, &request.conversation)?;
                let edge = |reference: &str| match reference {
                    "" => Ok(None),
                    reference => app.find_message(read, reference).map(Some),
                };
                Ok((group, Page { before: edge(&request.before)?, after: edge(&request.after)?, limit }))
            })
            .await?;
        let zone = Zone::from_minutes(request_zone);
        let reading = Reading { group, page, follow, mark_read, zone };
        streams::read(self.node.clone(), reading).await.map(Response::new)
    }

    async fn erase(&self, request: Request<chat::EraseRequest>) -> Answer<chat::EraseReply> {
        let reference = request.into_inner().message;
        let entry = self
            .command(move |ctx, engine, app| {
                let entry = app.find_message(ctx.tx, &reference)?;
                app.erase(ctx, engine, &entry).map(|()| entry)
            })
            .await?;
        Ok(Response::new(chat::EraseReply { id: entry.to_string() }))
    }

    async fn mark_read(&self, request: Request<chat::ConversationRef>) -> Answer<chat::Conversation> {
        let reference = request.into_inner().conversation;
        let group = self
            .command(move |ctx, _, app| {
                let group = app.find_conversation(ctx.tx, &reference)?;
                app.mark_read(ctx, &group).map(|()| group)
            })
            .await?;
        self.conversation(group).await.map(Response::new)
    }

    async fn why(&self, request: Request<chat::WhyRequest>) -> Answer<chat::WhyReply> {
        let request = request.into_inner();
        let zone = Zone::from_minutes(request.utc_offset_minutes);
        let reply = self.command(move |ctx, engine, app| why(ctx, engine, app, &request.what, zone)).await?;
        Ok(Response::new(reply))
    }

    async fn status(&self, _: Request<chat::StatusRequest>) -> Answer<chat::StatusReply> {
        let profile = self.profile().await?;
        let status = self.look(|read, engine, app| Ok(app.status(read, engine)?)).await?;
        Ok(Response::new(convert::status(&status, profile)))
    }

    async fn devices_seen(&self, _: Request<chat::DevicesSeenRequest>) -> Answer<chat::DevicesSeenReply> {
        self.command(|ctx, _, app| Ok(app.devices_seen(ctx)?)).await?;
        Ok(Response::new(chat::DevicesSeenReply {}))
    }

    async fn watch(&self, request: Request<chat::WatchRequest>) -> Answer<Self::WatchStream> {
        let zone = Zone::from_minutes(request.into_inner().utc_offset_minutes);
        Ok(Response::new(streams::watch(self.node.clone(), zone)))
    }
}

impl Chat {
    async fn contact(&self, account: AccountId) -> Answer<chat::Contact> {
        let contact = self.look(move |read, engine, app| Ok(app.contact(read, engine, &account)?)).await?;
        // Somebody unblocked is no contact any more, and is shown once by the id alone.
        let gone = || chat::Contact { id: account.to_string(), ..chat::Contact::default() };
        Ok(Response::new(contact.as_ref().map_or_else(gone, convert::contact)))
    }

    async fn on_contact(
        &self,
        request: Request<chat::ContactRef>,
        command: ContactCommand,
    ) -> Result<AccountId, Status> {
        let reference = request.into_inner().contact;
        self.command(move |ctx, engine, app| {
            let account = app.find_contact(ctx.tx, &reference)?;
            command(app, ctx, engine, &account).map(|()| account)
        })
        .await
    }

    /// The link to join by: given as such, or in an invitation that came as a message.
    async fn group_link(&self, request: chat::GroupJoinRequest) -> Result<GroupLink, Status> {
        let is_link = !matches!(Link::parse(&request.link), Err(LinkError::NoLink));
        let text = if is_link {
            request.link
        } else {
            self.look(move |read, engine, app| invitation_in(read, engine, app, &request.link)).await?
        };
        match read_link(text, request.passphrase).await? {
            Link::Group(link) => Ok(link),
            other => Err(status::of(&wrong_kind(&other, "a group"))),
        }
    }
}

/// The own link, or that of a group.
fn shown_link(
    read: &dyn Read,
    engine: &Engine,
    app: &Messenger,
    conversation: &str,
) -> Result<Link, MessengerError> {
    if conversation.is_empty() {
        return app.own_link(read, engine)?.ok_or(MessengerError::Link(LinkError::NotForSharing));
    }
    app.group_link(read, engine, &app.find_conversation(read, conversation)?)
}

/// The link of an invitation. A reference to no message is taken for a text that should have been a link.
fn invitation_in(
    read: &dyn Read,
    engine: &Engine,
    app: &Messenger,
    reference: &str,
) -> Result<String, MessengerError> {
    let entry = match app.find_message(read, reference) {
        Err(MessengerError::Unknown { .. } | MessengerError::ReferenceTooShort) => {
            return Err(LinkError::NoLink.into());
        }
        found => found?,
    };
    match app.message(read, engine, &entry)?.map(|message| message.content) {
        Some(MessageContent::Invitation { link, .. }) => Ok(link),
        _ => Err(MessengerError::LinkKind { found: "a message", wanted: "a group" }),
    }
}

fn wrong_kind(link: &Link, wanted: &'static str) -> MessengerError {
    let found = match link {
        Link::Contact(_) => "a contact",
        Link::Group(_) => "a group",
        Link::Encrypted(_) => "something protected",
        Link::Message(_) => "a message",
    };
    MessengerError::LinkKind { found, wanted }
}

/// The sentence for a message, or else for a contact, or else for a conversation.
fn why(
    ctx: &mut Ctx<'_, '_>,
    engine: &Engine,
    app: &Messenger,
    what: &str,
    zone: Zone,
) -> Result<chat::WhyReply, MessengerError> {
    let (read, now): (&dyn Read, _) = (&*ctx.tx, ctx.now);
    match app.find_message(read, what) {
        Err(MessengerError::Unknown { .. } | MessengerError::ReferenceTooShort) => {}
        found => {
            let entry = found?;
            let message = app.message(read, engine, &entry)?;
            let sentence = app.why(read, engine, &entry, now, zone)?;
            return Ok(chat::WhyReply { sentence, message: message.as_ref().map(convert::message) });
        }
    }
    let sentence = match app.find_contact(read, what) {
        Ok(account) => {
            why_contact(read, engine, app, &account, || app.why_contact(read, engine, &account, now, zone))?
        }
        Err(MessengerError::Unknown { .. }) => {
            app.why_conversation(read, &app.find_conversation(read, what)?)?
        }
        Err(error) => return Err(error),
    };
    Ok(chat::WhyReply { sentence, message: None })
}

/// Of a contact with whom all is well, what their closed messages wait for is of more interest.
fn why_contact(
    read: &dyn Read,
    engine: &Engine,
    app: &Messenger,
    account: &AccountId,
    otherwise: impl FnOnce() -> Result<String, MessengerError>,
) -> Result<String, MessengerError> {
    let contact = app.contact(read, engine, account)?.filter(|contact| contact.state == ContactState::Added);
    let Some(group) = contact.and_then(|contact| contact.conversation) else { return otherwise() };
    match app.conversation(read, engine, &group)?.closed {
        0 => otherwise(),
        _ => app.why_conversation(read, &group),
    }
}
