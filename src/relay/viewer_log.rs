//! The relay log: one logger thread, one channel, one line per visit.
//!
//! As the session log (`runtime/journal.rs`): the thread alone opens, formats and writes, and who
//! listens is told a visit once it is logged. The file is
//! `<log-dir>/<UTC, YYYY-MM-DD_HH-MM-SS>-relay-<relay>.log`.
//!
//! Both channels are bounded: whose viewer is gone waits for a disk that is slow, and of visits
//! that nobody takes only the last are kept.

use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::thread::JoinHandle;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;

use crate::error::Error;
use crate::error::Result;
use crate::net::logfile;
use crate::net::logfile::LogFile;
use crate::proto::relay::log;
use crate::proto::relay::log::ViewerRecord;

/// The logger thread.
#[derive(Debug)]
pub(super) struct ViewerLogger {
    pen: ViewerLogHandle,
    visits: Receiver<ViewerRecord>,
    thread: JoinHandle<Result<()>>,
}

/// The sending side.
#[derive(Clone, Debug)]
pub(super) struct ViewerLogHandle(Sender<ViewerRecord>);

/// Lines that may wait for the disk: each viewer of a full house once, and as many again that came
/// after. Then a viewer's thread, which has nothing else to do, waits with its last line.
const LINES_WAITING: usize = 512;

/// Visits that are kept for who listens: whoever wants all of them takes them as they come, or
/// reads the log.
const RECORDS_KEPT: usize = 4096;

impl ViewerLogger {
    /// Starts the logger, which writes into `folder` if there is one.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(folder: Option<PathBuf>) -> Result<Self> {
        let (pen, entries) = crossbeam_channel::bounded(LINES_WAITING);
        let (publish, visits) = crossbeam_channel::bounded(RECORDS_KEPT);
        let told = RecordPublisher {
            publish,
            waiting: visits.clone(),
        };
        let thread = thread::Builder::new()
            .name("logger".to_owned())
            .spawn(move || run(folder.as_deref(), &mut LogFile::default(), &entries, &told))
            .map_err(Error::io("start the logger thread", "the relay log"))?;
        Ok(Self {
            pen: ViewerLogHandle(pen),
            visits,
            thread,
        })
    }

    /// A way to write to it.
    pub(super) fn handle(&self) -> ViewerLogHandle {
        self.pen.clone()
    }

    /// The visits, each once it is in the log; the last [`VISITS_KEPT`] of those that nobody took.
    pub(super) fn records(&self) -> Receiver<ViewerRecord> {
        self.visits.clone()
    }

    /// Waits until all pens are gone and all lines are written.
    ///
    /// # Errors
    /// The first line that could not be written.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.pen);
        let ended = self.thread.join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl ViewerLogHandle {
    /// Writes a line; waits where too many wait already.
    pub(super) fn write(&self, visit: ViewerRecord) {
        // The logger ends after all pens; if it panicked, the relay goes on.
        let _ = self.0.send(visit);
    }
}

fn run(
    folder: Option<&Path>,
    log: &mut LogFile,
    entries: &Receiver<ViewerRecord>,
    told: &RecordPublisher,
) -> Result<()> {
    let (mut name, mut failed) = (None, None);
    for visit in entries {
        // Of the first visit.
        let name =
            name.get_or_insert_with(|| logfile::name(visit.at, &format!("relay-{}", visit.relay)));
        if let Some(folder) = folder
            && let Err(error) = log.append(folder, name, &log::header(), &visit.encode())
        {
            ::log::error!(
                "cannot write the relay log in {}: {error}",
                folder.display()
            );
            let failure = Error::io("write the relay log", folder.display())(error);
            failed.get_or_insert(failure);
        }
        told.publish(visit);
    }
    failed.map_or(Ok(()), Err)
}

/// Where visits are told to who listens, if anybody does.
struct RecordPublisher {
    publish: Sender<ViewerRecord>,
    waiting: Receiver<ViewerRecord>,
}

impl RecordPublisher {
    /// Tells `visit`; the oldest that nobody took makes room for it.
    fn publish(&self, mut visit: ViewerRecord) {
        while let Err(TrySendError::Full(back)) = self.publish.try_send(visit) {
            let _ = self.waiting.try_recv();
            visit = back;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;
    use crate::net::clock;
    use crate::proto::relay::log::ViewerEnd;
    use crate::proto::relay::reports::SenderReport;
    use crate::session::SessionId;

    fn visit(viewer: u64) -> ViewerRecord {
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
    fn visits_that_nobody_takes_are_in_the_log_and_not_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = ViewerLogger::start(Some(folder.path().to_owned())).expect("a thread");
        let (pen, visits) = (journal.handle(), journal.records());
        let all = RECORDS_KEPT as u64 + 10;
        for viewer in 1..=all {
            pen.write(visit(viewer));
        }
        drop(pen);
        journal.finish().expect("a log");
        let kept: Vec<u64> = visits.try_iter().map(|visit| visit.viewer).collect();
        assert!(kept.into_iter().eq(11..=all));
        let entries = std::fs::read_dir(folder.path()).expect("a folder");
        let paths: Vec<_> = entries
            .map(|entry| entry.expect("readable").path())
            .collect();
        assert_eq!(paths.len(), 1);
        let text = std::fs::read_to_string(&paths[0]).expect("text");
        assert_eq!(text.lines().count() as u64, 1 + all);
    }

    #[test]
    fn what_waits_for_a_slow_disk_is_bounded() {
        let journal = ViewerLogger::start(None).expect("a thread");
        assert_eq!(journal.handle().0.capacity(), Some(LINES_WAITING));
        journal.finish().expect("nothing to write");
    }

    #[test]
    fn a_full_disk_is_an_error_and_every_visit_is_told_all_the_same() {
        let Ok(full) = OpenOptions::new().append(true).open("/dev/full") else {
            return;
        };
        let (pen, entries) = crossbeam_channel::unbounded();
        let (publish, waiting) = crossbeam_channel::bounded(RECORDS_KEPT);
        let visits = waiting.clone();
        for viewer in [1, 2] {
            pen.send(visit(viewer)).expect("open");
        }
        drop(pen);
        let told = RecordPublisher { publish, waiting };
        let nowhere = Some(Path::new("/nowhere"));
        let error = run(nowhere, &mut LogFile::of(full), &entries, &told).expect_err("full");
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(visits.try_iter().count(), 2);
    }
}
