//! Keys from passphrases: slow on purpose, for whoever tries many (`spec/security.md` §3.9).

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

/// What trying a passphrase costs with Argon2id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// How often it is gone through.
    pub passes: u32,
    /// How much of it can be done at once.
    pub lanes: u32,
}

impl Cost {
    /// What is chosen: 64 MiB, three passes, one lane.
    pub const CHOSEN: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };
    /// The most that a file may ask for, so that a changed one cannot take the machine's memory or day.
    pub const MAX: Self = Self { memory_kib: 1 << 20, passes: 64, lanes: 16 };
    /// Bytes of the form in files.
    pub const BYTES: usize = 12;

    /// The form in files: memory, passes and lanes, big-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let numbers = [self.memory_kib, self.passes, self.lanes].map(u32::to_be_bytes);
        bytes.copy_from_slice(numbers.as_flattened());
        bytes
    }

    /// Reads the form in files; `None` when that asks for more than [`Self::MAX`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks::<4>();
        let [memory_kib, passes, lanes] = numbers else { return None };
        let [memory_kib, passes, lanes] =
            [memory_kib, passes, lanes].map(|number| u32::from_be_bytes(*number));
        let max = Self::MAX;
        let is_bearable = memory_kib <= max.memory_kib && passes <= max.passes && lanes <= max.lanes;
        is_bearable.then_some(Self { memory_kib, passes, lanes })
    }

    /// The key that a passphrase gives. `None` when Argon2id has no such cost: no passes, no lanes, or too little memory
    /// for them.
    pub fn stretch(self, passphrase: &str, salt: &[u8; SALT_BYTES]) -> Option<Zeroizing<[u8; 32]>> {
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len())).ok()?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(passphrase.as_bytes(), salt, &mut *key).ok()?;
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_nobody_can_bear_are_refused() {
        let max = Cost::MAX;
        assert_eq!(Cost::from_bytes(&max.to_bytes()), Some(max));
        assert_eq!(Cost::from_bytes(&Cost::CHOSEN.to_bytes()), Some(Cost::CHOSEN));
        for more in [
            Cost { memory_kib: max.memory_kib + 1, ..max },
            Cost { passes: max.passes + 1, ..max },
            Cost { lanes: max.lanes + 1, ..max },
        ] {
            assert_eq!(Cost::from_bytes(&more.to_bytes()), None);
        }
        for none in [
            Cost { memory_kib: 8, passes: 0, lanes: 1 },
            Cost { memory_kib: 8, passes: 1, lanes: 0 },
            Cost { memory_kib: 7, passes: 1, lanes: 1 },
        ] {
            assert!(none.stretch("passphrase", &[0; SALT_BYTES]).is_none());
        }
    }
}
