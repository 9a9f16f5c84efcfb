//! Runs the golden vectors: files of inputs and outputs that the existing implementations produced.
//!
//! A file is recognised by what made it (`producer`, `generation`) and by its name. Whatever no check
//! understands is named, never passed in silence.

pub mod fixed;
pub mod json;
pub mod registry;
pub mod report;

mod go_log;
mod go_messages;
mod messenger_links;
mod secp256k1;
mod wesh_archive;
mod wesh_contacts;
mod wesh_credentials;
mod wesh_handshake;
mod wesh_heads;
mod wesh_keys;
mod wesh_log;
mod wesh_logs_crypto;
mod wesh_metadata;
mod wesh_out_of_store;
mod wesh_parts;
mod wesh_proto;
mod wesh_ratchet;
mod wesh_rotation;
mod wesh_state;

use std::io;
use std::path::{Path, PathBuf};

use registry::VectorFile;
use report::Report;

/// Totals over a folder.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Checks that held.
    pub passed: usize,
    /// Checks that did not, unreadable files included.
    pub failed: usize,
    /// Files that no check understands.
    pub not_understood: usize,
}

/// The folder to run when none is named: the vectors beside the repository, or else the copy inside it.
pub fn usual_folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = package.join("../../shared/vectors");
    if beside.is_dir() { beside } else { package.join("data") }
}

/// Runs every `.json` file below `folder`, in the order of their names, and reports to `out`.
///
/// # Errors
/// When the folder cannot be walked or `out` cannot be written.
pub fn run(folder: &Path, out: &mut impl io::Write) -> io::Result<Totals> {
    let mut totals = Totals::default();
    for path in json_files(folder)? {
        let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        let Some(report) = run_file(&path) else {
            writeln!(out, "{name}: not understood")?;
            totals.not_understood += 1;
            continue;
        };
        report.write(&name, out)?;
        totals.passed += report.passed();
        totals.failed += report.failures().len();
    }
    writeln!(
        out,
        "{} passed, {} failed, {} not understood",
        totals.passed, totals.failed, totals.not_understood
    )?;
    Ok(totals)
}

/// Runs one file; `None` when no check understands it.
fn run_file(path: &Path) -> Option<Report> {
    let mut report = Report::default();
    match VectorFile::read(path) {
        Ok(file) => {
            let checks = file.checks();
            if checks.is_empty() {
                return None;
            }
            for check in checks {
                if let Err(why) = check(&file, &mut report) {
                    report.check("the file", Err(why));
                }
            }
            if report.passed() + report.failures().len() == 0 {
                report.check("the file", Err("it holds nothing to check".into()));
            }
        }
        Err(why) => report.check("the file", Err(why)),
    }
    Some(report)
}

/// The `.json` files below `folder`, sorted.
fn json_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_in_the_repository_passes_and_is_understood() {
        let mut out = Vec::new();
        let totals = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data"), &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(totals.passed > 0, "{shown}");
        assert_eq!((totals.failed, totals.not_understood), (0, 0), "{shown}");
    }
}
