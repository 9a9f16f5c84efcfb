//! The golden vectors: which folder holds them, and who runs them.

use std::path::PathBuf;

use crate::workspace::{Workspace, succeed};
use crate::{Failure, Result};

/// Runs the vectors below the folder named, or below the usual one.
pub fn vectors(workspace: &Workspace, args: &[String]) -> Result {
    let folder = match args {
        [] => usual_folder(workspace),
        [folder] => std::path::absolute(folder)
            .map_err(|error| Failure::new(format!("{folder} is not the name of a folder: {error}")))?,
        _ => return Err(Failure::new("vectors takes one folder: cargo xtask vectors [DIR]")),
    };
    let mut command = workspace.cargo(["run", "--quiet", "--package", "dunlin-vectors", "--"]);
    succeed(command.arg(folder))
}

/// The folder of vectors that lies beside the repository, or else the copy inside it.
pub fn usual_folder(workspace: &Workspace) -> PathBuf {
    let beside = workspace.root().join("../shared/vectors");
    if beside.is_dir() { beside } else { workspace.root().join("vectors/data") }
}
