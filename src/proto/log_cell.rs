//! The form of every log line of ours: columns separated by ` | `, `-` where a value is missing,
//! text from outside escaped so that it can end neither its column nor its line.

use std::{fmt, time::Duration};

use time::{format_description::BorrowedFormatItem, macros::format_description};

use crate::text::escape;

/// What stands between two columns.
pub const SEPARATOR: &str = " | ";

/// What stands for a value that is missing.
pub const MISSING: &str = "-";

/// How a date is written.
pub const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// How a time of day is written.
pub const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[hour]:[minute]:[second].[subsecond digits:6]");

/// Reads `12.345678`; exactly six decimals, so that a cut number is not another number.
pub fn duration(text: &str) -> Option<Duration> {
    let (whole, decimals) = text.split_once('.')?;
    if decimals.len() != 6 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let us = whole.parse::<u64>().ok()?.checked_mul(1_000_000)?;
    us.checked_add(decimals.parse().ok()?).map(Duration::from_micros)
}

/// The value, or what stands for a missing one.
pub fn or_missing(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| MISSING.to_owned(), |value| value.to_string())
}

/// Text from outside as a column: at most `max` bytes of it, escaped, and told apart from a
/// missing value and from what a reader that trims its columns would make of it.
pub fn outside(text: &str, max: usize) -> String {
    const CUT: &str = "...";
    let cut;
    let mut text = text;
    if text.len() > max {
        let mut end = max - CUT.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        cut = text[..end].to_owned() + CUT;
        text = &cut;
    }
    if text == MISSING {
        return text.escape_unicode().to_string();
    }
    let start = text.len() - text.trim_start().len();
    let end = text.trim_end().len().max(start);
    let blanks = |text: &str| text.escape_unicode().to_string();
    blanks(&text[..start]) + &escape(&text[start..end]) + &blanks(&text[end..])
}
