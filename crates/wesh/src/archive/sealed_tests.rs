use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

/// Quick to try.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const PASSPHRASE: &str = "correct horse";
const LENGTHS: [usize; 8] = [
    0,
    1,
    SEALED_CHUNK_BYTES - 1,
    SEALED_CHUNK_BYTES,
    SEALED_CHUNK_BYTES + 1,
    2 * SEALED_CHUNK_BYTES,
    2 * SEALED_CHUNK_BYTES + 7,
    3 * SEALED_CHUNK_BYTES,
];

fn clear(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 251) as u8 ^ index as u8).collect()
}

fn sealed(clear: &[u8], piece: usize) -> Vec<u8> {
    let mut sealer = Sealer::new(PASSPHRASE, CHEAP, &mut ChaCha20Rng::from_seed([1; 32])).unwrap();
    let mut file = sealer.head().to_vec();
    for piece in clear.chunks(piece) {
        file.extend(sealer.seal(piece).unwrap());
    }
    file.extend(sealer.finish().unwrap());
    file
}

fn opened(file: &[u8], piece: usize) -> Result<Vec<u8>, SealedArchiveError> {
    let (head, chunks) = file.split_first_chunk().ok_or(SealedArchiveError::End)?;
    let mut opener = SealedHead::parse(head)?.unlock(PASSPHRASE)?;
    let mut clear = Vec::new();
    for piece in chunks.chunks(piece) {
        clear.extend_from_slice(&opener.feed(piece)?);
    }
    clear.extend_from_slice(&opener.finish()?);
    Ok(clear)
}

#[test]
fn what_was_sealed_opens_in_pieces_of_any_length() {
    for length in LENGTHS {
        let clear = clear(length);
        let file = sealed(&clear, 1000);
        let chunks = length.div_ceil(SEALED_CHUNK_BYTES).max(1);
        assert_eq!(file.len(), SEALED_HEAD_BYTES + length + chunks * TAG_BYTES);
        for piece in [777, CHUNK_SEALED_BYTES, usize::MAX] {
            assert_eq!(sealed(&clear, piece), file, "the same file, however it is written");
            assert_eq!(opened(&file, piece).unwrap(), clear);
        }
    }
    assert_eq!(opened(&sealed(b"byte by byte", 1), 1).unwrap(), b"byte by byte");
}

#[test]
fn nothing_inside_is_readable_and_no_two_files_are_alike() {
    let text = b"the canary sings at dawn".repeat(100);
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut write = || {
        let mut sealer = Sealer::new(PASSPHRASE, CHEAP, &mut rng).unwrap();
        [sealer.seal(&text).unwrap(), sealer.finish().unwrap()].concat()
    };
    let (one, other) = (write(), write());
    assert!(!one.windows(8).any(|part| text.starts_with(part)));
    assert!(one.iter().zip(&other).filter(|(one, other)| one == other).count() < one.len() / 50);
}

/// Whoever changes one bit anywhere, or cuts the file anywhere, is noticed, and nothing that was not written is opened.
#[test]
fn a_changed_bit_and_a_cut_are_noticed_wherever_they_are() {
    let length = 2 * SEALED_CHUNK_BYTES + 100;
    let (clear, file) = (clear(length), sealed(&clear(length), 5000));
    let edges = [0, 8, 9, 10, 22, 38, FRONT_BYTES, FRONT_BYTES + SUM_BYTES, SEALED_HEAD_BYTES];
    let chunk = |number: usize| SEALED_HEAD_BYTES + number * CHUNK_SEALED_BYTES;
    let places =
        edges.into_iter().chain([chunk(1) - TAG_BYTES, chunk(1), chunk(2) - 1, chunk(2), file.len() - 1]);
    for place in places.chain((0..file.len()).step_by(9_973)) {
        let mut changed = file.clone();
        changed[place] ^= 4;
        let error = opened(&changed, 4096).unwrap_err();
        let expected = match place {
            0..8 => SealedArchiveError::Other,
            8 => SealedArchiveError::Newer { found: 5 },
            _ if place < FRONT_BYTES + SUM_BYTES => SealedArchiveError::Damaged,
            _ if place < SEALED_HEAD_BYTES => SealedArchiveError::WrongPassphrase,
            _ if place < chunk(2) => SealedArchiveError::Damaged,
            _ => SealedArchiveError::End,
        };
        assert_eq!(error, expected, "at {place}");
        if place > 0 {
            assert!(matches!(opened(&file[..place], 4096), Err(SealedArchiveError::End)), "cut at {place}");
        }
    }
    let more = [file.as_slice(), b"x"].concat();
    assert_eq!(opened(&more, 4096), Err(SealedArchiveError::End), "what is behind the end");
    assert_eq!(opened(&file, 4096).unwrap(), clear);
}

#[test]
fn chunks_cannot_be_left_out_doubled_or_moved() {
    let file = sealed(&clear(3 * SEALED_CHUNK_BYTES), 5000);
    let (head, chunks) = file.split_at(SEALED_HEAD_BYTES);
    let chunk: Vec<&[u8]> = chunks.chunks(CHUNK_SEALED_BYTES).collect();
    let of = |order: &[usize]| {
        let chosen: Vec<u8> = order.iter().flat_map(|number| chunk[*number]).copied().collect();
        opened(&[head, &chosen].concat(), 4096)
    };
    assert!(of(&[0, 1, 2]).is_ok());
    for order in [&[1, 0, 2][..], &[0, 0, 1, 2], &[0, 2], &[1, 2], &[2], &[0, 1], &[0, 1, 2, 2], &[]] {
        assert!(of(order).is_err(), "{order:?}");
    }
    // Chunks of another file with the same passphrase.
    let mut sealer = Sealer::new(PASSPHRASE, CHEAP, &mut ChaCha20Rng::from_seed([3; 32])).unwrap();
    let other =
        [sealer.head().to_vec(), sealer.seal(&clear(100)).unwrap(), sealer.finish().unwrap()].concat();
    let mixed = [&other[..SEALED_HEAD_BYTES], chunks].concat();
    assert_eq!(opened(&mixed, 4096), Err(SealedArchiveError::Damaged));
}

#[test]
fn a_wrong_passphrase_a_newer_version_and_an_absurd_cost_have_errors_of_their_own() {
    let file = sealed(b"clear", 10);
    let head: [u8; SEALED_HEAD_BYTES] = *file.first_chunk().unwrap();
    for wrong in ["", "correct horsE", "correct horse "] {
        let error = SealedHead::parse(&head).unwrap().unlock(wrong).unwrap_err();
        assert_eq!(error, SealedArchiveError::WrongPassphrase);
    }
    let changed = |change: &dyn Fn(&mut [u8; SEALED_HEAD_BYTES])| {
        let mut head = head;
        change(&mut head);
        // Whoever changes a head can change its sum.
        let sum = sha256(&[&head[..FRONT_BYTES]]);
        head[FRONT_BYTES..FRONT_BYTES + SUM_BYTES].copy_from_slice(&sum);
        SealedHead::parse(&head)
    };
    assert_eq!(changed(&|head| head[8] = 2).unwrap_err(), SealedArchiveError::Newer { found: 2 });
    assert_eq!(changed(&|head| head[8] = 0).unwrap_err(), SealedArchiveError::Damaged);
    assert_eq!(changed(&|head| head[9] = 2).unwrap_err(), SealedArchiveError::Damaged);
    for (place, value) in [(10, 1), (14, 1), (18, 1)] {
        assert_eq!(changed(&|head| head[place] = value).unwrap_err(), SealedArchiveError::Cost, "absurd");
    }
    let without_passes = changed(&|head| head[14..18].fill(0)).unwrap();
    assert_eq!(without_passes.unlock(PASSPHRASE).unwrap_err(), SealedArchiveError::Cost);
    // A cheaper cost gives another key.
    let cheaper = changed(&|head| head[13] = 9).unwrap();
    assert_eq!(cheaper.unlock(PASSPHRASE).unwrap_err(), SealedArchiveError::WrongPassphrase);
}

#[test]
fn secrets_do_not_show() {
    let sealer = Sealer::new(PASSPHRASE, CHEAP, &mut ChaCha20Rng::from_seed([1; 32])).unwrap();
    let opener = SealedHead::parse(sealer.head()).unwrap().unlock(PASSPHRASE).unwrap();
    assert_eq!(format!("{sealer:?} {opener:?}"), "Sealer(..) Opener(..)");
}
