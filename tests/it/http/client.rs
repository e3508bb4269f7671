//! `net::http`'s GET, as a peer asks a tracker, against valid and invalid answers.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::net::http::client;

use crate::common::{http::request_head, within};

const MAX: usize = 1000;

/// A server that sends `answer` to the first request, and then `more` until the client closes.
fn server(answer: Vec<u8>, more: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a peer");
        request_head(&mut stream);
        let mut said = stream.write_all(&answer);
        while said.is_ok() && !more.is_empty() {
            said = stream.write_all(more);
        }
    });
    addr
}

fn get(answer: impl Into<Vec<u8>>, more: &'static [u8]) -> Result<Vec<u8>, String> {
    let addr = server(answer.into(), more);
    let got = client::get(&[addr], &addr.to_string(), "/announce", MAX);
    got.map_err(|error| error.to_string())
}

#[test]
fn longest_allowed_answer_is_read_with_and_without_length() {
    within(Duration::from_secs(30), || {
        let body = vec![b'x'; MAX];
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MAX}\r\n\r\n");
        for head in [head.as_str(), "HTTP/1.0 200 OK\r\n\r\n"] {
            let answer = [head.as_bytes(), &body].concat();
            assert_eq!(get(answer, b"").as_ref(), Ok(&body), "{head}");
        }
        let plain = "HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\nd1:ae";
        assert_eq!(get(plain, b""), Ok(b"d1:ae".to_vec()));
    });
}

#[test]
fn invalid_or_too_long_answer_is_refused_at_once() {
    within(Duration::from_secs(30), || {
        let begun = Instant::now();
        let cases: [(&str, &'static [u8], &str); 9] = [
            (
                "HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n",
                b"",
                "status 302",
            ),
            ("HTTP/1.1 500 Oh\r\n\r\n", b"", "status 500"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
                b"x",
                "longer than 1000 bytes",
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", b"xxxxxxxxxxxxxxxx", "longer than 1000 bytes"),
            ("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", b"", "content-encoding gzip"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nd1:ae\r\n0\r\n\r\n",
                b"",
                "transfer-encoding chunked",
            ),
            ("HTTP/1.1 200 OK\r\n", b"X: endless\r\n", "head"),
            ("", b"", "closed before it answered"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nd1", b"", "in the middle of its answer"),
        ];
        for (answer, more, why) in cases {
            let error = get(answer, more).expect_err(answer);
            assert!(error.contains(why), "{answer:?}: {error}");
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "none was waited for");
    });
}
