//! The passphrase of a data directory: from the environment, a file or the keyboard.

use std::io::{self, Write};

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use dunlin_store::Unlock;
use zeroize::Zeroizing;

use crate::cli::NodeOptions;
use crate::failure::{Exit, Failure};

/// Where scripts put it.
const VARIABLE: &str = "DUNLIN_PASSPHRASE";
/// Longest passphrase, in characters. More would be a file given by mistake.
const CHARS_MAX: usize = 1024;

/// What the user gave when they started the program.
pub fn given(options: &NodeOptions) -> Result<Unlock, Failure> {
    let told = |sentence: String| Failure::new(Exit::Usage, sentence);
    let passphrase = match &options.passphrase_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map(Zeroizing::new);
            let text = text.map_err(|error| {
                told(format!("The passphrase cannot be read from {}: {error}.", path.display()))
            })?;
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => match std::env::var(VARIABLE) {
            Ok(passphrase) => Zeroizing::new(passphrase),
            Err(std::env::VarError::NotPresent) => return Ok(Unlock::KeyFile),
            Err(std::env::VarError::NotUnicode(_)) => return Err(told(format!("{VARIABLE} is not UTF-8."))),
        },
    };
    if passphrase.is_empty() || passphrase.chars().count() > CHARS_MAX {
        return Err(told(format!("A passphrase has 1 to {CHARS_MAX} characters.")));
    }
    Ok(Unlock::Passphrase(passphrase))
}

/// Asks for it, without showing what is typed.
pub fn ask() -> Result<Unlock, Failure> {
    let failed = |error: io::Error| Failure::told(format!("The passphrase cannot be read: {error}."));
    eprint!("Passphrase: ");
    io::stderr().flush().map_err(failed)?;
    enable_raw_mode().map_err(failed)?;
    let typed = ask_keys();
    disable_raw_mode().map_err(failed)?;
    eprintln!();
    let told = || Failure::new(Exit::DataDir, "The data directory stays closed without its passphrase.");
    typed.map_err(failed)?.map(Unlock::Passphrase).ok_or_else(told)
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
