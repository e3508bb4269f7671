//! The columns of a session log, and its first line.

use std::{sync::LazyLock, time::Duration};

use time::{OffsetDateTime, UtcOffset};

pub(super) use crate::proto::log_cell::SEPARATOR;
use crate::{
    proto::log_cell::{DATE, TIME, or_missing, outside},
    text::CLIENT_NAME_MAX,
    transfer::{ClockId, Counts, Evidence, Record, Transfer, auto::AutoFigures},
    units::{decimal_seconds, mbit_per_second, micros},
};

/// Longest line, bytes, its end included. The longest that `encode` writes is under 12 KiB.
pub const LINE_MAX: usize = 13 * 1024;

/// The columns of a line, in order; seconds, microseconds (`us`) and Mbit/s as the names say,
/// sizes in bytes.
pub static COLUMNS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let evidence: [&[&str]; 5] =
        [&["key"], &Evidence::NAMES, &["auto"], &AutoFigures::LONG_NAMES, &["samples", "machine"]];
    let before = BEFORE.map(|(name, _)| name);
    [[&before[..], &Counts::NAMES].concat(), evidence.concat()].concat()
});

/// How many columns every log has. Those after them joined later, and more may.
pub(super) const COLUMNS_MIN: usize = BEFORE.len() + Counts::NAMES.len();

/// Longest reason that a line keeps, bytes before escaping, which can make six of one.
pub const REASON_MAX: usize = 512;

/// Longest sender that a line keeps, bytes before escaping.
pub const SENDER_MAX: usize = 128;

/// Longest words on a machine that a line keeps, bytes before escaping.
pub const MACHINE_MAX: usize = 160;

/// A column's name, and what stands there for a transfer of a session.
pub(super) type LogColumn = (&'static str, fn(&Record, &Transfer) -> String);

/// The columns before the counters.
pub(super) const BEFORE: [LogColumn; 31] = [
    ("session", |r, _| r.session.to_string()),
    ("seat", |_, t| t.seat.to_string()),
    ("date", |r, _| or_missing(released_at(r).and_then(|at| at.format(DATE).ok()))),
    ("time", |r, _| or_missing(released_at(r).and_then(|at| at.format(TIME).ok()))),
    ("via", |r, _| r.via.to_string()),
    ("file", |r, _| outside(r.file.name.as_str(), usize::MAX)),
    ("size", |r, _| r.file.bytes.to_string()),
    ("client_bytes", |_, t| or_missing(t.bytes_client)),
    ("client_s", |_, t| or_missing(t.seconds_client.map(decimal_seconds))),
    ("client_mbit", |_, t| or_missing(mbit(t.bytes_client, t.seconds_client))),
    ("client_port", |_, t| or_missing(t.client.map(|at| at.port()))),
    ("server_bytes", |_, t| or_missing(t.bytes_server)),
    ("server_s", |_, t| or_missing(t.seconds_server.map(decimal_seconds))),
    ("server_mbit", |_, t| or_missing(mbit(t.bytes_server, t.seconds_server))),
    ("server_port", |_, t| or_missing(t.server.map(|at| at.port()))),
    ("verdict", |_, t| t.outcome.to_string()),
    ("verified", |_, t| or_missing(t.verified.map(|yes| if yes { "yes" } else { "no" }))),
    ("reason", |_, t| or_missing(t.reason.as_ref().map(|why| outside(why, REASON_MAX)))),
    ("name", |_, t| outside(&t.name, CLIENT_NAME_MAX)),
    ("client", |_, t| or_missing(t.client)),
    ("server", |_, t| or_missing(t.server)),
    ("clients", |r, _| r.clients.to_string()),
    ("sha1", |r, _| r.file.sha1.to_string()),
    ("resumed", |_, t| t.bytes_resumed.to_string()),
    ("verified_s", |_, t| or_missing(t.seconds_verified.map(decimal_seconds))),
    ("durable_s", |_, t| or_missing(t.seconds_durable.map(decimal_seconds))),
    ("woke_us", |_, t| or_missing(t.woke.map(micros))),
    ("first_server_us", |_, t| or_missing(t.first_server.map(micros))),
    ("first_client_us", |_, t| or_missing(t.first_client.map(|(_, at)| at.0))),
    ("clock", |_, t| or_missing(t.first_client.map(|(ClockId(id), _)| id))),
    ("sender", |r, _| or_missing(r.sender.as_ref().map(|how| outside(how, SENDER_MAX)))),
];

/// The rate of a whole number of microseconds, as the line's reader will compute it again.
fn mbit(bytes: Option<u64>, span: Option<Duration>) -> Option<String> {
    let rate = mbit_per_second(bytes?, Duration::from_micros(micros(span?)))?;
    Some(format!("{rate:.3}"))
}

fn released_at(record: &Record) -> Option<OffsetDateTime> {
    record.released_at?.checked_to_offset(UtcOffset::UTC)
}

/// The first line of a log, with its end.
pub fn header() -> String {
    COLUMNS.join(SEPARATOR) + "\n"
}
