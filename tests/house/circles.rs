//! No circle of imports among the files of `src/`, outside tests.
//!
//! A file imports the file that defines what it names: a path is followed through re-exports to
//! its end. To declare a module is no import, nor is to re-export from it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    known::{self, Finding},
    source::{self, File},
    tree::{Target, Tree},
};

/// What one file imports from another: the names, and the first line.
#[derive(Debug, Default)]
struct Edge {
    line: usize,
    names: BTreeSet<String>,
}

type Edges = BTreeMap<usize, BTreeMap<usize, Edge>>;

#[test]
fn no_circle_of_imports_among_files() {
    known::hold("circle", &check(source::library()));
}

#[test]
fn planted_circles_are_found() {
    for (texts, expected) in PLANTED {
        let parse = |(path, text): &Planted| File::parse(path, text).expect("Rust");
        let files: Vec<File> = texts.iter().map(parse).collect();
        let found: Vec<String> = check(&files).into_iter().map(|f| f.key).collect();
        assert_eq!(found, *expected, "{texts:?}");
    }
}

/// The path and the text of a file.
type Planted = (&'static str, &'static str);

/// Files, and the circles in them.
#[rustfmt::skip]
const PLANTED: &[(&[Planted], &[&str])] = &[
    // Straight, and through a function's path alone.
    (&[("src/lib.rs", "mod a; mod b;"),
       ("src/a.rs", "use crate::b::B; pub struct A;"),
       ("src/b.rs", "pub struct B; fn f() { crate::a::A::new() }")],
     &["src/a.rs src/b.rs"]),
    // In a macro, and through an imported module.
    (&[("src/lib.rs", "mod a; mod b;"),
       ("src/a.rs", "use crate::b; pub fn f() { println!(\"{}\", b::g()) }"),
       ("src/b.rs", "use crate::{a}; pub fn g() { a::f() }")],
     &["src/a.rs src/b.rs"]),
    // A child and its parent.
    (&[("src/lib.rs", "mod a;"),
       ("src/a/mod.rs", "mod b; use b::B; pub struct A(B);"),
       ("src/a/b.rs", "use super::A; pub struct B;")],
     &["src/a/b.rs src/a/mod.rs"]),
    // Siblings, through their parent's re-export.
    (&[("src/lib.rs", "mod a;"),
       ("src/a/mod.rs", "mod b; mod c; pub use b::B; pub use c::*;"),
       ("src/a/b.rs", "use super::C; pub struct B;"),
       ("src/a/c.rs", "use crate::a::B; pub struct C;")],
     &["src/a/b.rs src/a/c.rs"]),
    // A parent that only shows its children is in no circle.
    (&[("src/lib.rs", "mod a; mod d;"),
       ("src/a/mod.rs", "mod b; mod c; pub use b::B; pub use c::C;"),
       ("src/a/b.rs", "use super::C; pub struct B;"),
       ("src/a/c.rs", "pub struct C;"),
       ("src/d.rs", "use crate::a::{B, C};")],
     &[]),
    // Tests may look back, and documentation may point back.
    (&[("src/lib.rs", "mod a; mod b;"),
       ("src/a.rs", "use crate::b::B; pub struct A;"),
       ("src/b.rs", "/// [`A`](crate::a::A)\npub struct B; #[cfg(test)] mod tests { use crate::a::A; }")],
     &[]),
];

/// The circles, with what each file in them imports from which other.
pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let edges = edges(files);
    let mut findings = Vec::new();
    for circle in circles(&edges) {
        let mut paths: Vec<&str> = circle.iter().map(|at| files[*at].path.as_str()).collect();
        paths.sort_unstable();
        let mut message = format!("{} files import each other in a circle:", circle.len());
        for from in &circle {
            for (to, edge) in edges[from].iter().filter(|(to, _)| circle.contains(to)) {
                let names: Vec<&str> = edge.names.iter().map(String::as_str).collect();
                message += &format!(
                    "\n    {}:{}: imports from {}: {}",
                    files[*from].path,
                    edge.line,
                    files[*to].path,
                    names.join(", ")
                );
            }
        }
        message += "\n    Move what both sides need into a file below them.";
        findings.push(Finding::new(paths.join(" "), message));
    }
    findings
}

/// What each file imports from which other files.
fn edges(files: &[File]) -> Edges {
    let tree = Tree::new(files);
    let mut edges = Edges::new();
    for (from, file) in files.iter().enumerate().filter(|(_, file)| !file.test) {
        let mut add = |target: Target, name: &str, line: usize| {
            if target.file() != from && !files[target.file()].test {
                let edge = edges.entry(from).or_default();
                let edge = edge.entry(target.file()).or_default();
                edge.names.insert(name.to_owned());
                if edge.line == 0 {
                    edge.line = line;
                }
            }
        };
        let references = file.references.iter().filter(|r| !r.test);
        // The modules that are imported by name: the paths that begin with them tell more.
        let mut aliases = BTreeMap::new();
        for item in file.uses.iter().filter(|item| !item.test) {
            for import in &item.names {
                let Some(path) = tree.absolute(file, &item.scope, &import.path) else {
                    continue;
                };
                let target = tree.resolve(&path);
                let name = import.name.as_deref().unwrap_or("*");
                let is_used = references.clone().any(|r| r.path[0] == name);
                if matches!(target, Target::Module(_)) && !import.glob && is_used {
                    aliases.insert(name, path);
                } else if !item.exported {
                    add(target, path.last().map_or(name, String::as_str), item.line);
                }
            }
        }
        for reference in references {
            let path = &reference.path;
            let absolute = tree
                .absolute(file, &reference.scope, path)
                .or_else(|| Some([aliases.get(path[0].as_str())?, &path[1..]].concat()));
            if let Some(absolute) = absolute {
                add(tree.resolve(&absolute), &path.join("::"), reference.line);
            }
        }
    }
    edges
}

/// The groups of files of which each reaches each.
fn circles(edges: &Edges) -> Vec<BTreeSet<usize>> {
    let reach: BTreeMap<usize, BTreeSet<usize>> = edges
        .keys()
        .map(|from| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![*from]);
            while let Some(at) = next.pop() {
                let targets = edges.get(&at).into_iter().flat_map(BTreeMap::keys);
                next.extend(targets.filter(|to| seen.insert(**to)));
            }
            (*from, seen)
        })
        .collect();
    let back = |from: &usize, to: &usize| reach.get(to).is_some_and(|r| r.contains(from));
    let mut circles = BTreeSet::new();
    for (from, to) in &reach {
        let circle: BTreeSet<usize> = to.iter().filter(|to| back(from, to)).copied().collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}
