//! Slow readers: what they cost the server, and what is said of them.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use gatecast::internals::{
    digest::Digest,
    http,
    http::{Documents, HttpConfig},
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig},
    transfer::{Outcome, Record},
    transport::tcp,
};

use crate::{
    common,
    common::{PATIENCE, Peer, Server, have, http::get_with, turn::in_turn, until, within},
};

/// Bytes of each document that [`server`] writes.
const LARGE: usize = 4_000_000;

static CSV_MADE: AtomicUsize = AtomicUsize::new(0);
static SVG_MADE: AtomicUsize = AtomicUsize::new(0);
static JSON_MADE: AtomicUsize = AtomicUsize::new(0);

fn large(made: &AtomicUsize) -> String {
    made.fetch_add(1, Ordering::Relaxed);
    "x".repeat(LARGE)
}

fn server(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    let config = HttpConfig {
        documents: Documents {
            json: Some(|_: &Record| large(&JSON_MADE)),
            csv: Some(|_: &[Record]| large(&CSV_MADE)),
            svg: Some(|_: &[Record]| large(&SVG_MADE)),
        },
        ..HttpConfig::default()
    };
    Server::with(bytes, set, |host| {
        http::serve(tcp::serve(host).expect("TCP"), config).expect("HTTP")
    })
}

/// The memory that this process holds, bytes; `None` where it cannot be told.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

/// A client that sends `request`, reads the first line of the answer and then nothing.
fn slow_reader(addr: SocketAddr, request: &str) -> Peer {
    let mut peer = Peer::connect(addr);
    peer.send(request);
    assert!(!peer.read_line().is_empty(), "an answer to {request}");
    peer
}

#[test]
fn slow_readers_share_one_reply() {
    if !have("/proc", resident().is_some()) {
        return;
    }
    in_turn("memory", PATIENCE * 4, || {
        let server = server(1000, |_| {});
        common::whole(server.fetch("a", |_| {}).join().expect("no panic"), &server);
        let session = server.record().session;
        for (path, made) in [
            ("/sessions.csv".to_owned(), &CSV_MADE),
            ("/plot.svg".to_owned(), &SVG_MADE),
            (format!("/sessions/{session}"), &JSON_MADE),
            (format!("/sessions/{session}.csv"), &CSV_MADE),
        ] {
            let (before, made_before) = (resident(), made.load(Ordering::Relaxed));
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let readers: Vec<Peer> = (0..200).map(|_| slow_reader(server.addr, &request)).collect();
            let grown = resident().zip(before).map(|(now, before)| now.saturating_sub(before));
            println!("{path}: {grown:?} bytes for 200 slow readers of {LARGE}");
            assert_eq!(made.load(Ordering::Relaxed) - made_before, 1, "{path}");
            assert!(grown < Some(25 * LARGE), "{path}: {grown:?}");
            drop(readers);
        }
        server.stop();
    });
}

#[test]
fn slow_readers_of_ten_thousand_names_share_one_list() {
    if !have("/proc", resident().is_some()) {
        return;
    }
    in_turn("memory", Duration::from_secs(300), || {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..10_000 {
            let name = format!("{number:05}{}", "n".repeat(200));
            fs::write(folder.path().join(name), "x").expect("room");
        }
        let catalog = Catalog::offer([folder.path()]).expect("readable");
        let host = ServerCoreBuilder::new(catalog, ServerConfig::default());
        host.digest(&|_, _, _| {}).expect("readable");
        let host = http::serve(tcp::serve(host).expect("TCP"), HttpConfig::default());
        let server = host.expect("HTTP").start(([127, 0, 0, 1], 0).into()).expect("a free port");
        let addr = server.addr();
        let lists = ["GATECAST/1 LIST\n", "GET /files HTTP/1.1\r\nHost: localhost\r\n\r\n"];
        for request in lists {
            let before = resident();
            let readers: Vec<Peer> = (0..100).map(|_| slow_reader(addr, request)).collect();
            let grown = resident().zip(before).map(|(now, before)| now.saturating_sub(before));
            println!("{request:?}: {grown:?} bytes for 100 slow readers");
            // A list is about three million bytes.
            assert!(grown < Some(100_000_000), "{request:?}: {grown:?}");
            drop(readers);
        }
        let mut names = Peer::connect(addr);
        names.send(lists[0]);
        let list = names.read_to_close();
        assert_eq!(list.iter().filter(|&&byte| byte == b'\n').count(), 10_001, "names and END");
        server.stop().expect("no log");
    });
}

/// Asks for the file at the gate of a group of one.
fn ask_at_gate(server: &Server, name: &str) -> Peer {
    let mut peer = server.peer();
    peer.send(format!("GET /files/f.bin?gate=1&name={name} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    peer
}

#[test]
fn http_row_is_cut_when_client_did_not_read_the_file() {
    within(PATIENCE * 2, || {
        // The first file fits into the client's buffer, the second into the server's.
        for bytes in [10_000, 1_000_000] {
            let server = server(bytes, |settings| settings.stall = Duration::from_secs(1));
            let mut readers = Vec::new();
            for (name, part) in [("nothing", 0), ("half", bytes / 2)] {
                let mut peer = ask_at_gate(&server, name);
                peer.read_payload(part);
                readers.push(peer);
            }
            for record in [server.record(), server.record()] {
                let row = &record.transfers[0];
                assert_eq!(row.outcome, Outcome::Cut, "{bytes}: {row:?}");
                let reason = row.reason.as_deref().unwrap_or_default();
                assert!(reason.contains("did not close"), "{reason}");
                assert_eq!(record.global().rate_mbit, None);
            }
            drop(readers);
            server.stop();
        }
    });
}

#[test]
fn slow_http_client_that_reads_all_is_complete() {
    within(PATIENCE * 2, || {
        let stall = Duration::from_secs(2);
        let server = server(30_000_000, |settings| settings.stall = stall);
        let mut slow = ask_at_gate(&server, "slow");
        // Slower than the stall limit in all; what the systems hold for it is read sooner.
        let mut head = slow.read_line();
        while head != "\r" {
            head = slow.read_line();
        }
        let mut body = Vec::new();
        while body.len() < 30_000_000 {
            body.extend(slow.read_payload(100_000));
            thread::sleep(Duration::from_millis(8));
        }
        assert_eq!(Digest::of(&body), server.sha1);
        drop(slow);
        let record = server.record();
        let row = common::row(&record, "slow");
        assert_eq!(row.outcome, Outcome::Complete, "{row:?}");
        // Its time is the client's, not that of the server's buffer.
        assert!(row.seconds_server > Some(stall), "{row:?}");
        server.stop();
    });
}

/// The pattern of `slowhttptest -X`: whole requests, then a byte now and then through a small
/// window.
#[test]
fn slow_reads_end_at_stall_limit_and_delay_nobody() {
    in_turn("slow reads", PATIENCE * 4, || {
        let server = server(20_000_000, |settings| settings.stall = Duration::from_secs(2));
        let slow: Vec<TcpStream> = (0..200)
            .map(|_| {
                let mut peer = server.peer();
                #[cfg(feature = "sockopt")]
                socket2::SockRef::from(&*peer.stream)
                    .set_recv_buffer_size(1024)
                    .expect("a setting");
                peer.send("GET /files/f.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3));
                peer.stream.set_nonblocking(true).expect("a setting");
                peer.stream.try_clone().expect("a descriptor")
            })
            .collect();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    slow.iter().for_each(|mut stream| drop(stream.read(&mut [0])));
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let (status, _, body) = get_with(server.addr, "/files/f.bin", "");
            assert_eq!((status, Digest::of(&body)), (200, server.sha1));
            common::whole(server.fetch("honest", |_| {}).join().expect("no panic"), &server);
            until("the slow ones are closed", || {
                let (_, _, metrics) = get_with(server.addr, "/metrics", "");
                String::from_utf8_lossy(&metrics).contains("gatecast_http_connections 1\n")
            });
            done.store(true, Ordering::Relaxed);
        });
        server.record();
        server.stop();
    });
}
