//! Topics: joining, publishing, passing on, leaving.

mod common;

use std::ops::ControlFlow::{Break, Continue};

use bytes::Bytes;
use common::{Host, QUIC, TCP};
use dunlin_ipfs::{Event, MESSAGE_BYTES_MAX, PublishMessageError};

#[tokio::test]
async fn a_message_reaches_the_peers_on_its_topic() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = Host::pair(transport).await;
        a.ipfs.subscribe("birds").await.unwrap();
        b.ipfs.subscribe("birds").await.unwrap();
        a.joined(b.id(), "birds").await;
        b.joined(a.id(), "birds").await;

        a.ipfs.publish("birds", Bytes::from("dunlin")).await.unwrap();
        b.ipfs.publish("birds", Bytes::from("knot")).await.unwrap();

        assert_eq!(b.message().await, ("birds".to_owned(), a.id(), Bytes::from("dunlin")));
        assert_eq!(a.message().await, ("birds".to_owned(), b.id(), Bytes::from("knot")));

        b.ipfs.unsubscribe("birds").await.unwrap();
        a.wait("a peer to leave", |event| match event {
            Event::TopicLeft { peer, topic } if peer == b.id() => Break(topic),
            other => Continue(other),
        })
        .await;
    }
}

#[tokio::test]
async fn a_message_is_passed_on_with_its_author() {
    let mut a = Host::start(TCP).await;
    let (mut b, mut c) = Host::pair(TCP).await;
    a.connect(&mut b).await;
    for host in [&a, &b, &c] {
        host.ipfs.subscribe("birds").await.unwrap();
    }
    a.joined(b.id(), "birds").await;
    b.joined(c.id(), "birds").await;

    a.ipfs.publish("birds", Bytes::from("dunlin")).await.unwrap();

    let (from, author) = c
        .wait("a message", |event| match event {
            Event::Message { from, author, .. } => Break((from, author)),
            other => Continue(other),
        })
        .await;
    assert_eq!((from, author), (b.id(), a.id()));
}

#[tokio::test]
async fn a_member_of_many_groups_is_heard_on_all_of_them() {
    const TOPICS: usize = 2_000;
    let mut a = Host::start(TCP).await;
    let mut b = Host::start(TCP).await;
    for number in 0..TOPICS {
        a.ipfs.subscribe(format!("/orbitdb/some-long-address/group-{number}")).await.unwrap();
    }

    a.connect(&mut b).await;

    for number in 0..TOPICS {
        b.joined(a.id(), &format!("/orbitdb/some-long-address/group-{number}")).await;
    }
}

#[tokio::test]
async fn publishing_for_nobody_is_fine_and_too_much_is_not() {
    let a = Host::start(TCP).await;

    a.ipfs.publish("birds", Bytes::from("dunlin")).await.unwrap();
    let too_long = a.ipfs.publish("birds", Bytes::from(vec![0; MESSAGE_BYTES_MAX])).await;

    assert!(matches!(too_long, Err(PublishMessageError::TooLong)), "{too_long:?}");
}
