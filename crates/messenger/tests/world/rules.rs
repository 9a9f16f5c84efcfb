//! Rules that show only between several nodes (`spec/security.md` §2), and what the existing software gets wrong.

use std::ops::{Bound, ControlFlow};

use data_encoding::{BASE64, BASE64URL};
use dunlin_base::kv::Direction;
use dunlin_base::{EntryId, GroupId};
use dunlin_messenger::views::MessageState;

use crate::support::{ANN, BOB, CAROL, World, ann_and_bob};

/// The entries of the metadata log of a group.
fn entries(world: &World, index: usize, group: &GroupId) -> Vec<EntryId> {
    let mut entries = Vec::new();
    world.view(index, |read, engine, _| {
        let mut visit = |event: dunlin_wesh::engine::MetadataEvent| {
            entries.push(event.entry);
            ControlFlow::Continue(())
        };
        engine.visit_metadata(read, group, Bound::Unbounded, Direction::Ascending, &mut visit).unwrap();
    });
    entries
}

/// D2, D3: a contact gets the blocks of the group that they share, nobody but own devices those of the account
/// group, and a stranger none.
#[test]
fn account_group_private() {
    let mut world = World::new(&["Ann", "Bob", "Carol"]);
    world.connect(ANN, BOB);
    world.connect(ANN, CAROL);
    world.befriend(ANN, BOB);
    let account = world.view(ANN, |_, engine, _| engine.account_group());
    let shared = world.conversation(ANN, "bob").group;
    let served = |group: &GroupId, to: usize| {
        let host = world.host(to);
        let of_group = entries(&world, ANN, group);
        assert!(!of_group.is_empty());
        let got = |entry: &&EntryId| {
            world.view(ANN, |read, engine, _| engine.block_for(read, &host, entry).unwrap().is_some())
        };
        (of_group.iter().filter(got).count(), of_group.len())
    };
    let (got, all) = served(&shared, BOB);
    assert_eq!(got, all, "a contact gets what is shared");
    for (group, to) in [(&account, BOB), (&account, CAROL), (&shared, CAROL)] {
        assert_eq!(served(group, to).0, 0);
    }
}

/// C7: the public half of the proof key leaves a device inside blocks of the account group alone, which go to own
/// devices. All that goes to anybody else is searched for it, in each form in which it could be written.
#[test]
fn proof_key_egress() {
    let mut world = World::new(&["Ann", "Bob", "Carol"]);
    world.wiretap = Some(Vec::new());
    world.connect(ANN, BOB);
    world.connect(ANN, CAROL);
    let second = world.add_device(ANN);
    world.connect(ANN, second);
    world.connect(second, BOB);
    world.befriend(ANN, BOB);
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let link = world.view(ANN, |read, engine, _| engine.invitation(read, &group)).unwrap();
    for joining in [BOB, CAROL] {
        let link = link.clone();
        world
            .act(joining, |ctx, engine, _| {
                engine.join_group(ctx, &link)?;
                Ok(engine.activate(ctx, &group)?)
            })
            .unwrap();
    }
    world.wait_a_minute();
    let shared = world.conversation(ANN, "bob").group;
    world.send(ANN, "bob", "to one").unwrap();
    world.send(ANN, "harbour", "to all").unwrap();
    world.act(ANN, |ctx, engine, _| Ok(engine.send_alias_key(ctx, &shared)?)).unwrap();
    world.wait_a_minute();

    let proof = world.view(ANN, |read, engine, _| {
        let account = engine.known_group(read, &engine.account_group()).unwrap().unwrap();
        account.sign_pub().as_bytes().to_vec()
    });
    let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![proof.clone(), hex.to_uppercase().into_bytes(), hex.into_bytes()];
    // Wherever it lies in what is encoded, one of three shifts shows most of it.
    for shift in 0..3 {
        let whole = &proof[shift..shift + 30];
        forms.extend([BASE64.encode(whole).into_bytes(), BASE64URL.encode(whole).into_bytes()]);
    }
    let shows = |bytes: &[u8]| forms.iter().any(|form| bytes.windows(form.len()).any(|part| part == form));
    let heard = world.wiretap.take().unwrap();
    let own = |node: usize| [ANN, second].contains(&node);
    let (among_own, to_others): (Vec<_>, Vec<_>) =
        heard.iter().filter(|(from, ..)| own(*from)).partition(|(_, to, _)| own(*to));
    assert!(
        among_own.iter().any(|(.., bytes)| shows(bytes)),
        "a search that finds it nowhere proves nothing"
    );
    assert!(to_others.len() > 50, "{}", to_others.len());
    for (from, to, bytes) in to_others {
        assert!(!shows(bytes), "from {from} to {to}: {}", String::from_utf8_lossy(bytes));
    }
}

/// A request waits for somebody who allows requests only later, without being asked again.
#[test]
fn a_request_waits_for_somebody_who_allows_requests_later() {
    let mut world = World::new(&["Ann", "Bob"]);
    let link = world.own_link(BOB);
    world.act(BOB, |ctx, engine, _| Ok(engine.disable_requests(ctx)?)).unwrap();
    world.connect(ANN, BOB);
    world.add(ANN, &link).unwrap();
    world.wait_a_minute();
    let waiting = |world: &World| world.view(BOB, |read, engine, _| engine.requests(read).unwrap().len());
    assert_eq!(waiting(&world), 0);

    world.restart(ANN);
    world.act(BOB, |ctx, engine, _| Ok(engine.enable_requests(ctx)?)).unwrap();
    world.wait_a_minute();
    assert_eq!(waiting(&world), 1);
    let account = world.account(ANN);
    world.act(BOB, |ctx, engine, app| app.accept(ctx, engine, &account)).unwrap();
    world.wait_a_minute();
    let sent = world.send(ANN, "bob", "at last").unwrap();
    world.wait_a_minute();
    assert_eq!(world.message(ANN, &sent).delivery.unwrap().state(), MessageState::Received);
}

/// After a restart, an exchange of batches and a repeated change, the newest event decides on both sides: who was
/// added is not asked again, and what was left stays left.
#[test]
fn the_newest_event_decides_after_a_restart() {
    let mut world = ann_and_bob();
    let group = world.act(ANN, |ctx, engine, app| app.new_group(ctx, engine, "Harbour")).unwrap();
    let bob = world.account(BOB);
    world.act(ANN, |ctx, engine, _| Ok(engine.leave_group(ctx, &group)?)).unwrap();
    world.act(ANN, |ctx, engine, _| Ok(engine.block_contact(ctx, &bob)?)).unwrap();
    world.act(ANN, |ctx, engine, _| Ok(engine.unblock_contact(ctx, &bob)?)).unwrap();
    let before = world.view(ANN, |read, engine, _| {
        (engine.contact_state(read, &bob).unwrap(), engine.known_group(read, &group).unwrap().is_some())
    });
    assert!(!before.1, "the group was left");
    for _ in 0..3 {
        world.restart(ANN);
        world.wait_a_minute();
        let after = world.view(ANN, |read, engine, _| {
            (engine.contact_state(read, &bob).unwrap(), engine.known_group(read, &group).unwrap().is_some())
        });
        assert_eq!(after, before);
        let waiting = world.view(BOB, |read, engine, _| engine.requests(read).unwrap().len());
        assert_eq!(waiting, 0, "nobody is asked again");
    }
}
