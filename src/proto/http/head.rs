//! The head of a request or of a response, as it is written.

use std::fmt::{Display, Write};

/// Writes a head, field by field.
#[derive(Clone, Debug)]
#[must_use]
pub struct HeadBuilder(String);

impl HeadBuilder {
    /// A response's head with the status line only.
    pub fn response(status: u16) -> Self {
        Self(format!("HTTP/1.1 {status} {}\r\n", reason(status)))
    }

    /// A request's head for `target`, which is a path with its query, at `host`. The connection
    /// carries this one request.
    pub fn request(method: &str, target: &str, host: &str) -> Self {
        Self(format!("{method} {target} HTTP/1.1\r\n"))
            .field("Host", host)
            .field("User-Agent", concat!("gatecast/", env!("CARGO_PKG_VERSION")))
            .field("Connection", "close")
    }

    /// Adds a field. Control characters in `value` are left out: one of them could end the field.
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        let at = self.0.len();
        let _ = write!(self.0, "{name}: {value}");
        if self.0[at..].chars().any(char::is_control) {
            let clean: String = self.0[at..].chars().filter(|c| !c.is_control()).collect();
            self.0.replace_range(at.., &clean);
        }
        self.0.push_str("\r\n");
        self
    }

    /// Adds a field if it has a value.
    pub fn maybe(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// The bytes of the head, its empty line included.
    pub fn encode(mut self) -> Vec<u8> {
        self.0.push_str("\r\n");
        self.0.into_bytes()
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
