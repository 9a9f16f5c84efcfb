//! The contacts of an account, in its index.
//!
//! The newest event decides the state. The introduction is that of the newest event which has one, seed
//! and metadata each by itself: events that only change the state carry none
//! (`spec/wesh-protocol.md` §3.7, back-fill).

use std::fmt;
use std::ops::ControlFlow;

use dunlin_base::AccountId;
use dunlin_base::kv::{Direction, Read, ReadError, Tx};
use dunlin_base::planted::{self, Bug};
use dunlin_proto::protocol;

use super::rows::{Place, Tag};
use super::{Change, Index};
use crate::contact::{Contact, ContactState, ContactStep};
use crate::tables::{self, damaged};

/// A contact of the account.
///
/// Layout of its row: the number of the state (one byte), the position that decided it, then seed,
/// metadata and own metadata. Each of these is a length (four bytes, big-endian) and as many bytes; a
/// position follows seed and metadata unless they are empty.
#[derive(Clone, Eq, PartialEq)]
pub struct ContactRecord {
    /// Who it is and how it introduces itself.
    pub contact: Contact,
    /// Where the account stands with it.
    pub state: ContactState,
    /// How the account introduces itself to it, while it is to be asked.
    pub own_metadata: Vec<u8>,
}

impl fmt::Debug for ContactRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContactRecord")
            .field("contact", &self.contact)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What an event says about a contact.
pub(super) struct ContactChange<'e> {
    pub step: ContactStep,
    pub introduction: Option<&'e Contact>,
    pub own_metadata: &'e [u8],
}

impl ContactChange<'_> {
    /// An event that changes the state and nothing else.
    pub const fn step(step: ContactStep) -> Self {
        Self { step, introduction: None, own_metadata: &[] }
    }
}

impl Index {
    pub(super) fn fold_contact(
        &self,
        tx: &mut Tx<'_>,
        place: &Place,
        account: &AccountId,
        change: &ContactChange<'_>,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        self.note_shared(tx, account, change.step, changes)?;
        let key = self.key(Tag::Contact, &[account.as_bytes()]);
        let stored = tx.get(tables::INDEX, &key)?;
        let before = stored.as_deref().map(Row::parse).transpose()?;
        let mut row = before.clone().unwrap_or_else(|| Row::first(place, change));
        row.merge(place, change);
        if before.as_ref() == Some(&row) {
            return Ok(());
        }
        tx.put(tables::INDEX, &key, &row.encode());
        changes.push(Change::ContactChanged {
            account: *account,
            before: before.map(|row| row.state),
            state: row.state,
            contact: row.record(*account).contact,
        });
        Ok(())
    }

    /// Notes that there is a group with `account`. One such event anywhere in the log is enough, also one that is older than
    /// what decided the state and comes after it: devices of an account know the same groups, whatever they heard first.
    fn note_shared(
        &self,
        tx: &mut Tx<'_>,
        account: &AccountId,
        step: ContactStep,
        changes: &mut Vec<Change>,
    ) -> Result<(), ReadError> {
        if !step.state().has_group() {
            return Ok(());
        }
        let key = self.key(Tag::Shared, &[account.as_bytes()]);
        if !tx.contains(tables::INDEX, &key)? {
            tx.put(tables::INDEX, &key, &[]);
            changes.push(Change::ContactGroupMade { account: *account });
        }
        Ok(())
    }

    /// Accounts with which there is a group, whatever became of them since: each was to be asked or added once.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contacts_with_group(&self, read: &dyn Read) -> Result<Vec<AccountId>, ReadError> {
        let rows =
            read.collect(tables::INDEX, &self.range(Tag::Shared, &[]), Direction::Ascending, usize::MAX)?;
        let account = |key: &[u8]| AccountId::from_stored(key.last_chunk::<32>()?);
        rows.iter().map(|(key, _)| account(key).ok_or_else(|| damaged(tables::INDEX))).collect()
    }

    /// Where the account stands with `account`; none when its log does not mention it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contact_state(
        &self,
        read: &dyn Read,
        account: &AccountId,
    ) -> Result<Option<ContactState>, ReadError> {
        Ok(self.contact_record(read, account)?.map(|record| record.state))
    }

    /// How `account` introduces itself, as far as is known.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contact(&self, read: &dyn Read, account: &AccountId) -> Result<Option<Contact>, ReadError> {
        Ok(self.contact_record(read, account)?.map(|record| record.contact))
    }

    /// How the account introduces itself to `account`, while that is to be asked.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn own_metadata_for(
        &self,
        read: &dyn Read,
        account: &AccountId,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let record = self.contact_record(read, account)?;
        Ok(record.filter(|record| record.state == ContactState::ToRequest).map(|record| record.own_metadata))
    }

    /// All that is known of `account`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contact_record(
        &self,
        read: &dyn Read,
        account: &AccountId,
    ) -> Result<Option<ContactRecord>, ReadError> {
        let row = read.get(tables::INDEX, &self.key(Tag::Contact, &[account.as_bytes()]))?;
        let row = row.as_deref().map(Row::parse).transpose()?;
        Ok(row.map(|row| row.record(*account)))
    }

    /// Visits the contacts in the order of their keys, until `visit` breaks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contacts(
        &self,
        read: &dyn Read,
        visit: &mut dyn FnMut(ContactRecord) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut failed = None;
        let range = self.range(Tag::Contact, &[]);
        read.scan(
            tables::INDEX,
            &range,
            Direction::Ascending,
            &mut |key, row| match parse_record(key, row) {
                Ok(record) => visit(record),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        failed.map_or(Ok(()), Err)
    }

    /// Contacts that are to be asked.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn contacts_to_request(&self, read: &dyn Read) -> Result<Vec<AccountId>, ReadError> {
        let mut found = Vec::new();
        self.contacts(read, &mut |record| {
            if record.state == ContactState::ToRequest {
                found.push(record.contact.account);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }
}

fn parse_record(key: &[u8], row: &[u8]) -> Result<ContactRecord, ReadError> {
    let account = key.last_chunk::<32>().and_then(|account| AccountId::from_stored(account));
    Ok(Row::parse(row)?.record(account.ok_or_else(|| damaged(tables::INDEX))?))
}

/// A value with the place that decided it; the place means nothing while the value is empty.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Known {
    value: Vec<u8>,
    place: Place,
}

impl Known {
    const NOTHING: Self = Self { value: Vec::new(), place: [0; 40] };

    fn merge(&mut self, place: &Place, value: &[u8]) {
        if !value.is_empty() && (self.value.is_empty() || *place > self.place) {
            *self = Self { value: value.to_vec(), place: *place };
        }
    }
}

/// A stored contact.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Row {
    state: ContactState,
    decided: Place,
    seed: Known,
    metadata: Known,
    own_metadata: Vec<u8>,
}

impl Row {
    fn first(place: &Place, change: &ContactChange<'_>) -> Self {
        Self {
            state: change.step.state(),
            decided: *place,
            seed: Known::NOTHING,
            metadata: Known::NOTHING,
            own_metadata: change.own_metadata.to_vec(),
        }
    }

    fn merge(&mut self, place: &Place, change: &ContactChange<'_>) {
        if (*place > self.decided) != planted::is(Bug::OldestWins) {
            self.state = change.step.state();
            self.decided = *place;
            self.own_metadata = change.own_metadata.to_vec();
        }
        if let Some(contact) = change.introduction {
            self.seed.merge(place, contact.seed.as_ref().map_or(&[], |seed| seed));
            self.metadata.merge(place, &contact.metadata);
        }
    }

    fn record(self, account: AccountId) -> ContactRecord {
        let seed = self.seed.value.try_into().ok();
        let contact = Contact { account, seed, metadata: self.metadata.value };
        ContactRecord { contact, state: self.state, own_metadata: self.own_metadata }
    }

    fn encode(&self) -> Vec<u8> {
        let mut row = vec![state_byte(self.state)];
        row.extend_from_slice(&self.decided);
        for known in [&self.seed, &self.metadata] {
            put_bytes(&mut row, &known.value);
            if !known.value.is_empty() {
                row.extend_from_slice(&known.place);
            }
        }
        put_bytes(&mut row, &self.own_metadata);
        row
    }

    fn parse(row: &[u8]) -> Result<Self, ReadError> {
        Self::decode(row).ok_or_else(|| damaged(tables::INDEX))
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (state, rest) = row.split_first()?;
        let (decided, rest) = rest.split_first_chunk()?;
        let (seed, rest) = take_known(rest)?;
        let (metadata, rest) = take_known(rest)?;
        let (own_metadata, rest) = take_bytes(rest)?;
        let own_metadata = own_metadata.to_vec();
        let row = Self { state: state_of(*state)?, decided: *decided, seed, metadata, own_metadata };
        rest.is_empty().then_some(row)
    }
}

fn put_bytes(row: &mut Vec<u8>, bytes: &[u8]) {
    // A row comes from one log entry and is far shorter than the largest length.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(bytes);
}

fn take_bytes(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn take_known(row: &[u8]) -> Option<(Known, &[u8])> {
    let (value, rest) = take_bytes(row)?;
    if value.is_empty() {
        return Some((Known::NOTHING, rest));
    }
    let (place, rest) = rest.split_first_chunk()?;
    Some((Known { value: value.to_vec(), place: *place }, rest))
}

fn state_byte(state: ContactState) -> u8 {
    protocol::ContactState::from(state) as u8
}

fn state_of(byte: u8) -> Option<ContactState> {
    let states = [
        ContactState::ToRequest,
        ContactState::Received,
        ContactState::Added,
        ContactState::Removed,
        ContactState::Discarded,
        ContactState::Blocked,
    ];
    states.into_iter().find(|state| state_byte(*state) == byte)
}
