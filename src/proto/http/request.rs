//! A request's head (RFC 9112, section 3), and the buffer that heads are taken from.

use std::fmt::Write;

use crate::proto::http::Fields;
use crate::proto::http::HeadError;
use crate::proto::http::LINE_MAX;
use crate::proto::http::head_end;
use crate::proto::http::is_token;
use crate::proto::http::take_line;
use crate::proto::http::text;
use crate::proto::percent;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Give the body.
    Get,
    /// Give the head that GET would have.
    Head,
    /// Take this body.
    Post,
    /// Say which methods there are.
    Options,
    /// A method that nothing here answers.
    Other(String),
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// The target's path, percent-decoded once; `*` for OPTIONS.
    pub path: String,
    /// The target's query as it was sent, without the `?`.
    pub query: Option<String>,
    /// 0 or 1: the minor version of HTTP/1.
    pub minor: u8,
    /// The host that was asked for, without its port; `None` only in HTTP/1.0.
    pub host: Option<String>,
    /// The header fields.
    pub fields: Fields,
}

/// Collects bytes until there is a head.
#[derive(Debug, Default)]
pub struct RequestBuf {
    bytes: Vec<u8>,
    /// How much was looked at without finding the head's end.
    seen: usize,
}

impl RequestBuf {
    /// Takes what a read returned.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next request, or `None` until more bytes come. What follows it stays.
    ///
    /// # Errors
    /// Bytes that are no request, or one over a limit; the connection is to be closed.
    pub fn next_request(&mut self) -> Result<Option<Request>, HeadError> {
        // Empty lines before a request are passed over (RFC 9112, section 2.2).
        let mut rest = &self.bytes[..];
        let mut after = rest;
        while let Some(b"") = take_line(&mut after) {
            rest = after;
        }
        let blank = self.bytes.len() - rest.len();
        if blank > LINE_MAX {
            return Err(HeadError::bad("nothing but empty lines"));
        }
        let held = &self.bytes[blank..];
        // A line end is what a head's end needs; without a new one there is nothing to look for.
        let new = self.bytes.get(self.seen..).unwrap_or_default();
        if !new.contains(&b'\n') && held.len() < LINE_MAX {
            self.seen = self.bytes.len();
            return Ok(None);
        }
        self.seen = self.bytes.len();
        let Some(end) = head_end(held)? else {
            return Ok(None);
        };
        let request = Request::parse(&held[..end])?;
        self.bytes.drain(..blank + end);
        self.seen = 0;
        Ok(Some(request))
    }

    /// Takes up to `max` bytes that came after the head: of a body.
    pub fn take(&mut self, max: usize) -> Vec<u8> {
        self.seen = 0;
        let end = self.bytes.len().min(max);
        self.bytes.drain(..end).collect()
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }
}

impl Request {
    /// Reads a whole head, its empty line included.
    fn parse(mut head: &[u8]) -> Result<Self, HeadError> {
        let line = take_line(&mut head).expect("a head has a first line");
        let line = std::str::from_utf8(line)
            .ok()
            .filter(|line| line.bytes().all(|b| (b' '..0x7f).contains(&b)))
            .ok_or_else(|| HeadError::bad("a request line that is not plain ASCII"))?;
        let mut parts = line.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::bad(
                "a request line that is not METHOD TARGET VERSION",
            ));
        };
        let method = Method::parse(method)?;
        let minor = match version {
            "HTTP/1.1" => 1,
            "HTTP/1.0" => 0,
            _ if version.starts_with("HTTP/") => {
                return Err(HeadError {
                    status: 505,
                    why: "a version other than HTTP/1.0 and 1.1".to_owned(),
                });
            }
            _ => return Err(HeadError::bad("a request line without a version")),
        };
        let fields = Fields::parse(head)?;
        let (authority, target) = split_target(target, &method)?;
        let host = host(&fields, authority, minor)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let path = percent::decode(path)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| HeadError::bad("a path with a broken percent code"))?;
        if fields.get("transfer-encoding").is_some() {
            // With a Content-Length beside it this is how requests are smuggled (RFC 9112, 11.2).
            let both = fields.get("content-length").is_some();
            return Err(HeadError {
                status: if both { 400 } else { 501 },
                why: "a body with a Transfer-Encoding".to_owned(),
            });
        }
        let request = Self {
            method,
            path,
            query,
            minor,
            host,
            fields,
        };
        request.body_length()?;
        Ok(request)
    }

    /// How long its body is, bytes; only a POST may have one.
    ///
    /// # Errors
    /// A length that is none, too large, or where there must be no body.
    pub fn body_length(&self) -> Result<usize, HeadError> {
        let length = self.fields.content_length()?.unwrap_or(0);
        if length > 0 && self.method != Method::Post {
            return Err(HeadError::bad("a body where there is none to take"));
        }
        usize::try_from(length)
            .ok()
            .filter(|&length| length <= super::BODY_MAX)
            .ok_or_else(|| HeadError {
                status: 413,
                why: format!("a body longer than {} bytes", super::BODY_MAX),
            })
    }

    /// True when the client expects the connection to stay (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.minor {
            0 => self.fields.lists("connection", "keep-alive"),
            _ => !self.fields.lists("connection", "close"),
        }
    }

    /// The query's pairs, decoded, in order: values are bytes, because a tracker's are no text.
    ///
    /// # Errors
    /// A broken percent code.
    pub fn pairs(&self) -> Result<Vec<(String, Vec<u8>)>, HeadError> {
        text::pairs(self.query.as_deref().unwrap_or_default())
            .ok_or_else(|| HeadError::bad("a query with a broken percent code"))
    }
}

impl Method {
    fn parse(word: &str) -> Result<Self, HeadError> {
        Ok(match word {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "OPTIONS" => Self::Options,
            _ if !word.is_empty() && word.bytes().all(is_token) => Self::Other(word.to_owned()),
            _ => return Err(HeadError::bad("a method that is no token")),
        })
    }
}

/// The authority, where the target is in absolute form, and the path with its query.
fn split_target<'a>(
    target: &'a str,
    method: &Method,
) -> Result<(Option<&'a str>, &'a str), HeadError> {
    if target.starts_with('/') || (target == "*" && *method == Method::Options) {
        return Ok((None, target));
    }
    let absolute = target
        .get(..7)
        .filter(|scheme| scheme.eq_ignore_ascii_case("http://"))
        .map(|_| &target[7..]);
    let Some(rest) = absolute else {
        return Err(HeadError::bad(
            "a target that is neither a path nor an http URL",
        ));
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => Ok((Some(&rest[..at]), &rest[at..])),
        Some(_) => Err(HeadError::bad("a URL without a path")),
        None => Ok((Some(rest), "/")),
    }
}

/// The host asked for (RFC 9112, section 3.2): in HTTP/1.1 exactly one.
fn host(fields: &Fields, authority: Option<&str>, minor: u8) -> Result<Option<String>, HeadError> {
    let mut hosts = fields.all("host");
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(HeadError::bad("two Host fields"));
    }
    let said = match (authority, first) {
        (Some(authority), Some(_)) => authority,
        (Some(authority), None) if minor == 0 => authority,
        (None, Some(host)) => host,
        (None, None) if minor == 0 => return Ok(None),
        _ => return Err(HeadError::bad("no Host field")),
    };
    let bare = match said.strip_prefix('[') {
        Some(v6) => v6
            .split_once(']')
            .map(|(host, port)| (host, port.strip_prefix(':'), port)),
        None => Some(match said.split_once(':') {
            Some((host, port)) => (host, Some(port), port),
            None => (said, None, ""),
        }),
    };
    match bare {
        // An empty port is legal (RFC 3986, section 3.2.3).
        Some((host, port, rest))
            if (rest.is_empty() || port.is_some())
                && port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()))
                && !host.is_empty() =>
        {
            Ok(Some(host.to_ascii_lowercase()))
        }
        _ => {
            let mut why = String::from("a Host that is none: ");
            let _ = write!(why, "'{}'", crate::text::escape(said));
            Err(HeadError::bad(why))
        }
    }
}
