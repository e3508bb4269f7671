//! A response's head (RFC 9112, section 4), written by our server and read by our client.

use std::fmt::Display;
use std::fmt::Write;

use crate::proto::http::Fields;
use crate::proto::http::HeadError;
use crate::proto::http::head_end;
use crate::proto::http::take_line;
use crate::proto::http::text;

/// A response's head being written.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    text: String,
}

/// What a server said before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, three digits.
    pub status: u16,
    /// The header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// A head with `status` and nothing else yet.
    pub fn new(status: u16) -> Self {
        let text = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        Self { status, text }
    }

    /// Adds a field. A control character in `value` would end it, so none comes through.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        let at = self.text.len();
        let _ = write!(self.text, "{name}: {value}");
        if self.text[at..].chars().any(char::is_control) {
            let clean: String = self.text[at..]
                .chars()
                .filter(|c| !c.is_control())
                .collect();
            self.text.replace_range(at.., &clean);
        }
        self.text.push_str("\r\n");
        self
    }

    /// Adds a field where there is a value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// The head as it is sent, the empty line included.
    pub fn encode(mut self) -> Vec<u8> {
        self.text.push_str("\r\n");
        self.text.into_bytes()
    }
}

impl Response {
    /// Reads a response's head off the start of `bytes`, and says how long it is; `None` until
    /// more bytes come. An interim response (1xx) is a head like any other.
    ///
    /// # Errors
    /// Bytes that are no response, or a head over a limit.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let Some(end) = head_end(bytes)? else {
            return Ok(None);
        };
        let mut head = &bytes[..end];
        let line = take_line(&mut head).expect("a head has a first line");
        let status = line
            .strip_prefix(b"HTTP/1.")
            .and_then(|rest| {
                rest.strip_prefix(b"1 ")
                    .or_else(|| rest.strip_prefix(b"0 "))
            })
            .filter(|rest| rest.len() == 3 || rest.get(3) == Some(&b' '))
            .and_then(|rest| std::str::from_utf8(&rest[..3]).ok())
            .and_then(text::digits)
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (100..600).contains(status))
            .ok_or_else(|| HeadError::bad("a first line that is no HTTP/1 status line"))?;
        let fields = Fields::parse(head)?;
        Ok(Some((Self { status, fields }, end)))
    }
}

/// The phrase that belongs to a status (RFC 9110, section 15).
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
