//! Questions to the index.

use std::ops::ControlFlow;

use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::{DeviceId, GroupId, MemberId, PublicKey};
use dunlin_proto::protocol;
use prost::Message;

use super::Index;
use super::rows::{self, Place, Tag, first_place};
use crate::group::Group;
use crate::metadata::Credential;
use crate::metadata::note::{self, DeviceNote, DeviceRecord};
use crate::tables::{self, damaged};

impl Index {
    /// The member whose device this is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn member_of(&self, read: &dyn Read, device: &DeviceId) -> Result<Option<MemberId>, ReadError> {
        Self::member_in(read, &self.group, device)
    }

    /// The member of `group` whose device this is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn member_in(
        read: &dyn Read,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<Option<MemberId>, ReadError> {
        Ok(binding(read, group, device)?.map(|(_, member)| member))
    }

    pub(super) fn binding(
        &self,
        read: &dyn Read,
        device: &DeviceId,
    ) -> Result<Option<(Place, MemberId)>, ReadError> {
        binding(read, &self.group, device)
    }
}

/// Where a device was given to a member of `group`, and to which.
fn binding(
    read: &dyn Read,
    group: &GroupId,
    device: &DeviceId,
) -> Result<Option<(Place, MemberId)>, ReadError> {
    let row = read.get(tables::INDEX, &rows::key(group, Tag::Device, &[device.as_bytes()]))?;
    let Some(row) = row else { return Ok(None) };
    let (place, member) = first_place(&row)?;
    let member = MemberId::from_stored(member).ok_or_else(|| damaged(tables::INDEX))?;
    Ok(Some((*place, member)))
}

impl Index {
    /// The members that have a device, in the order of their keys.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn members(&self, read: &dyn Read) -> Result<Vec<MemberId>, ReadError> {
        let mut members: Vec<MemberId> = Vec::new();
        collect_into(read, &self.range(Tag::Member, &[]), &mut |key, _| {
            let member = key.get(33..65)?;
            if members.last().is_none_or(|last| last.as_bytes() != member) {
                members.push(MemberId::from_stored(member)?);
            }
            Some(())
        })?;
        Ok(members)
    }

    /// The devices of a member, in the order of their keys.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn devices_of(&self, read: &dyn Read, member: &MemberId) -> Result<Vec<DeviceId>, ReadError> {
        let mut devices = Vec::new();
        collect_into(read, &self.range(Tag::Member, &[member.as_bytes()]), &mut |key, _| {
            devices.push(DeviceId::from_stored(key.get(65..)?)?);
            Some(())
        })?;
        Ok(devices)
    }

    /// The devices of the account and what they say of each other, in the order of their keys. For the index of
    /// the account group.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn devices(&self, read: &dyn Read) -> Result<Vec<DeviceRecord>, ReadError> {
        let mut notes = Vec::new();
        collect_into(read, &self.range(Tag::Note, &[]), &mut |_, row| {
            let (author, field) = row.split_at_checked(32)?;
            notes.push((DeviceId::from_stored(author)?, DeviceNote::in_payload(field)?));
            Some(())
        })?;
        Ok(note::fold(self.devices_of(read, &self.own_member)?, notes))
    }

    /// Whether this device gave its chain to `member`, by an event that is in the log.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn is_served(&self, read: &dyn Read, member: &MemberId) -> Result<bool, ReadError> {
        read.contains(tables::INDEX, &self.key(Tag::Served, &[member.as_bytes()]))
    }

    /// The members to which this device gave its chain, in the order of their keys.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn served(&self, read: &dyn Read) -> Result<Vec<MemberId>, ReadError> {
        let mut served = Vec::new();
        collect_into(read, &self.range(Tag::Served, &[]), &mut |key, _| {
            served.push(MemberId::from_stored(key.get(33..)?)?);
            Some(())
        })?;
        Ok(served)
    }

    /// The keys that are named as those of the maker of the group. Go devices write a device key.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn initial_members(&self, read: &dyn Read) -> Result<Vec<PublicKey>, ReadError> {
        let mut named = Vec::new();
        collect_into(read, &self.range(Tag::InitialMember, &[]), &mut |key, _| {
            named.push(PublicKey::from_stored(key.get(33..)?)?);
            Some(())
        })?;
        Ok(named)
    }

    /// Visits the groups that the account joined or left, in the order of their keys, until `visit`
    /// breaks. One that was left comes without its keys.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn groups(
        &self,
        read: &dyn Read,
        visit: &mut dyn FnMut(GroupId, Option<Group>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut intact = true;
        let range = self.range(Tag::Group, &[]);
        read.scan(
            tables::INDEX,
            &range,
            Direction::Ascending,
            &mut |key, row| match parse_group(key, row) {
                Some((id, group)) => visit(id, group),
                None => {
                    intact = false;
                    ControlFlow::Break(())
                }
            },
        )?;
        if intact { Ok(()) } else { Err(damaged(tables::INDEX)) }
    }

    /// Whether the account accepts contact requests. It does not until a device says so.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn requests_enabled(&self, read: &dyn Read) -> Result<bool, ReadError> {
        let Some(row) = read.get(tables::INDEX, &self.key(Tag::Requests, &[]))? else { return Ok(false) };
        match first_place(&row)? {
            (_, [enabled]) => Ok(*enabled != 0),
            _ => Err(damaged(tables::INDEX)),
        }
    }

    /// The seed under which the account is found.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seed(&self, read: &dyn Read) -> Result<Option<[u8; 32]>, ReadError> {
        let Some(row) = read.get(tables::INDEX, &self.key(Tag::Seed, &[]))? else { return Ok(None) };
        let (_, seed) = first_place(&row)?;
        seed.try_into().map(Some).map_err(|_| damaged(tables::INDEX))
    }

    /// Every seed under which the account was ever found: Go nodes may still use an old one
    /// (`spec/wesh-protocol.md` §3.7).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn seeds(&self, read: &dyn Read) -> Result<Vec<[u8; 32]>, ReadError> {
        let mut seeds = Vec::new();
        collect_into(read, &self.range(Tag::KnownSeed, &[]), &mut |key, _| {
            seeds.push(key.get(33..)?.try_into().ok()?);
            Some(())
        })?;
        Ok(seeds)
    }

    /// Whether a device of this member sent its alias key, in a contact group.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn own_alias_sent(&self, read: &dyn Read) -> Result<bool, ReadError> {
        Ok(self.newest_alias(read, true)?.is_some())
    }

    /// The newest alias key of the other member of a contact group.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn other_alias(&self, read: &dyn Read) -> Result<Option<[u8; 32]>, ReadError> {
        self.newest_alias(read, false)
    }

    /// The credentials of the account, newest first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn credentials(&self, read: &dyn Read) -> Result<Vec<Credential>, ReadError> {
        let mut credentials = Vec::new();
        collect_into(read, &self.range(Tag::Credential, &[]), &mut |_, row| {
            let payload = protocol::AccountVerifiedCredentialRegistered::decode(row).ok()?;
            credentials.push(Credential::from_proto(payload));
            Some(())
        })?;
        credentials.reverse();
        Ok(credentials)
    }

    fn newest_alias(&self, read: &dyn Read, own: bool) -> Result<Option<[u8; 32]>, ReadError> {
        let mut rows = Vec::new();
        collect_into(read, &self.range(Tag::Alias, &[]), &mut |key, row| {
            let (place, alias) = row.split_first_chunk::<40>()?;
            let device = DeviceId::from_stored(key.get(33..)?)?;
            rows.push((*place, <[u8; 32]>::try_from(alias).ok()?, device));
            Some(())
        })?;
        rows.sort_unstable_by_key(|(place, ..)| std::cmp::Reverse(*place));
        for (_, alias, device) in rows {
            if self.member_of(read, &device)?.is_some_and(|member| (member == self.own_member) == own) {
                return Ok(Some(alias));
            }
        }
        Ok(None)
    }
}

/// What takes a key and its row; none when they are damaged.
type Take<'t> = dyn FnMut(&[u8], &[u8]) -> Option<()> + 't;

/// Takes every row of `range`.
fn collect_into(read: &dyn Read, range: &KeyRange, take: &mut Take<'_>) -> Result<(), ReadError> {
    let mut intact = true;
    read.scan(tables::INDEX, range, Direction::Ascending, &mut |key, row| {
        if take(key, row).is_some() {
            return ControlFlow::Continue(());
        }
        intact = false;
        ControlFlow::Break(())
    })?;
    if intact { Ok(()) } else { Err(damaged(tables::INDEX)) }
}

fn parse_group(key: &[u8], row: &[u8]) -> Option<(GroupId, Option<Group>)> {
    let id = GroupId::from_stored(key.get(33..)?)?;
    match row.split_first_chunk::<40>()? {
        (_, []) => Some((id, None)),
        (_, group) => {
            let message = protocol::Group::decode(group).ok()?;
            Some((id, Some(Group::from_proto(&message).ok()?)))
        }
    }
}
