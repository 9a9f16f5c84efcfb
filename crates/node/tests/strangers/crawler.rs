//! What somebody who is in no group, and was invited to none, gets out of the nodes of those who are.

use std::collections::BTreeSet;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::{BASE32, BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use dunlin_base::kv::{Direction, MemoryStore};
use dunlin_base::{EntryId, GroupId};
use dunlin_ipfs::{Cid, Config, Event, FrameProtocol, Ipfs, NoBlocks, PeerId};
use dunlin_log::LogTag;
use dunlin_node::{Event as Told, NodeConfig, NodeHandle};
use dunlin_wesh::catch_up::{self, Request};
use dunlin_wesh::engine::CommandError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{PATIENCE, address};

/// D1, D2, D4: the crawler is connected with every member, speaks their protocols, is on all topics that they name,
/// and knows the name of every entry that exists, which is more than it could find out. It gets none of them, and
/// nothing that it is told holds a key of a member or a device, or one with which anything is sealed or signed.
#[tokio::test]
async fn crawler() {
    let ann = NodeHandle::alone(NodeConfig::new(Arc::new(MemoryStore::default()))).await.unwrap();
    let group = ann.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
    let invitation = ann.view(move |read, engine, _| engine.invitation(read, &group)).await.unwrap();
    let mut config = NodeConfig::new(Arc::new(MemoryStore::default()));
    config.connect = vec![address(&ann).await];
    let bob = NodeHandle::alone(config).await.unwrap();
    for node in [&ann, &bob] {
        let enabled: Result<_, dunlin_node::CallError<CommandError>> =
            node.transact(|ctx, engine, _| engine.enable_requests(ctx)).await;
        enabled.unwrap();
    }
    let (mut heard, mut news) = (bob.events(), ann.events());
    bob.join(&invitation).await.unwrap();
    let hears = async {
        let is_message = |event: &Told| matches!(event, Told::Message(said) if !said.own);
        while !is_message(&heard.recv().await.unwrap()) {}
    };
    // What was said before Bob was given the key stays closed to him. That he was given it is an event of the group.
    let says = async {
        loop {
            ann.send(group, b"hello".to_vec()).await.unwrap();
            let is_news = |event: &Told| matches!(event, Told::Metadata(event) if event.group == group);
            while !is_news(&news.recv().await.unwrap()) {}
        }
    };
    let talk = async {
        tokio::select! {
            () = hears => {}
            () = says => {}
        }
    };
    timeout(PATIENCE, talk).await.expect("a member who was invited gets the entries");

    let mut config = Config::new(Zeroizing::new([3; 32]), Arc::new(NoBlocks));
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    config.frame_protocols = [("/go-orbit-db/direct-channel/1.2.0", 1 << 22), ("wesh/p2p/localrecord", 2048)]
        .map(|(name, frame_bytes_max)| FrameProtocol { name, frame_bytes_max })
        .to_vec();
    let (crawler, mut events) = Ipfs::start(config).await.unwrap();
    let members = [&ann, &bob].map(|node| node.network().peer_id());
    for node in [&ann, &bob] {
        crawler.dial(address(node).await).await.unwrap();
    }
    let mut wanted = BTreeSet::new();
    for node in [&ann, &bob] {
        for log in [None, Some(group)] {
            wanted.extend(entries(node, log).await.into_iter().map(|entry| entry.cid()));
        }
    }
    assert!(wanted.len() > 8, "{}", wanted.len());
    for cid in &wanted {
        crawler.want(*cid, members.to_vec()).unwrap();
    }

    let (mut learned, mut topics) = (Vec::new(), BTreeSet::new());
    let (mut said, mut streams) = (false, JoinSet::new());
    let crawling = async {
        while !wanted.is_empty() || topics.len() < 6 || !said {
            let event = events.next().await.unwrap();
            learned.extend(format!("{event:?}").into_bytes());
            match event {
                Event::Block { cid, .. } => panic!("{cid} was given to a stranger"),
                Event::BlockMissing { cid } => drop(wanted.remove(&cid)),
                Event::TopicJoined { topic, .. } => {
                    // What the topic is made of names a block too.
                    let manifest = topic.split('/').find_map(|part| part.parse::<Cid>().ok());
                    if topics.insert(topic.clone()) {
                        for member in members {
                            streams.spawn(streamed(crawler.clone(), member, LogTag::of(&topic)));
                        }
                        crawler.subscribe(topic).await.unwrap();
                        if let Some(cid) = manifest {
                            wanted.insert(cid);
                            crawler.want(cid, members.to_vec()).unwrap();
                        }
                        ann.send(group, b"once more".to_vec()).await.unwrap();
                    }
                }
                Event::Message { data: bytes, .. } | Event::Frame { bytes, .. } => {
                    said = true;
                    learned.extend(&bytes);
                }
                _ => {}
            }
        }
    };
    let crawled = timeout(PATIENCE, crawling).await;
    crawled.unwrap_or_else(|_| panic!("{} wants are not answered, {topics:?}, {said}", wanted.len()));

    while let Some(given) = streams.join_next().await {
        assert_eq!(given.unwrap(), None, "a log was given to a stranger");
    }

    for node in [&ann, &bob] {
        let keys = node.view(move |read, engine, _| {
            // The names of topics, which Go makes of the public keys of groups, tell those to whoever is connected;
            // of the account group it is that of the account.
            let mut keys = vec![*engine.device_id().as_bytes()];
            keys.extend(engine.members(read, &group)?.iter().map(|member| *member.as_bytes()));
            for log in [engine.account_group(), group] {
                if let Some(known) = engine.known_group(read, &log)? {
                    keys.push(*known.sign_pub().as_bytes());
                }
            }
            Ok::<_, CommandError>(keys)
        });
        for key in keys.await.unwrap() {
            let forms =
                [&HEXLOWER, &HEXUPPER, &BASE64, &BASE64URL, &BASE32].map(|form| form.encode(&key[..30]));
            // The last digit of a text may hold bits of what follows.
            let texts = forms.iter().map(|form| form.as_bytes()[..40].to_vec());
            for form in texts.chain([key.to_vec(), format!("{:?}", &key[..30]).into_bytes()]) {
                assert!(
                    !learned.windows(form.len()).any(|part| part == form),
                    "{}",
                    String::from_utf8_lossy(&form)
                );
            }
        }
    }
    for node in [ann, bob] {
        node.shutdown().await;
    }
}

/// The first frame of a whole log that somebody is asked for.
async fn streamed(host: Ipfs, member: PeerId, log: LogTag) -> Option<Bytes> {
    let opening = host.open_long_exchange(catch_up::PROTOCOL, member, catch_up::FRAME_BYTES_MAX);
    let mut exchange = opening.await.expect("it is spoken");
    let request = Request { log, known: Vec::new() };
    exchange.write_frame(&request.encode()).await.unwrap();
    exchange.read_frame().await.ok()
}

/// The entries of a group's logs; those of the account group if none is named.
async fn entries(node: &NodeHandle, group: Option<GroupId>) -> Vec<EntryId> {
    let found = node.view(move |read, engine, _| {
        let group = group.unwrap_or_else(|| engine.account_group());
        let (mut entries, up) = (Vec::new(), Direction::Ascending);
        engine.visit_metadata(read, &group, Bound::Unbounded, up, &mut |event| {
            entries.push(event.entry);
            ControlFlow::Continue(())
        })?;
        engine.visit_messages(read, &group, Bound::Unbounded, up, &mut |message| {
            entries.push(message.entry);
            ControlFlow::Continue(())
        })?;
        Ok::<_, CommandError>(entries)
    });
    found.await.unwrap()
}
