//! Archives of accounts: as anybody hands them over, and as a tar whose headers are whole.
#![no_main]

use dunlin_base::EntryId;
use dunlin_base::kv::{MemoryStore, Tx};
use dunlin_fuzz::{key, messages};
use dunlin_wesh::archive::{ArchivePart, ArchiveReader, Import, Item};
use dunlin_wesh::profile::Profile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    import(bytes);

    let mut part = ArchivePart::new();
    part.put(&Item::AccountKey(key(1)));
    part.put(&Item::ProofKey(key(2)));
    let mut archive = part.as_bytes().to_vec();
    for message in messages(bytes) {
        put_file(&mut archive, message);
    }
    archive.extend_from_slice(&[0; 1024]);
    read(&archive);
    import(&archive);
});

/// What is read is written and read again as the same files.
fn read(archive: &[u8]) {
    let Some(items) = items(archive) else { return };
    let mut part = ArchivePart::new();
    items.iter().for_each(|item| part.put(item));
    part.end();
    let again = items_of(part.as_bytes()).expect("an archive that was just written");
    assert_eq!(format!("{again:?}"), format!("{items:?}"));
}

fn items(archive: &[u8]) -> Option<Vec<Item>> {
    let in_pieces = read_in_pieces(archive, 100);
    let at_once = items_of(archive);
    assert_eq!(format!("{in_pieces:?}"), format!("{at_once:?}"));
    at_once
}

fn items_of(archive: &[u8]) -> Option<Vec<Item>> {
    read_in_pieces(archive, archive.len().max(1))
}

fn read_in_pieces(archive: &[u8], bytes: usize) -> Option<Vec<Item>> {
    let mut reader = ArchiveReader::default();
    let mut items = Vec::new();
    for mut piece in archive.chunks(bytes) {
        while let Some(item) = reader.read(&mut piece).ok()? {
            items.push(item);
        }
    }
    reader.finish().ok()?;
    Some(items)
}

fn import(archive: &[u8]) {
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let mut import = Import::begin(&mut tx, Profile::Berty).expect("an empty store");
    let _ = import.feed(&mut tx, archive);
}

/// Appends a file. The first byte of `message` says what it is called, the second what kind of thing it is.
fn put_file(archive: &mut Vec<u8>, message: &[u8]) {
    let Some(([name, kind], body)) = message.split_first_chunk::<2>() else { return };
    let name = match name % 6 {
        0 => "account.key".to_owned(),
        1 => "heads/x".to_owned(),
        2 => "entries/x".to_owned(),
        3 => "x".to_owned(),
        _ => format!("entries/{}", EntryId::of_block(body)),
    };
    let kind = if *kind < 200 { b'0' } else { *kind };
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
    header[148..156].copy_from_slice(b"        ");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(body);
    archive.resize(archive.len().next_multiple_of(512), 0);
}
