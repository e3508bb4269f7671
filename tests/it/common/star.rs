//! What the tests that build stars share. They take root, `ip`, `tc`, `nft` and `ethtool`, and
//! pass by where these are missing.

use std::{fs, path::Path, process::Command};

use gatecast::internals::{
    proto::relay::log::ViewerRecord,
    report::relay::{is_relay_log, read_relay_log},
    testbed::star::{rootless, tool},
};

use crate::common::{
    have,
    program::{GATECAST, output_text},
    turn::{Turn, turn},
};

/// The turn of a test that builds stars; `None` where no star can be built.
pub(crate) fn turn_with_stars(kind: &'static str) -> Option<Turn> {
    let tools = ["ip", "tc", "nft", "ethtool"].map(|name| tool::find(name).is_some());
    have("root, ip, tc, nft and ethtool", rootless::is_root() && tools == [true; 4])
        .then(|| turn(kind))
}

/// Runs `script` on a star of so many `hosts`, with 100 Mbit/s each. Returns what its relay said in
/// `relay.txt` of `folder`, and the records that it left in `logs`.
pub(crate) fn relay_on_star(
    folder: &Path,
    hosts: &str,
    script: &str,
) -> (String, Vec<ViewerRecord>) {
    let output = Command::new(GATECAST)
        .args(["star", "run", "--rate", "100mbit", "--hosts", hosts, "--", "sh", "-c", script])
        .env_remove("GATECAST_STAR")
        .output()
        .expect("the program starts");
    let said = fs::read_to_string(folder.join("relay.txt")).unwrap_or_default();
    println!("{said}");
    let logs = fs::read_dir(folder.join("logs")).unwrap_or_else(|error| {
        panic!("{error} {}{said}", output_text(&output));
    });
    let mut logs = logs.map(|entry| entry.expect("a file").path());
    let log = logs.find(|path| is_relay_log(path)).expect("a relay log");
    (said, read_relay_log(&log).expect("sound"))
}
