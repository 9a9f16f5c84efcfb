//! Why a scenario did not pass.

use std::fmt;
use std::time::Duration;

use dunlin_proto::errcode::{ErrCode, ErrDetails};
use prost::Message;
use tonic::Status;

/// What ends a scenario before its end.
#[derive(Debug)]
pub enum Trouble {
    /// A node did something else than the protocol says.
    Failed(String),
    /// The scenario needs what these nodes, or whoever started them, do not offer.
    LeftOut(String),
}

/// What a scenario ends with.
pub type Outcome<T = ()> = Result<T, Trouble>;

/// Fails with a sentence.
pub fn failed<T>(sentence: impl Into<String>) -> Outcome<T> {
    Err(Trouble::Failed(sentence.into()))
}

/// Leaves the scenario out, for a reason.
pub fn left_out<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Trouble::LeftOut(reason.into()))
}

/// Fails with a sentence unless something holds.
pub fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { failed(sentence()) }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(sentence) => f.write_str(sentence),
            Self::LeftOut(reason) => f.write_str(reason),
        }
    }
}

/// A call that a node refused, or did not answer.
#[derive(Debug)]
pub struct Refusal {
    node: String,
    call: &'static str,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Refused(Status),
    Silent(Duration),
}

impl Refusal {
    /// The node answered with an error.
    pub fn refused(node: &str, call: &'static str, status: Status) -> Self {
        Self { node: node.to_owned(), call, why: Why::Refused(status) }
    }

    /// The node did not answer in time.
    pub fn silent(node: &str, call: &'static str, waited: Duration) -> Self {
        Self { node: node.to_owned(), call, why: Why::Silent(waited) }
    }

    /// The gRPC status, if one came.
    pub fn status(&self) -> Option<&Status> {
        match &self.why {
            Why::Refused(status) => Some(status),
            Why::Silent(_) => None,
        }
    }

    /// The codes, outermost first.
    pub fn codes(&self) -> Vec<i32> {
        self.status().map(codes_of).unwrap_or_default()
    }

    /// The code that decides.
    pub fn last_code(&self) -> Option<ErrCode> {
        self.codes().last().and_then(|code| ErrCode::try_from(*code).ok())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ", self.node, self.call)?;
        match &self.why {
            Why::Silent(waited) => write!(f, "was not answered within {:.0} s", waited.as_secs_f64()),
            Why::Refused(status) => {
                let codes = codes_of(status);
                write!(f, "was refused with {:?}, codes {codes:?}: {}", status.code(), status.message())
            }
        }
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.to_string())
    }
}

/// `google.rpc.Status`, in which the codes travel.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The codes in a status, outermost first.
pub fn codes_of(status: &Status) -> Vec<i32> {
    let Ok(rpc) = RpcStatus::decode(status.details()) else { return Vec::new() };
    let details = rpc.details.iter().find(|detail| detail.type_url.ends_with("weshnet.errcode.ErrDetails"));
    let decoded = details.and_then(|detail| ErrDetails::decode(&*detail.value).ok());
    decoded.map(|details| details.codes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_code_of_a_status_decides() {
        let value = ErrDetails { codes: vec![1002, 1201] }.encode_to_vec();
        let type_url = "type.googleapis.com/weshnet.errcode.ErrDetails".to_owned();
        let rpc = RpcStatus { details: vec![Detail { type_url, value }] };
        let status = Status::with_details(tonic::Code::Unavailable, "x", rpc.encode_to_vec().into());

        let refusal = Refusal::refused("node 1", "Call", status);

        assert_eq!(refusal.codes(), [1002, 1201]);
        assert_eq!(refusal.last_code(), Some(ErrCode::ErrContactRequestContactAlreadyAdded));
    }

    #[test]
    fn a_status_without_details_has_no_codes() {
        assert!(codes_of(&Status::unknown("x")).is_empty());
        let garbage = Status::with_details(tonic::Code::Unknown, "x", vec![0xff; 9].into());
        assert!(codes_of(&garbage).is_empty());
    }
}
