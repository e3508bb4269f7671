//! From the lines of a log to the records of its sessions.

use std::{borrow::Cow, collections::HashMap};

use crate::{
    proto::{
        line::DecodeError,
        session_log::{
            cells::MISSING,
            columns::{COLUMNS, COLUMNS_MIN, LINE_MAX, SEPARATOR},
            decode,
            error::{self, LogError, cut, excerpt, too_long},
        },
    },
    session::SessionId,
    transfer::{Outcome, Record},
};

/// Puts lines, in any order and of any number of sessions, together to records.
#[derive(Debug, Default)]
pub struct Collector {
    lines: u64,
    /// How many columns the last header has.
    columns: usize,
    records: Vec<Record>,
    places: HashMap<SessionId, usize>,
    /// The first line without an end.
    torn: Option<LogError>,
}

/// The records of a whole log, in the order in which their first lines stand.
///
/// # Errors
/// The first line that is wrong; a last one that is cut is left out. A log without a header is
/// wrong, one with nothing else is empty.
#[cfg(test)]
pub(crate) fn collect(log: &[u8]) -> Result<Vec<Record>, LogError> {
    let mut collector = Collector::default();
    for line in log.split_inclusive(|&byte| byte == b'\n') {
        collector.push(line)?;
    }
    collector.finish()
}

impl Collector {
    /// Takes the next line of the log, with its end. Logs may be joined: a header may come again.
    ///
    /// # Errors
    /// A line that is wrong, with its number. The last one may lack its end: a loss of power can
    /// cut it, and costs no line before it.
    pub fn push(&mut self, line: &[u8]) -> Result<(), LogError> {
        self.lines += 1;
        if !line.ends_with(b"\n") {
            let why = if line.len() > LINE_MAX { too_long() } else { cut() };
            self.torn.get_or_insert(LogError { line: self.lines, why });
            return Ok(());
        }
        if let Some(torn) = &self.torn {
            return Err(torn.clone());
        }
        self.add_line(line).map_err(|why| LogError { line: self.lines, why })
    }

    /// The number of the last line, where it is cut; [`Collector::finish`] leaves it out.
    pub fn torn(&self) -> Option<u64> {
        self.torn.as_ref().map(|torn| torn.line)
    }

    /// The records of all lines, each with its transfers in seat order and after them the
    /// clients that were refused or left before the release.
    ///
    /// # Errors
    /// A log without any whole line.
    pub fn finish(mut self) -> Result<Vec<Record>, LogError> {
        if self.lines == 0 {
            return Err(LogError { line: 1, why: cut() });
        }
        if let Some(torn) = self.torn.filter(|torn| torn.line == 1) {
            return Err(torn);
        }
        for record in &mut self.records {
            // Stable: lines of one seat stay in the order in which they were written.
            record
                .transfers
                .sort_by_key(|transfer| (transfer.outcome == Outcome::Refused, transfer.seat));
        }
        Ok(self.records)
    }

    fn add_line(&mut self, line: &[u8]) -> Result<(), DecodeError> {
        if line.len() > LINE_MAX {
            return Err(too_long());
        }
        let line = str::from_utf8(line).map_err(|_| DecodeError("not UTF-8".to_owned()))?;
        // No line of a transfer begins so: a session's number is hexadecimal.
        if self.lines == 1 || line.starts_with(COLUMNS[0]) {
            self.columns = check_header(line)?;
            return Ok(());
        }
        let line = decode(&in_our_columns(line, self.columns)?)?;
        let Some(&place) = self.places.get(&line.session) else {
            self.places.insert(line.session, self.records.len());
            self.records.push(line);
            return Ok(());
        };
        join(&mut self.records[place], line)
    }
}

/// Adds the transfer of `line` to its session's record. A client that left the muster is logged before
/// the release is known, so the moment and the sender may be missing in one of two lines.
fn join(record: &mut Record, line: Record) -> Result<(), DecodeError> {
    let session = line.session;
    let conflict = |name: &str| {
        let earlier = format!("an earlier line of session {session} says");
        Err(DecodeError(format!("column {name} is not what {earlier}")))
    };
    // A client that left before the way was chosen has the one that was offered first.
    match (&record.auto, &line.auto) {
        (None, Some(_)) if record.released_at.is_none() => record.via = line.via,
        (Some(_), None) if line.released_at.is_none() => {}
        _ if record.via != line.via => return conflict("via"),
        _ => {}
    }
    let agreed = [
        ("auto", merge(&mut record.auto, line.auto)),
        ("file", record.file == line.file),
        ("clients", record.clients == line.clients),
        ("key", record.key == line.key),
        ("time", merge(&mut record.released_at, line.released_at)),
        ("sender", merge(&mut record.sender, line.sender)),
        ("machine", merge(&mut record.machine, line.machine)),
    ];
    if let Some((name, _)) = agreed.into_iter().find(|(_, is_agreed)| !is_agreed) {
        return conflict(name);
    }
    record.transfers.extend(line.transfers);
    Ok(())
}

/// Fills `known` from `other`; false when both are there and differ.
fn merge<T: PartialEq>(known: &mut Option<T>, other: Option<T>) -> bool {
    match (&*known, other) {
        (_, None) => true,
        (None, other) => {
            *known = other;
            true
        }
        (Some(known), Some(other)) => *known == other,
    }
}

/// How many columns a header has: fewer in an earlier version's log, more in a later one's.
fn check_header(line: &str) -> Result<usize, DecodeError> {
    let line = line.strip_suffix('\n').ok_or_else(cut)?;
    let mut found = line.split(SEPARATOR);
    for (at, &wanted) in COLUMNS.iter().enumerate() {
        match found.next() {
            Some(found) if found == wanted => {}
            None if at >= COLUMNS_MIN => return Ok(at),
            found => {
                let found = found.map_or_else(
                    || format!("missing: '{wanted}'"),
                    |found| format!("'{}', not '{wanted}'", excerpt(found)),
                );
                return Err(DecodeError(format!("the header's column {} is {found}", at + 1)));
            }
        }
    }
    Ok(COLUMNS.len() + found.count())
}

/// A line of a log of `columns` columns with our own: what an earlier version did not write is
/// missing, and what a later one writes besides is left out.
fn in_our_columns(line: &str, columns: usize) -> Result<Cow<'_, str>, DecodeError> {
    if columns == COLUMNS.len() {
        return Ok(Cow::Borrowed(line));
    }
    let text = line.strip_suffix('\n').ok_or_else(cut)?;
    let mut cells: Vec<&str> = text.split(SEPARATOR).collect();
    if cells.len() != columns {
        return Err(error::columns(cells.len(), columns));
    }
    cells.resize(COLUMNS.len(), MISSING);
    Ok(Cow::Owned(cells.join(SEPARATOR) + "\n"))
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::{
        digest::Digest,
        proto::session_log::{encode, header},
        session::{FileInfo, SeatId, Via},
        text::FileName,
        transfer::Transfer,
    };

    fn record(session: u64) -> Record {
        Record {
            session: SessionId(session),
            via: Via::Udp,
            file: FileInfo {
                name: FileName::new("a.bin").expect("plain"),
                bytes: 10,
                sha1: Digest::of(b"gate"),
            },
            clients: 3,
            released_at: OffsetDateTime::from_unix_timestamp(1_790_000_000).ok(),
            sender: None,
            key: true,
            auto: None,
            machine: None,
            transfers: (1..=3)
                .map(|seat| Transfer::new(SeatId(seat), "", Outcome::Complete))
                .chain([Transfer::new(SeatId(2), "late", Outcome::Refused)])
                .collect(),
        }
    }

    fn lines(record: &Record) -> Vec<String> {
        let line = |transfer| encode(record, transfer);
        record.transfers.iter().map(line).collect()
    }

    fn error(log: &str) -> String {
        collect(log.as_bytes()).expect_err(log).to_string()
    }

    #[test]
    fn records_come_back_from_lines_in_any_order() {
        let records = [record(9), record(4)];
        let mut log = header();
        for seat in [3, 1, 0, 2] {
            log += &lines(&records[0])[seat];
            log += &lines(&records[1])[3 - seat];
        }
        // Joined logs hold a header between.
        assert_eq!(collect(log.as_bytes()), Ok(records.to_vec()));
        let twice = log.clone() + &header();
        assert_eq!(collect(twice.as_bytes()), Ok(records.to_vec()));
        assert_eq!(collect(header().as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn release_is_kept_when_a_client_left_before_it() {
        let released = record(1);
        let mut early = released.clone();
        early.released_at = None;
        let log = header() + &lines(&early)[3] + &lines(&released)[..3].concat();
        assert_eq!(collect(log.as_bytes()), Ok(vec![released]));
    }

    #[test]
    fn torn_last_line_costs_one_line() {
        let record = record(1);
        let lines = lines(&record);
        let torn = |log: &str| {
            let mut collector = Collector::default();
            let mut pushed = log.as_bytes().split_inclusive(|&byte| byte == b'\n');
            pushed.try_for_each(|line| collector.push(line)).expect("whole but for the last");
            let torn = collector.torn();
            (torn, collector.finish().expect("a log"))
        };
        let whole = header() + &lines.concat();
        assert_eq!(torn(&whole), (None, vec![record.clone()]));
        let mut less = record.clone();
        less.transfers.pop();
        let last = lines[3].len();
        for cut in 1..last {
            let (line, records) = torn(&whole[..whole.len() - cut]);
            assert_eq!((line, &records), (Some(5), &vec![less.clone()]), "{cut}");
        }
        assert_eq!(torn(&whole[..whole.len() - last]).0, None);
        // A power loss can leave zeros in the place of what was not written.
        let zeros = whole.clone() + &"\0".repeat(3 * LINE_MAX);
        assert_eq!(torn(&zeros), (Some(6), vec![record]));
    }

    #[test]
    fn cut_log_is_named_with_its_line() {
        let lines = lines(&record(1));
        let half = &lines[1][..lines[1].len() / 2];
        assert_eq!(error(""), "line 1: cut before its end");
        assert_eq!(error(&header()[..20]), "line 1: cut before its end");
        assert_eq!(error(&"x".repeat(LINE_MAX + 1)), "line 1: longer than 13312 bytes");
        let columns = header() + &lines[0] + half + "\n";
        assert!(error(&columns).starts_with("line 3: "), "{}", error(&columns));
        // What is read in pieces, because it is too long, is not a last line when more follows.
        let mut collector = Collector::default();
        let pushed = [header().as_bytes(), &[b'x'; LINE_MAX + 1], b"x\n"]
            .map(|line| collector.push(line).map_err(|error| error.to_string()));
        assert_eq!(pushed, [Ok(()), Ok(()), Err("line 2: longer than 13312 bytes".to_owned())]);
    }

    #[test]
    fn another_header_is_refused_with_the_column_that_differs() {
        let log = header().replace("verdict", "colour\u{1b}");
        assert_eq!(error(&log), "line 1: the header's column 16 is 'colour\\u{1b}', not 'verdict'");
        let whole = header();
        let (old, _) = whole.split_once(" | delay_max_us").expect("a column");
        let log = old.to_owned() + "\n";
        assert_eq!(error(&log), "line 1: the header's column 55 is missing: 'delay_max_us'");
        let log = header().replace(" | key", " | lock");
        assert_eq!(error(&log), "line 1: the header's column 56 is 'lock', not 'key'");
        assert!(error(&lines(&record(1))[0]).starts_with("line 1: the header's column 1 "));
    }

    #[test]
    fn log_of_an_earlier_or_a_later_version_is_read() {
        let of = |key: bool| Record { key, ..record(1) };
        // Before there were keys, and where the time went.
        let earlier = |line: &str| {
            let cells: Vec<&str> = line.trim_end().split(SEPARATOR).collect();
            cells[..COLUMNS_MIN].join(SEPARATOR) + "\n"
        };
        let old = earlier(&header())
            + &lines(&of(false)).iter().map(|line| earlier(line)).collect::<String>();
        assert_eq!(collect(old.as_bytes()), Ok(vec![of(false)]));
        let more = |text: &str, cell: &str| text.replace('\n', &format!(" | {cell}\n"));
        let new = more(&header(), "mood") + &more(&lines(&of(true)).concat(), "fine");
        assert_eq!(collect(new.as_bytes()), Ok(vec![of(true)]));
        // A line is as wide as the header before it.
        let mixed = more(&header(), "mood") + &lines(&of(true))[0];
        assert_eq!(error(&mixed), "line 2: 89 columns where 90 belong");
        let mixed = old + &lines(&of(false))[0];
        assert_eq!(error(&mixed), "line 6: 89 columns where 55 belong");
    }

    #[test]
    fn lines_of_one_session_must_agree() {
        type Change = fn(&mut Record);
        let one = record(0xa);
        let changes: [(&str, Change); 6] = [
            ("via", |r| r.via = Via::Raw),
            ("file", |r| r.file.bytes = 11),
            ("clients", |r| r.clients = 4),
            ("key", |r| r.key = false),
            ("time", |r| r.released_at = Some(OffsetDateTime::UNIX_EPOCH)),
            ("sender", |r| r.sender = Some("other".to_owned())),
        ];
        for (name, change) in changes {
            let mut one = one.clone();
            one.sender = Some("sendfile".to_owned());
            let mut other = one.clone();
            change(&mut other);
            let log = header() + &lines(&one)[0] + &lines(&other)[1];
            assert_eq!(
                error(&log),
                format!(
                    "line 3: column {name} is not what an earlier line of session \
                     000000000000000a says"
                )
            );
        }
    }

    #[test]
    fn any_number_of_lines_is_read_and_other_bytes_are_refused() {
        let line = &lines(&record(1))[0];
        // A log of an earlier version has a row for each of any number of clients that left.
        let log = header() + &line.repeat(30_000);
        assert_eq!(collect(log.as_bytes()).map(|r| r[0].transfers.len()), Ok(30_000));
        let log = [header().as_bytes(), b"\xff\n"].concat();
        let error = collect(&log).expect_err("not text");
        assert_eq!((error.line, error.why), (2, DecodeError("not UTF-8".to_owned())));
        let log = header() + &"x".repeat(LINE_MAX) + "\n";
        assert_eq!(self::error(&log), "line 2: longer than 13312 bytes");
    }
}
