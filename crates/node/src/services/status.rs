//! Errors of the engine as gRPC statuses with the codes of the existing service.

use std::fmt;

use dunlin_wesh::errors::{Code, Coded, Failure};
use tonic::Status;

use crate::CallError;

/// The status of an error with codes, outermost first (`spec/wesh-protocol.md` §8.2).
pub(super) fn coded(codes: &[Code], message: impl fmt::Display) -> Status {
    let innermost = Failure::uncoded(message);
    status(&codes.iter().rev().fold(innermost, |failure, code| failure.within(*code)))
}

/// The status of an argument that cannot be used.
pub(super) fn invalid(message: impl fmt::Display) -> Status {
    coded(&[Code::ErrInvalidInput], message)
}

/// The status of an error that knows its codes.
pub(super) fn refused(error: &impl Coded) -> Status {
    status(&Failure::from(error))
}

/// The status of a call that came to nothing.
pub fn status_of<E: Coded>(error: &CallError<E>) -> Status {
    match error {
        CallError::Refused(error) => refused(error),
        CallError::NotStored(error) => coded(&[Code::ErrDbWrite], error),
        CallError::Stopped => Status::unavailable("the node has stopped"),
    }
}

fn status(failure: &Failure) -> Status {
    let code = tonic::Code::from_i32(failure.grpc_code());
    Status::with_details(code, failure.to_string(), failure.to_rpc_status().into())
}
