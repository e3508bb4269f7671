use proptest::prelude::*;

use super::*;

const SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

fn file(path: &str, bytes: u64) -> String {
    format!("f 644 0 {bytes} {SHA1} {path}\n")
}

fn decode(lines: &str) -> Result<Manifest, DecodeError> {
    Manifest::decode(lines.as_bytes())
}

#[test]
fn manifest_comes_back_byte_for_byte() {
    let lines = format!(
        "d 755 -1 a\nf 4755 1700000000123456789 5 {SHA1} a b\nd 0 9 a/empty\n\
         f 600 0 0 {SHA1} a/\u{e9} \u{65e5}\nf 644 0 7 {SHA1} b\n"
    );
    let manifest = decode(&lines).expect("honest");
    assert_eq!(manifest.files()[0].attributes.mode, 0o755, "it lends no rights");
    let again = String::from_utf8(manifest.encode()).expect("text");
    assert_eq!(again, lines.replace("4755", "755"));
    assert_eq!(decode(&again), Ok(manifest.clone()));
    assert_eq!((manifest.bytes(), manifest.entries()), (12, 5));
    let places = [0, 4, 5, 11, 12].map(|at| manifest.file_at(at));
    assert_eq!(places, [Some(0), Some(0), Some(2), Some(2), None]);
    assert_eq!(decode("").expect("nothing").encode(), b"");
}

#[test]
fn hostile_path_is_refused_with_what_is_wrong() {
    for path in [
        "..",
        ".",
        "a/..",
        "../a",
        "./a",
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        "a\\b",
        "C:\\x",
        "a\0b",
        "\u{1b}[2J",
        "\u{202e}gpj.exe",
        "a\u{2028}b",
        "a\u{9b}b",
    ] {
        let error = decode(&file(path, 1)).expect_err(path).to_string();
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
    for (path, what) in [("a/b", "no folder of the list"), ("a/b/c", "no folder of the list")] {
        let error = decode(&format!("d 755 0 a\n{}", file(path, 1)));
        assert_eq!(error.is_ok(), path == "a/b", "{what}");
        assert!(decode(&file(path, 1)).expect_err(path).to_string().contains(what));
    }
}

#[test]
fn two_names_for_one_place_are_refused() {
    for (one, two) in [
        ("a", "a"),
        ("A", "a"),
        ("cafe\u{301}", "caf\u{e9}"),
        ("STRASSE", "stra\u{df}e"),
        ("b", "a"),
    ] {
        let error = decode(&(file(one, 1) + &file(two, 1))).expect_err(one).to_string();
        let is_order = one >= two;
        let what = if is_order { "behind all others" } else { "take for another" };
        assert!(error.contains(what), "{one} {two}: {error}");
    }
    // A file that is a folder too.
    assert!(decode(&(file("a", 1) + &file("a/b", 1))).is_err());
    assert!(decode(&format!("{}d 755 0 a\n", file("a", 1))).is_err());
    assert!(decode(&format!("d 755 0 A\nd 755 0 a\n{}", file("a/b", 1))).is_err());
}

#[test]
fn wrong_line_is_refused() {
    let good = file("a", 1);
    for (right, wrong) in [
        ("f ", "l "),
        ("f ", "f"),
        ("644", "0644"),
        ("644", "10000"),
        ("644", "-1"),
        ("644", "648"),
        (" 0 1 ", " +0 1 "),
        (" 0 1 ", " 00 1 "),
        (" 0 1 ", " 9223372036854775808 1 "),
        (" 0 1 ", " 0 01 "),
        (" 0 1 ", " 0 -1 "),
        (" 0 1 ", " 0 9223372036854775808 "),
        (SHA1, &SHA1[1..]),
        (SHA1, "x"),
        (" a", ""),
    ] {
        let line = good.replacen(right, wrong, 1);
        assert!(decode(&line).is_err(), "{line}");
    }
    assert!(Manifest::decode(b"f 644 0 1 \xff").is_err());
    for end in 1..good.len() - 2 {
        assert!(decode(&good[..end]).is_err(), "{end}");
    }
}

#[test]
fn largest_honest_path_passes_and_one_more_is_refused() {
    let deep = |depth: usize| {
        let folders: String =
            (1..=depth).map(|n| format!("d 755 0 {}\n", vec!["d"; n].join("/"))).collect();
        folders + &file(&format!("{}/f", vec!["d"; depth].join("/")), 1)
    };
    assert!(decode(&deep(DEPTH_MAX)).is_ok());
    assert!(decode(&deep(DEPTH_MAX + 1)).is_err());
    let [one, two, three] = [255, 511, 762].map(|len| {
        let name = "n".repeat(255);
        format!("{name}/{name}/{}", "n".repeat(250))[..len].to_owned()
    });
    let folders = [one, two, three.clone()].map(|path| format!("d 755 0 {path}\n")).concat();
    let (longest, longer) = (format!("{three}/12345"), format!("{three}/123456"));
    assert_eq!(longest.len(), PATH_MAX);
    assert!(decode(&(folders.clone() + &file(&longest, 1))).is_ok());
    assert!(decode(&(folders + &file(&longer, 1))).is_err());
    assert!(decode(&file(&"n".repeat(256), 1)).is_err());
}

#[test]
fn sum_of_sizes_does_not_overflow() {
    assert_eq!(decode(&file("a", SIZE_MAX)).expect("the largest").bytes(), SIZE_MAX);
    let error = decode(&(file("a", SIZE_MAX) + &file("b", 1))).expect_err("too much").to_string();
    assert!(error.contains("more bytes than a file can have: 'b'"), "{error}");
}

#[test]
fn most_entries_pass_and_one_more_is_refused() {
    let mut builder = ManifestBuilder::default();
    let entry = |n: usize| Entry::decode(file(&format!("{n:06}"), 1).trim_end()).expect("honest");
    for n in 0..ENTRIES_MAX {
        builder.add(entry(n)).expect("room");
    }
    let error = builder.add(entry(ENTRIES_MAX)).expect_err("too many").to_string();
    assert!(error.contains("more than 500000"), "{error}");
    assert_eq!(builder.finish().bytes(), ENTRIES_MAX as u64);
}

#[test]
fn list_longer_than_the_limit_is_refused() {
    let mut builder = ManifestBuilder { len: MANIFEST_MAX - 60, ..ManifestBuilder::default() };
    let entry = |path| Entry::decode(file(path, 1).trim_end()).expect("honest");
    let longest = "n".repeat(60 - file("", 1).len());
    builder.add(entry(&longest)).expect("the last byte");
    let error = builder.add(entry("z")).expect_err("no room").to_string();
    assert!(error.contains("longer than 67108864 bytes"), "{error}");
}

proptest! {
    #[test]
    fn any_folder_that_is_taken_comes_back(
        paths in proptest::collection::btree_set("[a-c\u{e9}\u{65e5} .]{1,4}(/[a-c\u{e8}]{1,2}){0,2}", 0..12),
        sizes in proptest::collection::vec(0_u64..9, 12),
    ) {
        let mut all: Vec<(String, Option<u64>)> = Vec::new();
        for (path, size) in paths.iter().zip(sizes) {
            let folders = path.match_indices('/').map(|(at, _)| (path[..at].to_owned(), None));
            all.extend(folders.chain([(path.clone(), Some(size))]));
        }
        all.sort();
        all.dedup_by(|one, two| one.0 == two.0);
        let lines: String = all
            .iter()
            .map(|(path, size)| match size {
                Some(size) => file(path, *size),
                None => format!("d 755 3 {path}\n"),
            })
            .collect();
        if let Ok(manifest) = decode(&lines) {
            prop_assert_eq!(manifest.encode(), lines.as_bytes());
            for at in 0..manifest.bytes() {
                let file = &manifest.files()[manifest.file_at(at).expect("it is there")];
                prop_assert!((file.at..file.at + file.bytes).contains(&at));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
