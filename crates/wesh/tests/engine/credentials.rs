//! An issuer confirms something about the account.

use dunlin_base::{AccountId, SecretKey};
use dunlin_wesh::credentials::{CredentialFilter, VerificationError};
use dunlin_wesh::engine::CredentialError;

use crate::device::Device;

/// Whose seed is zero.
const ISSUER: &str = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
const LINK: &str = "https://berty.tech/id#contact/abc";

#[test]
fn what_was_confirmed_is_in_the_log_and_listed() {
    let mut device = Device::new(1);
    let account = device.engine.account_id();
    let url = device
        .run(|ctx, engine| engine.begin_verification(ctx, &account, "https://issuer.example", LINK).unwrap());
    let challenge = br#"{"challenge":"AAECAwQFBgcICQ=="}"#;
    let to_open = device.engine.answer_verification(200, challenge).unwrap();
    assert!(to_open.starts_with("https://issuer.example//authenticate?&challenge=AAECAwQFBgcICQ=="));

    let (_, state) = url.rsplit_once("state=").unwrap();
    let callback = format!("berty://vc/proof?state={state}&credentials={}", credential());
    let taken = device.run(|ctx, engine| engine.complete_verification(ctx, &callback).unwrap());

    assert_eq!(taken.identifier, "tel:+33123456789");
    let mut again = Device::open(1, device.store);
    again.settle();
    let list = |filter| again.engine.credentials(&again.store, &filter).unwrap();
    assert_eq!(list(CredentialFilter::default()), [taken]);
    assert_eq!(list(CredentialFilter { issuer: Some("other".into()), ..Default::default() }), []);
}

#[test]
fn a_verification_is_begun_once_for_the_own_account_and_ends_once() {
    let mut device = Device::new(1);
    let stranger = AccountId::new(SecretKey::from_seed([9; 32]).public());
    let refused = device.run(|ctx, engine| engine.begin_verification(ctx, &stranger, "", LINK));
    assert!(matches!(refused, Err(VerificationError::OtherAccount)));
    assert!(matches!(device.engine.answer_verification(200, b""), Err(VerificationError::NotBegun)));

    let account = device.engine.account_id();
    let url = device.run(|ctx, engine| engine.begin_verification(ctx, &account, "", LINK).unwrap());
    let (_, state) = url.rsplit_once("state=").unwrap();
    let callback = format!("berty://vc/proof?state={state}&credentials={}", credential());
    device.run(|ctx, engine| engine.complete_verification(ctx, &callback).unwrap());
    let again = device.run(|ctx, engine| engine.complete_verification(ctx, &callback));
    assert!(matches!(again, Err(CredentialError::Verification(VerificationError::NotBegun))));
}

fn credential() -> String {
    let part = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let claims = format!(
        r#"{{"iss":"{ISSUER}","jti":"{LINK}","sub":"tel:+33123456789","nbf":1600000000,"exp":1900000000}}"#
    );
    let signed = format!("{}.{}", part(r#"{"alg":"EdDSA"}"#), part(&claims));
    let signature = SecretKey::from_seed([0; 32]).sign(signed.as_bytes());
    let token = format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(signature.as_bytes()));
    data_encoding::BASE64URL_NOPAD.encode(token.as_bytes())
}
