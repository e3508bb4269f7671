//! Checks the table of `testdata/README.md` against the files: each file has one line with its size
//! and digest.

use std::{collections::BTreeMap, fs, path::Path};

use gatecast::internals::{digest::Digest, text::FileName};

/// Not test data: the table itself, and the files that the example server generates.
const NOT_LISTED: [&str; 3] = ["README.md", "100MB.bin", "250MB.bin"];

#[test]
fn readme_lists_every_file_with_size_and_digest() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("testdata") {
        let entry = entry.expect("entry of testdata");
        let name = entry.file_name().into_string().expect("UTF-8 name");
        if !NOT_LISTED.contains(&name.as_str()) {
            let bytes = fs::read(entry.path()).expect("readable file");
            files.insert(name, (bytes.len(), Digest::of(&bytes)));
        }
    }
    let readme = fs::read_to_string(folder.join("README.md")).expect("testdata/README.md");
    let mut listed = BTreeMap::new();
    for line in readme.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`').to_owned();
        let size: usize = cells[2].parse().expect("size in bytes");
        let digest = cells[3].trim_matches('`').parse().expect("SHA-1");
        assert!(cells[4].len() > 10, "{name}: say what it is for");
        assert_eq!(listed.insert(name, (size, digest)), None, "twice: {line}");
    }
    assert_eq!(listed, files, "left the table, right the folder");
}

#[test]
fn every_name_can_be_offered_and_packaged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for entry in fs::read_dir(&folder).expect("testdata") {
        let name = entry.expect("entry of testdata").file_name();
        let name = name.to_str().expect("UTF-8 name");
        FileName::new(name).expect("a name that we offer ourselves");
        // `cargo package` refuses these, because some systems cannot unpack them.
        assert!(!name.contains(['<', '>', ':', '"', '|', '?', '*', '\\']));
    }
}
