//! The session log's lines: one per transfer, each with all that is needed to rebuild its transfer.
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
mod columns;
mod error;

use std::{net::SocketAddr, str::FromStr, time::Duration};

use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use self::{
    cells::{Cells, MICROSECONDS, SECONDS, TEXT, duration, mbit, or_missing, outside, parsed},
    columns::{BEFORE, SEPARATOR},
    error::excerpt,
};
pub use self::{
    collect::{Collector, collect},
    columns::{COLUMNS, LINE_MAX, header},
    error::{LineError, LogError},
};
use crate::{
    digest::Digest,
    proto::log_cell::{DATE, TIME},
    session::{FileInfo, SeatId, SessionId, Via},
    text::{CLIENT_NAME_MAX, FileName, unescape},
    transfer::{
        AutoChoice, ClockId, Counts, Evidence, Outcome, Record, Transfer, auto::AutoFigures,
    },
    units::{Moment, decimal_seconds, micros},
};

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
    /// Native clients proved a key.
    pub key: bool,
    /// How the way was chosen, where it was and when that was known.
    pub auto: Option<AutoChoice>,
    /// The transfer.
    pub transfer: Transfer,
}

/// Longest reason that a line keeps, bytes before escaping, which can make six of one.
pub const REASON_MAX: usize = 512;

/// Longest text on how the way was chosen, bytes before escaping.
pub const WHY_MAX: usize = 256;

/// Longest sender that a line keeps, bytes before escaping.
pub const SENDER_MAX: usize = 128;

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
            key: record.key,
            auto: record.auto.clone(),
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
        let released_at = self.released_at.and_then(|at| at.checked_to_offset(UtcOffset::UTC));
        let before: [String; BEFORE.len()] = [
            self.session.to_string(),
            transfer.seat.to_string(),
            or_missing(released_at.and_then(|at| at.format(DATE).ok())),
            or_missing(released_at.and_then(|at| at.format(TIME).ok())),
            self.via.to_string(),
            outside(self.file.name.as_str(), usize::MAX),
            self.file.bytes.to_string(),
            or_missing(transfer.bytes_client),
            or_missing(transfer.seconds_client.map(decimal_seconds)),
            or_missing(mbit(transfer.bytes_client, transfer.seconds_client)),
            or_missing(transfer.client.map(|address| address.port())),
            or_missing(transfer.bytes_server),
            or_missing(transfer.seconds_server.map(decimal_seconds)),
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
            or_missing(transfer.seconds_verified.map(decimal_seconds)),
            or_missing(transfer.seconds_durable.map(decimal_seconds)),
            or_missing(transfer.woke.map(micros)),
            or_missing(transfer.first_server.map(micros)),
            or_missing(transfer.first_client.map(|(_, at)| at.0)),
            or_missing(transfer.first_client.map(|(ClockId(id), _)| id)),
            or_missing(self.sender.as_ref().map(|how| outside(how, SENDER_MAX))),
        ];
        let counts = transfer.counts.values();
        let key = or_missing(self.key.then_some("yes"));
        let counts = counts.into_iter().map(or_missing);
        let evidence = transfer.evidence.values().into_iter().map(or_missing);
        let why = or_missing(self.auto.as_ref().map(|auto| outside(&auto.why, WHY_MAX)));
        let figures = self.auto.as_ref().map(|auto| auto.figures).unwrap_or_default();
        let auto = [why].into_iter().chain(figures.values().into_iter().map(or_missing));
        before.into_iter().chain(counts).chain([key]).chain(evidence).chain(auto).collect()
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
            return Err(LineError::Columns { found: cells.len(), wanted: COLUMNS.len() });
        }
        let decoded = Self::read(&mut Cells::new(&cells))?;
        let pairs = cells.iter().zip(decoded.cells());
        for (name, (&found, wanted)) in COLUMNS.into_iter().zip(pairs) {
            if found != wanted {
                return Err(LineError::Disagrees { name, found: excerpt(found), wanted });
            }
        }
        Ok(decoded)
    }

    /// Reads every column from which others do not follow, in their order.
    fn read(cells: &mut Cells<'_, '_>) -> Result<Self, LineError> {
        let session = cells.needed("a session's 16 digits", parsed)?;
        let seat = SeatId(cells.needed("a seat", parsed)?);
        let date = cells.optional("a date, YYYY-MM-DD", |text| Date::parse(text, DATE).ok())?;
        let time =
            cells.optional("a time, HH:MM:SS.ffffff", |text| Time::parse(text, TIME).ok())?;
        let via = cells.needed("tcp, udp, raw, multicast, swarm, chain or http", parsed)?;
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
        transfer.woke = cells.optional(MICROSECONDS, parsed)?.map(Duration::from_micros);
        transfer.first_server = cells.optional(MICROSECONDS, parsed)?.map(Duration::from_micros);
        let first_client = cells.optional(MICROSECONDS, parsed)?.map(Moment);
        transfer.first_client =
            cells.optional("a clock's number", parsed)?.map(ClockId).zip(first_client);
        let sender = cells.optional(TEXT, unescape)?;
        let mut counts = Counts::default().values();
        for count in &mut counts {
            *count = cells.optional("a number", parsed)?;
        }
        transfer.counts = Counts::from_values(counts);
        let key = cells.optional("yes or -", |text| (text == "yes").then_some(()))?.is_some();
        let mut evidence = Evidence::default().values();
        for figure in &mut evidence {
            *figure = cells.optional("a number", parsed)?;
        }
        transfer.evidence = Evidence::from_values(evidence);
        let why = cells.optional(TEXT, unescape)?;
        let mut figures = AutoFigures::default().values();
        for figure in &mut figures {
            *figure = cells.optional("a number", parsed)?;
        }
        // Figures without the text do not come back in `cells` and are refused there.
        let figures = AutoFigures::from_values(figures);
        let auto = why.map(|why| AutoChoice { figures, why });
        Ok(Self {
            session,
            via,
            file: FileInfo { name: file_name, bytes: size, sha1 },
            clients,
            // One without the other does not come back in `cells` and is refused there.
            released_at: date
                .zip(time)
                .map(|(date, time)| PrimitiveDateTime::new(date, time).assume_utc()),
            sender,
            key,
            auto,
            transfer,
        })
    }
}

#[cfg(test)]
mod tests;
