//! `dunlin.chat.v1.ChatService`: the messenger of a running node, for the command line and screens.
//!
//! Nothing is decided here. A call resolves what its request refers to, runs one command or look inside the
//! node's transaction, and turns the answer into messages.

mod calls;
mod convert;
mod status;
mod streams;

use dunlin_base::GroupId;
use dunlin_base::kv::Read;
use dunlin_node::NodeHandle;
use dunlin_proto::chat;
use dunlin_wesh::engine::{Ctx, Engine};
use rand_core::{OsRng, RngCore};
use tonic::Status;

use crate::links::passphrase::NONCE_BYTES;
use crate::links::{Link, LinkError};
use crate::{Messenger, MessengerError};

/// Largest request that is accepted, in bytes: the longest text and some room.
const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// Client and server as `tonic` makes them from `chat.proto`; the messages are in [`dunlin_proto::chat`].
pub mod rpc {
    #![allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications)]

    tonic::include_proto!("dunlin.chat.v1");
}

/// The chat service of `node`, to be served over any transport.
pub fn chat_service(node: &NodeHandle<Messenger>) -> rpc::chat_service_server::ChatServiceServer<Chat> {
    let service = rpc::chat_service_server::ChatServiceServer::new(Chat::new(node));
    service.max_decoding_message_size(REQUEST_BYTES_MAX)
}

/// Answers the calls of [`chat_service`].
pub struct Chat {
    node: NodeHandle<Messenger>,
}

impl Chat {
    /// Answers for `node`.
    pub fn new(node: &NodeHandle<Messenger>) -> Self {
        Self { node: node.clone() }
    }

    /// Runs a command inside a transaction of the node.
    async fn command<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut Messenger) -> Result<R, MessengerError>
        + Send
        + 'static,
    ) -> Result<R, Status> {
        self.node.transact(command).await.map_err(|error| status::of_call(&error))
    }

    /// Looks at the state of the node.
    async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Read, &Engine, &Messenger) -> Result<R, MessengerError> + Send + 'static,
    ) -> Result<R, Status> {
        look_at(&self.node, look).await
    }

    async fn profile(&self) -> Result<chat::Profile, Status> {
        self.look(|read, engine, app| Ok(convert::profile(app.name(), engine, app.own_link(read, engine)?)))
            .await
    }

    async fn conversation(&self, group: GroupId) -> Result<chat::Conversation, Status> {
        self.look(move |read, engine, app| {
            app.conversation(read, engine, &group).map(|shown| convert::conversation(&shown))
        })
        .await
    }
}

async fn look_at<R: Send + 'static>(
    node: &NodeHandle<Messenger>,
    look: impl FnOnce(&dyn Read, &Engine, &Messenger) -> Result<R, MessengerError> + Send + 'static,
) -> Result<R, Status> {
    node.view(look).await.map_err(|error| status::of_call(&error))
}

/// Reads a link. A protected one takes a tenth of a second, on a thread that may wait.
async fn read_link(text: String, passphrase: String) -> Result<Link, Status> {
    let parsed = match passphrase.is_empty() {
        true => Link::parse_with(&text, ""),
        false => off_thread(move || Link::parse_with(&text, &passphrase)).await?,
    };
    parsed.map_err(|error| status::of(&error.into()))
}

/// Writes a link, under a passphrase unless that is empty.
async fn write_link(link: Link, form: chat::LinkForm, passphrase: String) -> Result<String, Status> {
    let link = match passphrase.is_empty() {
        true => Ok(link),
        false => off_thread(move || protect(&link, &passphrase)).await?,
    };
    let link = link.map_err(|error| status::of(&error.into()))?;
    Ok(match form {
        chat::LinkForm::Web => link.web(),
        chat::LinkForm::Qr => link.qr(),
    })
}

fn protect(link: &Link, passphrase: &str) -> Result<Link, LinkError> {
    let mut nonce = [0; NONCE_BYTES];
    OsRng.fill_bytes(&mut nonce);
    link.protect(passphrase, nonce)
}

async fn off_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("the work was not finished"))
}
