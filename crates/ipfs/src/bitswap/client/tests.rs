use cid::multihash::Multihash;
use sha2::{Digest as _, Sha256};

use super::*;

#[test]
fn one_peer_at_a_time_is_asked() {
    let (mut client, [a, b]) = client();
    client.want(cid(1), vec![a, b]).unwrap();

    assert_eq!((told(&mut client, a), told(&mut client, b)), (vec![cid(1)], vec![]));
    client.dont_have(a, &cid(1), Instant::now());
    assert_eq!((told(&mut client, a), told(&mut client, b)), (vec![], vec![cid(1)]));
    assert!(client.received(b, &cid(1), Instant::now()));

    assert_eq!(client.timeout(Instant::now()), None);
    assert_eq!(client.take_missing(), None);
}

#[test]
fn somebody_else_who_may_have_it_is_asked_besides() {
    let (mut client, [first, second]) = client();
    client.want(cid(1), vec![first]).unwrap();
    assert_eq!(told(&mut client, first), [cid(1)]);
    client.want(cid(1), vec![first]).unwrap();
    assert!(told(&mut client, second).is_empty(), "nobody new was named");
    client.want(cid(1), vec![first, second]).unwrap();
    assert_eq!(told(&mut client, second), [cid(1)]);
}

#[test]
fn work_is_shared_out() {
    let (mut client, [a, b]) = client();
    for n in 0..10 {
        client.want(cid(n), vec![a, b]).unwrap();
    }

    assert_eq!((told(&mut client, a).len(), told(&mut client, b).len()), (5, 5));
}

#[test]
fn what_nobody_has_is_missing_once() {
    let (mut client, [a, b]) = client();
    client.want(cid(1), vec![a]).unwrap();
    client.want(cid(2), vec![b]).unwrap();
    client.want(cid(3), vec![PeerId::random()]).unwrap();

    client.dont_have(a, &cid(1), Instant::now());
    client.dont_have(a, &cid(1), Instant::now());
    client.disconnected(b);

    let missing: BTreeSet<_> = std::iter::from_fn(|| client.take_missing()).collect();
    assert_eq!(missing, BTreeSet::from([cid(1), cid(2), cid(3)]));
    assert_eq!(client.timeout(Instant::now()), None);
}

#[test]
fn a_peer_is_told_of_so_much_at_a_time() {
    let (mut client, [a, _]) = client();
    for n in 0..IN_FLIGHT_PER_PEER_MAX as u32 + 1 {
        client.want(cid(n), vec![a]).unwrap();
    }
    let first = told(&mut client, a);
    assert_eq!(first.len(), IN_FLIGHT_PER_PEER_MAX);
    assert_eq!(told(&mut client, a), []);

    client.received(a, &first[0], Instant::now());

    assert!(client.has_changed(&a));
    assert_eq!(told(&mut client, a), [cid(IN_FLIGHT_PER_PEER_MAX as u32)]);
}

#[test]
fn a_silent_peer_is_doubted_and_then_given_up() {
    let (mut client, [a, b]) = client();
    let begin = Instant::now();
    client.want(cid(1), vec![a, b]).unwrap();
    assert_eq!(fill(&mut client, a, false, begin).0, [cid(1)]);

    client.sweep(begin + PATIENCE - Duration::from_millis(1));
    assert!(!client.has_changed(&b));
    client.sweep(begin + PATIENCE);
    assert_eq!(fill(&mut client, b, false, begin + PATIENCE).0, [cid(1)]);

    client.sweep(begin + SILENCE_MAX);
    assert_eq!(fill(&mut client, a, false, begin + SILENCE_MAX), (vec![], vec![cid(1)]));
    assert_eq!(client.take_missing(), None);
    client.sweep(begin + PATIENCE + SILENCE_MAX);
    assert_eq!(client.take_missing(), Some(cid(1)));
}

#[test]
fn what_waits_behind_a_silent_peer_is_given_up_with_it() {
    let (mut client, [a, _]) = client();
    let begin = Instant::now();
    let count = IN_FLIGHT_PER_PEER_MAX as u32 + 100;
    for n in 0..count {
        client.want(cid(n), vec![a]).unwrap();
    }
    fill(&mut client, a, false, begin);

    client.sweep(begin + SILENCE_MAX);

    assert_eq!(std::iter::from_fn(|| client.take_missing()).count(), count as usize);
}

#[test]
fn a_want_that_is_passed_over_is_given_up_in_the_end() {
    let (mut client, [a, _]) = client();
    let begin = Instant::now();
    client.want(cid(1), vec![a]).unwrap();
    fill(&mut client, a, false, begin);

    for second in 0..NEGLECT_MAX.as_secs() {
        client.received(a, &cid(2), begin + Duration::from_secs(second));
        client.sweep(begin + Duration::from_secs(second));
    }
    assert_eq!(client.take_missing(), None);
    client.sweep(begin + NEGLECT_MAX);

    assert_eq!(client.take_missing(), Some(cid(1)));
}

#[test]
fn the_other_peer_is_told_when_a_block_has_come() {
    let (mut client, [a, b]) = client();
    let begin = Instant::now();
    client.want(cid(1), vec![a, b]).unwrap();
    fill(&mut client, a, false, begin);
    client.sweep(begin + PATIENCE);
    fill(&mut client, b, false, begin + PATIENCE);

    assert!(client.received(a, &cid(1), begin + PATIENCE));
    assert_eq!(fill(&mut client, b, false, begin + PATIENCE), (vec![], vec![cid(1)]));

    // It comes all the same.
    assert!(!client.received(b, &cid(1), begin + PATIENCE));
}

#[test]
fn cancelling_withdraws_what_was_told_and_forgets_what_was_not() {
    let (mut client, [a, _]) = client();
    client.want(cid(1), vec![a]).unwrap();
    told(&mut client, a);
    client.want(cid(2), vec![a]).unwrap();

    client.cancel(&cid(1));
    client.cancel(&cid(2));

    assert_eq!(fill(&mut client, a, false, Instant::now()), (vec![], vec![cid(1)]));
    assert_eq!(client.timeout(Instant::now()), None);
}

#[test]
fn a_new_stream_begins_with_the_whole_wantlist() {
    let (mut client, [a, _]) = client();
    client.want(cid(1), vec![a]).unwrap();
    client.want(cid(2), vec![a]).unwrap();
    told(&mut client, a);
    client.cancel(&cid(1));
    client.want(cid(3), vec![a]).unwrap();

    let mut message = Message::default();
    client.fill(a, &mut message, Version::V1_2, true, Instant::now());

    assert!(message.wantlist.as_ref().unwrap().full);
    assert_eq!(entries(message), (vec![cid(2), cid(3)], vec![]));
}

#[test]
fn only_names_that_can_be_verified_are_wanted() {
    let (mut client, [a, _]) = client();
    let blake = Cid::new_v1(0x71, Multihash::wrap(0xb220, &[0; 32]).unwrap());
    let short = Cid::new_v1(0x71, Multihash::wrap(0x12, &[0; 20]).unwrap());

    assert_eq!(client.want(blake, vec![a]), Err(WantError::Unverifiable));
    assert_eq!(client.want(short, vec![a]), Err(WantError::Unverifiable));
}

fn client() -> (Client, [PeerId; 2]) {
    let mut client = Client::default();
    let peers = [PeerId::random(), PeerId::random()];
    for peer in peers {
        client.connected(peer, Instant::now());
    }
    (client, peers)
}

fn cid(number: u32) -> Cid {
    Cid::new_v1(0x71, Multihash::wrap(0x12, &Sha256::digest(number.to_be_bytes())).unwrap())
}

/// What the next message newly wants.
fn told(client: &mut Client, peer: PeerId) -> Vec<Cid> {
    fill(client, peer, false, Instant::now()).0
}

/// What the next message wants and cancels.
fn fill(client: &mut Client, peer: PeerId, afresh: bool, now: Instant) -> (Vec<Cid>, Vec<Cid>) {
    let mut message = Message::default();
    client.fill(peer, &mut message, Version::V1_2, afresh, now);
    entries(message)
}

fn entries(message: Message) -> (Vec<Cid>, Vec<Cid>) {
    let entries = message.wantlist.unwrap_or_default().entries;
    let of = |cancel| {
        entries
            .iter()
            .filter(|entry| entry.cancel == cancel)
            .map(|entry| Cid::try_from(&*entry.cid).unwrap())
            .collect()
    };
    (of(false), of(true))
}
