//! Gossipsub, set as libp2p for Go has it, so that both keep one mesh.

use std::{
    ops::{Deref, DerefMut},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{
        self, AllowAllSubscriptionFilter, ConfigBuilder, IdentTopic, IdentityTransform,
        MaxCountSubscriptionFilter, Message, MessageAuthenticity, MessageId, PublishError, ValidationMode,
    },
    identity::Keypair,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

/// Longest message, in bytes with its topic and an envelope of up to 256 bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes around a message: author, sequence number, signature and lengths, rounded up.
const ENVELOPE_BYTES_MAX: usize = 256;

/// Topics one peer may subscribe to: two per group. A host of ours should stay below 6,000, since the list
/// goes out in one message of at most [`MESSAGE_BYTES_MAX`] when a peer connects.
pub const TOPICS_PER_PEER_MAX: usize = 8 * 1024;

/// Gossipsub, with a bound on what peers may subscribe to.
type Gossipsub =
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

/// Gossipsub with a heartbeat that goes on when nothing else happens.
///
/// After a heartbeat, libp2p sets its timer again without asking it to wake anybody, so the next heartbeat
/// waits until something else, at the latest a ping, makes the host look. Asking once more sets the alarm,
/// and takes out what the heartbeat had to say.
pub(crate) struct Behaviour(Gossipsub);

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Gossipsub as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.0.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.0.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.0.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.0.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.0.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.0.poll(cx) {
            Poll::Pending => self.0.poll(cx),
            ready => ready,
        }
    }
}

impl Deref for Behaviour {
    type Target = Gossipsub;

    fn deref(&self) -> &Gossipsub {
        &self.0
    }
}

impl DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Gossipsub {
        &mut self.0
    }
}

/// Why a message could not be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishMessageError {
    /// The message and its envelope are longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message is too long")]
    TooLong,
    /// Every peer on the topic is slower than what is being published. Publish less, or later.
    #[error("all peers on the topic are behind")]
    Congested,
    /// The message could not be signed, which is a fault of ours.
    #[error("the message could not be prepared")]
    Unprepared(#[source] PublishError),
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] crate::Stopped),
}

/// Builds the behaviour. Fails only if the constants below contradict each other.
pub(crate) fn behaviour(identity: &Keypair) -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let config = ConfigBuilder::default()
        .mesh_n(6)
        .mesh_n_low(5)
        .mesh_n_high(12)
        .retain_scores(4)
        .mesh_outbound_min(2)
        .gossip_lazy(6)
        .gossip_factor(0.25)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        .history_length(5)
        .history_gossip(3)
        .fanout_ttl(Duration::from_secs(60))
        .prune_backoff(Duration::from_secs(60))
        .unsubscribe_backoff(Duration::from_secs(10))
        .flood_publish(true)
        .duplicate_cache_time(Duration::from_secs(120))
        .max_transmit_size(MESSAGE_BYTES_MAX)
        // Subscriptions count as control. The default of 16 KiB ignores a peer that has more than a hundred
        // of them.
        .max_control_message_size(MESSAGE_BYTES_MAX)
        // Peers that somebody recommends on leaving the mesh are not dialled: a relay may not choose our
        // mesh.
        .prune_peers(0)
        .validation_mode(ValidationMode::Strict)
        .message_id_fn(message_id)
        .support_floodsub()
        .build()?;
    let topics = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: TOPICS_PER_PEER_MAX,
        // A peer names all its topics in its first message.
        max_subscriptions_per_request: TOPICS_PER_PEER_MAX,
    };
    let signing = MessageAuthenticity::Signed(identity.clone());
    Ok(Behaviour(Gossipsub::new_with_subscription_filter(signing, config, topics)?))
}

/// Names a message as libp2p for Go does: bytes of the author, then the sequence number in 8 bytes, big
/// endian. Both sides must agree, since gossip about messages carries only these names.
fn message_id(message: &Message) -> MessageId {
    let author = message.source.map(|author| author.to_bytes()).unwrap_or_default();
    let sequence = message.sequence_number.unwrap_or_default().to_be_bytes();
    MessageId::new(&[author.as_slice(), &sequence].concat())
}

/// Publishes `data`. That nobody is there to hear it is not an error; the next greeting between peers covers
/// it.
pub(crate) fn publish(gossip: &mut Behaviour, topic: String, data: Bytes) -> Result<(), PublishMessageError> {
    if topic.len() + data.len() + ENVELOPE_BYTES_MAX > MESSAGE_BYTES_MAX {
        return Err(PublishMessageError::TooLong);
    }
    match gossip.publish(IdentTopic::new(topic), Vec::from(data)) {
        Ok(_) | Err(PublishError::NoPeersSubscribedToTopic) => Ok(()),
        // Only the same sequence number twice could cause this, and then the message is out already.
        Err(PublishError::Duplicate) => Ok(()),
        Err(PublishError::MessageTooLarge) => Err(PublishMessageError::TooLong),
        Err(PublishError::AllQueuesFull(_)) => Err(PublishMessageError::Congested),
        Err(error @ (PublishError::SigningError(_) | PublishError::TransformFailed(_))) => {
            Err(PublishMessageError::Unprepared(error))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        task::{Wake, Waker},
    };

    use libp2p::gossipsub::TopicHash;

    use super::*;

    #[test]
    fn the_heartbeat_goes_on_when_nothing_else_happens() {
        let mut behaviour = behaviour(&Keypair::generate_ed25519()).unwrap();
        let (woken, wakes) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tell(woken)));
        let mut cx = Context::from_waker(&waker);

        assert!(behaviour.poll(&mut cx).is_pending());
        for beat in 1..=3 {
            wakes.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("heartbeat {beat} does not come"));
            assert!(behaviour.poll(&mut cx).is_pending());
        }
    }

    /// Far longer than a heartbeat takes, even on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Tell(mpsc::Sender<()>);

    impl Wake for Tell {
        fn wake(self: Arc<Self>) {
            // Nobody listens when the test is over.
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_message_is_named_by_author_and_sequence_number() {
        let author = PeerId::random();
        let message = Message {
            source: Some(author),
            data: b"not part of the name".to_vec(),
            sequence_number: Some(0x0102_0304_0506_0708),
            topic: TopicHash::from_raw("topic"),
        };

        let id = message_id(&message);

        assert_eq!(id.0, [author.to_bytes(), vec![1, 2, 3, 4, 5, 6, 7, 8]].concat());
    }

    #[test]
    fn the_constants_agree_with_each_other() {
        assert!(behaviour(&Keypair::generate_ed25519()).is_ok());
    }
}
