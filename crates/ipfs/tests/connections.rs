//! Dialling, being dialled, and what dialling says when it fails.

mod common;

use std::ops::ControlFlow::{Break, Continue};

use common::{Host, QUIC, TCP};
use dunlin_ipfs::{CONNECTIONS_PER_PEER_MAX, DialError, Event, PeerId, multiaddr::Protocol};

#[tokio::test]
async fn both_sides_learn_of_a_connection_and_of_its_end() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = Host::pair(transport).await;

        let (here, there) = (&a.ipfs.peers()[0], &b.ipfs.peers()[0]);
        assert_eq!((here.peer, here.connections[0].inbound), (b.id(), false));
        assert_eq!((there.peer, there.connections[0].inbound), (a.id(), true));

        a.ipfs.disconnect(b.id()).await.unwrap();
        a.disconnected(b.id()).await;
        b.disconnected(a.id()).await;
        assert!(a.ipfs.peers().is_empty());
    }
}

#[tokio::test]
async fn peers_identify_themselves_without_telling_their_addresses() {
    let (mut a, b) = Host::pair(TCP).await;

    let (protocols, addresses) = a
        .wait("an introduction", |event| match event {
            Event::PeerIdentified { peer, protocols, listen_addresses } if peer == b.id() => {
                Break((protocols, listen_addresses))
            }
            other => Continue(other),
        })
        .await;

    assert!(protocols.contains(&common::DIRECT.name.to_owned()), "{protocols:?}");
    assert!(protocols.contains(&"/ipfs/bitswap/1.2.0".to_owned()), "{protocols:?}");
    assert!(protocols.contains(&"/meshsub/1.1.0".to_owned()), "{protocols:?}");
    assert_eq!(addresses, []);
    assert_eq!(a.ipfs.peers()[0].agent, "libp2p");
}

#[tokio::test]
async fn dialling_a_connected_peer_again_does_nothing() {
    let (a, b) = Host::pair(TCP).await;

    for _ in 0..CONNECTIONS_PER_PEER_MAX + 1 {
        assert_eq!(a.ipfs.dial(b.address.clone()).await.unwrap(), b.id());
    }

    assert_eq!(a.ipfs.peers()[0].connections.len(), 1);
}

#[tokio::test]
async fn one_peer_gets_so_many_connections_and_no_more() {
    let (mut a, b) = Host::pair(TCP).await;
    let mut anonymous = b.address.clone();
    anonymous.pop();

    for _ in 1..CONNECTIONS_PER_PEER_MAX {
        a.ipfs.dial(anonymous.clone()).await.unwrap();
    }
    let refused = a.ipfs.dial(anonymous).await;

    assert!(matches!(refused, Err(DialError::Refused(_))), "{refused:?}");
    a.ipfs.disconnect(b.id()).await.unwrap();
    a.disconnected(b.id()).await;
}

#[tokio::test]
async fn dialling_says_why_it_failed() {
    let a = Host::start(TCP).await;
    let b = Host::start(TCP).await;
    let stranger = PeerId::random();
    let mut elsewhere = b.address.clone();
    elsewhere.pop();
    let closed = {
        let c = Host::start(TCP).await;
        c.ipfs.shutdown().await;
        c.address
    };

    let wrong = a.ipfs.dial(elsewhere.with(Protocol::P2p(stranger))).await;
    assert!(matches!(&wrong, Err(DialError::SomebodyElse { found, .. }) if *found == b.id()), "{wrong:?}");
    let dead = a.ipfs.dial(closed).await;
    assert!(matches!(&dead, Err(DialError::Unreachable(_))), "{dead:?}");
    let own = a.ipfs.dial(a.address.clone()).await;
    assert!(matches!(&own, Err(DialError::Ourselves)), "{own:?}");
    let none = a.ipfs.dial_peer(stranger, Vec::new()).await;
    assert!(matches!(&none, Err(DialError::NoAddress)), "{none:?}");
}

#[tokio::test]
async fn a_host_that_is_shut_down_says_so_to_everybody() {
    let (mut a, mut b) = Host::pair(QUIC).await;

    b.ipfs.shutdown().await;

    a.disconnected(b.id()).await;
    b.ended().await;
    assert!(b.ipfs.subscribe("topic").await.is_err());
    assert!(matches!(b.ipfs.dial(a.address.clone()).await, Err(DialError::Stopped(_))));
    b.ipfs.shutdown().await;
}
