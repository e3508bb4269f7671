//! What sessions were like: session logs read back, and shown as tables, CSV, JSON and a plot.
//!
//! Everything here starts from [`Record`]s and ends in text; nothing measures, sends or writes
//! files. A figure that is missing stays missing in every form, and a record whose numbers do not
//! add up is called INVALID in every form.

use std::{collections::HashMap, path::Path, time::Duration};

use crate::{
    error::{Error, Result},
    net::logfile,
    proto::session_log::{Collector, LINE_MAX, LogError},
    session::Via,
    text::ShownPath,
    transfer::{Outcome, Record, Transfer},
    units::{mbit_per_second, total_saturating},
};

pub mod auto;
mod columns;
pub mod counts;
pub mod csv;
#[cfg(feature = "cli")]
pub mod diff;
#[cfg(feature = "cli")]
pub mod errors;
pub mod json;
pub mod layout;
pub mod median_range;
#[cfg(feature = "cli")]
pub mod plot;
pub mod relay;
#[cfg(feature = "cli")]
pub mod scaling;
#[cfg(all(test, feature = "cli"))]
pub(crate) mod schema;
pub mod session;
#[cfg(feature = "cli")]
pub mod session_plot;
pub mod session_table;
pub mod table;
pub mod trials;
pub mod verdict;
pub mod why;

/// Reads one session log.
///
/// # Errors
/// A path that is no readable file or too large, and a log with a line that is wrong: the error
/// names the path and the line. A last line that is cut is left out, with a warning.
pub fn read_log(path: &Path) -> Result<Vec<Record>> {
    let mut collector = Collector::default();
    logfile::read_lines(path, LINE_MAX, |line| {
        collector.push(line).map_err(|error: LogError| error.why)
    })?;
    if let Some(line) = collector.torn() {
        log::warn!("{}: line {line} is cut before its end; it is left out", ShownPath(path));
    }
    let damaged = |error: LogError| logfile::line_error(path, error.line, error.why);
    collector.finish().map_err(damaged)
}

/// Reads several session logs, in the order given.
///
/// # Errors
/// As [`read_log`], and a session that is in two of them, which would count twice.
pub fn read_logs<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Record>> {
    let mut all = Vec::new();
    let mut seen = HashMap::new();
    for path in paths.iter().map(AsRef::as_ref) {
        for record in read_log(path)? {
            if let Some(earlier) = seen.insert(record.session, path) {
                let reason = format!("session {} is in {} too", record.session, ShownPath(earlier));
                return Err(Error::refused(ShownPath(path), reason));
            }
            all.push(record);
        }
    }
    Ok(all)
}

/// True when every client asked for holds all bytes and the numbers add up. The figures of any
/// other session are those of a part of its clients, or wrong; they stand for no test.
pub fn is_sound(record: &Record) -> bool {
    complete(record) >= usize::from(record.clients) && record.broken_identities().is_empty()
}

/// True when [`is_sound`], and when it measured a way that repairs nothing: then every client asked
/// for knows how many bytes it received, though its copy is not whole.
pub fn is_measured(record: &Record) -> bool {
    let told = |transfer: &Transfer| arrived(record, transfer).is_some();
    let all = record.transfers.len() >= usize::from(record.clients);
    is_sound(record)
        || all && record.transfers.iter().all(told) && record.broken_identities().is_empty()
}

/// The bytes that a client got and the time it took, by its own clock: of a transfer that is
/// complete, or of one that was all there would be.
fn arrived(record: &Record, transfer: &Transfer) -> Option<(u64, Duration)> {
    let counted = record.via == Via::Raw && transfer.counts.unique.is_some();
    (transfer.outcome == Outcome::Complete || counted)
        .then_some((transfer.bytes_client?, transfer.seconds_client?))
}

fn arrivals(record: &Record) -> impl Iterator<Item = (u64, Duration)> {
    record.transfers.iter().filter_map(|transfer| arrived(record, transfer))
}

/// How long the slowest client took, and the rate over all clients, Mbit/s: of what is complete,
/// and in a session that was measured and not whole of what arrived.
fn overall(record: &Record) -> Option<(Duration, f64)> {
    if !is_measured(record) || is_sound(record) {
        let global = record.global();
        return global.seconds.zip(global.rate_mbit);
    }
    let bytes = total_saturating(arrivals(record).map(|(bytes, _)| bytes));
    let slowest = arrivals(record).map(|(_, span)| span).max()?;
    Some((slowest, mbit_per_second(bytes, slowest)?))
}

/// How many of the session's transfers are complete.
fn complete(record: &Record) -> usize {
    let complete = |transfer: &&Transfer| transfer.outcome == Outcome::Complete;
    record.transfers.iter().filter(complete).count()
}

/// The session with the median time to the last byte: the one that stands for all of them. Of an
/// even number the faster of the middle two, because a mean of two sessions never happened.
/// Sessions that are not sound count as slower than any: a client less makes no session faster.
pub fn median_session<'a>(records: impl IntoIterator<Item = &'a Record>) -> Option<&'a Record> {
    let mut order: Vec<&Record> = records.into_iter().collect();
    order.sort_by_cached_key(|record| {
        let seconds = record.global().seconds;
        (!is_sound(record), seconds.is_none(), seconds)
    });
    order.get(order.len().saturating_sub(1) / 2).copied()
}

/// Mean of the clients' rates by their own clocks, Mbit/s; `None` when no client said its time.
pub fn mean_client_mbit(record: &Record) -> Option<f64> {
    median_range::mean(client_rates_mbit(record))
}

/// The clients' rates by their own clocks, Mbit/s: of what is complete, and over raw of what
/// arrived.
fn client_rates_mbit(record: &Record) -> impl Iterator<Item = f64> {
    arrivals(record).filter_map(|(bytes, span)| mbit_per_second(bytes, span))
}

/// The mean of the clients' losses in per cent; `None` where the loss of one client is not known.
fn mean_loss(record: &Record) -> Option<f64> {
    median_range::mean(losses_of(record)?.into_iter())
}

fn losses_of(record: &Record) -> Option<Vec<f64>> {
    let all = record.transfers.iter();
    let each: Option<Vec<f64>> = all.map(|transfer| transfer.counts.loss_percent()).collect();
    each.filter(|each| !each.is_empty())
}

/// The records that have the same `key`, in the order of the first of each.
fn grouped<'a, K: PartialEq>(
    records: impl Iterator<Item = &'a Record>,
    key: fn(&'a Record) -> K,
) -> Vec<Vec<&'a Record>> {
    let mut groups: Vec<Vec<&Record>> = Vec::new();
    for record in records {
        // A handful of groups: a search costs less than an order on digests would explain.
        match groups.iter_mut().find(|group| key(group[0]) == key(record)) {
            Some(group) => group.push(record),
            None => groups.push(vec![record]),
        }
    }
    groups
}

/// Records for the tests of this floor.
#[cfg(test)]
pub(crate) mod sample {
    use std::time::Duration;

    use time::OffsetDateTime;

    use crate::{
        digest::Digest,
        session::{FileInfo, SeatId, SessionId, Via},
        text::FileName,
        transfer::{ClockId, Outcome, Record, Transfer},
        units::Moment,
    };

    /// A session of `clients` seats over TCP in which everything went well; seat k took k ms
    /// longer than `base_ms`.
    pub(crate) fn session(number: u64, clients: u16, base_ms: u64) -> Record {
        Record {
            session: SessionId(number),
            via: Via::Tcp,
            file: FileInfo {
                name: FileName::new("1MB.bin").expect("plain"),
                bytes: 1_000_000,
                sha1: Digest::of(b"gate"),
            },
            clients,
            released_at: OffsetDateTime::from_unix_timestamp(1_790_000_000 + number as i64).ok(),
            sender: None,
            key: false,
            auto: None,
            machine: None,
            transfers: (1..=clients).map(|seat| transfer(seat, base_ms)).collect(),
        }
    }

    fn transfer(seat: u16, base_ms: u64) -> Transfer {
        let took = Duration::from_millis(base_ms + u64::from(seat));
        let mut transfer = Transfer::new(SeatId(seat), format!("C{seat}"), Outcome::Complete);
        transfer.client = Some(([10, 0, 0, 4], 50_000 + seat).into());
        transfer.server = Some(([10, 0, 0, 1], 8080).into());
        transfer.verified = Some(true);
        transfer.bytes_client = Some(1_000_000);
        transfer.bytes_server = Some(1_000_000);
        transfer.seconds_client = Some(took);
        transfer.seconds_server = Some(took + Duration::from_micros(120));
        transfer.seconds_verified = Some(took + Duration::from_millis(3));
        transfer.woke = Some(Duration::from_micros(10 * u64::from(seat)));
        transfer.first_server = Some(Duration::from_micros(20 * u64::from(seat)));
        transfer.first_client = Some((ClockId(1), Moment(1_000 + 30 * u64::from(seat))));
        transfer
    }

    /// Four seats: whole, cut, complete but of a kind that cannot attest, and one refused.
    pub(crate) fn troubled() -> Record {
        let mut record = session(7, 4, 80);
        let cut = &mut record.transfers[1];
        cut.fail(Outcome::Cut, "connection reset | by\u{1b}[2J peer");
        cut.name = "\u{202e}evil".to_owned();
        cut.verified = Some(false);
        cut.bytes_client = Some(700_000);
        cut.seconds_server = None;
        let silent = &mut record.transfers[2];
        silent.verified = None;
        silent.bytes_client = None;
        silent.seconds_client = None;
        silent.first_client = None;
        let mut refused = Transfer::new(SeatId(4), "C4", Outcome::Refused);
        refused.reason = Some("wants udp, this session is tcp".to_owned());
        record.transfers[3] = refused;
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::session_log::{encode, header};

    fn log_of(records: &[Record]) -> String {
        let lines =
            records.iter().flat_map(|record| record.transfers.iter().map(|t| encode(record, t)));
        header() + &lines.collect::<String>()
    }

    #[test]
    fn log_is_read_back_as_its_records() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let records = vec![sample::session(1, 3, 50), sample::troubled()];
        std::fs::write(&path, log_of(&records)).expect("written");
        assert_eq!(read_log(&path).expect("read"), records);

        let error = read_logs(&[&path, &path]).expect_err("twice").to_string();
        assert!(error.contains("session 0000000000000001 is in "), "{error}");
    }

    #[test]
    fn damaged_log_is_named_with_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let log = log_of(&[sample::session(1, 3, 50)]);
        std::fs::write(&path, &log[..log.len() - 9]).expect("written");
        let records = read_log(&path).expect("all but its last line");
        assert_eq!(records[0].transfers.len(), 2);
        std::fs::write(&path, log.replacen("| 2 |", "\n| 2 |", 1)).expect("written");
        let error = read_log(&path).expect_err("cut in the middle").to_string();
        assert!(error.contains("a.log, line 3,"), "{error}");

        std::fs::write(&path, vec![b'x'; 100_000]).expect("written");
        let error = read_log(&path).expect_err("no log").to_string();
        assert!(error.contains("line 1,"), "{error}");
        assert!(error.ends_with("longer than 13312 bytes"), "{error}");
        assert!(read_log(folder.path()).is_err());
        assert!(read_log(&folder.path().join("none")).is_err());

        let sparse = std::fs::File::create(&path).expect("created");
        sparse.set_len(logfile::LOG_MAX + 1).expect("sparse");
        let error = read_log(&path).expect_err("large").to_string();
        assert!(error.contains("larger than 256 MiB"), "{error}");
    }

    #[test]
    fn median_session_is_one_that_happened() {
        let mut runs =
            vec![sample::session(1, 2, 90), sample::session(2, 2, 70), sample::session(3, 2, 80)];
        let median = |runs: &[Record]| median_session(runs).map(|record| record.session.0);
        assert_eq!(median(&runs), Some(3));
        runs.push(sample::session(4, 2, 60));
        assert_eq!(median(&runs), Some(2));
        runs[1].transfers[0].fail(Outcome::Cut, "gone");
        assert_eq!(median(&runs), Some(3), "one that failed is the slowest");
        runs[0].transfers[0].bytes_client = Some(1);
        runs[2].transfers.clear();
        let sound: Vec<bool> = runs.iter().map(is_sound).collect();
        assert_eq!(sound, [false, false, false, true]);
        assert_eq!(median(&[]), None);
    }
}
