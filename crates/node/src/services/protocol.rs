//! `weshnet.protocol.v1.ProtocolService`, call by call (`spec/wesh-protocol.md` §8).
//!
//! Nothing is decided here. A call checks the form of what it was given, runs one command or look inside the node's
//! transaction, and answers with the messages and codes of the existing service; what takes more lies in a module beside.

use std::time::Duration;

use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_proto::protocol as api;
use dunlin_wesh::contact::Contact;
use dunlin_wesh::credentials::CredentialFilter;
use dunlin_wesh::engine::{App, CommandError, Ctx, Engine, MessageEvent, MetadataEvent};
use dunlin_wesh::group::{Group, GroupKind};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::archive::dangerous_export;
use super::credentials::{self, account_is_open};
use super::groups::{named, status_in_use, used};
use super::lists::{Range, Replies, list};
use super::status::{coded, invalid, status_of};
use super::stubs::protocol::protocol_service_server::ProtocolService;
use super::{debug, out_of_store, presence, replication};
use crate::core::now;
use crate::{CallError, NodeHandle};
use dunlin_wesh::errors::{Code, Coded};

/// How long a contact is looked for when the caller does not say.
const REFRESH_DEFAULT: Duration = Duration::from_secs(10);

/// The service on a node.
pub(super) struct Protocol<A: App> {
    node: NodeHandle<A>,
}

type Answer<T> = Result<Response<T>, Status>;

impl<A: App + Send + 'static> Protocol<A> {
    pub fn new(node: NodeHandle<A>) -> Self {
        Self { node }
    }

    async fn change<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> Result<R, CommandError> + Send + 'static,
    ) -> Result<R, Status> {
        let done = self.node.transact(move |ctx, engine, _| change(ctx, engine)).await;
        done.map_err(|error| status_of(&error))
    }

    /// Changes something in a group that has to be in use; `around` is what the call puts around the cause.
    async fn change_in<R: Send + 'static>(
        &self,
        around: &'static [Code],
        group_pk: &[u8],
        change: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &GroupId) -> Result<R, CommandError> + Send + 'static,
    ) -> Result<R, Status> {
        let group = used(around, group_pk)?;
        let done = self.node.transact(move |ctx, engine, _| change(ctx, engine, &group)).await;
        done.map_err(|error| status_in_use(around, &error))
    }

    async fn look<R: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn dunlin_base::kv::Read, &Engine) -> Result<R, CommandError> + Send + 'static,
    ) -> Result<R, Status> {
        self.node.view(move |read, engine, _| look(read, engine)).await.map_err(|error| status_of(&error))
    }

    /// The seed under which this account is found; empty until there is one.
    async fn seed(&self) -> Result<Vec<u8>, Status> {
        let contact = self.look(|read, engine| Ok(engine.own_contact(read)?)).await?;
        Ok(contact.seed.map(|seed| seed.to_vec()).unwrap_or_default())
    }
}

fn account_id(bytes: &[u8]) -> Result<AccountId, Status> {
    AccountId::from_bytes(bytes)
        .map_err(|error| coded(&[Code::ErrDeserialization], format!("contact_pk: {error}")))
}

fn empty<T: Default>() -> Answer<T> {
    Ok(Response::new(T::default()))
}

/// Turns a finished list into a stream.
fn stream<T: Send + 'static>(items: Vec<T>) -> Replies<T> {
    Box::pin(futures::stream::iter(items.into_iter().map(Ok)))
}

#[tonic::async_trait]
impl<A: App + Send + 'static> ProtocolService for Protocol<A> {
    type ServiceExportDataStream = Replies<api::service_export_data::Reply>;
    type GroupMetadataListStream = Replies<api::GroupMetadataEvent>;
    type GroupMessageListStream = Replies<api::GroupMessageEvent>;
    type GroupDeviceStatusStream = Replies<api::group_device_status::Reply>;
    type DebugListGroupsStream = Replies<api::debug_list_groups::Reply>;
    type DebugInspectGroupStoreStream = Replies<api::debug_inspect_group_store::Reply>;
    type VerifiedCredentialsListStream = Replies<api::verified_credentials_list::Reply>;

    async fn service_get_configuration(
        &self,
        _: Request<api::service_get_configuration::Request>,
    ) -> Answer<api::service_get_configuration::Reply> {
        let (account, device) = self
            .look(|_, engine| {
                engine.account_is_open()?;
                Ok((engine.account_id(), engine.device_id()))
            })
            .await?;
        let state = |on: bool| match on {
            true => api::service_get_configuration::SettingState::Enabled,
            false => api::service_get_configuration::SettingState::Disabled,
        };
        Ok(Response::new(api::service_get_configuration::Reply {
            account_pk: account.as_bytes().to_vec(),
            device_pk: device.as_bytes().to_vec(),
            account_group_pk: account.as_bytes().to_vec(),
            peer_id: self.node.network().peer_id().to_string(),
            listeners: self.node.network().listen_addresses().iter().map(ToString::to_string).collect(),
            ble_enabled: api::service_get_configuration::SettingState::Unavailable.into(),
            wifi_p2p_enabled: api::service_get_configuration::SettingState::Unavailable.into(),
            mdns_enabled: state(self.node.is_on_lan()).into(),
            relay_enabled: state(self.node.uses_relays()).into(),
        }))
    }

    async fn contact_request_reference(
        &self,
        _: Request<api::contact_request_reference::Request>,
    ) -> Answer<api::contact_request_reference::Reply> {
        let enabled = self
            .look(|read, engine| {
                engine.account_is_open()?;
                Ok(engine.requests_are_enabled(read)?)
            })
            .await?;
        let public_rendezvous_seed = if enabled { self.seed().await? } else { Vec::new() };
        Ok(Response::new(api::contact_request_reference::Reply { public_rendezvous_seed, enabled }))
    }

    async fn contact_request_disable(
        &self,
        _: Request<api::contact_request_disable::Request>,
    ) -> Answer<api::contact_request_disable::Reply> {
        self.change(|ctx, engine| engine.disable_requests(ctx)).await?;
        empty()
    }

    async fn contact_request_enable(
        &self,
        _: Request<api::contact_request_enable::Request>,
    ) -> Answer<api::contact_request_enable::Reply> {
        self.change(|ctx, engine| engine.enable_requests(ctx)).await?;
        let public_rendezvous_seed = self.seed().await?;
        Ok(Response::new(api::contact_request_enable::Reply { public_rendezvous_seed }))
    }

    async fn contact_request_reset_reference(
        &self,
        _: Request<api::contact_request_reset_reference::Request>,
    ) -> Answer<api::contact_request_reset_reference::Reply> {
        self.change(|ctx, engine| engine.reset_requests(ctx)).await?;
        let public_rendezvous_seed = self.seed().await?;
        Ok(Response::new(api::contact_request_reset_reference::Reply { public_rendezvous_seed }))
    }

    async fn contact_request_send(
        &self,
        request: Request<api::contact_request_send::Request>,
    ) -> Answer<api::contact_request_send::Reply> {
        let request = request.into_inner();
        let contact = request.contact.ok_or_else(|| invalid("a contact is needed"))?;
        account_is_open(&self.node).await?;
        let contact = Contact::from_proto(contact)
            .map_err(|error| coded(&[vec![Code::ErrOrbitDbAppend], error.codes()].concat(), error))?;
        self.change(move |ctx, engine| engine.request_contact(ctx, &contact, &request.own_metadata)).await?;
        empty()
    }

    async fn contact_request_accept(
        &self,
        request: Request<api::contact_request_accept::Request>,
    ) -> Answer<api::contact_request_accept::Reply> {
        let contact = account_id(&request.into_inner().contact_pk)?;
        self.change(move |ctx, engine| engine.accept_contact(ctx, &contact)).await?;
        empty()
    }

    async fn contact_request_discard(
        &self,
        request: Request<api::contact_request_discard::Request>,
    ) -> Answer<api::contact_request_discard::Reply> {
        let contact = account_id(&request.into_inner().contact_pk)?;
        self.change(move |ctx, engine| engine.discard_contact(ctx, &contact)).await?;
        empty()
    }

    async fn share_contact(
        &self,
        _: Request<api::share_contact::Request>,
    ) -> Answer<api::share_contact::Reply> {
        let contact = self
            .change(|ctx, engine| {
                engine.enable_requests(ctx)?;
                Ok(engine.own_contact(ctx.tx)?)
            })
            .await?;
        Ok(Response::new(api::share_contact::Reply { encoded_contact: contact.encode() }))
    }

    async fn decode_contact(
        &self,
        request: Request<api::decode_contact::Request>,
    ) -> Answer<api::decode_contact::Reply> {
        let contact = api::ShareableContact::decode(&*request.into_inner().encoded_contact)
            .map_err(|error| coded(&[Code::ErrDeserialization], error))?;
        Ok(Response::new(api::decode_contact::Reply { contact: Some(contact) }))
    }

    async fn contact_block(
        &self,
        request: Request<api::contact_block::Request>,
    ) -> Answer<api::contact_block::Reply> {
        let contact = account_id(&request.into_inner().contact_pk)?;
        self.change(move |ctx, engine| engine.block_contact(ctx, &contact)).await?;
        empty()
    }

    async fn contact_unblock(
        &self,
        request: Request<api::contact_unblock::Request>,
    ) -> Answer<api::contact_unblock::Reply> {
        let contact = account_id(&request.into_inner().contact_pk)?;
        self.change(move |ctx, engine| engine.unblock_contact(ctx, &contact)).await?;
        empty()
    }

    async fn multi_member_group_create(
        &self,
        _: Request<api::multi_member_group_create::Request>,
    ) -> Answer<api::multi_member_group_create::Reply> {
        let group = self.change(|ctx, engine| engine.create_group(ctx)).await?;
        Ok(Response::new(api::multi_member_group_create::Reply { group_pk: group.as_bytes().to_vec() }))
    }

    async fn multi_member_group_join(
        &self,
        request: Request<api::multi_member_group_join::Request>,
    ) -> Answer<api::multi_member_group_join::Reply> {
        let group = request.into_inner().group.ok_or_else(|| invalid("a group is needed"))?;
        self.change(move |ctx, engine| {
            engine.account_is_open()?;
            let group = Group::from_proto(&group)?;
            engine.join_group(ctx, &group)
        })
        .await?;
        empty()
    }

    async fn multi_member_group_leave(
        &self,
        request: Request<api::multi_member_group_leave::Request>,
    ) -> Answer<api::multi_member_group_leave::Reply> {
        let group = GroupId::from_bytes(&request.into_inner().group_pk)
            .map_err(|error| coded(&[Code::ErrDeserialization], format!("group_pk: {error}")))?;
        self.change(move |ctx, engine| engine.leave_group(ctx, &group)).await?;
        empty()
    }

    async fn multi_member_group_invitation_create(
        &self,
        request: Request<api::multi_member_group_invitation_create::Request>,
    ) -> Answer<api::multi_member_group_invitation_create::Reply> {
        let around = &[Code::ErrGroupMemberUnknownGroupId];
        let group_pk = request.into_inner().group_pk;
        let group = self.change_in(around, &group_pk, |ctx, engine, group| match engine.is_active(group) {
            true => engine.invitation(ctx.tx, group),
            false => Err(CommandError::NotActive),
        });
        let group = group.await?;
        Ok(Response::new(api::multi_member_group_invitation_create::Reply { group: Some(group.to_proto()) }))
    }

    async fn app_metadata_send(
        &self,
        request: Request<api::app_metadata_send::Request>,
    ) -> Answer<api::app_metadata_send::Reply> {
        let request = request.into_inner();
        let sent = self.change_in(&[Code::ErrGroupMissing], &request.group_pk, move |ctx, engine, group| {
            engine.send_metadata(ctx, group, &request.payload)
        });
        let entry = sent.await?;
        Ok(Response::new(api::app_metadata_send::Reply { cid: entry.cid_bytes().to_vec() }))
    }

    async fn app_message_send(
        &self,
        request: Request<api::app_message_send::Request>,
    ) -> Answer<api::app_message_send::Reply> {
        let request = request.into_inner();
        let sent = self.change_in(&[Code::ErrGroupMissing], &request.group_pk, move |ctx, engine, group| {
            engine.send_message(ctx, group, &request.payload)
        });
        let entry = sent.await?;
        Ok(Response::new(api::app_message_send::Reply { cid: entry.cid_bytes().to_vec() }))
    }

    async fn group_metadata_list(
        &self,
        request: Request<api::group_metadata_list::Request>,
    ) -> Answer<Self::GroupMetadataListStream> {
        let request = request.into_inner();
        let range = |group| {
            Range::new(
                group,
                &request.since_id,
                request.since_now,
                &request.until_id,
                request.until_now,
                request.reverse_order,
            )
        };
        Ok(Response::new(list::<MetadataEvent, A>(&self.node, &request.group_pk, range).await?))
    }

    async fn group_message_list(
        &self,
        request: Request<api::group_message_list::Request>,
    ) -> Answer<Self::GroupMessageListStream> {
        let request = request.into_inner();
        let range = |group| {
            Range::new(
                group,
                &request.since_id,
                request.since_now,
                &request.until_id,
                request.until_now,
                request.reverse_order,
            )
        };
        Ok(Response::new(list::<MessageEvent, A>(&self.node, &request.group_pk, range).await?))
    }

    async fn group_info(&self, request: Request<api::group_info::Request>) -> Answer<api::group_info::Reply> {
        let request = request.into_inner();
        let reply = if !request.group_pk.is_empty() {
            let id = named(&request.group_pk)?;
            let described = self.node.transact(move |ctx, engine, _| engine.describe_group(ctx, &id)).await;
            described.map_err(|error| match &error {
                CallError::Refused(CommandError::UnknownGroup) => {
                    coded(&[Code::Todo, Code::ErrInvalidInput], error)
                }
                error => status_of(error),
            })?
        } else if !request.contact_pk.is_empty() {
            let contact = AccountId::from_bytes(&request.contact_pk)
                .map_err(|error| invalid(format!("contact_pk: {error}")))?;
            self.change(move |ctx, engine| engine.describe_contact_group(ctx, &contact)).await?
        } else {
            return Err(invalid("group_pk or contact_pk is needed"));
        };
        let (group, member, device) = reply;
        let mut described = group.to_proto();
        if group.kind() == GroupKind::Account {
            // It is the seed of the account proof key, and no call needs it (`spec/security.md` C7).
            described.secret.clear();
        }
        Ok(Response::new(api::group_info::Reply {
            group: Some(described),
            member_pk: member.as_bytes().to_vec(),
            device_pk: device.as_bytes().to_vec(),
        }))
    }

    async fn activate_group(
        &self,
        request: Request<api::activate_group::Request>,
    ) -> Answer<api::activate_group::Reply> {
        let group = named(&request.into_inner().group_pk)?;
        self.change(move |ctx, engine| engine.activate(ctx, &group)).await?;
        empty()
    }

    async fn deactivate_group(
        &self,
        request: Request<api::deactivate_group::Request>,
    ) -> Answer<api::deactivate_group::Reply> {
        let group = named(&request.into_inner().group_pk)?;
        self.change(move |_, engine| {
            engine.deactivate(&group);
            Ok(())
        })
        .await?;
        empty()
    }

    async fn group_device_status(
        &self,
        request: Request<api::group_device_status::Request>,
    ) -> Answer<Self::GroupDeviceStatusStream> {
        Ok(Response::new(presence::watch(&self.node, &request.into_inner().group_pk).await?))
    }

    async fn debug_list_groups(
        &self,
        _: Request<api::debug_list_groups::Request>,
    ) -> Answer<Self::DebugListGroupsStream> {
        let (account, groups) = self
            .look(|read, engine| {
                engine.account_is_open()?;
                Ok((engine.account_group(), engine.known_groups(read)?))
            })
            .await?;
        let kind = |kind: GroupKind| match kind {
            GroupKind::Account => api::GroupType::Account,
            GroupKind::Contact => api::GroupType::Contact,
            GroupKind::MultiMember => api::GroupType::MultiMember,
        };
        let own = (account, GroupKind::Account, None);
        let groups = std::iter::once(own).chain(groups).map(|(id, group_kind, contact)| {
            let contact_pk = contact.map(|contact| contact.as_bytes().to_vec()).unwrap_or_default();
            api::debug_list_groups::Reply {
                group_pk: id.as_bytes().to_vec(),
                group_type: kind(group_kind).into(),
                contact_pk,
            }
        });
        Ok(Response::new(stream(groups.collect())))
    }

    async fn peer_list(&self, _: Request<api::peer_list::Request>) -> Answer<api::peer_list::Reply> {
        Ok(Response::new(debug::peers(self.node.network().peers())))
    }

    async fn system_info(&self, _: Request<api::system_info::Request>) -> Answer<api::system_info::Reply> {
        Ok(Response::new(debug::system(&self.node).await?))
    }

    async fn service_export_data(
        &self,
        _: Request<api::service_export_data::Request>,
    ) -> Answer<Self::ServiceExportDataStream> {
        Ok(Response::new(dangerous_export(&self.node).await?))
    }

    async fn contact_alias_key_send(
        &self,
        request: Request<api::contact_alias_key_send::Request>,
    ) -> Answer<api::contact_alias_key_send::Reply> {
        let group_pk = request.into_inner().group_pk;
        let sent = self.change_in(&[Code::ErrGroupMissing], &group_pk, |ctx, engine, group| {
            engine.send_alias_key(ctx, group)
        });
        sent.await?;
        empty()
    }

    async fn multi_member_group_alias_resolver_disclose(
        &self,
        request: Request<api::multi_member_group_alias_resolver_disclose::Request>,
    ) -> Answer<api::multi_member_group_alias_resolver_disclose::Reply> {
        let group_pk = request.into_inner().group_pk;
        let around = &[Code::ErrGroupMemberUnknownGroupId];
        let sent = self
            .change_in(around, &group_pk, |ctx, engine, group| engine.disclose_alias_resolver(ctx, group));
        sent.await?;
        empty()
    }

    async fn multi_member_group_admin_role_grant(
        &self,
        _: Request<api::multi_member_group_admin_role_grant::Request>,
    ) -> Answer<api::multi_member_group_admin_role_grant::Reply> {
        // The existing service has never had it either, and says so with this code.
        Err(coded(&[Code::ErrNotImplemented], "roles cannot be granted in this protocol"))
    }

    async fn debug_inspect_group_store(
        &self,
        request: Request<api::debug_inspect_group_store::Request>,
    ) -> Answer<Self::DebugInspectGroupStoreStream> {
        Ok(Response::new(debug::inspect(&self.node, request.into_inner()).await?))
    }

    async fn debug_group(
        &self,
        request: Request<api::debug_group::Request>,
    ) -> Answer<api::debug_group::Reply> {
        Ok(Response::new(debug::group(&self.node, request.into_inner()).await?))
    }

    async fn credential_verification_service_init_flow(
        &self,
        request: Request<api::credential_verification_service_init_flow::Request>,
    ) -> Answer<api::credential_verification_service_init_flow::Reply> {
        Ok(Response::new(credentials::init_flow(&self.node, request.into_inner()).await?))
    }

    async fn credential_verification_service_complete_flow(
        &self,
        request: Request<api::credential_verification_service_complete_flow::Request>,
    ) -> Answer<api::credential_verification_service_complete_flow::Reply> {
        Ok(Response::new(credentials::complete_flow(&self.node, request.into_inner()).await?))
    }

    async fn verified_credentials_list(
        &self,
        request: Request<api::verified_credentials_list::Request>,
    ) -> Answer<Self::VerifiedCredentialsListStream> {
        let request = request.into_inner();
        let given = |text: String| (!text.is_empty()).then_some(text);
        let (identifier, issuer) = (given(request.filter_identifier), given(request.filter_issuer));
        let valid_at = request.exclude_expired.then(now);
        let filter = CredentialFilter { identifier, issuer, valid_at };
        let found = self
            .look(move |read, engine| {
                engine.account_is_open()?;
                Ok(engine.credentials(read, &filter)?)
            })
            .await?;
        let replies = found.into_iter().map(|credential| api::verified_credentials_list::Reply {
            credential: Some(api::AccountVerifiedCredentialRegistered {
                // Which device registered it is in the log.
                device_pk: Vec::new(),
                signed_identity_public_key: credential.signed_identity_public_key,
                verified_credential: credential.verified_credential,
                registration_date: credential.registration_date,
                expiration_date: credential.expiration_date,
                identifier: credential.identifier,
                issuer: credential.issuer,
            }),
        });
        Ok(Response::new(stream(replies.collect())))
    }

    async fn replication_service_register_group(
        &self,
        request: Request<api::replication_service_register_group::Request>,
    ) -> Answer<api::replication_service_register_group::Reply> {
        replication::register(&self.node, request.into_inner()).await?;
        empty()
    }

    async fn out_of_store_receive(
        &self,
        request: Request<api::out_of_store_receive::Request>,
    ) -> Answer<api::out_of_store_receive::Reply> {
        out_of_store::receive(&self.node, request.into_inner()).await.map(Response::new)
    }

    async fn out_of_store_seal(
        &self,
        request: Request<api::out_of_store_seal::Request>,
    ) -> Answer<api::out_of_store_seal::Reply> {
        let request = request.into_inner();
        let entry = EntryId::from_cid_bytes(&request.cid);
        let sealed = self.change_in(&[], &request.group_public_key, move |ctx, engine, group| {
            if !engine.is_active(group) {
                return Err(CommandError::NotActive);
            }
            match entry {
                Some(entry) => engine.seal_out_of_store(ctx, group, &entry).map(Some),
                None => Ok(None),
            }
        });
        let encrypted = sealed.await?.ok_or_else(|| invalid("cid is none of an entry"))?;
        Ok(Response::new(api::out_of_store_seal::Reply { encrypted }))
    }

    async fn refresh_contact_request(
        &self,
        request: Request<api::refresh_contact_request::Request>,
    ) -> Answer<api::refresh_contact_request::Reply> {
        let request = request.into_inner();
        let contact = account_id(&request.contact_pk)?;
        let timeout = u64::try_from(request.timeout)
            .map_err(|_| invalid("timeout: seconds cannot be less than none"))?;
        let timeout = match timeout {
            0 => REFRESH_DEFAULT,
            seconds => Duration::from_secs(seconds),
        };
        // Whoever has just asked for the contact may refresh at once: what is to be found is told to those who look
        // after the call is answered, and before the next is taken.
        let told = self.node.view(|_, _, _| Ok::<_, std::convert::Infallible>(())).await;
        told.map_err(|error: CallError<_>| Status::unavailable(error.to_string()))?;
        let found = self.node.discovery().refresh(contact, timeout).await;
        // As the existing service, without a code.
        let found = found.map_err(|error| Status::unknown(error.to_string()))?;
        let peer = |(peer, addresses): (dunlin_ipfs::PeerId, Vec<dunlin_ipfs::Multiaddr>)| {
            api::refresh_contact_request::Peer {
                id: peer.to_string(),
                addrs: addresses.iter().map(ToString::to_string).collect(),
            }
        };
        let peers_found = found.into_iter().map(peer).collect();
        Ok(Response::new(api::refresh_contact_request::Reply { peers_found }))
    }
}
