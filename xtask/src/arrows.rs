//! Which crate may see which.
//!
//! Dependencies point down one way, and a pure crate sees neither clock, socket, task nor entropy. The
//! tables below are the rules; `cargo xtask arrows` holds the manifests and the sources against them. A
//! new arrow is a line in [`ROOMS`] and a paragraph in ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::{Package, Workspace};
use crate::{Failure, Result};

/// One package, and all that it may know of the others.
struct Room {
    package: &'static str,
    /// The packages of this repository that it may depend on, in its tests too.
    sees: &'static [&'static str],
    /// The kinds of foreign package that it must not depend on. Tests may.
    never: &'static [&'static Ban],
}

/// A kind of foreign package, and why a room does without it.
struct Ban {
    /// Their names. A name also stands for the packages whose names it begins, as tokio does for tokio-util.
    packages: &'static [&'static str],
    because: &'static str,
}

/// All rooms, from the ground up. An arrow that is not here does not exist.
const ROOMS: &[Room] = &[
    Room { package: "dunlin-base", sees: &[], never: &[&WORLD] },
    Room { package: "dunlin-proto", sees: &["dunlin-base"], never: &[&WORLD] },
    Room { package: "dunlin-log", sees: &["dunlin-base"], never: &[&WORLD, &SEALS] },
    Room { package: "dunlin-orbitdb", sees: &["dunlin-base", "dunlin-log"], never: &[&WORLD] },
    Room {
        package: "dunlin-wesh",
        sees: &["dunlin-base", "dunlin-log", "dunlin-orbitdb", "dunlin-proto"],
        never: &[&WORLD],
    },
    Room { package: "dunlin-store", sees: &["dunlin-base"], never: &[&TASKS] },
    Room { package: "dunlin-ipfs", sees: &["dunlin-base"], never: &[&DISK] },
    Room {
        package: "dunlin-node",
        sees: &[
            "dunlin-base",
            "dunlin-ipfs",
            "dunlin-log",
            "dunlin-orbitdb",
            "dunlin-proto",
            "dunlin-store",
            "dunlin-wesh",
        ],
        never: &[],
    },
    Room {
        package: "dunlin-messenger",
        sees: &["dunlin-base", "dunlin-node", "dunlin-proto", "dunlin-store", "dunlin-wesh"],
        never: &[&KEYS],
    },
    Room {
        package: "dunlin",
        sees: &[
            "dunlin-base",
            "dunlin-ipfs",
            "dunlin-messenger",
            "dunlin-node",
            "dunlin-proto",
            "dunlin-store",
            "dunlin-wesh",
        ],
        never: &[],
    },
    // These see every library, and nothing sees them.
    Room { package: "dunlin-sim", sees: LIBRARIES, never: &[] },
    Room { package: "dunlin-vectors", sees: LIBRARIES, never: &[] },
    Room { package: "dunlin-bench", sees: LIBRARIES, never: &[] },
    // This one meets nodes of any make, so it knows what goes over the wire and nothing of what is behind it.
    Room { package: "dunlin-conformance", sees: &["dunlin-proto"], never: &[&INSIDES] },
    // This one sees no crate, so that it compiles when they do not.
    Room { package: "xtask", sees: &[], never: &[] },
];

const LIBRARIES: &[&str] = &[
    "dunlin-base",
    "dunlin-ipfs",
    "dunlin-log",
    "dunlin-messenger",
    "dunlin-node",
    "dunlin-orbitdb",
    "dunlin-proto",
    "dunlin-store",
    "dunlin-wesh",
];

/// The feature with which faults can be planted, and the packages that have it: the one with the switch, and the one
/// that turns it.
const PLANTED: &str = "planted";
const PLANTERS: &[&str] = &["dunlin-base", "dunlin-sim"];

/// What a pure crate is handed instead of taking.
const WORLD: Ban = Ban {
    packages: &[
        "async-std",
        "getrandom",
        "libp2p",
        "mio",
        "rand",
        "redb",
        "rusqlite",
        "smol",
        "socket2",
        "tokio",
        "web-time",
    ],
    because: "a pure crate is handed time, bytes and randomness; take what it yields as an argument, \
              or move the code to `node`",
};

/// What opens a message.
const SEALS: Ban = Ban {
    packages: &[
        "aes",
        "chacha20poly1305",
        "crypto_box",
        "crypto_secretbox",
        "salsa20",
        "x25519-dalek",
        "xsalsa20poly1305",
        "xts-mode",
    ],
    because: "sealing and opening belong to `base` and `wesh`; work on bytes that are already sealed or opened",
};

/// What names blocks and signs them.
const KEYS: Ban = Ban {
    packages: &["cid", "curve25519-dalek", "ed25519-dalek", "k256", "multihash"],
    because: "the messenger never touches CIDs or keys; ask `node` or `wesh` for the operation by its purpose",
};

/// What runs tasks.
const TASKS: Ban = Ban {
    packages: &["async-std", "libp2p", "mio", "smol", "tokio"],
    because: "the store blocks its caller, who chooses the thread; move the asynchronous part to `node`",
};

/// What a node is made of.
const INSIDES: Ban = Ban {
    packages: &["curve25519-dalek", "ed25519-dalek", "libp2p", "redb"],
    because: "conformance meets nodes through their gRPC service alone; ask the node for it",
};

/// What keeps blocks on a disk.
const DISK: Ban = Ban {
    packages: &["fjall", "redb", "rusqlite", "sled"],
    because: "an IPFS node is handed its block store by whoever embeds it; implement the trait in `node`",
};

/// The packages whose sources are searched for [`WORLDLY_WORDS`].
const PURE: &[&str] = &["dunlin-base", "dunlin-log", "dunlin-orbitdb", "dunlin-proto", "dunlin-wesh"];

/// What no source of a pure crate says outside comments, and what it says instead.
const WORLDLY_WORDS: &[(&str, &str)] = &[
    ("Instant::now", "take the time as an argument"),
    ("OsRng", "take the randomness as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("TcpStream", "take or return the bytes"),
    ("UdpSocket", "take or return the bytes"),
    ("getrandom", "take the randomness as an argument"),
    ("std::env", "take the setting as an argument"),
    ("std::fs", "take or return the bytes"),
    ("std::net", "take or return the bytes, or address the peer by its id"),
    ("thread::sleep", "return the next deadline and let the caller wait"),
    ("thread::spawn", "return an action and let the caller run it"),
    ("thread_rng", "take the randomness as an argument"),
    ("tokio", "return an action and let the caller await it"),
];

/// Checks the whole repository, and prints every violation.
pub fn check(workspace: &Workspace) -> Result {
    let packages = workspace.packages()?;
    let mut violations = Vec::new();
    for package in &packages {
        violations.extend(check_folder(workspace.root(), package));
        violations.extend(check_dependencies(package));
        violations.extend(check_planted(package));
        if PURE.contains(&package.name.as_str()) {
            violations.extend(check_sources(workspace.root(), &package.folder.join("src"))?);
        }
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    match violations.len() {
        0 => Ok(()),
        1 => Err(Failure::new("1 arrow points the wrong way")),
        count => Err(Failure::new(format!("{count} arrows point the wrong way"))),
    }
}

/// Folder `crates/x` holds package `dunlin-x`.
fn check_folder(root: &Path, package: &Package) -> Option<String> {
    let folder = package.folder.strip_prefix(root.join("crates")).ok()?.to_string_lossy();
    let name = format!("dunlin-{folder}");
    (package.name != name)
        .then(|| format!("crates/{folder}: the package is called {}; rename it to {name}", package.name))
}

fn check_dependencies(package: &Package) -> Vec<String> {
    let name = &package.name;
    let Some(room) = ROOMS.iter().find(|room| room.package == name) else {
        return vec![format!(
            "{name} has no room; add it to ROOMS in xtask/src/arrows.rs, and its paragraph to ARCHITECTURE.md"
        )];
    };
    let mut violations = Vec::new();
    for dependency in &package.dependencies {
        let other = dependency.name.as_str();
        let is_ours = ROOMS.iter().any(|room| room.package == other);
        let is_seen = room.sees.contains(&other) || (dependency.for_tests && is_below(room, other));
        if is_ours && !is_seen {
            violations.push(format!(
                "{name} -> {other}: {name} may see {}; \
                 move the code to a crate that sees both, or pass in what it needs",
                enumerate(room.sees),
            ));
        }
        for ban in room.never {
            if !dependency.for_tests && ban.covers(other) {
                violations.push(format!("{name} -> {other}: {}", ban.because));
            }
        }
    }
    violations
}

/// Faults are planted by nobody but the simulation, and by it only where it is asked to.
fn check_planted(package: &Package) -> Vec<String> {
    let name = &package.name;
    let asks = package
        .dependencies
        .iter()
        .filter(|dependency| dependency.features.iter().any(|feature| is_planted(feature)));
    let mut violations: Vec<String> = asks
        .map(|dependency| {
            format!("{name} -> {}: nobody depends on planted faults; drop the feature", dependency.name)
        })
        .collect();
    for (feature, turned_on) in &package.features {
        let is_theirs = feature == PLANTED && PLANTERS.contains(&name.as_str());
        if !is_theirs && (feature == PLANTED || turned_on.iter().any(|feature| is_planted(feature))) {
            violations.push(format!(
                "{name}: its feature `{feature}` plants faults, which only `{PLANTED}` of {} may",
                enumerate(PLANTERS)
            ));
        }
    }
    violations
}

/// Whether an item of a feature or a dependency is the feature that plants faults, of whatever package.
fn is_planted(feature: &str) -> bool {
    feature.rsplit('/').next() == Some(PLANTED)
}

/// Whether something that `room` sees sees `other`: a test may reach below its crate, to play a foreign peer.
fn is_below(room: &Room, other: &str) -> bool {
    let seen = |package: &&str| ROOMS.iter().find(|below| below.package == *package);
    room.sees.iter().filter_map(seen).any(|below| below.sees.contains(&other))
}

fn check_sources(root: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for file in rust_files(folder)? {
        let source = fs::read_to_string(&file)
            .map_err(|error| Failure::new(format!("{} was not read: {error}", file.display())))?;
        let shown = file.strip_prefix(root).unwrap_or(&file);
        for (line, word, remedy) in worldly_words(&source) {
            violations
                .push(format!("{}:{line}: a pure crate does not say `{word}`; {remedy}", shown.display()));
        }
    }
    Ok(violations)
}

/// The worldly words of a source file, with their lines and remedies.
fn worldly_words(source: &str) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    source.lines().zip(1..).flat_map(|(line, number)| {
        let code = line.split_once("//").map_or(line, |(code, _comment)| code);
        WORLDLY_WORDS
            .iter()
            .filter(move |(word, _)| code.contains(word))
            .map(move |(word, remedy)| (number, *word, *remedy))
    })
}

/// The Rust files below a folder, in the order of their names.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unread = |error| Failure::new(format!("{} was not read: {error}", folder.display()));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        paths.push(entry.map_err(unread)?.path());
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn enumerate(packages: &[&str]) -> String {
    if packages.is_empty() { "no other crate of this repository".to_owned() } else { packages.join(", ") }
}

impl Ban {
    fn covers(&self, package: &str) -> bool {
        self.packages.iter().any(|name| match package.strip_prefix(name) {
            Some(rest) => rest.is_empty() || rest.starts_with('-'),
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::workspace::Dependency;

    #[test]
    fn the_arrows_of_the_design_pass() {
        let node = package("dunlin-node", &["dunlin-wesh", "dunlin-store", "dunlin-ipfs", "tokio", "libp2p"]);
        assert_eq!(check_dependencies(&node), Vec::<String>::new());
    }

    #[test]
    fn an_arrow_that_points_up_is_caught() {
        let log = package("dunlin-log", &["dunlin-base", "dunlin-wesh"]);
        let violations = check_dependencies(&log);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].starts_with("dunlin-log -> dunlin-wesh: dunlin-log may see dunlin-base;"));
    }

    #[test]
    fn an_arrow_between_siblings_is_caught_even_in_tests() {
        let mut store = package("dunlin-store", &[]);
        store.dependencies.push(dependency("dunlin-ipfs", true));
        assert_eq!(check_dependencies(&store).len(), 1);
    }

    #[test]
    fn nothing_sees_the_watchers() {
        for watcher in
            ["dunlin-sim", "dunlin-vectors", "dunlin-bench", "dunlin-conformance", "xtask", "dunlin"]
        {
            for room in ROOMS {
                let curious = package(room.package, &[watcher]);
                assert_eq!(check_dependencies(&curious).len(), 1, "{} -> {watcher}", room.package);
            }
        }
    }

    #[test]
    fn rooms_only_see_rooms_above_them_in_the_table_so_there_is_no_circle() {
        for (height, room) in ROOMS.iter().enumerate() {
            for seen in room.sees {
                let below = ROOMS.iter().take(height).any(|lower| lower.package == *seen);
                assert!(below, "{} -> {seen}", room.package);
            }
        }
    }

    #[test]
    fn a_pure_crate_links_no_runtime_but_its_tests_may() {
        let mut wesh = package("dunlin-wesh", &["tokio-util", "rand_core", "getrandom"]);
        wesh.dependencies.push(dependency("tokio", true));
        let violations = check_dependencies(&wesh);
        assert_eq!(violations.len(), 2, "{violations:?}");
        assert!(violations[0].starts_with("dunlin-wesh -> tokio-util: a pure crate is handed"));
    }

    #[test]
    fn the_log_links_no_seals_and_the_messenger_no_keys() {
        assert_eq!(check_dependencies(&package("dunlin-log", &["crypto_box"])).len(), 1);
        assert_eq!(check_dependencies(&package("dunlin-messenger", &["cid", "ed25519-dalek"])).len(), 2);
        let mut messenger = package("dunlin-messenger", &["dunlin-log"]);
        assert_eq!(check_dependencies(&messenger).len(), 1);
        messenger.dependencies[0].for_tests = true;
        assert_eq!(check_dependencies(&messenger), Vec::<String>::new());
    }

    #[test]
    fn only_the_simulation_plants_faults_and_not_by_default() {
        let with = |name: &str, feature: &str, turned_on: &str| {
            let mut package = package(name, &[]);
            package.features.insert(feature.to_owned(), vec![turned_on.to_owned()]);
            check_planted(&package).len()
        };
        assert_eq!(with("dunlin-sim", "planted", "dunlin-base/planted"), 0);
        assert_eq!(with("dunlin-sim", "default", "planted"), 1);
        assert_eq!(with("dunlin-base", "default", "planted"), 1);
        assert_eq!(with("dunlin-wesh", "planted", "dunlin-base/planted"), 1);
        assert_eq!(with("dunlin-node", "fast", "dunlin-base?/planted"), 1);

        let mut node = package("dunlin-node", &["dunlin-base"]);
        node.dependencies[0].features.push("planted".to_owned());
        assert_eq!(check_planted(&node).len(), 1, "a dependency must not ask for them");
        node.dependencies[0].for_tests = true;
        assert_eq!(check_planted(&node).len(), 1, "in tests neither");
    }

    #[test]
    fn a_crate_without_a_room_is_caught() {
        let violations = check_dependencies(&package("dunlin-cellar", &[]));
        assert!(violations[0].contains("has no room"));
    }

    #[test]
    fn a_package_is_called_like_its_folder() {
        let mut log = package("dunlin-journal", &[]);
        log.folder = PathBuf::from("/repository/crates/log");
        let violation = check_folder(Path::new("/repository"), &log);
        assert_eq!(
            violation.as_deref(),
            Some("crates/log: the package is called dunlin-journal; rename it to dunlin-log")
        );
        log.name = "dunlin-log".to_owned();
        assert_eq!(check_folder(Path::new("/repository"), &log), None);
    }

    #[test]
    fn worldly_words_are_found_in_code_and_not_in_comments() {
        let source = "\
            //! Nothing here runs on tokio.\n\
            let now = Instant::now(); // not SystemTime::now\n\
            use std::net::IpAddr;\n";
        let found: Vec<_> = worldly_words(source).map(|(line, word, _)| (line, word)).collect();
        assert_eq!(found, [(2, "Instant::now"), (3, "std::net")]);
    }

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            folder: PathBuf::new(),
            dependencies: dependencies.iter().map(|name| dependency(name, false)).collect(),
            tests: Vec::new(),
            programs: Vec::new(),
            features: BTreeMap::new(),
        }
    }

    fn dependency(name: &str, for_tests: bool) -> Dependency {
        Dependency { name: name.to_owned(), for_tests, features: Vec::new() }
    }
}
