//! The program: a node, the commands that talk to it, and the chat in the terminal.
//!
//! It holds no logic of the messenger. Everything it shows comes from the services of a node, its own or
//! one that runs elsewhere on the machine, through the same calls.

// Printing is what commands are for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod account;
mod chat;
mod cli;
mod client;
mod commands;
mod daemon;
mod devices;
mod failure;
mod home;
mod memory;
mod output;
mod passphrase;
mod qr;
mod screen;
mod stop;
mod words;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use cli::{Cli, Command, NodeOptions};
use client::Client;
use daemon::Running;
use failure::{Exit, Failure};
use home::Home;
use output::Output;

/// What is logged unless the user wants more: what they should know about and do nothing without.
const LOG_LEVEL: &str = "warn";

#[tokio::main]
async fn main() -> ExitCode {
    memory::keep_to_itself();
    // A wrong command line ends here, with 2.
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody can be told, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{}", output::harmless(&failure.to_string()));
            failure.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let home = Home::at(cli.data_dir)?;
    let command = cli.command.unwrap_or_else(|| Command::Chat(NodeOptions::default()));
    let out = &mut Output::new(cli.json);
    match command {
        Command::Chat(options) => chat(&home, &options).await,
        Command::Node(options) => {
            log_to(BoxMakeWriter::new(std::io::stderr), options.log.as_deref())?;
            daemon::run(&home, &options).await
        }
        Command::Account(command) => account::run(&home, command, out).await,
        Command::Contact(command) => commands::contact(Client::connect(&home).await?, command, out).await,
        Command::Group(command) => commands::group(Client::connect(&home).await?, command, out).await,
        Command::Device(command) => devices::run(&home, command, out).await,
        Command::Send { conversation, text } => {
            commands::send(Client::connect(&home).await?, conversation, text, out).await
        }
        Command::Read(options) => commands::read(Client::connect(&home).await?, options, out).await,
        Command::Erase { message } => commands::erase(Client::connect(&home).await?, message, out).await,
        Command::Peers { command } => commands::peers(Client::connect(&home).await?, command, out).await,
        Command::Why { what } => commands::why(Client::connect(&home).await?, what, out).await,
        Command::Status => commands::status(Client::connect(&home).await?, out).await,
        Command::Name { name } => commands::name(Client::connect(&home).await?, name, out).await,
    }
}

/// Opens the chat on the node that is running, or else on one that runs as long as the chat.
async fn chat(home: &Home, options: &NodeOptions) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let told =
            "The chat needs a terminal. For scripts, run `dunlin node` and use commands: dunlin --help.";
        return Err(Failure::new(Exit::Usage, told));
    }
    let mut stop = daemon::stop()?;
    if let Some(client) = Client::find(home).await {
        let unused = options.is_set().then(|| {
            "A node is running on this directory already: the chat uses it, and not the options.".to_owned()
        });
        return chat::run(client, unused, &mut stop).await;
    }
    home.prepare()?;
    if let Some(filter) = &options.log {
        let path = home.log_path();
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| Failure::disk(format_args!("Opening {}", path.display()), &error))?;
        log_to(BoxMakeWriter::new(std::sync::Mutex::new(file)), Some(filter))?;
    }
    let running = Running::start(home, options).await?;
    let shown = match running.client().await {
        Ok(client) => chat::run(client, None, &mut stop).await,
        Err(failure) => Err(failure),
    };
    running.stop().await;
    shown
}

/// Logs what the filter lets through. A level alone is meant for Dunlin: libraries below it log addresses
/// and peer ids at every level, so whoever wants those names them.
fn log_to(writer: BoxMakeWriter, filter: Option<&str>) -> Result<(), Failure> {
    let filter = filter.unwrap_or(LOG_LEVEL);
    let directives = match filter.parse::<LevelFilter>() {
        Ok(level) => format!("dunlin={level}"),
        Err(_) => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        let told = format!("This is no log filter: {error}. One looks like info, or like dunlin_node=debug.");
        Failure::new(Exit::Usage, told)
    })?;
    // A log on a full disk must not end the node: the subscriber would tell of it on standard error, and panic
    // where that is the log.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(writer)
        .log_internal_errors(false)
        .init();
    Ok(())
}
