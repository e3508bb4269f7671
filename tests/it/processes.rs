//! Servers and clients in processes of their own that are killed or stopped, or that lack
//! descriptors, threads or rights.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{net::socket, proto::native::FromClient, transfer::Outcome};

use crate::{
    common,
    common::{
        Peer, entries,
        program::{GATECAST, Program, folder_with_file, part, records, records_of, strace, whole},
        sha1_of,
        turn::in_turn,
        until, within,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// Asserts that `out` holds a part and nothing else.
#[track_caller]
fn only_part(folder: &Path, out: &str) {
    let there = entries(&folder.join(out));
    assert!(there.len() == 1 && common::is_part(&there[0]), "{there:?}");
}

#[test]
fn deaths_at_gate_and_mid_file_leave_20_of_25_whole() {
    within(LIMIT * 2, || {
        const BYTES: u64 = 3_000_017;
        let (folder, sha1) = folder_with_file(BYTES);
        let path = folder.path();
        let (mut server, addr) =
            Program::serve(path, &["f.bin", "--clients", "25", "--rate", "200mbit"]);
        let quiet = (server.count("task"), server.count("fd"));

        // One of the 25 clients is this test itself, so that it reads how many are ready.
        let mut us = Peer::connect(addr.parse::<SocketAddr>().expect("an address"));
        us.send("GATECAST/1 JOIN group=25 name=us\n");
        assert!(us.read_line().starts_with("OFFER "));
        us.send("READY offset=0\n");
        let name = |n: usize| format!("c{n}");
        let mut clients: Vec<_> =
            (0..23).map(|n| Program::fetch(path, &addr, &name(n), &[])).collect();
        let ready = |peer: &mut Peer, count: usize| {
            while peer.read_line() != format!("WAIT ready={count} clients=25") {}
        };
        ready(&mut us, 24);
        for client in &mut clients[..3] {
            client.kill();
        }
        ready(&mut us, 21);
        // The three rows of the killed clients are logged already.
        let early = records_of(path, 3);
        let mut names: Vec<_> = early[0].transfers.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["c0", "c1", "c2"]);
        clients.push(Program::fetch(path, &addr, &name(23), &[]));
        ready(&mut us, 22);
        server.signal("USR1");

        let taking = thread::spawn(move || {
            let sha1 = us.receive_to_last();
            us.send_message(&FromClient::Hashed { sha1 });
            us.send_message(&common::receipt(BYTES, sha1));
            assert!(us.read_line().starts_with("SUMMARY outcome=complete "));
            sha1
        });
        for n in [3, 4] {
            let half_way = || part(&path.join(name(n))).is_some_and(|held| held > BYTES / 4);
            until("a part of the file", half_way);
            clients[n].kill();
        }
        assert_eq!(taking.join().expect("no panic"), sha1);
        for (n, client) in clients.iter_mut().enumerate().skip(5) {
            assert_eq!(client.code(), 0, "{n}: {}", client.stderr());
            whole(path, &name(n), sha1);
        }
        for n in 0..5 {
            only_part(path, &name(n));
        }

        let records = records_of(path, 25);
        let [record] = &records[..] else { panic!("{} sessions", records.len()) };
        assert_eq!((record.proven(), record.clients), (20, 25));
        assert!(record.broken_identities().is_empty());
        for n in 0..3 {
            common::ended(record, &name(n), Outcome::Refused, "left before the release");
        }
        for n in [3, 4] {
            let row = common::row(record, &name(n));
            assert_eq!(row.outcome, Outcome::Cut);
            let why = row.reason.as_deref().expect("a reason");
            assert!(why.starts_with("the connection was lost at byte "), "{why}");
            let sent = row.bytes_server.expect("counted");
            assert!(sent > BYTES / 4 && sent <= BYTES, "{sent}");
        }
        until("no thread and no descriptor to be left", || {
            (server.count("task"), server.count("fd")) == quiet
        });
        server.signal("TERM");
        assert_eq!(server.code(), 4, "{}", server.stderr());
    });
}

#[test]
fn next_server_resumes_parts_of_killed_one() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(2_000_000);
        let path = folder.path();
        let (mut server, addr) = Program::serve(path, &["f.bin", "--rate", "16mbit"]);
        let mut clients = ["a", "b"].map(|out| Program::fetch(path, &addr, out, &["--group", "2"]));
        for out in ["a", "b"] {
            until("a part", || part(&path.join(out)).is_some_and(|held| held > 200_000));
        }
        let killed = Instant::now();
        server.kill();
        for (client, out) in clients.iter_mut().zip(["a", "b"]) {
            assert_eq!(client.code(), 4, "{}", client.stderr());
            only_part(path, out);
        }
        assert!(killed.elapsed() < Duration::from_secs(10));

        // A new server at the same address; the clients resume their parts.
        let (_server, addr) =
            Program::serve_by(&mut Command::new(GATECAST), path, &addr, &["f.bin"]);
        let held = ["a", "b"].map(|out| part(&path.join(out)).expect("left"));
        let mut clients =
            ["a", "b"].map(|out| Program::fetch(path, &addr, out, &["--group", "2", "--resume"]));
        for (client, out) in clients.iter_mut().zip(["a", "b"]) {
            assert_eq!(client.code(), 0, "{}", client.stderr());
            whole(path, out, sha1);
        }
        let records = records_of(path, 2);
        let record = records.iter().find(|record| record.all_proven()).expect("whole");
        for (out, held) in ["a", "b"].iter().zip(held) {
            let row = common::row(record, out);
            assert_eq!(row.bytes_resumed, held);
            assert_eq!(row.bytes_client, Some(2_000_000 - held));
        }
    });
}

#[test]
fn stopped_client_times_out_unless_it_wakes_in_time() {
    within(LIMIT, || {
        // The file is larger than all buffers on the way, and takes longer than the short stop.
        let (folder, sha1) = folder_with_file(40_000_000);
        let path = folder.path();
        let arguments = ["f.bin", "--clients", "3", "--rate", "480mbit", "--stall-limit", "2s"];
        let (server, addr) = Program::serve(path, &arguments);
        let mut clients = ["asleep", "naps", "awake"]
            .map(|out| Program::fetch(path, &addr, out, &["--stall-limit", "8s"]));
        for out in ["asleep", "naps"] {
            until("a part", || part(&path.join(out)).is_some_and(|held| held > 500_000));
        }
        clients[0].signal("STOP");
        clients[1].signal("STOP");
        thread::sleep(Duration::from_millis(700));
        clients[1].signal("CONT");
        assert_eq!(clients[1].code(), 0, "{}", clients[1].stderr());
        assert_eq!(clients[2].code(), 0, "{}", clients[2].stderr());
        whole(path, "naps", sha1);
        whole(path, "awake", sha1);
        let records = records_of(path, 3);
        assert_eq!(records[0].proven(), 2);
        common::ended(&records[0], "asleep", Outcome::TimedOut, "stalled for 2 s at byte ");
        until("its thread to end", || server.count("task") <= 4);

        // When it wakes, its connection has ended, and it keeps a part of the file.
        clients[0].signal("CONT");
        assert_eq!(clients[0].code(), 4, "{}", clients[0].stderr());
        only_part(path, "asleep");
        let held = fs::read(&entries(&path.join("asleep"))[0]).expect("readable");
        assert!(fs::read(path.join("f.bin")).expect("readable").starts_with(&held));
    });
}

/// Ten thousand of them, at a server that may open 64 descriptors.
#[test]
fn silent_connections_keep_no_honest_client_out() {
    if !common::have("prlimit", common::installed("prlimit")) {
        return;
    }
    in_turn("connections to a process", LIMIT * 2, || {
        let (folder, sha1) = folder_with_file(100_000);
        let path = folder.path();
        let mut command = Command::new("prlimit");
        command.args(["--nofile=64:64", GATECAST]);
        let (server, addr) = Program::serve_by(&mut command, path, "127.0.0.1:0", &["f.bin"]);
        let to: SocketAddr = addr.parse().expect("an address");
        let limit = socket::descriptors(10_500).expect("Linux has one");
        let count = usize::try_from(limit.saturating_sub(500)).expect("small").min(10_000);
        if !common::have("10,000 descriptors for the attack", count == 10_000) {
            return;
        }
        // They wait for no answer. The kernel retries connections for which the backlog has no
        // room.
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
            assert_eq!(client.code(), 0, "{}", client.stderr());
            whole(path, out, sha1);
            honest.push(begun.elapsed());
        };
        // Measured while the connections come, and while they stay.
        measure("meanwhile");
        let silent: Vec<_> = attack.into_iter().flat_map(|t| t.join().expect("no panic")).collect();
        assert!(silent.len() > 9_000, "only {} got through", silent.len());
        for n in 0..3 {
            measure(&format!("after{n}"));
        }
        eprintln!("{} silent connections; honest clients took {honest:?}", silent.len());
        let worst = honest.iter().max().expect("four");
        assert!(*worst < Duration::from_secs(5), "{honest:?}");
        let after = &honest[1..];
        assert!(after.iter().min().expect("three") < &Duration::from_secs(2), "{honest:?}");

        assert!(server.count("fd") <= 64);
        let ticks = || server.ticks().iter().sum::<u64>();
        let before = ticks();
        thread::sleep(Duration::from_secs(1));
        let spent = ticks() - before;
        assert!(spent <= 10, "{spent} % of a core while nothing happens");
        assert!(
            server.stderr().lines().all(|line| !line.contains("panicked")),
            "{}",
            server.stderr()
        );
        drop(silent);
        measure_free(&server);
    });
}

/// Connections that have said something and hold what they can, at a server that may open 256
/// descriptors: an honest client still gets in, and its session still gets its file and its log.
#[test]
fn greeted_connections_keep_no_honest_client_out() {
    if !common::have("prlimit", common::installed("prlimit")) {
        return;
    }
    in_turn("connections to a process", LIMIT * 3, || {
        let (folder, sha1) = folder_with_file(20_000_000);
        let path = folder.path();
        let mut command = Command::new("prlimit");
        command.args(["--nofile=256:256", GATECAST]);
        let (server, addr) = Program::serve_by(&mut command, path, "127.0.0.1:0", &["f.bin"]);
        let to: SocketAddr = addr.parse().expect("an address");
        let kinds = [
            "GET /",
            "GET /files/f.bin HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GATECAST/1 JOIN group=1 name=attack\n",
        ];
        let mut attack = Vec::new();
        for _ in 0..150 {
            for kind in kinds {
                let mut peer = Peer::connect(to);
                peer.send(kind);
                attack.push(peer);
            }
        }
        for out in ["one", "two"] {
            let mut client = Program::fetch(path, &addr, out, &["--retry", "10s"]);
            assert_eq!(client.code_within(LIMIT), Some(0), "{}", client.stderr());
            whole(path, out, sha1);
            until("its row in a log", || {
                let rows = records(path).into_iter().flat_map(|record| record.transfers);
                rows.into_iter().any(|row| row.name == out && row.is_proven())
            });
        }
        assert!(server.count("fd") <= 256);
        assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
        drop(attack);
    });
}

/// When the silent connections have gone, their threads end.
fn measure_free(server: &Program) {
    until("the threads of the silent to end", || server.count("task") <= 4);
}

/// A client for which there is no thread gets that of the oldest silent connection.
#[test]
fn silent_connection_gives_up_its_thread() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(100_000);
        let path = folder.path();
        // strace counts the calls of each thread: the listener's fourth connection gets no thread,
        // once.
        let told = path.join("strace");
        let mut command = strace("clone3,clone", "error=EAGAIN:when=4", &told);
        let (_server, addr) = Program::serve_by(&mut command, path, "127.0.0.1:0", &["f.bin"]);
        let to: SocketAddr = addr.parse().expect("an address");
        let mut silent = [0; 3].map(|_| TcpStream::connect(to).expect("listening"));
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0, "{}", client.stderr());
        whole(path, "out", sha1);
        let trace = fs::read_to_string(&told).expect("what strace saw");
        assert!(trace.contains("(INJECTED)"), "{trace}");
        // The oldest silent connection was closed for it.
        silent[0].set_read_timeout(Some(LIMIT)).expect("a socket");
        assert_eq!(silent[0].read(&mut [0]).expect("closed"), 0);
    });
}

#[test]
fn client_is_refused_when_threads_run_out() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(100_000);
        let path = folder.path();
        // strace counts the calls of each thread: from its fourth connection on the listener gets
        // no thread.
        let told = path.join("strace");
        let mut command = strace("clone3,clone", "error=EAGAIN:when=4+", &told);
        let (server, addr) =
            Program::serve_by(&mut command, path, "127.0.0.1:0", &["f.bin", "--clients", "3"]);
        let mut first = ["a", "b", "c"].map(|out| Program::fetch(path, &addr, out, &[]));
        for (client, out) in first.iter_mut().zip(["a", "b", "c"]) {
            assert_eq!(client.code(), 0, "{}", client.stderr());
            whole(path, out, sha1);
        }
        let mut late = Program::fetch(path, &addr, "late", &[]);
        assert_eq!(late.code(), 1);
        assert!(
            late.stderr().contains("refused: the server's system allows no more threads"),
            "{}",
            late.stderr()
        );
        // A connection of another protocol is closed, and the server still listens.
        let mut stranger = Peer::connect(addr.parse().expect("an address"));
        stranger.send("GET / HTTP/1.0\r\n\r\n");
        assert_eq!(stranger.read_to_close(), b"");
        assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    });
}

/// A server wakes its accepting thread by a connection to itself, and that may fail.
#[test]
fn server_ends_when_it_cannot_connect_to_itself() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        for fault in ["error=EMFILE:when=1", "error=ENETUNREACH:when=1+"] {
            let (folder, sha1) = folder_with_file(1000);
            let path = folder.path();
            let told = path.join("strace");
            let mut command = strace("connect", fault, &told);
            let arguments = ["f.bin", "--one-off"];
            let (mut server, addr) =
                Program::serve_by(&mut command, path, "127.0.0.1:0", &arguments);
            let mut client = Program::fetch(path, &addr, "out", &[]);
            assert_eq!(client.code(), 0, "{}", client.stderr());
            whole(path, "out", sha1);
            assert_eq!(server.code(), 0, "{}", server.stderr());
            let told = fs::read_to_string(told).expect("strace told");
            assert!(told.contains("(INJECTED)"), "{told}");
        }
    });
}

/// Every third call is interrupted.
#[test]
fn interrupted_system_calls_change_no_byte() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT * 2, || {
        let calls = [
            ("recvfrom,recvmsg,read", "EINTR"),
            ("sendfile,splice", "EINTR"),
            ("sendto,write,pwrite64", "EINTR"),
            ("pread64", "EINTR"),
            ("accept4,connect,poll", "EINTR"),
        ];
        let mut injected = 0;
        for copy in ["sendfile", "buffered"] {
            for (names, error) in calls {
                let (folder, sha1) = folder_with_file(700_001);
                let told = folder.path().join("strace");
                let mut command = strace(names, &format!("error={error}:when=5+3"), &told);
                command
                    .args(["run", "f.bin", "--clients", "2", "--keep", "out"])
                    .args(["--copy", copy])
                    .current_dir(folder.path());
                let mut run = Program::start(&mut command);
                assert_eq!(run.code(), 0, "{names} {error}: {}", run.stderr());
                for seat in ["C1-f.bin", "C2-f.bin"] {
                    let copy = folder.path().join("out").join(seat);
                    assert_eq!(sha1_of(&copy), sha1, "{names}");
                }
                let told = fs::read_to_string(told).expect("strace told");
                injected += told.matches("(INJECTED)").count();
            }
        }
        assert!(injected > 50, "only {injected} calls were interrupted");
        eprintln!("{injected} calls were interrupted");
    });
}

/// A server whose words to those who wait are interrupted says them again; nobody loses a seat.
#[test]
fn interrupted_word_to_a_waiting_client_costs_no_seat() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(300_001);
        let told = folder.path().join("strace");
        let mut command = strace("sendto,write", "error=EINTR:when=1+2", &told);
        let (mut server, addr) = Program::serve_by(
            &mut command,
            folder.path(),
            "127.0.0.1:0",
            &["f.bin", "--clients", "2", "--one-off"],
        );
        let mut first = Program::fetch(folder.path(), &addr, "first", &[]);
        until("an interrupted word to the one who waits", || {
            let told = fs::read_to_string(&told).unwrap_or_default();
            told.lines().any(|line| line.contains("WAIT") && line.contains("(INJECTED)"))
        });
        let mut second = Program::fetch(folder.path(), &addr, "second", &[]);
        for client in [&mut first, &mut second] {
            assert_eq!(client.code(), 0, "{}", client.stderr());
        }
        for out in ["first", "second"] {
            assert_eq!(sha1_of(&folder.path().join(out).join("f.bin")), sha1);
        }
        assert_eq!(server.code(), 0, "{}", server.stderr());
    });
}

/// The n-th call of a kind fails: the client has the whole file and succeeds, or has none and
/// fails.
#[test]
fn failed_system_call_leaves_whole_copy_or_none() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT * 2, || {
        let (folder, sha1) = folder_with_file(300_001);
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
                command.args(["fetch", &addr, "--out", &out, "--copy", copy]).current_dir(path);
                let mut client = Program::start(&mut command);
                let code = client.child.wait().expect("ours").code();
                let copies = entries(&path.join(&out));
                let copy = copies.iter().find(|path| !common::is_part(path));
                match code {
                    Some(0) => {
                        whole(path, &out, sha1);
                        successes += 1;
                    }
                    // The loader failed before the program began.
                    Some(127) if call == "openat" || call == "pread64" => {}
                    _ => {
                        assert!(
                            copy.is_none(),
                            "{out}: {code:?} and {copies:?}: {}",
                            client.stderr()
                        );
                        // signal-hook's thread panics when reading its own socket fails. That
                        // happens only here, and ends nothing else.
                        let said = client.stderr();
                        let ours = |line: &&str| {
                            line.contains("panicked") && !line.contains("thread 'signals'")
                        };
                        assert_eq!(said.lines().find(ours), None, "{out}");
                        failures += 1;
                    }
                }
            }
        }
        assert!(failures >= 10 && successes >= 1, "{failures} failures, {successes} successes");
    });
}

/// As a file system does that has neither: the copy goes on with reads and writes.
#[test]
fn refused_kernel_copies_go_on_buffered() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT * 2, || {
        // splice alternates between the connection and the file. All of them, the first to the
        // file, and one in the middle.
        let faults = [
            ("sendfile", "EINVAL", "1+"),
            ("sendfile", "ENOSYS", "2"),
            ("splice", "EINVAL", "1+"),
            ("splice", "EINVAL", "2"),
            ("splice", "EOPNOTSUPP", "5"),
        ];
        for (call, error, when) in faults {
            let (folder, sha1) = folder_with_file(9_000_001);
            let told = folder.path().join("strace");
            let mut command = strace(call, &format!("error={error}:when={when}"), &told);
            command
                .args(["run", "f.bin", "--clients", "2", "--keep", "out", "--copy", "sendfile"])
                .current_dir(folder.path());
            let mut run = Program::start(&mut command);
            assert_eq!(run.code(), 0, "{call} {error} {when}: {}", run.stderr());
            for seat in ["C1-f.bin", "C2-f.bin"] {
                let copy = folder.path().join("out").join(seat);
                assert_eq!(sha1_of(&copy), sha1, "{call} {error} {when}");
            }
            let told = fs::read_to_string(told).expect("strace told");
            assert!(told.contains("(INJECTED)"), "{call} {error} {when}: {told}");
        }
    });
}

#[test]
fn unwritable_folder_gives_one_clear_error() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(1000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let mut command;
        let probe =
            fs::metadata("/proc/self").map(|about| std::os::unix::fs::MetadataExt::uid(&about));
        if probe.expect("/proc") == 0 {
            // Root may write anywhere, so the user nobody runs a copy of the program that it can
            // reach.
            use std::os::unix::{fs::PermissionsExt, process::CommandExt};
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
        command.args(["fetch", &addr, "--out", "received"]).current_dir(path);
        let mut client = Program::start(&mut command);
        assert_eq!(client.code(), 1, "{}", client.stderr());
        let said = client.stderr();
        assert!(
            said.contains("cannot write into the folder (received): Permission denied"),
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
fn unmakable_log_folder_shows_in_exit_code() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(1000);
        let path = folder.path();
        let (mut server, addr) =
            Program::serve(path, &["f.bin", "--log-dir", "late/logs", "--one-off"]);
        // The folder could have been made when the server began.
        fs::write(path.join("late"), b"in the way").expect("room");
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0, "{}", client.stderr());
        whole(path, "out", sha1);
        assert_eq!(server.code(), 1);
        let said = server.stderr();
        assert!(said.contains("cannot write the session log (late/logs/"), "{said}");
        assert!(records(path).is_empty());
    });
}

/// What the server says is over outlasts a loss of power.
#[test]
fn log_is_synced_when_its_session_ends() {
    if !common::have("strace", common::installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(1000);
        let path = folder.path();
        let mut command = strace("fsync", "error=EIO:when=1+", &path.join("strace"));
        let arguments = ["f.bin", "--one-off"];
        let (mut server, addr) = Program::serve_by(&mut command, path, "127.0.0.1:0", &arguments);
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0, "{}", client.stderr());
        whole(path, "out", sha1);
        assert_eq!(server.code(), 1, "a log that may be lost is an error");
        assert!(server.stderr().contains("cannot write the session log"), "{}", server.stderr());
        assert_eq!(records(path).len(), 1);
    });
}

#[test]
fn hostile_log_is_refused_and_escaped() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(1000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let mut client = Program::fetch(path, &addr, "out", &[]);
        assert_eq!(client.code(), 0);
        records_of(path, 1);
        let log = entries(&path.join("logs")).remove(0);
        let honest = fs::read(&log).expect("readable");
        let at_line_2 = honest.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
        let mut cases: Vec<(Vec<u8>, &str)> = vec![
            (Vec::new(), "cut before its end"),
            (b"\x1b[2J\n".to_vec(), "the header's column 1 is '\\u{1b}[2J'"),
            (vec![b'x'; 1 << 20], "longer than 13312 bytes"),
            ([&honest[..], b"\xff\xfe\n"].concat(), "line 3"),
            ([&honest[..], b"\n"].concat(), "line 3"),
            ([&honest[..], &honest[at_line_2..at_line_2 + 40], b"\n"].concat(), "line 3"),
        ];
        // The log is cut in the middle of its only line, at a byte of each column.
        for cut in (at_line_2..honest.len()).step_by(23) {
            cases.push((honest[..cut].to_vec(), if cut == at_line_2 { "" } else { "line 2" }));
        }
        let hostile = path.join("hostile.log");
        for (bytes, says) in cases {
            fs::write(&hostile, &bytes).expect("room");
            let report = Command::new(GATECAST).arg("report").arg(&hostile).output();
            let report = report.expect("the program starts");
            let said = String::from_utf8(report.stderr).expect("text");
            assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{said:?}");
            assert!(said.contains(says), "{says}: {said}");
            if !says.is_empty() {
                assert_eq!(report.status.code(), Some(1), "{says}");
            }
        }
        // A torn last line costs that line, and report says so.
        let torn = [&honest[..], &honest[at_line_2..at_line_2 + 40]].concat();
        fs::write(&hostile, torn).expect("room");
        let report = Command::new(GATECAST).arg("report").arg(&hostile).output();
        let report = report.expect("the program starts");
        assert_eq!(report.status.code(), Some(0));
        let said = String::from_utf8(report.stderr).expect("text");
        assert!(said.contains("line 3 is cut before its end; it is left out"), "{said}");
        let table = String::from_utf8(report.stdout).expect("text");
        assert!(table.contains("whole and verified  1 of 1"), "{table}");
        fs::remove_file(&hostile).expect("ours");
        assert!(Command::new("mkfifo").arg(&hostile).status().expect("mkfifo").success());
        let mut report = Program::start(Command::new(GATECAST).arg("report").arg(&hostile));
        assert_eq!(report.code(), 1, "a FIFO is not waited for");
        assert!(report.stderr().contains("it is not a file"), "{}", report.stderr());
    });
}

#[test]
fn senseless_values_are_usage_errors_that_name_them() {
    let (folder, _) = folder_with_file(1000);
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
        let value = value.replace('\u{1b}', "\\u{1b}").replace("--max-wait=", "");
        assert!(said.contains(&value), "{arguments:?}: {said}");
        assert_eq!(entries(folder.path()).len(), 1, "{arguments:?} made something");
    }
}
