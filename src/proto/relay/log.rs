//! The relay log's lines: one per viewer that connected, written when it is gone.
//!
//! A log of its own beside the session log: a viewer has no file, no digest and no verdict on a
//! copy, and what it has (pauses, loss by place, delay) has no column there. The form is the same:
//! a [`HEADER`], columns separated by ` | `, `-` where a value is missing, text from outside
//! escaped. [`ViewerRecord::decode`]
//! accepts a line only when [`ViewerRecord::encode`] would write the same.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

use crate::{
    proto::{
        histogram::Delay,
        line::DecodeError,
        log_cell::{DATE, MISSING, SEPARATOR, TIME, duration, or_missing, outside},
        relay::reports::{ReceiverReport, SenderReport},
    },
    session::SessionId,
    text::unescape,
    units::decimal_seconds,
};

/// One viewer's time at a relay.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewerRecord {
    /// Which run of a relay.
    pub relay: SessionId,
    /// The viewer's number in it, from 1.
    pub viewer: u64,
    /// When it connected.
    pub at: OffsetDateTime,
    /// Where datagrams went.
    pub to: SocketAddr,
    /// How long it stayed, pauses included, in whole microseconds.
    pub watched: Duration,
    /// What was sent to it.
    pub sent: SenderReport,
    /// What it received, as it last reported; `None` for a client that reports nothing.
    pub received: Option<ReceiverReport>,
    /// How it ended.
    pub end: ViewerEnd,
    /// Why, where there is more to say.
    pub reason: Option<String>,
}

/// How a viewer's time at a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewerEnd {
    /// It disconnected.
    Left,
    /// Its connection closed or broke.
    Closed,
    /// It sent nothing for too long.
    Silent,
    /// Nobody listened where datagrams went.
    Refused,
    /// The relay stopped.
    Stopped,
}

/// Longest line, bytes, its end included.
pub const LINE_MAX: usize = 4096;

/// How many columns a line has.
const COLUMNS: usize = 25;

/// Longest reason that a line keeps, bytes before escaping.
const REASON_MAX: usize = 200;

/// The first line of a log, with its end: the columns in order; `_s` seconds, `_us` microseconds,
/// the rest datagrams where no other unit is named.
pub const HEADER: &str = "relay | viewer | date | time | to | watched_s | sent | sent_bytes | \
    dropped | paused | source_cc | source_rtp_lost | source_jitter_us | p50_us | p99_us | \
    worst_us | received | received_bytes | host_drop | network_lost | cc | rtp_lost | \
    jitter_us | end | reason\n";

impl ViewerRecord {
    /// The line, with its end.
    pub fn encode(&self) -> String {
        let (sent, got) = (&self.sent, self.received.as_ref());
        let reason = self.reason.as_deref().filter(|why| !why.is_empty());
        let cells: [String; COLUMNS] = [
            self.relay.to_string(),
            self.viewer.to_string(),
            or_missing(self.at.format(DATE).ok()),
            or_missing(self.at.format(TIME).ok()),
            self.to.to_string(),
            decimal_seconds(self.watched),
            sent.sent.to_string(),
            sent.bytes.to_string(),
            sent.dropped.to_string(),
            sent.paused.to_string(),
            sent.cc.to_string(),
            or_missing(sent.rtp_lost),
            or_missing(sent.jitter_us),
            or_missing(sent.delay.p50_us),
            or_missing(sent.delay.p99_us),
            or_missing(sent.delay.worst_us),
            or_missing(got.map(|got| got.datagrams)),
            or_missing(got.map(|got| got.bytes)),
            or_missing(got.and_then(|got| got.host_drop)),
            or_missing(sent.network_lost(got)),
            or_missing(got.map(|got| got.cc)),
            or_missing(got.and_then(|got| got.rtp_lost)),
            or_missing(got.and_then(|got| got.jitter_us)),
            self.end.to_string(),
            or_missing(reason.map(|why| outside(why, REASON_MAX))),
        ];
        cells.join(SEPARATOR) + "\n"
    }

    /// Reads a line, which must have its end.
    ///
    /// # Errors
    /// Any line that [`ViewerRecord::encode`] does not write.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let wrong = || DecodeError::value("no line of a relay log", line.trim_end());
        if line.len() > LINE_MAX {
            return Err(wrong());
        }
        let record = line.strip_suffix('\n').and_then(Self::read);
        // What follows from other columns, and how numbers are written, must be the same too.
        record.filter(|record| record.encode() == line).ok_or_else(wrong)
    }

    fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.split(SEPARATOR).collect();
        let cells: [&str; COLUMNS] = cells.try_into().ok()?;
        let number = |at: usize| cells[at].parse::<u64>().ok();
        let maybe = |at: usize| match cells[at] {
            MISSING => Some(None),
            text => text.parse::<u64>().ok().map(Some),
        };
        let (date, time) = (Date::parse(cells[2], DATE), Time::parse(cells[3], TIME));
        let received = match maybe(16)? {
            None => None,
            Some(datagrams) => Some(ReceiverReport {
                datagrams,
                bytes: number(17)?,
                host_drop: maybe(18)?,
                cc: number(20)?,
                rtp_lost: maybe(21)?,
                jitter_us: maybe(22)?,
            }),
        };
        Some(Self {
            relay: cells[0].parse().ok()?,
            viewer: number(1)?,
            at: PrimitiveDateTime::new(date.ok()?, time.ok()?).assume_utc(),
            to: cells[4].parse().ok()?,
            watched: duration(cells[5])?,
            sent: SenderReport {
                sent: number(6)?,
                bytes: number(7)?,
                dropped: number(8)?,
                paused: number(9)?,
                cc: number(10)?,
                rtp_lost: maybe(11)?,
                jitter_us: maybe(12)?,
                delay: Delay { p50_us: maybe(13)?, p99_us: maybe(14)?, worst_us: maybe(15)? },
            },
            received,
            end: cells[23].parse().ok()?,
            reason: match cells[24] {
                MISSING => None,
                text => Some(unescape(text)?),
            },
        })
    }
}

impl ViewerEnd {
    /// All ends, as logs name them.
    pub const ALL: [Self; 5] =
        [Self::Left, Self::Closed, Self::Silent, Self::Refused, Self::Stopped];
}

impl fmt::Display for ViewerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        })
    }
}

impl FromStr for ViewerEnd {
    type Err = DecodeError;

    fn from_str(text: &str) -> Result<Self, DecodeError> {
        let found = Self::ALL.into_iter().find(|end| end.to_string() == text);
        found.ok_or_else(|| DecodeError::value("no end of a visit", text))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn record() -> ViewerRecord {
        ViewerRecord {
            relay: SessionId(0x0123_4567_89ab_cdef),
            viewer: 3,
            at: datetime!(2026-11-21 00:12:13.000456 UTC),
            to: "127.0.0.1:5000".parse().expect("an address"),
            watched: Duration::from_micros(61_000_042),
            sent: SenderReport {
                sent: 600,
                bytes: 789_600,
                dropped: 5,
                paused: 40,
                cc: 1,
                rtp_lost: None,
                jitter_us: Some(90),
                delay: Delay { p50_us: Some(200), p99_us: Some(900), worst_us: Some(1200) },
            },
            received: Some(ReceiverReport {
                datagrams: 590,
                bytes: 776_440,
                cc: 9,
                rtp_lost: None,
                jitter_us: Some(110),
                host_drop: Some(4),
            }),
            end: ViewerEnd::Left,
            reason: None,
        }
    }

    #[test]
    fn line_shows_where_datagrams_were_lost() {
        insta::assert_snapshot!(HEADER.to_owned() + &record().encode(), @r"
        relay | viewer | date | time | to | watched_s | sent | sent_bytes | dropped | paused | source_cc | source_rtp_lost | source_jitter_us | p50_us | p99_us | worst_us | received | received_bytes | host_drop | network_lost | cc | rtp_lost | jitter_us | end | reason
        0123456789abcdef | 3 | 2026-11-21 | 00:12:13.000456 | 127.0.0.1:5000 | 61.000042 | 600 | 789600 | 5 | 40 | 1 | - | 90 | 200 | 900 | 1200 | 590 | 776440 | 4 | 6 | 9 | - | 110 | left | -
        ");
        let lab = ViewerRecord {
            received: None,
            end: ViewerEnd::Closed,
            reason: Some("reset | by\npeer".to_owned()),
            ..record()
        };
        insta::assert_snapshot!(lab.encode(), @r"0123456789abcdef | 3 | 2026-11-21 | 00:12:13.000456 | 127.0.0.1:5000 | 61.000042 | 600 | 789600 | 5 | 40 | 1 | - | 90 | 200 | 900 | 1200 | - | - | - | - | - | - | - | closed | reset \u{7c} by\u{a}peer");
    }

    #[test]
    fn lines_are_read_back_and_edited_ones_refused() {
        let mut records = vec![record()];
        for end in ViewerEnd::ALL {
            records.push(ViewerRecord {
                received: None,
                end,
                reason: Some("a | b\u{202e}".to_owned()),
                ..record()
            });
        }
        for record in records {
            let line = record.encode();
            assert_eq!(ViewerRecord::decode(&line), Ok(record));
            for at in 0..line.len() {
                assert!(ViewerRecord::decode(&line[..at]).is_err(), "cut at {at}");
            }
        }
        let line = record().encode();
        for (from, to) in [
            ("| 6 |", "| 5 |"), // What the network lost follows from the rest.
            ("| 600 |", "| 0600 |"),
            ("left", "gone"),
            ("| -\n", "| \n"),
            (" | 3 | ", " | 3 | 3 | "),
        ] {
            let edited = line.replacen(from, to, 1);
            assert_ne!(edited, line, "{from}");
            assert!(ViewerRecord::decode(&edited).is_err(), "{edited}");
        }
        assert!(ViewerRecord::decode(&format!("{}\n", "x".repeat(LINE_MAX))).is_err());
    }
}
