//! Responses (RFC 9112, section 4), written by our server and read by our client.

use std::sync::Arc;

use crate::proto::http::{HeadError, Headers, head::HeadBuilder, head_end, take_line, text};

/// A response that a server holds in memory.
#[derive(Clone, Debug)]
#[must_use]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The value of Content-Type.
    pub content_type: &'static str,
    /// The body, which several responses may share.
    pub body: Arc<[u8]>,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
}

/// A response's head, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code, three digits.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
}

impl HttpResponse {
    /// A response with `body`, whose Content-Type is `content_type`.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body: Vec<u8> = body.into();
        Self::shared(status, content_type, body.into())
    }

    /// A response with a `body` that others may have too.
    pub fn shared(status: u16, content_type: &'static str, body: Arc<[u8]>) -> Self {
        Self { status, content_type, body, headers: Vec::new() }
    }

    /// A response of one sentence, as plain text.
    pub fn text(status: u16, sentence: impl AsRef<str>) -> Self {
        let sentence = crate::text::escape(sentence.as_ref());
        Self::new(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
    }

    /// Adds a header field.
    pub fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The bytes of the response: `head`, completed by this response's fields, then the body,
    /// which is left out in the answer to HEAD.
    pub fn encode(&self, head: HeadBuilder, without_body: bool) -> Vec<u8> {
        let head =
            head.field("Content-Type", self.content_type).field("Content-Length", self.body.len());
        let fields = self.headers.iter();
        let mut bytes = fields.fold(head, |head, (name, value)| head.field(name, value)).encode();
        if !without_body {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

impl ResponseHead {
    /// Decodes the head at the start of `bytes`; returns it with its length, or `None` while bytes
    /// are missing. An interim response (1xx) is a head like any other.
    ///
    /// # Errors
    /// The bytes are not a response, or the head exceeds a limit.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, HeadError> {
        let Some(end) = head_end(bytes)? else {
            return Ok(None);
        };
        let mut head = &bytes[..end];
        let line = take_line(&mut head).expect("a head has a first line");
        let status = line
            .strip_prefix(b"HTTP/1.")
            .and_then(|rest| rest.strip_prefix(b"1 ").or_else(|| rest.strip_prefix(b"0 ")))
            .filter(|rest| rest.len() == 3 || rest.get(3) == Some(&b' '))
            .and_then(|rest| std::str::from_utf8(&rest[..3]).ok())
            .and_then(text::digits)
            .and_then(|status| u16::try_from(status).ok())
            .filter(|status| (100..600).contains(status))
            .ok_or_else(|| HeadError::bad("a first line that is not an HTTP/1 status line"))?;
        let headers = Headers::parse(head)?;
        Ok(Some((Self { status, headers }, end)))
    }
}
