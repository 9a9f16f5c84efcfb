//! Checks for the contact request handshake: `handshake.json`.
//!
//! Where this implementation is stricter than the producer, [`STRICTER`] says so.

use dunlin_base::frame::{split_frame, write_frame};
use dunlin_base::keys::{AgreementKey, SecretKey};
use dunlin_base::{AccountId, Time};
use dunlin_proto::protocol::ShareableContact;
use dunlin_wesh::contact::{Contact, ContactAction, ContactState, next_step};
use dunlin_wesh::errors::{Code, Coded};
use dunlin_wesh::handshake::{
    FRAME_BYTES_MAX, HandshakeAction, HandshakeError, PROTOCOL, Requester, Responder,
};
use prost::Message as _;
use serde_json::Value as Json;

use crate::json::{
    base64, base64_bytes, equal, equal_bytes, field, flag, hex_array, hex_bytes, label, last_code, list,
    number, text,
};
use crate::registry::{Check, VectorFile};
use crate::report::Report;

const NOW: Time = Time::from_secs(1_767_225_600);

/// Cases that are refused here although the producer accepts them, or refused for another reason.
const STRICTER: [(&str, Code, &str); 4] = [
    (
        "step 1: small-order ephemeral key (zero)",
        Code::ErrInvalidInput,
        "the key agreement has to be contributory (security.md C1)",
    ),
    (
        "step 1: small-order ephemeral key (one)",
        Code::ErrInvalidInput,
        "the key agreement has to be contributory (security.md C1)",
    ),
    (
        "step 3: secp256k1 account",
        Code::ErrDeserialization,
        "an account is an Ed25519 key, so it is refused when it is read (security.md C4)",
    ),
    (
        "message of exactly 2048 bytes",
        Code::ErrInvalidInput,
        "the frame fits, but the introduction is longer than 1 kB (security.md Q4)",
    ),
];

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "handshake").then_some(check)
}

fn check(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    let json = &file.json;
    report.check("constants", constants(json));
    let base = field(json, "base")?;
    for (position, case) in list(json, "transcripts")?.iter().enumerate() {
        report.check(format!("transcript {position}"), transcript(case));
    }
    for (position, case) in list(json, "requester_checks")?.iter().enumerate() {
        report.check(format!("requester {}", label(case, position)), requester_check(base, case));
    }
    for (position, case) in list(json, "responder_checks")?.iter().enumerate() {
        report.check(format!("responder {}", label(case, position)), responder_check(base, case));
    }
    for (position, case) in list(json, "incoming")?.iter().enumerate() {
        report.check(format!("incoming {}", label(case, position)), incoming(base, case));
    }
    for (name, _, reason) in STRICTER {
        report.leave_out(format!("the producer's verdict on {name:?}: {reason}"));
    }
    Ok(())
}

fn constants(json: &Json) -> Result<(), String> {
    equal("protocol", PROTOCOL, text(json, "protocol_id")?)?;
    equal("longest frame", FRAME_BYTES_MAX as u64, number(json, "max_message")?)
}

/// The keys of a transcript.
struct Parties {
    requester: SecretKey,
    requester_ephemeral: AgreementKey,
    responder: SecretKey,
    responder_ephemeral: AgreementKey,
}

impl Parties {
    fn read(case: &Json) -> Result<Self, String> {
        let agreement = |key| hex_array(case, key).map(AgreementKey::from_bytes);
        let account = |key| hex_array(case, key).map(SecretKey::from_seed);
        Ok(Self {
            requester: account("requester_account_seed")?,
            requester_ephemeral: agreement("requester_ephemeral_private")?,
            responder: account("responder_account_seed")?,
            responder_ephemeral: agreement("responder_ephemeral_private")?,
        })
    }

    fn requester(&self, introduction: &Contact) -> Requester {
        let responder = AccountId::new(self.responder.public());
        Requester::new(&self.requester, introduction, &responder, self.requester_ephemeral.clone(), NOW)
    }

    fn responder(&self) -> Responder {
        Responder::new(&self.responder, self.responder_ephemeral.clone(), NOW)
    }

    fn introduction(&self) -> Contact {
        Contact { account: AccountId::new(self.requester.public()), seed: None, metadata: Vec::new() }
    }
}

/// Both sides from their keys: every frame has the recorded bytes.
fn transcript(case: &Json) -> Result<(), String> {
    let parties = Parties::read(case)?;
    let ephemeral = parties.requester_ephemeral.public();
    equal_bytes("requester's ephemeral key", ephemeral, hex_bytes(case, "requester_ephemeral_public")?)?;
    let ephemeral = parties.responder_ephemeral.public();
    equal_bytes("responder's ephemeral key", ephemeral, hex_bytes(case, "responder_ephemeral_public")?)?;
    let message = ShareableContact::decode(&*base64_bytes(case, "contact")?).map_err(|e| e.to_string())?;
    let introduction = Contact::from_proto(message).map_err(|error| error.to_string())?;
    let (mut requester, mut responder) = (parties.requester(&introduction), parties.responder());
    let mut frames = list(case, "frames")?.to_vec();
    frames.push(field(case, "contact_frame")?.clone());
    let frames = framed(&frames)?;

    let mut sent = vec![Vec::new(); frames.len()];
    for (number, sent) in sent.iter_mut().enumerate() {
        let by_requester = [0, 2, 4, 5].contains(&number);
        let polled = if by_requester { requester.poll_action() } else { responder.poll_action() };
        let Some(HandshakeAction::Send(frame)) = polled else {
            return Err(format!("frame {} is not sent", number + 1));
        };
        let taken = if by_requester {
            responder.handle_frame(NOW, &frame)
        } else {
            requester.handle_frame(NOW, &frame)
        };
        taken.map_err(|error| error.to_string())?;
        write_frame(sent, &frame);
    }
    equal_frames(&sent, &frames)?;
    let ends = [requester.poll_action(), requester.poll_action(), requester.poll_action()];
    equal("requester ends", ends, [Some(HandshakeAction::Sent), Some(HandshakeAction::Close), None])?;
    let ends = [responder.poll_action(), responder.poll_action(), responder.poll_action()];
    let received = HandshakeAction::Received(introduction);
    equal("responder ends", ends, [Some(received), Some(HandshakeAction::Close), None])
}

/// A requester against recorded frames of a responder.
fn requester_check(base: &Json, case: &Json) -> Result<(), String> {
    let parties = Parties::read(base)?;
    let mut requester = parties.requester(&parties.introduction());
    let frames = framed(list(case, "responder_frames")?)?;
    let outcome = deliver(&frames, &mut |frame| requester.handle_frame(NOW, frame));
    let mut sent = Vec::new();
    let mut is_sent = false;
    while let Some(action) = requester.poll_action() {
        match action {
            HandshakeAction::Send(frame) => sent.push(frame),
            HandshakeAction::Sent => is_sent = true,
            HandshakeAction::Received(_) => return Err("a requester receives nobody".into()),
            HandshakeAction::Close => {}
        }
    }
    if is_sent {
        // The introduction comes after what the recorded handshake covers.
        sent.pop();
    }
    compare_outcome(case, outcome, is_sent)?;
    equal_frames(
        &sent.iter().map(|frame| prefixed(frame)).collect::<Vec<_>>(),
        &framed(list(case, "requester_frames")?)?,
    )
}

/// A responder against recorded frames of a requester.
fn responder_check(base: &Json, case: &Json) -> Result<(), String> {
    let mut responder = Parties::read(base)?.responder();
    let frames = framed(list(case, "requester_frames")?)?;
    let outcome = deliver(&frames, &mut |frame| responder.handle_frame(NOW, frame));
    let requester = responder.requester();
    let acknowledged = frames.len() == 3 && outcome.is_ok();
    compare_outcome(case, outcome, acknowledged)?;
    if stricter(case)?.is_some() {
        return Ok(());
    }
    if acknowledged {
        let wanted = hex_bytes(case, "peer_account_pk")?;
        equal("requester", requester.map(|account| account.as_bytes().to_vec()), Some(wanted))?;
    }
    let sent: Vec<_> = std::iter::from_fn(|| responder.poll_action())
        .filter_map(|action| match action {
            HandshakeAction::Send(frame) => Some(prefixed(&frame)),
            _ => None,
        })
        .collect();
    equal_frames(&sent, &framed(list(case, "responder_frames")?)?)
}

/// What a responder does with the introduction that follows a good handshake, and what it writes then.
fn incoming(base: &Json, case: &Json) -> Result<(), String> {
    let parties = Parties::read(base)?;
    let mut responder = parties.responder();
    let mut frames = framed(list(base, "frames")?)?;
    frames = frames.into_iter().step_by(2).collect();
    frames.push(base64_bytes(case, "contact_frame")?);
    let outcome = deliver(&frames, &mut |frame| responder.handle_frame(NOW, frame));
    let contact = std::iter::from_fn(|| responder.poll_action()).find_map(|action| match action {
        HandshakeAction::Received(contact) => Some(contact),
        _ => None,
    });
    if outcome.is_err() || contact.is_none() {
        return compare_outcome(case, outcome, false);
    }
    let contact = contact.ok_or("no contact is received")?;
    let own = AccountId::new(parties.responder.public());
    match next_step(&own, &contact.account, state_before(text(case, "label")?), ContactAction::Receive) {
        Ok(step) => {
            equal("allowed", true, flag(case, "ok")?)?;
            let event = i32::from(step.event_type());
            equal("event", i64::from(event), field(case, "event_type")?.as_i64().unwrap_or_default())?;
            let state = format!("{:?}", step.state());
            equal("state after", state.as_str(), text(case, "state_after")?)?;
            if event == 108 { introduction_fields(&contact, field(case, "event_fields")?) } else { Ok(()) }
        }
        Err(refusal) => {
            equal("allowed", false, flag(case, "ok")?)?;
            let code = refusal.codes().last().map(|code| i64::from(i32::from(*code)) as u64);
            equal("code", code, last_code(case))
        }
    }
}

/// What the event about an incoming request takes from the introduction.
fn introduction_fields(contact: &Contact, fields: &Json) -> Result<(), String> {
    let optional = |key| fields.get(key).map_or(Ok(Vec::new()), |_| base64_bytes(fields, key));
    equal_bytes("key", contact.account.as_bytes(), base64_bytes(fields, "contact_pk")?)?;
    let seed = contact.seed.map(Vec::from).unwrap_or_default();
    equal_bytes("seed", seed, optional("contact_rendezvous_seed")?)?;
    equal_bytes("metadata", &contact.metadata, optional("contact_metadata")?)
}

/// The state that the label of an incoming case tells of.
fn state_before(label: &str) -> Option<ContactState> {
    match label {
        "already requested by the responder: mutual request" => Some(ContactState::ToRequest),
        "already received" => Some(ContactState::Received),
        "blocked" => Some(ContactState::Blocked),
        "already added" => Some(ContactState::Added),
        "discarded before" => Some(ContactState::Discarded),
        _ => None,
    }
}

/// How far a side got: failed with codes, or took all frames.
type Outcome = Result<(), Vec<Code>>;

/// Gives recorded frames to a side, as its shell would.
fn deliver(frames: &[Vec<u8>], take: &mut dyn FnMut(&[u8]) -> Result<(), HandshakeError>) -> Outcome {
    for frame in frames {
        match split_frame(frame, FRAME_BYTES_MAX) {
            Ok(Some((body, []))) => take(body).map_err(|error| error.codes())?,
            _ => return Err(vec![Code::ErrStreamRead]),
        }
    }
    Ok(())
}

/// Compares with the recorded verdict. A side that took all frames and is not done waits for one that does
/// not come, which the producer records as a failed read.
fn compare_outcome(case: &Json, outcome: Outcome, done: bool) -> Result<(), String> {
    let last = match &outcome {
        Err(codes) => codes.last().copied(),
        Ok(()) if !done => Some(Code::ErrStreamRead),
        Ok(()) => None,
    };
    let number = last.map(|code| i64::from(i32::from(code)) as u64);
    let failed = outcome.is_err() || !done;
    if let Some(code) = stricter(case)? {
        equal("refused", failed, true)?;
        return equal("code", last, Some(code));
    }
    equal("fails", failed, !flag(case, "ok")?)?;
    // What fails only after the handshake has no code in the records.
    if last_code(case).is_none() { Ok(()) } else { equal("code", number, last_code(case)) }
}

fn stricter(case: &Json) -> Result<Option<Code>, String> {
    let name = text(case, "label")?;
    Ok(STRICTER.iter().find(|(prefix, _, _)| name.starts_with(prefix)).map(|(_, code, _)| *code))
}

fn framed(frames: &[Json]) -> Result<Vec<Vec<u8>>, String> {
    frames.iter().map(|frame| base64(frame.as_str().ok_or("a frame is no text")?)).collect()
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, body);
    frame
}

fn equal_frames(got: &[Vec<u8>], wanted: &[Vec<u8>]) -> Result<(), String> {
    equal("number of frames", got.len(), wanted.len())?;
    for (number, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        equal_bytes(&format!("frame {number}"), got, wanted)?;
    }
    Ok(())
}
