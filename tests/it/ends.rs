//! How sessions end on the screen: the last line is a verdict with its reason and the exit code, and
//! whoever ended the session is named.

use std::{path::Path, process::Command, time::Duration};

use gatecast::internals::transfer::Outcome;

use crate::{
    common,
    common::{
        program,
        program::{Program, folder_with_file, part, records, text},
        until, within,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// More than what all buffers on the way hold, so that a slow session is far from its end.
const BYTES: u64 = 40_000_000;

/// The last line that is not empty.
fn last(lines: &[String]) -> &str {
    lines.iter().rfind(|line| !line.is_empty()).map_or("", String::as_str)
}

/// A server of a slow session of `clients`, and these clients once all of them receive.
fn slow_session(folder: &Path, via: &str, clients: &[&str]) -> (Program, Vec<Program>) {
    let count = clients.len().to_string();
    let words = ["f.bin", "--via", via, "--clients", &count, "--rate", "16mbit", "--one-off"];
    let (server, addr) = Program::serve(folder, &words);
    let running: Vec<_> =
        clients.iter().map(|out| Program::fetch(folder, &addr, out, &[])).collect();
    for out in clients {
        until("every client to receive", || part(&folder.join(out)).is_some_and(|held| held > 0));
    }
    (server, running)
}

#[test]
fn stopped_server_is_named_by_both_ends() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(BYTES);
        let (mut server, mut clients) = slow_session(folder.path(), "tcp", &["a", "b"]);
        server.signal("INT");
        assert_eq!(server.code(), 130, "{}", server.stderr());
        assert_eq!(
            last(&server.stdout()),
            "FAILED: 0 of 2 copies proven (exit 130): the server was stopped"
        );
        for (client, name) in clients.iter_mut().zip(["a", "b"]) {
            assert_eq!(client.code(), 4, "{}", client.stderr());
            let (out, told) = (client.stdout(), client.stderr());
            assert!(last(&out).starts_with("FAILED: 0 of 1 copies proven (exit 4): "), "{out:?}");
            assert!(last(&out).ends_with(": the server was stopped"), "{out:?}");
            assert!(told.contains("the same command with --resume goes on"), "{told}");
            let records = records(folder.path());
            let row = common::row(&records[0], name);
            assert_eq!(row.outcome, Outcome::Cut);
            assert_eq!(row.reason.as_deref(), Some("the server was stopped"));
            assert!(row.bytes_client > Some(0), "its last words say how far it is");
        }
    });
}

#[test]
fn interrupted_client_is_named_by_both_ends() {
    within(LIMIT, || {
        for via in ["tcp", "udp", "swarm"] {
            let (folder, _) = folder_with_file(BYTES);
            let (mut server, mut clients) = slow_session(folder.path(), via, &["a"]);
            clients[0].signal("INT");
            assert_eq!(clients[0].code(), 130, "{via}: {}", clients[0].stderr());
            assert_eq!(
                last(&clients[0].stdout()),
                "FAILED: 0 of 1 copies proven (exit 130): the client was interrupted",
                "{via}"
            );
            assert!(clients[0].stderr().contains("--resume"), "{via}: {}", clients[0].stderr());
            assert_eq!(server.code(), 4, "{via}: {}", server.stderr());
            assert_eq!(
                last(&server.stdout()),
                "FAILED: 0 of 1 copies proven (exit 4): the client was interrupted",
                "{via}"
            );
        }
    });
}

/// `timeout` signals its child and then its whole process group: two signals, and one wish.
#[test]
fn two_signals_at_once_end_a_client_cleanly() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(BYTES);
        let (mut server, mut clients) = slow_session(folder.path(), "tcp", &["a"]);
        let both = format!("kill -INT {0} && kill -TERM {0}", clients[0].pid());
        let sent = Command::new("sh").args(["-c", &both]).status().expect("sh");
        assert!(sent.success());
        assert_eq!(clients[0].code(), 130, "{}", clients[0].stderr());
        assert_eq!(
            last(&clients[0].stdout()),
            "FAILED: 0 of 1 copies proven (exit 130): the client was interrupted"
        );
        assert_eq!(server.code(), 4, "{}", server.stderr());
    });
}

#[test]
fn killed_client_is_a_lost_connection() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(BYTES);
        let (mut server, mut clients) = slow_session(folder.path(), "tcp", &["a"]);
        clients[0].kill();
        assert_eq!(server.code(), 4, "{}", server.stderr());
        assert_eq!(
            last(&server.stdout()),
            "FAILED: 0 of 1 copies proven (exit 4): the connection was lost"
        );
        let records = records(folder.path());
        common::ended(&records[0], "a", Outcome::Cut, "the connection was lost at byte ");
    });
}

#[test]
fn fetch_ends_with_its_copies_and_the_verdict() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(100_000);
        let (mut server, addr) = Program::serve(folder.path(), &["f.bin", "--clients", "2"]);
        let output = program::run(folder.path(), &["fetch", &addr, "--clients", "2"]);
        let out = text(&output.stdout);
        let end = "\nfigures are consistent\n\
            received/C1-f.bin: whole and verified\n\
            received/C2-f.bin: whole and verified\n\
            2 of 2 copies proven\n";
        assert!(
            out.ends_with(end)
                || out.replace("C1", "C0").replace("C2", "C1").replace("C0", "C2").ends_with(end),
            "{out}"
        );
        // The server waits for the next session, and says so.
        until("the server to wait", || {
            server.stderr().matches("waiting for 2 clients; Ctrl-C ends").count() == 2
        });
        until("the verdict", || last(&server.stdout()) == "2 of 2 copies proven");
        server.signal("INT");
        assert_eq!(server.code(), 0);
    });
}

#[test]
fn muster_of_nobody_waits_for_its_first_client() {
    within(LIMIT, || {
        let (folder, _) = folder_with_file(1_000);
        let words = ["f.bin", "--clients", "1", "--max-wait", "1500ms", "--one-off"];
        let (mut server, addr) = Program::serve(folder.path(), &words);
        // Its client takes the seat, is never ready, and leaves.
        let mut early = common::Peer::connect(addr.parse::<std::net::SocketAddr>().expect("ours"));
        early.send("GATECAST/1 JOIN group=1 name=early\n");
        assert!(early.read_line().starts_with("OFFER "));
        drop(early);
        // The time itself is tested: it is over, and nobody was there to lose it.
        std::thread::sleep(Duration::from_secs(2));
        let mut client = Program::fetch(folder.path(), &addr, "late", &[]);
        assert_eq!(client.code(), 0, "{}", client.stderr());
        assert_eq!(server.code(), 0, "{}", server.stderr());
    });
}

/// The program on a terminal of 80 columns: no line of a result is wider, and `--wide` has all.
#[test]
fn terminal_of_80_columns_gets_no_wider_line() {
    if !common::have("python3", cfg!(feature = "sockopt") && common::installed("python3")) {
        return;
    }
    within(LIMIT, || {
        let (folder, _) = folder_with_file(100_000);
        let on_terminal = |words: &[&str]| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/terminal.py");
            let mut command = Command::new("python3");
            command.args([script, "--columns=80", program::GATECAST]).args(words);
            command.env_remove("NO_COLOR").current_dir(folder.path());
            let mut terminal = Program::interactive(&mut command);
            terminal.type_line("wait");
            until("its end", || last(&terminal.stdout()).starts_with("ended "));
            terminal.stdout()
        };
        let run = ["run", "f.bin", "--clients", "3"];
        let narrow = on_terminal(&run);
        let table = narrow.iter().skip_while(|line| !line.contains("session "));
        let widest = table.map(|line| line.chars().count()).max();
        assert!(widest.is_some_and(|widest| widest <= 80), "{narrow:?}");
        assert!(!narrow.iter().any(|line| line.contains("port")), "{narrow:?}");
        let green = "\u{1b}[32m\u{1b}[1m3 of 3 copies proven\u{1b}[0m";
        assert!(narrow.iter().any(|line| line == green), "{narrow:?}");
        let wide = on_terminal(&[&run[..], &["--wide"]].concat());
        assert!(wide.iter().any(|line| line.contains("port")), "{wide:?}");
    });
}
