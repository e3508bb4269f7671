//! The lab's TCP clients at our gate: a Python program that speaks the lab's protocol, ten at once
//! and beside native clients, and the mistakes that such clients make.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    common,
    common::{Peer, Server, until, whole, within},
};
use gatecast::internals::{digest::Digest, report::verdict::Verdict, transfer::Outcome};

const LIMIT: Duration = Duration::from_secs(60);

fn python() -> bool {
    common::have("python3", common::installed("python3"))
}

/// Starts the lab's client with its copy in `out`.
fn lab(server: &Server, out: &Path, flags: &[&str]) -> JoinHandle<Output> {
    std::fs::create_dir_all(out).expect("room");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/lab_client.py");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .args([&server.addr.ip().to_string(), &server.addr.port().to_string()])
        .arg(out)
        .args(flags)
        .stdin(Stdio::null());
    thread::spawn(move || command.output().expect("python3"))
}

/// The six columns of the client's line.
fn columns(output: &Output) -> Vec<String> {
    let line = String::from_utf8(output.stdout.clone()).expect("text");
    let columns: Vec<_> = line.trim_end_matches('\n').split('\t').map(str::to_owned).collect();
    assert_eq!(columns.len(), 6, "{line}");
    columns
}

/// Asserts that there are `count` copies in `out` and that each is the file.
fn copies(server: &Server, out: &Path, count: usize) {
    let paths: Vec<PathBuf> = common::entries(out);
    assert_eq!(paths.len(), count, "{paths:?}");
    for path in paths {
        assert_eq!(common::sha1_of(&path), server.sha1, "{}", path.display());
    }
}

#[test]
fn ten_lab_clients_are_released_together() {
    if !python() {
        return;
    }
    within(LIMIT, || {
        let server = Server::new(2_000_003, |settings| settings.clients = Some(10));
        let out = server.folder.path().join("lab");
        let clients: Vec<_> = (0..10).map(|_| lab(&server, &out, &[])).collect();
        let mut seats = Vec::new();
        for client in clients {
            let output = client.join().expect("no panic");
            assert!(output.status.success(), "{output:?}");
            let columns = columns(&output);
            assert_eq!(columns[1..4], ["f.bin", "2000003", "yes"]);
            assert!(columns[5].parse::<f64>().expect("its start") > 1.7e9, "{columns:?}");
            seats.push(columns[0].parse::<u16>().expect("a seat"));
        }
        seats.sort_unstable();
        assert_eq!(seats, (1..=10).collect::<Vec<_>>());
        copies(&server, &out, 10);
        let record = server.record();
        assert_eq!(record.proven(), 10);
        assert!(record.broken_identities().is_empty());
        for transfer in &record.transfers {
            assert_eq!(transfer.bytes_server, Some(2_000_003));
            assert_eq!(transfer.bytes_client, None, "it cannot attest that");
            assert!(transfer.seconds_client.is_some() && transfer.seconds_server.is_some());
        }
        server.stop();
    });
}

#[test]
fn lab_and_own_clients_share_a_gate() {
    if !python() {
        return;
    }
    within(LIMIT, || {
        let server = Server::new(2_000_003, |settings| settings.clients = Some(10));
        let out = server.folder.path().join("lab");
        let theirs: Vec<_> =
            (0..5).map(|n| lab(&server, &out, if n == 0 { &["--dribble"] } else { &[] })).collect();
        let ours = server.fetch("ours", |order| order.clients = 5);
        whole(ours.join().expect("no panic"), &server);
        for client in theirs {
            let output = client.join().expect("no panic");
            assert!(output.status.success(), "{output:?}");
        }
        copies(&server, &out, 5);
        let record = server.record();
        assert_eq!(record.proven(), 10);
        assert_eq!(Verdict::of_records(&[record]).exit_code(), 0);
        server.stop();
    });
}

#[test]
fn faulty_lab_client_fails_only_itself() {
    if !python() {
        return;
    }
    within(LIMIT, || {
        // So large that most of it is unsent when a client dies in mid-file.
        let server = Server::new(30_000_000, |settings| settings.clients = Some(6));
        let out = server.folder.path().join("lab");
        let cases: [(&[&str], Outcome, &str); 4] = [
            (&["--stray-byte"], Outcome::Complete, ""),
            (&["--wrong-receipt"], Outcome::Cut, "said 'Recibida' and not Recibido"),
            (&["--no-receipt"], Outcome::Cut, "closed the connection without Recibido"),
            (&["--die-after", "1000000"], Outcome::Cut, "the connection was lost at byte "),
        ];
        let vanishing = lab(&server, &out, &["--vanish-at-gate"]);
        until("it to wait", || server.seats().1 == 1);
        let gone = vanishing.join().expect("no panic");
        assert_eq!(gone.status.code(), Some(1));
        until("its seat to be free", || server.seats().0 == 0);

        let mut clients = Vec::new();
        for (number, (flags, ..)) in (1..).zip(&cases) {
            // One after the other, so that each case has a known seat.
            clients.push(lab(&server, &out, flags));
            server.until_ready(number);
        }
        let ours = server.fetch("ours", |order| order.clients = 2);
        whole(ours.join().expect("no panic"), &server);
        for (client, (flags, ..)) in clients.into_iter().zip(&cases) {
            let output = client.join().expect("no panic");
            assert_eq!(output.status.success(), flags[0] != "--die-after", "{output:?}");
        }
        let record = server.record();
        for (seat, (flags, outcome, says)) in (1..).zip(cases) {
            let mut rows = record.transfers.iter().filter(|t| t.woke.is_some());
            let row = rows.find(|t| t.seat.0 == seat).expect("a row");
            let reason = row.reason.as_deref().unwrap_or_default();
            assert_eq!(row.outcome, outcome, "{flags:?}: {reason}");
            assert!(reason.contains(says), "{flags:?}: {reason}");
        }
        assert_eq!(record.proven(), 3);
        assert_eq!(record.transfers.len(), 7, "and one that left the gate");
        assert_eq!(Verdict::of_records(&[record]).exit_code(), 4);
        server.stop();
    });
}

#[test]
fn only_recibido_proves_lab_copy() {
    within(LIMIT, || {
        let server = Server::new(3000, |settings| settings.clients = Some(1));
        for (said, proven) in [
            ("Recibido", true),
            ("?Recibido", true),
            ("\r\nRecibido", true),
            ("No Recibido", false),
            ("recibido", false),
            ("Recibida", false),
            ("Recib", false),
            ("xRecibido", false),
            ("\u{e9}Recibido", false),
        ] {
            let mut peer = take(&server);
            peer.send(said);
            if proven {
                assert!(peer.read_line().parse::<f64>().expect("seconds") > 1.7e9);
                peer.send("0.25\n");
            }
            drop(peer);
            let record = server.record();
            assert_eq!(record.all_proven(), proven, "{said}: {record:?}");
            if proven {
                let elapsed = record.transfers[0].seconds_client;
                assert_eq!(elapsed, Some(Duration::from_millis(250)), "{said}");
            }
        }
        let mut peer = take(&server);
        peer.send("?".repeat(10_000));
        drop(peer);
        assert!(!server.record().all_proven(), "stray bytes without end");
        server.stop();
    });
}

#[test]
fn impossible_elapsed_time_is_unknown_but_copy_is_proven() {
    within(LIMIT, || {
        let server = Server::new(3000, |settings| settings.clients = Some(1));
        for elapsed in ["1e309\n", "-1\n", "nan\n", "\n", "\0\n", "9".repeat(5000).as_str()] {
            let mut peer = take(&server);
            peer.send("Recibido");
            peer.read_line();
            peer.send(elapsed);
            drop(peer);
            let record = server.record();
            assert!(record.all_proven(), "{elapsed:?}");
            assert_eq!(record.transfers[0].seconds_client, None, "{elapsed:?}");
        }
        server.stop();
    });
}

#[test]
fn lab_client_with_extra_bytes_gets_no_seat() {
    within(LIMIT, || {
        let server = Server::new(3000, |settings| settings.clients = Some(2));
        let mut peer = server.peer();
        peer.send("Preparado\n");
        assert_eq!(peer.read_to_close(), b"");
        let mut peer = server.peer();
        peer.send("Preparado");
        server.until_ready(1);
        peer.send("\n");
        assert_eq!(peer.read_to_close(), b"", "nobody may speak at the gate");
        until("its seat to be free", || server.seats().0 == 0);
        let ours = server.fetch("ours", |order| order.clients = 2);
        whole(ours.join().expect("no panic"), &server);
        server.stop();
    });
}

#[test]
fn lab_client_is_closed_without_number_of_clients() {
    within(LIMIT, || {
        // The lab's client cannot say how many clients there are, so the server must know.
        let server = Server::new(3000, |_| {});
        let mut peer = server.peer();
        peer.send("Preparado");
        assert_eq!(peer.read_to_close(), b"");
        server.stop();
    });
}

/// A lab client that has taken the whole file.
fn take(server: &Server) -> Peer {
    let mut peer = server.peer();
    peer.send("Preparado");
    assert_eq!(peer.read_line(), "1");
    assert_eq!(peer.read_line(), server.name);
    assert_eq!(peer.read_line(), server.bytes.to_string());
    assert_eq!(peer.read_line(), server.sha1.to_string());
    assert_eq!(Digest::of(&peer.read_payload(server.bytes)), server.sha1);
    peer
}
