//! What this process is to the machine, for `SystemInfo`.

use std::time::{Duration, SystemTime};

use dunlin_proto::protocol::system_info::Process;

/// Fewer files than this are soon used up: each connection takes one.
const FILES_LOW: u64 = 1024;

/// Describes the process, and what is wrong with it.
pub(super) fn describe(uptime: Duration) -> (Process, Vec<String>) {
    let mut warns = Vec::new();
    let started = SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH);
    let started = started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let tasks =
        tokio::runtime::Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
    let mut process = Process {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        vcs_ref: option_env!("DUNLIN_VCS_REF").unwrap_or_default().to_owned(),
        uptime_ms: millis(uptime),
        started_at: i64::try_from(started.as_secs()).unwrap_or(i64::MAX),
        num_goroutine: number(tasks),
        num_cpu: number(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)),
        // There is no Go; what stands here is the oldest compiler that can build this.
        go_version: concat!("rust", env!("CARGO_PKG_RUST_VERSION")).to_owned(),
        operating_system: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        pid: i64::from(std::process::id()),
        working_dir: std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default(),
        ..Process::default()
    };
    #[cfg(unix)]
    unix::complete(&mut process, &mut warns);
    if process.too_many_open_files {
        warns.push("no further file can be opened: raise the limit of open files (ulimit -n)".to_owned());
    } else if process.rlimit_cur != 0 && process.rlimit_cur < FILES_LOW {
        warns.push(format!("{} files may be open, which may be too few (ulimit -n)", process.rlimit_cur));
    }
    (process, warns)
}

#[cfg(unix)]
mod unix {
    use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
    use nix::sys::time::TimeVal;
    use nix::unistd::{User, gethostname, getuid};

    use super::{Process, number};

    /// Where the open files of a process show, by system.
    const OPEN_FILES: [&str; 2] = ["/proc/self/fd", "/dev/fd"];

    /// Fills in what only Unix tells.
    pub fn complete(process: &mut Process, warns: &mut Vec<String>) {
        let mut note = |what: &str, error: nix::Error| warns.push(format!("{what} is not known: {error}"));
        match getrusage(UsageWho::RUSAGE_SELF) {
            Ok(usage) => {
                process.user_cpu_time_ms = time(usage.user_time());
                process.system_cpu_time_ms = time(usage.system_time());
            }
            Err(error) => note("the time of the processor", error),
        }
        match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok((current, most)) => (process.rlimit_cur, process.rlimit_max) = (current, most),
            Err(error) => note("the limit of open files", error),
        }
        match gethostname() {
            Ok(name) => process.host_name = name.to_string_lossy().into_owned(),
            Err(error) => note("the name of the machine", error),
        }
        let uid = getuid();
        process.uid = i64::from(uid.as_raw());
        process.ppid = i64::from(std::os::unix::process::parent_id());
        let user = User::from_uid(uid).ok().flatten();
        process.system_username = user.map(|user| user.name).unwrap_or_default();
        process.priority = niceness().unwrap_or_default();
        let open = OPEN_FILES.iter().find_map(|dir| std::fs::read_dir(dir).ok());
        process.too_many_open_files = open.is_none() && std::fs::File::open("/dev/null").is_err();
        // The one that counts them is open too.
        process.nofile = open.map_or(0, |open| number(open.count()).saturating_sub(1));
    }

    fn time(time: TimeVal) -> i64 {
        time.tv_sec().saturating_mul(1000).saturating_add(time.tv_usec() / 1000)
    }

    /// How nice the process is to others, where the system has it in a file.
    fn niceness() -> Option<i64> {
        let status = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program may hold anything, but ends at the last bracket. Niceness is the 19th value in all.
        let (_, values) = status.rsplit_once(')')?;
        values.split_ascii_whitespace().nth(16)?.parse().ok()
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_tells_all_about_itself() {
        let (process, _) = describe(Duration::from_secs(5));
        assert_eq!((process.uptime_ms, process.pid), (5000, i64::from(std::process::id())));
        assert!(process.started_at > 1_700_000_000 && process.num_cpu > 0);
        assert!(!process.version.is_empty() && !process.arch.is_empty() && !process.working_dir.is_empty());
        #[cfg(unix)]
        {
            assert!(process.nofile > 2 && process.rlimit_cur > 2 && process.rlimit_max >= process.rlimit_cur);
            assert!(process.ppid > 0 && !process.host_name.is_empty() && !process.too_many_open_files);
        }
    }
}
