//! Two nodes that know nothing but a server find each other, and a contact request goes through.
//!
//! The servers of other people run where `DUNLIN_GO_PEER` names the program built from `interop/go`; without
//! it, those tests say that they did not run.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail by panicking"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dunlin_base::kv::{MemoryStore, ReadError};
use dunlin_base::{AccountId, GroupId};
use dunlin_ipfs::Multiaddr;
use dunlin_ipfs::multiaddr::Protocol;
use dunlin_node::{NodeConfig, NodeHandle, SourceKind, SourceReport};
use dunlin_wesh::contact::Contact;
use dunlin_wesh::engine::{CommandError, Event, NoApp};
use tokio::sync::broadcast;
use tokio::time::timeout;

/// Far longer than anything takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test]
async fn two_nodes_that_know_only_our_rendezvous_server_become_contacts() {
    let server = Node::start(|config| config.rendezvous_server = true).await;
    let place = server.address().await;
    become_contacts(|config| config.rendezvous = vec![place.clone()], SourceKind::Rendezvous).await;
    server.node.shutdown().await;
}

#[tokio::test]
async fn one_server_that_is_gone_does_not_keep_another_from_being_asked() {
    let gone = Node::start(|_| {}).await;
    let nobody = gone.address().await;
    gone.node.shutdown().await;
    let server = Node::start(|config| config.rendezvous_server = true).await;
    let place = server.address().await;
    let places = vec![nobody, place];
    become_contacts(|config| config.rendezvous.clone_from(&places), SourceKind::Rendezvous).await;
    server.node.shutdown().await;
}

#[tokio::test]
async fn members_who_know_only_a_rendezvous_server_find_each_other_unless_groups_are_hidden() {
    let server = Node::start(|config| config.rendezvous_server = true).await;
    let place = server.address().await;
    let with = |hidden: bool| {
        let place = place.clone();
        move |config: &mut NodeConfig| {
            config.rendezvous = vec![place];
            config.announce_groups = !hidden;
        }
    };
    let (ann, mut ben) = (Node::start(with(false)).await, Node::start(with(false)).await);
    let hidden = Node::start(with(true)).await;
    let group = ann.node.transact(|ctx, engine, _| engine.create_group(ctx)).await.unwrap();
    let link = ann.node.view(move |read, engine, _| engine.invitation(read, &group)).await.unwrap();
    for node in [&ben.node, &hidden.node] {
        let link = link.clone();
        let joined: Result<_, dunlin_node::CallError<CommandError>> =
            node.transact(move |ctx, engine, _| engine.join_group(ctx, &link)).await;
        joined.unwrap();
    }
    for node in [&ann.node, &ben.node, &hidden.node] {
        let active: Result<_, dunlin_node::CallError<CommandError>> =
            node.transact(move |ctx, engine, _| engine.activate(ctx, &group)).await;
        active.unwrap();
    }

    ben.wait(
        "a member is in reach",
        |event| matches!(event, Event::Presence { group: there, online: true, .. } if *there == group),
    )
    .await;

    let only_server = hidden.node.network().peers();
    assert!(only_server.iter().all(|peer| peer.peer == server.node.network().peer_id()), "{only_server:?}");
    for node in [ann, ben, hidden, server] {
        node.node.shutdown().await;
    }
}

#[tokio::test]
async fn default_silence() {
    let mut node = Node::start(|_| {}).await;
    let stranger = Node::start(|config| config.rendezvous_server = true).await;
    let asked = stranger.contact().await;
    node.ask(asked).await;
    node.enable().await;
    stranger.enable().await;

    // Whatever it would do by itself, it has begun by the time that it obeys a command and answers a call.
    node.node.network().dial(stranger.address().await).await.unwrap();
    node.wait("the request is sent", |event| matches!(event, Event::RequestSent { .. })).await;

    let kinds: Vec<_> = node.node.sources().await.into_iter().map(|source| source.kind).collect();
    assert_eq!(kinds, [SourceKind::Static, SourceKind::LocalRecords]);
    assert_eq!(
        node.node.network().peers().len(),
        1,
        "it is connected with whom it was told to and nobody else"
    );
    for node in [node, stranger] {
        node.node.shutdown().await;
    }
}

#[tokio::test]
async fn two_nodes_that_know_only_bertys_rendezvous_server_become_contacts() {
    let Some(server) = Go::start(&["-rendezvous"]) else { return };
    become_contacts(|config| config.rendezvous = vec![server.address.clone()], SourceKind::Rendezvous).await;
}

#[tokio::test]
async fn two_nodes_that_know_only_a_go_dht_server_become_contacts() {
    let Some(server) = Go::start(&["-dht"]) else { return };
    become_contacts(|config| config.dht_bootstrap = vec![server.address.clone()], SourceKind::Dht).await;
}

#[tokio::test]
async fn two_nodes_that_cannot_dial_each_other_become_contacts_and_talk_through_a_go_relay() {
    let Some(server) = Go::start(&["-rendezvous", "-relay"]) else { return };
    let place = server.address.clone();
    let behind = |config: &mut NodeConfig| {
        config.rendezvous = vec![place.clone()];
        config.relays = vec![place.clone()];
        // It listens nowhere, as behind a network that lets nobody in.
        config.listen = Vec::new();
    };
    let (mut ann, mut ben) = (Node::start(behind).await, Node::start(behind).await);
    for node in [&ann, &ben] {
        node.wait_for_a_place().await;
    }
    ben.ask(ann.contact().await).await;
    ann.enable().await;
    ben.wait("the request is sent", |event| matches!(event, Event::RequestSent { .. })).await;
    ann.wait("the request is received", |event| matches!(event, Event::RequestReceived { .. })).await;
    for (node, other) in [(&ann, &ben), (&ben, &ann)] {
        let peers = node.node.network().peers();
        let there = peers.iter().find(|peer| peer.peer == other.node.network().peer_id()).unwrap();
        let is_relayed = |address: &Multiaddr| address.iter().any(|part| part == Protocol::P2pCircuit);
        assert!(there.connections.iter().all(|way| is_relayed(&way.address)), "{there:?}");
    }

    let [ann_account, ben_account] = [ann.account().await, ben.account().await];
    let accepted: Result<(), dunlin_node::CallError<CommandError>> =
        ann.node.transact(move |ctx, engine, _| engine.accept_contact(ctx, &ben_account)).await;
    accepted.unwrap();
    let group = ann.open_contact(ben_account).await;
    assert_eq!(ben.open_contact(ann_account).await, group);
    ben.wait(
        "the other is there",
        |event| matches!(event, Event::Presence { group: there, online: true, .. } if *there == group),
    )
    .await;
    ben.say_until_heard(group, &mut ann).await;
    ann.say_until_heard(group, &mut ben).await;
    for node in [ann, ben] {
        node.node.shutdown().await;
    }
}

/// Two nodes set up by `place`, one of which asks the other, both as contacts in the end.
async fn become_contacts(place: impl Fn(&mut NodeConfig), kind: SourceKind) {
    let (mut ann, mut ben) = (Node::start(&place).await, Node::start(&place).await);
    // The one who looks is there first: it has to look again.
    ben.ask(ann.contact().await).await;
    ann.enable().await;

    ben.wait("the request is sent", |event| matches!(event, Event::RequestSent { .. })).await;
    ann.wait("the request is received", |event| matches!(event, Event::RequestReceived { .. })).await;

    let of = |reports: Vec<SourceReport>| -> Vec<_> {
        reports.into_iter().filter(|report| report.kind == kind).collect()
    };
    let announced = of(ann.node.sources().await);
    assert!(announced.iter().any(|source| source.announced > 0), "{announced:?}");
    assert!(of(ben.node.sources().await).iter().any(|source| source.found_at.is_some()));
    for node in [ann, ben] {
        node.node.shutdown().await;
    }
}

struct Node {
    node: NodeHandle<NoApp>,
    events: broadcast::Receiver<Arc<Event>>,
}

impl Node {
    async fn start(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::new(Arc::new(MemoryStore::default()));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
        change(&mut config);
        let node = NodeHandle::start(config, || NoApp).await.unwrap();
        let events = node.events();
        Self { node, events }
    }

    async fn address(&self) -> Multiaddr {
        let there = async {
            loop {
                if let Some(address) = self.node.addresses().into_iter().next() {
                    return address;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, there).await.unwrap()
    }

    /// Waits until a relay has agreed to be one.
    async fn wait_for_a_place(&self) {
        let waiting = async {
            loop {
                let sources = self.node.sources().await;
                if sources.iter().any(|source| source.kind == SourceKind::Relay && source.announced > 0) {
                    return;
                }
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("no place: {:?}; {:?}", self.node.sources().await, self.node.network().peers());
        }
    }

    async fn account(&self) -> AccountId {
        self.node.view(|_, engine, _| Ok::<_, ReadError>(engine.account_id())).await.unwrap()
    }

    /// Uses the group of a contact.
    async fn open_contact(&self, account: AccountId) -> GroupId {
        let opened: Result<_, dunlin_node::CallError<CommandError>> = self
            .node
            .transact(move |ctx, engine, _| {
                let group = engine.contact_group(&account)?;
                engine.activate(ctx, &group)?;
                Ok(group)
            })
            .await;
        opened.unwrap()
    }

    /// Says a word until the other has heard it: what was said before the key was given to the other stays closed to it,
    /// and that it was given is an event of the group.
    async fn say_until_heard(&mut self, group: GroupId, other: &mut Self) {
        let hears = async {
            loop {
                match &*other.events.recv().await.unwrap() {
                    Event::Message(message) if !message.own => return,
                    _ => {}
                }
            }
        };
        let says = async {
            loop {
                self.node.send(group, b"hello".to_vec()).await.unwrap();
                let is_news = |event: &Event| matches!(event, Event::Metadata(news) if news.group == group);
                while !is_news(&self.events.recv().await.unwrap()) {}
            }
        };
        let heard = async {
            tokio::select! {
                () = hears => {}
                () = says => {}
            }
        };
        timeout(PATIENCE, heard).await.expect("nothing was heard");
    }

    /// Makes a link, and accepts no requests yet.
    async fn contact(&self) -> Contact {
        self.enable().await;
        let contact = self.node.view(|read, engine, _| engine.own_contact(read)).await.unwrap();
        let disabled: Result<_, dunlin_node::CallError<CommandError>> =
            self.node.transact(|ctx, engine, _| engine.disable_requests(ctx)).await;
        disabled.unwrap();
        contact
    }

    async fn enable(&self) {
        let enabled: Result<_, dunlin_node::CallError<CommandError>> =
            self.node.transact(|ctx, engine, _| engine.enable_requests(ctx)).await;
        enabled.unwrap();
    }

    async fn ask(&self, contact: Contact) {
        let asked: Result<_, dunlin_node::CallError<CommandError>> =
            self.node.transact(move |ctx, engine, _| engine.request_contact(ctx, &contact, b"hello")).await;
        asked.unwrap();
    }

    async fn wait(&mut self, what: &str, fits: impl Fn(&Event) -> bool) {
        let waiting = async { while !fits(&self.events.recv().await.unwrap()) {} };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("never: {what}; {:?}; {:?}", self.node.sources().await, self.node.network().peers());
        }
    }
}

/// A server from the Go modules.
struct Go {
    process: Child,
    address: Multiaddr,
}

impl Go {
    #[allow(clippy::print_stderr, reason = "a test that did not run has to say so")]
    fn start(services: &[&str]) -> Option<Self> {
        let Some(program) = std::env::var_os("DUNLIN_GO_PEER") else {
            eprintln!("SKIPPED: set DUNLIN_GO_PEER to the program built from interop/go");
            return None;
        };
        let mut process = Command::new(program)
            .args(services)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("DUNLIN_GO_PEER does not start");
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let listening = output.next().unwrap().unwrap();
        let address = listening.strip_prefix("listening ").unwrap().parse().unwrap();
        // What else it says is of no interest, but it has to be read.
        std::thread::spawn(move || output.for_each(drop));
        Some(Self { process, address })
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
