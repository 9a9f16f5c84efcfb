//! Keys that are gone once a message was opened.

use dunlin_base::kv::Table;
use dunlin_base::{EntryId, Span};
use dunlin_wesh::engine::{CommandError, Event};
use dunlin_wesh::message::{self, COUNTER_KEY_DAYS_MAX, OpenMessageError, OutOfStoreError};

use crate::archive::import;
use crate::device::{Device, NOW};

/// Opened messages that are kept and not shown: as the engine calls its table.
const REPEATS: Table = Table(0x46);

/// `spec/security.md` E9: once a message was opened and nothing is missing before it, nothing in the store opens it
/// again; and once it is erased, its text is nowhere either.
#[test]
fn erase_after_open() {
    let mut first = Device::new(1);
    let group = first.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let device = first.engine.own_device(&group).unwrap();
    let chain = message::inspect_chain(&first.store, &group, &device).unwrap().unwrap().state;
    let (_, key) = chain.step(&group).unwrap();
    let entry = first.run(|ctx, engine| engine.send_message(ctx, &group, b"a canary").unwrap());
    first.run(|ctx, engine| engine.send_message(ctx, &group, b"another bird").unwrap());
    let payload = first.run(|ctx, engine| engine.seal_out_of_store(ctx, &group, &entry).unwrap());

    let mut second = Device::open(2, import(&first.export()).unwrap().0);
    second.settle();
    second.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    second.settle();
    assert_eq!(second.messages(&group), [b"a canary".as_slice(), b"another bird"]);
    assert!(!second.holds(key.as_bytes()), "no key is kept by who read the message");
    assert!(first.holds(key.as_bytes()), "its own messages are held for a while");
    let later = NOW + Span::from_secs(COUNTER_KEY_DAYS_MAX * 24 * 3600);
    assert!(first.engine.timeout().is_some_and(|due| due <= later));
    first.run_at(later, |ctx, engine| engine.handle_timeout(ctx).unwrap());
    assert!(!first.holds(key.as_bytes()), "no key is kept by who wrote it");
    assert_eq!(first.messages(&group).len(), 2);

    // What is listed and what comes outside the log is still there, also after a restart.
    for device in [&mut first, &mut second] {
        reopen(device);
        device.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
        assert_eq!(device.messages(&group).len(), 2);
        let opened = device.run(|ctx, engine| engine.open_out_of_store(ctx.tx, &payload).unwrap());
        assert!(opened.already_received && opened.clear.windows(8).any(|part| part == b"a canary"));
    }

    second.run(|ctx, engine| engine.erase_message(ctx, &group, &entry).unwrap());
    assert!(!second.holds(b"a canary"));
    let gone = second.run(|ctx, engine| engine.erase_message(ctx, &group, &entry));
    assert!(matches!(gone, Err(CommandError::NoSuchMessage)));
    reopen(&mut second);
    second.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    second.settle();
    assert_eq!(second.messages(&group), [b"another bird"]);
    let refused = second.run(|ctx, engine| engine.open_out_of_store(ctx.tx, &payload));
    assert!(matches!(refused, Err(OutOfStoreError::Message(OpenMessageError::AlreadyUsed))));
}

/// An own message can be erased while its key is held.
#[test]
fn an_own_message_is_erased_at_once() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let own = device.engine.own_device(&group).unwrap();
    let chain = message::inspect_chain(&device.store, &group, &own).unwrap().unwrap().state;
    let (_, key) = chain.step(&group).unwrap();
    let entry = device.run(|ctx, engine| engine.send_message(ctx, &group, b"a canary").unwrap());
    device.run(|ctx, engine| engine.erase_message(ctx, &group, &entry).unwrap());
    assert!(!device.holds(key.as_bytes()) && !device.holds(b"a canary"));
    assert!(device.messages(&group).is_empty());
}

/// What somebody sent again of the text, elsewhere, is kept for the case that it belongs there. It goes with the text.
#[test]
fn what_others_repeated_of_a_message_is_erased_with_it() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let own = device.engine.own_device(&group).unwrap();
    let entry = device.run(|ctx, engine| engine.send_message(ctx, &group, b"a canary").unwrap());
    let repeat = |text: &[u8]| [&[0; 8], own.as_bytes().as_slice(), &[0, 0, 0, 0, 0, 0, 0, 9], text].concat();
    let key = |block: &[u8]| [group.as_bytes().as_slice(), EntryId::of_block(block).digest()].concat();
    device.run(|ctx, _| {
        ctx.tx.put(REPEATS, &key(b"1"), &repeat(b"a canary"));
        ctx.tx.put(REPEATS, &key(b"2"), &repeat(b"another bird"));
    });
    device.run(|ctx, engine| engine.erase_message(ctx, &group, &entry).unwrap());
    assert!(!device.holds(b"a canary") && device.holds(b"another bird"));
}

/// Who has left a group, or does not use it, can still erase what they read there.
#[test]
fn a_message_is_erased_while_its_group_is_not_active() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let entry = device.run(|ctx, engine| engine.send_message(ctx, &group, b"a canary").unwrap());
    device.run(|_, engine| engine.deactivate(&group));
    let (erased, _) = device.step_at(NOW, |ctx, engine| engine.erase_message(ctx, &group, &entry));
    erased.unwrap();
    assert!(
        matches!(device.told[..], [Event::Erased { group: of, entry: told }] if (of, told) == (group, entry))
    );
    assert!(!device.holds(b"a canary"));
    device.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    device.settle();
    assert!(device.messages(&group).is_empty());
}

fn reopen(device: &mut Device) {
    let mut fresh = Device::open(9, std::mem::take(&mut device.store));
    std::mem::swap(device, &mut fresh);
}
