//! The commands of the lab's UDP protocol against our own server, in processes of their own.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::program::{GATECAST, Program, records_of};
use crate::common::{entries, within};
use gatecast::internals::server::sample;
use gatecast::internals::session::Via;
use gatecast::internals::transfer::Outcome;

const LIMIT: Duration = Duration::from_secs(60);

/// The menu's client with these lines on its standard input.
fn menu(folder: &Path, addr: &str, lines: &str) -> Output {
    let mut client = Command::new(GATECAST)
        .args(["fetch", addr, "--lab", "--out", "lab"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = client.stdin.take().expect("piped");
    input.write_all(lines.as_bytes()).expect("it reads");
    drop(input);
    client.wait_with_output().expect("it ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn lab_menu_lists_configures_starts_and_disconnects() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        for (name, bytes) in [("100mb.mp4", 1_000_017), ("250 mb.mp4", 300_000)] {
            sample::make(&path.join(name), bytes).expect("room");
        }
        let words = ["100mb.mp4", "250 mb.mp4", "--lab-udp", "--rate", "40mbit"];
        let (mut server, addr) = Program::serve(path, &words);

        // By number and by word; a name with a blank; and what is not on the menu.
        let said = menu(
            path,
            &addr,
            "1\nstart\nconfig nothing.mp4 2\nconfig 100mb.mp4\nfly\nconfig 100mb.mp4 2\nstart\n\
             2 250 mb.mp4 1\n3\n4\nlist\n",
        );
        let (out, complaints) = (text(&said.stdout), text(&said.stderr));
        assert_eq!(out.lines().next(), Some("100mb.mp4"), "{out}");
        assert_eq!(out.lines().nth(1), Some("250 mb.mp4"), "{out}");
        // Nothing after `disconnect` is heard.
        assert_eq!(out.matches("250 mb.mp4").count(), 1, "{out}");
        for complaint in [
            "choose a file first: config FILE N",
            "File nothing.mp4 does not exist",
            "'100mb.mp4' is not FILE N",
            "'fly' is not on the menu",
            "configured: 100mb.mp4 to 2",
            "configured: 250 mb.mp4 to 1",
        ] {
            assert!(complaints.contains(complaint), "{complaint}: {complaints}");
        }
        // A refusal weighs more than copies that nobody can prove.
        assert_eq!(said.status.code(), Some(1), "{complaints}");
        let copy = |name: &str| fs::read(path.join("lab").join(name)).expect("received");
        let source = fs::read(path.join("100mb.mp4")).expect("made");
        assert!(copy("C1-100mb.mp4.unproven") == source);
        assert!(copy("C2-100mb.mp4.unproven") == source);
        let other = fs::read(path.join("250 mb.mp4")).expect("made");
        assert!(copy("C1-250 mb.mp4.unproven") == other);
        assert_eq!(entries(&path.join("lab")).len(), 3);
        let row = out
            .lines()
            .find(|line| line.trim_start().starts_with("2  "))
            .unwrap_or_else(|| panic!("{out}"));
        assert_eq!(row.split_whitespace().nth(1), Some("1000017"));

        // Copies alone: whole, and not proven.
        let said = menu(path, &addr, "config 100mb.mp4 1\nstart\n");
        assert_eq!(said.status.code(), Some(4), "{}", text(&said.stderr));
        // A server that only listens by TCP answers nothing.
        server.signal("TERM");
        server.code();
        let records = records_of(path, 4);
        assert!(records.iter().all(|record| record.via == Via::Raw));
        let rows = records.iter().flat_map(|record| &record.transfers);
        for row in rows {
            assert_eq!((row.outcome, row.verified), (Outcome::Complete, None));
        }
        let gone = menu(path, &addr, "list\n");
        assert_eq!(gone.status.code(), Some(1), "{}", text(&gone.stderr));
    });
}
