//! What cannot be, and the codes with which a node says so (`spec/wesh-protocol.md` §8.5).

use dunlin_proto::errcode::ErrCode;
use dunlin_proto::protocol as api;

use super::{Scenario, scenario};
use crate::circle::Circle;
use crate::mesh::Mesh;
use crate::node::{Called, Node};
use crate::tolerance::Tolerance;
use crate::trouble::{Outcome, ensure, failed, left_out};

pub const SCENARIOS: &[Scenario] = &[
    scenario!(
        "error-codes",
        "calls that cannot be are refused with the codes of the service",
        1,
        false,
        codes
    ),
    scenario!("list-errors", "lists of what is not there end with the codes of the service", 1, false, lists),
    scenario!("bad-input", "input that is no input is refused, and the node goes on", 1, false, bad_input),
];

/// What calls were expected to be refused with, and were not.
#[derive(Default)]
struct Verdicts(Vec<String>);

impl Verdicts {
    fn refused<T>(&mut self, what: &str, answer: Called<T>, code: ErrCode) {
        match answer {
            Ok(_) => self.0.push(format!("{what}: taken, not refused with {}", code as i32)),
            Err(refusal) if refusal.last_code() == Some(code) => {}
            Err(refusal) => self.0.push(format!("{what}: not {}, but {refusal}", code as i32)),
        }
    }

    fn taken<T>(&mut self, what: &str, answer: Called<T>) {
        if let Err(refusal) = answer {
            self.0.push(format!("{what}: {refusal}"));
        }
    }

    fn outcome(self) -> Outcome {
        if self.0.is_empty() { Ok(()) } else { failed(self.0.join("; ")) }
    }
}

/// A key of nobody: that of a group that only `node` knows, as no account has it.
async fn stranger(node: &Node) -> Outcome<Vec<u8>> {
    Ok(node.multi_member_group_create(api::multi_member_group_create::Request {}).await?.group_pk)
}

async fn codes(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let mut verdicts = Verdicts::default();
    for (node, number) in nodes.iter().zip(1..) {
        let made = stranger(node).await?;
        // Of two nodes, one knows nothing of the groups of the other.
        let unknown = nodes.iter().find(|other| other.account != node.account);
        let unknown = match unknown {
            Some(other) => stranger(other).await?,
            None => node.device.clone(),
        };
        let on = |what: &str| format!("node {number}, {what}");
        let key = || unknown.clone();

        let request = api::group_info::Request::default();
        verdicts.refused(
            &on("GroupInfo of nothing"),
            node.group_info(request).await,
            ErrCode::ErrInvalidInput,
        );
        verdicts.refused(
            &on("ActivateGroup without a key"),
            node.activate(&[]).await,
            ErrCode::ErrInvalidInput,
        );
        verdicts.refused(
            &on("ActivateGroup of an unknown group"),
            node.activate(&unknown).await,
            ErrCode::ErrInvalidInput,
        );
        verdicts.taken(&on("DeactivateGroup of an unknown group"), node.deactivate(&unknown).await);
        let request = api::contact_request_send::Request::default();
        verdicts.refused(
            &on("ContactRequestSend without a contact"),
            node.contact_request_send(request).await,
            ErrCode::ErrInvalidInput,
        );
        let own =
            api::contact_request_send::Request { contact: Some(node.contact().await?), ..Default::default() };
        verdicts.refused(
            &on("ContactRequestSend to itself"),
            node.contact_request_send(own).await,
            ErrCode::ErrContactRequestSameAccount,
        );
        let contact =
            api::ShareableContact { pk: key(), public_rendezvous_seed: vec![7; 31], ..Default::default() };
        let short = api::contact_request_send::Request { contact: Some(contact), ..Default::default() };
        verdicts.refused(
            &on("ContactRequestSend with a seed of 31 bytes"),
            node.contact_request_send(short).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::contact_request_accept::Request::default();
        verdicts.refused(
            &on("ContactRequestAccept without a key"),
            node.contact_request_accept(request).await,
            ErrCode::ErrDeserialization,
        );
        let request = api::contact_request_accept::Request { contact_pk: key() };
        verdicts.refused(
            &on("ContactRequestAccept of one who did not ask"),
            node.contact_request_accept(request).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::contact_request_discard::Request { contact_pk: key() };
        verdicts.refused(
            &on("ContactRequestDiscard of one who did not ask"),
            node.contact_request_discard(request).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::contact_block::Request::default();
        verdicts.refused(
            &on("ContactBlock without a key"),
            node.contact_block(request).await,
            ErrCode::ErrDeserialization,
        );
        let request = api::contact_block::Request { contact_pk: node.account.clone() };
        verdicts.refused(
            &on("ContactBlock of itself"),
            node.contact_block(request).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::contact_unblock::Request { contact_pk: key() };
        verdicts.refused(
            &on("ContactUnblock of one who is not blocked"),
            node.contact_unblock(request).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::multi_member_group_join::Request { group: Some(api::Group::default()) };
        verdicts.refused(
            &on("MultiMemberGroupJoin of an empty group"),
            node.multi_member_group_join(request).await,
            ErrCode::ErrDeserialization,
        );
        let invitation = crate::circle::invitation(node, &made).await?;
        let request = api::multi_member_group_join::Request { group: Some(invitation.clone()) };
        verdicts.refused(
            &on("MultiMemberGroupJoin of a group that is joined"),
            node.multi_member_group_join(request).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::multi_member_group_leave::Request { group_pk: key() };
        verdicts.refused(
            &on("MultiMemberGroupLeave of an unknown group"),
            node.multi_member_group_leave(request).await,
            ErrCode::ErrInvalidInput,
        );
        verdicts.refused(
            &on("AppMessageSend into an unknown group"),
            node.send(&unknown, "nobody hears").await,
            ErrCode::ErrGroupUnknown,
        );
        let request = api::app_metadata_send::Request { group_pk: key(), payload: b"x".to_vec() };
        verdicts.refused(
            &on("AppMetadataSend into an unknown group"),
            node.app_metadata_send(request).await,
            ErrCode::ErrGroupUnknown,
        );
        let request = api::multi_member_group_admin_role_grant::Request {
            group_pk: made.clone(),
            member_pk: node.account.clone(),
        };
        verdicts.refused(
            &on("MultiMemberGroupAdminRoleGrant"),
            node.multi_member_group_admin_role_grant(request).await,
            ErrCode::ErrNotImplemented,
        );
        let request = api::multi_member_group_alias_resolver_disclose::Request { group_pk: key() };
        verdicts.refused(
            &on("MultiMemberGroupAliasResolverDisclose of an unknown group"),
            node.multi_member_group_alias_resolver_disclose(request).await,
            ErrCode::ErrGroupUnknown,
        );
        let request = api::out_of_store_receive::Request { payload: b"no envelope at all".to_vec() };
        verdicts.refused(
            &on("OutOfStoreReceive of garbage"),
            node.out_of_store_receive(request).await,
            ErrCode::ErrDeserialization,
        );
        let request = api::out_of_store_seal::Request { cid: vec![1, 2, 3], group_public_key: made.clone() };
        verdicts.refused(
            &on("OutOfStoreSeal of no entry"),
            node.out_of_store_seal(request).await,
            ErrCode::ErrInvalidInput,
        );
        let request = api::refresh_contact_request::Request { contact_pk: key(), timeout: 1 };
        match node.refresh_contact_request(request).await {
            Err(refusal)
                if refusal.codes().is_empty()
                    && refusal.status().is_some_and(|status| status.code() == tonic::Code::Unknown) => {}
            Err(refusal) => verdicts
                .0
                .push(format!("{}: not Unknown without codes, but {refusal}", on("RefreshContactRequest"))),
            Ok(_) => verdicts.0.push(on("RefreshContactRequest without a lookup: taken")),
        }
    }
    verdicts.outcome()
}

async fn lists(mesh: &mut Mesh) -> Outcome {
    let nodes = mesh.nodes();
    let mut wrong = Vec::new();
    for node in &nodes {
        let group = stranger(node).await?;
        let elsewhere = match nodes.iter().find(|other| other.account != node.account) {
            Some(other) => stranger(other).await?,
            None => node.device.clone(),
        };
        let first = node.send(&group, "first").await?;
        // An entry of another log.
        let foreign = node.send(&node.account_group, "in another log").await?;
        let base = api::group_message_list::Request { group_pk: group.clone(), ..Default::default() };
        let cases = [
            (
                "since_id with since_now",
                ErrCode::ErrInvalidInput,
                api::group_message_list::Request { since_id: first.clone(), since_now: true, ..base.clone() },
            ),
            (
                "until_id with until_now",
                ErrCode::ErrInvalidInput,
                api::group_message_list::Request { until_id: first.clone(), until_now: true, ..base.clone() },
            ),
            (
                "since_now with until_now",
                ErrCode::ErrInvalidInput,
                api::group_message_list::Request { since_now: true, until_now: true, ..base.clone() },
            ),
            (
                "reverse_order without an end",
                ErrCode::ErrInvalidInput,
                api::group_message_list::Request { reverse_order: true, ..base.clone() },
            ),
            (
                "since an entry of another log",
                ErrCode::ErrInvalidRange,
                api::group_message_list::Request {
                    since_id: foreign.clone(),
                    until_now: true,
                    ..base.clone()
                },
            ),
            (
                "until an entry of another log",
                ErrCode::ErrInvalidRange,
                api::group_message_list::Request { until_id: foreign.clone(), ..base.clone() },
            ),
            (
                "an unknown group",
                ErrCode::ErrGroupUnknown,
                api::group_message_list::Request { group_pk: elsewhere.clone(), ..Default::default() },
            ),
        ];
        for (what, code, request) in cases {
            match node.group_message_list(request.clone()).refusal().await {
                Ok(refusal) if refusal.last_code() == Some(code) => {}
                Ok(refusal) => wrong.push(format!("messages, {what}: not {}, but {refusal}", code as i32)),
                Err(seen) => wrong.push(format!("messages, {what}: {seen}")),
            }
            let api::group_message_list::Request {
                group_pk,
                since_id,
                since_now,
                until_id,
                until_now,
                reverse_order,
            } = request;
            let request = api::group_metadata_list::Request {
                group_pk,
                since_id,
                since_now,
                until_id,
                until_now,
                reverse_order,
            };
            // No message is in the log of events.
            let ids_are_foreign = !request.since_id.is_empty() || !request.until_id.is_empty();
            match node.group_metadata_list(request).refusal().await {
                Ok(refusal) if refusal.last_code() == Some(code) => {}
                Ok(refusal) if ids_are_foreign && refusal.last_code() == Some(ErrCode::ErrInvalidRange) => {}
                Ok(refusal) => wrong.push(format!("events, {what}: not {}, but {refusal}", code as i32)),
                Err(seen) => wrong.push(format!("events, {what}: {seen}")),
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { failed(wrong.join("; ")) }
}

async fn bad_input(mesh: &mut Mesh) -> Outcome {
    if mesh.tolerances().allow(Tolerance::CallsThatCrash) {
        return left_out("what such calls end is let pass");
    }
    let mut verdicts = Verdicts::default();
    for node in mesh.nodes() {
        for encoded_contact in [vec![0xff; 40], vec![0x0a, 0xff], b"https://example.org".to_vec()] {
            let answer = node.decode_contact(api::decode_contact::Request { encoded_contact }).await;
            verdicts.refused("DecodeContact of no contact", answer, ErrCode::ErrDeserialization);
        }
        let request = api::multi_member_group_join::Request { group: None };
        let answer = node.multi_member_group_join(request).await;
        verdicts.refused("MultiMemberGroupJoin without a group", answer, ErrCode::ErrInvalidInput);
        for group_pk in [vec![0; 31], vec![0; 33], vec![0xff; 32]] {
            let answer = node.describe(&group_pk).await;
            ensure(answer.is_err(), || format!("{} describes a group without a key", node.name()))?;
        }
        Circle::open(&node.account_group, std::slice::from_ref(&node)).await?.talk("still here", 1).await?;
    }
    verdicts.outcome()
}
