//! The state of one group, folded from its metadata log (`spec/wesh-protocol.md` §3.7).
//!
//! Events come in any order, any number of times; the state depends only on which there are and where
//! they stand in the log (`spec/security.md` O1, O2). Every item of the state therefore remembers the
//! position of the event that decided it, and another event decides only from a later position (from an
//! earlier one, for the owner of a device). An event costs a few rows, however long the log is.
//!
//! An event of a device that no member has claimed yet waits until one does (O10). The index knows where it stands; whoever
//! holds the log folds it then, and all that wait for a device in their order.
//!
//! # Layout of [`tables::INDEX`]
//!
//! A key is the group id, a tag, and the item. A position is the height, big-endian, then the entry: 40
//! bytes whose order is the order of the log.
//!
//! | Tag | Item | Value |
//! |---|---|---|
//! | `D` | device | position, member |
//! | `M` | member, device | nothing |
//! | `W` | device, position | nothing: the event there waits for the device |
//! | `B` | device | nothing: it is known, and some of what waited for it is still to be folded |
//! | `S` | member | nothing: this device gave its chain to the member |
//! | `I` | key | nothing: named as the maker of the group |
//! | `G` | group | position, then the `Group` message when joined and nothing when left |
//! | `E` | | position, `01` when requests are accepted and `00` when not |
//! | `R` | | position, seed in force |
//! | `K` | seed | nothing: was in force once |
//! | `C` | account | see [`ContactRecord`] |
//! | `P` | account | nothing: was to be asked or added once, so there is a group with it |
//! | `A` | device | position, alias key |
//! | `N` | position | device that says it, then its note about a device of the account as field 1003 |
//! | `V` | position | payload of the event 500 |
//! | `Q` | device | features, then the newest statement of what the device can do |
//! | `X` | first half of the digest of a payload with a context | position of its first entry |

mod contacts;
mod placed;
mod queries;
mod rows;
mod waiting;

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{AccountId, DeviceId, GroupId, MemberId};
use dunlin_log::Position;
use prost::Message;

pub use contacts::ContactRecord;

use super::change::Change;
use super::envelope::OpenedEvent;
use super::event::Event;
use super::note::DeviceNote;
use crate::contact::ContactStep;
use crate::group::{Group, GroupKind, OwnMember};
use crate::keys::AccountKeys;
use crate::tables;
use contacts::ContactChange;
use rows::{Place, Tag, first_place};

/// Rows that are read or removed in one step.
const BATCH: usize = 256;

/// Folds the metadata events of one group. Holds no state itself; the state is in the store.
#[derive(Clone, Debug)]
pub struct Index {
    group: GroupId,
    kind: GroupKind,
    membership: Membership,
    own_member: MemberId,
    own_device: DeviceId,
}

/// Who may be a member (`spec/security.md` O11).
#[derive(Clone, Debug)]
enum Membership {
    /// The account alone.
    OwnAccount,
    /// The account and the one with which it shares this group. Its key is recognised by deriving the
    /// group from it.
    Pair(Box<AccountKeys>),
    /// Whoever holds an invitation.
    Open,
}

impl Index {
    /// The index of `group`, as the device of `own` sees it.
    pub fn new(group: &Group, keys: &AccountKeys, own: &OwnMember) -> Self {
        let membership = match group.kind() {
            GroupKind::Account => Membership::OwnAccount,
            GroupKind::Contact => Membership::Pair(Box::new(keys.clone())),
            GroupKind::MultiMember => Membership::Open,
        };
        Self {
            group: group.id(),
            kind: group.kind(),
            membership,
            own_member: own.member_id(),
            own_device: own.device_id(),
        }
    }

    /// Folds the event at `position` and says what it changed.
    ///
    /// An event that means nothing in this group changes nothing. One whose device belongs to nobody yet
    /// waits: whoever is told [`Change::MemberDeviceAdded`] folds what [`Self::waiting`] gives.
    ///
    /// # Errors
    /// [`ReadError`]; forget the transaction.
    pub fn apply(
        &self,
        tx: &mut Tx<'_>,
        position: Position,
        event: &OpenedEvent,
    ) -> Result<Vec<Change>, ReadError> {
        let mut changes = Vec::new();
        let place = rows::place(&position);
        if !event.event().is_legal_in(self.kind) {
            return Ok(changes);
        }
        match (event.event(), event.device()) {
            (Event::MemberDeviceAdded { member, .. }, _) if !self.admits(member) => {}
            (Event::MemberDeviceAdded { device, member, .. }, _) => {
                self.learn(tx, device, event, &mut changes)?;
                if self.admit(tx, &place, event, &mut changes)? {
                    self.bind(tx, &place, device, member, &mut changes)?;
                    if let Some(note) = event.note() {
                        self.keep_note(tx, &place, device, member, &note, &mut changes);
                    }
                }
            }
            (_, Some(device))
                if !tx.contains(tables::INDEX, &self.key(Tag::Device, &[device.as_bytes()]))? =>
            {
                let key = self.key(Tag::Waiting, &[device.as_bytes(), &place]);
                tx.put(tables::INDEX, &key, &[]);
            }
            (known, _) => {
                if self.admit(tx, &place, event, &mut changes)? {
                    self.fold(tx, &place, known, &mut changes)?;
                }
            }
        }
        Ok(changes)
    }

    /// Forgets the state, so that the log can be folded again: its order changed. What devices can do stays: it does not
    /// depend on the order, and it says which events count.
    ///
    /// # Errors
    /// [`ReadError`]; forget the transaction.
    pub fn clear(&self, tx: &mut Tx<'_>) -> Result<(), ReadError> {
        let all = KeyRange::prefix(self.group.as_bytes());
        let kept = self.range(Tag::Capabilities, &[]);
        let before = KeyRange { end: Some(kept.start), ..all.clone() };
        let behind = kept.end.map(|start| KeyRange { start, ..all });
        for range in [Some(before), behind].into_iter().flatten() {
            loop {
                let rows = tx.collect(tables::INDEX, &range, Direction::Ascending, BATCH)?;
                if rows.is_empty() {
                    break;
                }
                for (key, _) in rows {
                    tx.delete(tables::INDEX, &key);
                }
            }
        }
        Ok(())
    }

    /// Gives a device to a member who may be one: the first claim in the order of the log counts (`spec/security.md` O13).
    fn bind(
        &self,
        tx: &mut Tx<'_>,
        place: &Place,
        device: &DeviceId,
        member: &MemberId,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        let Some((bound_at, bound_to)) = self.binding(tx, device)? else {
            self.put_binding(tx, place, device, member);
            changes.push(Change::MemberDeviceAdded { member: *member, device: *device });
            return Ok(());
        };
        let is_first = *place < bound_at;
        match (is_first, bound_to == *member) {
            (false, true) => {}
            (true, true) => self.put_binding(tx, place, device, member),
            (false, false) => {
                let (device, other) = (*device, *member);
                changes.push(Change::DeviceContested { device, member: bound_to, other });
            }
            (true, false) => {
                tx.delete(tables::INDEX, &self.key(Tag::Member, &[bound_to.as_bytes(), device.as_bytes()]));
                self.put_binding(tx, place, device, member);
                let (device, member) = (*device, *member);
                changes.push(Change::MemberDeviceAdded { member, device });
                changes.push(Change::DeviceContested { device, member, other: bound_to });
            }
        }
        Ok(())
    }

    /// Keeps what a device of the account says about another one, for [`Self::devices`] to judge.
    fn keep_note(
        &self,
        tx: &mut Tx<'_>,
        place: &Place,
        author: &DeviceId,
        member: &MemberId,
        note: &DeviceNote,
        changes: &mut Vec<Change>,
    ) {
        if self.kind == GroupKind::Account && *member == self.own_member {
            let row = [author.as_bytes().as_slice(), &note.to_field()].concat();
            tx.put(tables::INDEX, &self.key(Tag::Note, &[place]), &row);
            changes.push(Change::DeviceNoted { device: note.subject });
        }
    }

    fn put_binding(&self, tx: &mut Tx<'_>, place: &Place, device: &DeviceId, member: &MemberId) {
        let row = [place.as_slice(), member.as_bytes()].concat();
        tx.put(tables::INDEX, &self.key(Tag::Device, &[device.as_bytes()]), &row);
        tx.put(tables::INDEX, &self.key(Tag::Member, &[member.as_bytes(), device.as_bytes()]), &[]);
    }

    /// Whether `member` can be a member here (`spec/security.md` O11).
    fn admits(&self, member: &MemberId) -> bool {
        match &self.membership {
            Membership::OwnAccount => *member == self.own_member,
            Membership::Pair(keys) => {
                let account = AccountId::new(*member.key());
                *member == self.own_member
                    || Group::contact(keys, &account).is_ok_and(|shared| shared.id() == self.group)
            }
            Membership::Open => true,
        }
    }

    /// Folds an event that is legal here and whose device has a member.
    fn fold(
        &self,
        tx: &mut Tx<'_>,
        place: &Place,
        event: &Event,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        match event {
            // Bound before; its type is outside the signature (O12); said by nobody so far.
            Event::MemberDeviceAdded { .. } => {}
            Event::AdminGranted { .. } => {}
            Event::AliasResolverAdded { .. } => {}
            Event::ChainKeyAdded { device, dest, sealed } => {
                if *device == self.own_device {
                    tx.put(tables::INDEX, &self.key(Tag::Served, &[dest.as_bytes()]), &[]);
                }
                let (device, dest, sealed) = (*device, *dest, sealed.clone());
                changes.push(Change::ChainKeyOffered { device, dest, sealed });
            }
            Event::GroupJoined { group, .. } => {
                let key = self.key(Tag::Group, &[group.id().as_bytes()]);
                if put_newer(tx, &key, place, &group.to_proto().encode_to_vec())? {
                    changes.push(Change::GroupJoined(group.clone()));
                }
            }
            Event::GroupLeft { group, .. } => {
                let key = self.key(Tag::Group, &[group.as_bytes()]);
                if put_newer(tx, &key, place, &[])? {
                    changes.push(Change::GroupLeft(*group));
                }
            }
            Event::RequestsDisabled { .. } => self.fold_requests(tx, place, false, changes)?,
            Event::RequestsEnabled { .. } => self.fold_requests(tx, place, true, changes)?,
            Event::SeedReset { seed, .. } => {
                tx.put(tables::INDEX, &self.key(Tag::KnownSeed, &[seed]), &[]);
                if put_newer(tx, &self.key(Tag::Seed, &[]), place, seed)? {
                    changes.push(Change::SeedReset { seed: *seed });
                }
            }
            Event::ContactEnqueued { contact, own_metadata, .. } => {
                let step = ContactStep::OutgoingEnqueued;
                let change = ContactChange { step, introduction: Some(contact), own_metadata };
                self.fold_contact(tx, place, &contact.account, &change, changes)?;
            }
            Event::ContactReceived { contact, .. } => {
                let step = ContactStep::IncomingReceived;
                let change = ContactChange { step, introduction: Some(contact), own_metadata: &[] };
                self.fold_contact(tx, place, &contact.account, &change, changes)?;
            }
            Event::ContactSent { account, .. } => {
                let change = ContactChange::step(ContactStep::OutgoingSent);
                self.fold_contact(tx, place, account, &change, changes)?;
            }
            Event::ContactDiscarded { account, .. } => {
                let change = ContactChange::step(ContactStep::IncomingDiscarded);
                self.fold_contact(tx, place, account, &change, changes)?;
            }
            Event::ContactAccepted { account, .. } => {
                let change = ContactChange::step(ContactStep::IncomingAccepted);
                self.fold_contact(tx, place, account, &change, changes)?;
            }
            Event::ContactBlocked { account, .. } => {
                let change = ContactChange::step(ContactStep::Blocked);
                self.fold_contact(tx, place, account, &change, changes)?;
            }
            Event::ContactUnblocked { account, .. } => {
                let change = ContactChange::step(ContactStep::Unblocked);
                self.fold_contact(tx, place, account, &change, changes)?;
            }
            Event::AliasKeyAdded { device, alias } => {
                if put_newer(tx, &self.key(Tag::Alias, &[device.as_bytes()]), place, alias)? {
                    changes.push(Change::AliasKeyAdded { device: *device, alias: *alias });
                }
            }
            Event::InitialMember { member } => {
                tx.put(tables::INDEX, &self.key(Tag::InitialMember, &[member.as_bytes()]), &[]);
                changes.push(Change::InitialMember { member: *member });
            }
            Event::Replicating { device, server, .. } => {
                changes.push(Change::Replicating { device: *device, server: server.clone() });
            }
            Event::CredentialRegistered { device, credential } => {
                let row = credential.to_proto(device).encode_to_vec();
                tx.put(tables::INDEX, &self.key(Tag::Credential, &[place]), &row);
                changes.push(Change::CredentialRegistered(credential.clone()));
            }
            Event::AppMetadata { device, payload } => {
                changes.push(Change::AppMetadata { device: *device, payload: payload.clone() });
            }
        }
        Ok(())
    }

    fn fold_requests(
        &self,
        tx: &mut Tx<'_>,
        place: &Place,
        enabled: bool,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        if put_newer(tx, &self.key(Tag::Requests, &[]), place, &[enabled.into()])? {
            changes.push(Change::RequestsChanged { enabled });
        }
        Ok(())
    }

    fn key(&self, tag: Tag, item: &[&[u8]]) -> Vec<u8> {
        rows::key(&self.group, tag, item)
    }

    fn range(&self, tag: Tag, item: &[&[u8]]) -> KeyRange {
        KeyRange::prefix(&self.key(tag, item))
    }
}

/// Writes `value` behind `place`, unless the row was decided from there or later; says whether it did.
fn put_newer(tx: &mut Tx<'_>, key: &[u8], place: &Place, value: &[u8]) -> Result<bool, ReadError> {
    if let Some(row) = tx.get(tables::INDEX, key)? {
        let (decided, _) = first_place(&row)?;
        if decided >= place {
            return Ok(false);
        }
    }
    tx.put(tables::INDEX, key, &[place.as_slice(), value].concat());
    Ok(true)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
