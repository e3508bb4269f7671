//! Which part of a file is wanted (RFC 9110, section 14): one range of bytes, or all of it.
//!
//! Several ranges in one request have made servers run out of memory (CVE-2011-3192), and no
//! client of ours needs them. They are ignored like a malformed field, as the RFC allows, and the
//! answer is the whole file.

use std::ops::Range;

use crate::proto::http::{strip_prefix, text::digits};

/// The part of a file that a Range field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedRange {
    /// All of it: 200.
    Whole,
    /// This part: 206.
    Part(Range<u64>),
    /// A part that the file does not have: 416.
    Unsatisfiable,
}

/// Reads the value of a Range field for a file of `size` bytes.
pub fn requested_range(value: &str, size: u64) -> RequestedRange {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let set = strip_prefix(value, "bytes=").and_then(|set| set.trim().split_once('-'));
    let Some((first, last)) = set.filter(|(first, last)| is_digits(first) && is_digits(last))
    else {
        return RequestedRange::Whole;
    };
    // One beyond u64 is beyond every file, so it becomes the largest u64.
    let position = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap_or(u64::MAX));
    match (position(first), position(last)) {
        (None, Some(0)) => RequestedRange::Unsatisfiable,
        // An empty file has no last bytes: the answer is all of it.
        (None, Some(_)) if size == 0 => RequestedRange::Whole,
        (None, Some(suffix)) => RequestedRange::Part(size.saturating_sub(suffix)..size),
        (Some(first), None) if first < size => RequestedRange::Part(first..size),
        (Some(first), Some(last)) if last < first => RequestedRange::Whole,
        (Some(first), Some(last)) if first < size => {
            RequestedRange::Part(first..last.saturating_add(1).min(size))
        }
        (Some(_), _) => RequestedRange::Unsatisfiable,
        (None, None) => RequestedRange::Whole,
    }
}

/// The value of a Content-Range field of 206.
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1))
}

/// Reads a Content-Range field of 206: the part, and the size of the whole file.
pub fn decode_content_range(value: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (digits(first)?, digits(last)?, digits(size)?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}
