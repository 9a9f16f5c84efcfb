//! `dunlin.node.v1.NodeService`: who is connected, and to whom to connect.

use std::time::SystemTime;

use dunlin_base::{EntryId, GroupId};
use dunlin_ipfs::{ConnectionInfo, Multiaddr, PeerId, PeerInfo};
use dunlin_proto::dunlin::node::v1::{
    ConnectRequest, Connection, Direction, DisconnectReply, DisconnectRequest, EraseMessageReply,
    EraseMessageRequest, GroupDevicesReply, GroupDevicesRequest, InfoReply, InfoRequest, Peer, PeersReply,
    PeersRequest, Source, SourcesReply, SourcesRequest, StatisticsReply, StatisticsRequest, WaitingReply,
    WaitingRequest,
};
use dunlin_wesh::engine::{App, CommandError};
use tonic::{Code, Request, Response, Status};

use super::stubs::node::node_service_server::NodeService;
use super::waiting;
use crate::finder::{ConnectError, Finder};
use crate::{CallError, NodeHandle, SourceReport};

/// The service on a node.
pub(super) struct Network<A: App> {
    node: NodeHandle<A>,
}

impl<A: App + Send + 'static> Network<A> {
    pub fn new(node: NodeHandle<A>) -> Self {
        Self { node }
    }

    fn finder(&self) -> &Finder {
        self.node.finder()
    }

    /// Which of the connected hosts speak for a device of a contact or a group's member.
    async fn known(&self) -> Result<Vec<dunlin_base::PeerId>, Status> {
        let speakers =
            self.node.view(|_, engine, _| Ok::<_, std::convert::Infallible>(engine.speakers())).await;
        speakers.map_err(|error: CallError<_>| Status::unavailable(error.to_string()))
    }

    async fn describe(&self, info: PeerInfo) -> Result<Peer, Status> {
        let known = self.known().await?;
        Ok(peer(&info, &known))
    }
}

#[tonic::async_trait]
impl<A: App + Send + 'static> NodeService for Network<A> {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoReply>, Status> {
        let started = SystemTime::now().checked_sub(self.node.uptime());
        Ok(Response::new(InfoReply {
            peer_id: self.node.network().peer_id().to_string(),
            listen: self.node.addresses().iter().map(Multiaddr::to_string).collect(),
            profile: self.node.profile().name().to_owned(),
            lan: self.node.is_on_lan(),
            started_ms: unix_millis(started.unwrap_or(SystemTime::UNIX_EPOCH)),
            pid: std::process::id(),
        }))
    }

    async fn peers(&self, _: Request<PeersRequest>) -> Result<Response<PeersReply>, Status> {
        let known = self.known().await?;
        let peers = self.node.network().peers().iter().map(|info| peer(info, &known)).collect();
        Ok(Response::new(PeersReply { peers }))
    }

    async fn sources(&self, _: Request<SourcesRequest>) -> Result<Response<SourcesReply>, Status> {
        let sources = self.node.sources().await.into_iter().map(source).collect();
        Ok(Response::new(SourcesReply { sources }))
    }

    async fn connect(&self, request: Request<ConnectRequest>) -> Result<Response<Peer>, Status> {
        let text = request.into_inner().address;
        let address: Multiaddr = text.trim().parse().map_err(|error| {
            let sentence = format!(
                "«{text}» is no multiaddr ({error}): it looks like /ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…"
            );
            refusal(Code::InvalidArgument, "address-malformed", sentence)
        })?;
        let peer = self.finder().connect(address).await.map_err(|error| match &error {
            ConnectError::Own => refusal(Code::InvalidArgument, "address-own", error.to_string()),
            ConnectError::TooMany | ConnectError::Busy => {
                refusal(Code::ResourceExhausted, "too-many-addresses", error.to_string())
            }
            ConnectError::Unreachable(_) | ConnectError::Stopped => {
                refusal(Code::Unavailable, "peer-unreachable", error.to_string())
            }
        })?;
        let info = self.node.network().peers().into_iter().find(|info| info.peer == peer);
        match info {
            Some(info) => Ok(Response::new(self.describe(info).await?)),
            None => {
                Err(refusal(Code::Unavailable, "peer-unreachable", "the peer closed the connection".into()))
            }
        }
    }

    async fn disconnect(
        &self,
        request: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectReply>, Status> {
        let text = request.into_inner().peer_id;
        let peer: PeerId = text.trim().parse().map_err(|_| {
            let sentence = format!("«{text}» is no peer id: it looks like 12D3KooW…");
            refusal(Code::InvalidArgument, "peer-malformed", sentence)
        })?;
        let forgotten = self.finder().forget(peer).await;
        let connected = self.node.network().is_connected(&peer);
        if !forgotten && !connected {
            return Err(refusal(Code::NotFound, "peer-unknown", format!("no peer {peer} is connected")));
        }
        let closed = self.node.network().disconnect(peer).await;
        closed.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(DisconnectReply {}))
    }

    async fn waiting(&self, request: Request<WaitingRequest>) -> Result<Response<WaitingReply>, Status> {
        let group = request.into_inner().group_pk;
        let waits = self.node.view(|read, engine, _| engine.waits(read)).await;
        let waits = waits.map_err(|error: CallError<_>| Status::unavailable(error.to_string()))?;
        let waits = waits.into_iter().map(waiting::describe);
        let waits = waits.filter(|wait| group.is_empty() || wait.group_pk == group).collect();
        Ok(Response::new(WaitingReply { waits }))
    }

    async fn statistics(&self, _: Request<StatisticsRequest>) -> Result<Response<StatisticsReply>, Status> {
        let states = self.node.view(|read, engine, _| {
            let groups: Vec<_> = engine.active_groups().collect();
            let state = |group| Ok((group, engine.group_state(read, &group)?));
            groups.into_iter().map(state).collect::<Result<Vec<_>, CommandError>>()
        });
        let states = states.await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(StatisticsReply {
            groups: states.iter().map(|(group, state)| waiting::group_state(group, state)).collect(),
            peers: self.node.traffic().all().into_iter().map(waiting::peer_traffic).collect(),
        }))
    }

    async fn group_devices(
        &self,
        request: Request<GroupDevicesRequest>,
    ) -> Result<Response<GroupDevicesReply>, Status> {
        let inactive = || {
            let told = "the group is not active on this node: activate it first";
            refusal(Code::NotFound, "group-inactive", told.to_owned())
        };
        let group = GroupId::from_bytes(&request.into_inner().group_pk).map_err(|error| {
            refusal(Code::InvalidArgument, "group-malformed", format!("group_pk: {error}"))
        })?;
        let shown = self.node.view(move |read, engine, _| engine.shown_by_devices(read, &group)).await;
        let shown = shown.map_err(|error| match error {
            CallError::Refused(CommandError::NotActive) => inactive(),
            error => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(GroupDevicesReply { devices: shown.iter().map(waiting::group_device).collect() }))
    }

    async fn erase_message(
        &self,
        request: Request<EraseMessageRequest>,
    ) -> Result<Response<EraseMessageReply>, Status> {
        let request = request.into_inner();
        let group = GroupId::from_bytes(&request.group_pk).map_err(|error| {
            refusal(Code::InvalidArgument, "group-malformed", format!("group_pk: {error}"))
        })?;
        let entry = EntryId::from_cid_bytes(&request.message_id).ok_or_else(|| {
            let told = "message_id is no id of a message: it is the `id` in the context of the event";
            refusal(Code::InvalidArgument, "message-malformed", told.to_owned())
        })?;
        let erased =
            self.node.transact(move |ctx, engine, _| engine.erase_message(ctx, &group, &entry)).await;
        erased.map_err(|error| match &error {
            CallError::Refused(refused @ CommandError::NoSuchMessage) => {
                refusal(Code::NotFound, "message-unknown", refused.to_string())
            }
            CallError::Refused(refused @ CommandError::SetAside) => {
                refusal(Code::Unavailable, "group-unreadable", refused.to_string())
            }
            error => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(EraseMessageReply {}))
    }
}

/// A status whose trailer carries one word for programs.
pub(super) fn refusal(code: Code, reason: &'static str, sentence: String) -> Status {
    let mut status = Status::new(code, sentence);
    status.metadata_mut().insert("dunlin-reason", tonic::metadata::MetadataValue::from_static(reason));
    status
}

fn peer(info: &PeerInfo, known: &[dunlin_base::PeerId]) -> Peer {
    let latency = info.latency.map_or(0, |latency| u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    let id = crate::perform::base_peer(&info.peer);
    Peer {
        peer_id: info.peer.to_string(),
        connections: info.connections.iter().map(connection).collect(),
        latency_us: latency,
        known: id.is_some_and(|id| known.contains(&id)),
    }
}

fn source(report: SourceReport) -> Source {
    let millis = |time: dunlin_base::Time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (error, error_ms) = report.error.map(|(error, at)| (error, millis(at))).unwrap_or_default();
    Source {
        kind: report.kind.name().to_owned(),
        place: report.place,
        announced: count(report.announced),
        found: count(report.found),
        found_ms: report.found_at.map(millis).unwrap_or_default(),
        error,
        error_ms,
    }
}

fn connection(info: &ConnectionInfo) -> Connection {
    let direction = if info.inbound { Direction::Inbound } else { Direction::Outbound };
    Connection {
        address: info.address.to_string(),
        direction: direction.into(),
        since_ms: unix_millis(info.since),
    }
}

/// Milliseconds since 1970. A clock before that counts as 1970.
fn unix_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_tells_since_when_it_is_there() {
        let info = ConnectionInfo {
            address: "/ip4/192.0.2.1/tcp/4001".parse().unwrap(),
            inbound: true,
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        };

        assert_eq!(connection(&info).since_ms, 1_700_000_000_123);
    }
}
