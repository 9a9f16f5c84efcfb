//! Which check understands which file.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::report::Report;

/// A file of vectors.
#[derive(Debug)]
pub struct VectorFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub json: Value,
}

/// Runs all checks of one file.
///
/// # Errors
/// When the file itself cannot be used, for example because a file it belongs to is missing.
pub type Check = fn(&VectorFile, &mut Report) -> Result<(), String>;

/// A family of files: answers with the check for the file, if it is one of the family.
type Family = fn(&VectorFile) -> Option<Check>;

/// All families. Each one that claims a file checks its part of it.
const FAMILIES: &[Family] = &[
    crate::wesh_proto::check_for,
    crate::wesh_rotation::check_for,
    crate::wesh_heads::check_for,
    crate::wesh_handshake::check_for,
    crate::wesh_contacts::check_for,
    crate::wesh_credentials::check_for,
    crate::wesh_keys::check_for,
    crate::wesh_metadata::check_for,
    crate::wesh_ratchet::check_for,
    crate::wesh_out_of_store::check_for,
    crate::wesh_log::check_for,
    crate::wesh_archive::check_for,
    crate::wesh_logs_crypto::check_for,
    crate::go_log::check_for,
    crate::messenger_links::check_for,
];

impl VectorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let json = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path: path.to_owned(), json })
    }

    /// The file `name` of the same folder.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON.
    pub fn sibling(&self, name: &str) -> Result<Self, String> {
        Self::read(&self.path.with_file_name(name))
    }

    /// The file's name without `.json`.
    pub fn stem(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// Whether weshnet made it.
    pub fn is_wesh(&self) -> bool {
        self.producer().starts_with("weshnet (Go)")
    }

    /// Whether go-ipfs-log and go-orbit-db made it.
    pub fn is_go_log(&self) -> bool {
        self.producer().starts_with("go-ipfs-log")
    }

    /// Whether the Go messenger made it.
    pub fn is_messenger(&self) -> bool {
        self.producer().starts_with("Go messenger")
    }

    /// The software that made it.
    pub fn producer(&self) -> &str {
        self.json.get("producer").and_then(Value::as_str).unwrap_or_default()
    }

    /// The generation of logs and databases that it is about, `legacy` or `current`.
    pub fn generation(&self) -> &str {
        self.json.get("generation").and_then(Value::as_str).unwrap_or_default()
    }

    /// The checks that understand this file.
    pub fn checks(&self) -> Vec<Check> {
        FAMILIES.iter().filter_map(|family| family(self)).collect()
    }
}
