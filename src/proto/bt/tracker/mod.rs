//! HTTP trackers (BEP 3, 7, 23, 48): what peers ask, and what they are answered.
//!
//! Values in a query are bytes and are decoded once. An address in a query (`ip`, `ipv4`) is
//! never read: a peer's address is that of its connection. Responses are compact.
//!
//! - [`announce`]: the query of an announce; [`response`]: its response
//! - [`scrape`]: how many peers a torrent has

use std::fmt;

use crate::proto::{bt::bencode::BencodeError, percent};

pub mod announce;
pub mod response;
pub mod scrape;

/// Why a request cannot be answered, or a response not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerError {
    /// A parameter or entry is missing or has another type.
    Missing(&'static str),
    /// The value of a parameter or entry is invalid, and what was expected.
    Invalid(&'static str, &'static str),
    /// Our tracker refuses.
    Refused(&'static str),
    /// The response has so many bytes, which is too long.
    TooLong(usize),
    /// The response is not bencode.
    Bencode(BencodeError),
    /// The tracker's own reason, escaped.
    Failure(String),
}

/// The one value of `key` in a query, decoded.
fn parameter(query: &str, key: &'static str) -> Result<Option<Vec<u8>>, TrackerError> {
    let mut found =
        query.split('&').filter_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
    let Some((_, value)) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(TrackerError::Invalid(key, "one value"));
    }
    let bytes = percent::decode(value);
    bytes.map(Some).ok_or(TrackerError::Invalid(key, "valid percent-encoding"))
}

impl fmt::Display for TrackerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "'{key}' is missing"),
            Self::Invalid(key, expected) => write!(f, "invalid '{key}': expected {expected}"),
            Self::Refused(reason) => f.write_str(reason),
            Self::TooLong(len) => write!(f, "a response of {len} bytes is too long"),
            Self::Bencode(error) => error.fmt(f),
            Self::Failure(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for TrackerError {}

#[cfg(test)]
mod tests;
