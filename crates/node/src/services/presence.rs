//! Who is there in a group: a stream that ends only with its client.
//!
//! A peer whose connection is lost is told as disconnected, and as reconnecting after that while the node dials it. What a
//! client was told is remembered, so that one who falls behind misses changes, but never the last one.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_base::{DeviceId, GroupId, PeerId};
use dunlin_ipfs::PeerInfo;
use dunlin_proto::protocol::group_device_status as api;
use dunlin_wesh::engine::{App, CommandError, Event};
use dunlin_wesh::errors::Code;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::groups::{status_in_use, used};
use super::lists::Replies;
use crate::NodeHandle;
use crate::perform::ipfs_peer;

/// Replies that may wait for a slow client.
const REPLIES_WAITING_MAX: usize = 64;

/// Starts to tell who is there in a group that is in use.
pub(super) async fn watch<A: App + Send + 'static>(
    node: &NodeHandle<A>,
    group_pk: &[u8],
) -> Result<Replies<api::Reply>, Status> {
    let around = [Code::ErrGroupMissing];
    let group = used(&around, group_pk)?;
    // Watching begins before looking, so that nothing falls between.
    let events = node.events();
    let there = node.view(move |_, engine, _| {
        if engine.is_active(&group) { Ok(engine.speakers_of(&group)) } else { Err(CommandError::NotActive) }
    });
    let there = there.await.map_err(|error| status_in_use(&around, &error))?;
    let (replies, stream) = mpsc::channel(REPLIES_WAITING_MAX);
    let mut watch = Watch { node: node.clone(), group, told: BTreeMap::new(), replies };
    tokio::spawn(async move {
        // A client that is gone needs nothing more.
        let _ = watch.run(there, events).await;
    });
    Ok(Box::pin(ReceiverStream::new(stream)))
}

/// The client is gone, or the node has stopped.
struct Ended;

struct Watch<A: App> {
    node: NodeHandle<A>,
    group: GroupId,
    told: BTreeMap<PeerId, DeviceId>,
    replies: mpsc::Sender<Result<api::Reply, Status>>,
}

impl<A: App + Send + 'static> Watch<A> {
    async fn run(
        &mut self,
        there: Vec<(PeerId, DeviceId)>,
        mut events: broadcast::Receiver<Arc<Event>>,
    ) -> Result<(), Ended> {
        self.compare(there).await?;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.replies.closed() => return Err(Ended),
            };
            match event {
                Ok(event) => self.note(&event).await?,
                Err(RecvError::Lagged(_)) => {
                    let group = self.group;
                    let there = self.node.view(move |_, engine, _| Ok(engine.speakers_of(&group))).await;
                    let there = there.map_err(|_: crate::CallError<CommandError>| Ended)?;
                    self.compare(there).await?;
                }
                Err(RecvError::Closed) => return Err(Ended),
            }
        }
    }

    async fn note(&mut self, event: &Event) -> Result<(), Ended> {
        match event {
            Event::Presence { group, peer, device, online } if *group == self.group => match online {
                true => self.came(peer.clone(), *device).await,
                false => self.went(peer).await,
            },
            _ => Ok(()),
        }
    }

    /// Tells in what those who are there differ from what was told.
    async fn compare(&mut self, there: Vec<(PeerId, DeviceId)>) -> Result<(), Ended> {
        let there: BTreeMap<_, _> = there.into_iter().collect();
        let gone: Vec<_> = self.told.keys().filter(|peer| !there.contains_key(*peer)).cloned().collect();
        for peer in gone {
            self.went(&peer).await?;
        }
        for (peer, device) in there {
            self.came(peer, device).await?;
        }
        Ok(())
    }

    async fn came(&mut self, peer: PeerId, device: DeviceId) -> Result<(), Ended> {
        if self.told.get(&peer) == Some(&device) {
            return Ok(());
        }
        let Some(id) = ipfs_peer(&peer) else { return Ok(()) };
        let info = self.node.network().peers().into_iter().find(|info| info.peer == id);
        self.told.insert(peer, device);
        self.tell(connected(&id, &device, info)).await
    }

    async fn went(&mut self, peer: &PeerId) -> Result<(), Ended> {
        if self.told.remove(peer).is_none() {
            return Ok(());
        }
        let Some(id) = ipfs_peer(peer) else { return Ok(()) };
        let event = api::reply::PeerDisconnected { peer_id: id.to_string() };
        self.tell(reply(api::Type::PeerDisconnected, &event)).await?;
        // One that is still connected has only left the group, or the group is not in use any more.
        if self.node.network().is_connected(&id) || !self.node.finder().keeps(id).await {
            return Ok(());
        }
        let event = api::reply::PeerReconnecting { peer_id: id.to_string() };
        self.tell(reply(api::Type::PeerReconnecting, &event)).await
    }

    async fn tell(&self, reply: api::Reply) -> Result<(), Ended> {
        self.replies.send(Ok(reply)).await.map_err(|_| Ended)
    }
}

fn connected(id: &dunlin_ipfs::PeerId, device: &DeviceId, info: Option<PeerInfo>) -> api::Reply {
    let connections = info.map(|info| info.connections).unwrap_or_default();
    let transport = |local| if local { api::Transport::TptLan } else { api::Transport::TptWan };
    let local = connections.iter().map(|connection| crate::pump::is_local(&connection.address));
    let event = api::reply::PeerConnected {
        peer_id: id.to_string(),
        device_pk: device.as_bytes().to_vec(),
        transports: local.map(|local| transport(local).into()).collect(),
        maddrs: connections.iter().map(|connection| connection.address.to_string()).collect(),
    };
    reply(api::Type::PeerConnected, &event)
}

fn reply(kind: api::Type, event: &impl prost::Message) -> api::Reply {
    api::Reply { r#type: kind.into(), event: event.encode_to_vec() }
}
