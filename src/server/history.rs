//! What the logger thread has written, for every face that shows results.
//!
//! The logger puts each row here right after it stands in the log; faces read and never wait for
//! anything but the one lock. So no two of them disagree, and none shows what was not logged.
//! Sessions that have ended are kept up to [`SESSIONS_KEPT`] and [`ROWS_KEPT`]; older ones are in
//! their log files.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    net::{lock, primitives::Mutex},
    session::SessionId,
    transfer::{Outcome, Record, Transfer},
};

/// Most ended sessions that are kept.
pub const SESSIONS_KEPT: usize = 64;

/// Most rows of ended sessions that are kept; the newest session is, whatever its size.
pub const ROWS_KEPT: usize = 20_000;

/// The results so far.
#[derive(Debug, Default)]
pub struct History {
    state: Mutex<HistoryState>,
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
        let state = lock(&self.state);
        let ended = state.ended.iter().find(|record| record.session == session);
        match ended {
            Some(record) => Some((**record).clone()),
            None => state.open.get(&session).cloned(),
        }
    }

    /// What grows with everything that [`History::session`] learns of this session.
    pub fn version(&self, session: SessionId) -> Option<u64> {
        let state = lock(&self.state);
        if state.ended.iter().any(|record| record.session == session) {
            return Some(u64::MAX);
        }
        let open = state.open.get(&session)?;
        Some(2 * open.transfers.len() as u64 + u64::from(open.released_at.is_some()))
    }

    /// The kept sessions that have ended, oldest first.
    pub fn ended(&self) -> Vec<Arc<Record>> {
        lock(&self.state).ended.iter().cloned().collect()
    }

    /// The counts.
    pub fn totals(&self) -> HistoryTotals {
        lock(&self.state).totals
    }

    pub(crate) fn open(&self, record: Record) {
        lock(&self.state).open.insert(record.session, record);
    }

    /// Changes the record of an open session.
    pub(crate) fn change<T>(&self, session: SessionId, by: impl FnOnce(&mut Record) -> T) -> T {
        let mut state = lock(&self.state);
        let open = state.open.get_mut(&session);
        by(open.expect("a session opens before anything is said of it"))
    }

    pub(crate) fn row(&self, session: SessionId, transfer: Transfer) {
        self.count(&transfer);
        self.change(session, |record| record.transfers.push(transfer));
    }

    /// Counts a transfer that has no row.
    pub(crate) fn count(&self, transfer: &Transfer) {
        let mut state = lock(&self.state);
        let place = Outcome::ALL.iter().position(|&o| o == transfer.outcome);
        state.totals.outcomes[place.expect("all outcomes are listed")] += 1;
        state.totals.proven += u64::from(transfer.is_proven());
        let sent = transfer.bytes_server.unwrap_or(0);
        state.totals.bytes_server = state.totals.bytes_server.saturating_add(sent);
    }

    pub(crate) fn close(&self, record: Record) {
        let mut state = lock(&self.state);
        state.open.remove(&record.session);
        state.totals.sessions += 1;
        state.rows += record.transfers.len();
        state.ended.push_back(Arc::new(record));
        while state.ended.len() > 1 && (state.ended.len() > SESSIONS_KEPT || state.rows > ROWS_KEPT)
        {
            // A session that nobody was released in gives way before a result.
            let mut older = state.ended.iter().take(state.ended.len() - 1);
            let empty = older.position(|record| record.released_at.is_none());
            let oldest = state.ended.remove(empty.unwrap_or(0)).expect("more than one");
            state.rows -= oldest.transfers.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use crate::{
        digest::Digest,
        session::{FileInfo, SeatId, Via},
        text::FileName,
    };

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
            key: false,
            auto: None,
            machine: None,
            transfers: vec![transfer; rows],
        }
    }

    #[test]
    fn rows_are_there_before_the_session_ends_and_counted_once() {
        let history = History::default();
        history.open(record(1, 0));
        history.change(SessionId(1), |record| {
            record.released_at = Some(OffsetDateTime::UNIX_EPOCH);
            record.sender = Some("sendfile".to_owned());
        });
        let mut proven = Transfer::new(SeatId(2), "c", Outcome::Complete);
        (proven.verified, proven.bytes_server) = (Some(true), Some(7));
        history.row(SessionId(1), proven.clone());
        assert_eq!(history.version(SessionId(1)), Some(3));
        let so_far = history.session(SessionId(1)).expect("open");
        assert_eq!(so_far.transfers, [proven]);
        assert_eq!(so_far.sender.as_deref(), Some("sendfile"));
        assert!(history.ended().is_empty());
        history.close(so_far.clone());
        assert_eq!(history.session(SessionId(1)), Some(so_far));
        assert_eq!(history.version(SessionId(1)), Some(u64::MAX));
        let totals = history.totals();
        assert_eq!((totals.sessions, totals.proven, totals.bytes_server), (1, 1, 7));
        assert_eq!(totals.outcomes, [1, 0, 0, 0, 0]);
        assert_eq!((history.session(SessionId(2)), history.version(SessionId(2))), (None, None));
    }

    #[test]
    fn sessions_without_release_do_not_push_results_out() {
        let history = History::default();
        let mut result = record(1, 1);
        result.released_at = Some(OffsetDateTime::UNIX_EPOCH);
        history.close(result);
        for number in 2..1000 {
            let mut empty = record(number, 1);
            empty.released_at = None;
            history.close(empty);
        }
        let kept = history.ended();
        assert_eq!((kept.len(), kept[0].session), (SESSIONS_KEPT, SessionId(1)));
        assert_eq!(kept.last().expect("many").session, SessionId(999));
    }

    #[test]
    fn what_is_kept_is_bounded_in_sessions_and_in_rows() {
        let history = History::default();
        for number in 0..1000 {
            history.close(record(number, 1));
        }
        let kept = history.ended();
        assert_eq!(kept.len(), SESSIONS_KEPT);
        assert_eq!(kept.last().expect("many").session, SessionId(999));
        history.close(record(1000, ROWS_KEPT + 1));
        assert_eq!(history.ended().len(), 1, "the newest stays, however large");
        history.close(record(1001, ROWS_KEPT));
        assert_eq!(history.ended().len(), 1);
        assert_eq!(history.totals().sessions, 1002);
    }
}
