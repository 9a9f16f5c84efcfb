//! Errors as gRPC tells them: a sentence for people, a word for programs.

use dunlin_base::kv::CommitError;
use dunlin_node::CallError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::links::LinkError;
use crate::text::NameError;
use crate::{MessengerError, Named};

/// The trailer with the word for programs.
const REASON: &str = "dunlin-reason";

pub(super) fn of_call(error: &CallError<MessengerError>) -> Status {
    match error {
        CallError::Refused(error) => of(error),
        CallError::NotStored(cause) => match **cause {
            CommitError::Full => status(Code::Unavailable, "disk-full", &cause.to_string()),
            _ => status(Code::Unavailable, "store-unwritable", &cause.to_string()),
        },
        other => status(Code::Unavailable, "stopped", &other.to_string()),
    }
}

pub(super) fn of(error: &MessengerError) -> Status {
    let (code, reason) = code_and_reason(error);
    status(code, reason, &error.to_string())
}

fn status(code: Code, reason: &'static str, sentence: &str) -> Status {
    let mut status = Status::new(code, sentence);
    status.metadata_mut().insert(REASON, MetadataValue::from_static(reason));
    status
}

/// The table at the head of `chat.proto`.
fn code_and_reason(error: &MessengerError) -> (Code, &'static str) {
    match error {
        MessengerError::Link(error) => of_link(error),
        MessengerError::LinkKind { .. } => (Code::InvalidArgument, "link-kind"),
        MessengerError::OwnLink => (Code::InvalidArgument, "own-link"),
        MessengerError::AlreadyKnown(_) => (Code::AlreadyExists, "already-known"),
        MessengerError::Name(NameError::Empty) => (Code::InvalidArgument, "name-empty"),
        MessengerError::Name(NameError::TooLong) => (Code::InvalidArgument, "name-too-long"),
        MessengerError::TextEmpty => (Code::InvalidArgument, "text-empty"),
        MessengerError::TextTooLong { .. } => (Code::InvalidArgument, "text-too-long"),
        MessengerError::Unknown { what: Named::Contact, .. } => (Code::NotFound, "contact-unknown"),
        MessengerError::Unknown { what: Named::Conversation, .. } => (Code::NotFound, "conversation-unknown"),
        MessengerError::Unknown { what: Named::Message, .. } => (Code::NotFound, "message-unknown"),
        MessengerError::Erased => (Code::NotFound, "message-erased"),
        MessengerError::Closed => (Code::FailedPrecondition, "message-closed"),
        MessengerError::Ambiguous { .. } => (Code::InvalidArgument, "reference-ambiguous"),
        MessengerError::ReferenceTooShort => (Code::InvalidArgument, "reference-too-short"),
        MessengerError::NotAContact(_) => (Code::FailedPrecondition, "not-a-contact"),
        MessengerError::NotAGroup => (Code::FailedPrecondition, "not-a-group"),
        MessengerError::Blocked(_) => (Code::FailedPrecondition, "contact-blocked"),
        MessengerError::NotBlocked(_) => (Code::FailedPrecondition, "contact-not-blocked"),
        MessengerError::NoRequest(_) => (Code::FailedPrecondition, "no-request"),
        MessengerError::Left(_) => (Code::FailedPrecondition, "left"),
        MessengerError::Read(_) => (Code::Unavailable, "store-unreadable"),
        MessengerError::Engine(_) => (Code::Internal, "internal"),
    }
}

fn of_link(error: &LinkError) -> (Code, &'static str) {
    match error {
        LinkError::PasswordNeeded => (Code::Unauthenticated, "password-needed"),
        LinkError::PasswordWrong => (Code::Unauthenticated, "password-wrong"),
        LinkError::NoLink | LinkError::TooLong | LinkError::WrongHost => (Code::InvalidArgument, "link-host"),
        LinkError::OtherVersion => (Code::InvalidArgument, "link-version"),
        LinkError::Incomplete => (Code::InvalidArgument, "link-incomplete"),
        LinkError::NotForSharing => (Code::InvalidArgument, "link-kind"),
        LinkError::Damaged | LinkError::Length { .. } | LinkError::Key(_) | LinkError::Group(_) => {
            (Code::InvalidArgument, "link-damaged")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_a_sentence_and_a_word() {
        let told = of(&MessengerError::Link(LinkError::PasswordNeeded));
        assert_eq!(told.code(), Code::Unauthenticated);
        assert_eq!(told.message(), "the link is protected: it needs its passphrase");
        assert_eq!(told.metadata().get(REASON).unwrap(), "password-needed");
    }

    #[test]
    fn every_word_is_in_the_table_of_the_service() {
        let table = include_str!("../../../proto/proto/dunlin/chat/v1/chat.proto");
        let (source, _tests) = include_str!("status.rs").split_once("mod tests").unwrap();
        let words: Vec<_> =
            source.split("(Code::").skip(1).filter_map(|rest| rest.split('"').nth(1)).collect();
        assert!(words.len() > 20);
        for word in words {
            assert!(table.contains(word), "{word}");
        }
    }
}
