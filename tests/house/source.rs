//! What the rules know of one source file. It is parsed once; a rule then reads plain data.

use std::{
    collections::BTreeSet,
    fmt, fs,
    num::NonZero,
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::LazyLock,
    thread::{self, ScopedJoinHandle},
};

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

use crate::{known, visit};

/// One source file.
#[derive(Debug, Default)]
pub(crate) struct File {
    /// From the package's folder: `src/net/clock.rs`.
    pub(crate) path: String,
    /// The whole file is test code: `tests.rs`, or declared `#[cfg(test)] mod`.
    pub(crate) test: bool,
    /// The lines of items that are compiled for tests only.
    pub(crate) test_lines: BTreeSet<usize>,
    /// The lines of `use` items.
    pub(crate) use_lines: BTreeSet<usize>,
    /// All lines, with comments and blanks.
    pub(crate) lines: usize,
    /// The lines that hold code. A comment is none, nor is a blank line.
    pub(crate) code_lines: BTreeSet<usize>,
    /// The comment that the file begins with.
    pub(crate) head: String,
    pub(crate) modules: Vec<Module>,
    pub(crate) uses: Vec<Use>,
    pub(crate) references: Vec<Reference>,
    pub(crate) definitions: Vec<Definition>,
    pub(crate) functions: Vec<Function>,
    pub(crate) impls: Vec<Impl>,
    /// The lines of `extern crate self`.
    pub(crate) crate_aliases: Vec<usize>,
    /// `match` where `if` or nothing would do: the line, and what is matched.
    pub(crate) matches: Vec<(usize, &'static str)>,
}

/// `mod name;` or `mod name { ... }`.
#[derive(Debug)]
pub(crate) struct Module {
    /// The modules inside this file that it stands in.
    pub(crate) scope: Vec<String>,
    pub(crate) name: String,
    pub(crate) test: bool,
    /// Its `#[cfg]`s, and those of the modules around it in this file.
    pub(crate) cfg: Vec<String>,
    pub(crate) public: bool,
    pub(crate) hidden: bool,
}

/// One `use` statement.
#[derive(Debug)]
pub(crate) struct Use {
    /// The module or block that it stands in, numbered within the file.
    pub(crate) block: usize,
    pub(crate) scope: Vec<String>,
    pub(crate) line: usize,
    pub(crate) test: bool,
    /// Visibility and attributes: statements that differ in them cannot be merged.
    pub(crate) kind: String,
    pub(crate) public: bool,
    /// `pub`, `pub(crate)` or the like.
    pub(crate) exported: bool,
    pub(crate) hidden: bool,
    pub(crate) names: Vec<Imported>,
}

/// One name that a `use` statement brings in.
#[derive(Debug, Clone)]
pub(crate) struct Imported {
    /// The whole path; a glob's ends before the star.
    pub(crate) path: Vec<String>,
    /// What it is called here; nothing for a glob and for `as _`.
    pub(crate) name: Option<String>,
    pub(crate) glob: bool,
    pub(crate) line: usize,
}

/// A path of two or more words, in code or in an attribute.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) scope: Vec<String>,
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) test: bool,
}

/// A type, function, constant, macro or the like.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) kind: &'static str,
    pub(crate) scope: Vec<String>,
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) test: bool,
    /// Its `#[cfg]`s, and those of the modules around it in this file.
    pub(crate) cfg: Vec<String>,
    /// The most fields that it has, or one of its variants.
    pub(crate) fields: usize,
    pub(crate) comment: String,
    /// Seen by `use` and by paths. What a function or block defines is not.
    pub(crate) reachable: bool,
    pub(crate) public: bool,
    pub(crate) hidden: bool,
    /// Public fields, variants, or a trait's items.
    pub(crate) members: usize,
}

/// A function or method with a body.
#[derive(Debug)]
pub(crate) struct Function {
    /// Of a method, with its type: `Gate::open`.
    pub(crate) name: String,
    pub(crate) line: usize,
    /// From `fn` to the closing brace.
    pub(crate) lines: usize,
    /// Without `self`.
    pub(crate) parameters: usize,
    pub(crate) test: bool,
    /// It has the attribute `#[test]`, or stands in `proptest!`.
    pub(crate) is_test: bool,
    pub(crate) comment: String,
}

/// `impl Type` or `impl Trait for Type`.
#[derive(Debug)]
pub(crate) struct Impl {
    pub(crate) of: String,
    pub(crate) is_trait: bool,
    pub(crate) test: bool,
    /// Its public items; of a trait, all that are written.
    pub(crate) members: usize,
}

impl File {
    /// Parses `text`, the content of the file at `path`.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let fault =
            |at: Span, what: &dyn fmt::Display| format!("{path}:{}: {what}", at.start().line);
        let tokens = TokenStream::from_str(text).map_err(|e| fault(e.span(), &e))?;
        let code_lines = code_lines(text, tokens.clone());
        let ast = syn::parse2(tokens).map_err(|e| fault(e.span(), &e))?;
        let mut file = Self {
            path: path.to_owned(),
            test: path.ends_with("/tests.rs") || path.contains("/tests/"),
            lines: text.lines().count(),
            code_lines,
            head: comment(text.lines().take_while(|line| is_comment(line))),
            ..Self::default()
        };
        visit::fill(&mut file, text, &ast);
        Ok(file)
    }

    /// Whether a line of the file is compiled for tests only.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test || self.test_lines.contains(&line)
    }

    /// The file's own place in the tree of modules: `net`, `clock`.
    pub(crate) fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let path = path.trim_end_matches("/mod");
        match path {
            "lib" => Vec::new(),
            path => path.split('/').map(str::to_owned).collect(),
        }
    }
}

/// The files of `src/`.
pub(crate) fn library() -> &'static [File] {
    &folders()[0].1
}

/// The files of each folder that has Rust files.
pub(crate) fn folders() -> &'static [(&'static str, Vec<File>)] {
    static FOLDERS: LazyLock<Vec<(&str, Vec<File>)>> = LazyLock::new(|| {
        let folders = ["src", "tests", "benches", "examples"];
        let folders = folders.map(|folder| (folder, files(&known::root(), folder)));
        folders.into_iter().collect()
    });
    &FOLDERS
}

/// All Rust files of the package at `root` below `folder`, by path.
fn files(root: &Path, folder: &str) -> Vec<File> {
    let mut paths = Vec::new();
    list(&root.join(folder), &mut paths);
    paths.sort();
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path).expect("UTF-8 source");
        let inside = path.strip_prefix(root).expect("below the root");
        let inside = inside.to_string_lossy().replace('\\', "/");
        File::parse(&inside, &text).unwrap_or_else(|why| panic!("{why}"))
    };
    // To parse is nearly all that these tests do.
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut files: Vec<File> = thread::scope(|scope| {
        let share = paths.len().div_ceil(threads).max(1);
        let parts = paths.chunks(share);
        let parts = parts.map(|part| scope.spawn(move || part.iter().map(read).collect()));
        let parts: Vec<ScopedJoinHandle<'_, Vec<File>>> = parts.collect();
        let parts = parts.into_iter().map(|part| part.join().expect("parsed files"));
        parts.flatten().collect()
    });
    mark_tests(&mut files);
    files
}

/// A file is test code where the `mod` that declares it is.
fn mark_tests(files: &mut [File]) {
    let mut tests: Vec<Vec<String>> = Vec::new();
    for file in &*files {
        for module in file.modules.iter().filter(|module| module.test) {
            let mut path = file.module();
            path.extend(module.scope.iter().cloned());
            path.push(module.name.clone());
            tests.push(path);
        }
    }
    for file in files {
        let path = file.module();
        file.test |= tests.iter().any(|test| path.starts_with(test));
    }
}

fn list(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, paths);
        } else if path.extension().is_some_and(|end| end == "rs") {
            paths.push(path);
        }
    }
}

/// The lines on which a token stands. A blank line inside a literal is none.
fn code_lines(text: &str, tokens: TokenStream) -> BTreeSet<usize> {
    let blank: Vec<bool> = text.lines().map(|line| line.trim().is_empty()).collect();
    let mut lines = BTreeSet::new();
    each_token(tokens, &mut |span| {
        let span = span.start().line..=span.end().line;
        lines.extend(span.filter(|line| !blank[line - 1]));
    });
    lines
}

fn each_token(tokens: TokenStream, see: &mut impl FnMut(Span)) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => {
                if group.delimiter() != Delimiter::None {
                    see(group.span_open());
                    see(group.span_close());
                }
                each_token(group.stream(), see);
            }
            // The lexer makes an attribute of a comment of documentation; its `#` is as long.
            TokenTree::Punct(mark) if mark.as_char() == '#' && !is_one_character(mark.span()) => {
                let is_mark = |next: &TokenTree| matches!(next, TokenTree::Punct(_));
                let _inner = tokens.next_if(is_mark);
                let _text = tokens.next();
            }
            token => see(token.span()),
        }
    }
}

fn is_one_character(span: Span) -> bool {
    let (start, end) = (span.start(), span.end());
    start.line == end.line && end.column - start.column == 1
}

/// Whether the line holds nothing but a comment.
pub(crate) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The text of lines of comment, without their marks.
pub(crate) fn comment<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let words = lines.map(|line| line.trim().trim_start_matches(['/', '!']).trim());
    words.collect::<Vec<_>>().join(" ")
}
