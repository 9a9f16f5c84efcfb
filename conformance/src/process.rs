//! Nodes that the suite starts itself: `dunlin node` on loopback, in directories of their own.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::trouble::{Outcome, Trouble, failed};
use crate::wait::Patience;

/// How long a process may take to put everything in order when it is told to end.
const END_WITHIN: Duration = Duration::from_secs(20);

/// What a process is started with each time.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Where its data are.
    pub directory: PathBuf,
    /// An archive that it takes over at its first start.
    pub import: Option<PathBuf>,
}

/// A process that has said that it is ready.
pub struct Process {
    child: Child,
    /// Where its service is.
    pub grpc: String,
    /// Where its host listens, each with its peer id.
    pub addresses: Vec<String>,
}

impl Process {
    /// Starts a node that stays connected with these peers.
    pub async fn start(recipe: &Recipe, peers: &[String], patience: Patience) -> Outcome<Self> {
        let failed_to = |error: std::io::Error| {
            Trouble::Failed(format!("{} does not start: {error}", recipe.program.display()))
        };
        std::fs::create_dir_all(&recipe.directory).map_err(failed_to)?;
        let log = recipe.directory.with_extension("log");
        let errors = File::options().create(true).append(true).open(&log).map_err(failed_to)?;
        let mut command = Command::new(&recipe.program);
        command.arg("--data-dir").arg(&recipe.directory).args(["node", "--name", "conformance"]);
        command.args(["--profile", "wesh", "--grpc", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        for peer in peers {
            command.args(["--connect", peer]);
        }
        if let Some(archive) = &recipe.import {
            command.arg("--import").arg(archive);
        }
        let filter = std::env::var("DUNLIN_LOG").unwrap_or_else(|_| "warn".to_owned());
        command.args(["--log", &filter]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = command.spawn().map_err(failed_to)?;
        let output = child.stdout.take();
        // From here on, the process ends with this value.
        let mut process = Self { child, grpc: String::new(), addresses: Vec::new() };
        let ready = match output {
            Some(output) => timeout(patience.span(), spawn_blocking(move || ready_line(output))).await,
            None => return failed("a process was started without output"),
        };
        let Ok(Ok(Some(ready))) = ready else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return failed(format!("{} did not get ready; it said: {said}", recipe.program.display()));
        };
        process.grpc = ready.pointer("/grpc").and_then(Value::as_str).unwrap_or_default().to_owned();
        let listen = ready.pointer("/listen").and_then(Value::as_array).into_iter().flatten();
        process.addresses = listen.filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(process)
    }

    /// Ends it as a user would.
    pub async fn stop(mut self) -> Outcome {
        self.signal("TERM")?;
        let ended = async || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        Patience::of(END_WITHIN).until("a process to end", ended).await
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) -> Outcome {
        match self.child.kill().and_then(|()| self.child.wait()) {
            Ok(_) => Ok(()),
            Err(error) => failed(format!("a process cannot be killed: {error}")),
        }
    }

    fn signal(&self, signal: &str) -> Outcome {
        let told = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        match told {
            Ok(status) if status.success() => Ok(()),
            _ => failed(format!("a process cannot be sent SIG{signal}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The line of JSON in which a node says where it is.
fn ready_line(output: ChildStdout) -> Option<Value> {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// The program that lies beside this one.
pub fn program_beside() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.with_file_name(format!("dunlin{}", std::env::consts::EXE_SUFFIX));
    Path::is_file(&beside).then_some(beside)
}
