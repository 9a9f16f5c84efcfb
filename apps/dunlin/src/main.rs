//! The program: a node, the commands that talk to it, and the chat in the terminal.
//!
//! It holds no logic of the messenger. Everything it shows comes from the services of a node, its own or
//! one that runs elsewhere on the machine, through the same calls.

// Printing is what commands are for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod api;
mod chat;
mod cli;
mod client;
mod commands;
mod failure;
mod home;
mod output;
mod qr;
mod screen;
mod stop;
mod words;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, NodeOptions};
use client::Client;
use failure::Failure;
use home::Home;
use output::Output;

#[tokio::main]
async fn main() -> ExitCode {
    // A wrong command line ends here, with 2.
    let cli = Cli::parse();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", output::harmless(&failure.to_string()));
            failure.exit_code()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let home = Home::at(cli.data_dir)?;
    let mut out = Output::new(cli.json);
    let out = &mut out;
    let command = match cli.command.unwrap_or_else(|| Command::Chat(NodeOptions::default())) {
        Command::Chat(_) | Command::Node(_) => return Ok(()),
        command => command,
    };
    let client = Client::connect(&home).await?;
    match command {
        Command::Contact(command) => commands::contact(client, command, out).await,
        Command::Group(command) => commands::group(client, command, out).await,
        Command::Send { conversation, text } => commands::send(client, conversation, text, out).await,
        Command::Read(options) => commands::read(client, options, out).await,
        Command::Peers { command } => commands::peers(client, command, out).await,
        Command::Why { what } => commands::why(client, what, out).await,
        Command::Status => commands::status(client, out).await,
        Command::Name { name } => commands::name(client, name, out).await,
        Command::Chat(_) | Command::Node(_) => Ok(()),
    }
}
