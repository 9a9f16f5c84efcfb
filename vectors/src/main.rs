//! `dunlin-vectors [DIR]`: runs the golden vectors below the folder and says what held.
//!
//! Ends with code 1 when a check failed; a file that nothing understands is listed but is no failure.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> io::Result<ExitCode> {
    let folder = std::env::args_os().nth(1).map_or_else(dunlin_vectors::usual_folder, PathBuf::from);
    let totals = dunlin_vectors::run(&folder, &mut io::stdout().lock())?;
    Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
