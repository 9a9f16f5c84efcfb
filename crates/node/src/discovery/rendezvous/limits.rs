//! What a rendezvous server accepts, as Berty's does (`spec/wesh-protocol.md` §6.6).

/// Longest namespace.
pub(super) const NAMESPACE_CHARS_MAX: usize = 256;
/// All addresses of a registration together.
pub(super) const ADDRESS_BYTES_MAX: usize = 2048;
/// Registrations that one answer may have.
pub(super) const DISCOVER_MAX: usize = 1000;
