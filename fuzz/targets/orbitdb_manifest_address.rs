//! Addresses of stores as text, and manifests with names that anybody chose.
#![no_main]

use dunlin_orbitdb::StoreAddress;
use dunlin_orbitdb::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(address) = text.parse::<StoreAddress>() {
        let again: StoreAddress = address.to_string().parse().expect("an address that was just printed");
        assert_eq!(again, address);
    }
    let (name, rest) = text.split_once('\0').unwrap_or((text, ""));
    let (kind, access) = rest.split_once('\0').unwrap_or((rest, ""));
    let manifest =
        Manifest { name: name.to_owned(), kind: kind.to_owned(), access: access.to_owned() };
    if let Ok(address) = StoreAddress::of_manifest(&manifest) {
        let again: StoreAddress = address.to_string().parse().expect("an address that was just printed");
        assert_eq!(again, address);
        assert_eq!(*address.root(), manifest.cid());
    }
});
