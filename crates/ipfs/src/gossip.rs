//! Gossipsub, set as libp2p for Go has it, so that both keep one mesh.

use std::{
    collections::BTreeMap,
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
        MaxCountSubscriptionFilter, Message, MessageAcceptance, MessageAuthenticity, MessageId,
        PeerScoreParams, PeerScoreThresholds, PublishError, ValidationMode,
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

/// What one refused message takes from the score of the peer that brought it. Whoever is below zero is put out of
/// the mesh at the next heartbeat.
const FAULT: f64 = -10.0;
/// Refused messages after which a peer is told of no messages, after which none is published to it, and after which
/// whatever it says on topics is left unread.
const FAULTS_BEFORE_UNTOLD: f64 = 2.0;
const FAULTS_BEFORE_UNSENT: f64 = 4.0;
const FAULTS_BEFORE_UNHEARD: f64 = 8.0;
/// Refused messages that are held against a peer at most: with the share below it is heard again two minutes after
/// the last of them.
const FAULTS_MAX: f64 = 100.0;
/// The share of its faults that is still held against a peer at the next look, and what is forgotten.
const FAULTS_KEPT: f64 = 0.8;
const FAULTS_FORGOTTEN: f64 = 0.1;
/// Peers whose faults are remembered; the one with the fewest makes room. Twice as many as can be connected.
const BLAMED_MAX: usize = 1024;
/// How often there is a look at scores. Each look wakes the process up.
const SCORES_EVERY: Duration = Duration::from_secs(10);
/// How long the score of a peer that has left is kept, so that it does not come back without it.
const SCORES_KEPT: Duration = Duration::from_secs(300);

/// What a message turned out to be, said by [`Ipfs::judge`](crate::Ipfs::judge).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// It is what the topic is for. It is passed on.
    Pass,
    /// It is of no use, and nobody is to blame. It is not passed on.
    Ignore,
    /// It is nothing that an honest peer would bring. It is not passed on, and its bringer loses in score.
    Refuse,
}

/// Names a message that waits to be judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ticket {
    message: MessageId,
    from: PeerId,
}

impl Ticket {
    pub(crate) fn new(message: MessageId, from: PeerId) -> Self {
        Self { message, from }
    }
}

/// Refused messages of each peer.
#[derive(Default)]
struct Faults(BTreeMap<PeerId, f64>);

impl Faults {
    fn add(&mut self, peer: PeerId) {
        if !self.0.contains_key(&peer) && self.0.len() >= BLAMED_MAX {
            let least = self.0.iter().min_by(|(_, one), (_, other)| one.total_cmp(other));
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.0.remove(&least);
            }
        }
        let faults = self.0.entry(peer).or_default();
        *faults = (*faults + 1.0).min(FAULTS_MAX);
    }

    /// Lets time pass; returns those who are forgiven.
    fn fade(&mut self) -> Vec<PeerId> {
        self.0.values_mut().for_each(|faults| *faults *= FAULTS_KEPT);
        let forgiven: Vec<_> =
            self.0.iter().filter(|(_, faults)| **faults < FAULTS_FORGOTTEN).map(|(peer, _)| *peer).collect();
        self.0.retain(|_, faults| *faults >= FAULTS_FORGOTTEN);
        forgiven
    }

    fn score(&self, peer: &PeerId) -> f64 {
        FAULT * self.0.get(peer).copied().unwrap_or_default()
    }
}

/// Gossipsub, with a bound on what peers may subscribe to.
type Gossipsub =
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

/// Gossipsub with a heartbeat that goes on when nothing else happens.
///
/// After a heartbeat, libp2p sets its timer again without asking it to wake anybody, so the next heartbeat
/// waits until something else, at the latest a ping, makes the host look. Asking once more sets the alarm,
/// and takes out what the heartbeat had to say.
pub(crate) struct Behaviour {
    gossip: Gossipsub,
    faults: Faults,
}

impl Behaviour {
    /// Does with a message as it was judged. One that waited longer than gossipsub keeps it, some five seconds, is
    /// not passed on.
    pub(crate) fn judge(&mut self, ticket: &Ticket, judgement: Judgement) {
        // Gossipsub's own count of invalid messages would blame everybody who brought the same one, honest members
        // whose software does not look included; so what is refused is ignored there, and counted here.
        let acceptance = match judgement {
            Judgement::Pass => MessageAcceptance::Accept,
            Judgement::Ignore | Judgement::Refuse => MessageAcceptance::Ignore,
        };
        self.gossip.report_message_validation_result(&ticket.message, &ticket.from, acceptance);
        if judgement == Judgement::Refuse {
            self.faults.add(ticket.from);
            self.score(&ticket.from);
        }
    }

    /// Holds against a peer that has come what it did before.
    pub(crate) fn remember(&mut self, peer: &PeerId) {
        if self.faults.0.contains_key(peer) {
            self.score(peer);
        }
    }

    /// Lets time pass, once every [`crate::trim::TRIM_EVERY`].
    pub(crate) fn forgive(&mut self) {
        let forgiven = self.faults.fade();
        let blamed: Vec<_> = self.faults.0.keys().copied().chain(forgiven).collect();
        blamed.iter().for_each(|peer| self.score(peer));
    }

    fn score(&mut self, peer: &PeerId) {
        // A peer that has left meanwhile has no score.
        self.gossip.set_application_score(peer, self.faults.score(peer));
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Gossipsub as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = gossipsub::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.gossip.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gossip.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.gossip.handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.gossip.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.gossip.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.gossip.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.gossip.poll(cx) {
            Poll::Pending => self.gossip.poll(cx),
            ready => ready,
        }
    }
}

impl Deref for Behaviour {
    type Target = Gossipsub;

    fn deref(&self) -> &Gossipsub {
        &self.gossip
    }
}

impl DerefMut for Behaviour {
    fn deref_mut(&mut self) -> &mut Gossipsub {
        &mut self.gossip
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
pub(crate) fn behaviour(
    identity: &Keypair,
    judged: bool,
) -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = ConfigBuilder::default();
    if judged {
        config.validate_messages();
    }
    let config = config
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
    let mut gossip = Gossipsub::new_with_subscription_filter(signing, config, topics)?;
    if judged {
        gossip.with_peer_score(scores(), thresholds())?;
    }
    Ok(Behaviour { gossip, faults: Faults::default() })
}

/// A score consists of what was refused, and of nothing that a slow machine, a shared address or a quiet topic could
/// bring about.
fn scores() -> PeerScoreParams {
    PeerScoreParams {
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        decay_interval: SCORES_EVERY,
        retain_score: SCORES_KEPT,
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: FAULT * FAULTS_BEFORE_UNTOLD,
        publish_threshold: FAULT * FAULTS_BEFORE_UNSENT,
        graylist_threshold: FAULT * FAULTS_BEFORE_UNHEARD,
        // Nobody has a score that high: nobody's recommendations are followed.
        accept_px_threshold: f64::MAX,
        opportunistic_graft_threshold: 0.0,
    }
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
        let mut behaviour = behaviour(&Keypair::generate_ed25519(), true).unwrap();
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
        for judged in [false, true] {
            assert!(behaviour(&Keypair::generate_ed25519(), judged).is_ok());
        }
    }

    #[test]
    fn faults_have_a_bound_and_fade() {
        let mut faults = Faults::default();
        let worst = PeerId::random();
        for _ in 0..1000 {
            faults.add(worst);
        }
        assert!(faults.score(&worst) <= thresholds().graylist_threshold);
        for _ in 0..2 * BLAMED_MAX {
            faults.add(PeerId::random());
        }
        assert_eq!(faults.0.len(), BLAMED_MAX);
        assert_eq!(faults.score(&worst), FAULT * FAULTS_MAX, "strangers do not push it out");

        let looks =
            std::iter::repeat_with(|| faults.fade()).take_while(|gone| !gone.contains(&worst)).count();
        assert!(looks < 40, "it is forgiven after {looks} looks");
        assert_eq!((faults.0.len(), faults.score(&worst)), (0, 0.0));
    }
}
