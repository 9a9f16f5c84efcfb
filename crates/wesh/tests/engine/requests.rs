//! Strangers who ask, in numbers (`spec/security.md` §2.4 and N7).

use dunlin_base::keys::AgreementKey;
use dunlin_base::{AccountId, PeerId, SecretKey, Span, Time};
use dunlin_proto::tinder::{Record, Records};
use dunlin_wesh::contact::{Contact, ContactState};
use dunlin_wesh::engine::{Action, ExchangeId, Origin, PENDING_MAX, REQUESTS_PER_HOUR_MAX};
use dunlin_wesh::handshake::{HandshakeAction, Requester};
use dunlin_wesh::metadata::Event as MetadataKind;
use prost::Message as _;

use crate::device::{Device, NOW};

const NET: Origin = Origin::Ipv4([192, 0, 2]);

/// Somebody's network, another one for each number.
fn net(number: u32) -> Origin {
    let [_, a, b, c] = number.to_be_bytes();
    Origin::Ipv4([a, b, c])
}

fn stranger(number: u32) -> SecretKey {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_seed(seed)
}

fn account(number: u32) -> AccountId {
    AccountId::new(stranger(number).public())
}

fn peer(number: u32) -> PeerId {
    let mut bytes = [1; 34];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PeerId::from_array(bytes)
}

fn open() -> Device {
    let mut device = Device::new(1);
    device.run(|ctx, engine| engine.enable_requests(ctx).unwrap());
    device
}

/// Lets a stranger ask, through the whole handshake. Returns whether its stream was taken.
fn ask(device: &mut Device, number: u32, origin: Origin, now: Time) -> bool {
    let key = stranger(number);
    let contact = Contact { account: account(number), seed: None, metadata: b"a name".to_vec() };
    let responder = device.engine.account_id();
    let mut requester = Requester::new(&key, &contact, &responder, AgreementKey::from_bytes([7; 32]), now);
    let (id, _) =
        device.step_at(now, |ctx, engine| engine.handle_exchange_incoming(ctx, &peer(number), origin));
    let Some(id) = id else { return false };
    while let Some(action) = requester.poll_action() {
        let HandshakeAction::Send(frame) = action else { continue };
        let (_, actions) =
            device.step_at(now, |ctx, engine| engine.handle_exchange_frame(ctx, id, &frame).unwrap());
        for action in actions {
            if let Action::SendFrame { frame, .. } = action {
                requester.handle_frame(now, &frame).unwrap();
            }
        }
    }
    true
}

fn inbox(device: &Device) -> Vec<AccountId> {
    let requests = device.engine.requests(&device.store).unwrap();
    requests.into_iter().map(|request| request.contact.account).collect()
}

/// Which contact events the account log holds about somebody.
fn logged(device: &Device, about: AccountId) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    let group = device.engine.account_group();
    let (from, up) = (std::ops::Bound::Unbounded, dunlin_base::kv::Direction::Ascending);
    let mut visit = |event: dunlin_wesh::engine::MetadataEvent| {
        match event.event.event() {
            MetadataKind::ContactReceived { contact, .. } if contact.account == about => {
                kinds.push("received")
            }
            MetadataKind::ContactAccepted { account, .. } if *account == about => kinds.push("accepted"),
            MetadataKind::ContactDiscarded { account, .. } if *account == about => kinds.push("discarded"),
            MetadataKind::ContactBlocked { account, .. } if *account == about => kinds.push("blocked"),
            _ => {}
        }
        std::ops::ControlFlow::Continue(())
    };
    device.engine.visit_metadata(&device.store, &group, from, up, &mut visit).unwrap();
    kinds
}

/// Q1, and the bar of Q2: no number of strangers adds to the log or to more than the inbox, and who comes from
/// elsewhere is heard.
#[test]
fn request_flood() {
    let mut device = open();
    let group = device.engine.account_group();
    let entries = device.kinds(&group).len();
    let taken = (0..200).filter(|number| ask(&mut device, *number, NET, NOW)).count();
    assert_eq!(taken, REQUESTS_PER_HOUR_MAX);
    assert_eq!(inbox(&device).len(), REQUESTS_PER_HOUR_MAX);
    assert!(ask(&mut device, 1000, net(7), NOW + Span::from_secs(1)), "another network has its own share");
    assert!(inbox(&device).contains(&account(1000)));
    assert!(ask(&mut device, 1001, NET, NOW + Span::from_secs(3601)), "an hour later there is room again");

    for number in 2000..2500 {
        assert!(ask(&mut device, number, net(number), NOW + Span::from_secs(4000)));
    }
    assert_eq!(inbox(&device).len(), PENDING_MAX);
    assert_eq!(device.kinds(&group).len(), entries, "nothing of all that is in the log");
}

/// Q1: handshakes that were begun and not ended hold up nobody for ever.
#[test]
fn handshakes_have_places_that_become_free() {
    let mut device = open();
    let mut begin = |number: u32, at: Time| -> Option<ExchangeId> {
        device
            .step_at(at, |ctx, engine| {
                engine.handle_timeout(ctx).unwrap();
                engine.handle_exchange_incoming(ctx, &peer(number), Origin::ThisMachine)
            })
            .0
    };
    assert!(begin(1, NOW).is_some() && begin(1, NOW).is_some());
    assert!(begin(1, NOW).is_none(), "one peer has two");
    let others = (2..20).filter(|number| begin(*number, NOW).is_some()).count();
    assert_eq!(others, 6, "eight in all");
    assert!(begin(30, NOW).is_none());
    assert!(begin(30, NOW + Span::from_secs(10)).is_some(), "their time is over");
}

/// Q2: the inbox has a bound, and the oldest leaves first; asking twice takes one place.
#[test]
fn inbox_bounds() {
    let mut device = open();
    for number in 0..=PENDING_MAX as u32 {
        let now = NOW + Span::from_secs(u64::from(number));
        assert!(ask(&mut device, number, net(number), now));
        assert!(ask(&mut device, number, net(number), now));
    }
    let inbox = inbox(&device);
    assert_eq!(inbox.len(), PENDING_MAX);
    assert!(!inbox.contains(&account(0)) && inbox.contains(&account(PENDING_MAX as u32)));
}

/// Q3: only answers reach the log, and a refusal is remembered here alone, for thirty days.
#[test]
fn inbox_to_log() {
    let mut device = open();
    let (accepted, blocked, refused) = (account(1), account(2), account(3));
    for number in 1..=3 {
        ask(&mut device, number, net(number), NOW);
        assert_eq!(logged(&device, account(number)), [""; 0]);
    }
    device.run(|ctx, engine| engine.accept_contact(ctx, &accepted).unwrap());
    device.run(|ctx, engine| engine.block_contact(ctx, &blocked).unwrap());
    device.run(|ctx, engine| engine.discard_contact(ctx, &refused).unwrap());
    assert_eq!(logged(&device, accepted), ["received", "accepted"]);
    assert_eq!(logged(&device, blocked), ["blocked"]);
    assert_eq!(logged(&device, refused), [""; 0]);
    assert!(inbox(&device).is_empty());

    let days = |days: u64| NOW + Span::from_secs(days * 86_400);
    for (number, later) in [(2, 29), (3, 29)] {
        ask(&mut device, number, net(number), days(later));
        assert!(inbox(&device).is_empty(), "nobody is bothered by {number} again");
    }
    ask(&mut device, 3, net(3), days(31));
    assert_eq!(inbox(&device), [refused]);
    let state = device.engine.contact_state(&device.store, &accepted).unwrap();
    assert_eq!(state, Some(ContactState::Added));
}

/// Q3: whoever refuses somebody and then adds them is heard by them, and hears them.
#[test]
fn a_refusal_ends_when_the_account_asks_in_turn() {
    let mut device = open();
    ask(&mut device, 1, net(1), NOW);
    device.run(|ctx, engine| engine.discard_contact(ctx, &account(1)).unwrap());
    let contact = Contact { account: account(1), seed: Some([5; 32]), metadata: Vec::new() };
    device.run(|ctx, engine| engine.request_contact(ctx, &contact, b"").unwrap());
    ask(&mut device, 1, net(1), NOW);
    let state = device.engine.contact_state(&device.store, &account(1)).unwrap();
    assert_eq!(state, Some(ContactState::Added));
}

/// N7: records of one peer are bounded in number and in life, however many messages bring them.
#[test]
fn local_record_flood() {
    let mut device = open();
    let sought = Contact { account: account(1), seed: Some([5; 32]), metadata: Vec::new() };
    device.run(|ctx, engine| {
        engine.handle_connected(ctx, &peer(1), true).unwrap();
        engine.request_contact(ctx, &sought, b"").unwrap();
    });
    let (seed, rotation) = ([5; 32], device.engine.profile().rotation());
    let names = dunlin_wesh::rotation::announced_contact_names(
        &account(1),
        &seed,
        NOW,
        rotation,
        Span::from_secs(7200),
    );
    let records = |names: Vec<String>| {
        let records = names.into_iter().map(|cid| Record { cid, expire: i64::MAX }).collect();
        Records { records }.encode_to_vec()
    };
    for message in 0..1000 {
        let flood = records((0..100).map(|at| format!("{message}-{at}")).collect());
        let (_, actions) =
            device.step_at(NOW, |ctx, engine| engine.handle_records(ctx, &peer(1), &flood).unwrap());
        assert!(actions.is_empty());
    }
    let named = records(names.clone());
    let opened = |actions: &[Action]| actions.iter().any(|a| matches!(a, Action::OpenExchange { .. }));
    let (_, actions) =
        device.step_at(NOW, |ctx, engine| engine.handle_records(ctx, &peer(1), &named).unwrap());
    assert!(!opened(&actions), "its places are taken, which is its own loss");
    // Two hours on they are free, whatever the sender said of their life.
    let later = NOW + Span::from_secs(7201);
    let names = dunlin_wesh::rotation::announced_contact_names(
        &account(1),
        &seed,
        later,
        rotation,
        Span::from_secs(7200),
    );
    let named = records(names);
    device.step_at(later, |ctx, engine| engine.handle_records(ctx, &peer(1), b"").unwrap());
    let (_, actions) =
        device.step_at(later, |ctx, engine| engine.handle_records(ctx, &peer(1), &named).unwrap());
    assert!(opened(&actions));
}

/// D4: a peer on a private network is told the own contact name, while requests are accepted, and no topic.
#[test]
fn local_topics() {
    let mut device = Device::new(1);
    device.run(|ctx, engine| engine.create_group(ctx).map(|_| ()).unwrap());
    let records = |actions: Vec<Action>| -> Vec<Vec<u8>> {
        let data = actions.into_iter().filter_map(|action| match action {
            Action::SendRecords { data, .. } => Some(data),
            _ => None,
        });
        data.collect()
    };
    let connect = |device: &mut Device, number: u32, local: bool| {
        let (_, actions) =
            device.step_at(NOW, |ctx, engine| engine.handle_connected(ctx, &peer(number), local).unwrap());
        records(actions)
    };
    assert!(connect(&mut device, 1, true).is_empty(), "requests are not accepted");
    device.run(|ctx, engine| engine.enable_requests(ctx).unwrap());
    assert!(connect(&mut device, 2, false).is_empty(), "it is not on a private network");
    let told = connect(&mut device, 3, true);
    let own = device.engine.own_contact(&device.store).unwrap();
    let rotation = device.engine.profile().rotation();
    let names = dunlin_wesh::rotation::announced_contact_names(
        &own.account,
        &own.seed.unwrap(),
        NOW,
        rotation,
        Span::from_secs(7200),
    );
    let told: Vec<Records> = told.iter().map(|data| Records::decode(&**data).unwrap()).collect();
    let told: Vec<String> = told.into_iter().flat_map(|each| each.records).map(|each| each.cid).collect();
    assert_eq!(told, names);
}

/// Asks somebody while two hosts are there who may be them, and returns with which the first attempt is made.
fn seek(device: &mut Device) -> (ExchangeId, PeerId) {
    let contact = Contact { account: account(40), seed: Some([4; 32]), metadata: Vec::new() };
    device.run(|ctx, engine| engine.request_contact(ctx, &contact, b"a name").unwrap());
    let opened = [1, 2].map(|number| {
        let (_, actions) = device.step_at(NOW, |ctx, engine| {
            engine.handle_connected(ctx, &peer(number), false).unwrap();
            engine.handle_takes_requests(ctx, &peer(number), true).unwrap();
        });
        attempts(&actions)
    });
    let mut opened = opened.concat();
    assert_eq!(opened.len(), 1, "one at a time");
    opened.remove(0)
}

fn attempts(actions: &[Action]) -> Vec<(ExchangeId, PeerId)> {
    let opened = actions.iter().filter_map(|action| match action {
        Action::OpenExchange { id, peer } => Some((*id, peer.clone())),
        _ => None,
    });
    opened.collect()
}

/// The host may lose sight of a stream that it was to open.
#[test]
fn a_request_whose_stream_never_opens_is_tried_elsewhere() {
    let mut device = Device::new(1);
    let (id, first) = seek(&mut device);
    let due = device.engine.timeout().unwrap();
    assert!(due <= NOW + Span::from_secs(30));

    let (_, actions) = device.step_at(due, |ctx, engine| engine.handle_timeout(ctx).unwrap());
    assert!(
        actions.iter().any(|action| matches!(action, Action::CloseExchange { id: closed } if *closed == id))
    );

    let (_, actions) =
        device.step_at(due + Span::from_secs(2), |ctx, engine| engine.handle_timeout(ctx).unwrap());
    let again: Vec<_> = attempts(&actions).into_iter().map(|(_, peer)| peer).collect();
    assert!(again.len() == 1 && !again.contains(&first), "and with somebody else");
}

#[test]
fn a_request_goes_on_when_the_host_that_it_was_made_to_is_gone() {
    let mut device = Device::new(1);
    let (_, first) = seek(&mut device);
    device.run(|ctx, engine| engine.handle_disconnected(ctx, &first).unwrap());
    let (_, actions) =
        device.step_at(NOW + Span::from_secs(2), |ctx, engine| engine.handle_timeout(ctx).unwrap());
    let again: Vec<_> = attempts(&actions).into_iter().map(|(_, peer)| peer).collect();
    assert!(again.len() == 1 && !again.contains(&first), "and with somebody else");
}

/// Deadlines that were made before would lie days ahead, and what is open would keep its place until then.
#[test]
fn handshakes_are_broken_off_when_the_clock_is_set_back() {
    let mut device = open();
    let responder = |device: &mut Device, now| {
        device.run_at(now, |ctx, engine| engine.handle_exchange_incoming(ctx, &peer(1), NET)).is_some()
    };
    let ahead = NOW + Span::from_secs(86_400);
    assert!(responder(&mut device, ahead) && responder(&mut device, ahead));
    assert!(!responder(&mut device, ahead), "one peer has two at most");
    device.run_at(ahead, |ctx, engine| engine.handle_timeout(ctx).unwrap());
    device.run_at(NOW, |ctx, engine| engine.handle_timeout(ctx).unwrap());
    assert_eq!(device.engine.underway().exchanges, 0);
    assert!(responder(&mut device, NOW));
}
