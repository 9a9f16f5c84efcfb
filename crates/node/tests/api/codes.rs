//! What is refused, and with which codes (`spec/wesh-protocol.md` §8.5). The codes are those of a Go node; where that one
//! would end with its whole process, ours are the ones of an argument that cannot be used.

use dunlin_base::SecretKey;
use dunlin_proto::protocol as api;
use tonic::Code;

use crate::served::{Served, codes};

/// A payload for which there is no room.
const TOO_LARGE: usize = 560_001;

/// The codes with which a call is refused; none if it is not.
macro_rules! answer {
    ($served:expr, $call:ident, $module:ident { $($field:ident: $value:expr),* }) => {{
        #[allow(clippy::needless_update, reason = "not every request has more fields")]
        let request = api::$module::Request { $($field: $value,)* ..Default::default() };
        (
            concat!(stringify!($call), " ", stringify!($($field: $value),*)),
            match $served.client().$call(request).await {
                Ok(_) => Vec::new(),
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{}: {status}", stringify!($call));
                    codes(&status)
                }
            },
        )
    }};
}

/// Compares all rows before it fails.
fn check(rows: Vec<((&'static str, Vec<i32>), &[i32])>) {
    let wrong: Vec<_> = rows
        .into_iter()
        .filter(|((_, found), expected)| found != expected)
        .map(|((call, found), expected)| format!("{call}: {found:?}, not {expected:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn key(seed: u8) -> Vec<u8> {
    SecretKey::from_seed([seed; 32]).public().as_bytes().to_vec()
}

#[tokio::test]
async fn calls_about_groups_are_refused_with_the_codes_of_the_existing_service() {
    let s = Served::start().await;
    let group = s.group().await;
    let account = s.configuration().await.account_pk;
    let short = || b"short".to_vec();
    let unknown = || key(7);
    let damaged = || {
        Some(api::Group {
            public_key: key(9),
            secret: vec![1; 32],
            secret_sig: vec![2; 64],
            group_type: 3,
            ..Default::default()
        })
    };
    check(vec![
        (answer!(s, group_info, group_info {}), &[100]),
        (answer!(s, group_info, group_info { group_pk: short() }), &[100]),
        (answer!(s, group_info, group_info { group_pk: unknown() }), &[666, 100]),
        (answer!(s, group_info, group_info { contact_pk: short() }), &[100]),
        (answer!(s, group_info, group_info { contact_pk: unknown() }), &[]),
        (answer!(s, activate_group, activate_group {}), &[100]),
        (answer!(s, activate_group, activate_group { group_pk: short() }), &[100]),
        (answer!(s, activate_group, activate_group { group_pk: unknown() }), &[888, 888, 100]),
        (answer!(s, deactivate_group, deactivate_group {}), &[100]),
        (answer!(s, deactivate_group, deactivate_group { group_pk: unknown() }), &[]),
        (answer!(s, multi_member_group_join, multi_member_group_join {}), &[100]),
        (
            answer!(
                s,
                multi_member_group_join,
                multi_member_group_join { group: Some(api::Group::default()) }
            ),
            &[1002, 104, 104],
        ),
        (
            answer!(s, multi_member_group_join, multi_member_group_join { group: damaged() }),
            &[1002, 104, 204],
        ),
        (answer!(s, multi_member_group_leave, multi_member_group_leave {}), &[104]),
        (
            answer!(s, multi_member_group_leave, multi_member_group_leave { group_pk: unknown() }),
            &[1002, 100],
        ),
        (
            answer!(
                s,
                multi_member_group_alias_resolver_disclose,
                multi_member_group_alias_resolver_disclose {}
            ),
            &[1302, 888],
        ),
        (
            answer!(
                s,
                multi_member_group_alias_resolver_disclose,
                multi_member_group_alias_resolver_disclose { group_pk: short() }
            ),
            &[1302, 1310],
        ),
        (
            answer!(
                s,
                multi_member_group_alias_resolver_disclose,
                multi_member_group_alias_resolver_disclose { group_pk: unknown() }
            ),
            &[1302, 1310],
        ),
        (
            answer!(
                s,
                multi_member_group_alias_resolver_disclose,
                multi_member_group_alias_resolver_disclose { group_pk: account.clone() }
            ),
            &[1002, 1305],
        ),
        (
            answer!(
                s,
                multi_member_group_alias_resolver_disclose,
                multi_member_group_alias_resolver_disclose { group_pk: group.clone() }
            ),
            &[],
        ),
        (answer!(s, multi_member_group_admin_role_grant, multi_member_group_admin_role_grant {}), &[777]),
        (
            answer!(s, multi_member_group_invitation_create, multi_member_group_invitation_create {}),
            &[1302, 888],
        ),
        (
            answer!(
                s,
                multi_member_group_invitation_create,
                multi_member_group_invitation_create { group_pk: short() }
            ),
            &[1302, 1310],
        ),
        (
            answer!(
                s,
                multi_member_group_invitation_create,
                multi_member_group_invitation_create { group_pk: unknown() }
            ),
            &[1302, 1310],
        ),
        (
            answer!(
                s,
                multi_member_group_invitation_create,
                multi_member_group_invitation_create { group_pk: account.clone() }
            ),
            &[1002, 1305],
        ),
        (answer!(s, contact_alias_key_send, contact_alias_key_send {}), &[1306, 888]),
        (answer!(s, contact_alias_key_send, contact_alias_key_send { group_pk: short() }), &[1306, 1310]),
        (
            answer!(s, contact_alias_key_send, contact_alias_key_send { group_pk: group.clone() }),
            &[1002, 1305],
        ),
        (answer!(s, app_metadata_send, app_metadata_send {}), &[1306, 888]),
        (answer!(s, app_metadata_send, app_metadata_send { group_pk: unknown() }), &[1306, 1310]),
        (
            answer!(
                s,
                app_metadata_send,
                app_metadata_send { group_pk: group.clone(), payload: vec![0; TOO_LARGE] }
            ),
            &[100],
        ),
        (answer!(s, app_message_send, app_message_send {}), &[1306, 888]),
        (answer!(s, app_message_send, app_message_send { group_pk: short() }), &[1306, 1310]),
        (answer!(s, app_message_send, app_message_send { group_pk: unknown() }), &[1306, 1310]),
        (
            answer!(
                s,
                app_message_send,
                app_message_send { group_pk: group.clone(), payload: vec![0; TOO_LARGE] }
            ),
            &[100],
        ),
        (
            answer!(
                s,
                app_message_send,
                app_message_send { group_pk: group.clone(), payload: vec![0; TOO_LARGE - 1] }
            ),
            &[],
        ),
        (answer!(s, group_device_status, group_device_status {}), &[1306, 888]),
        (answer!(s, group_device_status, group_device_status { group_pk: unknown() }), &[1306, 1310]),
        (
            answer!(s, debug_inspect_group_store, debug_inspect_group_store { group_pk: group.clone() }),
            &[100],
        ),
        (answer!(s, debug_inspect_group_store, debug_inspect_group_store { log_type: 1 }), &[100, 888]),
        (
            answer!(
                s,
                debug_inspect_group_store,
                debug_inspect_group_store { log_type: 2, group_pk: unknown() }
            ),
            &[100, 1310],
        ),
        (
            answer!(
                s,
                debug_inspect_group_store,
                debug_inspect_group_store { log_type: 9, group_pk: group.clone() }
            ),
            &[100],
        ),
        (answer!(s, debug_group, debug_group {}), &[888]),
        (answer!(s, debug_group, debug_group { group_pk: unknown() }), &[1310]),
        (answer!(s, debug_group, debug_group { group_pk: group.clone() }), &[]),
        (answer!(s, out_of_store_seal, out_of_store_seal {}), &[888]),
        (answer!(s, out_of_store_seal, out_of_store_seal { group_public_key: unknown() }), &[1310]),
        (
            answer!(
                s,
                out_of_store_seal,
                out_of_store_seal { group_public_key: group.clone(), cid: short() }
            ),
            &[100],
        ),
    ]);
    let texts =
        s.texts(api::group_message_list::Request { group_pk: group, until_now: true, ..Default::default() });
    assert_eq!(texts.await.len(), 1, "what was refused is not there");
    s.stop().await;
}

#[tokio::test]
async fn calls_about_contacts_and_credentials_are_refused_with_the_codes_of_the_existing_service() {
    let s = Served::start().await;
    let account = s.configuration().await.account_pk;
    let contact = |pk: Vec<u8>, seed: usize| {
        Some(api::ShareableContact { pk, public_rendezvous_seed: vec![3; seed], ..Default::default() })
    };
    let short = || b"short".to_vec();
    check(vec![
        (answer!(s, contact_request_send, contact_request_send {}), &[100]),
        (
            answer!(s, contact_request_send, contact_request_send { contact: contact(Vec::new(), 0) }),
            &[1002, 100],
        ),
        (
            answer!(s, contact_request_send, contact_request_send { contact: contact(key(7), 0) }),
            &[1002, 100],
        ),
        (
            answer!(s, contact_request_send, contact_request_send { contact: contact(key(7), 31) }),
            &[1002, 100],
        ),
        (
            answer!(s, contact_request_send, contact_request_send { contact: contact(short(), 32) }),
            &[1002, 104],
        ),
        (
            answer!(s, contact_request_send, contact_request_send { contact: contact(account.clone(), 32) }),
            &[1002, 1200],
        ),
        (
            answer!(
                s,
                contact_request_send,
                contact_request_send { contact: contact(key(7), 32), own_metadata: vec![0; 5000] }
            ),
            &[100],
        ),
        (answer!(s, contact_request_accept, contact_request_accept {}), &[104]),
        (answer!(s, contact_request_accept, contact_request_accept { contact_pk: key(7) }), &[1002, 100]),
        (answer!(s, contact_request_discard, contact_request_discard { contact_pk: short() }), &[104]),
        (answer!(s, contact_request_discard, contact_request_discard { contact_pk: key(7) }), &[1002, 100]),
        (answer!(s, contact_block, contact_block {}), &[104]),
        (answer!(s, contact_block, contact_block { contact_pk: account.clone() }), &[1002, 100]),
        (answer!(s, contact_unblock, contact_unblock {}), &[104]),
        (answer!(s, contact_unblock, contact_unblock { contact_pk: key(7) }), &[1002, 100]),
        (answer!(s, decode_contact, decode_contact { encoded_contact: vec![0xff; 9] }), &[104]),
        (answer!(s, decode_contact, decode_contact {}), &[]),
        (
            answer!(s, out_of_store_receive, out_of_store_receive { payload: b"garbage".to_vec() }),
            &[205, 104],
        ),
        (
            answer!(
                s,
                credential_verification_service_init_flow,
                credential_verification_service_init_flow {}
            ),
            &[100],
        ),
        (
            answer!(
                s,
                credential_verification_service_init_flow,
                credential_verification_service_init_flow { public_key: key(7) }
            ),
            &[100],
        ),
        (
            answer!(
                s,
                credential_verification_service_complete_flow,
                credential_verification_service_complete_flow {}
            ),
            &[100],
        ),
    ]);
    s.stop().await;
}

#[tokio::test]
async fn lists_are_refused_with_the_codes_of_the_existing_service() {
    let s = Served::start().await;
    let group_pk = s.group().await;
    let group = || group_pk.clone();
    let first = s.send(&group_pk, b"first").await;
    let second = s.send(&group_pk, b"second").await;
    let id = || first.clone();
    let later = || second.clone();
    check(vec![
        (answer!(s, group_message_list, group_message_list {}), &[1302, 888]),
        (answer!(s, group_message_list, group_message_list { group_pk: b"short".to_vec() }), &[1302, 1310]),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: key(7), since_now: true, until_now: true }
            ),
            &[1302, 1310],
        ),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: group(), since_id: id(), since_now: true }
            ),
            &[100],
        ),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: group(), until_id: id(), until_now: true }
            ),
            &[100],
        ),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: group(), since_now: true, until_now: true }
            ),
            &[100],
        ),
        (
            answer!(s, group_message_list, group_message_list { group_pk: group(), reverse_order: true }),
            &[100],
        ),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: group(), since_id: b"no id".to_vec() }
            ),
            &[101],
        ),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: group(), until_id: b"no id".to_vec() }
            ),
            &[101],
        ),
        (
            answer!(
                s,
                group_message_list,
                group_message_list { group_pk: group(), since_id: later(), until_id: id() }
            ),
            &[101],
        ),
        (answer!(s, group_metadata_list, group_metadata_list {}), &[1302, 888]),
        (answer!(s, group_metadata_list, group_metadata_list { group_pk: key(7) }), &[1302, 1310]),
        (
            answer!(
                s,
                group_metadata_list,
                group_metadata_list { group_pk: group(), since_now: true, until_now: true }
            ),
            &[100],
        ),
        (
            answer!(s, group_metadata_list, group_metadata_list { group_pk: group(), reverse_order: true }),
            &[100],
        ),
        (answer!(s, group_metadata_list, group_metadata_list { group_pk: group(), since_id: id() }), &[101]),
    ]);
    s.stop().await;
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_before_it_is_read() {
    let s = Served::start().await;
    let group_pk = s.group().await;
    let payload = vec![0; 5 * 1024 * 1024];
    let refused =
        s.client().app_message_send(api::app_message_send::Request { group_pk, payload }).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("too large"), "{refused}");
    s.stop().await;
}
