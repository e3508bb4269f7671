//! Reports on the live relay: relay logs read back and summed, and what one viewer lost where.
//!
//! As the rest of the report it starts from what was logged or counted and ends in text. A figure
//! that nobody reported stays `-`; a sum of which a part is missing says how many parts it has.

use std::{fs::File, io::Read, path::Path};

use crate::{
    error::Result,
    net::logfile,
    proto::{
        line::DecodeError,
        log_cell::{MISSING, SEPARATOR, or_missing},
        relay::{
            log,
            log::ViewerRecord,
            reports::{ReceiverReport, SenderReport, whole_us},
            status::{RecordSnapshot, RelaySnapshot, ViewerSnapshot, WatchSnapshot},
        },
        stream::StreamCounts,
    },
    report::table::{Align, ColumnOf, Table, wrapped},
    text::{escape, escape_path},
    units::{mbit_per_second, total},
};

/// True when the file begins as a relay log does; anything else is left to the session log's
/// reader, which says what is wrong with it.
pub fn is_relay_log(path: &Path) -> bool {
    let header = log::HEADER;
    // Looked at before it is opened: to open a FIFO is to wait for its writer.
    if !std::fs::metadata(path).is_ok_and(|about| about.is_file()) {
        return false;
    }
    let mut first = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(header.len() as u64).read_to_end(&mut first));
    read.is_ok() && first == header.as_bytes()
}

/// Reads one relay log.
///
/// # Errors
/// A path that is not a readable file or is too large, and a log with a line that is wrong: the
/// error names the path and the line.
pub fn read_relay_log(path: &Path) -> Result<Vec<ViewerRecord>> {
    let wrong = |why: &str| DecodeError(why.to_owned());
    let (mut records, mut at_header) = (Vec::new(), true);
    logfile::read_lines(path, log::LINE_MAX, |line| {
        let line = std::str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?;
        if !std::mem::take(&mut at_header) {
            records.push(ViewerRecord::decode(line)?);
        } else if line != log::HEADER {
            return Err(wrong("it is not a relay log"));
        }
        Ok(())
    })?;
    records.sort_by_key(|record| (record.relay.0, record.viewer));
    Ok(records)
}

/// One row per viewer, and the sums, in `limit` columns of a terminal. The order of the columns is
/// the log's.
pub fn viewer_table(records: &[ViewerRecord], limit: Option<usize>) -> String {
    let table = Table::of(&VIEWER_COLUMNS, records);
    wrapped(&format!("{}{}\n", table.fitted(limit), sums(records)), limit)
}

const VIEWER_COLUMNS: [ColumnOf<ViewerRecord>; 17] = [
    ("viewer", Align::Right, 0, |r| r.viewer.to_string()),
    ("to", Align::Left, 0, |r| r.to.to_string()),
    ("watched\ns", Align::Right, 0, |r| format!("{:.1}", r.watched.as_secs_f64())),
    ("\nsent", Align::Right, 1, |r| r.sent.sent.to_string()),
    ("\nMbit/s", Align::Right, 0, |r| {
        let rate = mbit_per_second(r.sent.bytes, r.watched);
        or_missing(rate.map(|rate| format!("{rate:.2}")))
    }),
    ("relay\ndropped", Align::Right, 2, |r| r.sent.dropped.to_string()),
    ("\npaused", Align::Right, 4, |r| r.sent.paused.to_string()),
    ("source\nCC", Align::Right, 5, |r| r.sent.cc.to_string()),
    ("delay ms\np50", Align::Right, 6, |r| milliseconds(r.sent.delay.p50_us)),
    ("\np99", Align::Right, 3, |r| milliseconds(r.sent.delay.p99_us)),
    ("\nworst", Align::Right, 6, |r| milliseconds(r.sent.delay.worst_us)),
    ("\nreceived", Align::Right, 3, |r| or_missing(r.received.map(|got| got.datagrams))),
    ("host\ndropped", Align::Right, 4, |r| or_missing(r.received.and_then(|got| got.host_drop))),
    ("network\nlost", Align::Right, 2, |r| or_missing(r.sent.network_lost(r.received.as_ref()))),
    ("viewer\nCC", Align::Right, 5, |r| or_missing(r.received.map(|got| got.cc))),
    ("jitter\nms", Align::Right, 5, |r| milliseconds(r.received.and_then(|got| got.jitter_us))),
    ("\nend", Align::Left, 0, |r| match &r.reason {
        Some(reason) => format!("{}: {}", r.end, escape(reason)),
        None => r.end.to_string(),
    }),
];

/// The sums of `records` as one sentence.
fn sums(records: &[ViewerRecord]) -> String {
    let sum = |of: fn(&SenderReport) -> u64| total(records.iter().map(|record| of(&record.sent)));
    let reported: Vec<(&SenderReport, &ReceiverReport)> = records
        .iter()
        .filter_map(|record| Some((&record.sent, record.received.as_ref()?)))
        .collect();
    let (count, plural) = (records.len(), if records.len() == 1 { "" } else { "s" });
    let (sent, bytes) = (sum(|sent| sent.sent), sum(|sent| sent.bytes));
    let (dropped, paused) = (sum(|sent| sent.dropped), sum(|sent| sent.paused));
    let mut text = format!(
        "{count} viewer{plural}: {sent} datagrams and {bytes} bytes sent, {dropped} dropped by the \
         relay, {paused} paused"
    );
    if !reported.is_empty() {
        let lost = |(sent, got): &(&SenderReport, &ReceiverReport)| sent.network_lost(Some(got));
        let known: Vec<u64> = reported.iter().filter_map(lost).collect();
        text.push_str(&format!(
            "; of the {} that tell: {} received, {} lost by the network",
            reported.len(),
            total(reported.iter().map(|(_, got)| got.datagrams)),
            total(known.iter().copied()),
        ));
        if known.len() < reported.len() {
            text.push_str(&format!(" (of {})", known.len()));
        }
    }
    text
}

/// What became of a recording, as one line.
pub fn recording(recording: &RecordSnapshot) -> String {
    let RecordSnapshot { segments, bytes, lost, .. } = recording;
    let failed = recording.failed.as_ref().map(|why| format!("; it ended early: {}", escape(why)));
    format!(
        "recording: {segments} segments and {bytes} bytes in {}, {lost} datagrams not recorded{}",
        escape_path(&recording.list),
        failed.unwrap_or_default()
    )
}

/// Viewers as comma-separated values; the log's own columns, a missing value empty.
pub fn viewer_csv(records: &[ViewerRecord]) -> String {
    let line = |line: &str| {
        let cells = line.trim_end_matches('\n').split(SEPARATOR);
        let cells = cells.map(|cell| match cell {
            MISSING => String::new(),
            // Escaped text: a comma or quote is all that a reader could stumble on.
            text if text.contains([',', '"']) => format!("\"{}\"", text.replace('"', "\"\"")),
            text => text.to_owned(),
        });
        cells.collect::<Vec<_>>().join(",") + "\r\n"
    };
    let rows = records.iter().map(|record| line(&record.encode()));
    line(log::HEADER) + &rows.collect::<String>()
}

/// Where one viewer's datagrams were lost, from the source on, in `limit` columns of a terminal.
pub fn loss_table(view: &WatchSnapshot, limit: Option<usize>) -> String {
    let received = view.receiver_report();
    let sent = view.sent.as_ref();
    let of = |figure: fn(&SenderReport) -> Option<u64>| sent.and_then(figure);
    let network = sent.and_then(|sent| sent.network_lost(Some(&received)));
    let got = Some(received.datagrams);
    let mut table = Table::new(&[
        ("where", Align::Left, 0),
        ("datagrams", Align::Right, 0),
        ("CC errors", Align::Right, 1),
        ("RTP lost", Align::Right, 1),
    ]);
    for (place, datagrams, cc, rtp_lost) in [
        ("lost before the relay", None, of(|sent| Some(sent.cc)), of(|sent| sent.rtp_lost)),
        ("dropped by the relay", of(|sent| Some(sent.dropped)), None, None),
        ("passed in pauses", of(|sent| Some(sent.paused)), None, None),
        ("sent by the relay", of(|sent| Some(sent.sent)), None, None),
        ("lost by the network", network, None, None),
        ("dropped by this host", view.host_drop, None, None),
        ("received", got, Some(received.cc), received.rtp_lost),
    ] {
        let figures = [datagrams, cc, rtp_lost].map(or_missing);
        table.row([place.to_owned()].into_iter().chain(figures));
    }
    let text = format!(
        "{}jitter {} ms here, {} ms at the relay; through the relay p50 {} ms, p99 {} ms, worst {} ms\n",
        table.fitted(limit),
        milliseconds(received.jitter_us),
        milliseconds(of(|sent| sent.jitter_us)),
        milliseconds(of(|sent| sent.delay.p50_us)),
        milliseconds(of(|sent| sent.delay.p99_us)),
        milliseconds(of(|sent| sent.delay.worst_us)),
    );
    wrapped(&text, limit)
}

/// One viewer's stream in a sentence.
pub fn summary(view: &WatchSnapshot) -> String {
    let StreamCounts { datagrams, bytes, ts, .. } = view.received;
    let (seconds, errors) = (view.watched.as_secs_f64(), ts.errors);
    let before = or_missing(view.sent.map(|sent| sent.cc));
    format!(
        "received {datagrams} datagrams and {bytes} bytes in {seconds:.1} s; CC errors {errors}, of \
         them before the relay {before}"
    )
}

/// A relay's input in a sentence.
pub fn input(snapshot: &RelaySnapshot) -> String {
    let StreamCounts { datagrams, bytes, ts, rtp, jitter_us, .. } = snapshot.input;
    let (dropped, stale, errors) = (or_missing(snapshot.dropped), snapshot.stale, ts.errors);
    let (lost, jitter) = (or_missing(rtp.map(|rtp| rtp.lost)), jitter_us.map(whole_us));
    let group = snapshot.group.iter().map(|ViewerSnapshot { to, sent, .. }| {
        let (datagrams, dropped) = (sent.sent, sent.dropped);
        format!(
            "group {to}: {datagrams} datagrams sent once for all, {dropped} dropped by the relay\n"
        )
    });
    let group = group.collect::<String>();
    let lower =
        (2..).zip(&snapshot.lower).map(|(number, StreamCounts { datagrams, bytes, ts, .. })| {
            let errors = ts.errors;
            format!(
                "input {number}: {datagrams} datagrams and {bytes} bytes read; CC errors {errors}\n"
            )
        });
    let lower = lower.collect::<String>();
    format!(
        "source: {datagrams} datagrams and {bytes} bytes read, {dropped} dropped unread, {stale} \
         thrown away while nobody watched; CC errors {errors}, RTP lost {lost}, jitter {} ms\n{lower}{group}",
        milliseconds(jitter)
    )
}

fn milliseconds(us: Option<u64>) -> String {
    or_missing(us.map(|us| format!("{}.{:02}", us / 1_000, us % 1_000 / 10)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::datetime;

    use super::*;
    use crate::{
        proto::{histogram::Delay, relay::log::ViewerEnd},
        report::table::WIDTH_MIN,
        session::SessionId,
        text::width,
    };

    fn two() -> [ViewerRecord; 2] {
        let lab = ViewerRecord {
            relay: SessionId(7),
            viewer: 1,
            at: datetime!(2026-11-21 00:12:13 UTC),
            to: "127.0.0.1:5000".parse().expect("an address"),
            watched: Duration::from_secs(10),
            sent: SenderReport {
                sent: 1_000,
                bytes: 1_316_000,
                dropped: 2,
                delay: Delay { p50_us: Some(1_490), p99_us: Some(3_210), worst_us: Some(4_005) },
                ..SenderReport::default()
            },
            received: None,
            end: ViewerEnd::Closed,
            reason: Some("reset, \"by\" peer".to_owned()),
        };
        let ours = ViewerRecord {
            viewer: 2,
            received: Some(ReceiverReport {
                datagrams: 990,
                bytes: 1_302_840,
                cc: 5,
                host_drop: Some(3),
                jitter_us: Some(120),
                rtp_lost: None,
            }),
            end: ViewerEnd::Left,
            reason: None,
            ..lab.clone()
        };
        [lab, ours]
    }

    #[test]
    fn viewers_are_rows_and_sums() {
        insta::assert_snapshot!(viewer_table(&two(), None), @r#"
                                watched                  relay          source  delay ms                            host  network  viewer  jitter
        viewer  to                    s  sent  Mbit/s  dropped  paused      CC       p50   p99  worst  received  dropped     lost      CC      ms  end
        ------  --------------  -------  ----  ------  -------  ------  ------  --------  ----  -----  --------  -------  -------  ------  ------  ------------------------
             1  127.0.0.1:5000     10.0  1000    1.05        2       0       0      1.49  3.21   4.00         -        -        -       -       -  closed: reset, "by" peer
             2  127.0.0.1:5000     10.0  1000    1.05        2       0       0      1.49  3.21   4.00       990        3        7       5    0.12  left
        2 viewers: 2000 datagrams and 2632000 bytes sent, 4 dropped by the relay, 0 paused; of the 1 that tell: 990 received, 7 lost by the network
        "#);
    }

    #[test]
    fn no_line_of_viewers_is_wider_than_the_terminal() {
        for limit in WIDTH_MIN..=250 {
            for line in viewer_table(&two(), Some(limit)).lines() {
                assert!(width(line) <= limit, "{limit}: {line}");
            }
        }
    }

    #[test]
    fn columns_of_viewers_stand_as_in_the_log() {
        let log: Vec<&str> = log::HEADER.trim_end().split(SEPARATOR).collect();
        let table = [
            "viewer",
            "to",
            "watched_s",
            "sent",
            "sent_bytes",
            "dropped",
            "paused",
            "source_cc",
            "p50_us",
            "p99_us",
            "worst_us",
            "received",
            "host_drop",
            "network_lost",
            "cc",
            "jitter_us",
            "end",
        ];
        let places = table.map(|name| log.iter().position(|column| *column == name));
        assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
    }

    #[test]
    fn log_comes_back_and_damaged_one_names_its_line() {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("a.log");
        let text = two().iter().map(ViewerRecord::encode).collect::<String>();
        std::fs::write(&path, log::HEADER.to_owned() + &text).expect("room");
        assert!(is_relay_log(&path));
        assert_eq!(read_relay_log(&path).expect("sound"), two());
        std::fs::write(&path, log::HEADER.to_owned() + &text.replacen("1000", "1001", 2))
            .expect("room");
        let error = read_relay_log(&path).expect_err("the last line does not add up");
        assert!(error.to_string().contains("line 3"), "{error}");
        std::fs::write(&path, text).expect("room");
        assert!(!is_relay_log(&path));
        assert!(read_relay_log(&path).is_err());
    }

    #[test]
    fn impossible_numbers_are_summed_without_overflow() {
        let mut records = two();
        for record in &mut records {
            record.sent.sent = u64::MAX;
            record.received = Some(ReceiverReport {
                datagrams: u64::MAX,
                host_drop: Some(0),
                ..ReceiverReport::default()
            });
        }
        let text = sums(&records);
        assert!(text.starts_with("2 viewers: 36893488147419103230 datagrams"), "{text}");
        assert!(
            text.ends_with(
                "of the 2 that tell: 36893488147419103230 received, 0 lost by the network"
            ),
            "{text}"
        );
    }

    #[test]
    fn spreadsheet_gets_empty_cells_and_quoted_text() {
        let csv = viewer_csv(&two());
        let rows: Vec<&str> = csv.split_terminator("\r\n").collect();
        assert_eq!(rows.len(), 3);
        assert!(rows[0].starts_with("relay,viewer,date,time,to,watched_s,sent,"));
        assert!(rows[1].ends_with(r#",,closed,"reset, ""by"" peer""#), "{}", rows[1]);
        assert!(rows[2].ends_with(",120,left,"), "{}", rows[2]);
    }
}
