//! How a client's fetch ended, as its process knows it.

use std::{collections::BTreeMap, path::PathBuf};

use time::OffsetDateTime;

use crate::{
    error::{Error, Result},
    net::{
        clock,
        logfile::{LogFile, LogFolder},
        machine,
    },
    proto::{native::Offer, session_log},
    transfer::{Outcome, Record, Transfer},
};

/// How one client's fetch ended.
#[derive(Debug, Default)]
pub struct ClientReport {
    /// The seat it had; `None` if it never had one.
    pub offer: Option<Offer>,
    /// When it read GO, as a label.
    pub released_at: Option<OffsetDateTime>,
    /// How its transfer went, as far as this client knows.
    pub transfer: Option<Transfer>,
    /// How the server sends, where it said so.
    pub sender: Option<String>,
    /// The server has proven the key, and this client too.
    pub key: bool,
    /// Where the copy is; `None` unless it is whole and verified.
    pub path: Option<PathBuf>,
    /// A part is left of a copy that is not whole, and a later fetch can go on from it.
    pub is_kept: bool,
    /// What stopped it.
    pub error: Option<Error>,
}

impl ClientReport {
    /// A client that was stopped by `error` before it had a seat.
    pub(super) fn before_the_seat(error: Error) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    /// The client's thread is over: `result` is how it ended, and `stopped` says that the user
    /// ended it.
    pub(crate) fn close(&mut self, result: Result<(), Error>, stopped: bool) {
        self.error =
            if stopped && self.path.is_none() { Some(Error::Interrupted) } else { result.err() };
        let unproven = matches!(self.error, Some(Error::Unproven { .. }));
        // A copy that is whole and cannot be proven is complete, and still no success.
        if let (Some(transfer), Some(error)) = (&mut self.transfer, &self.error)
            && !unproven
        {
            transfer.fail(outcome_of(error), error.to_string());
        }
    }
}

/// What a client's error means for its row.
pub(super) fn outcome_of(error: &Error) -> Outcome {
    match error {
        Error::TimedOut { .. } | Error::NotEnough { .. } => Outcome::TimedOut,
        Error::Corrupt { .. } => Outcome::Corrupt,
        Error::Refused { .. } => Outcome::Refused,
        _ => Outcome::Cut,
    }
}

/// The records of `reports`, one for each session that the clients had seats in.
pub fn records(reports: &[ClientReport]) -> Vec<Record> {
    let mut records = BTreeMap::new();
    for report in reports {
        let Some(offer) = &report.offer else {
            continue;
        };
        let record = records.entry(offer.session).or_insert_with(|| {
            Record::new(offer.session, offer.via, offer.file.clone(), offer.clients)
        });
        record.key |= report.key;
        record.released_at = record.released_at.or(report.released_at);
        record.sender = record.sender.take().or_else(|| report.sender.clone());
        record.transfers.extend(report.transfer.clone());
    }
    let mut records: Vec<Record> = records.into_values().collect();
    for record in &mut records {
        record.transfers.sort_by_key(|transfer| transfer.seat);
    }
    records
}

/// Leaves a log of each record in `folder`, if there is one: as the server's, of its own seats only. The
/// first of these is in its name, since processes on one machine may share the folder.
///
/// # Errors
/// It cannot be written.
pub fn log(records: &[Record], folder: Option<PathBuf>) -> Result<()> {
    let mut folder = LogFolder::new("write the client's log", folder, session_log::header());
    for record in records {
        let released = record.released_at.unwrap_or_else(clock::wall);
        let seat = record.transfers.first().map_or(0, |transfer| transfer.seat.0);
        let mut log = LogFile::new(released, format_args!("{}-seat-{seat}", record.session));
        let record = Record { machine: Some(machine::stamp().to_owned()), ..record.clone() };
        for transfer in &record.transfers {
            folder.append(&mut log, &session_log::encode(&record, transfer));
        }
        folder.sync(&log);
    }
    folder.finish()
}

/// A line for each kind of failure, with the clients that it struck.
pub(crate) fn failures(reports: &[ClientReport]) -> Vec<String> {
    let mut failures: Vec<(String, Vec<usize>)> = Vec::new();
    for (number, report) in (1..).zip(reports) {
        let Some(error) = &report.error else {
            continue;
        };
        let text = error.to_string();
        match failures.iter_mut().find(|(known, _)| *known == text) {
            Some((_, clients)) => clients.push(number),
            None => failures.push((text, vec![number])),
        }
    }
    let line = |(text, clients): (String, Vec<usize>)| match clients[..] {
        [first, .., last] => format!("{} clients ({first} to {last}): {text}", clients.len()),
        [one] if reports.len() > 1 => format!("client {one}: {text}"),
        _ => text,
    };
    failures.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_is_one_line() {
        let of = |failures: &[Option<&str>]| {
            let reports = failures.iter().map(|failure| ClientReport {
                error: failure.map(Error::usage),
                ..ClientReport::default()
            });
            self::failures(&reports.collect::<Vec<_>>())
        };
        assert_eq!(of(&[None, None]), [""; 0]);
        assert_eq!(of(&[Some("lost")]), ["lost"]);
        assert_eq!(of(&[None, Some("lost")]), ["client 2: lost"]);
        assert_eq!(
            of(&[Some("lost"), Some("full"), Some("lost"), None, Some("lost")]),
            ["3 clients (1 to 5): lost", "client 2: full"]
        );
    }
}
