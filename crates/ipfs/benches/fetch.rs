//! Time to fetch 10,000 blocks of 1 kB from one peer on loopback, with all of them and with 64 wanted at a
//! time.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a measurement")]

use std::{collections::HashMap, sync::Arc, time::Instant};

use bytes::Bytes;
use cid::multihash::Multihash;
use dunlin_ipfs::{BlockSource, Cid, Config, Event, Events, Ipfs, NoBlocks, PeerId};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const BLOCKS: usize = 10_000;

#[tokio::main]
async fn main() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        for in_flight in [64, BLOCKS] {
            let blocks: HashMap<_, _> = (0..BLOCKS).map(|n| block(n, 1_000)).collect();
            let cids: Vec<_> = blocks.keys().copied().collect();
            let (a, mut events) = start(listen, [1; 32], Arc::new(NoBlocks)).await;
            let (b, mut served) = start(listen, [2; 32], Arc::new(Blocks(blocks))).await;
            let Some(Event::Listening { address }) = served.next().await else { continue };
            tokio::spawn(async move { while served.next().await.is_some() {} });
            a.dial(address).await.unwrap();

            let begin = Instant::now();
            fetch(&a, &mut events, &b.peer_id(), &cids, in_flight).await;
            println!("{listen}, {in_flight} at a time: {:?}", begin.elapsed());
        }
    }
}

async fn start(listen: &str, secret: [u8; 32], blocks: Arc<dyn BlockSource>) -> (Ipfs, Events) {
    let mut config = Config::new(Zeroizing::new(secret), blocks);
    config.listen = vec![listen.parse().unwrap()];
    Ipfs::start(config).await.unwrap()
}

async fn fetch(ipfs: &Ipfs, events: &mut Events, peer: &PeerId, cids: &[Cid], in_flight: usize) {
    let mut wanted = cids.iter();
    for cid in wanted.by_ref().take(in_flight) {
        ipfs.want(*cid, vec![*peer]).unwrap();
    }
    let mut got = 0;
    while got < cids.len() {
        match events.next().await {
            Some(Event::Block { .. }) => got += 1,
            Some(Event::BlockMissing { cid }) => panic!("{cid} is missing"),
            _ => continue,
        }
        if let Some(cid) = wanted.next() {
            ipfs.want(*cid, vec![*peer]).unwrap();
        }
    }
}

struct Blocks(HashMap<Cid, Bytes>);

impl BlockSource for Blocks {
    fn block(&self, _: &PeerId, cid: &Cid) -> Option<Bytes> {
        self.0.get(cid).cloned()
    }
}

fn block(number: usize, length: usize) -> (Cid, Bytes) {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, 0);
    let hash = Multihash::wrap(0x12, &Sha256::digest(&bytes)).unwrap();
    (Cid::new_v1(0x71, hash), bytes.into())
}
