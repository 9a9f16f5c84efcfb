//! The tables of this crate, `0x60` to `0x6f`, in one place. Layouts stand in [`crate::rows`].
//!
//! What lies here is folded from the logs, except the own name, unread counts and times of arrival.

use dunlin_base::kv::Table;

/// What the owner chose about the account.
pub const PROFILE: Table = Table(0x60);
/// People: by account.
pub const CONTACTS: Table = Table(0x61);
/// Conversations: by group.
pub const CONVERSATIONS: Table = Table(0x62);
/// Messages that are shown: by group and place in the log.
pub const MESSAGES: Table = Table(0x63);
/// Where a message stands: by entry.
pub const PLACES: Table = Table(0x64);
/// Who confirmed an own message: by group, entry and member.
pub const RECEIPTS: Table = Table(0x65);
/// Messages that cannot be opened yet: by group and entry.
pub const CLOSED: Table = Table(0x66);
/// Own messages that no device has yet: by group and entry.
pub const KEPT: Table = Table(0x67);
/// What devices of groups call themselves: by group and device.
pub const NAMES: Table = Table(0x68);
/// Devices of the account that the owner knows or is to be told of: by device.
pub const DEVICES: Table = Table(0x6a);
/// Confirmations that one of several own devices gives: by group and entry.
pub const OWED: Table = Table(0x69);
