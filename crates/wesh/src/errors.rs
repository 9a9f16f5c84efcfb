//! Error codes of the service, and the chain of them that a failed call answers with
//! (`spec/wesh-protocol.md` §8.2, Appendix B).
//!
//! ```
//! use dunlin_wesh::errors::{Code, Failure};
//!
//! let failure = Failure::new(Code::ErrInvalidInput).within(Code::ErrOrbitDbAppend);
//! assert_eq!(failure.to_string(), "ErrOrbitDBAppend(#1002): ErrInvalidInput(#100)");
//! assert_eq!(failure.last(), Some(Code::ErrInvalidInput));
//! ```

use std::fmt;

pub use dunlin_proto::errcode::ErrCode as Code;
use dunlin_proto::errcode::ErrDetails;
use prost::Message;

/// gRPC status of a failure that has a code.
pub const GRPC_UNAVAILABLE: i32 = 14;
/// gRPC status of a failure that has none.
pub const GRPC_UNKNOWN: i32 = 2;

/// The type under which [`ErrDetails`] stand in a gRPC status.
const DETAILS_TYPE_URL: &str = "type.googleapis.com/weshnet.errcode.ErrDetails";

/// An error to which the service has codes.
pub trait Coded: std::error::Error {
    /// The codes, outermost first. Callers compare the last one; the others tell the way it took.
    fn codes(&self) -> Vec<Code>;
}

/// What a failed call answers: codes, outermost first, and a text that names them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    codes: Vec<Code>,
    text: String,
}

impl Failure {
    /// Begins with the innermost code.
    pub fn new(code: Code) -> Self {
        Self { codes: vec![code], text: named(code) }
    }

    /// Begins with a cause that has no code of its own.
    pub fn uncoded(cause: impl fmt::Display) -> Self {
        Self { codes: Vec::new(), text: cause.to_string() }
    }

    /// Puts `code` around it.
    #[must_use]
    pub fn within(mut self, code: Code) -> Self {
        self.codes.insert(0, code);
        self.explained(named(code))
    }

    /// Puts words in front of the text.
    #[must_use]
    pub fn explained(mut self, words: impl fmt::Display) -> Self {
        self.text = format!("{words}: {}", self.text);
        self
    }

    /// The codes, outermost first.
    pub fn codes(&self) -> &[Code] {
        &self.codes
    }

    /// The innermost code: the one that says what happened.
    pub fn last(&self) -> Option<Code> {
        self.codes.last().copied()
    }

    /// The status number of gRPC: [`GRPC_UNAVAILABLE`], or [`GRPC_UNKNOWN`] when there is no code.
    pub fn grpc_code(&self) -> i32 {
        if self.codes.is_empty() { GRPC_UNKNOWN } else { GRPC_UNAVAILABLE }
    }

    /// The detail that goes with the status.
    pub fn details(&self) -> ErrDetails {
        ErrDetails { codes: self.codes.iter().map(|code| i32::from(*code)).collect() }
    }

    /// A serialized `google.rpc.Status`: what gRPC carries in `grpc-status-details-bin`.
    pub fn to_rpc_status(&self) -> Vec<u8> {
        let details =
            ErrDetailsAny { type_url: DETAILS_TYPE_URL.into(), value: self.details().encode_to_vec() };
        let status = RpcStatus {
            code: self.grpc_code(),
            message: self.text.clone(),
            details: if self.codes.is_empty() { Vec::new() } else { vec![details] },
        };
        status.encode_to_vec()
    }
}

impl<E: Coded> From<&E> for Failure {
    /// The codes of the error, and its own words as the innermost cause.
    fn from(error: &E) -> Self {
        let innermost = Self::uncoded(error);
        error.codes().into_iter().rev().fold(innermost, Self::within)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// A code as the text names it.
fn named(code: Code) -> String {
    format!("{}(#{})", code.as_str_name(), i32::from(code))
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<ErrDetailsAny>,
}

/// `google.protobuf.Any`, holding [`ErrDetails`].
#[derive(Clone, PartialEq, Message)]
struct ErrDetailsAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the sea is rough")]
    struct Rough;

    impl Coded for Rough {
        fn codes(&self) -> Vec<Code> {
            vec![Code::ErrStreamWrite, Code::ErrInternal]
        }
    }

    #[test]
    fn a_coded_error_becomes_a_chain() {
        let failure = Failure::from(&Rough);
        assert_eq!(failure.codes(), [Code::ErrStreamWrite, Code::ErrInternal]);
        assert_eq!(failure.to_string(), "ErrStreamWrite(#106): ErrInternal(#888): the sea is rough");
        assert_eq!(failure.details().codes, [106, 888]);
        assert_eq!(failure.grpc_code(), GRPC_UNAVAILABLE);
    }

    #[test]
    fn without_a_code_there_is_no_detail() {
        let failure = Failure::uncoded("no code");
        assert_eq!((failure.last(), failure.grpc_code()), (None, GRPC_UNKNOWN));
        assert_eq!(failure.to_rpc_status(), b"\x08\x02\x12\x07no code");
    }

    #[test]
    fn words_between_do_not_count() {
        let failure = Failure::new(Code::ErrGroupUnknown).explained("text between").within(Code::ErrInternal);
        assert_eq!(failure.to_string(), "ErrInternal(#888): text between: ErrGroupUnknown(#1310)");
        assert_eq!(failure.details().codes, [888, 1310]);
    }
}
