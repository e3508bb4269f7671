//! How imports and `match` are written: one `use` statement a crate, and `if` for a bool.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    known::{self, Finding},
    source::{self, File},
};

#[test]
fn imports_are_grouped_by_crate() {
    for (folder, files) in source::folders() {
        let found: Vec<Finding> = files.iter().flat_map(ungrouped).collect();
        known::hold_at_most(&format!("imports-{folder}"), 0, found.len(), &found);
    }
}

#[test]
fn nothing_is_matched_where_if_would_do() {
    for (folder, files) in source::folders() {
        let found: Vec<Finding> = files.iter().flat_map(matches).collect();
        known::hold_at_most(&format!("match-{folder}"), 0, found.len(), &found);
    }
}

#[test]
fn planted_imports_and_matches_are_found() {
    for (code, count) in [
        ("use std::fmt; use std::io;", 1),
        ("use std::{fmt, io}; use std::io::{self as b, Read};", 1),
        ("use crate::net::clock; use super::x; use crate::net::{socket};", 1),
        ("use crate::net::{clock, line::Line}; use super::x;", 0),
        ("use crate::net::{self, clock}; use crate::net;", 1),
        ("use std::fmt; mod tests { use std::io; }", 0),
        ("use std::fmt; fn f() { use std::io; }", 0),
        ("use std::fmt; pub use std::io;", 0),
        ("use std::fmt; #[cfg(unix)] use std::io;", 0),
        ("#[cfg(test)] mod tests { use std::fmt; use std::io; }", 1),
        ("fn f() { match x { true => 1, _ => 2 } }", 1),
        ("fn f() { match () { _ if x => 1, _ => 2 } }", 1),
        ("fn f() { match x { Some(true) => 1, _ => 2 } }", 0),
        ("fn f() { match (x, y) { (true, _) => 1, _ => 2 } }", 0),
    ] {
        let file = File::parse("src/a.rs", code).expect("Rust");
        let found = [ungrouped(&file), matches(&file)].concat();
        assert_eq!(found.len(), count, "{code}: {found:?}");
    }
}

/// The statements of which another one in the same block imports from the same crate.
fn ungrouped(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeMap::new();
    for item in &file.uses {
        let roots: BTreeSet<&String> = item.names.iter().map(|name| &name.path[0]).collect();
        for root in roots {
            if let Some(first) = seen.insert((item.block, &item.kind, root), item.line) {
                let why =
                    format!("`{root}` is imported from in line {first} too. Write one `use`.");
                findings.push(Finding::new("", format!("{}:{}: {why}", file.path, item.line)));
            }
        }
    }
    findings
}

fn matches(file: &File) -> Vec<Finding> {
    let found = file.matches.iter();
    let found = found.map(|(line, what)| {
        let message = format!("{}:{line}: this matches {what}. Write `if`.", file.path);
        Finding::new("", message)
    });
    found.collect()
}
