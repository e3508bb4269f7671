//! The session log: one logger thread, one channel, one line per outcome.
//!
//! Every connection thread sends its finished transfer through one crossbeam channel; the logger
//! thread alone opens, formats and writes. A line is one `write_all` to a file opened for append,
//! so that two runs that share a folder never interleave. When a session is over the logger hands
//! its [`Record`] to whoever listens; faces that look at their own time read the [`History`], which
//! gets each row once it is in the log. So a face shows only what was logged. The log is for results;
//! the macros of `log` are for diagnostics; they never mix.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;

use crate::{
    error::{Error, Result},
    net::{
        clock,
        logfile::{LOG_MAX, LogFile, LogFolder},
        machine,
        primitives::{
            channel,
            channel::{Receiver, Sender},
            thread,
            thread::JoinHandle,
        },
    },
    proto::session_log,
    server::{
        budget::{Budget, BudgetLimit},
        history::{History, ROWS_KEPT, SESSIONS_KEPT},
    },
    session::{MAX_SEATS, SessionId, Via},
    transfer::{AutoChoice, Record, Transfer},
};

/// What threads tell the logger.
#[derive(Debug)]
enum LogEvent {
    /// A session begins to muster.
    Opened(Box<Record>, OffsetDateTime),
    /// The way of a session was chosen.
    Chosen(SessionId, Via, Box<AutoChoice>),
    /// The gate of a session opened.
    Released(SessionId, OffsetDateTime, String),
    /// One transfer is over.
    Finished(SessionId, Box<Transfer>),
    /// A client left while seats filled.
    Left(SessionId, Box<Transfer>),
    /// Nothing more will come of this session.
    Closed(SessionId),
    /// Nothing more will come of anything.
    End,
}

/// The sending side, one clone per session.
#[derive(Clone, Debug)]
pub struct LogHandle {
    entries: Sender<LogEvent>,
    /// What has been written.
    pub history: Arc<History>,
}

/// The logger thread.
#[derive(Debug)]
pub struct SessionLogger {
    log: Option<LogHandle>,
    /// The finished sessions, each once its last line is in the log. Of those that nobody takes only
    /// the newest are kept, as many as the [`History`] keeps.
    pub records: Receiver<Record>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A session being written.
#[derive(Debug)]
struct OpenLog {
    log: LogFile,
    /// How many clients left without a row, and the last of them.
    unlogged: Option<(u64, Transfer)>,
}

/// Rows of clients that left before the release, of all sessions together: anybody can come and
/// leave again and again. Beyond so many they are counted, and one row says how many.
const LEFT_ROWS: BudgetLimit = BudgetLimit { most: 1000, each: Duration::from_secs(1) };

// Whatever happens in a muster of an hour, its log can be read back.
const _: () = {
    let rows = MAX_SEATS as u64 + LEFT_ROWS.most as u64 + 3600;
    assert!(rows * session_log::LINE_MAX as u64 <= LOG_MAX);
};

impl SessionLogger {
    /// Starts the logger; logs go into `folder`, which is made when the first line is written.
    /// Without a folder nothing is written and records are still handed on.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(folder: Option<PathBuf>) -> Result<Self> {
        let (log, entries) = channel::unbounded();
        let (publish, records) = channel::unbounded();
        let history = Arc::new(History::default());
        let (written, unread) = (Arc::clone(&history), records.clone());
        let thread = thread::Builder::new()
            .name("logger".to_owned())
            .spawn(move || {
                LoggerThread {
                    folder: LogFolder::new(WRITE, folder, session_log::header()),
                    publish,
                    unread,
                    waiting: VecDeque::new(),
                    left: Budget::default(),
                    history: written,
                    pages: HashMap::new(),
                }
                .run(&entries)
            })
            .map_err(Error::io("start the logger thread", "the session log"))?;
        Ok(Self { log: Some(LogHandle { entries: log, history }), records, thread: Some(thread) })
    }

    /// A way to write to it.
    pub fn log_handle(&self) -> LogHandle {
        self.log.clone().expect("the logger has a handle of its own until it is finished")
    }

    /// Waits until everything that has been said so far is written, and ends the log. What a log
    /// says later is lost: a thread that does not end must not hold the end of the program.
    ///
    /// # Errors
    /// The first line that could not be written; the sessions went on without it.
    pub fn finish(mut self) -> Result<()> {
        if let Some(log) = self.log.take() {
            log.send(LogEvent::End);
        }
        let thread = self.thread.take().expect("finished once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl LogHandle {
    /// A session begins to muster.
    pub fn open(&self, mut record: Record) {
        record.machine = Some(machine::stamp().to_owned());
        self.send(LogEvent::Opened(Box::new(record), clock::wall()));
    }

    /// The gate opened at `at`; `sender` says how the bytes are sent.
    pub fn release(&self, session: SessionId, at: OffsetDateTime, sender: String) {
        self.send(LogEvent::Released(session, at, sender));
    }

    /// The way was chosen.
    pub fn choose(&self, session: SessionId, via: Via, choice: AutoChoice) {
        self.send(LogEvent::Chosen(session, via, Box::new(choice)));
    }

    /// One transfer is over.
    pub fn finish(&self, session: SessionId, transfer: Transfer) {
        self.send(LogEvent::Finished(session, Box::new(transfer)));
    }

    /// A client left while seats filled.
    pub fn leave(&self, session: SessionId, transfer: Transfer) {
        self.send(LogEvent::Left(session, Box::new(transfer)));
    }

    /// The session is over.
    pub fn close(&self, session: SessionId) {
        self.send(LogEvent::Closed(session));
    }

    fn send(&self, entry: LogEvent) {
        // The logger ends when the last log is dropped, or when it is told to.
        if self.entries.send(entry).is_err() {
            log::error!("the logger thread has ended before a session");
        }
    }
}

struct LoggerThread {
    folder: LogFolder,
    publish: Sender<Record>,
    /// The other end of `publish`, and how many rows each of the records there has.
    unread: Receiver<Record>,
    waiting: VecDeque<usize>,
    /// What has been used of [`LEFT_ROWS`].
    left: Budget,
    history: Arc<History>,
    pages: HashMap<SessionId, OpenLog>,
}

const WRITE: &str = "write the session log";

/// Why a session's log is there.
const OPENED: &str = "a session opens before anything is said of it";

impl LoggerThread {
    fn run(mut self, entries: &Receiver<LogEvent>) -> Result<()> {
        for entry in entries {
            match entry {
                LogEvent::Opened(record, opened_at) => {
                    let log = LogFile::new(opened_at, record.session);
                    self.pages.insert(record.session, OpenLog { log, unlogged: None });
                    self.history.open(*record);
                }
                LogEvent::Chosen(session, via, choice) => self.history.change(session, |record| {
                    (record.via, record.auto) = (via, Some(*choice));
                }),
                LogEvent::Released(session, at, sender) => self.history.change(session, |record| {
                    (record.released_at, record.sender) = (Some(at), Some(sender));
                }),
                LogEvent::Finished(session, transfer) => self.write(session, *transfer),
                LogEvent::Left(session, transfer) => self.write_left(session, *transfer),
                LogEvent::End => break,
                LogEvent::Closed(session) => self.close(session),
            }
        }
        self.folder.finish()
    }

    /// Writes the row of a client that left before the release, or counts it where such rows are
    /// too many.
    fn write_left(&mut self, session: SessionId, transfer: Transfer) {
        if self.left.spend(LEFT_ROWS, clock::now()) {
            return self.write(session, transfer);
        }
        let page = self.pages.get_mut(&session).expect(OPENED);
        let (count, before) = page.unlogged.take().unzip();
        if let Some(before) = before {
            self.history.count(&before);
        }
        page.unlogged = Some((count.unwrap_or(0) + 1, transfer));
    }

    fn close(&mut self, session: SessionId) {
        let page = self.pages.get_mut(&session).expect(OPENED);
        if let Some((count, mut last)) = page.unlogged.take() {
            if self.history.change(session, |record| record.transfers.is_empty()) {
                // A session that nobody was ready for: not a log for each.
                self.history.count(&last);
            } else {
                let why = format!(
                    "{count} more clients left before the release: too many for a row each"
                );
                (last.name, last.reason) = (String::new(), Some(why));
                self.write(session, last);
            }
        }
        let closed = "a session is closed once, after it opened";
        self.folder.sync(&self.pages.remove(&session).expect(closed).log);
        let mut record = self.history.change(session, |record| record.clone());
        record.transfers.sort_by_key(|t| (t.woke.is_none(), t.seat));
        self.history.close(record.clone());
        self.publish(record);
    }

    /// Hands on the record of a session; nobody needs to take it.
    fn publish(&mut self, record: Record) {
        self.waiting.push_back(record.transfers.len());
        // The thread has a receiver itself.
        let _ = self.publish.send(record);
        let taken = self.waiting.len().saturating_sub(self.unread.len());
        self.waiting.drain(..taken);
        let too_many = |waiting: &VecDeque<usize>| {
            waiting.len() > SESSIONS_KEPT || waiting.iter().sum::<usize>() > ROWS_KEPT
        };
        while self.waiting.len() > 1 && too_many(&self.waiting) {
            let _ = self.unread.try_recv();
            self.waiting.pop_front();
        }
    }

    fn write(&mut self, session: SessionId, transfer: Transfer) {
        let page = self.pages.get_mut(&session).expect(OPENED);
        let line = self.history.change(session, |record| session_log::encode(record, &transfer));
        self.folder.append(&mut page.log, &line);
        self.history.row(session, transfer);
    }
}

#[cfg(test)]
mod tests;
