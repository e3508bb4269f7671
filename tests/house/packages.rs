//! Holds the library without features to its five packages, and the whole tree to the bans of
//! `deny.toml`, with or without cargo-deny.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::Command,
};

use serde_json::Value;

use crate::known;

/// What the core depends on, and nothing else.
const CORE: [&str; 5] = ["crossbeam-channel", "env_logger", "log", "sha1_smol", "time"];

#[test]
fn without_features_there_are_five_packages() {
    let tree = cargo(&[
        "tree",
        "--edges=normal",
        "--depth=1",
        "--no-default-features",
        "--prefix=none",
        "--format={p}",
    ]);
    let mut names: Vec<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names.first(), Some(&env!("CARGO_PKG_NAME")), "{tree}");
    names.remove(0);
    names.sort_unstable();
    assert_eq!(names, CORE, "\n{tree}");
}

#[test]
fn no_package_is_banned_nor_there_in_two_versions() {
    let text = cargo(&["metadata", "--format-version=1", "--all-features"]);
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let packages: Vec<(&str, &str)> = packages.iter().map(name_and_version).collect();
    assert!(packages.len() > CORE.len(), "{packages:?}");
    let deny = fs::read_to_string(known::root().join("deny.toml")).expect("deny.toml");
    let faults = check(&packages, &deny);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn planted_packages_are_found() {
    let deny = "[bans]\nskip = [\n    { crate = \"syn@2.0\", reason = \"old\" },\n]\n\
                deny = [\n    { crate = \"tokio\", reason = \"async\" },\n]\n[licenses]\n";
    let found = |packages| check(packages, deny).len();
    assert_eq!(found(&[("log", "0.4.1"), ("tokio-not", "1.0.0")]), 0);
    assert_eq!(found(&[("log", "0.4.1"), ("tokio", "1.0.0")]), 1);
    assert_eq!(found(&[("log", "0.4.1"), ("log", "0.3.9")]), 1);
    assert_eq!(found(&[("syn", "2.0.1"), ("syn", "3.0.0")]), 0);
    assert_eq!(found(&[("syn", "2.0.1"), ("syn", "3.0.0"), ("syn", "1.0.0")]), 1);
    assert_eq!(crates(deny, "deny"), ["tokio"]);
}

/// The packages that `deny.toml` bans, and those in more versions than it skips.
fn check(packages: &[(&str, &str)], deny: &str) -> Vec<String> {
    let banned = crates(deny, "deny");
    let skipped = crates(deny, "skip");
    assert!(!banned.is_empty(), "deny.toml bans nothing");
    let is_skipped = |name: &str, version: &str| {
        let skipped = skipped.iter().filter_map(|skip| skip.split_once('@'));
        let mut skipped = skipped.filter(|(skip, _)| *skip == name);
        skipped.any(|(_, start)| version.starts_with(&format!("{start}.")) || version == start)
    };
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (name, version) in packages {
        if banned.contains(name) {
            faults.push(format!("deny.toml bans the package {name}. Do without it."));
        }
        if !is_skipped(name, version) {
            versions.entry(name).or_default().insert(version);
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        faults.push(format!(
            "the package {name} is there as {versions:?}. Settle on one version, or give deny.toml \
             the reason."
        ));
    }
    faults
}

/// The packages in the list `key` of `[bans]`, one a line as deny.toml writes them.
fn crates<'a>(deny: &'a str, key: &str) -> Vec<&'a str> {
    let start = format!("{key} = [");
    let lines = deny.lines().skip_while(|line| *line != start).skip(1);
    let lines = lines.take_while(|line| *line != "]");
    let names = lines.filter_map(|line| line.trim().strip_prefix("{ crate = \""));
    names.filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

fn name_and_version(package: &Value) -> (&str, &str) {
    let text = |key: &str| package[key].as_str().expect("text");
    (text("name"), text("version"))
}

/// What cargo prints. A machine that fetched only what it builds may lack what `--offline` wants
/// to see.
fn cargo(arguments: &[&str]) -> String {
    run(arguments, &["--offline"])
        .or_else(|_| run(arguments, &[]))
        .unwrap_or_else(|why| panic!("cargo {arguments:?}: {why}"))
}

fn run(arguments: &[&str], more: &[&str]) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(known::root())
        .args(arguments)
        .args(more)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
