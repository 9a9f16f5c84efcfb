//! Licences, bans and sources of the dependencies, held against deny.toml.
//!
//! `cargo deny` checks more, and takes minutes to install. This takes a second, and reads the same lists.

use std::collections::BTreeMap;
use std::fs;

use crate::workspace::{Workspace, between, output};
use crate::{Failure, Result};

/// Checks every package that the workspace builds, on any platform, for programs as for tests.
pub fn check(workspace: &Workspace) -> Result {
    let rules = fs::read_to_string(workspace.root().join("deny.toml"))
        .map_err(|error| Failure::new(format!("deny.toml was not read: {error}")))?;
    let allowed = string_list(&rules, "licenses", "allow")?;
    let banned = string_list(&rules, "bans", "deny")?;

    let mut violations = Vec::new();
    for (package, licence) in packages(workspace)? {
        violations.extend(check_package(&package, &licence, &allowed, &banned));
    }
    for violation in &violations {
        eprintln!("{violation}");
    }
    if violations.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "a dependency is not what deny.toml allows; replace it, or change the list and say why there",
    ))
}

/// The packages, as `name v1.2.3 (source)`, and their licences.
fn packages(workspace: &Workspace) -> Result<BTreeMap<String, String>> {
    let mut tree = workspace.cargo([
        "tree",
        "--workspace",
        "--target=all",
        "--edges=normal,build,dev",
        "--prefix=none",
        "--format={l};{p}",
    ]);
    let lines = output(&mut tree)?;
    let packages = lines.lines().filter_map(|line| {
        let (licence, package) = line.split_once(';')?;
        let package = package.trim_end_matches(" (*)").trim_end_matches(" (proc-macro)");
        Some((package.to_owned(), licence.to_owned()))
    });
    Ok(packages.collect())
}

fn check_package(package: &str, licence: &str, allowed: &[String], banned: &[String]) -> Option<String> {
    let (name, rest) = package.split_once(' ').unwrap_or((package, ""));
    if banned.iter().any(|ban| ban == name) {
        return Some(format!("{name}: banned; `cargo tree --invert {name}` shows who wants it"));
    }
    // Only what does not come from the usual registry shows its source. Ours come from a folder.
    let source = rest.split_once('(').map(|(_, source)| source.trim_end_matches(')'));
    if let Some(source) = source.filter(|source| source.contains("://") || source.starts_with("registry")) {
        return Some(format!("{name}: comes from {source}; use a published version"));
    }
    match Expression::read(licence, allowed) {
        Some(true) => None,
        Some(false) => {
            Some(format!("{name}: its licence is `{licence}`, and no way to fulfil it is allowed"))
        }
        None => Some(format!("{name}: its licence `{licence}` is no SPDX expression; read its files")),
    }
}

/// Reads SPDX expressions, as far as packages use them, and tells whether the allowed licences fulfil them.
struct Expression<'a> {
    words: std::iter::Peekable<std::vec::IntoIter<String>>,
    allowed: &'a [String],
}

impl<'a> Expression<'a> {
    /// Whether the expression is fulfilled; `None` if it is not one.
    fn read(text: &str, allowed: &'a [String]) -> Option<bool> {
        // Before SPDX expressions, a slash meant OR.
        let spaced = text.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        let mut expression = Self { words: words.into_iter().peekable(), allowed };
        let fulfilled = expression.any()?;
        expression.words.next().is_none().then_some(fulfilled)
    }

    fn any(&mut self) -> Option<bool> {
        let mut fulfilled = self.all()?;
        while self.words.next_if(|word| word == "OR").is_some() {
            fulfilled |= self.all()?;
        }
        Some(fulfilled)
    }

    fn all(&mut self) -> Option<bool> {
        let mut fulfilled = self.one()?;
        while self.words.next_if(|word| word == "AND").is_some() {
            fulfilled &= self.one()?;
        }
        Some(fulfilled)
    }

    fn one(&mut self) -> Option<bool> {
        let word = self.words.next()?;
        match word.as_str() {
            "(" => {
                let fulfilled = self.any()?;
                self.words.next_if(|word| word == ")").map(|_| fulfilled)
            }
            ")" | "AND" | "OR" | "WITH" => None,
            _ => {
                let mut licence = word;
                if self.words.next_if(|word| word == "WITH").is_some() {
                    licence = format!("{licence} WITH {}", self.words.next()?);
                }
                Some(self.allowed.contains(&licence))
            }
        }
    }
}

/// The strings of the list `key = [ … ]` below `[section]`; of TOML, this reads just what it needs.
fn string_list(toml: &str, section: &str, key: &str) -> Result<Vec<String>> {
    let missing = || Failure::new(format!("deny.toml has no list `{key}` under [{section}]"));
    let (_, body) = toml.split_once(&format!("\n[{section}]")).ok_or_else(missing)?;
    let body = body.split("\n[").next().unwrap_or(body);
    let (_, list) = body.split_once(&format!("\n{key} = [")).ok_or_else(missing)?;
    let (list, _) = list.split_once(']').ok_or_else(missing)?;
    Ok(between(list, '"').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_fulfilled_by_what_is_allowed() {
        for (text, fulfilled) in [
            ("MIT", Some(true)),
            ("GPL-3.0-only", Some(false)),
            ("MIT OR GPL-3.0-only", Some(true)),
            ("MIT AND GPL-3.0-only", Some(false)),
            ("GPL-3.0-only/ISC", Some(true)),
            ("(MIT OR GPL-3.0-only) AND ISC", Some(true)),
            ("ISC AND (GPL-3.0-only OR MPL-2.0)", Some(false)),
            ("Apache-2.0 WITH LLVM-exception", Some(true)),
            ("Apache-2.0", Some(false)),
            ("", None),
            ("(MIT", None),
            ("MIT ISC", None),
        ] {
            assert_eq!(Expression::read(text, &allowed()), fulfilled, "{text}");
        }
    }

    #[test]
    fn a_package_is_held_against_bans_sources_and_licences() {
        let banned = ["openssl-sys".to_owned()];
        let check = |package, licence| check_package(package, licence, &allowed(), &banned);
        assert_eq!(check("sha2 v0.10.9", "MIT"), None);
        assert_eq!(check("dunlin-base v0.1.0 (/home/ann/dunlin/crates/base)", "MIT OR Apache-2.0"), None);
        assert!(check("openssl-sys v0.9.0", "MIT").is_some_and(|violation| violation.contains("banned")));
        let forked = "sha2 v0.10.9 (https://example.org/sha2#abc)";
        assert!(check(forked, "MIT").is_some_and(|violation| violation.contains("published version")));
        assert!(
            check("readline v8.0.0", "GPL-3.0-only")
                .is_some_and(|violation| violation.contains("GPL-3.0-only"))
        );
    }

    #[test]
    fn lists_are_read_from_their_section() {
        let toml = r#"
[licenses]
# why
allow = [
  "MIT",
  "ISC",
]

[bans]
deny = []
allow = ["other"]
"#;
        assert_eq!(string_list(toml, "licenses", "allow").unwrap(), ["MIT", "ISC"]);
        assert_eq!(string_list(toml, "bans", "deny").unwrap(), Vec::<String>::new());
        assert!(string_list(toml, "licenses", "deny").is_err());
    }

    fn allowed() -> Vec<String> {
        ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).to_vec()
    }
}
