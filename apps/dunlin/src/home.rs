//! The data directory, as far as the program itself keeps something there.
//!
//! `config.toml` holds what was decided at the first start and what the user wrote there; `node.json` says
//! how to reach the node while one is running; `grpc.sock` is where it usually listens. The store has files
//! of its own beside them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use dunlin_node::FileBeside;
use dunlin_store::{Destruction, OpenError};
use serde::{Deserialize, Serialize};

use crate::cli::ProfileName;
use crate::failure::{Exit, Failure};

/// What the user decided, with the remarks that they wrote beside it.
const CONFIG: &str = "config.toml";
/// How to reach the node that is running.
const NODE: &str = "node.json";
/// The socket for commands.
const SOCKET: &str = "grpc.sock";
/// What the store keeps its rows in.
const STORE: &str = "node.redb";
/// Where the log goes while the chat has the terminal.
const LOG: &str = "dunlin.log";
/// Longest path of a socket: `sun_path` has 104 bytes on some systems, and the bind needs a zero at the end.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// A data directory.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

/// What `config.toml` may say. Options on the command line go before it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network; never changes after the first start.
    pub profile: Option<String>,
    /// Where to listen.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Whom to stay connected with.
    #[serde(default)]
    pub connect: Vec<String>,
    /// Whether to find nodes on the local network.
    #[serde(default)]
    pub lan: bool,
    /// Rendezvous servers.
    #[serde(default)]
    pub rendezvous: Vec<String>,
    /// Whether to keep groups from rendezvous servers.
    #[serde(default)]
    pub hide_groups: bool,
    /// Relays to be reached through.
    #[serde(default)]
    pub relay: Vec<String>,
    /// Peers through which the DHT is entered.
    #[serde(default)]
    pub dht_bootstrap: Vec<String>,
    /// Whether to be a rendezvous server.
    #[serde(default)]
    pub rendezvous_server: bool,
}

/// What `node.json` says.
#[derive(Debug, Deserialize, Serialize)]
pub struct NodeFile {
    /// `unix:PATH` or `http://HOST:PORT`.
    pub grpc: String,
    /// The process.
    pub pid: u32,
    /// The version of the program.
    pub version: String,
}

/// Where the node listens for commands; the place is cleared when this is dropped.
#[derive(Debug)]
pub struct SocketPlace {
    path: PathBuf,
    // Keeps the directory that replaces the data directory when its path is too long.
    _instead: Option<tempfile::TempDir>,
}

impl Home {
    /// The directory at `path`, or the usual one.
    pub fn at(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path.or_else(usual_path) else {
            let told = "There is no home directory to keep the data in. Say where: --data-dir DIR.";
            return Err(Failure::new(Exit::DataDir, told));
        };
        let path = std::path::absolute(&path)
            .map_err(|error| Failure::disk(format_args!("Finding {}", path.display()), &error))?;
        Ok(Self { path })
    }

    /// Makes the directory if it is missing, and sees that it is one for Dunlin and private.
    pub fn prepare(&self) -> Result<(), Failure> {
        let path = &self.path;
        let failed = |error: &io::Error| Failure::disk(format_args!("Opening {}", path.display()), error);
        if path.is_dir() && !self.holds_account() && !is_empty(path).map_err(|error| failed(&error))? {
            let told = format!(
                "{} holds other files and no Dunlin account. Use an empty directory: --data-dir DIR.",
                path.display()
            );
            return Err(Failure::new(Exit::DataDir, told));
        }
        private_directory(path).map_err(|error| failed(&error))
    }

    /// Whether no account was made here yet.
    pub fn is_first_start(&self) -> bool {
        !self.path.join(STORE).exists()
    }

    /// Whether this is a place for an account: it holds one, or what the user wrote for one.
    fn holds_account(&self) -> bool {
        [CONFIG, STORE].iter().any(|name| self.path.join(name).exists())
    }

    /// Whether there is an account here to be deleted, or what a deletion that was broken off has left of one.
    pub fn holds_what_can_be_deleted(&self) -> bool {
        dunlin_store::holds_account(&self.path) || is_empty(&self.path).unwrap_or(false)
    }

    /// Prepares to delete the account, and everything that Dunlin keeps here and beside.
    pub fn destruction(&self) -> Result<Destruction, OpenError> {
        let beside = FileBeside::of(&self.path).map_or_else(Vec::new, |beside| beside.files().to_vec());
        Destruction::of(&self.path, &[CONFIG, NODE, SOCKET, LOG], &beside)
    }

    /// Reads `config.toml`; one that does not exist says nothing.
    pub fn config(&self) -> Result<Config, Failure> {
        let path = self.path.join(CONFIG);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return Err(Failure::disk(format_args!("Reading {}", path.display()), &error)),
        };
        toml::from_str(&text).map_err(|error| {
            let told = format!("{} cannot be understood: {}. Correct it.", path.display(), error.message());
            Failure::new(Exit::DataDir, told)
        })
    }

    /// Settles which network this directory belongs to, and remembers it at the first start.
    pub fn settle_profile(&self, wanted: Option<ProfileName>) -> Result<ProfileName, Failure> {
        let Some(kept) = self.config()?.profile else {
            let profile = wanted.unwrap_or_default();
            self.remember(profile)?;
            return Ok(profile);
        };
        let Ok(profile) = ProfileName::from_str(&kept, false) else {
            let told = format!(
                "{} says profile \"{kept}\", which this version does not know. Update Dunlin, or correct it.",
                self.path.join(CONFIG).display()
            );
            return Err(Failure::new(Exit::DataDir, told));
        };
        match wanted {
            Some(wanted) if wanted != profile => Err(Failure::new(
                Exit::DataDir,
                format!(
                    "{} is an account of the profile {kept}, and profiles never meet. \
                     Leave --profile away, or use another directory: --data-dir DIR.",
                    self.path.display()
                ),
            )),
            Some(_) | None => Ok(profile),
        }
    }

    /// Remembers peers to stay connected with, unless the user wrote some there.
    pub fn remember_connect(&self, addresses: &[String]) -> Result<(), Failure> {
        if !self.config()?.connect.is_empty() {
            return Ok(());
        }
        let path = self.path.join(CONFIG);
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let quoted: Vec<_> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let text =
            format!("# The device that this one was linked from.\nconnect = [{}]\n{kept}", quoted.join(", "));
        write_private(&path, text.as_bytes())
            .map_err(|error| Failure::disk(format_args!("Writing {}", path.display()), &error))
    }

    /// Reads how to reach the running node; `None` when none says that it is running.
    pub fn node_file(&self) -> Option<NodeFile> {
        let text = fs::read(self.path.join(NODE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Tells commands how to reach this node.
    pub fn announce(&self, node: &NodeFile) -> Result<(), Failure> {
        let path = self.path.join(NODE);
        let text = serde_json::to_vec(node).map_err(|error| Failure::told(error.to_string()))?;
        write_private(&path, &text)
            .map_err(|error| Failure::disk(format_args!("Writing {}", path.display()), &error))
    }

    /// Takes back what [`Self::announce`] told.
    pub fn withdraw(&self) {
        // What stays behind after a crash is noticed by whoever connects; so is this.
        let _ = fs::remove_file(self.path.join(NODE));
    }

    /// Finds a place for the socket: in the directory, or near the root when the path would be too long.
    pub fn socket_place(&self) -> Result<SocketPlace, Failure> {
        let path = self.path.join(SOCKET);
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            clear(&path);
            return Ok(SocketPlace { path, _instead: None });
        }
        let mut instead = tempfile::Builder::new();
        #[cfg(unix)]
        instead.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let instead = instead
            .prefix("dunlin-")
            .tempdir()
            .map_err(|error| Failure::disk("Making a directory for the socket", &error))?;
        Ok(SocketPlace { path: instead.path().join(SOCKET), _instead: Some(instead) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log goes while the chat has the terminal.
    pub fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    fn remember(&self, profile: ProfileName) -> Result<(), Failure> {
        let path = self.path.join(CONFIG);
        let name = profile.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let kept = fs::read_to_string(&path).unwrap_or_default();
        write_private(&path, format!("profile = \"{name}\"\n{kept}").as_bytes())
            .map_err(|error| Failure::disk(format_args!("Writing {}", path.display()), &error))
    }
}

impl SocketPlace {
    /// Where to bind.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How clients say it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        clear(&self.path);
    }
}

/// Where the data are when nobody says otherwise.
fn usual_path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(std::env::home_dir()?.join(".local/share")));
    data.map(|data| data.join("dunlin"))
}

fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}

/// Removes a socket that a process left behind. The lock on the store says that none is using it.
fn clear(socket: &Path) {
    let _ = fs::remove_file(socket);
}

/// Makes the directory, and takes it away from everybody but its owner.
#[cfg(unix)]
fn private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Makes the directory; the profile of a user is private already.
#[cfg(not(unix))]
fn private_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Writes a file that only its owner can read, all of it or nothing.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    // A temporary file is private from the start.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(Some(place.path().join("data"))).unwrap();
        home.prepare().unwrap();
        (place, home)
    }

    #[test]
    fn the_profile_is_decided_once() {
        let (_place, home) = home();
        assert_eq!(home.settle_profile(Some(ProfileName::Wesh)).unwrap(), ProfileName::Wesh);
        assert_eq!(home.settle_profile(None).unwrap(), ProfileName::Wesh);
        let failure = home.settle_profile(Some(ProfileName::Berty)).unwrap_err();
        assert_eq!(failure.exit(), Exit::DataDir);
        assert!(failure.to_string().contains("profile wesh"), "{failure}");
    }

    #[test]
    fn what_the_user_wrote_stays() {
        let (_place, home) = home();
        fs::write(home.path().join(CONFIG), "# the office\nlan = true\n").unwrap();
        home.settle_profile(None).unwrap();
        assert!(home.config().unwrap().lan);
        assert!(fs::read_to_string(home.path().join(CONFIG)).unwrap().contains("# the office"));
    }

    #[test]
    fn a_word_that_means_nothing_is_told() {
        let (_place, home) = home();
        fs::write(home.path().join(CONFIG), "profil = \"wesh\"\n").unwrap();
        let failure = home.config().unwrap_err();
        assert_eq!(failure.exit(), Exit::DataDir);
        assert!(failure.to_string().contains("profil"), "{failure}");
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("thesis.tex"), "").unwrap();
        let failure = Home::at(Some(place.path().to_owned())).unwrap().prepare().unwrap_err();
        assert_eq!(failure.exit(), Exit::DataDir);
    }

    #[test]
    fn a_long_path_gets_a_short_socket() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::at(Some(place.path().join("x".repeat(120)))).unwrap();
        home.prepare().unwrap();
        let socket = home.socket_place().unwrap();
        assert!(socket.path().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert!(!socket.path().starts_with(home.path()));
        let (_place, short) = self::home();
        assert!(short.socket_place().unwrap().path().starts_with(short.path()));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let (_place, home) = home();
        let node = NodeFile { grpc: "unix:/x".to_owned(), pid: 1, version: "0".to_owned() };
        home.announce(&node).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(home.path()), 0o700);
        assert_eq!(mode(&home.path().join(NODE)), 0o600);
        assert_eq!(home.node_file().unwrap().grpc, "unix:/x");
        home.withdraw();
        assert!(home.node_file().is_none());
    }
}
