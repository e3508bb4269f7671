//! How long a file and a function may be, outside tests, and how much a type and a call may carry.
//!
//! Where more is right, the comment directly above says why, in these words:
//! `Over 80 lines because ...`, and so for the other limits. A file says it where it begins.

use crate::{
    known::{self, Finding},
    source::{self, File},
};

/// Lines of a file without its tests, comments and blank lines counted.
const FILE_LINES: usize = 450;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 80;
/// Fields of a struct, or of one variant of an enum.
const FIELDS: usize = 15;
/// Parameters of a function; `self` is none.
const PARAMETERS: usize = 6;

#[test]
fn nothing_is_larger_than_it_may_be() {
    let found = source::library().iter().flat_map(check);
    known::hold("size", &found.collect::<Vec<_>>());
}

#[test]
fn planted_sizes_are_found() {
    let line = "    f();\n";
    let function = |lines: usize| format!("fn f() {{\n{}}}\n", line.repeat(lines - 2));
    let fields = |count: usize| (0..count).map(|n| format!("f{n}: u8, ")).collect::<String>();
    let reason = "// Over 80 lines because each step needs\n// the one before.\n#[inline]\n";
    for (code, expected) in [
        (function(80), None),
        (function(81), Some("src/a.rs f lines")),
        (format!("{reason}{}", function(81)), None),
        (format!("// Over 80 lines.\n{}", function(81)), Some("src/a.rs f lines")),
        (format!("// Over 80 lines because.\n{}", function(81)), Some("src/a.rs f lines")),
        (format!("#[cfg(test)]\n{}", function(81)), None),
        (format!("impl A {{ {} }}", function(81)), Some("src/a.rs A::f lines")),
        (format!("struct S {{ {} }}", fields(15)), None),
        (format!("struct S {{ {} }}", fields(16)), Some("src/a.rs S fields")),
        (format!("enum E {{ V {{ {} }} }}", fields(16)), Some("src/a.rs E fields")),
        (
            format!("/// Over 15 fields because it is a header.\nstruct S {{ {} }}", fields(16)),
            None,
        ),
        (format!("impl A {{ fn f(&self, {}) {{}} }}", fields(6)), None),
        (format!("trait A {{ fn f({}); }}", fields(7)), Some("src/a.rs A::f parameters")),
        ("\n".repeat(450), None),
        ("\n".repeat(451), Some("src/a.rs lines")),
        (format!("//! Over 450 lines because it is a table.\n{}", "\n".repeat(451)), None),
        (format!("{}#[cfg(test)]\nmod tests {{\n{}}}", "\n".repeat(450), "\n".repeat(99)), None),
    ] {
        let file = File::parse("src/a.rs", &code).expect("Rust");
        let found: Vec<String> = check(&file).into_iter().map(|f| f.key).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{code}");
    }
}

fn check(file: &File) -> Vec<Finding> {
    if file.test {
        return Vec::new();
    }
    let path = &file.path;
    let mut findings = Vec::new();
    let mut limit =
        |(size, limit, unit): (usize, usize, &str), line: usize, of: &str, comment: &str| {
            if size > limit && !has_reason(comment, limit, unit) {
                let name = if of.is_empty() { "the file" } else { of };
                findings.push(Finding::new(
                format!("{path} {of} {unit}").replace("  ", " "),
                format!(
                    "{path}:{line}: {name} has {size} {unit}, and {limit} are allowed. Split it, \
                     or write above it: `Over {limit} {unit} because ...`."
                ),
            ));
            }
        };
    let lines = file.lines - file.test_lines.len();
    limit((lines, FILE_LINES, "lines"), 1, "", &file.head);
    for f in file.functions.iter().filter(|f| !f.test) {
        limit((f.lines, FUNCTION_LINES, "lines"), f.line, &f.name, &f.comment);
        limit((f.parameters, PARAMETERS, "parameters"), f.line, &f.name, &f.comment);
    }
    for d in file.definitions.iter().filter(|d| !d.test) {
        limit((d.fields, FIELDS, "fields"), d.line, &d.name, &d.comment);
    }
    findings
}

/// Whether a comment says why more is right here.
fn has_reason(comment: &str, limit: usize, unit: &str) -> bool {
    let start = format!("Over {limit} {unit} because ");
    comment.find(&start).is_some_and(|at| comment[at + start.len()..].split(' ').count() > 1)
}
