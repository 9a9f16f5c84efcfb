//! A contact request from a stranger who keeps to the protocol for some frames, then does not.
//!
//! The first byte says how many of the six frames are honest. The rest is what comes instead: the first
//! message sealed as frame 3 is, when that is due, and the others as they are.
#![no_main]

use dunlin_base::kdf::sha256;
use dunlin_base::keys::AgreementKey;
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
    let honest = usize::from(honest % 5);

    let account = AccountId::new(key(1).public());
    let introduction = Contact { account, seed: Some([7; 32]), metadata: Vec::new() };
    let asked = AccountId::new(key(2).public());
    let mut requester = Requester::new(&key(1), &introduction, &asked, ephemeral(3), NOW);
    let mut responder = Responder::new(&key(2), ephemeral(4), NOW);
    let mut received = 0;
    for _ in 0..honest {
        let Some(HandshakeAction::Send(frame)) = requester.poll_action() else { break };
        responder.handle_frame(NOW, &frame).expect("an honest frame");
        received += 1;
        if let Some(HandshakeAction::Send(answer)) = responder.poll_action() {
            requester.handle_frame(NOW, &answer).expect("an honest answer");
        }
    }

    for (number, message) in messages(input).enumerate() {
        let sealed = (number == 0 && received == 1).then(|| proof(message));
        let outcome = responder.handle_frame(NOW, sealed.as_deref().unwrap_or(message));
        let actions: Vec<_> = std::iter::from_fn(|| responder.poll_action()).collect();
        let ends = actions.iter().filter(|action| **action == HandshakeAction::Close).count();
        assert!(ends <= 1 && (ends == 0 || actions.last() == Some(&HandshakeAction::Close)));
        assert!(outcome.is_ok() || !actions.iter().any(|action| matches!(action, HandshakeAction::Send(_))));
        for action in actions {
            if let HandshakeAction::Received(contact) = action {
                assert_eq!(contact.account, account, "only this account was ever proved");
            }
        }
    }
});

/// Frame 3 with content of the fuzzer's, closed as a stranger closes it.
fn proof(content: &[u8]) -> Vec<u8> {
    let own = ephemeral(3);
    let session = own.agree(&ephemeral(4).public()).expect("keys of full order").hsalsa20();
    let second = own.agree(&key(2).public().to_x25519()).expect("keys of full order").hsalsa20();
    let box_key =
        dunlin_base::keys::SymmetricKey::from_bytes(sha256(&[session.as_bytes(), second.as_bytes()]));
    let mut nonce = [0; 24];
    nonce[0] = 1;
    BoxEnvelope { r#box: seal(&box_key, Nonce::dangerous_fixed(nonce), content) }.encode_to_vec()
}

fn ephemeral(number: u8) -> AgreementKey {
    AgreementKey::from_bytes([number; 32])
}
