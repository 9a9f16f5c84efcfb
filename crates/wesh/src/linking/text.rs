//! The string that goes from the old device to the new one.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use dunlin_base::kdf::sha256;
use dunlin_base::{PeerId, Span, Time};
use zeroize::{Zeroize, Zeroizing};

use super::VERSION;

/// What every such string begins with. Upper case and these signs keep the QR code small.
pub const PREFIX: &str = "DUNLIN:LINK/";
/// Addresses of the old device that fit in: two interfaces with TCP and QUIC, IPv4 and IPv6.
pub const ADDRESSES_MAX: usize = 8;
/// Longest string that is read: eight of the longest addresses.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of the hash at the end, against slips of the pen.
const CHECK_BYTES: usize = 4;

/// What only those know who have seen the string. Wipes itself.
#[derive(Clone, Zeroize)]
#[zeroize(drop)]
pub struct Secret([u8; 16]);

impl Secret {
    /// Takes 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where and with which secret a device is offered a place in an account.
#[derive(Clone)]
pub struct LinkText {
    /// Used once.
    pub secret: Secret,
    /// Until when it is offered, to the minute.
    pub expires: Time,
    /// The old device.
    pub peer: PeerId,
    /// Its multiaddrs in binary form, without the peer.
    pub addresses: Vec<Vec<u8>>,
}

/// Why a text is no link of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkTextError {
    /// It is something else.
    #[error("this is no device link: one begins with {PREFIX}")]
    NotALink,
    /// It was not copied whole, or a sign is another.
    #[error("the device link is not complete, or something in it was mistyped: copy it again, whole")]
    Damaged,
    /// It was made by another version.
    #[error("the device link was made by a newer Dunlin: update this one")]
    Version,
}

impl LinkText {
    /// The string.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(vec![VERSION]);
        bytes.extend_from_slice(self.secret.as_bytes());
        let minutes = u32::try_from(self.expires.as_secs().div_ceil(60)).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&minutes.to_be_bytes());
        put(&mut bytes, self.peer.as_bytes());
        let addresses = self.addresses.iter().filter(|address| u8::try_from(address.len()).is_ok());
        let addresses: Vec<_> = addresses.take(ADDRESSES_MAX).collect();
        bytes.push(u8::try_from(addresses.len()).unwrap_or_default());
        addresses.into_iter().for_each(|address| put(&mut bytes, address));
        let check = sha256(&[&bytes]);
        bytes.extend_from_slice(check.get(..CHECK_BYTES).unwrap_or_default());
        Zeroizing::new(format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes)))
    }

    /// Reads the string; space and line breaks in it do no harm.
    ///
    /// # Errors
    /// [`LinkTextError`].
    pub fn parse(text: &str) -> Result<Self, LinkTextError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(LinkTextError::NotALink);
        }
        let text = text.chars().filter(|sign| !sign.is_whitespace()).collect::<String>().to_ascii_uppercase();
        let text = Zeroizing::new(text);
        let encoded = text.strip_prefix(PREFIX).ok_or(LinkTextError::NotALink)?;
        let bytes = BASE32_NOPAD.decode(encoded.as_bytes()).map_err(|_| LinkTextError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(LinkTextError::Damaged)?;
        if !sha256(&[content]).starts_with(check) {
            return Err(LinkTextError::Damaged);
        }
        let (version, rest) = content.split_first().ok_or(LinkTextError::Damaged)?;
        if *version != VERSION {
            return Err(LinkTextError::Version);
        }
        Self::decode(rest).ok_or(LinkTextError::Damaged)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (secret, rest) = bytes.split_first_chunk()?;
        let (minutes, rest) = rest.split_first_chunk()?;
        let (peer, rest) = take(rest)?;
        let (count, mut rest) = rest.split_first()?;
        let mut addresses = Vec::new();
        for _ in 0..*count {
            let (address, after) = take(rest)?;
            addresses.push(address.to_vec());
            rest = after;
        }
        let fits = rest.is_empty() && addresses.len() <= ADDRESSES_MAX;
        let expires = Time::from_secs(0) + Span::from_secs(u64::from(u32::from_be_bytes(*minutes)) * 60);
        fits.then_some(Self {
            secret: Secret::from_bytes(*secret),
            expires,
            peer: PeerId::from_bytes(peer)?,
            addresses,
        })
    }
}

impl fmt::Debug for LinkText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkText(..)")
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.push(u8::try_from(part.len()).unwrap_or_default());
    bytes.extend_from_slice(part);
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}
