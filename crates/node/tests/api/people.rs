//! Two accounts, each behind its own service: they meet, are seen, and tell each other who they are.

use dunlin_proto::dunlin::node::v1 as node_api;
use dunlin_proto::protocol as api;
use dunlin_proto::protocol::group_device_status as presence;
use prost::Message;
use tokio::task::JoinSet;
use tonic::{Code, Streaming};

use crate::served::{Served, codes, next, soon};

type Events = Streaming<api::GroupMetadataEvent>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_told_before_it_is_accepted_and_once() {
    let (alice, bob) = (Served::start().await, Served::start().await);
    let mut live = account_events(&alice).await;
    let contact = ask(&bob, &alice, b"it is me, bob").await;
    let bobs = bob.configuration().await.account_pk;

    let asked = until_event(&mut live, api::EventType::AccountContactRequestIncomingReceived).await;
    let payload = api::AccountContactRequestIncomingReceived::decode(&*asked.event).unwrap();
    assert_eq!((payload.contact_pk, payload.contact_metadata), (bobs.clone(), b"it is me, bob".to_vec()));
    let metadata = asked.metadata.unwrap();
    assert_eq!((metadata.payload, metadata.sig.len()), (asked.event.clone(), 64));
    // Whoever lists now is told too.
    let mut again = account_events(&alice).await;
    let listed = until_event(&mut again, api::EventType::AccountContactRequestIncomingReceived).await;
    assert_eq!(listed.event, asked.event);
    // It is in no log: other devices see decisions alone.
    let account = alice.configuration().await.account_group_pk;
    let inspect = api::debug_inspect_group_store::Request { group_pk: account, log_type: 2 };
    let mut store = alice.client().debug_inspect_group_store(inspect).await.unwrap().into_inner();
    while let Some(entry) = store.message().await.unwrap() {
        assert_ne!(entry.metadata_event_type(), api::EventType::AccountContactRequestIncomingReceived);
    }

    let accept = api::contact_request_accept::Request { contact_pk: bobs };
    alice.client().contact_request_accept(accept).await.unwrap();
    for stream in [&mut live, &mut again] {
        let accepted = next(stream).await.metadata.unwrap();
        assert_eq!(
            accepted.event_type(),
            api::EventType::AccountContactRequestIncomingAccepted,
            "it was told before"
        );
    }
    // The other side sends once more, after the first was sent.
    let account = bob.configuration().await.account_group_pk;
    let list = api::group_metadata_list::Request { group_pk: account, ..Default::default() };
    let mut told = bob.client().group_metadata_list(list).await.unwrap().into_inner();
    let sent = api::EventType::AccountContactRequestOutgoingSent;
    while next(&mut told).await.metadata.unwrap().event_type() != sent {}
    let send = api::contact_request_send::Request { contact: Some(contact), own_metadata: Vec::new() };
    let refused = bob.client().contact_request_send(send).await.unwrap_err();
    assert_eq!(codes(&refused), [1002, 1201]);

    // The alias key is the account key, as Go writes it, and not the proof key.
    let group =
        api::group_info::Request { contact_pk: bob.configuration().await.account_pk, ..Default::default() };
    let group = alice.client().group_info(group).await.unwrap().into_inner().group.unwrap().public_key;
    let request =
        api::group_metadata_list::Request { group_pk: group.clone(), since_now: true, ..Default::default() };
    let mut events = alice.client().group_metadata_list(request).await.unwrap().into_inner();
    alice
        .client()
        .contact_alias_key_send(api::contact_alias_key_send::Request { group_pk: group })
        .await
        .unwrap();
    let alias = until_event(&mut events, api::EventType::ContactAliasKeyAdded).await;
    let alias = api::ContactAliasKeyAdded::decode(&*alias.event).unwrap().alias_pk;
    assert_eq!(alias, alice.configuration().await.account_pk);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_seen_as_long_as_it_is_there() {
    let (alice, bob) = (Served::start().await, Served::start().await);
    let group = alice.group().await;
    let request = presence::Request { group_pk: group.clone() };
    let mut status = alice.client().group_device_status(request).await.unwrap().into_inner();
    let connected = connect(&alice, &bob).await;
    let bobs_device = join(&bob, &alice, &group).await;
    let bobs_peer = bob.configuration().await.peer_id;

    let came = next(&mut status).await;
    assert_eq!(came.r#type(), presence::Type::PeerConnected);
    let came = presence::reply::PeerConnected::decode(&*came.event).unwrap();
    assert_eq!((came.peer_id.as_str(), came.device_pk.clone()), (bobs_peer.as_str(), bobs_device));
    assert_eq!(came.transports().collect::<Vec<_>>(), [presence::Transport::TptLan]);
    assert_eq!(came.maddrs, [connected]);

    let peers = alice.client().peer_list(api::peer_list::Request {}).await.unwrap().into_inner().peers;
    let [peer] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!(
        (peer.id.as_str(), peer.is_active, peer.direction()),
        (bobs_peer.as_str(), true, api::Direction::OutboundDir)
    );
    assert!(peer.features().any(|feature| feature == api::peer_list::Feature::WeshFeature), "{peer:?}");
    let [route] = &peer.routes[..] else { panic!("{peer:?}") };
    assert_eq!((route.is_active, &route.address), (true, &came.maddrs[0]));

    let seen =
        alice.client().debug_group(api::debug_group::Request { group_pk: group.clone() }).await.unwrap();
    assert_eq!(seen.into_inner().peer_ids, std::slice::from_ref(&bobs_peer));
    let system = alice.client().system_info(api::system_info::Request {}).await.unwrap().into_inner();
    assert_eq!(system.p2p.unwrap().connected_peers, 1);
    assert!(system.orbitdb.unwrap().account_metadata.unwrap().progress > 0);
    let statistics =
        alice.node_client().statistics(node_api::StatisticsRequest {}).await.unwrap().into_inner();
    let state = statistics.groups.iter().find(|state| state.group_pk == group).unwrap();
    assert_eq!((state.peers, state.devices), (1, 1));
    assert!(
        statistics
            .peers
            .iter()
            .any(|peer| peer.peer_id == bobs_peer && peer.bytes_in > 0 && peer.bytes_out > 0)
    );

    bob.stop().await;
    let went = next(&mut status).await;
    assert_eq!(went.r#type(), presence::Type::PeerDisconnected);
    assert_eq!(presence::reply::PeerDisconnected::decode(&*went.event).unwrap().peer_id, bobs_peer);
    let dialled = next(&mut status).await;
    assert_eq!(dialled.r#type(), presence::Type::PeerReconnecting);
    assert_eq!(presence::reply::PeerReconnecting::decode(&*dialled.event).unwrap().peer_id, bobs_peer);

    let cid = alice.send(&group, b"for later").await;
    assert!(!cid.is_empty());
    let waiting = node_api::WaitingRequest { group_pk: group };
    let waits = alice.node_client().waiting(waiting).await.unwrap().into_inner().waits;
    let unsent = waits.iter().find(|wait| wait.cause() == node_api::WaitCause::Unsent).unwrap();
    assert!(unsent.count == 1 && unsent.sentence.contains("nobody of the group is connected"), "{unsent:?}");
    alice.stop().await;
}

#[tokio::test]
async fn devices_show_what_they_can_do_and_how_much_was_seen_of_them() {
    let alice = Served::start().await;
    let group_pk = alice.group().await;
    for text in [b"one", b"two"] {
        alice.send(&group_pk, text).await;
    }
    let devices = async |group_pk| {
        let asked = node_api::GroupDevicesRequest { group_pk };
        alice.node_client().group_devices(asked).await
    };
    let shown = devices(group_pk).await.unwrap().into_inner().devices;
    let [device] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!(device.capabilities.unwrap().features, 3, "it signs where all of it belongs");
    let whole = node_api::ContextChain { first: 1, last: 2, missing: 0, breaks: 0 };
    assert_eq!(device.messages, Some(whole));
    assert!(device.events.is_some_and(|events| (events.missing, events.breaks) == (0, 0)), "{device:?}");

    assert_eq!(devices(vec![1; 31]).await.unwrap_err().code(), Code::InvalidArgument);
    let strange = dunlin_base::SecretKey::from_seed([9; 32]).public().as_bytes().to_vec();
    assert_eq!(devices(strange).await.unwrap_err().code(), Code::NotFound);
    alice.stop().await;
}

#[tokio::test]
async fn secrets_of_account_and_contact_groups_stay() {
    let s = Served::start().await;
    let account = s.configuration().await.account_group_pk;
    let info = api::group_info::Request { group_pk: account.clone(), ..Default::default() };
    let described = s.client().group_info(info).await.unwrap().into_inner().group.unwrap();
    assert_eq!((described.public_key, described.group_type), (account.clone(), 1));
    assert!(described.secret.is_empty(), "it is the seed of the proof key");
    let invitation = api::multi_member_group_invitation_create::Request { group_pk: account };
    let refused = s.client().multi_member_group_invitation_create(invitation).await.unwrap_err();
    assert_eq!(codes(&refused), [1002, 1305]);
    let group_pk = s.group().await;
    let invitation = api::multi_member_group_invitation_create::Request { group_pk };
    let group = s.client().multi_member_group_invitation_create(invitation).await.unwrap().into_inner().group;
    assert_eq!(group.unwrap().secret.len(), 32);
    s.stop().await;
}

#[tokio::test]
async fn somebody_who_is_looked_for_is_told_of_as_waiting() {
    let s = Served::start().await;
    let other = Served::start().await;
    let contact = shared(&other).await;
    let send =
        api::contact_request_send::Request { contact: Some(contact.clone()), own_metadata: Vec::new() };
    s.client().contact_request_send(send).await.unwrap();
    let waits =
        s.node_client().waiting(node_api::WaitingRequest::default()).await.unwrap().into_inner().waits;
    let [wait] = &waits[..] else { panic!("{waits:?}") };
    assert_eq!((wait.cause(), &wait.contact_pk), (node_api::WaitCause::RequestNobody, &contact.pk));
    s.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_finds_whoever_can_be_found_now() {
    let server = Served::start_as(|config| config.rendezvous_server = true).await;
    let place = server.address().await;
    let [alice, bob] =
        [&place; 2].map(|place| Served::start_as(|config| config.rendezvous = vec![place.clone()]));
    let (alice, bob, nowhere) = (alice.await, bob.await, Served::start().await);
    let contact = shared(&alice).await;
    let disable = api::contact_request_disable::Request {};
    alice.client().contact_request_disable(disable).await.unwrap();
    let refresh = |s: &Served, timeout: i64| {
        let (mut client, contact_pk) = (s.client(), contact.pk.clone());
        let request = api::refresh_contact_request::Request { contact_pk, timeout };
        soon(async move {
            client.refresh_contact_request(request).await.map(|reply| reply.into_inner().peers_found)
        })
    };

    let refused = refresh(&bob, 1).await.unwrap_err();
    assert_eq!((refused.code(), codes(&refused)), (Code::Unknown, vec![]), "nobody is looked for");
    let send =
        api::contact_request_send::Request { contact: Some(contact.clone()), own_metadata: Vec::new() };
    for s in [&bob, &nowhere] {
        s.client().contact_request_send(send.clone()).await.unwrap();
    }
    assert_eq!(refresh(&nowhere, 600).await.unwrap(), [], "there is no place to look");
    assert_eq!(refresh(&bob, 1).await.unwrap(), [], "she does not let herself be found");
    assert_eq!(codes(&refresh(&bob, -1).await.unwrap_err()), [100]);

    // Of two for the same contact, the later takes over.
    let mut both = JoinSet::new();
    both.spawn(refresh(&bob, 600));
    both.spawn(refresh(&bob, 600));
    let superseded = soon(both.join_next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!((superseded.code(), codes(&superseded)), (Code::Unknown, vec![]));
    alice.client().contact_request_enable(api::contact_request_enable::Request {}).await.unwrap();
    let found = both.join_next().await.unwrap().unwrap().unwrap();
    let [peer] = &found[..] else { panic!("{found:?}") };
    assert_eq!(peer.id, alice.configuration().await.peer_id);
    assert!(!peer.addrs.is_empty());
    for s in [alice, bob, nowhere, server] {
        s.stop().await;
    }
}

/// What happens in the account group from its beginning on.
async fn account_events(s: &Served) -> Events {
    let group_pk = s.configuration().await.account_group_pk;
    let request = api::group_metadata_list::Request { group_pk, ..Default::default() };
    s.client().group_metadata_list(request).await.unwrap().into_inner()
}

async fn until_event(events: &mut Events, wanted: api::EventType) -> api::GroupMetadataEvent {
    loop {
        let event = next(events).await;
        if event.metadata.as_ref().unwrap().event_type() == wanted {
            return event;
        }
    }
}

/// The contact that somebody gives away.
async fn shared(s: &Served) -> api::ShareableContact {
    let encoded =
        s.client().share_contact(api::share_contact::Request {}).await.unwrap().into_inner().encoded_contact;
    let request = api::decode_contact::Request { encoded_contact: encoded };
    s.client().decode_contact(request).await.unwrap().into_inner().contact.unwrap()
}

/// `from` asks `to`, and both are connected.
async fn ask(from: &Served, to: &Served, own_metadata: &[u8]) -> api::ShareableContact {
    let contact = shared(to).await;
    let send = api::contact_request_send::Request {
        contact: Some(contact.clone()),
        own_metadata: own_metadata.to_vec(),
    };
    from.client().contact_request_send(send).await.unwrap();
    connect(from, to).await;
    contact
}

/// Connects, and gives the address of the other side.
async fn connect(from: &Served, to: &Served) -> String {
    let configuration = to.configuration().await;
    let address = format!("{}/p2p/{}", configuration.listeners[0], configuration.peer_id);
    let peer = from.node_client().connect(node_api::ConnectRequest { address }).await.unwrap().into_inner();
    peer.connections[0].address.clone()
}

/// Joins and activates the group of an invitation; gives the own device.
async fn join(s: &Served, inviter: &Served, group: &[u8]) -> Vec<u8> {
    let invitation = api::multi_member_group_invitation_create::Request { group_pk: group.to_vec() };
    let invitation =
        inviter.client().multi_member_group_invitation_create(invitation).await.unwrap().into_inner();
    let request = api::multi_member_group_join::Request { group: invitation.group };
    s.client().multi_member_group_join(request).await.unwrap();
    let activate = api::activate_group::Request { group_pk: group.to_vec(), ..Default::default() };
    s.client().activate_group(activate).await.unwrap();
    let info = api::group_info::Request { group_pk: group.to_vec(), ..Default::default() };
    s.client().group_info(info).await.unwrap().into_inner().device_pk
}
