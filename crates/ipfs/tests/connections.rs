//! Dialling, being dialled, and what dialling says when it fails.

mod common;

use std::{
    ops::ControlFlow::{Break, Continue},
    sync::Arc,
};

use bytes::Bytes;
use common::{DIRECT, Host, QUIC, QUIC_6, TCP, TCP_6, has_ipv6};
use dunlin_ipfs::{
    CONNECTIONS_PER_PEER_MAX, Config, DialError, Event, Ipfs, ListenError, Multiaddr, NoBlocks, PeerId,
    StartError, multiaddr::Protocol,
};
use zeroize::Zeroizing;

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
async fn hosts_meet_over_ipv6_by_tcp_and_by_quic() {
    if !has_ipv6() {
        return;
    }
    for transport in [TCP_6, QUIC_6] {
        let (a, mut b) = Host::pair(transport).await;

        let there = &a.ipfs.peers()[0].connections[0].address;
        assert!(matches!(there.iter().next(), Some(Protocol::Ip6(ip)) if ip.is_loopback()), "{there}");
        a.ipfs.send_frame(DIRECT.name, b.id(), Bytes::from_static(b"heads")).unwrap();
        assert_eq!(b.frame().await.2, "heads");
    }
}

/// libp2p lets two programs of a user listen on one port of TCP, and each gets some of the connections.
#[tokio::test]
async fn an_address_in_use_is_not_shared() {
    let transports = if has_ipv6() { vec![TCP, QUIC, TCP_6, QUIC_6] } else { vec![TCP, QUIC] };
    for transport in transports {
        let first = Host::start(transport).await;
        let mut taken = first.address.clone();
        taken.pop();

        let second = Ipfs::start(Config { listen: vec![taken.clone()], ..quiet_config() }).await;
        let in_use = |address: &Multiaddr| *address == taken;
        assert!(
            matches!(&second, Err(StartError::AddressInUse { address }) if in_use(address)),
            "{transport}: {:?}",
            second.err()
        );
        let third = Ipfs::start(quiet_config()).await.unwrap().0;
        let refused = third.listen(taken.clone()).await;
        assert!(matches!(refused, Err(ListenError::InUse)), "{transport}: {refused:?}");

        // The socket of QUIC belongs to a task that ends by itself.
        if matches!(transport, TCP | TCP_6) {
            first.ipfs.shutdown().await;
            third.listen(taken.clone()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn both_families_may_listen_on_the_same_port() {
    if !has_ipv6() {
        return;
    }
    // Another program may happen to have the port of IPv6, but not each time.
    for _ in 0..5 {
        let listen = vec!["/ip4/0.0.0.0/tcp/0".parse().unwrap()];
        let (host, mut events) = Ipfs::start(Config { listen, ..quiet_config() }).await.unwrap();
        let Some(Event::Listening { address }) = events.next().await else { panic!("not heard") };
        let Some(Protocol::Tcp(port)) = address.iter().nth(1) else { panic!("no port in {address}") };
        match host.listen(format!("/ip6/::/tcp/{port}").parse().unwrap()).await {
            Ok(()) => return,
            Err(ListenError::InUse) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the ports of IPv4 count for IPv6");
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

    assert!(protocols.contains(&DIRECT.name.to_owned()), "{protocols:?}");
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

fn quiet_config() -> Config {
    Config { listen: Vec::new(), ..Config::new(Zeroizing::new([99; 32]), Arc::new(NoBlocks)) }
}
