//! Faults that a simulation plants, to see that it would find them, and the log of what was sealed.
//!
//! A fault is an `if` at the place where it would be made: `if planted::is(Bug::ZeroDh)`. Without the feature
//! `planted` that is `false` at compile time, and nothing is left of it. Only `dunlin-sim` can turn the feature on;
//! `cargo xtask arrows` checks that.

#[cfg(feature = "planted")]
pub(crate) use switch::watch;
#[cfg(feature = "planted")]
pub use switch::{is, plant, take_sealings};

use crate::seal::NONCE_BYTES;

/// One use of a key and a nonce: digest of the key, the nonce, and digest of what was sealed.
pub type Sealing = ([u8; 32], [u8; NONCE_BYTES], [u8; 32]);

/// Whether a fault is planted: never, in a build without the feature.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// Notes what is sealed: nothing is, in a build without the feature.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn watch(_: &crate::keys::SymmetricKey, _: &[u8; NONCE_BYTES], _: &[u8]) {}

/// What was sealed: that is noted only in a build with the feature.
#[cfg(not(feature = "planted"))]
pub const fn take_sealings() -> Vec<Sealing> {
    Vec::new()
}

/// What ships has no faults: this does not compile otherwise.
#[cfg(not(feature = "planted"))]
const _: () = {
    let mut rest = Bug::ALL;
    while let [bug, others @ ..] = rest {
        assert!(!is(*bug));
        rest = others;
    }
};

/// Makes the list of faults, each with the words for it.
macro_rules! bugs {
    ($($name:ident: $words:literal,)*) => {
        /// A fault that can be planted, such as engineers make.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Bug {
            $(#[doc = $words] $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What is wrong, in a few words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

bugs! {
    // Keys and seals.
    ZeroDh: "a shared secret of zero is taken",
    NonceRepeats: "random nonces are all the same",
    NoEncryption: "what is sealed can be read",
    ChainNotStored: "the state of the own chain is not stored",
    CounterSkips: "a counter is left out",
    ChainBoxAnew: "chain-key boxes are sealed anew each time",
    // The log.
    EntryUnsigned: "signatures of entries are not checked",
    WriterUnchecked: "whether the writer may write is not checked",
    LinksUnchecked: "how many links an entry has is not checked",
    OtherLog: "entries of other logs are taken",
    ArrivalOrder: "the order is that of arrival",
    HeadsNotStored: "some heads are not stored",
    CopiesCount: "copies of a value count",
    GiveUpForgotten: "what waits for a hole waits for ever",
    HeightsNotRescaled: "a late parent does not change heights",
    DedupeSkipped: "what is here already is stored again",
    // Groups and messages.
    MemberSigUnchecked: "the signature that binds a device to a member is not checked",
    EventSigUnchecked: "the signature of an event is not checked",
    WaitingForgotten: "messages without a key do not wait",
    WaitingNotOpened: "what waited for a key is not opened when it comes",
    KeysNotServed: "some newcomers get no chain key",
    WaitingNotDeleted: "what was opened is still noted as waiting",
    OldestWins: "of two things that were said of a contact, the older counts",
    LeftNotForgotten: "a group that was left stays known",
    LeaveNotWritten: "that a group was left is not written",
    OtherDevicesUnheard: "what other devices of the account joined is not followed",
    // The network.
    FramesKept: "frames that were sent stay noted as on their way",
    UnsentKept: "messages that others have count as unsent",
    OneHeadShown: "only one head is shown to others",
    AnswersWithoutEnd: "whoever has all is told again each time",
    NotAnnounced: "own entries are not announced",
    NoRelay: "what reached one member alone is not told to the others",
    NoGreeting: "whoever comes onto a topic is told nothing",
    HeadsCutOff: "heads beyond the first payload are never shown",
    NothingFetched: "what is missing is not asked for",
    FetchForgotten: "a fetch that failed is not tried again",
    BlocksForAll: "blocks go to strangers",
    ClockSetBack: "a clock that is set back stops what is due",
    // Contacts.
    BlockNotWritten: "a block of a contact is not written",
    ExchangesNeverEnd: "silent handshakes never end",
    RequestIdentity: "a request may introduce another account",
    // The disk.
    DropFsync: "syncs do nothing",
    CommitDeferred: "commits do not wait for the disk",
    JournalNotRead: "the journal is not read at opening",
    DiskInClear: "the disk can be read",
    SyncErrorIgnored: "a sync that failed counts as done",
    CommitErrorIgnored: "a commit that failed counts as done",
    BatchCutShort: "the last change of a large batch is left out",
    AnnounceBeforeCommit: "actions are carried out though the commit failed",
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::{Cell, RefCell};

    use super::{Bug, Sealing};
    use crate::kdf::sha256;
    use crate::keys::SymmetricKey;
    use crate::seal::NONCE_BYTES;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static SEALINGS: RefCell<Vec<Sealing>> = const { RefCell::new(Vec::new()) };
    }

    /// Plants a fault in this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether a fault is planted in this thread.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Notes that something was sealed.
    pub fn watch(key: &SymmetricKey, nonce: &[u8; NONCE_BYTES], clear: &[u8]) {
        let sealing = (sha256(&[key.as_bytes()]), *nonce, sha256(&[clear]));
        SEALINGS.with_borrow_mut(|sealings| sealings.push(sealing));
    }

    /// What was sealed in this thread since this was last asked.
    pub fn take_sealings() -> Vec<Sealing> {
        SEALINGS.take()
    }
}
