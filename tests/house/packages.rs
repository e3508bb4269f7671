//! Holds the library without features to its five packages.

use std::env;
use std::process::Command;

/// What the core depends on, and nothing else.
const CORE: [&str; 5] = [
    "crossbeam-channel",
    "env_logger",
    "log",
    "sha1_smol",
    "time",
];

#[test]
fn without_features_there_are_five_packages() {
    // A machine that fetched only what it builds may lack what `--offline` wants to see.
    let tree = tree(&["--offline"])
        .or_else(|_| tree(&[]))
        .unwrap_or_else(|why| panic!("cargo tree: {why}"));
    let mut names: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(names.first(), Some(&env!("CARGO_PKG_NAME")), "{tree}");
    names.remove(0);
    names.sort_unstable();
    assert_eq!(names, CORE, "\n{tree}");
}

fn tree(more: &[&str]) -> Result<String, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "-e",
            "normal",
            "--depth",
            "1",
            "--no-default-features",
        ])
        .args(["--prefix", "none", "--format", "{p}"])
        .args(more)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
