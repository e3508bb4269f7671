//! What `-h` and `--help` print.

use std::process::Command;

use crate::common::program::{self, text};

/// The subcommands whose `-h` is kept as a snapshot; those of this system.
fn subcommands() -> Vec<Vec<&'static str>> {
    let mut all = vec![
        vec![],
        vec!["run"],
        vec!["serve"],
        vec!["fetch"],
        vec!["push"],
        vec!["list"],
        vec!["doctor"],
        vec!["calibrate"],
        vec!["torrent"],
        vec!["report"],
        vec!["relay"],
        vec!["watch"],
        vec!["diff"],
        vec!["completions"],
        vec!["man"],
    ];
    if cfg!(all(target_os = "linux", feature = "sockopt")) {
        all.extend([vec!["star"], vec!["study"], vec!["plan"]]);
        all.extend(["up", "down", "list", "exec", "run"].map(|action| vec!["star", action]));
    }
    all
}

/// What the program prints into a pipe, for a terminal of `columns` columns if it were one.
fn help(words: &[&str], flag: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let output = program::gatecast(folder.path(), &[words, &[flag]].concat())
        .env_remove("COLUMNS")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    text(&output.stdout).to_owned()
}

fn is_narrow(words: &[&str], help: &str) {
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{words:?}: {line}");
    }
}

#[test]
fn short_help_has_a_line_for_each_common_option() {
    for words in subcommands() {
        let help = help(&words, "-h");
        is_narrow(&words, &help);
        // What goes on in a second line stands far to the right, and is no option.
        let second = help.lines().filter(|line| line.starts_with("            ")).count();
        assert_eq!(second, 0, "{help}");
        if !cfg!(all(target_os = "linux", feature = "sockopt")) && words.is_empty() {
            continue;
        }
        let name = [&["gatecast"], &words[..]].concat().join("-");
        insta::assert_snapshot!(name, help);
    }
}

#[test]
fn long_help_has_every_option_and_what_can_be_done_meanwhile() {
    for words in subcommands() {
        let (short, long) = (help(&words, "-h"), help(&words, "--help"));
        is_narrow(&words, &long);
        for word in short.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(long.contains(word.trim_end_matches([',', ';', ':', '.'])), "{word}: {long}");
        }
    }
    let (short, long) = (help(&["serve"], "-h"), help(&["serve"], "--help"));
    for rare in ["--multicast-group", "--tracker-file", "--lab-udp", "--token"] {
        assert!(long.contains(rare) && !short.contains(rare), "{rare}");
    }
    let long = long.split_whitespace().collect::<Vec<_>>().join(" ");
    for known in ["Enter on the server's terminal", "SIGUSR1", "The page, http://HOST:8080/"] {
        assert!(long.contains(known), "{known}");
    }
    let order = ["Gate:", "Files:", "Network:", "UDP:", "Swarm:", "Output:", "Page:"];
    let places: Vec<_> = order.iter().map(|group| long.find(group).expect(group)).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn narrow_terminal_has_narrow_help() {
    let help = |columns: &str| {
        let mut command = Command::new(program::GATECAST);
        let output = command.args(["serve", "--help"]).env("COLUMNS", columns).output();
        text(&output.expect("the program starts").stdout).to_owned()
    };
    let widest = |help: &str| help.lines().map(|line| line.chars().count()).max();
    assert!(widest(&help("60")) <= Some(60), "{}", help("60"));
    let piped = widest(&help("200"));
    assert!((Some(70)..=Some(80)).contains(&piped), "{piped:?}");
}
