//! Groups in use: their keys, their two logs, and who is on their topics.

use std::collections::BTreeMap;

use dunlin_base::keys::Signature;
use dunlin_base::kv::{Direction, KeyRange, Read, ReadError};
use dunlin_base::planted::{self, Bug};
use dunlin_base::{AccountId, DeviceId, EntryId, GroupId, MemberId, PeerId, Time};
use dunlin_log::{Entry, Log, LogTag, Position, Writer};
use dunlin_orbitdb::{StoreAddress, operation, shared_store};
use prost::Message as _;

use super::catching_up::CatchUp;
use super::fold::stale_key;
use super::key_pace::KeyPace;
use super::retelling::Retelling;
use super::sync::Announcement;
use super::{Action, CommandError, Ctx, Engine, Event, OpenError};
use crate::group::{Group, GroupKind, OwnMember};
use crate::message;
use crate::metadata::{Event as MetadataKind, Index};
use crate::profile::Profile;
use crate::tables;

/// Which of the two stores of a group.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StoreKind {
    /// Events about the group: members, keys, names.
    Metadata,
    /// Messages.
    Messages,
}

impl StoreKind {
    /// The type of such a store under a profile, part of its address.
    pub(super) fn type_name(self, profile: Profile) -> &'static str {
        match self {
            Self::Metadata => profile.metadata_store(),
            Self::Messages => profile.message_store(),
        }
    }
}

/// One store of an active group.
pub(super) struct GroupStore {
    pub log: Log,
    pub writer: Writer,
    pub address: StoreAddress,
    pub announcement: Announcement,
    /// Who gave us heads that we did not have and that have not all joined yet, and whether on the topic.
    pub learned: Option<(PeerId, bool)>,
    /// When the topic is told what was learned so.
    pub retelling: Retelling,
    /// The heads to which `confirmed` and `told` of the subscribers refer.
    pub told_heads: Vec<EntryId>,
    /// What this device wrote last, as far as it has since the group was opened.
    pub own_head: Option<EntryId>,
    /// Which head has its turn, when not all fit into one payload.
    pub heads_turn: usize,
    /// Until when nobody's heads make us ask again for what could not be had.
    pub no_hurry_until: Time,
    /// The stream in which a host gives what the log lacks.
    pub catch_up: Option<CatchUp>,
    /// Peers that subscribe to the topic of this store.
    pub subscribers: BTreeMap<PeerId, Subscriber>,
}

/// What is known of a peer on a topic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subscriber {
    /// It has shown heads that cover ours since ours last changed.
    pub confirmed: bool,
    /// How often our present heads were given to it.
    pub told: u8,
    /// Until when no further payload of it is answered.
    pub quiet_until: Time,
}

/// A group in use.
pub(super) struct ActiveGroup {
    pub group: Group,
    pub own: OwnMember,
    pub index: Index,
    pub metadata: GroupStore,
    pub messages: GroupStore,
    pub pace: KeyPace,
    /// Hosts that spoke for a device, by their last heads payload.
    pub speakers: BTreeMap<PeerId, DeviceId>,
}

impl ActiveGroup {
    /// The signature that the headers of a message carry.
    pub fn signature_in(&self, entry: &Entry) -> Option<Signature> {
        let value = operation::decode_value(entry.payload())?;
        message::open_headers(&self.group, &value).ok()?.signature
    }

    pub fn store(&self, kind: StoreKind) -> &GroupStore {
        match kind {
            StoreKind::Metadata => &self.metadata,
            StoreKind::Messages => &self.messages,
        }
    }

    pub fn store_mut(&mut self, kind: StoreKind) -> &mut GroupStore {
        match kind {
            StoreKind::Metadata => &mut self.metadata,
            StoreKind::Messages => &mut self.messages,
        }
    }

    pub fn announcement_due(&self) -> Option<Time> {
        let stores = [&self.metadata, &self.messages].into_iter();
        let stores = stores.flat_map(|store| store.announcement.due.into_iter().chain(store.retelling.due()));
        stores.chain(self.pace.due).min()
    }

    /// When the streams that flow are to be looked at.
    pub fn streams_due(&self) -> impl Iterator<Item = Time> {
        [&self.metadata, &self.messages]
            .into_iter()
            .flat_map(|store| store.catch_up.as_ref().map(CatchUp::due))
    }

    pub fn own_member(&self) -> MemberId {
        MemberId::new(self.own.member.public())
    }

    pub fn own_device(&self) -> DeviceId {
        DeviceId::new(self.own.device.public())
    }
}

pub(super) const STORES: [StoreKind; 2] = [StoreKind::Metadata, StoreKind::Messages];

impl Engine {
    /// Starts to use a group: joins its topics, announces this device in it and hands out its chain key.
    ///
    /// Does nothing when the group is active already (`spec/wesh-protocol.md` §3.11).
    ///
    /// # Errors
    /// [`CommandError::UnknownGroup`] unless it is the account group, the group of a contact or a joined one.
    pub fn activate(&mut self, ctx: &mut Ctx<'_, '_>, group: &GroupId) -> Result<(), CommandError> {
        if self.account_closed && *group == self.account_group() {
            return Ok(self.reopen_account(ctx)?);
        }
        if self.groups.contains_key(group) {
            return Ok(());
        }
        if self.set_aside.contains(group) {
            return Err(CommandError::SetAside);
        }
        let group = self.known_group(ctx.tx, group)?.ok_or(CommandError::UnknownGroup)?;
        self.start_group(ctx, group)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Stops to use a group: leaves its topics. What is stored stays. Without its account group, whatever concerns the
    /// account as a whole is refused until that is activated again.
    pub fn deactivate(&mut self, group: &GroupId) {
        if *group == self.account_group() {
            return self.close_account();
        }
        let Some(active) = self.groups.remove(group) else { return };
        self.to_be_announced.remove(group);
        self.speakers_changed = true;
        for (peer, device) in active.speakers.clone() {
            self.events.push_back(Event::Presence { group: *group, peer, device, online: false });
        }
        for kind in STORES {
            let topic = active.store(kind).address.to_string();
            self.topics.remove(&topic);
            self.backlog.remove(&(*group, kind));
            self.unannounced.remove(&(*group, kind));
            self.stale.remove(&(*group, kind));
            if let Some(stream) = &active.store(kind).catch_up {
                let peer = stream.peer.clone();
                self.actions.push_back(Action::StopCatchUp { group: *group, kind, peer });
            }
            self.actions.push_back(Action::Unsubscribe { topic });
        }
        self.flood.forget(group);
        let asked = self.fetches.forget(group);
        self.actions.extend(asked.into_iter().map(|entry| Action::CancelFetch { entry }));
    }

    /// Whether a group is in use.
    pub fn is_active(&self, group: &GroupId) -> bool {
        self.opened(group).is_some()
    }

    /// The group that this account shares with `account`, whether it is a contact or not.
    ///
    /// # Errors
    /// [`CommandError::Key`] when `account` is a key with which no secret can be shared.
    pub fn contact_group(&self, account: &AccountId) -> Result<GroupId, CommandError> {
        Ok(Group::contact(&self.keys, account)?.id())
    }

    /// The account at the other end of a contact group, as far as this account has used it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn contact_of_group(&self, read: &dyn Read, group: &GroupId) -> Result<Option<AccountId>, ReadError> {
        let row = read.get(tables::GROUPS, group.as_bytes())?;
        Ok(row.as_deref().and_then(GroupRow::decode).and_then(|row| row.contact))
    }

    /// The account group.
    pub fn account_group(&self) -> GroupId {
        GroupId::new(*self.account_id().key())
    }

    /// What a group is: its keys and kind; `None` when this account does not know it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn known_group(&self, read: &dyn Read, id: &GroupId) -> Result<Option<Group>, ReadError> {
        if *id == self.account_group() {
            return Ok(Some(Group::account(&self.keys)));
        }
        let row = read.get(tables::GROUPS, id.as_bytes())?;
        Ok(row.as_deref().and_then(GroupRow::decode).map(|row| row.group))
    }

    /// Groups that this account knows, the account group left out: id, kind, and the contact of a contact group.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn known_groups(
        &self,
        read: &dyn Read,
    ) -> Result<Vec<(GroupId, GroupKind, Option<AccountId>)>, ReadError> {
        let known = group_rows(read)?.into_iter();
        Ok(known.map(|row| (row.group.id(), row.group.kind(), row.contact)).collect())
    }

    /// All groups that this account knows, its own first.
    pub(super) fn all_groups(&self, read: &dyn Read) -> Result<Vec<Group>, ReadError> {
        let mut groups = vec![Group::account(&self.keys)];
        groups.extend(group_rows(read)?.into_iter().map(|row| row.group));
        Ok(groups)
    }

    /// Groups in use.
    pub fn active_groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied().filter(|group| self.opened(group).is_some())
    }

    /// This account as a member of an active group.
    pub fn own_member(&self, group: &GroupId) -> Option<MemberId> {
        self.groups.get(group).map(ActiveGroup::own_member)
    }

    /// This device as it is known in an active group.
    pub fn own_device(&self, group: &GroupId) -> Option<DeviceId> {
        self.groups.get(group).map(ActiveGroup::own_device)
    }

    /// The members of an active group, in the order of their keys.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn members(&self, read: &dyn Read, group: &GroupId) -> Result<Vec<MemberId>, ReadError> {
        match self.groups.get(group) {
            Some(active) => active.index.members(read),
            None => Ok(Vec::new()),
        }
    }

    /// The devices of a member of an active group.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn devices_of(
        &self,
        read: &dyn Read,
        group: &GroupId,
        member: &MemberId,
    ) -> Result<Vec<DeviceId>, ReadError> {
        match self.groups.get(group) {
            Some(active) => active.index.devices_of(read, member),
            None => Ok(Vec::new()),
        }
    }

    /// Whether messages of a group are about to join: what answers them may be among the next ones.
    pub fn is_joining(&self, group: &GroupId) -> bool {
        self.backlog.contains(&(*group, StoreKind::Messages))
    }

    /// Devices of an active group for which a connected host speaks.
    pub fn online_devices(&self, group: &GroupId) -> Vec<DeviceId> {
        let Some(active) = self.groups.get(group) else { return Vec::new() };
        let mut devices: Vec<_> = active.speakers.values().copied().collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }

    /// Describes a group: its keys, and this account in it.
    ///
    /// # Errors
    /// [`CommandError::UnknownGroup`].
    pub fn describe_group(
        &self,
        ctx: &mut Ctx<'_, '_>,
        id: &GroupId,
    ) -> Result<(Group, MemberId, DeviceId), CommandError> {
        let group = self.known_group(ctx.tx, id)?.ok_or(CommandError::UnknownGroup)?;
        self.describe(ctx, group)
    }

    /// Describes the group shared with `contact`, whom this account need not have added.
    ///
    /// # Errors
    /// [`CommandError::Key`] when no secret can be shared with that key.
    pub fn describe_contact_group(
        &self,
        ctx: &mut Ctx<'_, '_>,
        contact: &AccountId,
    ) -> Result<(Group, MemberId, DeviceId), CommandError> {
        let group = Group::contact(&self.keys, contact)?;
        self.describe(ctx, group)
    }

    fn describe(
        &self,
        ctx: &mut Ctx<'_, '_>,
        group: Group,
    ) -> Result<(Group, MemberId, DeviceId), CommandError> {
        let own = OwnMember::in_group(&self.keys, &group, ctx.tx, ctx.rng)?;
        Ok((group, MemberId::new(own.member.public()), DeviceId::new(own.device.public())))
    }

    /// The block of `entry`, if `peer` may have it: if it showed a payload of a group whose logs hold it
    /// (`spec/security.md` D2).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn block_for(
        &self,
        read: &dyn Read,
        peer: &PeerId,
        entry: &EntryId,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        if self.is_turned_away(peer) {
            return Ok(None);
        }
        let may_have =
            |active: &&ActiveGroup| active.speakers.contains_key(peer) || planted::is(Bug::BlocksForAll);
        for active in self.groups.values().filter(may_have) {
            for kind in STORES {
                if let Some(block) = dunlin_log::block_in(read, active.store(kind).log.tag(), *entry)? {
                    return Ok(Some(block));
                }
            }
        }
        Ok(None)
    }

    /// Whether a connected host may have all of the log with this tag: see [`Self::block_for`].
    pub fn may_have_log(&self, peer: &PeerId, log: LogTag) -> bool {
        let speaks = |active: &&ActiveGroup| active.speakers.contains_key(peer);
        let is_of = |active: &ActiveGroup| STORES.iter().any(|kind| active.store(*kind).log.tag() == log);
        !self.is_turned_away(peer) && self.groups.values().filter(speaks).any(is_of)
    }

    /// A digest of the order of both logs of an active group: two devices that hold the same entries have
    /// the same one.
    ///
    /// # Errors
    /// [`CommandError::NotActive`].
    pub fn log_digest(&self, read: &dyn Read, group: &GroupId) -> Result<[u8; 32], CommandError> {
        let active = self.groups.get(group).ok_or(CommandError::NotActive)?;
        let mut digest = [0; 32];
        for kind in STORES {
            active.store(kind).log.walk(read, None, Direction::Ascending, &mut |position, _| {
                digest = dunlin_base::kdf::sha256(&[
                    &digest,
                    &position.height.to_be_bytes(),
                    position.id.digest(),
                ]);
                std::ops::ControlFlow::Continue(())
            })?;
        }
        Ok(digest)
    }

    /// Where an entry stands in a log of an active group; `None` when it is not there.
    ///
    /// # Errors
    /// [`CommandError::NotActive`].
    pub fn position(
        &self,
        read: &dyn Read,
        group: &GroupId,
        in_messages: bool,
        entry: &EntryId,
    ) -> Result<Option<Position>, CommandError> {
        let active = self.opened(group).ok_or(CommandError::NotActive)?;
        let kind = if in_messages { StoreKind::Messages } else { StoreKind::Metadata };
        Ok(active.store(kind).log.position(read, *entry)?)
    }

    pub(super) fn open_account_group(&mut self, ctx: &mut Ctx<'_, '_>) -> Result<(), OpenError> {
        let group = Group::account(&self.keys);
        self.start_group(ctx, group)?;
        self.follow_devices(ctx.tx)?;
        self.finish(ctx)?;
        Ok(())
    }

    /// Remembers a group, so that it can be activated.
    pub(super) fn remember_group(&self, ctx: &mut Ctx<'_, '_>, group: &Group, contact: Option<AccountId>) {
        let row = GroupRow { group: group.clone(), contact };
        ctx.tx.put(tables::GROUPS, group.id().as_bytes(), &row.encode());
    }

    pub(super) fn start_group(&mut self, ctx: &mut Ctx<'_, '_>, group: Group) -> Result<(), ReadError> {
        let id = group.id();
        self.at_work = Some(id);
        let own = OwnMember::in_group(&self.keys, &group, ctx.tx, ctx.rng)?;
        let make = |kind: StoreKind| {
            let address = StoreAddress::new(&id, kind.type_name(self.profile), &group.sign_pub());
            GroupStore {
                log: shared_store(&address, group.sign_pub()),
                writer: Writer::new(group.signing_key().clone()),
                address,
                announcement: Announcement::default(),
                learned: None,
                retelling: Retelling::default(),
                told_heads: Vec::new(),
                own_head: None,
                heads_turn: 0,
                no_hurry_until: Time::default(),
                catch_up: None,
                subscribers: BTreeMap::new(),
            }
        };
        let (metadata, messages) = (make(StoreKind::Metadata), make(StoreKind::Messages));
        let index = Index::new(&group, &self.keys, &own);
        let active = ActiveGroup {
            group,
            own,
            index,
            metadata,
            messages,
            pace: KeyPace::default(),
            speakers: BTreeMap::new(),
        };
        for kind in STORES {
            let topic = active.store(kind).address.to_string();
            self.topics.insert(topic.clone(), (id, kind));
            self.backlog.insert((id, kind));
            if ctx.tx.contains(tables::STALE, &stale_key(&id, kind))? {
                self.stale.insert((id, kind));
            }
            self.actions.push_back(Action::Subscribe { topic });
        }
        self.groups.insert(id, active);
        for kind in STORES {
            self.want_missing(ctx, &id, kind)?;
            self.greet_all(ctx, &id, kind)?;
        }
        let behind = self.active(&id)?.index.behind(ctx.tx)?;
        self.unfolded.extend(behind.into_iter().map(|device| (id, device)));
        self.find_unopened(ctx.tx, &id)?;
        // After an import the log holds a history that has not joined yet. This device comes after it.
        self.to_be_announced.insert(id);
        self.join_batch(ctx, &id, StoreKind::Metadata)
    }

    /// Writes event 1 for this device and event 2 for every member, as far as they are not in the log.
    pub(super) fn announce_device(&mut self, ctx: &mut Ctx<'_, '_>, id: &GroupId) -> Result<(), ReadError> {
        let Some(active) = self.groups.get(id) else { return Ok(()) };
        let own_device = active.own_device();
        if active.index.member_of(ctx.tx, &own_device)?.is_none() {
            let event = MetadataKind::member_device_added(&active.own);
            match *id == self.account_group() {
                true => self.announce_in_account(ctx)?,
                false => drop(self.append_event(ctx, id, &event)?),
            }
            return self.serve_announced(ctx, id);
        }
        self.state_capabilities(ctx, id)?;
        self.serve_chain_keys(ctx, id)
    }

    /// Gives this device's chain key to every member that has not got it yet.
    pub(super) fn serve_chain_keys(&mut self, ctx: &mut Ctx<'_, '_>, id: &GroupId) -> Result<(), ReadError> {
        let Some(active) = self.groups.get(id) else { return Ok(()) };
        let mut members = active.index.members(ctx.tx)?;
        if active.group.kind() == GroupKind::Contact
            && let Some(contact) = self.contact_of_group(ctx.tx, id)?
        {
            members.push(MemberId::new(*contact.key()));
        }
        members.push(active.own_member());
        members.sort_unstable();
        members.dedup();
        for member in members {
            self.serve_chain_key(ctx, id, &member)?;
        }
        Ok(())
    }
}

fn group_rows(read: &dyn Read) -> Result<Vec<GroupRow>, ReadError> {
    let rows = read.collect(tables::GROUPS, &KeyRange::default(), Direction::Ascending, usize::MAX)?;
    Ok(rows.iter().filter_map(|(_, row)| GroupRow::decode(row)).collect())
}

/// A row of [`tables::GROUPS`]: one byte that says whether a contact follows, the raw account key of the
/// contact if so, then the serialized `Group`.
struct GroupRow {
    group: Group,
    contact: Option<AccountId>,
}

impl GroupRow {
    fn encode(&self) -> Vec<u8> {
        let mut row = Vec::new();
        match &self.contact {
            Some(contact) => {
                row.push(1);
                row.extend_from_slice(contact.as_bytes());
            }
            None => row.push(0),
        }
        row.extend(self.group.to_proto().encode_to_vec());
        row
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let (has_contact, rest) = row.split_first()?;
        let (contact, group) = match has_contact {
            1 => {
                let (account, group) = rest.split_at_checked(32)?;
                (Some(AccountId::from_stored(account)?), group)
            }
            _ => (None, rest),
        };
        let proto = dunlin_proto::weshnet::protocol::v1::Group::decode(group).ok()?;
        Some(Self { group: Group::from_proto(&proto).ok()?, contact })
    }
}
