//! Whoever was away is given what it lacks in one stream (`docs/formats/catch-up.md`).

use dunlin_base::{GroupId, PeerId, Span};
use dunlin_log::Checked;
use dunlin_wesh::catch_up::Request;
use dunlin_wesh::engine::{Action, Event, StoreKind};
use dunlin_wesh::profile::Profile;

use crate::device::host;
use crate::members::Member;
use crate::pair::Pair;

const MESSAGES: usize = 100;
const KIND: StoreKind = StoreKind::Messages;

/// Two members of a group, of whom the second does not know yet what the first wrote; and what the first shows of it.
fn apart() -> (Pair, GroupId, Vec<u8>) {
    let (mut pair, group) = Pair::in_a_group();
    let mut data = None;
    for number in 0..MESSAGES {
        let text = number.to_string();
        let now = pair.now;
        let (_, actions) = pair.devices[0]
            .step_at(now, |ctx, engine| engine.send_message(ctx, &group, text.as_bytes()).unwrap());
        let published = actions.into_iter().find_map(|action| match action {
            Action::Publish { data, .. } => Some(data),
            _ => None,
        });
        data = published.or(data);
    }
    (pair, group, data.unwrap())
}

/// Shows the second what the first has; gives what it asks for.
fn show(pair: &mut Pair, data: &[u8]) -> Vec<Action> {
    let now = pair.now;
    let ((), actions) =
        pair.devices[1].step_at(now, |ctx, engine| engine.handle_heads(ctx, &host(1), data).unwrap());
    actions
}

fn asked(actions: &[Action]) -> Option<(PeerId, Request)> {
    actions.iter().find_map(|action| match action {
        Action::CatchUp { kind: KIND, peer, request, .. } => Some((peer.clone(), request.clone())),
        _ => None,
    })
}

fn fetches(actions: &[Action]) -> usize {
    actions.iter().filter(|action| matches!(action, Action::Fetch { .. })).count()
}

fn told(pair: &mut Pair) -> usize {
    let told = std::mem::take(&mut pair.devices[1].told);
    told.iter().filter(|event| matches!(event, Event::Message(_))).count()
}

/// Asks, and gives back what the first would give.
fn begin() -> (Pair, GroupId, Vec<Checked>) {
    let (mut pair, group, data) = apart();
    let actions = show(&mut pair, &data);
    let (peer, request) = asked(&actions).unwrap();
    assert_eq!((peer, fetches(&actions)), (host(1), 0), "it lies far behind");
    let entries = pair.streamed(0, &group, KIND, &request);
    assert_eq!(entries.len(), MESSAGES, "no more than what is lacking");
    (pair, group, entries)
}

#[test]
fn messages_come_in_their_order_and_are_told_as_they_come() {
    let (mut pair, group, entries) = begin();
    let mut shown = 0;
    for piece in entries.chunks(10) {
        let now = pair.now;
        let ((), actions) = pair.devices[1].step_at(now, |ctx, engine| {
            engine.handle_streamed(ctx, &group, KIND, &host(1), piece.to_vec()).unwrap();
        });
        assert_eq!(fetches(&actions), 0);
        shown += told(&mut pair);
        assert_eq!(pair.devices[1].messages(&group).len(), shown, "what came is shown");
        assert_eq!(shown % 10, 0);
    }
    let expected: Vec<Vec<u8>> = (0..MESSAGES).map(|number| number.to_string().into_bytes()).collect();
    assert_eq!(pair.devices[1].messages(&group), expected);
    let now = pair.now;
    let ((), actions) = pair.devices[1].step_at(now, |ctx, engine| {
        engine.handle_stream_ended(ctx, &group, KIND, &host(1), true).unwrap();
    });
    assert_eq!(fetches(&actions), 0, "nothing is left");
}

/// A stream that breaks off, a host that speaks no such thing, one that is gone, and one that is silent: what is left is asked
/// for block by block.
#[test]
fn what_a_stream_leaves_out_is_fetched() {
    for case in ["ended", "not spoken", "gone", "silent"] {
        let (mut pair, group, entries) = begin();
        let mut now = pair.now;
        if case != "not spoken" {
            pair.step(1, |ctx, engine| {
                engine.handle_streamed(ctx, &group, KIND, &host(1), entries[..30].to_vec()).unwrap();
            });
        }
        // Somebody else is there to be asked.
        let topic = Member::of(&pair.devices[1], &group, Profile::Berty.message_store()).topic();
        pair.step(1, |ctx, engine| {
            engine.handle_connected(ctx, &host(3), true).unwrap();
            engine.handle_topic_joined(ctx, &host(3), &topic).unwrap();
        });
        let ((), mut actions) = pair.devices[1].step_at(now, |ctx, engine| match case {
            "gone" => engine.handle_disconnected(ctx, &host(1)).unwrap(),
            "silent" => {}
            _ => engine.handle_stream_ended(ctx, &group, KIND, &host(1), case == "ended").unwrap(),
        });
        if case == "silent" {
            now = now + Span::from_secs(10);
            actions = pair.devices[1].step_at(now, |ctx, engine| engine.handle_timeout(ctx).unwrap()).1;
        }
        assert!(fetches(&actions) > 0, "{case}");
        assert!(actions.iter().any(|action| matches!(action, Action::StopCatchUp { .. })), "{case}");

        // What comes after all is not taken any more: it is asked for already.
        let before = pair.devices[1].messages(&group).len();
        pair.step(1, |ctx, engine| {
            engine.handle_streamed(ctx, &group, KIND, &host(1), entries[30..].to_vec()).unwrap();
        });
        assert_eq!(pair.devices[1].messages(&group).len(), before, "{case}");
    }
}

/// Who gave nothing is not asked again at once, and a short distance is asked for block by block.
#[test]
fn a_stream_is_asked_for_once_and_only_from_afar() {
    let (mut pair, group, data) = apart();
    assert!(asked(&show(&mut pair, &data)).is_some());
    assert!(asked(&show(&mut pair, &data)).is_none(), "it flows");
    pair.step(1, |ctx, engine| {
        engine.handle_stream_ended(ctx, &group, KIND, &host(1), true).unwrap();
    });
    assert!(asked(&show(&mut pair, &data)).is_none(), "it gave nothing");
    pair.now = pair.now + Span::from_secs(10);
    assert!(asked(&show(&mut pair, &data)).is_some());

    let (mut pair, _) = Pair::in_a_group();
    pair.settle();
    assert_eq!(pair.streams, 0);
}

/// An entry of another log in a stream is refused, and so is what nobody asked for.
#[test]
fn a_stream_brings_nothing_into_a_log_that_is_not_its_own() {
    let (mut pair, group, entries) = begin();
    let before = pair.devices[1].kinds(&group).len();
    pair.step(1, |ctx, engine| {
        engine.handle_streamed(ctx, &group, StoreKind::Metadata, &host(1), entries.clone()).unwrap();
        engine.handle_streamed(ctx, &group, KIND, &host(3), entries).unwrap();
    });
    assert_eq!(pair.devices[1].kinds(&group).len(), before);
    assert!(pair.devices[1].messages(&group).is_empty());
}
