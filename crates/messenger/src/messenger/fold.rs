//! Events of the engine, folded into rows: each exactly once, in whatever order the network brings them.

use dunlin_base::kv::{Direction, KeyRange, ReadError, Tx};
use dunlin_base::{DeviceId, EntryId, GroupId, MemberId, Span, Time};
use dunlin_wesh::engine::Position;
use dunlin_wesh::engine::{Ctx, Engine, Event, MessageEvent, MetadataEvent, RenewalCause};
use dunlin_wesh::metadata::Event as Said;

use super::owing::note_given;
use super::{Messenger, conversations, people};
use crate::app_message::{Content, Envelope, introduced_as};
use crate::links::Link;
use crate::notice::Notice;
use crate::rows::{
    self, MessageRow, Place, ReceiptRow, StoredKind, StoredState, group_entry, put_row, read_row, receipt,
};
use crate::tables;
use crate::text::printable;

/// How far a sender's clock may be ahead. A date beyond it is replaced by that of arrival: otherwise it
/// would head every list, or pin a name, until that day comes.
const AHEAD_MAX: Span = Span::from_secs(24 * 3600);

/// The first type of message that this version cannot know; the unknown ones below are known not to be
/// shown (`spec/messenger.md` §1.7).
const FIRST_LATER_TYPE: i32 = 15;

impl Messenger {
    pub(super) fn fold(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        event: &Event,
    ) -> Result<(), ReadError> {
        match event {
            Event::Metadata(event) if event.group == engine.account_group() => {
                self.fold_account(ctx, engine, event)
            }
            Event::Metadata(event) => self.fold_metadata(ctx, engine, event),
            Event::Message(message) if message.group == engine.account_group() => Ok(()),
            Event::Message(message) => self.fold_message(ctx, engine, message),
            Event::MessageWaits { group, entry, cause } => self.close(ctx, group, entry, *cause),
            Event::Erased { group, entry } => self.forget_erased(ctx, group, entry),
            Event::Moved { group, from, to } => self.follow_move(ctx.tx, group, *from, *to),
            Event::Refolded { group } if *group == engine.account_group() => {
                self.follow_devices(ctx, engine)?;
                self.resume(ctx, engine)
            }
            Event::DeviceRenewed { cause: RenewalCause::KeyInUseElsewhere, .. } => {
                self.note_copy(ctx);
                Ok(())
            }
            Event::RequestReceived { contact, .. } => self.take_request(ctx, engine, contact),
            Event::RequestSent { account } => self.follow_contact(ctx, engine, account),
            Event::Delivered { group, entry, .. } => self.follow_delivery(ctx.tx, group, entry),
            Event::Presence { group, device, .. } => self.follow_presence(ctx, engine, group, device),
            _ => Ok(()),
        }
    }

    /// The account log says who is a contact, and which groups the account is in.
    fn fold_account(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        event: &MetadataEvent,
    ) -> Result<(), ReadError> {
        match event.event.event() {
            Said::MemberDeviceAdded { .. } => self.follow_devices(ctx, engine),
            Said::GroupJoined { group, .. } => self.follow_group(ctx, engine, &group.id()),
            Said::GroupLeft { group, .. } => self.follow_group(ctx, engine, group),
            Said::ContactEnqueued { contact, .. } | Said::ContactReceived { contact, .. } => {
                self.introduce(ctx, &contact.account, introduced_as(&contact.metadata).as_ref())?;
                self.follow_contact(ctx, engine, &contact.account)
            }
            Said::ContactAccepted { account, .. } => self.note_agreed(ctx, engine, account),
            Said::ContactSent { account, .. }
            | Said::ContactDiscarded { account, .. }
            | Said::ContactBlocked { account, .. }
            | Said::ContactUnblocked { account, .. } => self.follow_contact(ctx, engine, account),
            Said::SeedReset { .. } => {
                self.notify(Notice::ProfileChanged);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Metadata of a conversation: who is in it, and how they and it are called.
    fn fold_metadata(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        event: &MetadataEvent,
    ) -> Result<(), ReadError> {
        match event.event.event() {
            Said::MemberDeviceAdded { member, device, .. } => {
                let Some(row) = conversations::row(ctx.tx, &event.group)? else { return Ok(()) };
                self.notify(Notice::ConversationChanged(event.group));
                match row.contact() {
                    Some(account) if account.key() == member.key() => {
                        self.note_agreed(ctx, engine, &account)?;
                        self.apply_device_name(ctx.tx, &event.group, device, &account)
                    }
                    _ => Ok(()),
                }
            }
            Said::AppMetadata { device, payload } => match Envelope::decode(payload) {
                Some(envelope) => {
                    self.take_names(ctx, engine, &event.group, device, event.position, &envelope)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Takes a name out of an envelope, from whichever log it comes.
    fn take_names(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &Engine,
        group: &GroupId,
        device: &DeviceId,
        position: Position,
        envelope: &Envelope,
    ) -> Result<(), ReadError> {
        let said = rows::Said::new(date_of_name(envelope.sent_date, ctx.now), position);
        match &envelope.content {
            Content::GroupInfo(name) => self.take_group_name(ctx.tx, group, name, said),
            Content::UserInfo(name) => {
                self.take_device_name(ctx.tx, group, device, name, said)?;
                let Some(account) = conversations::row(ctx.tx, group)?.and_then(|row| row.contact()) else {
                    return Ok(());
                };
                let theirs = engine.devices_of(ctx.tx, group, &MemberId::new(*account.key()))?;
                // A device that nobody is known to own yet waits until it is.
                if !theirs.contains(device) {
                    return Ok(());
                }
                self.apply_device_name(ctx.tx, group, device, &account)
            }
            _ => Ok(()),
        }
    }

    fn fold_message(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        message: &MessageEvent,
    ) -> Result<(), ReadError> {
        self.reopen(ctx.tx, &message.group, &message.entry)?;
        let envelope = Envelope::decode(&message.payload);
        match &envelope {
            Some(Envelope { content: Content::Acknowledge, target, .. }) => {
                return self.take_receipt(ctx, engine, message, target);
            }
            Some(names @ Envelope { content: Content::UserInfo(_) | Content::GroupInfo(_), .. }) => {
                return self.take_names(
                    ctx,
                    engine,
                    &message.group,
                    &message.device,
                    message.position,
                    names,
                );
            }
            Some(Envelope { content: Content::Other { number, .. }, .. }) if *number < FIRST_LATER_TYPE => {
                return Ok(());
            }
            _ => {}
        }
        self.keep(ctx, engine, message, envelope.as_ref())
    }

    /// Keeps a message that is shown, counts it and confirms it.
    fn keep(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &mut Engine,
        message: &MessageEvent,
        envelope: Option<&Envelope>,
    ) -> Result<(), ReadError> {
        let place = Place { group: message.group, position: message.position };
        if Place::of_entry(ctx.tx, &message.entry)?.is_some() {
            return Ok(());
        }
        let Some(mut conversation) = conversations::row(ctx.tx, &message.group)? else { return Ok(()) };
        let own = conversation.own_member().is_some_and(|own| own == message.member);
        let mut row = content_of(&message.payload, envelope);
        row.own = own;
        row.device = message.device.as_bytes().to_vec();
        row.member = message.member.as_bytes().to_vec();
        row.sent_ms = date_of_message(envelope.map_or(0, |envelope| envelope.sent_date), ctx.now).as_millis();
        row.kept_ms = ctx.now.as_millis();

        let blocked = match conversation.contact() {
            Some(account) => {
                people::row(ctx.tx, &account)?.is_some_and(|row| row.state() == StoredState::Blocked)
            }
            None => false,
        };
        if !own && !blocked {
            conversation.unread = conversation.unread.saturating_add(1);
            conversation.arrivals = conversation.arrivals.saturating_add(1);
            row.arrival = conversation.arrivals;
        }
        put_row(ctx.tx, tables::MESSAGES, &place.key(), &row);
        place.remember(ctx.tx);
        if own || !blocked {
            conversation.changed_ms = ctx.now.as_millis();
            conversations::put(ctx.tx, &message.group, &conversation);
            self.notify(Notice::MessageAdded { group: message.group, entry: message.entry });
        }
        if own {
            return self.keep_until_sent(ctx.tx, engine, message);
        }
        self.forget_receipts(ctx.tx, &message.group, &message.entry)?;
        // Only those who sent an envelope know what to do with one that comes back.
        if envelope.is_some() && !blocked && !conversation.left {
            return self.owe(ctx, engine, &message.group, &message.entry);
        }
        Ok(())
    }

    /// Notes an own message that no device has, unless somebody confirmed it before it came back to us.
    fn keep_until_sent(
        &mut self,
        tx: &mut Tx<'_>,
        engine: &Engine,
        message: &MessageEvent,
    ) -> Result<(), ReadError> {
        let delivery = engine.delivery(tx, &message.group, &message.entry)?;
        if delivery.is_some_and(|delivery| delivery.sent.is_none()) {
            tx.put(tables::KEPT, &group_entry(&message.group, &message.entry), &[]);
        }
        Ok(())
    }

    /// Takes a confirmation. It may come before what it confirms; then it waits for that.
    fn take_receipt(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &Engine,
        message: &MessageEvent,
        target: &str,
    ) -> Result<(), ReadError> {
        let Some(target) = EntryId::from_cid_text(target) else { return Ok(()) };
        let place = Place::of_entry(ctx.tx, &target)?;
        let target = place.map_or(target, |place| place.position.id);
        if engine.own_member(&message.group) == Some(message.member) {
            let is_here = place.is_some();
            return if message.own { Ok(()) } else { note_given(ctx.tx, &message.group, &target, is_here) };
        }
        if let Some(place) = &place {
            let confirmed: Option<MessageRow> = read_row(ctx.tx, tables::MESSAGES, &place.key())?;
            if place.group != message.group || !confirmed.is_some_and(|row| row.own) {
                return Ok(());
            }
        }
        let key = receipt(&message.group, &target, &message.member);
        if dunlin_base::kv::Read::contains(ctx.tx, tables::RECEIPTS, &key)? {
            return Ok(());
        }
        let row = ReceiptRow { at_ms: ctx.now.as_millis(), device: message.device.as_bytes().to_vec() };
        put_row(ctx.tx, tables::RECEIPTS, &key, &row);
        ctx.tx.delete(tables::KEPT, &group_entry(&message.group, &target));
        if place.is_some() {
            self.notify(Notice::MessageChanged { group: message.group, entry: target });
        }
        Ok(())
    }

    /// Drops confirmations of a message that turned out to be somebody else's, or was erased.
    pub(super) fn forget_receipts(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        let range = KeyRange::prefix(&group_entry(group, entry));
        let early =
            dunlin_base::kv::Read::collect(tx, tables::RECEIPTS, &range, Direction::Ascending, usize::MAX)?;
        for (key, _) in early {
            tx.delete(tables::RECEIPTS, &key);
        }
        Ok(())
    }

    /// Lets a message follow its place in the log, and take what is known of it along when it goes on under
    /// the name of another entry.
    fn follow_move(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        from: Position,
        to: Position,
    ) -> Result<(), ReadError> {
        let renamed = from.id != to.id;
        let was_here = Place::of_entry(tx, &from.id)?.is_some();
        if renamed {
            self.reopen(tx, group, &from.id)?;
            rename(tx, group, &from.id, &to.id)?;
        }
        let (from, to) = (Place { group: *group, position: from }, Place { group: *group, position: to });
        let Some(row) = dunlin_base::kv::Read::get(tx, tables::MESSAGES, &from.key())? else {
            if was_here {
                // It was erased, and stays so under its new name.
                to.remember(tx);
            }
            return Ok(());
        };
        tx.delete(tables::MESSAGES, &from.key());
        tx.put(tables::MESSAGES, &to.key(), &row);
        to.remember(tx);
        if renamed {
            // Whoever shows the message knows it by the name that it had.
            self.notify(Notice::ConversationChanged(*group));
        }
        self.notify(Notice::MessageChanged { group: *group, entry: to.position.id });
        Ok(())
    }

    fn follow_delivery(
        &mut self,
        tx: &mut Tx<'_>,
        group: &GroupId,
        entry: &EntryId,
    ) -> Result<(), ReadError> {
        tx.delete(tables::KEPT, &group_entry(group, entry));
        if Place::of_entry(tx, entry)?.is_some() {
            self.notify(Notice::MessageChanged { group: *group, entry: *entry });
        }
        Ok(())
    }

    /// Notes when a device of somebody else was in reach, which tells why a message waits.
    fn follow_presence(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        engine: &Engine,
        group: &GroupId,
        device: &DeviceId,
    ) -> Result<(), ReadError> {
        let Some(mut row) = conversations::row(ctx.tx, group)? else { return Ok(()) };
        if let Some(own) = engine.own_member(group)
            && engine.devices_of(ctx.tx, group, &own)?.contains(device)
        {
            return Ok(());
        }
        row.seen_ms = ctx.now.as_millis();
        conversations::put(ctx.tx, group, &row);
        self.notify(Notice::ConversationChanged(*group));
        if let Some(account) = row.contact() {
            self.notify(Notice::ContactChanged(account));
        }
        Ok(())
    }
}

/// Moves what is kept by the name of an entry.
fn rename(tx: &mut Tx<'_>, group: &GroupId, from: &EntryId, to: &EntryId) -> Result<(), ReadError> {
    Place::rename(tx, from, to);
    for table in [tables::RECEIPTS, tables::KEPT, tables::OWED] {
        let (old, new) = (group_entry(group, from), group_entry(group, to));
        let range = KeyRange::prefix(&old);
        let rows = dunlin_base::kv::Read::collect(tx, table, &range, Direction::Ascending, usize::MAX)?;
        for (key, row) in rows {
            let rest = key.get(old.len()..).unwrap_or_default();
            tx.put(table, &[new.as_slice(), rest].concat(), &row);
            tx.delete(table, &key);
        }
    }
    Ok(())
}

/// What a message is to its reader.
fn content_of(payload: &[u8], envelope: Option<&Envelope>) -> MessageRow {
    match envelope.map(|envelope| &envelope.content) {
        Some(Content::Text(body)) => text(printable(body)),
        Some(Content::Invitation(link)) => match Link::parse(link) {
            Ok(Link::Group(invitation)) => MessageRow {
                kind: StoredKind::Invitation.into(),
                invited_to: invitation.group.id().as_bytes().to_vec(),
                invited_to_name: invitation.name.as_ref().map(ToString::to_string).unwrap_or_default(),
                text: Link::Group(invitation).web(),
                ..MessageRow::default()
            },
            _ => other("an invitation to a group, but its link cannot be used"),
        },
        Some(_) => other("a message of a kind that this version does not know"),
        None => match std::str::from_utf8(payload).map(printable) {
            Ok(plain) if !plain.trim().is_empty() => text(plain),
            _ => other("a message that cannot be read"),
        },
    }
}

fn text(text: String) -> MessageRow {
    MessageRow { kind: StoredKind::Text.into(), text, ..MessageRow::default() }
}

fn other(sentence: &str) -> MessageRow {
    MessageRow { kind: StoredKind::Other.into(), text: sentence.to_owned(), ..MessageRow::default() }
}

/// When a message was sent, as far as that can be.
fn date_of_message(sent_date: i64, now: Time) -> Time {
    match u64::try_from(sent_date).map(Time::from_millis) {
        Ok(sent) if sent > Time::default() && sent <= now + AHEAD_MAX => sent,
        _ => now,
    }
}

/// When a name was said; 0 for the first name of a group, which every other replaces. Nothing is said in
/// the future: a name must not be pinned there.
fn date_of_name(sent_date: i64, now: Time) -> Time {
    Time::from_millis(u64::try_from(sent_date).unwrap_or_default()).min(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_that_cannot_be_are_replaced() {
        let now = Time::from_secs(1_000_000);
        assert_eq!(date_of_message(5, now), Time::from_millis(5));
        assert_eq!(date_of_message(0, now), now);
        assert_eq!(date_of_message(-5, now), now);
        assert_eq!(date_of_message(i64::MAX, now), now);
        let hour_ahead = now + Span::from_secs(3600);
        assert_eq!(date_of_message(hour_ahead.as_millis() as i64, now), hour_ahead);
        assert_eq!(date_of_name(i64::MAX, now), now);
        assert_eq!(date_of_name(-5, now), Time::default());
    }

    #[test]
    fn what_is_no_envelope_is_shown_as_text_if_it_is_text() {
        let shown = |payload: &[u8]| {
            let row = content_of(payload, Envelope::decode(payload).as_ref());
            (row.kind(), row.text)
        };
        assert_eq!(shown(b"hello\x1b[2J"), (StoredKind::Text, "hello[2J".to_owned()));
        assert_eq!(shown(&[0xff, 0xfe]).0, StoredKind::Other);
        assert_eq!(shown(&[0x01, 0x02]).0, StoredKind::Other);
        assert_eq!(shown(b"").0, StoredKind::Other);
        assert_eq!(shown(&Envelope::text("hi", 1).encode()), (StoredKind::Text, "hi".to_owned()));
        let later = Envelope {
            content: Content::Other { number: 15, payload: vec![1] },
            sent_date: 1,
            target: String::new(),
        };
        assert_eq!(shown(&later.encode()).0, StoredKind::Other);
    }

    #[test]
    fn an_invitation_with_a_bad_link_says_so() {
        let invitation =
            Envelope { content: Content::Invitation("BERTY://PB/ABC".into()), ..Envelope::default() };
        let row = content_of(&[], Some(&invitation));
        assert_eq!(row.kind(), StoredKind::Other);
        assert!(row.text.contains("invitation"));
    }
}
