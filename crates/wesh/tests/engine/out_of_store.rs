//! Messages that come outside their log.

use dunlin_base::EntryId;
use dunlin_wesh::engine::CommandError;
use dunlin_wesh::message::OutOfStoreError;

use crate::archive::import;
use crate::device::Device;

#[test]
fn a_message_is_opened_that_is_not_in_the_log() {
    let mut first = Device::new(1);
    let group = first.run(|ctx, engine| engine.create_group(ctx).unwrap());
    first.run(|ctx, engine| engine.send_message(ctx, &group, b"before").unwrap());
    let mut second = Device::open(2, import(&first.export()).unwrap().0);
    second.settle();
    second.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    second.settle();

    let entry = first.run(|ctx, engine| engine.send_message(ctx, &group, b"after").unwrap());
    let payload = first.run(|ctx, engine| engine.seal_out_of_store(ctx, &group, &entry).unwrap());
    let other = first.run(|ctx, engine| engine.seal_out_of_store(ctx, &group, &entry).unwrap());
    assert_ne!(payload, other, "each has a nonce of its own");

    second.engine.deactivate(&group);
    let opened = second.run(|ctx, engine| engine.open_out_of_store(ctx.tx, &payload).unwrap());
    assert_eq!((opened.group, opened.entry), (group, Some(entry)));
    assert!(opened.clear.windows(5).any(|part| part == b"after"));
    assert!(!opened.already_received);

    let own = first.run(|ctx, engine| engine.open_out_of_store(ctx.tx, &payload).unwrap());
    assert!(own.already_received);
}

#[test]
fn each_refusal_has_its_cause() {
    let mut device = Device::new(1);
    let group = device.run(|ctx, engine| engine.create_group(ctx).unwrap());
    let entry = device.run(|ctx, engine| engine.send_message(ctx, &group, b"text").unwrap());
    let payload = device.run(|ctx, engine| engine.seal_out_of_store(ctx, &group, &entry).unwrap());

    let nothing = EntryId::of_block(b"nothing");
    let refused = device.run(|ctx, engine| engine.seal_out_of_store(ctx, &group, &nothing));
    assert!(matches!(refused, Err(CommandError::NoSuchMessage)));
    device.engine.deactivate(&group);
    let refused = device.run(|ctx, engine| engine.seal_out_of_store(ctx, &group, &entry));
    assert!(matches!(refused, Err(CommandError::NotActive)));

    let refused = Device::new(2).run(|ctx, engine| engine.open_out_of_store(ctx.tx, &payload));
    assert!(matches!(refused, Err(OutOfStoreError::NoGroup)));
    let refused = device.run(|ctx, engine| engine.open_out_of_store(ctx.tx, b"garbage"));
    assert!(matches!(refused, Err(OutOfStoreError::Envelope)));
}
