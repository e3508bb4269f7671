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
    net::socket,
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig},
    text::FileName,
    transport::tcp,
};

use crate::common::{
    PATIENCE, Peer, Server, failed, have,
    http::request_head,
    within,
};

/// Needs an address of this machine by which others reach it.
#[test]
fn one_address_cannot_take_all_places_of_events() {
    let outward = socket::outward();
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
        let crowd: Vec<_> = (0..http::SUBSCRIBERS_MAX).map(|_| subscribe(elsewhere)).collect();
        let ok = crowd.iter().filter(|(_, status)| status == "HTTP/1.1 200 OK\r").count();
        assert!((8..http::SUBSCRIBERS_MAX).contains(&ok), "{ok} places for one address");
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
