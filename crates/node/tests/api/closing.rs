//! Groups are put out of use and into use again, the account group too, and by many at once.

use dunlin_base::SecretKey;
use dunlin_proto::protocol as api;

use crate::served::{Served, codes, soon};

/// The codes of a call that needs the account group.
macro_rules! closed {
    ($served:expr, $call:ident, $request:expr) => {{
        let refused = $served.client().$call($request).await.map(drop).unwrap_err();
        (stringify!($call), codes(&refused))
    }};
}

#[tokio::test]
async fn without_its_account_group_an_account_refuses_and_does_not_break() {
    let s = Served::start().await;
    let account = s.configuration().await.account_group_pk;
    let group = s.group().await;
    let invitation = api::multi_member_group_invitation_create::Request { group_pk: group.clone() };
    let invitation =
        s.client().multi_member_group_invitation_create(invitation).await.unwrap().into_inner().group;
    let contact_pk = || SecretKey::from_seed([7; 32]).public().as_bytes().to_vec();
    let contact = || {
        Some(api::ShareableContact {
            pk: contact_pk(),
            public_rendezvous_seed: vec![3; 32],
            ..Default::default()
        })
    };
    let close = || api::deactivate_group::Request { group_pk: account.clone() };
    s.client().deactivate_group(close()).await.unwrap();
    s.client().deactivate_group(close()).await.unwrap();

    let refused = [
        closed!(s, service_get_configuration, api::service_get_configuration::Request {}),
        closed!(s, contact_request_reference, api::contact_request_reference::Request {}),
        closed!(s, contact_request_enable, api::contact_request_enable::Request {}),
        closed!(s, contact_request_disable, api::contact_request_disable::Request {}),
        closed!(s, contact_request_reset_reference, api::contact_request_reset_reference::Request {}),
        closed!(
            s,
            contact_request_send,
            api::contact_request_send::Request { contact: contact(), own_metadata: Vec::new() }
        ),
        closed!(s, contact_request_accept, api::contact_request_accept::Request { contact_pk: contact_pk() }),
        closed!(
            s,
            contact_request_discard,
            api::contact_request_discard::Request { contact_pk: contact_pk() }
        ),
        closed!(s, share_contact, api::share_contact::Request {}),
        closed!(s, contact_block, api::contact_block::Request { contact_pk: contact_pk() }),
        closed!(s, contact_unblock, api::contact_unblock::Request { contact_pk: contact_pk() }),
        closed!(s, multi_member_group_create, api::multi_member_group_create::Request {}),
        closed!(s, multi_member_group_join, api::multi_member_group_join::Request { group: invitation }),
        closed!(
            s,
            multi_member_group_leave,
            api::multi_member_group_leave::Request { group_pk: group.clone() }
        ),
        closed!(s, debug_list_groups, api::debug_list_groups::Request {}),
        closed!(s, system_info, api::system_info::Request {}),
        closed!(s, verified_credentials_list, api::verified_credentials_list::Request::default()),
        closed!(
            s,
            credential_verification_service_init_flow,
            api::credential_verification_service_init_flow::Request::default()
        ),
    ];
    for (call, codes) in refused {
        assert_eq!(codes, [1306], "{call}");
    }
    let send = api::app_metadata_send::Request { group_pk: account.clone(), payload: b"x".to_vec() };
    assert_eq!(codes(&s.client().app_metadata_send(send.clone()).await.unwrap_err()), [1306, 1310]);
    let list = api::group_metadata_list::Request { group_pk: account.clone(), ..Default::default() };
    assert_eq!(codes(&s.client().group_metadata_list(list).await.map(drop).unwrap_err()), [1302, 1310]);
    s.send(&group, b"other groups go on").await;

    s.client()
        .activate_group(api::activate_group::Request { group_pk: account.clone(), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(s.configuration().await.account_group_pk, account);
    s.client().app_metadata_send(send).await.unwrap();
    s.client().contact_block(api::contact_block::Request { contact_pk: contact_pk() }).await.unwrap();
    s.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_are_opened_and_closed_by_many_at_once_lose_nothing() {
    let s = Served::start().await;
    let account = s.configuration().await.account_group_pk;
    let group = s.group().await;
    let mut callers = Vec::new();
    for caller in 0..6 {
        let mut client = s.client();
        let (group, account) = (group.clone(), account.clone());
        callers.push(tokio::spawn(async move {
            let mut sent = 0;
            for round in 0..25 {
                let group_pk = if (caller + round) % 3 == 0 { account.clone() } else { group.clone() };
                client
                    .deactivate_group(api::deactivate_group::Request { group_pk: group_pk.clone() })
                    .await
                    .unwrap();
                client
                    .activate_group(api::activate_group::Request { group_pk, ..Default::default() })
                    .await
                    .unwrap();
                let payload = format!("{caller}/{round}").into_bytes();
                match client
                    .app_message_send(api::app_message_send::Request { group_pk: group.clone(), payload })
                    .await
                {
                    Ok(_) => sent += 1,
                    Err(refused) => assert_eq!(codes(&refused), [1306, 1310], "{refused}"),
                }
            }
            sent
        }));
    }
    let mut sent = 0;
    for caller in callers {
        sent += soon(caller).await.unwrap();
    }
    for group_pk in [&group, &account] {
        let activate = api::activate_group::Request { group_pk: group_pk.clone(), ..Default::default() };
        s.client().activate_group(activate).await.unwrap();
    }
    s.configuration().await;
    let list = api::group_message_list::Request { group_pk: group, until_now: true, ..Default::default() };
    assert_eq!(s.texts(list).await.len(), sent);
    s.stop().await;
}
