//! Which part of a file is wanted (RFC 9110, section 14): one range of bytes, or all of it.
//!
//! Several ranges in one request are where servers run out of memory (CVE-2011-3192), and no
//! client of ours needs them: like anything malformed they are ignored, as the RFC allows, and
//! the whole file is the answer.

use std::ops::Range;

use crate::proto::http::text::digits;

/// What a Range field asks of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranged {
    /// All of it: 200.
    Whole,
    /// This part: 206.
    Part(Range<u64>),
    /// Nothing that the file has: 416.
    Unsatisfiable,
}

/// Reads the value of a Range field for a file of `size` bytes.
pub fn ranged(value: &str, size: u64) -> Ranged {
    let Some(set) = value
        .get(..6)
        .filter(|unit| unit.eq_ignore_ascii_case("bytes="))
        .map(|_| value[6..].trim())
    else {
        return Ranged::Whole;
    };
    let Some((first, last)) = set.split_once('-') else {
        return Ranged::Whole;
    };
    match (number(first), number(last)) {
        (Number::None, Number::Digits(0)) => Ranged::Unsatisfiable,
        // A file without bytes has no last ones; all of it is what can be given.
        (Number::None, Number::Digits(_)) if size == 0 => Ranged::Whole,
        (Number::None, Number::Digits(suffix)) => Ranged::Part(size.saturating_sub(suffix)..size),
        (Number::Digits(first), Number::None) if first < size => Ranged::Part(first..size),
        (Number::Digits(first), Number::Digits(last)) if last < first => Ranged::Whole,
        (Number::Digits(first), Number::Digits(last)) if first < size => {
            Ranged::Part(first..last.saturating_add(1).min(size))
        }
        (Number::Digits(_), Number::None | Number::Digits(_)) => Ranged::Unsatisfiable,
        _ => Ranged::Whole,
    }
}

/// The value of a Content-Range field of 206.
pub fn content_range(range: &Range<u64>, size: u64) -> String {
    format!(
        "bytes {}-{}/{size}",
        range.start,
        range.end.saturating_sub(1)
    )
}

/// Reads a Content-Range field of 206: where the part begins, and the size of the whole.
pub fn decode_content_range(value: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (digits(first)?, digits(last)?, digits(size)?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

enum Number {
    None,
    Digits(u64),
    Wrong,
}

/// A position; one beyond u64 is beyond every file, so it is the largest there is.
fn number(text: &str) -> Number {
    match text {
        "" => Number::None,
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => Number::Wrong,
        _ => Number::Digits(text.parse().unwrap_or(u64::MAX)),
    }
}
