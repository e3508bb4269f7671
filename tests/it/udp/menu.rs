//! The commands of the lab's UDP protocol against our own server, in processes of their own.

use std::{fs, path::Path, process::Output, time::Duration};

use gatecast::internals::{report, server::sample, session::Via, transfer::Outcome};

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
        let words = ["100mb.mp4", "250 mb.mp4", "--lab-udp", "--rate", "40mbit", "-v"];
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
            "configured: 100mb.mp4 (1000017 bytes) to 2",
            "configured: 250 mb.mp4 (300000 bytes) to 1",
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
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!((cells[1], cells[3], cells[4]), ("1000017", "0", "0"), "nothing was lost");

        // Copies without a refusal: whole, but not proven.
        let said = menu(path, &addr, "config 100mb.mp4 1\nstart\n");
        assert_eq!(said.status.code(), Some(4), "{}", text(&said.stderr));
        // The same in a log; what was lost is known of a server that tells sizes.
        let words = ["fetch", &addr, "--lab", "--out", "lab", "--log-dir", "own"];
        let said = feed(&mut gatecast(path, &words), b"list\nconfig 100mb.mp4 2\nstart\n");
        assert_eq!(said.status.code(), Some(4), "{}", text(&said.stderr));
        let own = report::read_log(&entries(&path.join("own"))[0]).expect("a log");
        assert_eq!((own.len(), own[0].transfers.len(), own[0].clients), (1, 2, 2));
        assert!(own[0].machine.as_ref().is_some_and(|words| words.starts_with("gatecast ")));
        for row in &own[0].transfers {
            assert_eq!((row.outcome, row.verified), (Outcome::Complete, None));
            assert_eq!((row.bytes_client, row.counts.lost), (Some(1_000_017), Some(0)));
            assert!(row.counts.unique.is_some_and(|count| count > 600), "{row:?}");
        }
        // A server that has ended answers nothing.
        server.signal("TERM");
        server.code();
        for request in ["LIST", "!CONFIG :100mb.mp4 :2", "TRANSFER", "DISCONNECT"] {
            let told = format!(": {request}");
            assert!(server.stderr().lines().any(|line| line.ends_with(&told)), "{request}");
        }
        let records = records_of(path, 5);
        assert!(records.iter().all(|record| record.via == Via::Raw));
        let rows = records.iter().flat_map(|record| &record.transfers);
        for row in rows {
            assert_eq!((row.outcome, row.verified), (Outcome::Complete, None));
        }
        let gone = menu(path, &addr, "list\n");
        assert_eq!(gone.status.code(), Some(1), "{}", text(&gone.stderr));
    });
}
