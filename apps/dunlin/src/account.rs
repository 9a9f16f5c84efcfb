//! `dunlin account`: what concerns the account as a whole.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_proto::chat::GetProfileRequest;
use dunlin_proto::dunlin::device::v1::ExportRequest;
use dunlin_proto::dunlin::node::v1::InfoRequest;
use dunlin_store::{Destruction, OpenError};
use serde_json::json;
use tokio::time::Instant;
use tokio_stream::StreamExt;

use crate::cli::AccountCommand;
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::output::Output;
use crate::passphrase;

/// How long a node may take to end before it is ended: nothing that it still writes can be read again.
const NODE_ENDS_MAX: Duration = Duration::from_secs(10);
/// How long the system may take to end it.
const NODE_IS_ENDED_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// What is typed where the name of the account cannot be known.
const YES: &str = "delete";
/// Files of others that are named.
const LEFT_NAMED_MAX: usize = 8;

type Outcome = Result<(), Failure>;

/// Runs the command.
pub async fn run(home: &Home, command: AccountCommand, out: &mut Output) -> Outcome {
    match command {
        AccountCommand::Export { file, passphrase_file } => {
            export(Client::connect(home).await?, &file, passphrase_file.as_deref(), out).await
        }
        AccountCommand::Delete { yes } => {
            expect_account(home)?;
            let client = Client::find(home).await;
            if !yes {
                ask(home, client.clone()).await?;
            }
            destroy(home, client, out).await
        }
        AccountCommand::Wipe => {
            expect_account(home)?;
            // Before anybody is asked for anything, who may not answer.
            let destroyed = dunlin_store::destroy_key(home.path());
            let client = Client::find(home).await;
            destroyed.map_err(|error| not_destroyed(home, &error))?;
            destroy(home, client, out).await
        }
    }
}

fn expect_account(home: &Home) -> Outcome {
    if home.holds_what_can_be_deleted() {
        return Ok(());
    }
    let told = format!(
        "There is no account in {}. If it is elsewhere, say where: --data-dir DIR.",
        home.path().display()
    );
    Err(Failure::new(Exit::DataDir, told))
}

/// Asks whether this is meant, in a way that nobody answers by accident.
async fn ask(home: &Home, client: Option<Client>) -> Outcome {
    let dir = home.path().display();
    if !io::stdin().is_terminal() {
        let told = format!(
            "This would delete the account in {dir}, and nobody is there to be asked. If it is meant: --yes."
        );
        return Err(Failure::new(Exit::Usage, told));
    }
    let name = match client {
        Some(mut client) => client.chat.get_profile(GetProfileRequest {}).await?.into_inner().name,
        None => String::new(),
    };
    let (what, word) = match name.as_str() {
        "" => (String::new(), YES),
        name => (format!(" {name}"), name),
    };
    eprintln!(
        "This deletes the account{what} from this device, for good: its keys, its messages, its settings, in {dir}.\n\
         Nobody is told. Other devices of the account keep it; without one, or an export, it is lost."
    );
    eprint!("Type {} to go on: ", crate::output::harmless(word));
    let unreadable = |error: io::Error| Failure::told(format!("The answer cannot be read: {error}."));
    io::stderr().flush().map_err(unreadable)?;
    let mut typed = String::new();
    io::stdin().read_line(&mut typed).map_err(unreadable)?;
    if typed.trim() == word.trim() {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, "That was something else. Nothing is deleted."))
}

/// Destroys the key, then ends the node, then removes the rest. What is broken off here can be finished by the same
/// command.
async fn destroy(home: &Home, client: Option<Client>, out: &mut Output) -> Outcome {
    let dir = home.path();
    dunlin_store::destroy_key(dir).map_err(|error| not_destroyed(home, &error))?;
    let destruction = alone(home, client).await?;
    tokio::task::spawn_blocking(move || destruction.run())
        .await
        .map_err(|error| Failure::told(format!("Deleting failed: {error}.")))?
        .map_err(|error| Failure::disk(format_args!("Removing what is in {}", dir.display()), &error))?;
    let left = left_in(dir);
    let told = match left.as_slice() {
        [] => format!("The account in {} is deleted.", dir.display()),
        left => format!(
            "The account in {} is deleted. What is not Dunlin's is left there: {}.",
            dir.display(),
            left.join(", ")
        ),
    };
    out.say(json!({ "deleted": dir, "left": left }), told)
}

fn not_destroyed(home: &Home, error: &io::Error) -> Failure {
    Failure::disk(format_args!("Destroying the key in {}", home.path().display()), error)
}

/// Waits until no process has the directory open any more, and sees to that.
async fn alone(home: &Home, client: Option<Client>) -> Result<Destruction, Failure> {
    let dir = home.path();
    let pid = match client {
        Some(client) => pid_of(client).await,
        None => None,
    };
    for (urgency, patience) in [(Urgency::Ask, NODE_ENDS_MAX), (Urgency::End, NODE_IS_ENDED_MAX)] {
        if let Some(pid) = pid {
            end(pid, urgency);
        }
        let started = Instant::now();
        while started.elapsed() < patience {
            match home.destruction() {
                Ok(destruction) => return Ok(destruction),
                Err(OpenError::InUse) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(OpenError::Io(error)) => {
                    return Err(Failure::disk(format_args!("Opening {}", dir.display()), &error));
                }
                Err(error) => return Err(Failure::new(Exit::DataDir, format!("{error}."))),
            }
        }
    }
    let told = format!(
        "The key in {} is destroyed, but a process still has the directory open. End it, then give this command again.",
        dir.display()
    );
    Err(Failure::new(Exit::DataDir, told))
}

/// Which process the node is, by its own word: what a file says may be of a process that is long gone.
async fn pid_of(mut client: Client) -> Option<u32> {
    let asked = tokio::time::timeout(NODE_IS_ENDED_MAX, client.node.info(InfoRequest {})).await;
    let pid = asked.ok()?.ok()?.into_inner().pid;
    (pid > 1).then_some(pid)
}

/// How a process is made to end.
#[derive(Clone, Copy)]
enum Urgency {
    Ask,
    End,
}

#[cfg(unix)]
fn end(pid: u32, urgency: Urgency) {
    use nix::sys::signal::{Signal, kill};
    let signal = match urgency {
        Urgency::Ask => Signal::SIGTERM,
        Urgency::End => Signal::SIGKILL,
    };
    if let Ok(pid) = i32::try_from(pid) {
        // One that is gone needs nothing.
        let _ = kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// There is no signal that it would understand: the user is asked to end it.
#[cfg(not(unix))]
fn end(_: u32, _: Urgency) {}

/// What others have in the directory.
fn left_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.len() > LEFT_NAMED_MAX {
        let more = names.len() - LEFT_NAMED_MAX;
        names.truncate(LEFT_NAMED_MAX);
        names.push(format!("{more} more"));
    }
    names
}

/// Writes the account into one encrypted file.
async fn export(
    mut client: Client,
    file: &Path,
    passphrase_file: Option<&Path>,
    out: &mut Output,
) -> Outcome {
    let failed = |error: &io::Error| {
        let told = format!("{} cannot be written: {error}. Nothing is left of it.", file.display());
        Failure::told(told)
    };
    if file.symlink_metadata().is_ok() {
        let told = format!("{} is there already. Name a file that is not.", file.display());
        return Err(Failure::new(Exit::Refused, told));
    }
    let passphrase = passphrase::of_new_archive(passphrase_file)?;
    // Private from the start, and under its name only when it is whole.
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut written = tempfile::NamedTempFile::new_in(parent).map_err(|error| failed(&error))?;
    let request = ExportRequest { passphrase: passphrase.to_string() };
    let mut pieces = client.device.export(request).await?.into_inner();
    let mut bytes = 0_u64;
    while let Some(piece) = pieces.next().await {
        let piece = piece?.data;
        bytes = bytes.saturating_add(piece.len() as u64);
        written.write_all(&piece).map_err(|error| failed(&error))?;
    }
    written.as_file().sync_all().map_err(|error| failed(&error))?;
    written.persist_noclobber(file).map_err(|error| failed(&error.error))?;
    let told = format!(
        "{} holds the account: its keys, contacts, groups and messages, under the passphrase. On another machine, in a \
         new data directory: dunlin node --import {}",
        file.display(),
        file.display()
    );
    let file: PathBuf = file.to_owned();
    out.say(json!({ "file": file, "bytes": bytes }), told)
}
