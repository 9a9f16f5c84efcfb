//! O4: what cannot be fetched blocks nothing else, and fits in when it comes after all.

use dunlin_log::{Ingest, JoinedBatch};

use crate::world::{Node, chain, entry};

#[test]
fn fetch_holes() {
    let chain = chain(10);
    let sibling = entry("sibling", &[], 1);
    let (below, hole, above) = (&chain[..4], &chain[4], &chain[5..]);
    let mut all = chain.clone();
    all.push(sibling.clone());

    let mut node = Node::new();
    node.take(below);
    node.take(above);
    node.take(&[sibling]);
    node.join(100);
    assert_eq!(node.payloads().len(), 5, "the sibling does not wait");
    assert_eq!(node.log.missing(&node.disk, 10).unwrap(), [hole.id()]);

    node.commit(|log, tx| log.give_up(tx, hole.id()).unwrap());
    node.join(100);
    assert_eq!(node.payloads().len(), 10);
    assert_eq!(node.log.position(&node.disk, chain[5].id()).unwrap().unwrap().height, 1);
    assert_eq!(node.log.missing(&node.disk, 10).unwrap(), []);
    assert_eq!(node.log.holes(&node.disk, None, 10).unwrap(), [hole.id()]);
    assert_eq!(node.log.heads(&node.disk).unwrap().len(), 3);

    // It comes after all, and the log is as if it had come in time.
    node.take(std::slice::from_ref(hole));
    assert!(node.join(1), "the order of earlier entries changes");
    let mut in_time = Node::new();
    in_time.take(&all);
    in_time.join(100);
    assert_eq!(node.state(&all), in_time.state(&all));
}

#[test]
fn links_further_back_are_wanted_while_a_parent_is_missing() {
    let mut source = Node::new();
    let writer = crate::world::writer();
    for at in 0..70 {
        source.commit(|log, tx| log.append(tx, &writer, &format!("{at}")).unwrap());
    }
    let head = source.log.heads(&source.disk).unwrap()[0];
    let head = source.log.entry(&source.disk, head).unwrap().unwrap();
    assert_eq!((head.next().len(), head.refs().len()), (1, 6));

    let mut node = Node::new();
    let stored = node.commit(|log, tx| log.ingest(tx, head.block()).unwrap());
    let Ingest::Stored { missing, .. } = stored else { panic!("{stored:?}") };
    assert_eq!(missing, [head.next(), head.refs()].concat());

    // Fetching what is missing, round by round, takes a fraction of the rounds that a chain takes.
    let mut rounds = 0;
    loop {
        let missing = node.log.missing(&node.disk, 1000).unwrap();
        if missing.is_empty() {
            break;
        }
        let fetched: Vec<_> =
            missing.iter().map(|id| source.log.entry(&source.disk, *id).unwrap().unwrap()).collect();
        node.take(&fetched);
        rounds += 1;
    }
    node.join(7);
    assert!(rounds <= 12, "{rounds}");
    assert_eq!(node.order(), source.order());
}

#[test]
fn steps_are_bounded_and_survive_restarts() {
    let root = entry("root", &[], 1);
    let children: Vec<_> = (0..600).map(|at| entry(&format!("{at}"), &[root.id()], 2)).collect();
    let mut node = Node::new();
    node.take(&children);
    node.commit(|log, tx| log.give_up(tx, root.id()).unwrap());
    let mut calls = 0;
    loop {
        node.log = crate::world::open();
        let JoinedBatch { joined, more, .. } = node.commit(|log, tx| log.join_ready(tx, 50).unwrap());
        assert!(joined.len() <= 50);
        calls += 1;
        if !more {
            break;
        }
    }
    assert_eq!(node.payloads().len(), 600);
    assert!(calls >= 12, "{calls}");

    node.take(std::slice::from_ref(&root));
    assert!(node.join(50));
    assert_eq!(node.log.heads(&node.disk).unwrap().len(), 600);
    assert_eq!(node.order()[0].id, root.id());
}
