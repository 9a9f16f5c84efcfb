//! A network in memory: each node is the real engine with the real messenger on it; what one asks of its
//! shell reaches the others at once. Loss and delay are the simulator's business; a disk may fail and a clock
//! may be wrong here too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use dunlin_base::kv::{
    CommitError, Direction, Durability, KeyRange, MemoryStore, Read, ReadError, Store, Table, Tx,
};
use dunlin_base::{AccountId, EntryId, GroupId, PeerId, Span, Time};
use dunlin_messenger::clock::Zone;
use dunlin_messenger::links::Link;
use dunlin_messenger::views::{Conversation, Message, MessageContent};
use dunlin_messenger::{Messenger, MessengerError, Notice, Page};
use dunlin_wesh::archive::Import;
use dunlin_wesh::catch_up::{self, Piece, Request};
use dunlin_wesh::engine::{Action, App, Ctx, Engine, ExchangeId, Origin, StoreKind};
use dunlin_wesh::profile::Profile;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

pub const ANN: usize = 0;
pub const BOB: usize = 1;
pub const CAROL: usize = 2;

/// Two contacts, connected.
pub fn ann_and_bob() -> World {
    let mut world = World::new(&["Ann", "Bob"]);
    world.connect(ANN, BOB);
    world.befriend(ANN, BOB);
    world
}

/// Actions after which a test is thought to run in circles.
const ACTIONS_MAX: usize = 200_000;

pub struct Node {
    store: Arc<dyn Store>,
    engine: Engine,
    app: Messenger,
    host: PeerId,
    topics: BTreeSet<String>,
    takes_requests: bool,
    /// What its clock adds to the time of the world, and what it takes away.
    ahead: Span,
    behind: Span,
    /// A commit failed: it takes nothing in until it is opened again.
    down: bool,
    pub notices: Vec<Notice>,
}

pub struct World {
    nodes: Vec<Node>,
    links: BTreeSet<(usize, usize)>,
    exchanges: BTreeMap<(usize, ExchangeId), (usize, ExchangeId)>,
    queue: VecDeque<(usize, Action)>,
    rng: ChaCha20Rng,
    pub now: Time,
    /// Whether a commit that fails is what the test is about.
    pub disks_may_fail: bool,
    /// What went from whom to whom, where a test asks for that.
    pub wiretap: Option<Vec<(usize, usize, Vec<u8>)>>,
}

impl World {
    /// Makes nodes with the given names, connected to nobody.
    pub fn new(names: &[&str]) -> Self {
        let stores = names.iter().map(|_| Arc::new(MemoryStore::default()) as Arc<dyn Store>).collect();
        let mut world = Self::on(stores, 5);
        for (index, name) in names.iter().enumerate() {
            world.act(index, |ctx, engine, app| app.set_name(ctx, engine, name)).unwrap();
        }
        world
    }

    /// Opens a node on each of the stores.
    pub fn on(stores: Vec<Arc<dyn Store>>, seed: u64) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            links: BTreeSet::new(),
            exchanges: BTreeMap::new(),
            queue: VecDeque::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            now: Time::from_secs(1_763_985_600),
            disks_may_fail: false,
            wiretap: None,
        };
        for (index, store) in stores.into_iter().enumerate() {
            let node = world.open(index, store);
            world.nodes.push(node);
            world.collect_actions(index);
        }
        world.settle();
        world
    }

    fn open(&mut self, index: usize, store: Arc<dyn Store>) -> Node {
        let host = PeerId::from_bytes(&[b'h', index as u8]).unwrap();
        let before = self.nodes.get(index);
        let (ahead, behind) = before.map_or_else(Default::default, |node| (node.ahead, node.behind));
        let mut tx = Tx::new(&*store);
        let mut ctx = Ctx { tx: &mut tx, now: self.now + ahead - behind, rng: &mut self.rng };
        let mut engine = Engine::open(&mut ctx, Profile::Berty, host.clone()).unwrap();
        let mut app = Messenger::new();
        app.start(&mut ctx, &mut engine).unwrap();
        while let Some(event) = engine.poll_event() {
            app.handle_event(&mut ctx, &mut engine, &event).unwrap();
        }
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
        let (topics, notices) = (BTreeSet::new(), Vec::new());
        let (takes_requests, down) = (false, false);
        Node { store, engine, app, host, topics, takes_requests, ahead, behind, down, notices }
    }

    /// Ends a node and opens it again from what it stored.
    pub fn restart(&mut self, index: usize) {
        let peers: Vec<_> = (0..self.nodes.len()).filter(|other| self.linked(index, *other)).collect();
        for other in &peers {
            self.disconnect(index, *other);
        }
        self.come_back(index);
        for other in peers {
            self.connect(index, other);
        }
    }

    /// Opens a node again from its store, connected to nobody.
    pub fn come_back(&mut self, index: usize) {
        self.come_back_on(index, self.nodes[index].store.clone());
    }

    /// Opens a node again from what is left of its store.
    pub fn come_back_on(&mut self, index: usize, store: Arc<dyn Store>) {
        assert!((0..self.nodes.len()).all(|other| !self.linked(index, other)), "it is connected");
        self.nodes[index] = self.open(index, store);
        self.collect_actions(index);
        self.settle();
    }

    /// Whether a node takes anything in: it does not after a commit that failed.
    pub fn is_down(&self, index: usize) -> bool {
        self.nodes[index].down
    }

    /// Sets the clock of a node. A real shell waits by a clock that is never set, so it wakes up in any case.
    pub fn set_clock(&mut self, index: usize, ahead: Span, behind: Span) {
        (self.nodes[index].ahead, self.nodes[index].behind) = (ahead, behind);
        self.input(index, |ctx, engine| engine.handle_timeout(ctx));
        self.settle();
    }

    fn clock(&self, index: usize) -> Time {
        self.now + self.nodes[index].ahead - self.nodes[index].behind
    }

    fn linked(&self, one: usize, other: usize) -> bool {
        self.links.contains(&(one.min(other), one.max(other)))
    }

    pub fn connect(&mut self, one: usize, other: usize) {
        self.settle();
        if self.is_down(one) || self.is_down(other) {
            return;
        }
        self.links.insert((one.min(other), one.max(other)));
        for (node, peer) in [(one, other), (other, one)] {
            let host = self.nodes[peer].host.clone();
            let takes = self.nodes[peer].takes_requests;
            self.input(node, |ctx, engine| {
                engine.handle_connected(ctx, &host, true)?;
                engine.handle_takes_requests(ctx, &host, takes)
            });
            for topic in self.nodes[peer].topics.clone() {
                if self.nodes[node].topics.contains(&topic) {
                    self.input(node, |ctx, engine| engine.handle_topic_joined(ctx, &host, &topic));
                }
            }
        }
        self.settle();
    }

    pub fn disconnect(&mut self, one: usize, other: usize) {
        self.links.remove(&(one.min(other), one.max(other)));
        for (node, peer) in [(one, other), (other, one)] {
            let host = self.nodes[peer].host.clone();
            self.input(node, |ctx, engine| engine.handle_disconnected(ctx, &host));
        }
        self.settle();
    }

    /// Lets a minute pass, in steps of a second.
    pub fn wait_a_minute(&mut self) {
        for _ in 0..60 {
            self.now = self.now + Span::from_secs(1);
            for index in 0..self.nodes.len() {
                if self.nodes[index].engine.timeout().is_some_and(|due| due <= self.clock(index)) {
                    self.input(index, |ctx, engine| engine.handle_timeout(ctx));
                }
                if self.nodes[index].app.timeout().is_some_and(|due| due <= self.clock(index)) {
                    // A node that goes down is what the caller sees.
                    let _ = self.step(index, |ctx, engine, app| {
                        app.handle_timeout(ctx, engine).map(Ok::<(), Infallible>)
                    });
                }
            }
            self.settle();
        }
    }

    /// Takes the account of a node over into a new one, as its archive has it, connected to nobody.
    pub fn add_device(&mut self, of: usize) -> usize {
        let node = &self.nodes[of];
        let mut export = node.engine.dangerous_export(&*node.store).unwrap();
        let store = MemoryStore::default();
        let mut tx = Tx::new(&store);
        let mut import = Import::begin(&mut tx, Profile::Berty).unwrap();
        while let Some(part) = export.next_part(&node.engine, &*node.store).unwrap() {
            import.feed(&mut tx, part.as_bytes()).unwrap();
        }
        import.finish(&mut tx, &mut self.rng).unwrap();
        store.commit(tx.into_batch(), Durability::Synced).unwrap();
        let index = self.nodes.len();
        let node = self.open(index, Arc::new(store));
        self.nodes.push(node);
        self.collect_actions(index);
        self.settle();
        self.wait_a_minute();
        index
    }

    /// Runs a command of the messenger, and lets its effects spread.
    pub fn act<R>(
        &mut self,
        index: usize,
        command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut Messenger) -> Result<R, MessengerError>,
    ) -> Result<R, MessengerError> {
        self.try_act(index, command).unwrap()
    }

    /// The same on a disk that may fail: then nothing leaves the node, which is down.
    pub fn try_act<R>(
        &mut self,
        index: usize,
        command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut Messenger) -> Result<R, MessengerError>,
    ) -> Result<Result<R, MessengerError>, CommitError> {
        let result = self.step(index, |ctx, engine, app| Ok(command(ctx, engine, app)));
        self.settle();
        result
    }

    /// Hands `data` to a node as heads that its neighbour `from` sent.
    pub fn hand_heads(&mut self, index: usize, from: usize, data: &[u8]) {
        let host = self.nodes[from].host.clone();
        self.input(index, |ctx, engine| engine.handle_heads(ctx, &host, data));
        self.settle();
    }

    /// Tells a node so often that nobody has `entry` that it goes on without.
    pub fn give_up(&mut self, index: usize, entry: &EntryId) {
        for _ in 0..4 {
            self.input(index, |ctx, engine| engine.handle_block_missing(ctx, entry));
        }
        self.settle();
    }

    /// Whether a command of the engine is refused, and changes nothing by that.
    pub fn is_refused<R, E>(
        &mut self,
        index: usize,
        command: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut Messenger) -> Result<R, E>,
    ) -> bool {
        let refused = self.step(index, |ctx, engine, app| {
            let refused = command(ctx, engine, app).is_err() && ctx.tx.is_unchanged();
            Ok(Ok::<_, Infallible>(refused))
        });
        matches!(refused, Ok(Ok(true)))
    }

    fn input(
        &mut self,
        index: usize,
        input: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine) -> Result<(), ReadError>,
    ) {
        // A node that goes down is what the caller sees.
        let _ = self.step(index, |ctx, engine, _| input(ctx, engine).map(Ok::<(), Infallible>));
    }

    /// One input and its commit, as the shell of a real node does it. The outer result says whether it is
    /// stored, the inner one what was answered.
    fn step<R, E>(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Ctx<'_, '_>, &mut Engine, &mut Messenger) -> Result<Result<R, E>, ReadError>,
    ) -> Result<Result<R, E>, CommitError> {
        let now = self.clock(index);
        let node = &mut self.nodes[index];
        if node.down {
            return Err(CommitError::Io("the node is down".into()));
        }
        let store = node.store.clone();
        let mut tx = Tx::new(&*store);
        let mut ctx = Ctx { tx: &mut tx, now, rng: &mut self.rng };
        let mut changed = change(&mut ctx, &mut node.engine, &mut node.app);
        if matches!(changed, Ok(Err(_))) && !ctx.tx.is_unchanged() {
            changed = Err(ReadError("a call was refused half way".into()));
        }
        while changed.is_ok()
            && let Some(event) = node.engine.poll_event()
        {
            if let Err(error) = node.app.handle_event(&mut ctx, &mut node.engine, &event) {
                changed = Err(error);
            }
        }
        let committed = match changed {
            Err(error) => Err(CommitError::Io(Box::new(error))),
            Ok(result) if tx.is_unchanged() => Ok(result),
            Ok(result) => store.commit(tx.into_batch(), Durability::Synced).map(|()| result),
        };
        if let Err(error) = &committed {
            assert!(self.disks_may_fail, "{error}");
            self.go_down(index);
            return committed;
        }
        while let Some(notice) = node.app.poll_notice() {
            node.notices.push(notice);
        }
        self.collect_actions(index);
        committed
    }

    /// What the engine asked for is forgotten with it, and the others see that it is gone.
    fn go_down(&mut self, index: usize) {
        self.nodes[index].down = true;
        self.queue.retain(|(node, _)| *node != index);
        let own = self.nodes[index].host.clone();
        for other in 0..self.nodes.len() {
            if self.links.remove(&(index.min(other), index.max(other))) {
                self.input(other, |ctx, engine| engine.handle_disconnected(ctx, &own));
            }
        }
    }

    fn collect_actions(&mut self, index: usize) {
        while let Some(action) = self.nodes[index].engine.poll_action() {
            self.queue.push_back((index, action));
        }
    }

    /// Carries out everything that the engines ask for, until nothing is asked.
    fn settle(&mut self) {
        for _ in 0..ACTIONS_MAX {
            let Some((index, action)) = self.queue.pop_front() else { return };
            self.perform(index, action);
        }
        panic!("the network does not come to rest");
    }

    /// Notes what goes over.
    fn overhear(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if let Some(heard) = &mut self.wiretap {
            heard.push((from, to, bytes.to_vec()));
        }
    }

    fn perform(&mut self, index: usize, action: Action) {
        let own = self.nodes[index].host.clone();
        match action {
            Action::Subscribe { topic } => {
                self.nodes[index].topics.insert(topic.clone());
                let everybody: Vec<_> =
                    (0..self.nodes.len()).filter(|other| self.linked(index, *other)).collect();
                everybody.iter().for_each(|other| self.overhear(index, *other, topic.as_bytes()));
                for other in self.neighbours_on(index, &topic) {
                    let host = self.nodes[other].host.clone();
                    self.input(other, |ctx, engine| engine.handle_topic_joined(ctx, &own, &topic));
                    self.input(index, |ctx, engine| engine.handle_topic_joined(ctx, &host, &topic));
                }
            }
            Action::Unsubscribe { topic } => {
                for other in self.neighbours_on(index, &topic) {
                    self.nodes[other].engine.handle_topic_left(&own, &topic);
                }
                self.nodes[index].topics.remove(&topic);
            }
            Action::Publish { topic, data } => {
                // Whoever is on the topic hands it on.
                let (mut reached, mut next) = (BTreeSet::from([index]), VecDeque::from([index]));
                while let Some(through) = next.pop_front() {
                    for other in self.neighbours_on(through, &topic) {
                        if reached.insert(other) {
                            self.overhear(index, other, &data);
                            self.input(other, |ctx, engine| {
                                engine.handle_gossip(ctx, &topic, &own, &data).map(drop)
                            });
                            next.push_back(other);
                        }
                    }
                }
            }
            Action::SendHeads { id, peer, data } => match self.neighbour(index, &peer) {
                Some(other) => {
                    self.overhear(index, other, &data);
                    self.input(other, |ctx, engine| engine.handle_heads(ctx, &own, &data));
                    self.input(index, |ctx, engine| engine.handle_heads_sent(ctx, &peer, id));
                }
                None => self.nodes[index].engine.handle_heads_unsent(id),
            },
            Action::SendRecords { peer, data } => {
                if let Some(other) = self.neighbour(index, &peer) {
                    self.overhear(index, other, &data);
                    self.input(other, |ctx, engine| engine.handle_records(ctx, &own, &data));
                }
            }
            Action::Fetch { entry, peers } => {
                let block = peers.iter().filter_map(|peer| self.neighbour(index, peer)).find_map(|other| {
                    let node = &self.nodes[other];
                    // A disk that cannot be read has no blocks to give.
                    Some((other, node.engine.block_for(&*node.store, &own, &entry).unwrap_or_default()?))
                });
                if let Some((other, block)) = &block {
                    self.overhear(*other, index, block);
                }
                let block = block.map(|(other, block)| (self.nodes[other].host.clone(), block));
                self.input(index, |ctx, engine| match &block {
                    Some((server, block)) => engine.handle_block(ctx, server, &entry, block),
                    None => engine.handle_block_missing(ctx, &entry),
                });
            }
            Action::CancelFetch { .. } | Action::StopCatchUp { .. } => {}
            Action::CatchUp { group, kind, peer, request } => {
                self.catch_up(index, group, kind, &peer, &request);
            }
            Action::AcceptExchanges(takes) => {
                self.nodes[index].takes_requests = takes;
                for other in
                    (0..self.nodes.len()).filter(|other| self.linked(index, *other)).collect::<Vec<_>>()
                {
                    self.input(other, |ctx, engine| engine.handle_takes_requests(ctx, &own, takes));
                }
            }
            Action::OpenExchange { id, peer } => self.open_exchange(index, id, &peer),
            Action::SendFrame { id, frame } => {
                if let Some((other, theirs)) = self.exchanges.get(&(index, id)).copied() {
                    self.overhear(index, other, &frame);
                    self.input(other, |ctx, engine| engine.handle_exchange_frame(ctx, theirs, &frame));
                }
            }
            Action::CloseExchange { id } => {
                if let Some((other, theirs)) = self.exchanges.remove(&(index, id)) {
                    self.input(other, |ctx, engine| engine.handle_exchange_closed(ctx, theirs));
                }
            }
        }
    }

    /// Gives all that a log has beyond what a device knows, as a host does.
    fn catch_up(&mut self, index: usize, group: GroupId, kind: StoreKind, peer: &PeerId, request: &Request) {
        let own = self.nodes[index].host.clone();
        let mut frames = Vec::new();
        if let Some(other) = self.neighbour(index, peer)
            && self.nodes[other].engine.may_have_log(&own, request.log)
        {
            // A disk that cannot be read has no blocks to give.
            let pieces = Piece::all(&*self.nodes[other].store, request).collect::<Result<Vec<_>, _>>();
            frames.extend(pieces.into_iter().flatten().map(|piece| piece.frame.into_bytes()));
            for frame in &frames {
                self.overhear(other, index, frame);
            }
        }
        let Some(checker) = self.nodes[index].engine.checker_for_stream(&group, kind) else { return };
        let blocks = frames.iter().flat_map(|frame| catch_up::blocks(frame));
        let entries: Vec<_> = blocks.filter_map(|block| checker.check(block).ok()).collect();
        self.input(index, |ctx, engine| engine.handle_streamed(ctx, &group, kind, peer, entries.clone()));
        self.input(index, |ctx, engine| engine.handle_stream_ended(ctx, &group, kind, peer, true));
    }

    fn open_exchange(&mut self, index: usize, id: ExchangeId, peer: &PeerId) {
        let own = self.nodes[index].host.clone();
        let accepting = self.neighbour(index, peer).filter(|other| self.nodes[*other].takes_requests);
        let opened = accepting.and_then(|other| {
            let theirs = self.step(other, |ctx, engine, _| {
                Ok(Ok::<_, Infallible>(engine.handle_exchange_incoming(ctx, &own, Origin::ThisMachine)))
            });
            Some((other, theirs.ok()?.ok()??))
        });
        match opened {
            Some((other, theirs)) => {
                self.exchanges.insert((index, id), (other, theirs));
                self.exchanges.insert((other, theirs), (index, id));
                self.input(index, |ctx, engine| engine.handle_exchange_opened(ctx, id));
            }
            None => self.input(index, |ctx, engine| engine.handle_exchange_closed(ctx, id)),
        }
    }

    fn neighbours_on(&self, index: usize, topic: &str) -> Vec<usize> {
        let on_topic =
            |other: &usize| self.linked(index, *other) && self.nodes[*other].topics.contains(topic);
        (0..self.nodes.len()).filter(on_topic).collect()
    }

    fn neighbour(&self, index: usize, peer: &PeerId) -> Option<usize> {
        (0..self.nodes.len()).find(|other| self.linked(index, *other) && self.nodes[*other].host == *peer)
    }
}

/// What tests look at.
impl World {
    pub fn view<R>(&self, index: usize, look: impl FnOnce(&dyn Read, &Engine, &Messenger) -> R) -> R {
        let node = &self.nodes[index];
        look(&*node.store, &node.engine, &node.app)
    }

    /// What the others call a node.
    pub fn host(&self, index: usize) -> PeerId {
        self.nodes[index].host.clone()
    }

    pub fn account(&self, index: usize) -> AccountId {
        self.nodes[index].engine.account_id()
    }

    pub fn own_link(&self, index: usize) -> Link {
        self.view(index, |read, engine, app| app.own_link(read, engine).unwrap().unwrap())
    }

    pub fn add(&mut self, index: usize, link: &Link) -> Result<(), MessengerError> {
        let Link::Contact(link) = link.clone() else { panic!("a contact link") };
        self.act(index, |ctx, engine, app| app.add_contact(ctx, engine, &link))
    }

    /// Makes two connected nodes contacts.
    pub fn befriend(&mut self, one: usize, other: usize) {
        let link = self.own_link(other);
        self.add(one, &link).unwrap();
        self.wait_a_minute();
        let account = self.account(one);
        self.act(other, |ctx, engine, app| app.accept(ctx, engine, &account)).unwrap();
        self.wait_a_minute();
    }

    pub fn conversation(&self, index: usize, reference: &str) -> Conversation {
        self.view(index, |read, engine, app| {
            let group = app.find_conversation(read, reference).unwrap();
            app.conversation(read, engine, &group).unwrap()
        })
    }

    pub fn send(&mut self, index: usize, reference: &str, text: &str) -> Result<EntryId, MessengerError> {
        let group = self.view(index, |read, _, app| app.find_conversation(read, reference))?;
        self.act(index, |ctx, engine, app| app.send(ctx, engine, &group, text))
    }

    pub fn messages(&self, index: usize, group: &GroupId) -> Vec<Message> {
        let page = Page { limit: 100, ..Page::default() };
        self.view(index, |read, engine, app| app.messages(read, engine, group, &page).unwrap())
    }

    pub fn texts(&self, index: usize, reference: &str) -> Vec<String> {
        let group = self.conversation(index, reference).group;
        let shown = |message: Message| match message.content {
            MessageContent::Text(text) | MessageContent::Other(text) => text,
            MessageContent::Invitation { name, .. } => format!("invitation to {name}"),
        };
        self.messages(index, &group).into_iter().map(shown).collect()
    }

    pub fn message(&self, index: usize, entry: &EntryId) -> Message {
        self.view(index, |read, engine, app| app.message(read, engine, entry).unwrap().unwrap())
    }

    /// Whether the bytes are anywhere in the store of a node.
    pub fn holds(&self, index: usize, bytes: &[u8]) -> bool {
        let mut found = false;
        for table in 0..=u8::MAX {
            let mut visit = |key: &[u8], row: &[u8]| {
                found |= [key, row].iter().any(|part| part.windows(bytes.len()).any(|part| part == bytes));
                ControlFlow::Continue(())
            };
            let store = &self.nodes[index].store;
            store.scan(Table(table), &KeyRange::default(), Direction::Ascending, &mut visit).unwrap();
        }
        found
    }

    pub fn erase(&mut self, index: usize, entry: &EntryId) -> Result<(), MessengerError> {
        self.act(index, |ctx, engine, app| app.erase(ctx, engine, entry))
    }

    pub fn why(&self, index: usize, entry: &EntryId) -> String {
        self.view(index, |read, engine, app| app.why(read, engine, entry, self.now, Zone::default()).unwrap())
    }

    pub fn why_contact(&self, index: usize, account: &AccountId) -> String {
        self.view(index, |read, engine, app| {
            app.why_contact(read, engine, account, self.now, Zone::default()).unwrap()
        })
    }

    pub fn contact_names(&self, index: usize) -> Vec<String> {
        self.view(index, |read, engine, app| {
            let contacts = app.contacts(read, engine).unwrap();
            contacts.into_iter().map(|contact| format!("{} {:?}", contact.name, contact.state)).collect()
        })
    }

    pub fn take_notices(&mut self, index: usize) -> Vec<Notice> {
        std::mem::take(&mut self.nodes[index].notices)
    }

    /// How many messages of any kind the log of a conversation holds: what is sent for nothing shows here.
    pub fn log_len(&self, index: usize, group: &GroupId) -> (usize, usize) {
        let mut counts = (0, 0);
        self.view(index, |read, engine, _| {
            let ascending = Direction::Ascending;
            let mut messages = |_| {
                counts.0 += 1;
                ControlFlow::Continue(())
            };
            engine.visit_messages(read, group, Bound::Unbounded, ascending, &mut messages).unwrap();
            engine
                .visit_metadata(read, group, Bound::Unbounded, ascending, &mut |event| {
                    let is_app =
                        matches!(event.event.event(), dunlin_wesh::metadata::Event::AppMetadata { .. });
                    counts.1 += usize::from(is_app);
                    ControlFlow::Continue(())
                })
                .unwrap();
        });
        counts
    }
}
