//! Randomness that a file fixes: nonces, seeds and chain keys, in the order in which they are drawn.

use rand_core::{CryptoRng, Error, RngCore};

/// Gives out fixed bytes, then zeros.
///
/// A wrong order or number of draws shows in the bytes that come out, which the files fix as well.
#[derive(Debug)]
pub struct FixedRng {
    bytes: std::vec::IntoIter<u8>,
}

impl FixedRng {
    /// Gives out `draws`, one after another.
    pub fn new(draws: &[&[u8]]) -> Self {
        Self { bytes: draws.concat().into_iter() }
    }
}

impl RngCore for FixedRng {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for byte in dest {
            *byte = self.bytes.next().unwrap_or_default();
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for FixedRng {}
