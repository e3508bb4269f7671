//! The session log's lines: one per transfer, each enough by itself to rebuild what it tells.
//!
//! A log is a [`header`] and then lines of the same columns, separated by ` | `. A missing value
//! is `-`. Text from outside is escaped, so it can end neither its column nor its line; a text
//! that is itself `-` is written `\u{2d}`, blanks at its ends are written `\u{20}`, and an empty
//! text is an empty column. Times are whole microseconds.
//!
//! Rates and ports stand in a line for its readers and follow from other columns. [`LogLine::decode`]
//! takes a line only when [`LogLine::encode`] would write the very same one, so an edited or damaged
//! figure is seen. What opens, appends to and reads files stands elsewhere; nothing here does.

mod cells;
mod collect;
mod error;

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use time::Date;
use time::OffsetDateTime;
use time::PrimitiveDateTime;
use time::Time;
use time::UtcOffset;

use self::cells::Cells;
use self::cells::MICROSECONDS;
use self::cells::SECONDS;
use self::cells::TEXT;
use self::cells::duration;
use self::cells::mbit;
use self::cells::or_missing;
use self::cells::outside;
use self::cells::parsed;
use self::cells::seconds;
pub use self::collect::Collector;
pub use self::collect::collect;
pub use self::error::LineError;
pub use self::error::LogError;
use self::error::excerpt;
use crate::digest::Digest;
use crate::proto::log_cell::DATE;
use crate::proto::log_cell::SEPARATOR;
use crate::proto::log_cell::TIME;
use crate::session::FileInfo;
use crate::session::SeatId;
use crate::session::SessionId;
use crate::session::Via;
use crate::text::CLIENT_NAME_MAX;
use crate::text::FileName;
use crate::text::unescape;
use crate::transfer::ClockId;
use crate::transfer::Counts;
use crate::transfer::Outcome;
use crate::transfer::Record;
use crate::transfer::Transfer;
use crate::units::Moment;
use crate::units::micros;

/// One line of a session log: a transfer, and of its session all that a [`Record`] needs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    /// The session.
    pub session: SessionId,
    /// The way the bytes travelled.
    pub via: Via,
    /// The file.
    pub file: FileInfo,
    /// The number of seats asked for.
    pub clients: u16,
    /// When the gate opened; `None` when it had not when this was written.
    pub released_at: Option<OffsetDateTime>,
    /// How the server sent.
    pub sender: Option<String>,
    /// The transfer.
    pub transfer: Transfer,
}

/// Longest line, bytes, its end included. The longest that [`LogLine::encode`] writes is under 7 KiB.
pub const LINE_MAX: usize = 8 * 1024;

/// Longest reason that a line keeps, bytes before escaping, which can make six of one.
pub const REASON_MAX: usize = 512;

/// Longest sender that a line keeps, bytes before escaping.
pub const SENDER_MAX: usize = 128;

/// The columns of a line, in order; seconds, microseconds (`us`) and Mbit/s as the names say,
/// sizes in bytes.
pub const COLUMNS: [&str; BEFORE.len() + Counts::NAMES.len()] = {
    let mut columns = [""; BEFORE.len() + Counts::NAMES.len()];
    let mut at = 0;
    while at < columns.len() {
        columns[at] = if at < BEFORE.len() {
            BEFORE[at]
        } else {
            Counts::NAMES[at - BEFORE.len()]
        };
        at += 1;
    }
    columns
};

/// The columns before the counters.
const BEFORE: [&str; 31] = [
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

impl LogLine {
    /// The line of one transfer of `record`.
    pub fn of(record: &Record, transfer: &Transfer) -> Self {
        Self {
            session: record.session,
            via: record.via,
            file: record.file.clone(),
            clients: record.clients,
            released_at: record.released_at,
            sender: record.sender.clone(),
            transfer: transfer.clone(),
        }
    }

    /// The line, with its end. It is always one that [`LogLine::decode`] takes: times lose what is
    /// below a microsecond, and of a name, reason or sender that is too long the end.
    pub fn encode(&self) -> String {
        self.cells().join(SEPARATOR) + "\n"
    }

    fn cells(&self) -> Vec<String> {
        let transfer = &self.transfer;
        let released_at = self
            .released_at
            .and_then(|at| at.checked_to_offset(UtcOffset::UTC));
        let before: [String; BEFORE.len()] = [
            self.session.to_string(),
            transfer.seat.to_string(),
            or_missing(released_at.and_then(|at| at.format(DATE).ok())),
            or_missing(released_at.and_then(|at| at.format(TIME).ok())),
            self.via.to_string(),
            outside(self.file.name.as_str(), usize::MAX),
            self.file.bytes.to_string(),
            or_missing(transfer.bytes_client),
            or_missing(transfer.seconds_client.map(seconds)),
            or_missing(mbit(transfer.bytes_client, transfer.seconds_client)),
            or_missing(transfer.client.map(|address| address.port())),
            or_missing(transfer.bytes_server),
            or_missing(transfer.seconds_server.map(seconds)),
            or_missing(mbit(transfer.bytes_server, transfer.seconds_server)),
            or_missing(transfer.server.map(|address| address.port())),
            transfer.outcome.to_string(),
            or_missing(transfer.verified.map(|yes| if yes { "yes" } else { "no" })),
            or_missing(transfer.reason.as_ref().map(|why| outside(why, REASON_MAX))),
            outside(&transfer.name, CLIENT_NAME_MAX),
            or_missing(transfer.client),
            or_missing(transfer.server),
            self.clients.to_string(),
            self.file.sha1.to_string(),
            transfer.bytes_resumed.to_string(),
            or_missing(transfer.seconds_verified.map(seconds)),
            or_missing(transfer.seconds_durable.map(seconds)),
            or_missing(transfer.woke.map(micros)),
            or_missing(transfer.first_server.map(micros)),
            or_missing(transfer.first_client.map(|(_, at)| at.0)),
            or_missing(transfer.first_client.map(|(ClockId(id), _)| id)),
            or_missing(self.sender.as_ref().map(|how| outside(how, SENDER_MAX))),
        ];
        let counts = transfer.counts.values();
        before
            .into_iter()
            .chain(counts.into_iter().map(or_missing))
            .collect()
    }

    /// Reads a line, which must have its end.
    ///
    /// # Errors
    /// Any line that [`LogLine::encode`] does not write, with the column that is wrong.
    pub fn decode(line: &str) -> Result<Self, LineError> {
        if line.len() > LINE_MAX {
            return Err(LineError::TooLong);
        }
        let line = line.strip_suffix('\n').ok_or(LineError::Cut)?;
        let cells: Vec<&str> = line.split(SEPARATOR).collect();
        if cells.len() != COLUMNS.len() {
            return Err(LineError::Columns { found: cells.len() });
        }
        let decoded = Self::read(&mut Cells::new(&cells))?;
        let pairs = cells.iter().zip(decoded.cells());
        for (name, (&found, wanted)) in COLUMNS.into_iter().zip(pairs) {
            if found != wanted {
                return Err(LineError::Disagrees {
                    name,
                    found: excerpt(found),
                    wanted,
                });
            }
        }
        Ok(decoded)
    }

    /// Reads every column from which others do not follow, in their order.
    fn read(cells: &mut Cells<'_, '_>) -> Result<Self, LineError> {
        let session = cells.needed("a session's 16 digits", parsed)?;
        let seat = SeatId(cells.needed("a seat", parsed)?);
        let date = cells.optional("a date, YYYY-MM-DD", |text| Date::parse(text, DATE).ok())?;
        let time = cells.optional("a time, HH:MM:SS.ffffff", |text| {
            Time::parse(text, TIME).ok()
        })?;
        let via = cells.needed("tcp, udp, raw, multicast, swarm or http", parsed)?;
        let file_name = cells.needed("a file name", |text| FileName::new(&unescape(text)?).ok())?;
        let size = cells.needed("a number of bytes", parsed)?;
        let bytes_client = cells.optional("a number of bytes", parsed)?;
        let seconds_client = cells.optional(SECONDS, duration)?;
        cells.skip(2);
        let bytes_server = cells.optional("a number of bytes", parsed)?;
        let seconds_server = cells.optional(SECONDS, duration)?;
        cells.skip(2);
        let outcome = cells.needed("complete, cut, corrupt, timed_out or refused", |text| {
            Outcome::from_str(text).ok()
        })?;
        let verified = cells.optional("yes, no or -", |text| match text {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        })?;
        let reason = cells.optional(TEXT, unescape)?;
        // A name is never missing, so a `-` here can only be a damaged one.
        let name = cells.needed(TEXT, unescape)?;
        let mut transfer = Transfer::new(seat, name, outcome);
        transfer.verified = verified;
        transfer.reason = reason;
        transfer.bytes_client = bytes_client;
        transfer.seconds_client = seconds_client;
        transfer.bytes_server = bytes_server;
        transfer.seconds_server = seconds_server;
        transfer.client = cells.optional("an address and port", parsed::<SocketAddr>)?;
        transfer.server = cells.optional("an address and port", parsed::<SocketAddr>)?;
        let clients = cells.needed("a number of clients", parsed)?;
        let sha1 = cells.needed("40 hexadecimal digits", parsed::<Digest>)?;
        transfer.bytes_resumed = cells.needed("a number of bytes", parsed)?;
        transfer.seconds_verified = cells.optional(SECONDS, duration)?;
        transfer.seconds_durable = cells.optional(SECONDS, duration)?;
        transfer.woke = cells
            .optional(MICROSECONDS, parsed)?
            .map(Duration::from_micros);
        transfer.first_server = cells
            .optional(MICROSECONDS, parsed)?
            .map(Duration::from_micros);
        let first_client = cells.optional(MICROSECONDS, parsed)?.map(Moment);
        transfer.first_client = cells
            .optional("a clock's number", parsed)?
            .map(ClockId)
            .zip(first_client);
        let sender = cells.optional(TEXT, unescape)?;
        let mut counts = Counts::default().values();
        for count in &mut counts {
            *count = cells.optional("a number", parsed)?;
        }
        transfer.counts = Counts::from_values(counts);
        Ok(Self {
            session,
            via,
            file: FileInfo {
                name: file_name,
                bytes: size,
                sha1,
            },
            clients,
            // One without the other does not come back in `cells` and is refused there.
            released_at: date
                .zip(time)
                .map(|(date, time)| PrimitiveDateTime::new(date, time).assume_utc()),
            sender,
            transfer,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::cells::MISSING;
    use super::*;

    fn line(transfer: Transfer) -> LogLine {
        LogLine {
            session: SessionId(0x00ab_cdef_0123_4567),
            via: Via::Tcp,
            file: FileInfo {
                name: FileName::new("100MB.bin").expect("plain"),
                bytes: 100_000_000,
                sha1: Digest::of(b"gate"),
            },
            clients: 25,
            released_at: OffsetDateTime::from_unix_timestamp(1_790_000_000).ok(),
            sender: Some("sendfile, bbr".to_owned()),
            transfer,
        }
    }

    fn full() -> Transfer {
        let mut transfer = Transfer::new(SeatId(3), "PC-07", Outcome::Complete);
        transfer.client = "10.0.0.4:50123".parse().ok();
        transfer.server = "[fe80::1%2]:8080".parse().ok();
        transfer.verified = Some(true);
        transfer.bytes_client = Some(100_000_000);
        transfer.bytes_server = Some(100_000_000);
        transfer.seconds_client = Some(Duration::from_micros(8_000_001));
        transfer.seconds_server = Some(Duration::from_secs(16));
        transfer.woke = Some(Duration::from_micros(12));
        transfer.first_client = Some((ClockId(7), Moment(u64::MAX)));
        transfer.counts.lost = Some(0);
        transfer
    }

    /// The columns of a line by name.
    fn column<'a>(line: &'a str, name: &str) -> &'a str {
        let place = COLUMNS.iter().position(|&column| column == name);
        line.trim_end_matches('\n')
            .split(SEPARATOR)
            .nth(place.expect("a column"))
            .expect("as many as the header has")
    }

    #[test]
    fn a_line_reads_as_the_lab_expects() {
        insta::assert_snapshot!(header() + &line(full()).encode(), @r#"
        session | seat | date | time | via | file | size | client_bytes | client_s | client_mbit | client_port | server_bytes | server_s | server_mbit | server_port | verdict | verified | reason | name | client | server | clients | sha1 | resumed | verified_s | durable_s | woke_us | first_server_us | first_client_us | clock | sender | lost | duplicate | reordered | jitter_us | retransmitted | bytes_from_server | bytes_from_peers | offered | local_drop | network_lost | host_rx_drop | delivered | unique | corrupt | foreign | late | unheard | reorder_extent | loss_burst | jitter_p50_us | jitter_p95_us | jitter_p99_us | delay_us | delay_max_us
        00abcdef01234567 | 3 | 2026-09-21 | 14:13:20.000000 | tcp | 100MB.bin | 100000000 | 100000000 | 8.000001 | 100.000 | 50123 | 100000000 | 16.000000 | 50.000 | 8080 | complete | yes | - | PC-07 | 10.0.0.4:50123 | [fe80::1%2]:8080 | 25 | 3c5b492776742690efb6a0f1fd8508693400e2cc | 0 | - | - | 12 | - | 18446744073709551615 | 7 | sendfile, bbr | 0 | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | - | -
        "#);
    }

    #[test]
    fn forged_text_stays_in_its_column() {
        let forged = [
            "",
            "-",
            " ",
            "  two  ",
            "a | b",
            " | ",
            "|",
            "\n1 | 2\n",
            "\\u{7c}",
            "\u{9b}2J\u{202e}",
            "\u{3000}wide\u{a0}",
            "\r",
        ];
        for text in forged {
            let mut transfer = full();
            transfer.name = text.to_owned();
            transfer.reason = Some(text.to_owned());
            let mut line = line(transfer);
            line.sender = Some(text.to_owned());
            let encoded = line.encode();
            assert_eq!(encoded.matches('\n').count(), 1, "{encoded:?}");
            assert_eq!(encoded.matches('|').count(), COLUMNS.len() - 1);
            for name in ["name", "reason", "sender"] {
                let cell = column(&encoded, name);
                assert_eq!(cell, cell.trim(), "{text:?}");
                assert_ne!(cell, MISSING, "{text:?}");
            }
            assert_eq!(LogLine::decode(&encoded), Ok(line), "{text:?}");
        }
    }

    #[test]
    fn the_longest_texts_make_a_line_that_is_read() {
        let mut transfer = full();
        transfer.name = "\u{1b}".repeat(CLIENT_NAME_MAX);
        transfer.reason = Some("\u{1b}".repeat(REASON_MAX));
        let mut line = line(transfer);
        line.file.name = FileName::new(&"|".repeat(255)).expect("no control");
        line.sender = Some("\u{1b}".repeat(SENDER_MAX));
        let encoded = line.encode();
        assert!(encoded.len() < LINE_MAX - 1024, "{}", encoded.len());
        assert_eq!(LogLine::decode(&encoded), Ok(line.clone()));

        line.transfer.reason = Some("ñ".repeat(5000));
        let kept = LogLine::decode(&line.encode()).expect("cut to fit");
        let reason = kept.transfer.reason.expect("some");
        assert!(
            reason.starts_with("ññ") && reason.ends_with("ñ..."),
            "{reason}"
        );
        assert!(reason.len() <= REASON_MAX);
    }

    #[test]
    fn times_between_microseconds_are_cut_and_their_line_is_read() {
        let mut transfer = full();
        transfer.seconds_client = Some(Duration::from_nanos(999));
        transfer.seconds_server = Some(Duration::from_nanos(1_999));
        let mut line = line(transfer);
        line.released_at = OffsetDateTime::from_unix_timestamp_nanos(1_999_999_999).ok();
        let encoded = line.encode();
        assert_eq!(column(&encoded, "time"), "00:00:01.999999");
        assert_eq!(column(&encoded, "client_s"), "0.000000");
        assert_eq!(column(&encoded, "client_mbit"), MISSING);
        assert_eq!(column(&encoded, "server_s"), "0.000001");
        assert_eq!(
            LogLine::decode(&encoded).map(|line| line.encode()),
            Ok(encoded)
        );
    }

    #[test]
    fn a_cut_line_is_an_error_wherever_it_is_cut() {
        let encoded = line(full()).encode();
        for end in 0..encoded.len() {
            assert_eq!(
                LogLine::decode(&encoded[..end]),
                Err(LineError::Cut),
                "{end}"
            );
            // The same with an end put to it: either a column is missing or one is damaged.
            let ended = encoded[..end].to_owned() + "\n";
            let whole = end == encoded.len() - 1;
            assert_eq!(LogLine::decode(&ended).is_ok(), whole, "{ended}");
        }
        let long = "x".repeat(LINE_MAX) + "\n";
        assert_eq!(LogLine::decode(&long), Err(LineError::TooLong));
    }

    #[test]
    fn a_changed_figure_is_seen_and_its_column_named() {
        let encoded = line(full()).encode();
        for (name, forged) in [
            ("session", "00ABCDEF01234567"),
            ("seat", "03"),
            ("seat", "70000"),
            ("date", "2026-02-30"),
            ("date", "-"),
            ("time", "24:00:00.000000"),
            ("via", "TCP"),
            ("file", "a/b"),
            ("size", "+5"),
            ("client_bytes", "90000000"),
            ("client_s", "8.1"),
            ("client_mbit", "100.001"),
            ("client_port", "50124"),
            ("server_port", "-"),
            ("verdict", "won"),
            ("verified", "true"),
            ("reason", "\\n"),
            ("reason", "\\u{41}"),
            ("name", "-"),
            ("name", " x"),
            ("client", "10.0.0.4"),
            ("sha1", "12"),
            ("resumed", "-"),
            ("clock", "-"),
            ("lost", "-1"),
            ("bytes_from_peers", "18446744073709551616"),
        ] {
            let place = COLUMNS.iter().position(|&c| c == name).expect("a column");
            let mut cells: Vec<&str> = encoded.trim_end().split(SEPARATOR).collect();
            cells[place] = forged;
            let error = LogLine::decode(&(cells.join(SEPARATOR) + "\n")).expect_err(name);
            // A changed size shows in the rate that follows from it, half a pair in the other.
            let shown = match (name, forged) {
                ("client_bytes", _) => "client_mbit",
                ("date", "-") => "time",
                ("clock", _) => "first_client_us",
                _ => name,
            };
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("column {shown} holds")),
                "{error}"
            );
        }
    }

    fn whole_micros() -> impl Strategy<Value = Option<Duration>> {
        option::of(any::<u64>().prop_map(Duration::from_micros))
    }

    fn address() -> impl Strategy<Value = Option<SocketAddr>> {
        option::of(
            any::<(std::net::IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip, port)),
        )
    }

    fn figures() -> impl Strategy<Value = Transfer> {
        let bytes = || option::of(any::<u64>());
        (
            (
                any::<u16>(),
                "(?s).{0,16}",
                0..Outcome::ALL.len(),
                option::of("(?s).{0,40}"),
            ),
            (
                address(),
                address(),
                any::<Option<bool>>(),
                bytes(),
                bytes(),
                any::<u64>(),
            ),
            (
                whole_micros(),
                whole_micros(),
                whole_micros(),
                whole_micros(),
            ),
            (whole_micros(), whole_micros(), any::<Option<(u64, u64)>>()),
            proptest::array::uniform24(bytes()),
        )
            .prop_map(|(who, bytes, times, firsts, counts)| {
                let mut transfer = Transfer::new(SeatId(who.0), who.1, Outcome::ALL[who.2]);
                transfer.reason = who.3;
                transfer.client = bytes.0;
                transfer.server = bytes.1;
                transfer.verified = bytes.2;
                transfer.bytes_client = bytes.3;
                transfer.bytes_server = bytes.4;
                transfer.bytes_resumed = bytes.5;
                transfer.seconds_client = times.0;
                transfer.seconds_server = times.1;
                transfer.seconds_verified = times.2;
                transfer.seconds_durable = times.3;
                transfer.woke = firsts.0;
                transfer.first_server = firsts.1;
                transfer.first_client = firsts.2.map(|(id, at)| (ClockId(id), Moment(at)));
                transfer.counts = Counts::from_values(counts);
                transfer
            })
    }

    proptest! {
        #[test]
        fn every_transfer_comes_back_exactly(
            transfer in figures(),
            session in any::<u64>(),
            via in 0..Via::ALL.len(),
            at in option::of(0..253_402_300_799_999_999_i64),
            clients in any::<u16>(),
        ) {
            let mut line = line(transfer);
            line.session = SessionId(session);
            line.via = Via::ALL[via];
            line.clients = clients;
            line.released_at = at.map(|us| {
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1000).expect("in range")
            });
            let encoded = line.encode();
            prop_assert!(encoded.len() <= LINE_MAX);
            prop_assert_eq!(LogLine::decode(&encoded), Ok(line));
        }

        #[test]
        fn damage_is_an_error_or_the_same_text_and_never_a_panic(
            place in any::<proptest::sample::Index>(),
            byte in any::<char>(),
        ) {
            let mut damaged: Vec<char> = line(full()).encode().chars().collect();
            let place = place.index(damaged.len());
            damaged[place] = byte;
            let damaged: String = damaged.into_iter().collect();
            if let Ok(line) = LogLine::decode(&damaged) {
                prop_assert_eq!(line.encode(), damaged);
            }
        }

        #[test]
        fn nothing_at_all_makes_it_panic(text in "(?s).{0,200}") {
            prop_assert!(LogLine::decode(&text).is_err());
        }
    }
}
