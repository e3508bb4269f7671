//! Servers and clients in processes of their own, as in the world: killed, stopped, starved of
//! descriptors, threads and rights.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::common;
use crate::common::program::{GATECAST, Program, part, records, records_of};
use crate::common::{Peer, entries, until, within};
use gatecast::internals::digest::Digest;
use gatecast::internals::net::socket;
use gatecast::internals::proto::native::FromClient;
use gatecast::internals::server::sample;
use gatecast::internals::transfer::Outcome;

const LIMIT: Duration = Duration::from_secs(60);

/// A folder with a file of `bytes` bytes, and the file's digest.
fn place(bytes: u64) -> (tempfile::TempDir, Digest) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("f.bin");
    sample::make(&file, bytes).expect("room");
    let sha1 = Digest::of_reader(fs::File::open(file).expect("made")).expect("readable");
    (folder, sha1)
}

/// Asserts that `out` holds the whole file and nothing else.
#[track_caller]
fn whole(folder: &Path, out: &str, sha1: Digest) {
    let there = entries(&folder.join(out));
    assert_eq!(there, [folder.join(out).join("f.bin")]);
    let file = fs::File::open(&there[0]).expect("there");
    assert_eq!(Digest::of_reader(file).expect("readable"), sha1);
}

/// Asserts that `out` holds a part and nothing else.
#[track_caller]
fn only_part(folder: &Path, out: &str) {
    let there = entries(&folder.join(out));
    assert!(there.len() == 1 && common::is_part(&there[0]), "{there:?}");
}

#[test]
fn of_25_clients_3_die_at_the_gate_and_2_in_mid_file_and_20_are_whole() {
    within(LIMIT * 2, || {
        const BYTES: u64 = 3_000_017;
        let (folder, sha1) = place(BYTES);
        let path = folder.path();
        let (mut server, addr) =
            Program::serve(path, &["f.bin", "--clients", "25", "--rate", "200mbit"]);
        let quiet = (server.count("task"), server.count("fd"));

        // One of the 25 is this test itself: it hears how many are ready.
        let mut us = Peer::connect(addr.parse::<SocketAddr>().expect("an address"));
        us.say("GATECAST/1 JOIN group=25 name=us\n");
        assert!(us.hear().starts_with("OFFER "));
        us.say("READY offset=0\n");
        let name = |n: usize| format!("c{n}");
        let mut clients: Vec<_> = (0..23)
            .map(|n| Program::fetch(path, &addr, &name(n), &[]))
            .collect();
        let ready = |peer: &mut Peer, count: usize| {
            while peer.hear() != format!("WAIT ready={count} clients=25") {}
        };
        ready(&mut us, 24);
        for client in &mut clients[..3] {
            client.kill();
        }
        ready(&mut us, 21);
        // Three rows are there already, and they say which.
        let early = records_of(path, 3);
        let mut names: Vec<_> = early[0].transfers.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["c0", "c1", "c2"]);
        clients.push(Program::fetch(path, &addr, &name(23), &[]));
        ready(&mut us, 22);
        server.signal("USR1");

        let taking = thread::spawn(move || {
            let sha1 = us.take_to_last();
            us.tell(&FromClient::Hashed { sha1 });
            us.tell(&common::receipt(BYTES, sha1));
            assert!(us.hear().starts_with("SUMMARY outcome=complete "));
            sha1
        });
        for n in [3, 4] {
            let half_way = || part(&path.join(name(n))).is_some_and(|held| held > BYTES / 4);
            until("a part of the file", half_way);
            clients[n].kill();
        }
        assert_eq!(taking.join().expect("no panic"), sha1);
        for (n, client) in clients.iter_mut().enumerate().skip(5) {
            assert_eq!(client.code(), 0, "{n}: {}", client.said());
            whole(path, &name(n), sha1);
        }
        for n in 0..5 {
            only_part(path, &name(n));
        }

        let records = records_of(path, 25);
        let [record] = &records[..] else {
            panic!("{} sessions", records.len())
        };
        assert_eq!((record.proven(), record.clients), (20, 25));
        assert!(record.broken_identities().is_empty());
        for n in 0..3 {
            common::ended(
                record,
                &name(n),
                Outcome::Refused,
                "left before the release",
            );
        }
        for n in [3, 4] {
            let row = common::row(record, &name(n));
            assert_eq!(row.outcome, Outcome::Cut);
            let why = row.reason.as_deref().expect("a reason");
            assert!(why.starts_with("the connection failed at byte "), "{why}");
            let sent = row.bytes_server.expect("counted");
            assert!(sent > BYTES / 4 && sent <= BYTES, "{sent}");
        }
        until("no thread and no descriptor to be left", || {
            (server.count("task"), server.count("fd")) == quiet
        });
        server.signal("TERM");
        assert_eq!(server.code(), 4, "{}", server.said());
    });
}

#[test]
fn a_killed_server_leaves_parts_and_the_next_one_sends_the_rest() {
    within(LIMIT, || {
        let (folder, sha1) = place(2_000_000);
        let path = folder.path();
        let (mut server, addr) = Program::serve(path, &["f.bin", "--rate", "16mbit"]);
        let mut clients = ["a", "b"].map(|out| Program::fetch(path, &addr, out, &["--group", "2"]));
        for out in ["a", "b"] {
            until("a part", || {
                part(&path.join(out)).is_some_and(|held| held > 200_000)
            });
        }
        let killed = Instant::now();
        server.kill();
        for (client, out) in clients.iter_mut().zip(["a", "b"]) {
            assert_eq!(client.code(), 4, "{}", client.said());
            only_part(path, out);
        }
        assert!(killed.elapsed() < Duration::from_secs(10));

        // At the same place again; the first clients' parts go on where they were.
        let (_server, addr) =
            Program::serve_by(&mut Command::new(GATECAST), path, &addr, &["f.bin"]);
        let held = ["a", "b"].map(|out| part(&path.join(out)).expect("left"));
        let mut clients =
            ["a", "b"].map(|out| Program::fetch(path, &addr, out, &["--group", "2", "--resume"]));
        for (client, out) in clients.iter_mut().zip(["a", "b"]) {
            assert_eq!(client.code(), 0, "{}", client.said());
            whole(path, out, sha1);
        }
        let records = records_of(path, 2);
        let record = records
            .iter()
            .find(|record| record.all_proven())
            .expect("whole");
        for (out, held) in ["a", "b"].iter().zip(held) {
            let row = common::row(record, out);
            assert_eq!(row.bytes_resumed, held);
            assert_eq!(row.bytes_client, Some(2_000_000 - held));
        }
    });
}

#[test]
fn a_stopped_client_times_out_and_one_that_wakes_in_time_is_whole() {
    within(LIMIT, || {
        // More than all buffers on the way hold, and slower than the stops are short.
        let (folder, sha1) = place(40_000_000);
        let path = folder.path();
        let arguments = [
            "f.bin",
            "--clients",
            "3",
            "--rate",
            "480mbit",
            "--stall-limit",
            "2s",
        ];
        let (server, addr) = Program::serve(path, &arguments);
        let mut clients = ["asleep", "naps", "awake"]
            .map(|out| Program::fetch(path, &addr, out, &["--stall-limit", "8s"]));
        for out in ["asleep", "naps"] {
            until("a part", || {
                part(&path.join(out)).is_some_and(|held| held > 500_000)
            });
        }
        clients[0].signal("STOP");
        clients[1].signal("STOP");
        thread::sleep(Duration::from_millis(700));
        clients[1].signal("CONT");
        assert_eq!(clients[1].code(), 0, "{}", clients[1].said());
        assert_eq!(clients[2].code(), 0, "{}", clients[2].said());
        whole(path, "naps", sha1);
        whole(path, "awake", sha1);
        let records = records_of(path, 3);
        assert_eq!(records[0].proven(), 2);
        common::ended(
            &records[0],
            "asleep",
            Outcome::TimedOut,
            "stalled for 2 s at byte ",
        );
        until("its thread to end", || server.count("task") <= 4);

        // It wakes to a connection that has ended, and has a beginning of the file and no more.
        clients[0].signal("CONT");
        assert_eq!(clients[0].code(), 4, "{}", clients[0].said());
        only_part(path, "asleep");
        let held = fs::read(&entries(&path.join("asleep"))[0]).expect("readable");
        assert!(
            fs::read(path.join("f.bin"))
                .expect("readable")
                .starts_with(&held)
        );
    });
}

#[test]
fn ten_thousand_silent_connections_do_not_keep_an_honest_client_out() {
    if !common::have("prlimit", common::installed("prlimit")) {
        return;
    }
    within(LIMIT * 2, || {
        let (folder, sha1) = place(100_000);
        let path = folder.path();
        let mut command = Command::new("prlimit");
        command.args(["--nofile=64:64", GATECAST]);
        let (server, addr) = Program::serve_by(&mut command, path, "127.0.0.1:0", &["f.bin"]);
        let to: SocketAddr = addr.parse().expect("an address");
        let limit = socket::descriptors(10_500).expect("Linux has one");
        let count = usize::try_from(limit.saturating_sub(500))
            .expect("small")
            .min(10_000);
        if !common::have("10,000 descriptors for the attack", count == 10_000) {
            return;
        }
        // Nobody waits for an answer: what the backlog does not hold tries again in the kernel.
        let attack: Vec<_> = (0..4)
            .map(|_| {
                thread::spawn(move || {
                    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(3)).ok();
                    (0..count / 4).filter_map(|_| connect()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut honest = Vec::new();
        let mut measure = |out: &str| {
            let begun = Instant::now();
            let mut client = Program::fetch(path, &addr, out, &["--retry", "10s"]);
            assert_eq!(client.code(), 0, "{}", client.said());
            whole(path, out, sha1);
            honest.push(begun.elapsed());
        };
        // While they come, and while they stay.
        measure("meanwhile");
        let silent: Vec<_> = attack
            .into_iter()
            .flat_map(|t| t.join().expect("no panic"))
            .collect();
        assert!(silent.len() > 9_000, "only {} got through", silent.len());
        for n in 0..3 {
            measure(&format!("after{n}"));
        }
        eprintln!(
            "{} silent connections; honest clients took {honest:?}",
            silent.len()
        );
        let worst = honest.iter().max().expect("four");
        assert!(*worst < Duration::from_secs(5), "{honest:?}");
        let after = &honest[1..];
        assert!(
            after.iter().min().expect("three") < &Duration::from_secs(2),
            "{honest:?}"
        );

        assert!(server.count("fd") <= 64);
        let before = server.ticks();
        thread::sleep(Duration::from_secs(1));
        let spent = server.ticks() - before;
        assert!(spent <= 10, "{spent} % of a core while nothing happens");
        assert!(
            server.said().lines().all(|line| !line.contains("panicked")),
            "{}",
            server.said()
        );
        drop(silent);
        measure_free(&server);
    });
}

/// Once the silent ones have gone, so have their threads.
fn measure_free(server: &Program) {
    until("the threads of the silent to end", || {
        server.count("task") <= 4
    });
}

/// The program, some of whose `calls` fail as `fault` says; what strace did is `told` in a file.
fn strace(calls: &str, fault: &str, told: &Path) -> Command {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}"));
    let mut command = Command::new("strace");
    // -D: the process that is started is the program, and strace only looks on.
    command.args(["-D", "-f", "-qq", "-e", &trace, "-e", &inject, "-o"]);
    command.arg(told).arg(GATECAST);
    command
}

#[test]
fn who_says_nothing_gives_its_thread_to_a_client_that_finds_none() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = place(100_000);
        let path = folder.path();
        // Counted for each thread: the listener's fourth connection gets none, once.
        let told = path.join("strace");
        let mut command = strace("clone3,clone", "error=EAGAIN:when=4", &told);
        let (_server, addr) = Program::serve_by(&mut command, path, "127.0.0.1:0", &["f.bin"]);
        let to: SocketAddr = addr.parse().expect("an address");
        let mut silent = [0; 3].map(|_| TcpStream::connect(to).expect("listening"));
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0, "{}", client.said());
        whole(path, "out", sha1);
        let trace = fs::read_to_string(&told).expect("what strace saw");
        assert!(trace.contains("(INJECTED)"), "{trace}");
        // The oldest of them was closed for it.
        silent[0].set_read_timeout(Some(LIMIT)).expect("a socket");
        assert_eq!(silent[0].read(&mut [0]).expect("closed"), 0);
    });
}

#[test]
fn clients_for_whom_there_is_no_thread_are_refused_with_the_reason() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = place(100_000);
        let path = folder.path();
        // Counted for each thread: the listener's third client and all that follow get none.
        let told = path.join("strace");
        let mut command = strace("clone3,clone", "error=EAGAIN:when=4+", &told);
        let (server, addr) = Program::serve_by(
            &mut command,
            path,
            "127.0.0.1:0",
            &["f.bin", "--clients", "3"],
        );
        let mut first = ["a", "b", "c"].map(|out| Program::fetch(path, &addr, out, &[]));
        for (client, out) in first.iter_mut().zip(["a", "b", "c"]) {
            assert_eq!(client.code(), 0, "{}", client.said());
            whole(path, out, sha1);
        }
        let mut late = Program::fetch(path, &addr, "late", &[]);
        assert_eq!(late.code(), 1);
        assert!(
            late.said()
                .contains("refused: the server's system allows no more threads"),
            "{}",
            late.said()
        );
        // A stranger is closed, and the server still listens.
        let mut stranger = Peer::connect(addr.parse().expect("an address"));
        stranger.say("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(stranger.rest(), b"");
        assert!(!server.said().contains("panicked"), "{}", server.said());
    });
}

/// A server ends its own accepting thread by a connection to itself, which may fail too.
#[test]
fn a_server_that_cannot_reach_itself_still_ends() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        for fault in ["error=EMFILE:when=1", "error=ENETUNREACH:when=1+"] {
            let (folder, sha1) = place(1000);
            let path = folder.path();
            let told = path.join("strace");
            let mut command = strace("connect", fault, &told);
            let arguments = ["f.bin", "--one-off"];
            let (mut server, addr) =
                Program::serve_by(&mut command, path, "127.0.0.1:0", &arguments);
            let mut client = Program::fetch(path, &addr, "out", &[]);
            assert_eq!(client.code(), 0, "{}", client.said());
            whole(path, "out", sha1);
            assert_eq!(server.code(), 0, "{}", server.said());
            let told = fs::read_to_string(told).expect("strace told");
            assert!(told.contains("(INJECTED)"), "{told}");
        }
    });
}

/// Calls that are interrupted, or move less than was asked for, at every third time.
#[test]
fn interrupted_calls_change_no_byte() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT * 2, || {
        let calls = [
            ("recvfrom,read", "EINTR"),
            ("sendfile,splice", "EINTR"),
            ("sendto,write,pwrite64", "EINTR"),
            ("pread64", "EINTR"),
            ("accept4,connect,poll", "EINTR"),
        ];
        let mut injected = 0;
        for copy in ["sendfile", "buffered"] {
            for (names, error) in calls {
                let (folder, sha1) = place(700_001);
                let told = folder.path().join("strace");
                let mut command = strace(names, &format!("error={error}:when=5+3"), &told);
                command
                    .args(["run", "f.bin", "--clients", "2", "--keep", "out"])
                    .args(["--copy", copy])
                    .current_dir(folder.path());
                let mut run = Program::start(&mut command);
                assert_eq!(run.code(), 0, "{names} {error}: {}", run.said());
                for seat in ["C1-f.bin", "C2-f.bin"] {
                    let file = fs::File::open(folder.path().join("out").join(seat)).expect("there");
                    assert_eq!(Digest::of_reader(file).expect("readable"), sha1, "{names}");
                }
                let told = fs::read_to_string(told).expect("strace told");
                injected += told.matches("(INJECTED)").count();
            }
        }
        assert!(injected > 50, "only {injected} calls were interrupted");
        eprintln!("{injected} calls were interrupted");
    });
}

/// The n-th call of a kind fails: a client has the whole file and says so, or has none and says so.
#[test]
fn whichever_call_fails_a_copy_is_whole_or_not_there() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT * 2, || {
        let (folder, sha1) = place(300_001);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let faults = [
            ("pwrite64", "ENOSPC", "buffered"),
            ("splice", "ENOSPC", "sendfile"),
            ("pread64", "EIO", "buffered"),
            ("fsync", "EIO", "buffered"),
            ("rename", "EXDEV", "buffered"),
            ("ftruncate", "EIO", "buffered"),
            ("recvfrom", "ECONNRESET", "buffered"),
            ("openat", "EMFILE", "buffered"),
        ];
        let (mut failures, mut successes) = (0, 0);
        for (call, error, copy) in faults {
            for n in [1, 2, 3, 5, 8] {
                let out = format!("{call}-{n}");
                let told = path.join("strace");
                let mut command = strace(call, &format!("error={error}:when={n}"), &told);
                command
                    .args(["fetch", &addr, "--out", &out, "--copy", copy])
                    .current_dir(path);
                let mut client = Program::start(&mut command);
                let code = client.child.wait().expect("ours").code();
                let copies = entries(&path.join(&out));
                let copy = copies.iter().find(|path| !common::is_part(path));
                match code {
                    Some(0) => {
                        whole(path, &out, sha1);
                        successes += 1;
                    }
                    // Before it could speak, the loader itself has failed.
                    Some(127) if call == "openat" || call == "pread64" => {}
                    _ => {
                        assert!(
                            copy.is_none(),
                            "{out}: {code:?} and {copies:?}: {}",
                            client.said()
                        );
                        // The signal thread reads from a socket of its own, which never fails but
                        // here; its panic is its package's answer, and ends nothing.
                        let said = client.said();
                        let ours = |line: &&str| {
                            line.contains("panicked") && !line.contains("thread 'signals'")
                        };
                        assert_eq!(said.lines().find(ours), None, "{out}");
                        failures += 1;
                    }
                }
            }
        }
        assert!(
            failures >= 10 && successes >= 1,
            "{failures} failures, {successes} successes"
        );
    });
}

#[test]
fn a_folder_without_the_right_to_write_is_one_clear_sentence() {
    within(LIMIT, || {
        let (folder, _) = place(1000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let mut command;
        let probe =
            fs::metadata("/proc/self").map(|about| std::os::unix::fs::MetadataExt::uid(&about));
        if probe.expect("/proc") == 0 {
            // Root may write anywhere; nobody may not. It needs a program that it can reach.
            use std::os::unix::fs::PermissionsExt;
            use std::os::unix::process::CommandExt;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
            let program = path.join("gatecast");
            fs::copy(GATECAST, &program).expect("room");
            command = Command::new(program);
            command.uid(65_534).gid(65_534);
        } else {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).expect("ours");
            command = Command::new(GATECAST);
        }
        command
            .args(["fetch", &addr, "--out", "received"])
            .current_dir(path);
        let mut client = Program::start(&mut command);
        assert_eq!(client.code(), 1, "{}", client.said());
        let said = client.said();
        assert!(
            said.contains("cannot make the folder (received): Permission denied"),
            "{said}"
        );
        assert!(!path.join("received").exists());
        #[allow(clippy::permissions_set_readonly_false, reason = "for its own removal")]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
        }
    });
}

#[test]
fn a_log_folder_that_cannot_be_made_shows_in_the_exit_code() {
    within(LIMIT, || {
        let (folder, sha1) = place(1000);
        let path = folder.path();
        let (mut server, addr) =
            Program::serve(path, &["f.bin", "--log-dir", "f.bin/logs", "--one-off"]);
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0, "{}", client.said());
        whole(path, "out", sha1);
        assert_eq!(server.code(), 1);
        let said = server.said();
        assert!(
            said.contains("cannot write the session log (f.bin/logs/"),
            "{said}"
        );
        assert!(records(path).is_empty());
    });
}

#[test]
fn a_log_that_is_hostile_is_refused_and_nothing_of_it_reaches_the_terminal() {
    within(LIMIT, || {
        let (folder, _) = place(1000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0);
        records_of(path, 1);
        let log = entries(&path.join("logs")).remove(0);
        let honest = fs::read(&log).expect("readable");
        let at_line_2 = honest
            .iter()
            .position(|&byte| byte == b'\n')
            .expect("a header")
            + 1;
        let mut cases: Vec<(Vec<u8>, &str)> = vec![
            (Vec::new(), "cut before its end"),
            (
                b"\x1b[2J\n".to_vec(),
                "the header's column 1 is '\\u{1b}[2J'",
            ),
            (vec![b'x'; 1 << 20], "longer than 8192 bytes"),
            ([&honest[..], b"\xff\xfe\n"].concat(), "line 3"),
            ([&honest[..], b"\n"].concat(), "line 3"),
            (
                [&honest[..], &honest[at_line_2..at_line_2 + 40]].concat(),
                "line 3",
            ),
        ];
        // Cut in every line's middle, and at a byte of each column.
        for cut in (at_line_2..honest.len()).step_by(23) {
            cases.push((
                honest[..cut].to_vec(),
                if cut == at_line_2 { "" } else { "line 2" },
            ));
        }
        let hostile = path.join("hostile.log");
        for (bytes, says) in cases {
            fs::write(&hostile, &bytes).expect("room");
            let report = Command::new(GATECAST).arg("report").arg(&hostile).output();
            let report = report.expect("the program starts");
            let said = String::from_utf8(report.stderr).expect("text");
            assert!(
                !said.contains("panicked") && !said.contains('\u{1b}'),
                "{said:?}"
            );
            assert!(said.contains(says), "{says}: {said}");
            if !says.is_empty() {
                assert_eq!(report.status.code(), Some(1), "{says}");
            }
        }
        fs::remove_file(&hostile).expect("ours");
        assert!(
            Command::new("mkfifo")
                .arg(&hostile)
                .status()
                .expect("mkfifo")
                .success()
        );
        let mut report = Program::start(Command::new(GATECAST).arg("report").arg(&hostile));
        assert_eq!(report.code(), 1, "a FIFO is not waited for");
        assert!(
            report.said().contains("it is not a file"),
            "{}",
            report.said()
        );
    });
}

#[test]
fn values_that_cannot_be_meant_are_usage_errors_that_name_them() {
    let (folder, _) = place(1000);
    let cases: [&[&str]; 26] = [
        &["run", "--size", "1e309"],
        &["run", "--size", "-0"],
        &["run", "--size", "16EiB"],
        &["run", "--size", "0x10MB"],
        &["run", "--size", "99999999TB"],
        &["run", "--size", ""],
        &["run", "--size", "100 MB"],
        &["run", "--size", "\u{661}MB"],
        &["run", "--clients", "-1"],
        &["run", "--clients", "25.0"],
        &["run", "--clients", "99999999999999999999"],
        &["run", "--runs", "0"],
        &["run", "--rate", "0mbit"],
        &["run", "--rate", "NaNmbit"],
        &["run", "--stall-limit", "0s"],
        &["run", "--stall-limit", "1e9s"],
        &["run", "--via", "TCP"],
        &["run", "--copy", "mmap"],
        &["serve", "f.bin", "--listen", "localhost"],
        &["serve", "f.bin", "--listen", "127.0.0.1:65536"],
        &["serve", "f.bin", "--quorum", "0"],
        &["serve", "f.bin", "--max-wait=-5s"],
        &["fetch", "127.0.0.1", "../f.bin"],
        &["fetch", "127.0.0.1", "f\u{1b}[2J.bin"],
        &["fetch", "127.0.0.1", "--sha1", "12"],
        &["fetch", "127.0.0.1", "--group", "10001"],
    ];
    for arguments in cases {
        let output = Command::new(GATECAST)
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .expect("the program starts");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{arguments:?}: {said:?}");
        let value = arguments.last().expect("a value");
        let value = value
            .replace('\u{1b}', "\\u{1b}")
            .replace("--max-wait=", "");
        assert!(said.contains(&value), "{arguments:?}: {said}");
        assert_eq!(
            entries(folder.path()).len(),
            1,
            "{arguments:?} made something"
        );
    }
}
