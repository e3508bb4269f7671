//! The columns of a session log, and its first line.

use std::sync::LazyLock;

pub(super) use crate::proto::log_cell::SEPARATOR;
use crate::transfer::{Counts, Evidence, auto::AutoFigures};

/// Longest line, bytes, its end included. The longest that `encode` writes is under 9.5 KiB.
pub const LINE_MAX: usize = 10 * 1024;

/// The columns of a line, in order; seconds, microseconds (`us`) and Mbit/s as the names say,
/// sizes in bytes.
pub static COLUMNS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let evidence: [&[&str]; 4] = [&["key"], &Evidence::NAMES, &["auto"], &AutoFigures::LONG_NAMES];
    [[&BEFORE[..], &Counts::NAMES].concat(), evidence.concat()].concat()
});

/// How many columns every log has. Those after them joined later, and more may.
pub(super) const COLUMNS_MIN: usize = BEFORE.len() + Counts::NAMES.len();

/// The columns before the counters.
pub(super) const BEFORE: [&str; 31] = [
    "session",
    "seat",
    "date",
    "time",
    "via",
    "file",
    "size",
    "client_bytes",
    "client_s",
    "client_mbit",
    "client_port",
    "server_bytes",
    "server_s",
    "server_mbit",
    "server_port",
    "verdict",
    "verified",
    "reason",
    "name",
    "client",
    "server",
    "clients",
    "sha1",
    "resumed",
    "verified_s",
    "durable_s",
    "woke_us",
    "first_server_us",
    "first_client_us",
    "clock",
    "sender",
];

/// The first line of a log, with its end.
pub fn header() -> String {
    COLUMNS.join(SEPARATOR) + "\n"
}
