//! What appends name, and what becomes of them when a transaction is not committed.

use dunlin_base::EntryId;
use dunlin_base::kv::Tx;
use dunlin_log::{
    AppendError, ENTRY_BYTES_MAX, HEADS_PER_APPEND_MAX, HeadError, Writer, heads_from_json, heads_to_json,
};

use crate::world::{Node, chain, entry, open, writer};

/// The shortcut between appends changes nothing: a log opened anew for each writes the same blocks.
#[test]
fn appends_depend_on_the_store_alone() {
    let mut kept = Node::new();
    let mut reopened = Node::new();
    let fork = entry("fork", &[], 1);
    for at in 0..140 {
        reopened.log = open();
        if at == 70 {
            for node in [&mut kept, &mut reopened] {
                node.take(std::slice::from_ref(&fork));
                node.join(10);
            }
        }
        let payload = format!("{at}");
        let ours = kept.commit(|log, tx| log.append(tx, &writer(), &payload).unwrap());
        let theirs = reopened.commit(|log, tx| log.append(tx, &writer(), &payload).unwrap());
        assert_eq!(ours.entry, theirs.entry, "{at}");
    }
}

#[test]
fn what_was_not_committed_never_was() {
    let mut node = Node::new();
    node.commit(|log, tx| log.append(tx, &writer(), "first").unwrap());
    let before = node.order();
    let mut tx = Tx::new(&node.disk);
    let lost = node.log.append(&mut tx, &writer(), "lost").unwrap();
    drop(tx);
    assert_eq!(node.order(), before);

    let joined = node.commit(|log, tx| log.append(tx, &writer(), "second").unwrap());
    assert_eq!(joined.entry.next(), [before[0].id]);
    assert!(!node.log.contains(&node.disk, lost.id).unwrap());
}

/// O6: however many heads there are, an append names some of them and later ones the rest.
#[test]
fn fork_flood() {
    let forks: Vec<_> = (0..100).map(|at| entry(&format!("fork {at}"), &[], 1)).collect();
    let mut node = Node::new();
    node.take(&forks);
    node.join(1000);
    assert_eq!(node.log.heads(&node.disk).unwrap().len(), 100);
    let mut last: Option<EntryId> = None;
    for at in 0..4 {
        let joined = node.commit(|log, tx| log.append(tx, &writer(), &format!("{at}")).unwrap());
        assert!(joined.entry.next().len() <= HEADS_PER_APPEND_MAX);
        assert!(last.is_none_or(|last| joined.entry.next().contains(&last)), "our own last entry is named");
        last = Some(joined.id);
    }
    assert_eq!(node.log.heads(&node.disk).unwrap(), last.into_iter().collect::<Vec<_>>());
}

#[test]
fn appends_that_would_not_count_are_refused() {
    let mut node = Node::new();
    node.commit(|log, tx| {
        let first = log.append(tx, &writer(), "first").unwrap();
        let again = log.append(tx, &writer(), "first").unwrap_err();
        assert!(matches!(again, AppendError::Repeated(id) if id == first.id), "{again}");
        let long = log.append(tx, &writer(), &"x".repeat(ENTRY_BYTES_MAX)).unwrap_err();
        assert!(matches!(long, AppendError::TooLong(_)), "{long}");
        let stranger = Writer::new(dunlin_base::SecretKey::from_seed([1; 32]));
        let refused = log.append(tx, &stranger, "hello").unwrap_err();
        assert!(matches!(refused, AppendError::NotAWriter), "{refused}");
        log.append(tx, &writer(), "second").unwrap();
    });
    assert_eq!(node.payloads(), ["first", "second"]);
}

/// O9: each head of a list is judged by itself.
#[test]
fn heads_list_mixed() {
    let chain = chain(3);
    let json = String::from_utf8(heads_to_json(&chain)).unwrap();
    let good = heads_from_json(json.as_bytes()).unwrap();
    let good: Vec<_> = good.into_iter().map(Result::unwrap).collect();
    assert_eq!(good, chain);

    let one = String::from_utf8(heads_to_json(&chain[..1])).unwrap();
    let one = &one[1..one.len() - 1];
    let altered = one.replace("\"time\":1", "\"time\":2");
    let provided = one.replace("\"Provider\":null", "\"Provider\":{}");
    let more = one.replacen('{', "{\"additional\":[1],", 1);
    let bare = one.replace(",\"Provider\":null", "");
    let unversioned = one.replace("\"v\":2", "\"v\":1");
    let nested = "[".repeat(100) + &"]".repeat(100);
    let list = format!("[null,{{}},7,{nested},{altered},{provided},{unversioned},{more},{bare},{one}]");
    let heads = heads_from_json(list.as_bytes()).unwrap();
    assert_eq!(
        heads.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [false, false, false, false, false, false, false, true, true, true]
    );
    assert!(matches!(heads[4], Err(HeadError::OtherHash { .. })));
    assert!(matches!(heads[6], Err(HeadError::Version(1))));

    assert!(heads_from_json(b"null").unwrap().is_empty());
    assert!(heads_from_json(b"[]").unwrap().is_empty());
    let too_many = format!("[{}]", vec!["1"; 5000].join(","));
    for list in ["", "{}", "7", "[", "[1,]", too_many.as_str()] {
        assert!(heads_from_json(list.as_bytes()).is_err(), "{list:.20}");
    }
}
