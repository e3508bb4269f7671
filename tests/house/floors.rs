//! Imports in `src/` go down, and neighbours never see each other: the house of ARCHITECTURE.md.
//! Tests keep to it too. A link in the documentation is no import.

use crate::{
    source::{self, File},
    tree::Tree,
};

/// What stands on each floor, ground first. A name is a file or folder of `src/`.
/// On the ground each may import those before it.
const HOUSE: [&[&str]; 8] = [
    &["units", "digest", "text", "session", "transfer", "error"],
    &["proto"],
    &["net"],
    &["server", "client"],
    &["transport/tcp", "transport/udp", "transport/swarm", "transport"],
    &["testbed", "doctor", "http", "report", "relay"],
    &["serve", "fetch", "lib"],
    &["cli", "main"],
];

/// The only pairs on one floor above the ground of which the first may import the second.
const NEIGHBOURS: [(&str, &str); 1] = [("testbed", "report")];

#[test]
fn imports_go_down_only() {
    let files = source::library();
    assert!(files.len() > HOUSE[0].len(), "{} files", files.len());
    let tree = Tree::new(files);
    let faults: Vec<String> = files.iter().flat_map(|file| check(&tree, file)).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn planted_faults_are_found_and_honest_lines_pass() {
    for (planted, wrong) in [(FAULTY, true), (HONEST, false)] {
        for case in planted.lines() {
            let (path, code) = case.split_once("> ").expect("file> code");
            let files = [File::parse(&format!("src/{path}"), code).expect("Rust")];
            let faults = check(&Tree::new(&files), &files[0]);
            assert_eq!(!faults.is_empty(), wrong, "{case}: {faults:?}");
        }
    }
}

const FAULTY: &str = "\
digest.rs> use crate::text::FileName;
units.rs> fn f() { let x = crate::net::clock::now(); }
units.rs> fn f() { println!(\"{}\", crate::net::clock::now()); }
units.rs> #[serde(with = \"crate::proto::json\")] struct S;
units.rs> #[cfg(test)] mod tests { use crate::net::clock; }
units.rs> #[cfg(test)] mod tests { use super::super::net::clock; }
units.rs> use super::error::Error;
session.rs> use super::{tcp};
proto/mod.rs> use super::net;
proto/mod.rs> use super::*;
proto/arq/rtt.rs> use crate::net::clock::Clock;
proto/arq/rtt.rs> use super::super::super::net::clock::Clock;
net/mod.rs> use crate::{proto::line, server::gate};
net/mod.rs> use crate::server::{gate::{Gate, Seat}, lobby};
server/gate.rs> pub(crate) use crate::transport::tcp::server::Server;
server/mod.rs> use crate::transport::Kind;
transport/tcp/server.rs> use crate::transport::udp::pump;
transport/tcp/server.rs> use crate::transport::{swarm, tcp};
transport/tcp/server.rs> use super::super::udp;
transport/tcp/server.rs> fn f(_: &dyn super::super::udp::Pump) {}
transport/swarm/bt/wire.rs> use crate::relay;
transport/udp/mod.rs> use crate::serve::Server;
http/routes.rs> use crate::report::table::Table;
relay/mod.rs> use crate::report::table::Table;
testbed/study/mod.rs> use crate::http::Server;
net/mod.rs> use crate::server::gate::Gate;
server/mod.rs> use crate::client::part::Part;
serve.rs> use crate::cli::output;
serve/mod.rs> use crate::fetch::Fetch;
cli/args.rs> fn f() -> crate::main::Code {}
cli/args.rs> use crate::{tcp, udp};
cli/args.rs> use crate::*;
cli/args.rs> use crate as gatecast;
cli/args.rs> use crate::{self as gatecast};
cli/args.rs> use crate::Digest;
cli/args.rs> extern crate self as gatecast;
utils.rs> use std::fmt;
lab/mod.rs> use crate::units::Bytes;";

const HONEST: &str = "\
error.rs> use crate::transfer::Outcome;
units.rs> //! See [`Gate`](crate::server::gate::Gate).
units.rs> mod tests { use super::*; }
proto/mod.rs> use crate::error::{Error, Result};
proto/mod.rs> pub(in crate::proto) struct S;
proto/mod.rs> use crate::{error::Error, text};
proto/arq/mod.rs> use super::rtt::Rtt;
proto/arq/rtt.rs> use super::super::super::error::Error;
net/mod.rs> use crate::proto::{line, native::{Opening, Reply}};
transport/mod.rs> pub mod tcp; fn f() { self::tcp::server::start() }
transport/tcp/server.rs> use super::seat::Seat;
transport/tcp/server.rs> use crate::transport::Kind;
transport/tcp/server.rs> pub(crate) fn f() -> crate::transport::tcp::seat::Seat {}
testbed/study/runner.rs> use crate::report::table::Table;
testbed/study/runner.rs> use crate::testbed::star::Star;
serve/mod.rs> use crate::transport::{swarm, tcp, udp};
cli/mod.rs> use crate::testbed::study::Plan;
cli/mod.rs> use crate::{fetch, serve::Server};
main.rs> use gatecast::cli;
lib.rs> pub mod cli; pub use cli::main;";

/// The faults of one file, each a line for the reader. `lib.rs` only declares the house, and shows
/// it.
fn check(tree: &Tree<'_>, file: &File) -> Vec<String> {
    let module = file.module();
    let from = room(&module);
    if from == "lib" {
        return Vec::new();
    }
    let path = &file.path;
    if place(&from).is_none() {
        return vec![format!(
            "{path}:1: `{from}` stands on no floor. Give it one in tests/house/floors.rs."
        )];
    }
    let imports = file.uses.iter().flat_map(|item| {
        let names = item.names.iter();
        names.map(|import| (&item.scope, &import.path, import.line))
    });
    let references = file.references.iter();
    let references = references.map(|r| (&r.scope, &r.path, r.line));
    let mut faults = Vec::new();
    for (scope, named, line) in imports.chain(references) {
        let Some(to) = tree.absolute(file, scope, named) else {
            continue;
        };
        let named = named.join("::");
        let to = room(&to);
        if place(&to).is_none() || to == "lib" || to == "main" {
            faults.push(format!(
                "{path}:{line}: `{named}` names no room. Import from the room that defines it."
            ));
        } else if !may(&from, &to) {
            faults.push(format!(
                "{path}:{line}: `{from}` must not import from `{to}` (`{named}`). Imports go down: \
                 move what both need below `{from}`."
            ));
        }
    }
    for line in &file.crate_aliases {
        faults.push(format!(
            "{path}:{line}: this hides the crate's root behind a name. Write `crate`."
        ));
    }
    faults
}

/// Whether room `from` may name room `to`.
fn may(from: &str, to: &str) -> bool {
    match (place(from), place(to)) {
        (Some((0, from)), Some((0, to))) => to <= from,
        (Some((high, _)), Some((low, _))) if high == low => {
            // The room of all transports belongs to each of them, and shows them.
            let shared = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|r| r.starts_with('/'));
            from == to || shared(from, to) || shared(to, from) || NEIGHBOURS.contains(&(from, to))
        }
        (Some((high, _)), Some((low, _))) => low < high,
        _ => false,
    }
}

/// Floor, and place on it.
fn place(name: &str) -> Option<(usize, usize)> {
    let on = |floor: &&[&str]| floor.iter().position(|n| *n == name);
    let floors = HOUSE.iter().enumerate();
    floors.into_iter().find_map(|(n, floor)| Some((n, on(floor)?)))
}

/// The room of a path from the root: its first word, or its first two where they are one.
fn room(path: &[String]) -> String {
    let two = path.iter().take(2).cloned().collect::<Vec<_>>().join("/");
    match path.first() {
        _ if place(&two).is_some() => two,
        Some(first) => first.clone(),
        None => "lib".to_owned(),
    }
}
