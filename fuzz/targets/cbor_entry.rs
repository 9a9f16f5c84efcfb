//! Blocks of log entries: what is accepted is canonical, and judging it does not hurt.
#![no_main]

use std::sync::{Arc, LazyLock};

use dunlin_log::{Checker, Entry, SharedKey};
use libfuzzer_sys::fuzz_target;

static CHECKER: LazyLock<Checker> = LazyLock::new(|| {
    let rules = SharedKey::new(dunlin_fuzz::key(1).public());
    Checker::new("/orbitdb/log", Arc::new(rules))
});

fuzz_target!(|block: &[u8]| {
    let _ = CHECKER.check(block);
    let Ok(entry) = Entry::decode(block) else { return };
    let _ = entry.body().signed_text();
    if entry.sealed_links().is_none() {
        let (key, signature) = (entry.key().to_vec(), entry.signature().to_vec());
        let again = Entry::assemble(entry.body().clone(), key, signature, entry.identity().clone());
        assert_eq!(again.block(), block);
    }
});
