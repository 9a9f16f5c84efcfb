//! Frames and exchanges between hosts.

mod common;

use std::ops::ControlFlow::{Break, Continue};

use bytes::Bytes;
use common::{CONTACT, DIRECT, Host, QUIC, RECORDS, TCP};
use dunlin_ipfs::{
    Event, OpenExchangeError, OpenStreamError, PeerId, ReadFrameError, SendFrameError, WriteFrameError,
};

#[tokio::test]
async fn frames_of_all_sizes_arrive() {
    for transport in [TCP, QUIC] {
        let (a, mut b) = Host::pair(transport).await;

        for length in [0, 1, 127, 128, 70_000, DIRECT.frame_bytes_max] {
            let frame = Bytes::from(vec![7; length]);
            a.ipfs.send_frame(DIRECT.name, b.id(), frame.clone()).unwrap();
            assert_eq!(b.frame().await, (DIRECT.name, a.id(), frame));
        }
    }
}

#[tokio::test]
async fn a_burst_of_frames_arrives_complete() {
    const FRAMES: u16 = 400;
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = Host::pair(transport).await;

        for number in 0..FRAMES {
            a.ipfs.send_frame(DIRECT.name, b.id(), number.to_be_bytes().to_vec().into()).unwrap();
            b.ipfs.send_frame(DIRECT.name, a.id(), number.to_be_bytes().to_vec().into()).unwrap();
        }

        for host in [&mut a, &mut b] {
            let mut numbers = Vec::new();
            for _ in 0..FRAMES {
                let (_, _, frame) = host.frame().await;
                numbers.push(u16::from_be_bytes([frame[0], frame[1]]));
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..FRAMES).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_protocol_without_leading_slash_works() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = Host::pair(transport).await;

        a.ipfs.send_frame(RECORDS.name, b.id(), Bytes::from("from a")).unwrap();
        b.ipfs.send_frame(RECORDS.name, a.id(), Bytes::from("from b")).unwrap();

        assert_eq!(b.frame().await, ("wesh/p2p/localrecord", a.id(), Bytes::from("from a")));
        assert_eq!(a.frame().await, ("wesh/p2p/localrecord", b.id(), Bytes::from("from b")));
    }
}

#[tokio::test]
async fn a_frame_that_cannot_be_sent_is_refused_at_once() {
    let (a, b) = Host::pair(TCP).await;

    let too_long = a.ipfs.send_frame(RECORDS.name, b.id(), vec![0; 2049].into());
    assert!(matches!(
        too_long,
        Err(SendFrameError::Write(WriteFrameError::TooLong { length: 2049, allowed: 2048 }))
    ));
    let unknown = a.ipfs.send_frame("/unknown", b.id(), Bytes::new());
    assert!(matches!(unknown, Err(SendFrameError::UnknownProtocol("/unknown"))));
    let absent = a.ipfs.send_frame(DIRECT.name, PeerId::random(), Bytes::new());
    assert!(matches!(absent, Err(SendFrameError::Open(OpenStreamError::NotConnected(_)))));
}

#[tokio::test]
async fn a_frame_for_a_peer_that_does_not_speak_the_protocol_is_reported() {
    let mut a = Host::start(TCP).await;
    let mut b = Host::start_with(TCP, |config| config.frame_protocols.clear()).await;
    a.connect(&mut b).await;

    a.ipfs.send_frame(RECORDS.name, b.id(), Bytes::from("anybody?")).unwrap();

    a.wait("a report", |event| match event {
        Event::FrameNotSent { protocol, peer, cause: SendFrameError::Open(OpenStreamError::Unsupported) } => {
            assert_eq!((protocol, peer), (RECORDS.name, b.id()));
            Break(())
        }
        other => Continue(other),
    })
    .await;
}

#[tokio::test]
async fn an_exchange_goes_both_ways() {
    for transport in [TCP, QUIC] {
        let (a, mut b) = Host::pair(transport).await;
        b.ipfs.accept_exchanges(CONTACT, true).await.unwrap();

        let asking = tokio::spawn({
            let (ipfs, peer) = (a.ipfs.clone(), b.id());
            async move {
                let mut exchange = ipfs.open_exchange(CONTACT, peer).await.unwrap();
                exchange.write_frame(b"who are you?").await.unwrap();
                let answer = exchange.read_frame().await.unwrap();
                exchange.write_frame(b"thank you").await.unwrap();
                exchange.close().await.unwrap();
                answer
            }
        });
        let mut exchange = b
            .wait("an exchange", |event| match event {
                Event::ExchangeOpened { protocol: CONTACT, exchange, .. } => Break(exchange),
                other => Continue(other),
            })
            .await;

        assert_eq!(exchange.peer(), a.id());
        assert_eq!(exchange.read_frame().await.unwrap(), "who are you?");
        exchange.write_frame(b"b").await.unwrap();
        assert_eq!(exchange.read_frame().await.unwrap(), "thank you");
        assert!(matches!(exchange.read_frame().await, Err(ReadFrameError::Closed)));
        drop(exchange);
        assert_eq!(asking.await.unwrap(), "b");
    }
}

#[tokio::test]
async fn exchanges_are_accepted_only_while_they_are_wanted() {
    let (mut a, b) = Host::pair(TCP).await;
    let announced = |wanted: bool| {
        let peer_id = b.id();
        move |event| match event {
            Event::PeerIdentified { peer, protocols, .. }
                if peer == peer_id && protocols.iter().any(|name| name == CONTACT) == wanted =>
            {
                Break(())
            }
            other => Continue(other),
        }
    };
    a.wait("no such protocol", announced(false)).await;
    let refused = a.ipfs.open_exchange(CONTACT, b.id()).await;
    assert!(matches!(refused, Err(OpenExchangeError::Open(OpenStreamError::Unsupported))), "{refused:?}");

    b.ipfs.accept_exchanges(CONTACT, true).await.unwrap();
    a.wait("the protocol", announced(true)).await;
    a.ipfs.open_exchange(CONTACT, b.id()).await.unwrap();

    b.ipfs.accept_exchanges(CONTACT, false).await.unwrap();
    a.wait("the protocol to go", announced(false)).await;
    let refused = a.ipfs.open_exchange(CONTACT, b.id()).await;
    assert!(matches!(refused, Err(OpenExchangeError::Open(OpenStreamError::Unsupported))), "{refused:?}");
}

#[tokio::test]
async fn protocols_of_our_own_are_spoken_and_never_listed() {
    const LINK: &str = "/dunlin/link/1.0.0";
    let mut b = Host::start(TCP).await;
    b.ipfs.accept_exchanges(LINK, true).await.unwrap();
    // Accepted before the connection is there, and switched on again while it is.
    let mut a = Host::start(TCP).await;
    a.connect(&mut b).await;
    let lists = |event| match event {
        Event::PeerIdentified { protocols, .. } => Break(protocols),
        other => Continue(other),
    };
    let first = a.wait("a list", lists).await;
    assert!(
        first.iter().any(|name| name == DIRECT.name) && !first.iter().any(|name| name == LINK),
        "{first:?}"
    );
    a.ipfs.open_exchange(LINK, b.id()).await.unwrap();
    b.ipfs.accept_exchanges(LINK, false).await.unwrap();
    b.ipfs.accept_exchanges(LINK, true).await.unwrap();
    // Whatever is told next, it is not that.
    b.ipfs.accept_exchanges(CONTACT, true).await.unwrap();
    let second = a.wait("another list", lists).await;
    assert!(second.iter().any(|name| name == CONTACT), "{second:?}");
    assert!(!second.iter().any(|name| name == LINK), "{second:?}");
    a.ipfs.open_exchange(LINK, b.id()).await.unwrap();
    b.ipfs.accept_exchanges(LINK, false).await.unwrap();
    b.ipfs.accept_exchanges(CONTACT, false).await.unwrap();
    a.wait("the last list", lists).await;
    let refused = a.ipfs.open_exchange(LINK, b.id()).await;
    assert!(matches!(refused, Err(OpenExchangeError::Open(OpenStreamError::Unsupported))), "{refused:?}");
}
