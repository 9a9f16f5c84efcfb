//! Content identifiers in both forms: what is read prints as the same, and names an entry only in one form.
#![no_main]

use dunlin_base::{Cid, EntryId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(cid) = Cid::try_from(bytes) {
        check(&cid);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(cid) = Cid::try_from(text) {
        check(&cid);
        assert_eq!(EntryId::from_cid_text(text), EntryId::from_cid(&cid));
    }
});

fn check(cid: &Cid) {
    assert_eq!(Cid::try_from(cid.to_bytes().as_slice()).expect("a CID that was just written"), *cid);
    assert_eq!(Cid::try_from(cid.to_string().as_str()).expect("a CID that was just printed"), *cid);
    let entry = EntryId::from_cid(cid);
    assert_eq!(EntryId::from_cid_bytes(&cid.to_bytes()), entry);
    if let Some(entry) = entry {
        assert_eq!(entry.cid(), *cid);
    }
}
