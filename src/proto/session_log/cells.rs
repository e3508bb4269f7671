//! One column of a log line: how a value is written there and read back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::proto::session_log::columns::COLUMNS;
use crate::proto::session_log::error::LineError;
use crate::proto::session_log::error::excerpt;
use crate::text::escape;
use crate::units::mbit_per_second;
use crate::units::micros;

pub(super) const MISSING: &str = "-";

pub(super) const SECONDS: &str = "seconds with six decimals";
pub(super) const MICROSECONDS: &str = "whole microseconds";
pub(super) const TEXT: &str = "an escaped text";

/// Reads the columns of one line from left to right.
pub(super) struct Cells<'a, 'line> {
    cells: &'a [&'line str],
    at: usize,
}

impl<'a, 'line> Cells<'a, 'line> {
    /// `cells` must be as many as [`COLUMNS`].
    pub(super) fn new(cells: &'a [&'line str]) -> Self {
        Self { cells, at: 0 }
    }

    pub(super) fn needed<T>(
        &mut self,
        wanted: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, LineError> {
        let found = self.cells[self.at];
        let name = COLUMNS[self.at];
        self.at += 1;
        read(found).ok_or_else(|| LineError::Column {
            name,
            found: excerpt(found),
            wanted,
        })
    }

    pub(super) fn optional<T>(
        &mut self,
        wanted: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, LineError> {
        self.needed(wanted, |text| match text {
            MISSING => Some(None),
            _ => read(text).map(Some),
        })
    }

    pub(super) fn skip(&mut self, columns: usize) {
        self.at += columns;
    }
}

pub(super) fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Reads `12.345678`; exactly six decimals, so that a cut number is not another number.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (whole, decimals) = text.split_once('.')?;
    if decimals.len() != 6 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let us = parsed::<u64>(whole)?.checked_mul(1_000_000)?;
    us.checked_add(parsed(decimals)?).map(Duration::from_micros)
}

/// The rate of a whole number of microseconds, as the line's reader will compute it again.
pub(super) fn mbit(bytes: Option<u64>, span: Option<Duration>) -> Option<String> {
    let rate = mbit_per_second(bytes?, Duration::from_micros(micros(span?)))?;
    Some(format!("{rate:.3}"))
}

pub(super) fn or_missing(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| MISSING.to_owned(), |value| value.to_string())
}

/// Text from outside as a column: at most `max` bytes of it, escaped, and told apart from a
/// missing value and from what a reader that trims its columns would make of it.
pub(super) fn outside(text: &str, max: usize) -> String {
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
