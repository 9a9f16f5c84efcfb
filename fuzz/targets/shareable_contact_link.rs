//! Links and introductions as somebody pastes or sends them: what is read says the same when it is written.
#![no_main]

use dunlin_fuzz::links::Link;
use dunlin_wesh::contact::Contact;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(contact) = Contact::decode_incoming(bytes) {
        assert_eq!(Contact::decode_incoming(&contact.encode()).expect("what was just written"), contact);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(link) = Link::parse(text) else { return };
    assert_eq!(Link::parse(&link.web()).as_ref(), Ok(&link));
    if let Link::Contact(_) | Link::Group(_) = link {
        assert_eq!(Link::parse(&link.qr()).as_ref(), Ok(&link));
    }
});
