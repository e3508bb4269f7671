//! What a line of a log, or its place in a log, is refused for.

use std::fmt;

use crate::{
    proto::{line::DecodeError, session_log::columns::LINE_MAX},
    text::escape,
};

/// A wrong line, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// The line's number, from 1.
    pub line: u64,
    /// What is wrong.
    pub why: DecodeError,
}

pub(super) fn cut() -> DecodeError {
    DecodeError("cut before its end".to_owned())
}

pub(super) fn too_long() -> DecodeError {
    DecodeError(format!("longer than {LINE_MAX} bytes"))
}

pub(super) fn columns(found: usize, wanted: usize) -> DecodeError {
    DecodeError(format!("{found} columns where {wanted} belong"))
}

/// The beginning of what was found, to be shown.
pub(super) fn excerpt(found: &str) -> String {
    let shown: String = found.chars().take(60).collect();
    escape(&shown)
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for LogError {}
