//! Whether `docs/rules.md` is true: every test and constant that it names exists, and every rule has its row.

use std::fs;
use std::path::PathBuf;

use crate::workspace::{Workspace, between};
use crate::{Failure, Result};

/// The rules of the security specification: a letter, and how many there are.
const RULES: &[(char, usize)] =
    &[('C', 9), ('V', 8), ('O', 14), ('N', 10), ('Q', 6), ('E', 10), ('D', 10), ('S', 7)];

/// What a row says that has no test.
const NOT_YET: &str = "not yet";

/// Lines above a function on which its attributes are looked for.
const ATTRIBUTE_LINES: usize = 6;

/// Checks the page against the sources.
pub fn check(workspace: &Workspace) -> Result {
    let page = workspace.root().join("docs/rules.md");
    let text = fs::read_to_string(&page)
        .map_err(|error| Failure::new(format!("docs/rules.md cannot be read: {error}")))?;
    let sources = |name: &str| read_source(workspace, name);
    let remarks = remarks(&text, &sources);
    if remarks.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("docs/rules.md is not true:\n  {}", remarks.join("\n  "))))
}

/// The text of a source file that the page names as `crate/module` or `crate/tests/name`.
fn read_source(workspace: &Workspace, name: &str) -> Option<String> {
    let root = workspace.root();
    let (first, rest) = name.split_once('/')?;
    let folders: [PathBuf; 2] = match first {
        "apps" => {
            let (app, rest) = rest.split_once('/')?;
            let app = root.join("apps").join(app);
            [app.join(rest), app.join("src").join(rest)]
        }
        "bench" | "fuzz" | "vectors" | "xtask" => [root.join(name), root.join(first).join("src").join(rest)],
        _ => {
            let package = root.join("crates").join(first);
            [package.join(rest), package.join("src").join(rest)]
        }
    };
    folders.iter().find_map(|base| fs::read_to_string(base.with_extension("rs")).ok())
}

/// All that is wrong with the page.
fn remarks(page: &str, source: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut seen = Vec::new();
    for row in page.lines().filter_map(Row::of_line) {
        for (is_test, cell) in [(false, row.code), (true, row.tests)] {
            for name in quoted(cell) {
                if let Some(problem) = problem_with(name, is_test, source) {
                    remarks.push(format!("{}: {problem}", row.rule));
                }
            }
        }
        if quoted(row.tests).next().is_none() && !row.tests.contains(NOT_YET) {
            remarks.push(format!("{}: it has no test and does not say `{NOT_YET}`", row.rule));
        }
        seen.push(row.rule);
    }
    for (letter, count) in RULES {
        for number in 1..=*count {
            let rule = format!("{letter}{number}");
            match seen.iter().filter(|seen| **seen == rule).count() {
                1 => {}
                0 => remarks.push(format!("{rule}: it has no row")),
                _ => remarks.push(format!("{rule}: it has several rows")),
            }
        }
    }
    remarks
}

/// A row of a table with four columns.
struct Row<'t> {
    rule: &'t str,
    code: &'t str,
    tests: &'t str,
}

impl<'t> Row<'t> {
    fn of_line(line: &'t str) -> Option<Self> {
        let line = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [rule, _, code, tests] = cells.as_slice() else { return None };
        let is_head = tests.contains("---") || *code == "code";
        (!is_head).then_some(Self { rule, code, tests })
    }
}

/// What stands between backticks and names something in a file.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    between(cell, '`').filter(|name| name.contains(": "))
}

fn problem_with(name: &str, is_test: bool, source: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (file, item) = name.split_once(": ")?;
    if file == "fuzz" {
        let missing = source(&format!("fuzz/targets/{item}")).is_none();
        return missing.then(|| format!("there is no fuzz target `{item}`"));
    }
    let Some(text) = source(file) else { return Some(format!("there is no source file `{file}`")) };
    match is_test {
        true => (!has_test(&text, item)).then(|| format!("`{file}` has no test `{item}`")),
        false => (!has_item(&text, item)).then(|| format!("`{file}` has no `{item}`")),
    }
}

fn has_item(source: &str, item: &str) -> bool {
    let kinds = ["const ", "fn ", "struct ", "enum ", "trait ", "static "];
    source.lines().any(|line| kinds.iter().any(|kind| names(line, kind, item)))
}

fn has_test(source: &str, item: &str) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines.iter().take(at).rev().take(ATTRIBUTE_LINES);
        let mut above = above.take_while(|line| !line.trim().is_empty());
        names(line, "fn ", item) && above.any(|line| line.contains("#[test") || line.contains("::test"))
    })
}

/// Whether a line defines `item` with the keyword `kind`.
fn names(line: &str, kind: &str, item: &str) -> bool {
    line.match_indices(kind).any(|(at, _)| {
        let before = line.get(..at).unwrap_or_default();
        let rest = line.get(at + kind.len()..).and_then(|rest| rest.strip_prefix(item));
        let ends = rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        let begins = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        ends && begins && !before.trim_start().starts_with("//")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "pub const LIMIT_MAX: usize = 1;\n// const GONE: usize = 1;\nfn plain() {}\n\n\
                          #[tokio::test]\nasync fn a_rule_holds() {}\n";

    fn source(name: &str) -> Option<String> {
        ["log/verdict", "fuzz/targets/frame"].contains(&name).then(|| SOURCE.to_owned())
    }

    fn remarks_on(row: &str) -> Vec<String> {
        let mut found = remarks(row, &source);
        found.retain(|remark| !remark.contains("no row"));
        found
    }

    #[test]
    fn what_is_named_has_to_exist() {
        let good = "| C1 | words | `log/verdict: LIMIT_MAX` | `log/verdict: a_rule_holds`, `fuzz: frame` |";
        assert_eq!(remarks_on(good), Vec::<String>::new());
        for bad in [
            "| C1 | words | `log/verdict: GONE` | not yet |",
            "| C1 | words | `log/verdict: LIMIT` | not yet |",
            "| C1 | words | `log/elsewhere: LIMIT_MAX` | not yet |",
            "| C1 | words | | `log/verdict: plain` |",
            "| C1 | words | | `log/verdict: a_rule` |",
            "| C1 | words | | `fuzz: nothing` |",
            "| C1 | words | | |",
        ] {
            assert_eq!(remarks_on(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn every_rule_has_one_row() {
        let found = remarks("| C1 | words | | not yet |\n| C1 | words | | not yet |", &source);
        assert!(found.contains(&"C1: it has several rows".to_owned()));
        assert!(found.contains(&"S7: it has no row".to_owned()));
        assert_eq!(found.len(), 9 + 8 + 14 + 10 + 6 + 10 + 10 + 7);
    }
}
