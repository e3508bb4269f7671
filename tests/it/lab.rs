//! The lab's TCP clients at our gate, as they exist: a Python program of the lab's protocol, ten at
//! once and beside our own; and what they may get wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common;
use crate::common::{Peer, Server, until, whole, within};
use gatecast::internals::digest::Digest;
use gatecast::internals::report::verdict::Verdict;
use gatecast::internals::transfer::Outcome;

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
        .args([
            &server.addr.ip().to_string(),
            &server.addr.port().to_string(),
        ])
        .arg(out)
        .args(flags)
        .stdin(Stdio::null());
    thread::spawn(move || command.output().expect("python3"))
}

/// The six columns of the client's line.
fn columns(output: &Output) -> Vec<String> {
    let line = String::from_utf8(output.stdout.clone()).expect("text");
    let columns: Vec<_> = line
        .trim_end_matches('\n')
        .split('\t')
        .map(str::to_owned)
        .collect();
    assert_eq!(columns.len(), 6, "{line}");
    columns
}

/// Asserts that every copy in `out` is the file, and that there are so many.
fn copies(server: &Server, out: &Path, count: usize) {
    let paths: Vec<PathBuf> = common::entries(out);
    assert_eq!(paths.len(), count, "{paths:?}");
    for path in paths {
        let file = std::fs::File::open(&path).expect("there");
        assert_eq!(
            Digest::of_reader(file).expect("readable"),
            server.sha1,
            "{}",
            path.display()
        );
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
            assert!(
                columns[5].parse::<f64>().expect("its start") > 1.7e9,
                "{columns:?}"
            );
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
fn lab_clients_and_native_clients_share_a_gate() {
    if !python() {
        return;
    }
    within(LIMIT, || {
        let server = Server::new(2_000_003, |settings| settings.clients = Some(10));
        let out = server.folder.path().join("lab");
        let theirs: Vec<_> = (0..5)
            .map(|n| lab(&server, &out, if n == 0 { &["--dribble"] } else { &[] }))
            .collect();
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
fn lab_clients_mistake_costs_only_its_own_row() {
    if !python() {
        return;
    }
    within(LIMIT, || {
        // Large enough that one which dies in mid-file leaves most of it unsent.
        let server = Server::new(30_000_000, |settings| settings.clients = Some(6));
        let out = server.folder.path().join("lab");
        let cases: [(&[&str], Outcome, &str); 4] = [
            (&["--stray-byte"], Outcome::Complete, ""),
            (
                &["--wrong-receipt"],
                Outcome::Cut,
                "said 'Recibida' and not Recibido",
            ),
            (
                &["--no-receipt"],
                Outcome::Cut,
                "closed the connection without Recibido",
            ),
            (
                &["--die-after", "1000000"],
                Outcome::Cut,
                "the connection failed at byte ",
            ),
        ];
        let vanishing = lab(&server, &out, &["--vanish-at-gate"]);
        until("it to wait", || server.seats().1 == 1);
        let gone = vanishing.join().expect("no panic");
        assert_eq!(gone.status.code(), Some(1));
        until("its seat to be free", || server.seats().0 == 0);

        let mut clients = Vec::new();
        for (number, (flags, ..)) in (1..).zip(&cases) {
            // One after the other, so that the seat tells the case.
            clients.push(lab(&server, &out, flags));
            server.until_ready(number);
        }
        let ours = server.fetch("ours", |order| order.clients = 2);
        whole(ours.join().expect("no panic"), &server);
        for (client, (flags, ..)) in clients.into_iter().zip(&cases) {
            let output = client.join().expect("no panic");
            assert_eq!(
                output.status.success(),
                flags[0] != "--die-after",
                "{output:?}"
            );
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
fn every_word_but_recibido_is_refused() {
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
            peer.say(said);
            if proven {
                assert!(peer.hear().parse::<f64>().expect("seconds") > 1.7e9);
                peer.say("0.25\n");
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
        peer.say("?".repeat(10_000));
        drop(peer);
        assert!(!server.record().all_proven(), "stray bytes without end");
        server.stop();
    });
}

#[test]
fn impossible_elapsed_time_leaves_the_copy_proven() {
    within(LIMIT, || {
        let server = Server::new(3000, |settings| settings.clients = Some(1));
        for elapsed in [
            "1e309\n",
            "-1\n",
            "nan\n",
            "\n",
            "\0\n",
            "9".repeat(5000).as_str(),
        ] {
            let mut peer = take(&server);
            peer.say("Recibido");
            peer.hear();
            peer.say(elapsed);
            drop(peer);
            let record = server.record();
            assert!(record.all_proven(), "{elapsed:?}");
            assert_eq!(record.transfers[0].seconds_client, None, "{elapsed:?}");
        }
        server.stop();
    });
}

#[test]
fn lab_client_that_sends_more_than_ready_is_not_seated() {
    within(LIMIT, || {
        let server = Server::new(3000, |settings| settings.clients = Some(2));
        let mut peer = server.peer();
        peer.say("Preparado\n");
        assert_eq!(peer.rest(), b"");
        let mut peer = server.peer();
        peer.say("Preparado");
        server.until_ready(1);
        peer.say("\n");
        assert_eq!(peer.rest(), b"", "nobody may speak at the gate");
        until("its seat to be free", || server.seats().0 == 0);
        let ours = server.fetch("ours", |order| order.clients = 2);
        whole(ours.join().expect("no panic"), &server);
        server.stop();
    });
}

#[test]
fn lab_client_leaves_where_no_number_or_file_is_known() {
    within(LIMIT, || {
        // The lab's client names neither, so the server must.
        let server = Server::new(3000, |_| {});
        let mut peer = server.peer();
        peer.say("Preparado");
        assert_eq!(peer.rest(), b"");
        server.stop();
    });
}

/// A lab client that has taken the whole file.
fn take(server: &Server) -> Peer {
    let mut peer = server.peer();
    peer.say("Preparado");
    assert_eq!(peer.hear(), "1");
    assert_eq!(peer.hear(), server.name);
    assert_eq!(peer.hear(), server.bytes.to_string());
    assert_eq!(peer.hear(), server.sha1.to_string());
    assert_eq!(Digest::of(&peer.payload(server.bytes)), server.sha1);
    peer
}
