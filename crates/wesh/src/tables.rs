//! The tables of this crate, `0x30` to `0x4f`, in one place. Layouts stand beside the code that uses them.

use dunlin_base::kv::{ReadError, Table};

/// Account, proof and device key, and the private keys per group: [`crate::keys`].
pub const KEYS: Table = Table(0x30);
/// Chain states per group and device: [`crate::message`].
pub const CHAINS: Table = Table(0x31);
/// Keys of own messages that were sealed and not opened yet, and keys that are held after that, per group, device and
/// counter: [`crate::message`].
pub const MESSAGE_KEYS: Table = Table(0x32);
/// Message keys by entry, as earlier versions kept them. They are erased.
pub const OPENED_KEYS: Table = Table(0x33);
/// State folded from metadata logs: [`crate::metadata`].
pub const INDEX: Table = Table(0x34);
/// Chain-key boxes that were sealed once and are repeated byte for byte: [`crate::message`].
pub const CHAIN_BOXES: Table = Table(0x35);
/// Messages that wait for a key, per group, device and counter: [`crate::message`].
pub const WAITING: Table = Table(0x36);
/// Which signatures of a device were seen at which counters: [`crate::message`].
pub const SIGNATURES: Table = Table(0x37);
/// Entries that claim a counter, as long as its key is held: [`crate::message`].
pub const CLAIMS: Table = Table(0x38);
/// When held keys are to be erased: [`crate::message`].
pub const HELD: Table = Table(0x39);
/// What devices have said under their signature about the places of what they say: [`crate::context`].
pub const CONTEXTS: Table = Table(0x3a);
/// Groups that this account knows: [`crate::engine`].
pub const GROUPS: Table = Table(0x40);
/// What is known of the delivery of own entries: [`crate::engine`].
pub const DELIVERY: Table = Table(0x41);
/// Own messages that no other device is known to have: [`crate::engine`].
pub const UNSENT: Table = Table(0x44);
/// Opened messages in the order of their log: [`crate::engine`].
pub const MESSAGES: Table = Table(0x42);
/// The inbox of contact requests, outside the log until they are answered: [`crate::engine`].
pub const REQUESTS: Table = Table(0x43);
/// Who was refused lately, and when: [`crate::engine`].
pub const REFUSALS: Table = Table(0x4c);
/// Members who wait for the chain key of this device: [`crate::engine`].
pub const OWED: Table = Table(0x4d);
/// Logs whose folded state is behind the order of their entries: [`crate::engine`].
pub const STALE: Table = Table(0x45);

/// Opened messages whose counter belongs to another one: kept and not shown: [`crate::engine`].
pub const REPEATS: Table = Table(0x46);
/// Marks of the metadata events that this device wrote: [`crate::engine`].
pub const OWN_EVENTS: Table = Table(0x48);
/// Messages that were erased: [`crate::engine`].
pub const ERASED: Table = Table(0x47);

/// A row does not have the layout that its table has: the store is damaged.
#[derive(Debug, thiserror::Error)]
#[error("a row of {0:?} is damaged")]
struct DamagedRow(Table);

/// The error for a row of `table` that cannot be understood. Damage is met like a store that cannot be
/// read: whatever needs the row stops, the rest goes on.
pub(crate) fn damaged(table: Table) -> ReadError {
    ReadError(Box::new(DamagedRow(table)))
}
