//! The key derivations of the Wesh protocol (`spec/wesh-protocol.md` §0.2).

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use sha3::Sha3_256;
use zeroize::Zeroizing;

/// HKDF with SHA-256, no salt, `N` bytes out (RFC 5869). `N` is at most 8,160.
pub fn hkdf_sha256<const N: usize>(ikm: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) };
    let mut okm = Zeroizing::new([0; N]);
    // Expanding fails only above 255 blocks, which the assertion excludes.
    let _ = Hkdf::<Sha256>::new(None, ikm).expand(info, &mut *okm);
    okm
}

/// HKDF with SHA3-256, no salt, `N` bytes out. `N` is at most 8,160.
pub fn hkdf_sha3_256<const N: usize>(ikm: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32) };
    let mut okm = Zeroizing::new([0; N]);
    let _ = Hkdf::<Sha3_256>::new(None, ikm).expand(info, &mut *okm);
    okm
}

/// HMAC with SHA-256 over `message`.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        // HMAC takes keys of every length.
        return [0; 32];
    };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// SHA-256 of the parts, one after another.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest;
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_matches_the_rotation_vector() {
        // spec/wesh-protocol.md A.3: topicA, seedA, 2020-04-10T12:00:00Z.
        let token = hmac_sha256(b"topicAseedA", &1_586_520_000u64.to_be_bytes());
        let hex: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "8b7fdc831ca90f78995f32d8b9cf7bc8682a7fc250fe13a9b7c5c0851a3b8cbc");
    }
}
