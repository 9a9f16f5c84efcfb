//! The container: ustar headers as Go's `archive/tar` writes them, and as far as it reads them.

/// Headers, and the units in which files are padded.
pub(super) const BLOCK_BYTES: usize = 512;
/// What an archive ends with.
pub(super) const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// The fields of a header, as ranges of its bytes.
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const UID: std::ops::Range<usize> = 108..116;
const GID: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..265;
const DEVICE_MAJOR: std::ops::Range<usize> = 329..337;
const DEVICE_MINOR: std::ops::Range<usize> = 337..345;
const PREFIX: std::ops::Range<usize> = 345..500;

/// What a header says of the bytes that follow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// Something of which nothing is taken.
    Other,
    /// A record that changes what the next header means.
    Extension,
}

/// A header, read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub name: Vec<u8>,
    pub size: u64,
    pub kind: Kind,
}

impl Header {
    /// Reads a header; `None` when its checksum is wrong or its size is no number.
    pub fn parse(block: &[u8; BLOCK_BYTES]) -> Option<Self> {
        if octal(block.get(CHECKSUM)?)? != checksum(block) {
            return None;
        }
        let mut name = text(block.get(NAME)?).to_vec();
        let prefix = text(block.get(PREFIX)?);
        if block.get(MAGIC)? == b"ustar\x0000" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let size = octal(block.get(SIZE)?)?;
        let (kind, size) = match block.get(KIND)? {
            b'0' | 0 => (Kind::File, size),
            // Links, devices, folders: nothing follows them, whatever size they claim.
            b'1'..=b'6' => (Kind::Other, 0),
            b'x' | b'g' | b'L' | b'K' => (Kind::Extension, size),
            _ => (Kind::Other, size),
        };
        Some(Self { name, size, kind })
    }
}

/// Appends a file. Of `name`, which is ASCII, 100 bytes are written; names here have up to 67.
pub(super) fn put_file(out: &mut Vec<u8>, name: &str, body: &[u8]) {
    out.extend_from_slice(&header(name, body.len()));
    out.extend_from_slice(body);
    out.resize(out.len().saturating_add(padding(body.len() as u64)), 0);
}

/// How many bytes a file of `size` bytes takes in an archive.
pub(super) const fn file_bytes(size: usize) -> usize {
    size.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES
}

/// How many bytes follow a file of `size` bytes before the next header.
pub(super) fn padding(size: u64) -> usize {
    let over = (size % BLOCK_BYTES as u64) as usize;
    if over == 0 { 0 } else { BLOCK_BYTES - over }
}

fn header(name: &str, size: usize) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    put(&mut block, NAME, name.as_bytes());
    put(&mut block, MODE, b"0000600");
    for field in [UID, GID, DEVICE_MAJOR, DEVICE_MINOR] {
        put(&mut block, field, b"0000000");
    }
    put(&mut block, SIZE, format!("{size:011o}").as_bytes());
    put(&mut block, MTIME, b"00000000000");
    put(&mut block, KIND..KIND + 1, b"0");
    put(&mut block, MAGIC, b"ustar\x0000");
    let checksum = checksum(&block);
    put(&mut block, CHECKSUM, format!("{checksum:06o}\0 ").as_bytes());
    block
}

/// Copies `value` to the beginning of a field.
fn put(block: &mut [u8; BLOCK_BYTES], field: std::ops::Range<usize>, value: &[u8]) {
    let place = block.get_mut(field).unwrap_or_default();
    place.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
}

/// The sum of all bytes, those of the checksum itself taken for spaces.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u64 {
    let bytes = block.iter().enumerate();
    bytes.map(|(at, byte)| u64::from(if CHECKSUM.contains(&at) { b' ' } else { *byte })).sum()
}

/// The part of a field before the first zero.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The number in a field: octal digits between spaces or zeros. `None` for anything else, also for the
/// binary form, which only files beyond eight gigabytes need.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    match text.trim_matches([' ', '\0']) {
        "" => Some(0),
        digits if digits.bytes().all(|digit| digit.is_ascii_digit()) => u64::from_str_radix(digits, 8).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_written() {
        let block = header("entries/bafy", 1194);
        let read = Header::parse(&block).unwrap();
        assert_eq!(read, Header { name: b"entries/bafy".to_vec(), size: 1194, kind: Kind::File });
        assert_eq!(&block[SIZE], b"00000002252\0");
    }

    #[test]
    fn a_changed_header_is_refused() {
        for at in [0, 99, 124, 156, 300, 511] {
            let mut block = header("account.key", 68);
            block[at] ^= 1;
            assert_eq!(Header::parse(&block), None, "byte {at}");
        }
    }

    #[test]
    fn sizes_are_octal_and_nothing_else() {
        for (field, number) in [
            (b"00000000104\0".as_slice(), Some(68)),
            (b"        104 ", Some(68)),
            (b"\0\0\0\0", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\0\0\0\x01", None),
            (b"-0000000104\0", None),
            (b"+0000000104\0", None),
            (b"00000000108\0", None),
            (b"0000 000104\0", None),
        ] {
            assert_eq!(octal(field), number, "{field:?}");
        }
    }

    #[test]
    fn links_and_folders_have_no_body_and_extensions_are_told() {
        for (kind, expected) in [
            (b'1', (Kind::Other, 0)),
            (b'2', (Kind::Other, 0)),
            (b'5', (Kind::Other, 0)),
            (b'7', (Kind::Other, 68)),
            (b'x', (Kind::Extension, 68)),
            (b'L', (Kind::Extension, 68)),
        ] {
            let mut block = header("entries", 68);
            block[KIND] = kind;
            let sum = checksum(&block);
            put(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
            let read = Header::parse(&block).unwrap();
            assert_eq!((read.kind, read.size), expected);
        }
    }

    #[test]
    fn a_prefix_is_part_of_the_name() {
        let mut block = header("account.key", 68);
        put(&mut block, PREFIX, b"../elsewhere");
        let sum = checksum(&block);
        put(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Header::parse(&block).unwrap().name, b"../elsewhere/account.key");
    }

    #[test]
    fn files_are_padded_to_whole_blocks() {
        for size in [0, 1, 511, 512, 513] {
            let mut out = Vec::new();
            put_file(&mut out, "x", &vec![1; size]);
            assert_eq!(out.len(), file_bytes(size));
            assert_eq!(out.len() % BLOCK_BYTES, 0);
        }
    }
}
