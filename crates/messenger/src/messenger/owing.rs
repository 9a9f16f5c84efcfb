//! Confirmations of an account with several devices: one of them gives each.
//!
//! The devices take turns, in the order of their ids. The first confirms at once, each other one when those
//! before it have had their time and none of them has done it. What another device confirmed is in the log, so
//! a device that comes back or is new finds it there and stays silent.

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError, Tx};
use dunlin_base::{EntryId, GroupId, Span, Time};
use dunlin_wesh::engine::{Ctx, Engine};

use super::{Messenger, conversations, tolerated};
use crate::app_message::Envelope;
use crate::rows::group_entry;
use crate::tables;

/// How long the devices before have for a confirmation to arrive here. Gossip takes a second or two.
const TURN: Span = Span::from_secs(5);
/// Turns after which nobody is waited for any longer: the other side wants to know.
const TURNS_MAX: usize = 6;
/// Pause while the history of a conversation joins, which may hold the confirmation.
const JOINING_PAUSE: Span = Span::from_secs(1);
/// Confirmations that are written in one transaction.
const GIVEN_PER_STEP_MAX: usize = 256;

impl Messenger {
    /// Confirms a message, or notes that another device of this account may do so first.
    pub(super) fn owe(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        let key = group_entry(group, entry);
        if ctx.tx.contains(tables::OWED, &key)? {
            // Another device confirmed it before it could be opened here.
            ctx.tx.delete(tables::OWED, &key);
            return Ok(());
        }
        if is_alone(ctx.tx, engine)? {
            return confirm(ctx, engine, group, entry);
        }
        let due = turns(ctx.tx, engine, group)?.fold(ctx.now, |due, ()| due + TURN);
        ctx.tx.put(tables::OWED, &key, &due.as_millis().to_be_bytes());
        self.owed_due = Some(self.owed_due.map_or(due, |next| next.min(due)));
        Ok(())
    }

    /// Gives the confirmations whose turn has come.
    pub(super) fn give_owed(&mut self, ctx: &mut Ctx<'_, '_>, engine: &mut Engine) -> Result<(), ReadError> {
        if self.owed_due.is_none_or(|due| due > ctx.now) {
            return Ok(());
        }
        let latest = (0..TURNS_MAX).fold(ctx.now, |due, _| due + TURN);
        let (mut next, mut given) = (None::<Time>, 0);
        for (key, row) in
            ctx.tx.collect(tables::OWED, &KeyRange::default(), Direction::Ascending, usize::MAX)?
        {
            let Some((group, entry, due)) = decode(&key, &row) else { continue };
            // A clock that was set back makes everything due.
            let is_due = due <= ctx.now || due > latest;
            let wake = match is_due {
                true if engine.is_joining(&group) => ctx.now + JOINING_PAUSE,
                true if given < GIVEN_PER_STEP_MAX => {
                    ctx.tx.delete(tables::OWED, &key);
                    if conversations::row(ctx.tx, &group)?.is_some_and(|row| !row.left) {
                        confirm(ctx, engine, &group, &entry)?;
                    }
                    given += 1;
                    continue;
                }
                true => ctx.now,
                false => due,
            };
            next = Some(next.map_or(wake, |next| next.min(wake)));
        }
        self.owed_due = next;
        Ok(())
    }

    /// Takes up what was owed when the account was closed.
    pub(super) fn resume_owed(&mut self, read: &dyn Read) -> Result<(), ReadError> {
        let rows = read.collect(tables::OWED, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
        self.owed_due = rows.iter().filter_map(|(key, row)| Some(decode(key, row)?.2)).min();
        Ok(())
    }
}

/// Notes that another device of this account has confirmed a message, which may not be here yet.
pub(super) fn note_given(
    tx: &mut Tx<'_>,
    group: &GroupId,
    entry: &EntryId,
    is_here: bool,
) -> Result<(), ReadError> {
    let key = group_entry(group, entry);
    match is_here {
        true => tx.delete(tables::OWED, &key),
        false => tx.put(tables::OWED, &key, &[]),
    }
    Ok(())
}

fn confirm(
    ctx: &mut Ctx<'_, '_>,
    engine: &mut Engine,
    group: &GroupId,
    entry: &EntryId,
) -> Result<(), ReadError> {
    let acknowledgement = Envelope::acknowledge(entry).encode();
    tolerated(engine.send_message(ctx, group, &acknowledgement))?;
    Ok(())
}

/// Whether this account is known to have this device alone.
fn is_alone(read: &dyn Read, engine: &Engine) -> Result<bool, ReadError> {
    Ok(engine.account_devices(read)? == [engine.device_id()])
}

/// One for each device of this account whose turn comes before ours in `group`.
fn turns(read: &dyn Read, engine: &Engine, group: &GroupId) -> Result<impl Iterator<Item = ()>, ReadError> {
    let (own, member) = (engine.own_device(group), engine.own_member(group));
    let devices = match member {
        Some(member) => engine.devices_of(read, group, &member)?,
        None => Vec::new(),
    };
    let before = devices.iter().filter(|device| own.is_some_and(|own| **device < own)).count();
    Ok(std::iter::repeat_n((), before.min(TURNS_MAX)))
}

fn decode(key: &[u8], row: &[u8]) -> Option<(GroupId, EntryId, Time)> {
    let (group, entry) = key.split_at_checked(32)?;
    let due = u64::from_be_bytes(row.try_into().ok()?);
    Some((GroupId::from_stored(group)?, EntryId::from_slice(entry)?, Time::from_millis(due)))
}
