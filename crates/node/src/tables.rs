//! The tables of this crate, `0x50` to `0x5f`.

use dunlin_base::kv::Table;

/// What the node itself remembers, by name: the seed of its peer identity.
pub const NODE: Table = Table(0x50);
/// In [`NODE`]: the seed of the peer identity.
pub const IDENTITY: &[u8] = b"identity";
/// In [`NODE`]: the number of the last start, see [`crate::claim()`].
pub const BOOT: &[u8] = b"boot nonce";
/// Addresses at which hosts of contacts and groups were reached, by binary peer id.
pub const ADDRESSES: Table = Table(0x51);
