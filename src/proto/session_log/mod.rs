//! The session log's lines: one per transfer, each with all that is needed to rebuild its transfer.
//!
//! A log is a [`header`] and then lines of the same columns, separated by ` | `. A missing value
//! is `-`. Text from outside is escaped, so it can end neither its column nor its line; a text
//! that is itself `-` is written `\u{2d}`, blanks at its ends are written `\u{20}`, and an empty
//! text is an empty column. Times are whole microseconds.
//!
//! Rates and ports stand in a line for its readers and follow from other columns. [`decode`]
//! takes a line only when [`encode`] would write the very same one, so an edited or damaged
//! figure is seen. What opens, appends to and reads files stands elsewhere; nothing here does.

mod cells;
mod collect;
mod columns;
mod error;

use std::time::Duration;

use time::{Date, PrimitiveDateTime, Time};

#[cfg(test)]
pub(crate) use self::collect::collect;
use self::{
    cells::{Cells, MICROSECONDS, SECONDS, TEXT, duration, or_missing, outside, parsed},
    columns::{BEFORE, SEPARATOR},
    error::{columns, cut, excerpt, too_long},
};
pub use self::{
    collect::Collector,
    columns::{COLUMNS, LINE_MAX, MACHINE_MAX, REASON_MAX, SENDER_MAX, header},
    error::LogError,
};
use crate::{
    proto::{
        line::DecodeError,
        log_cell::{DATE, TIME},
    },
    session::{FileInfo, SeatId},
    text::{FileName, unescape},
    transfer::{
        AutoChoice, ClockId, Counts, Evidence, Outcome, Record, Transfer, auto::AutoFigures,
        samples,
    },
    units::Moment,
};

/// Longest text on how the way was chosen, bytes before escaping.
pub const WHY_MAX: usize = 256;

/// The line of one `transfer` of `record`, with its end: the transfer, and of its session all that a
/// [`Record`] needs. It is always one that [`decode`] takes: times lose what is below a microsecond,
/// and of a name, reason or sender that is too long the end.
pub fn encode(record: &Record, transfer: &Transfer) -> String {
    cells(record, transfer).join(SEPARATOR) + "\n"
}

fn cells(record: &Record, transfer: &Transfer) -> Vec<String> {
    let before = BEFORE.iter().map(|(_, cell)| cell(record, transfer));
    let counts = transfer.counts.values();
    let key = or_missing(record.key.then_some("yes"));
    let counts = counts.into_iter().map(or_missing);
    let evidence = transfer.evidence.values().into_iter().map(or_missing);
    // In brackets, so that a line that was cut does not end in fewer words.
    let words = |words: &String| format!("[{}]", outside(words, MACHINE_MAX));
    let machine = or_missing(record.machine.as_ref().map(words));
    let why = or_missing(record.auto.as_ref().map(|auto| outside(&auto.why, WHY_MAX)));
    let figures = record.auto.as_ref().map(|auto| auto.figures).unwrap_or_default();
    let auto = [why].into_iter().chain(figures.values().into_iter().map(or_missing));
    let last = [or_missing(samples::text(&transfer.samples)), machine];
    before.chain(counts).chain([key]).chain(evidence).chain(auto).chain(last).collect()
}

/// Reads a line, which must have its end: a record of one transfer.
///
/// # Errors
/// Any line that [`encode`] does not write, with the column that is wrong.
pub fn decode(line: &str) -> Result<Record, DecodeError> {
    if line.len() > LINE_MAX {
        return Err(too_long());
    }
    let line = line.strip_suffix('\n').ok_or_else(cut)?;
    let cells: Vec<&str> = line.split(SEPARATOR).collect();
    if cells.len() != COLUMNS.len() {
        return Err(columns(cells.len(), COLUMNS.len()));
    }
    let decoded = read(&mut Cells::new(&cells))?;
    let pairs = cells.iter().zip(self::cells(&decoded, &decoded.transfers[0]));
    for (&name, (&found, wanted)) in COLUMNS.iter().zip(pairs) {
        if found != wanted {
            let found = excerpt(found);
            return Err(DecodeError(format!(
                "column {name} holds '{found}', but the line's other columns make it '{wanted}'"
            )));
        }
    }
    Ok(decoded)
}

/// Reads every column from which others do not follow, in their order.
fn read(cells: &mut Cells<'_, '_>) -> Result<Record, DecodeError> {
    let session = cells.needed("a session's 16 digits", parsed)?;
    let seat = SeatId(cells.needed("a seat", parsed)?);
    let date = cells.optional("a date, YYYY-MM-DD", |text| Date::parse(text, DATE).ok())?;
    let time = cells.optional("a time, HH:MM:SS.ffffff", |text| Time::parse(text, TIME).ok())?;
    let via = cells.needed("tcp, udp, raw, multicast, swarm, chain or http", parsed)?;
    let name = cells.needed("a file name", |text| FileName::new(&unescape(text)?).ok())?;
    let bytes = cells.needed("a number of bytes", parsed)?;
    let mut transfer = Transfer::new(seat, "", Outcome::Complete);
    transfer.bytes_client = cells.optional("a number of bytes", parsed)?;
    transfer.seconds_client = cells.optional(SECONDS, duration)?;
    cells.skip(2);
    transfer.bytes_server = cells.optional("a number of bytes", parsed)?;
    transfer.seconds_server = cells.optional(SECONDS, duration)?;
    cells.skip(2);
    transfer.outcome = cells.needed("complete, cut, corrupt, timed_out or refused", parsed)?;
    transfer.verified = cells.optional("yes, no or -", |text| match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    })?;
    transfer.reason = cells.optional(TEXT, unescape)?;
    transfer.name = cells.needed(TEXT, unescape)?;
    transfer.client = cells.optional("an address and port", parsed)?;
    transfer.server = cells.optional("an address and port", parsed)?;
    let clients = cells.needed("a number of clients", parsed)?;
    let sha1 = cells.needed("40 hexadecimal digits", parsed)?;
    transfer.bytes_resumed = cells.needed("a number of bytes", parsed)?;
    transfer.seconds_verified = cells.optional(SECONDS, duration)?;
    transfer.seconds_durable = cells.optional(SECONDS, duration)?;
    transfer.woke = cells.optional(MICROSECONDS, parsed)?.map(Duration::from_micros);
    transfer.first_server = cells.optional(MICROSECONDS, parsed)?.map(Duration::from_micros);
    let first_client = cells.optional(MICROSECONDS, parsed)?.map(Moment);
    let clock = cells.optional("a clock's number", parsed)?.map(ClockId);
    transfer.first_client = clock.zip(first_client);
    let mut record = Record::new(session, via, FileInfo { name, bytes, sha1 }, clients);
    record.sender = cells.optional(TEXT, unescape)?;
    transfer.counts = Counts::from_values(cells.numbers()?);
    record.key = cells.optional("yes or -", |text| (text == "yes").then_some(()))?.is_some();
    transfer.evidence = Evidence::from_values(cells.numbers()?);
    let why = cells.optional(TEXT, unescape)?;
    // Figures without the text do not come back in `cells` and are refused there.
    let figures = AutoFigures::from_values(cells.numbers()?);
    record.auto = why.map(|why| AutoChoice { figures, why });
    // Too many, or some that fall, do not come back in `cells` and are refused there.
    transfer.samples = cells.optional("samples", samples::read)?.unwrap_or_default();
    let words = |text: &str| unescape(text.strip_prefix('[')?.strip_suffix(']')?);
    record.machine = cells.optional("an escaped text in brackets", words)?;
    // One without the other does not come back in `cells` and is refused there.
    record.released_at =
        date.zip(time).map(|(date, time)| PrimitiveDateTime::new(date, time).assume_utc());
    record.transfers.push(transfer);
    Ok(record)
}

#[cfg(test)]
mod tests;
