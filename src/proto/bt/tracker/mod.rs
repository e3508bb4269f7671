//! HTTP trackers (BEP 3, 7, 23, 48): what peers ask, and what they are answered.
//!
//! Values in a query are bytes and are decoded once. An address in a query (`ip`, `ipv4`) is
//! never read: a peer's address is that of its connection. Responses are compact.
//!
//! - [`announce`]: the query of an announce; [`response`]: its response
//! - [`scrape`]: how many peers a torrent has

use crate::proto::{line::DecodeError, percent};

pub mod announce;
pub mod response;
pub mod scrape;

/// The one value of `key` in a query, decoded.
fn parameter(query: &str, key: &str) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut found =
        query.split('&').filter_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key));
    let Some((_, value)) = found.next() else {
        return Ok(None);
    };
    if found.next().is_some() {
        return Err(invalid(key, "one value"));
    }
    let bytes = percent::decode(value);
    bytes.map(Some).ok_or_else(|| invalid(key, "valid percent-encoding"))
}

fn missing(key: &str) -> DecodeError {
    DecodeError(format!("'{key}' is missing"))
}

fn invalid(key: &str, expected: &str) -> DecodeError {
    DecodeError(format!("invalid '{key}': expected {expected}"))
}

#[cfg(test)]
mod tests;
