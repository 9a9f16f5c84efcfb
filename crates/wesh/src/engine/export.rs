//! Writing the archive of the account ([`crate::archive`]).

use std::collections::VecDeque;
use std::ops::ControlFlow;

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{EntryId, GroupId};
use dunlin_log::{Log, blocks_in};
use dunlin_orbitdb::{StoreAddress, shared_store};

use super::{Engine, StoreKind};
use crate::archive::{ArchivePart, GroupHeads, Item};
use crate::group::Group;

/// An archive in the making: an iterator over its parts that is handed the engine and the store each time,
/// so that other work goes on in between.
///
/// Of every group come the blocks that its logs hold when their turn comes. The heads are those from the
/// beginning of the group's turn, so whatever they name is in the archive.
#[derive(Debug)]
pub struct Export {
    stage: Stage,
    /// Groups whose turn did not come yet.
    groups: VecDeque<GroupId>,
}

#[derive(Debug)]
enum Stage {
    Keys,
    Groups(Option<Turn>),
    Ended,
}

/// The group whose files are being written.
#[derive(Debug)]
struct Turn {
    heads: GroupHeads,
    kind: StoreKind,
    /// The number of the next block of the log.
    next: u64,
    /// Whether there was anything to write.
    has_entries: bool,
}

impl Engine {
    /// Begins to write the archive of the account, of all groups it knows, active or not.
    ///
    /// Dangerous, because the archive is not encrypted and whoever reads it is the account
    /// (`spec/security.md` S3). It has the format of the Go node and is there to move to it and back.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn dangerous_export(&self, read: &dyn Read) -> Result<Export, ReadError> {
        let mut groups = VecDeque::from([self.account_group()]);
        groups.extend(self.known_groups(read)?.into_iter().map(|(group, _, _)| group));
        Ok(Export { stage: Stage::Keys, groups })
    }

    /// Begins to write what a further device of the account needs to be one: the keys and the log of the account
    /// group. It gets the other groups from any device that has them.
    ///
    /// Dangerous as [`Self::dangerous_export`] is.
    pub fn dangerous_export_account_log(&self) -> Export {
        Export { stage: Stage::Keys, groups: VecDeque::from([self.account_group()]) }
    }

    /// A log of a group, active or not.
    fn log_of(&self, group: &Group, kind: StoreKind) -> Log {
        let type_name = kind.type_name(self.profile);
        shared_store(&StoreAddress::new(&group.id(), type_name, &group.sign_pub()), group.sign_pub())
    }

    fn heads_of(&self, read: &dyn Read, group: &Group) -> Result<GroupHeads, ReadError> {
        let heads = |kind| -> Result<Vec<EntryId>, ReadError> { self.log_of(group, kind).heads(read) };
        Ok(GroupHeads {
            group: group.id(),
            sign_pub: group.sign_pub(),
            link_key: group.link_key().clone(),
            metadata: heads(StoreKind::Metadata)?,
            messages: heads(StoreKind::Messages)?,
        })
    }
}

impl Export {
    /// The next part of the archive; `None` after the last.
    ///
    /// # Errors
    /// When the store cannot be read. Begin again.
    pub fn next_part(&mut self, engine: &Engine, read: &dyn Read) -> Result<Option<ArchivePart>, ReadError> {
        let mut part = ArchivePart::new();
        while !part.is_full() {
            match &mut self.stage {
                Stage::Keys => {
                    part.put(&Item::AccountKey(engine.keys.account.clone()));
                    part.put(&Item::ProofKey(engine.keys.proof.clone()));
                    self.stage = Stage::Groups(None);
                    return Ok(Some(part));
                }
                Stage::Groups(Some(turn)) => {
                    if turn.write(engine, read, &mut part)?.is_break() {
                        self.groups.pop_front();
                        self.stage = Stage::Groups(None);
                    }
                }
                Stage::Groups(None) => match self.groups.front() {
                    Some(id) => match engine.known_group(read, id)? {
                        Some(group) => {
                            let heads = engine.heads_of(read, &group)?;
                            let turn = Turn { heads, kind: StoreKind::Metadata, next: 0, has_entries: false };
                            self.stage = Stage::Groups(Some(turn));
                        }
                        // The account has left it meanwhile.
                        None => drop(self.groups.pop_front()),
                    },
                    None => {
                        part.end();
                        self.stage = Stage::Ended;
                        return Ok(Some(part));
                    }
                },
                Stage::Ended => return Ok(None),
            }
        }
        Ok(Some(part))
    }
}

impl Turn {
    /// Writes files of the group until the part is full; breaks off when all are written.
    fn write(
        &mut self,
        engine: &Engine,
        read: &dyn Read,
        part: &mut ArchivePart,
    ) -> Result<ControlFlow<()>, ReadError> {
        let type_name = self.kind.type_name(engine.profile);
        let address = StoreAddress::new(&self.heads.group, type_name, &self.heads.sign_pub);
        let tag = dunlin_log::LogTag::of(&address.to_string());
        let (mut next, mut has_entries) = (self.next, self.has_entries);
        blocks_in(read, tag, next, &mut |number, block| {
            if part.is_full() {
                return ControlFlow::Break(());
            }
            part.put_block(EntryId::of_block(block), block);
            (next, has_entries) = (number.saturating_add(1), true);
            ControlFlow::Continue(())
        })?;
        (self.next, self.has_entries) = (next, has_entries);
        if part.is_full() {
            return Ok(ControlFlow::Continue(()));
        }
        match self.kind {
            StoreKind::Metadata => {
                (self.kind, self.next) = (StoreKind::Messages, 0);
                Ok(ControlFlow::Continue(()))
            }
            StoreKind::Messages => {
                if self.has_entries {
                    part.put(&Item::Heads(self.heads.clone()));
                }
                Ok(ControlFlow::Break(()))
            }
        }
    }
}
