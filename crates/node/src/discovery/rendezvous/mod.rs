//! Rendezvous servers, in the protocol of Berty's (`spec/wesh-protocol.md` §6.6).

pub(super) mod client;
mod limits;
mod registry;
pub(crate) mod server;

/// The protocol.
pub(crate) const RENDEZVOUS: &str = "/rendezvous/1.0.0";
/// Longest message (`spec/security.md` N2).
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
