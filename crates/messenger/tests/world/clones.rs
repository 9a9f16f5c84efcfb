//! A data directory that runs twice (`spec/security.md` E3).
//!
//! Ann's disk is copied while she is a contact of Bob, and two nodes run on it. What matters is that nobody seals
//! with a key that somebody else seals with, from the moment at which that can be known, and that all three go on
//! talking.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use dunlin_base::kv::{Direction, Durability, Store, Tx};
use dunlin_base::{DeviceId, EntryId, GroupId};
use dunlin_messenger::Notice;
use dunlin_store::faults::SimDisk;
use dunlin_wesh::engine::renew_device;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::support::{ANN, BOB, World};

/// The node on the copy of Ann's disk.
const COPY: usize = 2;

/// Three stores: Ann's, Bob's, and one as Ann's was when it was copied.
fn copied() -> Vec<Arc<dyn Store>> {
    let disks = [SimDisk::new(1), SimDisk::new(2)];
    let mut world = World::on(disks.iter().map(opened).collect(), 1);
    for (index, name) in [(ANN, "Ann"), (BOB, "Bob")] {
        world.act(index, |ctx, engine, app| app.set_name(ctx, engine, name)).unwrap();
    }
    world.connect(ANN, BOB);
    world.befriend(ANN, BOB);
    world.send(ANN, "bob", "one").unwrap();
    world.wait_a_minute();
    drop(world);
    let copy = disks[ANN].copy();
    [&disks[ANN], &disks[BOB], &copy].map(opened).to_vec()
}

fn opened(disk: &SimDisk) -> Arc<dyn Store> {
    Arc::new(disk.open_store().unwrap())
}

fn connect_all(world: &mut World) {
    for (one, other) in [(ANN, BOB), (BOB, COPY), (ANN, COPY)] {
        world.connect(one, other);
    }
    world.wait_a_minute();
}

fn device(world: &World, index: usize) -> DeviceId {
    world.view(index, |_, engine, _| engine.device_id())
}

/// What everybody knows of each counter of each device; one that carries two messages is a key used twice.
fn counters(world: &World, group: &GroupId) -> BTreeMap<(DeviceId, u64), Vec<EntryId>> {
    let mut counters = BTreeMap::<_, Vec<EntryId>>::new();
    for index in [ANN, BOB, COPY] {
        world.view(index, |read, engine, _| {
            let visit = &mut |message: dunlin_wesh::engine::MessageEvent| {
                let entries = counters.entry((message.device, message.counter)).or_default();
                if !entries.contains(&message.entry) {
                    entries.push(message.entry);
                }
                ControlFlow::Continue(())
            };
            engine.visit_messages(read, group, Bound::Unbounded, Direction::Ascending, visit).unwrap();
        });
    }
    counters
}

/// Everybody goes on talking, and each of the devices has a chain of its own.
fn talk(world: &mut World, group: &GroupId) {
    let before = counters(world, group);
    let said = [(ANN, "bob", "ann goes on"), (COPY, "bob", "the copy goes on"), (BOB, "ann", "bob goes on")];
    for round in 0..2 {
        for (index, to, text) in said {
            world.send(index, to, &format!("{text} {round}")).unwrap();
        }
        world.wait_a_minute();
    }
    for (index, reference) in [(ANN, "bob"), (BOB, "ann"), (COPY, "bob")] {
        let texts = world.texts(index, reference);
        for (_, _, text) in said {
            for round in 0..2 {
                let wanted = format!("{text} {round}");
                let times = texts.iter().filter(|text| **text == wanted).count();
                assert_eq!(times, 1, "{wanted:?} at {index}: {texts:?}");
            }
        }
    }
    let fresh = counters(world, group).into_iter().filter(|(key, _)| !before.contains_key(key));
    for ((device, counter), entries) in fresh {
        assert_eq!(entries.len(), 1, "counter {counter} of {device} is used twice");
    }
}

/// The shell saw that the directory is a copy: not a single key is used twice.
#[test]
fn clone_detect() {
    let stores = copied();
    let mut tx = Tx::new(&*stores[COPY]);
    renew_device(&mut tx, &mut ChaCha20Rng::seed_from_u64(9)).unwrap();
    stores[COPY].commit(tx.into_batch(), Durability::Synced).unwrap();
    let mut world = World::on(stores, 2);
    let group = world.conversation(ANN, "bob").group;
    let own = device(&world, ANN);
    assert_ne!(device(&world, COPY), own);
    for (index, text) in [(ANN, "two, here"), (COPY, "two, there")] {
        world.send(index, "bob", text).unwrap();
    }
    connect_all(&mut world);
    talk(&mut world, &group);
    assert_eq!(device(&world, ANN), own, "who ran on goes on");
    let twice = counters(&world, &group).into_values().filter(|entries| entries.len() > 1).count();
    assert_eq!(twice, 0);
    assert!(
        ["two, here", "two, there"].iter().all(|text| world.texts(BOB, "ann").contains(&(*text).to_owned()))
    );
}

/// Nothing told the copy that it is one. The first entry that shows it makes both go on under new keys.
#[test]
fn a_copy_that_did_not_know_is_found_out_by_what_it_signed() {
    let mut world = World::on(copied(), 2);
    let group = world.conversation(ANN, "bob").group;
    let shared = device(&world, ANN);
    assert_eq!(device(&world, COPY), shared);
    for (index, text) in [(ANN, "two, here"), (COPY, "two, there")] {
        world.send(index, "bob", text).unwrap();
    }
    connect_all(&mut world);
    let (ann, copy) = (device(&world, ANN), device(&world, COPY));
    assert!(ann != shared && copy != shared && ann != copy);
    // Both owners are told, and it stays told until they look.
    for index in [ANN, COPY] {
        assert!(world.take_notices(index).contains(&Notice::CopyFound));
        let told = |world: &World| {
            world.view(index, |read, engine, app| app.status(read, engine).unwrap().copy_found)
        };
        assert!(told(&world).is_some());
        world.act(index, |ctx, _, app| Ok(app.devices_seen(ctx)?)).unwrap();
        assert_eq!(told(&world), None);
    }
    assert!(!world.take_notices(BOB).contains(&Notice::CopyFound), "it is no business of others");
    talk(&mut world, &group);
    assert_eq!([device(&world, ANN), device(&world, COPY)], [ann, copy], "that was once");
}

/// A directory that came back from a backup meets what it wrote since then.
#[test]
fn a_rolled_back_directory_is_found_out_by_its_own_messages() {
    let stores = copied();
    let backup = stores[COPY].clone();
    let mut world = World::on(stores, 2);
    let shared = device(&world, ANN);
    world.connect(ANN, BOB);
    world.send(ANN, "bob", "after the backup").unwrap();
    world.wait_a_minute();
    world.disconnect(ANN, BOB);

    world.come_back_on(ANN, backup);
    assert_eq!(world.texts(ANN, "bob"), ["one"]);
    world.connect(ANN, BOB);
    world.wait_a_minute();
    assert_ne!(device(&world, ANN), shared);
    world.send(ANN, "bob", "after the restore").unwrap();
    world.wait_a_minute();
    for (index, reference) in [(ANN, "bob"), (BOB, "ann")] {
        assert_eq!(world.texts(index, reference), ["one", "after the backup", "after the restore"]);
    }
}
