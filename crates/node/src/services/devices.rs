//! `dunlin.device.v1.DeviceService`: the devices of the account, and how a new one becomes one.

use dunlin_base::kv::Read;
use dunlin_base::{DeviceId, Time};
use dunlin_proto::dunlin::device::v1::{
    ConfirmReply, ConfirmRequest, Device, ExportReply, ExportRequest, LinkReply, LinkRequest, Linked,
    ListReply, ListRequest, NameRequest, Offered, RemoveRequest, link_reply,
};
use dunlin_wesh::engine::{App, DeviceError, Engine};
use dunlin_wesh::linking::{Code, ConfirmError, OfferEnd};
use dunlin_wesh::metadata::DeviceRecord;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code as GrpcCode, Request, Response, Status};
use zeroize::Zeroizing;

use super::archive;
use super::lists::Replies;
use super::network::refusal;
use super::stubs::device::device_service_server::DeviceService;
use crate::linking::LinkEvent;
use crate::{CallError, NodeHandle};

/// The service on a node.
pub(super) struct Devices<A: App> {
    node: NodeHandle<A>,
}

impl<A: App + Send + 'static> Devices<A> {
    pub fn new(node: NodeHandle<A>) -> Self {
        Self { node }
    }

    /// Changes one device and shows it.
    async fn change(
        &self,
        reference: String,
        change: impl FnOnce(
            &mut dunlin_wesh::engine::Ctx<'_, '_>,
            &mut Engine,
            &DeviceId,
        ) -> Result<(), DeviceError>
        + Send
        + 'static,
    ) -> Result<Response<Device>, Status> {
        let changed = self.node.transact(move |ctx, engine, _| {
            let device = find(ctx.tx, engine, &reference)?;
            change(ctx, engine, &device)?;
            let record = engine.devices(ctx.tx)?.into_iter().find(|record| record.device == device);
            Ok(shown(engine, record.ok_or(DeviceError::Unknown)?))
        });
        let changed: Result<_, CallError<Refusal>> = changed.await;
        changed.map(Response::new).map_err(|error| status(&error))
    }
}

#[tonic::async_trait]
impl<A: App + Send + 'static> DeviceService for Devices<A> {
    type ExportStream = Replies<ExportReply>;
    type LinkStream = Replies<LinkReply>;

    async fn link(&self, request: Request<LinkRequest>) -> Result<Response<Self::LinkStream>, Status> {
        let events = self.node.offer_link(request.into_inner().owner).await;
        let events = events.map_err(|error| Status::failed_precondition(error.to_string()))?;
        let replies = ReceiverStream::new(events).map(|event| Ok(LinkReply { event: Some(told(&event)) }));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn confirm(&self, request: Request<ConfirmRequest>) -> Result<Response<ConfirmReply>, Status> {
        let Some(code) = Code::parse(&request.into_inner().code) else {
            let told = "a code has six digits: type the one that the new device shows";
            return Err(refusal(GrpcCode::InvalidArgument, "code-malformed", told.to_owned()));
        };
        self.node.confirm_link(code).await.map_err(|error| {
            let reason = match error {
                ConfirmError::Wrong => "code-wrong",
                _ => "nothing-to-confirm",
            };
            refusal(GrpcCode::FailedPrecondition, reason, error.to_string())
        })?;
        Ok(Response::new(ConfirmReply {}))
    }

    async fn export(&self, request: Request<ExportRequest>) -> Result<Response<Self::ExportStream>, Status> {
        let passphrase = Zeroizing::new(request.into_inner().passphrase);
        if passphrase.is_empty() {
            let told = "an export needs a passphrase: without one, whoever finds the file is the account";
            return Err(refusal(GrpcCode::InvalidArgument, "passphrase-empty", told.to_owned()));
        }
        archive::sealed_export(&self.node, passphrase).await.map(Response::new)
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let listed = self.node.view(|read, engine, _| {
            let mut devices: Vec<_> =
                engine.devices(read)?.into_iter().map(|record| shown(engine, record)).collect();
            devices.sort_by_key(|device| (!device.own, device.removed, device.added_ms));
            Ok(devices)
        });
        let listed: Result<_, CallError<Refusal>> = listed.await;
        let devices = listed.map_err(|error| status(&error))?;
        Ok(Response::new(ListReply { devices }))
    }

    async fn name(&self, request: Request<NameRequest>) -> Result<Response<Device>, Status> {
        let NameRequest { device, name } = request.into_inner();
        let name = name.trim().to_owned();
        if name.is_empty() || name.chars().any(char::is_control) {
            let told = "a device needs a name of letters that can be seen";
            return Err(refusal(GrpcCode::InvalidArgument, "name-malformed", told.to_owned()));
        }
        self.change(device, move |ctx, engine, device| engine.name_device(ctx, device, &name)).await
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<Device>, Status> {
        let reference = request.into_inner().device;
        if reference.trim().is_empty() {
            let told = "say which device: dunlin device list shows them";
            return Err(refusal(GrpcCode::NotFound, "device-unknown", told.to_owned()));
        }
        self.change(reference, |ctx, engine, device| engine.remove_device(ctx, device)).await
    }
}

/// Why a call about a device was refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("«{0}» fits several devices: give more of the id, as dunlin device list shows it")]
    Ambiguous(String),
    #[error("there is no device «{0}» in this account: dunlin device list shows them")]
    Unknown(String),
}

impl From<dunlin_base::kv::ReadError> for Refusal {
    fn from(error: dunlin_base::kv::ReadError) -> Self {
        Self::Device(error.into())
    }
}

fn status(error: &CallError<Refusal>) -> Status {
    let told = error.to_string();
    match error {
        CallError::Refused(Refusal::Device(error)) => match error {
            DeviceError::Unknown => refusal(GrpcCode::NotFound, "device-unknown", told),
            DeviceError::Removed => refusal(GrpcCode::FailedPrecondition, "device-removed", told),
            DeviceError::Own => refusal(GrpcCode::FailedPrecondition, "device-own", told),
            DeviceError::TooLong => refusal(GrpcCode::InvalidArgument, "name-malformed", told),
            _ => Status::unavailable(told),
        },
        CallError::Refused(Refusal::Ambiguous(_)) => {
            refusal(GrpcCode::InvalidArgument, "reference-ambiguous", told)
        }
        CallError::Refused(Refusal::Unknown(_)) => refusal(GrpcCode::NotFound, "device-unknown", told),
        CallError::NotStored(_) | CallError::Stopped => Status::unavailable(told),
    }
}

/// The one device that a reference fits: the beginning of an id, a name, or nothing for this one.
fn find(read: &dyn Read, engine: &Engine, reference: &str) -> Result<DeviceId, Refusal> {
    let reference = reference.trim();
    if reference.is_empty() {
        return Ok(engine.device_id());
    }
    let devices = engine.devices(read)?;
    let named = devices.iter().filter(|record| record.name == reference);
    let mut found: Vec<_> = named.map(|record| record.device).collect();
    if found.is_empty() {
        let wanted = reference.to_ascii_lowercase();
        let fits = |record: &&DeviceRecord| hex_of(&record.device).starts_with(&wanted);
        found = devices.iter().filter(fits).map(|record| record.device).collect();
    }
    match found.as_slice() {
        [device] => Ok(*device),
        [] => Err(Refusal::Unknown(reference.to_owned())),
        _ => Err(Refusal::Ambiguous(reference.to_owned())),
    }
}

fn shown(engine: &Engine, record: DeviceRecord) -> Device {
    let millis = |time: Option<Time>| i64::try_from(time.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    let online = engine.online_devices(&engine.account_group()).contains(&record.device);
    Device {
        id: hex_of(&record.device),
        // Whoever holds the account keys can write anything there.
        name: record.name.chars().filter(|sign| !sign.is_control()).collect(),
        added_ms: millis(record.added),
        own: record.device == engine.device_id(),
        removed: record.removed.is_some(),
        removed_ms: millis(record.removed),
        online,
    }
}

fn hex_of(device: &DeviceId) -> String {
    device.key().to_string()
}

fn told(event: &LinkEvent) -> link_reply::Event {
    match event {
        LinkEvent::Offered(text) => link_reply::Event::Offered(Offered {
            link: text.to_text().to_string(),
            expires_ms: i64::try_from(text.expires.as_millis()).unwrap_or(i64::MAX),
        }),
        LinkEvent::Code(code) => link_reply::Event::Code(code.to_string()),
        LinkEvent::Ended(OfferEnd::Linked) => link_reply::Event::Linked(Linked {}),
        LinkEvent::Ended(end) => link_reply::Event::Failed(end.to_string()),
    }
}
