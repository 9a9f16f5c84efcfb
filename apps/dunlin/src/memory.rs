//! What becomes of the memory of the process.

/// Lets the system write no memory of the process to a disk when it crashes, and no other program of the user look into
/// it (`spec/security.md` S4). What fails is told, and nothing more: a node is of use without it.
pub fn keep_to_itself() {
    #[cfg(unix)]
    if let Err(error) = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0) {
        eprintln!("Core dumps cannot be switched off: {error}.");
    }
    // Where a program takes the dump, the limit above does not count.
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("Core dumps cannot be switched off: {error}.");
    }
}
