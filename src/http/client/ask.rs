//! One question to a server, and the head of its answer.

use std::io;
use std::io::Read;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::http::connection::send_by;
use crate::net::clock;
use crate::net::socket;
use crate::proto::http::response;
use crate::proto::http::response::Response;
use crate::proto::http::text;
use crate::units::Moment;

/// What a server says of a file.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) bytes: u64,
    pub(super) sha1: Option<Digest>,
    pub(super) tag: Option<String>,
    /// It is a gatecast, so it has a gate.
    pub(super) gate: bool,
}

/// A connection with the bytes that were read beyond a head.
pub(super) struct Answer {
    pub(super) head: Response,
    pub(super) rest: Vec<u8>,
    /// When the last bytes of the head were read.
    pub(super) at: Moment,
}

/// How long a server may take to answer at once.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Most of an error's body that is read and shown, bytes.
const REASON_MAX: usize = 512;

/// What a head says of the file.
pub(super) fn about(peer: SocketAddr, head: &Response) -> Result<About> {
    if head.status != 200 {
        let phrase = response::reason(head.status);
        return Err(Error::refused(peer, format!("{} {phrase}", head.status)));
    }
    let bytes = head
        .fields
        .content_length()
        .map_err(|error| Error::protocol(peer, error.to_string()))?
        .ok_or_else(|| Error::refused(peer, "it does not say how long the file is"))?;
    Ok(About {
        bytes,
        sha1: digest(head),
        tag: head.fields.get("etag").map(str::to_owned),
        gate: head.fields.get("gatecast").is_some(),
    })
}

pub(super) fn digest(head: &Response) -> Option<Digest> {
    ["repr-digest", "digest"]
        .iter()
        .flat_map(|name| head.fields.all(name))
        .find_map(text::digest_of_field)
}

pub(super) fn number(answer: &Answer, name: &str) -> Option<u16> {
    let number = text::digits(answer.head.fields.get(name)?)?;
    u16::try_from(number).ok().filter(|&number| number > 0)
}

/// Sends `request` and reads the head of the answer; interim answers (1xx) are passed over.
pub(super) fn ask(
    stream: &TcpStream,
    peer: SocketAddr,
    request: &str,
    deadline: Moment,
    phase: Phase,
) -> Result<Answer> {
    send_by(stream, request.as_bytes(), clock::now().after(ANSWER_LIMIT))
        .map_err(Error::io("ask the server", peer))?;
    let mut held = Vec::new();
    loop {
        let decoded =
            Response::decode(&held).map_err(|error| Error::protocol(peer, error.to_string()))?;
        match decoded {
            Some((head, len)) if head.status < 200 => {
                held.drain(..len);
            }
            Some((head, len)) => {
                let rest = held.split_off(len);
                let at = clock::now();
                return Ok(Answer { head, rest, at });
            }
            None => held.extend(read_some(stream, peer, deadline, phase)?),
        }
    }
}

pub(super) fn read_some(
    mut stream: &TcpStream,
    peer: SocketAddr,
    deadline: Moment,
    phase: Phase,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let begun = clock::now();
    loop {
        let in_time =
            socket::bound_read(stream, deadline).map_err(Error::io("hear the server", peer))?;
        let read = if in_time {
            stream.read(&mut bytes)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        };
        match read {
            Ok(0) => {
                let closed =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                return Err(Error::io("hear the server", peer)(closed));
            }
            Ok(len) => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if Error::is_timeout(&error) => {
                let (at, after) = (peer.to_string(), deadline.since(begun));
                return Err(Error::TimedOut { phase, at, after });
            }
            Err(error) => return Err(Error::io("hear the server", peer)(error)),
        }
    }
}

/// The first line of an error's body, made safe, or its phrase.
pub(super) fn reason(answer: &Answer, stream: &TcpStream) -> String {
    let mut body = answer.rest.clone();
    let deadline = clock::now().after(Duration::from_secs(1));
    let wanted = answer
        .head
        .fields
        .content_length()
        .ok()
        .flatten()
        .unwrap_or(0);
    while (body.len() as u64) < wanted && body.len() < REASON_MAX {
        let peer = SocketAddr::from(([0, 0, 0, 0], 0));
        match read_some(stream, peer, deadline, Phase::Transfer) {
            Ok(more) => body.extend(more),
            Err(_) => break,
        }
    }
    body.truncate(REASON_MAX);
    let text = String::from_utf8_lossy(&body);
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() && !line.starts_with('<') => crate::text::escape(line),
        _ => response::reason(answer.head.status).to_owned(),
    }
}
