//! Rotation tokens: the names under which contact requests are received and heads are announced
//! (`spec/wesh-protocol.md` §6.2).
//!
//! A token belongs to a topic, a seed and a period of the rotation interval. Nothing here remembers one:
//! they are computed for the time at hand, since a stale token ends an exchange (`spec/security.md` D6).
//!
//! An interval of `None` is the static one of bare weshnet: its period begins in 1970 and does not end
//! within a human life. Intervals count in whole seconds.

use std::fmt;

use dunlin_base::kdf::hmac_sha256;
use dunlin_base::keys::SymmetricKey;
use dunlin_base::{AccountId, Span, Time};
use zeroize::Zeroizing;

/// Past periods whose heads tokens are accepted. A Go node goes on sending the token of the day on which it
/// opened the store; a week covers a telephone that is seldom restarted.
pub const PERIODS_BACK: u64 = 7;
/// Future periods whose tokens are accepted, for clocks that are ahead.
pub const PERIODS_AHEAD: u64 = 1;

/// The token of one topic and seed in one period.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token([u8; 32]);

impl Token {
    /// Takes 32 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, as a heads payload carries them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The discovery namespace of the token: 44 characters of padded base64.
    pub fn namespace(&self) -> String {
        data_encoding::BASE64.encode(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The token of `topic` and `seed` in the period that begins at `period_start`, in seconds since 1970:
/// HMAC-SHA-256 of the eight big-endian bytes of the start, keyed with topic and seed.
pub fn token(topic: &[u8], seed: &[u8], period_start: u64) -> Token {
    let key = Zeroizing::new([topic, seed].concat());
    Token(hmac_sha256(&key, &period_start.to_be_bytes()))
}

/// When the period around `now` began, in seconds since 1970.
pub fn period_start(now: Time, interval: Option<Span>) -> u64 {
    let Some(length) = period_secs(interval) else { return 0 };
    now.as_secs() - now.as_secs() % length
}

/// When the period around `now` ends and another token comes into force; `None` when it never does.
pub fn period_end(now: Time, interval: Option<Span>) -> Option<Time> {
    let length = period_secs(interval)?;
    Some(Time::from_secs(period_start(now, interval).saturating_add(length)))
}

/// The token under which heads of the store at `address` are announced now.
pub fn heads_token(address: &str, link_key: &SymmetricKey, now: Time, interval: Option<Span>) -> Token {
    token(address.as_bytes(), link_key.as_bytes(), period_start(now, interval))
}

/// Every token under which heads of the store at `address` are accepted now, likely ones first: the current
/// one, its neighbours, the static one, then older ones back to [`PERIODS_BACK`].
pub fn accepted_heads_tokens(
    address: &str,
    link_key: &SymmetricKey,
    now: Time,
    interval: Option<Span>,
) -> impl Iterator<Item = Token> {
    accepted_periods(now, interval).map(|start| token(address.as_bytes(), link_key.as_bytes(), start))
}

/// The topic of an account's contact requests: its key in base64.
pub fn contact_topic(account: &AccountId) -> String {
    data_encoding::BASE64.encode(account.as_bytes())
}

/// The token under which `account` receives contact requests now. `seed` is its public rendezvous seed.
pub fn contact_token(account: &AccountId, seed: &[u8; 32], now: Time, interval: Option<Span>) -> Token {
    token(contact_topic(account).as_bytes(), seed, period_start(now, interval))
}

/// The names under which `account` lets itself be found with an announcement that lasts for `lifetime`.
///
/// They are those of the current period, of the next one if it begins before the announcement ends, and of
/// the previous one: a Go node that began to look yesterday still looks under yesterday's name
/// (`spec/wesh-protocol.md` §6.3). Announcements last for less than a period.
pub fn announced_contact_names(
    account: &AccountId,
    seed: &[u8; 32],
    now: Time,
    interval: Option<Span>,
    lifetime: Span,
) -> Vec<String> {
    let last = period_start(now + lifetime, interval);
    let current = period_start(now, interval);
    let mut starts = vec![current];
    if let Some(length) = period_secs(interval) {
        let next = current.saturating_add(length);
        starts.extend((next <= last).then_some(next));
        starts.extend(current.checked_sub(length));
    }
    contact_names(account, seed, starts)
}

/// The names under which to look for `account`: of the current period and of both its neighbours, for
/// clocks that differ.
pub fn sought_contact_names(
    account: &AccountId,
    seed: &[u8; 32],
    now: Time,
    interval: Option<Span>,
) -> Vec<String> {
    let current = period_start(now, interval);
    let mut starts = vec![current];
    if let Some(length) = period_secs(interval) {
        starts.extend(current.checked_sub(length));
        starts.push(current.saturating_add(length));
    }
    contact_names(account, seed, starts)
}

fn contact_names(account: &AccountId, seed: &[u8; 32], starts: Vec<u64>) -> Vec<String> {
    let topic = contact_topic(account);
    starts.into_iter().map(|start| token(topic.as_bytes(), seed, start).namespace()).collect()
}

/// Starts of the periods whose tokens are accepted, likely ones first and none twice.
fn accepted_periods(now: Time, interval: Option<Span>) -> impl Iterator<Item = u64> {
    let length = period_secs(interval);
    let current = period_start(now, interval);
    let back = move |count| current.checked_sub(length?.checked_mul(count)?);
    let ahead = (1..=PERIODS_AHEAD).filter_map(move |count| current.checked_add(length?.checked_mul(count)?));
    // The first period of all has the same start as the static one.
    let recent = [Some(current), back(1)].into_iter().flatten().chain(ahead);
    let old = (2..=PERIODS_BACK).filter_map(back).filter(|start| *start != 0);
    let earliest = current != 0 && back(1) != Some(0);
    recent.chain(earliest.then_some(0)).chain(old)
}

/// The length of a period in seconds; `None` for the static interval, and for one below a second.
fn period_secs(interval: Option<Span>) -> Option<u64> {
    interval.map(|span| span.as_millis() / 1000).filter(|secs| *secs > 0)
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;

    const DAY: Option<Span> = Some(Span::from_secs(86_400));
    const NOON: Time = Time::from_secs(1_767_225_600 + 43_200);

    fn days(periods: impl Iterator<Item = u64>) -> Vec<i64> {
        periods
            .map(|start| match start {
                0 => i64::MIN,
                start => (start as i64 - 1_767_225_600) / 86_400,
            })
            .collect()
    }

    #[test]
    fn token_matches_the_published_one() {
        // spec/wesh-protocol.md A.3.
        let got = token(b"topicA", b"seedA", 1_586_520_000);
        assert_eq!(
            hex::encode(got.as_bytes()),
            "8b7fdc831ca90f78995f32d8b9cf7bc8682a7fc250fe13a9b7c5c0851a3b8cbc"
        );
    }

    #[test]
    fn contact_names_match_the_published_ones() {
        // spec/wesh-protocol.md A.1 and A.3: account A, seed 32 x 11.
        let account = AccountId::new(SecretKey::from_seed(std::array::from_fn(|i| i as u8)).public());
        let name = |interval| contact_token(&account, &[0x11; 32], NOON, interval).namespace();
        assert_eq!(name(None), "2JSpzFG/R729qT3eoMHmKQbD9Li12LYwFyJr94K5uXs=");
        assert_eq!(name(DAY), "AXtqIgL0oTpmxLiqBGSY1y6ixvAECEKkjfypR/Cyttk=");
    }

    #[test]
    fn accepts_a_week_back_and_a_day_ahead_and_the_static_token() {
        assert_eq!(days(accepted_periods(NOON, DAY)), [0, -1, 1, i64::MIN, -2, -3, -4, -5, -6, -7]);
        assert_eq!(accepted_periods(NOON, None).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn nothing_is_accepted_twice_or_before_1970() {
        let at = |day: u64| accepted_periods(Time::from_secs(86_400 * day), DAY).map(|start| start / 86_400);
        assert_eq!(at(0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(at(1).collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(at(3).collect::<Vec<_>>(), [3, 2, 4, 0, 1]);
    }

    #[test]
    fn an_announcement_across_midnight_carries_both_names() {
        let account = AccountId::new(SecretKey::from_seed([1; 32]).public());
        let two_hours = Span::from_secs(7200);
        let late = NOON + Span::from_secs(40_000);
        let tomorrow = contact_token(&account, &[2; 32], NOON + Span::from_secs(86_400), DAY).namespace();

        let announced = announced_contact_names(&account, &[2; 32], late, DAY, two_hours);
        assert_eq!(announced.len(), 3);
        assert!(announced.contains(&tomorrow));
        assert_eq!(announced_contact_names(&account, &[2; 32], NOON, DAY, two_hours).len(), 2);
        assert_eq!(announced_contact_names(&account, &[2; 32], NOON, None, two_hours).len(), 1);
    }

    #[test]
    fn whoever_looks_finds_across_a_period_of_skew() {
        let account = AccountId::new(SecretKey::from_seed([1; 32]).public());
        let announced = announced_contact_names(&account, &[2; 32], NOON, DAY, Span::from_secs(7200));
        for skew in [0, 86_400] {
            let ahead = sought_contact_names(&account, &[2; 32], NOON + Span::from_secs(skew), DAY);
            let behind = sought_contact_names(&account, &[2; 32], NOON - Span::from_secs(skew), DAY);
            assert!(announced.iter().any(|name| ahead.contains(name)));
            assert!(announced.iter().any(|name| behind.contains(name)));
        }
        assert_eq!(sought_contact_names(&account, &[2; 32], NOON, None).len(), 1);
    }

    #[test]
    fn the_end_of_time_does_not_overflow() {
        let end = Time::from_millis(u64::MAX);
        assert!(accepted_periods(end, Some(Span::from_millis(u64::MAX))).count() > 0);
        assert!(period_end(end, DAY).is_some());
    }
}
