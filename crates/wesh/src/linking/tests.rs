use dunlin_base::keys::AgreementKey;
use dunlin_base::{PeerId, Time};

use super::*;

const NOW: Time = Time::from_secs(1_700_000_000);
const ARCHIVED: &[u8] = b"keys and the account log";

fn peer(number: u8) -> PeerId {
    PeerId::from_array([number; 38])
}

fn ephemeral(number: u8) -> AgreementKey {
    AgreementKey::from_bytes([number; 32])
}

fn secret(number: u8) -> Secret {
    Secret::from_bytes([number; 16])
}

fn link(number: u8) -> LinkText {
    LinkText {
        secret: secret(number),
        expires: NOW + LIFETIME,
        peer: peer(1),
        addresses: vec![vec![4, 127, 0, 0, 1, 6, 0x0f, 0xa1]],
    }
}

fn card() -> Card {
    Card { profile: Profile::Berty, name: "Ann".to_owned() }
}

fn offering() -> Offering {
    Offering::new(secret(7), peer(1), NOW)
}

fn joining(secret: u8) -> Joining {
    Joining::new(link(secret), peer(2), ephemeral(2), [2; 32], NOW)
}

/// Both sides on one stream, and what came out of them.
struct Pair {
    old: Offering,
    new: Joining,
    old_code: Option<Code>,
    new_code: Option<Code>,
    card: Option<Card>,
    archive: Vec<u8>,
    stored: bool,
    error: Option<JoinError>,
    closed: bool,
}

impl Pair {
    fn new(mut old: Offering, new: Joining) -> Self {
        assert!(old.handle_opened(NOW, &peer(2), ephemeral(1), [1; 32]));
        let (old_code, new_code, card, error) = (None, None, None, None);
        let (archive, stored, closed) = (Vec::new(), false, false);
        Self { old, new, old_code, new_code, card, archive, stored, error, closed }
    }

    /// Carries frames until nobody has any.
    fn run(&mut self) {
        while !self.closed && (self.step_old() || self.step_new()) {}
    }

    fn step_old(&mut self) -> bool {
        match self.old.poll_action() {
            Some(LinkAction::Send(frame)) => {
                self.error = self.error.or(self.new.handle_frame(NOW, &frame).err());
            }
            Some(LinkAction::Show(code)) => self.old_code = Some(code),
            Some(LinkAction::HandOver) => {
                self.old.give_card(NOW, &card());
                for piece in ARCHIVED.chunks(5) {
                    self.old.give_archive(NOW, piece);
                }
                self.old.give_end(NOW);
            }
            Some(LinkAction::Close) => self.close(),
            Some(other) => panic!("the old device asks for {other:?}"),
            None => return false,
        }
        true
    }

    fn step_new(&mut self) -> bool {
        match self.new.poll_action() {
            Some(LinkAction::Send(frame)) => self.old.handle_frame(NOW, &frame),
            Some(LinkAction::Show(code)) => self.new_code = Some(code),
            Some(LinkAction::Card(card)) => self.card = Some(card),
            Some(LinkAction::Archive(bytes)) => self.archive.extend_from_slice(&bytes),
            Some(LinkAction::Store) => {
                self.stored = true;
                self.new.stored();
            }
            Some(LinkAction::Close) => self.close(),
            Some(other) => panic!("the new device asks for {other:?}"),
            None => return false,
        }
        true
    }

    fn close(&mut self) {
        self.closed = true;
        self.old.handle_closed();
        self.error = self.error.or(self.new.handle_closed().err());
    }

    fn confirm(&mut self) {
        self.old.confirm(NOW, self.new_code.unwrap()).unwrap();
    }
}

#[test]
fn an_account_goes_over_once_the_code_is_typed() {
    let mut pair = Pair::new(offering(), joining(7));
    pair.run();
    assert!(pair.old_code.is_some() && pair.old_code == pair.new_code);
    assert!(pair.card.is_none() && pair.archive.is_empty(), "nothing goes before the code");

    pair.confirm();
    pair.run();

    assert_eq!(pair.card, Some(card()));
    assert_eq!(pair.archive, ARCHIVED);
    assert!(pair.stored);
    assert_eq!(pair.old.end_of_offer(), Some(OfferEnd::Linked));
    assert_eq!((pair.error, pair.old.timeout(), pair.new.timeout()), (None, None, None));
}

#[test]
fn an_offer_is_good_for_one_device() {
    let mut pair = Pair::new(offering(), joining(7));
    pair.run();
    assert!(!pair.old.handle_opened(NOW, &peer(3), ephemeral(3), [3; 32]), "while it is used");
    pair.confirm();
    pair.run();
    assert!(!pair.old.handle_opened(NOW, &peer(3), ephemeral(3), [3; 32]), "and after");
}

#[test]
fn another_secret_gets_no_code_and_costs_the_offer_nothing() {
    let mut pair = Pair::new(offering(), joining(8));
    pair.run();
    assert_eq!(pair.error, Some(JoinError::NotOffered));
    assert!(pair.old_code.is_none() && pair.new_code.is_none());
    let mut again = Pair::new(pair.old, joining(7));
    again.run();
    assert!(again.new_code.is_some());
}

#[test]
fn a_wrong_code_ends_the_offer() {
    let mut pair = Pair::new(offering(), joining(7));
    pair.run();
    let wrong = Code::of(u64::from(pair.new_code.unwrap().0) + 1);
    assert_eq!(pair.old.confirm(NOW, wrong), Err(ConfirmError::Wrong));
    pair.run();
    assert_eq!(pair.error, Some(JoinError::Refused));
    assert_eq!(pair.old.end_of_offer(), Some(OfferEnd::WrongCode));
    assert!(pair.archive.is_empty() && !pair.stored);
    assert_eq!(pair.old.confirm(NOW, pair.new_code.unwrap()), Err(ConfirmError::NothingToConfirm));
}

/// Somebody with the secret between the two devices, who makes each believe it speaks with the other.
#[test]
fn somebody_between_the_devices_cannot_make_the_codes_equal() {
    let mut equal = 0;
    for try_number in 0..40 {
        let mut old = offering();
        assert!(old.handle_opened(NOW, &peer(2), ephemeral(1), [1; 32]));
        let mut new = joining(7);
        // They pretend to be each of the two, with keys of their own, peers included.
        let mut false_new = Joining::new(link(7), peer(2), ephemeral(50 + try_number), [try_number; 32], NOW);
        let mut false_old = offering();
        assert!(false_old.handle_opened(NOW, &peer(2), ephemeral(120 + try_number), [try_number; 32]));
        let code = |actions: Vec<LinkAction>| {
            actions.into_iter().find_map(|action| match action {
                LinkAction::Show(code) => Some(code),
                _ => None,
            })
        };
        let (mut shown_old, mut shown_new) = (None, None);
        for _ in 0..3 {
            for action in std::iter::from_fn(|| new.poll_action()).collect::<Vec<_>>() {
                match action {
                    LinkAction::Send(frame) => false_old.handle_frame(NOW, &frame),
                    action => shown_new = shown_new.or(code(vec![action])),
                }
            }
            for action in std::iter::from_fn(|| false_old.poll_action()).collect::<Vec<_>>() {
                if let LinkAction::Send(frame) = action {
                    new.handle_frame(NOW, &frame).unwrap();
                }
            }
            for action in std::iter::from_fn(|| false_new.poll_action()).collect::<Vec<_>>() {
                if let LinkAction::Send(frame) = action {
                    old.handle_frame(NOW, &frame);
                }
            }
            for action in std::iter::from_fn(|| old.poll_action()).collect::<Vec<_>>() {
                match action {
                    LinkAction::Send(frame) => false_new.handle_frame(NOW, &frame).unwrap(),
                    action => shown_old = shown_old.or(code(vec![action])),
                }
            }
        }
        assert!(shown_old.is_some() && shown_new.is_some());
        equal += usize::from(shown_old == shown_new);
    }
    assert_eq!(equal, 0, "once in a million it happens");
}

/// What was committed to cannot be changed once the other side has shown its part.
#[test]
fn another_opening_than_the_one_committed_to_ends_the_offer() {
    let mut old = offering();
    assert!(old.handle_opened(NOW, &peer(2), ephemeral(1), [1; 32]));
    let mut honest = joining(7);
    let Some(LinkAction::Send(commit)) = honest.poll_action() else { panic!("a commitment") };
    old.handle_frame(NOW, &commit);
    let Some(LinkAction::Send(offer)) = old.poll_action() else { panic!("an offer") };
    // The same secret, another random: as if it had been chosen after the offer was seen.
    let mut other = Joining::new(link(7), peer(2), ephemeral(2), [9; 32], NOW);
    other.poll_action();
    other.handle_frame(NOW, &offer).unwrap();
    let Some(LinkAction::Send(opening)) = other.poll_action() else { panic!("an opening") };
    old.handle_frame(NOW, &opening);
    assert_eq!(old.end_of_offer(), Some(OfferEnd::BadProof));
}

#[test]
fn a_stream_between_other_hosts_proves_nothing() {
    let mut old = offering();
    assert!(old.handle_opened(NOW, &peer(3), ephemeral(1), [1; 32]));
    let mut new = joining(7);
    for _ in 0..2 {
        if let Some(LinkAction::Send(frame)) = new.poll_action() {
            old.handle_frame(NOW, &frame);
        }
        if let Some(LinkAction::Send(frame)) = old.poll_action() {
            // Refused, or not what was agreed on.
            let _ = new.handle_frame(NOW, &frame);
        }
    }
    assert_eq!(old.end_of_offer(), Some(OfferEnd::BadProof));
}

#[test]
fn an_offer_ends_with_its_time() {
    let mut old = offering();
    assert_eq!(old.timeout(), Some(NOW + LIFETIME));
    old.handle_timeout(NOW + LIFETIME);
    assert_eq!(old.end_of_offer(), Some(OfferEnd::Expired));
    assert!(!old.handle_opened(NOW + LIFETIME, &peer(2), ephemeral(1), [1; 32]));
}

#[test]
fn nobody_waits_for_ever() {
    // In front of a device that says nothing.
    let mut old = offering();
    assert!(old.handle_opened(NOW, &peer(2), ephemeral(1), [1; 32]));
    old.handle_timeout(NOW + AGREEMENT_MAX);
    assert_eq!(old.poll_action(), Some(LinkAction::Close));
    assert_eq!(old.end_of_offer(), None, "the offer goes on");
    let mut new = joining(7);
    assert_eq!(new.handle_timeout(NOW + AGREEMENT_MAX), Err(JoinError::Late));

    // For a code that nobody types: the old device says that it waits, then gives up.
    let mut pair = Pair::new(offering(), joining(7));
    pair.run();
    let mut now = NOW;
    while let Some(due) = pair.old.timeout() {
        now = due;
        pair.old.handle_timeout(now);
        while let Some(action) = pair.old.poll_action() {
            if let LinkAction::Send(frame) = action {
                pair.error = pair.error.or(pair.new.handle_frame(now, &frame).err());
            }
        }
    }
    assert_eq!(pair.old.end_of_offer(), Some(OfferEnd::NotConfirmed));
    assert_eq!(pair.error, Some(JoinError::Refused));
    assert!(now <= NOW + CONFIRM_MAX + WAIT_EVERY);

    // For a piece that does not come.
    let mut pair = Pair::new(offering(), joining(7));
    pair.run();
    assert_eq!(pair.new.handle_timeout(NOW + SILENCE_MAX), Err(JoinError::Late));
}

/// Whatever the step at which the stream ends, the new device has nothing or is told to store a whole account.
#[test]
fn a_stream_that_ends_at_any_step_leaves_nothing_or_a_whole_account() {
    for steps in 0..60 {
        let mut pair = Pair::new(offering(), joining(7));
        for step in 0..steps {
            if let (Some(code), Some(_), None) = (pair.new_code, pair.old_code, &pair.card) {
                // Too late or too early does no harm.
                let _ = pair.old.confirm(NOW, code);
            }
            if step % 2 == 0 {
                pair.step_old()
            } else {
                pair.step_new()
            };
        }
        if !pair.closed {
            pair.close();
        }
        // What is whole is stored all the same.
        while pair.step_new() {}
        assert!(!pair.stored || pair.archive == ARCHIVED);
        match pair.stored {
            true => assert_eq!(pair.error, None),
            false => assert_eq!(pair.error, Some(JoinError::Gone), "{steps}"),
        }
    }
}

#[test]
fn every_changed_or_shortened_frame_is_an_error_and_nothing_is_stored() {
    // How many frames the honest old device sends before one is changed.
    for position in 0..10 {
        for change in 0..3 {
            let mut pair = Pair::new(offering(), joining(7));
            let mut sent = 0;
            loop {
                if let (Some(code), None) = (pair.new_code, &pair.card) {
                    let _ = pair.old.confirm(NOW, code);
                }
                match pair.old.poll_action() {
                    Some(LinkAction::Send(mut frame)) => {
                        if sent == position {
                            match change {
                                0 => *frame.last_mut().unwrap() ^= 1,
                                1 => drop(frame.pop()),
                                _ => frame.push(0),
                            }
                        }
                        sent += 1;
                        pair.error = pair.error.or(pair.new.handle_frame(NOW, &frame).err());
                    }
                    Some(LinkAction::HandOver) => {
                        pair.old.give_card(NOW, &card());
                        pair.old.give_archive(NOW, ARCHIVED);
                        pair.old.give_end(NOW);
                    }
                    Some(LinkAction::Show(code)) => pair.old_code = Some(code),
                    Some(_) => {}
                    None if pair.closed || !pair.step_new() => break,
                    None => {}
                }
            }
            let honest = position >= sent;
            assert_eq!(pair.stored, honest, "frame {position}, change {change}: {:?}", pair.error);
        }
    }
}

#[test]
fn more_than_an_account_log_can_be_is_refused() {
    let mut pair = Pair::new(offering(), joining(7));
    pair.run();
    pair.confirm();
    assert_eq!(pair.old.poll_action(), Some(LinkAction::HandOver));
    pair.old.give_card(NOW, &card());
    let piece = [0; PIECE_BYTES_MAX];
    for _ in 0..=ARCHIVE_BYTES_MAX / PIECE_BYTES_MAX {
        pair.old.give_archive(NOW, &piece);
        while let Some(LinkAction::Send(frame)) = pair.old.poll_action() {
            pair.error = pair.error.or(pair.new.handle_frame(NOW, &frame).err());
        }
        while pair.new.poll_action().is_some() {}
    }
    assert_eq!(pair.error, Some(JoinError::TooLarge));
}

#[test]
fn strings_round_trip_and_tell_a_slip_of_the_pen() {
    let text = link(7).to_text();
    assert!(text.starts_with("DUNLIN:LINK/") && text.len() < 160, "{}", text.len());
    let read = LinkText::parse(&format!(" {}\n{} ", &text[..30].to_lowercase(), &text[30..])).unwrap();
    assert_eq!(read.secret.as_bytes(), secret(7).as_bytes());
    assert_eq!((read.peer, read.addresses), (peer(1), link(7).addresses));
    assert_eq!(read.expires, Time::from_secs((NOW + LIFETIME).as_secs().div_ceil(60) * 60));

    for position in PREFIX.len()..text.len() {
        let mut signs: Vec<char> = text.chars().collect();
        signs[position] = if signs[position] == 'A' { 'B' } else { 'A' };
        let slip: String = signs.into_iter().collect();
        assert_eq!(LinkText::parse(&slip).unwrap_err(), LinkTextError::Damaged, "{position}");
        assert_eq!(LinkText::parse(&text[..position]).unwrap_err(), LinkTextError::Damaged);
    }
    for other in ["", "https://berty.tech/id#contact/x", "DUNLIN:LIN"] {
        assert_eq!(LinkText::parse(other).unwrap_err(), LinkTextError::NotALink);
    }
}

#[test]
fn codes_are_six_digits() {
    assert_eq!(Code::of(1_000_042).to_string(), "000 042");
    for typed in ["000042", "000 042", " 000-042\n"] {
        assert_eq!(Code::parse(typed), Some(Code::of(42)));
    }
    for typed in ["", "42", "0000042", "00004x", "٠٠٠٠٤٢"] {
        assert_eq!(Code::parse(typed), None, "{typed}");
    }
}

#[test]
fn secret_types_show_nothing() {
    let shown = format!("{:?} {:?} {:?} {:?}", secret(0xaa), link(0xaa), Code::of(7), card());
    assert_eq!(shown, "Secret(..) LinkText(..) Code(..) Card { profile: Berty, .. }");
}
