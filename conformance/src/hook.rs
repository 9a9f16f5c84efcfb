//! How nodes of a foreign make are stopped and started: by a command of whoever started them.

use std::process::{Command, Stdio};

use crate::trouble::{Outcome, failed};

/// A command of the user. It is run by the shell, with the deed as `$1` and the address of the node as `$2`,
/// and returns when the deed is done.
#[derive(Clone, Debug)]
pub struct Hook {
    command: String,
}

/// What a hook is asked to do to a node.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// End it in order.
    Stop,
    /// End it at once, as a crash would.
    Kill,
    /// Start it again, on the same data and address, connected as before.
    Start,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Start => "start",
        }
    }
}

impl Hook {
    /// Takes a command.
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned() }
    }

    /// Runs it.
    pub async fn run(&self, deed: Deed, address: &str) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{} \"$@\"", self.command), "hook", deed.word(), address]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.status()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => failed(format!("the hook did not {} {address}: {status}", deed.word())),
            Ok(Err(error)) => failed(format!("the hook cannot be run: {error}")),
            Err(error) => failed(format!("the hook was not run: {error}")),
        }
    }
}
