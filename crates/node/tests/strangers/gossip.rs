//! What a node passes on of what is said on the topics of its groups.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_base::kv::MemoryStore;
use dunlin_ipfs::{Config, Event, Events, Ipfs, NoBlocks, PeerId};
use dunlin_node::{NodeConfig, NodeHandle};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{PATIENCE, address};

/// N6: whoever has no key of the group can say nothing on its topic that goes further than one member.
#[tokio::test]
async fn what_no_member_said_goes_no_further() {
    let [ann, bob] = [0; 2].map(|_| NodeHandle::alone(NodeConfig::new(Arc::new(MemoryStore::default()))));
    let (ann, bob) = (ann.await.unwrap(), bob.await.unwrap());
    let group = ann.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
    let invitation = ann.view(move |read, engine, _| engine.invitation(read, &group)).await.unwrap();
    let place = address(&ann).await;
    let mut strangers = [Stranger::start(1).await, Stranger::start(2).await];
    for stranger in &mut strangers {
        stranger.ipfs.dial(place.clone()).await.unwrap();
    }
    // Two of the group, and two of the account.
    let topics = strangers[0].topics(&ann, 4).await;
    for stranger in &mut strangers {
        for topic in &topics {
            stranger.ipfs.subscribe(topic.clone()).await.unwrap();
        }
    }
    strangers[1].topics(&ann, 4).await;
    let [speaking, listening] = &mut strangers;

    for topic in &topics {
        speaking.ipfs.publish(topic.clone(), Bytes::from("garbage")).await.unwrap();
    }
    // It has to go through a member: the node that joins has no other connection.
    bob.network().dial(place).await.unwrap();
    bob.join(&invitation).await.unwrap();
    let (garbage, author) = (speaking.ipfs.peer_id(), bob.network().peer_id());
    let said = async {
        loop {
            bob.send(group, b"hello".to_vec()).await.unwrap();
            let heard = async { while listening.message().await != author {} };
            if timeout(Duration::from_millis(500), heard).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, said).await.expect("what a member says is not passed on");
    assert!(!listening.authors.contains(&garbage), "garbage was passed on");
    for node in [ann, bob] {
        node.shutdown().await;
    }
}

/// A host that is in no group.
struct Stranger {
    ipfs: Ipfs,
    events: Events,
    /// Who said what it has heard.
    authors: BTreeSet<PeerId>,
}

impl Stranger {
    async fn start(number: u8) -> Self {
        let mut config = Config::new(Zeroizing::new([number; 32]), Arc::new(NoBlocks));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        let (ipfs, events) = Ipfs::start(config).await.unwrap();
        Self { ipfs, events, authors: BTreeSet::new() }
    }

    /// The topics of a node, all that it has.
    async fn topics(&mut self, node: &NodeHandle, count: usize) -> Vec<String> {
        let mut topics = Vec::new();
        let listening = async {
            while topics.len() < count {
                match self.events.next().await.unwrap() {
                    Event::TopicJoined { peer, topic } if peer == node.network().peer_id() => {
                        topics.push(topic)
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, listening).await.expect("the node has no topics");
        topics
    }

    /// Who said what comes next.
    async fn message(&mut self) -> PeerId {
        loop {
            if let Event::Message { author, .. } = self.events.next().await.unwrap() {
                self.authors.insert(author);
                return author;
            }
        }
    }
}
