//! What must not happen.

use std::fmt;

use dunlin_base::EntryId;

use crate::hostile::Malice;

/// A breach of an invariant.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Violation {
    /// I1: a message is neither shown nor told to wait.
    Lost {
        /// The device that misses it.
        node: usize,
        /// The message.
        entry: EntryId,
    },
    /// I2: something is shown that nobody wrote, or elsewhere, or more than once.
    Invented {
        /// The device that shows it.
        node: usize,
        /// The message.
        entry: EntryId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// I3: two devices of a group differ.
    Diverged {
        /// The two devices.
        nodes: (usize, usize),
        /// In what.
        what: &'static str,
    },
    /// I5: two messages of one device carry the same counter.
    CounterReused {
        /// Who shows them.
        node: usize,
        /// The counter.
        counter: u64,
    },
    /// I2: what is listed is not what was given as it came, once each.
    ListedOtherwise {
        /// The device.
        node: usize,
        /// How many messages.
        messages: usize,
    },
    /// A hostile peer got what nobody must get.
    Yielded {
        /// Which kind of peer.
        to: Malice,
        /// What.
        what: &'static str,
    },
    /// I5: two texts were sealed with one key and one nonce.
    NonceReused {
        /// By whom.
        node: usize,
    },
    /// E1: a counter was left out.
    CounterSkipped {
        /// By whom.
        node: usize,
    },
    /// I2: a contact that neither side asked for.
    ContactInvented {
        /// Whose.
        node: usize,
    },
    /// I3: two devices of one account differ.
    Apart {
        /// The two devices.
        nodes: (usize, usize),
        /// In what.
        what: &'static str,
    },
    /// I4: something that was answered `Ok` is gone.
    Forgotten {
        /// Whose.
        node: usize,
        /// What.
        what: &'static str,
    },
    /// I8: something is left over.
    LeftOver {
        /// Where.
        node: usize,
        /// What.
        what: String,
    },
    /// I8: nothing happens any more, and yet there is no end.
    Restless {
        /// Inputs in the last half minute, or in all.
        steps: u64,
    },
    /// I6: a blocked account is not blocked any more.
    Unblocked {
        /// Whose block is gone.
        node: usize,
    },
    /// I7: a text went over the network in clear.
    Leaked,
    /// A store or an account does not open, or cannot be read.
    Unreadable {
        /// Whose.
        node: usize,
        /// Why.
        error: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { node, entry } => write!(f, "I1: node {node} misses {entry}"),
            Self::Invented { node, entry, why } => write!(f, "I2: node {node} shows {entry}, which {why}"),
            Self::Diverged { nodes: (a, b), what } => write!(f, "I3: nodes {a} and {b} differ in {what}"),
            Self::CounterReused { node, counter } => {
                write!(f, "I5: node {node} shows two messages with counter {counter} of one device")
            }
            Self::ListedOtherwise { node, messages } => {
                write!(
                    f,
                    "I2: node {node} lists {messages} messages that it did not give once as they came, or not those"
                )
            }
            Self::NonceReused { node } => {
                write!(f, "I5: node {node} sealed two texts with one key and nonce")
            }
            Self::CounterSkipped { node } => write!(f, "E1: node {node} left out a counter"),
            Self::ContactInvented { node } => {
                write!(f, "I2: node {node} has a contact that nobody asked for")
            }
            Self::Apart { nodes: (a, b), what } => {
                write!(f, "I3: nodes {a} and {b}, of one account, differ in {what}")
            }
            Self::Forgotten { node, what } => write!(f, "I4: node {node} forgot {what}"),
            Self::LeftOver { node, what } => write!(f, "I8: node {node} is left with {what}"),
            Self::Restless { steps } => write!(f, "I8: {steps} inputs, though nothing is left to do"),
            Self::Yielded { to, what } => write!(f, "{to} got {what}"),
            Self::Unblocked { node } => write!(f, "I6: a block of node {node} is gone"),
            Self::Leaked => write!(f, "I7: a text went over the network in clear"),
            Self::Unreadable { node, error } => write!(f, "node {node} cannot be read: {error}"),
        }
    }
}
