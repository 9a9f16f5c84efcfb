//! An archive under a passphrase (`spec/security.md` S3, §3.9), drawn in `docs/formats/archive.md`.
//!
//! What is inside is an archive as in the [module](super), in chunks that are sealed one by one, so that it can be
//! written and read as the bytes come. Whatever was opened is what was written: no chunk can be changed, left out, doubled
//! or moved, and none is missing at the end.
//!
//! ```
//! use dunlin_base::passphrase::Cost;
//! use dunlin_wesh::archive::{SealedHead, Sealer};
//! # use rand_core::SeedableRng;
//! # let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(1);
//! # let cost = Cost { memory_kib: 8, ..Cost::CHOSEN };
//!
//! let mut sealer = Sealer::new("correct horse", cost, &mut rng)?;
//! let mut file = sealer.head().to_vec();
//! file.extend(sealer.seal(b"what is in the archive")?);
//! file.extend(sealer.finish()?);
//!
//! let (head, chunks) = file.split_first_chunk().unwrap();
//! let mut opener = SealedHead::parse(head)?.unlock("correct horse")?;
//! let mut clear = opener.feed(chunks)?;
//! clear.extend_from_slice(&opener.finish()?);
//! assert_eq!(*clear, b"what is in the archive");
//! # Ok::<(), dunlin_wesh::archive::SealedArchiveError>(())
//! ```

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use dunlin_base::kdf::sha256;
use dunlin_base::passphrase::{Cost, SALT_BYTES};
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

/// With what a sealed archive begins. A tar of the files of an account never does.
pub const SEALED_MAGIC: [u8; 8] = *b"DUNLINex";
/// Bytes before the first chunk.
pub const SEALED_HEAD_BYTES: usize = FRONT_BYTES + SUM_BYTES + TAG_BYTES;
/// Bytes of a chunk before it is sealed; the last one may have fewer.
pub const SEALED_CHUNK_BYTES: usize = 64 * 1024;

const VERSION: u8 = 1;
const KIND_PASSPHRASE: u8 = 1;
const PREFIX_BYTES: usize = 19;
const TAG_BYTES: usize = 16;
const SUM_BYTES: usize = 32;
/// Everything before the sum. Every seal covers it.
const FRONT_BYTES: usize = SEALED_MAGIC.len() + 2 + Cost::BYTES + SALT_BYTES + PREFIX_BYTES;
const CHUNK_SEALED_BYTES: usize = SEALED_CHUNK_BYTES + TAG_BYTES;

/// What the last byte of a nonce says about what was sealed with it.
const MORE: u8 = 0;
const LAST: u8 = 1;
const HEAD: u8 = 2;

/// Why a sealed archive cannot be read or written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SealedArchiveError {
    /// It does not begin as one.
    #[error("this is no sealed archive")]
    Other,
    /// It was written by a later version. Update this one.
    #[error("the archive was written by a newer version ({found}, this one knows {VERSION}): update Dunlin")]
    Newer {
        /// Its version.
        found: u8,
    },
    /// It asks for more memory or time than any archive does.
    #[error(
        "the archive asks for more memory or time than any archive does: it is damaged, or meant to harm"
    )]
    Cost,
    /// Bytes were changed.
    #[error("the archive is damaged: take another copy of it")]
    Damaged,
    /// The archive is whole, as far as can be seen without its passphrase, and this is not it.
    #[error("the passphrase does not open the archive")]
    WrongPassphrase,
    /// The file ends before the archive does, or its end was changed.
    #[error("the end of the archive is missing or damaged: take another copy of it")]
    End,
    /// It would have more chunks than can be counted.
    #[error("the archive is too long")]
    TooLong,
}

/// Whether a file that begins so is a sealed archive.
pub fn is_sealed(beginning: &[u8]) -> bool {
    beginning.starts_with(&SEALED_MAGIC)
}

/// The key of one archive, and the number of the next chunk.
struct Chunks {
    cipher: XChaCha20Poly1305,
    front: [u8; FRONT_BYTES],
    next: u32,
}

/// Writes a sealed archive.
pub struct Sealer {
    chunks: Chunks,
    head: [u8; SEALED_HEAD_BYTES],
    clear: Zeroizing<Vec<u8>>,
}

impl Sealer {
    /// Begins an archive that opens with `passphrase`, which costs `cost` to try.
    ///
    /// # Errors
    /// [`SealedArchiveError::Cost`] when Argon2id knows no such cost.
    pub fn new(
        passphrase: &str,
        cost: Cost,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, SealedArchiveError> {
        let (mut salt, mut prefix) = ([0; SALT_BYTES], [0; PREFIX_BYTES]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut prefix);
        let front = SealedHead { cost, salt, prefix }.front();
        let chunks = Chunks::new(passphrase, cost, &salt, front)?;
        let tag = chunks.tag_of_head()?;
        let mut head = [0; SEALED_HEAD_BYTES];
        head.copy_from_slice(&[front.as_slice(), &sha256(&[&front]), &tag].concat());
        let clear = Zeroizing::new(Vec::with_capacity(CHUNK_SEALED_BYTES));
        Ok(Self { chunks, head, clear })
    }

    /// What the file begins with.
    pub fn head(&self) -> &[u8; SEALED_HEAD_BYTES] {
        &self.head
    }

    /// Takes more of the archive; gives what of the file follows from it.
    ///
    /// # Errors
    /// [`SealedArchiveError::TooLong`].
    pub fn seal(&mut self, mut clear: &[u8]) -> Result<Vec<u8>, SealedArchiveError> {
        let mut file = Vec::new();
        while !clear.is_empty() {
            // A full chunk is sealed when more comes: until then it may be the last.
            if self.clear.len() == SEALED_CHUNK_BYTES {
                self.put_chunk(MORE, &mut file)?;
            }
            let room = SEALED_CHUNK_BYTES.saturating_sub(self.clear.len());
            let (now, rest) = clear.split_at(room.min(clear.len()));
            self.clear.extend_from_slice(now);
            clear = rest;
        }
        Ok(file)
    }

    /// Ends the archive; gives the end of the file.
    ///
    /// # Errors
    /// [`SealedArchiveError::TooLong`].
    pub fn finish(mut self) -> Result<Vec<u8>, SealedArchiveError> {
        let mut file = Vec::new();
        self.put_chunk(LAST, &mut file)?;
        Ok(file)
    }

    fn put_chunk(&mut self, kind: u8, file: &mut Vec<u8>) -> Result<(), SealedArchiveError> {
        let nonce = self.chunks.take_nonce(kind)?;
        let tag = self.chunks.cipher.encrypt_in_place_detached(&nonce, &self.chunks.front, &mut self.clear);
        file.extend_from_slice(&self.clear);
        file.extend(tag.map_err(|_| SealedArchiveError::TooLong)?);
        self.clear.clear();
        Ok(())
    }
}

/// The head of a sealed archive, before a passphrase was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedHead {
    cost: Cost,
    salt: [u8; SALT_BYTES],
    prefix: [u8; PREFIX_BYTES],
}

/// A head that was read, with the seal that a passphrase has to open.
#[derive(Clone, Debug)]
pub struct LockedArchive {
    head: SealedHead,
    tag: [u8; TAG_BYTES],
}

impl SealedHead {
    /// Reads a head. Nothing is spent on it yet.
    ///
    /// # Errors
    /// [`SealedArchiveError`], but for a wrong passphrase.
    pub fn parse(head: &[u8; SEALED_HEAD_BYTES]) -> Result<LockedArchive, SealedArchiveError> {
        if !is_sealed(head) {
            return Err(SealedArchiveError::Other);
        }
        let damaged = SealedArchiveError::Damaged;
        let (_, rest) = head.split_first_chunk::<8>().ok_or(damaged)?;
        let ([version, kind], rest) = rest.split_first_chunk::<2>().ok_or(damaged)?;
        if *version > VERSION {
            return Err(SealedArchiveError::Newer { found: *version });
        }
        let (cost, rest) = rest.split_first_chunk::<{ Cost::BYTES }>().ok_or(damaged)?;
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().ok_or(damaged)?;
        let (prefix, rest) = rest.split_first_chunk::<PREFIX_BYTES>().ok_or(damaged)?;
        let (sum, tag) = rest.split_first_chunk::<SUM_BYTES>().ok_or(damaged)?;
        let front = head.get(..FRONT_BYTES).ok_or(damaged)?;
        if sha256(&[front]) != *sum || (*version, *kind) != (VERSION, KIND_PASSPHRASE) {
            return Err(damaged);
        }
        let cost = Cost::from_bytes(cost).ok_or(SealedArchiveError::Cost)?;
        let head = Self { cost, salt: *salt, prefix: *prefix };
        Ok(LockedArchive { head, tag: tag.try_into().map_err(|_| damaged)? })
    }

    fn front(&self) -> [u8; FRONT_BYTES] {
        let parts = [
            SEALED_MAGIC.as_slice(),
            &[VERSION, KIND_PASSPHRASE],
            &self.cost.to_bytes(),
            &self.salt,
            &self.prefix,
        ];
        let mut front = [0; FRONT_BYTES];
        front.copy_from_slice(&parts.concat());
        front
    }
}

impl LockedArchive {
    /// What trying a passphrase costs.
    pub fn cost(&self) -> Cost {
        self.head.cost
    }

    /// Tries a passphrase. Slow on purpose.
    ///
    /// # Errors
    /// [`SealedArchiveError::WrongPassphrase`] or [`SealedArchiveError::Cost`].
    pub fn unlock(&self, passphrase: &str) -> Result<Opener, SealedArchiveError> {
        let chunks = Chunks::new(passphrase, self.head.cost, &self.head.salt, self.head.front())?;
        let nonce = chunks.nonce(0, HEAD);
        let opened = chunks.cipher.decrypt_in_place_detached(
            &nonce,
            &chunks.front,
            &mut [],
            Tag::from_slice(&self.tag),
        );
        opened.map_err(|_| SealedArchiveError::WrongPassphrase)?;
        Ok(Opener { chunks, sealed: Vec::new() })
    }
}

/// Reads a sealed archive. Holds one chunk, and what it was fed.
pub struct Opener {
    chunks: Chunks,
    sealed: Vec<u8>,
}

impl Opener {
    /// Takes more of the file; gives what is inside.
    ///
    /// # Errors
    /// [`SealedArchiveError::Damaged`]: nothing more can be read.
    pub fn feed(&mut self, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealedArchiveError> {
        self.sealed.extend_from_slice(file);
        let mut clear = Zeroizing::new(Vec::with_capacity(self.sealed.len()));
        let mut rest = self.sealed.as_slice();
        // A chunk that nothing follows may be the last.
        while let Some((chunk, behind)) = rest.split_at_checked(CHUNK_SEALED_BYTES)
            && !behind.is_empty()
        {
            let nonce = self.chunks.take_nonce(MORE)?;
            self.chunks.open(&nonce, chunk, &mut clear).ok_or(SealedArchiveError::Damaged)?;
            rest = behind;
        }
        self.sealed = rest.to_vec();
        Ok(clear)
    }

    /// Ends the file; gives the end of what is inside.
    ///
    /// # Errors
    /// [`SealedArchiveError::End`].
    pub fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, SealedArchiveError> {
        let nonce = self.chunks.take_nonce(LAST)?;
        let mut clear = Zeroizing::new(Vec::with_capacity(self.sealed.len()));
        self.chunks.open(&nonce, &self.sealed, &mut clear).ok_or(SealedArchiveError::End)?;
        Ok(clear)
    }
}

impl Chunks {
    fn new(
        passphrase: &str,
        cost: Cost,
        salt: &[u8; SALT_BYTES],
        front: [u8; FRONT_BYTES],
    ) -> Result<Self, SealedArchiveError> {
        let key = cost.stretch(passphrase, salt).ok_or(SealedArchiveError::Cost)?;
        Ok(Self { cipher: XChaCha20Poly1305::new((&*key).into()), front, next: 0 })
    }

    /// The nonce of the next chunk. None comes twice.
    fn take_nonce(&mut self, kind: u8) -> Result<XNonce, SealedArchiveError> {
        let nonce = self.nonce(self.next, kind);
        self.next = self.next.checked_add(1).ok_or(SealedArchiveError::TooLong)?;
        Ok(nonce)
    }

    fn nonce(&self, number: u32, kind: u8) -> XNonce {
        let prefix = self.front.last_chunk::<PREFIX_BYTES>().unwrap_or(&[0; PREFIX_BYTES]);
        let mut nonce = XNonce::default();
        nonce.copy_from_slice(&[prefix.as_slice(), &number.to_be_bytes(), &[kind]].concat());
        nonce
    }

    /// The seal of nothing, under the key: who has another one sees it here.
    fn tag_of_head(&self) -> Result<[u8; TAG_BYTES], SealedArchiveError> {
        let nonce = self.nonce(0, HEAD);
        let tag = self.cipher.encrypt_in_place_detached(&nonce, &self.front, &mut []);
        tag.map(Into::into).map_err(|_| SealedArchiveError::TooLong)
    }

    /// Opens a chunk behind what is in `clear`, which has room for it.
    fn open(&self, nonce: &XNonce, chunk: &[u8], clear: &mut Vec<u8>) -> Option<()> {
        let (sealed, tag) = chunk.split_last_chunk::<TAG_BYTES>()?;
        let before = clear.len();
        clear.extend_from_slice(sealed);
        let place = clear.get_mut(before..)?;
        let opened = self.cipher.decrypt_in_place_detached(nonce, &self.front, place, tag.into());
        if opened.is_err() {
            clear.truncate(before);
        }
        opened.ok()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
