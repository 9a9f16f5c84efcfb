//! O2: any permutation, duplication, batching and restart of one set of entries gives one log.

use std::collections::BTreeMap;

use dunlin_base::EntryId;
use dunlin_log::{Entry, Verdict};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::world::{Node, body, entry, open, writer};

/// How one entry of a random log looks.
#[derive(Clone, Debug)]
struct Shape {
    parents: Vec<Index>,
    payload: u8,
    time: i64,
    is_forged: bool,
    is_delivered: bool,
}

/// One step of a delivery.
#[derive(Clone, Debug)]
enum Step {
    Take(Index),
    Join(usize),
    GiveUp,
    Restart,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        prop::collection::vec(any::<Index>(), 0..4),
        // Few payloads: copies are common.
        0..12_u8,
        prop_oneof![1..9_i64, Just(i64::MAX), Just(-1)],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.9),
    )
        .prop_map(|(parents, payload, time, is_forged, is_delivered)| Shape {
            parents,
            payload,
            time,
            is_forged,
            is_delivered,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<Index>().prop_map(Step::Take),
        3 => (1..6_usize).prop_map(Step::Join),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Restart),
    ]
}

fn grow(shapes: &[Shape]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for shape in shapes {
        let mut next = Vec::new();
        if !entries.is_empty() {
            next.extend(shape.parents.iter().map(|parent| parent.get(&entries).id()));
            next.sort();
            next.dedup();
        }
        let mut made = entry(&format!("{}", shape.payload), &next, shape.time);
        if shape.is_forged {
            let identity = writer().identity().clone();
            let key = identity.public_key.clone();
            made = Entry::assemble(made.body().clone(), key, vec![0; 64], identity);
        }
        if entries.iter().all(|entry| entry.id() != made.id()) {
            entries.push(made);
        }
    }
    entries
}

fn deliver(entries: &[Entry], delivered: &[Entry], steps: &[Step]) -> Node {
    let mut node = Node::new();
    for step in steps {
        match step {
            Step::Take(index) if !delivered.is_empty() => node.take(&[index.get(delivered).clone()]),
            Step::Take(_) => {}
            Step::Join(limit) => _ = node.commit(|log, tx| log.join_ready(tx, *limit).unwrap()),
            Step::GiveUp => node.give_up_all(),
            Step::Restart => node.log = open(),
        }
    }
    // Whatever came before: in the end all that is delivered is there, and the rest is given up.
    node.take(delivered);
    node.join(3);
    node.give_up_all();
    node.join(3);
    check_invariants(&node, entries);
    node
}

/// What must hold in any log.
fn check_invariants(node: &Node, entries: &[Entry]) {
    let by_id: BTreeMap<EntryId, &Entry> = entries.iter().map(|entry| (entry.id(), entry)).collect();
    let state = node.state(entries);
    let mut heads = Vec::new();
    for (id, (verdict, position)) in &state.verdicts {
        let parents = by_id[id].next().iter().filter_map(|parent| state.verdicts.get(parent));
        let highest = parents.map(|(_, position)| position.height).max().unwrap_or_default();
        assert_eq!(position.height, highest + 1, "{id}");
        let names = |(child, (verdict, _)): (&EntryId, &(Verdict, _))| {
            *verdict == Verdict::Accept && by_id[child].next().contains(id)
        };
        if *verdict == Verdict::Accept && !state.verdicts.iter().any(names) {
            heads.push(*position);
        }
    }
    heads.sort();
    assert_eq!(state.heads, heads.iter().rev().map(|position| position.id).collect::<Vec<_>>());
    // Of each payload the first that counts is shown, and no other.
    let mut shown = BTreeMap::new();
    for (id, (verdict, position)) in &state.verdicts {
        if *verdict == Verdict::Accept {
            let first = shown.entry(by_id[id].payload()).or_insert(*position);
            *first = (*first).min(*position);
        }
    }
    let mut order: Vec<_> = shown.into_values().collect();
    order.sort();
    assert_eq!(state.order, order);
    for entry in entries {
        for other in entries {
            let expected = is_ancestor(&by_id, &state.verdicts, other.id(), entry.id());
            assert_eq!(node.log.is_ancestor(&node.disk, other.id(), entry.id()).unwrap(), expected);
        }
    }
}

fn is_ancestor<V>(
    by_id: &BTreeMap<EntryId, &Entry>,
    joined: &BTreeMap<EntryId, V>,
    ancestor: EntryId,
    of: EntryId,
) -> bool {
    joined.contains_key(&of)
        && by_id[&of]
            .next()
            .iter()
            .filter(|parent| joined.contains_key(parent))
            .any(|parent| *parent == ancestor || is_ancestor(by_id, joined, ancestor, *parent))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn converge(
        shapes in prop::collection::vec(shape(), 1..16),
        first in prop::collection::vec(step(), 0..60),
        second in prop::collection::vec(step(), 0..60),
    ) {
        let entries = grow(&shapes);
        let delivered: Vec<Entry> = entries
            .iter()
            .zip(&shapes)
            .filter(|(_, shape)| shape.is_delivered)
            .map(|(entry, _)| entry.clone())
            .collect();
        let first = deliver(&entries, &delivered, &first);
        let second = deliver(&entries, &delivered, &second);
        prop_assert_eq!(first.state(&entries), second.state(&entries));
    }
}

#[test]
fn a_refused_parent_is_a_hole() {
    let mut foreign = body("foreign", &[], 1);
    foreign.log_id = "/orbitdb/bafyexample/other".into();
    let foreign = writer().sign(foreign);
    let child = entry("child", &[foreign.id()], 2);
    let all = [foreign.clone(), child.clone()];

    let mut late = Node::new();
    late.take(&[child.clone(), foreign.clone()]);
    late.join(10);
    let mut early = Node::new();
    early.take(&[foreign, child]);
    early.take(&all);
    early.join(10);
    assert_eq!(late.state(&all), early.state(&all));
    assert_eq!(late.payloads(), ["child"]);
}
