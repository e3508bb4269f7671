//! Viewers over HTTP: what they get first, what slow ones lose, and what is refused.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream, UdpSocket},
    time::Duration,
};

use gatecast::internals::{
    proto::relay::log::ViewerEnd,
    relay::{
        Relay,
        watch::{Watch, WatchConfig},
    },
};

use crate::{
    common::{PATIENCE, until, within},
    relay::{LIMIT, Lab, Source, relay, relay_with, visits, watch},
};

/// Sends `request` and returns the connection.
fn ask(relay: &Relay, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(relay.local_addr()).expect("listening");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(request.as_bytes()).expect("connected");
    stream
}

/// The whole answer to a request that is not for the stream.
fn answer(relay: &Relay, request: &str) -> String {
    let mut stream = ask(relay, request);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    String::from_utf8(bytes).expect("text")
}

/// A viewer over HTTP that has read the head of its answer.
pub(super) fn viewer(relay: &Relay) -> TcpStream {
    viewer_named(relay, "")
}

/// The same, whose program says that it is `agent`.
pub(super) fn viewer_named(relay: &Relay, agent: &str) -> TcpStream {
    let request = format!("GET /live.ts HTTP/1.1\r\nHost: relay\r\nUser-Agent: {agent}\r\n\r\n");
    let mut stream = ask(relay, &request);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.extend(byte);
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: video/mp2t\r\n"), "{head}");
    stream
}

fn read(stream: &mut TcpStream, packets: usize) -> Vec<[u8; 188]> {
    let mut bytes = vec![0; 188 * packets];
    stream.read_exact(&mut bytes).expect("the stream");
    bytes.as_chunks().0.to_vec()
}

/// A packet of the pictures' PID in which a picture begins that needs no other, marked by `n`.
fn key_frame(n: u8) -> [u8; 188] {
    let mut packet = [n; 188];
    packet[..6].copy_from_slice(&[0x47, 0x41, 0x00, 0x30, 1, 0x40]);
    packet
}

#[test]
fn viewer_begins_with_tables_and_a_key_frame() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut first = viewer(&relay);
        let tables = super::source::tables();
        source.socket.send(&tables).expect("sent");
        source.is_read(&relay, 1);
        // Pictures that need earlier ones, until one does not.
        source.send_through(&relay, &[], 5);
        source.socket.send(&key_frame(1)).expect("sent");
        source.is_read(&relay, 7);
        source.send_through(&relay, &[], 3);
        let got = read(&mut first, 2 + 1 + 21);
        assert_eq!(got[..2].concat(), tables);
        assert_eq!(got[2], key_frame(1));
        assert_eq!(got[3..].concat(), (5..8).flat_map(Source::datagram).collect::<Vec<u8>>());
        // One that joins later waits for the next, and a lab client for none.
        let mut late = viewer(&relay);
        until("both watch", || relay.snapshot().viewers.len() == 2);
        source.send_through(&relay, &[], 2);
        source.socket.send(&key_frame(2)).expect("sent");
        assert_eq!(read(&mut late, 3)[2], key_frame(2));
        drop((first, late));
        until("they are gone", || relay.snapshot().viewers.is_empty());
        let visits = visits(relay);
        assert!(visits.iter().all(|visit| visit.end == ViewerEnd::Closed), "{visits:?}");
        assert_eq!((visits[0].sent.dropped, visits[1].sent.dropped), (0, 0));
    });
}

#[test]
fn source_that_marks_no_key_frame_is_seen_after_seconds() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut viewer = viewer(&relay);
        until("it gets something", || {
            source.send(1);
            relay.snapshot().viewers[0].sent.sent > 0
        });
        assert_eq!(read(&mut viewer, 7)[0][..3], [0x47, 0x01, 0x00]);
    });
}

#[test]
fn viewers_by_udp_and_http_may_have_ports_of_one_number() {
    within(LIMIT, || {
        let relay = relay();
        let player = viewer(&relay);
        let port = player.local_addr().expect("connected").port();
        // Where another program has that port of UDP, there is nothing to see.
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            let mut config = WatchConfig::new(vec![relay.local_addr()]);
            config.port = port;
            let watch = Watch::start(&config).expect("it is let in");
            assert_eq!(relay.snapshot().viewers.len(), 2);
            assert_eq!(relay.snapshot().viewers[0].to, relay.snapshot().viewers[1].to);
            watch.quit().expect("nothing recorded");
        }
        drop(player);
    });
}

#[test]
fn viewer_over_http_that_never_reads_costs_others_nothing() {
    within(2 * LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let deaf = viewer(&relay);
        let mut reads = viewer(&relay);
        let watch = watch(&relay);
        let mut lab = Lab::connected(&relay);
        lab.send(b"INTERRUMPIR\n");
        source
            .socket
            .send(&[super::source::tables(), key_frame(1).to_vec()].concat())
            .expect("sent");
        assert_eq!(read(&mut reads, 3)[2], key_frame(1));
        until("the other has it too", || watch.snapshot().received.datagrams == 1);
        // More than its connection and its queue hold.
        let dropped = || relay.snapshot().viewers[0].sent.dropped;
        let mut sent = 0;
        while dropped() == 0 {
            assert!(sent < 200_000, "it is sent everything");
            source.send_through(&relay, &[&watch], 320);
            sent += 320;
            read(&mut reads, 320 * 7);
        }
        // What it was too late for may have found room meanwhile.
        until("it is let go", || {
            source.send_through(&relay, &[&watch], 8);
            sent += 8;
            read(&mut reads, 8 * 7);
            relay.snapshot().viewers.len() == 3
        });
        drop((deaf, reads));
        // The first datagram was not the source's own.
        whole_but_one(&watch.quit().expect("nothing recorded"), sent);
        drop(lab);
        let visits = visits(relay);
        assert_eq!(visits[0].end, ViewerEnd::Silent, "{visits:?}");
        assert!(visits[0].sent.dropped > 0);
        assert_eq!((visits[1].sent.dropped, visits[1].sent.sent), (0, sent + 1));
    });
}

fn whole_but_one(view: &gatecast::internals::proto::relay::status::WatchSnapshot, sent: u64) {
    assert_eq!(view.received.datagrams, sent + 1, "{view:?}");
    assert_eq!(view.sent.as_ref().map(|sent| sent.dropped), Some(0));
}

#[test]
fn other_requests_get_a_sentence_and_no_place() {
    within(LIMIT, || {
        let relay = relay_with(|builder| builder.max_viewers(1));
        let get = |path: &str, fields: &str| {
            answer(&relay, &format!("GET {path} HTTP/1.1\r\nHost: relay\r\n{fields}\r\n"))
        };
        let list = get("/live.m3u", "");
        let url = format!("http://{}/live.ts\n", relay.local_addr());
        assert!(list.starts_with("HTTP/1.1 200 ") && list.ends_with(&url), "{list}");
        assert!(get("/live", "").starts_with("HTTP/1.1 403 "), "the page's own rules");
        assert!(get("/live.ts", "Range: bytes=100-\r\n").starts_with("HTTP/1.1 416 "));
        let posted = "POST /live.ts HTTP/1.1\r\nHost: relay\r\nContent-Length: 0\r\n\r\n";
        let refusal = answer(&relay, posted);
        assert!(refusal.starts_with("HTTP/1.1 405 ") && refusal.contains("\r\nAllow: GET, HEAD"));
        let elsewhere =
            "GET /live.ts HTTP/1.1\r\nHost: evil.example\r\nSec-Fetch-Site: none\r\n\r\n";
        assert!(answer(&relay, elsewhere).starts_with("HTTP/1.1 403 "));
        let head = answer(&relay, "HEAD /live.ts HTTP/1.1\r\nHost: relay\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(answer(&relay, "GARBAGE\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let endless = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000));
        assert!(answer_or_reset(&relay, &endless));
        assert!(relay.snapshot().viewers.is_empty());
        // One place: who asks beside its viewer is told so, whichever way it asks.
        let viewer = viewer(&relay);
        let refusal = get("/live.ts", "Range: bytes=0-\r\n");
        assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
        assert!(refusal.contains("there are 1 viewers already"), "{refusal}");
        let mut lab = Lab::to(&relay);
        assert!(lab.ask(&lab.conectar()).contains("there are 1 viewers already"));
        drop(viewer);
        until("its place is free", || relay.snapshot().viewers.is_empty());
        assert_eq!(lab.ask(&lab.conectar()), "OK\n");
    });
}

/// Whether `request` is refused, by an answer or by the end of its connection.
fn answer_or_reset(relay: &Relay, request: &str) -> bool {
    let mut stream = TcpStream::connect(relay.local_addr()).expect("listening");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_or(true, |_| bytes.starts_with(b"HTTP/1.1 4"))
}

#[test]
fn head_that_never_ends_is_given_up() {
    within(LIMIT, || {
        let relay = relay();
        let half = ask(&relay, "GET /live.ts HTTP/1.1\r\nHo");
        until("it is served", || relay.connections() == 1);
        until("it is let go", || relay.connections() == 0);
        drop(half);
        // And the relay stops at once beside one that is served.
        let viewer = viewer(&relay);
        let begun = std::time::Instant::now();
        let visits = visits(relay);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!(visits[0].end, ViewerEnd::Stopped);
        drop(viewer);
    });
}
