//! What can be wrong with a session log, each with the column that shows it.

use std::fmt;

use crate::{proto::session_log::columns::LINE_MAX, session::SessionId, text::escape};

/// Why a line is not a line of a session log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineError {
    /// A log whose first line is another header: the first column that differs.
    Header {
        /// The place of the column, from 1.
        place: usize,
        /// What stands there, escaped; `None` when the line ends before.
        found: Option<String>,
        /// The column that belongs there.
        wanted: &'static str,
    },
    /// The line is longer than [`LINE_MAX`].
    TooLong,
    /// The line does not end: its writer was stopped, or the file was cut.
    Cut,
    /// The line is not UTF-8.
    NotText,
    /// The line has another number of columns.
    Columns {
        /// How many it has.
        found: usize,
        /// How many its header has.
        wanted: usize,
    },
    /// A column holds what it cannot.
    Column {
        /// The column.
        name: &'static str,
        /// What it holds, escaped.
        found: String,
        /// What belongs there.
        wanted: &'static str,
    },
    /// A column holds something else than follows from the rest of the line.
    Disagrees {
        /// The column.
        name: &'static str,
        /// What it holds, escaped.
        found: String,
        /// What follows from the rest.
        wanted: String,
    },
    /// Two lines of one session differ in a column that is the session's.
    Conflict {
        /// The session.
        session: SessionId,
        /// The column.
        name: &'static str,
    },
}

/// A [`LineError`] and the line it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// The line's number in the log, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: LineError,
}

/// The beginning of a column that is wrong, for an error.
pub(super) fn excerpt(found: &str) -> String {
    let shown: String = found.chars().take(60).collect();
    escape(&shown)
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header { place, found, wanted } => {
                write!(f, "the header's column {place} is ")?;
                match found {
                    Some(found) => write!(f, "'{found}', not '{wanted}'"),
                    None => write!(f, "missing: '{wanted}'"),
                }
            }
            Self::TooLong => write!(f, "longer than {LINE_MAX} bytes"),
            Self::Cut => f.write_str("cut before its end"),
            Self::NotText => f.write_str("not UTF-8"),
            Self::Columns { found, wanted } => {
                write!(f, "{found} columns where {wanted} belong")
            }
            Self::Column { name, found, wanted } => {
                write!(f, "column {name} holds '{found}', not {wanted}")
            }
            Self::Disagrees { name, found, wanted } => write!(
                f,
                "column {name} holds '{found}', but the line's other columns make it '{wanted}'"
            ),
            Self::Conflict { session, name } => {
                write!(f, "column {name} is not what an earlier line of session {session} says")
            }
        }
    }
}

impl std::error::Error for LineError {}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}
