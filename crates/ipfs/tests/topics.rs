//! Topics: joining, publishing, passing on, leaving.

mod common;

use std::ops::ControlFlow::{Break, Continue};

use bytes::Bytes;
use common::{Host, QUIC, TCP};
use dunlin_ipfs::{Event, Judgement, MESSAGE_BYTES_MAX, PublishMessageError};

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

#[tokio::test]
async fn what_is_refused_is_not_passed_on() {
    let (mut a, mut c) = (Host::start(TCP).await, Host::start(TCP).await);
    let mut b = Host::start_with(TCP, |config| config.judged_topics = true).await;
    a.connect(&mut b).await;
    b.connect(&mut c).await;
    for host in [&a, &b, &c] {
        host.ipfs.subscribe("birds").await.unwrap();
    }
    a.joined(b.id(), "birds").await;
    c.joined(b.id(), "birds").await;
    b.joined(c.id(), "birds").await;

    let judgements =
        [("garbage", Judgement::Refuse), ("stale", Judgement::Ignore), ("dunlin", Judgement::Pass)];
    for (text, judgement) in judgements {
        a.ipfs.publish("birds", Bytes::from(text)).await.unwrap();
        assert_eq!(judge_next(&mut b, |_| judgement).await, text);
    }

    assert_eq!(c.message().await.2, "dunlin");
}

/// N6: nine in ten are hostile. They take all places in the mesh of the one through which two others talk, say
/// garbage and pass nothing on. Soon it reads nothing more of theirs, and everything that is said arrives.
#[tokio::test]
async fn gossip_sybil() {
    const HOSTILE: usize = 27;
    // After so much of it, nothing that a peer says is read.
    const GARBAGE: usize = 9;
    const SAID: usize = 100;
    let judged = |config: &mut dunlin_ipfs::Config| config.judged_topics = true;
    let mut between = Host::start_with(TCP, judged).await;
    between.ipfs.subscribe("birds").await.unwrap();
    let mut hostile = Vec::new();
    for _ in 0..HOSTILE {
        // Whoever has to judge and does not passes nothing on.
        let mut host = Host::start_with(TCP, judged).await;
        host.ipfs.subscribe("birds").await.unwrap();
        host.connect(&mut between).await;
        host.joined(between.id(), "birds").await;
        between.joined(host.id(), "birds").await;
        hostile.push(host);
    }
    let (mut ann, mut ben) = (Host::start_with(TCP, judged).await, Host::start_with(TCP, judged).await);
    for honest in [&mut ann, &mut ben] {
        honest.ipfs.subscribe("birds").await.unwrap();
        honest.connect(&mut between).await;
        honest.joined(between.id(), "birds").await;
        between.joined(honest.id(), "birds").await;
    }
    let verdict = |data: &[u8]| if data.starts_with(b"dunlin") { Judgement::Pass } else { Judgement::Refuse };

    for round in 0..GARBAGE {
        for (number, host) in hostile.iter().enumerate() {
            host.ipfs.publish("birds", Bytes::from(format!("garbage {round} {number}"))).await.unwrap();
        }
        for _ in 0..HOSTILE {
            judge_next(&mut between, verdict).await;
        }
    }
    // What was asked of a host before is done when this is answered.
    between.ipfs.publish("elsewhere", Bytes::new()).await.unwrap();
    for host in &hostile {
        host.ipfs.publish("birds", Bytes::from("more garbage")).await.unwrap();
    }
    let talking = async {
        for number in 0..SAID {
            let said = Bytes::from(format!("dunlin {number}"));
            ann.ipfs.publish("birds", said.clone()).await.unwrap();
            assert_eq!(judge_next(&mut between, verdict).await, said, "it is still heard");
        }
    };
    let listening = async {
        let mut heard = std::collections::BTreeSet::new();
        while heard.len() < SAID {
            let text = judge_next(&mut ben, verdict).await;
            assert!(text.starts_with(b"dunlin"), "{text:?}");
            heard.insert(text);
        }
    };
    tokio::join!(talking, listening);
}

/// Judges the next message, and gives it back.
#[allow(clippy::unwrap_used, reason = "a test may panic")]
async fn judge_next(host: &mut Host, verdict: impl Fn(&[u8]) -> Judgement) -> Bytes {
    let (data, ticket) = host
        .wait("a message", |event| match event {
            Event::Message { data, ticket, .. } => Break((data, ticket)),
            other => Continue(other),
        })
        .await;
    host.ipfs.judge(ticket, verdict(&data)).await.unwrap();
    data
}
