//! Fetching and serving blocks.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail by panicking")]

mod common;

use std::{
    collections::HashMap,
    ops::ControlFlow::{Break, Continue},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Host, QUIC, TCP, cid_of};
use dunlin_ipfs::{BLOCK_BYTES_MAX, BlockSource, Cid, Event, FETCH_BYTES_PER_S_MAX, PeerId, WantError};

#[tokio::test]
async fn many_blocks_arrive_intact() {
    for transport in [TCP, QUIC] {
        let (mut a, mut b) = Host::pair(transport).await;
        let cids: Vec<_> = (0..2_000_u32).map(|n| b.blocks.put(n.to_be_bytes().repeat(250))).collect();

        let (from, to) = (b.id(), a.id());
        let served = tokio::spawn(async move {
            for _ in 0..2_000 {
                b.wait("a block to be served", |event| match event {
                    Event::BlockServed { peer, .. } if peer == to => Break(()),
                    other => Continue(other),
                })
                .await;
            }
            // Kept until all have arrived.
            b
        });

        for cid in &cids {
            a.ipfs.want(*cid, vec![from]).unwrap();
        }

        let mut got = HashMap::new();
        while got.len() < cids.len() {
            let (cid, bytes, peer) = a.block().await;
            assert_eq!((cid_of(&bytes), peer), (cid, from));
            assert!(got.insert(cid, bytes).is_none(), "{cid} came twice");
        }
        served.await.unwrap();
    }
}

#[tokio::test]
async fn large_blocks_arrive_and_larger_ones_are_not_served() {
    let (mut a, b) = Host::pair(TCP).await;
    let large = b.blocks.put(vec![1; BLOCK_BYTES_MAX]);
    let larger = b.blocks.put(vec![1; BLOCK_BYTES_MAX + 1]);

    a.ipfs.want(large, vec![b.id()]).unwrap();
    assert_eq!(a.block().await.0, large);
    a.ipfs.want(larger, vec![b.id()]).unwrap();
    assert_eq!(a.missing().await, larger);
}

/// `spec/security.md` O5: three seconds' worth of large blocks takes two, as one second's worth may come at once.
#[tokio::test]
async fn one_peer_brings_so_many_bytes_a_second() {
    let (mut a, b) = Host::pair(TCP).await;
    let count = 3 * FETCH_BYTES_PER_S_MAX / BLOCK_BYTES_MAX;
    let cids: Vec<_> = (0..count).map(|n| b.blocks.put(vec![n as u8; BLOCK_BYTES_MAX])).collect();

    let begin = Instant::now();
    for cid in &cids {
        a.ipfs.want(*cid, vec![b.id()]).unwrap();
    }
    for _ in &cids {
        assert!(cids.contains(&a.block().await.0));
    }
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_block_that_nobody_has_is_missing() {
    let (mut a, mut b) = Host::pair(TCP).await;
    let mut c = Host::start(TCP).await;
    a.connect(&mut c).await;
    let cid = cid_of(b"nowhere");

    a.ipfs.want(cid, vec![b.id(), c.id()]).unwrap();
    assert_eq!(a.missing().await, cid);

    a.ipfs.want(cid, vec![PeerId::random()]).unwrap();
    assert_eq!(a.missing().await, cid);

    b.connect(&mut c).await;
}

#[tokio::test]
async fn the_next_peer_is_asked_when_one_does_not_have_it() {
    let (mut a, b) = Host::pair(TCP).await;
    let mut c = Host::start(TCP).await;
    a.connect(&mut c).await;
    let cid = c.blocks.put("only here");

    a.ipfs.want(cid, vec![b.id(), c.id()]).unwrap();

    assert_eq!(a.block().await, (cid, Bytes::from("only here"), c.id()));
}

#[tokio::test]
async fn the_next_peer_is_asked_when_one_goes_away() {
    let mut a = Host::start(TCP).await;
    // A peer that never answers.
    let mut b = Host::start_with(TCP, |config| config.blocks = Arc::new(Silence)).await;
    let mut c = Host::start(TCP).await;
    a.connect(&mut b).await;
    a.connect(&mut c).await;
    let cid = c.blocks.put("only here");

    a.ipfs.want(cid, vec![b.id(), c.id()]).unwrap();
    b.ipfs.disconnect(a.id()).await.unwrap();

    assert_eq!(a.block().await.2, c.id());
}

#[tokio::test]
async fn the_next_peer_is_asked_when_one_is_silent() {
    let mut a = Host::start(TCP).await;
    let mut b = Host::start_with(TCP, |config| config.blocks = Arc::new(Silence)).await;
    let mut c = Host::start(TCP).await;
    a.connect(&mut b).await;
    a.connect(&mut c).await;
    let cid = c.blocks.put("only here");

    a.ipfs.want(cid, vec![b.id(), c.id()]).unwrap();

    assert_eq!(a.block().await.2, c.id());
    assert!(a.ipfs.is_connected(&b.id()));
}

#[tokio::test]
async fn a_held_want_is_answered_when_the_block_comes() {
    let mut a = Host::start(TCP).await;
    let blocks = Arc::new(Later::default());
    let mut b = Host::start_with(TCP, |config| config.blocks = blocks.clone()).await;
    a.connect(&mut b).await;
    let cid = cid_of(b"fresh");
    a.ipfs.want(cid, vec![b.id()]).unwrap();
    blocks.asked.notified().await;

    blocks.blocks.put("fresh");
    b.ipfs.look_again(&a.id());

    assert_eq!(a.block().await, (cid, Bytes::from("fresh"), b.id()));
}

#[tokio::test]
async fn cancelled_and_unverifiable_blocks_are_not_fetched() {
    let (mut a, b) = Host::pair(TCP).await;
    let unverifiable = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x13, &[0; 64]).unwrap());
    assert_eq!(a.ipfs.want(unverifiable, vec![b.id()]), Err(WantError::Unverifiable));
    let cancelled = b.blocks.put("not any more");
    let wanted = b.blocks.put("this one");

    // Nothing is sent between the two calls on this thread.
    a.ipfs.want(cancelled, vec![b.id()]).unwrap();
    a.ipfs.cancel(&cancelled);
    a.ipfs.want(wanted, vec![b.id()]).unwrap();

    assert_eq!(a.block().await.0, wanted);
}

/// Holds every want for ever.
struct Silence;

impl BlockSource for Silence {
    fn block(&self, _: &PeerId, _: &Cid) -> Option<Bytes> {
        None
    }

    fn hold(&self, _: &PeerId) -> Duration {
        Duration::from_secs(3600)
    }
}

/// Holds wants, and rings when one has been looked for.
#[derive(Default)]
struct Later {
    blocks: common::Blocks,
    asked: tokio::sync::Notify,
}

impl BlockSource for Later {
    fn block(&self, peer: &PeerId, cid: &Cid) -> Option<Bytes> {
        self.asked.notify_one();
        self.blocks.block(peer, cid)
    }

    fn hold(&self, _: &PeerId) -> Duration {
        Duration::from_secs(3600)
    }
}
