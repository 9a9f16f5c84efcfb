//! What an issuer of credentials answers: its reply, the callback, and claims that it signed.
#![no_main]

use data_encoding::BASE64URL_NOPAD;
use dunlin_base::{SecretKey, Time};
use dunlin_fuzz::key;
use dunlin_wesh::credentials::{Verification, issuer_key};
use libfuzzer_sys::fuzz_target;

/// Whose seed is zero.
const ISSUER: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
const LINK: &str = "https://berty.tech/id#contact/abc";

fuzz_target!(|bytes: &[u8]| {
    let flow = Verification::begin("https://issuer.example", LINK, &mut Zeros).expect("short texts");
    let _ = flow.answer(&key(1), 200, bytes);
    let url = flow.challenge_url();
    let (_, state) = url.rsplit_once("state=").expect("a state");
    let now = Time::from_secs(1_000);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = issuer_key(text);
        let _ = flow.complete(text, now);
        let _ = flow.complete(&format!("berty://vc/proof?state={state}&{text}"), now);
    }

    let signed =
        format!("{}.{}", BASE64URL_NOPAD.encode(br#"{"alg":"EdDSA"}"#), BASE64URL_NOPAD.encode(bytes));
    let signature = SecretKey::from_seed([0; 32]).sign(signed.as_bytes());
    let token = format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_bytes()));
    let callback =
        format!("berty://vc/proof?state={state}&credentials={}", BASE64URL_NOPAD.encode(token.as_bytes()));
    if let Ok(credential) = flow.complete(&callback, now) {
        assert_eq!(credential.issuer, ISSUER, "nobody else has signed");
        assert!(credential.expiration_date > 1_000_000_000_000);
    }
});

/// The flow is the same in every run.
struct Zeros;

impl rand_core::RngCore for Zeros {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        0
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl rand_core::CryptoRng for Zeros {}
