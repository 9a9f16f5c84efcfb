//! What this device says beside what Go devices know of: where its events belong, and what it can do.

use dunlin_base::kv::{Read, ReadError};
use dunlin_base::{DeviceId, EntryId, GroupId, MemberId};

use super::{CommandError, Ctx, Engine, StoreKind};
use crate::context::{self, Chain, Log, Place};
use crate::metadata::{self, Capabilities, DeviceNote, Event as MetadataKind, Extras, Features};
use crate::padding::Padding;

/// What a device of a group has shown beyond what Go devices show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShownByDevice {
    /// The device.
    pub device: DeviceId,
    /// Whose it is.
    pub member: MemberId,
    /// What it can do; none for Go devices.
    pub capabilities: Option<Capabilities>,
    /// What was seen of its events, if it signs where they belong.
    pub events: Option<Chain>,
    /// The same of its messages.
    pub messages: Option<Chain>,
}

impl Engine {
    /// What the devices of an active group have shown: a group in which all have shown what they can do has no Go devices.
    ///
    /// # Errors
    /// [`CommandError::NotActive`], or when the store cannot be read.
    pub fn shown_by_devices(
        &self,
        read: &dyn Read,
        group: &GroupId,
    ) -> Result<Vec<ShownByDevice>, CommandError> {
        let active = self.active_for_owner(group)?;
        let mut shown = Vec::new();
        for member in active.index.members(read)? {
            for device in active.index.devices_of(read, &member)? {
                shown.push(ShownByDevice {
                    device,
                    member,
                    capabilities: active.index.capabilities(read, &device)?,
                    events: context::chain_of(read, group, &device, Log::Events)?,
                    messages: context::chain_of(read, group, &device, Log::Messages)?,
                });
            }
        }
        Ok(shown)
    }

    /// Signs and seals an event of this device with its place, and appends and folds it like any other.
    pub(super) fn append_event(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        event: &MetadataKind,
    ) -> Result<EntryId, ReadError> {
        self.append_noted(ctx, group, event, None)
    }

    /// The same with a note about a device of the account, which an event 1 carries.
    pub(super) fn append_noted(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
        event: &MetadataKind,
        note: Option<&DeviceNote>,
    ) -> Result<EntryId, ReadError> {
        let caps = match event {
            MetadataKind::MemberDeviceAdded { .. } => self.news_of_own_device(ctx.tx, group)?,
            _ => None,
        };
        let active = self.active(group)?;
        let device = active.own_device();
        let place = Place::event(group, event.event_type().into());
        let said = context::next_own(ctx.tx, &device, &place)?;
        let extras = Extras { caps: caps.as_ref(), note, context: Some(&said) };
        let (value, payload) =
            metadata::seal_with(&active.group, &active.own, event, &extras, Padding::Buckets, ctx.rng);
        context::note_own(ctx.tx, group, &device, Log::Events, &said, &value);
        self.note_own_event(ctx, group, &payload);
        self.append(ctx, group, StoreKind::Metadata, &value)
    }

    /// Says what this device can do, if it is known in the group and has not said so: an earlier version announced it.
    pub(super) fn state_capabilities(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        group: &GroupId,
    ) -> Result<(), ReadError> {
        if self.news_of_own_device(ctx.tx, group)?.is_some() {
            let event = MetadataKind::member_device_added(&self.active(group)?.own);
            self.append_event(ctx, group, &event)?;
        }
        Ok(())
    }

    /// What this device can do, as far as the group does not know.
    fn news_of_own_device(
        &self,
        read: &dyn Read,
        group: &GroupId,
    ) -> Result<Option<Capabilities>, ReadError> {
        let active = self.active(group)?;
        let device = active.own_device();
        let known = active.index.capabilities(read, &device)?;
        let (had, seq) = known.map_or((Features::default(), 0), |known| (known.features, known.seq));
        if had.include(Features::CONTEXTS) {
            return Ok(None);
        }
        // A device that is not announced yet has said nothing without a context, and says nothing so.
        let is_new = active.index.member_of(read, &device)?.is_none();
        let always = if is_new { Features::CONTEXTS_ALWAYS } else { Features::default() };
        let features = had.with(Features::CONTEXTS).with(always);
        Ok(Some(Capabilities::current(features, seq.saturating_add(1))))
    }
}
