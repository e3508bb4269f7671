//! The lab's table of one session, transfer by transfer, and the figures of the whole below it.
//!
//! Client times and server times stand in columns of their own. `-` is a value that was
//! not observed. The table shows what the log holds; nothing is estimated.

pub use crate::report::table::Rows;

use std::{fmt::Write, time::Duration};

use crate::{
    report::{
        complete, counts, table,
        table::{Align, ROWS_MAX, Table, or_dash},
    },
    text::escape,
    transfer::{Outcome, Record, Transfer},
    units::decimal_seconds,
};

/// One session: a heading, a row for each transfer, and the figures of the whole below.
pub fn session(record: &Record, rows: Rows) -> String {
    table_and_summary(record, rows, usize::from(record.clients))
}

/// One session as the clients of one process know it: their own seats, and nothing of the others.
pub fn client_session(record: &Record, rows: Rows) -> String {
    table_and_summary(record, rows, record.transfers.len())
}

/// `seats` is how many seats of the session the record can know of.
fn table_and_summary(record: &Record, rows: Rows, seats: usize) -> String {
    let mut text = heading(record);
    text.push('\n');
    let short = rows == Rows::Failures && record.transfers.len() > ROWS_MAX;
    let failures = || {
        let failed = |transfer: &&Transfer| success(transfer) == "no";
        record.transfers.iter().filter(failed)
    };
    let mut table = Table::new(&TRANSFER_COLUMNS);
    if short {
        failures().take(ROWS_MAX).for_each(|t| table.row(cells(t)));
        extremes(record).into_iter().for_each(|row| table.row(row));
    } else {
        record.transfers.iter().for_each(|t| table.row(cells(t)));
    }
    let _ = write!(text, "{table}");
    if short {
        let (failed, all) = (failures().count(), record.transfers.len());
        let shown = failed.min(ROWS_MAX);
        let _ = writeln!(
            text,
            "shown: {shown} of {failed} that failed, and low, median and high of all {all} transfers"
        );
    }
    text.push('\n');
    let counted = counts::table(record, rows);
    if !counted.is_empty() {
        text += &counted;
        text.push('\n');
    }
    text + &summary(record, seats)
}

const TRANSFER_COLUMNS: [(&str, Align); 11] = [
    ("seat", Align::Right),
    ("success", Align::Right),
    ("client\nbytes", Align::Right),
    ("client\nseconds", Align::Right),
    ("client\nMbit/s", Align::Right),
    ("client\nport", Align::Right),
    ("server\nbytes", Align::Right),
    ("server\nseconds", Align::Right),
    ("server\nport", Align::Right),
    ("name", Align::Left),
    ("outcome", Align::Left),
];

fn heading(record: &Record) -> String {
    let clients = match record.clients {
        1 => "1 client".to_owned(),
        count => format!("{count} clients"),
    };
    let mut heading =
        format!("session {}: {} by {} to {clients}", record.session, record.file.name, record.via);
    if let Some(sender) = &record.sender {
        let _ = write!(heading, " ({})", escape(sender));
    }
    let _ = writeln!(
        heading,
        "\nreleased {}, {} bytes, SHA-1 {}",
        released(record).unwrap_or_else(|| "never".to_owned()),
        record.file.bytes,
        record.file.sha1
    );
    heading
}

/// `2026-09-21 14:13:20`, UTC.
pub(super) fn released(record: &Record) -> Option<String> {
    let at = record.released_at?.checked_to_offset(time::UtcOffset::UTC)?;
    let (hour, minute, second) = at.to_hms();
    Some(format!("{} {hour:02}:{minute:02}:{second:02} UTC", at.date()))
}

/// The lab's word: `yes` only with proof, `-` for a whole copy that this client cannot prove.
fn success(transfer: &Transfer) -> &'static str {
    match (transfer.outcome, transfer.verified) {
        (Outcome::Complete, Some(true)) => "yes",
        (Outcome::Complete, None) => "-",
        _ => "no",
    }
}

fn cells(transfer: &Transfer) -> [String; TRANSFER_COLUMNS.len()] {
    let port = |address: Option<std::net::SocketAddr>| or_dash(address.map(|at| at.port()));
    [
        transfer.seat.to_string(),
        success(transfer).to_owned(),
        or_dash(transfer.bytes_client),
        or_dash(transfer.seconds_client.map(decimal_seconds)),
        or_dash(transfer.rate_client_mbit().map(mbit)),
        port(transfer.client),
        or_dash(transfer.bytes_server),
        or_dash(transfer.seconds_server.map(decimal_seconds)),
        port(transfer.server),
        escape(&transfer.name),
        ending(transfer),
    ]
}

/// Nothing for a copy that is whole and proven, else how it ended and why.
fn ending(transfer: &Transfer) -> String {
    let mut ending = match success(transfer) {
        "yes" => String::new(),
        "-" => "complete, not proven".to_owned(),
        _ if transfer.outcome == Outcome::Complete => "complete, not verified".to_owned(),
        _ => transfer.outcome.to_string(),
    };
    if let Some(reason) = &transfer.reason {
        ending += if ending.is_empty() { "" } else { ": " };
        ending += &escape(reason);
    }
    ending
}

/// How a figure of a transfer is read.
type TransferFigure = fn(&Transfer) -> Option<f64>;

/// The least, median and largest of each figure; figures of one row need not be of one transfer.
fn extremes(record: &Record) -> [Vec<String>; 3] {
    #[allow(clippy::cast_precision_loss)] // Exact to 2^53 bytes.
    let figure = |column: &str| -> Option<(TransferFigure, usize)> {
        match column {
            "client\nbytes" => Some((|t| t.bytes_client.map(|bytes| bytes as f64), 0)),
            "client\nseconds" => Some((|t| t.seconds_client.map(|s| s.as_secs_f64()), 6)),
            "client\nMbit/s" => Some((Transfer::rate_client_mbit, 3)),
            "server\nbytes" => Some((|t| t.bytes_server.map(|bytes| bytes as f64), 0)),
            "server\nseconds" => Some((|t| t.seconds_server.map(|s| s.as_secs_f64()), 6)),
            _ => None,
        }
    };
    let columns = TRANSFER_COLUMNS[1..].iter().map(|(heading, _)| {
        let (figure, decimals) = figure(heading)?;
        Some((record.transfers.iter().filter_map(figure).collect(), decimals))
    });
    table::extremes(columns.collect())
}

/// The figures of the whole session, one a line.
fn summary(record: &Record, seats: usize) -> String {
    let global = record.global();
    let complete = complete(record);
    // Figures of some clients must not look like figures of all.
    let part = if complete == usize::from(record.clients) {
        String::new()
    } else {
        format!(", of the {complete} that are complete")
    };
    let us = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |us| format!("{us} us"));
    let span = |span: Option<Duration>| {
        span.map_or_else(|| "-".to_owned(), |span| format!("{} s{part}", decimal_seconds(span)))
    };
    let rate = match (global.rate_mbit, global.bytes) {
        (Some(rate), Some(bytes)) => {
            format!("{} Mbit/s ({bytes} bytes in the slowest one's time)", mbit(rate))
        }
        _ => "-".to_owned(),
    };
    let here = if seats < usize::from(record.clients) { " here" } else { "" };
    let mut lines = format!(
        "whole and verified  {} of {seats}{here}\n\
         release skew        wake {}, server {}, client {}\n\
         time to last byte   {}\n\
         global rate         {rate}\n\
         time to verified    {}\n",
        record.proven(),
        us(record.wake_skew_us()),
        us(record.skew_us()),
        us(record.skew_client_us()),
        span(global.seconds),
        span(global.seconds_verified),
    );
    if record.key {
        lines += "key                 yes\n";
    }
    match record.broken_identities().as_slice() {
        [] => lines += "numbers: hold\n",
        broken => {
            for sentence in broken {
                let _ = writeln!(lines, "INVALID: {sentence}");
            }
        }
    }
    lines
}

pub(super) fn mbit(rate: f64) -> String {
    format!("{rate:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn sound_session_is_a_table() {
        insta::assert_snapshot!(session(&sample::session(1, 3, 80), Rows::All), @r#"
        session 0000000000000001: 1MB.bin by tcp to 3 clients
        released 2026-09-21 14:13:21 UTC, 1000000 bytes, SHA-1 3c5b492776742690efb6a0f1fd8508693400e2cc

                        client    client  client  client   server    server  server
        seat  success    bytes   seconds  Mbit/s    port    bytes   seconds    port  name  outcome
        ----  -------  -------  --------  ------  ------  -------  --------  ------  ----  -------
           1      yes  1000000  0.081000  98.765   50001  1000000  0.081120    8080  C1
           2      yes  1000000  0.082000  97.561   50002  1000000  0.082120    8080  C2
           3      yes  1000000  0.083000  96.386   50003  1000000  0.083120    8080  C3

        whole and verified  3 of 3
        release skew        wake 20 us, server 40 us, client 60 us
        time to last byte   0.083120 s
        global rate         288.739 Mbit/s (3000000 bytes in the slowest one's time)
        time to verified    0.086000 s
        numbers: hold
        "#);
    }

    #[test]
    fn failures_say_why_and_unknown_is_a_dash() {
        insta::assert_snapshot!(session(&sample::troubled(), Rows::Failures), @r#"
        session 0000000000000007: 1MB.bin by tcp to 4 clients
        released 2026-09-21 14:13:27 UTC, 1000000 bytes, SHA-1 3c5b492776742690efb6a0f1fd8508693400e2cc

                        client    client  client  client   server    server  server
        seat  success    bytes   seconds  Mbit/s    port    bytes   seconds    port  name          outcome
        ----  -------  -------  --------  ------  ------  -------  --------  ------  ------------  ---------------------------------------------
           1      yes  1000000  0.081000  98.765   50001  1000000  0.081120    8080  C1
           2       no   700000  0.082000  68.293   50002  1000000         -    8080  \u{202e}evil  cut: connection reset \u{7c} by\u{1b}[2J peer
           3        -        -         -       -   50003  1000000  0.083120    8080  C3            complete, not proven
           4       no        -         -       -       -        -         -       -  C4            refused: wants udp, this session is tcp

        whole and verified  1 of 4
        release skew        wake 20 us, server 40 us, client 30 us
        time to last byte   0.083120 s, of the 2 that are complete
        global rate         192.493 Mbit/s (2000000 bytes in the slowest one's time)
        time to verified    0.086000 s, of the 2 that are complete
        numbers: hold
        "#);
    }

    #[test]
    fn client_table_counts_only_the_seats_that_are_here() {
        let mut record = sample::session(1, 4, 80);
        record.transfers.drain(1..);
        let line = |table: String| {
            let mut lines = table.lines();
            lines.find(|line| line.starts_with("whole")).map(str::to_owned)
        };
        let here = line(client_session(&record, Rows::All));
        assert_eq!(here.as_deref(), Some("whole and verified  1 of 1 here"));
        // The server's table misses three.
        let all = line(session(&record, Rows::All));
        assert_eq!(all.as_deref(), Some("whole and verified  1 of 4"));
        let record = sample::session(1, 4, 80);
        let whole = line(client_session(&record, Rows::All));
        assert_eq!(whole.as_deref(), Some("whole and verified  4 of 4"));
    }

    #[test]
    fn a_session_that_nobody_finished_has_no_rate() {
        let mut record = sample::session(1, 1, 80);
        record.released_at = None;
        record.sender = Some("sendfile".to_owned());
        record.transfers[0] = Transfer::new(crate::session::SeatId(1), "C1", Outcome::TimedOut);
        insta::assert_snapshot!(session(&record, Rows::All), @r#"
        session 0000000000000001: 1MB.bin by tcp to 1 client (sendfile)
        released never, 1000000 bytes, SHA-1 3c5b492776742690efb6a0f1fd8508693400e2cc

                       client   client  client  client  server   server  server
        seat  success   bytes  seconds  Mbit/s    port   bytes  seconds    port  name  outcome
        ----  -------  ------  -------  ------  ------  ------  -------  ------  ----  ---------
           1       no       -        -       -       -       -        -       -  C1    timed_out

        whole and verified  0 of 1
        release skew        wake -, server -, client -
        time to last byte   -
        global rate         -
        time to verified    -
        numbers: hold
        "#);
    }

    #[test]
    fn table_of_1000_seats_is_short_and_bad_sums_are_invalid() {
        let mut record = sample::session(1, 1000, 80);
        record.transfers[499].fail(Outcome::TimedOut, "no progress within 10 s");
        record.transfers[499].verified = None;
        record.transfers[700].bytes_client = Some(999_999);
        insta::assert_snapshot!(session(&record, Rows::Failures), @r#"
        session 0000000000000001: 1MB.bin by tcp to 1000 clients
        released 2026-09-21 14:13:21 UTC, 1000000 bytes, SHA-1 3c5b492776742690efb6a0f1fd8508693400e2cc

                          client    client  client  client   server    server  server
          seat  success    bytes   seconds  Mbit/s    port    bytes   seconds    port  name  outcome
        ------  -------  -------  --------  ------  ------  -------  --------  ------  ----  ----------------------------------
           500       no  1000000  0.580000  13.793   50500  1000000  0.580120    8080  C500  timed_out: no progress within 10 s
           low            999999  0.081000   7.407          1000000  0.081120
        median           1000000  0.580500  13.781          1000000  0.580620
          high           1000000  1.080000  98.765          1000000  1.080120
        shown: 1 of 1 that failed, and low, median and high of all 1000 transfers

        whole and verified  999 of 1000
        release skew        wake 9990 us, server 19980 us, client 29970 us
        time to last byte   1.080120 s, of the 999 that are complete
        global rate         7399.178 Mbit/s (998999999 bytes in the slowest one's time)
        time to verified    1.083000 s, of the 999 that are complete
        INVALID: seat 701: complete with 999999 bytes at the client and 0 from before, of 1000000
        "#);
        assert_eq!(session(&record, Rows::All).lines().count(), 1013);

        for transfer in &mut record.transfers {
            transfer.fail(Outcome::Cut, "gone");
        }
        let text = session(&record, Rows::Failures);
        assert!(text.contains("shown: 50 of 1000 that failed"), "{text}");
        assert!(text.lines().count() < 70, "{text}");
    }
}
