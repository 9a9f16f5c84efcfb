//! The first sector of a store: whose file this is, which key opens it, what may be inside.
//!
//! Drawn in `docs/formats/store.md`. It is one sector, so it is on the disk old or new, never mixed.

use std::io;

use dunlin_base::kdf::{hkdf_sha256, sha256};
use dunlin_base::keys::SymmetricKey;
use subtle::ConstantTimeEq;

use crate::disk::Disk;
use crate::error::{Damage, OpenError};

/// What a disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// The format of the file that this release writes, and the newest it reads.
pub const FORMAT: u8 = 1;

/// The meaning of the rows that this release writes, and the only one it understands. Schema 1 was never
/// released.
pub const SCHEMA: u32 = 2;

const MAGIC: [u8; 8] = *b"DUNLINst";
const ID_BYTES: usize = 16;
const CHECK_BYTES: usize = 32;
const BODY_BYTES: usize = SECTOR_BYTES - 32;

/// What the first sector says.
#[derive(Clone, Debug)]
pub struct Header {
    /// Tells this file from others under the same key, so that each has its own sector key.
    pub id: [u8; ID_BYTES],
    /// Whether making the store was finished; before that there is nothing in it to lose.
    pub complete: bool,
    /// The newest schema that rows may have. Raised before the first row of a new schema is written.
    pub schema: u32,
    /// How many of the sectors that follow are the journal's.
    pub journal_sectors: u16,
}

impl Header {
    /// Reads the header; `None` when there is no store yet.
    pub fn read(disk: &dyn Disk, key: &SymmetricKey) -> Result<Option<Self>, OpenError> {
        let len = disk.len()?;
        let mut sector = [0; SECTOR_BYTES];
        if len == 0 {
            return Ok(None);
        }
        if len < SECTOR_BYTES as u64 {
            return Err(OpenError::NotAStore);
        }
        disk.read(0, &mut sector)?;
        if len == SECTOR_BYTES as u64 && sector.iter().all(|byte| *byte == 0) {
            // A crash came between growing the file and writing to it.
            return Ok(None);
        }
        Self::parse(&sector, key).map(Some)
    }

    /// Writes the header and makes it lasting.
    pub fn write(&self, disk: &dyn Disk, key: &SymmetricKey) -> io::Result<()> {
        disk.write(0, &self.to_sector(key))?;
        disk.sync()
    }

    /// The key of the sectors that follow.
    pub fn sector_key(&self, key: &SymmetricKey) -> SymmetricKey {
        SymmetricKey::from_bytes(*derive(key, b"dunlin store 1 sectors", &self.id))
    }

    fn parse(sector: &[u8; SECTOR_BYTES], key: &SymmetricKey) -> Result<Self, OpenError> {
        let mut fields = Fields(sector);
        if fields.take::<8>() != MAGIC {
            return Err(OpenError::NotAStore);
        }
        let [format] = fields.take();
        if format > FORMAT {
            return Err(OpenError::NewerFormat { found: format, known: FORMAT });
        }
        let [complete] = fields.take();
        let journal_sectors = u16::from_be_bytes(fields.take());
        let schema = u32::from_be_bytes(fields.take());
        let id = fields.take::<ID_BYTES>();
        let check = fields.take::<CHECK_BYTES>();
        let (body, sum) = sector.split_at(BODY_BYTES);
        if sha256(&[body]) != *sum || format != FORMAT {
            return Err(OpenError::Damaged(Damage::Header));
        }
        if !bool::from(check.ct_eq(&*check_value(key, &id))) {
            return Err(OpenError::WrongKey);
        }
        if schema > SCHEMA {
            return Err(OpenError::NewerSchema { found: schema, known: SCHEMA });
        }
        if schema < SCHEMA {
            return Err(OpenError::UnreleasedSchema { found: schema });
        }
        Ok(Self { id, complete: complete == 1, schema, journal_sectors })
    }

    fn to_sector(&self, key: &SymmetricKey) -> [u8; SECTOR_BYTES] {
        let mut bytes = Vec::with_capacity(SECTOR_BYTES);
        bytes.extend(MAGIC);
        bytes.extend([FORMAT, u8::from(self.complete)]);
        bytes.extend(self.journal_sectors.to_be_bytes());
        bytes.extend(self.schema.to_be_bytes());
        bytes.extend(self.id);
        bytes.extend(*check_value(key, &self.id));
        bytes.resize(BODY_BYTES, 0);
        bytes.extend(sha256(&[&bytes]));
        let mut sector = [0; SECTOR_BYTES];
        sector.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        sector
    }
}

/// Tells the right key from a wrong one before anything is decrypted. Says nothing about the key itself.
fn check_value(key: &SymmetricKey, id: &[u8; ID_BYTES]) -> zeroize::Zeroizing<[u8; CHECK_BYTES]> {
    derive(key, b"dunlin store 1 check", id)
}

fn derive(key: &SymmetricKey, label: &[u8], id: &[u8; ID_BYTES]) -> zeroize::Zeroizing<[u8; 32]> {
    hkdf_sha256(key.as_bytes(), &[label, id.as_slice()].concat())
}

/// Takes fields of fixed length off the front; behind the end everything is zero.
pub struct Fields<'b>(pub &'b [u8]);

impl Fields<'_> {
    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::SimDisk;

    const KEY: [u8; 32] = [7; 32];

    fn disk_with(header: &Header) -> SimDisk {
        let disk = SimDisk::new(1);
        header.write(&disk, &SymmetricKey::from_bytes(KEY)).unwrap();
        disk
    }

    fn header(schema: u32) -> Header {
        Header { id: [3; ID_BYTES], complete: true, schema, journal_sectors: 600 }
    }

    #[test]
    fn what_is_written_is_read() {
        let disk = disk_with(&header(SCHEMA));
        let found = Header::read(&disk, &SymmetricKey::from_bytes(KEY)).unwrap().unwrap();
        assert_eq!((found.id, found.complete, found.schema), ([3; ID_BYTES], true, SCHEMA));
        assert_eq!(found.journal_sectors, 600);
        let error = Header::read(&disk, &SymmetricKey::from_bytes([8; 32])).unwrap_err();
        assert!(matches!(error, OpenError::WrongKey));
    }

    #[test]
    fn rows_of_a_newer_release_are_left_alone() {
        let disk = disk_with(&header(SCHEMA + 1));
        let before = disk.to_bytes();
        let error = Header::read(&disk, &SymmetricKey::from_bytes(KEY)).unwrap_err();
        assert!(matches!(error, OpenError::NewerSchema { found: 3, known: 2 }));
        assert_eq!(disk.to_bytes(), before);
    }

    #[test]
    fn rows_that_were_never_released_are_left_alone() {
        let disk = disk_with(&header(1));
        let before = disk.to_bytes();
        let error = Header::read(&disk, &SymmetricKey::from_bytes(KEY)).unwrap_err();
        assert!(matches!(error, OpenError::UnreleasedSchema { found: 1 }));
        assert_eq!(disk.to_bytes(), before);
    }

    #[test]
    fn each_store_has_its_own_sector_key() {
        let key = SymmetricKey::from_bytes(KEY);
        let other = Header { id: [4; ID_BYTES], ..header(SCHEMA) };
        assert!(header(SCHEMA).sector_key(&key) != other.sector_key(&key));
        assert!(header(SCHEMA).sector_key(&key) != key);
    }
}
