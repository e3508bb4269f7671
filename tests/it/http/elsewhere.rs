//! What other machines, and pages of other sites, can make HTTP do.

use std::{io::Write, net::TcpListener, thread};

use gatecast::internals::{client::FetchRun, http, http::client::HttpTarget, text::FileName};

use crate::common::{PATIENCE, Server, failed, http::request_head, within};

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
