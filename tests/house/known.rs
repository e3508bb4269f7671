//! What still breaks a rule: `known.txt` beside this file, a line each. It may only shrink.
//!
//! `HOUSE_KNOWN=write cargo test --test house` writes it anew; look at the difference before you
//! commit it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{env, fmt};

/// A place where a rule is broken.
#[derive(Debug)]
pub(crate) struct Finding {
    /// What it is called in `known.txt`: without line numbers, so that it lasts.
    pub(crate) key: String,
    /// Where it is, what is wrong and what to do.
    message: String,
}

impl Finding {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The rules' tests run side by side, and share the list.
static LIST: Mutex<()> = Mutex::new(());

/// The package's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Holds that `found` is what the list knows of `rule`: no more, and no less.
pub(crate) fn hold(rule: &str, found: &[Finding]) {
    let _guard = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    let path = root().join("tests/house/known.txt");
    let list = fs::read_to_string(&path).unwrap_or_default();
    if env::var_os("HOUSE_KNOWN").is_some_and(|value| value == "write") {
        let others = list.lines().filter(|line| word(line) != rule);
        let mut lines: BTreeSet<String> = others.map(str::to_owned).collect();
        lines.extend(
            found
                .iter()
                .map(|finding| format!("{rule} {}", finding.key)),
        );
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, lines).expect("writable list");
        return;
    }
    let faults = compare(rule, found, &list);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The findings that the list does not know, and its lines that are no longer true.
fn compare(rule: &str, found: &[Finding], list: &str) -> Vec<String> {
    let known: BTreeSet<&str> = list
        .lines()
        .filter(|line| word(line) == rule)
        .map(|line| line[rule.len()..].trim())
        .collect();
    let keys: BTreeSet<&str> = found.iter().map(|finding| finding.key.as_str()).collect();
    let new = found.iter().filter(|f| !known.contains(f.key.as_str()));
    let gone = known.iter().filter(|key| !keys.contains(**key));
    let gone = gone.map(|key| {
        format!("tests/house/known.txt: `{rule} {key}` is no longer so. Delete the line.")
    });
    new.map(Finding::to_string).chain(gone).collect()
}

/// Holds that there are exactly as many findings as the list's line `rule` says.
pub(crate) fn hold_count(rule: &str, found: &[Finding]) {
    let list = fs::read_to_string(root().join("tests/house/known.txt")).unwrap_or_default();
    let known = list
        .lines()
        .find(|line| word(line) == rule)
        .map_or(0, |line| {
            line[rule.len()..].trim().parse().expect("a count")
        });
    if found.len() > known {
        for finding in found {
            println!("{finding}");
        }
    }
    let count = [Finding::new(
        found.len().to_string(),
        format!(
            "{rule}: {} places, and {known} are known; see above",
            found.len()
        ),
    )];
    hold(rule, if found.is_empty() { &[] } else { &count });
}

fn word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[test]
fn new_faults_and_stale_lines_both_fail() {
    let found = [
        Finding::new("a.rs f", "a.rs:1: f"),
        Finding::new("b.rs g", "b.rs:2: g"),
    ];
    let faults = |list| compare("rule", &found, list);
    assert!(faults("other x\nrule a.rs f\nrule b.rs g\n").is_empty());
    assert_eq!(faults("rule a.rs f\n"), ["b.rs:2: g"]);
    assert_eq!(
        faults("rule a.rs f\nrule b.rs g\nrule c.rs h\n"),
        ["tests/house/known.txt: `rule c.rs h` is no longer so. Delete the line."]
    );
}
