//! What other machines, and pages of other sites, can make an HTTP server do.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

use gatecast::internals::{
    client::FetchRun,
    http,
    http::{HttpConfig, client::HttpTarget},
    net::{address, http::subscribers::SUBSCRIBERS_MAX},
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig},
    text::FileName,
    transport::tcp,
};

use crate::{
    common::{
        PATIENCE, Peer, Server, failed, have,
        http::{answer, ask, get_with, request_head},
        swarm, within,
    },
    http::server,
};

#[test]
fn page_of_another_site_can_begin_no_session() {
    within(PATIENCE, || {
        let server = server(1000, |_| {});
        let own = format!("http://{}", server.addr);
        let gate = "/files/f.bin?gate=7";
        for sent_by_browser in [
            "Sec-Fetch-Site: cross-site\n",
            "Sec-Fetch-Site: same-site\n",
            "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n",
            "Origin: http://evil.example\n",
            "Origin: null\n",
            "Referer: http://evil.example/\n",
            "Referer: https://evil.example/127.0.0.1\n",
        ] {
            let lines = format!(
                "GET {gate} HTTP/1.1\nHost: {}\nConnection: close\n{sent_by_browser}\n",
                server.addr
            );
            let (status, _, body) = answer(&ask(server.addr, &lines));
            assert_eq!(status, 403, "{sent_by_browser}");
            let why = String::from_utf8(body).expect("text");
            assert!(why.contains("another site"), "{why}");
            assert!(server.running().lobby().is_idle(), "{sent_by_browser}");
        }
        // A person in front of a browser, the server's own page, and a script.
        for honest in [
            "Sec-Fetch-Site: none\nSec-Fetch-Mode: navigate\n".to_owned(),
            format!("Sec-Fetch-Site: same-origin\nReferer: {own}/\n"),
            format!("Origin: {own}\nReferer: {own}/files\n"),
            String::new(),
        ] {
            let lines = format!(
                "GET /files/f.bin?gate=1 HTTP/1.1\nHost: {}\nConnection: close\n{honest}\n",
                server.addr
            );
            let (status, _, body) = answer(&ask(server.addr, &lines));
            assert_eq!((status, body.len()), (200, 1000), "{honest}");
            server.record();
        }
        // What has no effect is as open as before: a page may link to a file.
        let fields = "Referer: http://elsewhere.example/\nSec-Fetch-Site: cross-site\n";
        assert_eq!(get_with(server.addr, "/files/f.bin", fields).0, 200);
        server.stop();
    });
}

#[test]
fn swarm_face_answers_only_its_own_hosts() {
    within(PATIENCE, || {
        let server = swarm::server(100_000, |_| {});
        for (host, expected) in [
            ("evil.example", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost", 200),
            ("127.0.0.1:9", 200),
        ] {
            let lines = format!("GET /swarm HTTP/1.1\nHost: {host}\nConnection: close\n\n");
            assert_eq!(answer(&ask(server.addr, &lines)).0, expected, "{host}");
        }
        server.stop();
    });
}

/// Needs an address of this machine by which others reach it.
#[test]
fn one_address_cannot_take_all_places_of_events() {
    let outward = address::outward();
    if !have("an address besides loopback", outward.is_some()) {
        return;
    }
    within(PATIENCE * 2, move || {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("f.bin"), "x").expect("room");
        let catalog = Catalog::offer([folder.path()]).expect("readable");
        let host = ServerCoreBuilder::new(catalog, ServerConfig::default());
        let host = http::serve(tcp::serve(host).expect("TCP"), HttpConfig::default());
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        let server = host.expect("HTTP").start(any.into()).expect("a free port");
        let port = server.addr().port();
        let elsewhere = SocketAddr::new(outward.expect("asked above"), port);
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let subscribe = |addr: SocketAddr| {
            let mut peer = Peer::connect(addr);
            peer.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let status = peer.read_line();
            (peer, status)
        };
        let crowd: Vec<_> = (0..SUBSCRIBERS_MAX).map(|_| subscribe(elsewhere)).collect();
        let ok = crowd.iter().filter(|(_, status)| status == "HTTP/1.1 200 OK\r").count();
        assert!((8..SUBSCRIBERS_MAX).contains(&ok), "{ok} places for one address");
        let dashboard = subscribe(here);
        assert_eq!(dashboard.1, "HTTP/1.1 200 OK\r");
        drop((crowd, dashboard));
        server.stop().expect("no log");
    });
}

#[test]
fn http_client_refuses_a_size_that_no_file_has() {
    within(PATIENCE, || {
        let server = Server::new(1, |_| {});
        for (bytes, says) in [(1_u64 << 63, "a file of 9223372036854775808 bytes"), (3, "")] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let addr = listener.local_addr().expect("bound");
            let other = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a client");
                request_head(&mut stream);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                stream.write_all(head.as_bytes()).expect("a client");
                if bytes == 3 {
                    let (mut stream, _) = listener.accept().expect("a client");
                    request_head(&mut stream);
                    stream.write_all(format!("{head}abc").as_bytes()).expect("a client");
                }
            });
            let mut order = server.order("o");
            order.server = vec![addr];
            let name = FileName::new("f.bin").expect("plain");
            let target = HttpTarget::file(&addr.to_string(), &name);
            let ends = http::client::run(&FetchRun::new(&order), &order, &target).expect("begun");
            if bytes == 3 {
                assert_eq!(ends[0].transfer.as_ref().expect("a copy").bytes_client, Some(3));
            } else {
                let error = failed(ends);
                assert!(error.contains(says), "{error}");
            }
            other.join().expect("no panic");
        }
    });
}
