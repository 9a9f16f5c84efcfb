//! The passphrase of a data directory or an archive: from the environment, a file or the keyboard.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use dunlin_store::Unlock;
use zeroize::Zeroizing;

use crate::cli::NodeOptions;
use crate::failure::{Exit, Failure};

/// Where scripts put it, for the data directory, for an archive that is read and for one that is written.
const VARIABLE: &str = "DUNLIN_PASSPHRASE";
const IMPORT_VARIABLE: &str = "DUNLIN_IMPORT_PASSPHRASE";
const EXPORT_VARIABLE: &str = "DUNLIN_EXPORT_PASSPHRASE";
/// Longest passphrase, in characters. More would be a file given by mistake.
const CHARS_MAX: usize = 1024;

/// What the user gave when they started the program, for the data directory.
pub fn given(options: &NodeOptions) -> Result<Unlock, Failure> {
    let given = given_by(options.passphrase_file.as_deref(), VARIABLE)?;
    Ok(given.map_or(Unlock::KeyFile, Unlock::Passphrase))
}

/// What they gave for the archive that is imported.
pub fn of_archive(options: &NodeOptions) -> Result<Option<Zeroizing<String>>, Failure> {
    given_by(options.import_passphrase_file.as_deref(), IMPORT_VARIABLE)
}

/// What a new archive is to be under: given, or else asked for twice.
pub fn of_new_archive(file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
    if let Some(given) = given_by(file, EXPORT_VARIABLE)? {
        return Ok(given);
    }
    if !io::stdin().is_terminal() {
        let told = format!(
            "An export needs a passphrase, and nobody is there to be asked. Give it in the variable {EXPORT_VARIABLE} or by \
             --passphrase-file FILE."
        );
        return Err(Failure::new(Exit::Usage, told));
    }
    let given_up = || Failure::told("Nothing was exported.");
    loop {
        let typed = ask_line("Passphrase for the file: ")?.ok_or_else(given_up)?;
        if typed.is_empty() {
            eprintln!("It cannot be empty: whoever finds the file would be you.");
            continue;
        }
        if *ask_line("Once more: ")?.ok_or_else(given_up)? == *typed {
            return Ok(typed);
        }
        eprintln!("These are two different ones.");
    }
}

fn given_by(file: Option<&Path>, variable: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let told = |sentence: String| Failure::new(Exit::Usage, sentence);
    let passphrase = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|error| {
                told(format!("The passphrase cannot be read from {}: {error}.", path.display()))
            })?;
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => match std::env::var(variable) {
            Ok(passphrase) => Zeroizing::new(passphrase),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => return Err(told(format!("{variable} is not UTF-8."))),
        },
    };
    if passphrase.is_empty() || passphrase.chars().count() > CHARS_MAX {
        return Err(told(format!("A passphrase has 1 to {CHARS_MAX} characters.")));
    }
    Ok(Some(passphrase))
}

/// Asks for that of the data directory, without showing what is typed.
pub fn ask() -> Result<Unlock, Failure> {
    let told = || Failure::new(Exit::DataDir, "The data directory stays closed without its passphrase.");
    ask_line("Passphrase: ")?.map(Unlock::Passphrase).ok_or_else(told)
}

/// Asks for one, without showing what is typed; `None` when the user gives up.
pub fn ask_line(prompt: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    let failed = |error: io::Error| Failure::told(format!("The passphrase cannot be read: {error}."));
    eprint!("{prompt}");
    io::stderr().flush().map_err(failed)?;
    enable_raw_mode().map_err(failed)?;
    let typed = ask_keys();
    disable_raw_mode().map_err(failed)?;
    eprintln!();
    typed.map_err(failed)
}

/// What is typed up to the enter key; `None` when the user gives up.
fn ask_keys() -> io::Result<Option<Zeroizing<String>>> {
    // Never moved to a larger place, which would leave a copy behind.
    let mut typed = Zeroizing::new(String::with_capacity(CHARS_MAX * 4));
    loop {
        let Event::Key(key) = crossterm::event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Ok(Some(typed)),
            KeyCode::Esc => return Ok(None),
            KeyCode::Char('c' | 'd') if control => return Ok(None),
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char(letter) if !control && typed.chars().count() < CHARS_MAX => typed.push(letter),
            _ => {}
        }
    }
}
