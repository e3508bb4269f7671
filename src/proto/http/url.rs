//! An `http://` URL.

use crate::{
    error::{Error, Result},
    text::escape,
};

/// An `http://` URL in its parts (RFC 3986).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The host, with its port if it names one.
    pub host: String,
    /// Path and query, as a request line has them: percent-encoded, from the first `/` on.
    pub target: String,
}

/// Longest URL, bytes.
pub const URL_MAX: usize = 2048;

impl Url {
    /// Parses `text`. A fragment (`#...`) is dropped: it is never sent to a server.
    ///
    /// # Errors
    /// The scheme is not `http`, it names a user or no host, it is longer than [`URL_MAX`], or it
    /// has characters that must be percent-encoded.
    pub fn parse(text: &str) -> Result<Self> {
        let expected = "expected http://HOST[:PORT]/PATH, percent-encoded, without a user";
        let invalid =
            || Error::refused("gatecast", format!("invalid URL '{}': {expected}", escape(text)));
        let rest = text.strip_prefix("http://").ok_or_else(invalid)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > URL_MAX || !is_printable || host.is_empty() || host.contains('@') {
            return Err(invalid());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), target: format!("{slash}{target}") })
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The last segment of the path, percent-encoded; empty where the path ends with `/`.
    pub fn last_segment(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}
