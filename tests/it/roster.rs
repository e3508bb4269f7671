//! Sessions whose seats have names, and those for whom the last one failed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use gatecast::internals::{
    proto::hosts::HostList,
    report::verdict::{Verdict, line_of_session},
    server::config::ServerConfig,
    transfer::Outcome,
};

use crate::common::{Server, ended, failed, row, until, whole, within};

const LIMIT: Duration = Duration::from_secs(60);

/// Seats those that `names` has, a line each.
fn seat(settings: &mut ServerConfig, names: &str) {
    let list = HostList::parse(names, "room").expect("a list");
    settings.clients = Some(list.clients());
    settings.roster = Some(Arc::new(list));
}

fn missing(server: &Server) -> Vec<(u16, String)> {
    let views = server.running().lobby().views();
    let missing = views.into_iter().flat_map(|view| view.missing);
    missing.map(|(seat, name)| (seat.0, name)).collect()
}

#[test]
fn client_of_roster_has_the_seat_of_its_line() {
    within(LIMIT, || {
        let server = Server::new(50_000, |s| seat(s, "pc-01\npc-02 127.0.0.1\npc-03\n"));
        let third = server.fetch("pc-03", |_| {});
        server.until_ready(1);
        assert_eq!(missing(&server), [(1, "pc-01".to_owned()), (2, "pc-02".to_owned())]);
        let others = server.fetch("pc-02", |_| {});
        server.until_ready(2);
        assert_eq!(missing(&server), [(1, "pc-01".to_owned())]);
        let first = server.fetch("pc-01", |order| order.group = Some(9));
        for client in [third, others, first] {
            whole(client.join().expect("no panic"), &server);
        }
        let record = server.record();
        for (seat, name) in [(1, "pc-01"), (2, "pc-02"), (3, "pc-03")] {
            assert_eq!(row(&record, name).seat.0, seat);
        }
        assert_eq!((record.proven(), record.transfers.len()), (3, 3));
        server.stop();
    });
}

#[test]
fn clients_of_one_process_sit_by_name_and_number() {
    within(LIMIT, || {
        let server = Server::new(50_000, |s| seat(s, "lab-2\nlab-1\nlab-3"));
        let clients = server.fetch("lab", |order| order.clients = 3);
        whole(clients.join().expect("no panic"), &server);
        let record = server.record();
        assert_eq!((row(&record, "lab-1").seat.0, row(&record, "lab-2").seat.0), (2, 1));
        server.stop();
    });
}

#[test]
fn client_that_roster_does_not_name_is_refused() {
    within(LIMIT, || {
        let names = "pc-01\npc-02 10.9.8.7\npc-03 ::1";
        let server = Server::new(50_000, |s| seat(s, names));
        let why = |name: &str| {
            let ends = server.fetch(name, |_| {}).join().expect("no panic");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 1);
            failed(ends)
        };
        let stranger = why("pc-99");
        assert!(stranger.ends_with(" refused: 'pc-99' is not on its roster"), "{stranger}");
        let elsewhere = why("pc-02");
        let says = " refused: 'pc-02' is on its roster at 10.9.8.7, not at 127.0.0.1";
        assert!(elsewhere.ends_with(says), "{elsewhere}");
        assert!(why("pc-03").ends_with("is on its roster at ::1, not at 127.0.0.1"));
        assert!(why("PC-01").ends_with("'PC-01' is not on its roster"));
        assert!(server.running().lobby().views().is_empty(), "no session for strangers");
        server.stop();
    });
}

#[test]
fn second_client_of_a_name_is_refused_while_the_first_lives() {
    within(LIMIT, || {
        let server = Server::new(50_000, |s| seat(s, "pc-01\npc-02"));
        let first = server.waiting(2, "pc-01");
        let ends = server.fetch("pc-01", |_| {}).join().expect("no panic");
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 1);
        let why = failed(ends);
        assert!(why.ends_with(" refused: 'pc-01' is here already"), "{why}");
        // It was stopped and is started again: its old connection is closed, and not looked at yet.
        drop(first);
        let again = server.fetch("pc-01", |_| {});
        let other = server.fetch("pc-02", |_| {});
        for client in [again, other] {
            whole(client.join().expect("no panic"), &server);
        }
        let record = server.record();
        let rows = record.transfers.iter().filter(|row| row.name == "pc-01");
        let ends: Vec<_> = rows.map(|row| (row.seat.0, row.outcome)).collect();
        assert_eq!(ends, [(1, Outcome::Complete), (1, Outcome::Refused)]);
        assert_eq!(record.proven(), 2);
        server.stop();
    });
}

#[test]
fn muster_that_ends_says_who_was_missing() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            seat(settings, "pc-01\npc-02\npc-03");
            settings.max_wait = Duration::from_millis(400);
        });
        let _silent = server.joined(3, "pc-03");
        let ends = server.fetch("pc-02", |_| {}).join().expect("no panic");
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 3);
        let why = failed(ends);
        let says = "1 of 3 clients were ready after 0.4 s; missing: pc-01, pc-03";
        assert!(why.ends_with(says), "{why}");
        let record = server.record();
        ended(&record, "pc-01", Outcome::TimedOut, says);
        ended(&record, "pc-03", Outcome::TimedOut, says);
        assert_eq!(Verdict::of_records(&[record]).exit_code(), 3);
        server.stop();
    });
}

#[test]
fn quorum_releases_and_log_names_the_absent() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            seat(settings, "pc-01\npc-02\npc-03\npc-04");
            settings.max_wait = Duration::from_millis(400);
            settings.quorum = Some(2);
        });
        let two = ["pc-02", "pc-04"].map(|name| server.fetch(name, |_| {}));
        for client in two {
            whole(client.join().expect("no panic"), &server);
        }
        let record = server.record();
        assert_eq!((record.proven(), record.transfers.len()), (2, 4));
        let line = line_of_session(&record, 4, None);
        let says = "FAILED: 2 of 4 copies proven: 2 clients missing: pc-01, pc-03\n";
        assert_eq!(line, says);
        assert!(record.broken_identities().is_empty());
        ended(&record, "pc-01", Outcome::TimedOut, "did not come");
        let again = HostList::unproven(&record).expect("names").expect("two");
        let names: Vec<_> = again.entries().iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["pc-01", "pc-03"]);
        assert_eq!(Verdict::of_records(&[record]).exit_code(), 4);
        server.stop();
    });
}

#[test]
fn address_of_a_line_is_compared_in_one_form() {
    let list = HostList::parse("a ::ffff:10.0.0.7\nb 10.0.0.8", "room").expect("a list");
    let seat = |name: &str, address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        list.seat_of(name, address).map(|seat| seat.0)
    };
    assert_eq!((seat("a", "10.0.0.7"), seat("b", "::ffff:10.0.0.8")), (Ok(1), Ok(2)));
    assert_eq!(
        seat("b", "10.0.0.7").expect_err("another"),
        "'b' is on its roster at 10.0.0.8, not at 10.0.0.7"
    );
}

#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod program {
    use std::fs;

    use super::*;
    use crate::common::program::{Program, folder_with_file, output_text, records, run};

    /// Two of three come and one of them fails; then once more for those.
    #[test]
    fn again_serves_those_whose_copy_is_not_proven() {
        within(LIMIT * 2, || {
            let (folder, _) = folder_with_file(200_000);
            let path = folder.path();
            fs::write(path.join("room"), "# a room\npc-01\npc-02\npc-03\n").expect("room");
            let serve = ["f.bin", "--roster", "room", "--one-off"];
            let short = [&serve[..], &["--max-wait", "1s", "--quorum", "1"]].concat();
            let (mut server, addr) = Program::serve(path, &short);
            until("the names", || {
                server.stderr().contains("waiting for 3 clients: pc-01, pc-02, pc-03;")
            });
            let mut client = Program::fetch(path, &addr, "pc-02", &[]);
            assert_eq!(client.code(), 0, "{}", client.stderr());
            assert_eq!(server.code(), 4);
            let said = server.stdout().join("\n");
            assert!(said.ends_with("(exit 4): 2 clients missing: pc-01, pc-03"), "{said}");
            let said = server.stderr();
            assert!(said.contains(" of 3 clients ready, missing: pc-01, "), "{said}");

            let log = |number: usize| {
                let mut logs = crate::common::entries(&path.join("logs"));
                logs.sort_by_key(|log| fs::metadata(log).expect("there").modified().ok());
                logs[number].display().to_string()
            };
            let log_of = log(0);
            let (mut server, addr) =
                Program::serve(path, &["f.bin", "--again", &log_of, "--one-off"]);
            until("the names", || server.stderr().contains("waiting for 2 clients: pc-01, pc-03;"));
            let mut proven = Program::fetch(path, &addr, "pc-02", &[]);
            assert_eq!(proven.code(), 1);
            assert!(proven.stderr().contains("'pc-02' is not on its roster"));
            let mut two = ["pc-01", "pc-03"].map(|name| Program::fetch(path, &addr, name, &[]));
            for client in &mut two {
                assert_eq!(client.code(), 0, "{}", client.stderr());
            }
            assert_eq!(server.code(), 0, "{}", server.stderr());
            assert_eq!(records(path).iter().map(|record| record.proven()).sum::<usize>(), 3);

            let log_of = log(1);
            let done =
                run(path, &["serve", "f.bin", "--again", &log_of, "--listen", "127.0.0.1:0"]);
            assert_eq!(done.status.code(), Some(0));
            let said = output_text(&done);
            assert!(said.starts_with("nobody is left: all 2 copies of session "), "{said}");
            // With nobody left another file is wrong all the same.
            fs::write(path.join("g.bin"), "another").expect("room");
            let other =
                run(path, &["serve", "g.bin", "--again", &log_of, "--listen", "127.0.0.1:0"]);
            assert_eq!(other.status.code(), Some(2));
            assert!(output_text(&other).contains("it is another file"), "{}", output_text(&other));
        });
    }

    #[test]
    fn roster_that_cannot_be_is_a_usage_error() {
        let (folder, _) = folder_with_file(10);
        let path = folder.path();
        fs::write(path.join("room"), "pc-01\npc-02\npc-01\n").expect("room");
        fs::write(path.join("fine"), "pc-01\n").expect("room");
        fs::write(path.join("log"), "").expect("room");
        for (arguments, says) in [
            (&["--roster", "room"][..], "room, line 3: 'pc-01' stands in line 1 already"),
            (&["--roster", "fine", "--clients", "1"], "cannot be used with"),
            (&["--roster", "fine", "--again", "log"], "cannot be used with"),
            (&["--again", "log", "--clients", "1"], "cannot be used with"),
            (&["--roster", "fine", "--quorum", "2"], "invalid quorum '2': expected 1 to 1"),
        ] {
            let serve = ["serve", "f.bin", "--listen", "127.0.0.1:0"];
            let output = run(path, &[&serve[..], arguments].concat());
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            assert!(output_text(&output).contains(says), "{}", output_text(&output));
        }
    }
}

#[test]
fn names_of_a_stopped_muster_are_in_the_log() {
    within(LIMIT, || {
        let mut server = Server::new(50_000, |s| seat(s, "pc-01\npc-02"));
        let _first = server.waiting(2, "pc-01");
        until("a session", || !server.running().lobby().views().is_empty());
        let records = server.stop_running().expect("a log");
        let record = records.last().expect("a session");
        ended(record, "pc-01", Outcome::Cut, "the server was stopped");
        ended(record, "pc-02", Outcome::Cut, "the server was stopped");
    });
}
