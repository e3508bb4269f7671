//! The lab's table of one session, transfer by transfer, and the figures of the whole below it.
//!
//! Client times and server times stand in columns of their own. `-` is a value that was
//! not observed. The table shows what the log holds; nothing is estimated.

pub use crate::report::table::Rows;

use std::{fmt::Write, time::Duration};

use crate::{
    report::{
        auto,
        columns::{self, TransferColumn, When, count},
        complete, counts,
        layout::{Layout, RateUnit},
        table,
        table::{Align, ROWS_MAX, or_dash},
        why,
    },
    text::escape,
    transfer::{Outcome, Record, Transfer},
    units::decimal_seconds,
};

/// One session: a heading, a row for each transfer, and the figures of the whole below. The
/// [verdict](crate::report::verdict::line_of_session) comes after it.
pub fn session(record: &Record, rows: Rows, layout: impl Into<Layout>) -> String {
    table_and_summary(record, rows, usize::from(record.clients), layout.into())
}

/// One session as the clients of one process know it: their own seats, and nothing of the others.
pub fn client_session(record: &Record, rows: Rows, layout: impl Into<Layout>) -> String {
    table_and_summary(record, rows, record.transfers.len(), layout.into())
}

/// `seats` is how many seats of the session the record can know of.
fn table_and_summary(record: &Record, rows: Rows, seats: usize, layout: Layout) -> String {
    let Layout { width: limit, unit } = layout;
    let mut text = heading(record);
    text.push('\n');
    let is_failed = |transfer: &Transfer| success(transfer) == "no";
    let columns = SESSION_COLUMNS.iter().filter(|column| unit.has(column.column.0));
    text += &columns::filled(record, columns, rows, is_failed).fitted(limit);
    if columns::is_short(record, rows) {
        let all = record.transfers.len();
        let failed = record.transfers.iter().filter(|transfer| is_failed(transfer)).count();
        let shown = failed.min(ROWS_MAX);
        let _ = writeln!(
            text,
            "shown: {shown} of {failed} that failed, and low, median and high of all {all} transfers"
        );
    }
    text.push('\n');
    let counted = counts::table(record, rows, limit);
    if !counted.is_empty() {
        text += &counted;
        text.push('\n');
    }
    text += &summary(record, seats, unit);
    table::wrapped(&text, limit)
}

/// In the order of the page and of the CSV. A narrow terminal shows whether the copy arrived, how
/// fast, and if not why; then what the client counted; then what the server did. What was kept of
/// an earlier session has a column where a client kept something.
const SESSION_COLUMNS: [TransferColumn; 13] = [
    TransferColumn::words(("seat", Align::Right, 0), |t| t.seat.to_string()),
    TransferColumn::words(("success", Align::Right, 0), |t| success(t).to_owned()),
    figures(("client\nbytes", 2), 0, |t| count(t.bytes_client)),
    TransferColumn::figures(("bytes\nkept", 2), When::Positive, 0, |t| {
        count(Some(t.bytes_resumed))
    }),
    figures(("client\nseconds", 3), 6, |t| t.seconds_client.map(|s| s.as_secs_f64())),
    figures(("client\nMbit/s", 0), 3, Transfer::rate_client_mbit),
    figures(("client\nMB/s", 0), 3, |t| Some(t.rate_client_mbit()? / 8.0)),
    TransferColumn::words(("client\nport", Align::Right, 6), |t| {
        or_dash(t.client.map(|at| at.port()))
    }),
    figures(("server\nbytes", 4), 0, |t| count(t.bytes_server)),
    figures(("server\nseconds", 5), 6, |t| t.seconds_server.map(|s| s.as_secs_f64())),
    TransferColumn::words(("server\nport", Align::Right, 7), |t| {
        or_dash(t.server.map(|at| at.port()))
    }),
    TransferColumn::words(("name", Align::Left, 1), |t| escape(&t.name)),
    TransferColumn::words(("outcome", Align::Left, 0), ending),
];

const fn figures(
    heading: (&'static str, u8),
    decimals: usize,
    figure: fn(&Transfer) -> Option<f64>,
) -> TransferColumn {
    TransferColumn::figures(heading, When::Always, decimals, figure)
}

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
    let (bytes, sha1) = (record.file.bytes, record.file.sha1);
    let released = released(record).unwrap_or_else(|| "never".to_owned());
    let _ = writeln!(heading, "\nreleased {released}, {bytes} bytes, SHA-1 {sha1}");
    heading += &auto::lines(record).unwrap_or_default();
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

/// The figures of the whole session, one a line.
fn summary(record: &Record, seats: usize, unit: RateUnit) -> String {
    let global = record.global();
    let complete = complete(record);
    // Figures of some clients must not look like figures of all.
    let part = if complete == usize::from(record.clients) {
        String::new()
    } else {
        format!(", of the {complete} that are complete")
    };
    let us = |value: Option<u64>| or_dash(value.map(|us| format!("{us} us")));
    let span = |span: Option<Duration>| {
        or_dash(span.map(|span| format!("{} s{part}", decimal_seconds(span))))
    };
    let rate = match (global.rate_mbit, global.bytes) {
        (Some(rate), Some(bytes)) => {
            format!("{} ({bytes} bytes in the slowest one's time)", unit.text(rate))
        }
        _ => "-".to_owned(),
    };
    let here = if seats < usize::from(record.clients) { " here" } else { "" };
    let skews = [record.wake_skew_us(), record.skew_us(), record.skew_client_us()];
    let [wake, server, client] = skews.map(us);
    let [moved, verified] = [global.seconds, global.seconds_verified].map(span);
    let mut lines = format!(
        "whole and verified  {} of {seats}{here}\n\
         release skew        wake {wake}, server {server}, client {client}\n\
         time to last byte   {moved}\n\
         global rate         {rate}\n\
         time to verified    {verified}\n",
        record.proven(),
    );
    if record.key {
        lines += "key                 yes\n";
    }
    lines += &why::lines(record, ROWS_MAX);
    match record.broken_identities().as_slice() {
        [] => lines += "figures are consistent\n",
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
        insta::assert_snapshot!(session(&sample::session(1, 3, 80), Rows::All, None), @r#"
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
        figures are consistent
        "#);
    }

    #[test]
    fn rates_are_in_the_unit_that_is_asked_for() {
        let record = sample::session(1, 1, 79);
        let shown = |unit| session(&record, Rows::All, Layout { width: Some(80), unit });
        let rows = |text: &str, about: &str| {
            let about = |line: &&str| line.contains(about);
            text.lines().filter(about).map(str::to_owned).collect::<Vec<_>>()
        };
        let (bits, bytes) = (shown(RateUnit::Mbit), shown(RateUnit::Mb));
        let both = shown(RateUnit::Both);
        assert_eq!(rows(&bits, "bit/s").len(), 2, "{bits}");
        assert!(!bits.contains("MB/s") && !bytes.contains("bit/s"), "{bits}{bytes}");
        insta::assert_snapshot!(both.lines().skip(4).take(4).collect::<Vec<_>>().join("\n"), @"
                        client    client   client  client   server
        seat  success    bytes   seconds   Mbit/s    MB/s    bytes  name  outcome
        ----  -------  -------  --------  -------  ------  -------  ----  -------
           1      yes  1000000  0.080000  100.000  12.500  1000000  C1
        ");
        // One MB in 80 ms: 100 Mbit/s are 12.5 MB/s.
        assert_eq!(rows(&bytes, "C1").concat().matches(" 12.500 ").count(), 1, "{bytes}");
        let global = "global rate         99.850 Mbit/s, 12.481 MB/s (1000000 bytes";
        assert!(rows(&both, "global")[0].starts_with(global), "{both}");
        assert!(rows(&bytes, "global")[0].contains("  12.481 MB/s ("), "{bytes}");
    }

    #[test]
    fn failures_say_why_and_unknown_is_a_dash() {
        insta::assert_snapshot!(session(&sample::troubled(), Rows::Failures, None), @r#"
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
        figures are consistent
        "#);
    }

    /// 25 seats of 100 MB: most went well, one resumed, one failed.
    fn room() -> Record {
        let mut record = sample::session(1, 4, 8_000);
        for transfer in &mut record.transfers {
            transfer.bytes_client = Some(100_000_000);
            transfer.bytes_server = Some(100_000_000);
            transfer.name = format!("pc-{:02}.lab.example", transfer.seat.0);
        }
        record.file.bytes = 100_000_000;
        record.transfers[1].bytes_client = Some(68_288_976);
        record.transfers[1].bytes_server = Some(68_288_976);
        record.transfers[1].bytes_resumed = 31_711_024;
        let lost = &mut record.transfers[2];
        lost.fail(
            Outcome::Cut,
            "the connection was lost at byte 54526976: Connection reset by peer (os error 104)",
        );
        lost.verified = None;
        lost.bytes_client = None;
        lost.seconds_client = None;
        lost.seconds_server = None;
        lost.bytes_server = Some(54_526_976);
        record
    }

    #[test]
    fn table_has_the_columns_that_a_terminal_has_room_for() {
        insta::assert_snapshot!(session(&room(), Rows::All, Some(80)), @r"
        session 0000000000000001: 1MB.bin by tcp to 4 clients
        released 2026-09-21 14:13:21 UTC, 100000000 bytes, SHA-1
            3c5b492776742690efb6a0f1fd8508693400e2cc

                       client
        seat  success  Mbit/s  name               outcome
        ----  -------  ------  -----------------  --------------------------------------
           1      yes  99.988  pc-01.lab.example
           2      yes  68.272  pc-02.lab.example
           3       no       -  pc-03.lab.example  cut: the connection was lost at byt...
           4      yes  99.950  pc-04.lab.example
        seat 3: cut: the connection was lost at byte 54526976: Connection reset by peer
            (os error 104)

        whole and verified  3 of 4
        release skew        wake 30 us, server 60 us, client 90 us
        time to last byte   8.004120 s, of the 3 that are complete
        global rate         268.151 Mbit/s (268288976 bytes in the slowest one's time)
        time to verified    8.007000 s, of the 3 that are complete
        figures are consistent
        ");
        insta::assert_snapshot!(session(&room(), Rows::All, Some(120)), @r"
        session 0000000000000001: 1MB.bin by tcp to 4 clients
        released 2026-09-21 14:13:21 UTC, 100000000 bytes, SHA-1 3c5b492776742690efb6a0f1fd8508693400e2cc

                          client     bytes    client  client     server
        seat  success      bytes      kept   seconds  Mbit/s      bytes  name               outcome
        ----  -------  ---------  --------  --------  ------  ---------  -----------------  ------------------------------------
           1      yes  100000000         0  8.001000  99.988  100000000  pc-01.lab.example
           2      yes   68288976  31711024  8.002000  68.272   68288976  pc-02.lab.example
           3       no          -         0         -       -   54526976  pc-03.lab.example  cut: the connection was lost at b...
           4      yes  100000000         0  8.004000  99.950  100000000  pc-04.lab.example
        seat 3: cut: the connection was lost at byte 54526976: Connection reset by peer (os error 104)

        whole and verified  3 of 4
        release skew        wake 30 us, server 60 us, client 90 us
        time to last byte   8.004120 s, of the 3 that are complete
        global rate         268.151 Mbit/s (268288976 bytes in the slowest one's time)
        time to verified    8.007000 s, of the 3 that are complete
        figures are consistent
        ");
        insta::assert_snapshot!(session(&room(), Rows::All, Some(200)), @r"
        session 0000000000000001: 1MB.bin by tcp to 4 clients
        released 2026-09-21 14:13:21 UTC, 100000000 bytes, SHA-1 3c5b492776742690efb6a0f1fd8508693400e2cc

                          client     bytes    client  client  client     server    server  server
        seat  success      bytes      kept   seconds  Mbit/s    port      bytes   seconds    port  name               outcome
        ----  -------  ---------  --------  --------  ------  ------  ---------  --------  ------  -----------------  --------------------------------------------------------------------------------------
           1      yes  100000000         0  8.001000  99.988   50001  100000000  8.001120    8080  pc-01.lab.example
           2      yes   68288976  31711024  8.002000  68.272   50002   68288976  8.002120    8080  pc-02.lab.example
           3       no          -         0         -       -   50003   54526976         -    8080  pc-03.lab.example  cut: the connection was lost at byte 54526976: Connection reset by peer (os error 104)
           4      yes  100000000         0  8.004000  99.950   50004  100000000  8.004120    8080  pc-04.lab.example

        whole and verified  3 of 4
        release skew        wake 30 us, server 60 us, client 90 us
        time to last byte   8.004120 s, of the 3 that are complete
        global rate         268.151 Mbit/s (268288976 bytes in the slowest one's time)
        time to verified    8.007000 s, of the 3 that are complete
        figures are consistent
        ");
        assert_eq!(session(&room(), Rows::All, Some(200)), session(&room(), Rows::All, None));
    }

    #[test]
    fn no_line_of_a_session_is_wider_than_the_terminal() {
        let counted = |mut record: Record| {
            for transfer in &mut record.transfers {
                transfer.counts = crate::transfer::Counts::from_values([Some(123_456); 24]);
            }
            record
        };
        let many = sample::session(2, 1000, 80);
        for record in [room(), sample::troubled(), many, counted(room())] {
            for limit in table::WIDTH_MIN..=250 {
                let tables = [
                    session(&record, Rows::Failures, Some(limit)),
                    client_session(&record, Rows::All, Some(limit)),
                    crate::report::trials::trials(&[record.clone(), record.clone()], Some(limit)),
                ];
                for line in tables.iter().flat_map(|text| text.lines()) {
                    assert!(crate::text::width(line) <= limit, "{limit}: {line}");
                }
            }
        }
    }

    #[test]
    fn client_table_counts_only_the_seats_that_are_here() {
        let mut record = sample::session(1, 4, 80);
        record.transfers.drain(1..);
        let line = |table: String| {
            let mut lines = table.lines();
            lines.find(|line| line.starts_with("whole")).map(str::to_owned)
        };
        let here = line(client_session(&record, Rows::All, None));
        assert_eq!(here.as_deref(), Some("whole and verified  1 of 1 here"));
        // The server's table misses three.
        let all = line(session(&record, Rows::All, None));
        assert_eq!(all.as_deref(), Some("whole and verified  1 of 4"));
        let record = sample::session(1, 4, 80);
        let whole = line(client_session(&record, Rows::All, None));
        assert_eq!(whole.as_deref(), Some("whole and verified  4 of 4"));
    }

    #[test]
    fn a_session_that_nobody_finished_has_no_rate() {
        let mut record = sample::session(1, 1, 80);
        record.released_at = None;
        record.sender = Some("sendfile".to_owned());
        record.transfers[0] = Transfer::new(crate::session::SeatId(1), "C1", Outcome::TimedOut);
        insta::assert_snapshot!(session(&record, Rows::All, None), @r#"
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
        figures are consistent
        "#);
    }

    #[test]
    fn table_of_1000_seats_is_short_and_bad_sums_are_invalid() {
        let mut record = sample::session(1, 1000, 80);
        record.transfers[499].fail(Outcome::TimedOut, "no progress within 10 s");
        record.transfers[499].verified = None;
        record.transfers[700].bytes_client = Some(999_999);
        insta::assert_snapshot!(session(&record, Rows::Failures, None), @r#"
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
        assert_eq!(session(&record, Rows::All, None).lines().count(), 1013);

        for transfer in &mut record.transfers {
            transfer.fail(Outcome::Cut, "gone");
        }
        let text = session(&record, Rows::Failures, None);
        assert!(text.contains("shown: 50 of 1000 that failed"), "{text}");
        assert!(text.lines().count() < 70, "{text}");
    }
}
