//! Checks for verified credentials: `verified-credentials.json`.

use dunlin_wesh::credentials::{Verification, VerificationError, issuer_key};
use serde_json::Value;

use crate::fixed::FixedRng;
use crate::json::{equal, equal_bytes, field, flag, hex_bytes, label, list, number, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;
use crate::wesh_parts::{secret_key, verdict};

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "verified-credentials").then_some(run)
}

fn run(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    for (position, case) in list(json, "init")?.iter().enumerate() {
        report.check(format!("init {}", label(case, position)), init(field(json, "account")?, case));
    }
    for (position, case) in list(json, "issuer_keys")?.iter().enumerate() {
        report.check(format!("issuer {position}"), issuer(case));
    }
    report.leave_out(
        "the producer's signature over a challenge of 32 bytes: it would serve as that over a device key \
         (wesh-protocol.md 2.5) or of a handshake (5.4), so it is refused",
    );
    Ok(())
}

fn init(account: &Value, case: &Value) -> Result<(), String> {
    let key = secret_key(account, "account_seed")?;
    let link = text(case, "link")?;
    let flow = Verification::begin("", link, &mut FixedRng::new(&[&[9; 24]])).map_err(|e| e.to_string())?;
    let url = flow.challenge_url();
    let state = data_encoding::BASE64URL_NOPAD.encode(&[9; 24]);
    equal("state", url.ends_with(&state), true)?;
    let url = url.replace(&state, "STATE");
    equal("challenge URL", url.as_str(), text(case, "request_uri_with_state_replaced")?)?;

    let status = u16::try_from(number(case, "response_status")?).map_err(|error| error.to_string())?;
    let result = flow.answer(&key, status, text(case, "response_body")?.as_bytes());
    if let Err(VerificationError::UnsafeChallenge) = result {
        let url = text(case, "authenticate_url_after_server_root")?;
        let challenge = url.split(['=', '&']).nth(2).unwrap_or_default();
        return equal("bytes of the challenge", challenge.len(), 43);
    }
    match verdict(case, result)? {
        Some(url) => equal("URL", url.as_str(), text(case, "authenticate_url_after_server_root")?),
        None => Ok(()),
    }
}

fn issuer(case: &Value) -> Result<(), String> {
    let key = issuer_key(text(case, "issuer")?);
    equal("accepted", key.is_ok(), flag(case, "ok")?)?;
    match key {
        Ok(key) => equal_bytes("key", key.as_bytes(), hex_bytes(case, "public_key")?),
        Err(_) => Ok(()),
    }
}
