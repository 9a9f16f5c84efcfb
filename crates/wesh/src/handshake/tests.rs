//! Both sides against each other, and against whoever is up to no good.

use dunlin_base::keys::{AgreementKey, PublicKey, SecretKey};
use dunlin_base::{AccountId, Time};
use dunlin_proto::handshake::HelloPayload;
use prost::Message;

use super::{DEADLINE, FRAME_BYTES_MAX, HandshakeAction, HandshakeError, Requester, Responder, Step};
use crate::contact::{Contact, METADATA_BYTES_MAX};

const NOW: Time = Time::from_secs(1_000);

/// The encodings of points of small order on Curve25519 below 2^255.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn frames_match_the_published_ones() {
    let (a, b) = (SecretKey::from_seed(seed(0x00)), SecretKey::from_seed(seed(0x20)));
    let (mut requester, mut responder) = pair(&a, &b);
    let sent = run(&mut requester, &mut responder);
    let shown: Vec<_> = sent.iter().map(hex::encode).collect();
    // spec/wesh-protocol.md A.7.
    let published = [
        "0a20c306fb0ef2bf8b7f93bad98155fa37daec74db0c4cbeda6c6f1dba9d36558252",
        "0a20db48257e1237976a74ad8cfedca00213408fe89ac6251f1b930245f242b5c31a",
        "0a78037d3540f9ef28c7de9e0b2a4a9d846bb5265409e76ae74c99441126cd98e964f711877fe02e7ef30a2e36c0d24260b5\
         53466359e82a962dff632b10961ee766df07f55b99b7dbf2975f1f7a77ddbe12e8c21858c75369814cb1d64c4aa525d76cf\
         d1ed83e1c4d3657604b775a27614f11f4896cde5d737e",
        "0a525275b659c26be0d0d7c958dfee751296cdbabd2c29f9afae7e35905a1294ba713f4096964f6fd2d10cc3ff501ec59fec\
         2cdc009b412d808dc12c7e41ab0eeb36bc3de2ef9f7ef04932832bd1a8f70b08f20a",
        "0801",
    ];
    assert_eq!(shown[..5], published);
}

#[test]
fn both_sides_end_with_what_they_are_for() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let (mut requester, mut responder) = pair(&a, &b);
    run(&mut requester, &mut responder);
    assert_eq!(drain(&mut || requester.poll_action()), [HandshakeAction::Sent, HandshakeAction::Close]);
    let received = HandshakeAction::Received(introduction(&a));
    assert_eq!(drain(&mut || responder.poll_action()), [received, HandshakeAction::Close]);
    assert_eq!((requester.timeout(), responder.timeout()), (None, None));
}

#[test]
fn dh_contributory() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    for low_order in LOW_ORDER {
        let hello = HelloPayload { ephemeral_pub_key: hex::decode(low_order).unwrap() }.encode_to_vec();
        let (mut requester, mut responder) = pair(&a, &b);
        assert!(matches!(responder.handle_frame(NOW, &hello), Err(HandshakeError::Agreement { .. })));
        assert!(matches!(requester.handle_frame(NOW, &hello), Err(HandshakeError::Agreement { .. })));
        assert_eq!(drain(&mut || responder.poll_action()), [HandshakeAction::Close]);
    }
}

#[test]
fn a_late_frame_is_not_looked_at() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let (mut requester, mut responder) = pair(&a, &b);
    let hello = next_frame(&mut || requester.poll_action()).unwrap();
    assert_eq!(responder.timeout(), Some(NOW + DEADLINE));
    assert!(matches!(responder.handle_frame(NOW + DEADLINE, &hello), Err(HandshakeError::Late)));
    assert_eq!(drain(&mut || responder.poll_action()), [HandshakeAction::Close]);

    requester.handle_timeout(NOW + DEADLINE);
    requester.handle_timeout(NOW + DEADLINE);
    assert_eq!(drain(&mut || requester.poll_action()), [HandshakeAction::Close]);
    assert_eq!(requester.timeout(), None);
}

#[test]
fn nothing_is_taken_after_the_end() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let (mut requester, mut responder) = pair(&a, &b);
    let sent = run(&mut requester, &mut responder);
    assert!(matches!(responder.handle_frame(NOW, &sent[5]), Err(HandshakeError::Over)));
    assert!(matches!(requester.handle_frame(NOW, &sent[3]), Err(HandshakeError::Over)));
}

#[test]
fn an_introduction_of_somebody_else_is_refused() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let mallory = SecretKey::from_seed([3; 32]);
    let b_id = AccountId::new(b.public());
    let mut requester =
        Requester::new(&mallory, &introduction(&a), &b_id, AgreementKey::from_bytes([4; 32]), NOW);
    let mut responder = Responder::new(&b, AgreementKey::from_bytes([5; 32]), NOW);
    let outcome = run_to_contact(&mut requester, &mut responder);
    let Err(HandshakeError::OtherAccount { authenticated }) = outcome else { panic!("{outcome:?}") };
    assert_eq!(*authenticated.key(), mallory.public());
}

#[test]
fn the_account_itself_is_refused() {
    let a = SecretKey::from_seed([1; 32]);
    let (mut requester, mut responder) = pair(&a, &a);
    assert!(matches!(run_to_contact(&mut requester, &mut responder), Err(HandshakeError::OwnAccount)));
}

#[test]
fn a_long_introduction_is_refused_on_both_sides() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let b_id = AccountId::new(b.public());
    let requester_with = |bytes| {
        let introduction = Contact { metadata: vec![1; bytes], ..introduction(&a) };
        Requester::new(&a, &introduction, &b_id, AgreementKey::from_bytes([4; 32]), NOW)
    };
    let mut responder = Responder::new(&b, AgreementKey::from_bytes([5; 32]), NOW);
    let outcome = run_to_contact(&mut requester_with(METADATA_BYTES_MAX + 1), &mut responder);
    assert!(matches!(outcome, Err(HandshakeError::Contact(_))));

    let mut requester = requester_with(FRAME_BYTES_MAX);
    assert_eq!(drain(&mut || requester.poll_action()), [HandshakeAction::Close]);
    assert_eq!(requester.timeout(), None);
}

#[test]
fn frames_have_a_limit() {
    let (a, b) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let (_, mut responder) = pair(&a, &b);
    let refused = responder.handle_frame(NOW, &[0; FRAME_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(HandshakeError::Frame { step: Step::RequesterHello })));
}

#[test]
fn debug_shows_no_key() {
    let (a, b) = (SecretKey::from_seed([0xaa; 32]), SecretKey::from_seed([2; 32]));
    let (_, responder) = pair(&a, &b);
    let account = AccountId::new(PublicKey::from_bytes(b.public().as_bytes()).unwrap());
    assert_eq!(
        format!("{responder:?}"),
        format!("Responder {{ own: {account:?}, state: Hello(..), actions: [], deadline: Time(1010000) }}")
    );
}

fn seed(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first + i as u8)
}

fn introduction(account: &SecretKey) -> Contact {
    let account = AccountId::new(account.public());
    Contact { account, seed: Some([7; 32]), metadata: b"from the harbour".to_vec() }
}

/// Requester `a` and responder `b`, with the ephemeral keys of spec/wesh-protocol.md A.7.
fn pair(a: &SecretKey, b: &SecretKey) -> (Requester, Responder) {
    let ephemeral = |byte| AgreementKey::from_bytes([byte; 32]);
    let b_id = AccountId::new(b.public());
    let requester = Requester::new(a, &introduction(a), &b_id, ephemeral(0xa1), NOW);
    (requester, Responder::new(b, ephemeral(0xb2), NOW))
}

/// Carries all six frames; gives them in the order in which they were sent.
fn run(requester: &mut Requester, responder: &mut Responder) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for from_requester in [true, false, true, false, true, true] {
        let frame = if from_requester {
            let frame = next_frame(&mut || requester.poll_action()).unwrap();
            responder.handle_frame(NOW, &frame).unwrap();
            frame
        } else {
            let frame = next_frame(&mut || responder.poll_action()).unwrap();
            requester.handle_frame(NOW, &frame).unwrap();
            frame
        };
        sent.push(frame);
    }
    sent
}

/// Carries five frames, and gives what the responder answers to the sixth.
fn run_to_contact(requester: &mut Requester, responder: &mut Responder) -> Result<(), HandshakeError> {
    for _ in 0..2 {
        responder.handle_frame(NOW, &next_frame(&mut || requester.poll_action()).unwrap()).unwrap();
        requester.handle_frame(NOW, &next_frame(&mut || responder.poll_action()).unwrap()).unwrap();
    }
    responder.handle_frame(NOW, &next_frame(&mut || requester.poll_action()).unwrap()).unwrap();
    responder.handle_frame(NOW, &next_frame(&mut || requester.poll_action()).unwrap())
}

fn next_frame(poll: &mut dyn FnMut() -> Option<HandshakeAction>) -> Option<Vec<u8>> {
    match poll()? {
        HandshakeAction::Send(frame) => Some(frame),
        other => panic!("{other:?} instead of a frame"),
    }
}

fn drain(poll: &mut dyn FnMut() -> Option<HandshakeAction>) -> Vec<HandshakeAction> {
    std::iter::from_fn(poll).collect()
}
