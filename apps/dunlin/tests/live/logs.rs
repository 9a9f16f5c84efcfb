//! What leaves a node beside what it is told to send: its log, and what the system could write of its memory.

use std::collections::BTreeSet;

use crate::directories::export;
use crate::person::{Person, befriend};

/// Every library that the node consists of logs all that it can. A level alone would be Dunlin's.
const EVERYTHING: &str = "trace,dunlin=trace";

/// S2: secrets are not logged, at whatever level, and what names somebody not where operators look.
#[test]
fn whatever_is_logged_holds_no_canary() {
    let mut ann = Person::new("Canary-Ann");
    let mut ben = Person::new("Canary-Ben");
    for person in [&mut ann, &mut ben] {
        person.log_filter = EVERYTHING.to_owned();
    }
    ann.start_with(&["--name", "Canary-Ann", "--grpc", "127.0.0.1:0"]);
    ben.start(&[&ann]);
    befriend(&ann, &ben);
    ann.json(&["group", "new", "Canary-Harbour"]);
    ann.json(&["group", "invite", "Canary-Harbour", "Canary-Ben"]);
    ann.json(&["send", "Canary-Ben", "Canary-text of mine"]);
    ben.wait_message("Canary-Ann", "Canary-text of mine");
    ben.json(&["send", "Canary-Ann", "Canary-answer"]);
    ann.wait_message("Canary-Ben", "Canary-answer");
    let seeds = private_seeds(&export(ann.ready["grpc"].as_str().unwrap()));
    assert!(seeds.len() >= 2, "an account has two keys at least");
    for person in [&mut ann, &mut ben] {
        person.end();
    }

    for person in [&ann, &ben] {
        let log = person.log();
        let traced = log.lines().filter(|line| line.contains("TRACE ")).count();
        assert!(traced > 100, "{traced} lines of a log that is to say everything");
        let link = person.link();
        let link = link.split('/').find(|part| part.len() > 60).unwrap();
        let mut canaries: Vec<String> = vec!["Canary".to_owned(), link.to_owned(), listed(b"Canary")];
        canaries.extend(seeds.iter().flat_map(|seed| [hex(seed), hex(seed).to_uppercase(), listed(seed)]));
        canaries.push(hex(b"Canary"));
        for canary in canaries {
            let found = log.lines().find(|line| line.contains(&canary));
            assert!(found.is_none(), "{canary}: {}", found.unwrap());
        }
        // Dunlin's own lines; those of libraries are not shown unless they are asked for.
        let shown = log.lines().filter(|line| {
            [" INFO dunlin", " WARN dunlin", "ERROR dunlin"].iter().any(|level| line.contains(level))
        });
        for line in shown {
            for field in ["account", "peer_id"] {
                assert!(!line.contains(person.ready[field].as_str().unwrap()), "{field}: {line}");
            }
            assert!(!line.contains("/ip4/"), "{line}");
        }
    }
}

/// S4: a crash leaves no memory on the disk.
#[cfg(target_os = "linux")]
#[test]
fn no_core_is_dumped() {
    let mut ann = Person::new("Ann");
    ann.start(&[]);
    let limits = ann.of_process("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core}");
    ann.end();
}

/// The seeds of the private keys in an archive: those that stand there as libp2p writes Ed25519 keys.
fn private_seeds(archive: &[u8]) -> BTreeSet<Vec<u8>> {
    let begins = [0x08, 0x01, 0x12, 0x40];
    let places = archive.windows(begins.len() + 32).filter(|window| window.starts_with(&begins));
    places.map(|window| window[begins.len()..].to_vec()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as lists of them are printed.
fn listed(bytes: &[u8]) -> String {
    format!("{bytes:?}").trim_matches(['[', ']']).to_owned()
}
