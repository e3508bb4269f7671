//! Holds the house of ARCHITECTURE.md: imports in `src/` go down, and neighbours never see each
//! other. It reads lines, not Rust, so the rules of style that it leans on are checked too.

use std::fs;
use std::path::Path;

/// What stands on each floor, ground first. A name is a file or folder of `src/`.
const HOUSE: [&[&str]; 8] = [
    &["units", "digest", "text", "session", "transfer", "error"],
    &["proto"],
    &["net"],
    &["server", "client"],
    &[
        "transport/tcp",
        "transport/udp",
        "transport/swarm",
        "transport",
    ],
    &["testbed", "http", "report", "relay"],
    &["serve", "fetch", "lib"],
    &["cli", "main"],
];

/// The only pairs on one floor above the ground of which the first may import the second.
const NEIGHBOURS: [(&str, &str); 3] = [("testbed", "report"), ("main", "cli"), ("report", "relay")];

#[test]
fn imports_go_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut faults, mut files) = (Vec::new(), 0);
    visit(&src, &mut |path, code| {
        let inside = path
            .strip_prefix(&src)
            .expect("below src")
            .to_string_lossy();
        faults.extend(check(&inside.replace('\\', "/"), code));
        files += 1;
    });
    assert!(files > HOUSE[0].len(), "only {files} files read in src");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_planted_fault_is_found_and_honest_lines_pass() {
    for (planted, wrong) in [(FAULTY, true), (HONEST, false)] {
        for case in planted.lines() {
            let (file, line) = case.split_once("> ").expect("file> line");
            assert_eq!(!check(file, line).is_empty(), wrong, "{case}");
        }
    }
}

const FAULTY: &str = "\
digest.rs> use crate::text::FileName;
units.rs>     let x = crate::net::clock::now();
units.rs> use super::error::Error;
session.rs> use super::{tcp};
proto/mod.rs> use super::net;
proto/mod.rs> use super::*;
proto/arq/rtt.rs> use crate::net::clock::Clock;
server/gate.rs> pub(crate) use crate::transport::tcp::server::Server;
transport/tcp/server.rs> use crate::transport::udp::send_loop;
transport/tcp/server.rs> use super::super::udp;
transport/swarm/bt/wire.rs> use crate::relay;
http/routes.rs> use crate::report::table::Table;
testbed/study/mod.rs> use crate::http::Server;
net/mod.rs> use crate::server::gate::Gate;
server/mod.rs> use crate::client::part::Part;
cli/args.rs> fn f() -> crate::main::Code {
cli/args.rs> use crate::{tcp, udp};
cli/args.rs> use crate::*;
cli/args.rs> use crate as gatecast;
cli/args.rs> use crate::Digest;
cli/args.rs> extern crate self as gatecast;
utils.rs> use std::fmt;
lab/mod.rs> use crate::units::Bytes;";

const HONEST: &str = "\
error.rs> use crate::transfer::Outcome;
units.rs> //! See [`Gate`](crate::server::gate::Gate).
units.rs>     use super::*;
proto/mod.rs> use crate::error::{Error, Result};
proto/arq/mod.rs> use super::rtt::Rtt;
transport/tcp/server.rs> use super::seat::Seat;
transport/tcp/server.rs> pub(crate) fn f() -> crate::transport::tcp::seat::Seat {
testbed/study/runner.rs> use crate::report::table::Table;
testbed/study/runner.rs> use crate::testbed::star::Star;
cli/mod.rs> use crate::testbed::study::Plan;
main.rs> use gatecast::cli;
lib.rs> pub mod cli;";

/// The faults of one file, each a line for the reader. `lib.rs` only declares the house.
fn check(file: &str, code: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let from = room(path, '/');
    if from == "lib" {
        return Vec::new();
    }
    if place(from).is_none() {
        return vec![format!(
            "src/{file}: `{from}` stands on no floor of tests/floors.rs"
        )];
    }
    // In these files `super` is the root of the crate.
    let at_root = !path.contains('/');
    let mut faults = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue; // A link in the documentation is no import.
        }
        let mut fault = |why: String| faults.push(format!("src/{file}:{}: {why}", number + 1));
        for (at, _) in line.match_indices("crate::") {
            let to = room(&line[at + "crate::".len()..], ':');
            match (place(to), may(from, to)) {
                (None, _) => fault(format!(
                    "`crate::` must name one module, not `{to}`: {line}"
                )),
                (_, false) => fault(format!("{from} must not import {to}: {line}")),
                _ => {}
            }
        }
        for (at, _) in line.match_indices("super::") {
            let to = word(&line[at + "super::".len()..]);
            if to == "super" || at_root && place(to).is_some() && !may(from, to) {
                fault(format!("say `crate::`, downwards: {line}"));
            }
        }
        // Indented, the glob is a test module's view of its own file.
        let names_root = at_root
            && ["use super::*", "use super::{"]
                .iter()
                .any(|s| line.starts_with(s));
        if names_root
            || ["crate as ", "extern crate self"]
                .iter()
                .any(|s| line.contains(s))
        {
            fault(format!("hides what is imported from the root: {line}"));
        }
    }
    faults
}

/// Whether module `from` may name module `to`.
fn may(from: &str, to: &str) -> bool {
    match (place(from), place(to)) {
        (Some((0, from)), Some((0, to))) => to <= from,
        (Some((high, _)), Some((low, _))) if high == low => {
            from == to || NEIGHBOURS.contains(&(from, to))
        }
        (Some((high, _)), Some((low, _))) => low < high,
        _ => false,
    }
}

/// Floor, and place on it.
fn place(name: &str) -> Option<(usize, usize)> {
    let on = |floor: &&[&str]| floor.iter().position(|n| *n == name);
    HOUSE
        .iter()
        .enumerate()
        .find_map(|(n, floor)| Some((n, on(floor)?)))
}

/// The room that `path` stands in: its first word, and below `transport` its first two.
fn room(path: &str, separator: char) -> &str {
    let first = word(path);
    let rest = path[first.len()..].trim_start_matches(separator);
    match first == "transport" && !word(rest).is_empty() {
        true => {
            let second = path.len() - rest.len();
            ROOMS
                .iter()
                .find(|room| **room == word(&path[second..]))
                .map_or(first, |name| {
                    HOUSE[4]
                        .iter()
                        .find(|room| room.ends_with(name))
                        .expect("a transport")
                })
        }
        false => first,
    }
}

/// The rooms below `transport`.
const ROOMS: [&str; 3] = ["tcp", "udp", "swarm"];

/// The identifier at the start of `text`.
fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or("")
}

fn visit(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            visit(&path, see);
        } else if path.extension().is_some_and(|end| end == "rs") {
            see(&path, &fs::read_to_string(&path).expect("UTF-8 source"));
        }
    }
}
