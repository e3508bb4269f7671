//! The first bytes of a connection: what kind of client it is, and what one is told that no thread
//! can serve.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{
    net::{clock, socket},
    proto::{
        greeting::{GREETING_MAX, Greeting, Recognised, recognise},
        line::LINE_MAX,
        native::{ErrorCode, FromServer},
    },
    units::Moment,
};

/// How long a client that cannot be served may take to say what it is.
const REFUSAL_LIMIT: Duration = Duration::from_millis(20);

/// Reads until the client is recognised; `None` when it never will be.
pub(super) fn read_greeting(
    stream: &TcpStream,
    deadline: Moment,
) -> io::Result<Option<(Greeting, Vec<u8>)>> {
    let mut first = Vec::new();
    loop {
        match recognise(&first) {
            Recognised::Known(greeting) => return Ok(Some((greeting, first))),
            Recognised::Unknown => return Ok(None),
            Recognised::More => {}
        }
        let mut bytes = [0; GREETING_MAX];
        match socket::read_until(stream, &mut bytes, deadline)? {
            0 => return Ok(None),
            len => first.extend_from_slice(&bytes[..len]),
        }
    }
}

/// Tells a native client why nobody will serve it; others are just closed. This is the accepting
/// thread, which waits for no client longer than [`REFUSAL_LIMIT`]: where no thread can be started, to
/// accept more slowly is no loss.
pub(super) fn refuse(mut stream: &TcpStream) {
    let deadline = clock::now().after(REFUSAL_LIMIT);
    let mut first = [0; LINE_MAX];
    let mut seen = 0;
    // Its whole line is read: a close with unread input would destroy the answer.
    while seen < first.len()
        && !first[..seen].ends_with(b"\n")
        && recognise(&first[..seen]) != Recognised::Unknown
        && matches!(socket::bound_read(stream, deadline), Ok(true))
    {
        match stream.read(&mut first[seen..]) {
            Ok(0) | Err(_) => break,
            Ok(len) => seen += len,
        }
    }
    if recognise(&first[..seen]) == Recognised::Known(Greeting::Native) {
        let reason = "the server's system allows no more threads".to_owned();
        let line = FromServer::Error { code: ErrorCode::Refused, reason }.encode();
        // Forty bytes into an empty buffer; a client that is gone needs no answer.
        let _ = stream.write(&line);
    }
}
