//! The server's end of HTTP: requests read from a connection and responses sent on it, each by an
//! absolute deadline.

use std::{
    io,
    io::Write,
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use crate::{
    net::{clock, copy, socket},
    proto::http::{
        HeadError,
        head::HeadBuilder,
        request::{HttpRequest, RequestBuf},
        response::HttpResponse,
        text,
    },
    units::Moment,
};

/// A connection on which a client sends requests.
#[derive(Debug)]
pub struct HttpConnection {
    /// The connection.
    pub stream: Arc<TcpStream>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The connection ends after the present response.
    pub closes: bool,
    /// What the client sent beyond the present request is kept here for the next one.
    buf: RequestBuf,
}

/// Begins a response's head with the fields that every response has.
pub fn head(status: u16, closes: bool) -> HeadBuilder {
    HeadBuilder::response(status)
        .field("Date", text::date(clock::wall()))
        .field("X-Content-Type-Options", "nosniff")
        .field("Cross-Origin-Resource-Policy", "same-origin")
        .field("Referrer-Policy", "no-referrer")
        .field("Connection", if closes { "close" } else { "keep-alive" })
}

/// How long a head or a body that has begun to come may take.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long a client may take to accept a response that is held in memory.
pub const RESPONSE_LIMIT: Duration = Duration::from_secs(30);

/// Up to this length a body is copied behind its head and sent in one write; a longer one may be
/// shared by many slow readers.
const ONE_WRITE: usize = 16 * 1024;

impl HttpConnection {
    /// A connection of which `first` has been read already.
    pub fn new(stream: Arc<TcpStream>, peer: SocketAddr, first: &[u8]) -> Self {
        let mut buf = RequestBuf::default();
        buf.push(first);
        Self { stream, peer, closes: false, buf }
    }

    /// The next request with its body; `None` when the client closed the connection, or began no
    /// request by `deadline`.
    ///
    /// # Errors
    /// The bytes are not a request, or only a part of it came in time.
    pub fn read_request(
        &mut self,
        deadline: Moment,
    ) -> Result<Option<(HttpRequest, Vec<u8>)>, HeadError> {
        let mut begun = (self.buf.held() > 0).then_some(deadline);
        loop {
            if let Some(request) = self.buf.next_request()? {
                let body = self.read_body(&request)?;
                return Ok(Some((request, body)));
            }
            match self.read_more(begun.unwrap_or(deadline)) {
                Ok(true) => {}
                Err(_) if begun.is_some() => return Err(late("no complete request")),
                Ok(false) | Err(_) => return Ok(None),
            }
            begun.get_or_insert_with(|| clock::now().after(REQUEST_LIMIT));
        }
    }

    fn read_body(&mut self, request: &HttpRequest) -> Result<Vec<u8>, HeadError> {
        let length = request.body_length()?;
        if length > 0 && request.headers.lists("expect", "100-continue") {
            // If the connection is lost here, the read below fails.
            let _ = (&*self.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let deadline = clock::now().after(REQUEST_LIMIT);
        while self.buf.held() < length {
            if !matches!(self.read_more(deadline), Ok(true)) {
                return Err(late("no complete body"));
            }
        }
        Ok(self.buf.take(length))
    }

    /// Reads what has come; `false` when the client closed its end.
    fn read_more(&mut self, deadline: Moment) -> io::Result<bool> {
        let mut bytes = [0; 2048];
        let len = socket::read_until(&self.stream, &mut bytes, deadline)?;
        self.buf.push(&bytes[..len]);
        Ok(len > 0)
    }

    /// Sends `bytes`, which the client must accept within `limit`.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub fn send(&self, bytes: &[u8], limit: Duration) -> io::Result<()> {
        copy::send_all(&self.stream, bytes, clock::now().after(limit)).map_err(Into::into)
    }

    /// Sends `response`, whose head begins with `head`, within [`RESPONSE_LIMIT`]; without its body
    /// where the request was a HEAD.
    ///
    /// # Errors
    /// The client is gone or does not read.
    pub fn respond(
        &self,
        response: &HttpResponse,
        head: HeadBuilder,
        without_body: bool,
    ) -> io::Result<()> {
        let deadline = clock::now().after(RESPONSE_LIMIT);
        let send = |bytes: &[u8]| copy::send_all(&self.stream, bytes, deadline);
        if without_body || response.body.len() <= ONE_WRITE {
            send(&response.encode(head, without_body))?;
        } else {
            send(&response.encode(head, true))?;
            send(&response.body)?;
        }
        Ok(())
    }

    /// Ends the connection, as [`socket::close`].
    pub fn close(self) {
        socket::close(&self.stream);
    }
}

fn late(what: &str) -> HeadError {
    HeadError::new(408, format!("{what} within {} s", REQUEST_LIMIT.as_secs()))
}
