use cid::multihash::Multihash;
use sha2::{Digest as _, Sha256};

use super::*;

const HOLD: Duration = Duration::from_secs(10);

#[test]
fn a_wanted_block_is_sent() {
    let mut ledger = Ledger::default();
    ledger.update(list([want(b"block")]));

    let (message, answered) = answer(&mut ledger, &[b"block"], Version::V1_2, Duration::ZERO, Instant::now());

    assert_eq!(message.payload[0].data, b"block"[..]);
    assert!(answered[0].served);
    assert!(!ledger.has_work(Instant::now()));
}

#[test]
fn who_asks_whether_a_block_is_here_gets_a_small_one_at_once() {
    let (small, large) = (vec![1; INLINE_BYTES_MAX - 1], vec![2; INLINE_BYTES_MAX]);
    let mut ledger = Ledger::default();
    ledger.update(list([have(&small), have(&large)]));

    let (message, _) = answer(&mut ledger, &[&small, &large], Version::V1_2, Duration::ZERO, Instant::now());

    assert_eq!(message.payload.len(), 1);
    assert_eq!(presences(&message), [(cid(&large), PresenceType::Have)]);
}

#[test]
fn what_is_not_here_is_said_to_who_wants_to_know() {
    let mut ledger = Ledger::default();
    let quiet = Entry { send_dont_have: false, ..want(b"quiet") };
    ledger.update(list([want(b"asked"), quiet]));

    let (message, _) = answer(&mut ledger, &[], Version::V1_2, Duration::ZERO, Instant::now());
    assert_eq!(presences(&message), [(cid(b"asked"), PresenceType::DontHave)]);

    // Both are served when they come.
    ledger.offer(&cid(b"asked"));
    ledger.look_again();
    let (message, _) =
        answer(&mut ledger, &[b"asked", b"quiet"], Version::V1_2, Duration::ZERO, Instant::now());
    assert_eq!(message.payload.len(), 2);
}

#[test]
fn what_is_not_here_is_said_once() {
    let mut ledger = Ledger::default();
    ledger.update(list([want(b"asked")]));
    answer(&mut ledger, &[], Version::V1_2, Duration::ZERO, Instant::now());

    ledger.look_again();

    assert!(answer(&mut ledger, &[], Version::V1_2, Duration::ZERO, Instant::now()).0.is_empty());
}

#[test]
fn a_held_want_is_answered_after_its_time() {
    let mut ledger = Ledger::default();
    let begin = Instant::now();
    ledger.update(list([want(b"late"), want(b"never")]));

    assert!(answer(&mut ledger, &[], Version::V1_2, HOLD, begin).0.is_empty());
    assert_eq!(ledger.timeout(), Some(begin + HOLD));
    let (message, _) = answer(&mut ledger, &[b"late"], Version::V1_2, HOLD, begin + HOLD);

    assert_eq!(message.payload.len(), 1);
    assert_eq!(presences(&message), [(cid(b"never"), PresenceType::DontHave)]);
    assert_eq!(ledger.timeout(), None);
}

#[test]
fn a_held_want_is_served_as_soon_as_the_block_comes() {
    let mut ledger = Ledger::default();
    let begin = Instant::now();
    ledger.update(list([want(b"late")]));
    answer(&mut ledger, &[], Version::V1_2, HOLD, begin);

    ledger.offer(&cid(b"late"));

    let (message, _) = answer(&mut ledger, &[b"late"], Version::V1_2, HOLD, begin);
    assert_eq!(message.payload.len(), 1);
}

#[test]
fn cancelled_wants_are_not_answered() {
    let mut ledger = Ledger::default();
    ledger.update(list([want(b"a"), want(b"b")]));
    ledger.update(list([Entry { cancel: true, ..want(b"a") }]));

    let (message, _) = answer(&mut ledger, &[b"a", b"b"], Version::V1_2, Duration::ZERO, Instant::now());

    assert_eq!(message.payload.len(), 1);
    assert_eq!(message.payload[0].data, b"b"[..]);
}

#[test]
fn a_full_wantlist_replaces_the_old_one() {
    let mut ledger = Ledger::default();
    ledger.update(list([want(b"a")]));
    ledger.update(Wantlist { full: true, ..list([want(b"b")]) });

    let (message, _) = answer(&mut ledger, &[b"a", b"b"], Version::V1_2, Duration::ZERO, Instant::now());

    assert_eq!(message.payload.len(), 1);
}

#[test]
fn many_blocks_are_spread_over_messages() {
    let blocks: Vec<_> = (0..10_u8).map(|n| vec![n; MESSAGE_BYTES_TARGET / 4]).collect();
    let here: Vec<_> = blocks.iter().map(Vec::as_slice).collect();
    let mut ledger = Ledger::default();
    ledger.update(list(blocks.iter().map(|block| want(block))));

    let counts: Vec<_> = (0..3)
        .map(|_| answer(&mut ledger, &here, Version::V1_2, Duration::ZERO, Instant::now()).0.payload.len())
        .collect();

    assert_eq!(counts, [4, 4, 2]);
}

#[test]
fn answers_of_a_lost_message_are_given_again() {
    let mut ledger = Ledger::default();
    ledger.update(list([want(b"here"), want(b"not here")]));
    let (_, lost) = answer(&mut ledger, &[b"here"], Version::V1_2, Duration::ZERO, Instant::now());

    ledger.put_back(lost);

    let (message, _) = answer(&mut ledger, &[b"here"], Version::V1_2, Duration::ZERO, Instant::now());
    assert_eq!((message.payload.len(), message.presences.len()), (1, 1));
}

#[test]
fn old_versions_get_blocks_without_names_and_no_presences() {
    let mut ledger = Ledger::default();
    ledger.update(list([want(b"here"), want(b"not here")]));

    let (message, _) = answer(&mut ledger, &[b"here"], Version::V1_0, Duration::ZERO, Instant::now());

    assert_eq!((message.blocks.len(), message.payload.len(), message.presences.len()), (1, 0, 0));
}

#[test]
fn a_peer_cannot_make_the_ledger_grow() {
    let mut ledger = Ledger::default();
    for n in 0..4 * WANTS_PER_PEER_MAX as u32 {
        ledger.update(list([want(&n.to_be_bytes())]));
        ledger.update(list([Entry { cancel: true, ..want(&n.to_be_bytes()) }]));
    }
    assert!(ledger.queue.len() <= 2 * WANTS_PER_PEER_MAX + 1);

    ledger.update(list((0..2 * WANTS_PER_PEER_MAX as u32).map(|n| want(&n.to_be_bytes()))));
    assert_eq!(ledger.wants.len(), WANTS_PER_PEER_MAX);

    // Wants that we could not meet give way to new ones.
    while ledger.has_work(Instant::now()) {
        answer(&mut ledger, &[], Version::V1_2, Duration::ZERO, Instant::now());
    }
    ledger.update(list([want(b"new")]));
    let (message, _) = answer(&mut ledger, &[b"new"], Version::V1_2, Duration::ZERO, Instant::now());
    assert_eq!(message.payload.len(), 1);
}

fn cid(block: &[u8]) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x12, &Sha256::digest(block)).unwrap())
}

fn want(block: &[u8]) -> Entry {
    Entry {
        cid: cid(block).to_bytes().into(),
        priority: 1,
        cancel: false,
        want_type: WantType::Block.into(),
        send_dont_have: true,
    }
}

fn have(block: &[u8]) -> Entry {
    Entry { want_type: WantType::Have.into(), ..want(block) }
}

fn list(entries: impl IntoIterator<Item = Entry>) -> Wantlist {
    Wantlist { entries: entries.into_iter().collect(), full: false }
}

fn answer(
    ledger: &mut Ledger,
    here: &[&[u8]],
    version: Version,
    hold: Duration,
    now: Instant,
) -> (Message, Vec<Answered>) {
    let mut message = Message::default();
    let find = |wanted: &Cid| {
        here.iter().find(|block| cid(block) == *wanted).map(|block| Bytes::copy_from_slice(block))
    };
    let answered = ledger.fill(&mut message, version, find, hold, now);
    (message, answered)
}

fn presences(message: &Message) -> Vec<(Cid, PresenceType)> {
    let presence = |presence: &super::super::message::Presence| {
        (Cid::try_from(&*presence.cid).unwrap(), PresenceType::try_from(presence.kind).unwrap())
    };
    message.presences.iter().map(presence).collect()
}
