//! HTTP with requests written by hand. `peers.rs` has clients that other people wrote.

mod client;
mod elsewhere;
#[cfg(feature = "cli")]
mod nginx;
mod peers;
mod slow;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    digest::Digest,
    http,
    http::{Documents, HttpConfig},
    net::http::subscribers::SUBSCRIBERS_MAX,
    report::csv,
    server::config::ServerConfig,
    session::Via,
    transfer::Outcome,
    transport::tcp,
};

use crate::{
    common,
    common::{
        PATIENCE, Peer, Server, bytes_per_second, have,
        http::{answer, ask, get_with},
        turn::in_turn,
        until, within,
    },
};

const TOKEN: &str = "0123456789abcdef";

fn config() -> HttpConfig {
    HttpConfig {
        token: Some(TOKEN.to_owned()),
        documents: Documents { csv: Some(csv::transfers), ..Documents::default() },
        ..HttpConfig::default()
    }
}

fn server(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    Server::with(bytes, set, |host| {
        http::serve(tcp::serve(host).expect("TCP"), config()).expect("HTTP")
    })
}

fn get(server: &Server, target: &str, fields: &str) -> (u16, String, Vec<u8>) {
    get_with(server.addr, target, fields)
}

fn status(server: &Server, lines: &str) -> u16 {
    answer(&ask(server.addr, lines)).0
}

#[test]
fn file_is_sent_whole_in_parts_and_with_its_tags() {
    within(PATIENCE * 2, || {
        let server = server(100_000, |_| {});
        let (code, head, body) = get(&server, "/files/f.bin", "");
        assert_eq!((code, Digest::of(&body)), (200, server.sha1));
        let tag = format!("\"sha1-{}\"", server.sha1);
        assert!(head.contains(&format!("ETag: {tag}")), "{head}");
        assert!(head.contains("Accept-Ranges: bytes"), "{head}");
        assert!(head.contains("Repr-Digest: sha=:"), "{head}");
        assert!(head.contains("Digest: SHA="), "{head}");
        assert!(head.contains("filename=\"f.bin\""), "{head}");
        for (range, from, to) in [
            ("0-", 0, 100_000),
            ("5-9", 5, 10),
            ("99999-", 99_999, 100_000),
            ("-7", 99_993, 100_000),
        ] {
            let (code, head, part) =
                get(&server, "/files/f.bin", &format!("Range: bytes={range}\n"));
            assert_eq!((code, &part[..]), (206, &body[from..to]), "{range}");
            assert!(
                head.contains(&format!("Content-Range: bytes {from}-{}/100000", to - 1)),
                "{head}"
            );
        }
        for range in ["bytes=100000-", "bytes=-0", "bytes=18446744073709551616-"] {
            let (code, head, _) = get(&server, "/files/f.bin", &format!("Range: {range}\n"));
            assert_eq!(code, 416, "{range}");
            assert!(head.contains("Content-Range: bytes */100000"), "{head}");
        }
        let many = format!("bytes={}0-", "0-,".repeat(1000));
        for range in
            ["bytes=5-4", "bytes=0-1,3-4", "bytes=-17208,-9223372036854758792", "lines=1-2", &many]
        {
            assert_eq!(get(&server, "/files/f.bin", &format!("Range: {range}\n")).2.len(), 100_000);
        }
        let both = |tag: &str| {
            get(&server, "/files/f.bin", &format!("Range: bytes=5-\nIf-Range: {tag}\n")).0
        };
        assert_eq!(both(&tag), 206);
        for other in ["\"sha1-0000\"", &format!("W/{tag}"), "Sat, 21 Nov 2026 00:00:00 GMT"] {
            assert_eq!(both(other), 200, "{other}");
        }
        let (code, _, nothing) =
            get(&server, "/files/f.bin", &format!("If-None-Match: \"x\", {tag}\n"));
        assert_eq!((code, nothing.len()), (304, 0));
        let head = ask(
            server.addr,
            "HEAD /files/f.bin?gate HTTP/1.1\nHost: localhost\nConnection: close\n\n",
        );
        let (code, head, nothing) = answer(&head);
        assert_eq!((code, nothing.len()), (200, 0));
        assert!(head.contains("Content-Length: 100000"), "{head}");
        let line = get(&server, "/files/f.bin.sha1", "").2;
        assert_eq!(line, format!("{}  f.bin\n", server.sha1).into_bytes());
        let list = String::from_utf8(get(&server, "/files", "").2).expect("text");
        assert!(list.contains(&server.sha1.to_string()), "{list}");
        let list =
            String::from_utf8(get(&server, "/files", "Accept: text/html\n").2).expect("text");
        assert!(list.contains("<a href='/files/f.bin'>"), "{list}");
        server.stop();
    });
}

#[test]
fn only_routes_of_the_table_and_own_hosts_are_served() {
    within(PATIENCE, || {
        let server = server(10, |_| {});
        for path in [
            "/files/..",
            "/files/%2e%2e/f.bin",
            "/files/%252e%252e",
            "/files/offered/f.bin",
            "/files/%00",
            "/files/f.bin%00",
            "//files/f.bin",
            "/files//f.bin",
            "/files/f.bin/",
            "/x",
            "/sessions/zz",
            "/sessions/0000000000000000",
            "/files/.sha1",
        ] {
            assert_eq!(get(&server, path, "").0, 404, "{path}");
        }
        for (lines, expected) in [
            ("GET / HTTP/1.1\nHost: evil.example\nConnection: close\n\n", 403),
            ("GET /files/f.bin HTTP/1.1\nHost: 127.0.0.1.evil.example\nConnection: close\n\n", 403),
            ("GET http://evil.example/ HTTP/1.1\nHost: localhost\nConnection: close\n\n", 403),
            ("GET / HTTP/1.1\nHost: [::1]:80\nConnection: close\n\n", 200),
            ("GET / HTTP/1.0\n\n", 200),
            ("POST / HTTP/1.1\nHost: localhost\nConnection: close\n\n", 405),
            ("POST /files/f.bin HTTP/1.1\nHost: localhost\nConnection: close\n\n", 405),
            (
                "GET /sessions/0000000000000000/release HTTP/1.1\nHost: localhost\nConnection: close\n\n",
                405,
            ),
            ("OPTIONS * HTTP/1.1\nHost: localhost\nConnection: close\n\n", 204),
        ] {
            assert_eq!(status(&server, lines), expected, "{lines}");
        }
        let (_, head, page) = get(&server, "/", "");
        assert!(head.contains("Content-Security-Policy: default-src 'none'"), "{head}");
        assert!(page.len() < 60_000, "{}", page.len());
        let page = String::from_utf8(page).expect("text");
        let outside = page.replace("http://${address()}", "").replace("{host}", "");
        assert!(!outside.contains("src=\"http") && !outside.contains("href=\"http"), "{page}");
        assert!(page.contains(TOKEN), "the page of this machine may release");
        server.stop();
    });
}

#[test]
fn hostile_request_costs_only_its_own_connection() {
    within(PATIENCE * 2, || {
        let server = server(10, |_| {});
        let with = |line: &str| format!("GET / HTTP/1.1\nHost: localhost\n{line}\n\n");
        for (lines, expected) in [
            (with("a b: c"), 400),
            (with("Content-Length: 5"), 400),
            (with("Transfer-Encoding: chunked"), 501),
            (with("Content-Length: 0\nTransfer-Encoding: chunked"), 400),
            (with(" folded"), 400),
            (with("Host: second"), 400),
            (with(&"a: b\n".repeat(10_000)), 431),
            (with(&format!("a: {}", "x".repeat(1 << 20))), 431),
            (format!("GET /{} HTTP/1.1\n\n", "x".repeat(1 << 20)), 414),
            ("GET / HTTP/9.9\n\n".to_owned(), 505),
            ("GET /\n\n".to_owned(), 400),
            ("POST /sessions/0000000000000000/receipt HTTP/1.1\nHost: localhost\nContent-Length: 1025\n\n".to_owned(), 413),
        ] {
            let shown: String = lines.chars().take(60).collect();
            let mut stream = TcpStream::connect(server.addr).expect("a server");
            stream.set_read_timeout(Some(PATIENCE)).expect("a setting");
            // A server that has answered may close before all is sent.
            let _ = stream.write_all(lines.replace('\n', "\r\n").as_bytes());
            let mut said = Vec::new();
            let _ = stream.read_to_end(&mut said);
            assert_eq!(answer(&said).0, expected, "{shown}");
        }
        let mut half = server.peer();
        half.send("GET /files/f.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
        half.stream.shutdown(Shutdown::Write).expect("open");
        assert_eq!(
            answer(&half.read_to_close()).2.len(),
            10,
            "a client that is done talking still gets its answer"
        );
        let mut pipelined = server.peer();
        pipelined.send("GET /files/f.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100));
        let all = pipelined.read_to_close();
        let answers = all.windows(9).filter(|nine| nine == b"HTTP/1.1 ").count();
        assert_eq!(answers, 100);
        server.stop();
    });
}

#[test]
fn slow_head_gets_408_and_idle_connection_is_closed() {
    within(PATIENCE * 2, || {
        let server = server(10, |_| {});
        let begun = Instant::now();
        let mut slow = server.peer();
        let dribble = slow.stream.clone();
        let feeder = thread::spawn(move || {
            for byte in
                b"GET / HTTP/1.1\r\nHost: localhost\r\na: bcdefghijklmnopqrstuvwxyz".iter().cycle()
            {
                thread::sleep(Duration::from_millis(300));
                if (&*dribble).write_all(&[*byte]).is_err() || begun.elapsed() > PATIENCE {
                    return;
                }
            }
        });
        // The listener reads the first four bytes. The deadline of the head includes them.
        let (status, _, body) = answer(&slow.read_to_close());
        let why = String::from_utf8_lossy(&body).into_owned();
        assert_eq!((status, &*why), (408, "no complete request within 5 s\n"));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        drop(slow);
        let mut idle = server.peer();
        idle.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let begun = Instant::now();
        let said = idle.read_to_close();
        assert_eq!(said.windows(9).filter(|nine| nine == b"HTTP/1.1 ").count(), 1);
        assert!((8..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        feeder.join().expect("no panic");
        server.stop();
    });
}

#[test]
fn change_needs_loopback_and_the_token() {
    within(PATIENCE, || {
        let server = server(1000, |settings| settings.clients = Some(2));
        let mut peer = server.waiting(2, "a");
        let session = server.running().lobby().views()[0].session;
        let post = |token: &str| {
            let lines = format!(
                "POST /sessions/{session}/release HTTP/1.1\nHost: localhost\nConnection: close\nGatecast-Token: {token}\n\n"
            );
            status(&server, &lines)
        };
        assert_eq!(post(""), 403);
        assert_eq!(post("0123456789abcdee"), 403);
        let evil = format!(
            "POST /sessions/{session}/release HTTP/1.1\nHost: evil.example\nGatecast-Token: {TOKEN}\nConnection: close\n\n"
        );
        assert_eq!(status(&server, &evil), 403);
        let gone = format!(
            "POST /sessions/0000000000000000/release HTTP/1.1\nHost: localhost\nGatecast-Token: {TOKEN}\nConnection: close\n\n"
        );
        assert_eq!(status(&server, &gone), 404);
        assert_eq!(server.seats(), (1, 1), "nothing was released yet");
        assert_eq!(post(TOKEN), 200);
        assert_eq!(peer.receive_to_last(), server.sha1);
        drop(peer);
        server.record();
        server.stop();
    });
}

#[test]
fn nothing_is_sent_before_release_and_short_muster_gets_503() {
    within(PATIENCE * 2, || {
        let server = server(100_000, |settings| {
            settings.clients = Some(2);
            settings.max_wait = Duration::from_secs(2);
        });
        let mut alone = server.peer();
        alone.send("GET /files/f.bin?gate HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.until_ready(1);
        alone.stream.set_nonblocking(true).expect("a setting");
        let early = alone.stream.peek(&mut [0]);
        assert!(early.is_err(), "a byte before the release: {early:?}");
        alone.stream.set_nonblocking(false).expect("a setting");
        let (code, head, body) = answer(&alone.read_to_close());
        assert_eq!(code, 503, "{head}");
        assert!(String::from_utf8_lossy(&body).contains("1 of 2 clients were ready"), "{body:?}");
        common::ended(&server.record(), "http", Outcome::TimedOut, "1 of 2");

        let mut one = server.peer();
        one.send(
            "GET /files/f.bin?gate=2&name=%1B[2J%C2%9B%0D%0A{\"ok\":true}%E2%80%AE HTTP/1.1\r\nHost: localhost\r\n\r\n",
        );
        server.until_ready(1);
        let mut two = server.peer();
        two.send(
            "GET /files/f.bin?gate HTTP/1.0\r\nUser-Agent: <script>alert(1)</script> | x\r\n\r\n",
        );
        for peer in [&mut one, &mut two] {
            let (code, head, body) = answer(&peer.read_to_close());
            assert_eq!((code, Digest::of(&body)), (200, server.sha1), "{head}");
            assert!(head.contains("Gatecast-Seat: "), "{head}");
        }
        drop((one, two));
        let record = server.record();
        for transfer in &record.transfers {
            assert_eq!(transfer.outcome, Outcome::Complete, "{transfer:?}");
            assert_eq!(
                (transfer.verified, transfer.bytes_client, transfer.seconds_client),
                (None, None, None)
            );
            assert_eq!(transfer.bytes_server, Some(100_000));
            assert!(transfer.woke.is_some() && transfer.first_server.is_some());
        }
        // `Server::stop` checks that the log has one line a row and no control characters.
        common::row(&record, "\u{1b}[2J\u{9b}\r\n{\"ok\":true}\u{202e}");
        common::row(&record, "<script>alert(1)</script>");
        let sessions = String::from_utf8(get(&server, "/sessions.csv", "").2).expect("text");
        assert!(!sessions.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{sessions}");
        for target in [
            "/files/f.bin?gate=0",
            "/files/f.bin?gate=10001",
            "/files/f.bin?gate=x",
            "/files/f.bin?gate=-1",
            "/files/f.bin?gate=%ff",
        ] {
            assert_eq!(get(&server, target, "").0, 400, "{target}");
        }
        server.stop();
    });
}

#[test]
fn seat_is_freed_when_its_client_speaks_or_leaves_at_gate() {
    within(PATIENCE, || {
        let server = server(1000, |settings| settings.clients = Some(2));
        let mut speaks = server.peer();
        speaks.send("GET /files/f.bin?gate&name=speaks HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.until_ready(1);
        speaks.send("x");
        assert_eq!(answer(&speaks.read_to_close()).0, 400);
        let leaves = server.peer();
        (&*leaves.stream)
            .write_all(b"GET /files/f.bin?gate&name=leaves HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .expect("a server");
        server.until_ready(1);
        drop(leaves);
        until("the seat is free", || server.seats() == (0, 0));
        server.running().lobby().stop();
        let record = server.record();
        common::ended(&record, "speaks", Outcome::Refused, "spoke before the release");
        common::ended(&record, "leaves", Outcome::Refused, "left before the release");
        server.stop();
    });
}

#[test]
fn gate_is_refused_when_neither_side_names_a_number() {
    within(PATIENCE, || {
        let server = server(1000, |_| {});
        let (code, _, body) = get(&server, "/files/f.bin?gate", "");
        assert_eq!(code, 409, "{}", String::from_utf8_lossy(&body));
        server.stop();
    });
}

#[test]
fn receipt_proves_a_copy_and_a_wrong_one_does_not() {
    within(PATIENCE, || {
        let server = server(1000, |_| {});
        for (claim, outcome) in
            [(server.sha1, Outcome::Complete), (Digest::of(b"other"), Outcome::Corrupt)]
        {
            let (code, head, body) = get(&server, "/files/f.bin?gate=1&receipt&name=s", "");
            assert_eq!((code, Digest::of(&body)), (200, server.sha1));
            let path = head
                .lines()
                .find_map(|line| line.strip_prefix("Gatecast-Receipt: "))
                .expect("a place");
            let body = format!("sha1={claim}&bytes=1000&seconds=0.25");
            let lines = format!(
                "POST {path} HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: {}\n\n{body}",
                body.len()
            );
            assert_eq!(status(&server, &lines), 200);
            let record = server.record();
            let row = common::row(&record, "s");
            assert_eq!((row.outcome, row.verified), (outcome, Some(claim == server.sha1)));
            assert_eq!(
                (row.bytes_client, row.seconds_client),
                (Some(1000), Some(Duration::from_millis(250)))
            );
            assert_eq!(record.broken_identities(), Vec::<String>::new());
        }
        server.stop();
    });
}

#[test]
fn download_is_cut_when_its_file_changes() {
    within(PATIENCE * 2, || {
        let server = server(4_000_000, |settings| settings.rate = bytes_per_second(2_000_000));
        let mut at_once = server.peer();
        at_once.send("GET /files/f.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
        at_once.read_payload(100_000);
        let mut at_gate = server.peer();
        at_gate.send("GET /files/f.bin?gate=1&name=g HTTP/1.1\r\nHost: localhost\r\n\r\n");
        until("bytes from the gate", || server.moved() > 100_000);
        let file = fs::File::options().write(true).open(server.source()).expect("there");
        file.set_len(500_000).expect("shorter");
        assert!(at_once.read_to_close().len() + 100_000 < 4_000_000);
        assert!(answer(&at_gate.read_to_close()).2.len() < 4_000_000);
        common::ended(&server.record(), "g", Outcome::Cut, "truncated");
        server.stop();
    });
}

#[test]
fn stalled_readers_delay_nobody_else() {
    within(PATIENCE * 2, || {
        let server = server(20_000_000, |settings| {
            settings.stall = Duration::from_secs(2);
            settings.clients = Some(2);
        });
        let mut deaf: Vec<Peer> = (0..5).map(|_| server.peer()).collect();
        for peer in &mut deaf {
            peer.send("GET /files/f.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let mut slow = server.peer();
        slow.send("GET /files/f.bin?gate&name=slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.until_ready(1);
        let begun = Instant::now();
        let quick = server.fetch("quick", |order| order.group = Some(2));
        common::whole(quick.join().expect("no panic"), &server);
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        common::ended(&server.record(), "slow", Outcome::TimedOut, "stalled for 2 s");
        drop((slow, deaf));
        server.stop();
    });
}

#[test]
fn subscribers_see_the_same_state_and_too_many_get_503() {
    within(PATIENCE * 2, || {
        let server = server(1000, |settings| settings.clients = Some(2));
        let subscribe = || {
            let mut peer = server.peer();
            peer.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
            peer
        };
        let mut watching: Vec<Peer> = (0..40).map(|_| subscribe()).collect();
        let waiting = server.waiting(2, "<b>\u{202e}");
        let mut states = Vec::new();
        for peer in &mut watching {
            loop {
                let line = peer.read_line();
                let Some(state) = line.strip_prefix("data: ") else {
                    continue;
                };
                assert!(state.starts_with("{\"schema\":\"gatecast.event/1\""), "{state}");
                assert!(!state.contains('\u{202e}'), "{state}");
                if state.contains("\"ready\":true") {
                    states.push(state.to_owned());
                    break;
                }
            }
        }
        states.dedup();
        assert!(states.len() <= 3, "one snapshot for all: {}", states.len());
        let mut crowd: Vec<Peer> = (40..SUBSCRIBERS_MAX).map(|_| subscribe()).collect();
        crowd.iter_mut().for_each(|peer| while !peer.read_line().starts_with("data: ") {});
        assert_eq!(get(&server, "/events", "").0, 503);
        drop(crowd);
        // A page that is reloaded again and again gives its places back.
        for _ in 0..30 {
            drop(subscribe());
            thread::sleep(Duration::from_millis(10));
        }
        until("places are free again", || {
            let mut peer = subscribe();
            peer.read_line() == "HTTP/1.1 200 OK\r"
        });
        drop((watching, waiting));
        server.running().lobby().stop();
        server.record();
        server.stop();
    });
}

/// Ten thousand of them, or as many as this process may open.
#[test]
fn ten_thousand_idle_connections_block_no_client() {
    // A descriptor at each end, and some for the rest.
    let limit = gatecast::internals::net::socket::descriptors(21_000).unwrap_or(1024);
    let count = usize::try_from(limit.saturating_sub(500) / 2).unwrap_or(0).min(10_000);
    if !have("room for 20,000 descriptors", count >= 9_000) {
        return;
    }
    in_turn("idle connections", Duration::from_secs(90), move || {
        let server = server(1000, |_| {});
        let mut idle = Vec::new();
        for _ in 0..count {
            idle.push(TcpStream::connect(server.addr).expect("a place in the queue"));
        }
        let begun = Instant::now();
        let (code, _, body) = get(&server, "/files/f.bin?gate=1", "");
        println!("beside {count} idle connections: answered after {:?}", begun.elapsed());
        assert_eq!((code, Digest::of(&body)), (200, server.sha1));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        drop(idle);
        server.record();
        server.stop();
    });
}

#[test]
fn own_http_clients_are_proven_on_both_sides() {
    within(PATIENCE * 2, || {
        let server = server(300_000, |settings| settings.via = Some(Via::Http));
        let mut order = server.order("h");
        order.clients = 3;
        let name = gatecast::internals::text::FileName::new("f.bin").expect("plain");
        let target = http::client::HttpTarget::file(&server.addr.to_string(), &name);
        let fetch = gatecast::internals::client::FetchRun::new(&order);
        let ends = http::client::run(&fetch, &order, &target).expect("an order that can be begun");
        let records = gatecast::internals::client::records(&ends);
        common::whole(ends, &server);
        let record = server.record();
        assert_eq!(
            (record.via, record.proven(), record.broken_identities()),
            (Via::Http, 3, Vec::new())
        );
        assert_eq!(records[0].session, record.session, "both sides speak of one session");
        // It resumes what an interrupted fetch left.
        let mut order = server.order("again");
        order.resume = true;
        fs::create_dir_all(&order.out).expect("room");
        let part = order.out.join(format!(".{}-1.part", server.sha1.short()));
        let head = fs::read(server.source()).expect("there")[..123_456].to_vec();
        fs::write(part, head).expect("room");
        let fetch = gatecast::internals::client::FetchRun::new(&order);
        common::whole(http::client::run(&fetch, &order, &target).expect("begun"), &server);
        let record = server.record();
        let row = common::row(&record, "again");
        assert_eq!((row.bytes_resumed, row.bytes_server), (123_456, Some(176_544)));
        assert!(record.all_proven());
        server.stop();
    });
}

#[test]
fn native_clients_receive_from_a_server_via_http() {
    within(PATIENCE, || {
        let server = server(10_000, |settings| {
            settings.clients = Some(2);
            settings.via = Some(Via::Http);
        });
        let mut by_http = server.peer();
        by_http.send("GET /files/f.bin?gate HTTP/1.1\r\nHost: localhost\r\n\r\n");
        server.until_ready(1);
        let order = server.order("native");
        let fetch = gatecast::internals::client::FetchRun::new(&order);
        let mut order = order;
        order.group = Some(2);
        common::whole(fetch.run(&order, &[&tcp::receive::HTTP]).expect("begun"), &server);
        assert_eq!(Digest::of(&answer(&by_http.read_to_close()).2), server.sha1);
        drop(by_http);
        assert_eq!(server.record().via, Via::Http);
        server.stop();
    });
}
