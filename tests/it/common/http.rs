//! HTTP written by hand: requests as they go over the wire, and answers taken apart.

use std::{
    io::Read,
    net::{SocketAddr, TcpStream},
};

use crate::common::Peer;

/// The status, the head and the body of an answer.
pub(crate) type Answer = (u16, String, Vec<u8>);

/// Takes an answer apart.
pub(crate) fn answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.expect("a status"), head, bytes[end + 4..].to_vec())
}

/// Sends these lines, and returns all that comes until the server closes.
pub(crate) fn ask(addr: SocketAddr, lines: &str) -> Vec<u8> {
    let mut peer = Peer::connect(addr);
    peer.send(lines.replace('\n', "\r\n"));
    peer.read_to_close()
}

/// A GET with more header fields, a line each.
pub(crate) fn get_with(addr: SocketAddr, target: &str, fields: &str) -> Answer {
    let lines = format!("GET {target} HTTP/1.1\nHost: localhost\nConnection: close\n{fields}\n");
    answer(&ask(addr, &lines))
}

/// The body of a GET.
pub(crate) fn get(addr: SocketAddr, target: &str) -> Vec<u8> {
    get_with(addr, target, "").2
}

/// Reads the head of one request, up to its empty line or the end of the connection.
pub(crate) fn request_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}
