//! Clients that stay: session after session of a server that comes and goes.

use std::{fs, time::Duration};

use gatecast::internals::server::sample;

use crate::common::{
    Peer, entries, have, installed,
    program::{GATECAST, Program, folder_with_file, gatecast, output_text, run, whole},
    until, within,
};

const LIMIT: Duration = Duration::from_secs(90);

/// A client that stays, its copies in the folder of its name.
fn stays(folder: &std::path::Path, addr: &str, name: &str) -> Program {
    let fetch = ["fetch", addr, "--standing", "--overwrite", "--out", name, "--name", name];
    Program::start(&mut gatecast(folder, &fetch))
}

fn until_lines(client: &Program, count: usize) {
    until(&format!("{count} lines"), || client.stdout().len() >= count);
}

/// A port that was free a moment ago.
fn port() -> String {
    let door = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    door.local_addr().expect("bound").to_string()
}

#[test]
fn standing_clients_take_each_copy_once_of_each_server() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(50_000);
        let (path, addr) = (folder.path(), port());
        let mut clients = ["a", "b"].map(|name| stays(path, &addr, name));
        until("a client that finds no server", || clients[0].stderr().contains("refused"));
        for round in 1..=2 {
            let (mut server, _) = Program::serve_by(
                &mut gatecast(path, &[]),
                path,
                &addr,
                &["f.bin", "--clients", "2"],
            );
            clients.iter().for_each(|client| until_lines(client, round));
            // Of this run there is nothing more to take: another client waits for others in vain.
            let mut third = Peer::connect(addr.parse().expect("an address"));
            third.send("GATECAST/1 JOIN group=2 name=third\n");
            assert!(third.read_line().starts_with("OFFER "));
            third.send("READY offset=0\n");
            for _ in 0..3 {
                assert_eq!(third.read_line(), "WAIT ready=1 clients=2");
            }
            server.signal("TERM");
            server.code();
        }
        for (client, name) in clients.iter_mut().zip(["a", "b"]) {
            whole(path, name, sha1);
            let lines = client.stdout();
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(
                lines.iter().all(|line| line.ends_with("f.bin: whole and verified")),
                "{lines:?}"
            );
            client.signal("TERM");
            assert_eq!(client.code(), 0, "{}", client.stderr());
        }
    });
}

#[test]
fn standing_client_takes_a_file_that_changes_in_one_run() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(50_000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin", "--clients", "1"]);
        let mut client = stays(path, &addr, "a");
        until_lines(&client, 1);
        sample::make(&path.join("f.bin"), 60_000).expect("room");
        until_lines(&client, 2);
        assert!(client.stdout()[1].contains("f.bin, 60000 bytes, tcp, seat 1 of 1: "));
        client.signal("INT");
        assert_eq!(client.code(), 0);
    });
}

#[test]
fn standing_client_takes_no_seat_of_a_group_without_size() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(1000);
        let path = folder.path();
        let (server, addr) = Program::serve(path, &["f.bin"]);
        let mut client = stays(path, &addr, "a");
        until("the client to say why", || client.stderr().contains("has no --clients or --roster"));
        client.signal("TERM");
        assert_eq!((client.code(), client.stdout().len()), (0, 0));
        assert!(!path.join("logs").exists(), "{}", server.stderr());
    });
}

#[test]
fn signal_ends_standing_client_with_what_its_sessions_earned() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(1000);
        let path = folder.path();
        let serve = ["f.bin", "--clients", "2", "--max-wait", "300ms"];
        let (_server, addr) = Program::serve(path, &serve);
        let mut client = stays(path, &addr, "a");
        until_lines(&client, 1);
        let line = &client.stdout()[0];
        assert!(line.contains("FAILED: the muster ended without enough clients"), "{line}");
        client.signal("TERM");
        // Between two sessions 3, in the next one 130.
        assert!([3, 130].contains(&client.code()));

        let (server, addr) = Program::serve(path, &["f.bin", "--clients", "2"]);
        let mut client = stays(path, &addr, "b");
        until("it sits", || server.stderr().contains("1 of 2 clients ready"));
        client.signal("TERM");
        assert_eq!(client.code(), 130);
    });
}

#[test]
fn standing_client_keeps_no_memory_of_sessions() {
    within(LIMIT * 2, || {
        let (folder, _) = folder_with_file(1000);
        let (path, addr) = (folder.path(), port());
        let client = stays(path, &addr, "a");
        let mut counts = Vec::new();
        for round in 1..=12 {
            let serve = ["f.bin", "--clients", "1", "--one-off"];
            let (mut server, _) = Program::serve_by(&mut gatecast(path, &[]), path, &addr, &serve);
            until_lines(&client, round);
            server.code();
            let rest = || (client.count("task"), client.count("fd"));
            until("no thread of the session", || rest().0 <= 3);
            counts.push(rest());
        }
        assert_eq!(counts[2], counts[11], "{counts:?}");
        assert_eq!(entries(&path.join("a")).len(), 1);
    });
}

#[test]
fn unit_of_the_standing_client_is_right() {
    if !have("systemd-analyze", installed("systemd-analyze")) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let unit = fs::read_to_string(root.join("examples/gatecast-fetch.service")).expect("there");
    let path = folder.path().join("gatecast-fetch.service");
    fs::write(&path, unit.replace("/usr/local/bin/gatecast", GATECAST)).expect("room");
    let mut verify = std::process::Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no"]).arg(&path).output().expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", output_text(&output));
    // Its own command is one that the program takes.
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("one");
    let words: Vec<_> = command.split_whitespace().skip(1).chain(["--json"]).collect();
    let output = run(folder.path(), &words);
    assert!(output_text(&output).contains("cannot be used with"));
}

#[test]
fn standing_with_what_has_no_seat_is_a_usage_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, says) in [
        (&["127.0.0.1", "--clients", "2"][..], "cannot be used with"),
        (&["127.0.0.1", "--json"], "cannot be used with"),
        (&["127.0.0.1", "--group", "2"], "cannot be used with"),
        (&["127.0.0.1", "--via", "http"], "have no seat for --standing"),
        (&["http://127.0.0.1/files/f"], "have no seat for --standing"),
        (&["f.torrent"], "have no seat for --standing"),
    ] {
        let output = run(folder.path(), &[&["fetch", "--standing"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output_text(&output).contains(says), "{}", output_text(&output));
    }
}
