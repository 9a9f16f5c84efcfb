//! Checks for rotation tokens: `rotation.json`.

use dunlin_base::cid::{CODEC_RAW, cid_of};
use dunlin_base::{AccountId, Span, Time};
use dunlin_proto::protocol;
use dunlin_wesh::group::Group;
use dunlin_wesh::rotation;
use prost::Message as _;
use serde_json::Value as Json;

use crate::json::{base64_bytes, equal, equal_bytes, field, hex_array, hex_bytes, label, list, number, text};
use crate::registry::{Check, VectorFile};
use crate::report::Report;

/// The interval of the Berty application.
pub const DAY: Option<Span> = Some(Span::from_secs(86_400));

/// The check for `file`, if it is one of this family.
pub fn check_for(file: &VectorFile) -> Option<Check> {
    (file.is_wesh() && file.stem() == "rotation").then_some(check)
}

fn check(file: &VectorFile, report: &mut Report) -> Result<(), String> {
    type CheckCase = fn(&Json) -> Result<(), String>;
    let sections: [(&str, CheckCase); 4] =
        [("rounding", rounding), ("tokens", token), ("contact_rendezvous", contact), ("heads", heads)];
    for (section, check) in sections {
        for (position, case) in list(&file.json, section)?.iter().enumerate() {
            report.check(format!("{section} {}", label(case, position)), check(case));
        }
    }
    report.leave_out("emitter_channel: belongs to the rendezvous client, which does not exist yet");
    Ok(())
}

fn rounding(case: &Json) -> Result<(), String> {
    // Go takes the magnitude of a negative interval; a span has no sign.
    let nanos = field(case, "interval_ns")?.as_i64().ok_or("\"interval_ns\" is no number")?.unsigned_abs();
    let interval = Some(Span::from_millis(nanos / 1_000_000));
    let now = Time::from_secs(number(case, "unix_time")?);
    equal("start", rotation::period_start(now, interval), number(case, "period_start")?)
}

fn token(case: &Json) -> Result<(), String> {
    let interval = Some(Span::from_secs(number(case, "interval_s")?));
    let now = Time::from_secs(number(case, "unix_time")?);
    let start = rotation::period_start(now, interval);
    equal("start", start, number(case, "period_start")?)?;
    let end = rotation::period_end(now, interval).map(Time::as_secs);
    equal("end", end, Some(number(case, "next_period")?))?;
    let got = rotation::token(&base64_bytes(case, "topic")?, &base64_bytes(case, "rdv_seed")?, start);
    equal_bytes("token", got.as_bytes(), hex_bytes(case, "token")?)
}

fn contact(case: &Json) -> Result<(), String> {
    let account =
        AccountId::from_bytes(&hex_bytes(case, "account_pk")?).map_err(|error| error.to_string())?;
    let seed = hex_array(case, "rdv_seed")?;
    let now = Time::from_secs(number(case, "unix_time")?);
    equal("topic", rotation::contact_topic(&account).as_str(), text(case, "topic_string")?)?;
    for (name, interval) in [("static", None), ("day", DAY)] {
        let wanted = field(case, name)?;
        let token = rotation::contact_token(&account, &seed, now, interval);
        equal_bytes("token", token.as_bytes(), hex_bytes(wanted, "token")?)?;
        let namespace = token.namespace();
        equal("namespace", namespace.as_str(), text(wanted, "namespace")?)?;
        let record = cid_of(CODEC_RAW, namespace.as_bytes()).to_string();
        equal("DHT record", record.as_str(), text(wanted, "dht_cid")?)?;
        if let Some(end) = rotation::period_end(now, interval) {
            equal("deadline", end.as_secs(), number(wanted, "deadline")?)?;
        }
        let found = rotation::announced_contact_names(&account, &seed, now, interval, Span::default());
        let sought = rotation::sought_contact_names(&account, &seed, now, interval);
        equal("announced first", found.first(), Some(&namespace))?;
        equal("sought first", sought.first(), Some(&namespace))?;
    }
    Ok(())
}

fn heads(case: &Json) -> Result<(), String> {
    let group = protocol::Group::decode(&*base64_bytes(case, "group")?).map_err(|error| error.to_string())?;
    let group = Group::from_proto(&group).map_err(|error| error.to_string())?;
    equal_bytes("link key", group.link_key().as_bytes(), hex_bytes(case, "link_key")?)?;
    let address = text(case, "address")?;
    let now = Time::from_secs(number(case, "unix_time")?);
    for (name, interval) in [("static_token", None), ("day_token", DAY)] {
        let token = rotation::heads_token(address, group.link_key(), now, interval);
        equal_bytes(name, token.as_bytes(), hex_bytes(case, name)?)?;
        let mut accepted = rotation::accepted_heads_tokens(address, group.link_key(), now, DAY);
        if !accepted.any(|accepted| accepted == token) {
            return Err(format!("{name} is not accepted"));
        }
    }
    equal("topic", address, text(case, "gossipsub_topic")?)?;
    let record = cid_of(CODEC_RAW, text(case, "discovery_namespace")?.as_bytes()).to_string();
    equal("DHT record", record.as_str(), text(case, "discovery_dht_cid")?)
}
