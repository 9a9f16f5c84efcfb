//! A device key that two devices run with is given up (`spec/security.md` E3).
//!
//! A copied or restored data directory holds keys and chains that somebody else uses, or that were used further. Two
//! devices that seal with one chain use keys twice. What was sealed twice cannot be taken back, so this is
//! found as early as can be: before anything is sent, where the shell can tell that the directory is a copy
//! ([`renew_device`]), else by the first entry that only this device could have signed and did not.
//!
//! Either way the remedy is the same. The device goes on under a new key, which it announces to every group (event 1),
//! and with a new chain, which it gives to every member (event 2). What was written before stays, and what the
//! other one goes on to write is read like that of any device.

use dunlin_base::kdf::sha256;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{DeviceId, GroupId};
use rand_core::CryptoRngCore;

use super::fold::stale_key;
use super::{Ctx, Engine, Event, OpenError, StoreKind};
use crate::group::OwnMember;
use crate::keys::AccountKeys;
use crate::message;
use crate::metadata::{Index, OpenedEvent};
use crate::tables;

/// A name in [`tables::KEYS`], present from a renewal until it is told. The value says why.
const RENEWED: &[u8] = b"deviceRenewed";

/// Why a device goes on under a new key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RenewalCause {
    /// The data directory is not the one that ran last: it is a copy, or came back from a backup.
    DirectoryCopied,
    /// Another device signs with the key of this one: it runs on a copy of the data directory.
    KeyInUseElsewhere,
}

/// Gives the account in the store of `tx` a new device key, before the engine is opened on it. Does nothing
/// when there is no account.
///
/// # Errors
/// When the store cannot be read, or holds keys that are none.
pub fn renew_device(tx: &mut Tx<'_>, rng: &mut dyn CryptoRngCore) -> Result<(), OpenError> {
    let Some(mut keys) = AccountKeys::load(tx)? else { return Ok(()) };
    renew(tx, &mut keys, rng, RenewalCause::DirectoryCopied)?;
    Ok(())
}

fn renew(
    tx: &mut Tx<'_>,
    keys: &mut AccountKeys,
    rng: &mut dyn CryptoRngCore,
    cause: RenewalCause,
) -> Result<(), ReadError> {
    keys.renew_device(tx, rng)?;
    message::retire_own_chains(tx)?;
    // Who has the chain of this device is known per device, so it is found anew.
    let account = GroupId::new(*keys.account_id().key());
    let rows = tx.collect(tables::GROUPS, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
    let groups = rows.iter().filter_map(|(key, _)| GroupId::from_stored(key));
    for group in groups.chain([account]) {
        tx.put(tables::STALE, &stale_key(&group, StoreKind::Metadata), &[]);
    }
    tx.put(tables::KEYS, RENEWED, &[cause as u8]);
    Ok(())
}

impl Engine {
    /// Notes an event that this device is about to write.
    pub(super) fn note_own_event(&self, ctx: &mut Ctx<'_, '_>, group: &GroupId, payload: &[u8]) {
        ctx.tx.put(tables::OWN_EVENTS, &own_event_key(group, payload), &[]);
    }

    /// Looks whether an event that came was signed by this device, and elsewhere.
    pub(super) fn watch_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        event: &OpenedEvent,
    ) -> Result<(), ReadError> {
        if event.device() == Some(&self.active(group)?.own_device())
            && !ctx.tx.contains(tables::OWN_EVENTS, &own_event_key(group, event.payload()))?
        {
            self.key_is_shared = true;
        }
        Ok(())
    }

    /// Looks whether a message that came was signed by this device, and elsewhere.
    pub(super) fn watch_message(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        headers: &message::Headers,
        value: &[u8],
    ) -> Result<(), ReadError> {
        let active = self.active(group)?;
        if headers.device == active.own_device()
            && message::is_made_elsewhere(ctx.tx, &active.group, headers, value)?
        {
            self.key_is_shared = true;
        }
        Ok(())
    }

    /// Goes on under a new device key, if an entry showed that another device has the present one.
    pub(super) fn renew_if_shared(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        if !std::mem::take(&mut self.key_is_shared) {
            return Ok(());
        }
        renew(ctx.tx, &mut self.keys, ctx.rng, RenewalCause::KeyInUseElsewhere)?;
        for (id, active) in &mut self.groups {
            active.own = OwnMember::in_group(&self.keys, &active.group, ctx.tx, ctx.rng)?;
            active.index = Index::new(&active.group, &self.keys, &active.own);
            self.stale.insert((*id, StoreKind::Metadata));
            self.to_be_announced.insert(*id);
            self.backlog.insert((*id, StoreKind::Metadata));
        }
        self.tell_renewal(ctx)?;
        self.join_backlog(ctx)
    }

    /// Tells of a renewal that was not told yet.
    pub(super) fn tell_renewal(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), ReadError> {
        let Some(row) = ctx.tx.get(tables::KEYS, RENEWED)? else { return Ok(()) };
        ctx.tx.delete(tables::KEYS, RENEWED);
        let cause = match row.first() {
            Some(cause) if *cause == RenewalCause::DirectoryCopied as u8 => RenewalCause::DirectoryCopied,
            _ => RenewalCause::KeyInUseElsewhere,
        };
        self.events
            .push_back(Event::DeviceRenewed { device: DeviceId::new(self.keys.device.public()), cause });
        Ok(())
    }
}

/// Key of [`tables::OWN_EVENTS`]: the raw group key, then 16 bytes of the digest of what was signed.
fn own_event_key(group: &GroupId, payload: &[u8]) -> Vec<u8> {
    let digest = sha256(&[payload]);
    [group.as_bytes().as_slice(), digest.get(..16).unwrap_or_default()].concat()
}
