//! The inbox: requests of strangers, outside the account log until they are answered, and what keeps those who
//! send them within bounds (`spec/security.md` Q1 to Q3).

use std::collections::{BTreeMap, VecDeque};

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::{AccountId, PeerId, Span, Time};
use dunlin_log::Position;

use super::{Ctx, Engine, Event, MetadataEvent};
use crate::contact::Contact;
use crate::metadata::{Event as MetadataKind, OpenedEvent};
use crate::tables;

/// Requests that may wait for an answer; when there are more, the oldest leaves (`spec/security.md` Q2).
pub const PENDING_MAX: usize = 64;
/// Requests that one network may bring in an hour: account keys are free to make, addresses are less so.
pub const REQUESTS_PER_HOUR_MAX: usize = 30;
/// Networks whose requests are counted, a quarter of a megabyte; those that asked longest ago leave first.
const ORIGINS_MAX: usize = 4096;
/// How far back requests are counted.
const HOUR: Span = Span::from_secs(3600);
/// How long somebody who was refused is not heard again.
const REFUSAL_KEPT: Span = Span::from_secs(30 * 86_400);
/// Refusals that are remembered; the oldest leave first.
const REFUSALS_MAX: usize = 1024;

/// Where somebody who asks connects from. Whoever has one address of such a network has most of them.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// This machine. Its owner need not be kept within bounds.
    ThisMachine,
    /// An IPv4 network of 24 bits.
    Ipv4([u8; 3]),
    /// An IPv6 network of 48 bits.
    Ipv6([u8; 6]),
    /// All that lies behind a relay.
    Relay(PeerId),
    /// A connection whose network cannot be told.
    Unknown,
}

/// Who has asked how often within the last hour.
#[derive(Debug, Default)]
pub(super) struct Quota {
    asked: BTreeMap<Origin, VecDeque<Time>>,
}

impl Quota {
    /// Whether no further request is taken from there now.
    pub fn is_used_up(&self, origin: &Origin, now: Time) -> bool {
        let of_hour = |times: &VecDeque<Time>| times.iter().filter(|at| **at + HOUR > now).count();
        self.asked.get(origin).is_some_and(|times| of_hour(times) >= REQUESTS_PER_HOUR_MAX)
    }

    /// Counts a request.
    pub fn note(&mut self, origin: &Origin, now: Time) {
        if *origin == Origin::ThisMachine {
            return;
        }
        if !self.asked.contains_key(origin) && self.asked.len() >= ORIGINS_MAX {
            self.make_room(now);
        }
        let times = self.asked.entry(origin.clone()).or_default();
        times.retain(|at| *at + HOUR > now);
        times.push_back(now);
    }

    /// Forgets everything, since the clock was set.
    pub fn clear(&mut self) {
        self.asked.clear();
    }

    fn make_room(&mut self, now: Time) {
        self.asked.retain(|_, times| times.back().is_some_and(|at| *at + HOUR > now));
        if self.asked.len() >= ORIGINS_MAX
            && let Some(quietest) =
                self.asked.iter().min_by_key(|(_, times)| times.back()).map(|(origin, _)| origin.clone())
        {
            self.asked.remove(&quietest);
        }
    }
}

/// A request that waits for an answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks, as they introduce themselves.
    pub contact: Contact,
    /// When it arrived.
    pub at: Time,
}

impl Engine {
    /// Requests that wait for an answer, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn requests(&self, read: &dyn Read) -> Result<Vec<Request>, ReadError> {
        let rows = read.collect(tables::REQUESTS, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
        let mut requests: Vec<_> = rows.iter().filter_map(|(_, row)| decode_request(row)).collect();
        requests.sort_by_key(|request| request.at);
        Ok(requests)
    }

    /// The requests that wait for an answer, in the form of the events that accepting them will write.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn requests_as_events(&self, read: &dyn Read) -> Result<Vec<MetadataEvent>, ReadError> {
        let own = &self.active(&self.account_group())?.own;
        let requests = self.requests(read)?.into_iter();
        requests.map(|request| self.unlogged(MetadataKind::contact_received(own, request.contact))).collect()
    }

    /// Whether `contact` asked and waits for an answer.
    pub(super) fn has_request(&self, read: &dyn Read, contact: &AccountId) -> Result<bool, ReadError> {
        read.contains(tables::REQUESTS, contact.as_bytes())
    }

    /// Takes the request of `contact` out of the inbox.
    pub(super) fn take_request(
        &self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<Option<Request>, ReadError> {
        let row = ctx.tx.get(tables::REQUESTS, contact.as_bytes())?;
        if row.is_some() {
            ctx.tx.delete(tables::REQUESTS, contact.as_bytes());
        }
        Ok(row.as_deref().and_then(decode_request))
    }

    /// An event of the account group that is told and not written. Its id follows from its content, and it
    /// comes after all that is written.
    pub(super) fn unlogged(&self, event: MetadataKind) -> Result<MetadataEvent, ReadError> {
        let group = self.account_group();
        let event = OpenedEvent::unlogged(&self.active(&group)?.own, event);
        let entry = event.unlogged_id();
        let position = Position { height: u64::MAX, id: entry };
        Ok(MetadataEvent { group, entry, position, event, changes: Vec::new() })
    }

    /// Keeps a request until it is answered, unless whoever asks was refused lately.
    pub(super) fn keep_request(&mut self, ctx: &mut Ctx<'_, '_>, contact: Contact) -> Result<(), ReadError> {
        if self.was_refused(ctx, &contact.account)? {
            tracing::debug!("somebody who was refused asks again");
            return Ok(());
        }
        let waiting = self.requests(ctx.tx)?;
        if waiting.len() >= PENDING_MAX
            && let Some(oldest) = waiting.first()
            && waiting.iter().all(|request| request.contact.account != contact.account)
        {
            ctx.tx.delete(tables::REQUESTS, oldest.contact.account.as_bytes());
        }
        let row = encode_request(&contact, ctx.now);
        ctx.tx.put(tables::REQUESTS, contact.account.as_bytes(), &row);
        let own = &self.active(&self.account_group())?.own;
        let event = Box::new(self.unlogged(MetadataKind::contact_received(own, contact.clone()))?);
        self.events.push_back(Event::RequestReceived { contact, at: ctx.now, event });
        Ok(())
    }

    /// Refuses the request of `contact`, if there is one, and remembers that for a while on this device alone.
    pub(super) fn refuse_request(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<bool, ReadError> {
        if self.take_request(ctx, contact)?.is_none() {
            return Ok(false);
        }
        let mut refusals = refusals(ctx.tx)?;
        refusals.sort_unstable();
        for (_, oldest) in refusals.iter().take(refusals.len().saturating_sub(REFUSALS_MAX - 1)) {
            ctx.tx.delete(tables::REFUSALS, oldest);
        }
        ctx.tx.put(tables::REFUSALS, contact.as_bytes(), &ctx.now.as_millis().to_be_bytes());
        let own = &self.active(&self.account_group())?.own;
        let event = Box::new(self.unlogged(MetadataKind::contact_discarded(own, *contact))?);
        self.events.push_back(Event::RequestDiscarded { event });
        Ok(true)
    }

    /// Lets somebody be heard again, of whom this account thinks better now.
    pub(super) fn forget_refusal(&self, ctx: &mut Ctx<'_, '_>, contact: &AccountId) -> Result<(), ReadError> {
        if ctx.tx.contains(tables::REFUSALS, contact.as_bytes())? {
            ctx.tx.delete(tables::REFUSALS, contact.as_bytes());
        }
        Ok(())
    }

    fn was_refused(&self, ctx: &mut Ctx<'_, '_>, contact: &AccountId) -> Result<bool, ReadError> {
        let Some(row) = ctx.tx.get(tables::REFUSALS, contact.as_bytes())? else { return Ok(false) };
        let at = row.first_chunk().map(|millis| Time::from_millis(u64::from_be_bytes(*millis)));
        // A moment that is still to come was told by a clock that was wrong.
        let holds = at.is_some_and(|at| at <= ctx.now && ctx.now < at + REFUSAL_KEPT);
        if !holds {
            ctx.tx.delete(tables::REFUSALS, contact.as_bytes());
        }
        Ok(holds)
    }
}

/// When who was refused, by raw account key.
fn refusals(read: &dyn Read) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let rows = read.collect(tables::REFUSALS, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
    let at = |row: &[u8]| row.first_chunk().map_or(0, |millis| u64::from_be_bytes(*millis));
    Ok(rows.into_iter().map(|(key, row)| (at(&row), key)).collect())
}

/// A row of [`tables::REQUESTS`]: milliseconds of arrival, then the serialized `ShareableContact`.
fn encode_request(contact: &Contact, at: Time) -> Vec<u8> {
    [at.as_millis().to_be_bytes().as_slice(), &contact.encode()].concat()
}

fn decode_request(row: &[u8]) -> Option<Request> {
    let (at, contact) = row.split_first_chunk::<8>()?;
    let contact = Contact::decode_incoming(contact).ok()?;
    Some(Request { contact, at: Time::from_millis(u64::from_be_bytes(*at)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_brings_so_many_requests_an_hour_and_others_are_not_held_up() {
        let mut quota = Quota::default();
        let (one, other) = (Origin::Ipv4([192, 0, 2]), Origin::Ipv6([0x20, 1, 0xd, 0xb8, 0, 0]));
        let start = Time::from_secs(1_000_000);
        for _ in 0..REQUESTS_PER_HOUR_MAX {
            assert!(!quota.is_used_up(&one, start));
            quota.note(&one, start);
        }
        assert!(quota.is_used_up(&one, start) && !quota.is_used_up(&other, start));
        assert!(quota.is_used_up(&one, start + Span::from_secs(3599)));
        assert!(!quota.is_used_up(&one, start + HOUR));
        for _ in 0..100 {
            quota.note(&Origin::ThisMachine, start);
        }
        assert!(!quota.is_used_up(&Origin::ThisMachine, start));
    }

    #[test]
    fn what_is_counted_has_a_bound() {
        let mut quota = Quota::default();
        for number in 0..6000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            quota.note(&Origin::Ipv4([a, b, c]), Time::from_secs(1));
        }
        assert_eq!(quota.asked.len(), ORIGINS_MAX);
        for _ in 0..1000 {
            quota.note(&Origin::Unknown, Time::from_secs(2));
        }
        quota.note(&Origin::Unknown, Time::from_secs(2) + HOUR);
        assert_eq!(quota.asked[&Origin::Unknown].len(), 1);
    }
}
