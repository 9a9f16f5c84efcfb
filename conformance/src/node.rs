//! One node, seen through its service.

use std::fmt;
use std::time::Duration;

use dunlin_proto::protocol as api;
use prost::Message;
use tonic::transport::{Channel, Endpoint};

use crate::feed::Feed;
use crate::stubs::protocol_service_client::ProtocolServiceClient;
use crate::tolerance::Tolerances;
use crate::trouble::{Outcome, Refusal, Trouble, failed};
use crate::wait::Patience;

/// How long a node may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest message that is sent or taken: the largest that a node takes, and what a list adds to it.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A node and what it says of itself. Clones share one connection.
#[derive(Clone)]
pub struct Node {
    name: String,
    client: ProtocolServiceClient<Channel>,
    patience: Patience,
    tolerances: Tolerances,
    /// The account.
    pub account: Vec<u8>,
    /// Its device in the account group.
    pub device: Vec<u8>,
    /// The group of the account's devices.
    pub account_group: Vec<u8>,
    /// Its host.
    pub peer_id: String,
    /// Where its host listens.
    pub listeners: Vec<String>,
}

/// What a call that answers once ends with.
pub type Called<T> = Result<T, Refusal>;

/// The calls that answer once, each as a method of the same name.
macro_rules! calls {
    ($($call:ident),* $(,)?) => {
        impl Node {
            $(
                #[doc = concat!("Calls `", stringify!($call), "`.")]
                pub async fn $call(&self, request: api::$call::Request) -> Called<api::$call::Reply> {
                    let mut client = self.client.clone();
                    self.answered(stringify!($call), client.$call(request)).await
                }
            )*
        }
    };
}

calls!(
    activate_group,
    app_message_send,
    app_metadata_send,
    contact_block,
    contact_request_accept,
    contact_request_disable,
    contact_request_discard,
    contact_request_enable,
    contact_request_reference,
    contact_request_reset_reference,
    contact_request_send,
    contact_unblock,
    deactivate_group,
    debug_group,
    decode_contact,
    group_info,
    multi_member_group_admin_role_grant,
    multi_member_group_alias_resolver_disclose,
    multi_member_group_create,
    multi_member_group_invitation_create,
    multi_member_group_join,
    multi_member_group_leave,
    out_of_store_receive,
    out_of_store_seal,
    peer_list,
    refresh_contact_request,
    service_get_configuration,
    share_contact,
    system_info,
);

/// The calls that answer with a stream, each as a method of the same name.
macro_rules! streams {
    ($($call:ident => $reply:ty),* $(,)?) => {
        impl Node {
            $(
                #[doc = concat!("Calls `", stringify!($call), "`.")]
                pub fn $call(&self, request: api::$call::Request) -> Feed<$reply> {
                    let mut client = self.client.clone();
                    let opening = async move { client.$call(request).await };
                    Feed::open(&self.name, stringify!($call), self.patience, opening)
                }
            )*
        }
    };
}

streams!(
    debug_inspect_group_store => api::debug_inspect_group_store::Reply,
    debug_list_groups => api::debug_list_groups::Reply,
    group_device_status => api::group_device_status::Reply,
    group_message_list => api::GroupMessageEvent,
    group_metadata_list => api::GroupMetadataEvent,
    service_export_data => api::service_export_data::Reply,
    verified_credentials_list => api::verified_credentials_list::Reply,
);

impl Node {
    /// Connects with a node, and asks who it is.
    pub async fn connect(
        name: &str,
        address: &str,
        patience: Patience,
        tolerances: Tolerances,
    ) -> Outcome<Self> {
        let unreachable = |error: &dyn fmt::Display| Trouble::Failed(format!("{name} at {address}: {error}"));
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| unreachable(&error))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let channel = endpoint.connect().await.map_err(|error| unreachable(&error))?;
        let client = ProtocolServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut node = Self {
            name: name.to_owned(),
            client,
            patience,
            tolerances,
            account: Vec::new(),
            device: Vec::new(),
            account_group: Vec::new(),
            peer_id: String::new(),
            listeners: Vec::new(),
        };
        let told = node.service_get_configuration(api::service_get_configuration::Request {}).await?;
        node.account = told.account_pk;
        node.device = told.device_pk;
        node.account_group = told.account_group_pk;
        node.peer_id = told.peer_id;
        node.listeners = told.listeners;
        Ok(node)
    }

    /// What it is called in the report.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which known faults are let pass.
    pub fn tolerances(&self) -> &Tolerances {
        &self.tolerances
    }

    async fn answered<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Called<T> {
        match tokio::time::timeout(self.patience.span(), answer).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(Refusal::refused(&self.name, call, status)),
            Err(_) => Err(Refusal::silent(&self.name, call, self.patience.span())),
        }
    }

    /// How long it may take for anything.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Opens a group.
    pub async fn activate(&self, group: &[u8]) -> Called<()> {
        let request = api::activate_group::Request { group_pk: group.to_vec(), local_only: false };
        self.activate_group(request).await.map(|_| ())
    }

    /// Closes a group.
    pub async fn deactivate(&self, group: &[u8]) -> Called<()> {
        self.deactivate_group(api::deactivate_group::Request { group_pk: group.to_vec() }).await.map(|_| ())
    }

    /// Describes a group that the node knows.
    pub async fn describe(&self, group: &[u8]) -> Called<api::group_info::Reply> {
        self.group_info(api::group_info::Request { group_pk: group.to_vec(), ..Default::default() }).await
    }

    /// Describes the group shared with an account.
    pub async fn describe_contact(&self, account: &[u8]) -> Called<api::group_info::Reply> {
        self.group_info(api::group_info::Request { contact_pk: account.to_vec(), ..Default::default() }).await
    }

    /// Sends a message, and gives the entry that carries it.
    pub async fn send(&self, group: &[u8], payload: impl Into<Vec<u8>>) -> Called<Vec<u8>> {
        let request = api::app_message_send::Request { group_pk: group.to_vec(), payload: payload.into() };
        self.app_message_send(request).await.map(|reply| reply.cid)
    }

    /// The contact as which others reach it, if what it shares decodes to one.
    pub async fn contact_of(&self) -> Called<Option<api::ShareableContact>> {
        let shared = self.share_contact(api::share_contact::Request {}).await?;
        let request = api::decode_contact::Request { encoded_contact: shared.encoded_contact };
        Ok(self.decode_contact(request).await?.contact)
    }

    /// The contact as which others reach it.
    pub async fn contact(&self) -> Outcome<api::ShareableContact> {
        match self.contact_of().await? {
            Some(contact) => Ok(contact),
            None => failed(format!("{}: what it shares decodes to no contact", self.name)),
        }
    }

    /// All events of a group, and those that come.
    pub fn follow_metadata(&self, group: &[u8]) -> Feed<api::GroupMetadataEvent> {
        let request = api::group_metadata_list::Request { group_pk: group.to_vec(), ..Default::default() };
        self.group_metadata_list(request)
    }

    /// All messages of a group, and those that come.
    pub fn follow_messages(&self, group: &[u8]) -> Feed<api::GroupMessageEvent> {
        let request = api::group_message_list::Request { group_pk: group.to_vec(), ..Default::default() };
        self.group_message_list(request)
    }

    /// The messages of a group that are there.
    pub async fn all_messages(&self, group: &[u8]) -> Outcome<Vec<api::GroupMessageEvent>> {
        let request = api::group_message_list::Request {
            group_pk: group.to_vec(),
            until_now: true,
            ..Default::default()
        };
        self.group_message_list(request).rest().await
    }

    /// The events of a group that are there.
    pub async fn all_metadata(&self, group: &[u8]) -> Outcome<Vec<api::GroupMetadataEvent>> {
        let request = api::group_metadata_list::Request {
            group_pk: group.to_vec(),
            until_now: true,
            ..Default::default()
        };
        self.group_metadata_list(request).rest().await
    }
}

/// The payload of an event, if the event is of this type.
pub fn payload<T: Message + Default>(event: &api::GroupMetadataEvent, kind: api::EventType) -> Option<T> {
    let metadata = event.metadata.as_ref()?;
    if metadata.event_type() != kind {
        return None;
    }
    T::decode(&*event.event).ok()
}
