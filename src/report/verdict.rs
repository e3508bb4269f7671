//! The exit code of a run, 0 only if every copy is proven, and the line that says so.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use crate::{
    client::{self, ClientReport},
    error::Error,
    text::{escape, some_of},
    transfer::{Outcome, Record, Transfer},
};

/// How a run of the program ended, worst first. Where several apply, the first in this order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The user stopped it.
    Interrupted,
    /// It could not run, or was refused.
    CouldNotRun,
    /// Invalid arguments.
    Usage,
    /// A digest did not match.
    Corrupt,
    /// The muster ended without enough clients.
    NotEnough,
    /// Some clients failed, are missing, or cannot be proven.
    SomeFailed,
    /// Every copy is proven, and the session's figures contradict each other.
    Invalid,
    /// Every client verified its copy.
    AllVerified,
}

impl Verdict {
    /// What the process returns.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::AllVerified => 0,
            Self::CouldNotRun => 1,
            Self::Usage => 2,
            Self::NotEnough => 3,
            Self::SomeFailed => 4,
            Self::Corrupt => 5,
            Self::Invalid => 6,
            Self::Interrupted => 130,
        }
    }

    /// The verdict of an error that ends everything.
    pub fn of_error(error: &Error) -> Self {
        match error {
            Error::Interrupted => Self::Interrupted,
            Error::Usage { .. } => Self::Usage,
            Error::NotEnough { .. } => Self::NotEnough,
            Error::Corrupt { .. } => Self::Corrupt,
            _ => Self::CouldNotRun,
        }
    }

    /// The verdict of the clients of one process: the worst of them, and of their sums.
    pub fn of_clients(reports: &[ClientReport]) -> Self {
        let worst = reports.iter().map(Self::of_client).min().unwrap_or(Self::CouldNotRun);
        let adds_up = |record: &Record| record.broken_identities().is_empty();
        if worst == Self::AllVerified && !client::records(reports).iter().all(adds_up) {
            return Self::Invalid;
        }
        worst
    }

    fn of_client(report: &ClientReport) -> Self {
        match &report.error {
            None => Self::AllVerified,
            Some(error) => match Self::of_error(error) {
                Self::CouldNotRun if report.released_at.is_some() => Self::SomeFailed,
                verdict => verdict,
            },
        }
    }

    /// The verdict of a server's sessions: the worst of them, and `AllVerified` without any.
    pub fn of_records(records: &[Record]) -> Self {
        records.iter().map(Self::of_record).min().unwrap_or(Self::AllVerified)
    }

    fn of_record(record: &Record) -> Self {
        if record.transfers.iter().any(|t| t.outcome == Outcome::Corrupt) {
            return Self::Corrupt;
        }
        match (record.released_at, record.all_proven()) {
            (None, _) => Self::NotEnough,
            (Some(_), true) if record.broken_identities().is_empty() => Self::AllVerified,
            (Some(_), true) => Self::Invalid,
            (Some(_), false) => Self::SomeFailed,
        }
    }
}

/// The last line of a session: how many of `wanted` copies are proven, and if not all of them, why.
/// `verdict` is how a program ends with this session, where one does.
pub fn line(proven: usize, wanted: usize, verdict: Option<Verdict>, why: &str) -> String {
    let code = verdict.map(Verdict::exit_code).filter(|&code| code != 0);
    let code = code.map(|code| format!(" (exit {code})")).unwrap_or_default();
    if proven == wanted && why.is_empty() {
        return format!("{proven} of {wanted} copies proven{code}\n");
    }
    format!("{FAILED}{proven} of {wanted} copies proven{code}: {why}\n")
}

/// How a [`line()`] begins that is no success.
pub const FAILED: &str = "FAILED: ";

/// The [`line()`] of a session. `seats` is how many of its seats the record can know of.
pub fn line_of_session(record: &Record, seats: usize, verdict: Option<Verdict>) -> String {
    let proven = record.proven();
    let mut why = String::new();
    if proven < seats {
        let is_proven = |transfer: &&Transfer| transfer.is_proven();
        let held: BTreeSet<_> =
            record.transfers.iter().filter(is_proven).map(|transfer| transfer.seat).collect();
        // A seat whose first client left may have gone to another, who has the copy.
        let unproven = || record.transfers.iter().filter(|transfer| !held.contains(&transfer.seat));
        let failed = unproven().filter(|transfer| !transfer.is_absent());
        // A client that left the muster and did not come again has a row for each.
        let left: BTreeSet<_> = failed.clone().map(|transfer| transfer.seat).collect();
        let mut absent: Vec<_> = unproven().filter(|transfer| transfer.is_absent()).collect();
        absent.retain(|row| !left.contains(&row.seat));
        let seats_taken: BTreeSet<_> = record.transfers.iter().map(|t| t.seat).collect();
        let missing = match record.released_at {
            Some(_) => seats.saturating_sub(seats_taken.len()),
            None => 0,
        };
        why = reasons(failed.map(reason), missing + absent.len());
        if !absent.is_empty() {
            let names = absent.into_iter().map(|transfer| transfer.name.as_str());
            why.push_str(&format!(": {}", some_of(names, NAMES_ROOM)));
        }
        if why.is_empty() {
            why.push_str("the gate did not open");
        }
    } else if !record.broken_identities().is_empty() {
        why.push_str("the figures contradict each other");
    }
    line(proven, seats, verdict, &why)
}

/// The [`line()`] over the clients of one process, which ends with `verdict`.
pub fn line_of_clients(reports: &[ClientReport], verdict: Verdict) -> String {
    let proven = reports.iter().filter(|report| report.error.is_none()).count();
    let failed = reports.iter().filter_map(|report| report.error.as_ref());
    let mut why = reasons(failed.map(ToString::to_string), 0);
    if verdict == Verdict::Invalid {
        why.push_str("the figures contradict each other");
    }
    line(proven, reports.len(), Some(verdict), &why)
}

/// Why a copy is not proven, in words.
fn reason(transfer: &Transfer) -> String {
    match (&transfer.reason, transfer.outcome) {
        (_, Outcome::Complete) => "complete, not proven".to_owned(),
        (Some(reason), _) => escape(reason),
        (None, outcome) => outcome.to_string().replace('_', " "),
    }
}

/// How much of `known` the other sentence says too: all, or, where their numbers differ, what stands
/// before the colon that comes before these.
fn shared(known: &str, other: &str) -> usize {
    let same = known.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let colon = known.get(..same).and_then(|same| same.rfind(": "));
    colon.filter(|_| known != other).unwrap_or(known.len())
}

/// Bytes of the names of those who are missing in such a line; the table has all.
const NAMES_ROOM: usize = 200;

/// Most kinds of failure that one line names.
const KINDS_MAX: usize = 3;

/// Each kind of `failures` once, the commonest first, with its count where there are several.
fn reasons(failures: impl Iterator<Item = String>, missing: usize) -> String {
    let clients = |count: usize| format!("{count} client{}", if count == 1 { "" } else { "s" });
    let words = |text: &str| text.replace(|ch: char| ch.is_ascii_digit(), "");
    // The first sentence of its kind, how much of it all of its kind say, and how many.
    let mut kinds: Vec<(String, usize, usize)> = Vec::new();
    let mut places = HashMap::new();
    for failure in failures {
        // Where it ended differs from seat to seat.
        let failure = failure.split(" at byte ").next().unwrap_or_default();
        let place = *places.entry(words(failure)).or_insert(kinds.len());
        match kinds.get_mut(place) {
            Some((known, said, count)) => {
                *said = shared(known, failure).min(*said);
                *count += 1;
            }
            None => kinds.push((failure.to_owned(), failure.len(), 1)),
        }
    }
    let mut kinds: Vec<(&str, usize)> = kinds
        .iter()
        .map(|(kind, said, count)| (kind.get(..*said).unwrap_or(kind), *count))
        .collect();
    if let ([(kind, _)], 0) = (&kinds[..], missing) {
        return (*kind).to_owned();
    }
    kinds.sort_by_key(|&(_, count)| Reverse(count));
    let others = kinds.drain(KINDS_MAX.min(kinds.len())..).map(|(_, count)| count).sum::<usize>();
    let mut parts: Vec<String> =
        kinds.into_iter().map(|(kind, count)| format!("{}: {kind}", clients(count))).collect();
    if others > 0 {
        parts.push(format!("{} failed otherwise", clients(others)));
    }
    if missing > 0 {
        parts.push(format!("{} missing", clients(missing)));
    }
    parts.join("; ")
}

impl Error {
    /// What a program returns that ends with this error.
    pub fn exit_code(&self) -> u8 {
        Verdict::of_error(self).exit_code()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        digest::Digest,
        proto::native::Offer,
        session::{FileInfo, SeatId, SessionId, Via},
        text::FileName,
        transfer::{ABSENT, Transfer},
    };

    use super::*;

    fn record(outcomes: &[(Outcome, Option<bool>)], clients: u16, released: bool) -> Record {
        let transfers = (1..).zip(outcomes).map(|(seat, &(outcome, verified))| {
            let mut transfer = Transfer::new(SeatId(seat), "c", outcome);
            transfer.verified = verified;
            transfer
        });
        Record {
            session: SessionId(1),
            via: Via::Tcp,
            file: FileInfo {
                name: FileName::new("f").expect("plain"),
                bytes: 1,
                sha1: Digest::of(b"x"),
            },
            clients,
            released_at: released.then_some(time::OffsetDateTime::UNIX_EPOCH),
            sender: None,
            key: false,
            auto: None,
            machine: None,
            transfers: transfers.collect(),
        }
    }

    fn end(error: Option<Error>, released: bool) -> ClientReport {
        let released_at = released.then_some(time::OffsetDateTime::UNIX_EPOCH);
        ClientReport { released_at, error, ..ClientReport::default() }
    }

    #[test]
    fn exit_code_is_0_when_every_wanted_copy_is_proven() {
        let proven = (Outcome::Complete, Some(true));
        let of = |record: Record| Verdict::of_records(&[record]).exit_code();
        assert_eq!(of(record(&[proven; 3], 3, true)), 0);
        assert_eq!(of(record(&[proven; 2], 3, true)), 4, "one is missing");
        assert_eq!(
            of(record(&[proven, (Outcome::Complete, None)], 2, true)),
            4,
            "one cannot be proven"
        );
        assert_eq!(of(record(&[proven, (Outcome::Cut, None)], 2, true)), 4);
        assert_eq!(of(record(&[proven, (Outcome::Corrupt, Some(false))], 2, true)), 5);
        assert_eq!(of(record(&[(Outcome::TimedOut, None)], 2, false)), 3);
        assert_eq!(
            of(record(&[(Outcome::Refused, None), proven, proven], 2, true)),
            0,
            "one left, another came"
        );
        assert_eq!(Verdict::of_records(&[]).exit_code(), 0);
    }

    #[test]
    fn exit_code_is_6_when_proven_figures_contradict() {
        let proven = (Outcome::Complete, Some(true));
        let mut whole = record(&[proven; 2], 2, true);
        whole.transfers.iter_mut().for_each(|row| row.bytes_client = Some(1));
        let mut invalid = whole.clone();
        invalid.transfers[1].bytes_client = Some(2);
        let of = |records: &[Record]| Verdict::of_records(records).exit_code();
        assert_eq!(of(&[whole.clone()]), 0);
        assert_eq!(of(&[whole, invalid.clone()]), 6);
        invalid.clients = 3;
        assert_eq!(of(&[invalid.clone()]), 4, "one is missing, which is worse");

        let client = |transfer: &Transfer| ClientReport {
            offer: Some(Offer {
                session: invalid.session,
                seat: transfer.seat,
                clients: 2,
                run: None,
                via: invalid.via,
                file: invalid.file.clone(),
                tree: None,
            }),
            transfer: Some(transfer.clone()),
            ..end(None, true)
        };
        let mut clients: Vec<_> = invalid.transfers.iter().map(client).collect();
        assert_eq!(Verdict::of_clients(&clients[..1]).exit_code(), 0);
        assert_eq!(Verdict::of_clients(&clients).exit_code(), 6);
        clients.push(end(Some(Error::refused("s", "r")), true));
        assert_eq!(Verdict::of_clients(&clients).exit_code(), 4);
    }

    #[test]
    fn last_line_says_how_many_are_proven_and_why_not_all() {
        let of = |record: &Record| {
            let verdict = Verdict::of_records(std::slice::from_ref(record));
            line_of_session(record, record.clients.into(), Some(verdict))
        };
        let proven = (Outcome::Complete, Some(true));
        assert_eq!(of(&record(&[proven; 25], 25, true)), "25 of 25 copies proven\n");

        let mut stopped = record(&[(Outcome::Cut, None); 8], 8, true);
        stopped.transfers.iter_mut().for_each(|row| {
            row.reason = Some("the server was stopped".to_owned());
        });
        assert_eq!(of(&stopped), "FAILED: 0 of 8 copies proven (exit 4): the server was stopped\n");
        let interrupted = line_of_session(&stopped, 8, Some(Verdict::Interrupted));
        assert!(interrupted.starts_with("FAILED: 0 of 8 copies proven (exit 130): the "));
        let of_log = line_of_session(&stopped, 8, None);
        assert_eq!(of_log, "FAILED: 0 of 8 copies proven: the server was stopped\n");

        for (byte, row) in (100..).zip(&mut stopped.transfers[..5]) {
            row.reason = Some(format!("the connection was lost at byte {byte}: reset"));
        }
        stopped.transfers[7].outcome = Outcome::Complete;
        stopped.clients = 10;
        assert_eq!(
            of(&stopped),
            "FAILED: 0 of 10 copies proven (exit 4): 5 clients: the connection was lost; \
             2 clients: the server was stopped; 1 client: complete, not proven; 2 clients missing\n"
        );
        let mut late = record(&[(Outcome::TimedOut, None); 2], 3, false);
        late.transfers.iter_mut().for_each(|row| row.reason = Some("2 of 3 came".to_owned()));
        assert_eq!(of(&late), "FAILED: 0 of 3 copies proven (exit 3): 2 of 3 came\n");
        let nobody = of(&record(&[], 2, false));
        assert_eq!(nobody, "FAILED: 0 of 2 copies proven (exit 3): the gate did not open\n");
        let mut left = record(&[proven; 2], 2, true);
        left.transfers.insert(0, Transfer::new(SeatId(1), "gone", Outcome::Refused));
        assert_eq!(of(&left), "2 of 2 copies proven\n");
        left.transfers[1].bytes_client = Some(7);
        assert_eq!(
            of(&left),
            "FAILED: 2 of 2 copies proven (exit 6): the figures contradict each other\n"
        );
        left.transfers[2].name = "\u{1b}".to_owned();
        left.transfers[2].fail(Outcome::Cut, "\u{1b}[2J");
        assert!(!of(&left).contains('\u{1b}'), "what a client says is escaped");

        let mut roster = record(&[(Outcome::TimedOut, None); 4], 5, true);
        roster.transfers.iter_mut().for_each(|row| row.fail(Outcome::TimedOut, ABSENT));
        assert_eq!(
            of(&roster),
            "FAILED: 0 of 5 copies proven (exit 4): 5 clients missing: c, c, c, c\n"
        );
        roster.transfers[0].fail(Outcome::Cut, "it is full");
        roster.transfers[1].name = "\u{1b}".to_owned();
        roster.transfers.push(roster.transfers[3].clone());
        roster.transfers[4].fail(Outcome::Refused, "left before the release");
        assert_eq!(
            of(&roster),
            "FAILED: 0 of 5 copies proven (exit 4): 1 client: it is full; 1 client: left before \
             the release; 3 clients missing: \\u{1b}, c\n"
        );

        let mut lossy = record(&[(Outcome::Cut, None); 3], 3, true);
        for (lost, row) in (78..).zip(&mut lossy.transfers) {
            row.reason = Some(format!("cannot receive the whole file: {lost} of 6907 were lost"));
        }
        let line = "FAILED: 0 of 3 copies proven (exit 4): cannot receive the whole file\n";
        assert_eq!(of(&lossy), line);
    }

    #[test]
    fn last_line_of_clients_has_their_errors() {
        let copy = || end(None, true);
        let lost = || end(Some(Error::refused("10.0.0.1:8080", "it is full")), true);
        let of = |reports: &[ClientReport]| line_of_clients(reports, Verdict::of_clients(reports));
        assert_eq!(of(&[copy(), copy()]), "2 of 2 copies proven\n");
        assert_eq!(
            of(&[copy(), lost()]),
            "FAILED: 1 of 2 copies proven (exit 4): 10.0.0.1:8080 refused: it is full\n"
        );
        assert_eq!(
            of(&[end(Some(Error::Interrupted), true)]),
            "FAILED: 0 of 1 copies proven (exit 130): the client was interrupted\n"
        );
    }

    #[test]
    fn worst_verdict_of_several_counts() {
        let mut ends = vec![end(None, true)];
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 0);
        ends.push(end(Some(Error::refused("s", "r")), true));
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 4);
        ends.push(end(Some(Error::NotEnough { reason: String::new() }), false));
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 3);
        ends.push(end(Some(Error::Corrupt { what: String::new() }), true));
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 5);
        ends.push(end(Some(Error::refused("s", "r")), false));
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 1);
        ends.push(end(Some(Error::Interrupted), true));
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 130);
    }
}
