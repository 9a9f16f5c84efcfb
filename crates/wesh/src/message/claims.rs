//! Which message a counter belongs to (`spec/security.md` E4, E5, E9).
//!
//! Every member knows the chain of every device, so any member can seal a text that a device signed once more, at
//! another counter, and let it arrive before the message that the device sends there. Headers name device, counter and
//! signature; only the text is signed. So the first entry at a counter has a claim to it and no more:
//!
//! - The key of a counter is *held* after it was used, until the counter is settled, at most
//!   [`COUNTER_KEY_DAYS_MAX`] days. Then it is erased, and with it the power to open the message again.
//! - A counter is settled when all that was sent before it is here, each with a signature of its own: were one of
//!   them another one's text, one text of the device would be missing. In a conversation without gaps and
//!   repetitions that is at once.
//! - A claim that the device signed for this very counter ([`crate::context`]) wins over one that says nothing of its
//!   place. Where such a device signs no more without saying it, what does not is no claim at all.
//! - Of two claims, the one whose signature holds no other counter wins; then the one that was not seen at a
//!   lower counter, since what is repeated was sent before; then the lower entry. The others are kept as
//!   repeats. A text that a device says twice has the same signature twice, and nobody to dispute it.
//!
//! Own messages are held for the whole time: a copy of this device can sign at the same counters, and is
//! known by what only it signed (E3).
//!
//! The rows are drawn in the module [`message`](super).

use dunlin_base::kdf::sha256;
use dunlin_base::keys::SymmetricKey;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{DeviceId, EntryId, GroupId, Signature, Span, Time};
use zeroize::Zeroizing;

use super::rows::{Chain, counter_key, device_key};
use crate::context;
use crate::tables::{self, damaged};

/// How many days the key of a message outlives its first opening, at most: as long as a message may be on its way
/// that has a better claim to the counter (`spec/security.md` E4).
pub const COUNTER_KEY_DAYS_MAX: u64 = 7;

/// Claims that are kept for one counter. More come from a member that floods, and are refused.
const CLAIMS_PER_COUNTER_MAX: usize = 8;
/// Other counters at which a signature is looked for. Whoever repeats a text more often than this is a bot.
const COUNTERS_PER_SIGNATURE_MAX: usize = 16;
/// Counters that are judged again in the wake of one message.
const JUDGED_MAX: usize = 16;
/// Keys that are erased in one step.
const ERASED_PER_STEP: usize = 1000;
/// Flags of a row of [`tables::CLAIMS`].
const SHOWN: u8 = 1;
const PLACED: u8 = 2;
/// Deadlines are rounded down to this, so that a device wakes up once for many.
const DEADLINE_STEP_MS: u64 = 3_600_000;

/// [`COUNTER_KEY_DAYS_MAX`] as a span.
pub const KEY_HELD_MAX: Span = Span::from_secs(COUNTER_KEY_DAYS_MAX * 24 * 3600);

/// What is known when an entry arrives.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// What time it is.
    pub now: Time,
    /// Whether everything that the log names below it is here.
    pub past_is_synced: bool,
}

/// A counter belongs to another entry than it did: two messages of one device changed places, or one has lost its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shift {
    /// The counter.
    pub counter: u64,
    /// What was shown and is not any more.
    pub from: Option<EntryId>,
    /// What was kept back and is shown now.
    pub to: Option<EntryId>,
}

/// What names a signature in rows: enough of its digest that none is taken for another.
pub(super) type Mark = [u8; 16];

/// The mark of a signature.
pub(super) fn mark_of(signature: &Signature) -> Mark {
    let digest = sha256(&[signature.as_bytes()]);
    let mut mark = [0; 16];
    mark.copy_from_slice(digest.get(..16).unwrap_or(&[0; 16]));
    mark
}

/// The claims to the counters of one device in one group.
pub(super) struct Claims<'a> {
    pub group: &'a GroupId,
    pub device: &'a DeviceId,
}

/// A claim to a counter.
#[derive(Clone, Copy)]
pub(super) struct Claim {
    pub entry: EntryId,
    pub mark: Mark,
    /// Whether its device signed it for this counter.
    pub is_placed: bool,
    pub is_shown: bool,
}

/// How a message came to its counter.
pub(super) enum Standing {
    /// Nobody else claims it.
    First,
    /// It was opened before, and has this part in it.
    Again {
        /// Whether it is a repeat.
        is_repeat: bool,
    },
    /// Others do.
    Disputed,
    /// It brings nothing new, or one claim too many.
    Refused,
}

impl Claims<'_> {
    /// How `entry` stands that came for a counter whose key is held.
    pub fn standing(
        &self,
        read: &dyn Read,
        counter: u64,
        entry: EntryId,
        mark: &Mark,
    ) -> Result<Standing, ReadError> {
        let claims = self.claims(read, counter)?;
        if let Some(claim) = claims.iter().find(|claim| claim.entry == entry) {
            return Ok(Standing::Again { is_repeat: !claim.is_shown });
        }
        // The same text at the same counter is the same message, whatever it is wrapped in.
        let is_same = claims.iter().any(|claim| claim.mark == *mark);
        Ok(if is_same || claims.len() >= CLAIMS_PER_COUNTER_MAX {
            Standing::Refused
        } else {
            Standing::Disputed
        })
    }

    /// Whether the counter would be settled by this message, were it the first there: nothing before it is open, and its
    /// signature is new.
    pub fn settles_at_once(&self, read: &dyn Read, counter: u64, claim: &Claim) -> Result<bool, ReadError> {
        let is_clear = claim.is_placed || self.elsewhere(read, counter, &claim.mark)?.is_empty();
        Ok(is_clear && self.lowest_held(read, 0)?.is_none())
    }

    /// Notes that the device signed this at this counter.
    pub fn note_signature(&self, tx: &mut Tx<'_>, counter: u64, mark: &Mark, entry: EntryId) {
        tx.put(tables::SIGNATURES, &self.signature_key(mark, counter), entry.digest());
    }

    /// Notes that somebody says that the device signed this at this counter, which cannot be opened here.
    pub fn note_hearsay(&self, tx: &mut Tx<'_>, counter: u64, mark: &Mark) -> Result<(), ReadError> {
        let key = self.signature_key(mark, counter);
        if !tx.contains(tables::SIGNATURES, &key)? {
            tx.put(tables::SIGNATURES, &key, &[]);
        }
        Ok(())
    }

    /// Whether the signature was seen, at whatever counter.
    pub fn is_noted(&self, read: &dyn Read, mark: &Mark) -> Result<bool, ReadError> {
        let prefix = [device_key(self.group, self.device).as_slice(), mark].concat();
        let rows = read.collect(tables::SIGNATURES, &KeyRange::prefix(&prefix), Direction::Ascending, 1)?;
        Ok(!rows.is_empty())
    }

    /// The entry in which a message with this signature and counter was opened.
    pub fn opened_as(
        &self,
        read: &dyn Read,
        counter: u64,
        mark: &Mark,
    ) -> Result<Option<EntryId>, ReadError> {
        let row = read.get(tables::SIGNATURES, &self.signature_key(mark, counter))?;
        Ok(row.as_deref().and_then(EntryId::from_slice))
    }

    /// Holds the key of a counter for its first claim.
    pub fn hold(&self, tx: &mut Tx<'_>, now: Time, counter: u64, key: &SymmetricKey, claim: Claim) {
        let until = (now + KEY_HELD_MAX).as_millis();
        let until = until.saturating_sub(until % DEADLINE_STEP_MS);
        let slot = counter_key(self.group, self.device, counter);
        let row = Zeroizing::new([key.as_bytes().as_slice(), &until.to_be_bytes()].concat());
        tx.put(tables::MESSAGE_KEYS, &slot, &row);
        tx.put(tables::HELD, &[until.to_be_bytes().as_slice(), &slot].concat(), &[]);
        self.put_claim(tx, counter, &Claim { is_shown: true, ..claim });
    }

    /// Adds a claim to a counter that has one. It is a repeat until [`Self::judge`] finds otherwise.
    pub fn dispute(&self, tx: &mut Tx<'_>, counter: u64, claim: Claim) {
        self.put_claim(tx, counter, &Claim { is_shown: false, ..claim });
    }

    /// Judges the counters behind `counter` that are not settled: their claims may be none any more. There are no more
    /// of them than a window has keys, but for claims that were skipped over.
    pub fn judge_behind(&self, tx: &mut Tx<'_>, counter: u64) -> Result<Vec<Shift>, ReadError> {
        let of_device = KeyRange::prefix(&device_key(self.group, self.device));
        let start = counter_key(self.group, self.device, counter.saturating_add(1));
        let range = KeyRange { start: start.to_vec(), ..of_device };
        let rows = tx.collect(tables::MESSAGE_KEYS, &range, Direction::Ascending, usize::MAX)?;
        let mut shifts = Vec::new();
        for (key, row) in rows {
            drop(Zeroizing::new(row));
            let held = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            let held = held.ok_or_else(|| damaged(tables::MESSAGE_KEYS))?;
            shifts.extend(self.judge_one(tx, held)?.map(|(was, is)| shift(held, was, is)));
        }
        Ok(shifts)
    }

    /// Judges the claims to `counter`, to those where the signature `mark` was seen, and to whatever these turn on.
    pub fn judge(&self, tx: &mut Tx<'_>, counter: u64, mark: &Mark) -> Result<Vec<Shift>, ReadError> {
        let mut shifts = Vec::new();
        let mut open = vec![counter];
        open.extend(self.elsewhere(tx, counter, mark)?);
        let mut judged = 0;
        while let Some(counter) = open.pop() {
            judged += 1;
            if judged > JUDGED_MAX {
                break;
            }
            let Some((was, is)) = self.judge_one(tx, counter)? else { continue };
            shifts.push(shift(counter, was, is));
            for claim in [was, is].into_iter().flatten() {
                open.extend(self.elsewhere(tx, counter, &claim.mark)?);
            }
        }
        Ok(shifts)
    }

    fn judge_one(
        &self,
        tx: &mut Tx<'_>,
        counter: u64,
    ) -> Result<Option<(Option<Claim>, Option<Claim>)>, ReadError> {
        let claims = self.claims(tx, counter)?;
        let mut best: Option<((Suspicion, EntryId), Claim)> = None;
        for claim in &claims {
            let rank = (self.suspicion(tx, counter, claim)?, claim.entry);
            if rank.0 != Suspicion::NoClaim && best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, *claim));
            }
        }
        let was = claims.iter().find(|claim| claim.is_shown).copied();
        let is = best.map(|(_, claim)| claim);
        if was.map(|claim| claim.entry) == is.map(|claim| claim.entry) {
            return Ok(None);
        }
        if let Some(was) = was {
            self.put_claim(tx, counter, &Claim { is_shown: false, ..was });
        }
        match is {
            Some(is) => self.put_claim(tx, counter, &Claim { is_shown: true, ..is }),
            None => self.release(tx, counter)?,
        }
        Ok(Some((was, is)))
    }

    /// Gives the key of a counter back to the chain: what claimed it has no right to it, and what has may still come.
    fn release(&self, tx: &mut Tx<'_>, counter: u64) -> Result<(), ReadError> {
        let Some(stored) = StoredKey::load(tx, self.group, self.device, counter)? else { return Ok(()) };
        let Some(Chain::Other(mut chain)) = Chain::load(tx, self.group, self.device)? else { return Ok(()) };
        self.erase(tx, counter)?;
        chain.put_back(counter, stored.key);
        Chain::Other(chain).store(tx, self.group, self.device);
        Ok(())
    }

    /// Erases the keys of counters that are settled, lowest first, up to `below`.
    pub fn settle(&self, tx: &mut Tx<'_>, below: u64) -> Result<(), ReadError> {
        let mut from = 0;
        while let Some(counter) = self.lowest_held(tx, from)? {
            if counter >= below {
                break;
            }
            // What is erased below is passed over for good: whoever came back to it would look at all of it each time.
            from = counter.saturating_add(1);
            let (mut signed_for_it, mut clear) = (0u8, 0u8);
            for claim in self.claims(tx, counter)? {
                let suspicion = self.suspicion(tx, counter, &claim)?;
                signed_for_it = signed_for_it.saturating_add(u8::from(suspicion == Suspicion::SignedForIt));
                clear = clear.saturating_add(u8::from(suspicion == Suspicion::None));
            }
            if signed_for_it != 1 && (signed_for_it, clear) != (0, 1) {
                break;
            }
            self.erase(tx, counter)?;
        }
        Ok(())
    }

    /// Erases the key of a counter, and ends the dispute about it.
    pub fn erase(&self, tx: &mut Tx<'_>, counter: u64) -> Result<(), ReadError> {
        let slot = counter_key(self.group, self.device, counter);
        if let Some(row) = tx.get(tables::MESSAGE_KEYS, &slot)?.map(Zeroizing::new)
            && let Some(until) = row.get(32..)
        {
            tx.delete(tables::HELD, &[until, &slot].concat());
        }
        tx.delete(tables::MESSAGE_KEYS, &slot);
        for claim in self.claims(tx, counter)? {
            tx.delete(tables::CLAIMS, &self.claim_key(counter, &claim.entry));
            if !claim.is_shown {
                tx.delete(tables::SIGNATURES, &self.signature_key(&claim.mark, counter));
            }
        }
        Ok(())
    }

    /// Takes a claim back that was not shown: nothing is left that could be shown for it.
    pub fn withdraw(&self, tx: &mut Tx<'_>, counter: u64, entry: &EntryId) -> Result<(), ReadError> {
        let claims = self.claims(tx, counter)?;
        if let Some(claim) = claims.iter().find(|claim| claim.entry == *entry && !claim.is_shown) {
            tx.delete(tables::CLAIMS, &self.claim_key(counter, entry));
            tx.delete(tables::SIGNATURES, &self.signature_key(&claim.mark, counter));
        }
        Ok(())
    }

    /// Lets the entry `by` take over what is known of `entry`, which carries the same sealed bytes.
    pub fn hand_down(
        &self,
        tx: &mut Tx<'_>,
        counter: u64,
        mark: &Mark,
        entry: &EntryId,
        by: EntryId,
    ) -> Result<(), ReadError> {
        if self.opened_as(tx, counter, mark)?.as_ref() == Some(entry) {
            self.note_signature(tx, counter, mark, by);
        }
        let old = self.claim_key(counter, entry);
        if let Some(row) = tx.get(tables::CLAIMS, &old)? {
            tx.put(tables::CLAIMS, &self.claim_key(counter, &by), &row);
            tx.delete(tables::CLAIMS, &old);
        }
        Ok(())
    }

    /// Other counters at which the signature was seen and not found to be a repeat.
    fn elsewhere(&self, read: &dyn Read, counter: u64, mark: &Mark) -> Result<Vec<u64>, ReadError> {
        let prefix = [device_key(self.group, self.device).as_slice(), mark].concat();
        let range = KeyRange::prefix(&prefix);
        let rows =
            read.collect(tables::SIGNATURES, &range, Direction::Ascending, COUNTERS_PER_SIGNATURE_MAX)?;
        let mut counters = Vec::new();
        for (key, row) in rows {
            let other = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
            let other = other.ok_or_else(|| damaged(tables::SIGNATURES))?;
            if other == counter {
                continue;
            }
            let claim = match EntryId::from_slice(&row) {
                Some(entry) => read.get(tables::CLAIMS, &self.claim_key(other, &entry))?,
                None => None,
            };
            if claim.is_none_or(|row| row.last().is_some_and(|flags| flags & SHOWN != 0)) {
                counters.push(other);
            }
        }
        Ok(counters)
    }

    fn suspicion(&self, read: &dyn Read, counter: u64, claim: &Claim) -> Result<Suspicion, ReadError> {
        if claim.is_placed {
            return Ok(Suspicion::SignedForIt);
        }
        let since = context::contexts_since(read, self.group, self.device)?;
        if since.is_some_and(|since| counter > since) {
            return Ok(Suspicion::NoClaim);
        }
        let elsewhere = self.elsewhere(read, counter, &claim.mark)?;
        Ok(if elsewhere.is_empty() {
            Suspicion::None
        } else if elsewhere.iter().all(|other| *other > counter) {
            Suspicion::RepeatedLater
        } else {
            Suspicion::SentBefore
        })
    }

    /// The lowest counter from `from` on whose key is held.
    fn lowest_held(&self, read: &dyn Read, from: u64) -> Result<Option<u64>, ReadError> {
        let mut range = KeyRange::prefix(&device_key(self.group, self.device));
        range.start = counter_key(self.group, self.device, from).to_vec();
        let rows = read.collect(tables::MESSAGE_KEYS, &range, Direction::Ascending, 1)?;
        let Some((key, row)) = rows.into_iter().next() else { return Ok(None) };
        drop(Zeroizing::new(row));
        let counter = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        counter.map(Some).ok_or_else(|| damaged(tables::MESSAGE_KEYS))
    }

    fn claims(&self, read: &dyn Read, counter: u64) -> Result<Vec<Claim>, ReadError> {
        let range = KeyRange::prefix(&counter_key(self.group, self.device, counter));
        let rows = read.collect(tables::CLAIMS, &range, Direction::Ascending, CLAIMS_PER_COUNTER_MAX)?;
        let claims = rows.iter().map(|(key, row)| {
            let entry = EntryId::from_slice(key.get(72..)?)?;
            let (mark, flags) = row.split_first_chunk::<16>()?;
            let [flags] = flags else { return None };
            Some(Claim { entry, mark: *mark, is_placed: flags & PLACED != 0, is_shown: flags & SHOWN != 0 })
        });
        claims.collect::<Option<_>>().ok_or_else(|| damaged(tables::CLAIMS))
    }

    fn put_claim(&self, tx: &mut Tx<'_>, counter: u64, claim: &Claim) {
        let shown = if claim.is_shown { SHOWN } else { 0 };
        let placed = if claim.is_placed { PLACED } else { 0 };
        let row = [claim.mark.as_slice(), &[shown | placed]].concat();
        tx.put(tables::CLAIMS, &self.claim_key(counter, &claim.entry), &row);
    }

    fn claim_key(&self, counter: u64, entry: &EntryId) -> Vec<u8> {
        [counter_key(self.group, self.device, counter).as_slice(), entry.digest()].concat()
    }

    fn signature_key(&self, mark: &Mark, counter: u64) -> Vec<u8> {
        [device_key(self.group, self.device).as_slice(), mark, &counter.to_be_bytes()].concat()
    }
}

/// What speaks against a claim, the least first.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Suspicion {
    /// The device signed it for this counter.
    SignedForIt,
    None,
    RepeatedLater,
    SentBefore,
    /// It says nothing of its place, which its device would.
    NoClaim,
}

fn shift(counter: u64, was: Option<Claim>, is: Option<Claim>) -> Shift {
    Shift { counter, from: was.map(|claim| claim.entry), to: is.map(|claim| claim.entry) }
}

/// A key in [`tables::MESSAGE_KEYS`]: of an own message that is not opened yet, or held.
pub(super) struct StoredKey {
    pub key: SymmetricKey,
    pub is_held: bool,
}

impl StoredKey {
    pub fn load(
        read: &dyn Read,
        group: &GroupId,
        device: &DeviceId,
        counter: u64,
    ) -> Result<Option<Self>, ReadError> {
        let Some(row) = read.get(tables::MESSAGE_KEYS, &counter_key(group, device, counter))? else {
            return Ok(None);
        };
        let row = Zeroizing::new(row);
        let parsed = row.split_first_chunk::<32>().and_then(|(key, until)| {
            let key = SymmetricKey::from_slice(key)?;
            matches!(until.len(), 0 | 8).then_some(Self { key, is_held: !until.is_empty() })
        });
        parsed.map(Some).ok_or_else(|| damaged(tables::MESSAGE_KEYS))
    }
}

/// When [`erase_due`] has something to do; a moment in the past means at once.
///
/// # Errors
/// [`ReadError`].
pub fn erasure_due(read: &dyn Read) -> Result<Option<Time>, ReadError> {
    if !read.collect(tables::OPENED_KEYS, &KeyRange::default(), Direction::Ascending, 1)?.is_empty() {
        return Ok(Some(Time::default()));
    }
    let first = read.collect(tables::HELD, &KeyRange::default(), Direction::Ascending, 1)?;
    match first.first() {
        Some((key, _)) => Ok(Some(parse_held(key)?.0)),
        None => Ok(None),
    }
}

/// Erases message keys that were held long enough, and those that earlier versions kept by entry. A bounded
/// number in one call: [`erasure_due`] says when to call again.
///
/// # Errors
/// [`ReadError`].
pub fn erase_due(tx: &mut Tx<'_>, now: Time) -> Result<(), ReadError> {
    let old = tx.collect(tables::OPENED_KEYS, &KeyRange::default(), Direction::Ascending, ERASED_PER_STEP)?;
    for (key, row) in old {
        drop(Zeroizing::new(row));
        tx.delete(tables::OPENED_KEYS, &key);
    }
    // Where the clock was set back, deadlines lie further ahead than any that is made now.
    let latest = now + KEY_HELD_MAX;
    for (from_end, direction) in [(false, Direction::Ascending), (true, Direction::Descending)] {
        let rows = tx.collect(tables::HELD, &KeyRange::default(), direction, ERASED_PER_STEP)?;
        for (key, _) in rows {
            let (until, group, device, counter) = parse_held(&key)?;
            let is_due = if from_end { until > latest } else { until <= now };
            if !is_due {
                break;
            }
            Claims { group: &group, device: &device }.erase(tx, counter)?;
            tx.delete(tables::HELD, &key);
        }
    }
    Ok(())
}

fn parse_held(key: &[u8]) -> Result<(Time, GroupId, DeviceId, u64), ReadError> {
    let parsed = key.split_first_chunk::<8>().and_then(|(until, rest)| {
        let (group, rest) = rest.split_at_checked(32)?;
        let (device, counter) = rest.split_at_checked(32)?;
        let counter = u64::from_be_bytes(*counter.first_chunk()?);
        let until = Time::from_millis(u64::from_be_bytes(*until));
        Some((until, GroupId::from_stored(group)?, DeviceId::from_stored(device)?, counter))
    });
    parsed.ok_or_else(|| damaged(tables::HELD))
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
