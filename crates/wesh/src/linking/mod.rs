//! How an account comes onto a second device, from both sides; the bytes are drawn in
//! `docs/formats/linking.md`.
//!
//! ```text
//! Joining (new)                                     Offering (old)
//!    1  commitment                            ───►
//!                                             ◄───  2  ephemeral key, random
//!    3  what was committed to, mac            ───►
//!                                             ◄───  4  mac
//!         both show a code; the user types that of the new device into the old one
//!                                             ◄───  6  card, archive, end
//!    7  it is on the disk                     ───►
//! ```
//!
//! Each side is a value that is fed frames, without their length prefix, and the time, and hands back what is
//! to be done. An offer is good for one device that knows the secret, for one code and for [`LIFETIME`].

mod joining;
mod offering;
mod text;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;

use dunlin_base::Span;
use zeroize::Zeroizing;

pub use joining::{JoinError, Joining};
pub use offering::{ConfirmError, OfferEnd, Offering};
pub use text::{ADDRESSES_MAX, LinkText, LinkTextError, PREFIX, Secret};

use crate::profile::Profile;

/// The protocol under which the streams are opened. Never listed in identify (`spec/security.md` D9).
pub const PROTOCOL: &str = "/dunlin/link/1.0.0";
/// Longest frame, without its length prefix.
pub const FRAME_BYTES_MAX: usize = 2048;
/// How long an offer is good: long enough to find the other device and start it.
pub const LIFETIME: Span = Span::from_secs(600);
/// How long the agreement may take, from the first frame to the code.
pub const AGREEMENT_MAX: Span = Span::from_secs(20);
/// How long the user may take to type the code.
pub const CONFIRM_MAX: Span = Span::from_secs(300);
/// How long handing over may take in all.
pub const TRANSFER_MAX: Span = Span::from_secs(600);
/// How long either side may be silent once the code is shown.
pub const SILENCE_MAX: Span = Span::from_secs(30);
/// How often the old device says that it still waits. A stream ends after ten silent seconds.
pub const WAIT_EVERY: Span = Span::from_secs(4);
/// Archive bytes that go into one frame, beside its kind, its seal and the kind of the piece.
pub const PIECE_BYTES_MAX: usize = 1900;
/// Archive bytes in all: some fifty thousand decisions in the account log.
pub const ARCHIVE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest name that travels, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Streams that may try one offer: more, and somebody is guessing or disturbing.
pub const ATTEMPTS_MAX: u32 = 32;

/// The version of string and stream.
const VERSION: u8 = 1;

/// The kinds of pieces.
const CARD: u8 = 1;
const ARCHIVE: u8 = 2;
const END: u8 = 3;

/// The short code that both devices show: six digits.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Code(u32);

/// Numbers that a code can be.
const CODES: u64 = 1_000_000;

impl Code {
    fn of(number: u64) -> Self {
        Self(u32::try_from(number % CODES).unwrap_or_default())
    }

    /// Reads what a person typed: six digits, with spaces or dashes wherever they like.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|sign| !sign.is_whitespace() && *sign != '-').collect();
        let is_code = digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_code.then(|| digits.parse().ok().map(Self)).flatten()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Codes are shown to people, and not in logs.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

/// Why the old device does not go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// It offers no such link.
    NotOffered,
    /// It is linking another device.
    Busy,
    /// The code was wrong, or its user said no.
    Refused,
    /// It speaks another version.
    Version,
    /// It could not read what is to be handed over, or does not know why.
    Failed,
}

impl Reason {
    fn to_byte(self) -> u8 {
        match self {
            Self::NotOffered => 1,
            Self::Busy => 2,
            Self::Refused => 3,
            Self::Version => 4,
            Self::Failed => 5,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::NotOffered,
            2 => Self::Busy,
            3 => Self::Refused,
            4 => Self::Version,
            _ => Self::Failed,
        }
    }
}

/// The frame that turns away whoever comes while another device is being linked.
pub fn busy() -> Vec<u8> {
    wire::refuse(Reason::Busy)
}

/// What the new device learns first.
#[derive(Clone, Eq, PartialEq)]
pub struct Card {
    /// The network of the account.
    pub profile: Profile,
    /// How its owner is called; empty when they have not said.
    pub name: String,
}

impl Card {
    fn encode(&self) -> Vec<u8> {
        let profile = match self.profile {
            Profile::Berty => 1,
            Profile::Wesh => 2,
        };
        let mut end = self.name.len().min(NAME_BYTES_MAX);
        while !self.name.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        [&[CARD, profile], self.name.as_bytes().get(..end).unwrap_or_default()].concat()
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let (profile, name) = content.split_first()?;
        let profile = match profile {
            1 => Profile::Berty,
            2 => Profile::Wesh,
            _ => return None,
        };
        let fits = name.len() <= NAME_BYTES_MAX;
        Some(Self { profile, name: fits.then(|| std::str::from_utf8(name).ok())??.to_owned() })
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// What either side asks of its shell, in this order.
#[derive(Clone, Eq, PartialEq)]
pub enum LinkAction {
    /// Write a frame with this body.
    Send(Vec<u8>),
    /// Show this code. The old device waits for it to be typed.
    Show(Code),
    /// The old device: the code was right. Hand over the card, the archive of the account group and its end.
    HandOver,
    /// The new device: this is the account's card.
    Card(Card),
    /// The new device: these are the next bytes of the archive.
    Archive(Zeroizing<Vec<u8>>),
    /// The new device: the archive is whole. Store it, then call [`Joining::stored`].
    Store,
    /// Write what was asked for so far, then close the stream. Nothing follows for this stream.
    Close,
}

impl fmt::Debug for LinkAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send(_) => "Send(..)",
            Self::Show(_) => "Show(..)",
            Self::HandOver => "HandOver",
            Self::Card(_) => "Card(..)",
            Self::Archive(_) => "Archive(..)",
            Self::Store => "Store",
            Self::Close => "Close",
        })
    }
}
