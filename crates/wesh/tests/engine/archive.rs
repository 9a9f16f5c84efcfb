//! An account is written into an archive, and comes out of it as a new device.

use dunlin_base::kv::{Durability, MemoryStore, Store, Tx};
use dunlin_base::{AccountId, EntryId, SecretKey};
use dunlin_wesh::archive::{ArchiveReader, Import, ImportArchiveError, Imported, Item};
use dunlin_wesh::contact::{Contact, ContactState};
use dunlin_wesh::engine::{Ctx, Engine, OpenError};
use dunlin_wesh::keys::{ImportError, KeyStoreError};
use dunlin_wesh::profile::Profile;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::device::{Device, NOW, host};
use crate::pair::Pair;

#[test]
fn an_account_comes_out_as_a_new_device() {
    let mut old = Device::new(1);
    let group = old.run(|ctx, engine| engine.create_group(ctx).unwrap());
    for number in 0..3 {
        old.run(|ctx, engine| engine.send_message(ctx, &group, &[number; 3]).unwrap());
    }

    let (store, imported) = import(&old.export()).unwrap();
    let mut new = Device::open(2, store);

    assert_eq!(imported, Imported { entries: 9, ..Imported::default() });
    assert_eq!(new.engine.account_id(), old.engine.account_id());
    assert_ne!(new.engine.device_id(), old.engine.device_id());
    new.run(|ctx, engine| engine.activate(ctx, &group).unwrap());
    new.settle();
    assert_eq!(new.messages(&group), [vec![0; 3], vec![1; 3], vec![2; 3]]);
    assert_eq!(old.kinds(&group)[..], new.kinds(&group)[..3]);
    assert_eq!(new.kinds(&group)[3..], ["device", "key"]);
}

#[test]
fn what_an_imported_account_exports_is_the_same_and_its_own() {
    let mut old = Device::new(1);
    let group = old.run(|ctx, engine| engine.create_group(ctx).unwrap());
    old.run(|ctx, engine| engine.send_message(ctx, &group, b"text").unwrap());
    let archive = old.export();

    let mut new = Device::open(2, import(&archive).unwrap().0);
    // Not activated: the archive holds what is stored, not what is in use.
    new.settle();
    let (before, after) = (entries(&archive), entries(&new.export()));

    assert!(before.iter().all(|entry| after.contains(entry)));
    // Event 1 and event 2 of the new device in the account group.
    assert_eq!(after.len(), before.len() + 2);
}

/// More than what joins at once: the new device still comes after all of it.
#[test]
fn a_long_history_joins_before_the_device_is_announced() {
    let mut old = Device::new(1);
    let account = old.engine.account_group();
    for number in 0..600_u16 {
        old.run(|ctx, engine| engine.send_metadata(ctx, &account, &number.to_be_bytes()).unwrap());
    }

    let mut new = Device::open(2, import(&old.export()).unwrap().0);
    new.settle();

    let (old, new) = (old.kinds(&account), new.kinds(&account));
    assert_eq!(new[..old.len()], old);
    assert_eq!(new[old.len()..], ["device", "key"]);
}

/// One device of an account adds somebody whom another one, which has not heard of it, blocks. A third that hears of the
/// block first knows the group like the one that made it.
#[test]
fn a_contact_that_was_added_and_blocked_has_its_group_on_every_device() {
    let mut first = Device::new(1);
    let archive = first.export();
    let blocks = Device::open_at(1, 11, import(&archive).unwrap().0);
    let hears = Device::open_at(2, 12, import(&archive).unwrap().0);
    let key = SecretKey::from_seed([9; 32]).public();
    let contact = Contact { account: AccountId::new(key), seed: Some([1; 32]), metadata: Vec::new() };
    let group = first.engine.contact_group(&contact.account).unwrap();
    first.run(|ctx, engine| engine.request_contact(ctx, &contact, b"").unwrap());

    let mut pair = Pair::of([blocks, hears]);
    let account = pair.devices[0].engine.account_group();
    for _ in 0..8 {
        pair.step(0, |ctx, engine| engine.send_metadata(ctx, &account, b"later").unwrap());
    }
    pair.step(0, |ctx, engine| engine.block_contact(ctx, &contact.account).unwrap());
    pair.connect();
    let knows = |device: &Device| {
        let state = device.engine.contact_state(&device.store, &contact.account).unwrap();
        (state, device.engine.known_group(&device.store, &group).unwrap().is_some())
    };
    assert_eq!(knows(&pair.devices[1]), (Some(ContactState::Blocked), false));

    let [_, hears] = pair.devices;
    let mut pair = Pair::of([Device::open_at(1, 13, first.store), Device::open_at(2, 14, hears.store)]);
    pair.connect();
    for device in &pair.devices {
        assert_eq!(knows(device), (Some(ContactState::Blocked), true));
    }
}

#[test]
fn a_store_with_an_account_takes_no_other() {
    let device = Device::new(2);
    let mut tx = Tx::new(&device.store);
    let refused = Import::begin(&mut tx, Profile::Berty).unwrap_err();
    assert!(matches!(refused, ImportArchiveError::Keys(ImportError::AccountExists)));
    assert!(tx.is_unchanged());
}

#[test]
fn a_broken_off_import_is_no_account_and_can_be_begun_again() {
    let archive = Device::new(1).export();
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let mut import = Import::begin(&mut tx, Profile::Berty).unwrap();
    import.feed(&mut tx, &archive[..archive.len() / 2]).unwrap();
    store.commit(tx.into_batch(), Durability::Synced).unwrap();

    let mut rng = ChaCha12Rng::seed_from_u64(2);
    let mut tx = Tx::new(&store);
    let mut ctx = Ctx { tx: &mut tx, now: NOW, rng: &mut rng };
    let opened = Engine::open(&mut ctx, Profile::Berty, host(2));
    assert!(matches!(opened, Err(OpenError::Keys(KeyStoreError::HalfImported))));
    drop(tx);

    import_into(&store, &archive, Profile::Berty).unwrap();
    Device::open(2, store);
}

#[test]
fn an_incomplete_archive_makes_no_account() {
    let archive = Device::new(1).export();
    for end in [0, 512, 2048, archive.len() - 512] {
        let refused = import(&archive[..end]).unwrap_err();
        assert!(matches!(refused, ImportArchiveError::Archive(_)), "{refused:?}");
    }
    let without_keys = &archive[2048..];
    assert!(matches!(import(without_keys), Err(ImportArchiveError::NoKey { name: "account.key" })));
}

#[test]
fn an_archive_of_the_other_profile_is_refused_by_name() {
    let archive = Device::new(1).export();
    let refused = import_into(&MemoryStore::default(), &archive, Profile::Wesh).unwrap_err();
    assert!(matches!(refused, ImportArchiveError::OtherProfile { profile: Profile::Berty }));
}

pub fn import(archive: &[u8]) -> Result<(MemoryStore, Imported), ImportArchiveError> {
    let store = MemoryStore::default();
    let imported = import_into(&store, archive, Profile::Berty)?;
    Ok((store, imported))
}

/// Imports in small pieces, each committed.
fn import_into(
    store: &MemoryStore,
    archive: &[u8],
    profile: Profile,
) -> Result<Imported, ImportArchiveError> {
    let mut tx = Tx::new(store);
    let mut import = Import::begin(&mut tx, profile)?;
    for piece in archive.chunks(1000) {
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
        tx = Tx::new(store);
        import.feed(&mut tx, piece)?;
    }
    let imported = import.finish(&mut tx, &mut ChaCha12Rng::seed_from_u64(7))?;
    store.commit(tx.into_batch(), Durability::Synced).unwrap();
    Ok(imported)
}

fn entries(mut archive: &[u8]) -> Vec<EntryId> {
    let mut reader = ArchiveReader::default();
    let mut entries = Vec::new();
    while let Some(item) = reader.read(&mut archive).unwrap() {
        if let Item::Entry(entry) = item {
            entries.push(entry.id());
        }
    }
    reader.finish().unwrap();
    entries
}
