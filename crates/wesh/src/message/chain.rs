//! The mathematics of a chain: steps, and the window of keys that a receiver keeps (`spec/wesh-protocol.md`
//! §4.1, §4.2, §4.5, §4.6). Nothing here touches storage.

use dunlin_base::GroupId;
use dunlin_base::kdf::hkdf_sha256;
use dunlin_base::keys::SymmetricKey;
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

/// How many unused message keys of one device a receiver can have.
///
/// Go nodes use the same number: whoever skips more messages than this loses them at every receiver.
pub const KEY_WINDOW: u64 = 100;

/// Highest counter at which a chain key is accepted from another device (`spec/security.md` C6).
pub(super) const SHARED_COUNTER_MAX: u64 = i64::MAX as u64 - KEY_WINDOW;

/// The state of a chain after the message `counter`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainKey {
    key: SymmetricKey,
    counter: u64,
}

impl ChainKey {
    /// The state with this key after the message `counter`.
    pub const fn new(key: SymmetricKey, counter: u64) -> Self {
        Self { key, counter }
    }

    /// Begins a chain.
    pub fn random(rng: &mut (impl RngCore + CryptoRng + ?Sized)) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *key);
        Self::new(SymmetricKey::from_bytes(*key), 0)
    }

    /// Steps over one message: the state after it, and its key. `None` when all counters are used.
    pub fn step(&self, group: &GroupId) -> Option<(Self, SymmetricKey)> {
        let counter = self.counter.checked_add(1)?;
        let derived = hkdf_sha256::<64>(self.key.as_bytes(), group.as_bytes());
        let (next, message) = derived.split_at(32);
        let next = SymmetricKey::from_slice(next)?;
        Some((Self::new(next, counter), SymmetricKey::from_slice(message)?))
    }

    /// The number of the last message; the first message of a device has the number 1.
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// The key of the state.
    pub const fn key(&self) -> &SymmetricKey {
        &self.key
    }
}

/// Why there is no key for a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyUnavailable {
    /// The sender gave its chain key away after this message. It stays closed for ever.
    #[error("the message was sent before its key was shared")]
    SentBeforeKey,
    /// The key was used by another entry. It stays closed for ever.
    #[error("the key of the message was used already")]
    AlreadyUsed,
    /// Too many messages before this one are missing. Opens when enough of them came.
    #[error("the message lies beyond the window of keys")]
    BeyondWindow,
}

/// The chain of another device.
///
/// `start < skipped counters < tip`, and at most [`KEY_WINDOW`] keys are unused: those skipped, and those
/// that the tip can still be moved ahead. Every message that is opened makes room for one more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OtherChain {
    /// The counter at which the chain was shared.
    pub(super) start: u64,
    /// The state after the newest message whose key was derived.
    pub(super) tip: ChainKey,
    /// Keys of messages before the tip that did not come yet, oldest first.
    pub(super) skipped: Vec<(u64, SymmetricKey)>,
}

impl OtherChain {
    /// Begins with a state that its owner shared; `None` when its counter is out of bounds
    /// (`spec/security.md` C6).
    pub fn new(shared: ChainKey) -> Option<Self> {
        let in_bounds = shared.counter <= SHARED_COUNTER_MAX;
        in_bounds.then(|| Self { start: shared.counter, tip: shared, skipped: Vec::new() })
    }

    /// Takes the key of the message `counter` out of the chain.
    ///
    /// # Errors
    /// [`KeyUnavailable`]; the chain is as it was.
    pub fn take(&mut self, group: &GroupId, counter: u64) -> Result<SymmetricKey, KeyUnavailable> {
        self.check(counter)?;
        if let Ok(place) = self.skipped.binary_search_by_key(&counter, |(skipped, _)| *skipped) {
            return Ok(self.skipped.remove(place).1);
        }
        let mut tip = self.tip.clone();
        loop {
            let (next, key) = tip.step(group).ok_or(KeyUnavailable::BeyondWindow)?;
            tip = next;
            if tip.counter == counter {
                self.tip = tip;
                return Ok(key);
            }
            self.skipped.push((tip.counter, key));
        }
    }

    /// Puts a key back that was taken and is not used up.
    pub(super) fn put_back(&mut self, counter: u64, key: SymmetricKey) {
        if let Err(place) = self.skipped.binary_search_by_key(&counter, |(skipped, _)| *skipped)
            && counter > self.start
            && counter <= self.tip.counter
        {
            self.skipped.insert(place, (counter, key));
        }
    }

    /// Whether [`Self::take`] would give the key of the message `counter`.
    ///
    /// # Errors
    /// [`KeyUnavailable`], why it would not.
    pub fn check(&self, counter: u64) -> Result<(), KeyUnavailable> {
        if counter <= self.start {
            return Err(KeyUnavailable::SentBeforeKey);
        }
        if counter > self.window_end() {
            return Err(KeyUnavailable::BeyondWindow);
        }
        let unused = counter > self.tip.counter
            || self.skipped.binary_search_by_key(&counter, |(skipped, _)| *skipped).is_ok();
        if unused { Ok(()) } else { Err(KeyUnavailable::AlreadyUsed) }
    }

    /// The newest message that can be opened.
    pub fn window_end(&self) -> u64 {
        self.tip.counter.saturating_add(KEY_WINDOW.saturating_sub(self.skipped.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use dunlin_base::SecretKey;

    use super::*;

    fn group() -> GroupId {
        GroupId::new(SecretKey::from_seed([7; 32]).public())
    }

    fn state(counter: u64) -> ChainKey {
        ChainKey::new(SymmetricKey::from_bytes([0x42; 32]), counter)
    }

    fn key_of(counter: u64) -> SymmetricKey {
        let mut at = state(0);
        loop {
            let (next, key) = at.step(&group()).unwrap();
            if next.counter() == counter {
                return key;
            }
            at = next;
        }
    }

    #[test]
    fn steps_match_the_published_vector() {
        // spec/wesh-protocol.md A.5.
        let id = hex::decode("9a029b1b526b7185770b2dc7da55a19b5b11dac5ca44da577c8671a807308d83").unwrap();
        let group = GroupId::from_bytes(&id).unwrap();
        let (first, first_key) = state(0).step(&group).unwrap();
        let (second, second_key) = first.step(&group).unwrap();
        let shown =
            [first.key(), &first_key, second.key(), &second_key].map(|key| hex::encode(key.as_bytes()));
        assert_eq!(
            shown,
            [
                "ca525414499bf12fb8bf95385f795bdf026bc9adbdba981cbd2823b4ebfa8a72",
                "5709137180b4138619b635f5b033be96c77914ff092ecadc69899b280e269665",
                "edfef88ab5e91ac256bd66afd7ede56b3dc8fbf40a711fb3c71ffe51737df6f6",
                "fd09b7c0962c5c32b3250d4ba3a17001de7c8c7cb6b24a58a9863cb3168061b3",
            ]
        );
    }

    #[test]
    fn keys_come_in_any_order_and_once() {
        let mut chain = OtherChain::new(state(0)).unwrap();
        for counter in [5, 3, 100, 4, 1, 2, 101, 105] {
            assert_eq!(chain.take(&group(), counter), Ok(key_of(counter)), "{counter}");
            assert_eq!(chain.take(&group(), counter), Err(KeyUnavailable::AlreadyUsed), "{counter}");
        }
        assert_eq!(chain.window_end(), 108);
        assert_eq!(chain.skipped.len() as u64 + chain.window_end() - chain.tip.counter(), KEY_WINDOW);
    }

    /// The window moves by one for each message that is opened, whichever it is.
    #[test]
    fn window_moves_with_what_is_opened() {
        let mut chain = OtherChain::new(state(7)).unwrap();
        assert_eq!(chain.take(&group(), 0), Err(KeyUnavailable::SentBeforeKey));
        assert_eq!(chain.take(&group(), 7), Err(KeyUnavailable::SentBeforeKey));
        assert_eq!(chain.take(&group(), 108), Err(KeyUnavailable::BeyondWindow));
        assert!(chain.take(&group(), 107).is_ok());
        assert!(chain.take(&group(), 108).is_ok());
        assert_eq!(chain.take(&group(), 110), Err(KeyUnavailable::BeyondWindow));
        assert!(chain.take(&group(), 8).is_ok());
        assert!(chain.take(&group(), 110).is_ok());
    }

    /// `spec/security.md` C6.
    #[test]
    fn counter_edges() {
        assert!(OtherChain::new(state(SHARED_COUNTER_MAX + 1)).is_none());
        assert!(OtherChain::new(state(u64::MAX)).is_none());
        let mut chain = OtherChain::new(state(SHARED_COUNTER_MAX)).unwrap();
        assert_eq!(chain.window_end(), i64::MAX as u64);
        assert!(chain.take(&group(), i64::MAX as u64).is_ok());
        assert!(chain.take(&group(), i64::MAX as u64 + 1).is_ok());
        assert_eq!(chain.take(&group(), u64::MAX), Err(KeyUnavailable::BeyondWindow));

        let (last, _) = state(u64::MAX - 1).step(&group()).unwrap();
        assert_eq!(last.counter(), u64::MAX);
        assert!(last.step(&group()).is_none());
    }

    #[test]
    fn secret_types_show_nothing() {
        assert_eq!(format!("{:?}", state(3)), "ChainKey { key: SymmetricKey(..), counter: 3 }");
        let mut chain = OtherChain::new(state(0)).unwrap();
        chain.take(&group(), 2).unwrap();
        assert_eq!(
            format!("{chain:?}"),
            "OtherChain { start: 0, tip: ChainKey { key: SymmetricKey(..), counter: 2 }, \
             skipped: [(1, SymmetricKey(..))] }"
        );
    }
}
