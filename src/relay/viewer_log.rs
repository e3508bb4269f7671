//! The relay log: one logger thread, one channel, one line per viewer.
//!
//! As in the session log, the thread alone opens, formats and writes, and whoever listens gets a
//! record once it is logged. The file is `<log-dir>/<UTC, YYYY-MM-DD_HH-MM-SS>-relay-<relay>.log`.
//!
//! Both channels are bounded: a control thread waits for a slow disk with its last line, and of the
//! records that nobody takes only the last are kept.

use std::{path::PathBuf, thread::JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::{
    error::{Error, Result},
    net::{
        self,
        logfile::{LogFile, LogFolder},
    },
    proto::relay::{log, log::ViewerRecord},
};

/// The logger thread.
#[derive(Debug)]
pub(super) struct ViewerLogger {
    handle: ViewerLogHandle,
    records: Receiver<ViewerRecord>,
    thread: JoinHandle<Result<()>>,
}

/// The sending side; `None` in its channel ends the log.
#[derive(Clone, Debug)]
pub(super) struct ViewerLogHandle(Sender<Option<ViewerRecord>>);

/// Where records are published, and where those wait that nobody took yet.
type Published<'a> = (&'a Sender<ViewerRecord>, &'a Receiver<ViewerRecord>);

/// Lines that may wait for the disk: one of each viewer of a full house, and as many again.
const LINES_WAITING: usize = 512;

/// Records that are kept for whoever listens. A listener that wants all of them takes them as they
/// come, or reads the log.
const RECORDS_KEPT: usize = 4096;

const WRITE: &str = "write the relay log";

impl ViewerLogger {
    /// Starts the logger, which writes into `folder` if there is one.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(folder: Option<PathBuf>) -> Result<Self> {
        let (entries, waiting_entries) = crossbeam_channel::bounded(LINES_WAITING);
        let (publish, records) = crossbeam_channel::bounded(RECORDS_KEPT);
        let waiting = records.clone();
        let folder = LogFolder::new(WRITE, folder, log::HEADER);
        let thread =
            net::spawn("logger", move || run(folder, None, &waiting_entries, (&publish, &waiting)))
                .map_err(Error::io("start the logger thread", "the relay log"))?;
        Ok(Self { handle: ViewerLogHandle(entries), records, thread })
    }

    /// A way to write to it.
    pub(super) fn handle(&self) -> ViewerLogHandle {
        self.handle.clone()
    }

    /// The records, each once it is in the log; the last [`RECORDS_KEPT`] of those that nobody took.
    pub(super) fn records(&self) -> Receiver<ViewerRecord> {
        self.records.clone()
    }

    /// Waits until all records given so far are written, and ends the log.
    ///
    /// # Errors
    /// The first line that could not be written.
    pub(super) fn finish(self) -> Result<()> {
        // The logger has ended already only if it panicked.
        let _ = self.handle.0.send(None);
        let ended = self.thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl ViewerLogHandle {
    /// Logs `record`; waits where too many wait already. One that comes after the end is lost.
    pub(super) fn write(&self, record: ViewerRecord) {
        let _ = self.0.send(Some(record));
    }
}

/// Writes the records to `log`, or to a new one named by the first of them.
fn run(
    mut folder: LogFolder,
    mut log: Option<LogFile>,
    entries: &Receiver<Option<ViewerRecord>>,
    published: Published<'_>,
) -> Result<()> {
    while let Ok(Some(record)) = entries.recv() {
        let number = format_args!("relay-{}", record.relay);
        let log = log.get_or_insert_with(|| LogFile::new(record.at, number));
        folder.append(log, &record.encode());
        publish_to(published, record);
    }
    folder.finish()
}

/// Publishes `record` to whoever listens; the oldest that nobody took makes room for it.
fn publish_to((to, waiting): Published<'_>, mut record: ViewerRecord) {
    while let Err(TrySendError::Full(back)) = to.try_send(record) {
        let _ = waiting.try_recv();
        record = back;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::{
        net::clock,
        proto::relay::{log::ViewerEnd, reports::SenderReport},
        session::SessionId,
    };

    fn record(viewer: u64) -> ViewerRecord {
        ViewerRecord {
            relay: SessionId(7),
            viewer,
            at: clock::wall(),
            to: ([127, 0, 0, 1], 5000).into(),
            watched: std::time::Duration::from_secs(1),
            sent: SenderReport::default(),
            received: None,
            end: ViewerEnd::Left,
            reason: None,
        }
    }

    #[test]
    fn records_that_nobody_takes_stay_in_the_log_and_leave_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let logger = ViewerLogger::start(Some(folder.path().to_owned())).expect("a thread");
        let (handle, records) = (logger.handle(), logger.records());
        let all = RECORDS_KEPT as u64 + 10;
        for viewer in 1..=all {
            handle.write(record(viewer));
        }
        drop(handle);
        logger.finish().expect("a log");
        let kept: Vec<u64> = records.try_iter().map(|record| record.viewer).collect();
        assert!(kept.into_iter().eq(11..=all));
        let entries = std::fs::read_dir(folder.path()).expect("a folder");
        let paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        assert_eq!(paths.len(), 1);
        let text = std::fs::read_to_string(&paths[0]).expect("text");
        assert_eq!(text.lines().count() as u64, 1 + all);
    }

    #[test]
    fn lines_that_wait_for_a_slow_disk_are_bounded() {
        let logger = ViewerLogger::start(None).expect("a thread");
        assert_eq!(logger.handle().0.capacity(), Some(LINES_WAITING));
        logger.finish().expect("nothing to write");
    }

    #[test]
    fn full_disk_is_an_error_and_every_record_is_published() {
        let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else {
            return;
        };
        let (handle, entries) = crossbeam_channel::unbounded();
        let (publish, waiting) = crossbeam_channel::bounded(RECORDS_KEPT);
        let records = waiting.clone();
        for viewer in [1, 2] {
            handle.send(Some(record(viewer))).expect("open");
        }
        drop(handle);
        let nowhere = LogFolder::new(WRITE, Some("/nowhere".into()), log::HEADER);
        let log = Some(LogFile::of(full));
        let error = run(nowhere, log, &entries, (&publish, &waiting)).expect_err("full");
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(records.try_iter().count(), 2);
    }
}
