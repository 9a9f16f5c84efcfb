//! Taking an archive apart as its bytes come.

use std::fmt;

use dunlin_base::{EntryId, SecretKey};
use dunlin_log::{ENTRY_BYTES_MAX, Entry};
use zeroize::Zeroizing;

use super::tar::{BLOCK_BYTES, Header, Kind, padding};
use super::{
    ACCOUNT_KEY, ArchiveError, ENTRIES, GroupHeads, HEADS, HEADS_FILE_BYTES_MAX, KEY_FILE_BYTES_MAX,
    PROOF_KEY,
};

/// A file of an archive, checked as far as it can be by itself.
#[derive(Debug)]
pub enum Item {
    /// The key of the account.
    AccountKey(SecretKey),
    /// The proof key of the account.
    ProofKey(SecretKey),
    /// An entry whose block has the hash that its name says. Its signature is checked by its log.
    Entry(Entry),
    /// The heads of a group.
    Heads(GroupHeads),
}

/// Reads an archive: bytes in, in pieces of any length, files out.
#[derive(Default)]
pub struct ArchiveReader {
    state: State,
    has_account_key: bool,
    has_proof_key: bool,
    left_out: u64,
}

enum State {
    /// In a header.
    Header(Vec<u8>),
    /// In a file that is taken.
    File { file: File, size: usize, body: Zeroizing<Vec<u8>> },
    /// In bytes that nobody wants.
    Skip(u64),
    /// After the first of the two blocks of the end mark.
    EndMark(Vec<u8>),
    /// After the end mark.
    Ended,
    /// After an error.
    Broken,
}

impl Default for State {
    fn default() -> Self {
        Self::Header(Vec::new())
    }
}

/// Files that are taken.
#[derive(Clone, Copy)]
enum File {
    AccountKey,
    ProofKey,
    Entry(EntryId),
    Heads,
}

impl ArchiveReader {
    /// Takes from the beginning of `input` what belongs to the next file; `None` when all of it was taken
    /// and more is needed. What follows the end of the archive is passed over.
    ///
    /// # Errors
    /// [`ArchiveError`]. Nothing more comes out then.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Item>, ArchiveError> {
        let result = self.step(input);
        if result.is_err() {
            self.state = State::Broken;
        }
        result
    }

    /// Notes that no bytes follow.
    ///
    /// # Errors
    /// [`ArchiveError::Truncated`] unless the end mark came.
    pub fn finish(&self) -> Result<(), ArchiveError> {
        match self.state {
            State::Ended => Ok(()),
            _ => Err(ArchiveError::Truncated),
        }
    }

    /// Regular files that were passed over: those with names that mean nothing here, and blocks that no log
    /// here takes, since they are too long or no entries. Go keeps such blocks.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Item>, ArchiveError> {
        loop {
            match &mut self.state {
                State::Header(block) => {
                    let Some(header) = fill(block, input) else { return Ok(None) };
                    self.state = match *header == [0; BLOCK_BYTES] {
                        true => State::EndMark(Vec::new()),
                        false => self.begin(&Header::parse(&header).ok_or(ArchiveError::Header)?)?,
                    };
                }
                State::File { file, size, body } => {
                    take(body, *size, input);
                    if body.len() < *size {
                        return Ok(None);
                    }
                    let item = file.open(body)?;
                    self.state = State::Skip(padding(*size as u64) as u64);
                    match item {
                        Some(item) => return Ok(Some(item)),
                        None => self.left_out = self.left_out.saturating_add(1),
                    }
                }
                State::Skip(0) => self.state = State::default(),
                State::Skip(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    if here == 0 {
                        return Ok(None);
                    }
                    *input = input.get(here..).unwrap_or_default();
                    *left = left.saturating_sub(here as u64);
                }
                State::EndMark(block) => {
                    let Some(second) = fill(block, input) else { return Ok(None) };
                    if *second != [0; BLOCK_BYTES] {
                        return Err(ArchiveError::Header);
                    }
                    self.state = State::Ended;
                }
                State::Ended => {
                    *input = &[];
                    return Ok(None);
                }
                State::Broken => return Err(ArchiveError::Header),
            }
        }
    }

    /// What follows a header.
    fn begin(&mut self, header: &Header) -> Result<State, ArchiveError> {
        let whole = header.size.saturating_add(padding(header.size) as u64);
        match header.kind {
            Kind::File => {}
            Kind::Other => return Ok(State::Skip(whole)),
            Kind::Extension => return Err(ArchiveError::Extension),
        }
        let Some((file, name, most)) = self.file(&header.name)? else {
            self.left_out = self.left_out.saturating_add(1);
            return Ok(State::Skip(whole));
        };
        if header.size == 0 {
            return Err(ArchiveError::Empty { name });
        }
        match usize::try_from(header.size) {
            Ok(size) if size <= most => {
                Ok(State::File { file, size, body: Zeroizing::new(Vec::with_capacity(size)) })
            }
            // The rest of the account is worth having.
            _ if matches!(file, File::Entry(_)) => {
                self.left_out = self.left_out.saturating_add(1);
                Ok(State::Skip(whole))
            }
            _ => Err(ArchiveError::TooLong { name, bytes: header.size, most }),
        }
    }

    /// Which file has this name, what it is called in errors, and how long it may be.
    fn file(&mut self, name: &[u8]) -> Result<Option<(File, &'static str, usize)>, ArchiveError> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        if name == ACCOUNT_KEY {
            once(&mut self.has_account_key, ACCOUNT_KEY)?;
            return Ok(Some((File::AccountKey, ACCOUNT_KEY, KEY_FILE_BYTES_MAX)));
        }
        if name == PROOF_KEY {
            once(&mut self.has_proof_key, PROOF_KEY)?;
            return Ok(Some((File::ProofKey, PROOF_KEY, KEY_FILE_BYTES_MAX)));
        }
        if let Some(cid) = name.strip_prefix(ENTRIES) {
            let id = EntryId::from_cid_text(cid).ok_or(ArchiveError::EntryName)?;
            return Ok(Some((File::Entry(id), ENTRIES, ENTRY_BYTES_MAX)));
        }
        if name.starts_with(HEADS) {
            return Ok(Some((File::Heads, HEADS, HEADS_FILE_BYTES_MAX)));
        }
        Ok(None)
    }
}

impl File {
    /// What the file holds; `None` for a block that is no entry of ours, though it is what its name says.
    fn open(self, body: &[u8]) -> Result<Option<Item>, ArchiveError> {
        let key = |name| SecretKey::from_libp2p(body).map_err(|source| ArchiveError::Key { name, source });
        Ok(match self {
            Self::AccountKey => Some(Item::AccountKey(key(ACCOUNT_KEY)?)),
            Self::ProofKey => Some(Item::ProofKey(key(PROOF_KEY)?)),
            Self::Entry(entry) if entry != EntryId::of_block(body) => {
                return Err(ArchiveError::OtherEntry { entry });
            }
            Self::Entry(_) => Entry::decode(body).ok().map(Item::Entry),
            Self::Heads => Some(Item::Heads(GroupHeads::decode(body).ok_or(ArchiveError::Heads)?)),
        })
    }
}

impl fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveReader").field("left_out", &self.left_out).finish_non_exhaustive()
    }
}

fn once(seen: &mut bool, name: &'static str) -> Result<(), ArchiveError> {
    if std::mem::replace(seen, true) { Err(ArchiveError::Twice { name }) } else { Ok(()) }
}

/// Moves bytes from `input` to `kept` until that has `size`.
fn take(kept: &mut Vec<u8>, size: usize, input: &mut &[u8]) {
    let here = size.saturating_sub(kept.len()).min(input.len());
    let (taken, rest) = input.split_at_checked(here).unwrap_or_default();
    kept.extend_from_slice(taken);
    *input = rest;
}

/// Fills a block; it comes out once it is full.
fn fill(block: &mut Vec<u8>, input: &mut &[u8]) -> Option<Box<[u8; BLOCK_BYTES]>> {
    take(block, BLOCK_BYTES, input);
    block.first_chunk::<BLOCK_BYTES>().map(|whole| Box::new(*whole))
}

#[cfg(test)]
mod tests {
    use super::super::ArchivePart;
    use super::super::tar::{END, put_file};
    use super::*;
    use dunlin_base::keys::SymmetricKey;
    use dunlin_base::{GroupId, PublicKey};

    fn key(number: u8) -> SecretKey {
        SecretKey::from_seed([number; 32])
    }

    fn public(number: u8) -> PublicKey {
        key(number).public()
    }

    fn heads() -> GroupHeads {
        GroupHeads {
            group: GroupId::new(public(3)),
            sign_pub: public(4),
            link_key: SymmetricKey::from_bytes([5; 32]),
            metadata: vec![EntryId::of_block(b"a")],
            messages: vec![EntryId::of_block(b"b"), EntryId::of_block(b"c")],
        }
    }

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, body) in files {
            put_file(&mut bytes, name, body);
        }
        bytes.extend_from_slice(&END);
        bytes
    }

    fn read_all(bytes: &[u8], piece: usize) -> Result<(Vec<Item>, u64), ArchiveError> {
        let mut reader = ArchiveReader::default();
        let mut items = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while let Some(item) = reader.read(&mut piece)? {
                items.push(item);
            }
        }
        reader.finish()?;
        Ok((items, reader.left_out()))
    }

    #[test]
    fn what_is_written_is_read_in_pieces_of_any_length() {
        let mut part = ArchivePart::new();
        for item in [Item::AccountKey(key(1)), Item::ProofKey(key(2)), Item::Heads(heads())] {
            part.put(&item);
        }
        part.end();
        for piece in [1, 7, 512, 5000] {
            let (items, _) = read_all(part.as_bytes(), piece).unwrap();
            let mut again = ArchivePart::new();
            items.iter().for_each(|item| again.put(item));
            again.end();
            assert_eq!(again.as_bytes(), part.as_bytes());
            assert!(matches!(items.as_slice(), [Item::AccountKey(_), Item::ProofKey(_), Item::Heads(_)]));
        }
    }

    #[test]
    fn an_archive_cut_anywhere_is_not_complete() {
        let bytes = archive(&[("account.key", &key(1).to_libp2p()), ("other", b"x")]);
        for end in 0..bytes.len() {
            assert!(matches!(read_all(&bytes[..end], 4096), Err(ArchiveError::Truncated)), "{end}");
        }
    }

    #[test]
    fn each_fault_has_its_error() {
        let account = key(1).to_libp2p();
        let cid = format!("entries/{}", EntryId::of_block(b"x"));
        let long = vec![1; HEADS_FILE_BYTES_MAX + 1];
        type Files<'f> = &'f [(&'f str, &'f [u8])];
        let cases: &[(Files<'_>, fn(&ArchiveError) -> bool)] = &[
            (&[("account.key", &account), ("account.key", &account)], |e| {
                matches!(e, ArchiveError::Twice { name: ACCOUNT_KEY })
            }),
            (&[("account_proof.key", b"key")], |e| matches!(e, ArchiveError::Key { name: PROOF_KEY, .. })),
            (&[("account.key", b"")], |e| matches!(e, ArchiveError::Empty { name: ACCOUNT_KEY })),
            (&[("account.key", &long)], |e| matches!(e, ArchiveError::TooLong { name: ACCOUNT_KEY, .. })),
            (&[("heads/x", &long)], |e| matches!(e, ArchiveError::TooLong { name: HEADS, .. })),
            (&[("heads/x", b"\xff")], |e| matches!(e, ArchiveError::Heads)),
            (&[("entries/../../etc/passwd", b"x")], |e| matches!(e, ArchiveError::EntryName)),
            (&[(&cid, b"y")], |e| matches!(e, ArchiveError::OtherEntry { .. })),
        ];
        for (files, is_expected) in cases {
            let error = read_all(&archive(files), 4096).unwrap_err();
            assert!(is_expected(&error), "{error:?}");
        }
    }

    #[test]
    fn after_an_error_nothing_comes() {
        let mut reader = ArchiveReader::default();
        let damaged = [1; BLOCK_BYTES];
        assert!(matches!(reader.read(&mut damaged.as_slice()), Err(ArchiveError::Header)));
        let good = archive(&[("account.key", &key(1).to_libp2p())]);
        assert!(reader.read(&mut good.as_slice()).is_err());
        assert!(reader.finish().is_err());
    }

    /// Names of other files, blocks that no log takes, and a claimed size without end.
    #[test]
    fn what_is_not_wanted_takes_no_memory() {
        let long = vec![1; ENTRY_BYTES_MAX + 1];
        let cid = |block| format!("entries/{}", EntryId::of_block(block));
        let (too_long, no_entry) = (cid(&long), cid(b"x"));
        let files: [(&str, &[u8]); 4] =
            [("messenger.db", b"x"), ("/account.key", b"x"), (&too_long, &long), (&no_entry, b"x")];
        let (items, left_out) = read_all(&archive(&files), 4096).unwrap();
        assert!(items.is_empty());
        assert_eq!(left_out, 4);

        let mut endless = Vec::new();
        put_file(&mut endless, "unknown", b"");
        endless[124..136].copy_from_slice(b"77777777777\0");
        endless[148..156].copy_from_slice(b"        ");
        let sum: u32 = endless.iter().map(|byte| u32::from(*byte)).sum();
        endless[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        endless.extend_from_slice(&[1; 5000]);
        assert!(matches!(read_all(&endless, 4096), Err(ArchiveError::Truncated)));
    }

    #[test]
    fn secret_types_show_nothing() {
        let shown = format!("{:?}", [Item::AccountKey(key(1)), Item::ProofKey(key(2))]);
        assert_eq!(shown, "[AccountKey(SecretKey(..)), ProofKey(SecretKey(..))]");
        assert!(format!("{:?}", heads()).contains("link_key: SymmetricKey(..)"));
    }
}
