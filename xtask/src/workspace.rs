//! Where the repository is, what cargo knows about it, and how its programs are started.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Failure, Result};

/// The repository that this program works on.
pub struct Workspace {
    root: PathBuf,
}

/// A package of this repository, as its manifest describes it.
pub struct Package {
    /// Its name in the manifest.
    pub name: String,
    /// The folder that holds its manifest.
    pub folder: PathBuf,
    /// All that the manifest depends on, in the order of the manifest.
    pub dependencies: Vec<Dependency>,
    /// The names of its integration tests.
    pub tests: Vec<String>,
    /// The names of its programs.
    pub programs: Vec<String>,
    /// Its features, each with what it turns on.
    pub features: BTreeMap<String, Vec<String>>,
}

/// One line of a manifest's dependencies.
pub struct Dependency {
    /// The package that is depended on, whatever the manifest calls it.
    pub name: String,
    /// Whether only tests, examples and benchmarks see it.
    pub for_tests: bool,
    /// The features of it that are asked for.
    pub features: Vec<String>,
}

impl Workspace {
    /// Finds the repository from the folder of this program's own manifest.
    pub fn locate() -> Result<Self> {
        let manifest_folder = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let Some(root) = manifest_folder.parent() else {
            return Err(Failure::new("the repository was not found; start this program with `cargo xtask`"));
        };
        Ok(Self { root: root.to_owned() })
    }

    /// The folder that holds the workspace manifest.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command that runs in the root, as if typed there.
    pub fn cargo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args);
        command
    }

    /// A command that runs in the root, without what `cargo run` told this program about itself.
    ///
    /// Some build scripts look at those variables, and would run again each time they differ.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let told_by_cargo_run = name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_")
                    || name.starts_with("CARGO_MANIFEST_")
                    || name == "CARGO_CRATE_NAME"
                    || name == "CARGO_BIN_NAME"
                    || name == "CARGO_PRIMARY_PACKAGE"
            });
            if told_by_cargo_run {
                command.env_remove(name);
            }
        }
        command
    }

    /// Builds a package with all optimizations and runs its program.
    pub fn cargo_run_release(&self, package: &str, args: &[String]) -> Result {
        let mut command = self.cargo(["run", "--quiet", "--release", "--package", package, "--"]);
        succeed(command.args(args))
    }

    /// A program that `cargo build --workspace --all-targets` has left in the target folder.
    ///
    /// Unlike `cargo run --package`, this never compiles the dependencies once more with other features.
    pub fn built(&self, program: &str) -> Result<Command> {
        let file = self.target_folder()?.join("debug").join(file_name(program));
        if !file.is_file() {
            return Err(Failure::new(format!(
                "the program {program} is not built; run `cargo xtask ci build` first, \
                 and see that its package has a src/main.rs"
            )));
        }
        Ok(self.command(file))
    }

    /// Where cargo puts what it builds.
    pub fn target_folder(&self) -> Result<PathBuf> {
        let metadata = self.metadata(&["--no-deps"])?;
        let folder = metadata.get("target_directory").and_then(Value::as_str);
        let missing = || Failure::new("cargo metadata names no target folder; does `cargo build` work?");
        folder.map(PathBuf::from).ok_or_else(missing)
    }

    /// The packages of the workspace.
    pub fn packages(&self) -> Result<Vec<Package>> {
        Ok(Package::all(&self.metadata(&["--no-deps"])?).collect())
    }

    /// What `cargo metadata` prints.
    pub fn metadata(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.cargo(["metadata", "--format-version", "1"]);
        let text = output(command.args(args))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("cargo metadata is not JSON: {error}")))
    }
}

impl Package {
    /// The packages that `cargo metadata` lists.
    pub fn all(metadata: &Value) -> impl Iterator<Item = Self> {
        list(&metadata["packages"]).map(Self::from_metadata)
    }

    fn from_metadata(package: &Value) -> Self {
        let targets = |kind: &str| {
            list(&package["targets"])
                .filter(|target| list(&target["kind"]).any(|each| each == kind))
                .map(|target| text(&target["name"]))
                .collect()
        };
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        Self {
            name: text(&package["name"]),
            folder: manifest.parent().map_or_else(PathBuf::new, Path::to_owned),
            dependencies: list(&package["dependencies"])
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    for_tests: dependency["kind"] == "dev",
                    features: list(&dependency["features"]).map(text).collect(),
                })
                .collect(),
            tests: targets("test"),
            programs: targets("bin"),
            features: package["features"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, turned_on)| (name.clone(), list(turned_on).map(text).collect()))
                .collect(),
        }
    }
}

/// A program's name on this platform.
pub fn file_name(program: &str) -> String {
    format!("{program}{}", env::consts::EXE_SUFFIX)
}

/// Runs a command with this program's terminal, and fails unless it succeeds.
pub fn succeed(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("`{}` failed ({status})", shown(command))))
    }
}

/// Runs a command and returns what it prints, and fails unless it succeeds.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| not_started(command, &error))?;
    if !output.status.success() {
        return Err(Failure::new(format!("`{}` failed ({})", shown(command), output.status)));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("`{}` did not print text", shown(command))))
}

/// The failure of a command that could not even be started.
pub fn not_started(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("`{}` did not start: {error}", shown(command)))
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The elements of a JSON list; none if it is something else.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The text of a JSON string; empty if it is something else.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What stands between each pair of `mark`s.
pub fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).enumerate().filter(|(number, _)| number % 2 == 1).map(|(_, part)| part)
}
