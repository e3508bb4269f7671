//! One column of a log line: how a value is written there and read back.

use std::str::FromStr;

pub(super) use crate::proto::log_cell::{MISSING, duration, or_missing, outside};
use crate::proto::{
    line::DecodeError,
    session_log::{columns::COLUMNS, error::excerpt},
};

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
    ) -> Result<T, DecodeError> {
        let found = self.cells[self.at];
        let name = COLUMNS[self.at];
        self.at += 1;
        read(found).ok_or_else(|| {
            DecodeError(format!("column {name} holds '{}', not {wanted}", excerpt(found)))
        })
    }

    pub(super) fn optional<T>(
        &mut self,
        wanted: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        self.needed(wanted, |text| match text {
            MISSING => Some(None),
            _ => read(text).map(Some),
        })
    }

    /// As many figures as there are columns for.
    pub(super) fn numbers<const N: usize>(&mut self) -> Result<[Option<u64>; N], DecodeError> {
        let mut numbers = [None; N];
        for number in &mut numbers {
            *number = self.optional("a number", parsed)?;
        }
        Ok(numbers)
    }

    pub(super) fn skip(&mut self, columns: usize) {
        self.at += columns;
    }
}

pub(super) fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}
