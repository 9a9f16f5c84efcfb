//! Somebody with a data directory and, while it runs, a node; and the commands that they give.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// After so long, what did not happen never will.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at a condition that cannot be followed.
const LOOK_AGAIN: Duration = Duration::from_millis(40);

/// What `--help` promises.
pub mod exit {
    pub const FAILED: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const NO_NODE: i32 = 3;
    pub const NOT_FOUND: i32 = 4;
    pub const REFUSED: i32 = 5;
    pub const DATA_DIR: i32 = 6;
}

pub const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// Ann and Ben, whose nodes are connected.
pub fn two_in_reach() -> (Person, Person) {
    let mut ann = Person::new("Ann");
    let mut ben = Person::new("Ben");
    ann.start(&[]);
    ben.start(&[&ann]);
    (ann, ben)
}

/// The same two, as contacts.
pub fn two_contacts() -> (Person, Person) {
    let (ann, ben) = two_in_reach();
    befriend(&ann, &ben);
    (ann, ben)
}

/// Makes contacts of two people whose nodes are connected.
pub fn befriend(one: &Person, other: &Person) {
    one.json(&["contact", "add", &other.link()]);
    other.wait_contact(&one.name, "asks");
    other.json(&["contact", "accept", &one.name]);
    one.wait_contact(&other.name, "added");
    other.wait_contact(&one.name, "added");
}

/// Somebody with a data directory, and a node while it runs.
pub struct Person {
    pub name: String,
    pub place: tempfile::TempDir,
    pub directory: PathBuf,
    node: Option<Child>,
    pub ready: Value,
    starts: usize,
    /// How long the files of the node may become. The system refuses more as it does on a full disk.
    pub file_kilobytes_max: Option<u64>,
    /// What its nodes log.
    pub log_filter: String,
}

impl Person {
    pub fn new(name: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("data");
        Self {
            name: name.to_owned(),
            place,
            directory,
            node: None,
            ready: Value::Null,
            starts: 0,
            file_kilobytes_max: None,
            log_filter: "info".to_owned(),
        }
    }

    /// Starts the node, pointed at others.
    pub fn start(&mut self, others: &[&Person]) {
        let mut options = vec!["--name".to_owned(), self.name.clone()];
        for other in others {
            options.extend(["--connect".to_owned(), other.address()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.start_with(&options);
    }

    pub fn start_with(&mut self, options: &[&str]) {
        assert!(self.node.is_none());
        self.starts += 1;
        // Where the disk is full, the log has no room either.
        let log = match self.file_kilobytes_max {
            Some(_) if cfg!(target_os = "linux") => File::options().write(true).open("/dev/full").unwrap(),
            _ => File::create(self.log_path(self.starts)).unwrap(),
        };
        let mut command = command(&self.directory);
        if let Some(kilobytes) = self.file_kilobytes_max {
            command = limited(kilobytes, &command);
        }
        let mut node = command
            .args(["node", "--log", &self.log_filter, "--listen", LOOPBACK])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(node.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.node = Some(node);
        self.ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}", self.log()));
    }

    /// What the system says of the running node.
    #[cfg(target_os = "linux")]
    pub fn of_process(&self, file: &str) -> String {
        let pid = self.node.as_ref().unwrap().id();
        std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
    }

    /// Asks the node to end, and waits until it has.
    pub fn end(&mut self) {
        let mut node = self.node.take().unwrap();
        let pid = node.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ended = node.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", self.log());
        if self.log_filter == "info" {
            self.check_log();
        }
    }

    /// Ends the node in the middle of whatever it does.
    pub fn kill(&mut self) {
        let mut node = self.node.take().unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// Waits until the node has ended by itself.
    pub fn has_ended(&mut self) {
        let mut node = self.node.take().unwrap();
        let (ended, is_ended) = channel();
        let process = node.id().to_string();
        std::thread::spawn(move || ended.send(node.wait()));
        if is_ended.recv_timeout(DEADLINE).is_err() {
            let killed = Command::new("kill").args(["-9", &process]).status();
            panic!("the node goes on, killing it gave {killed:?}\n{}", self.log());
        }
    }

    pub fn link(&self) -> String {
        self.ready["link"].as_str().unwrap().to_owned()
    }

    /// Where the node is reached.
    pub fn address(&self) -> String {
        self.ready["listen"][0].as_str().unwrap().to_owned()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.clone()
    }

    /// Runs a command that works out, for people.
    pub fn text(&self, args: &[&str]) -> String {
        let output = dunlin(&self.directory, args, "");
        assert_eq!(output.code, 0, "{args:?}: {}\n{}", output.stderr, self.log());
        output.stdout
    }

    /// Runs a command that works out, for programs.
    pub fn lines(&self, args: &[&str]) -> Vec<Value> {
        let text = self.text(&[args, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        self.json_with_input(args, "")
    }

    pub fn json_with_input(&self, args: &[&str], input: &str) -> Value {
        // A text may hold anything, so options come before it.
        let output = dunlin(&self.directory, &[&["--json"], args].concat(), input);
        assert_eq!(output.code, 0, "{args:?}: {}\n{}", output.stderr, self.log());
        serde_json::from_str(&output.stdout).unwrap()
    }

    /// Runs a command that does not work out, and gives the sentence that says why.
    pub fn refused(&self, code: i32, args: &[&str]) -> String {
        let output = dunlin(&self.directory, args, "");
        assert_eq!(output.code, code, "{args:?}: {}{}", output.stdout, output.stderr);
        assert!(!output.stderr.trim().is_empty() && output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        output.stderr
    }

    pub fn messages(&self, conversation: &str) -> Vec<Value> {
        let output = dunlin(&self.directory, &["--json", "read", conversation], "");
        // The conversation may not be there yet.
        output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn message(&self, conversation: &str, text: &str) -> Option<Value> {
        self.messages(conversation).into_iter().find(|message| message["text"] == text)
    }

    pub fn times(&self, conversation: &str, text: &str) -> usize {
        self.messages(conversation).iter().filter(|message| message["text"] == text).count()
    }

    pub fn wait_message(&self, conversation: &str, text: &str) -> Value {
        self.wait(&format!("«{text}»"), || self.message(conversation, text))
    }

    pub fn wait_state(&self, conversation: &str, text: &str, state: &str) -> Value {
        self.wait(&format!("«{text}» {state}"), || {
            self.message(conversation, text).filter(|message| message["state"] == state)
        })
    }

    pub fn wait_contact(&self, name: &str, state: &str) -> Value {
        self.wait(&format!("{name} {state}"), || {
            let contacts = self.lines(&["contact", "list"]);
            contacts.into_iter().find(|contact| contact["name"] == name && contact["state"] == state)
        })
    }

    /// Looks until there is something to see.
    pub fn wait<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(started.elapsed() < DEADLINE, "{} never saw {what}\n{}", self.name, self.log());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Follows a conversation from its beginning.
    pub fn follow(&self, conversation: &str) -> Follower {
        self.watch(&["read", conversation, "--follow"])
    }

    /// Runs a command that goes on, and follows what it prints.
    pub fn watch(&self, args: &[&str]) -> Follower {
        let mut process = command(&self.directory)
            .arg("--json")
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Follower { process, lines }
    }

    pub fn log_path(&self, start: usize) -> PathBuf {
        self.place.path().join(format!("log-{start}"))
    }

    pub fn log(&self) -> String {
        let logs =
            (1..=self.starts).map(|start| std::fs::read_to_string(self.log_path(start)).unwrap_or_default());
        logs.collect::<Vec<_>>().join("---\n")
    }

    /// Logs travel: nothing in them tells who it is, who they know and what they wrote.
    pub fn check_log(&self) {
        let log = self.log();
        for secret in ["Hello", "while you sleep", "before the crash", "Harbour", "Ben", "/ip4/"] {
            assert!(!log.contains(secret), "{secret} in the log:\n{log}");
        }
        for field in ["account", "peer_id"] {
            assert!(!log.contains(self.ready[field].as_str().unwrap()), "{field} in the log:\n{log}");
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(mut node) = self.node.take() {
            // It may have ended by itself.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// A `dunlin read --follow` and what it has printed.
pub struct Follower {
    process: Child,
    lines: Receiver<Value>,
}

impl Follower {
    pub fn wait_text(&mut self, text: &str) -> Value {
        self.wait(text, |line| line["text"] == text)
    }

    /// Waits for a line; those before it are gone.
    pub fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("never followed by {what}"));
            if fits(&line) {
                return line;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a command left behind.
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command.arg("--data-dir").arg(data_dir).env_remove("DUNLIN_PASSPHRASE").env("TZ", "UTC");
    command
}

/// The same command with a limit to the files that it writes. Units of `ulimit -f` are 512 bytes.
pub fn limited(kilobytes: u64, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kilobytes * 2);
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

pub fn dunlin(data_dir: &Path, args: &[&str], input: &str) -> Output {
    let mut process = command(data_dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = process.stdin.take().unwrap().write_all(input.as_bytes());
    let mut stderr_pipe = process.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut stderr = String::new();
        stderr_pipe.read_to_string(&mut stderr).map(|_| stderr)
    });
    let mut stdout = String::new();
    process.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let stderr = errors.join().unwrap().unwrap();
    let code = process.wait().unwrap().code().unwrap_or(-1);
    Output { code, stdout, stderr }
}
