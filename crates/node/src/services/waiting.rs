//! What waits, and how things stand, as messages of `NodeService`.

use dunlin_base::GroupId;
use dunlin_ipfs::PeerId;
use dunlin_proto::dunlin::node::v1::{self as api, WaitCause as Cause};
use dunlin_wesh::context::Chain;
use dunlin_wesh::engine::{GroupState, ShownByDevice, Wait, WaitCause};

use crate::traffic::Counts;

/// Something that waits, with a sentence for people.
pub(super) fn describe(wait: Wait) -> api::Wait {
    let sentence = sentence(&wait);
    let mut shown = api::Wait { sentence, ..api::Wait::default() };
    match wait {
        Wait::Request { account, trying, next } => {
            shown.contact_pk = account.as_bytes().to_vec();
            shown.set_cause(match (trying, next) {
                (true, _) => Cause::RequestUnderWay,
                (false, Some(_)) => Cause::RequestRetry,
                (false, None) => Cause::RequestNobody,
            });
            shown.next_ms = next.map_or(0, |next| i64::try_from(next.as_millis()).unwrap_or(i64::MAX));
            shown.count = 1;
        }
        Wait::Messages { group, device, cause, count } => {
            shown.group_pk = group.as_bytes().to_vec();
            shown.device_pk = device.as_bytes().to_vec();
            shown.set_cause(match cause {
                WaitCause::DeviceUnknown { .. } => Cause::MessageDevice,
                WaitCause::BeyondWindow { .. } => Cause::MessageWindow,
                _ => Cause::MessageKey,
            });
            shown.count = number(count);
        }
        Wait::Entries { group, count, .. } => {
            shown.group_pk = group.as_bytes().to_vec();
            shown.set_cause(Cause::EntriesMissing);
            shown.count = number(count);
        }
        Wait::Unsent { group, count, .. } => {
            shown.group_pk = group.as_bytes().to_vec();
            shown.set_cause(Cause::Unsent);
            shown.count = number(count);
        }
        Wait::SetAside { group } => {
            shown.group_pk = group.as_bytes().to_vec();
            shown.set_cause(Cause::GroupUnreadable);
            shown.count = 1;
        }
        _ => {}
    }
    shown
}

/// What a device of a group has shown.
pub(super) fn group_device(shown: &ShownByDevice) -> api::GroupDevice {
    let chain = |chain: &Chain| api::ContextChain {
        first: chain.first,
        last: chain.last,
        missing: chain.missing,
        breaks: chain.breaks,
    };
    let capabilities = shown.capabilities.as_ref().map(|known| api::Capabilities {
        version: known.version,
        features: known.features.bits(),
        seq: known.seq,
    });
    api::GroupDevice {
        device_pk: shown.device.as_bytes().to_vec(),
        member_pk: shown.member.as_bytes().to_vec(),
        capabilities,
        events: shown.events.as_ref().map(chain),
        messages: shown.messages.as_ref().map(chain),
    }
}

fn sentence(wait: &Wait) -> String {
    match wait {
        Wait::Request { trying: true, .. } => "The contact is being asked.".to_owned(),
        Wait::Request { next: Some(_), .. } => "The contact did not answer; it is asked again.".to_owned(),
        Wait::Request { .. } => "Nobody is connected who may be the contact.".to_owned(),
        Wait::Messages { cause: WaitCause::DeviceUnknown { .. }, count, .. } => {
            format!("{count} messages wait until their device is announced in the group.")
        }
        Wait::Messages { cause: WaitCause::BeyondWindow { .. }, count, .. } => {
            format!("{count} messages wait for earlier ones of their device.")
        }
        Wait::Messages { count, .. } => format!("{count} messages wait for the key of their device."),
        Wait::Entries { count, peers: 0, .. } => {
            format!("{count} entries are missing, and nobody of the group is connected.")
        }
        Wait::Entries { count, peers, .. } => {
            format!("{count} entries are missing; {peers} connected peers are asked for them.")
        }
        Wait::Unsent { count, peers: 0, .. } => {
            format!("{count} messages are on this device alone: nobody of the group is connected.")
        }
        Wait::Unsent { count, peers, .. } => {
            format!(
                "{count} messages are on this device alone; {peers} connected peers have not shown that they have them."
            )
        }
        _ => "What is stored of the group cannot be read: restart, or restore the directory from a copy."
            .to_owned(),
    }
}

/// How a group stands.
pub(super) fn group_state(group: &GroupId, state: &GroupState) -> api::GroupState {
    let few = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    api::GroupState {
        group_pk: group.as_bytes().to_vec(),
        peers: few(state.peers),
        devices: few(state.speakers),
        metadata_height: state.metadata_height,
        messages_height: state.messages_height,
        entries_missing: number(state.missing),
        messages_waiting: number(state.waiting),
        messages_unsent: number(state.unsent),
    }
}

/// What went over to a peer and came from it.
pub(super) fn peer_traffic((peer, counts): (PeerId, Counts)) -> api::PeerTraffic {
    api::PeerTraffic {
        peer_id: peer.to_string(),
        messages_in: counts.messages_in,
        bytes_in: counts.bytes_in,
        messages_out: counts.messages_out,
        bytes_out: counts.bytes_out,
        blocks_served: counts.blocks_served,
    }
}

fn number(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
