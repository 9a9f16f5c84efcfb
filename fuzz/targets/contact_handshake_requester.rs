//! A contact request to somebody who keeps to the protocol for a frame or none, then does not.
//!
//! The first byte says how many of the two answers are honest. The rest is what comes instead: the first
//! message sealed as frame 4 is, when that is due, and the others as they are.
#![no_main]

use dunlin_base::kdf::sha256;
use dunlin_base::keys::{AgreementKey, SymmetricKey};
use dunlin_base::seal::{Nonce, seal};
use dunlin_base::{AccountId, Time};
use dunlin_fuzz::{key, messages};
use dunlin_proto::handshake::BoxEnvelope;
use dunlin_wesh::contact::Contact;
use dunlin_wesh::handshake::{HandshakeAction, Requester, Responder};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const NOW: Time = Time::from_secs(1_000);

fuzz_target!(|input: &[u8]| {
    let Some((honest, input)) = input.split_first() else { return };
    let one_is_honest = honest % 2 == 1;

    let introduction =
        Contact { account: AccountId::new(key(1).public()), seed: Some([7; 32]), metadata: Vec::new() };
    let asked = AccountId::new(key(2).public());
    let mut requester = Requester::new(&key(1), &introduction, &asked, ephemeral(3), NOW);
    let Some(HandshakeAction::Send(hello)) = requester.poll_action() else { return };
    if one_is_honest {
        let mut responder = Responder::new(&key(2), ephemeral(4), NOW);
        responder.handle_frame(NOW, &hello).expect("an honest frame");
        let Some(HandshakeAction::Send(answer)) = responder.poll_action() else { return };
        requester.handle_frame(NOW, &answer).expect("an honest answer");
    }

    for (number, message) in messages(input).enumerate() {
        let sealed = (number == 0 && one_is_honest).then(|| accept(message));
        let outcome = requester.handle_frame(NOW, sealed.as_deref().unwrap_or(message));
        let actions: Vec<_> = std::iter::from_fn(|| requester.poll_action()).collect();
        let ends = actions.iter().filter(|action| **action == HandshakeAction::Close).count();
        assert!(ends <= 1 && (ends == 0 || actions.last() == Some(&HandshakeAction::Close)));
        assert!(outcome.is_ok() || !actions.contains(&HandshakeAction::Sent));
    }
});

/// Frame 4 with content of the fuzzer's, closed as the one who is asked closes it.
fn accept(content: &[u8]) -> Vec<u8> {
    let agreed =
        |own: &AgreementKey, other: &[u8; 32]| own.agree(other).expect("keys of full order").hsalsa20();
    let session = agreed(&ephemeral(4), &ephemeral(3).public());
    let second = agreed(&key(2).to_x25519(), &key(1).public().to_x25519());
    let box_key = SymmetricKey::from_bytes(sha256(&[session.as_bytes(), second.as_bytes()]));
    let mut nonce = [0; 24];
    nonce[0] = 2;
    BoxEnvelope { r#box: seal(&box_key, Nonce::dangerous_fixed(nonce), content) }.encode_to_vec()
}

fn ephemeral(number: u8) -> AgreementKey {
    AgreementKey::from_bytes([number; 32])
}
