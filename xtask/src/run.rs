//! `cargo xtask run`: from a clean clone to a chat on the screen.

use std::process::{Command, Stdio};

use crate::workspace::{Workspace, file_name, not_started, succeed};
use crate::{Failure, Result};

/// Builds Dunlin and becomes it.
pub fn run(workspace: &Workspace, args: &[String]) -> Result {
    run_c_compiler(workspace)?;
    eprintln!("Building Dunlin. The first time takes some minutes.");
    succeed(&mut workspace.cargo(["build", "--release", "--package", "dunlin"]))?;
    let program = workspace.target_folder()?.join("release").join(file_name("dunlin"));
    let mut dunlin = Command::new(program);
    become_program(dunlin.arg("chat").args(args))
}

/// Sees that there is a C compiler: the cryptography under QUIC is C and assembler. It needs nothing
/// else, in particular neither cmake nor perl.
fn run_c_compiler(workspace: &Workspace) -> Result {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if answers(&compiler) {
        return Ok(());
    }
    if cfg!(windows) {
        // There the compiler is not on the path; the build finds it as rustc finds its linker.
        return Ok(());
    }
    if answers("apt-get") && is_root() {
        eprintln!("There is no C compiler yet: installing one with apt-get.");
        succeed(workspace.command("apt-get").args(["update", "--quiet"]))?;
        return succeed(workspace.command("apt-get").args([
            "install",
            "--yes",
            "--quiet",
            "gcc",
            "libc6-dev",
        ]));
    }
    let remedy = if answers("apt-get") {
        "sudo apt-get install gcc libc6-dev"
    } else if answers("dnf") {
        "sudo dnf install gcc glibc-devel"
    } else if answers("pacman") {
        "sudo pacman -S gcc"
    } else if answers("apk") {
        "apk add gcc musl-dev"
    } else if cfg!(target_os = "macos") {
        "xcode-select --install"
    } else {
        "(install gcc or clang, or name yours in the variable CC)"
    };
    Err(Failure::new(format!(
        "`{compiler}` is no C compiler, and the cryptography under QUIC needs one. \
         Run this, then try again:\n\n    {remedy}\n"
    )))
}

fn answers(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Puts a program in this one's place, so that signals and the exit code are its own.
#[cfg(unix)]
fn become_program(command: &mut Command) -> Result {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(not_started(command, &error))
}

/// Runs a program and ends as it ends.
#[cfg(not(unix))]
fn become_program(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    std::process::exit(status.code().unwrap_or(1))
}
