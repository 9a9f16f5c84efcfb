//! Who is meant: accounts, devices, members, groups and hosts.

use std::fmt;

use crate::keys::{KeyError, PublicKey};

macro_rules! key_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd, Hash)]
        pub struct $name(PublicKey);

        impl $name {
            /// Takes an already checked key.
            pub const fn new(key: PublicKey) -> Self {
                Self(key)
            }

            /// Parses a raw Ed25519 public key.
            ///
            /// # Errors
            /// [`KeyError`] unless it has 32 bytes and is a canonical point of full order.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
                PublicKey::from_bytes(bytes).map(Self)
            }

            /// Takes one back out of the node's own store: see [`PublicKey::from_stored`].
            pub fn from_stored(bytes: &[u8]) -> Option<Self> {
                PublicKey::from_stored(bytes).map(Self)
            }

            /// The key itself.
            pub const fn key(&self) -> &PublicKey {
                &self.0
            }

            /// The raw key, 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

key_id! {
    /// Identifies an account: one person, on any number of devices.
    AccountId
}
key_id! {
    /// Identifies a device inside a group, by the key that signs its events and messages.
    DeviceId
}
key_id! {
    /// Identifies an account as it is seen inside one group.
    MemberId
}
key_id! {
    /// Identifies a group.
    GroupId
}

/// Longest binary peer id that is accepted; an identity-hashed Ed25519 one has 38 bytes.
pub const PEER_ID_BYTES_MAX: usize = 64;

/// Identifies a host of the network by the bytes of its libp2p peer id.
///
/// Says nothing about accounts or devices: hosts change theirs (`spec/security.md` D10).
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd, Hash)]
pub struct PeerId(Vec<u8>);

impl PeerId {
    /// Takes the binary form; `None` when it is empty or longer than [`PEER_ID_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let fits = !bytes.is_empty() && bytes.len() <= PEER_ID_BYTES_MAX;
        fits.then(|| Self(bytes.to_vec()))
    }

    /// Takes a binary form whose length is known to fit.
    pub fn from_array<const N: usize>(bytes: [u8; N]) -> Self {
        const { assert!(N > 0 && N <= PEER_ID_BYTES_MAX) };
        Self(bytes.to_vec())
    }

    /// The binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerId(")?;
        for byte in self.0.iter().rev().take(4).rev() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
