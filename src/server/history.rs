//! What the logger thread has written, for every face that shows results.
//!
//! The logger puts each row here right after it stands in the log; faces read and never wait for
//! anything but the one lock. So no two of them disagree, and none shows what was not logged.
//! Sessions that have ended are kept up to [`SESSIONS_KEPT`] and [`ROWS_KEPT`]; older ones are in
//! their log files.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use time::OffsetDateTime;

use crate::session::SessionId;
use crate::transfer::Outcome;
use crate::transfer::Record;
use crate::transfer::Transfer;

/// Most ended sessions that are kept.
pub const SESSIONS_KEPT: usize = 64;

/// Most rows of ended sessions that are kept; the newest session is, whatever its size.
pub const ROWS_KEPT: usize = 20_000;

/// The results so far.
#[derive(Debug, Default)]
pub struct History {
    book: Mutex<HistoryState>,
}

/// Counts over all sessions since the start, those that are not kept any more included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryTotals {
    /// Sessions that have ended.
    pub sessions: u64,
    /// Transfers by outcome, in the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Transfers whose copy is proven.
    pub proven: u64,
    /// Payload bytes that the server sent in sessions, as far as it counted them.
    pub bytes_server: u64,
}

#[derive(Debug, Default)]
struct HistoryState {
    open: BTreeMap<SessionId, Record>,
    ended: VecDeque<Arc<Record>>,
    rows: usize,
    totals: HistoryTotals,
}

impl History {
    /// The session with the rows that are in the log so far.
    pub fn session(&self, session: SessionId) -> Option<Record> {
        let book = self.lock();
        let ended = book.ended.iter().find(|record| record.session == session);
        match ended {
            Some(record) => Some((**record).clone()),
            None => book.open.get(&session).cloned(),
        }
    }

    /// The kept sessions that have ended, oldest first.
    pub fn ended(&self) -> Vec<Arc<Record>> {
        self.lock().ended.iter().cloned().collect()
    }

    /// The counts.
    pub fn totals(&self) -> HistoryTotals {
        self.lock().totals
    }

    pub(crate) fn open(&self, record: Record) {
        self.lock().open.insert(record.session, record);
    }

    pub(crate) fn release(&self, session: SessionId, at: OffsetDateTime, sender: &str) {
        if let Some(record) = self.lock().open.get_mut(&session) {
            record.released_at = Some(at);
            record.sender = Some(sender.to_owned());
        }
    }

    pub(crate) fn row(&self, session: SessionId, transfer: &Transfer) {
        let mut book = self.lock();
        let place = Outcome::ALL.iter().position(|&o| o == transfer.outcome);
        book.totals.outcomes[place.expect("all outcomes are listed")] += 1;
        book.totals.proven += u64::from(transfer.is_proven());
        let sent = transfer.bytes_server.unwrap_or(0);
        book.totals.bytes_server = book.totals.bytes_server.saturating_add(sent);
        if let Some(record) = book.open.get_mut(&session) {
            record.transfers.push(transfer.clone());
        }
    }

    pub(crate) fn close(&self, record: Record) {
        let mut book = self.lock();
        book.open.remove(&record.session);
        book.totals.sessions += 1;
        book.rows += record.transfers.len();
        book.ended.push_back(Arc::new(record));
        while book.ended.len() > 1 && (book.ended.len() > SESSIONS_KEPT || book.rows > ROWS_KEPT) {
            let oldest = book.ended.pop_front().expect("more than one");
            book.rows -= oldest.transfers.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HistoryState> {
        // Each change leaves a whole book behind.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::session::FileInfo;
    use crate::session::SeatId;
    use crate::session::Via;
    use crate::text::FileName;

    use super::*;

    fn record(number: u64, rows: usize) -> Record {
        let transfer = Transfer::new(SeatId(1), "c", Outcome::Cut);
        Record {
            session: SessionId(number),
            via: Via::Tcp,
            file: FileInfo {
                name: FileName::new("f").expect("plain"),
                bytes: 1,
                sha1: Digest::of(b"x"),
            },
            clients: 1,
            released_at: None,
            sender: None,
            transfers: vec![transfer; rows],
        }
    }

    #[test]
    fn rows_are_there_before_the_session_ends_and_counted_once() {
        let ledger = History::default();
        ledger.open(record(1, 0));
        ledger.release(SessionId(1), OffsetDateTime::UNIX_EPOCH, "sendfile");
        let mut proven = Transfer::new(SeatId(2), "c", Outcome::Complete);
        (proven.verified, proven.bytes_server) = (Some(true), Some(7));
        ledger.row(SessionId(1), &proven);
        let so_far = ledger.session(SessionId(1)).expect("open");
        assert_eq!(so_far.transfers, [proven]);
        assert_eq!(so_far.sender.as_deref(), Some("sendfile"));
        assert!(ledger.ended().is_empty());
        ledger.close(so_far.clone());
        assert_eq!(ledger.session(SessionId(1)), Some(so_far));
        let totals = ledger.totals();
        assert_eq!(
            (totals.sessions, totals.proven, totals.bytes_server),
            (1, 1, 7)
        );
        assert_eq!(totals.outcomes, [1, 0, 0, 0, 0]);
        assert_eq!(ledger.session(SessionId(2)), None);
    }

    #[test]
    fn what_is_kept_is_bounded_in_sessions_and_in_rows() {
        let ledger = History::default();
        for number in 0..1000 {
            ledger.close(record(number, 1));
        }
        let kept = ledger.ended();
        assert_eq!(kept.len(), SESSIONS_KEPT);
        assert_eq!(kept.last().expect("many").session, SessionId(999));
        ledger.close(record(1000, ROWS_KEPT + 1));
        assert_eq!(ledger.ended().len(), 1, "the newest stays, however large");
        ledger.close(record(1001, ROWS_KEPT));
        assert_eq!(ledger.ended().len(), 1);
        assert_eq!(ledger.totals().sessions, 1002);
    }
}
