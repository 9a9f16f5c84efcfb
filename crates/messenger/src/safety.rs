//! The number that two people compare to know that nobody sits between them.
//!
//! In the manner of `spec/security.md` §3.8: each account gives 30 digits, and both halves, the smaller
//! one first, are the number. A half is the last of 5,200 SHA-512 hashes: the first is taken over
//! `"weshx/sn/1"`, the account key and the root of the account's device log, each further one over the hash
//! before and the account key. There is no device log yet: 32 zero bytes stand for its root, so the number
//! depends on the two accounts alone and does not change when somebody adds a device.

use std::fmt;

use dunlin_base::AccountId;
use sha2::{Digest, Sha512};

/// Hashes per half: about two milliseconds, five thousand times as much for whoever searches for a match.
const ROUNDS: usize = 5_200;
/// Keeps these hashes apart from all others.
const DOMAIN: &[u8] = b"weshx/sn/1";
/// Stands for the root of a device log.
const NO_DEVICE_LOG: [u8; 32] = [0; 32];
/// Digits of a half.
const HALF_DIGITS: usize = 30;
/// Digits of a group, and the bytes of the hash that give them.
const GROUP_LEN: usize = 5;

/// What one account contributes: 30 digits. It takes a while to compute and never changes, so it is kept.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub struct SafetyHalf([u8; HALF_DIGITS]);

impl SafetyHalf {
    /// Computes the half of `account`.
    pub fn of(account: &AccountId) -> Self {
        let first = Sha512::new().chain_update(DOMAIN).chain_update(account.as_bytes());
        let mut hash = first.chain_update(NO_DEVICE_LOG).finalize();
        for _ in 1..ROUNDS {
            hash = Sha512::new().chain_update(hash).chain_update(account.as_bytes()).finalize();
        }
        let mut digits = [0; HALF_DIGITS];
        for (group, bytes) in digits.chunks_exact_mut(GROUP_LEN).zip(hash.chunks_exact(GROUP_LEN)) {
            let mut number = bytes.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte)) % 100_000;
            for digit in group.iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        Self(digits)
    }

    /// Takes the digits of a half that was computed before; `None` unless they are 30 digits.
    pub fn from_digits(digits: &[u8]) -> Option<Self> {
        let digits: [u8; HALF_DIGITS] = digits.try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    /// The digits, as ASCII.
    pub const fn digits(&self) -> &[u8; HALF_DIGITS] {
        &self.0
    }
}

impl fmt::Debug for SafetyHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SafetyHalf(..)")
    }
}

/// The safety number of two accounts: the same for both of them.
///
/// ```
/// use dunlin_base::{AccountId, SecretKey};
/// use dunlin_messenger::safety::SafetyNumber;
///
/// let ann = AccountId::new(SecretKey::from_seed([1; 32]).public());
/// let bob = AccountId::new(SecretKey::from_seed([2; 32]).public());
/// let number = SafetyNumber::between(&ann, &bob);
/// assert_eq!(number, SafetyNumber::between(&bob, &ann));
/// assert_eq!(number.to_string().split(' ').count(), 12);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SafetyNumber {
    first: SafetyHalf,
    second: SafetyHalf,
}

impl SafetyNumber {
    /// Computes the number of two accounts.
    pub fn between(one: &AccountId, other: &AccountId) -> Self {
        Self::of_halves(SafetyHalf::of(one), SafetyHalf::of(other))
    }

    /// Puts two halves together; their order does not matter.
    pub fn of_halves(one: SafetyHalf, other: SafetyHalf) -> Self {
        Self { first: one.min(other), second: one.max(other) }
    }
}

/// Twelve groups of five digits, with a space between them.
impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.first.0.chunks(GROUP_LEN).chain(self.second.0.chunks(GROUP_LEN));
        for (position, group) in groups.enumerate() {
            if position > 0 {
                f.write_str(" ")?;
            }
            f.write_str(std::str::from_utf8(group).unwrap_or_default())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;

    fn account(seed: u8) -> AccountId {
        AccountId::new(SecretKey::from_seed([seed; 32]).public())
    }

    #[test]
    fn is_the_same_from_both_sides_and_differs_between_pairs() {
        let number = SafetyNumber::between(&account(1), &account(2));
        assert_eq!(number, SafetyNumber::between(&account(2), &account(1)));
        assert_ne!(number, SafetyNumber::between(&account(1), &account(3)));
    }

    #[test]
    fn does_not_change_between_versions() {
        assert_eq!(
            SafetyNumber::between(&account(1), &account(2)).to_string(),
            "43673 00850 40564 62460 34482 33139 97316 43905 52963 26390 62302 68895"
        );
    }

    #[test]
    fn a_kept_half_is_checked() {
        let half = SafetyHalf::of(&account(1));
        assert_eq!(SafetyHalf::from_digits(half.digits()), Some(half));
        assert_eq!(SafetyHalf::from_digits(b"123"), None);
        assert_eq!(SafetyHalf::from_digits(&[b'x'; 30]), None);
    }
}
