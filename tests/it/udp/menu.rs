//! The commands of the lab's UDP protocol against our own server, in processes of their own.

use std::{fs, path::Path, process::Output, time::Duration};

use gatecast::internals::{server::sample, session::Via, transfer::Outcome};

use crate::common::{
    entries,
    program::{Program, feed, gatecast, records_of, text},
    within,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs the menu with these lines on its standard input.
fn menu(folder: &Path, addr: &str, lines: &str) -> Output {
    let words = ["fetch", addr, "--lab", "--out", "lab"];
    feed(&mut gatecast(folder, &words), lines.as_bytes())
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

        // Commands by number and by word, a name with a blank, and unknown commands.
        let said = menu(
            path,
            &addr,
            "1\nstart\nconfig nothing.mp4 2\nconfig 100mb.mp4\nfly\nconfig 100mb.mp4 2\nstart\n\
             2 250 mb.mp4 1\n3\n4\nlist\n",
        );
        let (out, complaints) = (text(&said.stdout), text(&said.stderr));
        assert_eq!(out.lines().next(), Some("100mb.mp4"), "{out}");
        assert_eq!(out.lines().nth(1), Some("250 mb.mp4"), "{out}");
        // Nothing after `disconnect` is read.
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
        // The exit code of a refusal goes before that of unproven copies.
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

        // Copies without a refusal: whole, but not proven.
        let said = menu(path, &addr, "config 100mb.mp4 1\nstart\n");
        assert_eq!(said.status.code(), Some(4), "{}", text(&said.stderr));
        // A server that has ended answers nothing.
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
