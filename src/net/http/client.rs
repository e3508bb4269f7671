//! The client's end of HTTP: one request on a connection, and its response.
//!
//! Redirects are not followed: a server could send its clients to an address that only they can
//! reach. Encoded bodies are refused: a small one could unpack to a huge one.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{clock, copy, socket},
    proto::http::{
        HeadError,
        head::{HeadBuilder, reason},
        response::ResponseHead,
    },
    units::Moment,
};

/// A response whose head has been read.
#[derive(Debug)]
pub struct IncomingResponse<'a> {
    /// The server.
    pub peer: SocketAddr,
    /// The head.
    pub head: ResponseHead,
    /// The beginning of the body: what was read together with the head.
    pub body_start: Vec<u8>,
    /// When the last bytes of the head were read.
    pub head_at: Moment,
    stream: &'a TcpStream,
}

/// How long a whole [`get`] may take.
const GET_LIMIT: Duration = Duration::from_secs(10);

/// How long the server may take to accept a request.
const SEND_LIMIT: Duration = Duration::from_secs(120);

/// Most of an error's body that is read and shown, bytes.
const REASON_MAX: u64 = 512;

/// How long the body of an error may take.
const REASON_LIMIT: Duration = Duration::from_secs(1);

/// Sends `request` and reads the head of the response by `deadline`. Interim responses (1xx) are
/// skipped.
///
/// # Errors
/// [`Error::TimedOut`] in `phase`; [`Error::Io`] where the connection fails or ends;
/// [`Error::Protocol`] where the answer is not a response.
pub fn exchange<'a>(
    stream: &'a TcpStream,
    request: &[u8],
    deadline: Moment,
    phase: Phase,
) -> Result<IncomingResponse<'a>> {
    let peer = stream.peer_addr().map_err(Error::io("connect", "the server"))?;
    let send_by = deadline.min(clock::now().after(SEND_LIMIT));
    copy::send_all(stream, request, send_by)
        .map_err(|stop| Error::io("send the request", peer)(stop.into()))?;
    let mut held = Vec::new();
    loop {
        let is_http = held.is_empty() || held.starts_with(b"HTTP/");
        let other = || Error::wrong_server("find an HTTP server", peer, &held);
        let broken = |error: HeadError| {
            if is_http { Error::protocol(peer, error.to_string()) } else { other() }
        };
        match ResponseHead::decode(&held).map_err(broken)? {
            Some((head, len)) if head.status < 200 => {
                held.drain(..len);
            }
            Some((head, len)) => {
                return Ok(IncomingResponse {
                    peer,
                    head,
                    body_start: held.split_off(len),
                    head_at: clock::now(),
                    stream,
                });
            }
            None => {
                let more = read_some(stream, peer, deadline, phase)?;
                if more.is_empty() {
                    let closed = closed(peer, "it closed before it answered");
                    return Err(if is_http { closed } else { other() });
                }
                held.extend(more);
            }
        }
    }
}

/// Gets `target` from the first of `addrs` that answers, and returns the body.
///
/// # Errors
/// No answer within 10 s; a status other than 200; a body that is encoded, cut short or longer
/// than `max` bytes.
pub fn get(addrs: &[SocketAddr], host: &str, target: &str, max: usize) -> Result<Vec<u8>> {
    let deadline = clock::now().after(GET_LIMIT);
    let stream = socket::connect(addrs, deadline)?;
    let request = HeadBuilder::request("GET", target, host).encode();
    let response = exchange(&stream, &request, deadline, Phase::Connect)?;
    if response.head.status != 200 {
        let reason = format!("status {}", response.head.status);
        return Err(Error::refused(response.peer, reason));
    }
    response.body(max, deadline)
}

impl IncomingResponse<'_> {
    /// The length of the body, if the server announced it.
    ///
    /// # Errors
    /// The field is invalid.
    pub fn content_length(&self) -> Result<Option<u64>> {
        let length = self.head.headers.content_length();
        length.map_err(|error| Error::protocol(self.peer, error.to_string()))
    }

    /// Refuses a body that is encoded in any way.
    ///
    /// # Errors
    /// It is.
    pub fn require_plain_body(&self) -> Result<()> {
        for name in ["transfer-encoding", "content-encoding"] {
            let value = self.head.headers.get(name).unwrap_or("identity");
            if value != "identity" {
                let value = crate::text::escape(value);
                let what = format!("{name} {value}, which was not asked for");
                return Err(Error::protocol(self.peer, what));
            }
        }
        Ok(())
    }

    /// The next bytes of the body; empty when the server closed the connection.
    ///
    /// # Errors
    /// [`Error::TimedOut`] in `phase`, or the system's.
    pub fn read_some(&self, deadline: Moment, phase: Phase) -> Result<Vec<u8>> {
        read_some(self.stream, self.peer, deadline, phase)
    }

    /// The whole body, of at most `max` bytes.
    fn body(self, max: usize, deadline: Moment) -> Result<Vec<u8>> {
        self.require_plain_body()?;
        let length = self.content_length()?;
        let too_long = || Error::protocol(self.peer, format!("an answer longer than {max} bytes"));
        if length.is_some_and(|length| length > max as u64) {
            return Err(too_long());
        }
        let wanted = length.and_then(|length| usize::try_from(length).ok());
        let mut body = self.body_start.clone();
        while body.len() <= max && wanted.is_none_or(|wanted| body.len() < wanted) {
            let more = self.read_some(deadline, Phase::Connect)?;
            if more.is_empty() && wanted.is_some() {
                return Err(closed(self.peer, "it closed in the middle of its answer"));
            }
            if more.is_empty() {
                break;
            }
            body.extend(more);
        }
        body.truncate(wanted.unwrap_or(usize::MAX));
        if body.len() > max {
            return Err(too_long());
        }
        Ok(body)
    }

    /// Why the server refused: the first line of the body, escaped, or the status's phrase.
    pub fn refusal(&self) -> String {
        let mut body = self.body_start.clone();
        let deadline = clock::now().after(REASON_LIMIT);
        let wanted = self.content_length().ok().flatten().unwrap_or(0);
        while (body.len() as u64) < wanted.min(REASON_MAX) {
            match self.read_some(deadline, Phase::Transfer) {
                Ok(more) if !more.is_empty() => body.extend(more),
                _ => break,
            }
        }
        body.truncate(REASON_MAX as usize);
        let text = String::from_utf8_lossy(&body);
        match text.lines().next().map(str::trim) {
            Some(line) if !line.is_empty() && !line.starts_with('<') => crate::text::escape(line),
            _ => reason(self.head.status).to_owned(),
        }
    }
}

fn read_some(
    stream: &TcpStream,
    peer: SocketAddr,
    deadline: Moment,
    phase: Phase,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 8192];
    let begun = clock::now();
    match socket::read_until(stream, &mut bytes, deadline) {
        Ok(len) => {
            bytes.truncate(len);
            Ok(bytes)
        }
        Err(error) if Error::is_timeout(&error) => {
            Err(Error::timed_out(phase, peer, deadline.since(begun)))
        }
        Err(error) => Err(Error::io("read the response", peer)(error)),
    }
}

/// The error of a connection that ended too early.
pub fn closed(peer: SocketAddr, what: &str) -> Error {
    Error::io("read the response", peer)(io::Error::new(io::ErrorKind::UnexpectedEof, what))
}
