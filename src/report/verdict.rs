//! The exit code of a run: 0 only if every copy is proven.

use crate::{
    client::{self, ClientReport},
    error::Error,
    transfer::{Outcome, Record},
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
        transfer::Transfer,
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
                via: invalid.via,
                file: invalid.file.clone(),
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
