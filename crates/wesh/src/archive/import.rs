//! Putting an archive into an empty store.

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{EntryId, GroupId, PublicKey, SecretKey};
use dunlin_log::{Entry, Ingest, Log, LogTag, block_in};
use dunlin_orbitdb::{StoreAddress, shared_store};
use rand_core::{CryptoRng, RngCore};

use super::{ACCOUNT_KEY, ArchiveError, ArchiveReader, GroupHeads, Item, PROOF_KEY};
use crate::errors::{Code, Coded};
use crate::keys::{self, AccountKeys, ImportError};
use crate::profile::Profile;
use crate::tables;

/// Why an archive was not imported.
///
/// What was stored before stays in the store, which holds no account yet: import again, or remove it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportArchiveError {
    /// The store could not be read. Try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The keys cannot be taken over, or the store holds an account.
    #[error(transparent)]
    Keys(#[from] ImportError),
    /// A key is not in the archive.
    #[error("the archive holds no {name}")]
    NoKey {
        /// Which file is missing.
        name: &'static str,
    },
    /// The archive comes from a node of the other profile, whose groups this one never meets. Import it
    /// under that profile.
    #[error("the archive is one of the profile `{}`", profile.name())]
    OtherProfile {
        /// The profile of the archive.
        profile: Profile,
    },
}

impl Coded for ImportArchiveError {
    fn codes(&self) -> Vec<Code> {
        let within = |codes| [vec![Code::ErrInternal], codes].concat();
        within(match self {
            Self::Read(_) => vec![Code::ErrDbRead],
            Self::Archive(error) => error.codes(),
            Self::Keys(error) => within(error.codes()),
            Self::NoKey { .. } => {
                vec![Code::ErrInternal, Code::ErrDeserialization, Code::ErrInvalidInput]
            }
            Self::OtherProfile { .. } => vec![Code::ErrInternal, Code::ErrInvalidInput],
        })
    }
}

/// What came out of an archive.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Imported {
    /// Entries that are stored.
    pub entries: u64,
    /// Entries that their log refused, or that belong to no log of a group.
    pub refused: u64,
    /// Files with names that mean nothing here, and blocks that no log here takes.
    pub left_out: u64,
    /// Heads whose entry is not in the archive. Peers that have it will be asked.
    pub heads_missing: u64,
}

/// An import under way.
///
/// The bytes come in pieces, and the caller may commit after each, so an archive of any length takes the
/// memory of one piece. As long as the import has not ended the store opens as no account; when it breaks
/// off, it can be begun again on the same store. Entries go through their logs like those from any peer;
/// they join, and are folded, when the engine is opened and their group is activated.
pub struct Import {
    profile: Profile,
    reader: ArchiveReader,
    account: Option<SecretKey>,
    proof: Option<SecretKey>,
    /// The log of the last entry: those of one log come one after another.
    log: Option<Log>,
    imported: Imported,
}

impl Import {
    /// Begins an import into an empty store, or into one where an import broke off.
    ///
    /// # Errors
    /// [`ImportError::AccountExists`] when there are keys in the store.
    pub fn begin(tx: &mut Tx<'_>, profile: Profile) -> Result<Self, ImportArchiveError> {
        let keys = tx.collect(tables::KEYS, &KeyRange::default(), Direction::Ascending, 2)?;
        if keys.iter().any(|(name, _)| name != keys::IMPORTING.as_bytes()) {
            return Err(ImportError::AccountExists.into());
        }
        tx.put(tables::KEYS, keys::IMPORTING.as_bytes(), &[]);
        Ok(Self {
            profile,
            reader: ArchiveReader::default(),
            account: None,
            proof: None,
            log: None,
            imported: Imported::default(),
        })
    }

    /// Takes the next bytes of the archive.
    ///
    /// # Errors
    /// [`ImportArchiveError`]; the import is over then.
    pub fn feed(&mut self, tx: &mut Tx<'_>, mut bytes: &[u8]) -> Result<(), ImportArchiveError> {
        while let Some(item) = self.reader.read(&mut bytes)? {
            match item {
                Item::AccountKey(key) => self.account = Some(key),
                Item::ProofKey(key) => self.proof = Some(key),
                Item::Entry(entry) => self.take_entry(tx, &entry)?,
                Item::Heads(heads) => self.note_heads(tx, &heads)?,
            }
        }
        Ok(())
    }

    /// Ends the import: from here on the store holds the account, with a new device key.
    ///
    /// # Errors
    /// [`ImportArchiveError`], also when the archive was not complete.
    pub fn finish(
        mut self,
        tx: &mut Tx<'_>,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Imported, ImportArchiveError> {
        self.reader.finish()?;
        let account = self.account.ok_or(ImportArchiveError::NoKey { name: ACCOUNT_KEY })?;
        let proof = self.proof.ok_or(ImportArchiveError::NoKey { name: PROOF_KEY })?;
        let keys = AccountKeys::import(tx, &account.to_libp2p(), &proof.to_libp2p(), rng)?;
        keys.store(tx);
        tx.delete(tables::KEYS, keys::IMPORTING.as_bytes());
        self.imported.left_out = self.reader.left_out();
        Ok(self.imported)
    }

    fn take_entry(&mut self, tx: &mut Tx<'_>, entry: &Entry) -> Result<(), ImportArchiveError> {
        if self.log.as_ref().is_none_or(|log| log.id() != entry.log_id()) {
            self.log = self.log_of(entry)?;
        }
        let became = match &mut self.log {
            Some(log) => Some(log.ingest(tx, entry.block())?),
            None => None,
        };
        match became {
            Some(Ingest::Stored { .. } | Ingest::Known) => self.imported.entries += 1,
            Some(Ingest::Refused(_)) | None => self.imported.refused += 1,
        }
        Ok(())
    }

    /// The log that an entry says it belongs to, if that is a store of a group: its address follows from the
    /// group, the type and the key that it is written with, all of which the entry names.
    fn log_of(&self, entry: &Entry) -> Result<Option<Log>, ImportArchiveError> {
        let named = entry.log_id().rsplit_once('/').and_then(|(_, name)| name.split_once('_'));
        let Some((group, store)) = named else { return Ok(None) };
        let group = hex::decode(group).ok().and_then(|group| GroupId::from_bytes(&group).ok());
        let (Some(group), Ok(write)) = (group, PublicKey::from_libp2p(entry.key())) else { return Ok(None) };
        let address = StoreAddress::new(&group, store, &write);
        if address.to_string() != entry.log_id() {
            return Ok(None);
        }
        match Profile::of_store(store) {
            Some(profile) if profile == self.profile => Ok(Some(shared_store(&address, write))),
            Some(profile) => Err(ImportArchiveError::OtherProfile { profile }),
            None => Ok(None),
        }
    }

    fn note_heads(&mut self, read: &dyn Read, heads: &GroupHeads) -> Result<(), ReadError> {
        let stores = [
            (self.profile.metadata_store(), &heads.metadata),
            (self.profile.message_store(), &heads.messages),
        ];
        for (store, ids) in stores {
            let address = StoreAddress::new(&heads.group, store, &heads.sign_pub);
            let tag = LogTag::of(&address.to_string());
            for id in ids {
                self.imported.heads_missing += u64::from(!holds(read, tag, *id)?);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import").field("imported", &self.imported).finish_non_exhaustive()
    }
}

fn holds(read: &dyn Read, tag: LogTag, id: EntryId) -> Result<bool, ReadError> {
    Ok(block_in(read, tag, id)?.is_some())
}
