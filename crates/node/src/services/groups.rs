//! Which group a call is about, and how it is refused when that is none in use.

use dunlin_base::GroupId;
use dunlin_wesh::engine::CommandError;
use dunlin_wesh::errors::Code;
use tonic::Status;

use super::status::{coded, invalid, status_of};
use crate::CallError;

/// The key of a group that has to be in use; `around` is what the call puts around the cause.
///
/// What is no key names no group in use either, and is refused with the same codes.
pub(super) fn used(around: &[Code], bytes: &[u8]) -> Result<GroupId, Status> {
    if bytes.is_empty() {
        return Err(coded(&[around, &[Code::ErrInternal]].concat(), "group_pk is needed"));
    }
    GroupId::from_bytes(bytes).map_err(|error| unused(around, format!("group_pk: {error}")))
}

/// The key of a group, whether it is in use or not.
pub(super) fn named(bytes: &[u8]) -> Result<GroupId, Status> {
    GroupId::from_bytes(bytes).map_err(|error| invalid(format!("group_pk: {error}")))
}

/// The status of a call about a group that has to be in use.
pub(super) fn status_in_use(around: &[Code], error: &CallError<CommandError>) -> Status {
    match error {
        CallError::Refused(CommandError::NotActive) => unused(around, error),
        other => status_of(other),
    }
}

fn unused(around: &[Code], cause: impl std::fmt::Display) -> Status {
    coded(&[around, &[Code::ErrGroupUnknown]].concat(), cause)
}
