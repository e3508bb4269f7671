//! How large the whole may be. `cargo test --test house -- --nocapture budget` prints the table.

use std::fs;

use crate::{
    api, circles, known,
    source::{self, File},
};

#[test]
fn budget_is_kept() {
    let files = source::library();
    let readme = fs::read_to_string(known::root().join("README.md")).expect("README.md");
    let table = [
        ("code-lines", 41_012, files.iter().map(code_lines).sum(), "lines of code in src/"),
        (
            "use-statements",
            2_000,
            files.iter().map(use_statements).sum(),
            "`use` statements in src/, without globs",
        ),
        // `cargo public-api` may list 150, which `.ci/budget` checks; this count is a little higher.
        ("public-items", 155, api::items(files).len(), "items on the documented public API"),
        ("circles", 0, circles::check(files).len(), "circles of imports in src/"),
        ("readme-lines", 200, readme.lines().count(), "lines of README.md"),
    ];
    println!("{:>7} {:>7}  (tests are not counted)", "now", "limit");
    for (_, limit, count, what) in table {
        println!("{count:>7} {limit:>7}  {what}");
    }
    for (rule, limit, count, _) in table {
        known::hold_at_most(rule, limit, count, &[]);
    }
}

#[test]
fn planted_lines_are_counted() {
    let code = "//! Doc.\n\nuse std::{\n    fmt,\n    io,\n};\n/* a\n b */\n/// Doc.\nfn f() { // x\n\
                \n    let text = \"a\n\n    b\";\n}\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n\
                pub use a::*;\n#[test]\nfn g() {}\n";
    let file = File::parse("src/a.rs", code).expect("Rust");
    // `fn f`, both lines of the literal, and the brace.
    assert_eq!((code_lines(&file), use_statements(&file)), (4, 1));
}

fn code_lines(file: &File) -> usize {
    let lines = file.code_lines.difference(&file.use_lines);
    lines.filter(|line| !file.is_test(**line)).count()
}

fn use_statements(file: &File) -> usize {
    let uses = file.uses.iter();
    let is_counted = |line: usize, glob: bool| !glob && !file.is_test(line);
    uses.filter(|item| is_counted(item.line, item.names.iter().any(|name| name.glob))).count()
}
