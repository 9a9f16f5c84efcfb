//! A message is kept from the moment at which its sending was answered, whatever the disk does.
//!
//! Ann and Bob are contacts, each with the encrypted store of a real node on a simulated disk. One step runs
//! again and again, with the disk of one of them failing at its first call, then at its second, and so on until
//! a run meets no failure. After each run the node comes back on what is left, and everything has to be as a
//! person expects: what was answered "kept" is there once, what was answered by an error is there as a whole or
//! not at all, and all of it arrives, in order, and is shown once.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use dunlin_base::kv::{CommitError, Direction, Store, Table};
use dunlin_base::{DeviceId, EntryId, GroupId};
use dunlin_messenger::Notice;
use dunlin_messenger::views::MessageState;
use dunlin_store::RedbStore;
use dunlin_store::faults::{Call, Faults, SimDisk};

use crate::support::{ANN, BOB, World};

/// What the disk does, and what is left of it.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// The process is killed: what it wrote is there, synced or not.
    Kill,
    /// The machine loses power: of what was not synced some sectors are there, and some as they were before.
    PowerLoss { seed: u64 },
    /// One call fails, and the process goes on.
    Error,
    /// One call of a kind fails, and the process goes on.
    ErrorOf(Call),
    /// The disk is full for one call, and the process goes on.
    Full,
    /// The disk is full until somebody makes room.
    FullForLong,
}

const FAILURES: [Failure; 9] = [
    Failure::Kill,
    Failure::PowerLoss { seed: 1 },
    Failure::PowerLoss { seed: 2 },
    Failure::Error,
    Failure::ErrorOf(Call::Read),
    Failure::ErrorOf(Call::Sync),
    Failure::ErrorOf(Call::Write),
    Failure::Full,
    Failure::FullForLong,
];

impl Failure {
    fn at(self, n: u64) -> Faults {
        match self {
            Self::Kill | Self::PowerLoss { .. } => Faults::error_at(n).lasting(),
            Self::Error => Faults::error_at(n),
            Self::ErrorOf(call) => Faults::error_at(n).only(call),
            Self::Full => Faults::full_at(n),
            Self::FullForLong => Faults::full_at(n).lasting(),
        }
    }
}

#[test]
fn a_message_whose_sending_was_answered_is_kept_and_arrives_once_at_every_call_of_the_disk() {
    let connected = |run: &mut Run| run.world.connect(ANN, BOB);
    let calls = at_every_call(ANN, &connected, &|run, case| {
        let group = run.group;
        let before = run.own_before;
        let sent = run.world.try_act(ANN, |ctx, engine, app| app.send(ctx, engine, &group, "two"));
        let answered = matches!(sent, Ok(Ok(_)));
        if !answered {
            assert_eq!(run.world.texts(BOB, "ann"), ["one"], "{case}: it left before it was kept");
        }

        // A disk that stays full can keep the store from opening again, and so from being read.
        let known = run.world.view(ANN, |read, _, _| read.get(Table(0), b"").is_ok());
        run.come_back(ANN, case);

        let there = run.world.texts(ANN, "bob").len() - 1;
        assert!(there <= 1 && (!answered || there == 1), "{case}: {there} are there after {sent:?}");
        if known && matches!(sent, Err(CommitError::Full)) {
            assert_eq!(there, 0, "{case}: it was answered that nothing is stored");
        }
        run.is_whole(ANN);
        assert_eq!(run.own_counters(ANN).len(), before + there, "{case}");
        let mut expected = vec!["one"];
        expected.extend(vec!["two"; there]);
        // A person who was told that it failed writes it again, and goes on.
        if !answered {
            run.world.send(ANN, "bob", "two").unwrap();
            expected.push("two");
        }
        run.world.send(ANN, "bob", "three").unwrap();
        expected.push("three");
        run.world.connect(ANN, BOB);
        run.arrives(&expected, case);
    });
    assert!(calls > 5, "the step makes {calls} calls");
}

#[test]
fn messages_and_their_confirmations_come_in_once_at_every_call_of_the_receivers_disk() {
    let calls = at_every_call(BOB, &three_are_written, &three_messages_come_in);
    assert!(calls > 5, "the step makes {calls} calls");
}

#[test]
fn messages_and_their_confirmations_come_in_once_at_every_call_of_the_senders_disk() {
    let calls = at_every_call(ANN, &three_are_written, &three_messages_come_in);
    assert!(calls > 5, "the step makes {calls} calls");
}

fn three_are_written(run: &mut Run) {
    for text in ["two", "three", "four"] {
        run.world.send(ANN, "bob", text).unwrap();
    }
}

fn three_messages_come_in(run: &mut Run, case: &Case) {
    run.world.connect(ANN, BOB);
    run.world.wait_a_minute();
    run.come_back(case.index, case);
    run.is_whole(case.index);
    run.world.connect(ANN, BOB);
    run.arrives(&["one", "two", "three", "four"], case);
}

/// Runs a step for each of its calls of the disk of `index` and each failure; returns how many calls there are.
fn at_every_call(index: usize, prepare: &dyn Fn(&mut Run), step: &dyn Fn(&mut Run, &Case)) -> u64 {
    let made = Made::new();
    let run = |case: &Case| {
        let mut run = Run::of(&made);
        prepare(&mut run);
        run.own_before = run.own_counters(index).len();
        run.disks[index].plan(case.failure.at(case.n));
        run.calls = run.disks[index].calls();
        step(&mut run, case);
        run
    };
    let calls = run(&Case { index, failure: Failure::Error, n: u64::MAX }).calls;
    for failure in FAILURES {
        let mut met = 0;
        for n in 1..=calls {
            let run = run(&Case { index, failure, n });
            // A failure that was met and got over takes more calls. Of calls of one kind there are fewer.
            let is_met = run.went_down || run.calls != calls;
            met += u64::from(is_met);
            if matches!(failure, Failure::ErrorOf(_)) && !is_met {
                break;
            }
        }
        // What so small a store reads is in memory, so a step need not read the disk.
        let may_be_absent = matches!(failure, Failure::ErrorOf(Call::Read));
        assert!(met > 0 || may_be_absent, "{failure:?} was never met");
    }
    calls
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug)]
struct Case {
    index: usize,
    failure: Failure,
    n: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at call {} of {}", self.failure, self.n, ["Ann", "Bob"][self.index])
    }
}

/// Two contacts who have exchanged one message, as their disks are afterwards.
struct Made {
    disks: [SimDisk; 2],
}

impl Made {
    fn new() -> Self {
        let disks = [SimDisk::new(1), SimDisk::new(2)];
        let mut world = World::on(disks.iter().map(opened).collect(), 1);
        for (index, name) in [(ANN, "Ann"), (BOB, "Bob")] {
            world.act(index, |ctx, engine, app| app.set_name(ctx, engine, name)).unwrap();
        }
        world.connect(ANN, BOB);
        world.befriend(ANN, BOB);
        world.send(ANN, "bob", "one").unwrap();
        world.wait_a_minute();
        drop(world);
        Self { disks }
    }
}

/// One run, on copies of the disks.
struct Run {
    world: World,
    disks: [SimDisk; 2],
    group: GroupId,
    /// What each counter of each device was used for, as far as anybody has seen it.
    used: BTreeMap<(DeviceId, u64), EntryId>,
    added: BTreeMap<EntryId, u32>,
    /// How many own messages there were before the step, since looking needs a disk that works.
    own_before: usize,
    /// Calls of the failing disk during the step.
    calls: u64,
    went_down: bool,
}

impl Run {
    fn of(made: &Made) -> Self {
        let disks = made.disks.each_ref().map(SimDisk::copy);
        let mut world = World::on(disks.iter().map(opened).collect(), 2);
        world.disks_may_fail = true;
        let group = world.conversation(ANN, "bob").group;
        Self {
            world,
            disks,
            group,
            used: BTreeMap::new(),
            added: BTreeMap::new(),
            own_before: 0,
            calls: 0,
            went_down: false,
        }
    }

    /// Lets the node come back on what is left, connected to nobody.
    fn come_back(&mut self, index: usize, case: &Case) {
        self.calls = self.disks[index].calls() - self.calls;
        self.went_down = self.world.is_down(index);
        // Nothing more happens to the node in a run without a failure, nor to the disk.
        let left = match case.failure {
            Failure::Kill => Some(self.disks[index].copy()),
            Failure::PowerLoss { seed } => Some(self.disks[index].crash(case.n.wrapping_mul(7) ^ seed)),
            Failure::Error | Failure::ErrorOf(_) | Failure::Full | Failure::FullForLong => None,
        };
        left.as_ref().unwrap_or(&self.disks[index]).plan(Faults::none());
        if !self.went_down {
            self.world.disconnect(ANN, BOB);
        }
        self.note_added(index);
        match left {
            Some(left) => {
                self.world.come_back_on(index, opened(&left));
                self.disks[index] = left;
            }
            None => self.world.come_back(index),
        }
    }

    /// Everything that Ann wrote arrives, in order and once, and nothing was lost or said twice on the way.
    fn arrives(&mut self, expected: &[&str], case: &Case) {
        self.world.wait_a_minute();
        for (index, contact) in [(ANN, "bob"), (BOB, "ann")] {
            assert!(!self.world.is_down(index), "{case}");
            assert_eq!(self.world.texts(index, contact), expected, "{case}: {index}");
            self.is_whole(index);
            self.note_added(index);
        }
        for message in self.world.messages(ANN, &self.group) {
            assert_eq!(message.delivery.unwrap().state(), MessageState::Received, "{case}");
        }
        let unread = self.world.conversation(BOB, "ann").unread as usize;
        assert_eq!(unread, expected.len(), "{case}");
        // Each of the texts has one confirmation.
        let entries = 2 * expected.len();
        assert_eq!(self.world.log_len(ANN, &self.group).0, entries, "{case}");
        assert_eq!(self.world.log_len(BOB, &self.group).0, entries, "{case}");
        assert!(self.added.values().all(|times| *times == 1), "{case}: {:?}", self.added);
    }

    /// What is there of a message is all there, and no counter was used for anything else.
    fn is_whole(&mut self, index: usize) {
        for (key, (entry, _)) in self.counters(index) {
            let first = *self.used.entry(key).or_insert(entry);
            assert_eq!(first, entry, "counter {} is used twice", key.1);
        }
        let own = self.own_counters(index);
        assert!(own.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "a counter is left out: {own:?}");
        let group = self.group;
        for (_, entry) in own {
            let delivery = self.world.view(index, |read, engine, _| engine.delivery(read, &group, &entry));
            assert!(delivery.unwrap().is_some(), "{entry} is not followed");
        }
        // The rows of the messenger say the same as the log below.
        for message in self.world.messages(index, &self.group) {
            let entry = message.entry();
            let below = self.world.view(index, |read, engine, _| engine.message(read, &group, &entry));
            assert!(below.unwrap().is_some(), "{entry} is shown and not in the log");
        }
    }

    fn own_counters(&self, index: usize) -> Vec<(u64, EntryId)> {
        let own = self.counters(index).into_iter().filter(|(_, (_, own))| *own);
        own.map(|((_, counter), (entry, _))| (counter, entry)).collect()
    }

    /// All messages, confirmations included, by device and counter, and whether they are own ones.
    fn counters(&self, index: usize) -> BTreeMap<(DeviceId, u64), (EntryId, bool)> {
        let mut counters = BTreeMap::new();
        self.world.view(index, |read, engine, _| {
            let visited = engine.visit_messages(
                read,
                &self.group,
                Bound::Unbounded,
                Direction::Ascending,
                &mut |message| {
                    let before =
                        counters.insert((message.device, message.counter), (message.entry, message.own));
                    assert!(before.is_none(), "counter {} is used twice", message.counter);
                    ControlFlow::Continue(())
                },
            );
            visited.unwrap();
        });
        counters
    }

    fn note_added(&mut self, index: usize) {
        for notice in self.world.take_notices(index) {
            if let Notice::MessageAdded { entry, .. } = notice
                && index == BOB
            {
                *self.added.entry(entry).or_default() += 1;
            }
        }
    }
}

fn opened(disk: &SimDisk) -> Arc<dyn Store> {
    let store: RedbStore = disk.open_store().unwrap();
    Arc::new(store)
}
