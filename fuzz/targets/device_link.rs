//! Linking a device, against a peer who keeps to the protocol for some frames, then does not.
//!
//! The first byte says which side is under test and how many of its peer's frames are honest. The rest is what
//! comes instead: frames as they are, and before that the same bytes as the string of a link.
#![no_main]

use dunlin_base::keys::AgreementKey;
use dunlin_base::{PeerId, Time};
use dunlin_fuzz::messages;
use dunlin_wesh::linking::{
    Card, Joining, LIFETIME, LinkAction, LinkText, Offering, PIECE_BYTES_MAX, Secret,
};
use dunlin_wesh::profile::Profile;
use libfuzzer_sys::fuzz_target;

const NOW: Time = Time::from_secs(1_000_000);

fuzz_target!(|input: &[u8]| {
    let Some((plan, input)) = input.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(link) = LinkText::parse(text)
    {
        let again = LinkText::parse(&link.to_text()).expect("what is written can be read");
        assert_eq!((again.peer, again.addresses), (link.peer, link.addresses));
    }
    let mut old = Offering::new(secret(), peer(1), NOW);
    assert!(old.handle_opened(NOW, &peer(2), ephemeral(1), [1; 32]));
    let link = LinkText { secret: secret(), expires: NOW + LIFETIME, peer: peer(1), addresses: Vec::new() };
    let mut new = Joining::new(link, peer(2), ephemeral(2), [2; 32], NOW);

    let mut honest = usize::from(plan >> 1);
    let mut code = None;
    let mut whole = Vec::new();
    loop {
        let (mut idle, before) = (true, honest);
        while let Some(action) = new.poll_action() {
            idle = false;
            match action {
                LinkAction::Send(frame) if honest > 0 => {
                    honest -= 1;
                    old.handle_frame(NOW, &frame);
                }
                LinkAction::Show(shown) => code = Some(shown),
                LinkAction::Archive(bytes) => whole.extend_from_slice(&bytes),
                LinkAction::Store => new.stored(),
                _ => {}
            }
        }
        while let Some(action) = old.poll_action() {
            idle = false;
            match action {
                LinkAction::Send(frame) if honest > 0 => {
                    honest -= 1;
                    new.handle_frame(NOW, &frame).expect("an honest frame");
                }
                LinkAction::HandOver => hand_over(&mut old),
                _ => {}
            }
        }
        if let Some(code) = code.take() {
            old.confirm(NOW, code).expect("both show the same");
            idle = false;
        }
        if idle && before == honest {
            break;
        }
    }

    let stored = whole.len();
    for message in messages(input) {
        if plan & 1 == 0 {
            old.handle_frame(NOW, message);
            let given = std::iter::from_fn(|| old.poll_action()).any(|action| action == LinkAction::HandOver);
            assert!(!given, "nothing is handed over without the code");
        } else {
            let taken = new.handle_frame(NOW, message);
            for action in std::iter::from_fn(|| new.poll_action()) {
                assert!(taken.is_ok() || !matches!(action, LinkAction::Store));
                if let LinkAction::Archive(bytes) = action {
                    whole.extend_from_slice(&bytes);
                }
            }
        }
    }
    assert_eq!(whole.len(), stored, "nothing that is not sealed by the other side is taken");
});

fn hand_over(old: &mut Offering) {
    old.give_card(NOW, &Card { profile: Profile::Berty, name: "Ann".to_owned() });
    for _ in 0..3 {
        old.give_archive(NOW, &[7; PIECE_BYTES_MAX]);
    }
    old.give_end(NOW);
}

fn secret() -> Secret {
    Secret::from_bytes([7; 16])
}

fn peer(number: u8) -> PeerId {
    PeerId::from_array([number; 38])
}

fn ephemeral(number: u8) -> AgreementKey {
    AgreementKey::from_bytes([number; 32])
}
