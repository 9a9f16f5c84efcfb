//! Lists and streams (`spec/wesh-protocol.md` §8.6).

use dunlin_proto::dunlin::node::v1::EraseMessageRequest;
use dunlin_proto::protocol as api;
use tonic::Code;

use crate::served::{Served, next, soon};

/// More than a broadcast to a client that does not read could hold.
const MANY: usize = 6_000;

fn list(group: &[u8]) -> api::group_message_list::Request {
    api::group_message_list::Request { group_pk: group.to_vec(), ..Default::default() }
}

/// Headers are whole, as a Go node gives them, and the same whether a message is listed or told.
#[tokio::test]
async fn headers_carry_the_signature_of_the_message() {
    let s = Served::start().await;
    let group = s.group().await;
    let live = api::group_message_list::Request { since_now: true, ..list(&group) };
    let mut told = s.client().group_message_list(live).await.unwrap().into_inner();
    for text in ["one", "two"] {
        s.send(&group, text.as_bytes()).await;
    }
    let all = api::group_message_list::Request { until_now: true, ..list(&group) };
    let mut listed = s.client().group_message_list(all).await.unwrap().into_inner();
    let mut signatures = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let headers = next(&mut listed).await.headers.unwrap();
        assert_eq!(next(&mut told).await.headers.unwrap(), headers);
        assert_eq!((headers.device_pk.len(), headers.sig.len()), (32, 64));
        signatures.insert(headers.sig);
    }
    assert_eq!(signatures.len(), 2, "each is of its own message");
    s.stop().await;
}

#[tokio::test]
async fn lists_are_in_the_order_of_the_conversation_and_end_where_they_should() {
    let s = Served::start().await;
    let group = s.group().await;
    let mut ids = Vec::new();
    for text in ["m0", "m1", "m2", "m3", "m4"] {
        ids.push(s.send(&group, text.as_bytes()).await);
    }
    let (one, three) = (ids[1].clone(), ids[3].clone());
    let cases: Vec<(api::group_message_list::Request, &[&str])> = vec![
        (
            api::group_message_list::Request { until_now: true, ..list(&group) },
            &["m0", "m1", "m2", "m3", "m4"],
        ),
        (
            api::group_message_list::Request { until_now: true, reverse_order: true, ..list(&group) },
            &["m4", "m3", "m2", "m1", "m0"],
        ),
        (
            api::group_message_list::Request { until_id: three.clone(), ..list(&group) },
            &["m0", "m1", "m2", "m3"],
        ),
        (
            api::group_message_list::Request { until_id: three.clone(), reverse_order: true, ..list(&group) },
            &["m3", "m2", "m1", "m0"],
        ),
        (
            api::group_message_list::Request {
                since_id: one.clone(),
                until_id: three.clone(),
                ..list(&group)
            },
            &["m1", "m2", "m3"],
        ),
        (
            api::group_message_list::Request {
                since_id: one.clone(),
                until_id: three,
                reverse_order: true,
                ..list(&group)
            },
            &["m3", "m2", "m1"],
        ),
        (
            api::group_message_list::Request { since_id: one, until_now: true, ..list(&group) },
            &["m1", "m2", "m3", "m4"],
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(s.texts(request.clone()).await, expected, "{request:?}");
    }
    s.stop().await;
}

/// `NodeService` erases what `ProtocolService` lists.
#[tokio::test]
async fn an_erased_message_is_in_no_list() {
    let s = Served::start().await;
    let group = s.group().await;
    let other = s.group().await;
    let gone = s.send(&group, b"gone").await;
    s.send(&group, b"stays").await;
    let mut node = s.node_client();
    let request =
        |group: &[u8], id: &[u8]| EraseMessageRequest { group_pk: group.to_vec(), message_id: id.to_vec() };
    node.erase_message(request(&group, &gone)).await.unwrap();
    let all = api::group_message_list::Request { until_now: true, ..list(&group) };
    assert_eq!(s.texts(all).await, ["stays"]);
    for (group, id, code, reason) in [
        (group.as_slice(), gone.as_slice(), Code::NotFound, "message-unknown"),
        (&other, &gone, Code::NotFound, "message-unknown"),
        (&group, b"no id", Code::InvalidArgument, "message-malformed"),
        (b"", &gone, Code::InvalidArgument, "group-malformed"),
    ] {
        let refused = node.erase_message(request(group, id)).await.unwrap_err();
        let told = refused.metadata().get("dunlin-reason").unwrap().to_str().unwrap();
        assert_eq!((refused.code(), told), (code, reason));
    }
    s.stop().await;
}

#[tokio::test]
async fn what_comes_is_told_after_what_was_there_and_once() {
    let s = Served::start().await;
    let group = s.group().await;
    let before = s.send(&group, b"before").await;
    let mut all = s.client().group_message_list(list(&group)).await.unwrap().into_inner();
    let since = api::group_message_list::Request { since_id: before.clone(), ..list(&group) };
    let mut since = s.client().group_message_list(since).await.unwrap().into_inner();
    let now = api::group_message_list::Request { since_now: true, ..list(&group) };
    let mut now = s.client().group_message_list(now).await.unwrap().into_inner();
    let after = s.send(&group, b"after").await;
    for stream in [&mut all, &mut since] {
        let first = next(stream).await;
        let context = first.event_context.unwrap();
        assert_eq!((context.id, context.group_pk), (before.clone(), group.clone()));
    }
    for stream in [&mut all, &mut since, &mut now] {
        let event = next(stream).await;
        let context = event.event_context.unwrap();
        assert_eq!((context.id, event.message.as_slice()), (after.clone(), b"after".as_slice()));
        assert_eq!(context.parent_ids, std::slice::from_ref(&before));
        assert_eq!(event.headers.unwrap().device_pk.len(), 32);
    }
    s.stop().await;
}

#[tokio::test]
async fn own_events_are_told_live_with_their_payload() {
    let s = Served::start().await;
    let group = s.group().await;
    let request =
        api::group_metadata_list::Request { group_pk: group.clone(), since_now: true, ..Default::default() };
    let mut live = s.client().group_metadata_list(request).await.unwrap().into_inner();
    let send = api::app_metadata_send::Request { group_pk: group, payload: b"metadata".to_vec() };
    let cid = s.client().app_metadata_send(send).await.unwrap().into_inner().cid;
    let event = next(&mut live).await;
    assert_eq!(event.event_context.unwrap().id, cid);
    assert_eq!(event.metadata.unwrap().event_type(), api::EventType::GroupMetadataPayloadSent);
    let payload: api::GroupMetadataPayloadSent = prost::Message::decode(&*event.event).unwrap();
    assert_eq!(payload.message, b"metadata");
    s.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_nobody_and_misses_nothing() {
    let s = Served::start().await;
    let group = s.group().await;
    let mut slow = s.client().group_message_list(list(&group)).await.unwrap().into_inner();
    let mut quick = s.client().group_message_list(list(&group)).await.unwrap().into_inner();
    let id = dunlin_base::GroupId::from_bytes(&group).unwrap();
    let node = s.node.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..MANY / 100 {
            let sent = node.transact(move |ctx, engine, _| {
                (0..100).try_for_each(|_| engine.send_message(ctx, &id, &[7; 200]).map(drop))
            });
            sent.await.unwrap();
        }
    });
    for stream in [&mut quick, &mut slow] {
        let mut counter = None;
        for _ in 0..MANY {
            let headers = next(stream).await.headers.unwrap();
            assert!(counter.is_none_or(|before| headers.counter == before + 1), "{counter:?} {headers:?}");
            counter = Some(headers.counter);
        }
    }
    sending.await.unwrap();
    s.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_cancelled_leave_nothing_behind() {
    let s = Served::start().await;
    let group = s.group().await;
    for _ in 0..300 {
        s.send(&group, &[7; 1000]).await;
    }
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut streams: Vec<Box<dyn Send>> = Vec::new();
    for _ in 0..20 {
        let mut client = s.client();
        let metadata = api::group_metadata_list::Request { group_pk: group.clone(), ..Default::default() };
        let status = api::group_device_status::Request { group_pk: group.clone() };
        let store = api::debug_inspect_group_store::Request { group_pk: group.clone(), log_type: 1 };
        let export = api::service_export_data::Request {};
        streams.push(Box::new(client.group_message_list(list(&group)).await.unwrap()));
        streams.push(Box::new(client.group_metadata_list(metadata).await.unwrap()));
        streams.push(Box::new(client.group_device_status(status).await.unwrap()));
        streams.push(Box::new(client.debug_inspect_group_store(store).await.unwrap()));
        streams.push(Box::new(client.service_export_data(export).await.unwrap()));
    }
    assert!(tasks() >= before + 60, "each list and each watch has a task");
    drop(streams);
    // Nothing tells when a task has ended; it is one of those that run while this one lets others go first.
    let ended = async {
        while tasks() > before + 2 {
            tokio::task::yield_now().await;
        }
    };
    soon(ended).await;
    s.send(&group, b"and the node goes on").await;
    s.stop().await;
}

#[tokio::test]
async fn a_store_is_inspected_entry_by_entry() {
    let s = Served::start().await;
    let group = s.group().await;
    let (one, two) = (s.send(&group, b"one").await, s.send(&group, b"two").await);
    let inspect = |log_type: api::DebugInspectGroupLogType| {
        let request =
            api::debug_inspect_group_store::Request { group_pk: group.clone(), log_type: log_type.into() };
        let mut client = s.client();
        async move {
            let mut stream = client.debug_inspect_group_store(request).await.unwrap().into_inner();
            let mut entries = Vec::new();
            while let Some(entry) = stream.message().await.unwrap() {
                entries.push(entry);
            }
            entries
        }
    };
    let messages = inspect(api::DebugInspectGroupLogType::Message).await;
    let shown: Vec<_> = messages.iter().map(|entry| (entry.cid.clone(), entry.payload.as_slice())).collect();
    assert_eq!(shown, [(one.clone(), b"one".as_slice()), (two, b"two".as_slice())]);
    assert_eq!(messages[1].parent_cids, [one]);
    assert_eq!(messages[0].device_pk.len(), 32);
    let events = inspect(api::DebugInspectGroupLogType::Metadata).await;
    let types: Vec<_> = events.iter().map(|entry| entry.metadata_event_type()).collect();
    for expected in [
        api::EventType::GroupMemberDeviceAdded,
        api::EventType::GroupDeviceChainKeyAdded,
        api::EventType::MultiMemberGroupInitialMemberAnnounced,
    ] {
        assert!(types.contains(&expected), "{expected:?} is missing in {types:?}");
    }
    s.stop().await;
}
