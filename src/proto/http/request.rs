//! A request's head (RFC 9112, section 3), and the buffer that heads are taken from.

use crate::proto::{
    http::{
        BODY_MAX, HeadError, Headers, LINE_MAX, head_end, is_token, strip_prefix, take_line,
        text::QueryPairs,
    },
    percent,
};

/// A request's method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpMethod {
    /// Asks for the body.
    Get,
    /// Asks for the head that GET would have.
    Head,
    /// Sends a body.
    Post,
    /// Asks which methods are allowed.
    Options,
    /// A method that nothing here answers.
    Other(String),
}

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// The method.
    pub method: HttpMethod,
    /// The target's path, percent-decoded once; `*` for OPTIONS.
    pub path: String,
    /// The target's query as it was sent, without the `?`.
    pub query: Option<String>,
    /// 0 or 1: the minor version of HTTP/1.
    pub minor: u8,
    /// The host that was asked for, without its port; `None` only in HTTP/1.0.
    pub host: Option<String>,
    /// The header fields.
    pub headers: Headers,
}

/// Collects bytes until a whole head has come.
#[derive(Debug, Default)]
pub struct RequestBuf {
    bytes: Vec<u8>,
    /// How many bytes were searched without finding the end of the head.
    seen: usize,
}

impl RequestBuf {
    /// Appends the bytes that a read returned.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next request, or `None` until more bytes come. What follows it stays.
    ///
    /// # Errors
    /// The bytes are not a request, or exceed a limit. The caller closes the connection.
    pub fn next_request(&mut self) -> Result<Option<HttpRequest>, HeadError> {
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
        // A head ends with a line end: without a new one there is nothing to search.
        let new = self.bytes.get(self.seen..).unwrap_or_default();
        if !new.contains(&b'\n') && held.len() < LINE_MAX {
            self.seen = self.bytes.len();
            return Ok(None);
        }
        self.seen = self.bytes.len();
        let Some(end) = head_end(held)? else {
            return Ok(None);
        };
        let request = HttpRequest::parse(&held[..end])?;
        self.bytes.drain(..blank + end);
        self.seen = 0;
        Ok(Some(request))
    }

    /// Takes up to `max` bytes that came after the head.
    pub fn take(&mut self, max: usize) -> Vec<u8> {
        self.seen = 0;
        let end = self.bytes.len().min(max);
        self.bytes.drain(..end).collect()
    }

    /// How many bytes are buffered.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }
}

impl HttpRequest {
    /// The program that asks, with its version: the first word of its User-Agent.
    pub fn agent(&self) -> Option<&str> {
        self.headers.get("user-agent")?.split(' ').next()
    }

    /// True when a browser says that a page of another site made it send this request. It says so
    /// by Sec-Fetch-Site where it trusts the connection, else by Origin or Referer, whose host is
    /// then not ours. Other programs send none of them.
    pub fn is_cross_site(&self) -> bool {
        if let Some(site) = self.headers.get("sec-fetch-site") {
            return !matches!(site, "same-origin" | "none");
        }
        let own = self.headers.get("host").unwrap_or_default();
        let from = ["origin", "referer"].into_iter().filter_map(|name| self.headers.get(name));
        from.map(|url| url.split_once("://").map_or("", |(_, rest)| rest)).any(|rest| {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            !host.eq_ignore_ascii_case(own)
        })
    }

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
            return Err(HeadError::bad("a request line that is not METHOD TARGET VERSION"));
        };
        let method = HttpMethod::parse(method)?;
        let minor = match version {
            "HTTP/1.1" => 1,
            "HTTP/1.0" => 0,
            _ if version.starts_with("HTTP/") => {
                return Err(HeadError::new(505, "a version other than HTTP/1.0 and 1.1"));
            }
            _ => return Err(HeadError::bad("a request line without a version")),
        };
        let headers = Headers::parse(head)?;
        let (authority, target) = split_target(target, &method)?;
        let host = host(&headers, authority, minor)?;
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let path = percent::decode(path)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| HeadError::bad("a path with a broken percent code"))?;
        if headers.get("transfer-encoding").is_some() {
            // With a Content-Length beside it this is how requests are smuggled (RFC 9112, 11.2).
            let both = headers.get("content-length").is_some();
            let status = if both { 400 } else { 501 };
            return Err(HeadError::new(status, "a body with a Transfer-Encoding"));
        }
        let request = Self { method, path, query, minor, host, headers };
        request.body_length()?;
        Ok(request)
    }

    /// The length of the body, bytes; only a POST may have one.
    ///
    /// # Errors
    /// The length is not a number, too large, or the method allows no body.
    pub fn body_length(&self) -> Result<usize, HeadError> {
        let length = self.headers.content_length()?.unwrap_or(0);
        if length > 0 && self.method != HttpMethod::Post {
            return Err(HeadError::bad("a body where none is allowed"));
        }
        usize::try_from(length)
            .ok()
            .filter(|&length| length <= BODY_MAX)
            .ok_or_else(|| HeadError::new(413, format!("a body longer than {BODY_MAX} bytes")))
    }

    /// True when the client expects the connection to stay (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.minor {
            0 => self.headers.lists("connection", "keep-alive"),
            _ => !self.headers.lists("connection", "close"),
        }
    }

    /// The decoded pairs of the query.
    ///
    /// # Errors
    /// A broken percent code, or too many pairs.
    pub fn query_pairs(&self) -> Result<QueryPairs, HeadError> {
        QueryPairs::parse(self.query.as_deref().unwrap_or_default())
            .ok_or_else(|| HeadError::bad("a query with a broken percent code"))
    }
}

impl HttpMethod {
    fn parse(word: &str) -> Result<Self, HeadError> {
        Ok(match word {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "OPTIONS" => Self::Options,
            _ if !word.is_empty() && word.bytes().all(is_token) => Self::Other(word.to_owned()),
            _ => return Err(HeadError::bad("a method that is not a token")),
        })
    }
}

/// The authority, where the target is in absolute form, and the path with its query.
fn split_target<'a>(
    target: &'a str,
    method: &HttpMethod,
) -> Result<(Option<&'a str>, &'a str), HeadError> {
    if target.starts_with('/') || (target == "*" && *method == HttpMethod::Options) {
        return Ok((None, target));
    }
    let Some(rest) = strip_prefix(target, "http://") else {
        return Err(HeadError::bad("a target that is neither a path nor an http URL"));
    };
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => Ok((Some(&rest[..at]), &rest[at..])),
        Some(_) => Err(HeadError::bad("a URL without a path")),
        None => Ok((Some(rest), "/")),
    }
}

/// The requested host (RFC 9112, section 3.2): HTTP/1.1 requires exactly one.
fn host(
    headers: &Headers,
    authority: Option<&str>,
    minor: u8,
) -> Result<Option<String>, HeadError> {
    let mut hosts = headers.all("host");
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(HeadError::bad("two Host fields"));
    }
    let given = match (authority, first) {
        (Some(authority), Some(_)) => authority,
        (Some(authority), None) if minor == 0 => authority,
        (None, Some(host)) => host,
        (None, None) if minor == 0 => return Ok(None),
        _ => return Err(HeadError::bad("no Host field")),
    };
    let (host, port) = match given.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or_default(),
        None => given.split_at(given.find(':').unwrap_or(given.len())),
    };
    // An empty port is legal (RFC 3986, section 3.2.3).
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if host.is_empty() || !(port.is_empty() || port.strip_prefix(':').is_some_and(is_number)) {
        let given = crate::text::escape(given);
        return Err(HeadError::bad(format!("an invalid Host: '{given}'")));
    }
    Ok(Some(host.to_ascii_lowercase()))
}
