//! Transfers as comma-separated values (RFC 4180), one row each, for spreadsheets and scripts.
//!
//! A missing value is an empty field, which such readers take as missing; `-` would make a column
//! of numbers one of text. Text from outside is escaped as everywhere, and when a spreadsheet
//! would take it for a formula, a `'` before it says that it is text.

use std::net::SocketAddr;

use crate::text::escape;
use crate::transfer::Counts;
use crate::transfer::Record;
use crate::transfer::Transfer;
use crate::units::decimal_seconds;
use crate::units::micros;

/// The columns before the counters.
const BEFORE: [&str; 30] = [
    "session",
    "seat",
    "released_at_utc",
    "via",
    "file",
    "file_bytes",
    "sha1",
    "clients",
    "sender",
    "name",
    "client_address",
    "client_port",
    "server_address",
    "server_port",
    "outcome",
    "verified",
    "reason",
    "client_bytes",
    "client_seconds",
    "client_rate_mbit_per_s",
    "server_bytes",
    "server_seconds",
    "server_rate_mbit_per_s",
    "resumed_bytes",
    "verified_seconds",
    "durable_seconds",
    "woke_us",
    "first_server_us",
    "first_client_us",
    "first_client_clock",
];

/// The columns after them, of the whole session.
const AFTER: [&str; 4] = [
    "session_wake_skew_us",
    "session_server_skew_us",
    "session_client_skew_us",
    "session_numbers",
];

/// All transfers of `records`, with one header; lines end in CR LF, as the RFC has it.
pub fn transfers(records: &[Record]) -> String {
    let header = [&BEFORE[..], &Counts::LONG_NAMES, &AFTER].concat();
    let mut csv = header.join(",") + "\r\n";
    for record in records {
        let session = OfSession::new(record);
        for transfer in &record.transfers {
            csv += &session.row(record, transfer).join(",");
            csv += "\r\n";
        }
    }
    csv
}

/// What is the same in each row of a session; skews and identities look at every transfer, so
/// they are computed once.
struct OfSession {
    released_at: String,
    skews: [String; 3],
    numbers: &'static str,
}

impl OfSession {
    fn new(record: &Record) -> Self {
        let released_at = record.released_at.and_then(|at| {
            at.format(&time::format_description::well_known::Rfc3339)
                .ok()
        });
        Self {
            released_at: released_at.unwrap_or_default(),
            skews: [
                or_empty(record.wake_skew_us()),
                or_empty(record.skew_us()),
                or_empty(record.skew_client_us()),
            ],
            numbers: match record.broken_identities().is_empty() {
                true => "hold",
                false => "INVALID",
            },
        }
    }

    fn row(&self, record: &Record, transfer: &Transfer) -> Vec<String> {
        let seconds = |span: Option<std::time::Duration>| or_empty(span.map(decimal_seconds));
        let address = |at: Option<SocketAddr>| or_empty(at.map(|at| at.ip()));
        let port = |at: Option<SocketAddr>| or_empty(at.map(|at| at.port()));
        let rate = |rate: Option<f64>| or_empty(rate.map(|rate| format!("{rate:.6}")));
        let before: [String; BEFORE.len()] = [
            record.session.to_string(),
            transfer.seat.to_string(),
            self.released_at.clone(),
            record.via.to_string(),
            outside(record.file.name.as_str()),
            record.file.bytes.to_string(),
            record.file.sha1.to_string(),
            record.clients.to_string(),
            outside(record.sender.as_deref().unwrap_or_default()),
            outside(&transfer.name),
            address(transfer.client),
            port(transfer.client),
            address(transfer.server),
            port(transfer.server),
            transfer.outcome.to_string(),
            or_empty(transfer.verified.map(|yes| if yes { "yes" } else { "no" })),
            outside(transfer.reason.as_deref().unwrap_or_default()),
            or_empty(transfer.bytes_client),
            seconds(transfer.seconds_client),
            rate(transfer.rate_client_mbit()),
            or_empty(transfer.bytes_server),
            seconds(transfer.seconds_server),
            rate(transfer.rate_server_mbit()),
            transfer.bytes_resumed.to_string(),
            seconds(transfer.seconds_verified),
            seconds(transfer.seconds_durable),
            or_empty(transfer.woke.map(micros)),
            or_empty(transfer.first_server.map(micros)),
            or_empty(transfer.first_client.map(|(_, at)| at.0)),
            or_empty(transfer.first_client.map(|(clock, _)| clock.0)),
        ];
        let counts = transfer.counts.values();
        let after: [String; AFTER.len()] = [
            self.skews[0].clone(),
            self.skews[1].clone(),
            self.skews[2].clone(),
            self.numbers.to_owned(),
        ];
        before
            .into_iter()
            .chain(counts.into_iter().map(or_empty))
            .chain(after)
            .collect()
    }
}

fn or_empty(value: Option<impl ToString>) -> String {
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
    use crate::report::sample;

    #[test]
    fn one_header_and_a_row_for_each_transfer() {
        let csv = transfers(&[sample::session(1, 2, 80), sample::troubled()]);
        insta::assert_snapshot!(csv.replace("\r\n", "\n"), @r#"
        session,seat,released_at_utc,via,file,file_bytes,sha1,clients,sender,name,client_address,client_port,server_address,server_port,outcome,verified,reason,client_bytes,client_seconds,client_rate_mbit_per_s,server_bytes,server_seconds,server_rate_mbit_per_s,resumed_bytes,verified_seconds,durable_seconds,woke_us,first_server_us,first_client_us,first_client_clock,lost_datagrams,duplicate_datagrams,reordered_datagrams,jitter_us,retransmitted_bytes,from_server_bytes,from_peers_bytes,offered_datagrams,local_drop_datagrams,network_lost_datagrams,host_rx_drop_datagrams,delivered_datagrams,unique_datagrams,corrupt_datagrams,foreign_datagrams,late_datagrams,unheard_datagrams,reorder_extent_datagrams,loss_burst_datagrams,jitter_p50_us,jitter_p95_us,jitter_p99_us,delay_us,delay_max_us,session_wake_skew_us,session_server_skew_us,session_client_skew_us,session_numbers
        0000000000000001,1,2026-09-21T14:13:21Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,2,,C1,10.0.0.4,50001,10.0.0.1,8080,complete,yes,,1000000,0.081000,98.765432,1000000,0.081120,98.619329,0,0.084000,,10,20,1030,1,,,,,,,,,,,,,,,,,,,,,,,,,10,20,30,hold
        0000000000000001,2,2026-09-21T14:13:21Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,2,,C2,10.0.0.4,50002,10.0.0.1,8080,complete,yes,,1000000,0.082000,97.560976,1000000,0.082120,97.418412,0,0.085000,,20,40,1060,1,,,,,,,,,,,,,,,,,,,,,,,,,10,20,30,hold
        0000000000000007,1,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,C1,10.0.0.4,50001,10.0.0.1,8080,complete,yes,,1000000,0.081000,98.765432,1000000,0.081120,98.619329,0,0.084000,,10,20,1030,1,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold
        0000000000000007,2,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,\u{202e}evil,10.0.0.4,50002,10.0.0.1,8080,cut,no,connection reset \u{7c} by\u{1b}[2J peer,700000,0.082000,68.292683,1000000,,,0,0.085000,,20,40,1060,1,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold
        0000000000000007,3,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,C3,10.0.0.4,50003,10.0.0.1,8080,complete,,,,,,1000000,0.083120,96.246391,0,0.086000,,30,60,,,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold
        0000000000000007,4,2026-09-21T14:13:27Z,tcp,1MB.bin,1000000,3c5b492776742690efb6a0f1fd8508693400e2cc,4,,C4,,,,,refused,,"wants udp, this session is tcp",,,,,,,0,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,20,40,30,hold
        "#);
        assert_eq!(csv.matches("\r\n").count(), 7);
        assert_eq!(csv.matches('\n').count(), 7);
    }

    #[test]
    fn text_from_outside_is_neither_a_formula_nor_another_field() {
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
