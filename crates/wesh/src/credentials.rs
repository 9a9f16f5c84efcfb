//! Verified credentials: an issuer confirms that an identifier, such as a telephone number, belongs to this
//! account (`spec/wesh-protocol.md` §7.6).
//!
//! ```text
//!   Verification::begin ──► challenge_url     ──► GET, by the shell
//!   answer(status, body) ◄── the issuer's reply
//!                        ──► authenticate URL ──► the user's browser
//!   complete(callback)   ◄── berty://vc/proof?state=…&credentials=…
//!                        ──► Credential       ──► event 500
//! ```
//!
//! A credential is a JSON Web Token that the issuer signed with Ed25519; the key is in the issuer's name,
//! `did:key:z6Mk…`. **Whether an issuer is to be believed is not decided here**: anybody can have such a
//! name.

use dunlin_base::keys::PublicKey;
use dunlin_base::{SecretKey, Signature, Time};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rand_core::{CryptoRng, RngCore};
use serde::Deserialize;
use serde_json::Value;

use crate::errors::{Code, Coded};
use crate::metadata::Credential;

/// Where the issuer sends the browser at the end.
const REDIRECT_URI: &str = "berty://vc";
/// Longest reply and longest callback that are read. A credential has about a kilobyte.
pub const VERIFICATION_BYTES_MAX: usize = 64 * 1024;
/// Longest address of an issuer, and longest link.
const ADDRESS_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the random state that ties a callback to its flow.
const STATE_BYTES: usize = 24;
/// The status of a reply that holds what was asked for.
const HTTP_OK: u16 = 200;
/// What stands before an Ed25519 key in a `did:key`.
const ED25519_CODE: [u8; 2] = [0xed, 0x01];
/// What the names of issuers begin with. A key in multibase follows.
const DID_KEY: &str = "did:key:";
/// Longest such key that is read: 34 bytes in base58 take up to 48 characters.
const DID_KEY_CHARS_MAX: usize = 64;

/// What Go leaves as it is in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// Why a verification does not go on. Begin it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationError {
    /// The account asked about is another one.
    #[error("the key is not the one of this account")]
    OtherAccount,
    /// Nothing was begun, or it was begun before the node was started.
    #[error("no verification is under way")]
    NotBegun,
    /// The address or the reply is longer than any is.
    #[error("{bytes} bytes are too long, {most} are allowed")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// The issuer refused.
    #[error("the issuer answered with status {status}")]
    Refused {
        /// The status of HTTP.
        status: u16,
    },
    /// The issuer's reply holds no challenge.
    #[error("the issuer sent no challenge")]
    NoChallenge,
    /// The challenge has 32 bytes. The account key signs such texts to admit devices and to prove itself to
    /// contacts, and an issuer could pass the signature on.
    #[error("the challenge could be misused, so it is not signed")]
    UnsafeChallenge,
    /// The callback belongs to another verification.
    #[error("the callback belongs to another verification")]
    OtherState,
    /// The callback holds no credential.
    #[error("the callback holds no credential")]
    NoCredential,
    /// The credential is no token with the fields that it needs.
    #[error("the credential is malformed: {0}")]
    Malformed(&'static str),
    /// The issuer has no name that holds an Ed25519 key.
    #[error("the issuer is no did:key of an Ed25519 key")]
    Issuer,
    /// The issuer did not sign it.
    #[error("the credential is not signed by its issuer")]
    Forged,
    /// The credential is about another account.
    #[error("the credential belongs to another account")]
    OtherLink,
    /// The credential is not valid any more.
    #[error("the credential has expired")]
    Expired,
}

impl Coded for VerificationError {
    fn codes(&self) -> Vec<Code> {
        let within = |code| vec![Code::ErrInternal, code];
        match self {
            Self::OtherAccount | Self::NotBegun => vec![Code::ErrInvalidInput],
            Self::Refused { .. } => within(Code::ErrInternal),
            Self::NoChallenge | Self::Malformed(_) | Self::Issuer => within(Code::ErrDeserialization),
            Self::Forged => {
                vec![Code::ErrInternal, Code::ErrDeserialization, Code::ErrCryptoSignatureVerification]
            }
            Self::TooLong { .. }
            | Self::UnsafeChallenge
            | Self::OtherState
            | Self::NoCredential
            | Self::OtherLink
            | Self::Expired => within(Code::ErrInvalidInput),
        }
    }
}

/// A verification under way.
#[derive(Clone)]
pub struct Verification {
    service: String,
    link: String,
    state: String,
}

impl Verification {
    /// Begins the verification of the account behind `link` by the issuer at `service`.
    ///
    /// # Errors
    /// [`VerificationError::TooLong`].
    pub fn begin(
        service: &str,
        link: &str,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, VerificationError> {
        for text in [service, link] {
            if text.len() > ADDRESS_BYTES_MAX {
                return Err(VerificationError::TooLong { bytes: text.len(), most: ADDRESS_BYTES_MAX });
            }
        }
        let mut state = [0; STATE_BYTES];
        rng.fill_bytes(&mut state);
        let state = data_encoding::BASE64URL_NOPAD.encode(&state);
        Ok(Self { service: service.to_owned(), link: link.to_owned(), state })
    }

    /// What to get from the issuer. The two slashes are Go's.
    pub fn challenge_url(&self) -> String {
        format!(
            "{}//challenge?berty_id={}&redirect_uri={}&state={}",
            self.service,
            query(&self.link),
            query(REDIRECT_URI),
            query(&self.state)
        )
    }

    /// Takes the issuer's reply, and gives the address that the user's browser has to open.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn answer(
        &self,
        account: &SecretKey,
        status: u16,
        reply: &[u8],
    ) -> Result<String, VerificationError> {
        if status != HTTP_OK {
            return Err(VerificationError::Refused { status });
        }
        check_length(reply)?;
        let Reply { challenge } =
            serde_json::from_slice(reply).map_err(|_| VerificationError::NoChallenge)?;
        let bytes = data_encoding::BASE64URL.decode(challenge.as_bytes());
        let bytes = bytes.ok().filter(|bytes| !bytes.is_empty()).ok_or(VerificationError::NoChallenge)?;
        if bytes.len() == 32 {
            return Err(VerificationError::UnsafeChallenge);
        }
        let signature = data_encoding::BASE64URL.encode(account.sign(&bytes).as_bytes());
        Ok(format!("{}//authenticate?&challenge={challenge}&challenge_sig={signature}", self.service))
    }

    /// Takes the address to which the issuer sent the browser, and checks the credential in it.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn complete(&self, callback: &str, now: Time) -> Result<Credential, VerificationError> {
        check_length(callback.as_bytes())?;
        if parameter(callback, "state").as_deref() != Some(&self.state) {
            return Err(VerificationError::OtherState);
        }
        let encoded = parameter(callback, "credentials").filter(|text| !text.is_empty());
        let encoded = encoded.ok_or(VerificationError::NoCredential)?;
        let token = decode_either(&encoded).and_then(|bytes| String::from_utf8(bytes).ok());
        let token = token.ok_or(VerificationError::Malformed("it is no base64 text"))?;
        let claims = Claims::open(&token)?;
        if claims.id != self.link {
            return Err(VerificationError::OtherLink);
        }
        if claims.expires <= i64::try_from(now.as_secs()).unwrap_or(i64::MAX) {
            return Err(VerificationError::Expired);
        }
        Ok(Credential {
            // Go leaves it empty.
            signed_identity_public_key: Vec::new(),
            verified_credential: token,
            registration_date: nanoseconds(claims.issued)?,
            expiration_date: nanoseconds(claims.expires)?,
            identifier: claims.subject,
            issuer: claims.issuer,
        })
    }
}

/// Shows nothing: the link and the state are the user's.
impl std::fmt::Debug for Verification {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verification(..)")
    }
}

/// The key of an issuer, which is in its name.
///
/// # Errors
/// [`VerificationError::Issuer`].
pub fn issuer_key(issuer: &str) -> Result<PublicKey, VerificationError> {
    let encoded = issuer.strip_prefix(DID_KEY).ok_or(VerificationError::Issuer)?;
    // Some issuers add the name of the key, which is the same once more.
    let encoded = encoded.split_once('#').map_or(encoded, |(key, _)| key);
    if encoded.len() > DID_KEY_CHARS_MAX {
        return Err(VerificationError::Issuer);
    }
    let (base, bytes) = multibase::decode(encoded).map_err(|_| VerificationError::Issuer)?;
    let raw = bytes.strip_prefix(&ED25519_CODE).filter(|_| base == multibase::Base::Base58Btc);
    let raw = raw.ok_or(VerificationError::Issuer)?;
    PublicKey::from_bytes(raw).map_err(|_| VerificationError::Issuer)
}

/// Which credentials a list shows.
#[derive(Clone, Debug, Default)]
pub struct CredentialFilter {
    /// Only those for this identifier.
    pub identifier: Option<String>,
    /// Only those of this issuer.
    pub issuer: Option<String>,
    /// Only those that are still valid at this moment.
    pub valid_at: Option<Time>,
}

impl CredentialFilter {
    /// Whether `credential` is shown.
    pub fn shows(&self, credential: &Credential) -> bool {
        let expired = |at: Time| {
            let at = i128::from(at.as_millis()).saturating_mul(1_000_000);
            i128::from(credential.expiration_date) < at
        };
        self.identifier.as_ref().is_none_or(|wanted| *wanted == credential.identifier)
            && self.issuer.as_ref().is_none_or(|wanted| *wanted == credential.issuer)
            && !self.valid_at.is_some_and(expired)
    }
}

/// What the issuer answers first.
#[derive(Deserialize)]
struct Reply {
    challenge: String,
}

/// What a token says, once its signature was checked.
struct Claims {
    id: String,
    issuer: String,
    subject: String,
    issued: i64,
    expires: i64,
}

impl Claims {
    /// Opens a token: header, claims and signature, each in base64, with points between.
    fn open(token: &str) -> Result<Self, VerificationError> {
        let not_a_token = || VerificationError::Malformed("it is no token of three parts");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(not_a_token)?;
        let (header, claims) = signed.split_once('.').ok_or_else(not_a_token)?;
        let header = json(header).ok_or_else(not_a_token)?;
        let claims = json(claims).ok_or_else(not_a_token)?;
        if header.get("alg").and_then(Value::as_str) != Some("EdDSA") {
            return Err(VerificationError::Malformed("it is not signed with EdDSA"));
        }
        let credential = claims.get("vc").unwrap_or(&Value::Null);
        let issuer = same("issuer", name(claims.get("iss")), name(credential.get("issuer")))?;
        let signature = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).ok();
        let signature = signature.and_then(|bytes| Signature::from_slice(&bytes));
        let signature = signature.ok_or(VerificationError::Forged)?;
        let key = issuer_key(&issuer)?;
        key.verify(signed.as_bytes(), &signature).map_err(|_| VerificationError::Forged)?;

        let subject = match credential.get("credentialSubject") {
            Some(Value::Array(subjects)) => name(subjects.first()),
            subject => name(subject),
        };
        let date = |claim: &'static str| {
            let seconds = claims.get(claim).and_then(Value::as_f64);
            // Fractions of a second are nothing that an issuer means.
            seconds.map(|seconds| seconds as i64).ok_or(VerificationError::Malformed("a date is missing"))
        };
        Ok(Self {
            id: same("id", name(claims.get("jti")), name(credential.get("id")))?,
            subject: same("subject", name(claims.get("sub")), subject)?,
            issued: date("nbf")?,
            expires: date("exp")?,
            issuer,
        })
    }
}

/// The object in one part of a token.
fn json(part: &str) -> Option<Value> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

/// Somebody's name: a text, or an object with an id.
fn name(value: Option<&Value>) -> Option<&str> {
    let value = value?;
    value.as_str().or_else(|| value.get("id")?.as_str()).filter(|name| !name.is_empty())
}

/// What the token and the credential in it say; where both do, they have to agree.
fn same(
    what: &'static str,
    token: Option<&str>,
    credential: Option<&str>,
) -> Result<String, VerificationError> {
    match (token, credential) {
        (Some(token), Some(credential)) if token != credential => Err(VerificationError::Malformed(what)),
        (Some(one), _) | (None, Some(one)) => Ok(one.to_owned()),
        (None, None) => Err(VerificationError::Malformed(what)),
    }
}

fn nanoseconds(seconds: i64) -> Result<i64, VerificationError> {
    seconds.checked_mul(1_000_000_000).ok_or(VerificationError::Malformed("a date is out of bounds"))
}

fn check_length(bytes: &[u8]) -> Result<(), VerificationError> {
    match bytes.len() {
        bytes if bytes > VERIFICATION_BYTES_MAX => {
            Err(VerificationError::TooLong { bytes, most: VERIFICATION_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

/// Base64 in either alphabet, padded or not: issuers write one, and Go reads the other.
fn decode_either(text: &str) -> Option<Vec<u8>> {
    let url = |digit: char| match digit {
        '+' | ' ' => '-', // A plus that was not escaped arrives as a space.
        '/' => '_',
        other => other,
    };
    let text: String = text.trim_end_matches('=').chars().map(url).collect();
    data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

/// Escapes a value as Go's `url.QueryEscape` does.
fn query(text: &str) -> String {
    utf8_percent_encode(text, QUERY).to_string().replace(' ', "+")
}

/// The first value of a parameter in the query of an address.
fn parameter(address: &str, name: &str) -> Option<String> {
    let address = address.split_once('#').map_or(address, |(address, _)| address);
    let (_, query) = address.split_once('?')?;
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let value = value.replace('+', " ");
    percent_decode_str(&value).decode_utf8().ok().map(|value| value.into_owned())
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;
    use serde_json::json;

    use super::*;

    const LINK: &str = "https://berty.tech/id#contact/abc/name=Alice";
    const NOW: Time = Time::from_secs(1_000);

    fn begun() -> Verification {
        Verification::begin("https://issuer.example", LINK, &mut ChaCha12Rng::seed_from_u64(1)).unwrap()
    }

    fn issuer() -> SecretKey {
        SecretKey::from_seed([7; 32])
    }

    fn did(key: &PublicKey) -> String {
        let named = [ED25519_CODE.as_slice(), key.as_bytes()].concat();
        format!("{DID_KEY}{}", multibase::encode(multibase::Base::Base58Btc, named))
    }

    fn claims() -> Value {
        let issuer = did(&issuer().public());
        json!({
            "iss": issuer, "jti": LINK, "nbf": 900, "exp": 2_000, "sub": "tel:+33123456789",
            "vc": { "id": LINK, "issuer": { "id": issuer }, "credentialSubject": [{ "id": "tel:+33123456789" }] },
        })
    }

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = issuer().sign(signed.as_bytes());
        format!("{signed}.{}", data_encoding::BASE64URL_NOPAD.encode(signature.as_bytes()))
    }

    fn callback(flow: &Verification, token: &str) -> String {
        let credentials = data_encoding::BASE64URL.encode(token.as_bytes());
        format!("berty://vc/proof?state={}&credentials={}", flow.state, query(&credentials))
    }

    fn eddsa() -> Value {
        json!({ "alg": "EdDSA", "kid": "key" })
    }

    fn complete(claims: &Value) -> Result<Credential, VerificationError> {
        let flow = begun();
        flow.complete(&callback(&flow, &token(&eddsa(), claims)), NOW)
    }

    #[test]
    fn a_credential_is_taken_from_its_callback_in_either_alphabet() {
        let flow = begun();
        let token = token(&eddsa(), &claims());
        let wanted = Credential {
            signed_identity_public_key: Vec::new(),
            verified_credential: token.clone(),
            registration_date: 900_000_000_000,
            expiration_date: 2_000_000_000_000,
            identifier: "tel:+33123456789".into(),
            issuer: did(&issuer().public()),
        };
        for encoded in [
            data_encoding::BASE64URL.encode(token.as_bytes()),
            data_encoding::BASE64.encode(token.as_bytes()),
            query(&data_encoding::BASE64.encode(token.as_bytes())),
            data_encoding::BASE64_NOPAD.encode(token.as_bytes()),
        ] {
            let callback = format!("berty://vc/proof?credentials={encoded}&state={}#end", flow.state);
            assert_eq!(flow.complete(&callback, NOW).unwrap(), wanted);
        }
    }

    #[test]
    fn each_fault_of_a_callback_has_its_error() {
        let flow = begun();
        let good = callback(&flow, &token(&eddsa(), &claims()));
        let other = Verification { state: "other".into(), ..flow.clone() };
        assert!(matches!(other.complete(&good, NOW), Err(VerificationError::OtherState)));
        assert!(matches!(flow.complete("berty://vc/proof", NOW), Err(VerificationError::OtherState)));
        let bare = format!("berty://vc/proof?state={}", flow.state);
        assert!(matches!(flow.complete(&bare, NOW), Err(VerificationError::NoCredential)));
        let garbage = format!("{bare}&credentials=!");
        assert!(matches!(flow.complete(&garbage, NOW), Err(VerificationError::Malformed(_))));
        let long = format!("{bare}&credentials={}", "a".repeat(VERIFICATION_BYTES_MAX));
        assert!(matches!(flow.complete(&long, NOW), Err(VerificationError::TooLong { .. })));
        assert!(matches!(flow.complete(&good, Time::from_secs(2_000)), Err(VerificationError::Expired)));
        let elsewhere = Verification { link: "https://berty.tech/id#contact/other".into(), ..flow };
        assert!(matches!(elsewhere.complete(&good, NOW), Err(VerificationError::OtherLink)));
    }

    #[test]
    fn each_fault_of_a_token_has_its_error() {
        let changed = |field: &str, value: Value| {
            let mut claims = claims();
            claims[field] = value;
            complete(&claims).unwrap_err()
        };
        assert!(matches!(changed("iss", json!("did:web:example")), VerificationError::Malformed("issuer")));
        assert!(matches!(changed("jti", json!("other")), VerificationError::Malformed("id")));
        assert!(matches!(changed("sub", json!("tel:+1")), VerificationError::Malformed("subject")));
        assert!(matches!(changed("exp", json!("soon")), VerificationError::Malformed(_)));
        assert!(matches!(changed("exp", json!(1e300)), VerificationError::Malformed(_)));
        assert!(matches!(changed("nbf", Value::Null), VerificationError::Malformed(_)));

        let flow = begun();
        let unsigned = token(&json!({ "alg": "none" }), &claims());
        let refused = flow.complete(&callback(&flow, &unsigned), NOW);
        assert!(matches!(refused, Err(VerificationError::Malformed(_))));
        let mut by_another = claims();
        let stranger = did(&SecretKey::from_seed([8; 32]).public());
        by_another["iss"] = json!(stranger);
        by_another["vc"]["issuer"] = json!(stranger);
        assert!(matches!(complete(&by_another), Err(VerificationError::Forged)));
        for token in ["", ".", "..", "a.b.c", "e30.e30.e30"] {
            assert!(flow.complete(&callback(&flow, token), NOW).is_err(), "{token}");
        }
    }

    /// A signature over 32 bytes would bind a device of the issuer's choice to the account, or prove the
    /// account to somebody in a handshake.
    #[test]
    fn a_challenge_of_32_bytes_is_not_signed() {
        let (flow, account) = (begun(), SecretKey::from_seed([1; 32]));
        let answer = |bytes: &[u8]| {
            let challenge = data_encoding::BASE64URL.encode(bytes);
            flow.answer(&account, 200, json!({ "challenge": challenge }).to_string().as_bytes())
        };
        assert!(matches!(answer(&[5; 32]), Err(VerificationError::UnsafeChallenge)));
        assert!(matches!(answer(&[]), Err(VerificationError::NoChallenge)));
        assert!(
            answer(&[5; 120]).unwrap().starts_with("https://issuer.example//authenticate?&challenge=BQUF")
        );
    }

    #[test]
    fn issuers_are_ed25519_keys_in_one_form() {
        let key = issuer().public();
        assert_eq!(issuer_key(&did(&key)).unwrap(), key);
        assert_eq!(issuer_key(&format!("{0}#{0}", did(&key))).unwrap(), key);
        for other in ["did:key:z1", "did:key:zQ3sh", "did:key:z6Mk0", &format!("{}x", did(&key))] {
            assert!(matches!(issuer_key(other), Err(VerificationError::Issuer)), "{other}");
        }
        let leading = did(&key).replace("did:key:z", "did:key:z1");
        assert!(issuer_key(&leading).is_err());
    }

    #[test]
    fn lists_are_filtered() {
        let credential = complete(&claims()).unwrap();
        let shows = |filter: CredentialFilter| filter.shows(&credential);
        assert!(shows(CredentialFilter::default()));
        let identifier =
            |text: &str| CredentialFilter { identifier: Some(text.into()), ..Default::default() };
        assert!(shows(identifier("tel:+33123456789")) && !shows(identifier("tel:+1")));
        assert!(!shows(CredentialFilter { issuer: Some("x".into()), ..Default::default() }));
        let valid =
            |seconds| CredentialFilter { valid_at: Some(Time::from_secs(seconds)), ..Default::default() };
        assert!(shows(valid(2_000)) && !shows(valid(2_001)));
    }

    #[test]
    fn secret_types_show_nothing() {
        assert_eq!(format!("{:?}", begun()), "Verification(..)");
    }
}
