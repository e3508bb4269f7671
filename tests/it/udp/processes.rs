//! Clients over UDP in processes of their own that are killed, stopped or late.

use std::{fs, path::Path, thread, time::Duration};

use gatecast::internals::transfer::{Outcome, Record};

use crate::{
    common,
    common::{
        entries,
        program::{Program, folder_with_file, part, records, records_of, strace, whole},
        row, until, within,
    },
};

const LIMIT: Duration = Duration::from_secs(100);

const BYTES: u64 = 20_000_017;

/// Waits until a client has begun to receive.
fn receiving(folder: &Path, name: &str) {
    let begun = || part(&folder.join(name)).is_some_and(|held| held > BYTES / 10);
    until("a part of the file", begun);
}

fn sums_hold(record: &Record) {
    assert_eq!(record.broken_identities(), Vec::<String>::new());
}

/// The slowest of the named clients, seconds.
fn slowest(record: &Record, names: &[String]) -> f64 {
    let seconds = names.iter().map(|name| row(record, name).seconds_server);
    let slowest = seconds.max().flatten().expect("they have ended");
    slowest.as_secs_f64()
}

#[test]
fn group_survives_killed_stopped_and_late_clients() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(BYTES);
        let path = folder.path();
        let words = [
            "f.bin",
            "--via",
            "multicast",
            "--rate",
            "80mbit",
            "--multicast-group",
            "239.255.9.20:40997",
        ];
        let (mut server, addr) = Program::serve(path, &words);
        let group = |run: &str| -> (Vec<String>, Vec<Program>) {
            let names: Vec<String> = (0..6).map(|n| format!("{run}{n}")).collect();
            let start = |name: &String| Program::fetch(path, &addr, name, &["--group", "6"]);
            let clients = names.iter().map(start).collect();
            (names, clients)
        };
        let (names, mut clients) = group("control");
        for client in &mut clients {
            assert_eq!(client.code(), 0, "{}", client.stderr());
        }
        let control = slowest(&records_of(path, 6)[0], &names);

        let (names, mut clients) = group("c");
        receiving(path, "c0");
        clients[0].kill();
        clients[1].signal("STOP");
        let mut late = Program::fetch(path, &addr, "late", &["--group", "1"]);
        thread::sleep(Duration::from_millis(200)); // How long it stands still: the fault itself.
        clients[1].signal("CONT");
        for (client, name) in clients.iter_mut().zip(&names).skip(1) {
            assert_eq!(client.code(), 0, "{name}: {}", client.stderr());
            whole(path, name, sha1);
        }
        assert_eq!(late.code(), 0, "{}", late.stderr());
        whole(path, "late", sha1);
        let records = records_of(path, 13);
        let of = |name: &str| {
            let has = |record: &&Record| record.transfers.iter().any(|t| t.name == name);
            records.iter().find(has).expect("it has a row").clone()
        };
        let record = of("c0");
        sums_hold(&record);
        let killed = row(&record, "c0");
        assert_eq!(killed.outcome, Outcome::Cut, "{killed:?}");
        assert!(killed.bytes_server < Some(BYTES), "{killed:?}");
        let others = slowest(&record, &names[2..]);
        assert!(others < control * 1.1 + 0.1, "{others} s beside {control} s");
        // The late client is not in the released session, and gets its own.
        assert_ne!(of("late").session, record.session);
        assert!(of("late").all_proven());
        server.signal("TERM");
        server.code();
    });
}

#[test]
fn overflow_of_stopped_client_is_exactly_host_loss() {
    within(LIMIT, || {
        const BYTES: u64 = 80_000_000;
        let (folder, sha1) = folder_with_file(BYTES);
        let path = folder.path();
        for (via, code) in [("raw", 4), ("udp", 0)] {
            let words = ["f.bin", "--via", via, "--clients", "1", "--rate", "400mbit", "--one-off"];
            let (mut server, addr) = Program::serve(path, &words);
            let mut client = Program::fetch(path, &addr, via, &[]);
            receiving(path, via);
            client.signal("STOP");
            thread::sleep(Duration::from_millis(700)); // As above: 35 MB come in this time.
            client.signal("CONT");
            assert_eq!(client.code(), code, "{}", client.stderr());
            server.code();
            let records = records_of(path, if via == "raw" { 1 } else { 2 });
            let record = records.iter().find(|r| r.via.to_string() == via).expect("a session");
            sums_hold(record);
            let counts = record.transfers[0].counts;
            if via == "udp" {
                // The reliable transport has no more under way than the buffer of the client holds.
                whole(path, via, sha1);
                continue;
            }
            assert!(counts.host_rx_drop > Some(1000), "{counts:?}");
            assert_eq!(counts.host_rx_drop, counts.lost, "{counts:?}");
            assert_eq!(counts.network_lost, Some(0), "{counts:?}");
            assert_eq!(counts.offered, Some(BYTES.div_ceil(1448)));
        }
    });
}

/// Asserts that `out` holds nothing but a beginning of `f.bin`, and that a fetch with `--resume`
/// from a server that sends by `via` makes it whole.
fn beginning_resumes(path: &Path, out: &str, via: &str) {
    let left = entries(&path.join(out));
    let [left] = &left[..] else { panic!("{left:?}") };
    assert!(common::is_part(left) && !left.to_string_lossy().contains("holes"), "{left:?}");
    let held = fs::read(left).expect("readable");
    let source = fs::read(path.join("f.bin")).expect("readable");
    assert!(!held.is_empty() && held.len() < source.len(), "{} bytes", held.len());
    assert!(source.starts_with(&held), "{out}: {} bytes are not the file's", held.len());
    let words = ["f.bin", "--via", via, "--clients", "1", "--one-off"];
    let (mut server, addr) = Program::serve(path, &words);
    let mut client = Program::fetch(path, &addr, out, &["--resume"]);
    assert_eq!(client.code(), 0, "{}", client.stderr());
    server.code();
    let rows = records(path).into_iter().flat_map(|record| record.transfers);
    let resumed =
        rows.filter(|row| row.name == out && row.is_proven()).map(|row| row.bytes_resumed);
    assert_eq!(resumed.collect::<Vec<_>>(), [held.len() as u64]);
}

#[test]
fn interrupted_client_leaves_a_beginning_of_the_file() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(BYTES);
        let path = folder.path();
        for (via, then) in [("udp", "tcp"), ("multicast", "udp"), ("udp", "multicast")] {
            let words = ["f.bin", "--via", via, "--clients", "1", "--rate", "80mbit"];
            let (_server, addr) = Program::serve(path, &words);
            let out = format!("{via}-{then}");
            let mut client = Program::fetch(path, &addr, &out, &[]);
            receiving(path, &out);
            client.signal("INT");
            assert_eq!(client.code(), 130, "{}", client.stderr());
            beginning_resumes(path, &out, then);
            whole(path, &out, sha1);
        }
    });
}

#[test]
fn client_on_a_full_disk_leaves_a_beginning_of_the_file() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(BYTES);
        let path = folder.path();
        for (via, then, when) in [("udp", "tcp", "7+"), ("multicast", "udp", "9")] {
            let words = ["f.bin", "--via", via, "--clients", "1", "--rate", "160mbit"];
            let (_server, addr) = Program::serve(path, &words);
            let out = format!("{via}-{then}");
            let told = path.join("strace");
            // Whichever it writes with: the copy has some 76 writes or more.
            let fault = format!("error=ENOSPC:when={when}");
            let mut command = strace("pwrite64,pwritev", &fault, &told);
            command.args(["fetch", &addr, "--out", &out]).current_dir(path);
            let mut client = Program::start(&mut command);
            assert_ne!(client.code(), 0, "{}", client.stderr());
            assert!(client.stderr().contains("No space left"), "{}", client.stderr());
            beginning_resumes(path, &out, then);
            whole(path, &out, sha1);
        }
    });
}
