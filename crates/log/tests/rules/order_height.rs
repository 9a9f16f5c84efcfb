//! O1: the claimed clock changes no order.

use dunlin_log::ClockReport;

use crate::world::{Node, chain, entry};

#[test]
fn order_height() {
    let chain = chain(4);
    let claims = [i64::MIN, -1, 0, 1, 2, 1 << 31, i64::MAX];
    let mut node = Node::new();
    node.take(&chain);
    node.join(100);
    let honest = node.payloads();
    for (at, time) in claims.into_iter().enumerate() {
        let liar = entry(&format!("liar {at}"), &[chain[1].id()], time);
        node.take(std::slice::from_ref(&liar));
        let batch = node.commit(|log, tx| log.join_ready(tx, 100).unwrap());
        assert_eq!(batch.joined[0].position.height, 3, "{time}");
        assert_eq!(batch.joined[0].clock, ClockReport::Odd);
    }
    let payloads = node.payloads();
    let shown: Vec<&String> = payloads.iter().filter(|payload| !payload.starts_with("liar")).collect();
    assert_eq!(shown, honest.iter().collect::<Vec<_>>());
    assert_eq!(payloads.last(), Some(&"3".to_owned()), "the highest comes last");

    // A clock that cannot go further stays where it is, and what stands on it has its height.
    let writer = crate::world::writer();
    let joined = node.commit(|log, tx| log.append(tx, &writer, "on top").unwrap());
    assert_eq!((joined.position.height, joined.entry.time()), (5, i64::MAX));
}
