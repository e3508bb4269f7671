//! HTTP/1.1 messages (RFC 9110, RFC 9112): the heads of requests and responses, read and written,
//! with limits. No connections, no routes.
//!
//! - [`head`]: writes the head of a request or of a response
//! - [`request`]: a request as a server reads it
//! - [`response`]: a response in memory, and its head as a client reads it
//! - [`range`]: which part of a file is wanted (RFC 9110, section 14)
//! - [`url`]: an `http://` URL
//! - [`text`]: percent codes, queries, dates, Base64, and the lines of server-sent events
//!
//! The bytes that follow a head are left to the caller, so that pipelined requests and payloads
//! are neither lost nor read twice.
//!
//! | limit | value |
//! |---|---|
//! | request line | [`LINE_MAX`], 414 beyond |
//! | whole head | [`HEAD_MAX`], 431 beyond |
//! | header fields | [`HEADERS_MAX`], 431 beyond |
//! | body of a POST | [`BODY_MAX`], 413 beyond |

use std::fmt;

pub mod head;
pub mod range;
pub mod request;
pub mod response;
pub mod text;
pub mod url;

#[cfg(test)]
mod tests;

/// Longest request or status line, bytes, its end included. A tracker's announce has 350.
pub const LINE_MAX: usize = 4096;

/// Longest head, bytes, the empty line included.
pub const HEAD_MAX: usize = 16 * 1024;

/// Most header fields; browsers send about 20.
pub const HEADERS_MAX: usize = 64;

/// Longest body that a request may have, bytes: a receipt is about 100.
pub const BODY_MAX: usize = 1024;

/// Why a head is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadError {
    /// The status code that a server answers with before it closes.
    pub status: u16,
    /// What is wrong, as one clause.
    pub why: String,
}

/// Header fields in the order in which they came, names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl HeadError {
    /// An error that a server answers with `status`.
    pub fn new(status: u16, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { status, why }
    }

    fn bad(why: impl Into<String>) -> Self {
        Self::new(400, why)
    }
}

impl Headers {
    /// The value of `name` (lower case): the first, where it came several times.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// All values of `name` (lower case).
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// True when the comma-separated list `name` holds `token`, whatever its case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// The length that the body has (RFC 9112, section 6.2).
    ///
    /// # Errors
    /// The field is there twice, or its value is not a decimal number.
    pub fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut values = self.all("content-length");
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(HeadError::bad("two Content-Length fields")),
            (Some(value), None) => text::digits(value)
                .map(Some)
                .ok_or_else(|| HeadError::bad("a Content-Length that is not a number")),
        }
    }

    /// Reads the field lines of a head, which end in an empty line (RFC 9112, section 5).
    fn parse(mut lines: &[u8]) -> Result<Self, HeadError> {
        let mut fields = Vec::new();
        loop {
            let line = take_line(&mut lines).expect("a head ends in an empty line");
            if line.is_empty() {
                return Ok(Self(fields));
            }
            if fields.len() == HEADERS_MAX {
                let why = format!("more than {HEADERS_MAX} header fields");
                return Err(HeadError::new(431, why));
            }
            fields.push(field(line)?);
        }
    }
}

/// One field line: a token, a colon right after it, a value without controls.
fn field(line: &[u8]) -> Result<(String, String), HeadError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadError::bad("a folded header field"));
    }
    let colon = line
        .iter()
        .position(|&byte| byte == b':')
        .ok_or_else(|| HeadError::bad("a header field without a colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(HeadError::bad("a header name that is not a token"));
    }
    // A tab is the only control that a value may hold (RFC 9110, section 5.5).
    if value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(HeadError::bad("a header value with a control character"));
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let value = String::from_utf8_lossy(value.trim_ascii()).into_owned();
    Ok((name, value))
}

/// Takes the next line off `bytes`, without its LF or CR LF (RFC 9112, section 2.2, allows both).
fn take_line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let line = &bytes[..end];
    *bytes = &bytes[end + 1..];
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Where the head that begins at the start of `bytes` ends, its empty line included; `None` until
/// more has come.
///
/// # Errors
/// The first line or the head is over its limit.
fn head_end(bytes: &[u8]) -> Result<Option<usize>, HeadError> {
    let first = bytes.iter().take(LINE_MAX).position(|&byte| byte == b'\n');
    if first.is_none() && bytes.len() >= LINE_MAX {
        let why = format!("a first line longer than {LINE_MAX} bytes");
        return Err(HeadError::new(414, why));
    }
    let held = &bytes[..bytes.len().min(HEAD_MAX)];
    let mut rest = held;
    while let Some(line) = take_line(&mut rest) {
        if line.is_empty() {
            return Ok(Some(held.len() - rest.len()));
        }
    }
    if bytes.len() < HEAD_MAX {
        return Ok(None);
    }
    let why = format!("a head longer than {HEAD_MAX} bytes");
    Err(HeadError::new(431, why))
}

/// A character of a token (RFC 9110, section 5.6.2).
/// The rest of `text` after `prefix`, in letters of either case.
fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for HeadError {}
