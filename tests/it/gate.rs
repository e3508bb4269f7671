//! The gate with real clients on real sockets: who is released, when, and what the others are
//! told.

use std::{
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    digest::Digest, error::Error, proto::native::FromClient, report::verdict::Verdict,
    session::Via, text::FileName, transfer::Outcome,
};

use crate::{
    common,
    common::{Server, bytes_per_second, ended, failed, receipt, row, until, whole, within},
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn no_client_gets_bytes_before_all_are_ready() {
    within(LIMIT, || {
        let server = Server::new(100_000, |_| {});
        let mut one = server.waiting(3, "one");
        let two = server.fetch("two", |order| order.group = Some(3));
        server.until_ready(2);
        let mut three = server.joined(3, "three");
        // For two seconds the waiting clients get only WAIT lines.
        let mut told = Vec::new();
        while !told.ends_with(&["WAIT ready=2 clients=3"; 2].map(str::to_owned)) {
            told.push(one.read_line());
            assert!(told.last().is_some_and(|line| line.starts_with("WAIT ")), "{told:?}");
        }
        let ready_at = Instant::now();
        three.send("READY offset=0\n");
        for peer in [&mut one, &mut three] {
            let sha1 = peer.receive_to_last();
            assert_eq!(sha1, server.sha1);
            peer.send_message(&FromClient::Hashed { sha1 });
            peer.send_message(&receipt(100_000, sha1));
            let summary = peer.read_line();
            assert!(summary.starts_with("SUMMARY outcome=complete "), "{summary}");
        }
        whole(two.join().expect("no panic"), &server);
        let record = server.record();
        assert_eq!(record.proven(), 3);
        assert!(record.broken_identities().is_empty());
        for transfer in &record.transfers {
            let took = transfer.seconds_server.expect("complete");
            assert!(took <= ready_at.elapsed(), "{took:?}");
        }
        drop((one, three));
        server.stop();
    });
}

#[test]
fn vanished_client_frees_its_seat_within_a_second() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| settings.clients = Some(4));
        let patient: Vec<_> = ["p1", "p2"].map(|name| server.fetch(name, |_| {})).into();
        let gone = server.waiting(4, "gone");
        server.until_ready(3);
        let begun = Instant::now();
        drop(gone);
        until("the seat to be free", || server.seats() == (2, 2));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        #[cfg(feature = "sockopt")]
        {
            let reset = server.waiting(4, "reset");
            let begun = Instant::now();
            reset.reset();
            until("the seat to be free", || server.seats() == (2, 2));
            assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        }
        // Before READY the thread of the connection notices it at once.
        let early = server.joined(4, "early");
        drop(early);
        until("the seat to be free", || server.seats() == (2, 2));

        let late = ["l1", "l2"].map(|name| server.fetch(name, |_| {}));
        for client in patient.into_iter().chain(late) {
            whole(client.join().expect("no panic"), &server);
        }
        let record = server.record();
        assert_eq!(record.proven(), 4);
        assert!(record.all_proven(), "the seats of the vanished were taken again");
        ended(&record, "gone", Outcome::Refused, "left before the release");
        ended(&record, "early", Outcome::Refused, "left before the release");
        #[cfg(feature = "sockopt")]
        ended(&record, "reset", Outcome::Refused, "left before the release");
        server.stop();
    });
}

#[test]
fn quorum_is_released_at_deadline_without_late_client() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            settings.clients = Some(4);
            settings.quorum = Some(2);
            settings.max_wait = Duration::from_millis(700);
        });
        let mut late = server.joined(4, "late");
        let two = ["a", "b"].map(|name| server.fetch(name, |_| {}));
        for client in two {
            whole(client.join().expect("no panic"), &server);
        }
        let why = late.read_past_wait();
        assert!(why.starts_with("ERROR code=muster reason="), "{why}");
        assert!(why.contains("before%20this%20client%20was%20ready"), "{why}");
        assert_eq!(late.read_line(), "", "and is let go");
        drop(late);
        let record = server.record();
        ended(&record, "late", Outcome::TimedOut, "before this client was ready");
        assert_eq!((record.proven(), record.clients), (2, 4));
        assert_eq!(Verdict::of_records(&[record]).exit_code(), 4);
        server.stop();
    });
}

#[test]
fn short_muster_tells_clients_how_many_were_ready() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            settings.clients = Some(3);
            settings.max_wait = Duration::from_millis(400);
        });
        let two = ["a", "b"].map(|name| server.fetch(name, |_| {}));
        for client in two {
            let ends = client.join().expect("no panic");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 3);
            let why = failed(ends);
            assert!(why.ends_with("2 of 3 clients were ready after 0.4 s"), "{why}");
        }
        let record = server.record();
        assert_eq!(record.released_at, None);
        ended(&record, "a", Outcome::TimedOut, "2 of 3 clients were ready");
        assert_eq!(Verdict::of_records(&[record]).exit_code(), 3);
        server.stop();
    });
}

#[test]
fn quorum_of_zero_releases_nobody() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            settings.clients = Some(2);
            settings.quorum = Some(0);
            settings.max_wait = Duration::from_millis(300);
        });
        let mut late = server.joined(2, "late");
        let why = late.read_past_wait();
        assert!(why.contains("0%20of%202%20clients%20were%20ready"), "{why}");
        drop(late);
        assert_eq!(server.record().released_at, None);
        server.stop();
    });
}

#[test]
fn manual_release_opens_gate() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| settings.clients = Some(9));
        let two = ["a", "b"].map(|name| server.fetch(name, |_| {}));
        server.until_ready(2);
        server.running().lobby().release_now();
        for client in two {
            whole(client.join().expect("no panic"), &server);
        }
        assert_eq!(server.record().proven(), 2);
        server.stop();
    });
}

#[test]
fn stopped_server_ends_muster_and_transfer() {
    within(LIMIT, || {
        let server = Server::new(4_000_000, |settings| {
            settings.rate = bytes_per_second(400_000);
        });
        let waiting = server.fetch("waiting", |order| order.group = Some(2));
        server.until_ready(1);
        let mut running = server.running().lobby().views();
        assert_eq!(running.len(), 1);
        let moving = {
            // A session for 2 clients of the same file waits already, so a group of 1 is refused.
            let refused = server.fetch("other", |order| order.group = Some(1));
            let why = failed(refused.join().expect("no panic"));
            assert!(why.ends_with("the group for 'f.bin' has 2 clients, not 1"), "{why}");
            server.fetch("moving", |order| order.group = Some(2))
        };
        until("a byte to move", || server.moved() > 10_000);
        running = server.running().lobby().views();
        assert!(running[0].released.is_some());
        let muster = server.fetch("muster", |order| order.group = Some(7));
        until("a seat in a second session", || {
            let views = server.running().lobby().views();
            views.iter().any(|v| v.clients == 7 && v.seats.iter().any(|s| s.ready))
        });
        let begun = Instant::now();
        let record = server.running().records();
        server.stop();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        for client in [waiting, moving] {
            let ends = client.join().expect("no panic");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 4);
            failed(ends);
        }
        let why = failed(muster.join().expect("no panic"));
        assert!(why.ends_with("the server was stopped"), "{why}");
        drop(record);
    });
}

/// The 26th client of a session for 25. With `one_off` there is no next session, and it is refused.
#[test]
fn late_client_joins_next_session() {
    within(LIMIT, || {
        for one_off in [false, true] {
            let server = Server::new(50_000, |settings| {
                settings.clients = Some(25);
                settings.one_off = one_off;
                settings.rate = bytes_per_second(1_000_000);
            });
            let first = server.fetch("first", |order| order.clients = 24);
            server.until_ready(24);
            let mut last = server.waiting(25, "last");
            let next = server.fetch("next", |_| {});
            if one_off {
                let ends = next.join().expect("no panic");
                assert_eq!(Verdict::of_clients(&ends).exit_code(), 1);
                let why = failed(ends);
                assert!(
                    why.ends_with("all seats of this server's only session are taken"),
                    "{why}"
                );
            } else {
                until("two sessions", || server.running().lobby().views().len() == 2);
                let others = server.fetch("others", |order| order.clients = 24);
                whole(others.join().expect("no panic"), &server);
                whole(next.join().expect("no panic"), &server);
                assert_eq!(server.record().proven(), 25);
            }
            let sha1 = last.receive_to_last();
            last.send_message(&FromClient::Hashed { sha1 });
            last.send_message(&receipt(50_000, sha1));
            whole(first.join().expect("no panic"), &server);
            let record = server.record();
            assert_eq!((record.proven(), record.transfers.len()), (25, 25));
            drop(last);
            server.stop();
        }
    });
}

#[test]
fn silent_clients_lose_their_seats_to_those_who_wait() {
    within(LIMIT, || {
        for one_off in [false, true] {
            let server = Server::new(50_000, |settings| {
                settings.clients = Some(3);
                settings.one_off = one_off;
            });
            let silent = ["s1", "s2", "s3"].map(|name| server.joined(3, name));
            let honest = server.fetch("honest", |order| order.clients = 3);
            whole(honest.join().expect("no panic"), &server);
            for mut peer in silent {
                let why = peer.read_line();
                assert!(why.starts_with("ERROR code=muster reason="), "{why}");
                assert!(why.contains("was%20not%20ready%20after%205%20s"), "{why}");
            }
            let record = server.record();
            assert_eq!((record.proven(), record.transfers.len()), (3, 6));
            for name in ["s1", "s2", "s3"] {
                ended(&record, name, Outcome::TimedOut, "another client has this seat");
            }
            server.stop();
        }
    });
}

/// A muster in which one is still hashing is full; whoever comes has to wait for a moment only.
#[test]
fn client_that_hashes_keeps_its_seat_from_late_ones() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| settings.clients = Some(2));
        let first = server.fetch("first", |_| {});
        server.until_ready(1);
        let mut hashing = server.joined(2, "hashing");
        let others = server.fetch("others", |order| order.clients = 2);
        let mut bytes = 0;
        until("the next session", || {
            bytes += 1;
            hashing.send(format!("ALIVE bytes={bytes}\n"));
            thread::sleep(Duration::from_millis(100));
            others.is_finished()
        });
        whole(others.join().expect("no panic"), &server);
        assert_eq!(server.record().proven(), 2);
        hashing.send("READY offset=0\n");
        let sha1 = hashing.receive_to_last();
        hashing.send_message(&FromClient::Hashed { sha1 });
        hashing.send_message(&receipt(50_000, sha1));
        whole(first.join().expect("no panic"), &server);
        assert_eq!(server.record().proven(), 2);
        drop(hashing);
        server.stop();
    });
}

#[test]
fn group_refuses_other_size_or_transport() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            settings.max_wait = Duration::from_millis(500);
        });
        let first = server.fetch("first", |order| order.group = Some(3));
        server.until_ready(1);
        let other = server.fetch("other", |order| order.group = Some(2));
        let why = failed(other.join().expect("no panic"));
        assert!(why.ends_with("refused: the group for 'f.bin' has 3 clients, not 2"), "{why}");
        let udp = server.fetch("udp", |order| {
            order.group = Some(3);
            order.via = Some(Via::Udp);
        });
        let why = failed(udp.join().expect("no panic"));
        assert!(why.ends_with("refused: this server cannot send via udp"), "{why}");
        first.join().expect("no panic");
        let record = server.record();
        assert_eq!(record.transfers.len(), 1, "the refused were never seated");
        server.stop();

        // A server that has a number of clients and a transport ignores the client's number and
        // refuses another transport.
        let server = Server::new(50_000, |settings| {
            settings.clients = Some(1);
            settings.via = Some(Via::Tcp);
        });
        let client = server.fetch("client", |order| order.group = Some(9));
        whole(client.join().expect("no panic"), &server);
        let raw = server.fetch("raw", |order| order.via = Some(Via::Raw));
        let why = failed(raw.join().expect("no panic"));
        assert!(
            why.ends_with(
                "this server sends via tcp, not via raw; without --via the client takes that way"
            ),
            "{why}"
        );
        server.stop();
    });
}

#[test]
fn clients_of_two_files_muster_separately() {
    within(LIMIT, || {
        let server = Server::new(50_000, |settings| {
            settings.max_wait = Duration::from_millis(500);
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("g.bin"), b"another").expect("room");
        // A second server offers this file and that of the first server.
        let paths = [server.source(), folder.path().join("g.bin")];
        let both = common::offer(&paths, |settings| {
            settings.max_wait = Duration::from_millis(500);
        });
        let mut orders = ["f.bin", "g.bin"].map(|file| {
            let mut order = server.order(file);
            order.server = vec![both.addr()];
            order.file = Some(FileName::new(file).expect("plain"));
            order.group = Some(2);
            order
        });
        let clients: Vec<_> = orders
            .clone()
            .into_iter()
            .map(|order| {
                thread::spawn(move || {
                    gatecast::internals::client::FetchRun::new(&order)
                        .run(&order, &[&gatecast::internals::transport::tcp::receive::TCP])
                        .expect("begun")
                })
            })
            .collect();
        for client in clients {
            let ends = client.join().expect("no panic");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 3);
            let why = failed(ends);
            assert!(why.ends_with("1 of 2 clients were ready after 0.5 s"), "{why}");
        }
        // A client that names no file is refused when two are offered.
        orders[0].file = None;
        let why = failed(
            gatecast::internals::client::FetchRun::new(&orders[0])
                .run(&orders[0], &[&gatecast::internals::transport::tcp::receive::TCP])
                .expect("begun"),
        );
        let told =
            "several files are offered, and this client named none: name one of f.bin, g.bin";
        assert!(why.ends_with(told), "{why}");
        both.stop().expect("a log");
    });
}

#[test]
fn sessions_of_two_files_run_at_once() {
    within(LIMIT, || {
        let server = Server::new(2_000_000, |_| {});
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("g.bin"), vec![7; 1_000_000]).expect("room");
        let paths = [server.source(), folder.path().join("g.bin")];
        let both = common::offer(&paths, |settings| {
            settings.rate = bytes_per_second(2_000_000);
        });
        let clients: Vec<_> = ["f.bin", "g.bin", "f.bin", "g.bin"]
            .iter()
            .enumerate()
            .map(|(n, file)| {
                let mut order = server.order(&format!("{n}"));
                order.server = vec![both.addr()];
                order.out = folder.path().join(n.to_string());
                order.file = Some(FileName::new(file).expect("plain"));
                order.group = Some(2);
                thread::spawn(move || {
                    gatecast::internals::client::FetchRun::new(&order)
                        .run(&order, &[&gatecast::internals::transport::tcp::receive::TCP])
                        .expect("begun")
                })
            })
            .collect();
        until("two sessions to run", || {
            let views = both.lobby().views();
            views.iter().filter(|view| view.released.is_some()).count() == 2
        });
        for client in clients {
            let ends = client.join().expect("no panic");
            assert!(ends[0].error.is_none(), "{:?}", ends[0].error);
        }
        let proven: usize =
            (0..2).map(|_| both.records().recv_timeout(LIMIT).expect("ended").proven()).sum();
        assert_eq!(proven, 4);
        both.stop().expect("a log");
    });
}

#[test]
fn panic_in_send_thread_fails_only_its_seat() {
    within(LIMIT, || {
        let server = common::server_whose_seat_panics(600_000, 3, |s| s.clients = Some(5));
        let clients = server.fetch("c", |order| order.clients = 5);
        let ends = clients.join().expect("no panic in the clients");
        let whole = ends.iter().filter(|end| end.path.is_some()).count();
        assert_eq!(whole, 4, "{ends:?}");
        let record = server.record();
        let struck = record.transfers.iter().find(|t| !t.is_proven());
        let struck = struck.expect("a row for it");
        assert_eq!(struck.outcome, Outcome::Cut);
        let why = struck.reason.as_deref().unwrap_or_default();
        assert!(why.contains("internal error"), "{why}");
        // The server goes on: in the next session only that seat fails again.
        let alone = server.fetch("again", |order| order.clients = 5);
        assert_eq!(alone.join().expect("no panic").iter().filter(|e| e.path.is_some()).count(), 4);
        server.stop();
    });
}

#[test]
fn client_refuses_file_with_unexpected_sha1() {
    within(LIMIT, || {
        let server = Server::new(1000, |_| {});
        let client = server.fetch("c", |order| order.sha1 = Some(Digest::of(b"another")));
        let ends = client.join().expect("no panic");
        assert!(matches!(ends[0].error, Some(Error::Refused { .. })), "{ends:?}");
        let record = server.record();
        ended(&record, "c", Outcome::Refused, "it offers 'f.bin' with the SHA-1");
        assert_eq!(row(&record, "c").bytes_client, None);
        server.stop();
    });
}
