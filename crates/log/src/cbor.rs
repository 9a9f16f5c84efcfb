//! The little CBOR that entries and manifests are made of: definite lengths, shortest heads, text keys in a fixed order.
//!
//! The reader never recurses: the shape of an entry is written out in its decoder, three maps deep, so
//! the depth limit of `spec/security.md` V2 holds by construction.

use dunlin_base::EntryId;

/// Why a block is not an entry. The block is refused and becomes a hole in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The block ends inside an item.
    #[error("the block ends too early")]
    Truncated,
    /// A length or an integer is not written in its only allowed form.
    #[error("an item is not in canonical form")]
    NotCanonical,
    /// Another item stands where this one belongs.
    #[error("{0} was expected")]
    Expected(&'static str),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
    /// Bytes are not written as lower-case hexadecimal text.
    #[error("a byte field is not lower-case hexadecimal")]
    NotHex,
    /// A link names something that cannot be an entry.
    #[error("a link is not the CID of an entry")]
    NotALink,
    /// The entry is of another version than 2.
    #[error("entries of version {0} are not supported")]
    Version(i64),
    /// More bytes follow the entry.
    #[error("bytes follow the entry")]
    Trailing,
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const NULL: u8 = 0xf6;
/// A link up to its digest: tag 42, 37 bytes, the multibase zero, then version 1, dag-cbor, SHA2-256.
const LINK_PREFIX: [u8; 9] = [0xd8, 0x2a, 0x58, 0x25, 0x00, 0x01, 0x71, 0x12, 0x20];
/// Length of an encoded link.
pub(crate) const LINK_BYTES: usize = LINK_PREFIX.len() + 32;

/// Reads one item after the other off a block.
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(crate) fn new(block: &'b [u8]) -> Self {
        Self { rest: block }
    }

    pub(crate) fn map(&mut self) -> Result<u64, DecodeError> {
        self.head(MAP, "a map")
    }

    pub(crate) fn key(&mut self, name: &'static str) -> Result<(), DecodeError> {
        if self.text()? == name { Ok(()) } else { Err(DecodeError::Expected(name)) }
    }

    pub(crate) fn text(&mut self) -> Result<&'b str, DecodeError> {
        let length = self.head(TEXT, "a text")?;
        let bytes = self.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotText)
    }

    pub(crate) fn hex(&mut self) -> Result<Vec<u8>, DecodeError> {
        let text = self.text()?;
        data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| DecodeError::NotHex)
    }

    pub(crate) fn integer(&mut self) -> Result<i64, DecodeError> {
        let (major, argument) = self.any_head()?;
        let magnitude = i64::try_from(argument).map_err(|_| DecodeError::Expected("a 64-bit integer"))?;
        match major {
            UNSIGNED => Ok(magnitude),
            NEGATIVE => Ok(!magnitude),
            _ => Err(DecodeError::Expected("an integer")),
        }
    }

    pub(crate) fn null(&mut self) -> Result<(), DecodeError> {
        match self.take(1)? {
            [NULL] => Ok(()),
            _ => Err(DecodeError::Expected("null")),
        }
    }

    pub(crate) fn links(&mut self) -> Result<Vec<EntryId>, DecodeError> {
        let count = self.head(ARRAY, "a list of links")?;
        // What the block cannot hold is not reserved either.
        let fits = usize::try_from(count).map_err(|_| DecodeError::Truncated)?;
        if fits > self.rest.len() / LINK_BYTES {
            return Err(DecodeError::Truncated);
        }
        (0..fits).map(|_| self.link()).collect()
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }

    fn link(&mut self) -> Result<EntryId, DecodeError> {
        let bytes = self.take(LINK_BYTES)?;
        let digest = bytes.strip_prefix(&LINK_PREFIX).ok_or(DecodeError::NotALink)?;
        EntryId::from_slice(digest).ok_or(DecodeError::NotALink)
    }

    fn head(&mut self, major: u8, expected: &'static str) -> Result<u64, DecodeError> {
        let (found, argument) = self.any_head()?;
        if found == major { Ok(argument) } else { Err(DecodeError::Expected(expected)) }
    }

    /// Major type and argument; the argument must be written in as few bytes as it fits into.
    fn any_head(&mut self) -> Result<(u8, u64), DecodeError> {
        let [initial] = *self.array::<1>()?;
        let (argument, smallest) = match initial & 0x1f {
            small @ 0..24 => (u64::from(small), 0),
            24 => (u64::from(u8::from_be_bytes(*self.array()?)), 24),
            25 => (u64::from(u16::from_be_bytes(*self.array()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(*self.array()?)), 1 << 16),
            27 => (u64::from_be_bytes(*self.array()?), 1 << 32),
            _ => return Err(DecodeError::NotCanonical),
        };
        if argument < smallest {
            return Err(DecodeError::NotCanonical);
        }
        Ok((initial >> 5, argument))
    }

    fn array<const N: usize>(&mut self) -> Result<&'b [u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

/// Appends the head of a map of `pairs` pairs.
pub fn put_map(out: &mut Vec<u8>, pairs: u64) {
    put_head(out, MAP, pairs);
}

/// Appends a text.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    put_text(out, &data_encoding::HEXLOWER.encode(bytes));
}

pub(crate) fn put_integer(out: &mut Vec<u8>, value: i64) {
    let (major, magnitude) = if value < 0 { (NEGATIVE, !value) } else { (UNSIGNED, value) };
    put_head(out, major, magnitude.unsigned_abs());
}

pub(crate) fn put_null(out: &mut Vec<u8>) {
    out.push(NULL);
}

pub(crate) fn put_links(out: &mut Vec<u8>, links: &[EntryId]) {
    put_head(out, ARRAY, links.len() as u64);
    for link in links {
        out.extend_from_slice(&LINK_PREFIX);
        out.extend_from_slice(link.digest());
    }
}

fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let initial = major << 5;
    let bytes = argument.to_be_bytes();
    let (detail, tail) = match argument {
        0..24 => {
            out.push(initial | argument.to_le_bytes().first().copied().unwrap_or_default());
            return;
        }
        24..=0xff => (24, bytes.last_chunk::<1>().map(<[u8; 1]>::as_slice)),
        0x100..=0xffff => (25, bytes.last_chunk::<2>().map(<[u8; 2]>::as_slice)),
        0x1_0000..=0xffff_ffff => (26, bytes.last_chunk::<4>().map(<[u8; 4]>::as_slice)),
        _ => (27, Some(bytes.as_slice())),
    };
    out.push(initial | detail);
    out.extend_from_slice(tail.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, 1 << 32, i64::MAX, -1, -24, -25, i64::MIN] {
            let mut bytes = Vec::new();
            put_integer(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.integer(), Ok(value), "{bytes:02x?}");
            assert_eq!(reader.end(), Ok(()));
        }
        let longer: [&[u8]; 4] =
            [&[0x18, 23], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 1, 0, 0, 0]];
        for bytes in longer {
            assert_eq!(Reader::new(bytes).integer(), Err(DecodeError::NotCanonical), "{bytes:02x?}");
        }
        let beyond = [0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Reader::new(&beyond).integer(), Err(DecodeError::Expected("a 64-bit integer")));
    }

    #[test]
    fn announced_lengths_reserve_nothing() {
        assert_eq!(Reader::new(&[0x9b, 0, 0, 0, 1, 0, 0, 0, 0]).links(), Err(DecodeError::Truncated));
        assert_eq!(
            Reader::new(&[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).text(),
            Err(DecodeError::Truncated)
        );
        assert_eq!(Reader::new(&[0x9f, 0xff]).links(), Err(DecodeError::NotCanonical));
    }

    #[test]
    fn links_are_cids_of_entries() {
        let id = EntryId::of_block(b"entry");
        let mut bytes = Vec::new();
        put_links(&mut bytes, &[id]);
        assert_eq!(Reader::new(&bytes).links(), Ok(vec![id]));
        bytes[7] = 0x70;
        assert_eq!(Reader::new(&bytes).links(), Err(DecodeError::NotALink));
    }
}
