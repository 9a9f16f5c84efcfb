//! Local records and topics as peers on the same network send them, to a node that looks for somebody.
//!
//! The input stands for several messages.
#![no_main]

use dunlin_base::kv::{Durability, MemoryStore, Store, Tx};
use dunlin_base::{AccountId, PeerId, Span, Time};
use dunlin_fuzz::{key, messages};
use dunlin_wesh::contact::Contact;
use dunlin_wesh::engine::{Ctx, Engine};
use dunlin_wesh::profile::Profile;
use libfuzzer_sys::fuzz_target;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

thread_local! {
    static ENGINE: std::cell::RefCell<(Engine, ChaCha12Rng)> = std::cell::RefCell::new(open());
}

const NOW: Time = Time::from_secs(1_700_000_000);

/// One node for all inputs: what it remembers of a peer, it forgets with the connection.
fn open() -> (Engine, ChaCha12Rng) {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let store = MemoryStore::default();
    let mut tx = Tx::new(&store);
    let mut ctx = Ctx { tx: &mut tx, now: NOW, rng: &mut rng };
    let host = PeerId::from_array([1; 34]);
    let mut engine = Engine::open(&mut ctx, Profile::Berty, host).expect("a store in memory");
    let account = AccountId::new(key(9).public());
    let sought = Contact { account, seed: Some([5; 32]), metadata: Vec::new() };
    engine.request_contact(&mut ctx, &sought, b"").expect("somebody new");
    while engine.poll_event().is_some() || engine.poll_action().is_some() {}
    STORE.with(|kept| kept.commit(tx.into_batch(), Durability::Synced)).expect("a store in memory");
    (engine, rng)
}

thread_local! {
    static STORE: MemoryStore = MemoryStore::default();
}

fuzz_target!(|input: &[u8]| {
    ENGINE.with_borrow_mut(|(engine, rng)| {
        STORE.with(|store| {
            let mut tx = Tx::new(store);
            let mut now = NOW;
            for (number, message) in messages(input).take(64).enumerate() {
                now = now + Span::from_secs(1);
                let mut ctx = Ctx { tx: &mut tx, now, rng };
                let peer = PeerId::from_array([u8::try_from(number % 3).unwrap_or_default() + 2; 34]);
                engine.handle_connected(&mut ctx, &peer, true).expect("a store in memory");
                engine.handle_records(&mut ctx, &peer, message).expect("a store in memory");
                if let Ok(topic) = std::str::from_utf8(message) {
                    engine.handle_topic_joined(&mut ctx, &peer, topic).expect("a store in memory");
                }
            }
            for number in 2..5 {
                let mut ctx = Ctx { tx: &mut tx, now, rng };
                let peer = PeerId::from_array([number; 34]);
                engine.handle_disconnected(&mut ctx, &peer).expect("a store in memory");
            }
            while engine.poll_event().is_some() || engine.poll_action().is_some() {}
            store.commit(tx.into_batch(), Durability::Synced).expect("a store in memory");
        });
    });
});
