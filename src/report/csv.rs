//! Transfers as comma-separated values (RFC 4180), one row each, for spreadsheets and scripts.
//!
//! A missing value is an empty field, which such readers take as missing; `-` would make a column
//! of numbers one of text. Text from outside is escaped as everywhere, and when a spreadsheet
//! would take it for a formula, a `'` before it says that it is text.

use std::time::Duration;

use time::format_description::well_known::Rfc3339;

use crate::{
    text::escape,
    transfer::{Counts, Evidence, Record, Transfer},
    units::{decimal_seconds, micros},
};

/// One column of a transfer's row.
type CsvColumn = (&'static str, fn(&SessionOfRow<'_>, &Transfer) -> String);

/// The columns before the counters; those that the table has too, in its order.
const BEFORE: [CsvColumn; 30] = [
    ("session", |s, _| s.record.session.to_string()),
    ("seat", |_, t| t.seat.to_string()),
    ("released_at_utc", |s, _| s.released_at.to_owned()),
    ("via", |s, _| s.record.via.to_string()),
    ("file", |s, _| outside(s.record.file.name.as_str())),
    ("file_bytes", |s, _| s.record.file.bytes.to_string()),
    ("sha1", |s, _| s.record.file.sha1.to_string()),
    ("clients", |s, _| s.record.clients.to_string()),
    ("sender", |s, _| outside(s.record.sender.as_deref().unwrap_or_default())),
    ("verified", |_, t| or_empty(t.verified.map(|yes| if yes { "yes" } else { "no" }))),
    ("client_bytes", |_, t| or_empty(t.bytes_client)),
    ("resumed_bytes", |_, t| t.bytes_resumed.to_string()),
    ("client_seconds", |_, t| seconds(t.seconds_client)),
    ("client_rate_mbit_per_s", |_, t| rate(t.rate_client_mbit())),
    ("client_address", |_, t| or_empty(t.client.map(|at| at.ip()))),
    ("client_port", |_, t| or_empty(t.client.map(|at| at.port()))),
    ("server_bytes", |_, t| or_empty(t.bytes_server)),
    ("server_seconds", |_, t| seconds(t.seconds_server)),
    ("server_rate_mbit_per_s", |_, t| rate(t.rate_server_mbit())),
    ("server_address", |_, t| or_empty(t.server.map(|at| at.ip()))),
    ("server_port", |_, t| or_empty(t.server.map(|at| at.port()))),
    ("name", |_, t| outside(&t.name)),
    ("outcome", |_, t| t.outcome.to_string()),
    ("reason", |_, t| outside(t.reason.as_deref().unwrap_or_default())),
    ("verified_seconds", |_, t| seconds(t.seconds_verified)),
    ("durable_seconds", |_, t| seconds(t.seconds_durable)),
    ("woke_us", |_, t| or_empty(t.woke.map(micros))),
    ("first_server_us", |_, t| or_empty(t.first_server.map(micros))),
    ("first_client_us", |_, t| or_empty(t.first_client.map(|(_, at)| at.0))),
    ("first_client_clock", |_, t| or_empty(t.first_client.map(|(clock, _)| clock.0))),
];

/// The columns after them, of the whole session.
const AFTER: [CsvColumn; 4] = [
    ("session_wake_skew_us", |s, _| s.skews[0].clone()),
    ("session_server_skew_us", |s, _| s.skews[1].clone()),
    ("session_client_skew_us", |s, _| s.skews[2].clone()),
    ("session_numbers", |s, _| s.numbers.to_owned()),
];

/// All transfers of `records`, with one header; lines end in CR LF, as the RFC has it.
pub fn transfers(records: &[Record]) -> String {
    let names = |columns: &[CsvColumn]| columns.iter().map(|&(name, _)| name).collect::<Vec<_>>();
    let header =
        [names(&BEFORE), Counts::LONG_NAMES.to_vec(), names(&AFTER), Evidence::LONG_NAMES.to_vec()]
            .concat();
    let mut csv = header.join(",") + "\r\n";
    for record in records {
        let session = SessionOfRow::new(record);
        for transfer in &record.transfers {
            csv += &session.row(transfer).join(",");
            csv += "\r\n";
        }
    }
    csv
}

/// The values that are the same in each row of a session. Skews and identities look at every
/// transfer, so they are computed once.
struct SessionOfRow<'a> {
    record: &'a Record,
    released_at: String,
    skews: [String; 3],
    numbers: &'static str,
}

impl<'a> SessionOfRow<'a> {
    fn new(record: &'a Record) -> Self {
        let released_at = record.released_at.and_then(|at| at.format(&Rfc3339).ok());
        let hold = record.broken_identities().is_empty();
        Self {
            record,
            released_at: released_at.unwrap_or_default(),
            skews: [record.wake_skew_us(), record.skew_us(), record.skew_client_us()].map(or_empty),
            numbers: if hold { "hold" } else { "INVALID" },
        }
    }

    fn row(&self, transfer: &Transfer) -> Vec<String> {
        let cell = |(_, value): &CsvColumn| value(self, transfer);
        let counts = transfer.counts.values().into_iter().map(or_empty);
        let before = BEFORE.iter().map(cell);
        let evidence = transfer.evidence.values().into_iter().map(or_empty);
        before.chain(counts).chain(AFTER.iter().map(cell)).chain(evidence).collect()
    }
}

fn seconds(span: Option<Duration>) -> String {
    or_empty(span.map(decimal_seconds))
}

fn rate(mbit: Option<f64>) -> String {
    or_empty(mbit.map(|mbit| format!("{mbit:.6}")))
}

pub(crate) fn or_empty(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A field of text from outside: no control characters, no formula, quoted where it must be.
fn outside(text: &str) -> String {
    let mut field = escape(text);
    // Blanks do not stop a spreadsheet from seeing the sign behind them.
    if field.trim_start().starts_with(['=', '+', '-', '@']) {
        field.insert(0, '\'');
    }
    if field.contains(['"', ',']) || field.trim() != field {
        field = format!("\"{}\"", field.replace('"', "\"\""));
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{sample, session_table};

    #[test]
    fn csv_has_one_header_and_a_row_for_each_transfer() {
        let csv = transfers(&[sample::session(1, 2, 80), sample::troubled()]);
        insta::assert_snapshot!(csv.replace("\r\n", "\n"), @r#"
        session,seat,released_at_utc,via,file,file_bytes,sha1,clients,sender,verified,client_bytes,resumed_bytes,client_seconds,client_rate_mbit_per_s,client_address,client_port,server_bytes,server_seconds,server_rate_mbit_per_s,server_address,server_port,name,outcome,reason,verified_seconds,durable_seconds,woke_us,first_server_us,first_client_us,first_client_clock,lost_datagrams,duplicate_datagrams,reordered_datagrams,jitter_us,retransmitted_bytes,from_server_bytes,from_peers_bytes,offered_datagrams,local_drop_datagrams,network_lost_datagrams,host_rx_drop_datagrams,delivered_datagrams,unique_datagrams,corrupt_datagrams,foreign_datagrams,late_datagrams,unheard_datagrams,reorder_extent_datagrams,loss_burst_datagrams,jitter_p50_us,jitter_p95_us,jitter_p99_us,delay_us,delay_max_us,session_wake_skew_us,session_server_skew_us,session_client_skew_us,session_numbers,client_read_us,client_write_us,client_hash_us,client_sync_us,client_cpu_us,client_cpu_wait_us,connection_busy_us,receive_window_limited_us,send_buffer_limited_us,sent_segments,retransmitted_segments,least_round_trip_us,last_round_trip_us,delivery_bytes_per_s,queued_at_server_bytes,paced_us,server_link_full_us,client_buffer_full_us,repair_us,rate_cuts,client_link_full_us,client_buffer_bytes
        0000000000000001,1,2026-09-21T14:13:21Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,2,,yes,1000000,0,0.081000,98.765432,10.0.0.4,50001,1000000,0.081120,98.619329,10.0.0.1,8080,C1,complete,,0.084000,,10,20,1030,1,,,,,,,,,,,,,,,,,,,,,,,,,10,20,30,hold,,,,,,,,,,,,,,,,,,,,,,
        0000000000000001,2,2026-09-21T14:13:21Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,2,,yes,1000000,0,0.082000,97.560976,10.0.0.4,50002,1000000,0.082120,97.418412,10.0.0.1,8080,C2,complete,,0.085000,,20,40,1060,1,,,,,,,,,,,,,,,,,,,,,,,,,10,20,30,hold,,,,,,,,,,,,,,,,,,,,,,
        0000000000000007,1,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,yes,1000000,0,0.081000,98.765432,10.0.0.4,50001,1000000,0.081120,98.619329,10.0.0.1,8080,C1,complete,,0.084000,,10,20,1030,1,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold,,,,,,,,,,,,,,,,,,,,,,
        0000000000000007,2,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,no,700000,0,0.082000,68.292683,10.0.0.4,50002,1000000,,,10.0.0.1,8080,\u{202e}evil,cut,connection reset \u{7c} by\u{1b}[2J peer,0.085000,,20,40,1060,1,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold,,,,,,,,,,,,,,,,,,,,,,
        0000000000000007,3,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,,,0,,,10.0.0.4,50003,1000000,0.083120,96.246391,10.0.0.1,8080,C3,complete,,0.086000,,30,60,,,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold,,,,,,,,,,,,,,,,,,,,,,
        0000000000000007,4,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,,,0,,,,,,,,,,C4,refused,"wants udp, this session is tcp",,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold,,,,,,,,,,,,,,,,,,,,,,
        "#);
        assert_eq!(csv.matches("\r\n").count(), 7);
        assert_eq!(csv.matches('\n').count(), 7);
    }

    #[test]
    fn columns_stand_as_in_the_table_and_on_the_page() {
        let page = include_str!("../http/page/page.js");
        let page = page.split("const COLUMNS =").nth(1).and_then(|rest| rest.split(';').next());
        let mut record = sample::session(1, 1, 80);
        record.transfers[0].bytes_resumed = 1;
        let text = session_table::session(&record, session_table::Rows::All, None);
        // The two lines of the headings, by the places where their words end.
        let [above, below] = [3, 4].map(|at| text.lines().nth(at).expect("headings"));
        let heading = |words: &str| {
            let (first, second) = words.split_once(' ').unwrap_or(("", words));
            let ends = below.match_indices(second).map(|(at, word)| at + word.len());
            ends.into_iter().find(|&end| {
                first.is_empty() || above.get(..end).is_some_and(|line| line.ends_with(first))
            })
        };
        let (mut terminal, mut web, mut csv) = (Vec::new(), Vec::new(), Vec::new());
        for (on_terminal, on_page, in_csv) in [
            ("seat", "'seat'", "seat"),
            ("success", "'verified'", "verified"),
            ("client bytes", "'bytes client'", "client_bytes"),
            ("bytes kept", "'bytes kept'", "resumed_bytes"),
            ("client seconds", "'time client'", "client_seconds"),
            ("client Mbit/s", "'Mbit/s client'", "client_rate_mbit_per_s"),
            ("client port", "'client port'", "client_port"),
            ("server bytes", "'bytes server'", "server_bytes"),
            ("server seconds", "'time server'", "server_seconds"),
            ("server port", "'server port'", "server_port"),
            ("name", "['client',", "name"),
            ("outcome", "'outcome'", "outcome"),
        ] {
            terminal.push((heading(on_terminal).expect(on_terminal), on_terminal));
            web.push((page.and_then(|page| page.find(on_page)).expect(on_page), on_page));
            let place = BEFORE.iter().position(|&(name, _)| name == in_csv);
            csv.push((place.expect(in_csv), in_csv));
        }
        assert!(terminal.is_sorted(), "{terminal:?}");
        assert!(web.is_sorted(), "{web:?}");
        assert!(csv.is_sorted(), "{csv:?}");
    }

    #[test]
    fn outside_text_is_no_formula_and_no_second_field() {
        for (text, field) in [
            ("=1+1", "'=1+1"),
            (" =1+1", "' =1+1"),
            ("+1", "'+1"),
            ("-", "'-"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\\u{9}=1"),
            ("a=1", "a=1"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\r\nlines", "two\\u{d}\\u{a}lines"),
            (" x ", "\" x \""),
            ("", ""),
        ] {
            assert_eq!(outside(text), field);
        }
    }
}
