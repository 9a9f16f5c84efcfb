//! How the program ends when it could not do what it was asked to.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use tonic::{Code, Status};

/// Where a service puts the one word for programs, beside the sentence for the user.
const REASON: &str = "dunlin-reason";

/// What [`Exit`] means, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, for the reason told
  2  the command line is wrong
  3  no node is running on this data directory
  4  there is no such contact, conversation, message or peer, or several fit
  5  refused, and nothing has changed: a bad, own or known link, a blocked contact, ...
  6  the data directory cannot be used: in use, from a newer version, locked, full, ...

Names: a contact or a conversation is named by its name, by the beginning of it, or by
6 or more digits of its id; a message by the id that `dunlin read` shows.";

/// The exit codes, which scripts rely on: a number never changes its meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It did not work out, and none of the others says why.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No node is running on the data directory.
    NoNode = 3,
    /// What was named does not exist, or several things fit.
    NotFound = 4,
    /// The node refused, and nothing has changed.
    Refused = 5,
    /// The data directory cannot be used.
    DataDir = 6,
}

/// A sentence for the user that says what is wrong and what to do, and the exit code for scripts.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    exit: Exit,
    sentence: String,
}

impl Failure {
    /// Ends the program with `exit` and `sentence`.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into() }
    }

    /// Ends the program with a sentence and no further meaning.
    pub fn told(sentence: impl Into<String>) -> Self {
        Self::new(Exit::Failed, sentence)
    }

    /// Ends the program because `doing` something on the disk failed.
    pub fn disk(doing: impl fmt::Display, error: &std::io::Error) -> Self {
        let remedy = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                "Make room on the disk and try again."
            }
            ErrorKind::PermissionDenied => "Use a directory that is yours: --data-dir DIR.",
            _ => "Look at the disk, or use another directory: --data-dir DIR.",
        };
        Self::new(Exit::DataDir, format!("{doing} failed: {error}. {remedy}"))
    }

    /// What scripts see.
    #[cfg(test)]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::new(exit_of(&status), sentence_of(&status))
    }
}

/// The one word for programs that a service added to its refusal; empty when there is none.
pub fn reason_of(status: &Status) -> &str {
    status.metadata().get(REASON).and_then(|reason| reason.to_str().ok()).unwrap_or_default()
}

/// What a refused call means to whoever started the program.
fn exit_of(status: &Status) -> Exit {
    match (status.code(), reason_of(status)) {
        (_, "reference-ambiguous" | "reference-too-short") => Exit::NotFound,
        (_, "disk-full" | "store-unreadable" | "store-unwritable") => Exit::DataDir,
        // The node is about to end, or the transport says that the process is gone.
        (_, "stopped") | (Code::Unavailable | Code::Cancelled, "") => Exit::NoNode,
        (Code::NotFound, _) => Exit::NotFound,
        (Code::AlreadyExists | Code::FailedPrecondition, _) => Exit::Refused,
        (Code::InvalidArgument | Code::Unauthenticated, _) => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// The service's own sentence, or one for what only the transport knows.
pub fn sentence_of(status: &Status) -> String {
    match (status.code(), reason_of(status)) {
        (Code::Unavailable | Code::Cancelled, "") => {
            "The node ended while it was asked. Start it again: dunlin node.".to_owned()
        }
        (Code::Unimplemented, _) => {
            "The running node is of another version and does not know this command. Restart it.".to_owned()
        }
        _ if status.message().is_empty() => {
            format!("The node failed without a reason ({:?}).", status.code())
        }
        _ => as_sentence(status.message()),
    }
}

/// Begins with a capital and ends with a stop.
pub fn as_sentence(message: &str) -> String {
    let message = message.trim();
    let mut letters = message.chars();
    // Only a plain word is changed: a name, a link or a quoted word stays as it is.
    let plain = message.split(' ').next().is_some_and(|word| word.chars().all(|c| c.is_ascii_lowercase()));
    let mut sentence: String = match letters.next() {
        Some(first) if plain => first.to_uppercase().chain(letters).collect(),
        _ => message.to_owned(),
    };
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, reason: &str, message: &str) -> Status {
        let mut status = Status::new(code, message);
        if !reason.is_empty() {
            status.metadata_mut().insert(REASON, reason.parse().unwrap());
        }
        status
    }

    #[test]
    fn a_reason_decides_the_exit_code() {
        let exit = |code, reason| Failure::from(refused(code, reason, "no")).exit();
        assert_eq!(exit(Code::InvalidArgument, "own-link"), Exit::Refused);
        assert_eq!(exit(Code::InvalidArgument, "link-damaged"), Exit::Refused);
        assert_eq!(exit(Code::AlreadyExists, "already-known"), Exit::Refused);
        assert_eq!(exit(Code::InvalidArgument, "reference-ambiguous"), Exit::NotFound);
        assert_eq!(exit(Code::NotFound, "contact-unknown"), Exit::NotFound);
        assert_eq!(exit(Code::Unavailable, "disk-full"), Exit::DataDir);
        assert_eq!(exit(Code::Unavailable, "peer-unreachable"), Exit::Failed);
        assert_eq!(exit(Code::Unavailable, ""), Exit::NoNode);
        assert_eq!(exit(Code::Internal, "internal"), Exit::Failed);
    }

    #[test]
    fn what_a_service_says_becomes_a_sentence() {
        let told = |message| sentence_of(&refused(Code::NotFound, "contact-unknown", message));
        assert_eq!(told("there is no contact Ben"), "There is no contact Ben.");
        assert_eq!(told("Is this a link?"), "Is this a link?");
        assert_eq!(told("dunlin:x is no link."), "dunlin:x is no link.");
        assert_eq!(told(""), "The node failed without a reason (NotFound).");
    }
}
