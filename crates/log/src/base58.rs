//! The text form of CIDs under signatures: base58btc, of exactly 36 bytes.
//!
//! An entry's signed text names up to eight CIDs, so this is on the way of every entry. A general encoder
//! divides digit by digit and takes longer than the signature.

use dunlin_base::EntryId;

const DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// 58 to the fifth, the largest power that fits into 32 bits.
const DIVISOR: u64 = 58 * 58 * 58 * 58 * 58;
/// Most divisions until nothing is left of 36 bytes: 58^50 is above 2^288.
const DIVISIONS: usize = 10;

/// Appends the CID of `id` in base58btc with its multibase prefix.
pub(crate) fn push_cid(text: &mut String, id: EntryId) {
    let bytes = id.cid_bytes();
    let (limbs, _) = bytes.as_chunks::<4>();
    let mut number: Vec<u32> = limbs.iter().map(|limb| u32::from_be_bytes(*limb)).collect();
    let mut limbs = number.as_mut_slice();
    // Five digits a division, the last ones first.
    let mut digits: Vec<u8> = Vec::with_capacity(5 * DIVISIONS);
    while !limbs.is_empty() {
        let mut five = divide(limbs);
        for _ in 0..5 {
            digits.extend(usize::try_from(five % 58).ok().and_then(|digit| DIGITS.get(digit)));
            five /= 58;
        }
        while let [0, rest @ ..] = limbs {
            limbs = rest;
        }
    }
    text.push('z');
    // The first byte of a CID is not zero, so zeros in front are none of its digits.
    text.extend(digits.iter().rev().skip_while(|digit| **digit == b'1').copied().map(char::from));
}

/// Divides the big-endian number in place; returns the remainder.
fn divide(limbs: &mut [u32]) -> u64 {
    let mut remainder = 0;
    for limb in limbs {
        let value = (remainder << 32) | u64::from(*limb);
        // The quotient fits, because the remainder is less than the divisor.
        *limb = u32::try_from(value / DIVISOR).unwrap_or_default();
        remainder = value % DIVISOR;
    }
    remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_as_the_same_cid() {
        let digests = [[0; 32], [0xff; 32], *EntryId::of_block(b"block").digest()];
        for id in digests.map(EntryId::from_digest) {
            let mut text = String::new();
            push_cid(&mut text, id);
            assert!(text.starts_with("zdpu") && text.len() == 49, "{text}");
            assert_eq!(EntryId::from_cid_text(&text), Some(id));
        }
    }
}
