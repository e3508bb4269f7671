//! Requests off a connection, and answers onto it, each under an absolute deadline.
//!
//! A client that dribbles its head is told so and closed; one that is idle between requests is
//! closed without a word. What a client sends beyond its request stays in the buffer for the next.

use std::borrow::Cow;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::http::Face;
use crate::http::routes::Answer;
use crate::net::clock;
use crate::net::line_stream::LineStream;
use crate::net::socket;
use crate::proto::http::HeadError;
use crate::proto::http::request::Method;
use crate::proto::http::request::Request;
use crate::proto::http::request::RequestBuf;
use crate::proto::http::response::ResponseHead;
use crate::proto::http::response::reason;
use crate::proto::http::text;
use crate::server::listener::Connection;
use crate::server::listener::GREETING_LIMIT;
use crate::server::lobby::Lobby;
use crate::units::Moment;

/// An answer that is held in memory.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// What the body is, as Content-Type has it.
    pub kind: &'static str,
    /// The body.
    pub body: Cow<'static, [u8]>,
    /// More header fields.
    pub fields: Vec<(&'static str, String)>,
}

/// A connection being served.
pub(super) struct Line<'a> {
    pub(super) stream: &'a Arc<TcpStream>,
    pub(super) peer: SocketAddr,
    buf: RequestBuf,
    /// Whether the connection ends after the present answer.
    pub(super) closes: bool,
}

/// Most requests on one connection.
pub const REQUESTS_MAX: u32 = 100;

/// How long a connection may be idle between requests.
pub const IDLE: Duration = Duration::from_secs(10);

/// Connections above which none is kept for a next request.
pub const CROWD: usize = 1000;

/// How long an answer held in memory may take to be taken.
pub const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// Counts itself in while it lives.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    /// One more, unless that would be more than `most`.
    pub(super) fn new(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reply {
    /// An answer of one sentence.
    pub fn say(status: u16, sentence: impl AsRef<str>) -> Self {
        let sentence = crate::text::escape(sentence.as_ref());
        Self::new(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
    }

    /// An answer that is a JSON document.
    pub fn json(document: String) -> Self {
        Self::new(200, "application/json", document)
    }

    /// An answer of `kind`.
    pub fn new(status: u16, kind: &'static str, body: String) -> Self {
        Self {
            status,
            kind,
            body: Cow::Owned(body.into_bytes()),
            fields: Vec::new(),
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

impl Face {
    /// Serves one connection until it ends.
    pub(super) fn serve(&self, connection: Connection, lobby: &Arc<Lobby>) {
        let Connection {
            stream,
            peer,
            first,
            deadline,
        } = connection;
        let _here = Counted::new(&self.counts.connections, usize::MAX);
        let mut line = Line {
            stream: &stream,
            peer,
            buf: RequestBuf::default(),
            closes: false,
        };
        line.buf.push(&first);
        let mut by = deadline;
        for served in 1..=REQUESTS_MAX {
            let request = match line.hear(by) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(error) => {
                    log::debug!("{peer}: {error}");
                    line.closes = true;
                    self.reply(&line, Reply::say(error.status, &error.why), false);
                    break;
                }
            };
            line.closes = !request.keeps_alive()
                || served == REQUESTS_MAX
                || self.counts.connections.load(Ordering::Relaxed) > CROWD;
            match self.answer(&request, &mut line, lobby) {
                Ok(()) if !line.closes => by = clock::now().after(IDLE),
                Ok(()) => break,
                Err(error) => {
                    log::debug!("{peer}: {error}");
                    return;
                }
            }
        }
        LineStream::new(&stream, peer, b"").close();
    }

    fn answer(&self, request: &Request, line: &mut Line<'_>, lobby: &Arc<Lobby>) -> io::Result<()> {
        let body = match line.body(request) {
            Ok(body) => body,
            Err(error) => {
                line.closes = true;
                self.reply(line, Reply::say(error.status, &error.why), false);
                return Ok(());
            }
        };
        let without_body = request.method == Method::Head;
        match self.route(request, &body, line, lobby) {
            Answer::Reply(reply) => {
                self.reply(line, reply, without_body);
                Ok(())
            }
            Answer::File(download) => self.send_file(&download, line, without_body),
            Answer::Seat(wish) => {
                line.closes = true;
                self.send_at_gate(&wish, request, line, lobby)
            }
            Answer::Events => {
                line.closes = true;
                self.stream_events(line, lobby)
            }
        }
    }

    /// Sends an answer; what becomes of a client that does not take it is its own affair.
    pub(super) fn reply(&self, line: &Line<'_>, reply: Reply, without_body: bool) {
        let mut head = self
            .head(reply.status, line.closes)
            .field("Content-Type", reply.kind)
            .field("Content-Length", reply.body.len());
        if !reply
            .fields
            .iter()
            .any(|(name, _)| *name == "Cache-Control")
        {
            head = head.field("Cache-Control", "no-store");
        }
        for (name, value) in &reply.fields {
            head = head.field(name, value);
        }
        let mut bytes = head.encode();
        if !without_body {
            bytes.extend_from_slice(&reply.body);
        }
        if let Err(error) = send_by(line.stream, &bytes, clock::now().after(REPLY_LIMIT)) {
            log::debug!("{}: {error}", line.peer);
        }
    }

    /// The fields that every answer has.
    pub(super) fn head(&self, status: u16, closes: bool) -> ResponseHead {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.counts.requests[class].fetch_add(1, Ordering::Relaxed);
        ResponseHead::new(status)
            .field("Date", text::date(clock::wall()))
            .field("Gatecast", 1)
            .field("X-Content-Type-Options", "nosniff")
            .field("Cross-Origin-Resource-Policy", "same-origin")
            .field("Referrer-Policy", "no-referrer")
            .field("Connection", if closes { "close" } else { "keep-alive" })
    }
}

impl Line<'_> {
    /// The next request; `None` when the client closed or was idle until `by`.
    fn hear(&mut self, by: Moment) -> Result<Option<Request>, HeadError> {
        let mut begun = (self.buf.held() > 0).then_some(by);
        loop {
            if let Some(request) = self.buf.next_request()? {
                return Ok(Some(request));
            }
            match self.read(begun.unwrap_or(by)) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(_) if begun.is_none() => return Ok(None),
                Err(_) => {
                    return Err(HeadError {
                        status: 408,
                        why: format!("{} within the time for it", reason(408)),
                    });
                }
            }
            begun.get_or_insert_with(|| clock::now().after(GREETING_LIMIT));
        }
    }

    /// The body that `request` announced.
    fn body(&mut self, request: &Request) -> Result<Vec<u8>, HeadError> {
        let length = request.body_length()?;
        if length > 0 && request.fields.lists("expect", "100-continue") {
            // Lost with the connection, which the read below finds out.
            let _ = (&**self.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let by = clock::now().after(GREETING_LIMIT);
        while self.buf.held() < length {
            match self.read(by) {
                Ok(true) => {}
                _ => {
                    return Err(HeadError {
                        status: 408,
                        why: "the body did not come".to_owned(),
                    });
                }
            }
        }
        Ok(self.buf.take(length))
    }

    /// Reads what has come; `false` when the client has said its last.
    fn read(&mut self, by: Moment) -> io::Result<bool> {
        let mut bytes = [0; 2048];
        loop {
            if !socket::bound_read(self.stream, by)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match (&**self.stream).read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(len) => {
                    self.buf.push(&bytes[..len]);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes all of `bytes` by `deadline`, however slowly they are taken until then.
pub(super) fn send_by(
    mut stream: &TcpStream,
    mut bytes: &[u8],
    deadline: Moment,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let Some(left) = clock::left(deadline) else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        stream.set_write_timeout(Some(left))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
