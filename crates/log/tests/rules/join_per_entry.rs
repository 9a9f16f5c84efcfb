//! O3: a bad entry costs one entry.

use dunlin_base::{EntryId, SecretKey};
use dunlin_log::{
    ENTRY_BYTES_MAX, Entry, Ingest, NEXT_COMPAT_MAX, Quarantine, REFS_MAX, Refusal, Verdict, Writer,
};

use crate::world::{Node, body, chain, entry, writer};

const HONEST: usize = 1000;
/// Each so many honest entries, one forgery of each family comes in between.
const EVERY: usize = 25;

/// What becomes of a forgery.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Refused,
    Quarantined(Quarantine),
}

#[test]
fn join_per_entry() {
    let honest = chain(HONEST);
    let mut node = Node::new();
    let mut forged = 0;
    for (at, entry) in honest.iter().enumerate() {
        let parent = at.checked_sub(1).map(|at| &honest[at]);
        let forgeries = if at % EVERY == 0 { families(entry, parent) } else { Vec::new() };
        for (family, block, fate) in forgeries {
            node.commit(|log, tx| {
                let taken = log.ingest(tx, &block).unwrap();
                assert_eq!(matches!(taken, Ingest::Refused(_)), fate == Fate::Refused, "{family}: {taken:?}");
                log.join_ready(tx, 10).unwrap();
                let found = log.quarantine(tx, EntryId::of_block(&block)).unwrap();
                match fate {
                    Fate::Refused => assert_eq!(found, None, "{family}"),
                    Fate::Quarantined(reason) => assert_eq!(found, Some(reason), "{family}"),
                }
            });
            forged += 1;
        }
        node.take(std::slice::from_ref(entry));
        node.join(10);
    }
    assert!(forged > HONEST, "{forged}");
    assert_eq!(node.payloads().len(), HONEST);
    assert_eq!(node.log.heads(&node.disk).unwrap(), [honest[HONEST - 1].id()]);
}

/// One forgery of each family.
fn families(honest: &Entry, parent: Option<&Entry>) -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Quarantined, Refused};

    let stranger = Writer::new(SecretKey::from_seed([9; 32]));
    let (key, signature) = (honest.key().to_vec(), honest.signature().to_vec());
    let identity = honest.identity().clone();
    let assemble = |key: &[u8], signature: &[u8], identity: dunlin_log::Identity| {
        Entry::assemble(honest.body().clone(), key.to_vec(), signature.to_vec(), identity).block().to_vec()
    };
    let with_body = |change: &dyn Fn(&mut dunlin_log::Body)| {
        let mut body = honest.body().clone();
        change(&mut body);
        body
    };
    let unsigned =
        |body| Entry::assemble(body, key.clone(), signature.clone(), identity.clone()).block().to_vec();
    let signed = |body| writer().sign(body).block().to_vec();
    let mut flipped = signature.clone();
    flipped[3] ^= 1;
    let block = honest.block();

    let mut families = vec![
        ("signature altered", assemble(&key, &flipped, identity.clone()), Quarantined(Quarantine::Signature)),
        ("signature empty", assemble(&key, &[], identity.clone()), Quarantined(Quarantine::Signature)),
        (
            "payload altered",
            unsigned(with_body(&|body| body.payload.push('!'))),
            Quarantined(Quarantine::Signature),
        ),
        (
            "time altered",
            unsigned(with_body(&|body| body.clock.time += 1)),
            Quarantined(Quarantine::Signature),
        ),
        (
            "parent added",
            unsigned(with_body(&|body| body.next.push(honest.id()))),
            Quarantined(Quarantine::Signature),
        ),
        (
            "unknown key",
            stranger.sign(honest.body().clone()).block().to_vec(),
            Quarantined(Quarantine::Writer),
        ),
        (
            "unknown key under our identity",
            {
                let made = stranger.sign(honest.body().clone());
                assemble(made.key(), made.signature(), identity.clone())
            },
            Quarantined(Quarantine::Writer),
        ),
        ("key empty", assemble(&[], &signature, identity.clone()), Quarantined(Quarantine::Writer)),
        (
            "identity id of another",
            assemble(
                &key,
                &signature,
                dunlin_log::Identity { id: stranger.identity().id.clone(), ..identity.clone() },
            ),
            Quarantined(Quarantine::Writer),
        ),
        (
            "identity key of another",
            assemble(&key, &signature, dunlin_log::Identity { public_key: vec![1; 36], ..identity.clone() }),
            Quarantined(Quarantine::Writer),
        ),
        (
            "clock id of another",
            signed(with_body(&|body| body.clock.id = vec![1; 36])),
            Quarantined(Quarantine::Writer),
        ),
        ("another log", signed(with_body(&|body| body.log_id.push('x'))), Refused),
        ("payload too long", signed(with_body(&|body| body.payload = "x".repeat(ENTRY_BYTES_MAX))), Refused),
        (
            "link twice",
            signed(with_body(&|body| body.refs = vec![honest.id(), honest.id()])),
            Quarantined(Quarantine::Links),
        ),
        (
            "too many refs",
            signed(with_body(&|body| body.refs = links(REFS_MAX + 1))),
            Quarantined(Quarantine::Links),
        ),
        (
            "too many parents",
            signed(with_body(&|body| body.next = links(NEXT_COMPAT_MAX + 1))),
            Quarantined(Quarantine::Links),
        ),
        ("version 1", replaced(block, b"\x61v\x02", b"\x61v\x01"), Refused),
        ("version in two bytes", replaced(block, b"\x61v\x02", b"\x61v\x18\x02"), Refused),
        ("one key more", [&[0xab], &block[1..], &b"\x66zzzzzz\xf6"[..]].concat(), Refused),
        ("indefinite length", [&[0xbf], &block[1..], &[0xff]].concat(), Refused),
        ("byte after the end", [block, &[0]].concat(), Refused),
        ("last byte missing", block[..block.len() - 1].to_vec(), Refused),
        ("hash not null", replaced(block, b"\x64hash\xf6", b"\x64hash\x60"), Refused),
        ("upper case hex", replaced(block, b"08011220", b"0801122A"), Refused),
        ("no entry at all", b"\xa0".to_vec(), Refused),
    ];
    if let Some(parent) = parent {
        let copy = signed(body(parent.payload(), &[parent.id()], parent.time() + 1));
        families.push(("replay of the parent", copy, Quarantined(Quarantine::Replay)));
    }
    families
}

fn links(count: usize) -> Vec<EntryId> {
    (0..count).map(|at| EntryId::of_block(&at.to_be_bytes())).collect()
}

fn replaced(block: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = block.windows(from.len()).position(|window| window == from).unwrap();
    [&block[..at], to, &block[at + from.len()..]].concat()
}

/// Honest Go writers name whatever their node accepted. That is not their fault.
#[test]
fn descendants_of_a_bad_entry_are_judged_by_themselves() {
    let root = entry("root", &[], 1);
    let stranger = Writer::new(SecretKey::from_seed([9; 32]));
    let bad = stranger.sign(body("bad", &[root.id()], 50));
    let child = entry("child", &[bad.id()], 51);
    let mut node = Node::new();
    node.take(&[child.clone(), bad.clone(), root.clone()]);
    node.join(10);
    assert_eq!(node.payloads(), ["root", "child"]);
    assert_eq!(
        node.log.verdict(&node.disk, bad.id()).unwrap(),
        Some(Verdict::Quarantine(Quarantine::Writer))
    );
    assert_eq!(node.log.heads(&node.disk).unwrap(), [child.id(), root.id()]);

    let joined = node.commit(|log, tx| log.append(tx, &writer(), "ours").unwrap());
    assert_eq!(joined.entry.next(), [root.id(), child.id()], "the bad entry is never named");
}

#[test]
fn refusals_say_why() {
    let mut node = Node::new();
    let refused = |node: &mut Node, block: &[u8]| match node.commit(|log, tx| log.ingest(tx, block).unwrap())
    {
        Ingest::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut node, &vec![0; ENTRY_BYTES_MAX + 1]), Refusal::TooLong(ENTRY_BYTES_MAX + 1));
    assert!(matches!(refused(&mut node, b"\xa0"), Refusal::NotAnEntry(_)));
}
