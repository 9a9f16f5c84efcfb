//! Archives under a passphrase: as anybody hands them over, and as one was written and then changed in one place.
#![no_main]

use dunlin_base::passphrase::Cost;
use dunlin_wesh::archive::{Opener, SEALED_HEAD_BYTES, SealedHead, Sealer};
use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Quick to try.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const PASSPHRASE: &str = "correct horse";

fuzz_target!(|input: &[u8]| {
    foreign(input);
    changed(input);
});

/// A head that asks for little is tried; whatever is behind it ends in an error or in what can be read at once, too.
fn foreign(file: &[u8]) {
    let Some((head, chunks)) = file.split_first_chunk::<SEALED_HEAD_BYTES>() else { return };
    let Ok(locked) = SealedHead::parse(head) else { return };
    let Cost { memory_kib, passes, lanes } = locked.cost();
    if memory_kib > 64 || passes > 2 || lanes > 2 {
        return;
    }
    let open = || locked.unlock(PASSPHRASE).ok();
    if let (Some(one), Some(other)) = (open(), open()) {
        assert_eq!(read(one, chunks, 100), read(other, chunks, chunks.len().max(1)));
    }
}

/// The first bytes say where a file is changed and how; the rest is what is in it, over and over.
fn changed(input: &[u8]) {
    let Some(([length, place @ .., change], text)) = input.split_first_chunk::<5>() else { return };
    let clear: Vec<u8> = text.iter().copied().cycle().take(usize::from(*length) * 1024 * usize::from(!text.is_empty())).collect();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut sealer = Sealer::new(PASSPHRASE, CHEAP, &mut rng).expect("a cost that exists");
    let mut file = sealer.head().to_vec();
    for piece in clear.chunks(text.len().max(1) * 7) {
        file.extend(sealer.seal(piece).expect("room"));
    }
    file.extend(sealer.finish().expect("room"));
    let place = place.iter().fold(0, |place, byte| place << 8 | usize::from(*byte)) % file.len();
    match change {
        0 => {}
        1 => file.truncate(place),
        2 => drop(file.remove(place)),
        change => file[place] ^= change,
    }
    let Some((head, chunks)) = file.split_first_chunk() else { return };
    let Ok(opener) = SealedHead::parse(head).and_then(|locked| locked.unlock(PASSPHRASE)) else {
        assert_ne!(*change, 0);
        return;
    };
    match read(opener, chunks, 4096) {
        Ok(read) => assert!(*change == 0 && read == clear),
        Err(before) => assert!(*change != 0 && clear.starts_with(&before)),
    }
}

/// What is inside, or what of it came before the error.
fn read(mut opener: Opener, chunks: &[u8], piece: usize) -> Result<Vec<u8>, Vec<u8>> {
    let mut clear = Vec::new();
    for piece in chunks.chunks(piece) {
        match opener.feed(piece) {
            Ok(more) => clear.extend_from_slice(&more),
            Err(_) => return Err(clear),
        }
    }
    match opener.finish() {
        Ok(more) => {
            clear.extend_from_slice(&more);
            Ok(clear)
        }
        Err(_) => Err(clear),
    }
}
