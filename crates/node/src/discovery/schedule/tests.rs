use dunlin_base::SecretKey;

use super::*;
use crate::discovery::driver::{ADDRESSES_PER_PEER_MAX, PEERS_PER_ANSWER_MAX, SourceKind};

const DAY: Span = Span::from_secs(86_400);
const HOUR: Span = Span::from_secs(3600);
const NOON: Time = Time::from_secs(1_767_225_600 + 43_200);

/// Servers that do what they should.
#[derive(Default)]
struct World {
    /// By source and name, who is announced until when.
    announced: BTreeMap<(usize, String), BTreeMap<PeerId, Time>>,
    withdrawn: usize,
}

impl World {
    /// Lets a node do all that is due.
    fn serve(&mut self, now: Time, node: PeerId, schedule: &mut Schedule) {
        schedule.handle_timeout(now);
        while let Some(job) = schedule.poll_job(now) {
            let outcome = match &job {
                Job::Advertise { source, name } => {
                    let until = now + ADVERTISE_SPAN;
                    self.announced.entry((*source, name.clone())).or_default().insert(node, until);
                    Outcome::Advertised(ADVERTISE_TTL)
                }
                Job::Find { source, name, .. } => {
                    let there = self.announced.get(&(*source, name.clone()));
                    let there =
                        there.into_iter().flatten().filter(|(peer, until)| **until > now && **peer != node);
                    Outcome::Found(there.map(|(peer, _)| sighted(*peer, 1)).collect())
                }
                Job::Withdraw { source, name } => {
                    self.withdrawn += 1;
                    self.announced.entry((*source, name.clone())).or_default().remove(&node);
                    Outcome::Withdrawn
                }
            };
            schedule.conclude(now, job, outcome);
        }
    }

    fn names(&self, now: Time, node: PeerId) -> BTreeSet<String> {
        let there =
            self.announced.iter().filter(|(_, there)| there.get(&node).is_some_and(|until| *until > now));
        there.map(|((_, name), _)| name.clone()).collect()
    }
}

fn schedule(sources: usize) -> Schedule {
    let mut schedule = Schedule::new(Some(DAY));
    for _ in 0..sources {
        schedule.add_source(SourceReport::new(SourceKind::Rendezvous, String::new()), None, true);
    }
    schedule
}

fn ann() -> Findable {
    Findable { account: AccountId::new(SecretKey::from_seed([1; 32]).public()), seed: [2; 32] }
}

fn is_found_as(own: Findable) -> Search {
    Search { own: Some(own), sought: Vec::new() }
}

fn looks_for(sought: Findable) -> Search {
    Search { own: None, sought: vec![sought] }
}

fn sighted(peer: PeerId, port: u16) -> Sighted {
    let address = format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap();
    Sighted { peer, addresses: vec![address], ttl: Duration::from_secs(7200) }
}

/// Lets both work until `end`, waking each when it wants to be.
fn run(
    world: &mut World,
    begin: Time,
    end: Time,
    nodes: &mut [(PeerId, &mut Schedule)],
    mut look: impl FnMut(Time, &World, &mut [(PeerId, &mut Schedule)]),
) {
    let mut now = begin;
    while now < end {
        for (peer, schedule) in nodes.iter_mut() {
            world.serve(now, *peer, schedule);
        }
        look(now, world, nodes);
        let next = nodes.iter().filter_map(|(_, schedule)| schedule.timeout(now)).min().unwrap_or(end);
        now = next.max(now + Span::from_secs(1));
    }
}

#[test]
fn rotation_soak() {
    let (mut world, mut one, mut other) = (World::default(), schedule(1), schedule(1));
    let (host, seeker) = (PeerId::random(), PeerId::random());
    one.set_search(NOON, is_found_as(ann()));
    other.set_search(NOON, looks_for(ann()));
    let begun = NOON + HOUR;
    run(&mut world, NOON, begun, &mut [(host, &mut one), (seeker, &mut other)], |_, _, _| {});
    let (tasks_one, tasks_other) = (one.tasks.len(), other.tasks.len());

    // Ten periods, by the clock of each.
    let mut seen = BTreeSet::new();
    run(
        &mut world,
        begun,
        begun + days(10),
        &mut [(host, &mut one), (seeker, &mut other)],
        |now, world, nodes| {
            seen.extend(world.names(now, host));
            let current = rotation::contact_token(&ann().account, &ann().seed, now, Some(DAY)).namespace();
            assert!(world.names(now, host).contains(&current), "not announced at {now:?}");
            let found = nodes[1].1.candidates.topics_of(&host);
            assert!(found.contains(&Topic::Contact(ann().account)), "not found at {now:?}");
        },
    );

    assert!((11..=13).contains(&seen.len()), "{} names in ten periods", seen.len());
    assert!(
        one.tasks.len() <= tasks_one + 1 && other.tasks.len() == tasks_other,
        "tasks are at their baseline"
    );
    assert_eq!(one.withdrawals.len(), 0);
}

#[test]
fn contact_rotation() {
    let (mut world, mut node, mut seeker) = (World::default(), schedule(2), schedule(2));
    let host = PeerId::random();
    node.set_search(NOON, is_found_as(ann()));
    seeker.set_search(NOON, looks_for(ann()));
    world.serve(NOON, host, &mut node);
    let before = world.names(NOON, host);
    assert!(!before.is_empty());

    // The watch recomputes at the period, without being told.
    let looked_up = |schedule: &Schedule| -> BTreeSet<String> {
        let names = schedule.tasks.keys().filter_map(|key| match key {
            Key::Find(_, name, _) => Some(name.clone()),
            Key::Advertise(..) => None,
        });
        names.collect()
    };
    let today = looked_up(&seeker);
    let tomorrow = NOON + DAY;
    assert!(seeker.timeout(NOON).is_some_and(|due| due <= NOON + SETTLE_EVERY));
    seeker.handle_timeout(tomorrow);
    assert_eq!(today.intersection(&looked_up(&seeker)).count(), 2, "of three names, two are left");
    let current = rotation::contact_token(&ann().account, &ann().seed, tomorrow, Some(DAY)).namespace();
    assert!(looked_up(&seeker).contains(&current));

    // The announcer stops when requests are disabled, and takes back what it announced.
    node.set_search(NOON, Search::default());
    world.serve(NOON, host, &mut node);
    assert_eq!(world.names(NOON, host), BTreeSet::new());
    assert!(node.tasks.is_empty());
    assert_eq!(world.withdrawn, 2 * before.len());

    // A new seed leads elsewhere.
    node.set_search(NOON, is_found_as(Findable { seed: [3; 32], ..ann() }));
    world.serve(NOON, host, &mut node);
    assert!(world.names(NOON, host).is_disjoint(&before));
}

#[test]
fn rendezvous_lies() {
    let mut node = schedule(3);
    node.set_search(NOON, looks_for(ann()));
    let honest = PeerId::random();
    while let Some(job) = node.poll_job(NOON) {
        let outcome = match job.source() {
            // One server knows ten thousand peers with a hundred addresses each, and claims the honest one for
            // itself.
            0 => {
                let mut lies: Vec<_> = (0..10_000).map(|_| lie(PeerId::random())).collect();
                lies.insert(0, lie(honest));
                Outcome::Found(lies)
            }
            // One says there is nobody.
            1 => Outcome::Found(Vec::new()),
            _ => Outcome::Found(vec![sighted(honest, 1)]),
        };
        node.conclude(NOON, job, outcome);
    }

    assert!(node.candidates.count(0) <= PEERS_PER_ANSWER_MAX);
    let (mut dials, mut dialled) = (0, None);
    while let Some((peer, addresses)) = node.poll_dial(NOON) {
        dials += 1;
        if peer == honest {
            assert!(addresses.len() <= 2 * ADDRESSES_PER_PEER_MAX);
            let true_one = sighted(honest, 1).addresses.remove(0);
            assert!(addresses.contains(&true_one), "a lie about a peer does not hide what another says");
            dialled = Some(dials);
        }
    }
    assert!(dialled.is_some_and(|at| at <= 3), "the honest answer is tried at once: {dialled:?} of {dials}");
    assert!(dials <= 2 * super::super::candidates::DIALS_PER_SOURCE_MAX, "lies do not make a storm of dials");
    let due = node.timeout(NOON).unwrap();
    assert!(due > NOON, "what waits for others to end does not wake the node");

    // The liar's list is worked off no faster than its dials end.
    node.connected(NOON, honest);
    assert_eq!(node.reached(&ann().account).into_keys().collect::<Vec<_>>(), [honest]);
}

#[test]
fn a_source_that_fails_is_asked_again_ever_more_seldom_and_says_why() {
    let mut node = schedule(1);
    node.set_search(NOON, is_found_as(ann()));
    let (mut now, mut tried) = (NOON, 0);
    while now < NOON + HOUR {
        node.handle_timeout(now);
        while let Some(job) = node.poll_job(now) {
            tried += 1;
            node.conclude(now, job, Outcome::Failed(DriverError::NotConnected));
        }
        now = node.timeout(now).unwrap().max(now + Span::from_secs(1));
    }
    // Two names, every thirty seconds.
    assert!((200..=260).contains(&tried), "{tried}");
    let report = node.reports().remove(0);
    assert_eq!((report.announced, report.error.unwrap().0.as_str()), (0, "not connected"));
}

#[test]
fn what_failed_at_a_server_is_due_once_it_is_connected() {
    let server = PeerId::random();
    let mut node = Schedule::new(Some(DAY));
    node.add_source(SourceReport::new(SourceKind::Rendezvous, String::new()), Some(server), false);
    node.set_search(NOON, is_found_as(ann()));
    let mut attempts = 0;
    while let Some(job) = node.poll_job(NOON) {
        attempts += 1;
        node.conclude(NOON, job, Outcome::Failed(DriverError::NotConnected));
    }
    assert!(attempts > 0 && node.poll_job(NOON).is_none());
    node.connected(NOON, server);
    assert!(node.poll_job(NOON).is_some());
}

#[test]
fn groups_are_told_only_to_sources_that_take_them() {
    let mut node = Schedule::new(Some(DAY));
    node.add_source(SourceReport::new(SourceKind::Dht, String::new()), None, false);
    node.add_source(SourceReport::new(SourceKind::Rendezvous, String::new()), None, true);
    node.set_group(NOON, "/orbitdb/x".to_owned(), true);
    let mut sources = BTreeSet::new();
    while let Some(job) = node.poll_job(NOON) {
        sources.insert(job.source());
        if let Job::Advertise { name, .. } = &job {
            assert_eq!(name, "floodsub:/orbitdb/x");
        }
        node.conclude(NOON, job, Outcome::Failed(DriverError::NotConnected));
    }
    assert_eq!(sources, BTreeSet::from([1]));
}

#[test]
fn a_refresh_looks_at_once_and_only_for_whom_is_sought() {
    let (mut world, mut node) = (World::default(), schedule(1));
    node.set_search(NOON, looks_for(ann()));
    world.serve(NOON, PeerId::random(), &mut node);
    assert!(node.poll_job(NOON).is_none());
    assert!(node.refresh(NOON, &ann().account));
    assert!(matches!(node.poll_job(NOON), Some(Job::Find { all: true, .. })));
    let stranger = AccountId::new(SecretKey::from_seed([9; 32]).public());
    assert!(!node.refresh(NOON, &stranger));
}

#[test]
fn a_name_that_is_taken_back_is_announced_again_only_after_that() {
    let (mut world, mut node) = (World::default(), schedule(1));
    node.set_search(NOON, is_found_as(ann()));
    world.serve(NOON, PeerId::random(), &mut node);
    node.set_search(NOON, Search::default());
    let mut withdrawals = Vec::new();
    while let Some(job) = node.poll_job(NOON) {
        assert!(matches!(job, Job::Withdraw { .. }));
        withdrawals.push(job);
    }
    assert_eq!(withdrawals.len(), 2);

    node.set_search(NOON, is_found_as(ann()));
    assert_eq!(node.poll_job(NOON), None);
    assert!(node.timeout(NOON).is_some_and(|due| due > NOON));
    for job in withdrawals {
        node.conclude(NOON, job, Outcome::Withdrawn);
        assert!(matches!(node.poll_job(NOON), Some(Job::Advertise { .. })));
    }
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_up() {
    let (mut world, mut node) = (World::default(), schedule(1));
    let host = PeerId::random();
    node.set_search(NOON + days(30), is_found_as(ann()));
    world.serve(NOON + days(30), host, &mut node);
    world.serve(NOON, host, &mut node);
    let current = rotation::contact_token(&ann().account, &ann().seed, NOON, Some(DAY)).namespace();
    assert!(world.names(NOON, host).contains(&current));
}

#[test]
fn default_silence() {
    let mut node = Schedule::new(Some(DAY));
    node.set_search(NOON, Search { own: Some(ann()), sought: vec![ann()] });
    node.set_group(NOON, "/orbitdb/x".to_owned(), true);
    node.handle_timeout(NOON + DAY);
    assert_eq!(node.poll_job(NOON + DAY), None);
    assert_eq!(node.poll_dial(NOON + DAY), None);
    assert_eq!(node.timeout(NOON + DAY), None);
}

fn lie(peer: PeerId) -> Sighted {
    let addresses = (0..100).map(|port| format!("/ip4/198.51.100.1/tcp/{}", port + 1000).parse().unwrap());
    Sighted { peer, addresses: addresses.collect(), ttl: Duration::from_secs(7200) }
}

fn days(count: u64) -> Span {
    Span::from_secs(count * 86_400)
}
