//! What people and scripts call things: names, beginnings of names, ids, beginnings of ids.

use data_encoding::BASE32_NOPAD;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::{AccountId, EntryId, GroupId};

use super::{Messenger, conversations, groups, people};
use crate::error::{MessengerError, Named};
use crate::rows::{Place, StoredState, group_entry};
use crate::tables;
use crate::text::printable;
use crate::views::short;

/// Shortest beginning of an id that is taken for one.
const ID_PREFIX_MIN: usize = 6;
/// With what all message ids begin: version, codec and hash function of the CID.
const ENTRY_HEAD: &str = "bafyrei";
/// Characters of a message id after the head.
const ENTRY_TAIL: usize = 52;
/// Characters of the short form of a message id.
const ENTRY_SHORT: usize = 10;
/// Candidates that an error lists.
const CANDIDATES_SHOWN_MAX: usize = 8;

/// A part of a message id, enough to name the message.
pub fn short_id(entry: &EntryId) -> String {
    entry.to_string().chars().skip(ENTRY_HEAD.len()).take(ENTRY_SHORT).collect()
}

/// Something that can be named.
struct Candidate<I> {
    id: I,
    name: String,
    hex: String,
}

impl Messenger {
    /// The contact or request that `reference` names.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`] or [`MessengerError::Ambiguous`].
    pub fn find_contact(&self, read: &dyn Read, reference: &str) -> Result<AccountId, MessengerError> {
        let known = people::all(read)?.into_iter().filter(|(_, row)| row.state() != StoredState::Gone);
        let candidates = known.map(|(account, row)| Candidate {
            id: account,
            name: people::name_of(&account, &row),
            hex: account.to_string(),
        });
        choose(Named::Contact, reference, candidates.collect())
    }

    /// The conversation that `reference` names. The id of a contact names the conversation with them.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`] or [`MessengerError::Ambiguous`].
    pub fn find_conversation(&self, read: &dyn Read, reference: &str) -> Result<GroupId, MessengerError> {
        let mut candidates = Vec::new();
        let mut by_account = Vec::new();
        for (group, row) in conversations::all(read)? {
            let name = match row.contact() {
                Some(account) => {
                    by_account.push(Candidate { id: group, name: String::new(), hex: account.to_string() });
                    people::name_of(&account, &people::row(read, &account)?.unwrap_or_default())
                }
                None => groups::name_of(&group, &row),
            };
            candidates.push(Candidate { id: group, name, hex: group.to_string() });
        }
        match choose(Named::Conversation, reference, candidates) {
            Err(MessengerError::Unknown { .. }) => choose(Named::Conversation, reference, by_account),
            found => found,
        }
    }

    /// The message that `reference` names, shown or closed.
    ///
    /// # Errors
    /// [`MessengerError::Unknown`], [`MessengerError::Ambiguous`] or [`MessengerError::ReferenceTooShort`].
    pub fn find_message(&self, read: &dyn Read, reference: &str) -> Result<EntryId, MessengerError> {
        let reference = reference.trim().to_ascii_lowercase();
        let unknown = || MessengerError::Unknown { what: Named::Message, reference: printable(&reference) };
        let tail = reference.strip_prefix(ENTRY_HEAD).unwrap_or(&reference);
        if tail.len() < ID_PREFIX_MIN {
            return Err(MessengerError::ReferenceTooShort);
        }
        if let Some(entry) = EntryId::from_cid_text(&reference) {
            let known = Place::of_entry(read, &entry)?.is_some() || is_closed(read, &entry)?;
            return if known { Ok(entry) } else { Err(unknown()) };
        }
        let start = first_entry_with(tail).ok_or_else(unknown)?;
        let mut found = Vec::new();
        let range = KeyRange { start: start.digest().to_vec(), end: None };
        read.scan(tables::PLACES, &range, Direction::Ascending, &mut |key, _| {
            let entry = EntryId::from_slice(key);
            let fits = |entry: &EntryId| {
                entry.to_string().strip_prefix(ENTRY_HEAD).is_some_and(|id| id.starts_with(tail))
            };
            match entry.filter(fits) {
                Some(entry) if found.len() < CANDIDATES_SHOWN_MAX => {
                    found.push(entry);
                    std::ops::ControlFlow::Continue(())
                }
                _ => std::ops::ControlFlow::Break(()),
            }
        })?;
        match found.as_slice() {
            [] => Err(unknown()),
            [entry] => Ok(*entry),
            several => Err(MessengerError::Ambiguous {
                what: Named::Message,
                reference: printable(&reference),
                candidates: several.iter().map(short_id).collect(),
            }),
        }
    }
}

/// The one candidate that a reference fits best: its id, its name, the name in other letters, the beginning
/// of its name, the beginning of its id.
fn choose<I: Copy>(what: Named, reference: &str, candidates: Vec<Candidate<I>>) -> Result<I, MessengerError> {
    let reference = reference.trim();
    let lower = reference.to_lowercase();
    let may_be_id = lower.len() >= ID_PREFIX_MIN && lower.bytes().all(|byte| byte.is_ascii_hexdigit());
    let rules: [&dyn Fn(&Candidate<I>) -> bool; 5] = [
        &|candidate| candidate.hex == lower,
        &|candidate| candidate.name == reference,
        &|candidate| candidate.name.to_lowercase() == lower,
        &|candidate| candidate.name.to_lowercase().starts_with(&lower),
        &|candidate| may_be_id && candidate.hex.starts_with(&lower),
    ];
    let named = rules.iter().filter(|_| !reference.is_empty());
    let fitting = named.map(|rule| candidates.iter().filter(|c| rule(c)).collect::<Vec<_>>());
    match fitting.into_iter().find(|fitting| !fitting.is_empty()).as_deref() {
        Some([one]) => Ok(one.id),
        Some(several) => {
            let shown = several.iter().take(CANDIDATES_SHOWN_MAX);
            let candidates = shown.map(|c| format!("{} ({})", c.name, short(&c.hex))).collect();
            Err(MessengerError::Ambiguous { what, reference: printable(reference), candidates })
        }
        None => Err(MessengerError::Unknown { what, reference: printable(reference) }),
    }
}

/// The smallest id whose text goes on with `tail` after the head.
fn first_entry_with(tail: &str) -> Option<EntryId> {
    let padding = ENTRY_TAIL.checked_sub(tail.len())?;
    let text = format!("{}{tail}{}", ENTRY_HEAD.get(1..)?, "a".repeat(padding)).to_ascii_uppercase();
    // The last character has two bits that belong to no byte.
    let bytes = BASE32_NOPAD.decode(text.as_bytes()).ok()?;
    EntryId::from_cid_bytes(&bytes)
}

fn is_closed(read: &dyn Read, entry: &EntryId) -> Result<bool, ReadError> {
    closed_in(read, entry).map(|group| group.is_some())
}

/// The conversation in which a message waits to be opened.
pub(super) fn closed_in(read: &dyn Read, entry: &EntryId) -> Result<Option<GroupId>, ReadError> {
    for (group, row) in conversations::all(read)? {
        if row.closed > 0 && read.contains(tables::CLOSED, &group_entry(&group, entry))? {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate<u8>> {
        let candidate =
            |id, name: &str, hex: &str| Candidate { id, name: name.to_owned(), hex: hex.to_owned() };
        vec![
            candidate(1, "Bob", "aabbccdd00"),
            candidate(2, "Bobby", "aabbccdd11"),
            candidate(3, "Carol", "0123456789"),
            candidate(4, "bob", "ffffffffff"),
            candidate(5, "facade", "9876543210"),
        ]
    }

    fn found(reference: &str) -> Result<u8, MessengerError> {
        choose(Named::Contact, reference, candidates())
    }

    #[test]
    fn the_better_fit_goes_first() {
        assert_eq!(found("Bob").unwrap(), 1);
        assert_eq!(found(" bob ").unwrap(), 4);
        assert_eq!(found("c").unwrap(), 3);
        assert_eq!(found("CAROL").unwrap(), 3);
        assert_eq!(found("012345").unwrap(), 3);
        assert_eq!(found("AABBCCDD11").unwrap(), 2);
        assert_eq!(found("facade").unwrap(), 5);
    }

    #[test]
    fn more_than_one_fit_is_listed() {
        let Err(MessengerError::Ambiguous { candidates, .. }) = found("BOB") else { panic!("ambiguous") };
        assert_eq!(candidates, ["Bob (aabbccdd)", "bob (ffffffff)"]);
        assert!(matches!(found("aabbcc"), Err(MessengerError::Ambiguous { .. })));
    }

    #[test]
    fn what_fits_nothing_is_unknown() {
        for reference in ["", " ", "Dave", "01234", "zzzzzz", "\u{1b}[2J"] {
            let error = found(reference).unwrap_err();
            assert!(matches!(error, MessengerError::Unknown { .. }), "{reference:?}");
            assert!(!error.to_string().contains('\u{1b}'));
        }
    }

    #[test]
    fn beginnings_of_message_ids_lead_to_the_first_such_id() {
        for block in [&b"a"[..], b"b", b"c"] {
            let entry = EntryId::of_block(block);
            let text = entry.to_string();
            for length in [6, 10, 30, 52] {
                let start = first_entry_with(&text[7..7 + length]).unwrap();
                assert!(start <= entry);
                assert!(start.to_string().starts_with(&text[..7 + length]));
            }
            assert_eq!(short_id(&entry), text[7..17]);
        }
        assert_eq!(first_entry_with("zzzzzz"), None);
        assert_eq!(first_entry_with("é"), None);
        assert_eq!(first_entry_with(&"a".repeat(53)), None);
    }
}
