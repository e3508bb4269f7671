//! What still breaks a rule: `known.txt` beside this file, a line each. It may only shrink.
//!
//! `HOUSE_KNOWN=write cargo test --test house` writes it anew; look at the difference before you
//! commit it.

use std::{
    collections::BTreeSet,
    env, fmt, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A place where a rule is broken.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// What it is called in `known.txt`: without line numbers, so that it lasts.
    pub(crate) key: String,
    /// Where it is, what is wrong and what to do.
    message: String,
}

impl Finding {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
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
    if is_to_write() {
        let keys = found.iter().map(|finding| finding.key.clone());
        return write(rule, keys.collect());
    }
    let faults = compare(rule, found, &read());
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// Holds that `rule` is broken at most as often as the list's line for it says, and without such a
/// line at most `limit` times. `places` are shown if it is more.
pub(crate) fn hold_at_most(rule: &str, limit: usize, count: usize, places: &[Finding]) {
    let _guard = LIST.lock().unwrap_or_else(PoisonError::into_inner);
    if is_to_write() {
        let is_over = count > limit;
        return write(rule, is_over.then(|| count.to_string()).into_iter().collect());
    }
    let limit = known_limit(rule, &read()).unwrap_or(limit);
    let places: String = places.iter().map(|place| format!("\n{place}")).collect();
    assert!(count <= limit, "{places}\n{rule}: {count}, and {limit} are allowed\n");
}

fn known_limit(rule: &str, list: &str) -> Option<usize> {
    let line = list.lines().find(|line| word(line) == rule)?;
    Some(line[rule.len()..].trim().parse().expect("a count"))
}

fn is_to_write() -> bool {
    env::var_os("HOUSE_KNOWN").is_some_and(|value| value == "write")
}

fn path() -> PathBuf {
    root().join("tests/house/known.txt")
}

/// The list; without one, nothing is known.
fn read() -> String {
    fs::read_to_string(path()).unwrap_or_default()
}

/// Replaces the list's lines for `rule`.
fn write(rule: &str, keys: BTreeSet<String>) {
    let list = read();
    let others = list.lines().filter(|line| word(line) != rule);
    let mut lines: BTreeSet<String> = others.map(str::to_owned).collect();
    lines.extend(keys.iter().map(|key| format!("{rule} {key}")));
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path(), lines).expect("writable list");
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

fn word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

#[test]
fn new_faults_and_stale_lines_both_fail() {
    let found = [Finding::new("a.rs f", "a.rs:1: f"), Finding::new("b.rs g", "b.rs:2: g")];
    let faults = |list| compare("rule", &found, list);
    assert!(faults("other x\nrule a.rs f\nrule b.rs g\n").is_empty());
    assert_eq!(faults("rule a.rs f\n"), ["b.rs:2: g"]);
    assert_eq!(
        faults("rule a.rs f\nrule b.rs g\nrule c.rs h\n"),
        ["tests/house/known.txt: `rule c.rs h` is no longer so. Delete the line."]
    );
}

#[test]
fn a_count_may_fall_and_not_rise() {
    let list = "imports-src 7\nimports-tests 5\n";
    assert_eq!(known_limit("imports-tests", list), Some(5));
    assert_eq!(known_limit("imports", list), None);
    hold_at_most("no such rule", 2, 2, &[]);
    let place = [Finding::new("", "a.rs:1: f")];
    let over = || hold_at_most("no such rule", 0, 1, &place);
    assert!(is_to_write() || std::panic::catch_unwind(over).is_err());
}
