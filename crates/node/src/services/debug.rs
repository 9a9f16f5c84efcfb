//! Calls that look into the node: logs entry by entry, peers, and what the process is to the machine.

use std::ops::Bound;

use dunlin_base::GroupId;
use dunlin_ipfs::{ConnectionInfo, Multiaddr, PeerInfo};
use dunlin_proto::protocol as api;
use dunlin_wesh::engine::{App, CommandError, GroupState, InspectedEntry, StoreKind};
use dunlin_wesh::errors::Code;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::groups::{status_in_use, used};
use super::lists::Replies;
use super::process;
use super::status::{invalid, status_of};
use crate::perform::{CONTACT_REQUESTS, DIRECT_CHANNEL, ipfs_peer};
use crate::{CallError, NodeHandle};

/// Entries that are read at once, and that may wait for a slow client.
const ENTRIES_AT_ONCE: usize = 128;
/// Where a Berty rendezvous server takes calls.
const RENDEZVOUS: &str = "/rendezvous/1.0.0";

type Inspected = api::debug_inspect_group_store::Reply;

/// Gives out every entry of one log of a group, in its order, also those that do not open.
pub(super) async fn inspect<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    request: api::debug_inspect_group_store::Request,
) -> Result<Replies<Inspected>, Status> {
    let kind = match request.log_type() {
        api::DebugInspectGroupLogType::Undefined => return Err(invalid("log_type is needed")),
        api::DebugInspectGroupLogType::Message => StoreKind::Messages,
        api::DebugInspectGroupLogType::Metadata => StoreKind::Metadata,
    };
    let group = used(&[Code::ErrInvalidInput], &request.group_pk)?;
    let first = page(node, group, kind, Bound::Unbounded).await;
    let first = first.map_err(|error| status_in_use(&[Code::ErrInvalidInput], &error))?;
    let (replies, stream) = mpsc::channel(ENTRIES_AT_ONCE);
    let node = node.clone();
    tokio::spawn(async move {
        let mut entries = first;
        while let Some(last) = entries.last().map(|entry| entry.position) {
            for entry in entries {
                if replies.send(Ok(inspected(entry))).await.is_err() {
                    return;
                }
            }
            entries = match page(&node, group, kind, Bound::Excluded(last)).await {
                Ok(entries) => entries,
                Err(error) => {
                    // The client may be gone.
                    let _ = replies.send(Err(status_in_use(&[Code::ErrInvalidInput], &error))).await;
                    return;
                }
            };
        }
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

async fn page<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    group: GroupId,
    kind: StoreKind,
    start: Bound<dunlin_log::Position>,
) -> Result<Vec<InspectedEntry>, CallError<CommandError>> {
    node.view(move |read, engine, _| engine.inspect(read, &group, kind, start, ENTRIES_AT_ONCE)).await
}

fn inspected(entry: InspectedEntry) -> Inspected {
    Inspected {
        cid: entry.position.id.cid_bytes().to_vec(),
        parent_cids: entry.parents.iter().map(|parent| parent.cid_bytes().to_vec()).collect(),
        metadata_event_type: entry.event_type.into(),
        device_pk: entry.device.map(|device| device.as_bytes().to_vec()).unwrap_or_default(),
        payload: entry.payload,
    }
}

/// The connected peers of a group.
pub(super) async fn group<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    request: api::debug_group::Request,
) -> Result<api::debug_group::Reply, Status> {
    let group = used(&[], &request.group_pk)?;
    let peers = node.view(move |_, engine, _| engine.peers_of(&group)).await;
    let peers = peers.map_err(|error| status_in_use(&[], &error))?;
    let peer_ids = peers.iter().filter_map(ipfs_peer).map(|peer| peer.to_string()).collect();
    Ok(api::debug_group::Reply { peer_ids })
}

/// The connected peers, each with its routes.
pub(super) fn peers(peers: Vec<PeerInfo>) -> api::peer_list::Reply {
    api::peer_list::Reply { peers: peers.iter().map(peer).collect() }
}

fn peer(info: &PeerInfo) -> api::peer_list::Peer {
    use api::peer_list::Feature;
    let latency = info.latency.map_or(0, |latency| i64::try_from(latency.as_millis()).unwrap_or(i64::MAX));
    let speaks = |name: &str| info.protocols.iter().any(|protocol| protocol == name);
    let some = |fits: fn(&Multiaddr) -> bool| info.connections.iter().any(|one| fits(&one.address));
    let features = [
        (Feature::WeshFeature, [CONTACT_REQUESTS, DIRECT_CHANNEL, RENDEZVOUS].into_iter().any(speaks)),
        (Feature::LocalFeature, some(crate::pump::is_local)),
        (Feature::QuicFeature, some(is_quic)),
    ];
    api::peer_list::Peer {
        id: info.peer.to_string(),
        routes: info.connections.iter().map(|connection| route(connection, latency)).collect(),
        errors: Vec::new(),
        features: features.into_iter().filter(|(_, has)| *has).map(|(feature, _)| feature.into()).collect(),
        min_latency: latency,
        is_active: !info.connections.is_empty(),
        direction: directions(&info.connections).into(),
    }
}

fn route(connection: &ConnectionInfo, latency: i64) -> api::peer_list::Route {
    api::peer_list::Route {
        is_active: true,
        address: connection.address.to_string(),
        direction: directions(std::slice::from_ref(connection)).into(),
        latency,
        // Which streams are open is not known here.
        streams: Vec::new(),
    }
}

/// Who dialled: the peer, this node, or both.
fn directions(connections: &[ConnectionInfo]) -> api::Direction {
    let inbound = connections.iter().any(|connection| connection.inbound);
    let outbound = connections.iter().any(|connection| !connection.inbound);
    match (inbound, outbound) {
        (true, true) => api::Direction::BiDir,
        (true, false) => api::Direction::InboundDir,
        (false, true) => api::Direction::OutboundDir,
        (false, false) => api::Direction::UnknownDir,
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    use dunlin_ipfs::multiaddr::Protocol;
    address.iter().any(|part| matches!(part, Protocol::Quic | Protocol::QuicV1))
}

/// What the node is to the machine, and how its account log stands.
pub(super) async fn system<A: App + Send + 'static>(
    node: &NodeHandle<A>,
) -> Result<api::system_info::Reply, Status> {
    let state = node.view(|read, engine, _| {
        engine.account_is_open()?;
        engine.group_state(read, &engine.account_group())
    });
    let state: GroupState = state.await.map_err(|error: CallError<CommandError>| status_of(&error))?;
    let (process, warns) = process::describe(node.uptime());
    let connected_peers = i64::try_from(node.network().peers().len()).unwrap_or(i64::MAX);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let missing = u64::try_from(state.missing).unwrap_or(u64::MAX);
    Ok(api::system_info::Reply {
        process: Some(process),
        p2p: Some(api::system_info::P2p { connected_peers }),
        orbitdb: Some(api::system_info::OrbitDb {
            account_metadata: Some(api::system_info::orbit_db::ReplicationStatus {
                progress: number(state.metadata_height),
                maximum: number(state.metadata_height.saturating_add(missing)),
                buffered: 0,
                queued: number(missing),
            }),
        }),
        warns,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_peer_with_two_routes_shows_both_and_who_dialled() {
        let connection = |address: &str, inbound| ConnectionInfo {
            address: address.parse().unwrap(),
            inbound,
            since: SystemTime::UNIX_EPOCH,
        };
        let info = PeerInfo {
            peer: dunlin_ipfs::PeerId::random(),
            connections: vec![
                connection("/ip4/203.0.113.9/tcp/1", false),
                connection("/ip4/203.0.113.9/udp/1/quic-v1", true),
            ],
            latency: Some(Duration::from_millis(7)),
            agent: String::new(),
            protocols: vec![CONTACT_REQUESTS.to_owned()],
        };
        let shown = peer(&info);
        assert_eq!(shown.direction(), api::Direction::BiDir);
        let routes: Vec<_> = shown.routes.iter().map(|route| (route.direction(), route.latency)).collect();
        assert_eq!(routes, [(api::Direction::OutboundDir, 7), (api::Direction::InboundDir, 7)]);
        let features: Vec<_> = shown.features().collect();
        assert_eq!(features, [api::peer_list::Feature::WeshFeature, api::peer_list::Feature::QuicFeature]);
        assert!(shown.is_active && shown.min_latency == 7);
    }
}
