//! One name, one type; the field's words, not a language of our own; test names that fit a line.

use std::collections::BTreeMap;

use crate::{
    known::{self, Finding},
    source::{self, Definition, File},
};

/// Words that say how somebody talks or sits, where the code sends, reads or waits.
const VERBS: [&str; 7] = ["hear", "say", "tell", "look", "murmur", "press", "sit"];

/// Words of a house, of stationery or of the street, where the field has one of its own.
const NOUNS: [&str; 18] = [
    "Armed", "Board", "Cargo", "Carrier", "Face", "House", "Intake", "Page", "Pen", "Porter",
    "Pump", "Reel", "Talk", "Tape", "Voice", "Way", "Wish", "Word",
];

/// Characters of a test's name.
const TEST_NAME: usize = 60;

const TYPES: [&str; 5] = ["enum", "struct", "trait", "type", "union"];

#[test]
fn no_two_types_share_a_name() {
    known::hold("twice", &twice(source::library()));
}

#[test]
fn names_use_the_words_of_the_field() {
    known::hold("word", &words(source::library()));
}

#[test]
fn test_names_fit_sixty_characters() {
    let files = source::folders().iter().flat_map(|(_, files)| files);
    let found = long_test_names(files);
    known::hold_at_most("test-names", 0, found.len(), &found);
}

#[test]
fn planted_names_are_found() {
    let parse = |path: &str, code: &str| File::parse(path, code).expect("Rust");
    let keys = |found: Vec<Finding>| found.into_iter().map(|f| f.key).collect::<Vec<_>>();
    let files = [
        parse("src/lib.rs", "#[cfg(unix)] mod a; #[cfg(not(unix))] mod b; mod c; mod d;"),
        parse("src/a.rs", "struct Batch; enum State {}"),
        parse("src/b.rs", "struct Batch; fn f() { struct Inner; }"),
        parse(
            "src/c.rs",
            "type State = u8; trait T { type Inner; } #[cfg(test)] struct T;\
             macro_rules! m { ($n:ident) => { struct Made; struct $n; } }",
        ),
        parse("src/d.rs", "#[cfg(unix)] type R = u8; #[cfg(not(unix))] type R = u16; struct Made;"),
    ];
    assert_eq!(keys(twice(&files)), ["Inner", "Made", "State"]);

    let code = "struct Interface; struct LogPage; enum Wish {} struct Message; fn hear() {} \
                impl Message { fn say_it(&self) {} fn essay(&self) {} } trait T { fn tell(&self); } \
                #[cfg(test)] mod tests { fn look() {} }";
    let file = [parse("src/a.rs", code)];
    assert_eq!(
        keys(words(&file)),
        [
            "src/a.rs LogPage",
            "src/a.rs Wish",
            "src/a.rs hear",
            "src/a.rs Message::say_it",
            "src/a.rs T::tell"
        ]
    );

    let (long, fits) = ("l".repeat(61), "f".repeat(60));
    let code = format!(
        "#[test] fn {long}() {{}} #[test] fn {fits}() {{}} fn x{long}() {{}} \
         proptest! {{ #[test] fn p{long}(x in 0..9) {{ let f = 1; }} }}"
    );
    assert_eq!(
        keys(long_test_names(&[parse("tests/a.rs", &code)])),
        [format!("tests/a.rs {long}"), format!("tests/a.rs p{long}")]
    );
}

/// A definition of a type.
struct Place<'a> {
    file: &'a File,
    line: usize,
    cfg: Vec<String>,
}

/// The names that two types have.
fn twice(files: &[File]) -> Vec<Finding> {
    let mut types: BTreeMap<&str, Vec<Place<'_>>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.test) {
        let outside = cfg(files, file);
        for d in file.definitions.iter().filter(|d| is_type(d)) {
            let cfg = [outside.clone(), d.cfg.clone()].concat();
            let same = types.entry(d.name.as_str()).or_default();
            // For another system, it is the same type.
            if !same.iter().any(|other| exclude_each_other(&cfg, &other.cfg)) {
                let line = d.line;
                same.push(Place { file, line, cfg });
            }
        }
    }
    let mut findings = Vec::new();
    for (name, places) in types.iter().filter(|(_, places)| places.len() > 1) {
        let mut message =
            format!("{} types are called `{name}`. Rename all but one:", places.len());
        for place in places {
            message += &format!("\n    {}:{}", place.file.path, place.line);
        }
        findings.push(Finding::new(*name, message));
    }
    findings
}

fn is_type(definition: &Definition) -> bool {
    !definition.test && TYPES.contains(&definition.kind)
}

/// The `#[cfg]`s on the way to a file.
fn cfg(files: &[File], of: &File) -> Vec<String> {
    let path = of.module();
    let mut cfg = Vec::new();
    for file in files {
        for module in &file.modules {
            let module_path = [file.module(), module.scope.clone(), vec![module.name.clone()]];
            if path.starts_with(&module_path.concat()) {
                cfg.extend(module.cfg.iter().cloned());
            }
        }
    }
    cfg
}

fn exclude_each_other(one: &[String], other: &[String]) -> bool {
    let bare = |cfg: &String| cfg.replace(' ', "");
    let not = |a: &[String], b: &[String]| {
        a.iter().any(|a| b.iter().any(|b| bare(b) == format!("not({})", bare(a))))
    };
    not(one, other) || not(other, one)
}

/// Definitions with a word of `VERBS` or `NOUNS` in their names.
fn words(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.test) {
        let path = &file.path;
        let mut fault = |name: &str, line: usize, word: &str| {
            findings.push(Finding::new(
                format!("{path} {name}"),
                format!("{path}:{line}: `{name}` says `{word}`. Name what it does or is, in the field's word."),
            ));
        };
        for d in file.definitions.iter().filter(|d| is_type(d)) {
            if let Some(word) = NOUNS.iter().find(|noun| camel_words(&d.name).contains(noun)) {
                fault(&d.name, d.line, word);
            }
        }
        for f in file.functions.iter().filter(|f| !f.test) {
            let name = f.name.rsplit("::").next().unwrap_or_default();
            if let Some(word) = name.split('_').find(|word| VERBS.contains(word)) {
                fault(&f.name, f.line, word);
            }
        }
    }
    findings
}

/// `HttpServer` is `Http` and `Server`.
fn camel_words(name: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = name.match_indices(char::is_uppercase).map(|(at, _)| at).collect();
    starts.push(name.len());
    starts.windows(2).map(|ends| &name[ends[0]..ends[1]]).collect()
}

fn long_test_names<'a>(files: impl IntoIterator<Item = &'a File>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for f in file.functions.iter().filter(|f| f.is_test) {
            let length = f.name.chars().count();
            if length > TEST_NAME {
                findings.push(Finding::new(
                    format!("{} {}", file.path, f.name),
                    format!(
                        "{}:{}: the test's name has {length} characters, and {TEST_NAME} are \
                         allowed: {}",
                        file.path, f.line, f.name
                    ),
                ));
            }
        }
    }
    findings
}
