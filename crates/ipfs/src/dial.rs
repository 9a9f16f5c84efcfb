//! Why dialling fails, in terms of what to do next.

use std::io;

use libp2p::{Multiaddr, PeerId, TransportError, swarm};

/// Why a peer could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address leads to ourselves. Forget it.
    #[error("that is ourselves")]
    Ourselves,
    /// Somebody else answers there. Forget the address for the peer that was looked for.
    #[error("{address} belongs to {found}")]
    SomebodyElse {
        /// Who answers.
        found: PeerId,
        /// Where.
        address: Multiaddr,
    },
    /// Nothing to dial was given, or no address was of a kind that this host can dial.
    #[error("no address that can be dialled")]
    NoAddress,
    /// No address answered. Try again later.
    #[error("no answer from {}", tried(.0))]
    Unreachable(Vec<(Multiaddr, TransportError<io::Error>)>),
    /// A limit on connections is reached. Disconnect somebody first.
    #[error("a limit on connections is reached")]
    Refused(#[source] swarm::ConnectionDenied),
    /// The attempt was given up because the peer was disconnected on purpose.
    #[error("dialling was broken off")]
    Aborted,
    /// The host has been shut down.
    #[error(transparent)]
    Stopped(#[from] crate::Stopped),
}

fn tried(addresses: &[(Multiaddr, TransportError<io::Error>)]) -> String {
    addresses.iter().map(|(address, error)| format!("{address} ({error})")).collect::<Vec<_>>().join(", ")
}

impl From<swarm::DialError> for DialError {
    fn from(error: swarm::DialError) -> Self {
        match error {
            swarm::DialError::LocalPeerId { .. } => Self::Ourselves,
            swarm::DialError::WrongPeerId { obtained: found, address } => {
                Self::SomebodyElse { found, address }
            }
            swarm::DialError::NoAddresses => Self::NoAddress,
            swarm::DialError::Transport(tried) => {
                let known = |(_, error): &(Multiaddr, TransportError<io::Error>)| {
                    !matches!(error, TransportError::MultiaddrNotSupported(_))
                };
                if tried.iter().any(known) { Self::Unreachable(tried) } else { Self::NoAddress }
            }
            swarm::DialError::Denied { cause } => Self::Refused(cause),
            swarm::DialError::Aborted | swarm::DialError::DialPeerConditionFalse(_) => Self::Aborted,
        }
    }
}
